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
    /// Number of the group of rows that it is made of; 0 without groups.
    pub group: usize,
    /// The snapshots of the group that `training` has, all of their rows or some.
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
        Ok(Fold { training: Arc::new(training), group: 0, kept, scale, targets })
    }

    /// Rows `[n, dim]` in data units, without the mean.
    pub fn in_data_units(&self, rows: &[f32]) -> Vec<f32> {
        rows.iter().zip(self.scale.iter().cycle()).map(|(&y, scale)| (f64::from(y) * scale) as f32).collect()
    }
}

/// Groups that folds are made of, at most: more take time, and hardly change the choice.
const MAX_GROUPS: usize = 4;

/// The folds of some of `groups`, evenly chosen among those with times enough to leave some out;
/// see [`folds`].
///
/// # Errors
/// [`Error::Input`] if no group has enough times, or one has too few rows.
pub(super) fn folds_within(
    groups: &[Snapshots],
    coordinates: &Coordinates,
    rule: Standardization,
    leave_out: LeaveOut,
    seed: u64,
) -> Result<Vec<Fold>> {
    let longest: Vec<usize> = (0..groups.len()).filter(|&k| groups[k].times.len() >= least(leave_out)).collect();
    if longest.is_empty() {
        let most = groups.iter().map(|group| group.times.len()).max().unwrap_or(0);
        return Err(too_few_times(most, leave_out));
    }
    let mut all = Vec::new();
    for place in evenly(longest.len(), MAX_GROUPS) {
        let group = longest[place];
        let folds = folds(&groups[group], coordinates, rule, leave_out, seed)?;
        all.extend(folds.into_iter().map(|fold| Fold { group, ..fold }));
    }
    Ok(all)
}

/// Fewest times of snapshots that are left out.
fn least(leave_out: LeaveOut) -> usize {
    if leave_out == LeaveOut::Rows { 2 } else { 3 }
}

fn too_few_times(n_times: usize, leave_out: LeaveOut) -> Error {
    let problem = format!("hold {n_times} times to train on");
    Error::input("validation", "snapshots", problem, format!("give {} or more", least(leave_out)))
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
    if n_times < least(leave_out) {
        return Err(too_few_times(n_times, leave_out));
    }
    let order = |k: usize| {
        let mut order = snapshots.random_order(k, seed, Purpose::Validation, k as u64);
        order.truncate(MAX_ROWS);
        order
    };
    let orders: Vec<Vec<usize>> = (0..n_times).map(order).collect();
    let dim = snapshots.dim;
    let gather = |k: usize, order: &[usize]| -> Vec<f32> {
        order.iter().flat_map(|&row| &snapshots.rows(k)[row * dim..][..dim]).copied().collect()
    };
    // Rows that were resampled by their weights have none, but they have their rates of growth.
    let of_orders = |kept: &[usize], orders: &[Vec<usize>]| -> Result<Snapshots> {
        let rows = kept.iter().zip(orders).map(|(&k, order)| (snapshots.times[k], gather(k, order)));
        let training = Snapshots::from_rows(dim, rows)?;
        let rates = |(&k, order): (&usize, &Vec<usize>)| {
            order.iter().map(|&row| snapshots.growth(k).map(|rates| rates[row])).collect::<Option<Vec<_>>>()
        };
        match kept.iter().zip(orders).map(rates).collect::<Option<Vec<_>>>() {
            Some(rates) => training.growing(rates.concat()),
            None => Ok(training),
        }
    };
    let of = |kept: Vec<usize>| -> Result<(Snapshots, Vec<usize>)> {
        let orders: Vec<Vec<usize>> = kept.iter().map(|&k| orders[k].clone()).collect();
        Ok((of_orders(&kept, &orders)?, kept))
    };
    // One row has no distribution to compare; two halves of two are the least.
    let has = |k: usize, n: usize| orders[k].len() >= n;
    match leave_out {
        LeaveOut::Middle => {
            let usable = (1..n_times - 1).filter(|&k| has(k - 1, 2) && has(k, 4) && has(k + 1, 2));
            let usable: Vec<usize> = usable.collect();
            let middle: Vec<usize> = evenly(usable.len(), MAX_TARGETS).into_iter().map(|i| usable[i]).collect();
            let folds = (0..APART.min(middle.len())).map(|first| {
                let left: Vec<usize> = middle.iter().copied().skip(first).step_by(APART).collect();
                let training = of((0..n_times).filter(|k| !left.contains(k)).collect())?;
                let target =
                    |(before, &k): (usize, &usize)| (k - 1 - before, snapshots.times[k], gather(k, &orders[k]));
                let targets = left.iter().enumerate().map(target).collect();
                Fold::new(training, targets, coordinates, rule, true)
            });
            folds.collect()
        }
        LeaveOut::Last => {
            let usable = (2..n_times).rev().filter(|&k| has(k - 1, 2) && has(k, 4));
            let folds = usable.take(FOLDS).map(|k| {
                let targets = vec![(k - 1, snapshots.times[k], gather(k, &orders[k]))];
                Fold::new(of((0..k).collect())?, targets, coordinates, rule, false)
            });
            folds.collect()
        }
        LeaveOut::Rows => {
            if let Some(k) = (0..n_times).find(|&k| orders[k].len() < 2 * SHARE) {
                let time = coordinates.data_time(snapshots.times[k]);
                let problem = format!("are {}: a fifth of them says nothing", orders[k].len());
                let field = format!("rows of time {time}");
                return Err(Error::input("validation", field, problem, "give 10 or more, or leave out times"));
            }
            let folds = (0..FOLDS).map(|fold| {
                let split = |k: usize, is_left: bool| -> Vec<usize> {
                    let parts = distinct_ranks(&orders[k], snapshots.n_rows(k));
                    let rows = orders[k].iter().zip(parts);
                    rows.filter(|(_, rank)| (rank % SHARE == fold) == is_left).map(|(&row, _)| row).collect()
                };
                let kept: Vec<usize> = (0..n_times).collect();
                let training = of_orders(&kept, &kept.iter().map(|&k| split(k, false)).collect::<Vec<_>>())?;
                let target = |k: usize| (k - 1, snapshots.times[k], gather(k, &split(k, true)));
                let targets = evenly(n_times - 1, MAX_TARGETS).into_iter().map(|k| target(k + 1)).collect();
                Fold::new((training, kept), targets, coordinates, rule, false)
            });
            folds.collect()
        }
    }
}

/// The number of each of the rows `order`, below `n`, among the distinct ones in the order in which
/// they first appear: a row that appears twice is left out, or not, as a whole.
fn distinct_ranks(order: &[usize], n: usize) -> Vec<usize> {
    let (mut ranks, mut next) = (vec![usize::MAX; n], 0);
    let rank = |&row: &usize| {
        if ranks[row] == usize::MAX {
            (ranks[row], next) = (next, next + 1);
        }
        ranks[row]
    };
    order.iter().map(rank).collect()
}
