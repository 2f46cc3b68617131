//! What Hopper's barriers in shared memory and bulk copies can do beyond what the project's kernels
//! ask of them, on a virtual H100: waits for states, barriers that end and begin again, both
//! directions of bulk copies, fences of one memory; and faults, each of which must be reported.

mod common;

use std::sync::OnceLock;

use common::{Bench, compile_for_hopper};
use vgpu::device::{Card, Device};

const THREADS: u32 = 128;
const BLOCKS: u32 = 3;
const ROUNDS: u32 = 5;

fn ptx() -> &'static str {
    static PTX: OnceLock<String> = OnceLock::new();
    PTX.get_or_init(|| compile_for_hopper("asynchronous.cu"))
}

/// A kernel of the file, with an argument that makes a fault.
#[derive(Clone, Copy, Debug)]
enum Kernel {
    States { fault: u32 },
    Again { outside: bool },
    BothWays,
    HandedOn,
}
use Kernel::{Again, BothWays, HandedOn, States};

impl Kernel {
    fn name(self) -> &'static str {
        match self {
            States { .. } => "states",
            Again { .. } => "again",
            BothWays => "both_ways",
            HandedOn => "handed_on",
        }
    }

    /// Its output, from `ptx`.
    fn run(self, ptx: &str, seed: u64) -> Result<Vec<u32>, String> {
        let mut bench = Bench::on(Device::of(Card::H100, seed), ptx);
        let n = (BLOCKS * THREADS) as usize;
        let buffers = [0; 3].map(|_| bench.empty(4 * n));
        let [output, middle, sent] = buffers.map(u64::to_le_bytes);
        let (rounds, none) = (ROUNDS.to_le_bytes(), 0u64.to_le_bytes());
        let mut run = |grid: u32, threads: u32, arguments: &[&[u8]]| {
            bench.try_launch(self.name(), [grid, 1, 1], threads, 0, arguments).map(|_| grid * threads)
        };
        let n_written = match self {
            States { fault } => run(BLOCKS, THREADS, &[&output, &rounds, &fault.to_le_bytes()]),
            Again { outside } => run(1, THREADS, &[&output, if outside { &middle } else { &none }]),
            BothWays => run(BLOCKS, THREADS, &[&middle, &sent, &output]),
            HandedOn => run(1, 64, &[&sent, &output]).map(|_| 32),
        }?;
        Ok(bench.words(buffers[0], n_written as usize))
    }

    /// What it must put out.
    fn expected(self) -> Vec<u32> {
        let of_threads = |value: &dyn Fn(u32) -> u32| (0..THREADS).map(value).collect::<Vec<u32>>();
        match self {
            States { .. } => {
                let mut values = of_threads(&|thread| thread + 1);
                for _ in 0..ROUNDS {
                    let added = |thread: u32| 3 * values[((thread + 33) % THREADS) as usize];
                    values = of_threads(&|thread| values[thread as usize] + added(thread));
                }
                [&values[..]; BLOCKS as usize].concat()
            }
            Again { .. } => of_threads(&|thread| ((64 + thread % 64) ^ 77) + 1000),
            BothWays => (0..BLOCKS * THREADS).map(|index| 14 * (index ^ 3 ^ 64)).collect(),
            HandedOn => (0..32).map(|lane| 5 * lane).collect(),
        }
    }
}

const RIGHT: [Kernel; 4] = [States { fault: 0 }, Again { outside: false }, BothWays, HandedOn];

#[test]
fn results_are_those_of_the_host() {
    for kernel in RIGHT {
        for seed in 0..4 {
            let got = kernel.run(ptx(), seed).unwrap_or_else(|error| panic!("{kernel:?}: {error}"));
            assert_eq!(got, kernel.expected(), "{kernel:?}, seed {seed}");
        }
    }
}

/// The PTX with `change` applied to the lines that have the mark.
fn changed(mark: &str, change: &dyn Fn(&str) -> String) -> String {
    let changed: String =
        ptx().lines().map(|line| if line.contains(mark) { change(line) } else { line.to_string() } + "\n").collect();
    assert_ne!(changed, ptx(), "{mark}: nothing has the mark");
    changed
}

/// Reads first, then the end of the writes.
#[test]
fn both_waits_for_a_bulk_group_may_follow_each_other() {
    let both = changed("// sent", &|line| line.replace("wait_group 0", "wait_group.read 0") + "\n" + line);
    assert_eq!(BothWays.run(&both, 0).expect("runs"), BothWays.expected());
}

