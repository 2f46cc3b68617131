//! The conditions of rows: a value of each in every row, and the groups of rows that share them.

use std::collections::HashMap;
use std::path::Path;

use super::Snapshots;
use super::array::{Meter, list};
use super::distinct::Distinct;
use super::file::{DataFile, Format};
use super::source::{DataSource, Standardization};
use crate::error::{Error, InputKind, Result};
use crate::model::{Condition, ConditionValue};

/// Largest number of groups: fewer values, shared by more rows, are what a snapshot needs.
pub(super) const MAX_GROUPS: usize = 1024;

/// Rows by the values of all conditions: those that share them are a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowGroups {
    /// Names of the conditions; none for data without conditions, and then there are no groups.
    pub names: Vec<String>,
    /// The value of each condition in each group, data units, in increasing order.
    pub values: Vec<Vec<ConditionValue>>,
    /// Group of each row: those of the training snapshots, then those that are held out.
    pub of_rows: Vec<u32>,
}

impl RowGroups {
    /// The values of group `k` in words: `dose = 0.3, drug = A`.
    #[must_use]
    pub fn describe(&self, k: usize) -> String {
        let each = self.names.iter().zip(&self.values[k]).map(|(name, value)| format!("{name} = {value}"));
        each.collect::<Vec<_>>().join(", ")
    }

    /// The groups that have rows among `snapshots`, which are the first of those that are grouped,
    /// with their numbers; none without conditions.
    #[must_use]
    pub fn all(&self, snapshots: &Snapshots) -> Vec<(usize, Snapshots)> {
        let of_group = |k: usize| (k, self.snapshots(snapshots, 0, k));
        (0..self.values.len()).map(of_group).filter(|(_, found)| !found.times.is_empty()).collect()
    }

    /// The rows of `snapshots` in group `k`, with their weights and rates, at the times at which it
    /// has any, if at all. Rows of weight 0 are left out. The first row of `snapshots` is row
    /// `first` of those that are grouped.
    #[must_use]
    pub fn snapshots(&self, snapshots: &Snapshots, first: usize, k: usize) -> Snapshots {
        let dim = snapshots.dim;
        let rows = self.rows(snapshots, first, k);
        let (mut times, mut offsets) = (Vec::new(), vec![0]);
        for (&time, &end) in snapshots.times.iter().zip(&snapshots.offsets[1..]) {
            let up_to = rows.partition_point(|&row| row < end);
            if offsets.last() != Some(&up_to) {
                times.push(time);
                offsets.push(up_to);
            }
        }
        let samples = rows.iter().flat_map(|row| &snapshots.samples[row * dim..][..dim]).copied().collect();
        let mass = snapshots.mass.of_rows(&rows, &offsets);
        Snapshots { dim, times, offsets, samples, mass }
    }

    /// The numbers of the rows that [`RowGroups::snapshots`] takes of `snapshots`.
    #[must_use]
    pub fn rows(&self, snapshots: &Snapshots, first: usize, k: usize) -> Vec<usize> {
        let is_chosen = |row: &usize| self.of_rows[first + row] as usize == k && snapshots.mass.counts(*row);
        (0..snapshots.offsets.last().copied().unwrap_or(0)).filter(is_chosen).collect()
    }

    /// Number of rows of each group in each of `snapshots`, whose first row is row `first` of those
    /// that are grouped: `[groups, snapshots]`.
    pub(super) fn counts(&self, snapshots: &Snapshots, first: usize) -> Vec<Vec<usize>> {
        let mut counts = vec![vec![0; snapshots.times.len()]; self.values.len()];
        if counts.is_empty() {
            return counts;
        }
        for (k, ends) in snapshots.offsets.windows(2).enumerate() {
            self.of_rows[first + ends[0]..first + ends[1]].iter().for_each(|&group| counts[group as usize][k] += 1);
        }
        counts
    }

