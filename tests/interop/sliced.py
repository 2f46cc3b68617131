"""√d · sliced W2 between point sets, by NumPy.

    sliced.py FOLDER...

Each FOLDER holds points.safetensors (x [n, d], weights [n], y [m, d], float64). Written into it is distances.safetensors, float64:
sliced_w2 [2], without weights and with them. Directions are 4000 independent ones; on a line one is enough.
"""

import sys
from pathlib import Path

try:
    import numpy as np
    from safetensors.numpy import load_file, save_file
except ImportError as error:
    sys.exit(f"{error}: install numpy and safetensors ({sys.executable} -m pip install numpy safetensors)")


def squared(x, p, y, q):
    """W2² on a line: the squared difference of the quantile functions between all levels at which one of them jumps."""
    sides = []
    for values, masses in ((x, p), (y, q)):
        order = np.argsort(values, kind="stable")
        sides.append((values[order], np.cumsum(masses[order]) / masses.sum()))
    levels = np.union1d(*(ends for _, ends in sides))
    widths = np.diff(levels, prepend=0.0)
    quantiles = [values[np.minimum(np.searchsorted(ends, levels - 0.5 * widths), len(values) - 1)] for values, ends in sides]
    return np.sum(widths * (quantiles[0] - quantiles[1]) ** 2)


def distance(x, p, y, q):
    dim = x.shape[1]
    directions = np.ones((1, 1))
    if dim > 1:
        directions = np.random.default_rng(8).normal(size=(4000, dim))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.sqrt(dim * np.mean([squared(x @ along, p, y @ along, q) for along in directions]))


for folder in map(Path, sys.argv[1:]):
    points = load_file(folder / "points.safetensors")
    x, weights, y = (points[name] for name in ("x", "weights", "y"))
    ones = [np.ones(len(rows)) for rows in (x, y)]
    distances = np.array([distance(x, masses, y, ones[1]) for masses in (ones[0], weights)])
    save_file({"sliced_w2": distances}, folder / "distances.safetensors")
