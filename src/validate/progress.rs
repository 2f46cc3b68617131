//! Progress of a choice, in steps of training, and its cancellation.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::Result;
use crate::stage::{Watch, check};

/// Counts steps that several threads take. Passes cancellation on, but not the progress of parts.
pub(super) struct Progress<'a> {
    watch: &'a dyn Watch,
    done: AtomicU64,
    total: u64,
}

impl<'a> Progress<'a> {
    /// Progress towards `total` steps; none is shown if it is 0.
    pub fn new(watch: &'a dyn Watch, total: u64) -> Self {
        Progress { watch, done: AtomicU64::new(0), total }
    }

    /// Cancellation alone, for work that is no training.
    pub fn quiet(watch: &'a dyn Watch) -> Self {
        Progress::new(watch, 0)
    }

    /// `n` more steps were taken.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if the watch cancels.
    pub fn took(&self, n: u64) -> Result<()> {
        let done = self.done.fetch_add(n, Relaxed) + n;
        if self.total > 0 {
            self.watch.advanced(done.min(self.total), self.total);
        }
        check(self.watch)
    }
}

impl Watch for Progress<'_> {
    fn is_cancelled(&self) -> bool {
        self.watch.is_cancelled()
    }
}
