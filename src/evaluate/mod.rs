//! Scores of a model: distances between transported and true snapshots, energies and residuals.
//!
//! ```
//! use action_matching::evaluate::{EvaluateOptions, evaluate};
//! use action_matching::prelude::*;
//!
//! // A model at rest leaves the first snapshot where it is, at distance 2 from the second.
//! let mut model = Model::initial(Architecture::new(1, [4]), 0);
//! model.parameters.fill(0.0);
//! let snapshots = Snapshots::from_rows(1, [(0.0, [0.0, 1.0, 2.0]), (1.0, [2.0, 3.0, 4.0])])?;
//! let options = EvaluateOptions::default();
//! let report = evaluate(&CpuEngine::new(1), &model, &snapshots, &[], &options, &Stage::default())?;
//! assert!((report.comparisons[0].model.w1 - 2.0).abs() < 1e-6);
//! # Ok::<(), Error>(())
//! ```

mod likelihood;
mod mmd;
mod report;
mod theorems;

use likelihood::{log_likelihood, log_standard_normal};
pub use mmd::{Kernel, mmd2};
pub use report::{Comparison, Distances, Report};
pub use theorems::{ActionGap, Likelihood, Theorems, TransportBound};

use crate::data::{Snapshots, draw_gaussian};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::integrate::{Method, Noise, Plan, StepControl, Trajectories};
use crate::model::{Coordinates, Model};
use crate::rng::{Purpose, Stream, index, words};
use crate::stage::{Section, Stage, Watch, check};
use crate::transport::{Cost, MAX_POINTS, optimal_plan, problems_at_once, weighted_plan};

/// Start of the particles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartFrom {
    /// From each snapshot to the next one, and to the held-out ones between.
    #[default]
    Previous,
    /// From the first snapshot to every other.
    First,
    /// From standard normal noise in network coordinates to the single snapshot, for a model of a
    /// generative path.
    Noise,
}

/// Options of [`evaluate`].
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluateOptions {
    /// Start of the particles.
    pub start: StartFrom,
    /// Maximum number of points of a snapshot, at most [`MAX_POINTS`]; larger ones are represented
    /// by a random subset.
    pub max_points: usize,
    /// Method of integration.
    pub method: Method,
    /// Step control of integration.
    pub control: StepControl,
    /// Seed of subsets and halves.
    pub seed: u64,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        EvaluateOptions {
            start: StartFrom::Previous,
            max_points: MAX_POINTS,
            method: Method::Dopri5,
            control: StepControl::Adaptive { rtol: 1e-4, atol: 1e-5 },
            seed: 0,
        }
    }
}

