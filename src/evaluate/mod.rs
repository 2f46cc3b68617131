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

mod baselines;
mod energy_distance;
mod flow;
mod likelihood;
mod mmd;
mod points;
mod report;
mod theorems;

pub use baselines::{Baselines, Neighbor, disjoint_halves, equal_number, random_rows};
pub use energy_distance::energy_distance;
use flow::Flow;
pub use mmd::{Kernel, mmd2};
use points::PointSets;
pub use report::{Comparison, Distances, Report};
pub use theorems::{ActionGap, Likelihood, Theorems, TransportBound};

use crate::data::Snapshots;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::integrate::{Method, StepControl};
use crate::model::Model;
use crate::stage::{Section, Stage, Watch};
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
/// the model's coordinates: see [`relative_to`] if they are given as differences from an origin).
/// Distances are computed between differences from the model's mean, so that they keep their digits
/// far from 0. `held_out` are the times that training left out.
///
/// [`relative_to`]: crate::model::Coordinates::relative_to
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
    let dim = model.architecture.dim;
    let held_out = checked_held_out(model, snapshots, held_out, options)?;
    let mut sets = Vec::new();
    for k in 0..snapshots.times.len() {
        stage.check()?;
        sets.push(PointSets::new(snapshots, k, &model.coordinates.mean, options.max_points, options.seed));
    }
    let pairs = pairs(sets.len(), options.start, &held_out);
    // Each pair of snapshots counts one unit for the integration and one for each comparison.
    let total = 4 * pairs.len() as u64;
    let mut flows = Vec::new();
    for &pair in &pairs {
        let watch = &Section { watch: stage.watch, before: flows.len() as u64, units: 1, total };
        flows.push(Flow::measure(engine, model, snapshots, pair, &sets, options, watch)?);
        watch.advanced(1, 1);
    }
    let done = flows.len() as u64;
    let watch = &Section { watch: stage.watch, before: done, units: total - done, total };
    let scores = scores(&flows, &sets, dim, &stage.watched_by(watch))?;

    let comparison = |(flow, scores): (&Flow, Scores)| Comparison {
        from: flow.from.map(|k| snapshots.times[k]),
        to: snapshots.times[flow.to],
        held_out: held_out.contains(&flow.to),
        n_particles: flow.arrived.len() / dim,
        n_truth: sets[flow.to].all.len() / dim,
        model: scores.model,
        no_motion: scores.no_motion,
        sampling_floor: scores.sampling_floor,
        kernel: sets[flow.to].kernel.map(Kernel::name),
        kinetic_energy: flow.kinetic_energy,
        hjb_residual: flow.hjb_residual,
        relative_mass: flow.relative_mass,
        truth_relative_mass: (flow.relative_mass.and(flow.from))
            .map(|from| snapshots.n_rows(flow.to) as f64 / snapshots.n_rows(from) as f64),
        log_likelihood: flow.log_likelihood,
    };
    let comparisons = flows.iter().zip(scores).map(comparison).collect();
    let method = match options.control {
        StepControl::Fixed { steps } => format!("{:?}, {steps} steps for each", options.method),
        StepControl::Adaptive { rtol, atol } => format!("{:?}, rtol {rtol:e}, atol {atol:e}", options.method),
    };
    Ok(Report { theorems: None, comparisons, method, seed: options.seed })
}

/// The snapshots at the times `held_out`, in that order, once model, snapshots and options are
/// known to fit.
fn checked_held_out(
    model: &Model,
    snapshots: &Snapshots,
    held_out: &[f64],
    options: &EvaluateOptions,
) -> Result<Vec<usize>> {
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
    if held_out.contains(&0) {
        let fix = "particles must start from a snapshot";
        return Err(Error::setting("evaluation", HELD_OUT, "names the first time", fix));
    }
    Ok(held_out)
}

/// Start (`None` for noise) and end of each flow between `n` snapshots.
fn pairs(n: usize, start: StartFrom, held_out: &[usize]) -> Vec<(Option<usize>, usize)> {
    if start == StartFrom::Noise {
        return vec![(None, 0)];
    }
    let mut from = 0;
    let mut pairs = Vec::new();
    for to in 1..n {
        pairs.push((Some(from), to));
        if start == StartFrom::Previous && !held_out.contains(&to) {
            from = to;
        }
    }
    pairs
}

/// The distances of one flow.
struct Scores {
    model: Distances,
    no_motion: Distances,
    sampling_floor: Option<Distances>,
}

/// The scores of each flow. Each of its three comparisons is a task of its own on `stage`.
fn scores(flows: &[Flow], sets: &[PointSets], dim: usize, stage: &Stage) -> Result<Vec<Scores>> {
    #[derive(Clone, Copy)]
    enum Compared {
        Model,
        NoMotion,
        SamplingFloor,
    }
    let all = [Compared::Model, Compared::NoMotion, Compared::SamplingFloor];
    let tasks: Vec<(&Flow, Compared)> = flows.iter().flat_map(|flow| all.map(|compared| (flow, compared))).collect();
    let largest = sets.iter().map(|set| set.all.len() / dim).max().unwrap_or(0);
    let results = stage.map(problems_at_once(largest, largest), &tasks, |&(flow, compared)| {
        let truth = &sets[flow.to];
        let distances = |x: &[f32], weights, y: &[f32]| distances(truth.kernel, dim, (x, weights), y, stage.watch);
        match compared {
            Compared::Model => distances(&flow.arrived, flow.weights.as_deref(), &truth.all).map(Some),
            Compared::NoMotion => distances(&flow.departed, None, &truth.all).map(Some),
            Compared::SamplingFloor => truth.halves.as_ref().map(|[a, b]| distances(a, None, b)).transpose(),
        }
    })?;
    let scores = |results: &[Option<Distances>]| match *results {
        [Some(model), Some(no_motion), sampling_floor] => Ok(Scores { model, no_motion, sampling_floor }),
        _ => Err(Error::input("evaluation", "distances", "were not computed", "run again")),
    };
    results.chunks(all.len()).map(scores).collect()
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
