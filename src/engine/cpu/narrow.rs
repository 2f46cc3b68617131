//! The product of a tile with a weight matrix of few columns, one dot product for each column. The
//! register blocks of [`product`](super::product) would compute a whole panel instead.
//!
//! `out[row, column] = start[column] + Σ a[row, :] · weight[column, :]`. Used for the layers next
//! to the data and the head.

use pulp::{Simd, WithSimd};

use super::panel::{Tile, panel_width};
use super::product::{REGISTER_ROWS, load_pair};

/// True if `n_columns` are so few that dot products take less time than a panel (measured with 64
/// to 512 values in each sum).
pub fn is_narrow(n_columns: usize, width: usize) -> bool {
    4 * n_columns <= width
}

/// One product, as described at the top of the module. It is safe to run: the caller of
/// [`NarrowProduct::new`] guarantees what that takes.
pub struct NarrowProduct {
    a: *const f32,
    a_stride: usize,
    weight: *const f32,
    start: *const f32,
    n_panels: usize,
    n_columns: usize,
    n_rows: usize,
    out: *mut f32,
    /// Lanes of the panels of all operands.
    width: usize,
}

/// The packed weights of a product, and the start of its sums.
#[derive(Clone, Copy)]
pub struct NarrowOperand {
    /// Packed weights `[panel][column][lane]`: lanes run along the sums.
    pub weight: *const f32,
    /// Start of the sums, one for each column; null for zero.
    pub start: *const f32,
    /// Panels of `a`.
    pub n_panels: usize,
    /// Columns of the result, fewer than a panel has lanes.
    pub n_columns: usize,
}

impl NarrowProduct {
    /// The product of the first `n_rows` rows of `a`, rounded up to whole register blocks, with
    /// `operand`.
    ///
    /// # Panics
    /// When `a` has no such rows or panels, or the result does not fit one panel.
    ///
    /// # Safety
    /// Until the product has run,
    /// - `operand` points at as many floats as it says, in panels as wide as those of `a`, and
    ///   nothing writes them;
    /// - `a` is alive; `out` is a tile of one panel with the rows and panel width of `a`, not `a`
    ///   itself, that no other thread accesses.
    pub unsafe fn new(a: &Tile, n_rows: usize, operand: NarrowOperand, out: *mut f32) -> Self {
        let NarrowOperand { weight, start, n_panels, n_columns } = operand;
        let n_rows = n_rows.next_multiple_of(REGISTER_ROWS);
        let width = a.width();
        assert!(n_rows <= a.capacity() && n_panels <= a.n_panels(), "a tile without these rows or columns");
        assert!(n_columns <= width, "more columns than a panel");
        NarrowProduct { a: a.as_ptr(), a_stride: a.stride(), weight, start, n_panels, n_columns, n_rows, out, width }
    }
}

impl WithSimd for NarrowProduct {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = panel_width::<S>();
        assert_eq!(width, self.width, "panels of another instruction set");
        for row in (0..self.n_rows).step_by(REGISTER_ROWS) {
            for column in 0..self.n_columns {
                // SAFETY: `row < n_rows`, `panel < n_panels`, `column < n_columns`, all in bounds:
                // checked in `new` or guaranteed by its caller.
                unsafe {
                    let mut sums = [simd.splat_f32s(0.0); REGISTER_ROWS];
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
