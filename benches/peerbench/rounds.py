"""Rounds of turns: every program once a round, in alternating order, on a machine that is otherwise quiet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .machine import busy_seconds
from .programs import Program, ProgramFailed


@dataclass(frozen=True)
class Turn:
    """One program's turn."""

    seconds_per_unit: float
    foreign: float
    """Share of the CPUs that other processes took meanwhile."""


@dataclass
class Record:
    """All turns of one program on one workload."""

    counted: list[Turn | None] = field(default_factory=list)
    """One for each round; None where every try was disturbed."""
    disturbed: list[Turn] = field(default_factory=list)
    """Turns that do not count."""
    failure: str | None = None
    """Why the program takes no more turns."""


@dataclass(frozen=True)
class Protocol:
    """How turns are taken."""

    rounds: int
    seconds: float
    foreign_limit: float
    """Largest share of the CPUs that others may take in a turn that counts."""
    retries: int
    """Tries after the first for each turn."""
    cpus: frozenset[int]


def take_turns(programs: Sequence[Program], protocol: Protocol, say: Callable[[str], None]) -> dict[str, Record]:
    """Runs all rounds; a program that fails takes no further turns."""
    records = {program.name: Record() for program in programs}
    for round_ in range(protocol.rounds):
        for program in programs if round_ % 2 == 0 else reversed(programs):
            record = records[program.name]
            if record.failure is None:
                try:
                    record.counted.append(_counted_turn(program, protocol, record))
                except ProgramFailed as failure:
                    record.failure = str(failure)
                    say(f"  {program.name} failed: {failure}")
        say(f"  round {round_ + 1} of {protocol.rounds}: {_summary(records, round_)}")
    return records


def _counted_turn(program: Program, protocol: Protocol, record: Record) -> Turn | None:
    for attempt in range(1 + protocol.retries):
        if attempt > 0:
            time.sleep(min(1.0 * attempt, 5.0))  # let the disturbance pass
        turn = _turn(program, protocol)
        if turn.foreign <= protocol.foreign_limit:
            return turn
        record.disturbed.append(turn)
    return None


def _turn(program: Program, protocol: Protocol) -> Turn:
    busy, started = busy_seconds(protocol.cpus), time.perf_counter()
    measured = program.turn(protocol.seconds)
    elapsed = time.perf_counter() - started
    foreign = busy_seconds(protocol.cpus) - busy - measured.cpu_seconds
    return Turn(measured.seconds_per_unit, max(0.0, foreign) / (elapsed * len(protocol.cpus)))


def _summary(records: dict[str, Record], round_: int) -> str:
    def show(record: Record) -> str:
        turn = record.counted[round_] if round_ < len(record.counted) else None
        return "disturbed" if turn is None else f"{turn.seconds_per_unit:.4g} s ({turn.foreign:.0%} foreign)"

    return ", ".join(f"{name} {show(record)}" for name, record in records.items() if record.failure is None)
