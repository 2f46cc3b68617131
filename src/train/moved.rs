//! Rows moved by a model from one snapshot to the next.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::integrate::{Method, Noise, Plan, StepControl, Trajectories};
use crate::model::Model;
use crate::stage::Watch;

/// Rows on their way, network coordinates.
pub(super) struct Moved {
    /// Where they were looked at, the end last.
    pub times: Vec<f64>,
    /// `[times, n, dim]`.
    pub positions: Vec<f32>,
    /// Weights at the end, with growth.
    pub weights: Option<Vec<f64>>,
}

impl Moved {
    /// Moves the rows `departed [n, dim]` in `steps` equal steps from the first to the last of
    /// equally spaced `times`; `None` if a particle is lost. A fixed number of steps, as a model
    /// whose motion needs many more is found by what it does. `watch` may cancel.
    ///
    /// # Errors
    /// Errors of the engine, but for particles that are lost.
    pub fn along(
        engine: &dyn Engine,
        model: &Model,
        departed: &[f32],
        (times, steps): (Vec<f64>, u64),
        seed: u64,
        watch: &dyn Watch,
    ) -> Result<Option<Moved>> {
        /// Passes on the cancellation only: callers count other things than rows.
        struct Quiet<'a>(&'a dyn Watch);
        impl Watch for Quiet<'_> {
            fn is_cancelled(&self) -> bool {
                self.0.is_cancelled()
            }
        }
        let method = if model.objective.sigma > 0.0 { Method::StochasticHeun } else { Method::Rk4 };
        let control = StepControl::Fixed { steps };
        let plan = Plan { noise: Noise::new(seed), ..Plan::new(method, control, times[0], times.clone()) };
        let n = departed.len() / model.architecture.dim;
        let mut positions = departed.to_vec();
        positions.resize(departed.len() * times.len(), 0.0);
        let weighted = model.objective.growth > 0.0;
        let mut log_weights = vec![0.0; if weighted { n * times.len() } else { 0 }];
        let out =
            Trajectories { log_weights: weighted.then_some(&mut log_weights[..]), ..Trajectories::of(&mut positions) };
        match engine.integrate(model, &plan, out, &Quiet(watch)) {
            Err(Error::NotFinite { .. }) => return Ok(None),
            moved => moved?,
        };
        let last = n * (times.len() - 1);
        let weights: Option<Vec<f64>> =
            weighted.then(|| log_weights[last..].iter().map(|&log_w| f64::from(log_w).exp()).collect());
        let is_finite = positions.iter().all(|x| x.is_finite())
            && weights.as_ref().is_none_or(|weights| {
                let (sum, squares) = weights.iter().fold((0.0, 0.0), |(sum, squares), w| (sum + w, squares + w * w));
                // One row that has all the weight is no population.
                weights.iter().all(|weight| weight.is_finite()) && sum * sum > (1.0 + 1e-6) * squares
            });
        Ok(is_finite.then_some(Moved { times, positions, weights }))
    }

    /// Positions `[n, dim]` at the end.
    pub fn arrived(&self) -> &[f32] {
        let n_values = self.positions.len() / self.times.len();
        &self.positions[self.positions.len() - n_values..]
    }
}
