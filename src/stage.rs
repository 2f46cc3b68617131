//! How a long stage of work runs: on how many threads, who hears of its progress, and who may end it.

use crate::error::{Error, Result};

/// Hears how far a stage is, and may end it. Called from any thread of the stage, several times a second at least.
pub trait Watch: Sync {
    /// `done` of the `total` units of the stage are finished.
    fn advanced(&self, done: u64, total: u64) {
        let _ = (done, total);
    }

    /// Whether the stage should end early, with [`Error::Interrupted`].
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Nobody watches, and the stage runs to its end.
impl Watch for () {}

/// The resources of a stage and its watch.
#[derive(Clone, Copy)]
pub struct Stage<'a> {
    /// Most threads that the stage may use, the calling one among them; at least 1.
    pub threads: usize,
    /// Hears of progress, and may end the stage.
    pub watch: &'a dyn Watch,
}

impl<'a> Stage<'a> {
    /// A stage of at most `threads` threads; 0 counts as 1.
    pub fn new(threads: usize, watch: &'a dyn Watch) -> Self {
        Stage { threads: threads.max(1), watch }
    }

    /// Returns early from a stage that was cancelled.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the watch asks for it.
    pub fn check(&self) -> Result<()> {
        if self.watch.is_cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_stage_is_interrupted() {
        struct Cancelled;
        impl Watch for Cancelled {
            fn is_cancelled(&self) -> bool {
                true
            }
        }
        assert!(Stage::new(0, &()).check().is_ok());
        assert_eq!(Stage::new(0, &()).threads, 1);
        assert!(matches!(Stage::new(2, &Cancelled).check(), Err(Error::Interrupted)));
    }
}
