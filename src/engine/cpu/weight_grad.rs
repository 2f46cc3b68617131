//! The weight gradient of one layer over one tile: `dWᵀ`-shaped sums over rows of stacked channels.
//!
//! `sum[i, lane] += Σ_channels Σ_row broadcast[row, i] · lanes[row, lane]`: dW = z̄ᵀa + (ωδ)ᵀc + Σ
//! ēᵀe over probes.

use pulp::{Simd, WithSimd};

use super::panel::{panel_width, prefetch};
use super::product::{BLOCK_ROWS, load_pair, store};

/// A pair of tiles whose products over rows are summed.
#[derive(Clone, Copy)]
pub struct Channel {
    /// Tile whose values are broadcast: its columns are the rows of the sum.
    pub broadcast: *const f32,
    /// Tile whose lanes are loaded: its panels are the panels of the sum.
    pub lanes: *const f32,
}

/// One weight gradient, restricted to the panels `panels`.
pub struct WeightGrad<F> {
    /// Number of stacked channels.
    pub n_channels: usize,
    /// The channels by index.
    pub channel: F,
    /// Floats between panels of the broadcast tiles.
    pub broadcast_stride: usize,
    /// Floats between panels of the lane tiles.
    pub lanes_stride: usize,
    /// Columns of the broadcast tiles: rows of the sum.
    pub n_broadcast: usize,
    /// Panels of the sum to form.
    pub panels: std::ops::Range<usize>,
    /// Rows of the tiles to sum over.
    pub n_rows: usize,
    /// Sums `[panel][n_broadcast][lane]`.
    pub sum: *mut f32,
    /// Adds to the values of `sum` (otherwise overwrites them).
    pub accumulate: bool,
}

impl<F: Fn(usize) -> Channel> WithSimd for WeightGrad<F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for panel in self.panels.clone() {
            let mut first = 0;
            while first + BLOCK_ROWS <= self.n_broadcast {
                self.block::<S, BLOCK_ROWS>(simd, panel, first);
                first += BLOCK_ROWS;
            }
            match self.n_broadcast - first {
                1 => self.block::<S, 1>(simd, panel, first),
                2 => self.block::<S, 2>(simd, panel, first),
                3 => self.block::<S, 3>(simd, panel, first),
                4 => self.block::<S, 4>(simd, panel, first),
                5 => self.block::<S, 5>(simd, panel, first),
                _ => {}
            }
        }
    }
}

impl<F: Fn(usize) -> Channel> WeightGrad<F> {
    #[inline(always)]
    fn block<S: Simd, const M: usize>(&self, simd: S, panel: usize, first: usize) {
        let width = panel_width::<S>();
        // SAFETY: `first + M <= n_broadcast`, and `panel` and `n_rows` are inside the tiles and the
        // sum; see the fields.
        unsafe {
            let out = self.sum.add((panel * self.n_broadcast + first) * width);
            for i in 0..M {
                prefetch(out.add(i * width));
            }
            let mut sums = [[simd.splat_f32s(0.0); 2]; M];
            for channel in (0..self.n_channels).map(&self.channel) {
                let values: [*const f32; M] = std::array::from_fn(|i| {
                    let column = first + i;
                    channel.broadcast.add(column / width * self.broadcast_stride + column % width)
                });
                let lanes = channel.lanes.add(panel * self.lanes_stride);
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
                    let value = if self.accumulate { simd.add_f32s(held[half], sum[half]) } else { sum[half] };
                    store::<S>(out.add(half * S::F32_LANES), value);
                }
            }
        }
    }
}
