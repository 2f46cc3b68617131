"""PyTorch with loss and gradient compiled (`torch.func.grad`); draw, clip, AdamW and average are eager."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from ..forms import Form, Forms
from ..workloads import Training, Workload
from .torch_action import Derivatives, loss_function, orders, ways
from .torch_compiler import compiler
from .torch_training import training_form


def version() -> str:
    return f"PyTorch {torch.__version__}"


def forms(workload: Workload) -> Forms:
    """Both orders of the boundary rows, and all ways to the exact Laplacian."""
    assert isinstance(workload, Training)
    compiled = compiler()
    return {
        f"{order}{way}": partial(_form, workload, compiled, derivatives, joined=joined)
        for order, joined in orders(workload).items()
        for way, derivatives in ways(workload).items()
    }


def _form(
    workload: Training, compiled: Callable[[Callable], Callable], derivatives: Derivatives, *, joined: bool
) -> Form:
    gradient_and_loss = compiled(
        torch.func.grad_and_value(loss_function(workload, derivatives, joined=joined))
    )
    form = training_form(workload, lambda *batch: gradient_and_loss(*batch)[::-1], requires_grad=False)
    return replace(form, compile=form.advance)
