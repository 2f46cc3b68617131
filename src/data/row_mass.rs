//! What each row weighs in its snapshot, and how fast it grows.

use std::ops::Range;
use std::path::Path;

use super::array::Meter;
use super::conditions::RowGroups;
use super::file::DataFile;
use super::snapshots::Snapshots;
use super::source::DataSource;
use crate::error::{Error, Result, check_len};
use crate::rng;

/// Weights of the rows of snapshots, and growth rates known before; none of both by default, and
/// then all rows of a snapshot count alike.
///
/// A snapshot is the empirical measure with the weights of its rows, whose sum is its mass. They
/// have one meaning throughout: rows are drawn with probabilities in proportion to them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowMass {
    weights: Option<Weights>,
    growth: Option<Vec<f64>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Weights {
    /// Of each row.
    values: Vec<f64>,
    /// Share of the snapshot's weight up to each row, in units of 2⁻³²; the largest number from the
    /// last row on that has a weight.
    cumulative: Vec<u32>,
    /// Sum of each snapshot.
    totals: Vec<f64>,
}

impl Weights {
    /// Of rows whose snapshots start at `offsets`.
    ///
    /// # Errors
    /// The row that is no weight, or else the snapshot without any.
    fn new(offsets: &[usize], values: Vec<f64>) -> Result<Self, Unusable> {
        if let Some(row) = values.iter().position(|weight| !(0.0..=MOST).contains(weight)) {
            return Err(Unusable::Row(row));
        }
        let none = |ends: &[usize]| values[ends[0]..ends[1]].iter().all(|&weight| weight == 0.0);
        if let Some(k) = offsets.windows(2).position(none) {
            return Err(Unusable::Snapshot(k));
        }
        Ok(Weights::of(offsets, values))
    }

    /// Of finite `values`, 0 or more, not all 0 in a snapshot.
    fn of(offsets: &[usize], values: Vec<f64>) -> Self {
        let mut weights = Weights { cumulative: Vec::with_capacity(values.len()), values, totals: Vec::new() };
        for ends in offsets.windows(2) {
            let values = &weights.values[ends[0]..ends[1]];
            let total: f64 = values.iter().sum();
            let last = values.iter().rposition(|&weight| weight > 0.0).unwrap_or(0);
            let mut sum = 0.0;
            let up_to = |(row, weight): (usize, &f64)| {
                sum += weight;
                if row < last { (sum / total * WORDS) as u32 } else { u32::MAX }
            };
            weights.cumulative.extend(values.iter().enumerate().map(up_to));
            weights.totals.push(total);
        }
        weights
    }
}

/// What cannot be used.
enum Unusable {
    Row(usize),
    Snapshot(usize),
}

/// Largest weight, so that sums and squares stay finite.
const MOST: f64 = 1e100;
/// Number of random words.
const WORDS: f64 = 4_294_967_296.0;

impl RowMass {
    /// Weights and rates of rows in memory: see
    /// [`Snapshots::weighted`](super::Snapshots::weighted).
    pub(super) fn with_weights(self, offsets: &[usize], values: Vec<f64>) -> Result<Self> {
        check_len("weights", offsets.last().copied().unwrap_or(0), values.len())?;
        let refuse = |problem: String| {
            Err(Error::input("snapshots", "weights", problem, "give finite weights, 0 or more, that are not all 0"))
        };
        match Weights::new(offsets, values) {
            Ok(weights) => Ok(RowMass { weights: Some(weights), ..self }),
            Err(Unusable::Row(row)) => refuse(format!("row {row} of all, counted from 0, has none from 0 to {MOST:e}")),
            Err(Unusable::Snapshot(k)) => refuse(format!("are all 0 in snapshot {k}, counted from 0")),
        }
    }

    /// The same with growth rates.
    pub(super) fn with_growth(self, offsets: &[usize], rates: Vec<f64>) -> Result<Self> {
        check_len("growth rates", offsets.last().copied().unwrap_or(0), rates.len())?;
        if let Some(row) = rates.iter().position(|rate| !rate.is_finite()) {
            let problem = format!("row {row} of all, counted from 0, is {}", rates[row]);
            return Err(Error::input("snapshots", "growth rates", problem, "give finite rates"));
        }
        Ok(RowMass { growth: Some(rates), ..self })
    }

