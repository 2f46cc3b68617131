//! Signals: the first one requests an orderly end, a second one ends the process at once.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use action_matching::stage::Watch;
use anyhow::Context;
#[cfg(unix)]
use signal_hook::consts::SIGUSR1;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::exit;

/// A hang-up, for example when the terminal is closed. The number is the same on every Unix.
const SIGHUP: i32 = 1;

/// Signals that request the end.
#[cfg(unix)]
const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];
#[cfg(not(unix))]
const ENDING: [i32; 2] = [SIGINT, SIGTERM];

/// What the process watches.
static WATCHED: OnceLock<Signals> = OnceLock::new();

/// Requests of signals since [`Signals::watch`].
#[derive(Clone, Default)]
pub struct Signals {
    /// The signal that requests the end; 0 before.
    ending: Arc<AtomicUsize>,
    /// True if SIGUSR1 requests a checkpoint.
    checkpoint: Arc<AtomicBool>,
    /// True if the next signal that requests the end ends the process at once.
    at_once: Arc<AtomicBool>,
}

impl Signals {
    /// Watches SIGINT, SIGTERM and SIGHUP (unless ignored, as under nohup), which request the end,
    /// and SIGUSR1, which requests a checkpoint. A second request to end ends the process at once,
    /// with exit code 128 plus the signal's number.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn watch() -> anyhow::Result<Signals> {
        if let Some(signals) = WATCHED.get() {
            return Ok(signals.clone());
        }
        let signals = Signals::default();
        for number in ENDING {
            if number == SIGHUP && is_ignored(SIGHUP) {
                continue;
            }
            // In this order: the first signal finds `at_once` false and sets it, the second finds
            // it true.
            signal_hook::flag::register_conditional_shutdown(
                number,
                i32::from(exit::SIGNAL) + number,
                Arc::clone(&signals.at_once),
            )
            .and_then(|_| signal_hook::flag::register(number, Arc::clone(&signals.at_once)))
            .and_then(|_| signal_hook::flag::register_usize(number, Arc::clone(&signals.ending), number as usize))
            .with_context(|| format!("cannot watch for signal {number}"))?;
        }
        #[cfg(unix)]
        signal_hook::flag::register(SIGUSR1, Arc::clone(&signals.checkpoint)).context("cannot watch for SIGUSR1")?;
        Ok(WATCHED.get_or_init(|| signals).clone())
    }

    /// For a rank other than the first: signals that request the end do nothing, as rank 0 decides
    /// about it for all. What a terminal, `torchrun` or SLURM sends reaches rank 0 too. Takes the
    /// place of [`Signals::watch`], and comes before it.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn of_follower() -> anyhow::Result<Signals> {
        for number in ENDING {
            signal_hook::flag::register(number, Arc::default())
                .with_context(|| format!("cannot ignore signal {number}"))?;
        }
        Ok(WATCHED.get_or_init(Signals::default).clone())
    }

    /// From now on the first signal already ends the process at once. For stages that do not look
    /// at signals, such as waiting for the reader of a pipe.
    pub fn end_at_once(&self) {
        self.at_once.store(true, Relaxed);
    }

    /// The signal that requested the end.
    pub fn ending(&self) -> Option<i32> {
        Some(self.ending.load(Relaxed) as i32).filter(|&number| number != 0)
    }

    /// The exit code of a command that a signal ended in good order: 75 for SIGHUP, which means
    /// that the command should be started again, otherwise 128 plus the signal's number.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.ending() {
            Some(SIGHUP) => exit::INTERRUPTED,
            number => exit::SIGNAL + number.unwrap_or(0) as u8,
        })
    }

    /// True if a checkpoint was requested since the last call.
    pub fn take_checkpoint_request(&self) -> bool {
        self.checkpoint.swap(false, Relaxed)
    }
}

impl Watch for Signals {
    fn is_cancelled(&self) -> bool {
        self.ending().is_some()
    }
}

/// True if the process was started with `signal` ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// In a process of its own, as handlers stay.
    #[test]
    fn a_follower_is_not_ended_by_signals() {
        if std::env::var_os("FOLLOWER").is_none() {
            let mut command = std::process::Command::new(std::env::current_exe().expect("the test's own path"));
            command.args(["--exact", std::thread::current().name().expect("the test's name")]).env("FOLLOWER", "1");
            return assert!(command.output().expect("runs").status.success());
        }
        let signals = Signals::of_follower().expect("follows");
        for number in ENDING {
            signal_hook::low_level::raise(number).expect("sent");
        }
        assert_eq!((signals.ending(), Signals::watch().expect("is watched").ending()), (None, None));
    }
}