    /// The conditions as inputs of a network, from the first `n_training` rows: numbers with mean 0
    /// and deviation 1, or as they are where `rule` leaves samples as they are. Warns of those that
    /// are the same in every row.
    pub(super) fn conditions(
        &self,
        path: &Path,
        rule: Standardization,
        n_training: usize,
        warnings: &mut Vec<String>,
    ) -> Vec<Condition> {
        if self.names.is_empty() {
            return Vec::new();
        }
        let mut counts = vec![0usize; self.values.len()];
        self.of_rows[..n_training].iter().for_each(|&group| counts[group as usize] += 1);
        let trained: Vec<(&[ConditionValue], f64)> =
            self.values.iter().zip(counts).filter(|(_, n)| *n > 0).map(|(values, n)| (&values[..], n as f64)).collect();
        let condition = |(i, name): (usize, &String)| {
            let (mut numbers, mut categories) = (Vec::new(), Vec::new());
            for (values, n) in &trained {
                match &values[i] {
                    ConditionValue::Number(value) => numbers.push((*value, *n)),
                    ConditionValue::Category(value) => categories.push(value.clone()),
                }
            }
            categories.sort_unstable();
            categories.dedup();
            let range = numbers.iter().fold([f64::INFINITY, f64::NEG_INFINITY], |[least, most], &(value, _)| {
                [least.min(value), most.max(value)]
            });
            if categories.len() == 1 || range[0] == range[1] {
                warnings.push(format!(
                    "{}: {name} is the same in every row of training: a model learns nothing from it",
                    path.display()
                ));
            }
            let name = name.clone();
            if !categories.is_empty() {
                return Condition::Category { name, categories };
            }
            let total = n_training as f64;
            let mean = numbers.iter().map(|(value, n)| value * (n / total)).sum::<f64>();
            let variance = numbers.iter().map(|(value, n)| (value - mean).powi(2) * (n / total)).sum::<f64>();
            let is_even = range[0] == range[1] || variance == 0.0;
            match rule {
                Standardization::None => Condition::Number { name, mean: 0.0, scale: 1.0, range },
                _ => Condition::Number { name, mean, scale: if is_even { 1.0 } else { variance.sqrt() }, range },
            }
        };
        self.names.iter().enumerate().map(condition).collect()
    }

    /// The groups of `n_rows` rows of `file` by the conditions of `source`, in the order of the
    /// file; no groups where it names no conditions.
    ///
    /// # Errors
    /// [`Error::Input`] for a condition that is missing, has no value in a row, or so many values
    /// that rows do not share them.
    pub(super) fn read(source: &DataSource, file: &mut DataFile, n_rows: usize, meter: &mut Meter<'_>) -> Result<Self> {
        if source.conditions.is_empty() {
            return Ok(RowGroups::default());
        }
        let path = &source.path;
        if Format::of(path)? == Format::Npy {
            let fix = "put samples, times and conditions into one .npz, .safetensors or table";
            return Err(Error::input(path, "conditions", "do not fit into a .npy file: it holds one array", fix));
        }
        let columns = file.conditions(&source.conditions, meter)?;
        if let Some(column) = columns.iter().find(|column| column.labels.len() != n_rows) {
            let problem = format!("has {} values, but {} has {n_rows} rows", column.labels.len(), source.samples);
            return Err(Error::input(path, &column.name, problem, "give one value per row"));
        }
        let mut combinations: HashMap<Vec<u32>, u32> = HashMap::new();
        let mut of_rows = Vec::with_capacity(n_rows);
        let mut combination = vec![u32::MAX; columns.len()];
        for row in 0..n_rows {
            let same = columns.iter().zip(&combination).all(|(column, &last)| column.labels[row] == last);
            if same && row > 0 {
                of_rows.push(of_rows[row - 1]); // consecutive rows mostly share a group
                continue;
            }
            combination.iter_mut().zip(&columns).for_each(|(label, column)| *label = column.labels[row]);
            let next = combinations.len() as u32;
            of_rows.push(*combinations.entry(combination.clone()).or_insert(next));
            if combinations.len() > MAX_GROUPS {
                let names = list(&source.conditions);
                let problem = format!("have more than {MAX_GROUPS} distinct combinations of values");
                let fix = "leave one out, or round values, so that the rows of a snapshot share them";
                return Err(Error::input(path, names, problem, fix).of_kind(InputKind::TooLarge));
            }
        }
        let mut found: Vec<(Vec<ConditionValue>, u32)> = combinations
            .into_iter()
            .map(|(labels, group)| {
                let values = columns.iter().zip(labels).map(|(column, label)| column.values[label as usize].clone());
                (values.collect(), group)
            })
            .collect();
        found.sort_by(|(a, _), (b, _)| in_order(a, b));
        let mut place = vec![0; found.len()];
        found.iter().enumerate().for_each(|(k, (_, group))| place[*group as usize] = k as u32);
        of_rows.iter_mut().for_each(|group| *group = place[*group as usize]);
        let names = columns.into_iter().map(|column| column.name).collect();
        Ok(RowGroups { names, values: found.into_iter().map(|(values, _)| values).collect(), of_rows })
    }

