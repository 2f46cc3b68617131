#!/usr/bin/env python3
"""Tables of W1 on real data: means over seeds, one command a table.

    cargo build --release
    python -m pip install -r benches/requirements.txt
    python benches/tables.py eb --data eb_pca5_whitened.npz      one time left out, embryoid bodies in five dimensions
    python benches/tables.py emt                                 every time seen
    python benches/tables.py hematopoiesis                       every time seen
    python benches/tables.py gene-network --data grn_2d.npz      a population that grows

With a time left out, the snapshot before it moves to it; otherwise the first snapshot moves to every other. W1 is exact (POT), Euclidean,
between all moved particles, with weights where there is growth, and all rows of the truth.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import ot

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


@dataclass(frozen=True)
class Table:
    """What is trained, and how."""

    data: Path | None
    """Shipped with the project, or named with --data."""
    variants: dict[str, dict[str, str]]
    """Settings by name, beside the common ones."""
    common: dict[str, str] = field(default_factory=dict)
    leave_out: tuple[float, ...] = ()
    """Times left out in turn; none: every time is seen."""


OT, UNBALANCED = (f'{{ kind = "{kind}", rows = 5000 }}' for kind in ("ot", "unbalanced"))
LINEAR = {
    "linear, independent": {"objective.path": "linear", "objective.pairing": "independent"},
    "linear, ot": {"objective.path": "linear", "objective.pairing": OT},
    "spline, ot": {"objective.path": "spline", "objective.pairing": OT},
    "learned, independent": {"objective.path": "learned", "objective.pairing": "independent"},
    "learned, ot": {"objective.path": "learned", "objective.pairing": OT},
}
TABLES = {
    "eb": Table(
        None, LINEAR, {"data.standardize": "none", "training.steps": "8000"}, leave_out=(1.0, 2.0, 3.0)
    ),
    "emt": Table(EXAMPLES / "data" / "emt.npz", LINEAR, {"training.steps": "8000"}),
    "hematopoiesis": Table(
        EXAMPLES / "data" / "mouse_hematopoiesis.npz",
        LINEAR,
        {"model.hidden": "[64, 64, 64]", "training.steps": "8000"},
    ),
    "gene-network": Table(
        None,
        {
            "linear, ot": {"objective.path": "linear", "objective.pairing": OT},
            "linear, unbalanced": {"objective.path": "linear", "objective.pairing": UNBALANCED},
        },
        {
            "model.hidden": "[64, 64, 64]",
            "training.steps": "8000",
            "objective.growth": "1.0",
            "objective.mass": "counts",
        },
    ),
}


@dataclass(frozen=True)
class Arrival:
    """Particles at one time, with weights relative to their number at the start."""

    time: float
    x: np.ndarray
    weights: np.ndarray

    def w1(self, truth: np.ndarray) -> float:
        shares = self.weights / self.weights.sum()
        costs = ot.dist(self.x, truth, "euclidean")
        return float(ot.emd2(shares, ot.unif(len(truth)), costs, numItermax=10**9))


def run(amatch: str, *arguments: str) -> None:
    done = subprocess.run([amatch, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"amatch {' '.join(arguments)}\n{done.stderr}")


def arrivals(amatch: str, config: Path, settings: dict[str, str], start: float, ends: list[float]) -> list[Arrival]:
    """Trains, and moves the snapshot at `start` to `ends`."""
    folder = config.parent
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    run(amatch, "train", str(config), *sets, "--out", str(folder / "run"), "--force")
    out = folder / "moved.npz"
    stops = ["--save-at", *map(str, ends)]
    run(amatch, "sample", str(folder / "run"), "--from", f"snapshot:{start:g}", *stops, "--out", str(out))
    moved = np.load(out)
    n = len(moved["samples"]) // len(ends)
    slabs = moved["samples"].astype(float).reshape(len(ends), n, -1)
    log_weights = moved["log_weights"].reshape(len(ends), n) if "log_weights" in moved else np.zeros((len(ends), n))
    return [Arrival(*each) for each in zip(ends, slabs, np.exp(log_weights), strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--data", type=Path, help="the .npz of a table that the project does not ship")
    parser.add_argument("--variants", nargs="+", help="only these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting")
    parser.add_argument("--amatch", default=str(ROOT / "target" / "release" / "amatch"))
    arguments = parser.parse_args()
    table = TABLES[arguments.table]
    data = arguments.data or table.data
    if data is None:
        parser.error(f"{arguments.table}: name its file with --data")
    extra = dict(setting.split("=", 1) for setting in arguments.set)
    stored = np.load(data)
    snapshots = {float(t): stored["samples"][stored["times"] == t].astype(float) for t in np.unique(stored["times"])}
    times = list(snapshots)
    columns = list(table.leave_out) or times[1:]
    grows = "objective.growth" in table.common
    head = [f"W1 at {time:g}" for time in columns]
    if grows:
        head += [f"mass at {time:g} / truth" for time in columns]
    print("| variant | " + " | ".join([*head, "mean W1"]) + " |")
    print("| --- |" + " --- |" * (len(head) + 1), flush=True)
    for name in arguments.variants or table.variants:
        scores = []
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                config = Path(folder) / "config.toml"
                config.write_text(f'[data]\npath = "{data.resolve()}"\n')
                settings = {**table.common, **table.variants[name], **extra, "training.seed": str(seed)}
                if table.leave_out:
                    arrived = [
                        arrival
                        for time in columns
                        for arrival in arrivals(
                            arguments.amatch,
                            config,
                            {**settings, "data.hold_out": f"[{time:g}]"},
                            times[times.index(time) - 1],
                            [time],
                        )
                    ]
                else:
                    arrived = arrivals(arguments.amatch, config, settings, times[0], columns)
            row = [arrival.w1(snapshots[arrival.time]) for arrival in arrived]
            if grows:
                n_start = len(snapshots[times[0]])
                row += [arrival.weights.sum() / len(snapshots[arrival.time]) for arrival in arrived]
                assert all(len(arrival.weights) == n_start for arrival in arrived)
            scores.append([*row, np.mean(row[: len(columns)])])
        means, deviations = np.mean(scores, axis=0), np.std(scores, axis=0)
        cells = [f"{mean:.4f} ± {deviation:.4f}" for mean, deviation in zip(means, deviations, strict=True)]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
