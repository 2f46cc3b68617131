//! Particles divided among several engines, such as those of the GPUs of a machine.
//!
//! Each engine moves consecutive tiles, in a thread of its own. What a particle meets depends on
//! its number among all and on the tile that it is in, so any number of engines gives the same
//! bits.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use super::{
    Batch, Derivatives, Differentiate, Engine, IntegrationReport, LossGradient, TrainState, Trainer, Training,
};
use crate::error::{DeviceKind, Error, Result};
use crate::integrate::{Plan, Share};
use crate::model::Model;
use crate::stage::{Watch, next, on_threads};

/// Engines of one kind that move particles together. Everything else is done by the first.
///
/// ```
/// use action_matching::engine::divided::Divided;
/// use action_matching::integrate::{Solver, Trajectories};
/// use action_matching::prelude::*;
///
/// let model = Model::initial(Architecture::new(1, [8]), 0);
/// let plan = Solver::default().plan(0.0, vec![1.0]);
/// let moved = |engine: &dyn Engine| {
///     let mut particles: Vec<f32> = (0..1000).map(|i| i as f32 / 1000.0).collect();
///     engine.integrate(&model, &plan, Trajectories::of(&mut particles), &()).map(|_| particles)
/// };
/// let two = Divided::new(vec![CpuEngine::new(1), CpuEngine::new(1)])?;
/// assert_eq!(moved(&two)?, moved(&CpuEngine::new(1))?);
/// # Ok::<(), Error>(())
/// ```
pub struct Divided<E> {
    engines: Vec<E>,
}

impl<E: Engine> Divided<E> {
    /// `engines`, of which there is one at least.
    ///
    /// # Errors
    /// [`Error::Device`] for engines whose results would differ in their last bits.
    pub fn new(engines: Vec<E>) -> Result<Divided<E>> {
        let refused = |device: String, problem: String, fix: &str| {
            Err(Error::Device { kind: DeviceKind::Unsupported, device, problem, fix: fix.into() })
        };
        let Some(first) = engines.first() else {
            return refused("none".into(), "particles cannot be divided among no devices".into(), "name one at least");
        };
        if let Some(other) = engines.iter().find(|engine| engine.arithmetic() != first.arithmetic()) {
            let problem = format!(
                "computes otherwise than {}, so that particles would depend on how they are divided",
                first.describe()
            );
            return refused(other.describe(), problem, "choose devices of one kind");
        }
        Ok(Divided { engines })
    }

    fn first(&self) -> &E {
        &self.engines[0]
    }

    /// Each engine with its particles; those that have none are left out.
    fn shares<'e, 'a>(&'e self, mut all: Share<'a>, dim: usize) -> Vec<(&'e E, Share<'a>)> {
        let (n, tile) = (all.n(dim), self.first().tile_of_particles(all.n_all));
        let (n_tiles, n_engines) = (n.div_ceil(tile), self.engines.len());
        let end = |k: usize| n.min(tile * (n_tiles * k / n_engines));
        let of = |(k, engine)| (engine, all.take(end(k + 1) - end(k), dim));
        self.engines.iter().enumerate().map(of).filter(|(_, share)| share.n(dim) > 0).collect()
    }
}

impl<E: Engine> Differentiate for Divided<E> {
    fn derivatives(&self, model: &Model, x: &[f64], t: &[f64]) -> Result<Derivatives> {
        self.first().derivatives(model, x, t)
    }

    fn loss_gradient(&self, model: &Model, batch: &Batch) -> Result<LossGradient> {
        self.first().loss_gradient(model, batch)
    }

    fn second_derivatives(&self, model: &Model, x: &[f64], t: &[f64], directions: &[f64]) -> Result<Vec<f64>> {
        self.first().second_derivatives(model, x, t, directions)
    }
}

impl<E: Engine> Engine for Divided<E> {
    fn describe(&self) -> String {
        self.engines.iter().map(E::describe).collect::<Vec<_>>().join("; ")
    }

    fn arithmetic(&self) -> String {
        self.first().arithmetic()
    }

    fn explain_training(&self, training: &Training) -> Result<Option<String>> {
        self.first().explain_training(training)
    }

    fn explain_integration(&self, model: &Model, plan: &Plan, has_density: bool) -> Result<Option<String>> {
        self.first().explain_integration(model, plan, has_density)
    }

    fn training_memory(&self, training: &Training) -> Result<Option<usize>> {
        self.first().training_memory(training)
    }

    /// Of all engines together.
    fn integration_memory(&self, model: &Model, plan: &Plan, share: Share<'_>) -> Result<Option<usize>> {
        share.validate(model, plan)?;
        let of = |(engine, share): (&E, Share<'_>)| engine.integration_memory(model, plan, share);
        let bytes = self.shares(share, model.architecture.dim).into_iter().map(of).collect::<Result<Vec<_>>>()?;
        Ok(bytes.into_iter().flatten().reduce(|a, b| a + b))
    }

    fn tile_of_particles(&self, n_all: usize) -> usize {
        self.first().tile_of_particles(n_all)
    }

    fn integrate_share(
        &self,
        model: &Model,
        plan: &Plan,
        share: Share<'_>,
        watch: &dyn Watch,
    ) -> Result<IntegrationReport> {
        let n = share.validate(model, plan)?;
        let shares = self.shares(share, model.architecture.dim);
        let progress: Vec<AtomicU64> = shares.iter().map(|_| AtomicU64::new(0)).collect();
        let failed = AtomicBool::new(false);
        let outcomes = Mutex::new(Vec::new());
        let n_shares = shares.len();
        let queue = Mutex::new(shares.into_iter().enumerate());
        on_threads(n_shares, || {
            while let Some((index, (engine, share))) = next(&queue) {
                let watch = OfShare { index, all: &progress, n: n as u64, failed: &failed, watch };
                let outcome = engine.integrate_share(model, plan, share, &watch);
                failed.fetch_or(outcome.is_err(), Relaxed);
                outcomes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((index, outcome));
            }
        });
        let mut outcomes = outcomes.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Those that another's failure has interrupted come last.
        outcomes.sort_by_key(|(index, outcome)| (matches!(outcome, Err(Error::Interrupted)), *index));
        let mut report = IntegrationReport::default();
        for (_, outcome) in outcomes {
            report.add(&outcome?);
        }
        Ok(report)
    }

    fn trainer(&self, training: Training, state: TrainState) -> Result<Box<dyn Trainer>> {
        self.first().trainer(training, state)
    }
}

/// The watch of one share: counts the particles of all, and ends the share if another has failed.
struct OfShare<'a> {
    index: usize,
    /// Particles moved of each share.
    all: &'a [AtomicU64],
    /// Particles of all shares.
    n: u64,
    failed: &'a AtomicBool,
    watch: &'a dyn Watch,
}

impl Watch for OfShare<'_> {
    fn advanced(&self, done: u64, _total: u64) {
        // In one order on all threads, so that the last report counts all particles.
        self.all[self.index].fetch_max(done, SeqCst);
        self.watch.advanced(self.all.iter().map(|done| done.load(SeqCst)).sum(), self.n);
    }

    fn is_cancelled(&self) -> bool {
        self.failed.load(Relaxed) || self.watch.is_cancelled()
    }
}
