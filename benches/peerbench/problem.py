"""The arrays every program works on: snapshots, parameters, a batch to verify with, particles at the start.

All are f32 and follow from the workload alone, so each process makes its own copy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from .workloads import Network, Sampling, Training, Workload

Array = NDArray[np.float32]
Layers = list[tuple[Array, Array]]
"""Weight [out, in] and bias [out] of each layer."""

N_SNAPSHOTS = 5
ROWS_PER_SNAPSHOT = 2000
LEAST_CHECKED, MOST_CHECKED = 16, 64

LEARNING_RATE, BETA1, BETA2, EPSILON = 1e-4, 0.9, 0.999, 1e-8
CLIP_NORM = 1.0
EMA_DECAY = 0.9999


def _generator(purpose: int) -> np.random.Generator:
    return np.random.default_rng([20_221_006_662, purpose])


def snapshots(dim: int) -> Array:
    """Standard normal rows [N_SNAPSHOTS, ROWS_PER_SNAPSHOT, dim] at equally spaced times from 0 to 1."""
    return _generator(0).standard_normal((N_SNAPSHOTS, ROWS_PER_SNAPSHOT, dim), dtype=np.float32)


def parameters(network: Network) -> Layers:
    """Weights uniform with variance 1 / fan-in, small normal biases: no symmetry that could hide a swap."""
    generator = _generator(1)
    layers: Layers = []
    for n_in, n_out in pairwise(network.widths):
        bound = (3.0 / n_in) ** 0.5
        weight = generator.uniform(-bound, bound, (n_out, n_in)).astype(np.float32)
        layers.append((weight, 0.1 * generator.standard_normal(n_out, dtype=np.float32)))
    return layers


def n_checked(workload: Workload) -> int:
    """Different rows of the batch that programs are verified with: few, as the reference is slow. Those of a training
    step divide its rows, so that repeating them fills a step of the timed shape, and nothing compiles twice."""
    if isinstance(workload, Sampling):
        return MOST_CHECKED
    n = workload.n_interior
    divisor = max(k for k in range(1, min(n, MOST_CHECKED) + 1) if n % k == 0)
    return divisor if divisor >= LEAST_CHECKED else n


def full_batch(workload: Training) -> dict[str, Array]:
    """`batch`, its rows repeated to those of a step: loss and gradient are the same."""
    times = workload.n_interior // n_checked(workload)
    repeat = lambda array: np.concatenate([array] * times, axis=max(array.ndim - 2, 0))
    return {name: repeat(array) for name, array in batch(workload).items()}


def batch(workload: Workload) -> dict[str, Array]:
    """`x` [n, d], `t` [n] for n = `n_checked`, and for a loss with boundary rows as many `x0` and `x1`; no two alike in
    law. With one probe per row also `probe` [1, n, d] of independent signs, with regression `velocity` [n, d]."""
    n = n_boundary = n_checked(workload)
    if isinstance(workload, Training) and workload.is_regression:
        n_boundary = 0
    generator, dim = _generator(2), workload.network.dim
    normal = lambda rows: generator.standard_normal((rows, dim), dtype=np.float32)
    arrays = {
        "x": 0.8 * normal(n) + np.float32(0.1),
        "t": generator.random(n, dtype=np.float32),
        "x0": normal(n_boundary),
        "x1": 1.2 * normal(n_boundary) - np.float32(0.3),
    }
    if isinstance(workload, Training) and workload.has_probe:
        arrays["probe"] = generator.choice(np.array([-1, 1], dtype=np.float32), (1, n, dim))
    if isinstance(workload, Training) and workload.is_regression:
        arrays["velocity"] = 1.5 * normal(n) + np.float32(0.4)
    return arrays


def start(dim: int, n: int) -> Array:
    """Standard normal particles [n, dim]."""
    return _generator(3).standard_normal((n, dim), dtype=np.float32)


def tensor_names(n_layers: int) -> list[tuple[str, str]]:
    """Names of each layer's weight and bias in the model file."""
    return [(f"net.{2 * layer}.weight", f"net.{2 * layer}.bias") for layer in range(n_layers)]


def named(layers: list[tuple[NDArray, NDArray]], prefix: str = "") -> dict[str, NDArray]:
    """The tensors of `layers` under their names in the model file."""
    names = tensor_names(len(layers))
    return {prefix + name: tensor for pair, layer in zip(names, layers) for name, tensor in zip(pair, layer)}


def save_model(path: Path, workload: Workload) -> None:
    """Writes the workload's initial parameters as a model file, in coordinates that change nothing."""
    network = workload.network
    metadata = {
        "version": 1,
        "dim": network.dim,
        "hidden": list(network.hidden),
        "activation": "silu",
        "head": network.head,
        "time_embedding": {"kind": "raw"},
        "mean": [0.0] * network.dim,
        "scale": [1.0] * network.dim,
        "time_range": [0.0, 1.0],
        "sigma": workload.sigma if isinstance(workload, Training) else 0.0,
        "growth": 0.0,
        "cost_exponent": 2.0,
    }
    save_tensors(path, named(parameters(network)), {"action_matching": json.dumps(metadata)})


def save_tensors(path: Path, tensors: Mapping[str, NDArray], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file."""
    save_file({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, path, metadata)
