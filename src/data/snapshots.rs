//! Samples grouped by time.

use std::path::Path;

use super::array::list;
use super::grouping::SAME_TIME;
use crate::error::{Error, Result};

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
    /// Rows `[n, dim]` of snapshot `k`.
    pub fn rows(&self, k: usize) -> &[f32] {
        &self.samples[self.offsets[k] * self.dim..self.offsets[k + 1] * self.dim]
    }

    /// Number of rows of snapshot `k`.
    pub fn n_rows(&self, k: usize) -> usize {
        self.offsets[k + 1] - self.offsets[k]
    }

    /// The snapshot at `time`, to within the millionth of the range below which times are one.
    pub fn find(&self, time: f64) -> Option<usize> {
        find_time(&self.times, time)
    }

    /// [`Snapshots::find`], with an error for the user.
    ///
    /// # Errors
    /// [`Error::Input`] about `field` of `file`, listing the times there are.
    pub fn index_of(&self, time: f64, file: &Path, field: &str) -> Result<usize> {
        self.find(time).ok_or_else(|| {
            let fix = format!("choose one of: {}", list(&self.times));
            Error::input(file, field, format!("there is no snapshot at time {time}"), fix)
        })
    }
}

/// The index of `wanted` among increasing `times`: itself, the f32 nearest to it, or else the
/// nearest one that would be taken for the same time.
pub(super) fn find_time(times: &[f64], wanted: f64) -> Option<usize> {
    let exact = times.iter().position(|&t| t == wanted);
    let in_f32 = || times.iter().position(|&t| t == f64::from(wanted as f32));
    exact.or_else(in_f32).or_else(|| {
        let [first, .., last] = *times else { return None };
        let distance = |k: &usize| (times[*k] - wanted).abs();
        let nearest = (0..times.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        (distance(&nearest) <= SAME_TIME * (last - first)).then_some(nearest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_as_f64_and_as_f32() {
        let snapshots =
            Snapshots { dim: 1, times: vec![0.1, f64::from(0.3f32)], offsets: vec![0, 1, 2], samples: vec![5.0, 6.0] };
        let find = |time| snapshots.index_of(time, Path::new("a.npz"), "--from");
        assert_eq!((find(0.1).unwrap(), find(0.3).unwrap()), (0, 1));
        assert_eq!((find(0.100_000_1).unwrap(), find(0.299_999_9).unwrap()), (0, 1));
        assert!(find(0.100_001).is_err() && find(f64::NAN).is_err() && find(f64::INFINITY).is_err());
        let message = find(0.2).unwrap_err().to_string();
        assert_eq!(
            message,
            "a.npz: --from: there is no snapshot at time 0.2 (choose one of: 0.1, 0.30000001192092896)"
        );
    }
}
