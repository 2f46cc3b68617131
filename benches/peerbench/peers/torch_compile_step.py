"""PyTorch with the whole step compiled: one graph updates the state on a batch and draws the next batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from .. import problem
from ..forms import Form, Forms, chunk_sizes, flop_per_call
from ..workloads import Network, Training, Workload
from .torch_action import (
    Batches,
    Parameters,
    Derivatives,
    check_batch,
    finish,
    free,
    load_parameters,
    loss_function,
    named_gradient,
    orders,
    velocity_in_closed_form,
    ways,
)
from .torch_compiler import compiler
from .torch_sampling import sampling_form


def version() -> str:
    return f"PyTorch {torch.__version__}"


def forms(workload: Workload) -> Forms:
    """Both orders of the boundary rows (on a GPU one, as a CUDA graph) and all ways to the exact
    Laplacian; or a few chunk sizes, as each is compiled for itself."""
    compiled = compiler()
    if isinstance(workload, Training) and workload.hardware.is_gpu:
        return {
            f"a CUDA graph{way}": partial(
                _training_form, workload, compiled, derivatives, joined=True, as_graph=True
            )
            for way, derivatives in ways(workload).items()
        }
    if isinstance(workload, Training):
        return {
            f"{order}{way}": partial(_training_form, workload, compiled, derivatives, joined=joined)
            for order, joined in orders(workload).items()
            for way, derivatives in ways(workload).items()
        }
    return {
        f"chunks of {n}": partial(sampling_form, workload, velocity_in_closed_form, n, compiled)
        for n in chunk_sizes(workload, range(9, 16, 2))
    }


@dataclass
class _State:
    parameters: Parameters
    moment1: Parameters = field(init=False)
    moment2: Parameters = field(init=False)
    ema: Parameters = field(init=False)
    n_steps: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.moment1 = [torch.zeros_like(p) for p in self.parameters]
        self.moment2 = [torch.zeros_like(p) for p in self.parameters]
        self.ema = [p.clone() for p in self.parameters]
        self.n_steps = torch.zeros(())

    def tensors(self) -> tuple[Parameters, Parameters, Parameters, Parameters, Tensor]:
        return self.parameters, self.moment1, self.moment2, self.ema, self.n_steps


def _update(
    parameters: Parameters,
    moment1: Parameters,
    moment2: Parameters,
    ema: Parameters,
    n_steps: Tensor,
    gradient: list[Tensor],
) -> None:
    """Clip, AdamW without decay, moving average; in place."""
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradient]))
    shrink = (problem.CLIP_NORM / (norm + 1e-6)).clamp(max=1.0)
    n_steps.add_(1.0)
    correction1 = 1.0 - problem.BETA1**n_steps
    correction2 = 1.0 - problem.BETA2**n_steps
    for p, m, v, e, g in zip(parameters, moment1, moment2, ema, gradient):
        g = g * shrink
        m.lerp_(g, 1.0 - problem.BETA1)
        v.lerp_(g * g, 1.0 - problem.BETA2)
        p.sub_(problem.LEARNING_RATE / correction1 * m / ((v / correction2).sqrt() + problem.EPSILON))
        e.lerp_(p, 1.0 - problem.EMA_DECAY)


def _training_form(
    workload: Training,
    compiled: Callable[[Callable], Callable],
    derivatives: Derivatives,
    *,
    joined: bool,
    as_graph: bool = False,
) -> Form:
    batches = Batches(workload)
    gradient_and_loss = torch.func.grad_and_value(loss_function(workload, derivatives, joined=joined))

    # The draw of the next batch closes the step, so that the graph that is timed is also the one
    # that is verified.
    @compiled
    def step(
        p: Parameters, m: Parameters, v: Parameters, e: Parameters, n: Tensor, interior: Tensor, boundary: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        gradient, loss = gradient_and_loss(p, interior, boundary)
        _update(p, m, v, e, n, gradient)
        return loss, *batches.draw()

    state, batch = _fresh(workload.network), list(batches.draw())
    n_steps = max(1, round(flop_per_call(workload.hardware) / workload.flop)) if workload.hardware.is_gpu else 1

    @torch.no_grad()
    def one() -> None:
        nonlocal batch
        _, *drawn = step(*state.tensors(), *batch)
        if as_graph:  # which reads where it read before
            torch._foreach_copy_(batch, drawn)
        else:
            batch = drawn

    again = None if as_graph else one

    def compile_() -> None:
        one()
        free(workload.hardware)

    def advance() -> None:
        nonlocal again
        again = again or _captured(one)
        for _ in range(n_steps):
            again()
        finish(workload.hardware)

    @torch.no_grad()
    def check() -> dict[str, object]:
        fresh = _fresh(workload.network)
        loss, *_ = step(*fresh.tensors(), *check_batch(workload))
        # Adam's first moment after one step from zero is (1 − β₁) times the clipped gradient.
        return named_gradient(loss, [m / (1.0 - problem.BETA1) for m in fresh.moment1])

    return Form(advance, float(n_steps), check, compile_)


def _captured(work: Callable[[], None]) -> Callable[[], None]:
    """Does `work` as a CUDA graph. Captured by hand: with `mode="reduce-overhead"` the compiler
    copies inputs into its own graph and leaves out functions that change them, as this one
    changes the state."""
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for _ in range(3):  # compiles, and takes what memory it needs
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def _fresh(network: Network) -> _State:
    return _State(load_parameters(network))