/// Moves particles to the times of snapshots, and compares. `snapshots` are in data units (those of
/// the model's coordinates: see [`Coordinates::relative_to`] if they are given as differences from
/// an origin). Distances are computed between differences from the model's mean, so that they keep
/// their digits far from 0. `held_out` are the times that training left out.
///
/// Distances are computed on the threads of `stage`, as many at once as
/// [`MEMORY`](crate::transport::MEMORY) allows. Its watch counts four units per pair of snapshots:
/// the integration and three comparisons.
///
/// # Errors
/// [`Error::Interrupted`] if the watch cancels. [`Error::Input`] if dimensions differ, the number
/// of snapshots does not suit the start, the first one is held out, or the options are out of
/// range. Errors of the engine.
pub fn evaluate(
    engine: &dyn Engine,
    model: &Model,
    snapshots: &Snapshots,
    held_out: &[f64],
    options: &EvaluateOptions,
    stage: &Stage,
) -> Result<Report> {
    /// The argument `held_out`, in messages.
    const HELD_OUT: &str = "evaluate::held_out";
    let fail = |field: &str, problem: String, fix: &str| Err(Error::input("evaluation", field, problem, fix));
    let dim = model.architecture.dim;
    if snapshots.dim != dim {
        let problem = format!("have dimension {}, but the model has {dim}", snapshots.dim);
        return fail("samples", problem, "give data of the model's dimension");
    }
    let n_times = snapshots.times.len();
    match options.start {
        StartFrom::Noise if n_times != 1 => {
            return fail(
                "times",
                format!("hold {n_times} times"),
                "give one snapshot for a model that starts from noise",
            );
        }
        StartFrom::Previous | StartFrom::First if n_times < 2 => {
            let fix = "give snapshots at two or more times, or `StartFrom::Noise` for a model of a generative path";
            return fail("times", "hold one time only".into(), fix);
        }
        _ => {}
    }
    if !(1..=MAX_POINTS).contains(&options.max_points) {
        let (problem, fix) = (format!("is {}", options.max_points), format!("use 1 to {MAX_POINTS}"));
        return Err(Error::setting("evaluation", "EvaluateOptions::max_points", problem, fix));
    }
    if let Some(time) = held_out.iter().find(|time| snapshots.find(**time).is_none()) {
        let problem = format!("names time {time}, which has no snapshot");
        return Err(Error::setting("evaluation", HELD_OUT, problem, "name a time of the data"));
    }
    let held_out: Vec<usize> = held_out.iter().filter_map(|&time| snapshots.find(time)).collect();
    let is_held_out = |k: usize| held_out.contains(&k);
    if is_held_out(0) {
        let fix = "particles must start from a snapshot";
        return Err(Error::setting("evaluation", HELD_OUT, "names the first time", fix));
    }

    let mean = &model.coordinates.mean;
    let mut sets = Vec::new();
    for k in 0..snapshots.times.len() {
        stage.check()?;
        sets.push(PointSets::new(snapshots, k, mean, options.max_points, options.seed));
    }
    let mut ends = Vec::new();
    if options.start == StartFrom::Noise {
        ends.push((None, 0));
    }
    let mut start = 0;
    for k in 1..sets.len() {
        ends.push((Some(start), k));
        if options.start == StartFrom::Previous && !is_held_out(k) {
            start = k;
        }
    }
    // Each pair of snapshots counts one unit for the integration and one for each comparison.
    let total = 4 * ends.len() as u64;
    let mut ways = Vec::new();
    for &ends in &ends {
        let watch = &Section { watch: stage.watch, before: ways.len() as u64, units: 1, total };
        ways.push(Way::travel(engine, model, snapshots, ends, &sets, options, watch)?);
        watch.advanced(1, 1);
    }

    // Each of the three comparisons of each pair is a task of its own.
    let tasks: Vec<(usize, usize)> = (0..ways.len()).flat_map(|way| (0..3).map(move |part| (way, part))).collect();
    let watch = &Section { watch: stage.watch, before: ways.len() as u64, units: total - ways.len() as u64, total };
    let largest = sets.iter().map(|set| set.all.len() / dim).max().unwrap_or(0);
    let at_once = problems_at_once(largest, largest);
    let results = stage.watched_by(watch).map(at_once, &tasks, |&(way, part)| {
        let (way, truth) = (&ways[way], &sets[ways[way].to]);
        let kernel = truth.kernel;
        match part {
            0 => distances(kernel, dim, (&way.arrived, way.weights.as_deref()), &truth.all, watch).map(Some),
            1 => distances(kernel, dim, (&way.departed, None), &truth.all, watch).map(Some),
            _ => truth.halves.as_ref().map(|[a, b]| distances(kernel, dim, (a, None), b, watch)).transpose(),
        }
    })?;
    let mut results = results.into_iter();
    let mut next = || results.next().flatten();

    let mut comparisons = Vec::new();
    for way in &ways {
        let (Some(model), Some(no_motion), sampling_floor) = (next(), next(), next()) else {
            return fail("distances", "were not computed".into(), "run again");
        };
        comparisons.push(Comparison {
            from: way.from.map(|k| snapshots.times[k]),
            to: snapshots.times[way.to],
            held_out: is_held_out(way.to),
            n_particles: way.arrived.len() / dim,
            n_truth: sets[way.to].all.len() / dim,
            model,
            no_motion,
            sampling_floor,
            kernel: sets[way.to].kernel.map(Kernel::name),
            kinetic_energy: way.kinetic_energy,
            hjb_residual: way.hjb_residual,
            relative_mass: way.relative_mass,
            truth_relative_mass: (way.relative_mass.and(way.from))
                .map(|from| snapshots.n_rows(way.to) as f64 / snapshots.n_rows(from) as f64),
            log_likelihood: way.log_likelihood,
        });
    }
    let method = match options.control {
        StepControl::Fixed { steps } => format!("{:?}, {steps} steps a way", options.method),
        StepControl::Adaptive { rtol, atol } => format!("{:?}, rtol {rtol:e}, atol {atol:e}", options.method),
    };
    Ok(Report { theorems: None, comparisons, method, seed: options.seed })
}

