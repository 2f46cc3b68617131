#!/usr/bin/env python3
"""Tables of distances on real data: means over seeds, one command a table.

    cargo build --release
    python -m pip install -r benches/requirements.txt
    python benches/tables.py eb --data eb_pca5_whitened.npz      one time left out, embryoid bodies in five dimensions
    python benches/tables.py emt                                 every time seen
    python benches/tables.py hematopoiesis                       every time seen
    python benches/tables.py gene-network --data grn_2d.npz      a population that grows

The variant "auto" is what the program does by itself: its configuration is chosen on the training snapshots of each fold alone. So it
is in "validate", with the longer comparison of that command. The other variants are fixed before. No training looks at the time left out,
and all stop after the number of steps of the table, which --set training.steps=N replaces: no best epoch is picked. The five columns of
"cite-5" are whitened once, over all times, as publications do.

With a time left out, the snapshot before it moves to it; otherwise the first snapshot moves to every other. W1 is exact (POT), Euclidean,
between all moved particles, with weights where there is growth, and all rows of the truth; the energy distance is
2E|X − Y| − E|X − X'| − E|Y − Y'|. In 20 dimensions and more MMD² is printed too, unbiased, with the kernel exp(−|x − y|²/2h²), h half the
median distance between rows of the truth, that distance, and twice it. Of more than --points N (5000) points, N are compared, drawn at random.
Controls use no model: the snapshot that moves, unmoved; as many points of the exact plan between the two neighbors of the time left out,
at its place between them; and two halves of the truth, the floor. In the gene network the growth rate of the model is correlated with
x₂²/(1 + x₂²), which is taken for that of the simulation (its source is not at hand; the numbers of cells agree with it).
"""

import argparse
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import ot

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


@dataclass(frozen=True)
class Table:
    """What is trained, and how."""

    data: Path | None = None
    """Shipped with the project, or named with --data."""
    variants: dict[str, dict[str, str]] = field(default_factory=dict)
    """Settings by name, beside the common ones, "auto" and "validate"."""
    common: dict[str, str] = field(default_factory=dict)
    leave_out: str = "none"
    """"middle": every time but the first and the last in turn; "none": every time is seen."""
    columns: int | None = None
    """Only the first columns."""
    whiten: bool = False
    """Each column to mean 0 and deviation 1."""
    growth: Callable[[np.ndarray], np.ndarray] | None = None
    """True growth rate at points, up to a factor and a constant."""


VALIDATE = "validate"
"""Variant whose configuration `amatch validate` writes, and the setting that says so."""
MANY_DIMENSIONS = 20
"""From which on MMD² is printed."""
OT, UNBALANCED, WFR = (f'{{ kind = "{kind}", rows = 5000 }}' for kind in ("ot", "unbalanced", "wfr"))
LINEAR = {"linear, ot": {"objective.path": "linear", "objective.pairing": OT}}
PATHS = {
    "linear, independent": {"objective.path": "linear", "objective.pairing": "independent"},
    **LINEAR,
    "spline by clock, ot": {
        "objective.path": '{ kind = "spline", knots = "clock", limit = 1e6 }',
        "objective.pairing": OT,
    },
    "learned, independent": {"objective.path": "learned", "objective.pairing": "independent"},
    "learned, ot": {"objective.path": "learned", "objective.pairing": OT},
}
STEPS = {"training.steps": "8000"}
GROWTH = {"objective.growth": "1.0", "objective.mass": "counts"}
MIDDLE = "middle"
TABLES = {
    "eb": Table(None, PATHS, {"data.standardize": "none", **STEPS}, MIDDLE),
    "eb-50": Table(None, LINEAR, STEPS, MIDDLE, columns=50),
    "eb-100": Table(None, LINEAR, STEPS, MIDDLE, columns=100),
    "cite": Table(None, LINEAR, STEPS, MIDDLE, columns=50),
    "cite-5": Table(None, LINEAR, STEPS, MIDDLE, columns=5, whiten=True),
    "dyngen": Table(None, LINEAR, STEPS, MIDDLE),
    "gulf-of-mexico": Table(None, LINEAR, STEPS, MIDDLE),
    "lotka-volterra": Table(None, LINEAR, STEPS, MIDDLE),
    "repressilator": Table(None, LINEAR, STEPS, MIDDLE),
    "emt": Table(EXAMPLES / "data" / "emt.npz", PATHS, STEPS),
    "hematopoiesis": Table(
        EXAMPLES / "data" / "mouse_hematopoiesis.npz", PATHS, {"model.hidden": "[64, 64, 64]", **STEPS}
    ),
    "gene-network": Table(
        None,
        {
            "linear, ot": {"objective.path": "linear", "objective.pairing": OT, **GROWTH},
            "linear, unbalanced": {"objective.path": "linear", "objective.pairing": UNBALANCED, **GROWTH},
            "linear, wfr": {"objective.path": "linear", "objective.pairing": WFR, **GROWTH, "objective.growth": "0.25"},
        },
        {"model.hidden": "[64, 64, 64]", **STEPS},
        growth=lambda x: x[:, 1] ** 2 / (1 + x[:, 1] ** 2),
    ),
}


