//! Samples grouped by time.

use super::array::list;
use super::grouping::SAME_TIME;
use super::row_mass::RowMass;
use crate::error::{Error, InputKind, Origin, Result, check_len};
use crate::model::MAX_DIM;
use crate::rng::{Purpose, shuffled, unit_f32, words};

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
    /// What each row weighs, and how fast it grows; all rows alike by default.
    pub mass: RowMass,
}

impl Snapshots {
    /// No snapshots, of samples of `dim` dimensions.
    pub(super) fn none(dim: usize) -> Snapshots {
        Snapshots { dim, times: Vec::new(), offsets: vec![0], samples: Vec::new(), mass: RowMass::default() }
    }

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
        let (times, samples) = (Vec::new(), Vec::new());
        let mut snapshots = Snapshots { dim, times, offsets: vec![0], samples, mass: RowMass::default() };
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
        let Snapshots { dim, times, offsets, samples, mass } = self;
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
        check_len("samples", n_rows.saturating_mul(*dim), samples.len())?;
        mass.validate(n_rows, times.len())
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

    /// The same snapshots with a weight of each row, in the order of [`Snapshots::samples`]: 0 or
    /// more, not all 0 in a snapshot. Rows count, and are drawn, in proportion to their weights;
    /// the sum of a snapshot is its mass.
    ///
    /// ```
    /// use action_matching::prelude::*;
    ///
    /// let snapshots = Snapshots::from_rows(1, [(0.0, [1.0, 2.0]), (1.0, [4.0, 8.0])])?;
    /// let weighted = snapshots.clone().weighted(vec![1.0, 3.0, 0.5, 0.5])?;
    /// assert_eq!((snapshots.total(0), weighted.total(0), weighted.total(1)), (2.0, 4.0, 1.0));
    /// let (_, coordinates) = weighted.standardize(Standardization::Isotropic)?;
    /// assert_eq!(coordinates.mean[0], (1.75 + 6.0) / 2.0);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::Input`] for weights that cannot be used.
    pub fn weighted(mut self, weights: Vec<f64>) -> Result<Snapshots> {
        self.mass = self.mass.with_weights(&self.offsets, weights)?;
        Ok(self)
    }

    /// The same snapshots with a net growth rate of each row, per unit of their times, that is
    /// known before a model is trained. Pairing multiplies the mass of a row by exp(rate ·
    /// interval) before it divides it among the rows of the next snapshot.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::Input`] for rates that cannot be used.
    pub fn growing(mut self, rates: Vec<f64>) -> Result<Snapshots> {
        self.mass = self.mass.with_growth(&self.offsets, rates)?;
        Ok(self)
    }

    /// Mass of snapshot `k`: the sum of its weights, or else its number of rows.
    #[must_use]
    pub fn total(&self, k: usize) -> f64 {
        self.mass.total(k).unwrap_or(self.n_rows(k) as f64)
    }

    /// Weights of the rows of snapshot `k`, if they are not all alike.
    #[must_use]
    pub fn weights(&self, k: usize) -> Option<&[f64]> {
        self.mass.weights(self.offsets[k]..self.offsets[k + 1])
    }

    /// Growth rates of the rows of snapshot `k` per unit of its time, if they are known.
    #[must_use]
    pub fn growth(&self, k: usize) -> Option<&[f64]> {
        self.mass.growth(self.offsets[k]..self.offsets[k + 1])
    }

    /// Mass at the time after snapshot `k` relative to its own, if its rows grow at the rates that
    /// are known; 1 if none are.
    #[must_use]
    pub fn grown(&self, k: usize) -> f64 {
        let Some(rates) = self.growth(k) else { return 1.0 };
        let interval = self.times[k + 1] - self.times[k];
        let grown = |(row, rate): (usize, &f64)| self.weights(k).map_or(1.0, |w| w[row]) * (rate * interval).exp();
        rates.iter().enumerate().map(grown).sum::<f64>() / self.total(k)
    }

    /// Refuses growth rates by which rows would grow without measure.
    pub(crate) fn check_grown(&self) -> Result<()> {
        /// A factor of e²⁰ between two snapshots.
        const MOST: f64 = 20.0;
        for k in 0..self.times.len() - 1 {
            let interval = self.times[k + 1] - self.times[k];
            let rates = self.growth(k).unwrap_or(&[]);
            if let Some(row) = rates.iter().position(|rate| (rate * interval).abs() > MOST) {
                let problem =
                    format!("let row {row} of snapshot {k} grow by a factor of e^{:.0}", rates[row] * interval);
                let fix = "give net rates of birth less death, per unit of the times of the data";
                return Err(Error::input("snapshots", "growth rates", problem, fix));
            }
        }
        Ok(())
    }

    /// What each row counts where rows of all snapshots are taken together, 1 in the mean of every
    /// snapshot; `None` if all count alike.
    pub(super) fn row_factors(&self) -> Option<Vec<f64>> {
        let of = |k: usize| -> Option<Vec<f64>> {
            let unit = self.n_rows(k) as f64 / self.total(k);
            Some(self.weights(k)?.iter().map(|weight| weight * unit).collect())
        };
        (0..self.times.len()).map(of).collect::<Option<Vec<_>>>().map(|factors| factors.concat())
    }

    /// The row of snapshot `k` that the random `word` selects, with a probability in proportion to
    /// its weight (to 2⁻³²).
    #[inline(always)]
    #[must_use]
    pub fn draw(&self, k: usize, word: u32) -> usize {
        self.mass.draw(self.offsets[k]..self.offsets[k + 1], word)
    }

