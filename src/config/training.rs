//! `[training]`.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::kind;
use crate::precision::Precision;
use crate::training::{LearningRate, Optimizer, Training};

/// `[training]`: steps and optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingConfig {
    /// Optimizer steps.
    pub steps: u64,
    /// Interior rows of a step.
    pub interior_rows: usize,
    /// Boundary rows of a step, at each of the two end times.
    pub boundary_rows: usize,
    /// Shards of a batch, whose gradients GPUs sum apart: see [`Training::n_shards`].
    pub shards: usize,
    /// Learning rate after warm-up.
    pub learning_rate: f64,
    /// Steps of linear warm-up. A run of fewer than ten times as many steps warms up over a tenth
    /// of its steps: it would spend much of them below its rate, or never reach it.
    pub warmup_steps: u64,
    /// `constant`, or `{ kind = "cosine", final_rate = 0.01 }`.
    #[serde(with = "kind")]
    pub schedule: Schedule,
    /// β₁ of AdamW.
    pub beta1: f64,
    /// β₂ of AdamW.
    pub beta2: f64,
    /// ε of AdamW.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest global gradient norm; 0 does not clip.
    pub clip_norm: f64,
    /// β of the moving average that becomes the model; early on it averages over fewer steps: see
    /// [`Optimizer::ema_rate`](crate::training::Optimizer::ema_rate).
    pub ema_decay: f64,
    /// Seed of initial parameters and batches.
    pub seed: u64,
    /// Members of an ensemble: models that differ in their initial parameters and batches alone,
    /// with the seeds `seed`, `seed` + 1, … Data, pairs and what `auto` chooses are those of
    /// `seed`.
    pub seeds: usize,
    /// `never`, or `{ kind = "held-out", share = 0.1, patience = 10 }`.
    #[serde(with = "kind")]
    pub stop: Stop,
    /// Operands of matrix products on a GPU: `f32`, `tf32`, `bf16` or `f16`; `None`, written
    /// `auto`, is bf16. A CPU computes in f32 in any case.
    #[serde(with = "kind::auto")]
    pub precision: Option<Precision>,
}

impl TrainingConfig {
    /// Most members of an ensemble.
    pub const MAX_SEEDS: usize = 100;

    /// The seed of member `number` of the ensemble, counted from 1.
    #[must_use]
    pub fn seed_of(&self, number: usize) -> u64 {
        self.seed.wrapping_add(number.saturating_sub(1) as u64)
    }

    /// Most steps of warm-up that a run is given.
    pub(super) fn longest_warmup(&self) -> u64 {
        self.steps / 10
    }
}

impl Default for TrainingConfig {
    fn default() -> Self {
        let optimizer = Optimizer::default();
        TrainingConfig {
            steps: 10_000,
            interior_rows: Training::ROWS,
            boundary_rows: Training::ROWS,
            shards: Training::SHARDS,
            learning_rate: optimizer.learning_rate.peak,
            warmup_steps: LearningRate::WARMUP_STEPS,
            schedule: Schedule::default(),
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            epsilon: optimizer.epsilon,
            weight_decay: optimizer.weight_decay,
            clip_norm: optimizer.clip_norm.unwrap_or(0.0),
            ema_decay: optimizer.ema_decay,
            seed: 0,
            seeds: 1,
            stop: Stop::default(),
            precision: None,
        }
    }
}

/// How the learning rate goes on after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// Stays.
    Constant,
    /// Falls along a cosine.
    Cosine {
        /// Share of the learning rate at the last step, from 0 to 1.
        #[serde(default = "Schedule::default_final_rate")]
        final_rate: f64,
    },
}

impl Schedule {
    fn default_final_rate() -> f64 {
        LearningRate::FLOOR
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule::Cosine { final_rate: Schedule::default_final_rate() }
    }
}

/// Whether a run may end before its last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Stop {
    /// It takes all steps.
    #[default]
    Never,
    /// A share of the training rows is kept apart from training, the model that predicts them best
    /// is saved, and a run that brings no better one ends.
    HeldOut {
        /// Share of the rows of every snapshot.
        #[serde(default = "Stop::default_share")]
        share: f64,
        /// Measurements in a row without a better one, about 50 of which are made in a whole run,
        /// after which it ends.
        #[serde(default = "Stop::default_patience")]
        patience: u64,
    },
}

impl Stop {
    /// Shares that may be kept apart.
    pub const SHARES: RangeInclusive<f64> = 0.001..=0.5;

    fn default_share() -> f64 {
        0.1
    }

    fn default_patience() -> u64 {
        10
    }

    /// With the defaults of its settings.
    #[must_use]
    pub fn held_out() -> Stop {
        Stop::HeldOut { share: Stop::default_share(), patience: Stop::default_patience() }
    }
}