@dataclass(frozen=True)
class Points:
    """Points with weights, of any sum."""

    x: np.ndarray
    weights: np.ndarray

    @classmethod
    def equal(cls, x: np.ndarray) -> "Points":
        return cls(x, np.ones(len(x)))

    def shares(self) -> np.ndarray:
        return self.weights / self.weights.sum()

    def w1(self, truth: np.ndarray) -> float:
        costs = ot.dist(self.x, truth, "euclidean")
        return float(ot.emd2(self.shares(), ot.unif(len(truth)), costs, numItermax=10**9))

    def energy_distance(self, truth: np.ndarray) -> float:
        """2E|X − Y| − E|X − X'| − E|Y − Y'| of different points X, X' and Y, Y'."""
        a, b = self.shares(), ot.unif(len(truth))
        across = a @ ot.dist(self.x, truth, "euclidean") @ b
        within = a @ ot.dist(self.x, self.x, "euclidean") @ a / (1 - (a**2).sum())
        return float(2 * across - within - b @ ot.dist(truth, truth, "euclidean") @ b / (1 - (b**2).sum()))

    def mmd2(self, truth: np.ndarray) -> list[float]:
        """Unbiased, at half the median distance within the truth, at it, and at twice it."""
        a, b = self.shares(), ot.unif(len(truth))
        across, own, true = ot.dist(self.x, truth), ot.dist(self.x, self.x), ot.dist(truth, truth)
        values = []
        for h in np.sqrt(np.median(true[np.triu_indices(len(truth), 1)])) * np.array([0.5, 1, 2]):
            kernel = lambda squared: np.exp(-squared / (2 * h**2))
            within = lambda squared, w: (w @ kernel(squared) @ w - (w**2).sum()) / (1 - (w**2).sum())
            values.append(float(within(own, a) + within(true, b) - 2 * a @ kernel(across) @ b))
        return values

    def scores(self, truth: np.ndarray, most: int) -> list[float]:
        """W1, energy distance and, of many dimensions, MMD², of at most so many points of each side."""
        kept = some(len(self.x), most)
        points, truth = Points(self.x[kept], self.weights[kept]), truth[some(len(truth), most)]
        wide = points.mmd2(truth) if truth.shape[1] >= MANY_DIMENSIONS else []
        return [points.w1(truth), points.energy_distance(truth), *wide]


def some(n: int, most: int) -> np.ndarray:
    """Numbers of at most `most` of n rows, drawn at random."""
    return np.sort(np.random.default_rng(n).permutation(n)[:most])


def between(x: np.ndarray, y: np.ndarray, ratio: float, n: int, seed: int) -> Points:
    """n points of the exact plan of least squared distance from x to y, `ratio` of the way."""
    plan = ot.emd(ot.unif(len(x)), ot.unif(len(y)), ot.dist(x, y), numItermax=10**9)
    i, j = np.nonzero(plan)
    random = np.random.default_rng(seed)
    drawn = random.choice(len(i), n, p=plan[i, j] / plan[i, j].sum())
    return Points.equal((1 - ratio) * x[i[drawn]] + ratio * y[j[drawn]])


