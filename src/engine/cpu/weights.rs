//! The weights packed for the products: W for primal and tangent, Wᵀ for reverse and adjoint,
//! biases by panel.

use super::panel::Aligned;
use super::sync::SharedMut;
use crate::model::{Architecture, Layer};

/// Offsets of one layer in [`PackedWeights`] and in the packed gradient.
#[derive(Clone, Copy, Debug)]
pub struct PackedLayer {
    /// The layer in the flat parameters.
    pub layer: Layer,
    /// Panels of the layer's input.
    pub in_panels: usize,
    /// Panels of its output.
    pub out_panels: usize,
    /// `[out_panel][n_in][lane]`: lanes are outputs.
    forward: usize,
    /// `[in_panel][n_out][lane]`: lanes are inputs.
    reverse: usize,
    /// `[out_panel][lane]`.
    bias: usize,
    /// True if the lanes of the packed gradient are outputs, false if they are inputs: the choice
    /// that wastes fewer lanes.
    pub gradient_lanes_are_outputs: bool,
    /// Offset of the packed weight gradient.
    pub gradient: usize,
    /// Offset of the bias gradient `[out_panel][lane]`.
    pub bias_gradient: usize,
}

impl PackedLayer {
    /// Panels of the packed gradient and the number of rows each has.
    pub fn gradient_shape(&self) -> (usize, usize) {
        if self.gradient_lanes_are_outputs {
            (self.out_panels, self.layer.n_in)
        } else {
            (self.in_panels, self.layer.n_out)
        }
    }
}

/// A range of one layer that one thread updates: the weights and biases of one panel of outputs.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    /// The layer's index.
    pub layer: usize,
    /// First output.
    pub first: usize,
    /// One past the last output.
    pub end: usize,
}

/// The layout of packed weights and gradients for one architecture and panel width.
#[derive(Clone, Debug)]
pub struct Packing {
    /// The layers.
    pub layers: Vec<PackedLayer>,
    /// Units of parallel updates; they cover every parameter once.
    pub units: Vec<Unit>,
    /// Lanes of a panel.
    pub width: usize,
    /// Length of the packed weights.
    pub n_packed: usize,
    /// Length of the packed gradient.
    pub n_gradient: usize,
}

impl Packing {
    /// The layout for `architecture` with panels of `width` lanes.
    pub fn new(architecture: &Architecture, width: usize) -> Self {
        let (mut n_packed, mut n_gradient) = (0, 0);
        let take = |total: &mut usize, n: usize| {
            let start = *total;
            *total += n;
            start
        };
        let mut units = Vec::new();
        let layers = architecture
            .layers()
            .into_iter()
            .enumerate()
            .map(|(index, layer)| {
                let (in_panels, out_panels) = (layer.n_in.div_ceil(width), layer.n_out.div_ceil(width));
                units.extend((0..layer.n_out).step_by(width).map(|first| Unit {
                    layer: index,
                    first,
                    end: layer.n_out.min(first + width),
                }));
                let gradient_lanes_are_outputs = out_panels * layer.n_in < in_panels * layer.n_out;
                let gradient_size =
                    if gradient_lanes_are_outputs { out_panels * layer.n_in } else { in_panels * layer.n_out } * width;
                PackedLayer {
                    layer,
                    in_panels,
                    out_panels,
                    forward: take(&mut n_packed, out_panels * layer.n_in * width),
                    reverse: take(&mut n_packed, in_panels * layer.n_out * width),
                    bias: take(&mut n_packed, out_panels * width),
                    gradient_lanes_are_outputs,
                    gradient: take(&mut n_gradient, gradient_size),
                    bias_gradient: take(&mut n_gradient, out_panels * width),
                }
            })
            .collect();
        Packing { layers, units, width, n_packed, n_gradient }
    }

    /// Range of the flat parameters that the weights of `unit` occupy.
    pub fn weight_range(&self, unit: Unit) -> std::ops::Range<usize> {
        let layer = self.layers[unit.layer].layer;
        layer.weight + unit.first * layer.n_in..layer.weight + unit.end * layer.n_in
    }

    /// Range of the flat parameters that the biases of `unit` occupy.
    pub fn bias_range(&self, unit: Unit) -> std::ops::Range<usize> {
        let layer = self.layers[unit.layer].layer;
        layer.bias + unit.first..layer.bias + unit.end
    }

