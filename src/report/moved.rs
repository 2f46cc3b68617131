//! Particles on their way, for pictures.

use crate::data::draw_gaussian;
use crate::engine::Engine;
use crate::error::Result;
use crate::integrate::{Solver, Trajectories, systematic_resample};
use crate::model::Model;
use crate::rng::Stream;

/// Seed of noise, and of starts from noise.
const SEED: u64 = 0;

/// Particles at some times, data units.
pub(super) struct Moved {
    pub times: Vec<f64>,
    /// `[n, dim]` at each time.
    pub positions: Vec<Vec<f64>>,
    /// With growth, log-weights `[n]` at each time.
    log_weights: Option<Vec<Vec<f32>>>,
}

impl Moved {
    /// Steps from the first time to the last. Pictures need no more, and the cost is bounded.
    const STEPS: u64 = 48;

    /// Moves `rows [n, dim]` with `model` from the time `from` to the increasing `times`.
    ///
    /// # Errors
    /// Those of the engine, also for particles that are lost.
    pub fn new(engine: &dyn Engine, model: &Model, rows: &[f64], from: f64, times: &[f64]) -> Result<Moved> {
        let coordinates = &model.coordinates;
        let affine = coordinates.mean.iter().zip(&coordinates.scale).cycle();
        let mut positions: Vec<f32> =
            rows.iter().zip(affine).map(|(x, (mean, scale))| ((x - mean) / scale) as f32).collect();
        let (n_values, n) = (rows.len(), rows.len() / coordinates.mean.len());
        positions.resize(n_values * times.len(), 0.0);
        let is_weighted = model.objective.growth > 0.0;
        let mut log_weights = vec![0.0; if is_weighted { n * times.len() } else { 0 }];
        let solver = match model.objective.sigma > 0.0 {
            true => Solver::stochastic_heun(Self::STEPS, SEED),
            false => Solver::rk4(Self::STEPS),
        };
        let saved = times.iter().map(|t| coordinates.network_time(*t)).collect();
        let plan = solver.plan(coordinates.network_time(from), saved);
        let out = Trajectories {
            log_weights: is_weighted.then_some(&mut log_weights[..]),
            ..Trajectories::of(&mut positions)
        };
        engine.integrate(model, &plan, out, &())?;
        Ok(Moved {
            times: times.to_vec(),
            positions: positions.chunks_exact(n_values.max(1)).map(|slab| coordinates.to_data_f64(slab)).collect(),
            log_weights: is_weighted.then(|| log_weights.chunks_exact(n.max(1)).map(<[f32]>::to_vec).collect()),
        })
    }

    /// Positions at the last time, each as often as its weight says.
    pub fn arrived(&self, dim: usize) -> Vec<f64> {
        let last = self.positions.last().cloned().unwrap_or_default();
        match self.log_weights.as_ref().and_then(|weights| weights.last()) {
            None => last,
            Some(log_weights) => {
                let chosen = systematic_resample(log_weights, log_weights.len(), 0.5);
                chosen.into_iter().flat_map(|row| &last[row * dim..][..dim]).copied().collect()
            }
        }
    }

    /// Mass at each time relative to the start; `None` without growth.
    pub fn masses(&self) -> Option<Vec<f64>> {
        let mean = |weights: &Vec<f32>| weights.iter().map(|w| f64::from(*w).exp()).sum::<f64>() / weights.len() as f64;
        Some(self.log_weights.as_ref()?.iter().map(mean).collect())
    }
}

/// `n` rows of standard normal noise in network coordinates, data units.
pub(super) fn noise(model: &Model, n: usize) -> Vec<f64> {
    let dim = model.architecture.dim;
    model.coordinates.to_data_f64(&draw_gaussian(n, dim, &mut Stream::of_normals(SEED, dim)))
}
