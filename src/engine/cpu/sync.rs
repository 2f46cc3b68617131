//! How threads meet inside a step: a barrier that spins briefly, and turns that fix the order of sums.

use std::sync::atomic::{AtomicUsize, Ordering::*};

/// Spins before a waiting thread yields its core: about the length of a short phase.
const SPINS: usize = 4096;

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

/// A reusable barrier for a fixed number of threads.
pub struct Barrier {
    n_threads: usize,
    arrived: AtomicUsize,
    generation: AtomicUsize,
}

impl Barrier {
    /// A barrier that opens when `n_threads` have arrived.
    pub fn new(n_threads: usize) -> Self {
        Barrier { n_threads, arrived: AtomicUsize::new(0), generation: AtomicUsize::new(0) }
    }

    /// Waits for all threads. Everything written before is visible to all after.
    pub fn wait(&self) {
        let generation = self.generation.load(Acquire);
        if self.arrived.fetch_add(1, AcqRel) + 1 == self.n_threads {
            self.arrived.store(0, Relaxed);
            self.generation.store(generation.wrapping_add(1), Release);
        } else {
            wait_until(|| self.generation.load(Acquire) != generation);
        }
    }
}

/// Grants a resource in rounds 0, 1, …: sums formed under a turn do not depend on the number of threads.
#[derive(Default)]
#[repr(align(64))]
pub struct Turn(AtomicUsize);

impl Turn {
    /// Waits until it is the turn of `round`. Everything written under earlier turns is visible after.
    ///
    /// Tiles are claimed in order and visit turns in the same order, so the wait always ends.
    pub fn take(&self, round: usize) {
        wait_until(|| self.0.load(Acquire) == round);
    }

    /// Passes the turn on from `round`.
    pub fn pass(&self, round: usize) {
        self.0.store(round + 1, Release);
    }

    /// Back to round 0, between steps.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// A buffer that threads write in disjoint parts, in an order that barriers and turns establish.
#[derive(Clone, Copy)]
pub struct SharedMut {
    start: *mut f32,
    len: usize,
}

// SAFETY: only the unsafe methods touch the memory, and their callers vouch for disjoint or ordered access.
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

    /// The values of `range`, to read.
    ///
    /// # Safety
    /// The buffer is alive, and no thread writes `range` before the next barrier.
    pub unsafe fn read(&self, range: std::ops::Range<usize>) -> &[f32] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: in bounds by the assertion; not written by the caller's word.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.end - range.start) }
    }

    /// The values of `range`, to write.
    ///
    /// # Safety
    /// The buffer is alive, and no other thread touches `range` before the next barrier.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, range: std::ops::Range<usize>) -> &mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: in bounds by the assertion; exclusive by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start) }
    }
}
