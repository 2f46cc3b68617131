//! The only door to rows: everything that touches per-row data lives behind [`Engine`] and
//! [`Trainer`].
//!
//! ```
//! use action_matching::prelude::*;
//!
//! let snapshots = Snapshots::from_rows(1, [(0.0, [-0.5, 0.0, 0.5]), (1.0, [0.5, 1.0, 1.5])])?;
//! let training = Training {
//!     n_interior: 32,
//!     ..Training::new(Architecture::new(1, [8]), DensityPath::linear(snapshots))
//! };
//! let engine: &dyn Engine = &CpuEngine::new(1);
//! let mut trainer = engine.start(training)?;
//! let mut records = Vec::new();
//! trainer.steps(60, &mut records)?;
//! assert!(records[59].loss < records[0].loss);
//!
//! // Every engine continues from the state of any other.
//! let state = trainer.state()?;
//! let mut other = CpuEngine::new(2).trainer(trainer.training().clone(), state.clone())?;
//! other.steps(1, &mut ())?;
//! assert_eq!(other.state()?.step, state.step + 1);
//! # Ok::<(), Error>(())
//! ```

pub(crate) mod batch;
pub mod cpu;
pub mod cuda;
pub mod divided;
pub mod reference;
pub(crate) mod step_sizes;
#[cfg(test)]
mod testing;
mod trainer;

pub use trainer::{Records, StepRecord, Trainer};

use crate::error::{Result, check_len};
use crate::integrate::{Plan, Share, Trajectories};
use crate::model::{Architecture, Model};
use crate::objective::Objective;
use crate::stage::Watch;
// Part of the contract, whose calls take and return them.
pub use crate::training::{
    Bend, Cosine, Estimator, LearningRate, LossScale, NetworkState, Optimizer, TrainState, Training,
};

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
    /// Condition inputs of the interior rows `[n, conditions]`; like the two below, empty for a
    /// model without conditions.
    pub c: Vec<f64>,
    /// Those of the boundary rows at t = 0, `[n0, conditions]`.
    pub c0: Vec<f64>,
    /// Those of the boundary rows at t = 1, `[n1, conditions]`.
    pub c1: Vec<f64>,
    /// ω(0).
    pub omega0: f64,
    /// ω(1).
    pub omega1: f64,
    /// Probes `[k, n, dim]` of the Laplacian estimate, which is the mean over the k; `None` for the
    /// exact Laplacian. Unused without diffusion.
    pub probe: Option<Vec<f64>>,
}

impl Batch {
    /// Checks every length against the inputs of `architecture`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] names the buffer.
    pub fn validate(&self, architecture: &Architecture) -> Result<()> {
        let (dim, conditions, n) = (architecture.dim, architecture.conditions, self.t.len());
        check_len("x", n * dim, self.x.len())?;
        check_len("omega", n, self.omega.len())?;
        check_len("d_omega", n, self.d_omega.len())?;
        if let Some(probe) = &self.probe {
            let k = if n == 0 { 0 } else { probe.len() / (n * dim) };
            check_len("probe", k.max(1) * n * dim, probe.len())?;
        }
        check_len("x0", self.x0.len() / dim * dim, self.x0.len())?;
        check_len("x1", self.x1.len() / dim * dim, self.x1.len())?;
        check_len("c", n * conditions, self.c.len())?;
        check_len("c0", self.x0.len() / dim * conditions, self.c0.len())?;
        check_len("c1", self.x1.len() / dim * conditions, self.c1.len())
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
    /// ∂loss/∂parameters, flat in the order of
    /// [`Architecture::layers`](crate::model::Architecture::layers).
    pub gradient: Vec<f64>,
    /// s, ∇s, ∂ₜs at the interior rows.
    pub interior: Derivatives,
    /// Δs, or its estimate, at the interior rows; empty without diffusion.
    pub laplacian: Vec<f64>,
}

/// Counts of an integration.
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
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) and [`Error::Shape`](crate::Error::Shape) for a model
    /// or points of wrong sizes, and for a model with conditions ([`Model::under`] chooses them);
    /// [`Error::Device`](crate::Error::Device) if a device fails.
    fn derivatives(&self, model: &Model, x: &[f64], t: &[f64]) -> Result<Derivatives>;

    /// Loss of `model.objective` on `batch`, and its parameter gradient. Interior and boundary
    /// terms are means over their rows; a term without rows is 0. ω and ω′ come from the batch.
    ///
    /// # Errors
    /// As [`Differentiate::derivatives`], for the batch too.
    fn loss_gradient(&self, model: &Model, batch: &Batch) -> Result<LossGradient>;

    /// Σₖ εₖᵀ∇²s εₖ over the `directions [k, dim]` of `model` at points `x [n, dim]`, times `t
    /// [n]`, all in network coordinates: `[n]`. Of the unit vectors it is the Laplacian.
    ///
    /// # Errors
    /// As [`Differentiate::derivatives`].
    fn second_derivatives(&self, model: &Model, x: &[f64], t: &[f64], directions: &[f64]) -> Result<Vec<f64>> {
        /// Numbers of the probes of a batch.
        const PROBES: usize = 1 << 21;
        let dim = model.architecture.dim;
        model.require_one_condition()?;
        check_directions(model, x, t, directions)?;
        // A loss with diffusion has the mean over its probes.
        let model = Model { objective: Objective { sigma: 1.0, ..Objective::default() }, ..model.clone() };
        let n_directions = (directions.len() / dim) as f64;
        let rows = (PROBES / directions.len()).max(1);
        let mut found = Vec::with_capacity(t.len());
        for (x, t) in x.chunks(rows * dim).zip(t.chunks(rows)) {
            let probe = directions.chunks_exact(dim).flat_map(|direction| direction.repeat(t.len())).collect();
            let (omega, d_omega) = (vec![1.0; t.len()], vec![0.0; t.len()]);
            let batch = Batch { x: x.to_vec(), t: t.to_vec(), omega, d_omega, probe: Some(probe), ..Batch::default() };
            let means = self.loss_gradient(&model, &batch)?.laplacian;
            found.extend(means.iter().map(|mean| n_directions * mean));
        }
        Ok(found)
    }
}