    /// Checks that there is a weight for each of `n_rows` rows in `n_snapshots`, if there are any.
    pub(super) fn validate(&self, n_rows: usize, n_snapshots: usize) -> Result<()> {
        if let Some(Weights { values, totals, .. }) = &self.weights {
            check_len("weights", n_rows, values.len())?;
            check_len("weights (snapshots)", n_snapshots, totals.len())?;
        }
        self.growth.as_ref().map_or(Ok(()), |rates| check_len("growth rates", n_rows, rates.len()))
    }

    /// That of some `rows` alone, none of which is [without weight](RowMass::counts), in snapshots
    /// that start at `offsets`.
    pub(super) fn of_rows(&self, rows: &[usize], offsets: &[usize]) -> RowMass {
        let chosen = |values: &[f64]| -> Vec<f64> { rows.iter().map(|&row| values[row]).collect() };
        RowMass {
            weights: self.weights.as_ref().map(|weights| Weights::of(offsets, chosen(&weights.values))),
            growth: self.growth.as_ref().map(|rates| chosen(rates)),
        }
    }

    /// False for a row that has the weight 0.
    pub(super) fn counts(&self, row: usize) -> bool {
        self.weights.as_ref().is_none_or(|weights| weights.values[row] > 0.0)
    }

    /// Weights of the rows `of_rows`, if there are any.
    pub(super) fn weights(&self, of_rows: Range<usize>) -> Option<&[f64]> {
        self.weights.as_ref().map(|weights| &weights.values[of_rows])
    }

    /// Share of its snapshot's weight up to each row, in units of 2⁻³², if there are weights: the
    /// table behind [`Snapshots::draw`](super::Snapshots::draw).
    pub(crate) fn cumulative(&self) -> Option<&[u32]> {
        self.weights.as_ref().map(|weights| &weights.cumulative[..])
    }

    /// Growth rates of the rows `of_rows`, if they are known.
    pub(super) fn growth(&self, of_rows: Range<usize>) -> Option<&[f64]> {
        self.growth.as_ref().map(|rates| &rates[of_rows])
    }

    /// Sum of the weights of snapshot `k`, if there are any.
    pub(super) fn total(&self, k: usize) -> Option<f64> {
        self.weights.as_ref().map(|weights| weights.totals[k])
    }

    /// The row that `word` selects among those of a snapshot, `of_rows`.
    #[inline(always)]
    pub(super) fn draw(&self, of_rows: Range<usize>, word: u32) -> usize {
        match &self.weights {
            None => rng::index(word, of_rows.len()),
            // Integer arithmetic, so that every engine selects the same rows. The largest number
            // stands for the end.
            Some(Weights { cumulative, .. }) => {
                let word = word.min(u32::MAX - 1);
                cumulative[of_rows].partition_point(|&below| below <= word)
            }
        }
    }

    /// Divides the rates by the length of a new unit of time.
    pub(super) fn rescale_time(&mut self, unit: f64) {
        self.growth.iter_mut().flatten().for_each(|rate| *rate *= unit);
    }

    /// What there is, with its name.
    #[cfg(feature = "files")]
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'static str, &[f64])> {
        let weights = self.weights.as_ref().map(|weights| (WEIGHTS, &weights.values[..]));
        [weights, self.growth.as_ref().map(|rates| (GROWTH, &rates[..]))].into_iter().flatten()
    }
}

/// Weights and rates of the rows of a file, in the order of the file.
#[derive(Default)]
pub(super) struct FileMass {
    weights: Option<Vec<f64>>,
    growth: Option<Vec<f64>>,
}

impl FileMass {
    /// As `source` names them in `file`, which has `n_rows` rows.
    ///
    /// # Errors
    /// [`Error::Input`] if one is missing, has another length or a value in a row that cannot be
    /// used.
    pub fn read(source: &DataSource, file: &mut DataFile, n_rows: usize, meter: &mut Meter<'_>) -> Result<Self> {
        let mut read = |name: &Option<String>, what: &str, fix: &str| -> Result<Option<Vec<f64>>> {
            let Some(name) = name else { return Ok(None) };
            let path = &source.path;
            let mut values = file.values(path, (name, what), n_rows, meter)?;
            if what == WEIGHTS && name.rsplit('/').next() == Some(LOG_WEIGHTS) {
                values.iter_mut().for_each(|value| *value = value.exp());
            }
            let is_bad = |value: &f64| !value.is_finite() || what == WEIGHTS && !(0.0..=MOST).contains(value);
            match values.iter().position(is_bad) {
                Some(row) => {
                    let problem = format!("row {} (counted from 0) is {}", file.file_row(row), values[row]);
                    Err(Error::input(path, name, problem, fix))
                }
                None => Ok(Some(values)),
            }
        };
        let weights = read(&source.weights, WEIGHTS, "give finite weights, 0 or more; 0 leaves a row out")?;
        let growth = read(&source.growth, GROWTH, "give a finite rate in every row, 0 where it is not known")?;
        Ok(FileMass { weights, growth })
    }