/// Operand `index` of the instruction in a line replaced.
fn with_operand(line: &str, index: usize, operand: &str) -> String {
    let (kept, _) = line.split_once(';').expect("an instruction");
    let mut operands: Vec<&str> = kept.split(", ").collect();
    operands[index] = operand;
    operands.join(", ") + ";"
}

fn gone(_: &str) -> String {
    String::new()
}

/// A kernel, the lines to change, how, and the report.
type Fault = (Kernel, &'static str, fn(&str) -> String, &'static str);

const FAULTS: [Fault; 19] = [
    (States { fault: 0 }, "// arrive", |line| line.replace("arrive.shared", "arrive.relaxed.cta.shared"), "data race"),
    (Again { outside: false }, "// over", gone, "initialized again, without mbarrier.inval"),
    (Again { outside: false }, "// anew", gone, "was not initialized, or invalidated since"),
    (Again { outside: false }, "// anew", |line| with_operand(line, 1, "0"), "an mbarrier of 0 arrivals"),
    (Again { outside: false }, "// anew", |line| with_operand(line, 1, "1048576"), "an mbarrier of 1048576 arrivals"),
    (Again { outside: false }, "// anew", |line| with_operand(line, 1, "65"), "lacks 1 of 65 arrivals and 0 bytes"),
    (Again { outside: false }, "// anew", |line| with_operand(line, 1, "63"), "data race"),
    (Again { outside: false }, "// try_parity", |line| with_operand(line, 2, "2"), "a parity of 2"),
    (BothWays, "// global-fence", gone, "without fence.proxy.async"),
    (BothWays, "// global-fence", |line| line.replace("global;", "shared::cta;"), "without fence.proxy.async"),
    (BothWays, "// shared-fence", |line| line.replace("shared::cta;", "global;"), "without fence.proxy.async"),
    (BothWays, "// expect", |line| with_operand(line, 2, "1048576"), "a transaction count of 1048576 bytes"),
    (
        BothWays,
        "// expect",
        |line| with_operand(line, 2, "1048576").replace("arrive.expect_tx", "complete_tx").replace("_, ", ""),
        "a transaction count of -1048576 bytes",
    ),
    (BothWays, "// fetch", gone, "lacks 0 of 1 arrivals and 512 bytes"),
    (BothWays, "// fetch", |line| with_operand(line, 2, "500"), "no multiple of 16"),
    (
        BothWays,
        "// fetch",
        |line| {
            let (_, barrier) = line.rsplit_once(", ").expect("a barrier");
            format!("{line}\nmbarrier.inval.shared::cta.b64 {barrier}")
        },
        "is invalidated before the copy of line",
    ),
    (BothWays, "// send", |line| line.replace("], [", "+8], ["), "misaligned"),
    (
        BothWays,
        "// sent",
        |line| line.replace("wait_group", "wait_group.read"),
        "belongs to an asynchronous copy that was not waited for",
    ),
    (BothWays, "// sent", |line| line.replace('0', "1"), "the asynchronous proxy, for block"),
];

#[test]
fn faults_are_reported_with_their_place() {
    let check = |kernel: Kernel, error: String, report: &str| {
        println!("{kernel:?}\n{error}\n");
        let place = [kernel.name(), report, "asynchronous.cu:", ", block "];
        assert!(place.iter().all(|part| error.contains(part)), "{kernel:?}: {error}, not {report}");
    };
    for (index, (kernel, mark, change, report)) in FAULTS.into_iter().enumerate() {
        check(kernel, kernel.run(&changed(mark, &change), index as u64).expect_err(report), report);
    }
    for (kernel, report) in [
        (States { fault: 1 }, "the state of phase 0, but the mbarrier is in phase 2"),
        (States { fault: 2 }, "a state that no arrival at this mbarrier gave"),
        (States { fault: 3 }, "a state that no arrival at this mbarrier gave"),
        (Again { outside: true }, "outside shared memory"),
    ] {
        check(kernel, kernel.run(ptx(), 0).expect_err(report), report);
    }
}

/// A wait for the reads of a bulk group orders none of its writes, even once these have ended.
#[test]
fn a_wait_for_reads_hands_nothing_on() {
    let reads = changed("// handed", &|line| line.replace("wait_group", "wait_group.read"));
    for seed in 0..4 {
        let error = HandedOn.run(&reads, seed).expect_err("a race");
        assert!(
            error.contains("data race") && error.contains("the asynchronous proxy, for block 0, wrote it"),
            "{error}"
        );
    }
}
