"""PyTorch with loss and gradient compiled (`torch.func.grad`); draw, clip, AdamW and average are eager."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from ..forms import Form, Forms
from ..workloads import Training, Workload
from .torch_action import by_transform, loss_function
from .torch_compiler import compiler
from .torch_training import training_form


def version() -> str:
    return f"PyTorch {torch.__version__}"


def forms(workload: Workload) -> Forms:
    """Both orders of the boundary rows."""
    assert isinstance(workload, Training)
    compiled = compiler()
    return {
        "ends joined": partial(_form, workload, compiled, joined=True),
        "ends apart": partial(_form, workload, compiled, joined=False),
    }


def _form(workload: Training, compiled: Callable[[Callable], Callable], *, joined: bool) -> Form:
    gradient_and_loss = compiled(
        torch.func.grad_and_value(loss_function(workload, by_transform, joined=joined))
    )
    return training_form(workload, lambda *batch: gradient_and_loss(*batch)[::-1], requires_grad=False)
