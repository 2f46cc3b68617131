//! Fuzzing on stable Rust: seeded inputs, each read under limits.
//!
//! An input depends only on its target and its number, so any of them can be made again. A reader
//! may accept it or refuse it; it must not panic, must not allocate more at a time than
//! [`ALLOWANCE`] and the target's multiple of the input, and must not take longer than
//! [`TIME_ALLOWANCE`] and the target's time per byte. A violation is reported with the number of
//! the input, which is kept in `target/tmp`.
//!
//! `cargo test` reads the target's own number of inputs. More on request, numbered from
//! `AMATCH_FUZZ_FIRST` (default 0):
//!
//! ```text
//! AMATCH_FUZZ_INPUTS=1000000 AMATCH_FUZZ_FIRST=50000 cargo test --test memory fuzz -- --nocapture
//! ```
//!
//! A reader that ends the process (a failed allocation, a stack overflow) leaves its input in the
//! folder `amatch-fuzz-PROCESS` of `/dev/shm`, or of the temporary folder if there is no
//! `/dev/shm`.

mod allocator;
mod mutate;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

pub use self::allocator::thread_peak_of;
pub use self::mutate::{Bytes, NUMBERS, Random, Text};

/// Bytes that any reader may use for buffers of fixed size.
pub const ALLOWANCE: usize = 2 << 20;

/// Time that any reader may take. The tests share their processors, so it is generous.
pub const TIME_ALLOWANCE: Duration = Duration::from_millis(50);

/// A reader of external files or text.
pub struct Target {
    /// Name in reports.
    pub name: &'static str,
    /// Number of inputs, unless more are requested.
    pub inputs: u64,
    /// Bytes that may be in use at a time for each byte of the input.
    pub bytes_per_byte: usize,
    /// Microseconds for each byte of the input.
    pub microseconds_per_byte: u32,
}

/// Result of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    Refused,
}

impl<T, E> From<Result<T, E>> for Answer {
    fn from(result: Result<T, E>) -> Self {
        if result.is_ok() { Answer::Accepted } else { Answer::Refused }
    }
}

thread_local! {
    /// True while panics of this thread are caught and reported here.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Reads the inputs that `make` produces, and fails with a list of those that violate the limits.
///
/// `read` gets the input and random numbers for its own choices; its assertions about accepted
/// inputs count too.
pub fn run(target: &Target, make: impl Fn(&mut Random) -> Vec<u8>, read: impl FnMut(&[u8], &mut Random) -> Answer) {
    let number = |name: &str| -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, not a number")))
    };
    let first = number("AMATCH_FUZZ_FIRST").unwrap_or(0);
    let n_inputs = number("AMATCH_FUZZ_INPUTS").unwrap_or(target.inputs);
    run_numbered(target, first..first + n_inputs, make, read);
}

