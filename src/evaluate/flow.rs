//! Particles moved from one snapshot to another, and what is measured on the way.

use super::EvaluateOptions;
use super::energies::Energies;
use super::labels::Way;
use super::likelihood::{log_likelihood, log_standard_normal};
use super::points::PointSet;
use crate::data::draw_gaussian;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::integrate::{Noise, Plan, Trajectories};
use crate::model::{Coordinates, Model};
use crate::rng::Stream;
use crate::stage::Watch;

/// Number of equal intervals between whose ends energy and residual are integrated (Simpson's rule,
/// so an even number).
const INTERVALS: usize = 8;

/// The particles of a snapshot, or of noise, moved to the time of another.
pub(super) struct Flow {
    /// Positions at the start, data units minus the model's mean.
    pub departed: Vec<f32>,
    /// Positions at the end, likewise.
    pub arrived: Vec<f32>,
    /// With growth: weights at the end, relative to the largest.
    pub weights: Option<Vec<f64>>,
    /// ∫ E½‖∇s‖² along the flow, network units.
    pub kinetic_energy: f64,
    /// Root mean square along the flow of the residual ∂ₜs + H(∇s) + ½λs², network units: see
    /// [`Energies::residual`].
    pub hjb_residual: f64,
    /// Mean weight at the end, with growth.
    pub relative_mass: Option<f64>,
    /// From noise, without diffusion and growth: mean log-density of the truth, data units.
    pub log_likelihood: Option<f64>,
}

impl Flow {
    /// Moves the particles and measures. `sets` are the points of the snapshots that are compared.
    ///
    /// # Errors
    /// Errors of the engine; [`Error::Interrupted`](crate::Error::Interrupted).
    pub fn measure(
        engine: &dyn Engine,
        model: &Model,
        way: Way,
        sets: &[Option<PointSet>],
        options: &EvaluateOptions,
        watch: &dyn Watch,
    ) -> Result<Flow> {
        let dim = model.architecture.dim;
        let coordinates = &centered(model);
        let set = |k: usize| sets[k].as_ref().ok_or_else(|| no_points(k));
        let (from, to) = (way.from.map(set).transpose()?, set(way.to)?);
        // Noise is at time 0 and the single snapshot at time 1, whatever the times in the data.
        let network_time = |set: &PointSet| coordinates.network_time(set.time);
        let (start, end) = from.map_or((0.0, 1.0), |from| (network_time(from), network_time(to)));
        let at = |interval: usize| start + (end - start) * interval as f64 / INTERVALS as f64;
        let times: Vec<f64> = (0..=INTERVALS).map(at).collect();
        let plan = Plan {
            noise: Noise::new(options.seed),
            ..Plan::new(options.method, options.control, start, times.clone())
        };
        let mut positions = match from {
            Some(from) => from.rows.clone(),
            None => draw_gaussian(to.rows.len() / dim, dim, &mut Stream::of_normals(options.seed, dim)),
        };
        if from.is_some() {
            coordinates.to_network(&mut positions);
        }
        let n_values = positions.len();
        let n = n_values / dim;
        positions.resize(n_values * times.len(), 0.0);
        let weighted = model.objective.growth > 0.0;
        let mut log_weights = vec![0.0; if weighted { n * times.len() } else { 0 }];
        let trajectories =
            Trajectories { log_weights: weighted.then_some(&mut log_weights[..]), ..Trajectories::of(&mut positions) };
        engine.integrate(model, &plan, trajectories, watch)?;

        let energies = Energies::along(engine, model, &times, &positions, watch)?;
        let (kinetic_energy, hjb_residual) = ((end - start) * energies.kinetic, energies.residual.sqrt());
        let mut arrived = positions.split_off(n_values * INTERVALS);
        positions.truncate(n_values);
        let mut departed = positions;
        coordinates.to_data(&mut arrived);
        coordinates.to_data(&mut departed);
        let log_weights = weighted.then(|| &log_weights[n * INTERVALS..]);
        let relative_mass = log_weights
            .map(|log_weights| log_weights.iter().map(|&log_w| f64::from(log_w).exp()).sum::<f64>() / n as f64);
        let log_likelihood = if from.is_none() && model.objective.sigma == 0.0 && !weighted {
            Some(mean_log_likelihood(engine, model, coordinates, &to.rows, options, watch)?)
        } else {
            None
        };
        let weights = log_weights.map(relative_weights);
        Ok(Flow { departed, arrived, weights, kinetic_energy, hjb_residual, relative_mass, log_likelihood })
    }
}

/// The error for a snapshot whose points were not chosen: a defect of this program.
pub(super) fn no_points(k: usize) -> Error {
    Error::input("evaluation", format!("snapshot {k}"), "has no points", "report this message")
}

/// Weighted particles on their way from one start to all of some times.
pub(super) struct RollOut {
    /// Positions `[n, dim]` at each time, data units minus the model's mean.
    pub positions: Vec<Vec<f32>>,
    /// With growth: weights at each time, relative to the largest.
    pub weights: Vec<Option<Vec<f64>>>,
}

