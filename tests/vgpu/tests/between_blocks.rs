//! Blocks that wait for each other and exchange data within a launch: sound kernels give their
//! results in every order, and faults put into them on purpose are noticed, with their places.

mod common;

use std::sync::OnceLock;

use common::{Bench, compile, compile_text, source};

/// PTX of the kernels of this crate's `kernels/<name>`, compiled once.
fn sound(name: &'static str) -> &'static str {
    static PTX: [OnceLock<String>; 2] = [OnceLock::new(), OnceLock::new()];
    PTX[usize::from(name == LIBRARY)].get_or_init(|| compile(name))
}

const OWN: &str = "between_blocks.cu";
const LIBRARY: &str = "library_sync.cu";

const SEEDS: std::ops::Range<u64> = 0..6;

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Launches one of the kernels and checks its result.
type Case = fn(&mut Bench) -> Result<(), String>;

fn rounds_of(bench: &mut Bench, n_blocks: u32) -> Result<(), String> {
    const THREADS: u32 = 64;
    const ROUNDS: u32 = 3;
    let n = n_blocks * THREADS;
    let (arrived, values) = (bench.buffer(&[0; 4]), bench.empty(4 * n as usize));
    let arguments: [&[u8]; 3] = [&arrived.to_le_bytes(), &values.to_le_bytes(), &ROUNDS.to_le_bytes()];
    bench.try_launch("rounds", [n_blocks, 1, 1], THREADS, 0, &arguments)?;
    let want: Vec<u32> = (0..n).map(|i| (i + ROUNDS * THREADS) % n + ROUNDS).collect();
    assert_eq!(bench.words(values, n as usize), want);
    Ok(())
}

fn rounds(bench: &mut Bench) -> Result<(), String> {
    rounds_of(bench, 5)
}

fn ring(bench: &mut Bench) -> Result<(), String> {
    const THREADS: u32 = 64;
    const N: u32 = 10;
    let (sent, taken) = (bench.buffer(&[0; 4]), bench.buffer(&[0; 4]));
    let (slots, out) = (bench.empty(4 * 4 * THREADS as usize), bench.empty(4 * (N * THREADS) as usize));
    let arguments = [sent, taken, slots, out].map(u64::to_le_bytes);
    let [sent, taken, slots, to] = &arguments;
    bench.try_launch("ring", [2, 1, 1], THREADS, 0, &[sent, taken, slots, to, &N.to_le_bytes()])?;
    let want: Vec<u32> = (0..N * THREADS).map(|i| 1000 * (i / THREADS) + i % THREADS).collect();
    assert_eq!(bench.words(out, (N * THREADS) as usize), want);
    Ok(())
}

/// More blocks than the device holds at the same time.
const MANY: u32 = 150;

fn sum(bench: &mut Bench) -> Result<(), String> {
    let values: Vec<u32> = (0..32 * MANY).map(|i| i * i % 1009).collect();
    let (from, partial) = (bench.buffer(&bytes(&values)), bench.empty(4 * MANY as usize));
    let (ended, total) = (bench.buffer(&[0; 4]), bench.empty(4));
    let arguments = [from, partial, ended, total].map(u64::to_le_bytes);
    let arguments: Vec<&[u8]> = arguments.iter().map(|argument| &argument[..]).collect();
    bench.try_launch("sum", [MANY, 1, 1], 32, 0, &arguments)?;
    assert_eq!(bench.words(total, 1), [values.iter().sum::<u32>()]);
    Ok(())
}

fn scan(bench: &mut Bench) -> Result<(), String> {
    let values: Vec<u32> = (0..MANY).map(|i| i * i % 1009).collect();
    let zeros = vec![0; 4 * MANY as usize];
    let (from, tickets, state) = (bench.buffer(&bytes(&values)), bench.buffer(&[0; 4]), bench.buffer(&zeros));
    let (alone, inclusive) = (bench.empty(4 * MANY as usize), bench.empty(4 * MANY as usize));
    let arguments = [from, tickets, state, alone, inclusive].map(u64::to_le_bytes);
    let arguments: Vec<&[u8]> = arguments.iter().map(|argument| &argument[..]).collect();
    bench.try_launch("scan", [MANY, 1, 1], 1, 0, &arguments)?;
    let sums = values.iter().scan(0, |sum, value| {
        *sum += value;
        Some(*sum)
    });
    assert_eq!(bench.words(inclusive, MANY as usize), sums.collect::<Vec<u32>>());
    Ok(())
}

fn between_warps(bench: &mut Bench) -> Result<(), String> {
    let out = bench.empty(4 * 3);
    bench.try_launch("between_warps", [3, 1, 1], 64, 0, &[&out.to_le_bytes()])?;
    assert_eq!(bench.words(out, 3), [7, 8, 9]);
    Ok(())
}

#[test]
fn sound_kernels_give_their_results_in_every_order() {
    let cases: [Case; 5] = [rounds, ring, sum, scan, between_warps];
    for seed in SEEDS {
        for case in cases {
            case(&mut Bench::new(sound(OWN), seed)).unwrap_or_else(|message| panic!("seed {seed}: {message}"));
        }
    }
}

/// A run is a function of its seed.
#[test]
fn a_seed_repeats_its_order() {
    let counters = |seed: u64| {
        let mut bench = Bench::new(sound(OWN), seed);
        rounds(&mut bench).expect("runs");
        bench.device.counters["rounds"].clone()
    };
    assert_eq!(counters(1), counters(1));
    assert!((2..8).any(|seed| counters(seed) != counters(1)), "no other seed has another order");
}

#[test]
fn barriers_locks_and_messages_of_the_libraries_work() {
    for seed in SEEDS {
        let mut bench = Bench::new(sound(LIBRARY), seed);
        let (values, out) = (bench.empty(4 * 256), bench.empty(4 * 256));
        let arguments: [&[u8]; 2] = [&values.to_le_bytes(), &out.to_le_bytes()];
        bench.try_launch_together("grid_sync", [4, 1, 1], 64, 0, &arguments).expect("runs");
        assert_eq!(bench.words(out, 256), (0..256).map(|i| (i + 64) % 256 + 2).collect::<Vec<u32>>());
        // Without the workspace of a cooperative launch, the library traps.
        let alone = bench.try_launch("grid_sync", [4, 1, 1], 64, 0, &arguments).expect_err("traps");
        assert!(alone.contains("a trap"), "{alone}");

        let (locked, sum) = (bench.buffer(&[0; 4]), bench.buffer(&[0; 4]));
        bench.launch("lock", [40, 1, 1], 64, 0, &[&locked.to_le_bytes(), &sum.to_le_bytes()]);
        assert_eq!(bench.words(sum, 1), [40 * 41 / 2]);

        let (flag, value, out) = (bench.buffer(&[0; 4]), bench.empty(4), bench.empty(4));
        let arguments = [flag, value, out].map(u64::to_le_bytes);
        bench.launch("message", [2, 1, 1], 1, 0, &[&arguments[0], &arguments[1], &arguments[2]]);
        assert_eq!(bench.words(out, 1), [6]);
    }
}

/// A fault: `old` is replaced by `new` at its first place from `entry` on.
struct Fault {
    what: &'static str,
    case: Case,
    entry: &'static str,
    old: &'static str,
    new: &'static str,
    /// Possible reports, each with all its parts.
    reports: &'static [&'static [&'static str]],
    when: When,
}

#[derive(PartialEq)]
enum When {
    Always,
    /// In other orders nothing goes wrong.
    InSomeOrders,
}

const fn fault(
    what: &'static str,
    case: Case,
    entry: &'static str,
    old: &'static str,
    new: &'static str,
    reports: &'static [&'static [&'static str]],
    when: When,
) -> Fault {
    Fault { what, case, entry, old, new, reports, when }
}

const RACE: &[&str] = &["data race", "\n  the other at "];
const UNINITIALIZED: &[&str] = &["uninitialized"];
const WAIT: &[&str] = &["a wait that nobody ends"];
const LATE: &[&str] = &["a wait that nobody ends", "more blocks cannot begin, as the device holds"];

const FAULTS: [Fault; 24] = [
    // Releases.
    fault(
        "arrivals release nothing",
        rounds,
        "add_release",
        "red.release.gpu",
        "red.relaxed.gpu",
        &[RACE],
        When::Always,
    ),
    fault(
        "arrivals release to their own block",
        rounds,
        "add_release",
        "release.gpu",
        "release.cta",
        &[RACE],
        When::Always,
    ),
    fault(
        "the state is set by a relaxed store",
        scan,
        "store_release",
        "st.release.gpu",
        "st.relaxed.gpu",
        &[RACE],
        When::Always,
    ),
    fault(
        "the state is set before the value",
        scan,
        "scan(",
        "alone[own] = value;\n  store_release(state + own, 1);",
        "store_release(state + own, 1);\n  alone[own] = value;",
        &[RACE, UNINITIALIZED],
        When::Always,
    ),
    fault(
        "the others' writes are not waited for",
        rounds,
        "grid_barrier(",
        "__syncthreads();  // all threads",
        "// all threads",
        &[RACE, UNINITIALIZED],
        When::Always,
    ),
    // Acquires.
    fault(
        "waiting acquires nothing",
        rounds,
        "load_acquire",
        "ld.acquire.gpu",
        "ld.relaxed.gpu",
        &[RACE],
        When::Always,
    ),
    fault(
        "waiting acquires from its own block",
        rounds,
        "load_acquire",
        "ld.acquire.gpu",
        "ld.acquire.cta",
        &[RACE],
        When::Always,
    ),
    fault(
        "the look back acquires nothing",
        scan,
        "load_acquire",
        "ld.acquire.gpu",
        "ld.relaxed.gpu",
        &[RACE],
        When::Always,
    ),
    fault(
        "threads do not wait for the one that waits",
        rounds,
        "grid_barrier(",
        "__syncthreads();  // the others",
        "// the others",
        &[RACE, UNINITIALIZED],
        When::Always,
    ),
    // Fences.
    fault(
        "no fence before the flag",
        ring,
        "ring(",
        "__threadfence();  // the slot is written",
        "",
        &[RACE],
        When::Always,
    ),
    fault(
        "no fence after the flag",
        ring,
        "ring(",
        "__threadfence();  // the slot can be read",
        "",
        &[RACE],
        When::Always,
    ),
    fault(
        "a fence of the block before the flag",
        ring,
        "ring(",
        "__threadfence();  // the slot is written",
        "__threadfence_block();",
        &[RACE],
        When::Always,
    ),
    fault(
        "a fence of the block after the flag",
        ring,
        "ring(",
        "__threadfence();  // the slot can be read",
        "__threadfence_block();",
        &[RACE],
        When::Always,
    ),
    fault(
        "the partial sum is not fenced",
        sum,
        "sum(",
        "__threadfence();  // the partial",
        "// the partial",
        &[RACE],
        When::Always,
    ),
    fault(
        "the last block has no fence",
        sum,
        "sum(",
        "__threadfence();  // those of others",
        "// those of others",
        &[RACE],
        When::Always,
    ),
    fault(
        "no fence before the flag of a warp",
        between_warps,
        "between_warps(",
        "__threadfence_block();  // the value is written",
        "",
        &[RACE],
        When::Always,
    ),
    fault(
        "no fence after the flag of a warp",
        between_warps,
        "between_warps(",
        "__threadfence_block();  // the value can be read",
        "",
        &[RACE],
        When::Always,
    ),
    // Accesses that no release could order.
    fault(
        "one slot more is used than there are",
        ring,
        "ring(",
        "*taken + kSlots <= i",
        "*taken + kSlots < i",
        &[RACE],
        When::InSomeOrders,
    ),
    fault(
        "values are changed while they are read",
        rounds,
        "rounds(",
        "grid_barrier(arrived, 2 * round + 2);",
        "",
        &[RACE],
        When::Always,
    ),
    fault(
        "a flag is not volatile",
        ring,
        "uint32_t* sent",
        "*sent = i + 1;",
        "const_cast<uint32_t&>(*sent) = i + 1;",
        &[RACE],
        When::Always,
    ),
    // Waits.
    fault(
        "one block too many is waited for",
        rounds,
        "grid_barrier(",
        "gridDim.x * round",
        "gridDim.x * round + 1",
        &[WAIT],
        When::Always,
    ),
    fault("slots are never given back", ring, "ring(", "*taken = i + 1;", "", &[WAIT], When::Always),
    fault("a flag between warps is never set", between_warps, "between_warps(", "flag = 1;", "", &[WAIT], When::Always),
    fault(
        "blocks take their places by number",
        scan,
        "scan(",
        "atomicAdd(tickets, 1)",
        "blockIdx.x",
        &[LATE],
        When::InSomeOrders,
    ),
];

#[test]
fn every_fault_is_noticed() {
    let text = source(OWN);
    let mut wrong = Vec::new();
    for Fault { what, case, entry, old, new, reports, when } in FAULTS {
        let start = text.find(entry).unwrap_or_else(|| panic!("{what}: no {entry}"));
        let at = start + text[start..].find(old).unwrap_or_else(|| panic!("{what}: no {old}"));
        let faulty = format!("{}{new}{}", &text[..at], &text[at + old.len()..]);
        let ptx = compile_text(OWN, &faulty);
        let outcomes: Vec<Result<(), String>> = SEEDS.map(|seed| case(&mut Bench::new(&ptx, seed))).collect();
        let has = |said: &str, parts: &[&str]| parts.iter().all(|part| said.contains(part));
        let is_expected = |said: &str| {
            reports.iter().any(|parts| has(said, parts)) && has(said, &["between_blocks.cu:", "block ", "thread "])
        };
        let said: Vec<&String> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        eprintln!("{what}: {}", said.first().map_or("nothing", |said| said));
        let enough = if when == When::Always { said.len() == outcomes.len() } else { !said.is_empty() };
        if !enough || !said.iter().all(|said| is_expected(said)) {
            wrong.push(format!("{what}: {outcomes:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A wait whose rounds are counted is never in the same state twice.
#[test]
fn waits_that_count_are_noticed() {
    let text = source(OWN)
        .replace("while (*sent <= i) continue;", "for (uint64_t n = 0; *sent <= 2 * i; ++n) __nanosleep(n);");
    let error = ring(&mut Bench::new(&compile_text(OWN, &text), 0)).expect_err("waits");
    assert!(error.contains("a wait that nobody ends: nothing was written in"), "{error}");
}

#[test]
fn grids_that_wait_must_fit_the_device() {
    let mut bench = Bench::new(sound(OWN), 0);
    let fits = bench.capacity("rounds", 64) as u32;
    rounds_of(&mut bench, fits).expect("fits");
    let error = rounds_of(&mut bench, fits + 1).expect_err("does not fit");
    for part in ["a wait that nobody ends", "rounds", "between_blocks.cu", &format!("holds {fits} at a time")] {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    let mut bench = Bench::new(sound(LIBRARY), 0);
    let fits = bench.capacity("grid_sync", 64) as u32;
    let n = (fits as usize + 1) * 64;
    let (values, out) = (bench.empty(4 * n), bench.empty(4 * n));
    let arguments: [&[u8]; 2] = [&values.to_le_bytes(), &out.to_le_bytes()];
    let error = bench.try_launch_together("grid_sync", [fits + 1, 1, 1], 64, 0, &arguments).expect_err("too large");
    assert!(error.contains("cooperative launch") && error.contains(&format!("holds {fits}")), "{error}");
    bench.try_launch_together("grid_sync", [fits, 1, 1], 64, 0, &arguments).expect("fits");
}
