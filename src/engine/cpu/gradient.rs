//! The packed parameter gradient of a tile: adjoint sweep and weight gradients, layer by layer.

use pulp::{Simd, WithSimd};

use super::panel::panel_width;
use super::product::{load_pair, store};
use super::sweeps::{RowKind, Sweeps};
use super::sync::{SharedMut, Turn};
use super::weight_grad::{Channel, WeightGrad, WeightSum};
use super::weights::{PackedLayer, Packing, Unit};
use super::workspace::Workspace;
use crate::engine::batch::Onto;

/// Panels of a weight gradient that one `Turn` guards. Few enough that threads pipeline behind each
/// other without waiting, many enough that turns cost nothing.
const TURN_PANELS: usize = 4;

/// Bytes of all partial sums of small networks, so that they stay in one core's portion of the
/// cache.
const PARTIAL_BYTES: usize = 1 << 19;

/// The gradient as a few partial sums. Tile k adds to sum k mod n, in the order of tiles, whichever
/// thread runs it.
///
/// With a single sum each thread would wait for the tile before its own (measured: 10 % of a step
/// on two threads).
pub struct PartialSums {
    /// For each sum and layer, one turn for every `TURN_PANELS` panels.
    turns: Vec<Vec<Vec<Turn>>>,
    /// Floats of one sum.
    n_gradient: usize,
}

impl PartialSums {
    /// Sums of the packed gradient of `packing` for batches of `n_tiles` tiles. Their number
    /// depends only on these two.
    pub fn new(packing: &Packing, n_tiles: usize) -> Self {
        let turns = |layer: &PackedLayer| {
            (0..layer.gradient_shape().0.div_ceil(TURN_PANELS)).map(|_| Turn::default()).collect()
        };
        let fit = PARTIAL_BYTES / (packing.n_gradient * size_of::<f32>());
        let n_sums = fit.clamp(2, 16).min(n_tiles.max(1));
        PartialSums {
            turns: (0..n_sums).map(|_| packing.layers.iter().map(turns).collect()).collect(),
            n_gradient: packing.n_gradient,
        }
    }

    /// Floats of the buffer that holds all sums.
    pub fn n_values(&self) -> usize {
        self.turns.len() * self.n_gradient
    }

    /// Returns to the first tile, between steps.
    pub fn reset(&self) {
        self.turns.iter().flatten().flatten().for_each(Turn::reset);
    }

    /// Releases all threads that wait for a turn, and lets none wait later.
    pub fn poison(&self) {
        self.turns.iter().flatten().flatten().for_each(Turn::poison);
    }

    /// Adds the sums in `values` over `unit`; the total replaces the range of the first sum.
    ///
    /// # Safety
    /// No other thread touches this unit's range of `values` before the next barrier.
    pub unsafe fn add_up<S: Simd>(&self, simd: S, packing: &Packing, unit: Unit, values: SharedMut) {
        for range in packing.gradient_ranges(unit) {
            // SAFETY: sums do not overlap; caller guarantees the rest.
            let total = unsafe { values.slice(range.clone()) };
            for sum in 1..self.turns.len() {
                let start = sum * self.n_gradient;
                // SAFETY: as above.
                let sum = unsafe { values.read(start + range.start..start + range.end) };
                simd.vectorize(AddTo { total, sum });
            }
        }
    }
}

/// total += other.
struct AddTo<'a> {
    total: &'a mut [f32],
    sum: &'a [f32],
}

impl WithSimd for AddTo<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        for (total, sum) in self.total.iter_mut().zip(self.sum) {
            *total += sum;
        }
    }
}

/// Runs the adjoint sweep of the tile in `work` (seeded in `output_bar`) and adds the gradient of
/// every layer to its sum in `values` when it is the turn of `tile`; the first tile of a sum
/// overwrites it. `interior` tiles have g and the channels of δ, c and the probes.
pub fn accumulate<S: Simd>(
    sweeps: &Sweeps<S>,
    work: &mut Workspace,
    n_rows: usize,
    kind: RowKind,
    tile: usize,
    sums: &PartialSums,
    values: SharedMut,
) {
    let n_sums = sums.turns.len();
    let (sum, round) = (tile % n_sums, tile / n_sums);
    let start = sum * sums.n_gradient;
    let onto = if round > 0 { Onto::Sum } else { Onto::Nothing };
    for index in (0..sweeps.packing.layers.len()).rev() {
        let layer = &sweeps.packing.layers[index];
        let (below, above) = work.hidden.split_at(index);
        let (a, c) = below.last().map_or((&work.a0, &work.c0), |hidden| (&hidden.a, &hidden.c_a));
        let (z_bar, delta) =
            above.first().map_or((&work.output_bar, &work.seed), |hidden| (&hidden.z_bar, &hidden.delta));
        let channel = |adjoint, input| {
            if layer.gradient_lanes_are_outputs {
                Channel { broadcast: input, lanes: adjoint }
            } else {
                Channel { broadcast: adjoint, lanes: input }
            }
        };
        let stacked = |k: usize| match k {
            0 => channel(z_bar, a),
            1 => channel(delta, c),
            _ => {
                let ends = &work.probes[k - 2];
                let e_bar = above.first().map_or(&ends.output, |hidden| &hidden.probes[k - 2].e_z);
                channel(e_bar, below.last().map_or(&ends.input, |hidden| &hidden.probes[k - 2].e_a))
            }
        };
        let (n_panels, n_broadcast) = layer.gradient_shape();
        for (group, turn) in sums.turns[sum][index].iter().enumerate() {
            turn.take(round);
            if group == 0 {
                sweeps.simd.vectorize(BiasGrad {
                    z_bar: z_bar.as_ptr(),
                    stride: z_bar.stride(),
                    n_panels: layer.out_panels,
                    n_rows,
                    sum: values.pointer(start + layer.bias_gradient),
                    onto,
                });
            }
            let weight_sum = WeightSum {
                n_broadcast,
                panels: group * TURN_PANELS..n_panels.min((group + 1) * TURN_PANELS),
                values: values.pointer(start + layer.gradient),
                onto,
            };
            let n_channels = match kind {
                RowKind::Interior => 2 + work.probes.len(),
                RowKind::Boundary => 1,
            };
            // SAFETY: the layer's gradient lies there in whole panels, and its turn grants these to
            // one thread.
            let gradient = unsafe { WeightGrad::new(n_channels, stacked, n_rows, weight_sum) };
            sweeps.simd.vectorize(gradient);
            turn.pass(round);
        }
        sweeps.adjoint(index, work, n_rows, kind);
    }
}

/// db = Σ z̄ over rows.
struct BiasGrad {
    z_bar: *const f32,
    stride: usize,
    n_panels: usize,
    n_rows: usize,
    sum: *mut f32,
    onto: Onto,
}

impl WithSimd for BiasGrad {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = panel_width::<S>();
        for panel in 0..self.n_panels {
            // SAFETY: the tile holds `n_panels` panels of `n_rows` rows; the sum holds one panel
            // width for each.
            unsafe {
                let out = self.sum.add(panel * width);
                let mut sum = match self.onto {
                    Onto::Sum => load_pair::<S>(out),
                    Onto::Nothing => [simd.splat_f32s(0.0); 2],
                };
                for row in 0..self.n_rows {
                    let [low, high] = load_pair::<S>(self.z_bar.add(panel * self.stride + row * width));
                    sum = [simd.add_f32s(sum[0], low), simd.add_f32s(sum[1], high)];
                }
                store::<S>(out, sum[0]);
                store::<S>(out.add(S::F32_LANES), sum[1]);
            }
        }
    }
}
