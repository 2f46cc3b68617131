//! Long stages of work: their number of threads, their progress, and their cancellation.
//!
//! ```
//! use action_matching::prelude::*;
//! use action_matching::transport::wasserstein2;
//!
//! struct Cancelled;
//! impl Watch for Cancelled {
//!     fn is_cancelled(&self) -> bool {
//!         true
//!     }
//! }
//! let outcome = wasserstein2(1, &[0.0, 1.0], &[2.0, 3.0], &Cancelled);
//! assert!(matches!(outcome, Err(Error::Interrupted)));
//! assert_eq!(wasserstein2(1, &[0.0, 1.0], &[2.0, 3.0], &())?, 2.0); // () lets it end
//! # Ok::<(), Error>(())
//! ```

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::error::{Error, RankKind, Result};
use crate::exchange::Exchange;

/// Maximum number of threads of a stage: twice the cores of the largest machines; each takes its
/// own memory.
pub const MAX_THREADS: usize = 1024;

/// Receives the progress of a stage and may cancel it. Called from any thread of the stage, several
/// times per second at least.
pub trait Watch: Sync {
    /// `done` of the `total` units of the stage are finished. Calls from different threads may
    /// arrive out of order.
    fn advanced(&self, done: u64, total: u64) {
        let _ = (done, total);
    }

    /// True if the stage should end early, with [`Error::Interrupted`].
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Ignores progress and never cancels.
impl Watch for () {}

/// [`Error::Interrupted`] if `watch` cancels.
pub(crate) fn check(watch: &dyn Watch) -> Result<()> {
    if watch.is_cancelled() { Err(Error::Interrupted) } else { Ok(()) }
}

/// The resources of a stage and its watch.
#[derive(Clone, Copy)]
pub struct Stage<'a> {
    /// Maximum number of threads of the stage, the calling one included; at least 1.
    pub threads: usize,
    /// Receives progress, and may cancel the stage.
    pub watch: &'a dyn Watch,
    /// The ranks that divide the stage.
    ranks: Option<&'a dyn Exchange>,
}

/// All cores, no watch.
impl Default for Stage<'_> {
    fn default() -> Self {
        Stage::new(0, &())
    }
}

impl<'a> Stage<'a> {
    /// A stage of at most `threads` threads; [`thread_count`] interprets the number.
    pub fn new(threads: usize, watch: &'a dyn Watch) -> Self {
        Stage { threads: thread_count(threads), watch, ranks: None }
    }

    /// The same stage under another watch.
    pub(crate) fn watched_by<'b>(&self, watch: &'b dyn Watch) -> Stage<'b>
    where
        'a: 'b,
    {
        Stage { watch, ..*self }
    }

    /// The same stage, divided among ranks, which all begin it with the same items.
    #[must_use]
    pub fn among(self, ranks: &'a dyn Exchange) -> Stage<'a> {
        Stage { ranks: Some(ranks), ..self }
    }

    /// [`Stage::map`] of items that ranks divide, if there are any: each does every n-th, and all
    /// have all results, as `to_bytes` and `from_bytes` hand them on.
    pub(crate) fn map_among<T: Sync, R: Send>(
        &self,
        at_once: usize,
        items: &[T],
        work: impl Fn(&T) -> Result<R> + Sync,
        to_bytes: impl Fn(&R) -> Vec<u8>,
        from_bytes: impl Fn(&[u8]) -> R,
    ) -> Result<Vec<R>> {
        let Some(ranks) = self.ranks else { return self.map(at_once, items, work) };
        let (rank, n_ranks) = ranks.place();
        let own: Vec<&T> = items.iter().skip(rank).step_by(n_ranks).collect();
        let mut bytes = Vec::new();
        for result in self.map(at_once, &own, |item| work(item))? {
            let result = to_bytes(&result);
            bytes.extend((result.len() as u64).to_ne_bytes());
            bytes.extend(result);
        }
        let all = ranks.share(&bytes)?;
        let mut rest: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
        let next = |k: usize| {
            let rest = &mut rest[k % n_ranks];
            let (length, behind) = rest.split_first_chunk()?;
            let (result, behind) = behind.split_at_checked(u64::from_ne_bytes(*length) as usize)?;
            *rest = behind;
            Some(from_bytes(result))
        };
        let results: Option<Vec<R>> = (0..items.len()).map(next).collect();
        results.ok_or_else(|| Error::Rank {
            kind: RankKind::Differs,
            problem: "ranks have divided other work".into(),
            fix: "start all ranks with the same program, configuration and data",
        })
    }

    /// Ends a cancelled stage early.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the watch cancels.
    pub fn check(&self) -> Result<()> {
        check(self.watch)
    }

    /// Results of `work` for each of `items`, in order; at most `at_once` items at a time, each on
    /// one thread. No item begins after one has failed or the stage was cancelled. If an item takes
    /// long, `work` should look at the watch itself.
    pub(crate) fn map<T: Sync, R: Send>(
        &self,
        at_once: usize,
        items: &[T],
        work: impl Fn(&T) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let results: Vec<Mutex<Option<Result<R>>>> = items.iter().map(|_| Mutex::default()).collect();
        let queue = Mutex::new(items.iter().zip(&results));
        let done = AtomicU64::new(0);
        on_threads(self.threads.min(at_once).min(items.len()), || {
            while let Some((item, slot)) = next(&queue) {
                let result = self.check().and_then(|()| work(item));
                let failed = result.is_err();
                *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(result);
                if failed {
                    // Empties the queue: no other item begins.
                    while next(&queue).is_some() {}
                }
                self.watch.advanced(done.fetch_add(1, Relaxed) + 1, items.len() as u64);
            }
        });
        // Items after the first failure may be missing; all items before it have finished.
        results
            .into_iter()
            .map_while(|slot| slot.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
            .collect()
    }
}

/// A section of a longer stage: its `units` follow `before` units of the `total` of the whole.
pub(crate) struct Section<'a> {
    pub watch: &'a dyn Watch,
    pub before: u64,
    pub units: u64,
    pub total: u64,
}

