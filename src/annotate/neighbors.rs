//! The nearest rows, by a search through all of them: trees are no faster in the tens of dimensions
//! that embeddings have.

use pulp::Arch;

use crate::error::Result;
use crate::stage::Stage;

/// Rows of the searched set that are compared with a row at a time.
const BLOCK: usize = 64;

/// Indices `[n, k]` of the `k` rows of `among [m, dim]` that are nearest to each row of
/// `rows [n, dim]`, nearest first; `k` is at most m. Equally near rows are taken in their order.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted) if the watch of `stage` cancels.
pub fn nearest(dim: usize, rows: &[f32], among: &[f32], k: usize, stage: &Stage) -> Result<Vec<u32>> {
    /// Rows that a thread takes at a time.
    const AT_ONCE: usize = 64;
    let m = among.len() / dim;
    let k = k.min(m);
    // Coordinate by coordinate in each block, so that the sums of a block are a vector's lanes.
    let mut blocks = vec![f32::INFINITY; m.div_ceil(BLOCK) * BLOCK * dim];
    for (j, row) in among.chunks_exact(dim).enumerate() {
        row.iter().enumerate().for_each(|(i, &x)| blocks[j / BLOCK * BLOCK * dim + i * BLOCK + j % BLOCK] = x);
    }
    let arch = Arch::new();
    let parts: Vec<&[f32]> = rows.chunks(AT_ONCE * dim).collect();
    let found = stage.map(stage.threads, &parts, |part| {
        let mut found = Vec::with_capacity(part.len() / dim * k);
        arch.dispatch(|| part.chunks_exact(dim).for_each(|row| search(row, &blocks, k, &mut found)));
        Ok(found)
    })?;
    Ok(found.concat())
}

/// Appends the `k` nearest rows of `blocks`.
#[inline(always)]
fn search(row: &[f32], blocks: &[f32], k: usize, found: &mut Vec<u32>) {
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(k + 1);
    let mut farthest = f32::INFINITY;
    for (number, block) in blocks.chunks_exact(BLOCK * row.len()).enumerate() {
        let mut squared = [0.0f32; BLOCK];
        for (x, column) in row.iter().zip(block.chunks_exact(BLOCK)) {
            for (sum, y) in squared.iter_mut().zip(column) {
                let difference = x - y;
                *sum += difference * difference;
            }
        }
        // The rows that fill up the last block are infinitely far.
        for (lane, &distance) in squared.iter().enumerate() {
            if distance < farthest {
                let place = best.partition_point(|(other, _)| *other <= distance);
                best.insert(place, (distance, (number * BLOCK + lane) as u32));
                best.truncate(k);
                if best.len() == k {
                    farthest = best[k - 1].0;
                }
            }
        }
    }
    found.extend(best.iter().map(|(_, index)| index));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::draw_gaussian;
    use crate::rng::Stream;

    #[test]
    fn the_nearest_rows_are_those_of_a_sort() {
        for (m, k) in [(1, 3), (63, 5), (64, 64), (200, 7)] {
            let dim = 3;
            let among = draw_gaussian(m, dim, &mut Stream::of_normals(1, dim));
            let rows = draw_gaussian(70, dim, &mut Stream::of_normals(2, dim));
            let found = nearest(dim, &rows, &among, k, &Stage::new(2, &())).expect("found");
            for (row, found) in rows.chunks_exact(dim).zip(found.chunks_exact(k.min(m))) {
                let squared = |j: u32| -> f64 {
                    let other = &among[j as usize * dim..][..dim];
                    row.iter().zip(other).map(|(x, y)| f64::from(x - y).powi(2)).sum()
                };
                let mut order: Vec<u32> = (0..m as u32).collect();
                order.sort_by(|&a, &b| squared(a).total_cmp(&squared(b)));
                assert_eq!(found, &order[..k.min(m)], "{m}, {k}");
            }
        }
    }
}
