"""The library in Rust. Arrays are C-contiguous, float32 or float64, or on the GPU; see python/src."""

from os import PathLike
from typing import Any, Callable, Optional, TypedDict, Union

import numpy as np

_Path = Union[str, "PathLike[str]"]
_Listener = Optional[Callable[[str, Any], Any]]

class Device(TypedDict):
    device: str
    precision: Optional[str]
    threads: int

class Way(TypedDict):
    method: Optional[str]
    steps: Optional[int]
    rtol: Optional[float]
    atol: Optional[float]
    seed: int

class Comparison(TypedDict):
    held_out: list[float]
    start: str
    points: Optional[int]
    sliced_points: Optional[int]
    max_comparisons: Optional[int]
    seed: int

class Settings:
    def __new__(cls, json: str) -> "Settings": ...

class DeviceArray:
    """An array of float32 on a GPU, C-contiguous: what a model makes of points that are there.

    ``torch.from_dlpack``, ``cupy.from_dlpack`` and ``jax.dlpack.from_dlpack`` take it without a copy, and keep its
    memory. It is finished, so that every stream can use it.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
    @property
    def ndim(self) -> int:
        """Number of axes."""
    @property
    def dtype(self) -> np.dtype[np.float32]:
        """float32."""
    @property
    def device(self) -> str:
        """``cuda:N``."""
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> "DeviceArray":
        """Element `index` of the first axis, as the particles at one of the saved times; it shares the memory."""
    def numpy(self) -> np.ndarray:
        """A copy on the host."""
    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> np.ndarray: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __dlpack__(
        self,
        *,
        stream: Optional[int] = None,
        max_version: Optional[tuple[int, int]] = None,
        dl_device: Optional[tuple[int, int]] = None,
        copy: Optional[bool] = None,
    ) -> Any: ...

_Points = Union[np.ndarray, DeviceArray]

class Model:
    @staticmethod
    def load(path: _Path, device: Device) -> "Model": ...
    def save(self, path: _Path, overwrite: bool) -> None: ...
    def member(self, index: int) -> Optional["Model"]: ...
    def under(self, condition: list[tuple[str, str]]) -> "Model": ...
    def at(self, x: _Points, t: np.ndarray, quantity: str) -> tuple[_Points, Optional[_Points]]: ...
    def log_density(
        self, x: _Points, t: np.ndarray, base: Optional[_Points], listener: _Listener
    ) -> _Points: ...
    def take(self, name: str, tensor: Any) -> DeviceArray: ...
    @property
    def ordinal(self) -> Optional[int]: ...
    def describe(self) -> str: ...
    @property
    def n_members(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def time_range(self) -> tuple[float, float]: ...
    @property
    def coordinates(self) -> tuple[list[float], list[float]]: ...
    @property
    def columns(self) -> Optional[list[str]]: ...
    @property
    def conditions(self) -> list[tuple[str, str]]: ...
    @property
    def dynamics(self) -> tuple[float, float, float]: ...
    @property
    def device(self) -> str: ...

def data_of(folder: _Path) -> Optional[str]: ...
def train(settings: Settings, resume: bool, overwrite: bool, device: Device, listener: _Listener) -> None: ...
def integrate(
    model: Model,
    x: _Points,
    t0: float,
    save_at: list[float],
    way: Way,
    listener: _Listener,
) -> dict[str, Any]: ...
def evaluate(
    model: Model, x: np.ndarray, t: np.ndarray, comparison: Comparison, way: Way, listener: _Listener
) -> tuple[str, str]: ...
