"""The programs that take turns: peers, each in a process of its own that waits stopped between turns, and amatch."""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from . import problem, reference
from .machine import process_seconds
from .workloads import Hardware, Product, Sampling, Training, Workload

SETUP_LIMIT_SECONDS = 3600.0
REPLY_LIMIT_SECONDS = 600.0
ENDED_WITHOUT_REPLY = "ended without a reply"


class ProgramFailed(Exception):
    """A program cannot run, or stopped answering; the message says why."""


@dataclass(frozen=True)
class Measured:
    """What a program did in a turn."""

    seconds_per_unit: float
    cpu_seconds: float
    """Processor time of the program itself, all threads."""


class Program(Protocol):
    """Something that takes turns on one workload."""

    name: str
    description: str

    def turn(self, seconds: float) -> Measured:
        """Works for about that long. Raises `ProgramFailed`."""

    def answers(self) -> dict[str, NDArray]:
        """Its own version of `reference.answers`. Raises `ProgramFailed`."""

    def expected(self) -> dict[str, NDArray] | None:
        """What `answers` should have found, if that is not `reference.answers`."""


class PeerProcess:
    """A peer that compiles its forms, then keeps the fastest. Once it has compiled it runs
    during its turns only, stopped in between."""

    description = ""
    seconds_of_forms: Mapping[str, float | None] = {}

    def __init__(
        self, name: str, workload: Workload | Product, rows: int | None, threads: int, folder: Path
    ) -> None:
        """Starts. `PeerProcess.compile_all` waits until it has compiled, which takes minutes."""
        self.name = name
        self._log = folder / f"{name}.{workload.name}.log"
        self._answers = folder / f"{name}.{workload.name}.safetensors"
        hardware = workload.hardware
        command = [sys.executable, "-m", "peerbench.child", name, workload.name]
        command += ["--device", hardware.device, "--precision", hardware.precision]
        command += ["--rows", str(rows)] if rows else []
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, "--threads", str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
                env=_environment(threads, hardware),
                start_new_session=True,  # a group of its own, stopped and resumed as a whole
            )

    @classmethod
    def compile_all(
        cls, starts: Iterable[Callable[[], PeerProcess]], jobs: int
    ) -> Iterator[PeerProcess | tuple[PeerProcess, ProgramFailed]]:
        """Starts processes, at most `jobs` that compile at the same time, and yields each that
        has compiled or failed."""
        # All in this thread: a process ends with the thread that started it.
        starts, compiling = iter(starts), []
        while True:
            compiling += [start() for start in itertools.islice(starts, jobs - len(compiling))]
            if not compiling:
                return
            pipes = [peer._process.stdout for peer in compiling]
            readable, _, _ = select.select(pipes, [], [], SETUP_LIMIT_SECONDS)
            if not readable:
                for peer in compiling:
                    yield peer, ProgramFailed(f"did not compile within {SETUP_LIMIT_SECONDS:.0f} s")
                    peer.close()
                compiling.clear()
            for peer in [peer for peer in compiling if peer._process.stdout in readable]:
                compiling.remove(peer)
                try:
                    peer._answer(REPLY_LIMIT_SECONDS)
                    peer._signal(signal.SIGSTOP)
                    yield peer
                except ProgramFailed as failure:
                    yield peer, failure

    def tune(self, seconds: float) -> None:
        """Keeps the fastest form, each measured for about that long. Raises `ProgramFailed`."""
        ready = self._ask({"tune": seconds})["ready"]
        self.seconds_of_forms = ready["seconds_of_forms"]
        self.description = f"{ready['version']}, {ready['form']}"

    def turn(self, seconds: float) -> Measured:
        before = process_seconds(self._process.pid)
        reply = self._ask({"turn": seconds})
        return Measured(reply["seconds_per_unit"], process_seconds(self._process.pid) - before)

    def answers(self) -> dict[str, NDArray]:
        self._ask({"check": str(self._answers)})
        return load_file(self._answers)

    def expected(self) -> None:
        return None

    def close(self) -> None:
        """Ends the process, stopped or not, if it has not been ended."""
        if self._process.returncode is not None:
            return
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._signal(signal.SIGCONT)
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            return self._answer(REPLY_LIMIT_SECONDS)
        except BrokenPipeError as broken:
            raise ProgramFailed(f"{ENDED_WITHOUT_REPLY}: {self._last_words()}") from broken
        finally:
            self._signal(signal.SIGSTOP)

    def _answer(self, limit_seconds: float) -> dict[str, Any]:
        reply = self._receive(limit_seconds)
        if "unavailable" in reply:
            raise ProgramFailed(reply["unavailable"])
        return reply

    def _receive(self, limit_seconds: float) -> dict[str, Any]:
        readable, _, _ = select.select([self._process.stdout], [], [], limit_seconds)
        if not readable:
            raise ProgramFailed(f"no reply within {limit_seconds:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise ProgramFailed(f"{ENDED_WITHOUT_REPLY}: {self._last_words()}")
        return json.loads(line)

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass  # it has ended; whoever waits for its reply learns that from the pipe


def _environment(threads: int, hardware: Hardware) -> dict[str, str]:
    """The caller's, with the number of threads fixed for every library, and no accelerator but
    the one that is asked for."""
    libraries = ("OMP", "MKL", "OPENBLAS")
    return {
        **os.environ,
        **{f"{library}_NUM_THREADS": str(threads) for library in libraries},
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no pool of compile workers that would outlive the set-up
        **(_GPU_ENVIRONMENT if hardware.is_gpu else {"CUDA_VISIBLE_DEVICES": ""}),
        "JAX_PLATFORMS": hardware.device,
        "JAX_DEFAULT_MATMUL_PRECISION": _JAX_PRECISIONS[hardware.precision],
    }


_JAX_PRECISIONS = {"f32": "float32", "tf32": "tensorfloat32", "bf16": "BF16_BF16_F32"}
# Programs share the GPU's memory.
_GPU_ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Amatch:
    """`amatch bench`, started anew for each turn; it measures itself."""

    def __init__(
        self, executable: Path, workload: Workload | Product, rows: int | None, threads: int, folder: Path
    ) -> None:
        """Raises `ProgramFailed` when this is no amatch."""
        self._executable, self._workload, self._rows = executable, workload, rows
        # `amatch` replaces no file, so each workload has a folder.
        self._folder = folder / workload.name
        self._folder.mkdir(exist_ok=True)
        self.name = "amatch-product" if isinstance(workload, Product) else "amatch"
        hardware = workload.hardware
        # `check` has no threads to choose.
        self._check_device = ["--device", hardware.device, "--precision", hardware.precision]
        self._device = self._check_device if hardware.is_gpu else ["--device", "cpu", "--threads", str(threads)]
        self._expected: dict[str, NDArray] | None = None
        self.description = self._run("--version")[0].strip()

    def turn(self, seconds: float) -> Measured:
        rows = ["--rows", str(self._rows)] if self._rows else []
        options = [*self._device, "--seconds", str(seconds), "--json", *rows]
        output, cpu_seconds = self._run("bench", self._workload.name, *options)
        try:
            figures = json.loads(output)
            if isinstance(self._workload, Product):
                return Measured(1.0 / figures["gflops"], cpu_seconds)
            return Measured(figures[f"seconds_per_{self._workload.unit}"], cpu_seconds)
        except (ValueError, KeyError) as malformed:
            raise ProgramFailed(f"amatch bench printed {output!r}: {malformed!r}") from malformed

    def answers(self) -> dict[str, NDArray]:
        if isinstance(self._workload, Training) and self._workload.is_regression:
            return self._trained_step(self._workload)
        model, batch = self._folder / "model.safetensors", self._folder / "batch.safetensors"
        found = self._folder / "found.safetensors"
        problem.save_model(model, self._workload)
        problem.save_tensors(batch, problem.batch(self._workload))
        self._run("check", "--model", str(model), "--batch", str(batch), "--out", str(found), *self._check_device)
        tensors = load_file(found)
        if isinstance(self._workload, Training):
            gradient = {name: tensor for name, tensor in tensors.items() if name.startswith("grad.")}
            # `check` gives the gradient of the loss; the peers give it as AdamW receives it.
            return {"loss": tensors["loss"], **reference.clipped(gradient)}
        return {"velocity": tensors["ds_dx"], "end": self._transported(self._workload, model)}

    def expected(self) -> dict[str, NDArray] | None:
        return self._expected

    def _trained_step(self, workload: Training) -> dict[str, NDArray]:
        """Loss and gradient of the first step of a run, as `check` has no regression. The path
        has one row per snapshot and only its corners as times, so the rows are known; the
        learning rate is too small to change the parameters."""
        run, network = self._folder / "regression", workload.network
        corners = problem.snapshots(network.dim)[0, : 1 + problem.MOST_CHECKED // 2]
        n_intervals = len(corners) - 1
        times = np.arange(len(corners)) / n_intervals
        np.savez(self._folder / "corners.npz", samples=corners, times=times)
        settings = {
            "data": {"path": "corners.npz", "standardize": "none"},
            "model": {"hidden": list(network.hidden), "head": network.head},
            "objective": {"estimator": "regression", "time_rule": "trapezoid"},
            "training": {
                "steps": 1,
                "interior_rows": 2 * n_intervals,
                "learning_rate": 1e-30,
                "warmup_steps": 0,
                "schedule": "constant",
                "clip_norm": problem.CLIP_NORM,
            },
        }
        config = self._folder / "regression.toml"
        # A list or text of JSON is one of TOML.
        lines = [f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
                 for section, keys in settings.items()]
        config.write_text("".join(lines))
        self._run("train", str(config), "--out", str(run), "--force", *self._device)
        model = load_file(run / "model.safetensors")
        layers = [(model[weight], model[bias]) for weight, bias in problem.tensor_names(len(network.hidden) + 1)]
        velocity = np.diff(corners, axis=0) * np.float32(n_intervals)
        rows = {
            "x": np.concatenate([corners[:-1], corners[1:]]),
            "t": np.concatenate([times[:-1], times[1:]]),
            "velocity": np.concatenate([velocity, velocity]),
        }
        self._expected = reference.answers_at(workload, layers, rows)
        checkpoint = load_file(run / "checkpoints" / "step-0000000001.safetensors")
        # Adam's first moment after one step from zero is (1 − β₁) times the clipped gradient, the
        # parameters of each layer after those of the one before, weight before bias.
        flat = checkpoint["moment1"] / (1.0 - problem.BETA1)
        sizes = [tensor.size for layer in layers for tensor in layer]
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        gradient = [(w.reshape(weight.shape), b) for (weight, _), w, b in zip(layers, parts[::2], parts[1::2])]
        with (run / "metrics.jsonl").open() as metrics:
            loss = json.loads(metrics.readline())["loss"]
        return {"loss": np.array(loss), **problem.named(gradient, "grad.")}

    def _transported(self, workload: Sampling, model: Path) -> NDArray:
        start, end = self._folder / "start.npy", self._folder / "end.safetensors"
        np.save(start, problem.batch(workload)["x"])
        plan = ["--method", workload.method, "--steps", str(workload.n_steps), "--t0", "0", "--t1", "1"]
        self._run("sample", str(model), "--from", str(start), *plan, "--out", str(end), *self._device)
        return load_file(end)["samples"]

    def _run(self, *arguments: str) -> tuple[str, float]:
        """Standard output and CPU seconds."""
        before = os.times()
        try:
            done = subprocess.run(
                [self._executable, *arguments], capture_output=True, text=True, timeout=REPLY_LIMIT_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as problem_:
            raise ProgramFailed(f"amatch {arguments[0]}: {problem_}") from problem_
        after = os.times()
        if done.returncode != 0:
            raise ProgramFailed(f"amatch {arguments[0]}: {done.stderr.strip() or f'exit code {done.returncode}'}")
        cpu_seconds = after.children_user + after.children_system - before.children_user - before.children_system
        return done.stdout, cpu_seconds
