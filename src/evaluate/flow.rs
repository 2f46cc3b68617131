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
        // Coordinates for points given as differences from the mean.
        let coordinates = &Coordinates { mean: vec![0.0; dim], ..model.coordinates.clone() };
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
        let dim = model.architecture.dim;
        let coordinates = &Coordinates { mean: vec![0.0; dim], ..model.coordinates.clone() };
        let mut positions = start.rows.clone();
        coordinates.to_network(&mut positions);
        let n = positions.len() / dim;
        let weighted = model.objective.growth > 0.0;
        let mut log_weights = vec![0.0; if weighted { n } else { 0 }];
        let mut roll_out = RollOut { positions: Vec::new(), weights: Vec::new() };
        let mut now = coordinates.network_time(start.time);
        for (interval, &time) in times.iter().enumerate() {
            watch.advanced(interval as u64, times.len() as u64);
            let end = coordinates.network_time(time);
            // Each interval has noise of its own.
            let noise = Noise::new(options.seed.wrapping_add(1 + interval as u64));
            let plan = Plan { noise, ..Plan::new(options.method, options.control, now, vec![end]) };
            let trajectories = Trajectories {
                log_weights: weighted.then_some(&mut log_weights[..]),
                ..Trajectories::of(&mut positions)
            };
            engine.integrate(model, &plan, trajectories, watch)?;
            now = end;
            let mut arrived = positions.clone();
            coordinates.to_data(&mut arrived);
            roll_out.positions.push(arrived);
            roll_out.weights.push(weighted.then(|| relative_weights(&log_weights)));
        }
        Ok(roll_out)
    }
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