    /// Those of training and of held-out rows, whose snapshots start at `offsets`, where each row
    /// of the file has the index of `destination` among all.
    ///
    /// # Errors
    /// [`Error::Input`] for a snapshot, at one of the `times`, whose weights are all 0.
    pub fn divided(
        self,
        source: &DataSource,
        destination: Option<&[u32]>,
        sides: [(&[usize], &[f64]); 2],
    ) -> Result<[RowMass; 2]> {
        let moved = |values: Vec<f64>| match destination {
            None => values,
            Some(destination) => {
                let mut moved = vec![0.0; values.len()];
                values.iter().zip(destination).for_each(|(&value, &at)| moved[at as usize] = value);
                moved
            }
        };
        let n_training = sides[0].0.last().copied().unwrap_or(0);
        let split = |values: Option<Vec<f64>>| match values.map(moved) {
            None => [None, None],
            Some(mut values) => {
                let held_out = values.split_off(n_training);
                [Some(values), Some(held_out)]
            }
        };
        let ([weights, held_out_weights], [growth, held_out_growth]) = (split(self.weights), split(self.growth));
        let side = |weights: Option<Vec<f64>>, growth, (offsets, times): (&[usize], &[f64])| {
            let refuse = |problem: String, fix: &str| {
                Err(Error::input(&source.path, source.weights.as_deref().unwrap_or(WEIGHTS), problem, fix))
            };
            let weights = match weights.map(|weights| Weights::new(offsets, weights)).transpose() {
                Ok(weights) => weights,
                Err(Unusable::Row(_)) => {
                    return refuse("holds a number that is no weight".into(), "rescale the weights");
                }
                Err(Unusable::Snapshot(k)) => {
                    let fix = "give a row of each time a weight, or leave the time out";
                    return refuse(format!("is 0 in every row of time {}", times[k]), fix);
                }
            };
            Ok(RowMass { weights, growth })
        };
        Ok([side(weights, growth, sides[0])?, side(held_out_weights, held_out_growth, sides[1])?])
    }
}

/// The name of weights that are logarithms, as `sample` writes them.
pub(super) const LOG_WEIGHTS: &str = "log_weights";

/// What the values are, in messages and as keys of `[data]`.
const WEIGHTS: &str = "weights";
const GROWTH: &str = "growth";

/// A warning about weights of which a few rows have nearly all: those of one of the `snapshots`, or
/// of one of its `groups` if there are any.
pub(super) fn few_rows_warning(path: &Path, snapshots: &Snapshots, groups: &RowGroups) -> Option<String> {
    /// Effective number of rows, as a share of all, below which this is said …
    const SHARE: f64 = 0.1;
    /// … unless there are so many.
    const MANY: f64 = 1000.0;
    let n_groups = groups.values.len().max(1);
    let of_snapshot = |k: usize| -> Option<Vec<(usize, usize, f64, f64)>> {
        // Of each group: sum of the weights, sum of their squares, number of rows.
        let mut sums = vec![(0.0, 0.0, 0.0); n_groups];
        for (row, weight) in (snapshots.offsets[k]..).zip(snapshots.weights(k)?) {
            let (sum, squares, n) = &mut sums[groups.of_rows.get(row).map_or(0, |&group| group as usize)];
            (*sum, *squares, *n) = (*sum + weight, *squares + weight * weight, *n + 1.0);
        }
        let effective = |(group, (sum, squares, n)): (usize, (f64, f64, f64))| (k, group, sum / squares * sum, n);
        Some(sums.into_iter().enumerate().filter(|(_, sums)| sums.0 > 0.0).map(effective).collect())
    };
    let all = (0..snapshots.times.len()).filter_map(of_snapshot).flatten();
    let (k, group, rows, n) = all.min_by(|a, b| a.2.total_cmp(&b.2))?;
    let under = if groups.values.is_empty() { String::new() } else { format!(" under {}", groups.describe(group)) };
    (rows < SHARE * n && rows < MANY).then(|| {
        let (path, time) = (path.display(), snapshots.times[k]);
        format!(
            "{path}: a few rows have most of the weight: those of time {time}{under} count as {rows:.0} equal ones of {n}"
        )
    })
}
