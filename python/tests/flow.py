"""Data whose flow is known, and a model of it that all tests share."""

import functools

import numpy as np

import action_matching as am

SETTINGS = {
    "model": {"hidden": [32, 32]},
    "objective": {"pairing": "ot"},
    "training": {"steps": 1500, "interior_rows": 256, "boundary_rows": 256, "warmup_steps": 50},
}


def data(n=300, dtype=np.float32):
    """Standard normal points at time 1, moved by (6, -3) and narrowed to a half at time 5."""
    before = np.random.default_rng(0).normal(size=(n, 2))
    after = 0.5 * np.random.default_rng(1).normal(size=(n, 2)) + [6.0, -3.0]
    return np.concatenate([before, after]).astype(dtype), np.repeat([1.0, 5.0], n)


@functools.lru_cache(maxsize=None)
def model():
    """A model of the data."""
    return am.train(*data(), seed=3, device="cpu", threads=2, **SETTINGS)


@functools.lru_cache(maxsize=None)
def ensemble():
    """Two models of the data, hardly trained."""
    few = {**SETTINGS, "training": {**SETTINGS["training"], "steps": 60, "seeds": 2}}
    return am.train(*data(), device="cpu", **few)
