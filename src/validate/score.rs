//! Scores of a candidate on the times that a fold leaves out: of its path alone, and of a network
//! trained on that path. And scores without a model, to compare with.

use std::sync::Arc;

use super::candidates::Candidate;
use super::folds::{Fold, MAX_ROWS, Target};
use super::progress::Progress;
use crate::config::{Config, Mass};
use crate::data::Snapshots;
use crate::density_path::{DensityPath, RowKey, TimeRule};
use crate::engine::Engine;
use crate::engine::cpu::CpuEngine;
use crate::error::{Error, Result};
use crate::evaluate::{Baselines, Neighbor, disjoint_halves, energy_distance, equal_number, relative_weights};
use crate::integrate::{Method, Noise, Plan, StepControl, Trajectories};
use crate::model::{Coordinates, Model};
use crate::rng::{Purpose, words};
use crate::stage::{Stage, Watch};
use crate::transport::{Cost, optimal_plan, weighted_plan};

/// Points of a W₁, at most: it is printed, and decides nothing.
const W1_POINTS: usize = 500;
/// Fixed steps of the integration from one snapshot to the next.
const STEPS: u64 = 10;
/// Steps between two looks at the watch.
const CHUNK: u64 = 25;

/// Distances of a prediction to the rows left out, data units. Infinite for a model that lost its
/// particles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Squared energy distance, unbiased.
    pub energy: f64,
    /// W₁ between equal numbers of points, if it was asked for.
    pub w1: Option<f64>,
}

impl Score {
    const LOST: Score = Score { energy: f64::INFINITY, w1: None };

    /// The mean of several scores of one time; W₁ if all have it.
    pub(super) fn mean(scores: &[Score]) -> Score {
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let w1: Option<Vec<f64>> = scores.iter().map(|score| score.w1).collect();
        Score { energy: mean(scores.iter().map(|score| score.energy).collect()), w1: w1.map(mean) }
    }
}

/// A fold with the path of one candidate through it.
pub(super) struct PathOfFold<'a> {
    pub fold: &'a Fold,
    pub path: DensityPath,
}

impl<'a> PathOfFold<'a> {
    /// The path of `candidate` for `config` through `fold` of `snapshots`, paired.
    pub fn new(
        fold: &'a Fold,
        snapshots: &Snapshots,
        config: &Config,
        candidate: &Candidate,
        watch: &dyn Watch,
    ) -> Result<Self> {
        let mut config = candidate.applied_to(config);
        let masses = config.masses(snapshots)?;
        // Masses are those of the whole snapshots: a fold may have fewer rows of each.
        config.objective.mass = Mass::Ignored;
        let mut path = config.unpaired_path(fold.training.clone())?;
        path.masses = masses.map(|masses| fold.kept.iter().map(|&k| masses[k] / masses[fold.kept[0]]).collect());
        if path.couplings.is_some() {
            path.couplings = Some(Arc::new(config.couplings(&path, &Stage::new(1, watch))?));
        }
        Ok(PathOfFold { fold, path })
    }

    /// The score of the path's own points at each target: that of a network that follows the path
    /// without error.
    pub fn path_scores(&self, seed: u64, watch: &dyn Watch) -> Result<Vec<Score>> {
        let score = |target: &Target| {
            let (points, masses) = self.points(target.t, seed);
            compare(self.fold, target, &points, Some(&masses[..]), None, watch)
        };
        self.fold.targets.iter().map(score).collect()
    }

    /// Points of the path at network time `t`, with their masses.
    fn points(&self, t: f64, seed: u64) -> (Vec<f32>, Vec<f64>) {
        // No step of training draws the same rows.
        const STEP: u64 = u64::MAX - 1;
        let moment = self.path.moment(TimeRule::LowDiscrepancy, t);
        let (mut points, mut masses) = (Vec::with_capacity(MAX_ROWS * self.path.snapshots.dim), Vec::new());
        for row in 0..MAX_ROWS as u32 {
            let words = words(seed, Purpose::Interior, STEP, row);
            let trajectory = self.path.trajectory(moment.left, words, RowKey { seed, step: STEP, row });
            self.path.point(&trajectory, &moment, |_, x, _| points.push(x));
            masses.push(self.path.mass(&trajectory, &moment).0);
        }
        (points, masses)
    }

