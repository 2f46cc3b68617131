//! Device layout of a network: layers padded to whole tiles, W and its transpose packed in the type
//! of the products.

use half::{bf16, f16};

use super::abi::{
    CHUNK_BYTES, GRAD_TILE, LayerParams, NARROW_COLUMNS, NetworkParams, Products, Tag, WGMMA_COLUMNS, WGMMA_DEPTH,
    WIDTH_UNIT,
};
use crate::model::Architecture;
use crate::precision::Precision;

/// The padded layout of one architecture.
#[derive(Clone, Debug)]
pub struct Network {
    /// The network that is laid out.
    pub architecture: Architecture,
    /// What its products are made of.
    pub products: Products,
    /// Kernel arguments of the network.
    pub params: NetworkParams,
    /// Elements of the packed weights.
    pub n_packed: usize,
    /// Elements of the packed biases.
    pub n_biases: usize,
    /// Tiles of the weight gradient, over all layers.
    pub n_grad_tiles: usize,
}

impl Network {
    /// The layout of `architecture`, which is valid, for products that every card has.
    pub fn new(architecture: &Architecture) -> Self {
        Network::of_products(architecture, Products::Mma)
    }

    /// The layout of `architecture`, which is valid, for `products`.
    pub fn of_products(architecture: &Architecture, products: Products) -> Self {
        let mut params = NetworkParams {
            dim: architecture.dim as u32,
            n_features: architecture.time_embedding.width() as u32,
            n_outputs: architecture.n_outputs() as u32,
            activation: Tag::of(architecture.activation),
            head: Tag::of(architecture.head),
            ..NetworkParams::default()
        };
        let n_layers = architecture.layers().len();
        let unit = |activation: usize| match products {
            Products::Wgmma if activation > 0 && activation < n_layers => WGMMA_COLUMNS,
            _ => WIDTH_UNIT,
        };
        let (mut n_packed, mut n_biases, mut n_parameters, mut n_grad_tiles) = (0, 0, 0, 0);
        let mut row_elements = 0;
        for (index, (layer, padded_layer)) in architecture.layers().iter().zip(&mut params.layers).enumerate() {
            let n_in = layer.n_in.next_multiple_of(unit(index));
            let n_out = layer.n_out.next_multiple_of(unit(index + 1));
            *padded_layer = LayerParams {
                n_in: n_in as u32,
                n_out: n_out as u32,
                n_in_real: layer.n_in as u32,
                n_out_real: layer.n_out as u32,
                forward: n_packed as u32,
                reverse: (n_packed + n_in * n_out) as u32,
                bias: n_biases as u32,
                parameters: n_parameters as u32,
                offset: row_elements as u32,
                grad_tile: n_grad_tiles as u32,
            };
            n_packed += 2 * n_in * n_out;
            n_biases += n_out;
            n_parameters += n_in * n_out + n_out;
            row_elements += n_out;
            n_grad_tiles += n_in.div_ceil(GRAD_TILE) * n_out.div_ceil(GRAD_TILE);
            params.n_layers += 1;
        }
        params.n_parameters = n_parameters as u32;
        params.row_elements = row_elements as u32;
        Network { architecture: architecture.clone(), products, params, n_packed, n_biases, n_grad_tiles }
    }

    /// The layers in use.
    pub fn layers(&self) -> &[LayerParams] {
        &self.params.layers[..self.params.n_layers as usize]
    }

    /// True if all of its layers have the fewest columns: `sweep_narrow` works on those.
    pub fn is_narrow(&self) -> bool {
        self.layers().iter().all(|layer| [layer.n_in, layer.n_out].map(|width| width as usize) == [NARROW_COLUMNS; 2])
    }

    /// Padded width of the input.
    pub fn in_width(&self) -> usize {
        self.params.layers[0].n_in as usize
    }

    /// Padded width of the widest hidden layer.
    pub fn widest_hidden(&self) -> usize {
        let hidden = self.layers().iter().rev().skip(1);
        hidden.map(|layer| layer.n_out as usize).max().unwrap_or(0)
    }

    /// Padded width of the output.
    pub fn out_width(&self) -> usize {
        self.layers().last().map_or(0, |layer| layer.n_out as usize)
    }

