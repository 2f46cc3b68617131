#!/usr/bin/env python3
"""Two-stream instability under parameters that training never saw (Vlasov–Poisson; arXiv 2410.12000).

    cargo build --release
    python benches/two_stream.py

Two beams of electrons, uniform in a periodic box of length 50, velocities ±3 ± 1, modulated by 1 + 0.05 cos(2πμx/50), in the electric
field μ² ∂²φ/∂x² = n − 1: a particle-in-cell simulation with 10,000 particles, 1250 cells and leapfrog steps of 0.01 to time 40, for eight
parameters μ that are trained on and two that are not. These are the numbers of the authors' code (github.com/julesberman/HOAM). As there,
all simulations have the same random numbers.

The program knows no periodic boxes: x goes round a circle of circumference 50, and a particle is three numbers, R cos(x/R), R sin(x/R)
and v. Snapshots are one unit of time apart. The model starts from the initial particles of an unseen μ, and the electric energy
−½ mean φ of what it moves is compared with that of the simulation at all these times but the first: by the mean of |Ê − E|/E, as the
authors do, to which the small energies before the instability grows add most, and by ‖Ê − E‖/‖E‖ over time. Beside it stands what needs no
model: the energies of the two nearest trained parameters, their linear interpolation, and a simulation with other random numbers. The
instability grows from the noise of the particles, so the last says how much the random numbers decide, not what a model could reach.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TRAINED = (1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9)
UNSEEN = (1.25, 1.85)
BOX, RADIUS = 50.0, 50.0 / (2 * np.pi)
PARTICLES, END, STEP = 10_000, 40, 0.01
TIMES = np.arange(END + 1)
CONFIG = """\
[data]
path = "{data}"
{conditions}
[model]
hidden = [128, 128, 128]
time_embedding = {{ kind = "fourier", frequencies = [0.5, 1, 2, 4] }}
[objective]
path = {{ kind = "spline", knots = "clock" }}
pairing = {{ kind = "ot", rows = 1000 }}
[training]
steps = {steps}
seed = {seed}
"""


class Field:
    """The field of particles in cells, linear in both directions, with central differences."""

    def __init__(self, particles: int):
        self.cells = particles // 8
        self.width = BOX / self.cells
        angle = 2 * np.pi * np.arange(self.cells // 2 + 1) / self.cells
        self.laplacian = -(2 - 2 * np.cos(angle)) / self.width**2
        self.laplacian[0] = 1
        self.derivative = 1j * np.sin(angle) / self.width

    def at(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The field −∂φ/∂x and the potential φ, of ∂²φ/∂x² = n − 1, at the particles."""
        place = np.mod(x, BOX) / self.width
        left = place.astype(int)
        share, left = place - left, left % self.cells
        right = (left + 1) % self.cells
        count = np.bincount(left, 1 - share, self.cells) + np.bincount(right, share, self.cells)
        density = np.fft.rfft(count * self.cells / len(x))
        density[0] = 0
        potential = density / self.laplacian
        of_particles = lambda cells: (1 - share) * cells[left] + share * cells[right]
        field = np.fft.irfft(-self.derivative * potential, self.cells)
        return of_particles(field), of_particles(np.fft.irfft(potential, self.cells))


