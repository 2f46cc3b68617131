//! Samples grouped by time.

use std::collections::BTreeMap;

use crate::model::Coordinates;

/// Samples of a population at several times, one snapshot per time.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshots {
    /// Dimension of a sample.
    pub dim: usize,
    /// The distinct times, increasing.
    pub times: Vec<f64>,
    /// Snapshot `k` is rows `offsets[k]..offsets[k + 1]`; length `times.len() + 1`.
    pub offsets: Vec<usize>,
    /// All rows `[offsets.last(), dim]`.
    pub samples: Vec<f32>,
}

impl Snapshots {
    /// Groups rows `samples [n, dim]` by their finite `times [n]`, in place; rows of one time keep their order.
    ///
    /// Takes 12 bytes a row beside the samples. `None` when there are 2³² rows or more.
    pub fn group(dim: usize, mut samples: Vec<f32>, times: Vec<f64>) -> Option<Self> {
        u32::try_from(times.len()).ok()?;
        // +0.0 makes −0 and 0 one time. For finite numbers the map's order is that of the numbers.
        let key = |time: f64| {
            let bits = (time + 0.0).to_bits() as i64;
            bits ^ (((bits >> 63) as u64) >> 1) as i64
        };
        let mut groups: BTreeMap<i64, (f64, u32)> = BTreeMap::new();
        for &time in &times {
            groups.entry(key(time)).or_insert((time + 0.0, 0)).1 += 1;
        }
        let mut offsets = vec![0];
        let mut distinct = Vec::with_capacity(groups.len());
        let mut next = 0;
        for (time, count) in groups.values_mut() {
            distinct.push(*time);
            let n_rows = std::mem::replace(count, next);
            next += n_rows;
            offsets.push(next as usize);
        }
        let mut target: Vec<u32> = times
            .iter()
            .map(|&time| {
                let (_, place) = groups.entry(key(time)).or_default();
                *place += 1;
                *place - 1
            })
            .collect();
        drop(times);
        // Each swap puts one row where it belongs.
        for row in 0..target.len() {
            while target[row] as usize != row {
                let to = target[row] as usize;
                let (head, tail) = samples.split_at_mut(to.max(row) * dim);
                head[to.min(row) * dim..][..dim].swap_with_slice(&mut tail[..dim]);
                target.swap(row, to);
            }
        }
        Some(Snapshots { dim, times: distinct, offsets, samples })
    }

    /// Rows `[n, dim]` of snapshot `k`.
    pub fn rows(&self, k: usize) -> &[f32] {
        &self.samples[self.offsets[k] * self.dim..self.offsets[k + 1] * self.dim]
    }

    /// Number of rows of snapshot `k`.
    pub fn n_rows(&self, k: usize) -> usize {
        self.offsets[k + 1] - self.offsets[k]
    }

    /// The snapshot at `time`, if there is one.
    pub fn find(&self, time: f64) -> Option<usize> {
        self.times.iter().position(|&t| t == time)
    }

    /// Removes the snapshots whose index is in `held` and returns them.
    pub fn split_off(&mut self, held: &[usize]) -> Snapshots {
        let mut off = Snapshots { dim: self.dim, times: Vec::new(), offsets: vec![0], samples: Vec::new() };
        let mut kept = Snapshots { samples: Vec::new(), ..off.clone() };
        let mut end = 0;
        for k in 0..self.times.len() {
            let rows = self.offsets[k] * self.dim..self.offsets[k + 1] * self.dim;
            if held.contains(&k) {
                off.times.push(self.times[k]);
                off.samples.extend_from_slice(&self.samples[rows]);
                off.offsets.push(off.samples.len() / self.dim);
            } else {
                kept.times.push(self.times[k]);
                self.samples.copy_within(rows.clone(), end);
                end += rows.len();
                kept.offsets.push(end / self.dim);
            }
        }
        self.samples.truncate(end);
        kept.samples = std::mem::take(&mut self.samples);
        *self = kept;
        off
    }

    /// Changes samples and times from data units to network coordinates.
    pub fn to_network(&mut self, coordinates: &Coordinates) {
        coordinates.to_network(&mut self.samples);
        for time in &mut self.times {
            *time = coordinates.network_time(*time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grouping_is_stable_and_orders_times() {
        let times = vec![2.0, -1.0, 0.5, 2.0, -0.0, -1.0, 0.0, 2.0];
        let samples: Vec<f32> = (0..8).flat_map(|row| [row as f32, 10.0 * row as f32]).collect();
        let snapshots = Snapshots::group(2, samples, times).expect("few rows");
        assert_eq!(snapshots.times, [-1.0, 0.0, 0.5, 2.0]);
        assert_eq!(snapshots.offsets, [0, 2, 4, 5, 8]);
        let rows: Vec<f32> = snapshots.samples.chunks(2).map(|row| row[0]).collect();
        assert_eq!(rows, [1.0, 5.0, 4.0, 6.0, 2.0, 0.0, 3.0, 7.0]);
        assert!(snapshots.samples.chunks(2).all(|row| row[1] == 10.0 * row[0]));
    }

    #[test]
    fn splitting_keeps_every_row_once() {
        let snapshots = Snapshots::group(1, vec![0.0, 1.0, 2.0, 3.0, 4.0], vec![0.0, 1.0, 1.0, 2.0, 3.0]);
        let mut kept = snapshots.expect("few rows");
        let held = kept.split_off(&[1, 2]);
        assert_eq!((kept.times, kept.offsets, kept.samples), (vec![0.0, 3.0], vec![0, 1, 2], vec![0.0, 4.0]));
        assert_eq!((held.times, held.offsets, held.samples), (vec![1.0, 2.0], vec![0, 2, 3], vec![1.0, 2.0, 3.0]));
    }
}
