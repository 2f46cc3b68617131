"""Scores of a model."""

from __future__ import annotations

import json
from typing import Any, Optional, Sequence

from . import _native
from ._arrays import rows, vector
from ._model import Model
from ._progress import Listener, ProgressOption


class Report(dict):
    """The scores as ``amatch evaluate --json`` has them; as text, what it prints."""

    def __init__(self, scores: Any, text: str) -> None:
        super().__init__(scores)
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._text


def evaluate(
    model: Model,
    x: Any,
    times: Any,
    *,
    held_out: Sequence[float] = (),
    start: str = "previous",
    points: Optional[int] = None,
    sliced_points: Optional[int] = None,
    max_comparisons: Optional[int] = None,
    method: Optional[str] = None,
    steps: Optional[int] = None,
    rtol: Optional[float] = None,
    atol: Optional[float] = None,
    seed: int = 0,
    progress: ProgressOption = None,
) -> Report:
    """Moves each snapshot to the next one and compares: exact W1 and W2, energy distance and MMD², in units of the
    data, beside those of no motion and the sampling floor.

    Parameters
    ----------
    x, times
        Samples ``[n, d]`` and the time ``[n]`` of each.
    held_out
        Times that the model was trained without; it is taken to have seen all others.
    start
        ``previous``; ``first``: the first snapshot moves to every other; ``noise``: standard normal noise moves to
        the only one.
    points
        Most points of a snapshot; a random subset represents a larger one.
    sliced_points
        Most points of sliced W2, which is computed beside the others where a snapshot has more than ``points``
        [50000; 0: never].
    max_comparisons
        Most comparisons, spread evenly over the times [200].
    method, steps, rtol, atol, progress
        See `Model.sample`.
    seed
        Of subsets, halves and noise.
    """
    samples = rows("x", x)
    comparison: "_native.Comparison" = {
        "held_out": [float(time) for time in held_out],
        "start": start,
        "points": points,
        "sliced_points": sliced_points,
        "max_comparisons": max_comparisons,
        "seed": seed,
    }
    way: "_native.Way" = {"method": method, "steps": steps, "rtol": rtol, "atol": atol, "seed": seed}
    at = vector("times", times, len(samples))
    with Listener(progress) as listener:
        scores, text = _native.evaluate(model._native, samples, at, comparison, way, listener)
    return Report(json.loads(scores), text)
