"""The machine: which CPUs a run may use, and how much of them other processes took meanwhile (Linux)."""

from __future__ import annotations

import os
import platform
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def allowed_cpus() -> frozenset[int]:
    """The CPUs that this process may use."""
    return frozenset(os.sched_getaffinity(0))


def claim_cpus(threads: int) -> frozenset[int]:
    """Confines this process and its children to `threads` CPUs, on different cores where it can, and returns them.

    Raises ValueError when fewer are allowed.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < threads:
        raise ValueError(f"--threads {threads}: this process may use {len(allowed)} CPUs only")
    first_of_core = {_siblings(cpu): cpu for cpu in reversed(allowed)}
    preferred = sorted(first_of_core.values())
    chosen = frozenset((preferred + [cpu for cpu in allowed if cpu not in preferred])[:threads])
    os.sched_setaffinity(0, chosen)
    return chosen


def _siblings(cpu: int) -> str:
    """The hardware threads of this CPU's core, as the system lists them."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def busy_seconds(cpus: frozenset[int]) -> float:
    """Seconds these CPUs have worked since boot, for anyone: also interrupts, and time a hypervisor withheld."""
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cpus:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            busy += user + nice + system + irq + softirq + steal
    return busy / TICKS_PER_SECOND


def process_seconds(pid: int) -> float:
    """CPU seconds of a process and of its children that have ended."""
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text.rpartition(")")[2].split()  # the command's name may hold blanks and brackets
    return sum(map(int, fields[11:15])) / TICKS_PER_SECOND


def describe() -> str:
    """Processor and system, for the report."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {platform.system()} {platform.release()}, Python {platform.python_version()}"
