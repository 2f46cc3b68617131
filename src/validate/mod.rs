//! A choice of path, pairing, network and growth by what the training data themselves say: each
//! candidate predicts snapshots that it did not see.
//!
//! [`choose`] is the short form that a run with the path `auto` makes before it trains;
//! [`validate`] compares more candidates for longer and has a table to show. Both work on the CPU
//! in f32, so that the choice does not depend on a device, and both give the same result on any
//! number of threads.
//!
//! The squared [energy distance](crate::evaluate::energy_distance) decides. Averages of samples
//! have less noise than samples, which W₁ takes for closeness in many dimensions, and the energy
//! distance does not.
//!
//! ```
//! use action_matching::config::PathConfig;
//! use action_matching::prelude::*;
//! use action_matching::validate::choose;
//!
//! // Particles on a circle: a straight line between two snapshots leaves it.
//! let at = |t: f32| (0..40).flat_map(|i| {
//!     let angle = 0.8 * t + 0.005 * i as f32;
//!     [angle.cos(), angle.sin()]
//! }).collect::<Vec<f32>>();
//! let rows = (0..8).map(|k| (f64::from(k), at(k as f32)));
//! let (snapshots, coordinates) = Snapshots::from_rows(2, rows)?.standardize(Standardization::default())?;
//! let mut config = Config::default();
//! config.training.steps = 200; // too few to pay for networks: the paths themselves are compared
//! let choice = choose(&config, &snapshots, &coordinates, &Stage::default())?.expect("eight snapshots");
//! assert!(matches!(choice.chosen().candidate.path, PathConfig::Spline { .. }));
//! # Ok::<(), Error>(())
//! ```

mod candidates;
mod choice;
mod folds;
mod halving;
mod progress;
mod score;
mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use candidates::Candidate;
use candidates::{Scope, candidates};
use choice::mean_of;
pub use folds::LeaveOut;
use folds::{Fold, folds_within};
use halving::Halving;
use progress::Progress;
pub use score::Score;
use score::{UNMOVED, baselines, unmoved};

use crate::config::{Config, Mass, PathConfig};
use crate::data::Snapshots;
use crate::error::{Error, Result};
pub use crate::evaluate::Mean;
use crate::model::Coordinates;
use crate::stage::Stage;

/// Fewest steps of a training that says something.
const FEWEST_STEPS: u64 = 200;
/// Steps of the longest trainings of [`choose`], at most.
const MOST_STEPS: u64 = 2000;
/// Runs of fewer steps take the settings that need no choice.
const SHORT_RUN: u64 = 200;
/// Paths that trainings are made of.
const PATHS: [usize; 2] = [2, 3];

/// Options of [`validate`].
#[derive(Clone, Debug, PartialEq)]
pub struct ValidateOptions {
    /// What folds leave out.
    pub leave_out: LeaveOut,
    /// Trainings of each candidate on each fold, with consecutive seeds.
    pub seeds: u64,
    /// Steps of the longest trainings.
    pub steps: u64,
    /// Time to take, about, on the threads of the stage: `steps` is chosen by a measurement of
    /// their speed, so a choice under a limit is not reproducible.
    pub time: Option<Duration>,
}

impl ValidateOptions {
    /// Steps of the longest trainings, unless the run itself has fewer.
    pub const STEPS: u64 = 3000;
}

impl Default for ValidateOptions {
    fn default() -> Self {
        ValidateOptions { leave_out: LeaveOut::default(), seeds: 1, steps: Self::STEPS, time: None }
    }
}

/// A candidate and its scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The candidate.
    pub candidate: Candidate,
    /// Steps of the trainings that were scored; 0 for points of the path without a network.
    pub steps: u64,
    /// A score for each fold and left-out time: the mean over the seeds, whose trainings are on the
    /// same data.
    pub scores: Vec<Score>,
}

impl Scored {
    fn energies(&self) -> impl Iterator<Item = f64> {
        self.scores.iter().map(|score| score.energy)
    }

    /// Mean squared energy distance.
    #[must_use]
    pub fn energy(&self) -> Mean {
        mean_of(self.energies())
    }

    /// Mean W₁, if it was computed.
    #[must_use]
    pub fn w1(&self) -> Option<Mean> {
        Some(mean_of(self.scores.iter().map(|score| score.w1).collect::<Option<Vec<_>>>()?))
    }
}

/// Candidates with their scores, and which to take.
#[derive(Clone, Debug, PartialEq)]
pub struct Validation {
    /// Every candidate at the longest training that it had, the best first among those of equal
    /// length, and longer ones before shorter ones.
    pub scored: Vec<Scored>,
    /// What predicts the left-out times without a model, and the distance between two halves of
    /// the truth; in [`choose`] the unmoved snapshot alone.
    pub baselines: Vec<(&'static str, Vec<Score>)>,
    /// What folds left out.
    pub leave_out: LeaveOut,
    /// The left-out times, data units.
    pub times: Vec<f64>,
    /// Index of the candidate to take.
    chosen: usize,
}

impl Validation {
    /// The candidate to take.
    #[must_use]
    pub fn chosen(&self) -> &Scored {
        &self.scored[self.chosen]
    }

