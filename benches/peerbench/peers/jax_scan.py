"""JAX: one jitted call scans over many steps with donated buffers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.jet import jet

from .. import problem
from ..forms import Form, Forms, chunk_sizes, flop_per_call
from ..workloads import Network, Sampling, Training, Workload

Layers = list[tuple[Array, Array]]
Batch = dict[str, Array]


def version() -> str:
    return f"JAX {jax.__version__}"


def forms(workload: Workload) -> Forms:
    """All ways to the Laplacian; of each both orders of the boundary rows and both storage
    orders of the weights, or on a GPU both types of activations. For sampling every chunk size."""
    if isinstance(workload, Training) and workload.hardware.is_gpu:
        types = ("f32", "bf16") if workload.hardware.precision == "bf16" else ("f32",)
        return {
            f"activations {of}{way}": partial(
                _training_form, workload, Layout("[in, out]", jnp.dtype(TYPES[of])), derivatives, joined=True
            )
            for of in types
            for way, derivatives in ways(workload).items()
        }
    if isinstance(workload, Training):
        orders = {", ends joined": True, ", ends apart": False} if workload.n_boundary else {"": True}
        return {
            f"weights {storage}{order}{way}": partial(
                _training_form, workload, Layout(storage), derivatives, joined=joined
            )
            for storage in ("[out, in]", "[in, out]")
            for order, joined in orders.items()
            for way, derivatives in ways(workload).items()
        }
    orders = ("[in, out]",) if workload.hardware.is_gpu else ("[out, in]", "[in, out]")
    activations = jnp.dtype(TYPES[workload.hardware.precision])
    return {
        f"weights {order}, chunks of {n}": partial(_sampling_form, workload, Layout(order, activations), n)
        for order in orders
        for n in chunk_sizes(workload)
    }


TYPES = {"f32": "float32", "tf32": "float32", "bf16": "bfloat16"}


class Layout:
    """In which order the weights are stored, and in which type the activations."""

    def __init__(self, order: str, activations: jnp.dtype = jnp.dtype("float32")) -> None:
        self.transposed = order == "[in, out]"
        self.activations = activations

    def load(self, network: Network) -> Layers:
        """The initial parameters."""
        return [(jnp.array(self.turn(weight)), jnp.array(bias)) for weight, bias in problem.parameters(network)]

    def turn(self, weight: Any) -> Any:
        """From [out, in] to this order, or back."""
        return weight.T if self.transposed else weight

    def potential(self, network: Network, layers: Layers, x: Array, t: Array) -> Array:
        """s [n] at x [n, d], t [n] or []. The column of t is added by hand: it needs no product."""
        of = self.activations
        (first, bias), *rest = ((weight.astype(of), bias) for weight, bias in layers)
        in_x, in_t = (first[:-1], first[-1]) if self.transposed else (first[:, :-1].T, first[:, -1])
        z = x.astype(of) @ in_x + (t[..., None] * in_t + bias)
        for weight, bias in rest:
            z = jax.nn.silu(z.astype(of)) @ (weight if self.transposed else weight.T) + bias
        if network.head == "quadratic":
            return 0.5 * jnp.sum(jnp.square(x - z), axis=1)
        return z[:, 0]


@dataclass(frozen=True)
class Rows:
    """What derivatives are made of: the action at interior rows."""

    network: Network
    layout: Layout
    layers: Layers
    x: Array
    t: Array
    probe: Array | None
    """[n, d] of the Laplacian, if it is estimated."""

    def s(self, x: Array) -> Array:
        """s [n] at other x."""
        return self.layout.potential(self.network, self.layers, x, self.t)

    def slopes(self, x: Array) -> tuple[Array, Array]:
        """∇s [n, d] and ∂ₜs [n] at other x, by reverse mode."""
        sum_s = lambda x, t: jnp.sum(self.layout.potential(self.network, self.layers, x, t))
        return jax.grad(sum_s, argnums=(0, 1))(x, self.t)


Derivatives = Callable[[Rows], tuple[Array, Array, Array]]
"""∇s [n, d], ∂ₜs [n], and εᵀ∇²s ε or Δs [n], or 0."""


def ways(workload: Training) -> dict[str, Derivatives]:
    """The ways to the Laplacian, if there is one, by the end of a form's name."""
    if workload.is_exact:
        return {
            ", forward over reverse": _exact_forward_over_reverse,
            ", Taylor mode": _exact_taylor,
            ", collapsed Taylor mode": partial(_collapsed, with_time=False),
            ", forward Laplacian": partial(_collapsed, with_time=True),
        }
    if workload.has_probe:
        return {
            ", forward over reverse": _forward_over_reverse,
            ", reverse over reverse": _reverse_over_reverse,
            ", jet": _taylor,
        }
    return {"": _first_derivatives}


