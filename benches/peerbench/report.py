"""The table: one row a workload, ratios taken within rounds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import Any

from .rounds import Record
from .workloads import Training, Workload

MINIMUM_PAIRS = 5
"""Rounds in which both we and the fastest peer were undisturbed, for a ratio to count."""
OURS = "amatch"


@dataclass
class Row:
    """What one workload showed."""

    workload: Workload
    records: dict[str, Record] = field(default_factory=dict)
    """By program: ours, and the peers that ran."""
    absent: dict[str, str] = field(default_factory=dict)
    """Programs that did not run or were refused, and why."""
    descriptions: dict[str, str] = field(default_factory=dict)
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    """By program and tensor: relative error against the float64 reference."""
    forms: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """By peer and form: seconds a unit when the forms were tried."""

    def seconds(self, program: str) -> float | None:
        """Median over the rounds that count."""
        times = [turn.seconds_per_unit for turn in self._turns(program) if turn]
        return median(times) if times else None

    def fastest_peer(self) -> str | None:
        """By median."""
        seconds = {name: self.seconds(name) for name in self.records if name != OURS}
        measured = {name: value for name, value in seconds.items() if value is not None}
        return min(measured, key=measured.__getitem__) if measured else None

    def ratios(self) -> list[float]:
        """The fastest peer's time over ours, for each round in which both count."""
        peer = self.fastest_peer()
        if peer is None:
            return []
        pairs = zip(self._turns(peer), self._turns(OURS))
        return [theirs.seconds_per_unit / ours.seconds_per_unit for theirs, ours in pairs if theirs and ours]

    def gflops(self, program: str) -> float | None:
        """10⁹ counted operations a second."""
        seconds = self.seconds(program)
        return None if seconds is None else self.workload.flop / seconds / 1e9

    def _turns(self, program: str) -> list:
        record = self.records.get(program)
        return [] if record is None or record.failure else record.counted


@dataclass
class Peak:
    """The best matrix product of the run: the program whose median over all its turns is fastest."""

    records: list[tuple[str, Record]]
    """One for each program and workload whose rounds it took part in."""
    descriptions: dict[str, str]
    absent: dict[str, str]

    def gflops(self) -> dict[str, float]:
        """Median of each program."""
        rates: dict[str, list[float]] = {}
        for name, record in self.records:
            rates.setdefault(name, []).extend(1.0 / turn.seconds_per_unit for turn in record.counted if turn)
        return {name: median(values) for name, values in rates.items() if values}

    def best(self) -> tuple[str, float] | None:
        """Name and GFLOP/s."""
        return max(self.gflops().items(), key=lambda item: item[1], default=None)


def table(rows: list[Row], peers: list[str], peak: Peak) -> str:
    """Markdown."""
    header = ["workload", "amatch", *peers, "ratio (quartiles)", "target", "amatch GFLOP/s", "of peak", "target"]
    lines = [_line(header), _line(["---"] * len(header))]
    lines += [_line(_cells(row, peers, peak)) for row in rows]
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(row: Row, peers: list[str], peak: Peak) -> list[str]:
    target, ratios, ours, best = row.workload.target, row.ratios(), row.gflops(OURS), peak.best()
    share = ours / best[1] if ours and best else None
    fastest = row.fastest_peer()
    times = [f"**{_time(row, peer)}**" if peer == fastest else _time(row, peer) for peer in peers]
    return [
        row.workload.name,
        _time(row, OURS),
        *times,
        _ratio(ratios),
        f"≥ {target.ratio:g}: {_verdict(median(ratios) if ratios else None, target.ratio, len(ratios))}",
        f"{ours:.0f}" if ours else "—",
        f"{share:.0%}" if share else "—",
        f"≥ {target.of_peak:.0%}: {_verdict(share, target.of_peak, len(ratios))}",
    ]


def _time(row: Row, program: str) -> str:
    seconds, gflops = row.seconds(program), row.gflops(program)
    if seconds is None or gflops is None:
        if program in row.absent:
            return "not run"
        return "not measured" if program in row.records else "—"
    time = f"{seconds * 1e3:.3g} ms" if isinstance(row.workload, Training) else f"{seconds:.3g} s"
    return f"{time} ({gflops:.0f})"


def _ratio(ratios: list[float]) -> str:
    if len(ratios) < 2:
        return f"{ratios[0]:.2f}" if ratios else "—"
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def _verdict(value: float | None, target: float, n_pairs: int) -> str:
    if value is None:
        return "not measured"
    if n_pairs < MINIMUM_PAIRS:
        return f"open ({n_pairs} of {MINIMUM_PAIRS} rounds count)"
    return "met" if value >= target else "missed"


def notes(rows: list[Row], peak: Peak) -> list[str]:
    """What the table's reader must know besides: the peak, the forms, the disturbances, and who did not run."""
    lines = []
    if best := peak.best():
        others = ", ".join(f"{name} {rate:.0f}" for name, rate in peak.gflops().items() if name != best[0])
        lines.append(
            f"Peak: {best[1]:.0f} GFLOP/s, {best[0]} ({peak.descriptions[best[0]]})" + (f"; {others}" if others else "")
        )
    lines += [f"Peak: {name} not run: {why}" for name, why in peak.absent.items()]
    for row in rows:
        name = row.workload.name
        if forms := ", ".join(f"{program}: {text}" for program, text in row.descriptions.items()):
            lines.append(f"{name}: fastest forms are {forms}")
        if disturbances := _disturbances(row.records):
            lines.append(f"{name}: {disturbances}")
        failures = {program: record.failure for program, record in row.records.items() if record.failure}
        lines += [f"{name}: {program} not run: {why}" for program, why in {**row.absent, **failures}.items()]
    return lines


def _disturbances(records: dict[str, Record]) -> str:
    counted = [turn.foreign for record in records.values() for turn in record.counted if turn]
    if not counted:
        return "every turn was disturbed by other processes"
    n_repeated = sum(len(record.disturbed) for record in records.values())
    n_lost = sum(turn is None for record in records.values() for turn in record.counted)
    text = f"others took {max(counted):.1%} of the CPUs at most in turns that count (median {median(counted):.1%})"
    text += f", {n_repeated} disturbed turns discarded" if n_repeated else ""
    return text + (f", {n_lost} given up" if n_lost else "")


def as_json(rows: list[Row], peak: Peak) -> dict[str, Any]:
    """Every figure, raw and derived; numbers that are not finite become null."""
    return _finite(
        {
            "peak": {
                "gflops": peak.gflops(),
                "best": peak.best(),
                "descriptions": peak.descriptions,
                "not_run": peak.absent,
            },
            "workloads": [_row_as_json(row, peak) for row in rows],
        }
    )


def _row_as_json(row: Row, peak: Peak) -> dict[str, Any]:
    best, ours = peak.best(), row.gflops(OURS)
    return {
        **asdict(row),
        "name": row.workload.name,
        "flop": row.workload.flop,
        "unit": row.workload.unit,
        "seconds": {name: row.seconds(name) for name in row.records},
        "gflops": {name: row.gflops(name) for name in row.records},
        "fastest_peer": row.fastest_peer(),
        "ratios": row.ratios(),
        "ratio": median(row.ratios()) if row.ratios() else None,
        "of_peak": ours / best[1] if ours and best else None,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
