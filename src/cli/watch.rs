//! A long stage of a command: its progress on screen, and its cancellation by signals.

use std::sync::{Mutex, MutexGuard};

use action_matching::stage::Watch;

use super::output::Progress;
use super::signal::Signals;

/// Shows the progress of a stage from its first report on, and cancels the stage after a signal.
pub struct OnScreen {
    what: &'static str,
    signals: Signals,
    /// The progress and the largest number shown.
    progress: Mutex<Option<(Progress, u64)>>,
}

impl OnScreen {
    /// Progress counted in `what`.
    pub fn new(what: &'static str, signals: &Signals) -> Self {
        OnScreen { what, signals: signals.clone(), progress: Mutex::default() }
    }

    /// Removes the progress from the screen.
    pub fn clear(&self) {
        if let Some((progress, _)) = self.progress().take() {
            progress.finish();
        }
    }

    fn progress(&self) -> MutexGuard<'_, Option<(Progress, u64)>> {
        self.progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Watch for OnScreen {
    fn advanced(&self, done: u64, total: u64) {
        let mut progress = self.progress();
        let (progress, shown) = progress.get_or_insert_with(|| (Progress::new(self.what, 0, total), 0));
        // Threads may report outdated numbers.
        *shown = done.max(*shown);
        progress.of(total);
        progress.at(*shown, String::new);
    }

    fn is_cancelled(&self) -> bool {
        self.signals.is_cancelled()
    }
}

impl Drop for OnScreen {
    fn drop(&mut self) {
        self.clear();
    }
}
