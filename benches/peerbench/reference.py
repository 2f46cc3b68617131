"""Loss, gradient and trajectories in float64 NumPy, by the four sweeps written out: the judge of every program.

Per row, s(x, t) is the action and L = mean s(x₀, 0) − mean s(x₁, 1) + mean(∂ₜs + ½‖∇s‖²).
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
    layers = [(weight.astype(float), bias.astype(float)) for weight, bias in problem.parameters(workload.network)]
    batch = {name: array.astype(float) for name, array in problem.batch(workload).items()}
    if isinstance(workload, Training):
        loss, gradient = _loss_gradient(workload.network, layers, batch)
        return {"loss": np.array(loss), **clipped(problem.named(gradient, "grad."))}
    return {
        "velocity": _velocity(workload.network, layers, batch["x"], batch["t"]),
        "end": _integrate(workload, layers, batch["x"]),
    }


def clipped(gradient: dict[str, Array]) -> dict[str, Array]:
    """The gradient scaled down to the largest allowed norm over all tensors."""
    norm = np.sqrt(sum(np.sum(np.square(tensor)) for tensor in gradient.values()))
    return {name: tensor * min(1.0, problem.CLIP_NORM / norm) for name, tensor in gradient.items()}


def _silu(z: Array) -> tuple[Array, Array, Array]:
    """f, f′, f″ of f(z) = z·σ(z)."""
    sigma = 1.0 / (1.0 + np.exp(-z))
    slope = sigma * (1.0 - sigma)
    return z * sigma, sigma + z * slope, slope * (2.0 + z * (1.0 - 2.0 * sigma))


@dataclass
class _Rows:
    """Primal and reverse sweeps at `n` rows: per layer the input `a`, f′, f″ of its output, and δ = ∂s/∂z."""

    a: list[Array]
    f1: list[Array]
    f2: list[Array]
    delta: list[Array]
    s: Array
    grad_s: Array
    ds_dt: Array


def _sweep(network: Network, layers: Layers, x: Array, t: Array) -> _Rows:
    a, f1, f2 = [np.column_stack([x, t])], [], []
    for weight, bias in layers[:-1]:
        f, slope, curvature = _silu(a[-1] @ weight.T + bias)
        a.append(f)
        f1.append(slope)
        f2.append(curvature)
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
    return _Rows(a, f1, f2, delta, s, input_gradient[:, :-1] + direct, input_gradient[:, -1])


def _loss_gradient(network: Network, layers: Layers, batch: dict[str, Array]) -> tuple[float, Layers]:
    zeros, ones = np.zeros(len(batch["x0"])), np.ones(len(batch["x1"]))
    first = _sweep(network, layers, batch["x0"], zeros)
    last = _sweep(network, layers, batch["x1"], ones)
    interior = _sweep(network, layers, batch["x"], batch["t"])
    loss = first.s.mean() - last.s.mean() + np.mean(interior.ds_dt + 0.5 * np.sum(interior.grad_s**2, axis=1))
    parts = [
        _boundary_gradient(first, 1.0 / len(zeros)),
        _boundary_gradient(last, -1.0 / len(ones)),
        _interior_gradient(network, layers, interior),
    ]
    return float(loss), [
        (sum(weight for weight, _ in layer), sum(bias for _, bias in layer)) for layer in zip(*parts)
    ]


def _boundary_gradient(rows: _Rows, scale: float) -> Layers:
    """Of scale · Σ s."""
    return [(scale * delta.T @ a, scale * delta.sum(axis=0)) for a, delta in zip(rows.a, rows.delta)]


def _interior_gradient(network: Network, layers: Layers, rows: _Rows) -> Layers:
    """Of mean(∂ₜs + ½‖∇s‖²) = gradient of mean(∂ₜs + w·∇s) at w = ∇s held constant: tangent and adjoint sweeps."""
    n, drift = len(rows.s), rows.grad_s
    tangent, c = [np.column_stack([drift, np.ones(n)])], []
    for (weight, _), slope in zip(layers[:-1], rows.f1):
        c.append(tangent[-1] @ weight.T)
        tangent.append(slope * c[-1])
    output_tangent = tangent[-1] @ layers[-1][0].T

    z_bar = [output_tangent - drift if network.head == "quadratic" else np.zeros_like(output_tangent)]
    for layer in range(len(layers) - 1, 0, -1):
        weight = layers[layer][0]
        through_tangent = (rows.delta[layer] @ weight) * rows.f2[layer - 1] * c[layer - 1]
        z_bar.append((z_bar[-1] @ weight) * rows.f1[layer - 1] + through_tangent)
    z_bar.reverse()
    return [
        ((z.T @ a + delta.T @ t) / n, z.sum(axis=0) / n)
        for z, a, delta, t in zip(z_bar, rows.a, rows.delta, tangent)
    ]


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
