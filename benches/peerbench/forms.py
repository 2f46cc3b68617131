"""A form: one way of writing a workload in a framework. A peer lists several, and the fastest on this machine runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .workloads import Hardware, Sampling


class Unavailable(Exception):
    """The peer cannot run here; the message says what is missing."""


@dataclass(frozen=True)
class Form:
    """A workload, compiled and ready."""

    advance: Callable[[], None]
    """Does `work` and returns when it is finished."""
    work: float
    """In the workload's unit: steps, runs or GFLOP."""
    check: Callable[[], dict[str, Any]]
    """The arrays of `reference.answers`, found by the code that `advance` runs."""
    compile: Callable[[], None] = lambda: None
    """Compiles what `advance` runs, and keeps no memory of a GPU for it: others compile at the same time."""


Forms = dict[str, Callable[[], Form]]
"""Each builds the form it is named for."""


def flop_per_call(hardware: Hardware) -> float:
    """Enough work in a call that entering it costs nothing: about half a second on two cores, less on a GPU."""
    return 1e13 if hardware.is_gpu else 5e10


def chunk_sizes(workload: Sampling, powers: Iterator[int] | range = range(8, 16)) -> list[int]:
    """Numbers of particles to move together: powers of two, from cache-sized to as many as a turn has time for; a GPU
    needs many to be busy."""
    if workload.hardware.is_gpu:
        return [1 << power for power in (16, 18)]
    # A chunk that takes longer than a turn would make turns of unequal length.
    return [1 << power for power in powers if (1 << power) * workload.flop_per_particle <= 7e11]


def product_sizes(hardware: Hardware) -> list[int]:
    """Square products worth trying for the peak."""
    return [4096, 8192, 16384] if hardware.is_gpu else [96, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096]
