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
mod energies;
mod energy_distance;
mod flow;
mod groups;
mod labels;
mod large;
mod likelihood;
mod means;
mod members;
mod mmd;
mod pair_means;
mod points;
mod report;
mod scores;
mod sliced;
mod theorems;
mod verdict;

pub use baselines::{Baselines, Neighbor, disjoint_halves, equal_number, random_rows};
#[cfg(feature = "files")]
pub(crate) use energies::Energies;
pub use energy_distance::energy_distance;
#[cfg(feature = "files")]
pub(crate) use energy_distance::sampling_error;
#[cfg(feature = "files")]
pub(crate) use flow::relative_weights;
use flow::{Flow, RollOut};
pub use groups::{GroupReport, GroupReports};
pub use labels::{Kind, Labeled, Role};
use labels::{Truth, Way, chosen, ways};
use large::Large;
pub use large::{SlicedScores, SlicedSet};
pub use means::{Mean, Means, SetMeans, SlicedMeans};
pub use members::{MemberScores, Members, OverMembers, evaluate_members};
pub use mmd::{Kernel, mmd2};
use points::PointSet;
pub use report::{Comparison, Distances, EqualNumbers, Report, Sources};
use scores::{Compared, Scores, scores};
pub use sliced::{DIRECTIONS, sliced_wasserstein2};
pub use theorems::{ActionGap, Likelihood, Theorems, TransportBound};
pub use verdict::{Measure, Verdict};

use crate::data::Snapshots;
use crate::engine::Engine;
use crate::error::{Error, Result, check_len};
use crate::integrate::{Method, StepControl};
use crate::model::Model;
use crate::stage::{Section, Stage, Watch};
use crate::transport::MAX_POINTS;

/// Start of the particles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartFrom {
    /// From each snapshot to the next one, and to those between that were not trained on.
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
    /// Maximum number of points of sliced distances, which are computed beside the others where a
    /// snapshot has more than `max_points`; 0: never.
    pub max_sliced: usize,
    /// Maximum number of comparisons, spread evenly over the times if there would be more.
    pub max_comparisons: usize,
    /// Method of integration.
    pub method: Method,
    /// Step control of integration.
    pub control: StepControl,
    /// Seed of subsets and halves.
    pub seed: u64,
}

impl EvaluateOptions {
    /// Default of `max_comparisons`.
    pub const COMPARISONS: usize = 200;
    /// Default of `max_sliced`. In 50 dimensions a comparison of so many takes some seconds.
    pub const SLICED: usize = 50_000;
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        EvaluateOptions {
            start: StartFrom::Previous,
            max_points: MAX_POINTS,
            max_sliced: Self::SLICED,
            max_comparisons: Self::COMPARISONS,
            method: Method::Dopri5,
            control: StepControl::Adaptive { rtol: 1e-4, atol: 1e-5 },
            seed: 0,
        }
    }
}

/// [`evaluate_labeled`] for snapshots of which all were trained on but those at the times
/// `held_out`.
///
/// # Errors
/// As [`evaluate_labeled`]; also if a time of `held_out` is the first, or has no snapshot.
pub fn evaluate(
    engine: &dyn Engine,
    model: &Model,
    snapshots: &Snapshots,
    held_out: &[f64],
    options: &EvaluateOptions,
    stage: &Stage,
) -> Result<Report> {
    let mut labeled = Labeled::all(snapshots, Role::Seen);
    for &time in held_out {
        let Some(k) = snapshots.find(time) else {
            let problem = format!("names time {time}, which has no snapshot");
            return Err(Error::setting("evaluation", "evaluate::held_out", problem, "name a time of the data"));
        };
        if k == 0 {
            let fix = "name others: every prediction starts from it";
            return Err(Error::setting("evaluation", "evaluate::held_out", "names the first time", fix));
        }
        labeled.roles[k] = Role::HeldOut;
    }
    evaluate_labeled(engine, model, &[labeled], options, stage)
}

