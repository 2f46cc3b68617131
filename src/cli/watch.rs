//! A long stage of a command: its progress on screen, and the signals that end it.

use std::sync::{Mutex, MutexGuard};

use action_matching::stage::Watch;

use super::output::Progress;
use super::signal::Signals;

/// Shows the progress of a stage from the first news of it on, and ends it when a signal asks.
pub struct OnScreen {
    what: &'static str,
    signals: Signals,
    /// With the largest number shown.
    progress: Mutex<Option<(Progress, u64)>>,
}

impl OnScreen {
    /// Progress counted in `what`.
    pub fn new(what: &'static str, signals: &Signals) -> Self {
        OnScreen { what, signals: signals.clone(), progress: Mutex::default() }
    }

    /// Takes the progress off the screen.
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
        // Threads may come with what is old already.
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
