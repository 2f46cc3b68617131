//! Which samples of neighbouring snapshots belong together: exact optimal transport, solved once before training.

use std::sync::Mutex;

use super::Snapshots;
use crate::error::Result;
use crate::rng::{Purpose, index, words};
use crate::transport::{Cost, MAX_POINTS, Plan, optimal_plan};

/// A joint distribution of the rows of two snapshots whose marginals are uniform over them.
///
/// Couplings of neighbouring snapshots chain: the rows that one arrives at are those that the next one starts from, equally often.
#[derive(Clone, Debug, PartialEq)]
pub struct Coupling {
    /// Rows (i, j) with mass, i of the earlier snapshot.
    pairs: Vec<[u32; 2]>,
    /// Mass of the pairs up to each one, in units of 2⁻³².
    cumulative: Vec<u32>,
}

impl Coupling {
    /// The pair that `word` chooses.
    pub fn pair(&self, word: u32) -> (usize, usize) {
        // Integer arithmetic: the same pairs on every engine.
        let entry = self.cumulative.partition_point(|&below| below <= word).min(self.pairs.len() - 1);
        let [i, j] = self.pairs[entry];
        (i as usize, j as usize)
    }

    fn new(moves: impl Iterator<Item = (usize, usize, f64)>) -> Self {
        let (mut pairs, mut cumulative, mut mass) = (Vec::new(), Vec::new(), 0.0);
        for (i, j, share) in moves {
            mass += share;
            pairs.push([i as u32, j as u32]);
            cumulative.push((mass * 4_294_967_296.0) as u32); // saturates at the end
        }
        Coupling { pairs, cumulative }
    }
}

/// Squared-distance optimal couplings of all neighbouring `snapshots`. Snapshots of more than `block` rows are divided into random
/// blocks of nearly equal sizes at most `block`, each solved exactly (minibatch optimal transport); every row is in one.
///
/// Takes about 8·`block`² bytes a thread, and seconds a block of 5000.
///
/// # Errors
/// As [`optimal_plan`].
pub fn optimal_couplings(snapshots: &Snapshots, block: usize, seed: u64) -> Result<Vec<Coupling>> {
    let block = block.clamp(1, MAX_POINTS);
    let intervals = snapshots.times.len() - 1;
    let n_blocks = |k: usize| snapshots.n_rows(k).max(snapshots.n_rows(k + 1)).div_ceil(block);
    let orders: Vec<Vec<usize>> = (0..=intervals).map(|k| shuffled(snapshots.n_rows(k), seed, k as u64)).collect();
    let tasks: Vec<(usize, usize)> = (0..intervals).flat_map(|k| (0..n_blocks(k)).map(move |b| (k, b))).collect();
    let solved: Vec<Mutex<Option<Result<Plan>>>> = tasks.iter().map(|_| Mutex::default()).collect();
    // The smaller side may have fewer rows than there are blocks; then blocks share its rows in turn.
    let rows_of_block = |k: usize, of: usize, b: usize| -> &[usize] {
        let (n, order) = (n_blocks(of), &orders[k]);
        let (first, end) = (b * order.len() / n, (b + 1) * order.len() / n);
        if first == end { &order[first..=first] } else { &order[first..end] }
    };
    let gather = |k: usize, rows: &[usize]| -> Vec<f32> {
        rows.iter().flat_map(|&row| &snapshots.rows(k)[row * snapshots.dim..][..snapshots.dim]).copied().collect()
    };
    let queue = Mutex::new(tasks.iter().zip(&solved));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(tasks.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
                    let Some((&(k, b), slot)) = next else { break };
                    let (x, y) = (gather(k, rows_of_block(k, k, b)), gather(k + 1, rows_of_block(k + 1, k, b)));
                    let plan = optimal_plan(snapshots.dim, &x, &y, Cost::SquaredEuclidean);
                    *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(plan);
                }
            });
        }
    });
    let mut moves: Vec<Vec<(usize, usize, f64)>> = vec![Vec::new(); intervals];
    for (&(k, b), slot) in tasks.iter().zip(solved) {
        let Some(plan) = slot.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) else { continue };
        let (from, to) = (rows_of_block(k, k, b), rows_of_block(k + 1, k, b));
        // Blocks weigh as many rows as they hold of the larger side.
        let larger = snapshots.n_rows(k).max(snapshots.n_rows(k + 1));
        let weight = from.len().max(to.len()) as f64 / larger as f64;
        moves[k].extend(plan?.moves.into_iter().map(|(i, j, mass)| (from[i], to[j], mass * weight)));
    }
    Ok(moves.into_iter().map(|moves| Coupling::new(moves.into_iter())).collect())
}

