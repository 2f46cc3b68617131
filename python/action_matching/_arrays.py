"""Arrays of the caller as the native module takes them."""

from __future__ import annotations

from typing import Any, Optional, Union

import numpy as np

from . import _native
from .errors import refuse

Array = Union[np.ndarray, _native.DeviceArray]
"""Results: NumPy arrays, or arrays on the GPU on which the points are."""

_CPU = 1  # kDLCPU
_CUDA = 2  # kDLCUDA
_CPU_PINNED = 3  # kDLCUDAHost: memory of the host


def _numpy(name: str, values: Any) -> np.ndarray:
    """`values` as an array, without a copy if they are one, or a tensor of the CPU (DLPack)."""
    if isinstance(values, np.ndarray) or not hasattr(values, "__dlpack__"):
        return np.asarray(values)
    if values.__dlpack_device__()[0] not in (_CPU, _CPU_PINNED):
        raise refuse(name, "device", "is a tensor on a GPU, and this is read on the CPU", "move it to the CPU: .cpu()")
    try:
        return np.from_dlpack(values)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        fix = "give a NumPy array, or a tensor without gradient: .detach()"
        raise refuse(name, "DLPack", str(error), fix) from None


def _gpu(values: Any) -> Optional[int]:
    """The number of the GPU on which `values` are a tensor."""
    if isinstance(values, np.ndarray) or not hasattr(values, "__dlpack_device__"):
        return None
    kind, number = values.__dlpack_device__()
    return int(number) if kind == _CUDA else None


def points(name: str, values: Any, model: "_native.Model") -> Array:
    """As `rows`, or a copy of a tensor on the GPU of the model, float32."""
    number = _gpu(values)
    if number is None:
        return rows(name, values)
    if model.ordinal is None:
        fix = f'load the model there: load(path, device="cuda:{number}"), or move the tensor: .cpu()'
        raise refuse(name, "device", f"is a tensor on a GPU, cuda:{number}, and the model is on the CPU", fix)
    if model.ordinal != number:
        fix = f'move it: .to("cuda:{model.ordinal}"), or load the model there: load(path, device="cuda:{number}")'
        raise refuse(name, "device", f"is a tensor on cuda:{number}, and the model is on cuda:{model.ordinal}", fix)
    return model.take(name, values)


def rows(name: str, values: Any, dtype: Any = None) -> np.ndarray:
    """Points ``[n, d]``, C-contiguous, float32 or float64; a vector is one dimension."""
    array = _numpy(name, values)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise refuse(name, "shape", f"is {list(array.shape)}", "give an array [n, d]")
    if array.dtype.kind not in "fiub":
        raise refuse(name, "type", f"is {array.dtype}", "give numbers")
    if dtype is None:
        dtype = np.float32 if array.dtype in (np.float16, np.float32) else np.float64
    return np.ascontiguousarray(array, dtype=dtype)


def vector(name: str, values: Any, n: int) -> np.ndarray:
    """Numbers ``[n]`` in float64; one number stands for all."""
    array = _numpy(name, values)
    if array.dtype.kind not in "fiub":
        raise refuse(name, "type", f"is {array.dtype}", "give numbers")
    if array.ndim == 0:
        return np.full(n, array, dtype=np.float64)
    if array.shape != (n,):
        raise refuse(name, "shape", f"is {list(array.shape)}, for {n} rows", "give one value a row, or one for all")
    return np.ascontiguousarray(array, dtype=np.float64)