    /// The scores of a network trained as `config`, which has the settings of the candidate, on
    /// this path for `steps` steps.
    pub fn trained_scores(&self, config: &Config, with_w1: bool, progress: &Progress) -> Result<Vec<Score>> {
        let model = match self.trained(config, progress) {
            Err(Error::NotFinite { .. }) => return Ok(vec![Score::LOST; self.fold.targets.len()]),
            trained => trained?,
        };
        let score = |target: &Target| match self.moved(&model, target, config.training.seed, progress) {
            Ok((points, weights)) => {
                let w1_seed = with_w1.then_some(config.training.seed);
                compare(self.fold, target, &points, weights.as_deref(), w1_seed, progress)
            }
            Err(Error::NotFinite { .. }) => Ok(Score::LOST),
            Err(error) => Err(error),
        };
        self.fold.targets.iter().map(score).collect()
    }

    fn trained(&self, config: &Config, progress: &Progress) -> Result<Model> {
        let training = config.training(self.path.clone());
        let dim = training.architecture.dim;
        let mut trainer = CpuEngine::new(1).start(training)?;
        let mut taken = 0;
        while taken < config.training.steps {
            let n = CHUNK.min(config.training.steps - taken);
            trainer.steps(n, &mut ())?;
            taken += n;
            progress.took(n)?;
        }
        trainer.model(Coordinates::identity(dim))
    }

    /// The rows before `target` at its time, and their weights if the model has growth.
    fn moved(
        &self,
        model: &Model,
        target: &Target,
        seed: u64,
        watch: &dyn Watch,
    ) -> Result<(Vec<f32>, Option<Vec<f64>>)> {
        let mut positions = self.fold.training.rows(target.from).to_vec();
        let start = self.fold.training.times[target.from];
        let (method, steps) =
            if model.objective.sigma > 0.0 { (Method::StochasticHeun, 2 * STEPS) } else { (Method::Rk4, STEPS) };
        let plan =
            Plan { noise: Noise::new(seed), ..Plan::new(method, StepControl::Fixed { steps }, start, vec![target.t]) };
        let mut log_weights = vec![0.0; positions.len() / self.fold.training.dim];
        let weighted = model.objective.growth > 0.0;
        let out =
            Trajectories { log_weights: weighted.then_some(&mut log_weights[..]), ..Trajectories::of(&mut positions) };
        CpuEngine::new(1).integrate(model, &plan, out, &Progress::quiet(watch))?;
        Ok((positions, weighted.then(|| relative_weights(&log_weights))))
    }
}

/// False if one of some rows has all the weight, or none has any.
fn has_spread(weights: &[f64]) -> bool {
    let sum: f64 = weights.iter().sum();
    sum * sum > (1.0 + 1e-6) * weights.iter().map(|weight| weight * weight).sum::<f64>()
}

