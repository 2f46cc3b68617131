//! One model in training. A run has one of them, or an ensemble of some, which share data, pairs
//! and settings and differ in the seed of parameters and batches.

use super::events::unix_time;
use super::metrics::{Metrics, MetricsWriter};
use super::stopping::{Best, Kept, Stopping};
use crate::config::Config;
use crate::engine::{Engine, StepRecord, Trainer};
use crate::error::{Error, Result};
use crate::model::{Coordinates, Model};
use crate::run_folder::MemberFiles;
use crate::training::Training;

/// A model in training: its files, and how far it is.
pub(super) struct Member {
    pub files: MemberFiles,
    pub training: Training,
    /// That of its checkpoints.
    pub fingerprint: String,
    pub metrics: MetricsWriter,
    /// Steps taken.
    pub step: u64,
    /// Step of the newest checkpoint.
    pub kept: Option<u64>,
    pub stopping: Option<Stopping>,
    /// Record of the newest step of this process.
    pub last: Option<StepRecord>,
    /// The model that was written last.
    pub written: Option<Model>,
    /// Records of the chunk of steps that is being taken.
    records: Vec<StepRecord>,
    /// What was measured after them, with early stopping.
    held_out: Option<f64>,
    /// What was not finite, and at which step.
    failed: Option<(&'static str, u64)>,
}

impl Member {
    /// A member that goes on from `step`, with what early stopping knows by then.
    pub fn new(
        files: MemberFiles,
        training: Training,
        fingerprint: String,
        metrics: MetricsWriter,
        (step, stopping): (u64, Option<Stopping>),
    ) -> Member {
        let kept = (step > 0).then_some(step);
        let (last, written, records, held_out, failed) = (None, None, Vec::new(), None, None);
        Member { files, training, fingerprint, metrics, step, kept, stopping, last, written, records, held_out, failed }
    }

    /// True if no step is left to take.
    pub fn is_over(&self, config: &Config) -> bool {
        self.step >= config.training.steps || self.stopping.as_ref().is_some_and(Stopping::is_spent)
    }

    /// The best weights so far; none without early stopping.
    pub fn best(&self) -> Option<&Best> {
        self.stopping.as_ref()?.best.as_ref()
    }

    /// Steps that the model was trained for.
    pub fn model_step(&self) -> u64 {
        self.best().map_or(self.step, |best| best.step)
    }

    /// What early stopping kept, of the steps that were `asked` for.
    pub fn kept_model(&self, asked: u64) -> Option<Kept> {
        self.stopping.as_ref()?.kept(self.step, asked)
    }

    /// Measures the model after the steps taken last, if that is due: not a number if its rows are
    /// lost.
    pub fn measure(
        &mut self,
        engine: &dyn Engine,
        trainer: &dyn Trainer,
        coordinates: &Coordinates,
        config: &Config,
    ) -> Result<()> {
        self.held_out = None;
        if let Some(stopping) = &mut self.stopping
            && self.failed.is_none()
            && !self.records.is_empty()
            && stopping.is_due(self.step, config.training.steps)
        {
            let measured = stopping.measure(engine, trainer.model(coordinates.clone())?, self.step)?;
            self.held_out = Some(measured.unwrap_or(f64::NAN));
        }
        Ok(())
    }

    /// Steps of the next chunk: at most `most`, and up to the next checkpoint and measurement.
    pub fn next_chunk(&self, most: u64, config: &Config) -> u64 {
        if self.is_over(config) {
            return 0;
        }
        let most = self.stopping.as_ref().map_or(most, |stopping| most.min(stopping.steps_left(self.step)));
        let every = config.output.checkpoint_every;
        let next_checkpoint = (self.step / every + 1) * every;
        most.min(next_checkpoint - self.step).min(config.training.steps - self.step)
    }

    /// Takes `n` steps. A loss that is not finite shows in [`Member::failure`].
    pub fn take(&mut self, trainer: &mut dyn Trainer, n: u64) -> Result<()> {
        self.records.clear();
        self.failed = match trainer.steps(n, &mut self.records) {
            // Its record belongs into the metrics.
            Err(Error::NotFinite { what, step, .. }) => Some((what, step)),
            taken => taken.map(|()| None)?,
        };
        if let Some(last) = self.records.last() {
            self.step = last.step + 1;
            self.last = Some(*last);
        }
        Ok(())
    }

    /// Rows that the steps taken last looked at.
    pub fn rows_taken(&self) -> f64 {
        self.records.len() as f64 * self.training.rows_per_step() as f64
    }

    /// Writes the metrics of the steps taken last, in `seconds`.
    pub fn write_metrics(&mut self, seconds: f64, config: &Config) -> Result<()> {
        let (rows_per_s, unix_time) = (self.rows_taken() / seconds, unix_time());
        for record in &self.records {
            let held_out = self.held_out.filter(|_| record.step + 1 == self.step);
            let is_last = record.step + 1 == config.training.steps;
            if record.step % config.output.metrics_every == 0 || is_last || held_out.is_some() {
                self.metrics.write(&Metrics { held_out, unix_time, ..Metrics::new(record, rows_per_s) })?;
            }
        }
        self.metrics.flush()
    }

    /// The error of the steps taken last, if their loss was not finite.
    pub fn failure(&self) -> Option<Error> {
        let (what, step) = self.failed?;
        let fix = match self.kept {
            Some(_) => {
                "lower training.learning_rate, raise training.warmup_steps, or check the data for outliers; the last \
                 checkpoint is kept"
            }
            None => "lower training.learning_rate, raise training.warmup_steps, or check the data for outliers",
        };
        Some(Error::NotFinite { what, step, fix })
    }

    /// True if a checkpoint is due at this step.
    pub fn is_due(&self, config: &Config) -> bool {
        self.step.is_multiple_of(config.output.checkpoint_every) || self.is_over(config)
    }
}

/// The mean of the newest records of `members`, at the mean of their steps; `None` if none of them
/// has taken a step. Of one member, its record.
pub(super) fn mean_record(members: &[Member]) -> Option<StepRecord> {
    let records: Vec<StepRecord> = members.iter().filter_map(|member| member.last).collect();
    let first = *records.first()?;
    if members.len() == 1 {
        return Some(first);
    }
    let mean = |of: fn(&StepRecord) -> f64| records.iter().map(of).sum::<f64>() / records.len() as f64;
    Some(StepRecord {
        step: mean_step(members).saturating_sub(1),
        loss: mean(|record| record.loss),
        boundary0: mean(|record| record.boundary0),
        boundary1: mean(|record| record.boundary1),
        interior: mean(|record| record.interior),
        kinetic: mean(|record| record.kinetic),
        gradient_norm: mean(|record| record.gradient_norm),
        learning_rate: mean(|record| record.learning_rate),
    })
}

/// Steps that `members` have taken, in the mean.
pub(super) fn mean_step(members: &[Member]) -> u64 {
    let all: u128 = members.iter().map(|member| u128::from(member.step)).sum();
    (all / members.len().max(1) as u128) as u64
}
