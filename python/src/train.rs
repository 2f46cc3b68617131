//! `train`: a run in its folder.

use std::path::Path;

use action_matching::engine::StepRecord;
use action_matching::stage::{Watch, startable_threads};
use action_matching::train::{Existing, Observer, Unexplained};
use pyo3::prelude::*;

use crate::engine::Device;
use crate::errors::exception;
use crate::settings::Settings;
use crate::work::{Relay, on_worker};

/// Trains as `settings` say. A run that is there already is refused, resumed or replaced.
#[pyfunction]
pub fn train(
    py: Python<'_>,
    settings: &Settings,
    resume: bool,
    overwrite: bool,
    device: Device,
    listener: Option<Py<PyAny>>,
) -> PyResult<()> {
    let mut config = settings.config.clone();
    let existing = match (resume, overwrite) {
        (true, _) => Existing::Resume,
        (_, true) => Existing::Replace,
        _ => Existing::Refuse,
    };
    let engine = device.open_for(&mut config).map_err(|error| exception(py, error))?;
    let threads = startable_threads(device.threads().map_err(|error| exception(py, error))?);
    on_worker(py, listener, |relay| {
        relay.counts("bytes of data");
        let mut events = Events { relay, steps: 0 };
        // A run that is stopped has its checkpoint; the exception that stopped it is raised.
        action_matching::train::train(engine.engine(), &config, existing, threads, &mut events).map(drop)
    })
}

/// Passes the events of a run on.
struct Events<'a> {
    relay: &'a Relay,
    steps: u64,
}

impl Observer for Events<'_> {
    fn started(&mut self, from: u64, to: u64, device: &str, folder: &Path) {
        self.steps = to;
        self.relay.line("notice", &format!("{}: steps {from} to {to} on {device}", folder.display()));
        self.relay.counts("steps");
    }

    fn preparing(&mut self, what: &str) {
        self.relay.line("notice", what);
        self.relay.counts("parts");
    }

    fn progress(&mut self, last: &StepRecord, _rows_per_s: f64) {
        self.relay.at(last.step + 1, self.steps, format!("loss {:.4}", last.loss));
    }

    fn notice(&mut self, message: &str) {
        self.relay.line("notice", message);
    }

    fn warning(&mut self, message: &str) {
        self.relay.line("warning", message);
    }

    fn finished(&mut self, unexplained: Option<Unexplained>) {
        if let Some(unexplained) = unexplained {
            self.relay.line("notice", &unexplained.to_string());
        }
    }

    fn testing(&mut self) {
        self.relay.counts("intervals tested");
    }

    fn watch(&self) -> &dyn Watch {
        self.relay
    }
}
