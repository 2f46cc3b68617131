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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
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
        cpus = machine.claim_cpus(arguments.threads)
    except ValueError as too_few:
        print(f"error: {too_few}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the peers are ended on the way out
    protocol = Protocol(arguments.rounds, arguments.seconds, arguments.foreign / 100.0, arguments.retries, cpus)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amatch-peers-")))
        bench = Bench(arguments, protocol, folder)
        bench.start_peak(stack)
        rows = [bench.run(name) for name in arguments.workloads]
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
    parser.add_argument("--rounds", type=_positive(int), default=5, metavar="N", help="default 5, the fewest that count")
    parser.add_argument("--seconds", type=_positive(float), default=3.0, metavar="S", help="of a turn (default 3)")
    parser.add_argument("--foreign", type=_positive(float), default=5.0, metavar="PERCENT",
                        help="of the CPUs that others may take in a turn that counts (default 5)")
    parser.add_argument("--retries", type=int, default=5, metavar="N", help="of a disturbed turn (default 5)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="every figure, as JSON")
    arguments = parser.parse_args()
    if arguments.device == "cpu" and arguments.precision not in (None, "f32"):
        parser.error("--precision is of a GPU: the CPU multiplies in f32")
    arguments.precision = arguments.precision or ("f32" if arguments.device == "cpu" else "bf16")
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
        products = [name for name, peer in PEERS.items() if peer.multiplies and _runs_on(peer, self._hardware)]
        self._products = self._start(chosen(PEAK, self._hardware, None), products, self.peak.absent, stack)
        self.peak.descriptions = {product.name: product.description for product in self._products}

    def run(self, name: str) -> report.Row:
        """All of one workload."""
        workload = chosen(name, self._hardware, self._arguments.rows)
        say(f"{workload.name}:")
        row = report.Row(workload)
        peers = [name for name in self._arguments.peers if _takes_part(name, workload)]
        with contextlib.ExitStack() as stack:
            rivals = self._start(workload, peers, row.absent, stack)
            row.forms = {rival.name: rival.seconds_of_forms for rival in rivals if isinstance(rival, PeerProcess)}
            programs = self._verified(workload, rivals, row)
            row.descriptions = {program.name: program.description for program in programs}
            records = take_turns([*programs, *self._products], self._protocol, say) if programs else {}
        row.records = {program.name: records[program.name] for program in programs}
        self.peak.records += [(product.name, records[product.name]) for product in self._products if records]
        return row

    def _start(
        self, workload: Workload | Product, peers: Sequence[str], absent: dict[str, str], stack: contextlib.ExitStack
    ) -> list[Program]:
        """Ours and these peers, one after the other; those that cannot run go to `absent`."""
        programs: list[Program] = []
        threads, rows = self._arguments.threads, self._arguments.rows
        # A GPU's product is measured by its library alone; for a GPU `amatch bench peak` prints the
        # vendor's figure.
        is_ours = not (isinstance(workload, Product) and self._hardware.is_gpu)
        if is_ours and not self._arguments.peers_only:
            with _noting_failure(report.OURS, absent):
                programs.append(Amatch(self._arguments.amatch, workload, rows, threads, self._folder))
        for name in peers:
            with _noting_failure(name, absent):
                peer = PeerProcess(name, workload, rows, threads, self._folder)
                stack.callback(peer.close)
                programs.append(peer)
                say(f"  {name}: {peer.description}")
        return programs

    def _verified(self, workload: Workload, programs: list[Program], row: report.Row) -> list[Program]:
        """The programs that agree with the float64 reference; the others go to `row.absent`."""
        expected, agreeing = reference.answers(workload), []
        tolerance = verify.TOLERANCES[self._hardware.precision]
        for program in programs:
            with _noting_failure(program.name, row.absent):
                errors = row.errors[program.name] = verify.errors(expected, program.answers())
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