/// Moves particles to the times of snapshots, and compares. Snapshots are in data units (those of
/// the model's coordinates: see [`relative_to`] if they are given as differences from an origin).
/// Distances are computed between differences from the model's mean, so that they keep their digits
/// far from 0.
///
/// Particles start from snapshots that were trained on, or at the earliest time. What was not
/// trained on, and lies between two snapshots that were, is also compared with predictions made
/// of these two without a model ([`Baselines`]).
///
/// [`relative_to`]: crate::model::Coordinates::relative_to
///
/// Distances are computed on the threads of `stage`, as many comparisons at once as
/// [`MEMORY`](crate::transport::MEMORY) allows. Its watch counts two units per comparison, one more
/// for each with a large snapshot, and one for the roll-out.
///
/// # Errors
/// [`Error::Interrupted`] if the watch cancels. [`Error::Input`] if dimensions differ, the number
/// of snapshots does not suit the start, or the options are out of range. Errors of the engine.
pub fn evaluate_labeled(
    engine: &dyn Engine,
    model: &Model,
    labeled: &[Labeled<'_>],
    options: &EvaluateOptions,
    stage: &Stage,
) -> Result<Report> {
    let dim = model.architecture.dim;
    check_options(model, labeled, options)?;
    let truths = Truth::list(labeled);
    let all = ways(&truths, options.start)?;
    let n_possible = all.len();
    let ways = chosen(all, &truths, options.max_comparisons);
    let mut sets: Vec<Option<PointSet>> = truths.iter().map(|_| None).collect();
    for k in ways.iter().flat_map(Way::snapshots).chain([0]) {
        stage.check()?;
        let mean = &model.coordinates.mean;
        sets[k].get_or_insert_with(|| PointSet::new(dim, truths[k], mean, options.max_points, options.seed));
    }
    let large = Large { engine, model, truths: &truths, options };
    let n_large = ways.iter().filter(|way| large.includes(way)).count();
    // Each comparison counts one unit for its flow and one for its distances.
    let total = (2 * ways.len() + 1 + n_large) as u64;
    let section =
        |before: usize, units: usize| Section { watch: stage.watch, before: before as u64, units: units as u64, total };
    let mut flows = Vec::new();
    for &way in &ways {
        let watch = &section(flows.len(), 1);
        flows.push(Flow::measure(engine, model, way, &sets, options, watch)?);
        watch.advanced(1, 1);
    }
    let watch = &section(flows.len(), 1);
    let (roll_out, is_lost) = match roll_out(engine, model, &ways, &sets, options, watch) {
        // Nobody asked for it: the other scores stand.
        Err(Error::NotFinite { .. } | Error::Setting { .. }) => (None, true),
        rolled_out => (rolled_out?, false),
    };
    watch.advanced(1, 1);
    let compared: Vec<Compared> = (ways.iter().zip(&flows).enumerate())
        .map(|(index, (&way, flow))| Compared {
            way,
            flow,
            roll_out: roll_out.as_ref().and_then(|roll_out| roll_out.at(index, flow)),
        })
        .collect();
    let watch = &section(flows.len() + 1, ways.len());
    let scores = scores(&compared, &sets, dim, options.max_points, options.seed, &stage.watched_by(watch))?;
    let watch = &section(2 * flows.len() + 1, n_large);
    let sliced = large.scores(&ways, &stage.watched_by(watch))?;

    let comparison = |((Compared { way, flow, .. }, scores), sliced): ((&Compared<'_>, Scores), _)| {
        let truth = &truths[way.to];
        Comparison {
            from: way.from.map(|from| truths[from].time()),
            to: truth.time(),
            training: truth.role,
            held_out: truth.role == Role::HeldOut,
            kind: way.kind,
            n_particles: flow.arrived.len() / dim,
            n_truth: sets[way.to].as_ref().map_or(0, |set| set.rows.len() / dim),
            model: scores.model,
            no_motion: scores.no_motion,
            sampling_floor: scores.sampling_floor,
            equal_numbers: scores.equal_numbers,
            sliced,
            kernel: sets[way.to].as_ref().and_then(|set| set.kernel).map(Kernel::name),
            kinetic_energy: flow.kinetic_energy,
            hjb_residual: flow.hjb_residual,
            relative_mass: flow.relative_mass,
            truth_relative_mass: (flow.relative_mass.and(way.from))
                .filter(|_| way.kind != Kind::Rows) // a share of the rows has not the mass of all
                .map(|from| truth.mass() / truths[from].mass()),
            log_likelihood: flow.log_likelihood,
        }
    };
    let comparisons: Vec<Comparison> = compared.iter().zip(scores).zip(sliced).map(comparison).collect();
    let method = match options.control {
        StepControl::Fixed { steps } => format!("{:?}, {steps} steps for each", options.method),
        StepControl::Adaptive { rtol, atol } => format!("{:?}, rtol {rtol:e}, atol {atol:e}", options.method),
    };
    let mut report = Report::new(dim, comparisons, n_possible, method, options.seed);
    if is_lost {
        let note = "From the first snapshot the particles are lost on the way: there is no roll-out.";
        report.notes.push(note.into());
    }
    Ok(report)
}

/// Particles of the first snapshot at the times of all comparisons, `None` if each comparison
/// starts there, or from noise.
fn roll_out(
    engine: &dyn Engine,
    model: &Model,
    ways: &[Way],
    sets: &[Option<PointSet>],
    options: &EvaluateOptions,
    watch: &dyn Watch,
) -> Result<Option<RolledOut>> {
    if ways.iter().all(|way| way.from.is_none_or(|from| from == 0)) {
        return Ok(None);
    }
    let set = |k: usize| sets[k].as_ref().ok_or_else(|| flow::no_points(k));
    let mut times = Vec::new();
    let mut stops = Vec::new();
    for way in ways {
        let time = set(way.to)?.time;
        // The flow of this comparison is the roll-out, up to its first stop.
        let stop = (way.from != Some(0)).then(|| {
            if times.last() != Some(&time) {
                times.push(time);
            }
            times.len() - 1
        });
        stops.push(stop);
    }
    let particles = RollOut::measure(engine, model, set(0)?, &times, options, watch)?;
    Ok(Some(RolledOut { particles, stops }))
}

/// A roll-out, and which stop of it each comparison has; `None` where the comparison starts from
/// the first snapshot itself.
struct RolledOut {
    particles: RollOut,
    stops: Vec<Option<usize>>,
}

impl RolledOut {
    /// Positions and weights for a comparison, whose own flow is `flow`.
    fn at<'a>(&'a self, comparison: usize, flow: &'a Flow) -> Option<(&'a [f32], Option<&'a [f64]>)> {
        match self.stops[comparison] {
            Some(stop) => Some((&self.particles.positions[stop], self.particles.weights[stop].as_deref())),
            None => Some((&flow.arrived, flow.weights.as_deref())),
        }
    }
}

/// Checks that model, snapshots and options fit.
fn check_options(model: &Model, labeled: &[Labeled<'_>], options: &EvaluateOptions) -> Result<()> {
    let dim = model.architecture.dim;
    for Labeled { snapshots, roles } in labeled {
        if snapshots.dim != dim && !roles.is_empty() {
            let problem = format!("have dimension {}, but the model has {dim}", snapshots.dim);
            return Err(Error::input("evaluation", "samples", problem, "give data of the model's dimension"));
        }
        check_len("roles", snapshots.times.len(), roles.len())?;
    }
    let fail = |setting, problem: String, fix: String| Err(Error::setting("evaluation", setting, problem, fix));
    if !(1..=MAX_POINTS).contains(&options.max_points) {
        let (problem, fix) = (format!("is {}", options.max_points), format!("use 1 to {MAX_POINTS}"));
        return fail("EvaluateOptions::max_points", problem, fix);
    }
    if options.max_comparisons == 0 {
        return fail("EvaluateOptions::max_comparisons", "is 0".into(), "use 1 or more".into());
    }
    Ok(())
}
