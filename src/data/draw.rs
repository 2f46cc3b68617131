//! Start particles, drawn with counter-based random numbers.

use super::Snapshots;
use crate::rng::{self, Purpose};

/// `n` rows `[n, dim]` of snapshot `k`, drawn with replacement, or each row once and in order if
/// `n` is their number. Otherwise particle `i` depends only on `seed` and `i`.
///
/// # Panics
/// If there is no snapshot `k`, or it has no rows. Snapshots from [`super::load`] always have rows.
pub fn draw_rows(snapshots: &Snapshots, k: usize, n: usize, seed: u64) -> Vec<f32> {
    let (rows, dim, n_rows) = (snapshots.rows(k), snapshots.dim, snapshots.n_rows(k));
    if n == n_rows {
        return rows.to_vec();
    }
    let mut drawn = Vec::with_capacity(n * dim);
    for particle in 0..n {
        let [word, ..] = words(seed, particle, 0);
        let row = rng::index(word, n_rows);
        drawn.extend_from_slice(&rows[row * dim..(row + 1) * dim]);
    }
    drawn
}

/// `n` standard normal points `[n, dim]`.
pub fn draw_gaussian(n: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut drawn = Vec::with_capacity(n * dim);
    for particle in 0..n {
        for first in (0..dim).step_by(4) {
            let normals = rng::normals(words(seed, particle, first / 4));
            drawn.extend_from_slice(&normals[..4.min(dim - first)]);
        }
    }
    drawn
}

/// The random words of dimensions `4·block..4·block + 4` of a particle. Step numbers are 64-bit:
/// their upper half extends the particle's index.
fn words(seed: u64, particle: usize, block: usize) -> [u32; 4] {
    let particle = particle as u64;
    rng::words(seed, Purpose::Particles, (particle >> 32) << 32 | block as u64, particle as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshots() -> Snapshots {
        Snapshots {
            dim: 2,
            times: vec![0.0, 1.0],
            offsets: vec![0, 2, 5],
            samples: (0..10).map(|i| i as f32).collect(),
        }
    }

    #[test]
    fn rows_come_from_their_snapshot_and_depend_on_seed_and_particle_alone() {
        let snapshots = snapshots();
        assert_eq!(draw_rows(&snapshots, 1, 3, 7), [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        let many = draw_rows(&snapshots, 1, 3001, 7);
        for first in [4.0, 6.0, 8.0] {
            let share = many.chunks_exact(2).filter(|row| **row == [first, first + 1.0]).count() as f64 / 3001.0;
            // Five standard deviations of a binomial fraction.
            assert!((share - 1.0 / 3.0).abs() < 5.0 * (2.0 / 9.0 / 3001.0f64).sqrt(), "row {first}: {share}");
        }
        assert_eq!(draw_rows(&snapshots, 1, 100, 7), many[..200]);
        assert_ne!(draw_rows(&snapshots, 1, 100, 8), many[..200]);
    }

    #[test]
    fn gaussian_points_have_the_moments_of_one_and_independent_columns() {
        let (n, dim) = (4001, 7);
        let points = draw_gaussian(n, dim, 3);
        assert_eq!(points.len(), n * dim);
        let bound = 5.0 / (n as f64).sqrt();
        let column = |j: usize| points.iter().skip(j).step_by(dim).map(|&x| f64::from(x));
        for i in 0..dim {
            assert!((column(i).sum::<f64>() / n as f64).abs() < bound);
            for j in 0..=i {
                let moment = column(i).zip(column(j)).map(|(x, y)| x * y).sum::<f64>() / n as f64;
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((moment - expected).abs() < 1.5 * bound, "{i}, {j}: {moment}");
            }
        }
        assert_eq!(draw_gaussian(10, dim, 3), points[..10 * dim]);
    }
}