    /// As many rows as snapshot `k` has, in random order that depends on `seed`, `purpose` and
    /// `stream` alone: each once, or, if they have weights, as often as its weight says, rounded up
    /// or down at random (systematic resampling).
    pub(crate) fn random_order(&self, k: usize, seed: u64, purpose: Purpose, stream: u64) -> Vec<usize> {
        let mut order = shuffled(self.n_rows(k), seed, purpose, stream);
        if let Some(weights) = self.weights(k) {
            // Heavy rows first, and equal ones in random order: equal steps along the order of the
            // file may have a period in common with it.
            let mut line = shuffled(order.len(), seed, Purpose::WeightedRows, stream);
            line.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
            let [offset, ..] = words(seed, Purpose::WeightedRows, stream, u32::MAX);
            let step = self.total(k) / order.len() as f64;
            let (mut resampled, mut sum) = (Vec::with_capacity(order.len()), 0.0);
            let mut position = f64::from(unit_f32(offset)) * step;
            for &row in &line {
                sum += weights[row];
                while position < sum && resampled.len() < order.len() {
                    resampled.push(row);
                    position += step;
                }
            }
            // Sums are rounded: what is missing at the end is the last row that has a weight.
            let last = line.iter().copied().rfind(|&row| weights[row] > 0.0).unwrap_or(0);
            resampled.resize(order.len(), last);
            order.iter_mut().for_each(|i| *i = resampled[*i]);
        }
        order
    }

    /// The first `n` rows of [`Snapshots::random_order`] for stream `k`, or all if there are fewer.
    #[cfg(feature = "files")]
    pub(crate) fn random_rows(&self, k: usize, n: usize, seed: u64, purpose: Purpose) -> Vec<f32> {
        let (rows, order) = (self.rows(k), self.random_order(k, seed, purpose, k as u64));
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

    /// Each row as often as its weight says, to less than one; the first of them are a random part.
    #[test]
    fn a_random_order_has_the_weights() {
        let rows: Vec<f32> = (0..50).map(|i| i as f32).collect();
        let snapshots = Snapshots::from_rows(1, [(0.0, &rows[..]), (1.0, &rows[..])]).unwrap();
        assert_eq!(snapshots.random_order(1, 3, Purpose::Evaluation, 1), shuffled(50, 3, Purpose::Evaluation, 1));
        let weight = |row: usize| if row % 50 == 7 { 20.0 } else { (row % 4) as f64 };
        let weighted = snapshots.weighted((0..100).map(weight).collect()).unwrap();
        let (mut first_ten, total) = (0.0, weighted.total(1));
        for seed in 0..400 {
            let order = weighted.random_order(1, seed, Purpose::Evaluation, 1);
            assert_eq!(order.len(), 50);
            for row in 0..50 {
                let wanted = 50.0 * weight(50 + row) / total;
                let count = order.iter().filter(|chosen| **chosen == row).count() as f64;
                assert!((count - wanted).abs() < 1.0, "row {row}: {count}, not {wanted}");
            }
            first_ten += order[..10].iter().filter(|row| **row == 7).count() as f64 / 400.0;
        }
        assert!((first_ten / (10.0 * 20.0 / total) - 1.0).abs() < 0.15, "{first_ten}");
        #[cfg(feature = "files")]
        assert_eq!(weighted.random_rows(1, 9, 0, Purpose::Evaluation).len(), 9);
        // Weights in a period: four fifths are of heavy rows, whatever the offset.
        let alternating = Snapshots::from_rows(1, [(0.0, vec![0.0; 60])]).unwrap();
        let alternating =
            alternating.weighted((0..60).map(|row| if row % 2 == 0 { 4.0 } else { 1.0 }).collect()).unwrap();
        for seed in 0..50 {
            let order = alternating.random_order(0, seed, Purpose::Evaluation, 0);
            let heavy = order.iter().filter(|row| **row % 2 == 0).count();
            assert!((47..=49).contains(&heavy), "{heavy} of 60, not about 48");
        }
    }

    #[test]
    fn weights_and_rates_in_memory_are_checked() {
        let good = Snapshots::from_rows(1, [(0.0, [1.0, 2.0]), (1.0, [3.0, 4.0])]).unwrap();
        for (weights, message) in [
            (vec![1.0; 3], "weights: expected 4"),
            (vec![1.0, -1.0, 1.0, 1.0], "row 1 of all, counted from 0, has none from 0"),
            (vec![1.0, 1.0, f64::NAN, 1.0], "row 2 of all"),
            (vec![1.0, 1.0, 0.0, 0.0], "are all 0 in snapshot 1"),
        ] {
            let error = good.clone().weighted(weights).unwrap_err().to_string();
            assert!(error.contains(message), "{error}, not {message}");
        }
        assert!(good.clone().growing(vec![0.0, f64::INFINITY, 0.0, 0.0]).unwrap_err().to_string().contains("is inf"));
        let mut other = good.clone().weighted(vec![1.0; 4]).unwrap();
        other.samples.push(5.0);
        other.offsets[2] = 5;
        assert!(other.validate().unwrap_err().to_string().contains("weights: expected 5"));
    }

    #[test]
    fn broken_snapshots_are_refused() {
        let good = Snapshots::from_rows(2, [(5.0, vec![1.0; 6]), (-1.0, vec![2.0; 4])]).unwrap();
        let whole = Snapshots {
            dim: 2,
            times: vec![-1.0, 5.0],
            offsets: vec![0, 2, 5],
            samples: good.samples.clone(),
            mass: RowMass::default(),
        };
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
        let snapshots = Snapshots {
            dim: 1,
            times: vec![0.1, f64::from(0.3f32)],
            offsets: vec![0, 1, 2],
            samples: vec![5.0, 6.0],
            mass: RowMass::default(),
        };
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
