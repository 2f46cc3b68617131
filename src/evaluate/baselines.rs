//! What can be said of a snapshot without a model: point sets made of the snapshots beside it, all
//! with the same number of points.
//!
//! Wasserstein distances between samples fall with the number of points, so scores are comparable
//! between sets of equal size alone.
//!
//! ```
//! use action_matching::evaluate::{Baselines, Neighbor};
//!
//! let (x, y) = ([0.0, 1.0], [11.0, 10.0, 12.0]);
//! let [before, after] = [Neighbor { time: 2.0, rows: &x }, Neighbor { time: 4.0, rows: &y }];
//! let baselines = Baselines::between(1, before, after, 3.0, 2, 0, &())?;
//! // Each of two rows went half of the way to the one that the optimal plan gives it.
//! assert!(baselines.plan_midpoint.iter().all(|x| (5.0..=6.5).contains(x)));
//! # Ok::<(), action_matching::Error>(())
//! ```

use crate::error::{Error, Result};
use crate::rng::{Purpose, shuffled};
use crate::stage::Watch;
use crate::transport::{Cost, MAX_POINTS, optimal_plan};

/// A snapshot before or after the one of interest.
#[derive(Clone, Copy, Debug)]
pub struct Neighbor<'a> {
    /// Its time.
    pub time: f64,
    /// Its rows `[n, dim]`.
    pub rows: &'a [f32],
}

/// Predictions of a snapshot between two others that need no model, each of `n_points` rows,
/// `[n_points, dim]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Baselines {
    /// Random rows of the snapshot before: nothing moves.
    pub previous: Vec<f32>,
    /// Random rows of the snapshot after.
    pub next: Vec<f32>,
    /// Random rows of both, from each in proportion to how near its time is: 1 − r of the one
    /// before and r of the one after, the mixture that a population jumps through.
    pub pooled: Vec<f32>,
    /// (1 − r) x + r y for the pairs (x, y) of an exact W₂ plan between `previous` and `next`
    /// (McCann's interpolation), with the share r of the clock's way from one to the other. More
    /// than [`MAX_POINTS`] rows are divided at random into parts of equal size, each with a plan of
    /// its own.
    pub plan_midpoint: Vec<f32>,
}

impl Baselines {
    /// Baselines at `time`, of `n_points` rows each. The choice of rows depends on `seed` and the
    /// times of the neighbors alone. Takes 8·n_points² bytes for the plan, at most 200 MB.
    ///
    /// # Errors
    /// [`Error::Input`] if `time` is not between the neighbors, one of these has fewer than
    /// `n_points` rows, or `n_points` is 0; [`Error::Interrupted`] if `watch` cancels.
    pub fn between(
        dim: usize,
        before: Neighbor<'_>,
        after: Neighbor<'_>,
        time: f64,
        n_points: usize,
        seed: u64,
        watch: &dyn Watch,
    ) -> Result<Baselines> {
        let ratio = (time - before.time) / (after.time - before.time);
        if !(before.time < after.time && (0.0..=1.0).contains(&ratio)) {
            let problem = format!("is {time}, not between {} and {}", before.time, after.time);
            return Err(Error::input("baselines", "time", problem, "give the snapshots before and after it"));
        }
        if n_points == 0 {
            return Err(Error::input("baselines", "n_points", "is 0", "use 1 or more"));
        }
        let previous = random_rows(dim, before, n_points, seed)?;
        let next = random_rows(dim, after, n_points, seed)?;
        let n_next = (ratio * n_points as f64).round() as usize;
        let pooled = [&previous[..(n_points - n_next) * dim], &next[..n_next * dim]].concat();
        // In random order, since the first rows stand for all where fewer are compared.
        let pooled = pick(dim, &pooled, &random_order(n_points, time, seed));
        let plan_midpoint = plan_midpoint(dim, &previous, &next, ratio, MAX_POINTS, watch)?;
        Ok(Baselines { previous, next, pooled, plan_midpoint })
    }

    /// The baselines with their names in reports.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &[f32]); 4] {
        [
            ("previous", &self.previous),
            ("next", &self.next),
            ("pooled neighbors", &self.pooled),
            ("plan midpoint", &self.plan_midpoint),
        ]
    }
}

