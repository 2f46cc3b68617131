"""The compiler behind `torch.compile`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial

import torch

from ..forms import Unavailable


def compiler() -> Callable[[Callable], Callable]:
    """`torch.compile` in its strictest and most special form: one graph, fixed shapes.

    Products are those of the vendor's library. `mode="max-autotune-no-cudagraphs"` would also try
    Triton's, for minutes a workload, and by measuring on a GPU on which others compile at the same
    time.

    Raises `Unavailable` without the C++ compiler that it calls.
    """
    cxx = os.environ.get("CXX", "g++")
    if shutil.which(cxx) is None:
        raise Unavailable(f"torch.compile needs a C++ compiler, and {cxx} is not found: install g++ or set CXX")
    return partial(torch.compile, fullgraph=True, dynamic=False)
