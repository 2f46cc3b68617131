//! Samples grouped by time.

use super::array::list;
use super::grouping::SAME_TIME;
use crate::error::{Error, InputKind, Origin, Result, check_len};
use crate::model::MAX_DIM;
#[cfg(feature = "files")]
use crate::rng::{Purpose, shuffled};

/// Samples of a population at several times, one snapshot per time.
///
/// ```
/// use action_matching::prelude::*;
///
/// let late = vec![4.0, 1.0, 6.0, 1.0];
/// let snapshots = Snapshots::from_rows(2, [(48.0, &late[..]), (12.0, &[0.0, 0.0])])?;
/// assert_eq!(snapshots.times, [12.0, 48.0]);
/// assert_eq!((snapshots.n_rows(0), snapshots.rows(1)), (1, &late[..]));
///
/// let error = Snapshots::from_rows(2, [(12.0, &[0.0, 0.0, 1.0])]).unwrap_err().to_string();
/// assert!(error.starts_with("snapshots: rows of time 12: have 3 values"), "{error}");
/// # Ok::<(), Error>(())
/// ```
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
    /// Snapshots of samples in memory: pairs of a time and its rows `[n, dim]`, row after row, in
    /// any order of the times. Rows and times are in data units; [`Snapshots::standardize`] takes
    /// them to those of the network.
    ///
    /// # Errors
    /// [`Error::Input`] names the time (and the row, if there is one) that cannot be used: no rows,
    /// an incomplete row, a number that is not finite, two times that are equal or closer than a
    /// millionth of the whole range.
    pub fn from_rows<R: AsRef<[f32]>>(dim: usize, rows: impl IntoIterator<Item = (f64, R)>) -> Result<Snapshots> {
        let mut rows: Vec<(f64, R)> = rows.into_iter().collect();
        // Times that are no numbers come last, and are refused below.
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut snapshots = Snapshots { dim, times: Vec::new(), offsets: vec![0], samples: Vec::new() };
        check_dim(dim)?;
        for (time, rows) in &rows {
            let rows = rows.as_ref();
            if rows.len() % dim != 0 {
                let problem = format!("have {} values, no multiple of the dimension {dim}", rows.len());
                return refuse(format!("rows of time {time}"), problem, format!("give {dim} values a row"));
            }
            if let Some(at) = rows.iter().position(|x| !x.is_finite()) {
                let problem = format!("row {}, column {}, both counted from 0, is {}", at / dim, at % dim, rows[at]);
                return refuse(format!("rows of time {time}"), problem, "leave such rows out".into());
            }
            snapshots.times.push(*time + 0.0); // −0 and 0 are one time
            snapshots.samples.extend_from_slice(rows);
            snapshots.offsets.push(snapshots.samples.len() / dim);
        }
        snapshots.validate()?;
        if let [first, .., last] = snapshots.times[..]
            && let Some(pair) = snapshots.times.windows(2).find(|pair| pair[1] - pair[0] <= SAME_TIME * (last - first))
        {
            let problem = format!("{} and {} are too close to tell apart", pair[0], pair[1]);
            return refuse("times".into(), problem, "give all rows of one time together".into());
        }
        Ok(snapshots)
    }

    /// Checks the assumptions of every function on snapshots: a dimension, at least one time,
    /// finite times that increase, and a row or more at each. Does not look at the samples
    /// themselves.
    ///
    /// # Errors
    /// [`Error::Input`] names the field, [`Error::Shape`] the buffer.
    pub fn validate(&self) -> Result<()> {
        let Snapshots { dim, times, offsets, samples } = self;
        check_dim(*dim)?;
        if times.is_empty() {
            return refuse("times".into(), "hold no time".into(), "give the rows of at least one".into());
        }
        if let Some(time) = times.iter().find(|time| !time.is_finite()) {
            return refuse("times".into(), format!("contain {time}"), "give finite times".into());
        }
        if let Some(pair) = times.windows(2).find(|pair| pair[0] >= pair[1]) {
            let problem = format!("{} is followed by {}", pair[0], pair[1]);
            return refuse("times".into(), problem, "give each time once, in increasing order".into());
        }
        check_len("offsets", times.len() + 1, offsets.len())?;
        if let Some(k) = (0..times.len()).find(|&k| offsets[k] >= offsets[k + 1]) {
            let field = format!("rows of time {}", times[k]);
            return refuse(field, "are none".into(), "leave out times without rows".into());
        }
        let n_rows = offsets[times.len()];
        check_len("offsets (first)", 0, offsets[0])?;
        check_len("samples", n_rows.saturating_mul(*dim), samples.len())
    }

    /// Rows `[n, dim]` of snapshot `k`.
    #[must_use]
    pub fn rows(&self, k: usize) -> &[f32] {
        &self.samples[self.offsets[k] * self.dim..self.offsets[k + 1] * self.dim]
    }

    /// Number of rows of snapshot `k`.
    #[must_use]
    pub fn n_rows(&self, k: usize) -> usize {
        self.offsets[k + 1] - self.offsets[k]
    }

    /// `n` random rows of snapshot `k`, or all if there are fewer, in an order that depends on
    /// `seed`, `purpose` and `k` alone.
    #[cfg(feature = "files")]
    pub(crate) fn random_rows(&self, k: usize, n: usize, seed: u64, purpose: Purpose) -> Vec<f32> {
        let (rows, order) = (self.rows(k), shuffled(self.n_rows(k), seed, purpose, k as u64));
        order.into_iter().take(n).flat_map(|row| &rows[row * self.dim..][..self.dim]).copied().collect()
    }

    /// The snapshot at `time`, to within the millionth of the range below which times are one.
    #[must_use]
    pub fn find(&self, time: f64) -> Option<usize> {
        find_time(&self.times, time)
    }

    /// [`Snapshots::find`], with an error for the user.
    ///
    /// # Errors
    /// [`Error::Input`] about `field` of `origin`, listing the times there are.
    pub fn index_of(&self, time: f64, origin: impl Into<Origin>, field: &str) -> Result<usize> {
        self.find(time).ok_or_else(|| {
            let fix = format!("choose one of: {}", list(&self.times));
            Error::input(origin, field, format!("there is no snapshot at time {time}"), fix).of_kind(InputKind::Missing)
        })
    }
}

