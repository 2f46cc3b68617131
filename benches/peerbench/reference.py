"""Loss, gradient and trajectories in float64 NumPy, by the four sweeps written out: the judge of every program.

Per row, s(x, t) is the action and L = mean s(x₀, 0) − mean s(x₁, 1) + mean(∂ₜs + ½‖∇s‖² + κ εᵀ∇²s ε) with κ = ½σ² and a probe ε.
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
        loss, gradient = _loss_gradient(workload.network, layers, batch, 0.5 * workload.sigma**2)
        return {"loss": np.array(loss), **clipped(problem.named(gradient, "grad."))}
    return {
        "velocity": _velocity(workload.network, layers, batch["x"], batch["t"]),
        "end": _integrate(workload, layers, batch["x"]),
    }


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


def _loss_gradient(
    network: Network, layers: Layers, batch: dict[str, Array], kappa: float
) -> tuple[float, Layers]:
    zeros, ones = np.zeros(len(batch["x0"])), np.ones(len(batch["x1"]))
    first = _sweep(network, layers, batch["x0"], zeros)
    last = _sweep(network, layers, batch["x1"], ones)
    interior = _sweep(network, layers, batch["x"], batch["t"])
    probe = batch["probe"][0] if kappa else np.zeros_like(batch["x"])
    curvature, gradient = _interior_gradient(network, layers, interior, probe, kappa)
    loss = first.s.mean() - last.s.mean()
    loss += np.mean(interior.ds_dt + 0.5 * np.sum(interior.grad_s**2, axis=1) + kappa * curvature)
    parts = [
        _boundary_gradient(first, 1.0 / len(zeros)),
        _boundary_gradient(last, -1.0 / len(ones)),
        gradient,
    ]
    return float(loss), [
        (sum(weight for weight, _ in layer), sum(bias for _, bias in layer)) for layer in zip(*parts)
    ]


def _boundary_gradient(rows: _Rows, scale: float) -> Layers:
    """Of scale · Σ s."""
    return [(scale * delta.T @ a, scale * delta.sum(axis=0)) for a, delta in zip(rows.a, rows.delta)]


def _interior_gradient(
    network: Network, layers: Layers, rows: _Rows, probe: Array, kappa: float
) -> tuple[Array, Layers]:
    """εᵀ∇²s ε of each row, and the gradient of mean(∂ₜs + ½‖∇s‖² + κ εᵀ∇²s ε) = that of mean(∂ₜs + w·∇s + κ εᵀ∇²s ε) at
    w = ∇s held constant: tangent sweeps c along (w, 1) with curvature and e along (ε, 0), then their adjoints."""
    n, drift = len(rows.s), rows.grad_s
    c_in, c = [np.column_stack([drift, np.ones(n)])], []
    e_in, e = [np.column_stack([probe, np.zeros(n)])], []
    curvature = np.zeros(n)
    for layer, (weight, _) in enumerate(layers[:-1]):
        slope, second = rows.f1[layer], rows.f2[layer]
        c.append(c_in[-1] @ weight.T)
        e.append(e_in[-1] @ weight.T)
        curvature += np.sum((rows.delta[layer + 1] @ layers[layer + 1][0]) * second * e[-1] ** 2, axis=1)
        c_in.append(slope * c[-1] + kappa * second * e[-1] ** 2)
        e_in.append(slope * e[-1])
    o_c, o_e = c_in[-1] @ layers[-1][0].T, e_in[-1] @ layers[-1][0].T
    if network.head == "quadratic":
        curvature = curvature + np.sum((probe - o_e) ** 2, axis=1)
        z_bar, e_bar = [o_c - drift], [-2.0 * kappa * (probe - o_e)]
    else:
        z_bar, e_bar = [np.zeros_like(o_c)], [np.zeros_like(o_e)]
    for layer in range(len(layers) - 1, 0, -1):
        weight, below = layers[layer][0], layer - 1
        f1, f2, f3 = rows.f1[below], rows.f2[below], rows.f3[below]
        through, e_a_bar = rows.delta[layer] @ weight, e_bar[-1] @ weight
        from_c = through * (f2 * c[below] + kappa * f3 * e[below] ** 2)
        z_bar.append((z_bar[-1] @ weight) * f1 + from_c + e_a_bar * f2 * e[below])
        e_bar.append(e_a_bar * f1 + 2.0 * kappa * through * f2 * e[below])
    z_bar.reverse()
    e_bar.reverse()
    channels = zip(z_bar, rows.a, rows.delta, c_in, e_bar, e_in)
    return curvature, [
        ((z.T @ a + delta.T @ c + e.T @ e_a) / n, z.sum(axis=0) / n) for z, a, delta, c, e, e_a in channels
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
