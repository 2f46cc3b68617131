//! Synchronization of threads inside a step: a barrier that spins briefly, and turns that fix the
//! order of sums.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};

/// Spins before a waiting thread yields its core: about the length of a short phase. Miri has one
/// core.
const SPINS: usize = if cfg!(miri) { 0 } else { 4096 };

#[inline]
fn wait_until(condition: impl Fn() -> bool) {
    let mut spins = 0;
    while !condition() {
        if spins < SPINS {
            spins += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// Ends a thread after another one panicked: unwinds too, and prints nothing.
fn leave() -> ! {
    std::panic::resume_unwind(Box::new("another thread of the step panicked"))
}

/// A reusable barrier for a fixed number of threads.
pub struct Barrier {
    n_threads: usize,
    arrived: AtomicUsize,
    generation: AtomicUsize,
    poisoned: AtomicBool,
}

impl Barrier {
    /// A barrier for `n_threads` threads.
    pub fn new(n_threads: usize) -> Self {
        Barrier {
            n_threads,
            arrived: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
            poisoned: AtomicBool::new(false),
        }
    }

    /// Number of threads that the barrier waits for.
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// Waits for all threads. Everything written before the barrier is visible to all threads after
    /// it.
    ///
    /// # Panics
    /// If the barrier is poisoned: one of the threads will never arrive.
    pub fn wait(&self) {
        let generation = self.generation.load(Acquire);
        if self.arrived.fetch_add(1, AcqRel) + 1 == self.n_threads {
            self.arrived.store(0, Relaxed);
            self.generation.store(generation.wrapping_add(1), Release);
        } else {
            wait_until(|| self.generation.load(Acquire) != generation || self.poisoned.load(Relaxed));
        }
        if self.poisoned.load(Relaxed) {
            leave();
        }
    }

    /// Makes every thread that waits, or will wait, panic.
    pub fn poison(&self) {
        self.poisoned.store(true, Relaxed);
    }
}

/// Grants a resource in rounds 0, 1, …, so that sums do not depend on the number of threads.
#[derive(Default)]
#[repr(align(64))]
pub struct Turn(AtomicUsize);

/// The round of a poisoned turn, which no thread can take.
const POISONED: usize = usize::MAX;

impl Turn {
    /// Waits for `round`. Everything written in earlier rounds is visible afterwards.
    ///
    /// Tiles are claimed in order and take turns in the same order, so the wait always ends.
    ///
    /// # Panics
    /// If the turn is poisoned: the thread that holds it will never pass it on.
    pub fn take(&self, round: usize) {
        wait_until(|| matches!(self.0.load(Acquire), now if now == round || now == POISONED));
        if self.0.load(Relaxed) == POISONED {
            leave();
        }
    }

    /// Passes the turn of `round` to the next round.
    pub fn pass(&self, round: usize) {
        // Fails if the turn was poisoned meanwhile, and then must stay poisoned.
        let _ = self.0.compare_exchange(round, round + 1, Release, Relaxed);
    }

    /// Returns to round 0, between steps.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }

    /// Makes every thread that waits, or will wait, panic.
    pub fn poison(&self) {
        self.0.store(POISONED, Relaxed);
    }
}

/// Calls `poison` if the thread that holds it panics.
pub struct OnPanic<F: Fn()>(pub F);

impl<F: Fn()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

/// A buffer whose disjoint ranges are written by different threads, in an order set by barriers and
/// turns.
#[derive(Clone, Copy)]
pub struct SharedMut {
    start: *mut f32,
    len: usize,
}

// SAFETY: only the unsafe methods touch the memory, and their callers guarantee disjoint or ordered
// access.
unsafe impl Send for SharedMut {}
// SAFETY: as above.
unsafe impl Sync for SharedMut {}

impl SharedMut {
    /// Shares `values` for as long as the caller keeps them borrowed.
    pub fn new(values: &mut [f32]) -> Self {
        SharedMut { start: values.as_mut_ptr(), len: values.len() }
    }

    /// Pointer to the value at `offset`.
    pub fn pointer(&self, offset: usize) -> *mut f32 {
        debug_assert!(offset <= self.len);
        self.start.wrapping_add(offset)
    }

    /// Shared access to the values of `range`.
    ///
    /// # Safety
    /// The buffer is alive, and no thread writes `range` before the next barrier.
    pub unsafe fn read(&self, range: std::ops::Range<usize>) -> &[f32] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: range checked above; caller guarantees no writer before the next barrier.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.end - range.start) }
    }

    /// Exclusive access to the values of `range`.
    ///
    /// # Safety
    /// The buffer is alive, and no other thread touches `range` before the next barrier.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, range: std::ops::Range<usize>) -> &mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: range checked above; caller guarantees exclusive access.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start) }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// True if `work` unwound.
    fn unwinds(work: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(work)).is_err()
    }

    #[test]
    fn a_panic_lets_the_others_leave_the_barrier() {
        let barrier = Barrier::new(3);
        std::thread::scope(|scope| {
            let waiting = || {
                unwinds(|| {
                    barrier.wait();
                    barrier.wait();
                })
            };
            let others = [scope.spawn(waiting), scope.spawn(waiting)];
            let panics = unwinds(|| {
                let _guard = OnPanic(|| barrier.poison());
                barrier.wait();
                panic!("between two barriers");
            });
            assert!(panics && others.into_iter().all(|other| other.join().expect("caught")));
        });
        assert!(unwinds(|| barrier.wait()), "nobody gets through later");
    }

    #[test]
    fn a_panic_lets_the_others_leave_a_turn() {
        let turn = Turn::default();
        std::thread::scope(|scope| {
            let others = [2, 3].map(|round| {
                let turn = &turn;
                scope.spawn(move || {
                    unwinds(|| {
                        turn.take(round);
                        turn.pass(round);
                    })
                })
            });
            let panics = unwinds(|| {
                let _guard = OnPanic(|| turn.poison());
                turn.take(0);
                turn.pass(0);
                turn.take(1);
                panic!("with the turn");
            });
            assert!(panics && others.into_iter().all(|other| other.join().expect("caught")));
        });
        turn.pass(1);
        assert!(unwinds(|| turn.take(2)), "passing does not undo it");
        turn.reset();
        assert!(!unwinds(|| turn.take(0)));
    }
}
