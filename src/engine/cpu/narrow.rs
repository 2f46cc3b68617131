//! The product of a tile with a weight matrix of few columns, one dot product for each column. The
//! register blocks of [`product`](super::product) would compute a whole panel instead.
//!
//! `out[row, column] = start[column] + Σ a[row, :] · weight[column, :]`. Used for the layers next
//! to the data and the head.

use pulp::{Simd, WithSimd};

use super::panel::panel_width;
use super::product::{BLOCK_ROWS, load_pair};

/// True if `n_columns` are so few that dot products take less time than a panel (measured with 64
/// to 512 values in each sum).
pub fn is_narrow(n_columns: usize, width: usize) -> bool {
    4 * n_columns <= width
}

/// One product, as described at the top of the module.
pub struct NarrowProduct {
    /// Tile `a`, panel layout.
    pub a: *const f32,
    /// Floats between panels of `a`.
    pub a_stride: usize,
    /// Packed weights `[panel][column][lane]`: lanes run along the summed index.
    pub weight: *const f32,
    /// Start of the sums, one for each column; null for zero.
    pub start: *const f32,
    /// Panels of `a`.
    pub n_panels: usize,
    /// Columns of the result, fewer than a panel has lanes.
    pub n_columns: usize,
    /// Rows of the tile, a multiple of [`BLOCK_ROWS`].
    pub n_rows: usize,
    /// The result: a tile of one panel.
    pub out: *mut f32,
}

impl WithSimd for NarrowProduct {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = panel_width::<S>();
        debug_assert_eq!(self.n_rows % BLOCK_ROWS, 0);
        for row in (0..self.n_rows).step_by(BLOCK_ROWS) {
            for column in 0..self.n_columns {
                // SAFETY: the fields' sizes, which the caller guarantees, bound `panel`, `row` and
                // `column`.
                unsafe {
                    let mut sums = [simd.splat_f32s(0.0); BLOCK_ROWS];
                    for panel in 0..self.n_panels {
                        let [low, high] = load_pair::<S>(self.weight.add((panel * self.n_columns + column) * width));
                        let a = self.a.add(panel * self.a_stride + row * width);
                        for (i, sum) in sums.iter_mut().enumerate() {
                            let [a_low, a_high] = load_pair::<S>(a.add(i * width));
                            *sum = simd.mul_add_f32s(a_high, high, simd.mul_add_f32s(a_low, low, *sum));
                        }
                    }
                    let start = if self.start.is_null() { 0.0 } else { *self.start.add(column) };
                    for (i, sum) in sums.into_iter().enumerate() {
                        *self.out.add((row + i) * width + column) = start + simd.reduce_sum_f32s(sum);
                    }
                }
            }
        }
    }
}
