"""W1 and W2 between point sets by SciPy's linear_sum_assignment.

    assignment.py FOLDER...

Each FOLDER holds points.safetensors (x [n, d], y [m, d], float32). Written into it is distances.safetensors, float64: w1 [1], w2 [1].
Sets of different sizes are repeated up to their least common multiple, which is the same problem.
"""

import math
import sys
from pathlib import Path

try:
    import numpy as np
    from safetensors.numpy import load_file, save_file
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist
except ImportError as error:
    sys.exit(f"{error}: install numpy, safetensors and scipy ({sys.executable} -m pip install numpy safetensors scipy)")


def distance(x, y, power):
    size = math.lcm(len(x), len(y))
    costs = cdist(x.repeat(size // len(x), axis=0), y.repeat(size // len(y), axis=0)) ** power
    rows, columns = linear_sum_assignment(costs / costs.max())
    return costs[rows, columns].mean() ** (1 / power)


for folder in map(Path, sys.argv[1:]):
    points = load_file(folder / "points.safetensors")
    x, y = (points[name].astype(np.float64) for name in "xy")
    save_file({f"w{power}": np.array([distance(x, y, power)]) for power in (1, 2)}, folder / "distances.safetensors")
