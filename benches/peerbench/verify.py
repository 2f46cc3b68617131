"""Whether a program computes what it is timed for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TOLERANCES = {"f32": 1e-4, "tf32": 1e-2, "bf16": 1e-1}
"""Largest relative error of each precision, ‖found − expected‖ / ‖expected‖ for each tensor."""
SMALLEST_SHARE = 1e-3
"""A tensor whose norm is a smaller share of the largest one's is measured against that share instead: the last bias
of a scalar head has no gradient at all."""


def errors(expected: dict[str, NDArray], found: dict[str, NDArray]) -> dict[str, float]:
    """The relative error of each expected tensor; infinite where it is missing, misshapen or not finite."""
    largest = max(float(np.linalg.norm(tensor)) for tensor in expected.values())
    return {name: _error(tensor, found.get(name), SMALLEST_SHARE * largest) for name, tensor in expected.items()}


def _error(expected: NDArray, found: NDArray | None, smallest: float) -> float:
    if found is None or found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    difference = found.astype(np.float64) - expected
    return float(np.linalg.norm(difference)) / max(float(np.linalg.norm(expected)), smallest)


def worst(errors: dict[str, float]) -> tuple[str, float]:
    """The tensor that is farthest off, and how far."""
    return max(errors.items(), key=lambda item: item[1])


def describe(error: float, tolerance: float) -> str:
    """What is wrong with a tensor that is off by `error`."""
    if np.isinf(error):
        return "is missing, of another shape or not finite"
    return f"is off by {error:.1e} relative to float64, more than {tolerance:.0e}"
