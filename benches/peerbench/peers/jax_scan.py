"""JAX: one jitted call scans over many steps with donated buffers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from .. import problem
from ..forms import Form, Forms, chunk_sizes, flop_per_call
from ..workloads import Network, Sampling, Training, Workload

Layers = list[tuple[Array, Array]]
Batch = dict[str, Array]


def version() -> str:
    return f"JAX {jax.__version__}"


def forms(workload: Workload) -> Forms:
    """Both orders of the boundary rows, both storage orders of the weights and, with diffusion, both ways to the Laplacian, or on a
    GPU both types of activations; or every chunk size."""
    if isinstance(workload, Training) and workload.hardware.is_gpu:
        types = ("f32", "bf16") if workload.hardware.precision == "bf16" else ("f32",)
        return {
            f"activations {of}": partial(
                _training_form, workload, Layout("[in, out]", jnp.dtype(TYPES[of])), joined=True, forward=True
            )
            for of in types
        }
    if isinstance(workload, Training):
        ways = ("forward over reverse", "reverse over reverse") if workload.sigma else ("",)
        return {
            f"weights {order}, ends {'joined' if joined else 'apart'}{', ' if way else ''}{way}": partial(
                _training_form, workload, Layout(order), joined=joined, forward=way.startswith("forward")
            )
            for order in ("[out, in]", "[in, out]")
            for joined in (True, False)
            for way in ways
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


def _loss_function(
    workload: Training, layout: Layout, *, joined: bool, forward: bool
) -> Callable[[Layers, Batch], Array]:
    n, kappa = workload.n_boundary, 0.5 * workload.sigma**2
    s = partial(layout.potential, workload.network)

    def loss(layers: Layers, batch: Batch) -> Array:
        sum_s = lambda x, t: jnp.sum(s(layers, x, t))
        slopes = lambda x: jax.grad(sum_s, argnums=(0, 1))(x, batch["t"])
        if kappa == 0.0:
            grad_s, ds_dt = slopes(batch["x"])
            terms = ds_dt + 0.5 * jnp.sum(jnp.square(grad_s), axis=1)
        else:
            probe = batch["probe"][0]
            if forward:
                (grad_s, ds_dt), (along_probe, _) = jax.jvp(slopes, (batch["x"],), (probe,))
            else:

                def along(x: Array) -> tuple[Array, tuple[Array, Array]]:
                    grad_s, ds_dt = slopes(x)
                    return jnp.sum(grad_s * probe), (grad_s, ds_dt)

                along_probe, (grad_s, ds_dt) = jax.grad(along, has_aux=True)(batch["x"])
            terms = ds_dt + 0.5 * jnp.sum(jnp.square(grad_s), axis=1) + kappa * jnp.sum(along_probe * probe, axis=1)
        interior = jnp.mean(terms)
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
    x = (1.0 - r) * snapshots[left, from_left] + r * snapshots[left + 1, from_right]
    batch = {"x": x, "t": t, "x0": snapshots[0, first], "x1": snapshots[-1, last]}
    if workload.sigma:
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


def _training_form(workload: Training, layout: Layout, *, joined: bool, forward: bool) -> Form:
    snapshots = jnp.array(problem.snapshots(workload.network.dim))
    loss_and_gradient = jax.value_and_grad(_loss_function(workload, layout, joined=joined, forward=forward))
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

    def advance() -> None:
        nonlocal state, key
        state, key, losses = steps(state, key, snapshots)
        losses.block_until_ready()

    def check() -> dict[str, Any]:
        batch = {name: jnp.array(array) for name, array in problem.batch(workload).items()}
        after, loss = jax.jit(step)(_fresh_state(layout, workload.network), batch)
        # Adam's first moment after one step from zero is (1 − β₁) times the clipped gradient.
        to_gradient = lambda m: jax.device_get(m / (1.0 - problem.BETA1))
        gradient = [(layout.turn(to_gradient(weight)), to_gradient(bias)) for weight, bias in after["moment1"]]
        return {"loss": jax.device_get(loss), **problem.named(gradient, "grad.")}

    return Form(advance, float(n_steps), check)


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

    def advance() -> None:
        run(layers, jnp.array(start)).block_until_ready()

    def check() -> dict[str, Any]:
        batch = problem.batch(workload)
        n = len(batch["x"])
        padded = jnp.array(start).at[:n].set(batch["x"])
        return {
            "velocity": jax.device_get(jax.jit(velocity)(layers, jnp.array(batch["x"]), jnp.array(batch["t"]))),
            "end": jax.device_get(run(layers, padded))[:n],
        }

    return Form(advance, n_particles / workload.n_particles, check)
