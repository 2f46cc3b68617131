//! Folds: what a candidate is trained on, and what it has to predict.

use std::sync::Arc;

use crate::data::{Snapshots, Standardization};
use crate::error::{Error, Result};
use crate::evenly::evenly;
use crate::model::Coordinates;
use crate::rng::Purpose;

/// What folds leave out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaveOut {
    /// Each time but the first and the last, which the flow has to pass through.
    #[default]
    Middle,
    /// The last time: a forecast, from the times before it; likewise from fewer of them.
    Last,
    /// A fifth of the rows of every time.
    Rows,
}

/// Rows of a snapshot that folds are made of, at most.
pub(super) const MAX_ROWS: usize = 1000;
/// Left-out times, at most: more would hardly change the mean.
const MAX_TARGETS: usize = 24;
/// Distance, in snapshots, between times that one fold leaves out. A path between two snapshots
/// depends on these and on one more on either side, so it is the same as if the others were there.
const APART: usize = 3;
/// Folds of a forecast and of rows.
const FOLDS: usize = 3;
/// Share of the rows that a fold leaves out.
const SHARE: usize = 5;

/// Training snapshots, and times to predict from them.
pub(super) struct Fold {
    /// In coordinates of the fold, which only its own rows decide.
    pub training: Arc<Snapshots>,
    /// The snapshots of the data that `training` has, all of their rows or some.
    pub kept: Vec<usize>,
    /// From coordinates of the fold to data units, without the mean `[dim]`.
    pub scale: Vec<f64>,
    pub targets: Vec<Target>,
}

/// A left-out time.
pub(super) struct Target {
    /// Data units.
    pub time: f64,
    /// Network time of the fold; above 1 for a forecast.
    pub t: f64,
    /// The snapshot of the fold's training to start from.
    pub from: usize,
    /// The snapshot after it, unless this is a forecast or rows of a time that is there.
    pub next: Option<usize>,
    /// The rows that were left out `[n, dim]`, coordinates of the fold.
    pub truth: Vec<f32>,
}

impl Fold {
    /// The fold that trains on `training` (rows and times of `coordinates`), and its targets
    /// (snapshot to start from, time, rows), standardized by what it trains on.
    fn new(
        (training, kept): (Snapshots, Vec<usize>),
        targets: Vec<(usize, f64, Vec<f32>)>,
        coordinates: &Coordinates,
        rule: Standardization,
        is_between: bool,
    ) -> Result<Fold> {
        let (training, own) = training.standardize(rule)?;
        let target = |(from, time, mut truth): (usize, f64, Vec<f32>)| {
            own.to_network(&mut truth);
            let next = is_between.then_some(from + 1);
            Target { time: coordinates.data_time(time), t: own.network_time(time), from, next, truth }
        };
        let targets = targets.into_iter().map(target).collect();
        let scale = own.scale.iter().zip(&coordinates.scale).map(|(own, scale)| own * scale).collect();
        Ok(Fold { training: Arc::new(training), kept, scale, targets })
    }

    /// Rows `[n, dim]` in data units, without the mean.
    pub fn in_data_units(&self, rows: &[f32]) -> Vec<f32> {
        rows.iter().zip(self.scale.iter().cycle()).map(|(&y, scale)| (f64::from(y) * scale) as f32).collect()
    }
}

/// The folds of `snapshots`, which are in the network coordinates `coordinates`. Larger snapshots
/// are represented by [`MAX_ROWS`] random rows, the same in every fold.
///
/// # Errors
/// [`Error::Input`] if there are too few times or rows to leave some out.
pub(super) fn folds(
    snapshots: &Snapshots,
    coordinates: &Coordinates,
    rule: Standardization,
    leave_out: LeaveOut,
    seed: u64,
) -> Result<Vec<Fold>> {
    let n_times = snapshots.times.len();
    let least = if leave_out == LeaveOut::Rows { 2 } else { 3 };
    if n_times < least {
        let problem = format!("hold {n_times} times to train on");
        return Err(Error::input("validation", "snapshots", problem, format!("give {least} or more")));
    }
    let rows: Vec<Vec<f32>> =
        (0..n_times).map(|k| snapshots.random_rows(k, MAX_ROWS, seed, Purpose::Validation)).collect();
    let dim = snapshots.dim;
    let of = |kept: Vec<usize>| -> Result<(Snapshots, Vec<usize>)> {
        let rows = kept.iter().map(|&k| (snapshots.times[k], &rows[k][..]));
        Ok((Snapshots::from_rows(dim, rows)?, kept))
    };
    // One row has no distribution to compare; two halves of two are the least.
    let has = |k: usize, n: usize| rows[k].len() >= n * dim;
    match leave_out {
        LeaveOut::Middle => {
            let usable = (1..n_times - 1).filter(|&k| has(k - 1, 2) && has(k, 4) && has(k + 1, 2));
            let usable: Vec<usize> = usable.collect();
            let middle: Vec<usize> = evenly(usable.len(), MAX_TARGETS).into_iter().map(|i| usable[i]).collect();
            let folds = (0..APART.min(middle.len())).map(|first| {
                let left: Vec<usize> = middle.iter().copied().skip(first).step_by(APART).collect();
                let training = of((0..n_times).filter(|k| !left.contains(k)).collect())?;
                let target = |(before, &k): (usize, &usize)| (k - 1 - before, snapshots.times[k], rows[k].clone());
                let targets = left.iter().enumerate().map(target).collect();
                Fold::new(training, targets, coordinates, rule, true)
            });
            folds.collect()
        }
        LeaveOut::Last => {
            let usable = (2..n_times).rev().filter(|&k| has(k - 1, 2) && has(k, 4));
            let folds = usable.take(FOLDS).map(|k| {
                let targets = vec![(k - 1, snapshots.times[k], rows[k].clone())];
                Fold::new(of((0..k).collect())?, targets, coordinates, rule, false)
            });
            folds.collect()
        }
        LeaveOut::Rows => {
            if let Some(k) = (0..n_times).find(|&k| rows[k].len() / dim < 2 * SHARE) {
                let time = coordinates.data_time(snapshots.times[k]);
                let problem = format!("are {}: a fifth of them says nothing", rows[k].len() / dim);
                let field = format!("rows of time {time}");
                return Err(Error::input("validation", field, problem, "give 10 or more, or leave out times"));
            }
            let folds = (0..FOLDS).map(|fold| {
                let split = |k: usize, is_left: bool| -> Vec<f32> {
                    let chosen = |(i, _): &(usize, &[f32])| (i % SHARE == fold) == is_left;
                    rows[k].chunks_exact(dim).enumerate().filter(chosen).flat_map(|(_, row)| row).copied().collect()
                };
                let training = Snapshots::from_rows(dim, (0..n_times).map(|k| (snapshots.times[k], split(k, false))))?;
                let target = |k: usize| (k - 1, snapshots.times[k], split(k, true));
                let targets = evenly(n_times - 1, MAX_TARGETS).into_iter().map(|k| target(k + 1)).collect();
                Fold::new((training, (0..n_times).collect()), targets, coordinates, rule, false)
            });
            folds.collect()
        }
    }
}