/// (1 − `ratio`) x + `ratio` y for pairs (x, y) of as many rows, in random order, of exact plans
/// between at most `most` rows each.
fn plan_midpoint(
    dim: usize,
    previous: &[f32],
    next: &[f32],
    ratio: f64,
    most: usize,
    watch: &dyn Watch,
) -> Result<Vec<f32>> {
    let n = previous.len() / dim;
    let part = n.div_ceil(n.div_ceil(most)) * dim;
    let mut midpoint = Vec::with_capacity(n * dim);
    for (previous, next) in previous.chunks(part).zip(next.chunks(part)) {
        let plan = optimal_plan(dim, previous, next, Cost::SquaredEuclidean, watch)?;
        // Between equal numbers of points an extreme plan is an assignment: one move for each row.
        let point = |&(i, j, _): &(usize, usize, f64)| {
            let (x, y) = (&previous[i * dim..][..dim], &next[j * dim..][..dim]);
            x.iter().zip(y).map(|(&x, &y)| ((1.0 - ratio) * f64::from(x) + ratio * f64::from(y)) as f32)
        };
        midpoint.extend(plan.moves.iter().flat_map(point));
    }
    Ok(midpoint)
}

/// `n_points` random rows of a snapshot, in random order.
///
/// # Errors
/// [`Error::Input`] if it has fewer.
pub fn random_rows(dim: usize, snapshot: Neighbor<'_>, n_points: usize, seed: u64) -> Result<Vec<f32>> {
    let n = snapshot.rows.len() / dim;
    if n < n_points {
        let field = format!("rows of time {}", snapshot.time);
        return Err(Error::input("baselines", field, format!("are {n}"), format!("ask for {n} points or fewer")));
    }
    Ok(pick(dim, snapshot.rows, &random_order(n, snapshot.time, seed)[..n_points]))
}

/// Two disjoint sets of `n_points` random rows of a snapshot. The distance between them is the
/// sampling floor: what a perfect model of that many particles scores against that many points.
///
/// # Errors
/// [`Error::Input`] if the snapshot has fewer than twice as many rows.
pub fn disjoint_halves(dim: usize, snapshot: Neighbor<'_>, n_points: usize, seed: u64) -> Result<[Vec<f32>; 2]> {
    let mut first = random_rows(dim, snapshot, 2 * n_points, seed)?;
    let second = first.split_off(n_points * dim);
    Ok([first, second])
}

/// The largest number of points that a snapshot of `n_truth` rows can be compared by, with each of
/// the sets made of its neighbors, of `n_neighbors` rows, and with its own other half.
#[must_use]
pub fn equal_number(n_truth: usize, n_neighbors: impl IntoIterator<Item = usize>, max_points: usize) -> usize {
    n_neighbors.into_iter().fold((n_truth / 2).min(max_points), usize::min)
}

/// The numbers 0 to n in random order, for the snapshot at `time`.
pub(super) fn random_order(n: usize, time: f64, seed: u64) -> Vec<usize> {
    shuffled(n, seed, Purpose::Evaluation, time.to_bits())
}

