//! Start particles, drawn from any generator of random numbers.

use rand::Rng;

use super::Snapshots;
use crate::rng;

/// `n` rows `[n, dim]` of snapshot `k`, drawn with replacement, with probabilities in proportion to
/// their weights; or each row once and in order if `n` is their number and they have no weights.
/// Otherwise particle `i` depends only on `seed` and `i`.
///
/// # Panics
/// If there is no snapshot `k`, or it has no rows. Snapshots from [`super::load`] always have rows.
pub fn draw_rows(snapshots: &Snapshots, k: usize, n: usize, random: &mut impl Rng) -> Vec<f32> {
    let (rows, dim) = (snapshots.rows(k), snapshots.dim);
    let mut drawn = Vec::with_capacity(n * dim);
    for row in draw_indices(snapshots, k, n, random) {
        drawn.extend_from_slice(&rows[row * dim..(row + 1) * dim]);
    }
    drawn
}

/// The numbers of the rows that [`draw_rows`] draws.
///
/// # Panics
/// As [`draw_rows`].
pub fn draw_indices(snapshots: &Snapshots, k: usize, n: usize, random: &mut impl Rng) -> Vec<usize> {
    if n == snapshots.n_rows(k) && snapshots.weights(k).is_none() {
        return (0..n).collect();
    }
    (0..n).map(|_| snapshots.draw(k, random.next_u32())).collect()
}

/// `n` standard normal points `[n, dim]`, four words of `random` for every four dimensions of a
/// point or what is left of them. [`Stream::of_normals`](rng::Stream::of_normals) draws those of
/// `amatch sample`.
pub fn draw_gaussian(n: usize, dim: usize, random: &mut impl Rng) -> Vec<f32> {
    let mut drawn = Vec::with_capacity(n * dim);
    for _ in 0..n {
        for first in (0..dim).step_by(4) {
            let normals = rng::normals(std::array::from_fn(|_| random.next_u32()));
            drawn.extend_from_slice(&normals[..4.min(dim - first)]);
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    fn snapshots() -> Snapshots {
        Snapshots {
            dim: 2,
            times: vec![0.0, 1.0],
            offsets: vec![0, 2, 5],
            samples: (0..10).map(|i| i as f32).collect(),
            mass: Default::default(),
        }
    }

    #[test]
    fn rows_come_from_their_snapshot_and_depend_on_seed_and_particle_alone() {
        let snapshots = snapshots();
        assert_eq!(draw_rows(&snapshots, 1, 3, &mut Stream::of_indices(7)), [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        let many = draw_rows(&snapshots, 1, 3001, &mut Stream::of_indices(7));
        for first in [4.0, 6.0, 8.0] {
            let share = many.chunks_exact(2).filter(|row| **row == [first, first + 1.0]).count() as f64 / 3001.0;
            // Five standard deviations of a binomial fraction.
            assert!((share - 1.0 / 3.0).abs() < 5.0 * (2.0 / 9.0 / 3001.0f64).sqrt(), "row {first}: {share}");
        }
        assert_eq!(draw_rows(&snapshots, 1, 100, &mut Stream::of_indices(7)), many[..200]);
        assert_ne!(draw_rows(&snapshots, 1, 100, &mut Stream::of_indices(8)), many[..200]);
    }

    #[test]
    fn gaussian_points_have_the_moments_of_one_and_independent_columns() {
        let (n, dim) = (4001, 7);
        let points = draw_gaussian(n, dim, &mut Stream::of_normals(3, dim));
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
        assert_eq!(draw_gaussian(10, dim, &mut Stream::of_normals(3, dim)), points[..10 * dim]);
    }

    /// The numbers of equal seeds are those of every version: particle i has the counters (i,
    /// particles, 0), (i, particles, 1), …
    #[test]
    fn particles_have_the_counters_of_their_number() {
        for dim in [1, 3, 4, 5, 11] {
            let points = draw_gaussian(9, dim, &mut Stream::of_normals(21, dim));
            for (particle, point) in points.chunks_exact(dim).enumerate() {
                let words = |block: usize| rng::words(21, Purpose::Particles, block as u64, particle as u32);
                let expected: Vec<f32> = (0..dim.div_ceil(4)).flat_map(|block| rng::normals(words(block))).collect();
                assert_eq!(point, &expected[..dim], "particle {particle} of dimension {dim}");
            }
        }
        let rows = draw_rows(&snapshots(), 1, 50, &mut Stream::of_indices(21));
        for (particle, row) in rows.chunks_exact(2).enumerate() {
            let [word, ..] = rng::words(21, Purpose::Particles, 0, particle as u32);
            assert_eq!(row, snapshots().rows(1).chunks_exact(2).nth(rng::index(word, 3)).unwrap());
        }
    }

    #[test]
    fn any_generator_will_do() {
        let mut theirs = rand_philox::Philox::from_u64_seed(1);
        let first = draw_gaussian(1000, 3, &mut theirs);
        assert_ne!(first, draw_gaussian(1000, 3, &mut theirs), "the generator goes on");
        let mean = first.iter().sum::<f32>() / first.len() as f32;
        assert!(mean.abs() < 5.0 / (first.len() as f32).sqrt(), "{mean}");
    }
}
