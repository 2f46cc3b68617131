//! Contents of a fingerprint: the settings that decide the result of a step, in the form that
//! configurations had first. It stays as it is, whatever keys are called, so that runs of earlier
//! versions can be gone on with.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Config, Mass, Pairing, PathConfig, Schedule, Stop};
use crate::data::{Snapshots, Standardization};
use crate::density_path::{Interpolant, Knots, TimeRule};
use crate::error::{Error, Result};
use crate::laplacian::LaplacianRule;
use crate::model::{Activation, Head, TimeEmbedding};
use crate::objective::{SigmaSchedule, TimeWeight};
use crate::training::Estimator;

/// Every setting under its first key, in the first order.
#[derive(Serialize, Deserialize)]
pub(crate) struct Settings {
    data: Data,
    model: Model,
    objective: Objective,
    training: Training,
    output: Output,
}

#[derive(Serialize, Deserialize)]
struct Data {
    path: String,
    samples: String,
    times: String,
    hold_out: Vec<f64>,
    standardise: Standardization,
    /// Later than the first form, so it is left out where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    components: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct Model {
    hidden: Vec<usize>,
    activation: Activation,
    head: Head,
    time_embedding: TimeEmbedding,
}

#[derive(Serialize, Deserialize)]
struct Objective {
    sigma: f64,
    sigma_schedule: SigmaSchedule,
    laplacian: LaplacianRule,
    probes: usize,
    growth: f64,
    /// Configurations of the first form had none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    growth_head: bool,
    cost_exponent: f64,
    time_weight: TimeWeight,
    estimator: String,
    centring: bool,
    weak_intervals: u32,
    path: Interpolant,
    /// Of splines, whose slopes were those of the clock without a limit in the first form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spline_limit: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spline_knots: Option<Knots>,
    bend_hidden: Vec<usize>,
    bend_rate: f64,
    pairing: String,
    pairing_rows: usize,
    pairing_relaxation: f64,
    mass: String,
    /// Of `totals`; configurations of the first form had none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mass_totals: Vec<f64>,
    time_rule: TimeRule,
}

#[derive(Serialize, Deserialize)]
struct Training {
    steps: u64,
    interior_rows: usize,
    boundary_rows: usize,
    /// Other than the 8 that configurations of the first form had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shards: Option<usize>,
    learning_rate: f64,
    warmup_steps: u64,
    schedule: String,
    final_rate: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    weight_decay: f64,
    clip_norm: f64,
    ema_decay: f64,
    seed: u64,
    /// Of early stopping, which configurations of the first form did not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop_share: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop_patience: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Output {
    folder: String,
    checkpoint_every: u64,
    metrics_every: u64,
}

