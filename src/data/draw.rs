//! Start particles: rows of a snapshot, or normal numbers.

use super::Snapshots;
use crate::rng::{self, Purpose};

/// `n` rows of snapshot `k`: all of them in order when `n` is their number, else drawn with replacement.
pub fn draw_rows(snapshots: &Snapshots, k: usize, n: usize, seed: u64) -> Vec<f32> {
    let (rows, count, dim) = (snapshots.rows(k), snapshots.n_rows(k), snapshots.dim);
    if n == count {
        return rows.to_vec();
    }
    let mut drawn = Vec::with_capacity(n * dim);
    for row in 0..n {
        let index = rng::index(rng::words(seed, Purpose::Particles, 0, row as u32)[0], count);
        drawn.extend_from_slice(&rows[index * dim..][..dim]);
    }
    drawn
}

/// `n` standard normal rows `[n, dim]`.
pub fn draw_gaussian(n: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut drawn = Vec::with_capacity(n * dim);
    for row in 0..n {
        for first in (0..dim).step_by(4) {
            let [a, b, c, d] = rng::words(seed, Purpose::Particles, (first / 4) as u64, row as u32);
            let normal = [rng::normal_pair(a, b), rng::normal_pair(c, d)];
            drawn.extend(normal.as_flattened().iter().take(dim - first));
        }
    }
    drawn
}