/// W₁, W₂ and MMD² between rows `x`, with weights or uniform, and rows `y`.
fn distances(
    kernel: Option<Kernel>,
    dim: usize,
    (x, weights): (&[f32], Option<&[f64]>),
    y: &[f32],
    watch: &dyn Watch,
) -> Result<Distances> {
    let least_cost = |cost: Cost| match weights {
        Some(weights) => {
            weighted_plan(dim, (x, weights), (y, &vec![1.0; y.len() / dim]), cost, watch).map(|plan| plan.cost)
        }
        None => optimal_plan(dim, x, y, cost, watch).map(|plan| plan.cost),
    };
    Ok(Distances {
        w1: least_cost(Cost::Euclidean)?,
        w2: least_cost(Cost::SquaredEuclidean)?.sqrt(),
        mmd2: kernel.map(|kernel| mmd2(kernel, dim, x, weights, y, watch)).transpose()?.flatten(),
    })
}

/// The points that represent one snapshot: data units, minus the model's mean.
struct PointSets {
    all: Vec<f32>,
    /// Two disjoint random halves of the whole snapshot, each at most as large as `all`.
    halves: Option<[Vec<f32>; 2]>,
    kernel: Option<Kernel>,
}

impl PointSets {
    fn new(snapshots: &Snapshots, k: usize, mean: &[f64], max_points: usize, seed: u64) -> Self {
        let (dim, rows, n) = (snapshots.dim, snapshots.rows(k), snapshots.n_rows(k));
        // A random order of the rows (Fisher–Yates).
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, index(words(seed, Purpose::Evaluation, 2 + k as u64, i as u32)[0], i + 1));
        }
        let pick = |order: &[usize]| -> Vec<f32> {
            let centered =
                |row: usize| rows[row * dim..][..dim].iter().zip(mean).map(|(&x, m)| (f64::from(x) - m) as f32);
            order.iter().flat_map(|&row| centered(row)).collect()
        };
        let all = if n <= max_points { pick(&(0..n).collect::<Vec<_>>()) } else { pick(&order[..max_points]) };
        let half = (n / 2).min(max_points);
        let halves = (half > 0).then(|| [pick(&order[..half]), pick(&order[half..2 * half])]);
        let kernel = Kernel::median(dim, &all, seed);
        PointSets { all, halves, kernel }
    }
}

/// The particles of snapshot `from`, or of noise, moved to the time of snapshot `to`.
struct Way {
    from: Option<usize>,
    to: usize,
    /// Positions at the start and at the end, data units minus the model's mean.
    departed: Vec<f32>,
    arrived: Vec<f32>,
    /// With growth: weights at the end, relative to the largest.
    weights: Option<Vec<f64>>,
    kinetic_energy: f64,
    hjb_residual: f64,
    /// Mean weight at the end, with growth.
    relative_mass: Option<f64>,
    /// From noise, without diffusion and growth: mean log-density of the truth, data units.
    log_likelihood: Option<f64>,
}

