//! Groups rows by time, and computes a final position for each row such that the rows of one time
//! are contiguous.
//!
//! Rows go to their final position while they are read, so grouping costs four bytes per row and no
//! second copy of the samples.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, InputKind, Result};

/// Times closer than this fraction of the whole range are one time. It covers rounding (0.7 and
/// 0.70000005, a sum in f32), and is finer than a network can resolve.
pub(super) const SAME_TIME: f64 = 1e-6;

/// Maximum number of distinct times: with [`SAME_TIME`] more cannot be distinguished.
const MAX_TIMES: usize = 1 << 20;

/// The times of rows, in order: 4 bytes per row, and about 40 per distinct time.
pub(super) struct RowTimes {
    file: PathBuf,
    name: String,
    /// True if the file holds them in f32; they then mean the shortest decimals that round to them.
    pub are_f32: bool,
    /// Index into `distinct` of each row.
    labels: Vec<u32>,
    /// Distinct times in the order of their first rows, with their numbers of rows.
    distinct: Vec<(f64, usize)>,
    label_of: HashMap<u64, u32>,
    last: u32,
}

impl RowTimes {
    /// No times yet, with memory for those of `capacity` rows; `file` and `name` are for messages.
    pub fn new(file: &Path, name: &str, capacity: usize) -> Result<Self> {
        let mut times = RowTimes {
            file: file.into(),
            name: name.into(),
            are_f32: false,
            labels: Vec::new(),
            distinct: Vec::new(),
            label_of: HashMap::new(),
            last: 0,
        };
        times.labels.try_reserve_exact(capacity).map_err(|_| times.too_many_rows(capacity))?;
        Ok(times)
    }

    fn too_many_rows(&self, n: usize) -> Error {
        let problem = format!("the times of {n} rows do not fit in memory");
        Error::input(&self.file, &self.name, problem, "use fewer rows, or a machine with more memory")
            .of_kind(InputKind::TooLarge)
    }

    /// Adds the finite time of one more row.
    ///
    /// # Errors
    /// [`Error::Input`] if memory runs out, or there are too many distinct times.
    pub fn push(&mut self, time: f64) -> Result<()> {
        let time = time + 0.0; // −0 and 0 are one time
        // Consecutive rows mostly share a time.
        if self.distinct.get(self.last as usize).is_none_or(|(last, _)| *last != time) {
            let next = self.distinct.len() as u32;
            self.last = *self.label_of.entry(time.to_bits()).or_insert(next);
            if self.last == next {
                if self.distinct.len() == MAX_TIMES {
                    return Err(Error::input(
                        &self.file,
                        &self.name,
                        format!("there are more than {MAX_TIMES} distinct times"),
                        "round them, so that many rows share a time: a snapshot is a distribution",
                    ));
                }
                self.distinct.push((time, 0));
            }
        }
        if self.labels.len() == self.labels.capacity() {
            let n = self.labels.len();
            self.labels.try_reserve((n / 2).max(1024)).map_err(|_| self.too_many_rows(n))?;
        }
        self.distinct[self.last as usize].1 += 1;
        self.labels.push(self.last);
        Ok(())
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }
}

/// The distinct times of a file and the rows of each.
pub(super) struct Grouping {
    /// Distinct times, increasing.
    pub times: Vec<f64>,
    /// Rows of each time.
    pub counts: Vec<usize>,
    /// Times that were merged, and the time that they became: the one of most rows, or the earliest
    /// of several such.
    pub merged: Vec<(Vec<f64>, f64)>,
    /// Index into `times` of each row.
    labels: Vec<u32>,
}

impl Grouping {
    /// Groups rows by their times. A time within [`SAME_TIME`] of the range after the first time of
    /// a group belongs to that group.
    pub fn of(row_times: RowTimes) -> Self {
        let RowTimes { are_f32, mut labels, distinct, label_of, .. } = row_times;
        drop(label_of);
        labels.shrink_to_fit();
        let value = |time: f64| if are_f32 { shortest_decimal(time as f32) } else { time };
        let mut order: Vec<u32> = (0..distinct.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| distinct[a as usize].0.total_cmp(&distinct[b as usize].0));
        let at = |k: u32| distinct[k as usize].0;
        let range = match order[..] {
            [first, .., last] => at(last) - at(first),
            _ => 0.0,
        };
        let mut grouping = Grouping { times: Vec::new(), counts: Vec::new(), merged: Vec::new(), labels: Vec::new() };
        let mut group_of = vec![0u32; distinct.len()];
        let same = |first: u32, k: u32| k == first || (range.is_finite() && at(k) - at(first) <= SAME_TIME * range);
        let mut rest = &order[..];
        while let Some(&first) = rest.first() {
            let (group, after) = rest.split_at(rest.iter().take_while(|&&k| same(first, k)).count());
            rest = after;
            let most = group
                .iter()
                .fold(first, |most, &k| if distinct[k as usize].1 > distinct[most as usize].1 { k } else { most });
            group.iter().for_each(|&k| group_of[k as usize] = grouping.times.len() as u32);
            if group.len() > 1 {
                grouping.merged.push((group.iter().map(|&k| value(at(k))).collect(), value(at(most))));
            }
            grouping.times.push(value(at(most)));
            grouping.counts.push(group.iter().map(|&k| distinct[k as usize].1).sum());
        }
        labels.iter_mut().for_each(|label| *label = group_of[*label as usize]);
        Grouping { labels, ..grouping }
    }

