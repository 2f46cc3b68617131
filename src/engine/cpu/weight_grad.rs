//! The weight gradient of one layer over one tile: `dWᵀ`-shaped sums over rows of stacked channels.
//!
//! `sum[i, lane] += Σ_channels Σ_row broadcast[row, i] · lanes[row, lane]`: dW = z̄ᵀa + (ωδ)ᵀc + Σ
//! ēᵀe over probes.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::panel::{Tile, panel_width, prefetch};
use super::product::{REGISTER_ROWS, load_pair, store};
use crate::engine::batch::Onto;

/// A pair of tiles whose products over rows are summed.
#[derive(Clone, Copy)]
pub struct Channel<'a> {
    /// Tile whose values are broadcast: its columns are the rows of the sum.
    pub broadcast: &'a Tile,
    /// Tile whose lanes are loaded: its panels are the panels of the sum.
    pub lanes: &'a Tile,
}

/// One weight gradient, restricted to some panels. A value of this type can be run safely: what
/// that requires is promised to [`WeightGrad::new`], or checked when it runs.
pub struct WeightGrad<F> {
    n_channels: usize,
    channel: F,
    n_broadcast: usize,
    panels: Range<usize>,
    n_rows: usize,
    sum: *mut f32,
    onto: Onto,
}

/// The sums of a weight gradient.
pub struct WeightSum {
    /// Columns of the broadcast tiles: rows of the sum.
    pub n_broadcast: usize,
    /// Panels of the sum to form.
    pub panels: Range<usize>,
    /// Sums `[panel][n_broadcast][lane]`, all panels.
    pub values: *mut f32,
    /// Start of the sum.
    pub onto: Onto,
}

impl<'a, F: Fn(usize) -> Channel<'a>> WeightGrad<F> {
    /// The products of `n_channels` stacked channels, by index, over `n_rows` rows.
    ///
    /// # Safety
    /// Until the gradient is formed, `sum.values` points at whole panels, as wide as those of the
    /// channels, and no other thread accesses `sum.panels` of them.
    pub unsafe fn new(n_channels: usize, channel: F, n_rows: usize, sum: WeightSum) -> Self {
        let WeightSum { n_broadcast, panels, values, onto } = sum;
        WeightGrad { n_channels, channel, n_broadcast, panels, n_rows, sum: values, onto }
    }

    /// # Panics
    /// When the tiles of a channel have other panels than `width`, or no such rows and columns.
    fn check(&self, width: usize) {
        for Channel { broadcast, lanes } in (0..self.n_channels).map(&self.channel) {
            assert!(broadcast.width() == width && lanes.width() == width, "panels of another instruction set");
            assert!(
                self.n_rows <= broadcast.capacity() && self.n_rows <= lanes.capacity(),
                "a tile without these rows"
            );
            assert!(
                self.n_broadcast <= broadcast.n_panels() * width && self.panels.end <= lanes.n_panels(),
                "a tile without these columns"
            );
        }
    }
}

impl<'a, F: Fn(usize) -> Channel<'a>> WithSimd for WeightGrad<F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.check(panel_width::<S>());
        for panel in self.panels.clone() {
            let mut first = 0;
            while first + REGISTER_ROWS <= self.n_broadcast {
                self.sum_rows::<S, REGISTER_ROWS>(simd, panel, first);
                first += REGISTER_ROWS;
            }
            match self.n_broadcast - first {
                1 => self.sum_rows::<S, 1>(simd, panel, first),
                2 => self.sum_rows::<S, 2>(simd, panel, first),
                3 => self.sum_rows::<S, 3>(simd, panel, first),
                4 => self.sum_rows::<S, 4>(simd, panel, first),
                5 => self.sum_rows::<S, 5>(simd, panel, first),
                _ => {}
            }
        }
    }
}

impl<'a, F: Fn(usize) -> Channel<'a>> WeightGrad<F> {
    #[inline(always)]
    fn sum_rows<S: Simd, const M: usize>(&self, simd: S, panel: usize, first: usize) {
        let width = panel_width::<S>();
        // SAFETY: `first + M <= n_broadcast`, `panel` and `n_rows` are inside the tiles, by
        // `check`, and inside the sum, as promised to `new`.
        unsafe {
            let out = self.sum.add((panel * self.n_broadcast + first) * width);
            for i in 0..M {
                prefetch(out.add(i * width));
            }
            let mut sums = [[simd.splat_f32s(0.0); 2]; M];
            for channel in (0..self.n_channels).map(&self.channel) {
                let values: [*const f32; M] = std::array::from_fn(|i| {
                    let column = first + i;
                    channel.broadcast.as_ptr().add(column / width * channel.broadcast.stride() + column % width)
                });
                let lanes = channel.lanes.as_ptr().add(panel * channel.lanes.stride());
                let mut row = 0;
                let end = self.n_rows * width;
                while row < end {
                    let [low, high] = load_pair::<S>(lanes.add(row));
                    for (sum, value) in sums.iter_mut().zip(&values) {
                        let value = simd.splat_f32s(*value.add(row));
                        sum[0] = simd.mul_add_f32s(value, low, sum[0]);
                        sum[1] = simd.mul_add_f32s(value, high, sum[1]);
                    }
                    row += width;
                }
            }
            for (i, sum) in sums.iter().enumerate() {
                let out = out.add(i * width);
                let held = load_pair::<S>(out);
                for half in 0..2 {
                    let value = if self.onto == Onto::Sum { simd.add_f32s(held[half], sum[half]) } else { sum[half] };
                    store::<S>(out.add(half * S::F32_LANES), value);
                }
            }
        }
    }
}
