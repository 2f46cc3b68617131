//! The rows of a training batch, drawn straight into a tile.
//!
//! A row depends on (seed, step, row) alone, so every division of a batch into tiles and threads draws the same batch.

use super::loss::set_time;
use super::workspace::Workspace;
use crate::engine::{LaplacianRule, Path, TimeRule, Training};
use crate::rng::{self, Purpose, RowWords};

/// Interior rows `first..first + n_rows` of `step`: x and t into the input, ω(t) and ω′(t) aside.
pub fn interior(training: &Training, step: u64, first: usize, n_rows: usize, work: &mut Workspace) {
    let snapshots = &training.snapshots;
    let offset = rng::words(training.seed, Purpose::TimeOffset, step, 0)[0];
    for row in 0..n_rows {
        let index = first + row;
        let words = rng::words(training.seed, Purpose::Interior, step, index as u32);
        let t = rng::unit_f32(match training.time_rule {
            // Integer arithmetic: the same times on every engine.
            TimeRule::LowDiscrepancy => {
                offset.wrapping_add((((index as u64) << 32) / training.n_interior as u64) as u32)
            }
            TimeRule::Uniform => words[0],
        });
        let (left, ratio, mass) = training.interval(f64::from(t));
        match training.path {
            Path::Linear => {
                let (from, to) = match &training.couplings {
                    Some(couplings) => couplings[left].pair(words[1]),
                    None => {
                        let choose = |word, snapshot| rng::index(word, snapshots.n_rows(snapshot));
                        (choose(words[1], left), choose(words[2], left + 1))
                    }
                };
                let (from, to) = (sample(training, left, from), sample(training, left + 1, to));
                for (i, (&from, &to)) in from.iter().zip(to).enumerate() {
                    *work.a0.at_mut(row, i) = from + ratio as f32 * (to - from);
                }
            }
            Path::Nearest => place(chosen(training, left + usize::from(ratio >= 0.5), words[1]), row, work),
        }
        set_time(&training.architecture, work, row, t);
        let (omega, d_omega) = training.objective.time_weight.at(f64::from(t));
        work.omega[row] = (omega * mass) as f32;
        work.d_omega[row] = (d_omega * mass) as f32;
    }
    probes(training.laplacian.rule, training.architecture.dim, training.seed, step, first, n_rows, work);
}

/// Probes of rows `first..first + n_rows` of `step`. Component i of probe k has the number k·d + i in its row.
pub fn probes(
    rule: LaplacianRule,
    dim: usize,
    seed: u64,
    step: u64,
    first: usize,
    n_rows: usize,
    work: &mut Workspace,
) {
    let n_probes = work.probes.len();
    let mut place = |row: usize, number: usize, value: f32| {
        if number < n_probes * dim {
            *work.probes[number / dim].input.at_mut(row, number % dim) = value;
        }
    };
    match rule {
        _ if n_probes == 0 => {}
        LaplacianRule::Exact => unit_probes(work, n_rows, dim),
        LaplacianRule::Rademacher => {
            const BITS: usize = u32::BITS as usize;
            let words = RowWords::new(seed, Purpose::Probe, step, (n_probes * dim).div_ceil(BITS));
            for row in 0..n_rows {
                for (i, word) in words.of((first + row) as u32).flatten().enumerate() {
                    for bit in 0..BITS.min((n_probes * dim).saturating_sub(i * BITS)) {
                        place(row, i * BITS + bit, if word >> bit & 1 == 0 { 1.0 } else { -1.0 });
                    }
                }
            }
        }
        LaplacianRule::Gaussian => {
            let words = RowWords::new(seed, Purpose::Probe, step, n_probes * dim);
            for row in 0..n_rows {
                for (i, value) in words.of((first + row) as u32).flat_map(rng::normals).enumerate() {
                    place(row, i, value);
                }
            }
        }
    }
}

/// The unit vectors as probes: their curvatures add up to the Laplacian.
pub fn unit_probes(work: &mut Workspace, n_rows: usize, dim: usize) {
    for (k, probe) in work.probes.iter_mut().enumerate() {
        for row in 0..n_rows {
            for i in 0..dim {
                *probe.input.at_mut(row, i) = f32::from(u8::from(i == k));
            }
        }
    }
}

/// Boundary rows `first..first + n_rows` of `step`, from the first snapshot or (`at_end`) from the last.
pub fn boundary(training: &Training, at_end: bool, step: u64, first: usize, n_rows: usize, work: &mut Workspace) {
    let (purpose, snapshot, t) = if at_end {
        (Purpose::Boundary1, training.snapshots.times.len() - 1, 1.0)
    } else {
        (Purpose::Boundary0, 0, 0.0)
    };
    for row in 0..n_rows {
        let word = rng::words(training.seed, purpose, step, (first + row) as u32)[0];
        place(chosen(training, snapshot, word), row, work);
        set_time(&training.architecture, work, row, t);
    }
}

/// Row `index` of `snapshot`.
fn sample(training: &Training, snapshot: usize, index: usize) -> &[f32] {
    let snapshots = &training.snapshots;
    &snapshots.samples[(snapshots.offsets[snapshot] + index) * snapshots.dim..][..snapshots.dim]
}

/// The row of `snapshot` that `word` chooses.
fn chosen(training: &Training, snapshot: usize, word: u32) -> &[f32] {
    sample(training, snapshot, rng::index(word, training.snapshots.n_rows(snapshot)))
}

fn place(x: &[f32], row: usize, work: &mut Workspace) {
    for (i, &value) in x.iter().enumerate() {
        *work.a0.at_mut(row, i) = value;
    }
}