def _first_derivatives(rows: Rows) -> tuple[Array, Array, Array]:
    return *rows.slopes(rows.x), jnp.zeros(())


def _forward_over_reverse(rows: Rows) -> tuple[Array, Array, Array]:
    (grad_s, ds_dt), (along_probe, _) = jax.jvp(rows.slopes, (rows.x,), (rows.probe,))
    return grad_s, ds_dt, jnp.sum(along_probe * rows.probe, axis=1)


def _reverse_over_reverse(rows: Rows) -> tuple[Array, Array, Array]:
    def along(x: Array) -> tuple[Array, tuple[Array, Array]]:
        grad_s, ds_dt = rows.slopes(x)
        return jnp.sum(grad_s * rows.probe), (grad_s, ds_dt)

    along_probe, (grad_s, ds_dt) = jax.grad(along, has_aux=True)(rows.x)
    return grad_s, ds_dt, jnp.sum(along_probe * rows.probe, axis=1)


def _taylor(rows: Rows) -> tuple[Array, Array, Array]:
    """The second Taylor coefficient along the probe; first derivatives by reverse mode."""
    _, (_, second) = jet(rows.s, (rows.x,), ((rows.probe, jnp.zeros_like(rows.x)),))
    return *rows.slopes(rows.x), second


def _unit_vectors(rows: Rows) -> Array:
    """[d, n, d]."""
    n, dim = rows.x.shape
    return jnp.broadcast_to(jnp.eye(dim)[:, None, :], (dim, n, dim))


def _exact_forward_over_reverse(rows: Rows) -> tuple[Array, Array, Array]:
    (grad_s, ds_dt), along = jax.linearize(rows.slopes, rows.x)
    curvatures = jax.vmap(lambda unit: jnp.sum(along(unit)[0] * unit, axis=1))(_unit_vectors(rows))
    return grad_s, ds_dt, jnp.sum(curvatures, axis=0)


def _exact_taylor(rows: Rows) -> tuple[Array, Array, Array]:
    """The second Taylor coefficients along all unit vectors, and along them ∇s; ∂ₜs by reverse mode."""

    def along(unit: Array) -> tuple[Array, Array]:
        _, (first, second) = jet(rows.s, (rows.x,), ((unit, jnp.zeros_like(unit)),))
        return first, second

    firsts, seconds = jax.vmap(along)(_unit_vectors(rows))
    return firsts.T, rows.slopes(rows.x)[1], jnp.sum(seconds, axis=0)


def _collapsed(rows: Rows, *, with_time: bool) -> tuple[Array, Array, Array]:
    """Value, first coefficients along the unit vectors and the *sum* of the second ones, carried
    from layer to layer. Without time this is collapsed Taylor mode (arXiv 2505.13644), with ∂ₜs
    by reverse mode; with time the forward Laplacian (arXiv 2307.08214), where nothing is done in
    reverse."""
    layout, of = rows.layout, rows.layout.activations
    n, dim = rows.x.shape
    turned = [(weight if layout.transposed else weight.T, bias) for weight, bias in rows.layers]
    (weight, bias), *rest = ((weight.astype(of), bias) for weight, bias in turned)
    n_first = dim + 1 if with_time else dim
    a = rows.x.astype(of) @ weight[:dim] + (rows.t[:, None] * weight[dim] + bias)
    # Coordinates are linear: the first coefficients are rows of the weight, the second ones 0.
    first = jnp.broadcast_to(weight[:n_first, None, :], (n_first, n, weight.shape[1]))
    second = jnp.zeros_like(a)
    for weight, bias in rest:
        sigma = jax.nn.sigmoid(a)
        f1 = sigma * (1.0 + a * (1.0 - sigma))
        f2 = sigma * (1.0 - sigma) * (2.0 + a * (1.0 - 2.0 * sigma))
        second = f1 * second + f2 * jnp.sum(jnp.square(first[:dim]), axis=0)
        first, a = f1 * first, a * sigma
        a, first, second = a.astype(of) @ weight + bias, first.astype(of) @ weight, second.astype(of) @ weight
    if rows.network.head == "quadratic":
        # s = ½‖x − o‖²
        residual = rows.x - a
        of_residual = jnp.eye(n_first, dim)[:, None, :] - first
        slopes = jnp.sum(of_residual * residual, axis=2)
        curvature = jnp.sum(jnp.square(of_residual[:dim]), axis=(0, 2)) - jnp.sum(residual * second, axis=1)
    else:
        slopes, curvature = first[:, :, 0], second[:, 0]
    ds_dt = slopes[dim] if with_time else rows.slopes(rows.x)[1]
    return slopes[:dim].T, ds_dt, curvature