impl Watch for Section<'_> {
    fn advanced(&self, done: u64, total: u64) {
        let share = u128::from(self.units) * u128::from(done.min(total)) / u128::from(total.max(1));
        self.watch.advanced(self.before + share as u64, self.total);
    }

    fn is_cancelled(&self) -> bool {
        self.watch.is_cancelled()
    }
}

/// `asked` threads, at most [`MAX_THREADS`]; 0 means one for each core.
#[must_use]
pub fn thread_count(asked: usize) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    if asked == 0 { cores() } else { asked }.min(MAX_THREADS)
}

/// Number of [`thread_count`] threads that the system can run at once, the calling one included:
/// containers, `ulimit -u` and free memory limit them.
#[must_use]
pub fn startable_threads(asked: usize) -> usize {
    let hold = Mutex::new(());
    let held = hold.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    std::thread::scope(|scope| {
        let wait = || drop(hold.lock());
        let started = (1..thread_count(asked)).take_while(|_| spawn(scope, wait).is_ok()).count();
        drop(held);
        1 + started
    })
}

/// Starts `work` on a thread of `scope`.
///
/// # Errors
/// If the system cannot start more threads.
pub(crate) fn spawn<'scope, R: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> R + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, R>> {
    #[cfg(test)]
    tests::may_start()?;
    Builder::new().spawn_scoped(scope, work)
}

/// Runs `work` on up to `threads` threads, the calling one included. If the system starts fewer,
/// fewer run, so `work` must take its items from a queue. A panic on any thread is passed on to the
/// caller after all have ended.
pub(crate) fn on_threads(threads: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        let _ = (1..threads).take_while(|_| spawn(scope, &work).is_ok()).count();
        work();
    });
}

