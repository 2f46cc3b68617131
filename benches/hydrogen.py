#!/usr/bin/env python3
"""The metric of the hydrogen experiment (arXiv 2210.06662), as its authors compute it.

    amatch problem hydrogen -n 5000 --times 1001 --out examples/data/hydrogen.npz
    amatch problem hydrogen -n 5000 --times 11 --seed 1 --out truth.npz
    amatch train examples/hydrogen.toml
    python benches/hydrogen.py runs/hydrogen truth.npz

Particles start from the data at t = 0 and take 1000 Euler steps to the last time. At ten equally spaced times they are compared with
as many true ones by |MMD²|, unbiased, with three identical kernels exp(-1e-4 |x - y|²), which add up.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np

GAMMA, N_KERNELS = 1e-4, 3


def kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    """Sum of the kernels over all pairs of rows."""
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    return N_KERNELS * np.exp(-GAMMA * np.maximum(squared, 0)).sum()


def mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased MMD² between the rows of x and y."""
    n, m = len(x), len(y)
    within = lambda z: (kernel_sum(z, z) - N_KERNELS * len(z)) / (len(z) * (len(z) - 1))
    return within(x) + within(y) - 2 * kernel_sum(x, y) / (n * m)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder")
    parser.add_argument("truth", help="true samples at eleven times, the first of them 0")
    parser.add_argument("--amatch", default="target/release/amatch")
    arguments = parser.parse_args()
    truth = np.load(arguments.truth)
    samples, times = truth["samples"].astype(np.float64), truth["times"]
    stops = np.unique(times)[1:]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "moved.npz"
        command = [arguments.amatch, "sample", arguments.run, "--from", "snapshot:0", "--method", "euler", "--steps", "1000"]
        subprocess.run([*command, "--save-at", *map(str, stops), "--out", str(out)], check=True, stderr=subprocess.DEVNULL)
        moved = np.load(out)["samples"].astype(np.float64).reshape(len(stops), -1, samples.shape[1])
    values = [abs(mmd2(x, samples[times == t])) for x, t in zip(moved, stops, strict=True)]
    for t, value in zip(stops, values, strict=True):
        print(f"t = {t:<8g} |MMD²| {value:.3e}")
    print(f"mean {np.mean(values):.3e} ± {np.std(values):.3e}")


if __name__ == "__main__":
    main()
