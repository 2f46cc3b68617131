//! A run in a folder, as `amatch train` makes it, watched by code of your own: it prints progress
//! and ends the run early once the loss stops falling. The folder can be resumed.
//!
//!     cargo run --release --example custom_observer

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use action_matching::prelude::*;

/// Ends a run after `PATIENCE` reports without a better mean loss.
#[derive(Default)]
struct EarlyStop {
    mean: Option<f64>,
    best: f64,
    waited: u32,
    stop: Stop,
}

/// The watch that [`Observer::watch`] returns is used by other threads too.
#[derive(Default)]
struct Stop(AtomicBool);

impl Watch for Stop {
    fn is_cancelled(&self) -> bool {
        self.0.load(Relaxed)
    }
}

const PATIENCE: u32 = 5;

impl Observer for EarlyStop {
    fn progress(&mut self, last: &StepRecord, rows_per_s: f64) {
        let mean = self.mean.map_or(last.loss, |mean| 0.8 * mean + 0.2 * last.loss);
        self.mean = Some(mean);
        println!("step {:>4}: mean loss {mean:.4}, {rows_per_s:.0} rows/s", last.step);
        if mean < self.best {
            (self.best, self.waited) = (mean, 0);
        } else {
            self.waited += 1;
            self.stop.0.store(self.waited >= PATIENCE, Relaxed);
        }
    }

    fn warning(&mut self, message: &str) {
        println!("warning: {message}");
    }

    fn watch(&self) -> &dyn Watch {
        &self.stop
    }
}

pub fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("custom_observer-{}", std::process::id()));
    let mut config = Config::default();
    config.data.path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/mouse_hematopoiesis.npz");
    config.model.hidden = Some(vec![32; 2]);
    config.training.steps = 400;
    config.training.interior_rows = 256;
    config.output.folder = folder.clone();

    let engine = CpuEngine::new(0);
    match train(&engine, &config, Existing::Refuse, 1, &mut EarlyStop::default())? {
        Outcome::Finished => println!("all {} steps are taken", config.training.steps),
        Outcome::Stopped { step } => println!("stopped after {step} steps: Existing::Resume goes on from there"),
    }
    let model = Model::load(&folder.join("model.safetensors"))?;
    println!("{} parameters for times {:?}", model.parameters.len(), model.coordinates.time_range);
    std::fs::remove_dir_all(&folder).map_err(Error::io(folder, "remove"))
}
