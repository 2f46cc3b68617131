"""The peers: one module each, imported only in the child process that runs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """A module of this package with `forms(workload)` and `version()`, and what it can be asked to run."""

    module: str
    trains: bool = False
    samples: bool = False
    multiplies: bool = False
    on_gpu: bool = False
    """Whether it runs on a GPU too."""


PEERS: dict[str, Peer] = {
    "torch-eager": Peer("torch_eager", trains=True, samples=True),
    "torch-compile-loss": Peer("torch_compile_loss", trains=True),
    "torch-compile-step": Peer("torch_compile_step", trains=True, samples=True, on_gpu=True),
    "jax": Peer("jax_scan", trains=True, samples=True, on_gpu=True),
    "numpy-product": Peer("numpy_product", multiplies=True),
    "torch-product": Peer("torch_product", multiplies=True, on_gpu=True),
}