    /// Moves the rows that `is_held_out` (called in file order with the group of a row) says to
    /// groups of their own: group k becomes k and k + n, both at its time. Groups may be empty
    /// then.
    pub fn divide(&mut self, mut is_held_out: impl FnMut(usize) -> bool) {
        let n = self.times.len();
        self.times.extend_from_within(..);
        self.counts.resize(2 * n, 0);
        for label in &mut self.labels {
            let group = *label as usize;
            if is_held_out(group) {
                *label += n as u32;
                self.counts[group] -= 1;
                self.counts[group + n] += 1;
            }
        }
    }

    /// Final position of each row if the groups follow one another in `order`, with the rows of a
    /// group in file order; `None` if this is already the order of the file.
    pub fn destinations(&mut self, order: &[usize]) -> Option<Vec<u32>> {
        let mut next = vec![0u32; self.counts.len()];
        let mut place = 0;
        for &group in order {
            next[group] = place;
            place += self.counts[group] as u32;
        }
        let mut labels = std::mem::take(&mut self.labels);
        let mut in_place = true;
        for (row, label) in labels.iter_mut().enumerate() {
            let next = &mut next[*label as usize];
            in_place &= *next as usize == row;
            *label = *next;
            *next += 1;
        }
        (!in_place).then_some(labels)
    }
}

/// The f64 with the fewest decimal digits that rounds to `x`: the number that was meant if 7.2 was
/// stored in 32 bits.
pub(super) fn shortest_decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_times(times: &[f64]) -> RowTimes {
        let mut rows = RowTimes::new(Path::new("a.npz"), "times", 0).unwrap();
        times.iter().for_each(|&time| rows.push(time).unwrap());
        rows
    }

    #[test]
    fn groups_are_contiguous_and_keep_the_order_of_the_file() {
        let mut grouping = Grouping::of(row_times(&[3.0, -1.0, 0.0, 3.0, -0.0, -1.0, 7.5, 3.0]));
        assert_eq!(grouping.times, [-1.0, 0.0, 3.0, 7.5]);
        assert_eq!(grouping.counts, [2, 2, 3, 1]);
        assert!(grouping.merged.is_empty());
        // Held-out group 1 goes last.
        assert_eq!(grouping.destinations(&[0, 2, 3, 1]).unwrap(), [2, 0, 6, 3, 7, 1, 5, 4]);
    }

    #[test]
    fn grouped_rows_need_no_destinations() {
        let times = [0.0, 0.0, 1.0, 2.0, 2.0];
        assert_eq!(Grouping::of(row_times(&times)).destinations(&[0, 1, 2]), None);
        assert_eq!(Grouping::of(row_times(&times)).destinations(&[0, 2, 1]).unwrap(), [0, 1, 4, 2, 3]);
    }

    #[test]
    fn rows_of_a_group_are_divided() {
        let mut grouping = Grouping::of(row_times(&[0.0, 1.0, 0.0, 1.0, 2.0]));
        let mut held_out = [false, true, true, false, false].into_iter();
        grouping.divide(|_| held_out.next().unwrap());
        assert_eq!(
            (&grouping.times[..], &grouping.counts[..]),
            (&[0.0, 1.0, 2.0, 0.0, 1.0, 2.0][..], &[1, 1, 1, 1, 1, 0][..])
        );
        assert_eq!(grouping.destinations(&[0, 1, 2, 3, 4]).unwrap(), [0, 4, 3, 1, 2]);
    }

    #[test]
    fn times_a_rounding_apart_are_one() {
        let mut grouping = Grouping::of(row_times(&[0.0, 0.70000005, 0.7, 0.700002, 0.70000005, 1.0, 0.999_999_5]));
        assert_eq!(grouping.times, [0.0, 0.70000005, 0.700002, 0.999_999_5]);
        assert_eq!(grouping.counts, [1, 3, 1, 2]);
        assert_eq!(grouping.merged, [(vec![0.7, 0.70000005], 0.70000005), (vec![0.999_999_5, 1.0], 0.999_999_5)]);
        assert_eq!(grouping.destinations(&[0, 1, 2, 3]).unwrap(), [0, 1, 2, 4, 3, 5, 6]);
    }

    /// The range counts from the first time of a group: steps of 4 × 10⁻⁷ must not chain all times
    /// into one.
    #[test]
    fn a_group_ends_at_the_tolerance_of_its_first_time() {
        let times: Vec<f64> = (0..9).map(|k| f64::from(k) * 4e-7).chain([1.0]).collect();
        let grouping = Grouping::of(row_times(&times));
        assert_eq!(grouping.counts, [3, 3, 3, 1]);
    }

    #[test]
    fn f32_times_are_the_decimals_that_were_meant() {
        let mut rows = row_times(&[f64::from(7.2f32), f64::from(0.1f32), f64::from(16.3f32)]);
        rows.are_f32 = true;
        assert_eq!(Grouping::of(rows).times, [0.1, 7.2, 16.3]);
    }

    #[test]
    fn too_many_distinct_times_are_refused() {
        let mut rows = row_times(&[]);
        let refused = (0..=MAX_TIMES).find_map(|k| rows.push(k as f64).err()).unwrap().to_string();
        assert!(refused.contains("a.npz: times: there are more than 1048576 distinct times"), "{refused}");
    }
}