/// The rows `order` of `rows [.., dim]`.
fn pick(dim: usize, rows: &[f32], order: &[usize]) -> Vec<f32> {
    order.iter().flat_map(|&row| &rows[row * dim..][..dim]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::wasserstein2;

    fn baselines(x: &[f32], y: &[f32], time: f64, n_points: usize) -> Result<Baselines> {
        let [before, after] = [Neighbor { time: 10.0, rows: x }, Neighbor { time: 14.0, rows: y }];
        Baselines::between(1, before, after, time, n_points, 3, &())
    }

    fn sorted(rows: &[f32]) -> Vec<f32> {
        let mut rows = rows.to_vec();
        rows.sort_by(f32::total_cmp);
        rows
    }

    /// On a line the plan keeps the order of the rows.
    #[test]
    fn the_midpoint_is_at_the_ratio_of_the_clock() {
        let (x, y) = ([0.0, 3.0, 1.0, 2.0], [14.0, 10.0, 18.0, 26.0]);
        let quarter = baselines(&x, &y, 11.0, 4).expect("fits");
        assert_eq!(sorted(&quarter.plan_midpoint), [2.5, 4.25, 6.0, 8.75]);
        assert_eq!((sorted(&quarter.previous), sorted(&quarter.next)), (sorted(&x), sorted(&y)));
        // Three of the four are of the snapshot before.
        assert_eq!(quarter.pooled.iter().filter(|&&row| row < 5.0).count(), 3);
        assert_eq!(sorted(&baselines(&x, &y, 10.0, 4).expect("fits").plan_midpoint), sorted(&x));
        assert_eq!(sorted(&baselines(&x, &y, 14.0, 4).expect("fits").plan_midpoint), sorted(&y));
    }

    /// The way from either side to the interpolated points is the share of the whole way.
    #[test]
    fn the_midpoint_lies_on_the_geodesic() {
        let rows = |shift: f32| -> Vec<f32> {
            (0..60).map(|i| ((i * i * 7 % 61) as f32).sin() + shift * (1.0 + (i % 5) as f32)).collect()
        };
        let (x, y) = (rows(0.0), rows(2.0));
        let [before, after] = [Neighbor { time: 0.0, rows: &x }, Neighbor { time: 1.0, rows: &y }];
        let baselines = Baselines::between(2, before, after, 0.3, 25, 0, &()).expect("fits");
        let to = |x: &[f32], y: &[f32]| wasserstein2(2, x, y, &()).expect("is solved");
        let whole = to(&baselines.previous, &baselines.next);
        assert!((to(&baselines.previous, &baselines.plan_midpoint) - 0.3 * whole).abs() < 1e-5 * whole);
        assert!((to(&baselines.plan_midpoint, &baselines.next) - 0.7 * whole).abs() < 1e-5 * whole);
    }

    /// Three parts of three, three and two rows, each with a plan of its own, which on a line keeps
    /// the order.
    #[test]
    fn the_midpoint_of_many_rows_is_made_in_parts() {
        let (x, y) = ([2.0, 0.0, 1.0, 5.0, 3.0, 4.0, 7.0, 6.0], [10.0, 14.0, 12.0, 10.0, 18.0, 10.0, 30.0, 20.0]);
        let midpoint = plan_midpoint(1, &x, &y, 0.5, 3, &()).expect("is solved");
        let parts: Vec<Vec<f32>> = midpoint.chunks(3).map(sorted).collect();
        assert_eq!(parts, [vec![5.0, 6.5, 8.0], vec![6.5, 7.0, 11.5], vec![13.0, 18.5]]);
    }

    #[test]
    fn all_sets_have_the_number_of_points_asked_for() {
        let (x, y): (Vec<f32>, Vec<f32>) = ((0..9).map(|i| i as f32).collect(), (20..40).map(|i| i as f32).collect());
        let five = baselines(&x, &y, 12.0, 5).expect("fits");
        assert!(five.named().iter().all(|(_, rows)| rows.len() == 5), "{five:?}");
        assert_eq!(five, baselines(&x, &y, 12.0, 5).expect("fits"), "depends on the seed alone");
        let [a, b] = disjoint_halves(1, Neighbor { time: 1.0, rows: &x }, 4, 0).expect("fits");
        assert!(a.len() == 4 && b.len() == 4 && a.iter().all(|row| !b.contains(row)));
        assert_eq!(equal_number(9, [20, 7], 5000), 4);
        assert_eq!(equal_number(100, [20, 7], 5000), 7);
        assert_eq!(equal_number(100, [20, 17], 10), 10);
    }

    #[test]
    fn what_cannot_be_made_is_refused() {
        let message = |time, n_points| baselines(&[0.0, 1.0], &[2.0, 3.0], time, n_points).unwrap_err().to_string();
        assert!(message(9.0, 2).contains("time: is 9, not between 10 and 14"));
        assert!(message(f64::NAN, 2).contains("time: is NaN"));
        assert!(message(12.0, 3).contains("rows of time 10: are 2"));
        assert!(message(12.0, 0).contains("n_points: is 0 (use 1 or more)"));
    }
}
