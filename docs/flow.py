"""Draws docs/flow.png: a population between its snapshots.

    amatch train examples/hematopoiesis.toml
    amatch sample runs/hematopoiesis --from snapshot:0 -n 200 --seed 1 \
        --save-at $(seq 0 0.05 2) --out trajectories.npz
    python docs/flow.py trajectories.npz docs/flow.png

Needs numpy and matplotlib.
"""

import sys
from io import BytesIO
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from PIL import Image

DAYS = {0.0: "day 2", 1.0: "day 4", 2.0: "day 6"}
COLORS = {0.0: "#0072b2", 1.0: "#e69f00", 2.0: "#cc3d6e"}  # color-blind safe
POINTS_PER_SNAPSHOT = 1400  # equally many of each, so that no snapshot hides another


def main(trajectories_path, image_path):
    data = np.load(Path(__file__).parent.parent / "examples/data/mouse_hematopoiesis.npz")
    samples, times = data["samples"], data["times"]
    moved = np.load(trajectories_path)
    saved_times = np.unique(moved["times"])
    trajectories = moved["samples"].reshape(len(saved_times), -1, 2)

    fig, (left, right) = plt.subplots(
        1, 2, figsize=(7.8, 4.3), dpi=150, layout="constrained", sharex=True, sharey=True
    )
    rng = np.random.default_rng(0)
    for time, color in COLORS.items():
        rows = np.flatnonzero(times == time)
        rows = rng.choice(rows, min(POINTS_PER_SNAPSHOT, len(rows)), replace=False)
        left.scatter(*samples[rows].T, s=5, color=color, alpha=0.5, linewidths=0)
        left.scatter([], [], s=36, color=color, label=f"{DAYS[time]} (t = {time:g})")
        right.scatter(*samples[rows].T, s=5, color="#bbbbbb", alpha=0.3, linewidths=0)

    segments = np.stack([trajectories[:-1], trajectories[1:]], axis=2)
    middle_times = np.repeat((saved_times[:-1] + saved_times[1:]) / 2, segments.shape[1])
    colormap = LinearSegmentedColormap.from_list("days", list(COLORS.values()))
    lines = LineCollection(
        segments.reshape(-1, 2, 2), array=middle_times, cmap=colormap, linewidths=0.9, alpha=0.9
    )
    lines.set_clim(0, 2)
    lines.set_capstyle("round")
    right.add_collection(lines)
    right.scatter(*trajectories[0].T, s=9, color=COLORS[0.0], linewidths=0, zorder=3)
    right.scatter(*trajectories[-1].T, s=9, color=COLORS[2.0], linewidths=0, zorder=3)
    bar = fig.colorbar(lines, ax=right, ticks=[0, 1, 2], aspect=30, pad=0.02)
    bar.set_label("time t")
    bar.outline.set_visible(False)

    left.set_title("Given: unpaired cells at three times", fontsize=11)
    right.set_title(f"Learned: trajectories of {trajectories.shape[1]} cells", fontsize=11)
    left.set_ylabel("reduced dimension 2")
    left.legend(loc="upper right", bbox_to_anchor=(0.82, 1.0), frameon=False, fontsize=9)
    for ax in (left, right):
        ax.set_xlabel("reduced dimension 1")
        ax.set_aspect("equal")
        ax.spines[["top", "right"]].set_visible(False)

    image = BytesIO()
    fig.savefig(image)
    # 128 colors are enough, and a quarter of the bytes.
    Image.open(image).convert("RGB").quantize(128).save(image_path, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