    /// Packs the weights and biases of `unit`, given as their flat values. Padding lanes stay zero.
    ///
    /// # Safety
    /// No other thread touches the packed weights of this unit before the next barrier.
    pub unsafe fn pack(&self, unit: Unit, weight: &[f32], bias: &[f32], packed: SharedMut) {
        let PackedLayer { layer, in_panels, forward, reverse, bias: bias_start, .. } = self.layers[unit.layer];
        let width = self.width;
        let out_panel = unit.first / width;
        // SAFETY: no other unit has these ranges (forward, bias), or rows of different units
        // interleave without overlap (reverse); caller guarantees the rest.
        unsafe {
            let forward =
                packed.slice(forward + out_panel * layer.n_in * width..forward + (out_panel + 1) * layer.n_in * width);
            for (lane, row) in weight.chunks_exact(layer.n_in).enumerate() {
                for (value, target) in row.iter().zip(forward.chunks_exact_mut(width)) {
                    target[lane] = *value;
                }
                for panel in 0..in_panels {
                    let columns = &row[panel * width..layer.n_in.min((panel + 1) * width)];
                    let start = reverse + (panel * layer.n_out + unit.first + lane) * width;
                    packed.slice(start..start + columns.len()).copy_from_slice(columns);
                }
            }
            let start = bias_start + unit.first;
            packed.slice(start..start + bias.len()).copy_from_slice(bias);
        }
    }

    /// Ranges of the packed gradient of `unit`: those of its weights, then the biases. No other
    /// unit shares them.
    pub fn gradient_ranges(&self, unit: Unit) -> impl Iterator<Item = std::ops::Range<usize>> {
        let PackedLayer { layer, in_panels, gradient_lanes_are_outputs, gradient, bias_gradient, .. } =
            self.layers[unit.layer];
        let width = self.width;
        let pieces = if gradient_lanes_are_outputs { 1 } else { in_panels };
        let weights = (0..pieces).map(move |panel| {
            let (start, n_rows) = if gradient_lanes_are_outputs {
                (unit.first / width * layer.n_in, layer.n_in)
            } else {
                (panel * layer.n_out + unit.first, unit.end - unit.first)
            };
            gradient + start * width..gradient + (start + n_rows) * width
        });
        weights.chain(std::iter::once(bias_gradient + unit.first..bias_gradient + unit.end))
    }

    /// Writes the gradient of `unit` in the flat order.
    ///
    /// # Safety
    /// No other thread writes this unit's ranges of `packed` before the next barrier.
    pub unsafe fn unpack_gradient(&self, unit: Unit, packed: SharedMut, weight: &mut [f32], bias: &mut [f32]) {
        let PackedLayer { layer, gradient_lanes_are_outputs, .. } = self.layers[unit.layer];
        let width = self.width;
        let mut ranges = self.gradient_ranges(unit);
        let n_pieces = if gradient_lanes_are_outputs { 1 } else { layer.n_in.div_ceil(width) };
        for (panel, range) in ranges.by_ref().take(n_pieces).enumerate() {
            // SAFETY: caller guarantees that nothing writes the range.
            let packed = unsafe { packed.read(range) };
            if gradient_lanes_are_outputs {
                for (lane, row) in weight.chunks_exact_mut(layer.n_in).enumerate() {
                    for (value, packed) in row.iter_mut().zip(packed.chunks_exact(width)) {
                        *value = packed[lane];
                    }
                }
            } else {
                let columns = panel * width..layer.n_in.min((panel + 1) * width);
                for (row, packed) in weight.chunks_exact_mut(layer.n_in).zip(packed.chunks_exact(width)) {
                    row[columns.clone()].copy_from_slice(&packed[..columns.len()]);
                }
            }
        }
        for range in ranges {
            // SAFETY: caller guarantees that nothing writes the range.
            bias.copy_from_slice(unsafe { packed.read(range) });
        }
    }
}

/// Packed weights of one network.
pub struct PackedWeights {
    values: Aligned,
}

impl PackedWeights {
    /// Packs flat `parameters`.
    pub fn new(packing: &Packing, parameters: &[f32]) -> Self {
        let mut weights = PackedWeights { values: Aligned::zeros(packing.n_packed) };
        let shared = SharedMut::new(weights.values.as_mut_slice());
        for &unit in &packing.units {
            // SAFETY: one thread; `shared` is dropped before `weights`.
            unsafe {
                packing.pack(
                    unit,
                    &parameters[packing.weight_range(unit)],
                    &parameters[packing.bias_range(unit)],
                    shared,
                )
            };
        }
        weights
    }

    /// The values, to update them between steps.
    pub fn values_mut(&mut self) -> &mut [f32] {
        self.values.as_mut_slice()
    }

    /// The weights for the sweeps to read.
    pub fn view(&self) -> WeightsView {
        WeightsView(self.values.as_slice().as_ptr())
    }
}

/// Read access to packed weights, valid as long as their storage.
#[derive(Clone, Copy)]
pub struct WeightsView(*const f32);

impl WeightsView {
    /// A view of packed weights that threads update between steps.
    pub fn shared(values: SharedMut) -> Self {
        WeightsView(values.pointer(0))
    }

    /// W of `layer`, lanes along outputs.
    pub fn forward(self, layer: &PackedLayer) -> *const f32 {
        self.0.wrapping_add(layer.forward)
    }

    /// Wᵀ of `layer`, lanes along inputs.
    pub fn reverse(self, layer: &PackedLayer) -> *const f32 {
        self.0.wrapping_add(layer.reverse)
    }

    /// Bias of `layer`.
    pub fn bias(self, layer: &PackedLayer) -> *const f32 {
        self.0.wrapping_add(layer.bias)
    }
}