impl RollOut {
    /// Moves the particles of `start` to the increasing `times`, data units.
    ///
    /// # Errors
    /// As [`Flow::measure`].
    pub fn measure(
        engine: &dyn Engine,
        model: &Model,
        start: &PointSet,
        times: &[f64],
        options: &EvaluateOptions,
        watch: &dyn Watch,
    ) -> Result<RollOut> {
        let mut moving = Moving::from_set(model, start, options);
        let mut roll_out = RollOut { positions: Vec::new(), weights: Vec::new() };
        for (interval, &time) in times.iter().enumerate() {
            watch.advanced(interval as u64, times.len() as u64);
            moving.advance(engine, model, model.coordinates.network_time(time), options, watch)?;
            roll_out.positions.push(moving.positions(model));
            roll_out.weights.push(moving.weights());
        }
        Ok(roll_out)
    }
}

/// Particles between two times.
pub(super) struct Moving {
    /// Network units, less the model's mean.
    positions: Vec<f32>,
    /// Empty without growth.
    log_weights: Vec<f32>,
    /// Network units.
    now: f64,
    /// Of the next interval: each has noise of its own.
    noise_seed: u64,
}

impl Moving {
    /// The points of `start` at its time.
    pub fn from_set(model: &Model, start: &PointSet, options: &EvaluateOptions) -> Self {
        let mut positions = start.rows.clone();
        centered(model).to_network(&mut positions);
        Moving::new(model, positions, model.coordinates.network_time(start.time), options)
    }

    /// `n` standard normal points at time 0.
    pub fn from_noise(model: &Model, n: usize, options: &EvaluateOptions) -> Self {
        let dim = model.architecture.dim;
        let positions = draw_gaussian(n, dim, &mut Stream::of_normals(options.seed, dim));
        Moving::new(model, positions, 0.0, options)
    }

    fn new(model: &Model, positions: Vec<f32>, now: f64, options: &EvaluateOptions) -> Self {
        let n = if model.objective.growth > 0.0 { positions.len() / model.architecture.dim } else { 0 };
        Moving { positions, log_weights: vec![0.0; n], now, noise_seed: options.seed.wrapping_add(1) }
    }

    /// Moves them to the time `end`, network units.
    ///
    /// # Errors
    /// As [`Flow::measure`].
    pub fn advance(
        &mut self,
        engine: &dyn Engine,
        model: &Model,
        end: f64,
        options: &EvaluateOptions,
        watch: &dyn Watch,
    ) -> Result<()> {
        let noise = Noise::new(self.noise_seed);
        let plan = Plan { noise, ..Plan::new(options.method, options.control, self.now, vec![end]) };
        let log_weights = (!self.log_weights.is_empty()).then_some(&mut self.log_weights[..]);
        let trajectories = Trajectories { log_weights, ..Trajectories::of(&mut self.positions) };
        engine.integrate(model, &plan, trajectories, watch)?;
        (self.now, self.noise_seed) = (end, self.noise_seed.wrapping_add(1));
        Ok(())
    }

    /// Data units minus the model's mean.
    pub fn positions(&self, model: &Model) -> Vec<f32> {
        let mut positions = self.positions.clone();
        centered(model).to_data(&mut positions);
        positions
    }

    /// With growth: relative to the largest.
    pub fn weights(&self) -> Option<Vec<f64>> {
        (!self.log_weights.is_empty()).then(|| relative_weights(&self.log_weights))
    }
}

/// Coordinates for points given as differences from the mean.
fn centered(model: &Model) -> Coordinates {
    Coordinates { mean: vec![0.0; model.architecture.dim], ..model.coordinates.clone() }
}

/// Weights relative to the largest.
pub(crate) fn relative_weights(log_weights: &[f32]) -> Vec<f64> {
    let largest = log_weights.iter().fold(f32::NEG_INFINITY, |largest, &log_w| largest.max(log_w));
    log_weights.iter().map(|&log_w| f64::from(log_w - largest).exp()).collect()
}

/// Mean log-density of `points`, data units minus the model's mean, under a model that starts from
/// noise.
fn mean_log_likelihood(
    engine: &dyn Engine,
    model: &Model,
    coordinates: &Coordinates,
    points: &[f32],
    options: &EvaluateOptions,
    watch: &dyn Watch,
) -> Result<f64> {
    let mut points = points.to_vec();
    coordinates.to_network(&mut points);
    let control = (options.method, options.control);
    let of_rows = log_likelihood(engine, model, &points, control, log_standard_normal, watch)?;
    // dx = scale dy: the density in data units is that in network units divided by the product of
    // the scales.
    let log_volume: f64 = coordinates.scale.iter().map(|scale| scale.ln()).sum();
    Ok(of_rows.iter().sum::<f64>() / of_rows.len() as f64 - log_volume)
}
