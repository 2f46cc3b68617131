"""PyTorch without a compiler."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..forms import Forms, chunk_sizes
from ..workloads import Training, Workload
from .torch_action import (
    Gradient,
    Parameters,
    by_graph,
    by_transform,
    loss_function,
    velocity_by_transform,
    velocity_in_closed_form,
)
from .torch_sampling import sampling_form
from .torch_training import training_form


def version() -> str:
    return f"PyTorch {torch.__version__}"


def forms(workload: Workload) -> Forms:
    """Both ways to a second derivative, and both orders of the boundary rows; or both velocities, by chunk size."""
    if isinstance(workload, Training):
        build = {}
        for joined in (True, False):
            ends = "ends joined" if joined else "ends apart"
            graph = _gradient_by_graph(workload, joined=joined)
            transform = torch.func.grad_and_value(loss_function(workload, by_transform, joined=joined))
            build[f"autograd.grad, {ends}"] = partial(training_form, workload, graph, requires_grad=True)
            build[f"torch.func, {ends}"] = partial(
                training_form, workload, lambda *batch, f=transform: f(*batch)[::-1], requires_grad=False
            )
        return build
    velocities = {"closed form": velocity_in_closed_form, "torch.func": velocity_by_transform}
    return {
        f"{name}, chunks of {n}": partial(sampling_form, workload, velocity, n)
        for name, velocity in velocities.items()
        for n in chunk_sizes(workload)
    }


def _gradient_by_graph(workload: Training, *, joined: bool) -> Gradient:
    loss_of = loss_function(workload, by_graph, joined=joined)

    def gradient(parameters: Parameters, interior: Tensor, boundary: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss = loss_of(parameters, interior, boundary)
        return loss, torch.autograd.grad(loss, parameters)

    return gradient
