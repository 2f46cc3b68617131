//! The only door to rows: everything that touches per-row data lives behind [`Engine`] and [`Trainer`].

pub mod cpu;
pub mod reference;

use std::sync::Arc;

use crate::data::{Coupling, Snapshots};
use crate::error::{Error, Result, check_len};
use crate::integrate::{Plan, Trajectories};
use crate::model::{Architecture, Model};
use crate::objective::Objective;

/// A batch given by the caller, in network coordinates: what `amatch check` reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Interior points `[n, dim]`.
    pub x: Vec<f64>,
    /// Interior times `[n]`, in 0..=1.
    pub t: Vec<f64>,
    /// ω(t) `[n]`.
    pub omega: Vec<f64>,
    /// ω′(t) `[n]`.
    pub d_omega: Vec<f64>,
    /// Boundary points at t = 0, `[n0, dim]`.
    pub x0: Vec<f64>,
    /// Boundary points at t = 1, `[n1, dim]`.
    pub x1: Vec<f64>,
    /// ω(0).
    pub omega0: f64,
    /// ω(1).
    pub omega1: f64,
    /// Probes `[k, n, dim]` of the Laplacian estimate, which is the mean over the k; `None` for the exact Laplacian.
    /// Unused without diffusion.
    pub probe: Option<Vec<f64>>,
}

impl Batch {
    /// Checks every length against `dim`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] names the buffer.
    pub fn validate(&self, dim: usize) -> Result<()> {
        let n = self.t.len();
        check_len("x", n * dim, self.x.len())?;
        check_len("omega", n, self.omega.len())?;
        check_len("d_omega", n, self.d_omega.len())?;
        if let Some(probe) = &self.probe {
            let k = if n == 0 { 0 } else { probe.len() / (n * dim) };
            check_len("probe", k.max(1) * n * dim, probe.len())?;
        }
        check_len("x0", self.x0.len() / dim * dim, self.x0.len())?;
        check_len("x1", self.x1.len() / dim * dim, self.x1.len())
    }
}

/// Potential and first derivatives at `n` points, network coordinates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Derivatives {
    /// s `[n]`.
    pub s: Vec<f64>,
    /// ∇s `[n, dim]`.
    pub grad_s: Vec<f64>,
    /// ∂s/∂t `[n]`.
    pub ds_dt: Vec<f64>,
}

/// The loss on a batch, its parameter gradient and the interior rows' derivatives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossGradient {
    /// The loss of `objective`, means over rows.
    pub loss: f64,
    /// ∂loss/∂parameters, flat in the order of [`Architecture::layers`].
    pub gradient: Vec<f64>,
    /// s, ∇s, ∂ₜs at the interior rows.
    pub interior: Derivatives,
    /// Δs, or its estimate, at the interior rows; empty without diffusion.
    pub laplacian: Vec<f64>,
}

/// Learned parameters and the state of the optimiser after `step` steps: what a checkpoint holds.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainState {
    /// Number of optimiser steps taken.
    pub step: u64,
    /// Parameters, flat in the order of [`Architecture::layers`].
    pub parameters: Vec<f32>,
    /// Exponential moving average of the parameters.
    pub ema: Vec<f32>,
    /// Adam's first moment.
    pub moment1: Vec<f32>,
    /// Adam's second moment.
    pub moment2: Vec<f32>,
}

impl TrainState {
    /// The state before the first step: EMA equal to the parameters, moments zero.
    pub fn initial(parameters: Vec<f32>) -> Self {
        let zeros = vec![0.0; parameters.len()];
        TrainState { step: 0, ema: parameters.clone(), moment1: zeros.clone(), moment2: zeros, parameters }
    }
}

/// How rows between neighbouring snapshots are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// x = (1 − r) xₗ + r xᵣ, with xₗ and xᵣ from the two snapshots around t, paired as [`Training::couplings`] says.
    Linear,
    /// x from the snapshot nearest in time: for dense recordings.
    Nearest,
}

/// How interior times are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeRule {
    /// t = (u + row / n) mod 1 with one uniform u a step: lower variance than independent draws.
    LowDiscrepancy,
    /// Independent uniform times.
    Uniform,
}

/// How the Laplacian of s is formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LaplacianRule {
    /// Mean of εᵀ∇²s ε over probes ε of independent signs (Hutchinson 1990): the least variance of all unbiased probes.
    Rademacher,
    /// The same over standard normal probes.
    Gaussian,
    /// Sum over the unit vectors.
    Exact,
}

/// The Laplacian of a training step. Used where σ > 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Laplacian {
    /// The rule.
    pub rule: LaplacianRule,
    /// Probes of a row; an exact Laplacian has as many as dimensions instead.
    pub n_probes: usize,
}

