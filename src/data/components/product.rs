//! Products with tall or wide matrices in f64: sums in one order, on any number of threads and any
//! instruction set, because multiplication and addition round apart.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::error::Result;
use crate::stage::Stage;

/// Columns of a result are padded to a multiple of this.
pub(super) const LANES: usize = 8;

/// Rows of a result that are formed together.
const GROUP: usize = 4;

/// Terms of a sum that are formed together, so that their factors stay in the cache.
const BLOCK: usize = 512;

/// A matrix `[rows, pitch]`, row after row; columns from `width` on are 0.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    pub width: usize,
    pub pitch: usize,
    pub values: Vec<f64>,
}

impl Matrix {
    /// The matrix with the value `of(row, column)`.
    pub fn from_fn(rows: usize, width: usize, of: impl Fn(usize, usize) -> f64) -> Matrix {
        let pitch = width.next_multiple_of(LANES);
        let mut values = vec![0.0; rows * pitch];
        for (i, row) in values.chunks_exact_mut(pitch).enumerate() {
            row[..width].iter_mut().enumerate().for_each(|(j, value)| *value = of(i, j));
        }
        Matrix { width, pitch, values }
    }

    /// Row `i`, without the padding.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.pitch..][..self.width]
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.values.len() / self.pitch
    }
}

/// A · B for `[rows, n]` · `[n, b.width]`, where `pack` gives the values of A: it adds those of the
/// four rows from `first` on and the columns `columns` to zeros, column after column. Rows are
/// formed `at_once` at a time, on the threads of `stage`.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted) if the watch cancels.
pub(super) fn product(
    rows: usize,
    b: &Matrix,
    at_once: usize,
    stage: &Stage,
    pack: impl Fn(usize, Range<usize>, &mut [[f64; GROUP]]) + Sync,
) -> Result<Matrix> {
    let starts: Vec<usize> = (0..rows).step_by(at_once).collect();
    let parts = stage.map(usize::MAX, &starts, |&start| {
        let n_groups = at_once.min(rows - start).div_ceil(GROUP);
        let mut out = vec![0.0; n_groups * GROUP * b.pitch];
        let mut packed = vec![[0.0; GROUP]; BLOCK];
        let n = b.n_rows();
        for first in (0..n).step_by(BLOCK) {
            stage.check()?;
            let terms = first..(first + BLOCK).min(n);
            for (group, out) in out.chunks_exact_mut(GROUP * b.pitch).enumerate() {
                let packed = &mut packed[..terms.len()];
                packed.fill([0.0; GROUP]);
                pack(start + group * GROUP, terms.clone(), packed);
                let b = &b.values[terms.start * b.pitch..terms.end * b.pitch];
                Arch::new().dispatch(Accumulate { packed, b, out });
            }
        }
        Ok(out)
    })?;
    let mut values = Vec::with_capacity(rows * b.pitch);
    for part in parts {
        let n = part.len().min(rows * b.pitch - values.len());
        values.extend_from_slice(&part[..n]);
    }
    Ok(Matrix { width: b.width, pitch: b.pitch, values })
}

/// out `[4, pitch]` += packedᵀ · b `[n, pitch]`.
struct Accumulate<'a> {
    packed: &'a [[f64; GROUP]],
    b: &'a [f64],
    out: &'a mut [f64],
}

impl WithSimd for Accumulate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let pitch = self.out.len() / GROUP;
        for column in (0..pitch).step_by(LANES) {
            let mut sums = [[0.0; LANES]; GROUP];
            for (a, b) in self.packed.iter().zip(self.b.chunks_exact(pitch)) {
                let Some(b) = b[column..].first_chunk::<LANES>() else { continue };
                for (sums, a) in sums.iter_mut().zip(a) {
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum += a * b;
                    }
                }
            }
            for (out, sums) in self.out.chunks_exact_mut(pitch).zip(&sums) {
                out[column..].iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes around those of groups and blocks.
    #[test]
    fn products_are_those_of_the_definition() {
        for (rows, n, width) in [(1, 1, 1), (3, 511, 9), (4, 512, 8), (5, 1025, 17), (70, 13, 3)] {
            let a = |i: usize, s: usize| ((i * 31 + s * 17) % 23) as f64 - 11.0;
            let b = Matrix::from_fn(n, width, |s, j| ((s * 7 + j * 5) % 13) as f64 - 6.0);
            let pack = |first: usize, terms: Range<usize>, packed: &mut [[f64; GROUP]]| {
                for (packed, s) in packed.iter_mut().zip(terms) {
                    (first..rows).zip(packed).for_each(|(i, value)| *value = a(i, s));
                }
            };
            for threads in [1, 3] {
                let got = product(rows, &b, 16, &Stage::new(threads, &()), pack).expect("is not cancelled");
                assert_eq!((got.n_rows(), got.width, got.pitch), (rows, width, b.pitch));
                for i in 0..rows {
                    for j in 0..width {
                        let want: f64 = (0..n).map(|s| a(i, s) * b.row(s)[j]).sum();
                        assert_eq!(got.row(i)[j], want, "{rows} × {n} × {width} at {i}, {j}");
                    }
                    assert!(got.values[i * got.pitch..][width..got.pitch].iter().all(|&value| value == 0.0));
                }
            }
        }
    }
}