/// Compares `points` (coordinates of the fold) with what `target` left out. W₁ is computed if
/// there is a seed for the choice of its points.
fn compare(
    fold: &Fold,
    target: &Target,
    points: &[f32],
    weights: Option<&[f64]>,
    w1_seed: Option<u64>,
    watch: &dyn Watch,
) -> Result<Score> {
    if points.iter().any(|x| !x.is_finite()) || weights.is_some_and(|all| all.iter().any(|w| !w.is_finite())) {
        return Ok(Score::LOST);
    }
    let dim = fold.training.dim;
    // W₁ takes the first of the points.
    let first = equal_points(fold, target).min(points.len() / dim);
    let has_no_spread = |weights: &[f64]| !has_spread(weights) || w1_seed.is_some() && !has_spread(&weights[..first]);
    if weights.is_some_and(has_no_spread) {
        return Ok(Score::LOST);
    }
    let (points, truth) = (fold.in_data_units(points), fold.in_data_units(&target.truth));
    let energy = energy_distance(dim, &points, weights, &truth, watch)?;
    let w1 = |seed: u64| -> Result<f64> {
        let n = equal_points(fold, target);
        let [truth, _] = halves(dim, target.time, &truth, n, seed)?;
        // The rows are in random order.
        let n_points = n.min(points.len() / dim);
        match weights {
            None => Ok(optimal_plan(dim, &points[..n_points * dim], &truth, Cost::Euclidean, watch)?.cost),
            Some(weights) => {
                let ones = vec![1.0; n];
                let (x, y) = ((&points[..n_points * dim], &weights[..n_points]), (&truth[..], &ones[..]));
                Ok(weighted_plan(dim, x, y, Cost::Euclidean, watch)?.cost)
            }
        }
    };
    Ok(Score { energy, w1: w1_seed.map(w1).transpose()? })
}

/// Number of points of the W₁ of every prediction of `target`.
fn equal_points(fold: &Fold, target: &Target) -> usize {
    let dim = fold.training.dim;
    let neighbors = [Some(target.from), target.next].into_iter().flatten().map(|k| fold.training.n_rows(k));
    equal_number(target.truth.len() / dim, neighbors, W1_POINTS).max(1)
}

/// Two disjoint sets of `n` rows; the same one twice if there is one row only.
fn halves(dim: usize, time: f64, rows: &[f32], n: usize, seed: u64) -> Result<[Vec<f32>; 2]> {
    if rows.len() < 2 * n * dim {
        return Ok([rows.to_vec(), rows.to_vec()]);
    }
    disjoint_halves(dim, Neighbor { time, rows }, n, seed)
}

/// The name of the baseline [`unmoved`].
pub(super) const UNMOVED: &str = "previous, unmoved";

/// The scores of the rows before each target of `fold`, left where they are.
pub(super) fn unmoved(fold: &Fold, watch: &dyn Watch) -> Result<Vec<Score>> {
    // All rows, as for the model, which starts from them.
    fold.targets
        .iter()
        .map(|target| compare(fold, target, fold.training.rows(target.from), None, None, watch))
        .collect()
}

/// Names and scores of what predicts `target` without a model, and of a perfect model.
pub(super) fn baselines(
    fold: &Fold,
    target: &Target,
    seed: u64,
    watch: &dyn Watch,
) -> Result<Vec<(&'static str, Score)>> {
    let Snapshots { dim, ref times, .. } = *fold.training;
    let n = equal_points(fold, target);
    let neighbor = |k: usize| Neighbor { time: times[k], rows: fold.training.rows(k) };
    let scored = |rows: &[f32]| compare(fold, target, rows, None, Some(seed), watch);
    let mut scores = Vec::new();
    scores.push((UNMOVED, scored(fold.training.rows(target.from))?));
    if let Some(next) = target.next {
        let baselines = Baselines::between(dim, neighbor(target.from), neighbor(next), target.t, n, seed, watch)?;
        scores.push(("next", scored(fold.training.rows(next))?));
        scores.push(("pooled neighbors", scored(&baselines.pooled)?));
        scores.push(("midpoint of the exact plan", scored(&baselines.plan_midpoint)?));
    }
    let truth = fold.in_data_units(&target.truth);
    if n >= 2 {
        let [a, b] = halves(dim, target.time, &truth, n, seed)?;
        let energy = energy_distance(dim, &a, None, &b, watch)?;
        let w1 = optimal_plan(dim, &a, &b, Cost::Euclidean, watch)?.cost;
        scores.push(("sampling floor", Score { energy, w1: Some(w1) }));
    }
    Ok(scores)
}
