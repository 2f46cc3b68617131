//! The points that snapshots are compared by.

use super::Kernel;
use crate::data::Snapshots;
use crate::rng::{Purpose, index, words};

/// The points that represent one snapshot: data units, minus the model's mean.
pub(super) struct PointSets {
    pub all: Vec<f32>,
    /// Two disjoint random halves of the whole snapshot, each at most as large as `all`.
    pub halves: Option<[Vec<f32>; 2]>,
    pub kernel: Option<Kernel>,
}

impl PointSets {
    pub fn new(snapshots: &Snapshots, k: usize, mean: &[f64], max_points: usize, seed: u64) -> Self {
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