impl Laplacian {
    /// The exact Laplacian.
    pub const EXACT: Laplacian = Laplacian { rule: LaplacianRule::Exact, n_probes: 1 };

    /// Directions of second derivatives in `dim` dimensions.
    pub fn n_directions(self, dim: usize) -> usize {
        match self.rule {
            LaplacianRule::Exact => dim,
            LaplacianRule::Rademacher | LaplacianRule::Gaussian => self.n_probes,
        }
    }

    /// What the curvature along one direction counts: probes are averaged, unit vectors added.
    pub fn share(self) -> f64 {
        match self.rule {
            LaplacianRule::Exact => 1.0,
            LaplacianRule::Rademacher | LaplacianRule::Gaussian => 1.0 / self.n_probes as f64,
        }
    }
}

impl Default for Laplacian {
    fn default() -> Self {
        Laplacian { rule: LaplacianRule::Rademacher, n_probes: 1 }
    }
}

/// Most probes of a row.
pub const MAX_PROBES: usize = 1024;

/// Learning rate of a step: linear warm-up, then constant or cosine decay.
#[derive(Clone, Debug, PartialEq)]
pub struct LearningRate {
    /// Rate after warm-up.
    pub peak: f64,
    /// Steps of linear warm-up from 0.
    pub warmup_steps: u64,
    /// `Some((total, floor))`: cosine from `peak` after warm-up down to `floor · peak` at step `total`.
    pub cosine: Option<(u64, f64)>,
}

impl LearningRate {
    /// Rate of the step with index `step` (from 0).
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        match self.cosine {
            Some((total, floor)) if total > self.warmup_steps => {
                let progress = (step - self.warmup_steps) as f64 / (total - self.warmup_steps) as f64;
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos());
                self.peak * (floor + (1.0 - floor) * cosine)
            }
            _ => self.peak,
        }
    }
}

/// Settings of AdamW (Loshchilov & Hutter 2019), clipping and the moving average.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    /// Learning rate.
    pub learning_rate: LearningRate,
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// ε, added to √v̂.
    pub epsilon: f64,
    /// Decoupled weight decay, applied to weights and biases alike.
    pub weight_decay: f64,
    /// Largest global gradient norm; `None` does not clip.
    pub clip_norm: Option<f64>,
    /// β of the moving average e += (1 − β)(p − e).
    pub ema_decay: f64,
}

/// Everything a [`Trainer`] needs beside its starting state.
#[derive(Clone, Debug)]
pub struct Training {
    /// Shape of the network.
    pub architecture: Architecture,
    /// The dynamics to learn.
    pub objective: Objective,
    /// The snapshots, in network coordinates.
    pub snapshots: Arc<Snapshots>,
    /// How rows are drawn between snapshots.
    pub path: Path,
    /// Joint distributions of neighbouring snapshots for [`Path::Linear`], one for each interval; `None` pairs independently.
    pub couplings: Option<Arc<Vec<Coupling>>>,
    /// Mass of each snapshot relative to the first, linear in between; `None` for the same mass at all times.
    pub masses: Option<Vec<f64>>,
    /// How times are drawn.
    pub time_rule: TimeRule,
    /// How the Laplacian is formed where σ > 0.
    pub laplacian: Laplacian,
    /// Interior rows of a step.
    pub n_interior: usize,
    /// Boundary rows of a step, at each of the two end times.
    pub n_boundary: usize,
    /// Optimiser settings.
    pub optimizer: Optimizer,
    /// Key of every random number.
    pub seed: u64,
}

impl Training {
    /// The snapshot at or before `t`, how far `t` is on the way to the next, in 0..=1, and the mass there.
    pub fn interval(&self, t: f64) -> (usize, f64, f64) {
        let times = &self.snapshots.times;
        let left = times.partition_point(|&time| time <= t).clamp(1, times.len() - 1) - 1;
        let ratio = (t - times[left]) / (times[left + 1] - times[left]);
        let mass = self.masses.as_ref().map_or(1.0, |m| m[left] + ratio * (m[left + 1] - m[left]));
        (left, ratio, mass)
    }

    /// Directions of second derivatives in each interior row: 0 without diffusion.
    pub fn n_probes(&self) -> usize {
        if self.objective.sigma == 0.0 { 0 } else { self.laplacian.n_directions(self.architecture.dim) }
    }

