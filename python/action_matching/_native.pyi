"""The library in Rust. Arrays are C-contiguous, float32 or float64; see python/src."""

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

class Model:
    @staticmethod
    def load(path: _Path, device: Device) -> "Model": ...
    def save(self, path: _Path, overwrite: bool) -> None: ...
    def member(self, index: int) -> Optional["Model"]: ...
    def under(self, condition: list[tuple[str, str]]) -> "Model": ...
    def at(self, x: np.ndarray, t: np.ndarray, quantity: str) -> tuple[np.ndarray, Optional[np.ndarray]]: ...
    def log_density(
        self, x: np.ndarray, t: np.ndarray, base: Optional[np.ndarray], listener: _Listener
    ) -> np.ndarray: ...
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
    x: np.ndarray,
    t0: float,
    save_at: list[float],
    way: Way,
    listener: _Listener,
) -> dict[str, Any]: ...
def evaluate(
    model: Model, x: np.ndarray, t: np.ndarray, comparison: Comparison, way: Way, listener: _Listener
) -> tuple[str, str]: ...
