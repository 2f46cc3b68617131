"""A sampling run in PyTorch, chunk after chunk of particles."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import problem
from ..forms import Form
from ..workloads import Sampling
from .torch_action import Parameters, Velocity, finish, free, integration_step, load_parameters, operand_type

Step = Callable[[Parameters, Tensor, Tensor], Tensor]


def sampling_form(
    workload: Sampling, velocity: Velocity, n_particles: int, compiled: Callable[[Callable], Callable] | None = None
) -> Form:
    """One call moves `n_particles` from t = 0 to t = 1. `compiled` wraps the step, if given."""
    step = integration_step(workload, velocity)
    step = compiled(step) if compiled else step
    dtype = operand_type(workload.hardware)
    parameters = [parameter.to(dtype) for parameter in load_parameters(workload.network)]
    times = [torch.tensor(k / workload.n_steps) for k in range(workload.n_steps)]
    start = torch.tensor(problem.start(workload.network.dim, n_particles))

    @torch.no_grad()
    def run(x: Tensor) -> Tensor:
        for t in times:
            x = step(parameters, x, t)
        return x

    def advance() -> None:
        run(start)
        finish(workload.hardware)

    @torch.no_grad()
    def check() -> dict[str, object]:
        batch = {name: torch.tensor(array) for name, array in problem.batch(workload).items()}
        # One row at a time, as every row has its own time and the velocity of a run takes one for
        # all.
        rows = [
            velocity(workload.network, parameters, x.unsqueeze(0), t) for x, t in zip(batch["x"], batch["t"])
        ]
        padded = torch.cat([batch["x"], start[len(batch["x"]) :]])
        return {"velocity": torch.cat(rows).cpu().numpy(), "end": run(padded)[: len(batch["x"])].cpu().numpy()}

    @torch.no_grad()
    def compile_() -> None:
        step(parameters, start, times[0])
        free(workload.hardware)

    return Form(advance, n_particles / workload.n_particles, check, compile_)