impl Settings {
    /// The settings of `config`. Keys of kinds that it does not have are at their first defaults.
    pub(super) fn of(config: &Config) -> Settings {
        let (model, objective, training) = (&config.model, &config.objective, &config.training);
        let (centring, weak_intervals) = match objective.estimator {
            Some(Estimator::Action { centering }) => (centering, 16),
            Some(Estimator::Weak { intervals }) => (false, intervals),
            Some(Estimator::Regression) | None => (false, 16),
        };
        let (bend_hidden, bend_rate) = match &objective.path {
            PathConfig::Learned { hidden, rate } => (hidden.clone(), *rate),
            _ => (vec![64; 2], 0.3),
        };
        let spline = match objective.path {
            PathConfig::Spline { limit, knots } => Some((limit, knots)),
            _ => None,
        };
        let (pairing, pairing_rows, pairing_relaxation) = match objective.pairing {
            Pairing::Independent => ("independent", 2048, 1.0),
            // As settled before a run: see `Config::settled`.
            Pairing::Auto if objective.path.interpolant().has_pairs() => ("ot", 2048, 1.0),
            Pairing::Auto => ("independent", 2048, 1.0),
            Pairing::Ot { rows } => ("ot", rows, 1.0),
            Pairing::Unbalanced { relaxation, rows } => ("unbalanced", rows, relaxation),
            Pairing::Wfr { rows } => ("wfr", rows, 1.0),
        };
        let (mass, mass_totals) = match &objective.mass {
            Mass::Ignored => ("ignored", Vec::new()),
            Mass::Counts => ("counts", Vec::new()),
            Mass::Growth => ("growth", Vec::new()),
            Mass::Totals { values } => ("totals", values.clone()),
        };
        let (schedule, final_rate) = match training.schedule {
            Schedule::Constant => ("constant", 0.01),
            Schedule::Cosine { final_rate } => ("cosine", final_rate),
        };
        let stop = match training.stop {
            Stop::Never => None,
            Stop::HeldOut { share, patience } => Some((share, patience)),
        };
        let estimator = match objective.estimator {
            None => "auto",
            Some(Estimator::Action { .. }) => "action",
            Some(Estimator::Weak { .. }) => "weak",
            Some(Estimator::Regression) => "regression",
        };
        Settings {
            data: Data { components: config.data.components, ..Data::default() },
            model: Model {
                hidden: model.hidden.clone().unwrap_or_else(|| vec![128; 3]),
                activation: model.activation,
                head: model.head,
                time_embedding: model.time_embedding.clone().unwrap_or_default(),
            },
            objective: Objective {
                sigma: objective.sigma.value,
                sigma_schedule: objective.sigma.schedule,
                laplacian: objective.laplacian.rule,
                probes: objective.laplacian.n_probes,
                growth: objective.lambda(),
                growth_head: objective.growth_head,
                cost_exponent: objective.cost_exponent,
                time_weight: objective.time_weight.clone(),
                estimator: estimator.into(),
                centring,
                weak_intervals,
                path: objective.path.interpolant(),
                spline_limit: spline.map(|(limit, _)| limit),
                spline_knots: spline.map(|(_, knots)| knots),
                bend_hidden,
                bend_rate,
                pairing: pairing.into(),
                pairing_rows,
                pairing_relaxation,
                mass: mass.into(),
                mass_totals,
                time_rule: objective.time_rule,
            },
            training: Training {
                steps: 0,
                interior_rows: training.interior_rows,
                boundary_rows: training.boundary_rows,
                shards: Some(training.shards).filter(|&n| n != 8),
                learning_rate: training.learning_rate,
                warmup_steps: training.warmup_steps,
                schedule: schedule.into(),
                final_rate,
                beta1: training.beta1,
                beta2: training.beta2,
                epsilon: training.epsilon,
                weight_decay: training.weight_decay,
                clip_norm: training.clip_norm,
                ema_decay: training.ema_decay,
                seed: training.seed,
                stop_share: stop.map(|(share, _)| share),
                stop_patience: stop.map(|(_, patience)| patience),
            },
            output: Output::default(),
        }
    }

    /// The settings that a configuration in the first form holds, those without effect too; `None`
    /// for any other, and for a path that is another one now.
    pub(crate) fn of_first_form(text: &str) -> Option<Settings> {
        let settings: Settings = toml::from_str(text).ok()?;
        // Splines have had other slopes since.
        if settings.objective.path == Interpolant::Spline {
            return None;
        }
        let training = Training { steps: 0, ..settings.training };
        Some(Settings { data: Data::default(), training, output: Output::default(), ..settings })
    }

    /// SHA-256 of the settings and the snapshots themselves.
    ///
    /// # Errors
    /// [`Error::Input`] when no text holds a value.
    pub(crate) fn digest(&self, snapshots: &Snapshots) -> Result<String> {
        let text = toml::to_string(self).map_err(|error| {
            Error::input("configuration", "values", error.to_string(), "use values that a TOML file can hold")
        })?;
        let mut hash = Sha256::new();
        hash.update(text);
        hash.update((snapshots.dim as u64).to_le_bytes());
        for (time, offset) in snapshots.times.iter().zip(&snapshots.offsets[1..]) {
            hash.update(time.to_le_bytes());
            hash.update((*offset as u64).to_le_bytes());
        }
        hash.update(bytemuck::cast_slice::<f32, u8>(&snapshots.samples));
        for (name, values) in snapshots.mass.values() {
            hash.update(name);
            hash.update(bytemuck::cast_slice::<f64, u8>(values));
        }
        Ok(hexadecimal(&hash.finalize()))
    }
}

// The place of the data and the times of writing decide nothing: they are at their first defaults.

impl Default for Data {
    fn default() -> Self {
        Data {
            path: String::new(),
            samples: "samples".into(),
            times: "times".into(),
            hold_out: Vec::new(),
            standardise: Standardization::Isotropic,
            components: None,
        }
    }
}

impl Default for Output {
    fn default() -> Self {
        Output { folder: String::new(), checkpoint_every: 1000, metrics_every: 10 }
    }
}

/// SHA-256 of the file at `path`, in hexadecimal digits.
///
/// # Errors
/// [`Error::Io`] if it cannot be read.
pub(crate) fn digest_of_file(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(Error::io(path, "read"))?;
    Ok(hexadecimal(&Sha256::digest(bytes)))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
