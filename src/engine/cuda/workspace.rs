//! Sizes of the buffers for the rows of a launch.

use std::mem::offset_of;

use super::abi::{BROAD_COLUMNS, Products, RowBuffers, TILE_ROWS, WARPS, WIDE_COLUMNS};
use super::carried::{carried, unit_bytes};
use super::needs::{PointGradient, RowNeeds, Tiles, Work};
use super::network::Network;
use crate::precision::Precision;

/// Rows per launch, and slots for their activations; multiples of [`TILE_ROWS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Rows.
    pub rows: usize,
    /// Equally many slots, or fewer if blocks reuse theirs for all their tiles.
    pub slots: usize,
}

impl Extent {
    /// A slot for each of `rows` rows.
    pub fn of_rows(rows: usize) -> Extent {
        Extent { rows, slots: rows }
    }
}

/// Bytes of one row or slot in a buffer, after the offset of its address in [`RowBuffers`].
pub type BytesOfOne = (usize, usize);

/// Bytes per row and per slot of each buffer of [`RowBuffers`].
pub fn bytes_of_one(network: &Network, precision: Precision, needs: RowNeeds) -> ([BytesOfOne; 15], [BytesOfOne; 13]) {
    let RowNeeds { n_probes, grad_x, work, tiles } = needs;
    let tile_rows = tiles.rows();
    let (operand, f32s) = (precision.bytes(), |n: usize| n * size_of::<f32>());
    let (dim, features) = (network.params.dim as usize, network.params.n_features as usize);
    let (in_width, out_width) = (network.in_width(), network.out_width());
    let activations = |is_kept: bool| if is_kept { network.params.row_elements as usize * operand } else { 0 };
    let when = |is_needed: bool, bytes: usize| if is_needed { bytes } else { 0 };
    let (trains, probed) = (work == Work::Training, n_probes > 0);
    let (reverse, tangent) = (work != Work::Bend, trains || probed);
    let adjoint = work != Work::Particles;
    let own_delta = reverse && !delta_overwrites_a(needs);
    // For the products with the most columns that may be chosen: they round a layer up to more
    // units than others.
    let is_broad =
        network.widest_hidden() > WIDE_COLUMNS || tiles != Tiles::High || network.products == Products::Wgmma;
    let columns = if is_broad { BROAD_COLUMNS } else { WIDE_COLUMNS };
    let of_tile = carried(network, precision, needs, columns, 0).of_tile as usize;
    let carried_bytes = of_tile * unit_bytes(precision) / tile_rows;
    let rows = [
        (offset_of!(RowBuffers, x), f32s(dim)),
        (offset_of!(RowBuffers, t), f32s(1)),
        (offset_of!(RowBuffers, d_phi), f32s(features)),
        (offset_of!(RowBuffers, velocity), when(trains, f32s(dim))),
        (offset_of!(RowBuffers, weight), f32s(1)),
        (offset_of!(RowBuffers, on_potential), when(trains, f32s(1))),
        (offset_of!(RowBuffers, sampling_weight), when(trains, f32s(1))),
        (offset_of!(RowBuffers, kappa), when(probed, f32s(1))),
        (offset_of!(RowBuffers, a_in), in_width * operand),
        (offset_of!(RowBuffers, e_in), n_probes * in_width * operand),
        (offset_of!(RowBuffers, s), when(reverse, f32s(1))),
        (offset_of!(RowBuffers, grad_s), when(reverse, f32s(dim))),
        (offset_of!(RowBuffers, ds_dt), when(trains, f32s(1))),
        (offset_of!(RowBuffers, generator), when(probed, f32s(1))),
        (offset_of!(RowBuffers, grad_x), when(grad_x == PointGradient::Needed, f32s(dim))),
    ];
    let slots = [
        (offset_of!(RowBuffers, c_in), when(tangent, in_width * operand)),
        (offset_of!(RowBuffers, a), activations(true)),
        (offset_of!(RowBuffers, c), activations(tangent)),
        (offset_of!(RowBuffers, delta), activations(own_delta)),
        (offset_of!(RowBuffers, z_bar), activations(adjoint)),
        (offset_of!(RowBuffers, e_a), n_probes * activations(true)),
        (offset_of!(RowBuffers, e_bar), n_probes * activations(adjoint)),
        (offset_of!(RowBuffers, carried), carried_bytes),
        (offset_of!(RowBuffers, output), f32s(out_width)),
        (offset_of!(RowBuffers, output_c), when(tangent, f32s(out_width))),
        (offset_of!(RowBuffers, output_e), f32s(n_probes * out_width)),
        (offset_of!(RowBuffers, input_grad), when(reverse, f32s(in_width))),
        (offset_of!(RowBuffers, seed_sums), when(adjoint, f32s(out_width * WARPS) / tile_rows)),
    ];
    (rows, slots)
}

/// True if delta may overwrite a, which no sweep reads after the output is formed, and no weight
/// gradient.
pub fn delta_overwrites_a(needs: RowNeeds) -> bool {
    needs.work == Work::Particles
}

/// Bytes that [`Rows`](super::launch::Rows) take.
pub fn rows_bytes(network: &Network, precision: Precision, needs: RowNeeds, extent: Extent) -> usize {
    let (row, slot) = bytes_of_one(network, precision, needs);
    let sum = |buffers: &[BytesOfOne]| buffers.iter().map(|(_, bytes)| bytes).sum::<usize>();
    extent.rows * sum(&row) + extent.slots * sum(&slot)
}

/// Maximum bytes of rows and slots, unless a single tile needs more: fits the memory of any GPU.
const MOST_BYTES: usize = 1 << 30;

/// Rows of a batch of `n_rows` that are worked on at a time, where each has a slot: enough tiles
/// for every multiprocessor of a large GPU, if need be twice. Sums do not depend on it.
pub fn chunk_rows(network: &Network, precision: Precision, needs: RowNeeds, n_rows: usize) -> usize {
    const MOST_ROWS: usize = 1 << 15;
    tiles_within(n_rows.min(MOST_ROWS), rows_bytes(network, precision, needs, Extent::of_rows(1)))
}

/// The same where blocks have the slots, `most_slots` at most.
pub fn narrow_extent(
    network: &Network,
    precision: Precision,
    needs: RowNeeds,
    n_rows: usize,
    most_slots: usize,
) -> Extent {
    const MOST_ROWS: usize = 1 << 18;
    let rows = tiles_within(n_rows.min(MOST_ROWS), rows_bytes(network, precision, needs, Extent { rows: 1, slots: 0 }));
    let of_slot = rows_bytes(network, precision, needs, Extent { rows: 0, slots: 1 });
    Extent { rows, slots: tiles_within(rows.min(most_slots), of_slot) }
}

/// `n` in whole tiles, at least one, as far as [`MOST_BYTES`] go.
fn tiles_within(n: usize, bytes_of_one: usize) -> usize {
    let fit = MOST_BYTES / bytes_of_one / TILE_ROWS * TILE_ROWS;
    n.next_multiple_of(TILE_ROWS).min(fit).max(TILE_ROWS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Architecture;

    /// The addresses follow four counts, and each belongs to one buffer.
    #[test]
    fn every_address_of_row_buffers_has_one_size() {
        let network = Network::new(&Architecture::new(3, [16]));
        let (rows, slots) = bytes_of_one(&network, Precision::F32, RowNeeds::default());
        let mut offsets: Vec<usize> = rows.iter().chain(&slots).map(|(offset, _)| *offset).collect();
        offsets.sort();
        assert!(offsets.into_iter().eq((16..size_of::<RowBuffers>()).step_by(8)));
    }
}