/// 0..n in a random order that depends on `seed` and `stream` alone (Fisher & Yates).
fn shuffled(n: usize, seed: u64, stream: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, index(words(seed, Purpose::Blocks, stream, i as u32)[0], i + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::draw_gaussian;

    fn snapshots(sizes: &[usize]) -> Snapshots {
        let mut offsets = vec![0];
        sizes.iter().for_each(|n| offsets.push(offsets[offsets.len() - 1] + n));
        let n = offsets[sizes.len()];
        let times = (0..sizes.len()).map(|k| k as f64).collect();
        Snapshots { dim: 2, times, offsets, samples: draw_gaussian(n, 2, 3) }
    }

    /// Shares of rows on both sides, from equally spaced words.
    fn marginals(coupling: &Coupling, n: usize, m: usize) -> (Vec<f64>, Vec<f64>) {
        const WORDS: u32 = 1 << 16;
        let (mut rows, mut columns) = (vec![0.0; n], vec![0.0; m]);
        for word in 0..WORDS {
            let (i, j) = coupling.pair(word << 16 | 1 << 15);
            rows[i] += 1.0 / f64::from(WORDS);
            columns[j] += 1.0 / f64::from(WORDS);
        }
        (rows, columns)
    }

    #[test]
    fn marginals_are_uniform() {
        let snapshots = snapshots(&[30, 47, 60]);
        for (k, (n, m)) in [(30, 47), (47, 60)].into_iter().enumerate() {
            let (rows, columns) = marginals(&optimal_couplings(&snapshots, 100, 1).unwrap()[k], n, m);
            assert!(rows.iter().all(|share| (share * n as f64 - 1.0).abs() < 0.02), "{rows:?}");
            assert!(columns.iter().all(|share| (share * m as f64 - 1.0).abs() < 0.02), "{columns:?}");
        }
    }

    /// Blocks of unequal sizes leave marginals nearly uniform: sizes differ by one row at most.
    #[test]
    fn blocks_cover_every_row() {
        let snapshots = snapshots(&[31, 47]);
        let couplings = optimal_couplings(&snapshots, 16, 1).unwrap();
        let (rows, columns) = marginals(&couplings[0], 31, 47);
        assert!(rows.iter().all(|share| (0.8..1.25).contains(&(share * 31.0))), "{rows:?}");
        assert!(columns.iter().all(|share| (0.9..1.1).contains(&(share * 47.0))), "{columns:?}");
        assert_eq!(optimal_couplings(&snapshots, 16, 1).unwrap(), couplings);
        assert_ne!(optimal_couplings(&snapshots, 16, 2).unwrap(), couplings);
        // A side with fewer rows than blocks.
        let few = optimal_couplings(&self::snapshots(&[2, 47]), 8, 1).unwrap();
        let (rows, columns) = marginals(&few[0], 2, 47);
        assert!(rows.iter().all(|&share| share > 0.3) && columns.iter().all(|&share| share > 0.0), "{rows:?}");
    }

    /// Pairs are those of the plan: moving along them costs W₂².
    #[test]
    fn pairs_move_at_the_least_cost() {
        let snapshots = snapshots(&[40, 40]);
        let coupling = &optimal_couplings(&snapshots, 100, 1).unwrap()[0];
        let squared = |i: usize, j: usize| -> f64 {
            let (x, y) = (&snapshots.rows(0)[2 * i..][..2], &snapshots.rows(1)[2 * j..][..2]);
            x.iter().zip(y).map(|(a, b)| f64::from(a - b).powi(2)).sum()
        };
        let mean: f64 = coupling.pairs.iter().map(|&[i, j]| squared(i as usize, j as usize)).sum::<f64>() / 40.0;
        let w2 = crate::transport::wasserstein2(2, snapshots.rows(0), snapshots.rows(1)).unwrap();
        assert!((mean / (w2 * w2) - 1.0).abs() < 1e-6, "{mean}, not {}", w2 * w2);
    }
}
