"""PyTorch without a compiler."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..forms import Forms, chunk_sizes
from ..workloads import Training, Workload
from .torch_action import (
    BY_GRAPH,
    BY_TRANSFORM,
    FORWARD_LAPLACIAN,
    Gradient,
    Parameters,
    loss_function,
    orders,
    velocity_by_transform,
    velocity_in_closed_form,
)
from .torch_sampling import sampling_form
from .torch_training import training_form


def version() -> str:
    return f"PyTorch {torch.__version__}"


def forms(workload: Workload) -> Forms:
    """All ways to the derivatives, and both orders of the boundary rows; or both velocities, by chunk size."""
    if isinstance(workload, Training):
        build = {}
        transforms = {"torch.func": BY_TRANSFORM}
        if workload.is_exact:
            transforms["forward Laplacian"] = FORWARD_LAPLACIAN
        for order, joined in orders(workload).items():
            graph = _gradient_by_graph(workload, joined=joined)
            build[f"autograd.grad, {order}"] = partial(training_form, workload, graph, requires_grad=True)
            for way, derivatives in transforms.items():
                transform = torch.func.grad_and_value(loss_function(workload, derivatives, joined=joined))
                build[f"{way}, {order}"] = partial(
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
    loss_of = loss_function(workload, BY_GRAPH, joined=joined)

    def gradient(parameters: Parameters, interior: Tensor, boundary: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss = loss_of(parameters, interior, boundary)
        return loss, torch.autograd.grad(loss, parameters, materialize_grads=True)

    return gradient
