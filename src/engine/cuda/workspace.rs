//! Sizes of the buffers for the rows of a launch.

use super::abi::{TILE_ROWS, WARPS};
use super::network::Network;
use crate::precision::Precision;

/// Purpose of rows, which decides the sweeps they get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Work {
    /// The loss of a batch and its gradient: all sweeps.
    #[default]
    Training,
    /// The value of a network and its adjoint.
    Bend,
    /// The gradient at the input, and the tangents of probes.
    Particles,
}

/// Requirements of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowNeeds {
    /// Probes per row.
    pub n_probes: usize,
    /// True if a bend needs the gradient at the points.
    pub grad_x: bool,
    /// Purpose of the rows.
    pub work: Work,
}

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

/// Bytes per row and per slot of each buffer of [`RowBuffers`](super::abi::RowBuffers), in the
/// order of its fields.
pub fn bytes_of_one(network: &Network, precision: Precision, needs: RowNeeds) -> ([usize; 15], [usize; 17]) {
    let RowNeeds { n_probes, grad_x, work } = needs;
    let (operand, f32s) = (precision.bytes(), |n: usize| n * size_of::<f32>());
    let (dim, features) = (network.params.dim as usize, network.params.n_features as usize);
    let (in_width, out_width) = (network.in_width(), network.out_width());
    let activations = |is_kept: bool| if is_kept { network.params.row_elements as usize * operand } else { 0 };
    let when = |is_needed: bool, bytes: usize| if is_needed { bytes } else { 0 };
    let (trains, probed) = (work == Work::Training, n_probes > 0);
    let (reverse, tangent) = (work != Work::Bend, trains || probed);
    let adjoint = work != Work::Particles;
    let (own_delta, own_z_bar) = (reverse && !delta_overwrites_f1(needs), work == Work::Bend);
    let rows = [
        f32s(dim),                     // x
        f32s(1),                       // t
        f32s(features),                // d_phi
        when(trains, f32s(dim)),       // velocity
        f32s(1),                       // weight
        when(trains, f32s(1)),         // on_potential
        when(trains, f32s(1)),         // sampling_weight
        when(probed, f32s(1)),         // kappa
        in_width * operand,            // a_in
        n_probes * in_width * operand, // e_in
        when(reverse, f32s(1)),        // s
        when(reverse, f32s(dim)),      // grad_s
        when(trains, f32s(1)),         // ds_dt
        when(probed, f32s(1)),         // generator
        when(grad_x, f32s(dim)),       // grad_x
    ];
    let slots = [
        when(tangent, in_width * operand),                  // c_in
        activations(true),                                  // a
        activations(tangent),                               // c
        activations(own_delta),                             // delta
        activations(own_z_bar),                             // z_bar
        activations(true),                                  // f1
        activations(tangent),                               // g
        activations(probed),                                // f2
        activations(probed),                                // h
        activations(probed),                                // u_f3
        n_probes * activations(true),                       // e_a
        n_probes * activations(true),                       // e_z
        f32s(out_width),                                    // output
        when(tangent, f32s(out_width)),                     // output_c
        f32s(n_probes * out_width),                         // output_e
        when(reverse, f32s(in_width)),                      // input_grad
        when(adjoint, f32s(out_width * WARPS / TILE_ROWS)), // seed_sums
    ];
    (rows, slots)
}

/// True if delta may overwrite f', which is read last at that point.
pub fn delta_overwrites_f1(needs: RowNeeds) -> bool {
    needs.work == Work::Particles && needs.n_probes == 0
}

/// Bytes that [`Rows`](super::launch::Rows) take.
pub fn rows_bytes(network: &Network, precision: Precision, needs: RowNeeds, extent: Extent) -> usize {
    let (row, slot) = bytes_of_one(network, precision, needs);
    extent.rows * row.iter().sum::<usize>() + extent.slots * slot.iter().sum::<usize>()
}

/// Maximum bytes of rows and slots, unless a single tile needs more: fits the memory of any GPU.
const MOST_BYTES: usize = 1 << 30;

/// Rows of a batch of `n_rows` that are worked on at a time, where each has a slot: enough tiles
/// for every multiprocessor of a large GPU, if need be twice. Depends on shape and batch alone, so
/// that sums do too.
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
