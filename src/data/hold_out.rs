//! What is left out of training: whole snapshots, or rows of every snapshot.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::array::list;
use super::snapshots::find_time;
use crate::rng::{Purpose, unit_f32, words};

/// What is not trained on, for an evaluation to predict: in a configuration `[1, 2.5]`,
/// `"0.5..19.5 step 1"`, `{ share = 0.1, seed = 0 }` or `{ column = "split", value = "test" }`.
///
/// ```
/// use action_matching::data::HoldOut;
///
/// let held_out: HoldOut = vec![1.0, 2.5].into();
/// assert_eq!(held_out, HoldOut::Times(vec![1.0, 2.5]));
/// assert!(HoldOut::default().is_empty());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "Form")]
#[non_exhaustive]
pub enum HoldOut {
    /// All rows of these times, data units; not the first time.
    Times(Vec<f64>),
    /// All rows of the times of a range; not the first time.
    Range(TimeRange),
    /// A share of the rows of every snapshot, chosen at random.
    Share(RowShare),
    /// The rows that a column or array marks.
    Column(SplitColumn),
}

/// Times from `first` to `last`, both included: `"0.5..19.5 step 1"` are 0.5, 1.5, … 19.5, each of
/// which has a snapshot; `"5..9"` are all that have one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeRange {
    /// First time, data units.
    pub first: f64,
    /// Last time.
    pub last: f64,
    /// Distance of two times; `None` for every time of the data from first to last.
    pub step: Option<f64>,
}

/// A share of the rows of every snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RowShare {
    /// Between 0 and 1. The number of rows is rounded up or down at random, so that its mean is
    /// this share of small snapshots too; one row at least is left to train on.
    pub share: f64,
    /// Chooses the rows.
    pub seed: u64,
}

/// Rows by their value in a column of a table, or in an array `[N]` of numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitColumn {
    /// Name of the column or array. It is none of the samples, whatever these select.
    pub column: String,
    /// The value of the rows that are left out.
    pub value: SplitValue,
}

/// A value of a [`SplitColumn`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum SplitValue {
    /// A number, of tables and arrays.
    Number(f64),
    /// Text, of tables.
    Text(String),
}

/// What is written for a [`HoldOut`].
#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Times(Vec<f64>),
    Range(TimeRange),
    Rows(BTreeMap<String, Entry>),
}

/// A setting of [`Form::Rows`].
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Whole(u64),
    Number(f64),
    Text(String),
}

impl TryFrom<Form> for HoldOut {
    type Error = &'static str;

    /// Settings that are left out are 0 and empty, which are out of range.
    fn try_from(form: Form) -> Result<Self, Self::Error> {
        let mut rows = match form {
            Form::Times(times) => return Ok(HoldOut::Times(times)),
            Form::Range(range) => return Ok(HoldOut::Range(range)),
            Form::Rows(rows) => rows,
        };
        let hold_out = if rows.contains_key("column") || rows.contains_key("value") {
            let column = match rows.remove("column") {
                Some(Entry::Text(column)) => column,
                None => String::new(),
                Some(_) => return Err("column is no text"),
            };
            let value = match rows.remove("value") {
                Some(Entry::Whole(value)) => SplitValue::Number(value as f64),
                Some(Entry::Number(value)) => SplitValue::Number(value),
                Some(Entry::Text(value)) => SplitValue::Text(value),
                None => SplitValue::Text(String::new()),
            };
            HoldOut::Column(SplitColumn { column, value })
        } else {
            let share = match rows.remove("share") {
                Some(Entry::Whole(share)) => share as f64,
                Some(Entry::Number(share)) => share,
                None => 0.0,
                Some(Entry::Text(_)) => return Err("share is no number"),
            };
            let seed = match rows.remove("seed") {
                Some(Entry::Whole(seed)) => seed,
                None => 0,
                Some(_) => return Err("seed is no whole number"),
            };
            HoldOut::Share(RowShare { share, seed })
        };
        if rows.is_empty() { Ok(hold_out) } else { Err("there are settings that do not go together") }
    }
}

impl fmt::Display for SplitValue {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            SplitValue::Number(value) => write!(f, "{value}"),
            SplitValue::Text(value) => write!(f, "{value:?}"),
        }
    }
}

impl Default for HoldOut {
    fn default() -> Self {
        HoldOut::Times(Vec::new())
    }
}