def _loss_function(
    workload: Training, layout: Layout, derivatives: Derivatives, *, joined: bool
) -> Callable[[Layers, Batch], Array]:
    n, kappa = workload.n_boundary, 0.5 * workload.sigma**2
    s = partial(layout.potential, workload.network)

    def loss(layers: Layers, batch: Batch) -> Array:
        probe = batch["probe"][0] if workload.has_probe else None
        grad_s, ds_dt, curvature = derivatives(Rows(workload.network, layout, layers, batch["x"], batch["t"], probe))
        if workload.is_regression:
            return jnp.mean(jnp.sum((0.5 * grad_s - batch["velocity"]) * grad_s, axis=1))
        interior = jnp.mean(ds_dt + 0.5 * jnp.sum(jnp.square(grad_s), axis=1) + kappa * curvature)
        if joined:
            t = jnp.repeat(jnp.array([0.0, 1.0]), n)
            ends = s(layers, jnp.concatenate([batch["x0"], batch["x1"]]), t)
            return jnp.mean(ends[:n]) - jnp.mean(ends[n:]) + interior
        s0, s1 = s(layers, batch["x0"], jnp.array(0.0)), s(layers, batch["x1"], jnp.array(1.0))
        return jnp.mean(s0) - jnp.mean(s1) + interior

    return loss


def _draw(workload: Training, snapshots: Array, key: Array) -> Batch:
    """Interior points on straight lines between independent rows of neighboring snapshots, at times that share one
    random offset; rows of the first and the last snapshot."""
    n, n_boundary = workload.n_interior, workload.n_boundary
    n_intervals, n_rows = snapshots.shape[0] - 1, snapshots.shape[1]
    offset_key, row_key, probe_key = jax.random.split(key, 3)
    t = (jnp.arange(n) / n + jax.random.uniform(offset_key)) % 1.0
    position = t * n_intervals
    left = jnp.minimum(position.astype(int), n_intervals - 1)
    r = (position - left)[:, None]
    rows = jax.random.randint(row_key, (2 * (n + n_boundary),), 0, n_rows)
    from_left, from_right, first, last = jnp.split(rows, [n, 2 * n, 2 * n + n_boundary])
    before, after = snapshots[left, from_left], snapshots[left + 1, from_right]
    x = (1.0 - r) * before + r * after
    batch = {"x": x, "t": t}
    if workload.is_regression:
        return {**batch, "velocity": (after - before) * n_intervals}
    batch |= {"x0": snapshots[0, first], "x1": snapshots[-1, last]}
    if workload.has_probe:
        batch["probe"] = jax.random.rademacher(probe_key, (1, *x.shape), dtype=jnp.float32)
    return batch


def _fresh_state(layout: Layout, network: Network) -> dict[str, Any]:
    layers = layout.load(network)
    return {
        "layers": layers,
        "moment1": jax.tree.map(jnp.zeros_like, layers),
        "moment2": jax.tree.map(jnp.zeros_like, layers),
        "ema": jax.tree.map(jnp.copy, layers),
        "n_steps": jnp.zeros(()),
    }


def _update(state: dict[str, Any], gradient: Layers) -> dict[str, Any]:
    """Clip, AdamW without decay, moving average."""
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient)))
    shrink = jnp.minimum(1.0, problem.CLIP_NORM / (norm + 1e-6))
    n_steps = state["n_steps"] + 1.0
    correction1, correction2 = 1.0 - problem.BETA1**n_steps, 1.0 - problem.BETA2**n_steps
    average = lambda decay: lambda old, new: old + (1.0 - decay) * (new - old)
    gradient = jax.tree.map(lambda g: g * shrink, gradient)
    moment1 = jax.tree.map(average(problem.BETA1), state["moment1"], gradient)
    moment2 = jax.tree.map(average(problem.BETA2), state["moment2"], jax.tree.map(jnp.square, gradient))
    layers = jax.tree.map(
        lambda p, m, v: p
        - problem.LEARNING_RATE / correction1 * m / (jnp.sqrt(v / correction2) + problem.EPSILON),
        state["layers"],
        moment1,
        moment2,
    )
    ema = jax.tree.map(average(problem.EMA_DECAY), state["ema"], layers)
    return {"layers": layers, "moment1": moment1, "moment2": moment2, "ema": ema, "n_steps": n_steps}


