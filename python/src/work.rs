//! Long work on a thread of its own, while the thread of the caller hands its events to Python and
//! looks for signals, so that Ctrl-C ends it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use action_matching::stage::Watch;
use action_matching::{Error, Result};
use pyo3::prelude::*;

use crate::errors::{exception, named};

/// Time between two looks at events and signals.
const INTERVAL: Duration = Duration::from_millis(50);

/// Stack of the thread that works, as that of a main thread.
const STACK: usize = 8 << 20;

/// What the work has to tell since the last look.
#[derive(Default)]
struct News {
    /// Kind (`notice` or `warning`) and text.
    lines: Vec<(&'static str, String)>,
    progress: Option<Progress>,
    /// What progress counts.
    units: String,
    /// Where earlier stages ended, each with its units.
    ended: Vec<(String, Progress)>,
}

/// Progress of a stage.
#[derive(Clone)]
struct Progress {
    done: u64,
    total: u64,
    text: String,
}

/// Carries events from the work to Python, and the wish to end back.
#[derive(Default)]
pub struct Relay {
    is_cancelled: AtomicBool,
    news: Mutex<News>,
}

impl Relay {
    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Tells the user something, as `notice` or `warning`.
    pub fn line(&self, kind: &'static str, text: &str) {
        self.news().lines.push((kind, named(text)));
    }

    /// From now on progress counts `units`.
    pub fn counts(&self, units: &str) {
        let mut news = self.news();
        let before = std::mem::replace(&mut news.units, units.to_string());
        let last = news.progress.take();
        news.ended.extend(last.map(|last| (before, last)));
    }

    /// Progress, with the state in words.
    pub fn at(&self, done: u64, total: u64, text: String) {
        self.news().progress = Some(Progress { done, total, text });
    }

    /// Ends the work early if the caller wishes so.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Hands what is new to `listener`.
    fn deliver(&self, py: Python<'_>, listener: Option<&Py<PyAny>>) -> PyResult<()> {
        let (lines, progress) = {
            let mut news = self.news();
            let units = news.units.clone();
            let mut progress = std::mem::take(&mut news.ended);
            progress.extend(news.progress.take().map(|progress| (units, progress)));
            (std::mem::take(&mut news.lines), progress)
        };
        let Some(listener) = listener else { return Ok(()) };
        for (kind, text) in lines {
            listener.call1(py, (kind, text))?;
        }
        for (units, Progress { done, total, text }) in progress {
            listener.call1(py, ("progress", (units, done, total, text)))?;
        }
        Ok(())
    }
}

impl Watch for Relay {
    fn advanced(&self, done: u64, total: u64) {
        let mut news = self.news();
        // Threads may report outdated numbers.
        let done = news.progress.as_ref().filter(|last| last.total == total).map_or(done, |last| last.done.max(done));
        news.progress = Some(Progress { done, total, text: String::new() });
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Relaxed)
    }
}

/// The result of `work`, which has a thread of its own. `listener` is called with
/// (`"notice"` or `"warning"`, text) and (`"progress"`, (units, done, total, text)) on the thread
/// of the caller.
///
/// # Errors
/// Errors of `work` as exceptions. An exception of a signal handler (`KeyboardInterrupt`) or of the
/// listener ends the work, and is raised when it has ended.
pub fn on_worker<T: Send>(
    py: Python<'_>,
    listener: Option<Py<PyAny>>,
    work: impl FnOnce(&Relay) -> Result<T> + Send,
) -> PyResult<T> {
    let relay = Relay::default();
    let (relay, listener) = (&relay, listener.as_ref());
    let (outcome, raised) = py.detach(|| {
        thread::scope(|scope| {
            let (ending, ended) = channel::<()>();
            let worker = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, move || {
                let _ending = ending; // dropped when the work is over, also by a panic
                work(relay)
            })?;
            let mut raised = None;
            loop {
                let is_over = ended.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout);
                if raised.is_none() {
                    let look = |py: Python<'_>| relay.deliver(py, listener).and_then(|()| py.check_signals());
                    raised = Python::attach(look).err();
                    relay.is_cancelled.store(raised.is_some(), Relaxed);
                }
                if is_over {
                    break;
                }
            }
            let outcome = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            PyResult::Ok((outcome, raised))
        })
    })?;
    match raised {
        Some(raised) => Err(raised),
        None => outcome.map_err(|error| exception(py, error)),
    }
}