/// The next item of a queue that several threads share.
pub(crate) fn next<I: Iterator>(items: &Mutex<I>) -> Option<I::Item> {
    items.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;
    use std::collections::HashSet;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    thread_local! {
        static STARTABLE: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// True if one more thread may start within [`with_startable`].
    pub fn may_start() -> io::Result<()> {
        let left = STARTABLE.get();
        if left == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        STARTABLE.set(left - 1);
        Ok(())
    }

    /// Runs `work`, in which the calling thread can start at most `startable` threads.
    pub fn with_startable<R>(startable: usize, work: impl FnOnce() -> R) -> R {
        STARTABLE.set(startable);
        let result = work();
        STARTABLE.set(usize::MAX);
        result
    }

    pub struct Cancelled;

    impl Watch for Cancelled {
        fn is_cancelled(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_cancelled_stage_is_interrupted() {
        assert!(Stage::new(1, &()).check().is_ok());
        assert!(matches!(Stage::new(2, &Cancelled).check(), Err(Error::Interrupted)));
        let outcome = Stage::new(2, &Cancelled).map(9, &[1, 2, 3], |_| -> Result<()> { panic!("was begun") });
        assert!(matches!(outcome, Err(Error::Interrupted)));
    }

    #[test]
    fn threads_are_counted_within_bounds() {
        assert!(thread_count(0) >= 1);
        assert_eq!(thread_count(0), Stage::new(0, &()).threads);
        assert_eq!(thread_count(3), 3);
        assert_eq!(thread_count(usize::MAX), MAX_THREADS);
        assert_eq!(startable_threads(5), 5);
        assert_eq!(with_startable(2, || startable_threads(5)), 3);
        assert_eq!(with_startable(0, || startable_threads(5)), 1);
    }

    /// All work is done with however many threads start, on at most the allowed number of items at
    /// once.
    #[test]
    fn work_is_done_by_the_threads_that_start() {
        let items: Vec<u64> = (0..200).collect();
        for (startable, at_once, most) in [(9, 9, 4), (2, 9, 3), (0, 9, 1), (9, 2, 2), (9, 0, 1)] {
            let seen = Mutex::new(HashSet::new());
            let squares = with_startable(startable, || {
                Stage::new(4, &()).map(at_once, &items, |&item| {
                    seen.lock().expect("whole").insert(std::thread::current().id());
                    Ok(item * item)
                })
            });
            assert_eq!(squares.expect("no failure"), items.iter().map(|item| item * item).collect::<Vec<u64>>());
            assert!(seen.into_inner().expect("whole").len() <= most, "{startable} {at_once}");
        }
    }

    /// The first failure in the order of items is returned, on whichever thread it occurs, and few
    /// items begin after it.
    #[test]
    fn a_failure_ends_the_stage() {
        let items: Vec<u64> = (0..1000).collect();
        for threads in [1, 4] {
            let begun = AtomicU64::new(0);
            let outcome = Stage::new(threads, &()).map(threads, &items, |&item| {
                begun.fetch_add(1, Relaxed);
                if item >= 10 { Err(Error::input("item", item.to_string(), "fails", "")) } else { Ok(item) }
            });
            let message = outcome.expect_err("item 10 fails").to_string();
            assert!(message.contains("item: 10:"), "{message}");
            assert!(begun.into_inner() <= 10 + threads as u64);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_when_all_have_ended() {
        let begun = AtomicU64::new(0);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            on_threads(3, || {
                if begun.fetch_add(1, Relaxed) == 1 {
                    panic!("one of three");
                }
            });
        }));
        assert!(outcome.is_err());
        assert_eq!(begun.into_inner(), 3);
    }

    #[test]
    fn a_section_counts_within_the_whole() {
        struct Last(Mutex<(u64, u64)>);
        impl Watch for Last {
            fn advanced(&self, done: u64, total: u64) {
                *self.0.lock().expect("whole") = (done, total);
            }
        }
        let last = Last(Mutex::default());
        let section = Section { watch: &last, before: 3, units: 4, total: 10 };
        for (done, total, want) in [(0, 8, 3), (1, 8, 3), (6, 8, 6), (8, 8, 7), (0, 0, 3)] {
            section.advanced(done, total);
            assert_eq!(*last.0.lock().expect("whole"), (want, 10));
        }
    }

    /// A rank that is a thread, with what all of them pass.
    struct Thread<'a>(usize, &'a Mutex<Vec<Vec<u8>>>, &'a std::sync::Barrier);

    impl Exchange for Thread<'_> {
        fn place(&self) -> (usize, usize) {
            (self.0, self.1.lock().expect("unharmed").len())
        }

        fn share(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
            self.1.lock().expect("unharmed")[self.0] = own.to_vec();
            self.2.wait();
            Ok(self.1.lock().expect("unharmed").clone())
        }
    }

    /// What `n_ranks` ranks have of as many numbers as `n` says for each.
    fn squares(n_ranks: usize, n: impl Fn(usize) -> u64 + Sync) -> Vec<(Result<Vec<u64>>, usize)> {
        let (passed, barrier) = (Mutex::new(vec![Vec::new(); n_ranks]), std::sync::Barrier::new(n_ranks));
        let (passed, barrier, n) = (&passed, &barrier, &n);
        let work = move |rank: usize| {
            let (thread, done) = (Thread(rank, passed, barrier), AtomicU64::new(0));
            let square = |item: &u64| {
                done.fetch_add(1, Relaxed);
                Ok(item * item)
            };
            let items: Vec<u64> = (0..n(rank)).collect();
            let stage = Stage::new(1, &()).among(&thread);
            // Bytes of different lengths.
            let from_bytes = |bytes: &[u8]| bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
            let to_bytes = |value: &u64| value.to_le_bytes()[..(8 - value.leading_zeros() as usize / 8)].to_vec();
            let results = stage.map_among(1, &items, square, to_bytes, from_bytes);
            (results, done.into_inner() as usize)
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..n_ranks).map(|rank| scope.spawn(move || work(rank))).collect();
            threads.into_iter().map(|thread| thread.join().expect("ends")).collect()
        })
    }

    #[test]
    fn ranks_divide_items_and_have_all_results() {
        for n_ranks in [1, 2, 3, 8] {
            for (rank, (results, done)) in squares(n_ranks, |_| 23).into_iter().enumerate() {
                assert_eq!(results.expect("results"), (0..23).map(|k| k * k).collect::<Vec<u64>>());
                assert_eq!(done, (23 - rank).div_ceil(n_ranks), "{n_ranks} ranks");
            }
        }
        let text = squares(2, |rank| 10 + 4 * rank as u64).remove(1).0.expect_err("other work").to_string();
        assert!(text.contains("ranks have divided other work"), "{text}");
    }
}
