"""Action Matching in PyTorch: potential, loss, draw, velocity. What the PyTorch peers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

from .. import problem
from ..workloads import Hardware, Network, Sampling, Training

Parameters = list[Tensor]
"""Weight and bias of each layer, in turn."""
Gradient = Callable[[Parameters, Tensor, Tensor], tuple[Tensor, tuple[Tensor, ...] | list[Tensor]]]
"""(parameters, interior, boundary [2·n_boundary, d + 1]) → (loss, gradient). Points carry t
last. Rows of interior are x, t and, if the loss has them, a probe of the Laplacian or the
velocity of the path: [n, d + 1] or [n, 2·d + 1]."""
Action = Callable[[Tensor], Tensor]
"""Points [n, d + 1] → s [n]."""


@dataclass(frozen=True)
class Derivatives:
    """One way to the derivatives of s in the points."""

    slope: Callable[[Action, Tensor], Tensor]
    """(s, points) → gradient [n, d + 1]."""
    along: Callable[[Action, Tensor, Tensor], tuple[Tensor, Tensor]]
    """(s, points, probes [n, d]) → gradient, and εᵀ∇²s ε [n] of the probes ε."""
    laplacian: Callable[[Network, Parameters, Action, Tensor], tuple[Tensor, Tensor]]
    """(network, parameters, s, points) → gradient, and the exact Laplacian [n]."""


def load_parameters(network: Network) -> Parameters:
    """Fresh copies of the initial parameters."""
    return [torch.tensor(array) for array in chain.from_iterable(problem.parameters(network))]


def operand_type(hardware: Hardware) -> torch.dtype:
    """Of what products multiply."""
    return torch.bfloat16 if hardware.precision == "bf16" else torch.float32


def finish(hardware: Hardware) -> None:
    """Waits for the GPU, if there is one."""
    if hardware.is_gpu:
        torch.cuda.synchronize()


def free(hardware: Hardware) -> None:
    """Waits for the GPU, if there is one, and gives its unused memory back to the others."""
    if hardware.is_gpu:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def potential(network: Network, parameters: Parameters, points: Tensor) -> Tensor:
    """s [n] at points [n, d + 1], with hidden layers in the parameters' type."""
    z = linear(points.to(parameters[0].dtype), parameters[0], parameters[1])
    for weight, bias in zip(parameters[2::2], parameters[3::2]):
        z = linear(silu(z), weight, bias)
    z = z.to(points.dtype)
    if network.head == "quadratic":
        return 0.5 * (points[:, : network.dim] - z).square().sum(1)
    return z.squeeze(1)


def loss_function(
    workload: Training, derivatives: Derivatives, *, joined: bool
) -> Callable[[Parameters, Tensor, Tensor], Tensor]:
    """The loss. `joined`: the network sees the rows of both ends at once, not one end after the other."""
    network, dim, kappa = workload.network, workload.network.dim, 0.5 * workload.sigma**2
    dtype = operand_type(workload.hardware)

    def loss(parameters: Parameters, interior: Tensor, boundary: Tensor) -> Tensor:
        operands = [parameter.to(dtype) for parameter in parameters]

        def action(points: Tensor) -> Tensor:
            return potential(network, operands, points)

        points, rest = interior[:, : dim + 1], interior[:, dim + 1 :]
        if workload.is_regression:
            slope = derivatives.slope(action, points)[:, :dim]
            return (0.5 * slope.square() - rest * slope).sum(1).mean()
        ends = boundary.chunk(2)
        s0, s1 = action(boundary).chunk(2) if joined else map(action, ends)
        if workload.is_exact:
            slope, curvature = derivatives.laplacian(network, operands, action, points)
        elif workload.has_probe:
            slope, curvature = derivatives.along(action, points, rest)
        else:
            slope, curvature = derivatives.slope(action, points), 0.0
        terms = slope[:, dim] + 0.5 * slope[:, :dim].square().sum(1) + kappa * curvature
        return s0.mean() - s1.mean() + terms.mean()

    return loss


def _slope_by_transform(action: Action, points: Tensor) -> Tensor:
    return torch.func.grad(lambda points: action(points).sum())(points)


