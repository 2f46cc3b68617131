"""Draws the pictures of docs/paths.md, each from runs of the program on data made here.

    python docs/paths.py AMATCH docs

Takes a minute on two cores. Needs numpy and matplotlib.
"""

import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from PIL import Image

COLORS = plt.get_cmap("viridis")
RNG = np.random.default_rng(0)


def crossing():
    """Two groups of cells that move to the right, one above the other, at two times."""
    y = np.where(RNG.random(800) < 0.5, 1.0, -1.0)
    points = np.stack([RNG.normal(0, 0.25, 800), y + RNG.normal(0, 0.2, 800)], 1)
    return np.concatenate([points[:400], points[400:] + [4, 0]]), np.repeat([0.0, 1.0], 400)


def turning():
    """A cloud that goes around half a circle, at seven times."""
    times = np.repeat(np.arange(7.0), 150)
    angle = np.pi - times * np.pi / 6 + RNG.normal(0, 0.12, times.size)
    radius = 2 + RNG.normal(0, 0.12, times.size)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), times


def ring():
    """One snapshot: a ring with a gap."""
    angle = RNG.uniform(0.4, 2 * np.pi - 0.4, 2000)
    radius = 2 + RNG.normal(0, 0.1, 2000)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), np.ones(2000)


class Workplace:
    def __init__(self, program, folder):
        self.program, self.folder = Path(program).resolve(), Path(folder)

    def amatch(self, *arguments):
        subprocess.run([self.program, *map(str, arguments)], cwd=self.folder, check=True, capture_output=True)

    def trajectories(self, samples, times, settings, start, save_at, n=120):
        """Trains with the settings; the particles [times, n, 2] that start so."""
        np.savez(self.folder / "data.npz", samples=samples.astype("f4"), times=times)
        (self.folder / "run.toml").write_text('[data]\npath = "data.npz"\n')
        base = ["training.steps=1500", "training.interior_rows=256", "training.boundary_rows=256",
                "model.hidden=[64, 64, 64]", "objective.growth=0"]
        sets = [part for setting in base + settings for part in ("--set", setting)]
        self.amatch("train", "run.toml", "--force", *sets)
        saved = ",".join(f"{time:.6g}" for time in save_at)
        self.amatch("sample", "runs/run", "--from", start, "-n", n, "--save-at", saved, "--out", "moved.npz", "--force")
        return np.load(self.folder / "moved.npz")["samples"].reshape(len(save_at), -1, 2)


def draw(ax, title, samples, times, trajectories):
    span = np.ptp(times) or 1.0
    for time in np.unique(times):
        rows = samples[times == time][:150]
        ax.scatter(*rows.T, s=5, color=COLORS(0.9 * (time - times.min()) / span), alpha=0.6, linewidths=0)
    segments = np.stack([trajectories[:-1], trajectories[1:]], 2).reshape(-1, 2, 2)
    ax.add_collection(LineCollection(segments, colors="#cc3d6e", linewidths=0.5, alpha=0.6))
    ax.set_title(title, fontsize=10)
    ax.set_aspect("equal")
    ax.set_xticks([]), ax.set_yticks([])


def picture(work, path, cases, data, start, save_at):
    samples, times = data
    fig, axes = plt.subplots(1, len(cases), figsize=(3.4 * len(cases), 2.8), dpi=130, layout="constrained",
                             squeeze=False, sharex=True, sharey=True)
    for ax, (title, settings) in zip(axes[0], cases):
        draw(ax, title, samples, times, work.trajectories(samples, times, settings, start, save_at))
    image = BytesIO()
    fig.savefig(image)
    plt.close(fig)
    Image.open(image).convert("RGB").quantize(64).save(path, optimize=True)


def main(program, folder):
    folder = Path(folder)
    with tempfile.TemporaryDirectory() as place:
        work = Workplace(program, place)
        linear = "objective.path=linear"
        picture(work, folder / "paths-pairs.png",
                [('pairing = "independent"', [linear, "objective.pairing=independent"]),
                 ('pairing = "ot"', [linear, "objective.pairing=ot"])],
                crossing(), "snapshot:0", np.linspace(0, 1, 41))
        gaps = [linear, "objective.pairing=ot", "data.hold_out=[1, 2, 4, 5]"]
        every = ["objective.path=spline", "objective.pairing=ot", "data.hold_out=[1, 3, 5]"]
        straight = [linear, "objective.pairing=ot", "data.hold_out=[1, 3, 5]"]
        picture(work, folder / "paths-spline.png",
                [("linear, 3 of 7 times", gaps), ("linear, 4 of 7 times", straight), ("spline, 4 of 7 times", every)],
                turning(), "snapshot:0", np.linspace(0, 6, 61))
        picture(work, folder / "paths-generative.png",
                [('path = "generative-linear"', ["objective.path=generative-linear"])],
                ring(), "gaussian", np.linspace(0, 1, 41))


if __name__ == "__main__":
    main(*sys.argv[1:])