def _training_form(workload: Training, layout: Layout, derivatives: Derivatives, *, joined: bool) -> Form:
    snapshots = jnp.array(problem.snapshots(workload.network.dim))
    loss_and_gradient = jax.value_and_grad(_loss_function(workload, layout, derivatives, joined=joined))
    n_steps = max(1, round(flop_per_call(workload.hardware) / workload.flop))

    def step(state: dict[str, Any], batch: Batch) -> tuple[dict[str, Any], Array]:
        loss, gradient = loss_and_gradient(state["layers"], batch)
        return _update(state, gradient), loss

    @partial(jax.jit, donate_argnums=(0, 1))
    def steps(state: dict[str, Any], key: Array, snapshots: Array) -> tuple[dict[str, Any], Array, Array]:
        def body(carry: tuple[dict[str, Any], Array], _: None) -> tuple[tuple[dict[str, Any], Array], Array]:
            state, key = carry
            key, batch_key = jax.random.split(key)
            state, loss = step(state, _draw(workload, snapshots, batch_key))
            return (state, key), loss

        (state, key), losses = lax.scan(body, (state, key), length=n_steps)
        return state, key, losses

    state, key = _fresh_state(layout, workload.network), jax.random.key(1)
    compiled = None

    def compile_() -> None:
        nonlocal compiled
        compiled = steps.lower(state, key, snapshots).compile()

    def advance() -> None:
        nonlocal state, key
        state, key, losses = compiled(state, key, snapshots)
        losses.block_until_ready()

    def check() -> dict[str, Any]:
        batch = {name: jnp.array(array) for name, array in problem.full_batch(workload).items()}
        after, loss = jax.jit(step)(_fresh_state(layout, workload.network), batch)
        # Adam's first moment after one step from zero is (1 − β₁) times the clipped gradient.
        to_gradient = lambda m: jax.device_get(m / (1.0 - problem.BETA1))
        gradient = [(layout.turn(to_gradient(weight)), to_gradient(bias)) for weight, bias in after["moment1"]]
        return {"loss": jax.device_get(loss), **problem.named(gradient, "grad.")}

    return Form(advance, float(n_steps), check, compile_)


def _sampling_form(workload: Sampling, layout: Layout, n_particles: int) -> Form:
    h, n_steps = 1.0 / workload.n_steps, workload.n_steps
    s = partial(layout.potential, workload.network)

    def velocity(layers: Layers, x: Array, t: Array) -> Array:
        return jax.grad(lambda x: jnp.sum(s(layers, x, t)))(x)

    def step(layers: Layers, x: Array, t: Array) -> Array:
        k1 = velocity(layers, x, t)
        if workload.method == "euler":
            return x + h * k1
        k2 = velocity(layers, x + 0.5 * h * k1, t + 0.5 * h)
        k3 = velocity(layers, x + 0.5 * h * k2, t + 0.5 * h)
        k4 = velocity(layers, x + h * k3, t + h)
        return x + (h / 6.0) * (k1 + 2.0 * (k2 + k3) + k4)

    @partial(jax.jit, donate_argnums=1)
    def run(layers: Layers, x: Array) -> Array:
        return lax.fori_loop(0, n_steps, lambda k, x: step(layers, x, k * h), x)

    layers = layout.load(workload.network)
    start = problem.start(workload.network.dim, n_particles)
    compiled = None

    def compile_() -> None:
        nonlocal compiled
        compiled = run.lower(layers, jnp.array(start)).compile()

    def advance() -> None:
        compiled(layers, jnp.array(start)).block_until_ready()

    def check() -> dict[str, Any]:
        batch = problem.batch(workload)
        n = len(batch["x"])
        padded = jnp.array(start).at[:n].set(batch["x"])
        return {
            "velocity": jax.device_get(jax.jit(velocity)(layers, jnp.array(batch["x"]), jnp.array(batch["t"]))),
            "end": jax.device_get(compiled(layers, padded))[:n],
        }

    return Form(advance, n_particles / workload.n_particles, check, compile_)
