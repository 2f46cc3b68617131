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
    /// Progress towards `total` steps.
    pub fn new(watch: &'a dyn Watch, total: u64) -> Self {
        Progress { watch, done: AtomicU64::new(0), total }
    }

    /// `n` more steps were taken.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if the watch cancels.
    pub fn took(&self, n: u64) -> Result<()> {
        let done = self.done.fetch_add(n, Relaxed) + n;
        self.watch.advanced(done, self.total.max(done));
        check(self.watch)
    }
}

impl Watch for Progress<'_> {
    fn is_cancelled(&self) -> bool {
        self.watch.is_cancelled()
    }
}
