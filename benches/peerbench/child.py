"""A peer's process: compiles its forms, keeps the fastest, and answers its parent in lines of JSON.

Out: {"compiled": seconds} or {"unavailable": why}, once. In: {"tune": seconds}, which chooses the
form, then any number of {"turn": seconds} and {"check": file}; out: what came of it. Ends with its
standard input, and with its parent.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, TypeVar

from .forms import Form, Forms, Unavailable
from .peers import PEERS
from .problem import save_tensors
from .workloads import PEAK, WORKLOADS, Hardware, chosen

PR_SET_PDEATHSIG = 1
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("workload", choices=[*WORKLOADS, PEAK])
    parser.add_argument("--device", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    replies = _claim_stdout()
    try:
        hardware = Hardware(arguments.device, arguments.precision)
        module = _load(arguments.peer, arguments.threads, hardware)
        started = time.perf_counter()
        forms = _compiled(module.forms(chosen(arguments.workload, hardware, arguments.rows)))
        _reply(replies, {"compiled": time.perf_counter() - started})
    except Unavailable as problem:
        _reply(replies, {"unavailable": str(problem)})
        return
    form: Form | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if "tune" in request:
            try:
                form, seconds = _fastest(forms, request["tune"])
            except Unavailable as problem:
                _reply(replies, {"unavailable": str(problem)})
                return
            forms.clear()
            name = min(seconds, key=lambda name: seconds[name] or float("inf"))
            _reply(replies, {"ready": {"version": module.version(), "form": name, "seconds_of_forms": seconds}})
        elif "turn" in request:
            _reply(replies, _turn(form, request["turn"]))
        else:
            save_tensors(Path(request["check"]), form.check())
            _reply(replies, {"checked": request["check"]})


def _claim_stdout() -> TextIO:
    """The pipe to the parent; whatever else prints goes to standard error."""
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return pipe


def _reply(pipe: TextIO, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=pipe, flush=True)


def _load(peer: str, threads: int, hardware: Hardware) -> Any:
    try:
        module = importlib.import_module(f".peers.{PEERS[peer].module}", __package__)
    except ModuleNotFoundError as missing:
        raise Unavailable(f"{missing.name} is not installed: pip install -r benches/requirements.txt") from missing
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.set_num_threads(threads)
        torch.set_default_device(hardware.device)
        torch.set_float32_matmul_precision("highest" if hardware.precision == "f32" else "high")
    return module


def _compiled(forms: Forms) -> dict[str, Form | Exception]:
    """Every form, or why it does not compile."""
    return {name: _attempt(name, lambda build=build: _compiled_form(build)) for name, build in forms.items()}


def _compiled_form(build: Callable[[], Form]) -> Form:
    form = build()
    form.compile()
    return form


def _fastest(forms: dict[str, Form | Exception], tune_seconds: float) -> tuple[Form, dict[str, float | None]]:
    """The fastest form, and seconds a unit of each (None: it does not run). The shortest call counts, not the
    mean: a disturbance must not decide which form runs."""
    best: Form | None = None
    seconds: dict[str, float | None] = {}
    failures = []
    for name, form in forms.items():
        measured = form if isinstance(form, Exception) else _attempt(name, lambda: _measured(form, tune_seconds))
        if isinstance(measured, Exception):
            failures.append(f"{name}: {type(measured).__name__}: {str(measured).partition(chr(10))[0]}")
            seconds[name] = None
            continue
        seconds[name] = measured
        if seconds[name] == min(filter(None, seconds.values())):
            best = form
    if best is None:
        raise Unavailable(f"none of its {len(failures)} forms runs; {failures[0]}")
    return best, seconds


def _attempt(name: str, work: Callable[[], T]) -> T | Exception:
    """What `work` returns or raises: whatever a framework raises, other forms may still run."""
    try:
        return work()
    except Exception as failure:
        print(f"{name}: {type(failure).__name__}: {failure}", file=sys.stderr)
        return failure


def _measured(form: Form, for_seconds: float) -> float:
    """Seconds a unit, after a first call."""
    form.advance()
    return _shortest_call(form, for_seconds) / form.work


def _shortest_call(form: Form, for_seconds: float) -> float:
    shortest, end = float("inf"), time.perf_counter() + for_seconds
    while shortest == float("inf") or time.perf_counter() < end:
        started = time.perf_counter()
        form.advance()
        shortest = min(shortest, time.perf_counter() - started)
    return shortest


def _turn(form: Form, for_seconds: float) -> dict[str, float]:
    """Works for about `for_seconds`; one call before the clock starts brings threads and caches back."""
    form.advance()
    started, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < for_seconds:
        form.advance()
        calls += 1
    return {"seconds_per_unit": elapsed / (calls * form.work), "seconds": elapsed}


if __name__ == "__main__":
    main()