def simulate(mu: float, seed: int) -> np.ndarray:
    """Positions and velocities [time, particle, 2] at TIMES."""
    random = np.random.default_rng(seed)
    x = random.random(PARTICLES) * BOX
    v = random.standard_normal(PARTICLES) + np.repeat([-3.0, 3.0], PARTICLES // 2)
    v *= 1 + 0.05 * np.cos(2 * np.pi * mu * x / BOX)
    field = Field(PARTICLES)
    # Electrons: the force points against the field.
    force = lambda: -field.at(x)[0] / mu**2
    states, acceleration = [np.stack([x, v], 1)], force()
    for _ in range(END):
        for _ in range(round(1 / STEP)):
            v = v + 0.5 * STEP * acceleration
            x = np.mod(x + STEP * v, BOX)
            acceleration = force()
            v = v + 0.5 * STEP * acceleration
        states.append(np.stack([x, v], 1))
    return np.array(states)


def energies(states: np.ndarray) -> np.ndarray:
    """Electric energy at each time: −½ mean φ over the particles."""
    field = Field(states.shape[1])
    return np.array([-0.5 * field.at(state[:, 0])[1].mean() for state in states])


def on_cylinder(states: np.ndarray) -> np.ndarray:
    """Positions [row, 3] without the jump at the end of the box."""
    x, v = states.reshape(-1, 2).T
    return np.stack([RADIUS * np.cos(x / RADIUS), RADIUS * np.sin(x / RADIUS), v], 1).astype(np.float32)


def from_cylinder(rows: np.ndarray) -> np.ndarray:
    """States [time, particle, 2] at TIMES[1:]."""
    x = np.mod(np.arctan2(rows[:, 1], rows[:, 0]) * RADIUS, BOX)
    return np.stack([x, rows[:, 2]], 1).astype(float).reshape(len(TIMES) - 1, -1, 2)


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    for line in done.stderr.splitlines():
        if line.startswith("warning:"):
            print(line, file=sys.stderr)


def simulated(folder: Path | None, mu: float, seed: int) -> np.ndarray:
    """The simulation, kept in the folder if there is one."""
    if folder is None:
        return simulate(mu, seed)
    path = folder / f"mu_{mu:g}_seed_{seed}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.save(path, simulate(mu, seed))
    return np.load(path)


def errors(found: np.ndarray, truth: np.ndarray) -> list[float]:
    """Over all times but the first: the mean relative error, and the error over time relative to the truth over time."""
    difference = (found - truth)[1:]
    return [float(np.mean(np.abs(difference) / truth[1:])), float(np.linalg.norm(difference) / np.linalg.norm(truth[1:]))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=1, help="trainings, from seed 0 on")
    parser.add_argument("--simulations", type=Path, help="folder that keeps the simulations")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting")
    parser.add_argument("--unseen", type=float, nargs="+", default=UNSEEN, help="trained parameters are then left out")
    parser.add_argument("--threads", default="0", help="of the program; results do not depend on them")
    parser.add_argument("--out", type=Path, help="energies over time, a .npz")
    parser.add_argument("--amatch", default=str(ROOT / "target" / "release" / "amatch"))
    arguments = parser.parse_args()
    trained = [mu for mu in TRAINED if mu not in arguments.unseen]
    truth = {mu: simulated(arguments.simulations, mu, 0) for mu in (*trained, *arguments.unseen)}
    energy = {mu: energies(states) for mu, states in truth.items()}

    results: dict[str, dict[float, list[np.ndarray]]] = {}
    add = lambda name, mu, found: results.setdefault(name, {}).setdefault(mu, []).append(found)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = on_cylinder(np.array([truth[mu] for mu in trained]))
        times = np.tile(np.repeat(TIMES, PARTICLES), len(trained)).astype(np.float32)
        np.savez(folder / "data.npz", samples=rows, times=times, mu=np.repeat(trained, len(TIMES) * PARTICLES))
        sets = [part for setting in arguments.set for part in ("--set", setting)]
        threads = ["--threads", arguments.threads]
        for seed in range(arguments.seeds):
            config, model = folder / "two_stream.toml", folder / "run"
            settings = {"data": folder / "data.npz", "conditions": 'conditions = ["mu"]'}
            config.write_text(CONFIG.format(**settings, steps=arguments.steps, seed=seed))
            run(arguments.amatch, "train", str(config), *sets, *threads, "--out", str(model), "--force")
            for mu in arguments.unseen:
                start, moved = folder / "start.npz", folder / "moved.npz"
                np.savez(start, samples=on_cylinder(truth[mu][0]), mu=np.full(PARTICLES, mu))
                moving = ["--from", str(start), "--condition", f"mu={mu:g}", "--t0", "0", "--save-at", *map(str, TIMES[1:])]
                run(arguments.amatch, "sample", str(model), *moving, *threads, "--out", str(moved), "--force")
                states = from_cylinder(np.load(moved)["samples"])
                add("model", mu, energies(np.concatenate([truth[mu][:1], states])))

    for mu in arguments.unseen:
        below, above = max(m for m in trained if m < mu), min(m for m in trained if m > mu)
        ratio = (mu - below) / (above - below)
        add("nearest below", mu, energy[below])
        add("nearest above", mu, energy[above])
        add("interpolated", mu, (1 - ratio) * energy[below] + ratio * energy[above])
        add("other random numbers", mu, energies(simulated(arguments.simulations, mu, 1)))

    print(f"{arguments.steps} steps, the last model counts; seeds 0 to {arguments.seeds - 1}; |Ê − E|/E and ‖Ê − E‖/‖E‖\n")
    print("| electric energy | " + " | ".join(f"μ = {mu:g}, mean | μ = {mu:g}, norm" for mu in arguments.unseen) + " |")
    print("| --- |" + " --- |" * (2 * len(arguments.unseen)))
    for name, found in results.items():
        # Seeds, then both errors of each parameter.
        all_errors = np.hstack([[errors(each, energy[mu]) for each in found[mu]] for mu in arguments.unseen])
        spread = [f" ± {deviation:.3f}" if len(all_errors) > 1 else "" for deviation in all_errors.std(0)]
        cells = [mean + deviation for mean, deviation in zip((f"{mean:.3f}" for mean in all_errors.mean(0)), spread, strict=True)]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    if arguments.out:
        arrays = {f"{name}, mu={mu:g}": np.array(each) for name, found in results.items() for mu, each in found.items()}
        np.savez(arguments.out, times=TIMES, **arrays, **{f"truth, mu={mu:g}": energy[mu] for mu in arguments.unseen})


if __name__ == "__main__":
    main()