/// [`run`] on the inputs with these numbers.
fn run_numbered(
    target: &Target,
    numbers: std::ops::Range<u64>,
    make: impl Fn(&mut Random) -> Vec<u8>,
    mut read: impl FnMut(&[u8], &mut Random) -> Answer,
) {
    // Maximum number of listed failures; those at one line of the program count once.
    const LISTED: usize = 30;
    watch_panics();
    let n_inputs = numbers.end - numbers.start;
    let mut failures: BTreeMap<String, (u64, PathBuf)> = BTreeMap::new();
    let (mut n_accepted, mut n_bytes, mut most_bytes, mut longest) = (0u64, 0, 0, Duration::ZERO);
    let mut corpus = std::collections::HashSet::new();
    let began = Instant::now();
    for index in numbers.clone() {
        let mut random = Random::new(target.name, index);
        let input = make(&mut random);
        n_bytes += input.len();
        if index < numbers.start + 1000 {
            corpus.insert(input.clone());
        }
        let mut once = || {
            let mut random = random.clone();
            let start = Instant::now();
            WATCHED.set(true);
            let (answer, peak) = thread_peak_of(|| panic::catch_unwind(AssertUnwindSafe(|| read(&input, &mut random))));
            WATCHED.set(false);
            (answer, peak, start.elapsed())
        };
        let (answer, peak, mut time) = once();
        most_bytes = most_bytes.max(peak);
        let time_limit =
            TIME_ALLOWANCE + Duration::from_micros(target.microseconds_per_byte.into()) * input.len() as u32;
        for _ in 0..4 {
            // Other processes may have used the processor meanwhile.
            if time > time_limit {
                let before = processor_time();
                let again = once().2;
                let used = processor_time().zip(before).map(|(after, before)| after.saturating_sub(before));
                time = time.min(used.map_or(again, |used| used.min(again)));
            }
        }
        longest = longest.max(time);
        let failure = if answer.is_err() {
            PANIC.take()
        } else if peak > ALLOWANCE + target.bytes_per_byte * input.len() {
            format!("allocates too much: {peak} bytes for an input of {}", input.len())
        } else if time > time_limit {
            format!("takes too long: {time:?} for an input of {} bytes", input.len())
        } else {
            n_accepted += u64::from(answer.ok() == Some(Answer::Accepted));
            continue;
        };
        let place = failure.split(": ").next().unwrap_or_default().to_string();
        if let std::collections::btree_map::Entry::Vacant(entry) = failures.entry(place) {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
            std::fs::create_dir_all(&folder).expect("a folder for inputs that fail");
            let path = folder.join(format!("{}-{index}", target.name));
            std::fs::write(&path, &input).expect("written");
            println!("{}: input {index}: {failure}\n    kept in {}", target.name, path.display());
            entry.insert((index, path));
        }
        if failures.len() == LISTED {
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{:<14} {n_inputs:>9} inputs, {n_accepted:>8} accepted, mean {:>5} bytes, at most {:>8} bytes allocated, \
         slowest {:>6.2} ms, {seconds:>7.1} s",
        target.name,
        n_bytes as u64 / n_inputs.max(1),
        most_bytes,
        longest.as_secs_f64() * 1e3,
    );
    assert!(
        failures.is_empty(),
        "{}: {} kinds of failure, the first inputs: {failures:#?}",
        target.name,
        failures.len()
    );
    if n_inputs >= 1000 {
        // If all inputs were alike, refused or accepted, they would test little.
        assert!(corpus.len() > 600, "{}: only {} of 1000 inputs differ", target.name, corpus.len());
        let share = n_accepted as f64 / n_inputs as f64;
        assert!((0.01..0.9).contains(&share), "{}: {share} of the inputs are accepted", target.name);
    }
}

/// Processor time of this thread, if the system tells.
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Suppresses the output of panics in readers, and keeps their messages.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if WATCHED.get() {
                let place = info.location().map_or(String::new(), ToString::to_string);
                let payload = info.payload();
                let message =
                    payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(|s| &**s));
                let message = message.unwrap_or("without a message");
                PANIC.set(format!("panics at {place}: {message}"));
            } else {
                usual(info);
            }
        }));
    });
}

/// The limits are enforced.
mod watch {
    use super::*;

    fn watched(read: impl FnMut(&[u8], &mut Random) -> Answer) {
        let target = Target { name: "watch", inputs: 500, bytes_per_byte: 10, microseconds_per_byte: 1 };
        // However many inputs are requested: one of them takes long.
        run_numbered(&target, 0..target.inputs, |random| vec![0; 1 + random.below(100)], read);
    }

    #[test]
    #[should_panic(expected = "1 kinds of failure")]
    fn notices_a_panic() {
        watched(|input, _| {
            assert!(input.len() != 77);
            Answer::Accepted
        });
    }

    #[test]
    #[should_panic(expected = "allocates too much")]
    fn notices_an_allocation() {
        watched(|input, _| {
            // Not `vec!`: the compiler may remove an allocation that is never read.
            let bytes = Vec::<u8>::with_capacity(if input.len() == 77 { ALLOWANCE + 1000 } else { ALLOWANCE });
            Answer::from(Err::<(), _>(std::hint::black_box(bytes)))
        });
    }

    #[test]
    #[should_panic(expected = "takes too long")]
    fn notices_a_delay() {
        watched(|input, _| {
            let start = (processor_time(), Instant::now());
            let used = || match processor_time().zip(start.0) {
                Some((now, then)) => now.saturating_sub(then),
                None => start.1.elapsed(),
            };
            while input.len() == 77 && used() < 2 * TIME_ALLOWANCE {}
            Answer::Accepted
        });
    }
}
