//! Which time each row belongs to, and where it goes so that the rows of one time lie together.
//!
//! Rows are placed while they are read, so grouping costs four bytes a row and no second copy of the samples.

/// The distinct times of a file and the rows of each.
pub(super) struct Grouping {
    /// Distinct times, increasing.
    pub times: Vec<f64>,
    /// Rows of each time.
    pub counts: Vec<usize>,
    /// Index into `times` of each row.
    labels: Vec<u32>,
}

impl Grouping {
    /// Groups rows by their finite times; there are at most u32::MAX.
    pub fn of(mut row_times: Vec<f64>) -> Self {
        for time in &mut row_times {
            *time += 0.0; // −0 and 0 are one time
        }
        let mut times = row_times.clone();
        times.sort_unstable_by(f64::total_cmp);
        times.dedup();
        times.shrink_to_fit();
        let mut counts = vec![0; times.len()];
        // Neighbouring rows mostly share a time: look there first.
        let mut label = 0;
        let labels = row_times.iter().map(|&time| {
            if times[label] != time {
                label = times.partition_point(|&t| t < time);
            }
            counts[label] += 1;
            label as u32
        });
        let labels = labels.collect();
        Grouping { times, counts, labels }
    }

    /// Final place of each row when the groups follow one another in `order`, rows of a group in file order; `None`
    /// when that is the order of the file already.
    pub fn destinations(self, order: &[usize]) -> Option<Vec<u32>> {
        let mut next = vec![0u32; self.counts.len()];
        let mut place = 0;
        for &group in order {
            next[group] = place;
            place += self.counts[group] as u32;
        }
        let mut labels = self.labels;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_contiguous_and_keep_the_order_of_the_file() {
        let row_times = vec![3.0, -1.0, 0.0, 3.0, -0.0, -1.0, 7.5, 3.0];
        let grouping = Grouping::of(row_times);
        assert_eq!(grouping.times, [-1.0, 0.0, 3.0, 7.5]);
        assert_eq!(grouping.counts, [2, 2, 3, 1]);
        // Held-out group 1 goes last.
        assert_eq!(grouping.destinations(&[0, 2, 3, 1]).unwrap(), [2, 0, 6, 3, 7, 1, 5, 4]);
    }

    #[test]
    fn grouped_rows_need_no_destinations() {
        let row_times = vec![0.0, 0.0, 1.0, 2.0, 2.0];
        assert_eq!(Grouping::of(row_times.clone()).destinations(&[0, 1, 2]), None);
        assert_eq!(Grouping::of(row_times).destinations(&[0, 2, 1]).unwrap(), [0, 1, 4, 2, 3]);
    }
}