fn refuse<T>(field: String, problem: String, fix: String) -> Result<T> {
    Err(Error::input("snapshots", field, problem, fix))
}

fn check_dim(dim: usize) -> Result<()> {
    if (1..=MAX_DIM).contains(&dim) {
        return Ok(());
    }
    refuse("dimension".into(), format!("is {dim}"), format!("use 1 to {MAX_DIM}"))
}

/// The index of `wanted` among increasing `times`: itself, the f32 nearest to it, or else the
/// nearest one that would be taken for the same time.
pub(super) fn find_time(times: &[f64], wanted: f64) -> Option<usize> {
    // Files may have a million times.
    let place = |wanted: f64| times.partition_point(|&t| t < wanted);
    let equal = |wanted: f64| Some(place(wanted)).filter(|&k| times.get(k) == Some(&wanted));
    equal(wanted).or_else(|| equal(f64::from(wanted as f32))).or_else(|| {
        let [first, .., last] = *times else { return None };
        let distance = |k: &usize| (times[*k] - wanted).abs();
        let after = place(wanted);
        let beside = after.saturating_sub(1)..times.len().min(after + 1);
        let nearest = beside.min_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        (distance(&nearest) <= SAME_TIME * (last - first)).then_some(nearest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way to be wrong has a message that names it.
    #[test]
    fn rows_in_memory_are_checked() {
        let refused = |dim: usize, rows: &[(f64, &[f32])]| {
            Snapshots::from_rows(dim, rows.iter().copied()).expect_err("cannot be used").to_string()
        };
        let row: &[f32] = &[1.0, 2.0];
        for (dim, rows, message) in [
            (0, vec![(0.0, row)], "dimension: is 0 (use 1 to 1024)"),
            (1025, vec![(0.0, row)], "dimension: is 1025"),
            (2, vec![], "times: hold no time"),
            (2, vec![(0.0, row), (1.0, &[])], "rows of time 1: are none"),
            (
                2,
                vec![(0.0, row), (0.5, &[1.0, 2.0, 3.0])],
                "rows of time 0.5: have 3 values, no multiple of the dimension 2",
            ),
            (3, vec![(0.0, row)], "rows of time 0: have 2 values"),
            (2, vec![(0.0, row), (f64::NAN, row)], "times: contain NaN"),
            (2, vec![(f64::NEG_INFINITY, row), (0.0, row)], "times: contain -inf"),
            (2, vec![(0.0, row), (2.0, row), (0.0, row)], "times: 0 is followed by 0"),
            (2, vec![(0.0, row), (-0.0, row)], "times: 0 is followed by 0"),
            (2, vec![(0.0, row), (0.7, row), (0.700_000_05, row), (1.0, row)], "0.7 and 0.70000005 are too close"),
            (
                2,
                vec![(3.0, &[1.0, 2.0, 3.0, f32::NAN])],
                "rows of time 3: row 1, column 1, both counted from 0, is NaN",
            ),
            (1, vec![(3.0, &[f32::INFINITY])], "is inf"),
        ] {
            let error = refused(dim, &rows);
            assert!(error.starts_with("snapshots: ") && error.contains(message), "{error}, not {message}");
        }
    }

    #[test]
    fn broken_snapshots_are_refused() {
        let good = Snapshots::from_rows(2, [(5.0, vec![1.0; 6]), (-1.0, vec![2.0; 4])]).unwrap();
        let whole = Snapshots { dim: 2, times: vec![-1.0, 5.0], offsets: vec![0, 2, 5], samples: good.samples.clone() };
        assert_eq!(good, whole);
        assert_eq!(good.samples, [2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        for (broken, message) in [
            (Snapshots { dim: 0, ..good.clone() }, "dimension"),
            (Snapshots { dim: 3, ..good.clone() }, "samples: expected 15"),
            (Snapshots { times: vec![5.0, -1.0], ..good.clone() }, "5 is followed by -1"),
            (Snapshots { times: vec![1.0], ..good.clone() }, "offsets: expected 2"),
            (Snapshots { offsets: vec![0, 5, 2], ..good.clone() }, "rows of time 5: are none"),
            (Snapshots { offsets: vec![1, 2, 5], ..good.clone() }, "offsets (first)"),
            (Snapshots { offsets: vec![0, 2, usize::MAX], ..good.clone() }, "samples"),
            (Snapshots { samples: vec![0.0; 9], ..good.clone() }, "samples: expected 10"),
        ] {
            let error = broken.validate().expect_err("is broken").to_string();
            assert!(error.contains(message), "{error}, not {message}");
        }
    }

    #[test]
    fn times_are_found_as_f64_and_as_f32() {
        let snapshots =
            Snapshots { dim: 1, times: vec![0.1, f64::from(0.3f32)], offsets: vec![0, 1, 2], samples: vec![5.0, 6.0] };
        let find = |time| snapshots.index_of(time, std::path::Path::new("a.npz"), "--from");
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