def _along_by_transform(action: Action, points: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
    """Reverse over reverse."""
    dim = probe.shape[1]

    def along(points: Tensor) -> tuple[Tensor, Tensor]:
        slope = _slope_by_transform(action, points)
        return (slope[:, :dim] * probe).sum(), slope

    along_probe, slope = torch.func.grad(along, has_aux=True)(points)
    return slope, (along_probe[:, :dim] * probe).sum(1)


def _slope_by_graph(action: Action, points: Tensor) -> Tensor:
    points = points.detach().requires_grad_()
    return torch.autograd.grad(action(points).sum(), points, create_graph=True)[0]


def _along_by_graph(action: Action, points: Tensor, probe: Tensor) -> tuple[Tensor, Tensor]:
    """Reverse over reverse."""
    points, dim = points.detach().requires_grad_(), probe.shape[1]
    slope = torch.autograd.grad(action(points).sum(), points, create_graph=True)[0]
    along = (slope[:, :dim] * probe).sum()
    return slope, (torch.autograd.grad(along, points, create_graph=True)[0][:, :dim] * probe).sum(1)


def _laplacian_by(along: Callable[[Action, Tensor, Tensor], tuple[Tensor, Tensor]]) -> Callable:
    """The Laplacian as a sum over unit vectors, one second derivative after the other."""

    def laplacian(network: Network, _: Parameters, action: Action, points: Tensor) -> tuple[Tensor, Tensor]:
        units = torch.eye(network.dim, device=points.device)
        slopes, curvatures = zip(*(along(action, points, unit.expand(len(points), -1)) for unit in units))
        return slopes[0], sum(curvatures)

    return laplacian


def _forward_laplacian(
    network: Network, parameters: Parameters, _: Action, points: Tensor
) -> tuple[Tensor, Tensor]:
    """Value, first derivatives and Laplacian of each layer, carried forward (arXiv 2307.08214)."""
    dim, dtype = network.dim, parameters[0].dtype
    a = points.to(dtype)
    first = torch.eye(dim + 1, dtype=dtype, device=points.device).unsqueeze(1).expand(-1, len(points), -1)
    second = torch.zeros_like(a)
    for layer, (weight, bias) in enumerate(zip(parameters[::2], parameters[1::2])):
        if layer > 0:
            sigma = torch.sigmoid(a)
            f1 = sigma * (1 + a * (1 - sigma))
            f2 = sigma * (1 - sigma) * (2 + a * (1 - 2 * sigma))
            second = f1 * second + f2 * first[:dim].square().sum(0)
            first = f1 * first
            a = a * sigma
        a, first, second = linear(a, weight, bias), linear(first, weight), linear(second, weight)
    a, first, second = (values.to(points.dtype) for values in (a, first, second))
    if network.head == "scalar":
        return first.squeeze(2).T, second.squeeze(1)
    # s = ½‖x − o‖²
    residual = points[:, :dim] - a
    of_residual = torch.eye(dim + 1, dim, device=points.device).unsqueeze(1) - first
    slope = (of_residual * residual).sum(2).T
    return slope, of_residual[:dim].square().sum((0, 2)) - (residual * second).sum(1)


BY_GRAPH = Derivatives(_slope_by_graph, _along_by_graph, _laplacian_by(_along_by_graph))
"""By `torch.autograd`, differentiable in turn."""
BY_TRANSFORM = Derivatives(_slope_by_transform, _along_by_transform, _laplacian_by(_along_by_transform))
"""By `torch.func`."""
FORWARD_LAPLACIAN = Derivatives(_slope_by_transform, _along_by_transform, _forward_laplacian)
"""By `torch.func`, but the exact Laplacian written out."""


def ways(workload: Training) -> dict[str, Derivatives]:
    """The derivatives worth trying for a compiled loss, by the end of a form's name."""
    if workload.is_exact:
        return {", reverse over reverse": BY_TRANSFORM, ", forward Laplacian": FORWARD_LAPLACIAN}
    return {"": BY_TRANSFORM}


def orders(workload: Training) -> dict[str, bool]:
    """The orders of the boundary rows, by the form's name; whether they are joined."""
    return {"ends joined": True} if workload.is_regression else {"ends joined": True, "ends apart": False}


class Batches:
    """Draws batches from the snapshots with PyTorch's own generator."""

    def __init__(self, workload: Training) -> None:
        snapshots = torch.tensor(problem.snapshots(workload.network.dim))
        self.n_intervals, self.n_rows = snapshots.shape[0] - 1, snapshots.shape[1]
        self.rows = snapshots.flatten(0, 1)
        self.ends = torch.cat([_at_time(snapshots[0], 0.0), _at_time(snapshots[-1], 1.0)])
        self.has_probes, self.has_velocities = workload.has_probe, workload.is_regression
        self.grid = torch.arange(workload.n_interior) / workload.n_interior
        self.end_offset = torch.tensor([0, self.n_rows]).repeat_interleave(workload.n_boundary)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Interior points on straight lines between independent rows of neighboring snapshots, at times that share
        one random offset; boundary points, those at t = 0 first."""
        on = {"device": self.grid.device}  # a compiled step does not ask for the default
        t = (self.grid + torch.rand(1, **on)) % 1.0
        position = t * self.n_intervals
        left = position.long().clamp(max=self.n_intervals - 1)
        pair = left * self.n_rows + torch.randint(self.n_rows, (2, len(t)), **on)
        before, after = self.rows[pair[0]], self.rows[pair[1] + self.n_rows]
        x = torch.lerp(before, after, (position - left).unsqueeze(1))
        ends = self.ends[self.end_offset + torch.randint(self.n_rows, (len(self.end_offset),), **on)]
        parts = [x, t.unsqueeze(1)]
        if self.has_probes:
            parts.append(torch.randint(2, x.shape, **on) * 2.0 - 1.0)
        if self.has_velocities:
            parts.append((after - before) * self.n_intervals)
        return torch.cat(parts, 1), ends


def check_batch(workload: Training) -> tuple[Tensor, Tensor]:
    """The batch to verify with, in the form and shape that `Batches.draw` returns."""
    batch = {name: torch.tensor(array) for name, array in problem.full_batch(workload).items()}
    parts = [batch["x"], batch["t"].unsqueeze(1)]
    if "probe" in batch:
        parts.append(batch["probe"][0])
    if "velocity" in batch:
        parts.append(batch["velocity"])
    return torch.cat(parts, 1), torch.cat([_at_time(batch["x0"], 0.0), _at_time(batch["x1"], 1.0)])


def _at_time(x: Tensor, t: float) -> Tensor:
    return torch.cat([x, torch.full((len(x), 1), t)], 1)


def named_gradient(loss: Tensor, gradient: list[Tensor]) -> dict[str, object]:
    """`loss` and `grad.<tensor>` as NumPy arrays."""
    arrays = [tensor.detach().cpu().numpy().copy() for tensor in gradient]
    return {"loss": loss.detach().cpu().numpy().copy(), **problem.named(list(zip(arrays[::2], arrays[1::2])), "grad.")}


Velocity = Callable[[Network, Parameters, Tensor, Tensor], Tensor]
"""(network, parameters, x [n, d], t []) → ∇s [n, d]."""


def velocity_by_transform(network: Network, parameters: Parameters, x: Tensor, t: Tensor) -> Tensor:
    """∇s by `torch.func`."""

    def action(x: Tensor) -> Tensor:
        return potential(network, parameters, torch.cat([x, t.expand(len(x), 1)], 1))

    return _slope_by_transform(action, x)


def velocity_in_closed_form(network: Network, parameters: Parameters, x: Tensor, t: Tensor) -> Tensor:
    """∇s by primal and reverse sweeps written out; the column of t acts as a bias."""
    dtype = parameters[0].dtype
    first, *weights = parameters[::2]
    in_x, in_t = first[:, : network.dim], first[:, network.dim]
    z = [torch.addmm(torch.addcmul(parameters[1], in_t, t.to(dtype)), x.to(dtype), in_x.T)]
    for weight, bias in zip(weights, parameters[3::2]):
        z.append(linear(silu(z[-1]), weight, bias))
    output = z.pop().to(x.dtype)
    quadratic = network.head == "quadratic"
    delta = (output - x if quadratic else torch.ones_like(output)).to(dtype)
    for weight in reversed(weights):
        delta = torch.ops.aten.silu_backward(delta @ weight, z.pop())
    velocity = (delta @ in_x).to(x.dtype)
    return velocity + (x - output) if quadratic else velocity


def integration_step(workload: Sampling, velocity: Velocity) -> Callable[[Parameters, Tensor, Tensor], Tensor]:
    """(parameters, x, t) → x one step later."""
    h, network = 1.0 / workload.n_steps, workload.network

    def euler(parameters: Parameters, x: Tensor, t: Tensor) -> Tensor:
        return x + h * velocity(network, parameters, x, t)

    def rk4(parameters: Parameters, x: Tensor, t: Tensor) -> Tensor:
        k1 = velocity(network, parameters, x, t)
        k2 = velocity(network, parameters, x + 0.5 * h * k1, t + 0.5 * h)
        k3 = velocity(network, parameters, x + 0.5 * h * k2, t + 0.5 * h)
        k4 = velocity(network, parameters, x + h * k3, t + h)
        return x + (h / 6.0) * (k1 + 2.0 * (k2 + k3) + k4)

    return {"euler": euler, "rk4": rk4}[workload.method]
