//! From the sweeps of a tile to the packed parameter gradient: adjoint sweep and weight gradients, layer by layer.

use pulp::{Simd, WithSimd};

use super::panel::{Tile, panel_width};
use super::product::{load_pair, store};
use super::sweeps::Sweeps;
use super::sync::{SharedMut, Turn};
use super::weight_grad::{Channel, WeightGrad};
use super::weights::{PackedLayer, Packing};
use super::workspace::Workspace;

/// Panels of a weight gradient that change under one turn: small enough that threads queue behind each other
/// without waiting, large enough that turns cost nothing.
const TURN_PANELS: usize = 4;

/// The turns of all layers: tiles add to each part of the gradient in their own order, whichever thread runs them.
pub struct GradientTurns {
    layers: Vec<Vec<Turn>>,
}

impl GradientTurns {
    /// Turns for the packed gradient of `packing`.
    pub fn new(packing: &Packing) -> Self {
        let turns = |layer: &PackedLayer| {
            (0..layer.gradient_shape().0.div_ceil(TURN_PANELS)).map(|_| Turn::default()).collect()
        };
        GradientTurns { layers: packing.layers.iter().map(turns).collect() }
    }

    /// Back to tile 0, between steps.
    pub fn reset(&self) {
        self.layers.iter().flatten().for_each(Turn::reset);
    }
}

/// Adjoint sweep of the tile in `work` (seeded in `output_bar`) with the gradient of every layer added to `gradient`
/// when the turn of `tile` comes; tile 0 overwrites. `interior` tiles have the δ, c channel and g.
pub fn accumulate<S: Simd>(
    sweeps: &Sweeps<S>,
    work: &mut Workspace,
    n_rows: usize,
    interior: bool,
    tile: usize,
    turns: &GradientTurns,
    gradient: SharedMut,
) {
    for index in (0..sweeps.packing.layers.len()).rev() {
        let layer = &sweeps.packing.layers[index];
        let (below, above) = work.hidden.split_at(index);
        let (a, c) = below.last().map_or((&work.a0, &work.c0), |hidden| (&hidden.a, &hidden.c_a));
        let (z_bar, delta) =
            above.first().map_or((&work.output_bar, &work.seed), |hidden| (&hidden.z_bar, &hidden.delta));
        let channel = |adjoint: &Tile, input: &Tile| {
            let (adjoint, input) = (adjoint.as_ptr(), input.as_ptr());
            if layer.gradient_lanes_are_outputs {
                Channel { broadcast: input, lanes: adjoint }
            } else {
                Channel { broadcast: adjoint, lanes: input }
            }
        };
        let channels = [channel(z_bar, a), channel(delta, c)];
        let (n_panels, n_broadcast) = layer.gradient_shape();
        for (part, turn) in turns.layers[index].iter().enumerate() {
            turn.take(tile);
            if part == 0 {
                sweeps.simd.vectorize(BiasGrad {
                    z_bar: z_bar.as_ptr(),
                    stride: z_bar.stride(),
                    n_panels: layer.out_panels,
                    n_rows,
                    sum: gradient.pointer(layer.bias_gradient),
                    accumulate: tile > 0,
                });
            }
            sweeps.simd.vectorize(WeightGrad {
                channels: if interior { &channels } else { &channels[..1] },
                broadcast_stride: z_bar.stride(),
                lanes_stride: z_bar.stride(),
                n_broadcast,
                panels: part * TURN_PANELS..n_panels.min((part + 1) * TURN_PANELS),
                n_rows,
                sum: gradient.pointer(layer.gradient),
                accumulate: tile > 0,
            });
            turn.pass(tile);
        }
        sweeps.adjoint(index, work, n_rows, interior);
    }
}

/// db = Σ z̄ over rows.
struct BiasGrad {
    z_bar: *const f32,
    stride: usize,
    n_panels: usize,
    n_rows: usize,
    sum: *mut f32,
    accumulate: bool,
}

impl WithSimd for BiasGrad {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = panel_width::<S>();
        for panel in 0..self.n_panels {
            // SAFETY: `n_panels` panels of `n_rows` rows lie in the tile, one panel width each in the sum.
            unsafe {
                let out = self.sum.add(panel * width);
                let mut sum = if self.accumulate { load_pair::<S>(out) } else { [simd.splat_f32s(0.0); 2] };
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