    /// These groups with rows moved to their `destination`, if they move.
    pub(super) fn moved(mut self, destination: Option<&[u32]>) -> Self {
        if let Some(destination) = destination.filter(|_| !self.of_rows.is_empty()) {
            let mut moved = vec![0; self.of_rows.len()];
            destination.iter().zip(&self.of_rows).for_each(|(&to, &group)| moved[to as usize] = group);
            self.of_rows = moved;
        }
        self
    }
}

/// Numbers by size, categories by name; a condition has values of one kind.
fn in_order(a: &[ConditionValue], b: &[ConditionValue]) -> std::cmp::Ordering {
    let each = a.iter().zip(b).map(|values| match values {
        (ConditionValue::Number(a), ConditionValue::Number(b)) => a.total_cmp(b),
        (a, b) => a.to_string().cmp(&b.to_string()),
    });
    each.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
}

/// The values of one condition, one per row.
pub(super) struct ConditionColumn {
    pub name: String,
    /// The distinct values.
    pub values: Vec<ConditionValue>,
    /// Index into `values` of each row.
    pub labels: Vec<u32>,
}

/// The error for a condition with too many values.
pub(super) fn too_many(path: &Path, name: &str) -> Error {
    let problem = format!("has more than {MAX_GROUPS} distinct values: a condition is shared by the rows of a group");
    let fix = "round it, or leave it out of data.conditions and take it as a sample";
    Error::input(path, name, problem, fix).of_kind(InputKind::TooLarge)
}

impl ConditionColumn {
    /// A column of numbers, given by their bits.
    pub fn of_numbers(name: String, distinct: Distinct<u64>) -> Self {
        let values = distinct.values.iter().map(|&bits| f64::from_bits(bits).into()).collect();
        ConditionColumn { name, values, labels: distinct.labels }
    }

    /// A column of text: numbers if all of it are numbers, otherwise categories.
    ///
    /// # Errors
    /// [`Error::Input`] for numbers that are not finite.
    #[cfg(feature = "files")]
    pub fn of_texts(path: &Path, name: String, distinct: Distinct<String>) -> Result<Self> {
        let Distinct { values, mut labels, .. } = distinct;
        let numbers: Option<Vec<f64>> = values.iter().map(|text| text.parse().ok()).collect();
        let Some(numbers) = numbers else {
            let values = values.into_iter().map(ConditionValue::Category).collect();
            return Ok(ConditionColumn { name, values, labels });
        };
        if let Some(value) = numbers.iter().find(|value| !value.is_finite()) {
            let fix = "give a finite number in every row, or words in all";
            return Err(Error::input(path, name, format!("is {value} in some row"), fix));
        }
        // 0.1 and 0.10 are one number.
        let mut same: Distinct<u64> = Distinct::default();
        numbers.iter().for_each(|number| same.push(&(number + 0.0).to_bits())); // −0 and 0 are one, too
        labels.iter_mut().for_each(|label| *label = same.labels[*label as usize]);
        same.labels = labels;
        Ok(ConditionColumn::of_numbers(name, same))
    }
}