    /// Calls `visit(flat, padded)` for each stretch of parameters: a row of a weight, or a bias.
    fn for_each_stretch(&self, mut visit: impl FnMut(std::ops::Range<usize>, usize)) {
        for (layer, padded) in self.architecture.layers().iter().zip(self.layers()) {
            let start = padded.parameters as usize;
            for row in 0..layer.n_out {
                let flat = layer.weight + row * layer.n_in;
                visit(flat..flat + layer.n_in, start + row * padded.n_in as usize);
            }
            visit(layer.bias..layer.bias + layer.n_out, start + (padded.n_in * padded.n_out) as usize);
        }
    }

    /// Flat parameters (or their moments) in the padded order, zeros between.
    pub fn pad(&self, flat: &[f32]) -> Vec<f32> {
        let mut padded = vec![0.0; self.params.n_parameters as usize];
        self.for_each_stretch(|range, at| padded[at..at + range.len()].copy_from_slice(&flat[range]));
        padded
    }

    /// The inverse of [`Network::pad`].
    pub fn unpad(&self, padded: &[f32]) -> Vec<f32> {
        let mut flat = vec![0.0; self.architecture.n_parameters()];
        self.for_each_stretch(|range, at| {
            let n = range.len();
            flat[range].copy_from_slice(&padded[at..at + n]);
        });
        flat
    }

    /// The weights of flat `parameters` packed for products of `precision`, both ways, as bytes;
    /// and the biases.
    pub fn pack(&self, parameters: &[f32], precision: Precision) -> (Vec<u8>, Vec<f32>) {
        let (mut packed, mut biases) = (vec![0.0f32; self.n_packed], vec![0.0; self.n_biases]);
        for (layer, padded) in self.architecture.layers().iter().zip(self.layers()) {
            let (n_in, n_out) = (padded.n_in as usize, padded.n_out as usize);
            for (row, weights) in parameters[layer.weight..layer.bias].chunks_exact(layer.n_in).enumerate() {
                for (column, &weight) in weights.iter().enumerate() {
                    packed[padded.forward as usize + self.packed_index(precision, n_out, row, column)] = weight;
                    packed[padded.reverse as usize + self.packed_index(precision, n_in, column, row)] = weight;
                }
            }
            biases[padded.bias as usize..][..layer.n_out].copy_from_slice(&parameters[layer.bias..][..layer.n_out]);
        }
        (precision.encode(&packed), biases)
    }

    /// Index of element `k` of line `line` among those of `n_lines` lines, in the order in which a
    /// product streams them: as in `kernels/tile/packed.cuh`.
    fn packed_index(&self, precision: Precision, n_lines: usize, line: usize, k: usize) -> usize {
        match self.products {
            Products::Mma => {
                let chunk = CHUNK_BYTES / precision.bytes();
                (k / chunk * n_lines + line) * chunk + k % chunk
            }
            Products::Wgmma => {
                let (line, k) = (in_order_of_sums(line), in_order_of_sums(k));
                let (piece, byte) = ((k % WGMMA_DEPTH / 8) ^ (line % 8), k % 8);
                (k / WGMMA_DEPTH * n_lines + line) * WGMMA_DEPTH + piece * 8 + byte
            }
        }
    }
}

/// Where the hardware has column `index` of a product, if a thread's sums of four of its tiles of
/// eight columns are eight consecutive columns: tile, thread and element change places in 32
/// columns.
fn in_order_of_sums(index: usize) -> usize {
    let (thread, tile, element) = (index / 8 % 4, index / 2 % 4, index % 2);
    index / 32 * 32 + tile * 8 + thread * 2 + element
}

impl Precision {
    /// `values` rounded to the type of operands, as bytes.
    #[must_use]
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Precision::F32 => bytemuck::cast_slice(values).to_vec(),
            // To the nearest of 10 bits of mantissa, ties away from zero: as `cvt.rna.tf32.f32`.
            Precision::Tf32 => {
                values.iter().flat_map(|v| (v.to_bits().wrapping_add(0x1000) & !0x1fff).to_le_bytes()).collect()
            }
            Precision::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            Precision::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        }
    }
}
