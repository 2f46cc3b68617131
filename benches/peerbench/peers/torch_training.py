"""A training step in PyTorch whose loss and gradient come from a given function: the rest is eager."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import problem
from ..forms import Form
from ..workloads import Training
from .torch_action import Batches, Gradient, check_batch, load_parameters, named_gradient


class Trainer:
    """Parameters, optimizer and moving average; AdamW in its fused form, lists of tensors in one call each."""

    def __init__(self, workload: Training, gradient: Gradient, *, requires_grad: bool) -> None:
        self.gradient = gradient
        self.parameters = [p.requires_grad_(requires_grad) for p in load_parameters(workload.network)]
        self.ema = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=problem.LEARNING_RATE,
            betas=(problem.BETA1, problem.BETA2),
            eps=problem.EPSILON,
            weight_decay=0.0,
            fused=True,
        )

    def step(self, interior: Tensor, boundary: Tensor) -> Tensor:
        """One step on a batch; returns the loss. `.grad` is then the clipped gradient."""
        loss, gradient = self.gradient(self.parameters, interior, boundary)
        for parameter, slope in zip(self.parameters, gradient):
            parameter.grad = slope
        torch.nn.utils.clip_grad_norm_(self.parameters, problem.CLIP_NORM, foreach=True)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, self.parameters, 1.0 - problem.EMA_DECAY)
        return loss


def training_form(workload: Training, gradient: Gradient, *, requires_grad: bool) -> Form:
    """One call is one step. `requires_grad`: whether `gradient` needs parameters that autograd follows."""
    trainer = Trainer(workload, gradient, requires_grad=requires_grad)
    batches = Batches(workload)

    def advance() -> None:
        trainer.step(*batches.draw())

    def check() -> dict[str, object]:
        fresh = Trainer(workload, gradient, requires_grad=requires_grad)
        loss = fresh.step(*check_batch(workload))
        return named_gradient(loss, [parameter.grad for parameter in fresh.parameters])

    return Form(advance, 1.0, check)
