"""A peer's process: builds its forms, keeps the fastest, then answers its parent in lines of JSON.

Out: {"ready": …} or {"unavailable": why}, once. In: {"turn": seconds} or {"check": file}; out: what came of it.
Ends with its standard input, and with its parent.
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
from pathlib import Path
from typing import Any, TextIO

from .forms import Form, Forms, Unavailable
from .peers import PEERS
from .problem import save_tensors
from .workloads import PEAK, WORKLOADS, Hardware, chosen

PR_SET_PDEATHSIG = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("workload", choices=[*WORKLOADS, PEAK])
    parser.add_argument("--device", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--tune-seconds", type=float, required=True)
    arguments = parser.parse_args()

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    replies = _claim_stdout()
    try:
        hardware = Hardware(arguments.device, arguments.precision)
        module = _load(arguments.peer, arguments.threads, hardware)
        workload = chosen(arguments.workload, hardware, arguments.rows)
        form, seconds = _fastest(module.forms(workload), arguments.tune_seconds)
    except Unavailable as problem:
        _reply(replies, {"unavailable": str(problem)})
        return
    name = min(seconds, key=lambda name: seconds[name] or float("inf"))
    _reply(replies, {"ready": {"version": module.version(), "form": name, "seconds_of_forms": seconds}})
    for line in sys.stdin:
        request = json.loads(line)
        if "turn" in request:
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


def _fastest(forms: Forms, tune_seconds: float) -> tuple[Form, dict[str, float | None]]:
    """The fastest form, and seconds a unit of each (None: it does not build). The shortest call counts, not the
    mean: a disturbance must not decide which form runs."""
    best: Form | None = None
    seconds: dict[str, float | None] = {}
    failures = []
    for name, build in forms.items():
        try:
            form = build()
            form.advance()
        except Exception as failure:  # whatever a framework raises, the other forms may still run
            print(f"{name}: {type(failure).__name__}: {failure}", file=sys.stderr)
            failures.append(f"{name}: {type(failure).__name__}: {str(failure).partition(chr(10))[0]}")
            seconds[name] = None
            continue
        seconds[name] = _shortest_call(form, tune_seconds) / form.work
        if seconds[name] == min(filter(None, seconds.values())):
            best = form
    if best is None:
        raise Unavailable(f"none of its {len(failures)} forms runs; {failures[0]}")
    return best, seconds


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