    /// True if the candidate to take predicts better than the snapshot before, left where it is.
    #[must_use]
    pub fn beats_no_motion(&self) -> bool {
        let unmoved = self.baselines.iter().find(|(name, _)| *name == UNMOVED);
        unmoved.is_none_or(|(_, scores)| self.chosen().energy().mean < mean_energy(scores).mean)
    }
}

/// Mean squared energy distance of `scores`.
pub(crate) fn mean_energy(scores: &[Score]) -> Mean {
    mean_of(scores.iter().map(|score| score.energy))
}

/// The candidates among which [`choose`] chooses; `None` if there is no choice.
fn left_open(config: &Config, groups: &[Snapshots]) -> Option<Vec<Candidate>> {
    // The one whose times leave most to compare.
    let snapshots = groups.iter().max_by_key(|snapshots| snapshots.times.len())?;
    // Known totals belong to all times.
    let has_totals = matches!(config.objective.mass, Mass::Totals { .. });
    let is_short = snapshots.times.len() < 3 || config.training.steps < SHORT_RUN;
    let leaves_path = config.objective.path == PathConfig::Auto && !has_totals;
    if is_short || !leaves_path && config.objective.growth.is_some() {
        return None;
    }
    Some(candidates(config, snapshots, Scope::Paths)).filter(|candidates| candidates.len() > 1)
}

/// True if [`choose`] has something to compare, which takes a while.
pub(crate) fn has_choice(config: &Config, groups: &[Snapshots]) -> bool {
    left_open(config, groups).is_some()
}

/// Chooses path, pairing, growth and time embedding, as far as `config` leaves them open, before a
/// training on `snapshots`, in the network coordinates `coordinates`. The best two combinations of
/// path and pairing, judged by points of the path at times left out, are then trained with each
/// time embedding, together for at most about as many steps × rows as the run itself.
///
/// `None` if there is nothing to choose, fewer than three snapshots to choose by (rows are too few
/// below four), or fewer steps than would pay for it: then [`Config::settled`] says what to take.
///
/// # Errors
/// [`Error::Interrupted`] if the watch of `stage` cancels; errors of
/// couplings and trainings.
pub fn choose(
    config: &Config,
    snapshots: &Snapshots,
    coordinates: &Coordinates,
    stage: &Stage,
) -> Result<Option<Validation>> {
    choose_within(config, std::slice::from_ref(snapshots), coordinates, stage)
}

/// [`choose`] for a training under conditions: each fold is made of the rows of one of `groups`, of
/// which four are taken, and each candidate is trained on it alone.
///
/// # Errors
/// As [`choose`].
pub fn choose_within(
    config: &Config,
    groups: &[Snapshots],
    coordinates: &Coordinates,
    stage: &Stage,
) -> Result<Option<Validation>> {
    let Some(candidates) = left_open(config, groups) else { return Ok(None) };
    let seed = config.training.seed;
    let folds = folds_within(groups, coordinates, config.data.standardize, LeaveOut::Middle, seed)?;
    if folds.is_empty() {
        return Ok(None);
    }
    let work = config.training.steps.saturating_mul(config.training.interior_rows as u64);
    let mut halving = Halving::new(config, groups, &folds, candidates, 1, stage);
    halving.by_path(PATHS[0])?;
    let longest = halving.longest_within(work).min(MOST_STEPS);
    if halving.lengths(longest)[0] >= FEWEST_STEPS {
        halving.by_training(longest, false)?;
    }
    let still = folds.iter().map(|fold| unmoved(fold, stage.watch)).collect::<Result<Vec<_>>>()?;
    let baselines = vec![(UNMOVED, still.concat())];
    Ok(Some(halving.finish(baselines, LeaveOut::Middle)))
}

/// Compares candidates for all settings that `config` leaves open, on folds of `snapshots`, which
/// are in the network coordinates `coordinates`, by successive halving: all with short trainings,
/// the better half with longer ones, and so on.
///
/// The watch of `stage` counts steps of training.
///
/// # Errors
/// As [`choose`]; [`Error::Input`] if there are too few times, or rows, to
/// leave some out.
pub fn validate(
    config: &Config,
    snapshots: &Snapshots,
    coordinates: &Coordinates,
    options: &ValidateOptions,
    stage: &Stage,
) -> Result<Validation> {
    validate_within(config, std::slice::from_ref(snapshots), coordinates, options, stage)
}

/// [`validate`] for a training under conditions, with folds as those of [`choose_within`].
///
/// # Errors
/// As [`validate`].
pub fn validate_within(
    config: &Config,
    groups: &[Snapshots],
    coordinates: &Coordinates,
    options: &ValidateOptions,
    stage: &Stage,
) -> Result<Validation> {
    let seed = config.training.seed;
    let folds = folds_within(groups, coordinates, config.data.standardize, options.leave_out, seed)?;
    if folds.is_empty() {
        let problem = "have too few rows at every time between the first and the last";
        return Err(Error::input(
            "validation",
            "snapshots",
            problem,
            "give four or more at one, and two at its neighbors",
        ));
    }
    let longest = groups.iter().max_by_key(|snapshots| snapshots.times.len());
    let candidates = longest.map_or_else(Vec::new, |snapshots| candidates(config, snapshots, Scope::All));
    let mut halving = Halving::new(config, groups, &folds, candidates, options.seeds.max(1), stage);
    if options.leave_out == LeaveOut::Middle {
        halving.by_path(PATHS[1])?;
    }
    let within = options.time.map(|time| halving.steps_within(time)).transpose()?;
    halving.by_training(options.steps.min(within.unwrap_or(u64::MAX)).max(1), true)?;
    let targets: Vec<(&Fold, usize)> =
        folds.iter().flat_map(|fold| (0..fold.targets.len()).map(move |k| (fold, k))).collect();
    let quiet = Progress::quiet(stage.watch);
    let scores = stage
        .watched_by(&quiet)
        .map(usize::MAX, &targets, |&(fold, k)| baselines(fold, &fold.targets[k], seed, stage.watch))?;
    let mut all: Vec<(&'static str, Vec<Score>)> = Vec::new();
    for (name, score) in scores.into_iter().flatten() {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, scores)) => scores.push(score),
            None => all.push((name, vec![score])),
        }
    }
    Ok(halving.finish(all, options.leave_out))
}