impl From<Vec<f64>> for HoldOut {
    fn from(times: Vec<f64>) -> Self {
        HoldOut::Times(times)
    }
}

impl HoldOut {
    /// True if nothing is held out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, HoldOut::Times(times) if times.is_empty())
    }

    /// True if whole snapshots are held out, rather than rows of every one.
    #[must_use]
    pub fn is_of_times(&self) -> bool {
        matches!(self, HoldOut::Times(_) | HoldOut::Range(_))
    }

    /// The column that marks rows, which is none of the samples.
    pub(super) fn column(&self) -> Option<&str> {
        match self {
            HoldOut::Column(SplitColumn { column, .. }) => Some(column),
            _ => None,
        }
    }

    /// Which of the increasing distinct `times` are held out. All are kept if rows are held out.
    ///
    /// # Errors
    /// Problem and fix, if a time has no snapshot or is the first.
    pub(super) fn of_times(&self, times: &[f64]) -> Result<Vec<bool>, (String, String)> {
        let mut held_out = vec![false; times.len()];
        let hold_out_any = || format!("hold out any of: {}", list(times.iter().skip(1)));
        let mut add = |wanted: f64| match find_time(times, wanted) {
            None => Err((format!("{wanted} is not one of the times {}", list(times)), hold_out_any())),
            Some(k) => {
                held_out[k] = true;
                Ok(())
            }
        };
        match self {
            HoldOut::Times(wanted) => wanted.iter().try_for_each(|&time| add(time))?,
            HoldOut::Range(range) => match range.times() {
                Some(mut wanted) => wanted.try_for_each(add)?,
                None => {
                    let within = times.iter().map(|time| (range.first..=range.last).contains(time));
                    held_out = within.collect();
                    if !held_out.contains(&true) {
                        return Err((format!("{range} holds none of the times {}", list(times)), hold_out_any()));
                    }
                }
            },
            HoldOut::Share(_) | HoldOut::Column(_) => {}
        }
        if held_out.first() == Some(&true) {
            let problem = format!("{} is the first time, which every prediction starts from", times[0]);
            return Err((problem, hold_out_any()));
        }
        Ok(held_out)
    }
}

impl TimeRange {
    /// The times that a step names; `None` without one.
    fn times(&self) -> Option<impl Iterator<Item = f64>> {
        let &TimeRange { first, last, step } = self;
        let step = step?;
        // The last time counts though the division is rounded.
        let n = ((last - first) / step * (1.0 + 1e-9)).floor() as u64;
        Some((0..=n).map(move |k| first + k as f64 * step))
    }
}

impl FromStr for TimeRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        /// As many times as a file can have.
        const MOST: f64 = (1 << 20) as f64;
        let refuse = |problem: &str| Err(format!("{problem}: write \"FIRST..LAST step STEP\""));
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|x| x.is_finite());
        let (ends, step) = match text.split_once("step") {
            Some((ends, step)) => (ends, Some(step)),
            None => (text, None),
        };
        let Some((first, last)) = ends.split_once("..") else { return refuse("is no range") };
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return refuse("has an end that is no number");
        };
        if first > last {
            return refuse("ends before it begins");
        }
        let step = match step.map(number) {
            None => None,
            Some(Some(step)) if step > 0.0 && (last - first) / step <= MOST => Some(step),
            Some(_) => return refuse("has a step that is not positive, or too small"),
        };
        Ok(TimeRange { first, last, step })
    }
}

impl TryFrom<String> for TimeRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for TimeRange {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.last)?;
        self.step.map_or(Ok(()), |step| write!(f, " step {step}"))
    }
}

impl From<TimeRange> for String {
    fn from(range: TimeRange) -> String {
        range.to_string()
    }
}

/// Chooses the rows of a share while they pass by in the order of the file (Knuth's algorithm S for
/// each snapshot): memory for the snapshots alone.
pub(super) struct ShareOfRows {
    seed: u64,
    /// Of each snapshot: rows that passed by, rows to come, and how many of these are to be chosen.
    state: Vec<(u32, usize, usize)>,
}

impl ShareOfRows {
    /// For snapshots of so many rows.
    pub fn new(RowShare { share, seed }: RowShare, counts: &[usize]) -> Self {
        let state = counts.iter().enumerate().map(|(k, &n)| {
            let [word, ..] = words(seed, Purpose::HoldOut, k as u64, u32::MAX);
            let wanted = (share * n as f64 + f64::from(unit_f32(word))).floor() as usize;
            (0, n, wanted.min(n.saturating_sub(1)))
        });
        ShareOfRows { seed, state: state.collect() }
    }

