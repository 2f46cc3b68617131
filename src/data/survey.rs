//! Properties of each column before its values are rounded to f32.

use crate::model::MAX_MAGNITUDE;

/// Running statistics of the columns of some samples, whose values may come in any order.
pub(super) struct Survey {
    columns: Vec<Column>,
}

struct Column {
    n: u64,
    sum: f64,
    /// Largest magnitude.
    largest: f64,
    fits_f32: bool,
    counter: Option<Counter>,
}

impl Survey {
    /// An empty survey of `dim` columns.
    pub fn new(dim: usize) -> Self {
        let column = || Column { n: 0, sum: 0.0, largest: 0.0, fits_f32: true, counter: Some(Counter::default()) };
        Survey { columns: (0..dim).map(|_| column()).collect() }
    }

    /// A survey of rows `[n, dim]` that only detects counting columns.
    pub fn counters_of<'a>(dim: usize, stretches: impl IntoIterator<Item = &'a [f32]>) -> Self {
        let mut survey = Self::new(dim);
        let mut open: Vec<usize> = (0..dim).collect();
        for row in stretches.into_iter().flat_map(|stretch| stretch.chunks_exact(dim)) {
            if open.is_empty() {
                break;
            }
            open.iter().for_each(|&column| survey.see(column, f64::from(row[column])));
            open.retain(|&column| survey.columns[column].counter.is_some());
        }
        survey
    }

    /// Adds one more finite value of `column`.
    #[inline]
    pub fn see(&mut self, column: usize, x: f64) {
        let column = &mut self.columns[column];
        column.n += 1;
        column.sum += x;
        column.largest = column.largest.max(x.abs());
        column.fits_f32 &= f64::from(x as f32) == x;
        if let Some(counter) = &mut column.counter
            && !counter.see(x)
        {
            column.counter = None;
        }
    }

    /// Values to subtract from each column before it is rounded to f32: the mean, or 0 if f32 holds
    /// every value or a difference might overflow.
    pub fn origin(&self) -> Vec<f64> {
        let origin = |column: &Column| {
            let mean = column.sum / column.n as f64;
            if column.fits_f32 || mean.abs() > MAX_MAGNITUDE { 0.0 } else { mean }
        };
        self.columns.iter().map(origin).collect()
    }

    /// A column whose values all underflow in f32, or lose digits among its smallest numbers,
    /// although they are not 0: (index, largest magnitude).
    pub fn too_small(&self) -> Option<(usize, f64)> {
        let vanishes = |column: &Column| column.largest > 0.0 && column.largest < f64::from(f32::MIN_POSITIVE);
        let at = self.columns.iter().position(vanishes)?;
        Some((at, self.columns[at].largest))
    }

    /// The columns that only count the rows, in any order: 0 to n − 1 or 1 to n, each once.
    pub fn counting(&self) -> Vec<usize> {
        let counts = |column: &Column| column.counter.as_ref().is_some_and(|counter| counter.counts(column.n));
        (0..self.columns.len()).filter(|&i| counts(&self.columns[i])).collect()
    }
}

/// Minimum number of rows for the claim that a column counts them: 1, 2 is as likely to be data.
const MIN_COUNTED: u64 = 4;

/// Detects whether integers are a permutation of consecutive ones without storing them: the sum of
/// their hashes is that of the consecutive ones. Others have that sum with probability 2⁻⁶⁴.
struct Counter {
    min: u64,
    max: u64,
    hash: u64,
}

impl Default for Counter {
    fn default() -> Self {
        Counter { min: u64::MAX, max: 0, hash: 0 }
    }
}

impl Counter {
    /// Adds `x`; false if it cannot be a row number.
    fn see(&mut self, x: f64) -> bool {
        let number = x as u64;
        if number as f64 != x || number > u64::from(u32::MAX) || x.is_sign_negative() {
            return false;
        }
        self.min = self.min.min(number);
        self.max = self.max.max(number);
        self.hash = self.hash.wrapping_add(mixed(number));
        true
    }

    fn counts(&self, n: u64) -> bool {
        n >= MIN_COUNTED
            && self.min <= 1
            && self.max == self.min + n - 1
            && self.hash == (self.min..=self.max).fold(0, |hash: u64, number| hash.wrapping_add(mixed(number)))
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(values: &[f64]) -> bool {
        let mut survey = Survey::new(2);
        values.iter().for_each(|&x| survey.see(1, x));
        survey.counting() == [1]
    }

    #[test]
    fn columns_that_count_are_told_from_others() {
        for values in [&[0.0, 1.0, 2.0, 3.0][..], &[4.0, 2.0, 1.0, 3.0], &[3.0, 0.0, 4.0, 1.0, 2.0]] {
            assert!(counting(values), "{values:?}");
        }
        for values in [
            &[][..],
            &[0.0, 1.0],
            &[2.0, 3.0, 4.0, 5.0],
            &[0.0, 1.0, 1.0, 3.0],
            &[0.0, 1.0, 2.5, 3.0],
            &[-0.0, 1.0, 2.0, 3.0],
            &[0.0, 3.0, 0.0, 3.0],
            &[f64::NAN, 1.0, 2.0, 3.0],
        ] {
            assert!(!counting(values), "{values:?}");
        }
    }

    #[test]
    fn what_f32_holds_stays_where_it_is() {
        let mut survey = Survey::new(2);
        for x in [1.0, 2.5, 1e30f32.into(), -4.0] {
            survey.see(0, x);
        }
        for x in [1e8 + 0.1, 1e8 + 0.3] {
            survey.see(1, x);
        }
        assert_eq!(survey.origin()[0], 0.0);
        assert!((survey.origin()[1] - (1e8 + 0.2)).abs() < 1e-6);
    }
}
