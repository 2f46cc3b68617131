"""Loss, gradient and trajectories in float64 NumPy, by the four sweeps written out: every program
is held against it.

s(x, t) is the action and L = mean s(x₀, 0) − mean s(x₁, 1) + mean(∂ₜs + ½‖∇s‖² + κ Σ εᵀ∇²s ε) with
κ = ½σ² and a probe ε per row, or all unit vectors. Regression on a velocity u has L = mean(½‖∇s‖² −
u·∇s).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import problem
from .workloads import Network, Sampling, Training, Workload

Array = NDArray[np.float64]
Layers = list[tuple[Array, Array]]


def answers(workload: Workload) -> dict[str, Array]:
    """What a program must find: `loss` and `grad.<tensor>` of a training step, as AdamW receives it (clipped), or
    the `velocity` at the batch's points and the `end` of its `x` after all steps of a run."""
    parameters, batch = problem.parameters(workload.network), problem.batch(workload)
    if isinstance(workload, Training):
        return answers_at(workload, parameters, batch)
    layers, batch = _in_f64(parameters, batch)
    return {
        "velocity": _velocity(workload.network, layers, batch["x"], batch["t"]),
        "end": _integrate(workload, layers, batch["x"]),
    }


def answers_at(workload: Training, parameters: problem.Layers, batch: dict[str, problem.Array]) -> dict[str, Array]:
    """The same of a training step at other parameters and rows."""
    loss, gradient = _loss_gradient(workload, *_in_f64(parameters, batch))
    return {"loss": np.array(loss), **clipped(problem.named(gradient, "grad."))}


def _in_f64(parameters: problem.Layers, batch: dict[str, problem.Array]) -> tuple[Layers, dict[str, Array]]:
    layers = [(weight.astype(float), bias.astype(float)) for weight, bias in parameters]
    return layers, {name: array.astype(float) for name, array in batch.items()}


def clipped(gradient: dict[str, Array]) -> dict[str, Array]:
    """The gradient scaled down to the largest allowed norm over all tensors."""
    norm = np.sqrt(sum(np.sum(np.square(tensor)) for tensor in gradient.values()))
    return {name: tensor * min(1.0, problem.CLIP_NORM / norm) for name, tensor in gradient.items()}


def _silu(z: Array) -> tuple[Array, Array, Array, Array]:
    """f, f′, f″, f‴ of f(z) = z·σ(z)."""
    sigma = 1.0 / (1.0 + np.exp(-z))
    slope = sigma * (1.0 - sigma)
    curvature = slope * (1.0 - 2.0 * sigma)
    third = slope * (1.0 - 6.0 * slope)
    return z * sigma, sigma + z * slope, 2.0 * slope + z * curvature, 3.0 * curvature + z * third


@dataclass
class _Rows:
    """Primal and reverse sweeps at `n` rows: per layer the input `a`, f′, f″, f‴ of its output, and δ = ∂s/∂z."""

    a: list[Array]
    f1: list[Array]
    f2: list[Array]
    f3: list[Array]
    delta: list[Array]
    s: Array
    grad_s: Array
    ds_dt: Array


def _sweep(network: Network, layers: Layers, x: Array, t: Array) -> _Rows:
    a, f1, f2, f3 = [np.column_stack([x, t])], [], [], []
    for weight, bias in layers[:-1]:
        f, slope, curvature, third = _silu(a[-1] @ weight.T + bias)
        a.append(f)
        f1.append(slope)
        f2.append(curvature)
        f3.append(third)
    weight, bias = layers[-1]
    output = a[-1] @ weight.T + bias

    if network.head == "quadratic":
        residual = x - output
        s, seed, direct = 0.5 * np.sum(residual**2, axis=1), -residual, residual
    else:
        s, seed, direct = output[:, 0], np.ones_like(output), 0.0
    delta = [seed]
    for (weight, _), slope in zip(reversed(layers[1:]), reversed(f1)):
        delta.append((delta[-1] @ weight) * slope)
    delta.reverse()
    input_gradient = delta[0] @ layers[0][0]
    return _Rows(a, f1, f2, f3, delta, s, input_gradient[:, :-1] + direct, input_gradient[:, -1])