    /// True if the next row of snapshot `k` is held out.
    pub fn holds_next(&mut self, k: usize) -> bool {
        let (row, to_come, wanted) = &mut self.state[k];
        let [word, ..] = words(self.seed, Purpose::HoldOut, k as u64, *row);
        let chosen = f64::from(unit_f32(word)) * (*to_come as f64) < *wanted as f64;
        *row += 1;
        *to_come -= 1;
        *wanted -= usize::from(chosen);
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> HoldOut {
        HoldOut::Range(text.parse().expect("a range"))
    }

    fn held(hold_out: &HoldOut, times: &[f64]) -> Vec<f64> {
        let held = hold_out.of_times(times).expect("fits");
        times.iter().zip(held).filter_map(|(&time, held)| held.then_some(time)).collect()
    }

    #[test]
    fn ranges_name_times() {
        let times: Vec<f64> = (0..=40).map(|k| f64::from(k) * 0.5).collect();
        let halves = held(&range("0.5..19.5 step 1"), &times);
        assert_eq!((halves.len(), halves[0], halves[19]), (20, 0.5, 19.5));
        assert_eq!(held(&range("1..2"), &times), [1.0, 1.5, 2.0]);
        assert_eq!(held(&range("19.6..30"), &times), [20.0], "the last time can be held out");
        // 0.1 + 2·0.1 is not 0.3, and 0.7 / 0.1 is below 7.
        let tenths: Vec<f64> = (0..=9).map(|k| f64::from(k) / 10.0).collect();
        assert_eq!(held(&range("0.1..0.8 step 0.1"), &tenths).len(), 8);
        for (text, problem) in [("0.5..19.7 step 0.7", "1.2 is not one"), ("20.5..30", "20.5..30 holds none")] {
            let (said, _) = range(text).of_times(&times).expect_err("does not fit");
            assert!(said.starts_with(problem), "{said}");
        }
        let (said, fix) = range("0..1").of_times(&times).expect_err("holds the first time");
        assert!(said.starts_with("0 is the first time, which every prediction starts from"), "{said}");
        assert!(fix.starts_with("hold out any of: 0.5, 1,"), "{fix}");
    }

    #[test]
    fn ranges_are_written_as_they_are_read() {
        for text in ["0.5..19.5 step 1", "-2..3", "1..1"] {
            assert_eq!(text.parse::<TimeRange>().expect("a range").to_string(), text);
        }
        for text in
            ["", "1", "1..", "a..2", "3..1", "1..2 step 0", "1..2 step -1", "1..2 step x", "0..1 step 1e-9", "0..inf"]
        {
            let refused = text.parse::<TimeRange>().expect_err(text);
            assert!(refused.ends_with("write \"FIRST..LAST step STEP\""), "{refused}");
        }
    }

    /// Of large snapshots the share itself, of small ones its mean; never all rows; and another
    /// seed chooses others.
    #[test]
    fn a_share_is_exact_or_right_in_the_mean() {
        let chosen = |share: f64, seed: u64, counts: &[usize]| -> Vec<Vec<bool>> {
            let mut rows = ShareOfRows::new(RowShare { share, seed }, counts);
            counts.iter().enumerate().map(|(k, &n)| (0..n).map(|_| rows.holds_next(k)).collect()).collect()
        };
        let count = |rows: &Vec<bool>| rows.iter().filter(|held| **held).count();
        let large = chosen(0.25, 3, &[1000, 400]);
        assert!((250..=251).contains(&count(&large[0])) && (100..=101).contains(&count(&large[1])));
        // In no order of the file.
        assert!((80..170).contains(&large[0][..500].iter().filter(|held| **held).count()));
        assert_eq!(large, chosen(0.25, 3, &[1000, 400]));
        assert_ne!(large, chosen(0.25, 4, &[1000, 400]));
        let small: usize = chosen(0.1, 0, &[3; 10_000]).iter().map(count).sum();
        assert!((2850..3150).contains(&small), "{small}");
        assert!(chosen(0.99, 0, &[2; 100]).iter().all(|rows| count(rows) == 1));
        assert!(chosen(0.5, 0, &[1; 100]).iter().all(|rows| count(rows) == 0));
    }
}
