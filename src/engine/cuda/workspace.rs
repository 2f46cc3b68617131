//! Memory for the rows of a launch: first the sizes, then the allocation.

use super::abi::{DevicePtr, RowBuffers, TILE_ROWS, WARPS};
use super::driver::{Buffer, Device};
use super::network::Network;
use crate::error::{Error, Result};
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

/// What rows need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowNeeds {
    /// Probes per row.
    pub n_probes: usize,
    /// Whether a bend needs the gradient at the points.
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

/// Bytes per row and per slot of each buffer of [`RowBuffers`], in the order of its fields.
fn bytes_of_one(network: &Network, precision: Precision, needs: RowNeeds) -> ([usize; 15], [usize; 17]) {
    let RowNeeds { n_probes, grad_x, work } = needs;
    let (operand, f32s) = (precision.bytes(), |n: usize| n * size_of::<f32>());
    let (dim, features) = (network.params.dim as usize, network.params.n_features as usize);
    let (in_width, out_width) = (network.in_width(), network.out_width());
    let activations = |is_kept: bool| if is_kept { network.params.places as usize * operand } else { 0 };
    let when = |is_needed: bool, bytes: usize| if is_needed { bytes } else { 0 };
    let (trains, probed) = (work == Work::Training, n_probes > 0);
    let (reverse, tangent) = (work != Work::Bend, trains || probed);
    let adjoint = work != Work::Particles;
    let (own_delta, own_z_bar) = (reverse && !in_place_of_f1(needs), work == Work::Bend);
    let rows = [
        f32s(dim),                     // x
        f32s(1),                       // t
        f32s(features),                // d_phi
        when(trains, f32s(dim)),       // velocity
        f32s(1),                       // weight
        when(trains, f32s(1)),         // on_potential
        when(trains, f32s(1)),         // measure
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

/// Whether delta may overwrite f', which is read last at that point.
fn in_place_of_f1(needs: RowNeeds) -> bool {
    needs.work == Work::Particles && needs.n_probes == 0
}

/// Bytes that [`Rows`] take.
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

/// Rows on the device.
pub struct Rows {
    buffers: Vec<Buffer<u8>>,
    params: RowBuffers,
}

impl Rows {
    /// Space for rows and slots.
    ///
    /// # Errors
    /// [`Error::Device`] says how much memory was asked for, how much there is, and what to reduce.
    pub fn new(
        device: &Device,
        network: &Network,
        precision: Precision,
        needs: RowNeeds,
        extent: Extent,
    ) -> Result<Rows> {
        let Extent { rows, slots } = extent;
        let n_bytes = rows_bytes(network, precision, needs, extent);
        device.expect_memory(n_bytes, &format!("{rows} rows of the network take"))?;
        let (row, slot) = bytes_of_one(network, precision, needs);
        let bytes = row.iter().map(|bytes| bytes * rows).chain(slot.iter().map(|bytes| bytes * slots));
        let buffers = bytes.map(|bytes| device.allocate(bytes)).collect::<Result<Vec<Buffer<u8>>>>()?;
        // Sizes are in field order, so addresses can be assigned in order; unused buffers get none.
        let mut params = RowBuffers {
            n_rows: rows as u32,
            n_slots: slots as u32,
            n_probes: needs.n_probes as u32,
            ..RowBuffers::default()
        };
        let addresses =
            &mut bytemuck::cast_slice_mut::<RowBuffers, DevicePtr<u8>>(std::slice::from_mut(&mut params))[2..];
        debug_assert_eq!(addresses.len(), buffers.len());
        let places = addresses.iter_mut().zip(&buffers).filter(|(_, buffer)| buffer.len() > 0);
        places.for_each(|(address, buffer)| *address = buffer.address());
        // Activations exceed L2, so an adjoint overwrites the buffer read last at that point.
        if in_place_of_f1(needs) {
            params.delta = params.f1;
        }
        if needs.work == Work::Training {
            params.z_bar = params.g;
        }
        Ok(Rows { buffers, params })
    }

    /// For a block of arguments.
    pub fn params(&self) -> &RowBuffers {
        &self.params
    }

    /// The capacity.
    pub fn n_rows(&self) -> usize {
        self.params.n_rows as usize
    }

    /// The buffer whose address the arguments hold.
    fn buffer(&mut self, address: DevicePtr<u8>) -> Result<&mut Buffer<u8>> {
        let missing = Error::Shape { buffer: "rows", expected: 1, got: 0 };
        self.buffers.iter_mut().find(|buffer| buffer.address() == address).ok_or(missing)
    }

    /// Replaces the first bytes of the buffer at `address`, one of the fields of [`Rows::params`].
    pub fn write<T>(&mut self, device: &Device, address: DevicePtr<T>, bytes: &[u8]) -> Result<()> {
        self.write_at(device, address, 0, bytes)
    }

    /// The same from byte `start` of the buffer on.
    pub fn write_at<T>(&mut self, device: &Device, address: DevicePtr<T>, start: usize, bytes: &[u8]) -> Result<()> {
        let buffer = self.buffer(address.cast())?;
        device.write_at(buffer, start, bytes)
    }

    /// The first `n` numbers of the f32 buffer at `address`, one of the fields of [`Rows::params`].
    pub fn read(&mut self, device: &Device, address: DevicePtr<f32>, n: usize) -> Result<Vec<f32>> {
        let mut values = vec![0.0f32; n];
        let buffer = self.buffer(address.cast())?;
        device.read_into(buffer, bytemuck::cast_slice_mut::<f32, u8>(&mut values))?;
        Ok(values)
    }
}