/// Checks the lengths of points, times and directions of second derivatives, of which there is one
/// at least.
fn check_directions(model: &Model, x: &[f64], t: &[f64], directions: &[f64]) -> Result<()> {
    let dim = model.architecture.dim;
    check_len("x", t.len() * dim, x.len())?;
    check_len("directions", directions.len().div_ceil(dim).max(1) * dim, directions.len())
}

/// A device that evaluates models, integrates particles and trains.
pub trait Engine: Differentiate + Send + Sync {
    /// Name for the user: device, instruction set, threads.
    fn describe(&self) -> String;

    /// Everything that decides the order of sums or how they round, and so the last bits of a
    /// result: instruction set, or model of the GPU and the instruction of its products, and
    /// precision. Never threads, chunks or blocks.
    fn arithmetic(&self) -> String;

    /// How a training uses the chip, in words, a line for each layer; `None` from an engine that
    /// has nothing to choose.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device): the driver fails.
    fn explain_training(&self, training: &Training) -> Result<Option<String>> {
        let _ = training;
        Ok(None)
    }

    /// The same for particles that `plan` moves, with log q if `has_density`.
    ///
    /// # Errors
    /// As [`Engine::explain_training`].
    fn explain_integration(&self, model: &Model, plan: &Plan, has_density: bool) -> Result<Option<String>> {
        let _ = (model, plan, has_density);
        Ok(None)
    }

    /// Bytes that a trainer of `training`, which is valid, takes of a device's own memory; `None`
    /// where it has none.
    ///
    /// # Errors
    /// As [`Engine::trainer`] for settings that do not suit the device, whether or not the memory
    /// is free.
    fn training_memory(&self, training: &Training) -> Result<Option<usize>> {
        let _ = training;
        Ok(None)
    }

    /// Bytes that [`Engine::integrate_share`] takes of a device's own memory; `None` where it has
    /// none.
    ///
    /// # Errors
    /// As [`Engine::integrate`] for a plan that does not suit the model or the buffers.
    fn integration_memory(&self, model: &Model, plan: &Plan, share: Share<'_>) -> Result<Option<usize>> {
        let _ = (model, plan, share);
        Ok(None)
    }

    /// Particles of `n_all` that take adaptive steps together, the number in a tile or a multiple
    /// of it: shares that begin at multiples of it have the bits of the whole.
    fn tile_of_particles(&self, n_all: usize) -> usize;

    /// Moves the particles of `out` along `plan`: on return slab `k` of each channel holds them at
    /// `plan.save_at[k]`. `watch` counts particles, those on their way by the share of it that they
    /// have behind them. It is asked after each step of a tile on the CPU, between launches on a
    /// GPU; what `out` holds after [`Error::Interrupted`](crate::Error::Interrupted) is of no use.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) for a plan that does not suit the dynamics, or a
    /// tolerance that cannot be met; [`Error::Shape`](crate::Error::Shape) for a buffer;
    /// [`Error::NotFinite`](crate::Error::NotFinite) for a particle that is lost;
    /// [`Error::Interrupted`](crate::Error::Interrupted) when `watch` asks for it.
    fn integrate(
        &self,
        model: &Model,
        plan: &Plan,
        out: Trajectories<'_>,
        watch: &dyn Watch,
    ) -> Result<IntegrationReport> {
        self.integrate_share(model, plan, out.whole(model, plan)?, watch)
    }

    /// [`Engine::integrate`] of consecutive particles of many: how engines divide them.
    ///
    /// # Errors
    /// As [`Engine::integrate`].
    fn integrate_share(
        &self,
        model: &Model,
        plan: &Plan,
        share: Share<'_>,
        watch: &dyn Watch,
    ) -> Result<IntegrationReport>;

    /// A trainer that continues from `state`.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) and [`Error::Shape`](crate::Error::Shape) as
    /// [`Training::validate`]; [`Error::Device`](crate::Error::Device) if a device lacks the
    /// memory.
    fn trainer(&self, training: Training, state: TrainState) -> Result<Box<dyn Trainer>>;

    /// A trainer at step 0, with the parameters that `training.seed` draws.
    ///
    /// # Errors
    /// As [`Engine::trainer`].
    fn start(&self, training: Training) -> Result<Box<dyn Trainer>> {
        let state = training.initial_state()?;
        self.trainer(training, state)
    }
}