impl Way {
    fn travel(
        engine: &dyn Engine,
        model: &Model,
        snapshots: &Snapshots,
        (from, to): (Option<usize>, usize),
        sets: &[PointSets],
        options: &EvaluateOptions,
        watch: &dyn Watch,
    ) -> Result<Way> {
        /// Number of equal intervals between whose ends energy and residual are integrated
        /// (Simpson's rule, so an even number).
        const STRETCHES: usize = 8;
        let dim = model.architecture.dim;
        // Coordinates for points given as differences from the mean.
        let coordinates = &Coordinates { mean: vec![0.0; dim], ..model.coordinates.clone() };
        let network_time = |k: usize| coordinates.network_time(snapshots.times[k]);
        // Noise is at time 0 and the single snapshot at time 1, whatever the times in the data.
        let (start, end) = from.map_or((0.0, 1.0), |from| (network_time(from), network_time(to)));
        let at = |stretch: usize| start + (end - start) * stretch as f64 / STRETCHES as f64;
        let plan = Plan {
            noise: Noise::new(options.seed),
            ..Plan::new(options.method, options.control, start, (0..=STRETCHES).map(at).collect())
        };
        let mut positions = match from {
            Some(from) => sets[from].all.clone(),
            None => draw_gaussian(sets[to].all.len() / dim, dim, &mut Stream::of_normals(options.seed, dim)),
        };
        if from.is_some() {
            coordinates.to_network(&mut positions);
        }
        let n_values = positions.len();
        let n = n_values / dim;
        positions.resize(n_values * plan.save_at.len(), 0.0);
        let weighted = model.objective.growth > 0.0;
        let mut log_weights = vec![0.0; if weighted { n * plan.save_at.len() } else { 0 }];
        let trajectories =
            Trajectories { log_weights: weighted.then_some(&mut log_weights[..]), ..Trajectories::of(&mut positions) };
        engine.integrate(model, &plan, trajectories, watch)?;

        let (mut kinetic_energy, mut residual) = (0.0, 0.0);
        for (stretch, slab) in positions.chunks_exact(n_values).enumerate() {
            check(watch)?;
            let x: Vec<f64> = slab.iter().map(|&x| f64::from(x)).collect();
            let derivatives = engine.derivatives(model, &x, &vec![at(stretch); n])?;
            let simpson = match stretch {
                0 | STRETCHES => 1.0,
                odd if odd % 2 == 1 => 4.0,
                _ => 2.0,
            } / (3.0 * STRETCHES as f64);
            for (grad, ds_dt) in derivatives.grad_s.chunks_exact(dim).zip(&derivatives.ds_dt) {
                let kinetic: f64 = grad.iter().map(|p| 0.5 * p * p).sum();
                let hamiltonian: f64 = grad.iter().map(|&p| f64::from(model.objective.hamiltonian(p as f32).0)).sum();
                kinetic_energy += simpson * (end - start) * kinetic / n as f64;
                residual += simpson * (ds_dt + hamiltonian).powi(2) / n as f64;
            }
        }
        let mut arrived = positions.split_off(n_values * STRETCHES);
        positions.truncate(n_values);
        let mut departed = positions;
        coordinates.to_data(&mut arrived);
        coordinates.to_data(&mut departed);
        let log_weights = weighted.then(|| &log_weights[n * STRETCHES..]);
        let largest = |log_weights: &[f32]| log_weights.iter().fold(f32::NEG_INFINITY, |largest, &w| largest.max(w));
        let weights = log_weights.map(|log_weights| {
            let largest = largest(log_weights);
            log_weights.iter().map(|&log_w| f64::from(log_w - largest).exp()).collect()
        });
        let relative_mass = log_weights
            .map(|log_weights| log_weights.iter().map(|&log_w| f64::from(log_w).exp()).sum::<f64>() / n as f64);
        let log_likelihood = if from.is_none() && model.objective.sigma == 0.0 && !weighted {
            let mut truth = sets[to].all.clone();
            coordinates.to_network(&mut truth);
            let control = (options.method, options.control);
            let of_rows = log_likelihood(engine, model, &truth, control, log_standard_normal, watch)?;
            // dx = scale dy: the density in data units is that in network units divided by the
            // product of the scales.
            let log_volume: f64 = coordinates.scale.iter().map(|scale| scale.ln()).sum();
            Some(of_rows.iter().sum::<f64>() / of_rows.len() as f64 - log_volume)
        } else {
            None
        };
        let hjb_residual = residual.sqrt();
        Ok(Way { from, to, departed, arrived, weights, kinetic_energy, hjb_residual, relative_mass, log_likelihood })
    }
}