    /// Checks sizes, and `state` against them.
    ///
    /// # Errors
    /// [`Error::Shape`] names a buffer, [`Error::Input`] a setting.
    pub fn validate(&self, state: &TrainState) -> Result<()> {
        self.architecture.validate("training")?;
        let n = self.architecture.n_parameters();
        for (buffer, values) in [
            ("parameters", &state.parameters),
            ("ema", &state.ema),
            ("moment1", &state.moment1),
            ("moment2", &state.moment2),
        ] {
            check_len(buffer, n, values.len())?;
        }
        check_len("samples (dimension)", self.architecture.dim, self.snapshots.dim)?;
        let fail = |field: &str, problem: String, fix: &str| Err(Error::input("training", field, problem, fix));
        let n_times = self.snapshots.times.len();
        if n_times < 2 {
            return fail("snapshots", format!("has {n_times} times"), "give at least 2");
        }
        if let Some(k) = (0..n_times).find(|&k| self.snapshots.n_rows(k) == 0) {
            return fail("snapshots", format!("has no rows at time {}", self.snapshots.times[k]), "leave it out");
        }
        if let Some(couplings) = &self.couplings {
            check_len("couplings", n_times - 1, couplings.len())?;
        }
        if let Some(masses) = &self.masses {
            check_len("masses", n_times, masses.len())?;
            if let Some(mass) = masses.iter().find(|mass| !(mass.is_finite() && **mass > 0.0)) {
                return fail("masses", format!("contains {mass}"), "use positive numbers");
            }
        }
        for (field, rows) in [("interior_rows", self.n_interior), ("boundary_rows", self.n_boundary)] {
            if rows == 0 || u32::try_from(rows).is_err() {
                return fail(field, format!("is {rows}"), "use 1 to 2³² − 1");
            }
        }
        if self.laplacian.n_probes == 0 || self.laplacian.n_probes > MAX_PROBES {
            return fail("probes", format!("is {}", self.laplacian.n_probes), "use 1 to 1024");
        }
        Ok(())
    }
}

/// What one optimiser step reports.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepRecord {
    /// Index of the step, from 0.
    pub step: u64,
    /// The loss.
    pub loss: f64,
    /// ω(0) E[s(x, 0)].
    pub boundary0: f64,
    /// −ω(1) E[s(x, 1)].
    pub boundary1: f64,
    /// E[ω (∂ₜs + H(∇s) + …) + ω′ s].
    pub interior: f64,
    /// E[½‖∇s‖²] over the interior rows: the kinetic energy.
    pub kinetic: f64,
    /// Global gradient norm before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
}

/// Draws batches and takes optimiser steps.
pub trait Trainer: Send {
    /// Takes `n` steps, appending one record each to `records`.
    ///
    /// Stops after the first step whose loss or gradient norm is not finite, with that record last and the
    /// parameters as they were before it.
    fn steps(&mut self, n: u64, records: &mut Vec<StepRecord>) -> Result<()>;

    /// A copy of the parameters and optimiser state.
    fn state(&self) -> TrainState;
}

/// What an integration did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IntegrationReport {
    /// Evaluations of the velocity, summed over particles.
    pub velocity_evaluations: u64,
    /// Steps accepted and rejected, summed over tiles (fixed steps count as accepted).
    pub accepted_steps: u64,
    /// Steps rejected by the error estimate.
    pub rejected_steps: u64,
}

impl IntegrationReport {
    /// Adds the counts of other particles.
    pub fn add(&mut self, other: &IntegrationReport) {
        self.velocity_evaluations += other.velocity_evaluations;
        self.accepted_steps += other.accepted_steps;
        self.rejected_steps += other.rejected_steps;
    }
}

/// Evaluates models and their losses on points that the caller gives.
pub trait Differentiate {
    /// s, ∇s, ∂ₜs of `model` at points `x [n, dim]`, times `t [n]`, all in network coordinates.
    fn derivatives(&self, model: &Model, x: &[f64], t: &[f64]) -> Result<Derivatives>;

    /// Loss of `model.objective` on `batch`, and its parameter gradient. Interior and boundary terms are means over their
    /// rows; a term without rows is 0. ω and ω′ come from the batch.
    fn loss_gradient(&self, model: &Model, batch: &Batch) -> Result<LossGradient>;
}

/// A device that evaluates models, integrates particles and trains.
pub trait Engine: Differentiate + Send + Sync {
    /// Name for the user: device, instruction set, threads.
    fn describe(&self) -> String;

    /// Moves the particles of `out` along `plan`: on return slab `k` of each channel holds them at `plan.save_at[k]`.
    /// `advanced(rows)` is called now and then with the number of particles newly finished.
    fn integrate(
        &self,
        model: &Model,
        plan: &Plan,
        out: Trajectories<'_>,
        advanced: &(dyn Fn(u64) + Sync),
    ) -> Result<IntegrationReport>;

    /// A trainer that continues from `state`.
    fn trainer(&self, training: Training, state: TrainState) -> Result<Box<dyn Trainer>>;
}
