//! The points that snapshots are compared by.

use super::Kernel;
use super::labels::Truth;

/// The points that represent one snapshot: data units, minus the model's mean, in random order, so
/// that the first of them are a random subset.
pub(super) struct PointSet {
    pub time: f64,
    pub rows: Vec<f32>,
    /// As many other rows of the snapshot as half of its rows are, or as `rows` has.
    pub others: Vec<f32>,
    pub kernel: Option<Kernel>,
}

impl PointSet {
    pub fn new(dim: usize, truth: Truth<'_>, mean: &[f64], max_points: usize, seed: u64) -> Self {
        let (rows, order) = (truth.rows(), truth.random_order(seed));
        let n = order.len();
        let pick = |order: &[usize]| -> Vec<f32> {
            let centered =
                |row: usize| rows[row * dim..][..dim].iter().zip(mean).map(|(&x, m)| (f64::from(x) - m) as f32);
            order.iter().flat_map(|&row| centered(row)).collect()
        };
        let half = (n / 2).min(max_points);
        let chosen = pick(&order[..n.min(max_points)]);
        let kernel = Kernel::median(dim, &chosen, seed);
        PointSet { time: truth.time(), rows: chosen, others: pick(&order[half..2 * half]), kernel }
    }
}

/// Rows `[n, dim]` and their weights, relative to any unit.
pub(super) struct Particles<'a, T = f32> {
    pub rows: &'a [T],
    pub weights: Option<&'a [f64]>,
}

// Not derived: the rows need not be copied.
impl<T> Clone for Particles<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Particles<'_, T> {}

impl<'a, T> Particles<'a, T> {
    pub fn equal(rows: &'a [T]) -> Self {
        Particles { rows, weights: None }
    }

    /// The first `n`.
    pub fn first(self, n: usize, dim: usize) -> Self {
        Particles { rows: &self.rows[..n * dim], weights: self.weights.map(|weights| &weights[..n]) }
    }
}