def _loss_gradient(workload: Training, layers: Layers, batch: dict[str, Array]) -> tuple[float, Layers]:
    network, kappa = workload.network, 0.5 * workload.sigma**2
    rows = _sweep(network, layers, batch["x"], batch["t"])
    if workload.is_exact:
        probes = [np.broadcast_to(unit, batch["x"].shape) for unit in np.eye(network.dim)]
    else:
        probes = list(batch.get("probe", []))
    if workload.is_regression:
        direction = np.column_stack([rows.grad_s - batch["velocity"], np.zeros_like(rows.s)])
    else:
        direction = np.column_stack([rows.grad_s, np.ones_like(rows.s)])
    curvature, gradient = _interior_gradient(network, layers, rows, direction, probes, kappa)
    loss = np.mean(0.5 * np.sum(rows.grad_s**2, axis=1) + kappa * curvature)
    if workload.is_regression:
        return float(loss - np.mean(np.sum(batch["velocity"] * rows.grad_s, axis=1))), gradient
    n_boundary = len(batch["x0"])
    first = _sweep(network, layers, batch["x0"], np.zeros(n_boundary))
    last = _sweep(network, layers, batch["x1"], np.ones(n_boundary))
    loss += np.mean(rows.ds_dt) + first.s.mean() - last.s.mean()
    parts = [_boundary_gradient(first, 1.0 / n_boundary), _boundary_gradient(last, -1.0 / n_boundary), gradient]
    return float(loss), [
        (sum(weight for weight, _ in layer), sum(bias for _, bias in layer)) for layer in zip(*parts)
    ]


def _boundary_gradient(rows: _Rows, scale: float) -> Layers:
    """Of scale · Σ s."""
    return [(scale * delta.T @ a, scale * delta.sum(axis=0)) for a, delta in zip(rows.a, rows.delta)]


def _interior_gradient(
    network: Network, layers: Layers, rows: _Rows, direction: Array, probes: list[Array], kappa: float
) -> tuple[Array, Layers]:
    """Σ εᵀ∇²s ε of each row, and the gradient of mean(direction · (∇s, ∂ₜs) + κ Σ εᵀ∇²s ε), `direction` held constant:
    tangent sweeps c along it, with curvature, and e along each (ε, 0), then their adjoints."""
    n = len(rows.s)
    c_in, c = [direction], []
    e_in = [[np.column_stack([probe, np.zeros(n)])] for probe in probes]
    e: list[list[Array]] = [[] for _ in probes]
    curvature = np.zeros(n)
    for layer, (weight, _) in enumerate(layers[:-1]):
        slope, second = rows.f1[layer], rows.f2[layer]
        through = rows.delta[layer + 1] @ layers[layer + 1][0]
        c.append(c_in[-1] @ weight.T)
        squares = np.zeros_like(c[-1])
        for inputs, outputs in zip(e_in, e):
            outputs.append(inputs[-1] @ weight.T)
            squares += outputs[-1] ** 2
            inputs.append(slope * outputs[-1])
        curvature += np.sum(through * second * squares, axis=1)
        c_in.append(slope * c[-1] + kappa * second * squares)
    head = layers[-1][0].T
    o_c, o_e = c_in[-1] @ head, [inputs[-1] @ head for inputs in e_in]
    if network.head == "quadratic":
        curvature = curvature + sum(np.sum((probe - o) ** 2, axis=1) for probe, o in zip(probes, o_e))
        z_bar = [o_c - direction[:, :-1]]
        e_bar = [[-2.0 * kappa * (probe - o)] for probe, o in zip(probes, o_e)]
    else:
        z_bar, e_bar = [np.zeros_like(o_c)], [[np.zeros_like(o)] for o in o_e]
    for layer in range(len(layers) - 1, 0, -1):
        weight, below = layers[layer][0], layer - 1
        f1, f2, f3 = rows.f1[below], rows.f2[below], rows.f3[below]
        through = rows.delta[layer] @ weight
        z = (z_bar[-1] @ weight) * f1 + through * f2 * c[below]
        for bars, outputs in zip(e_bar, e):
            e_a_bar = bars[-1] @ weight
            z += through * kappa * f3 * outputs[below] ** 2 + e_a_bar * f2 * outputs[below]
            bars.append(e_a_bar * f1 + 2.0 * kappa * through * f2 * outputs[below])
        z_bar.append(z)
    gradient = []
    for layer, (z, a, delta, c_a) in enumerate(zip(reversed(z_bar), rows.a, rows.delta, c_in)):
        weight = z.T @ a + delta.T @ c_a
        weight = weight + sum(bars[len(layers) - 1 - layer].T @ inputs[layer] for bars, inputs in zip(e_bar, e_in))
        gradient.append((weight / n, z.sum(axis=0) / n))
    return curvature, gradient


def _velocity(network: Network, layers: Layers, x: Array, t: Array) -> Array:
    return _sweep(network, layers, x, t).grad_s


def _integrate(workload: Sampling, layers: Layers, x: Array) -> Array:
    h = 1.0 / workload.n_steps
    velocity = lambda x, t: _velocity(workload.network, layers, x, np.full(len(x), t))
    for step in range(workload.n_steps):
        t = step * h
        k1 = velocity(x, t)
        if workload.method == "euler":
            x = x + h * k1
            continue
        k2 = velocity(x + 0.5 * h * k1, t + 0.5 * h)
        k3 = velocity(x + 0.5 * h * k2, t + 0.5 * h)
        k4 = velocity(x + h * k3, t + h)
        x = x + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
    return x
