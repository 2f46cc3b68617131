"""`amatch bench` beside PyTorch and JAX, on the CPU or on a GPU: one run, one table.

    cargo build --release
    python -m pip install -r benches/requirements.txt
    python benches/peers.py --out peers.json
    python benches/peers.py --device cuda --precision bf16 --rows 65536

Every program is first checked to compute the same loss and gradient; then they take turns, round after round, all
but one of them stopped. benches/README.md says what is counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from peerbench import machine, reference, report, verify
from peerbench.peers import PEERS, Peer
from peerbench.programs import Amatch, PeerProcess, Program, ProgramFailed
from peerbench.rounds import Protocol, take_turns
from peerbench.workloads import PEAK, WORKLOADS, Hardware, Product, Training, Workload, chosen

RIVALS = [name for name, peer in PEERS.items() if not peer.multiplies]
DEFAULT_AMATCH = Path(__file__).resolve().parents[1] / "target" / "release" / "amatch"


def main() -> int:
    arguments = parse_arguments()
    try:
        # Compilers for a GPU may have all CPUs.
        cpus = machine.claim_cpus(arguments.threads) if arguments.device == "cpu" else machine.allowed_cpus()
    except ValueError as too_few:
        print(f"error: {too_few}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the peers are ended on the way out
    protocol = Protocol(arguments.rounds, arguments.seconds, arguments.foreign / 100.0, arguments.retries, cpus)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amatch-peers-")))
        bench = Bench(arguments, protocol, folder)
        bench.start_peak(stack)
        rows = bench.run_all(arguments.workloads)
    print(f"{machine.describe()}; {arguments.threads} threads on CPUs {', '.join(map(str, sorted(cpus)))}\n")
    print(report.table(rows, arguments.peers, bench.peak))
    print("\nTime of a step or run (GFLOP/s); ratio = fastest peer (bold) over amatch, median of the rounds.\n")
    print("\n".join(f"- {note}" for note in report.notes(rows, bench.peak)))
    if arguments.out:
        arguments.out.write_text(json.dumps(_document(rows, bench.peak, protocol), indent=1, ensure_ascii=False))
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME",
                        help=f"of {', '.join(WORKLOADS)} (default: all)")
    parser.add_argument("--peers", nargs="+", choices=RIVALS, default=RIVALS, metavar="NAME",
                        help=f"of {', '.join(RIVALS)} (default: all)")
    parser.add_argument("--amatch", type=Path, default=DEFAULT_AMATCH, metavar="PATH",
                        help="the program (default: target/release/amatch)")
    parser.add_argument("--peers-only", action="store_true", help="leaves amatch out")
    parser.add_argument("--threads", type=_positive(int), default=2, metavar="N", help="of each program (default 2)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default cpu")
    parser.add_argument("--precision", choices=verify.TOLERANCES, help="of a GPU's products (default bf16)")
    parser.add_argument("--rows", type=_positive(int), metavar="N",
                        help="of each kind in a step, or particles, instead of the workload's own")
    parser.add_argument("--jobs", type=_positive(int), metavar="N",
                        help="peers that compile at the same time (default: 8 for a GPU, 1 for the CPU)")
    parser.add_argument("--rounds", type=_positive(int), default=5, metavar="N",
                        help="default 5, the fewest that count")
    parser.add_argument("--seconds", type=_positive(float), default=3.0, metavar="S", help="of a turn (default 3)")
    parser.add_argument("--foreign", type=_positive(float), default=5.0, metavar="PERCENT",
                        help="of the CPUs that others may take in a turn that counts (default 5)")
    parser.add_argument("--retries", type=int, default=5, metavar="N", help="of a disturbed turn (default 5)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="every figure, as JSON")
    arguments = parser.parse_args()
    if arguments.device == "cpu" and arguments.precision not in (None, "f32"):
        parser.error("--precision is of a GPU: the CPU multiplies in f32")
    arguments.precision = arguments.precision or ("f32" if arguments.device == "cpu" else "bf16")
    arguments.jobs = arguments.jobs or (1 if arguments.device == "cpu" else 8)
    return arguments


def _positive(kind: type) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    return number


class Bench:
    """Sets programs up, verifies them and lets them take turns, workload after workload."""

    def __init__(self, arguments: argparse.Namespace, protocol: Protocol, folder: Path) -> None:
        self._arguments, self._protocol, self._folder = arguments, protocol, folder
        self._hardware = Hardware(arguments.device, arguments.precision)
        self._products: list[Program] = []
        self.peak = report.Peak(records=[], descriptions={}, absent={})

    def start_peak(self, stack: contextlib.ExitStack) -> None:
        """Starts the matrix products, which take part in the rounds of every workload."""
        product = chosen(PEAK, self._hardware, None)
        names = [name for name, peer in PEERS.items() if peer.multiplies and _runs_on(peer, self._hardware)]
        # A GPU's product is measured by its library alone; for a GPU `amatch bench peak` prints the
        # vendor's figure.
        ours = [] if self._hardware.is_gpu else self._ours(product, self.peak.absent)
        peers = self._compiled([(product, name) for name in names], lambda _: self.peak.absent, stack)
        self._products = ours + [peer for _, peer in peers if self._tuned(peer, self.peak.absent)]
        self.peak.descriptions = {product.name: product.description for product in self._products}

    def run_all(self, names: Sequence[str]) -> list[report.Row]:
        """All workloads. For a GPU the peers of all compile first, at the same time; on the CPU, whose memory would not
        hold them all, those of one workload after the other."""
        rows = [report.Row(chosen(name, self._hardware, self._arguments.rows)) for name in names]
        groups = [rows] if self._hardware.is_gpu else [[row] for row in rows]
        for group in groups:
            with contextlib.ExitStack() as stack:
                wanted = [(row.workload, peer) for row in group for peer in self._peers_of(row.workload)]
                absent = {row.workload.name: row.absent for row in group}
                peers = self._compiled(wanted, lambda workload: absent[workload.name], stack)
                for row in group:
                    self._run(row, [peer for workload, peer in peers if workload is row.workload])
        return rows

    def _run(self, row: report.Row, peers: list[PeerProcess]) -> None:
        """The rounds of one workload. Ends its peers."""
        workload = row.workload
        say(f"{workload.name}:")
        rivals = [peer for peer in peers if self._tuned(peer, row.absent)]
        row.forms = {rival.name: dict(rival.seconds_of_forms) for rival in rivals}
        programs = self._verified(workload, [*self._ours(workload, row.absent), *rivals], row)
        row.descriptions = {program.name: program.description for program in programs}
        records = take_turns([*programs, *self._products], self._protocol, say) if programs else {}
        row.records = {program.name: records[program.name] for program in programs}
        self.peak.records += [(product.name, records[product.name]) for product in self._products if records]
        for peer in peers:
            peer.close()

    def _peers_of(self, workload: Workload) -> list[str]:
        return [name for name in self._arguments.peers if _takes_part(name, workload)]

    def _ours(self, workload: Workload | Product, absent: dict[str, str]) -> list[Program]:
        """`amatch`, unless it is left out or cannot run."""
        if not self._arguments.peers_only:
            with _noting_failure(report.OURS, absent):
                arguments = self._arguments
                return [Amatch(arguments.amatch, workload, arguments.rows, arguments.threads, self._folder)]
        return []

    def _compiled(
        self,
        wanted: Sequence[tuple[Workload | Product, str]],
        absent_of: Callable[[Workload | Product], dict[str, str]],
        stack: contextlib.ExitStack,
    ) -> list[tuple[Workload | Product, PeerProcess]]:
        """Peers with their workloads, in the order wanted; those that cannot run go to `absent_of`."""
        arguments, started = self._arguments, time.perf_counter()
        workload_of: dict[PeerProcess, Workload | Product] = {}

        def start(workload: Workload | Product, name: str) -> PeerProcess:
            peer = PeerProcess(name, workload, arguments.rows, arguments.threads, self._folder)
            stack.callback(peer.close)
            workload_of[peer] = workload
            return peer

        failed = set()
        for outcome in PeerProcess.compile_all((partial(start, *each) for each in wanted), arguments.jobs):
            peer, failure = outcome if isinstance(outcome, tuple) else (outcome, None)
            workload, seconds = workload_of[peer], time.perf_counter() - started
            if failure is None:
                say(f"  {workload.name}, {peer.name}: compiled after {seconds:.0f} s")
                continue
            failed.add(peer)
            with _noting_failure(peer.name, absent_of(workload)):
                raise failure
        return [(workload, peer) for peer, workload in workload_of.items() if peer not in failed]

    def _tuned(self, peer: PeerProcess, absent: dict[str, str]) -> bool:
        with _noting_failure(peer.name, absent):
            peer.tune(0.3 if self._hardware.is_gpu else 1.0)
            say(f"  {peer.name}: {peer.description}")
            return True
        return False

    def _verified(self, workload: Workload, programs: list[Program], row: report.Row) -> list[Program]:
        """The programs that agree with the float64 reference; the others go to `row.absent`."""
        expected, agreeing = reference.answers(workload), []
        tolerance = verify.TOLERANCES[self._hardware.precision]
        for program in programs:
            with _noting_failure(program.name, row.absent):
                found = program.answers()
                errors = row.errors[program.name] = verify.errors(program.expected() or expected, found)
                tensor, error = verify.worst(errors)
                if error > tolerance:
                    raise ProgramFailed(f"refused: {tensor} {verify.describe(error, tolerance)}")
                say(f"  {program.name} agrees: {tensor} is farthest off, {error:.1e} of {tolerance:.0e}")
                agreeing.append(program)
        return agreeing


@contextlib.contextmanager
def _noting_failure(name: str, absent: dict[str, str]) -> Iterator[None]:
    """Turns a `ProgramFailed` into a line of `absent`."""
    try:
        yield
    except ProgramFailed as failure:
        absent[name] = str(failure)
        say(f"  {name}: {failure}")


def _takes_part(peer: str, workload: Workload) -> bool:
    does = PEERS[peer].trains if isinstance(workload, Training) else PEERS[peer].samples
    return does and _runs_on(PEERS[peer], workload.hardware)


def _runs_on(peer: Peer, hardware: Hardware) -> bool:
    return peer.on_gpu or not hardware.is_gpu


def _document(rows: list[report.Row], peak: report.Peak, protocol: Protocol) -> dict[str, object]:
    settings = {**asdict(protocol), "cpus": sorted(protocol.cpus)}
    return {"machine": machine.describe(), "protocol": settings, **report.as_json(rows, peak)}


def say(line: str) -> None:
    """Progress, beside the table."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