def halves(truth: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(truth))
    return truth[order[: len(truth) // 2]], truth[order[len(truth) // 2 :]]


@dataclass(frozen=True)
class Program:
    """amatch, and the threads that it may take."""

    path: str
    threads: str

    def run(self, *arguments: str) -> None:
        done = subprocess.run([self.path, *arguments, "--threads", self.threads], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"amatch {' '.join(arguments)}\n{done.stderr}")


def chosen(folder: Path) -> str:
    """What a run was trained with, of what the program may choose."""
    lines = tomllib.loads((folder / "config.toml").read_text())
    chosen = {**lines["objective"], **lines["model"]}
    return ", ".join(f"{key} {chosen.get(key)}" for key in ("path", "pairing", "growth", "time_embedding", "hidden"))


def arrivals(program: Program, config: Path, settings: dict[str, str], start: float, ends: list[float]) -> list[Points]:
    """Trains, with the variant VALIDATE after `amatch validate`, and moves the snapshot at `start` to `ends`."""
    folder = config.parent
    sets = [part for key, value in settings.items() if key != VALIDATE for part in ("--set", f"{key}={value}")]
    if VALIDATE in settings:
        written = folder / "validated.toml"
        program.run("validate", str(config), *sets, "--write", str(written), "--force")
        config, sets = written, []
    program.run("train", str(config), *sets, "--out", str(folder / "run"), "--force")
    out = folder / "moved.npz"
    stops = ["--save-at", *map(str, ends)]
    program.run("sample", str(folder / "run"), "--from", f"snapshot:{start:g}", *stops, "--out", str(out), "--force")
    moved = np.load(out)
    n = len(moved["samples"]) // len(ends)
    slabs = moved["samples"].astype(float).reshape(len(ends), n, -1)
    log_weights = moved["log_weights"].reshape(len(ends), n) if "log_weights" in moved else np.zeros((len(ends), n))
    return [Points(*each) for each in zip(slabs, np.exp(log_weights), strict=True)]


def growth_rates(program: Program, folder: Path, times: list[float]) -> np.ndarray:
    """Growth rates of the model in `folder` at the rows of all snapshots, from the weights after a moment."""
    rates, out = [], folder / "moment.npz"
    for time in times:
        moment = 1e-3 * (times[-1] - times[0]) * (1 if time < times[-1] else -1)
        span = ["--from", f"snapshot:{time:g}", "--t0", str(time), "--t1", str(time + moment)]
        program.run("sample", str(folder / "run"), *span, "--out", str(out), "--force")
        rates.append(np.load(out)["log_weights"] / moment)
    return np.concatenate(rates)


def prepared(table: Table, source: Path, folder: Path) -> tuple[Path, dict[float, np.ndarray]]:
    """The file to train on, and its snapshots."""
    stored = np.load(source)
    samples, times = stored["samples"].astype(float)[:, : table.columns], stored["times"]
    if table.whiten:
        samples = (samples - samples.mean(0)) / samples.std(0)
    if table.columns or table.whiten:
        source = folder / "data.npz"
        np.savez(source, samples=samples.astype(np.float32), times=times)
    return source.resolve(), {float(time): samples[times == time] for time in np.unique(times)}


def summary(scores: list[list[float]], masses: list[float]) -> list[float]:
    """W1 of each end, the mean of each measure over them, and the masses."""
    return [*(each[0] for each in scores), *np.mean(scores, axis=0).tolist(), *masses]


def row(name: str, scores: list[list[float]]) -> None:
    """One line: means over seeds, with deviations where there are several."""
    means, deviations = np.mean(scores, axis=0), np.std(scores, axis=0)
    cells = [
        f"{mean:.4f}" + (f" ± {deviation:.4f}" if len(scores) > 1 else "")
        for mean, deviation in zip(means, deviations, strict=True)
    ]
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--data", type=Path, help="the .npz of a table that the project does not ship")
    parser.add_argument("--variants", nargs="+", help="only these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting")
    parser.add_argument("--points", type=int, default=5000, help="most points of each side of a comparison")
    parser.add_argument("--threads", default="0", help="of the program; results do not depend on them")
    parser.add_argument("--amatch", default=str(ROOT / "target" / "release" / "amatch"))
    arguments = parser.parse_args()
    table, most = TABLES[arguments.table], arguments.points
    program = Program(arguments.amatch, arguments.threads)
    source = arguments.data or table.data
    if source is None:
        parser.error(f"{arguments.table}: name its file with --data")
    extra = dict(setting.split("=", 1) for setting in arguments.set)
    variants = {"auto": {}, VALIDATE: {VALIDATE: ""}, **table.variants}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, snapshots = prepared(table, source, folder)
        times = list(snapshots)
        leaves_out = table.leave_out == MIDDLE
        ends = times[1:-1] if leaves_out else times[1:]
        start = {end: times[times.index(end) - 1] if leaves_out else times[0] for end in ends}
        means = ["mean W1", "mean energy distance"]
        if next(iter(snapshots.values())).shape[1] >= MANY_DIMENSIONS:
            means += [f"mean MMD² at {h}" for h in ("h/2", "h", "2h")]
        head = [f"W1 at {end:g}" for end in ends] + means
        grows = any("objective.growth" in settings for settings in variants.values())
        if grows:
            head += [f"mass at {end:g} / truth" for end in ends]
        if table.growth:
            head.append("correlation with true growth")
        steps = {**table.common, **extra}["training.steps"]
        print(f"{arguments.table}: {steps} steps each, the last model counts; seeds 0 to {arguments.seeds - 1}\n")
        print("| variant | " + " | ".join(head) + " |")
        print("| --- |" + " --- |" * len(head), flush=True)

        def line(points: list[Points], masses: list[float]) -> list[float]:
            return summary([p.scores(snapshots[end], most) for p, end in zip(points, ends, strict=True)], masses)

        def mass(weights: np.ndarray, end: float) -> float:
            return float(weights.sum() / len(snapshots[end]))

        def masses(points: list[Points]) -> list[float]:
            return [mass(p.weights, end) for p, end in zip(points, ends, strict=True)] if grows else []

        unmoved = [Points.equal(snapshots[start[end]]) for end in ends]
        row("no motion", [line(unmoved, masses(unmoved))])
        if leaves_out:
            plans = []
            for end in ends:
                before, after = (times[times.index(end) + step] for step in (-1, 1))
                ratio, n = (end - before) / (after - before), len(snapshots[before])
                plans.append(between(*(snapshots[t][some(len(snapshots[t]), most)] for t in (before, after)), ratio, n, seed=0))
            row("exact plan", [line(plans, masses(plans))])
        split = [halves(snapshots[end], seed=0) for end in ends]
        floor = [Points.equal(a).scores(b, most) for a, b in split]
        row("floor (half the points)", [summary(floor, [1.0] * len(ends) if grows else [])])

        config = folder / "config.toml"
        config.write_text(f'[data]\npath = "{data}"\n')
        for name in arguments.variants or [variant for variant in variants if variant != VALIDATE]:
            scores, choices = [], []
            for seed in range(arguments.seeds):
                settings = {**table.common, **variants[name], **extra, "training.seed": str(seed)}
                if leaves_out:
                    arrived = []
                    for end in ends:
                        fold = {**settings, "data.hold_out": f"[{end:g}]"}
                        arrived += arrivals(program, config, fold, start[end], [end])
                        choices.append(f"{end:g}: {chosen(folder / 'run')}")
                else:
                    arrived = arrivals(program, config, settings, times[0], ends)
                    choices.append(chosen(folder / "run"))
                scores.append(line(arrived, masses(arrived)))
                if table.growth:
                    true = table.growth(np.concatenate(list(snapshots.values())))
                    scores[-1].append(np.corrcoef(growth_rates(program, folder, times), true)[0, 1])
            row(name, scores)
            if name in ("auto", VALIDATE):
                print("\n".join(f"chosen, {choice}" for choice in choices), file=sys.stderr)


if __name__ == "__main__":
    main()
