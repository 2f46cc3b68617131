//! Memory for the rows that a launch works on: sizes first, then the allocations.

use super::device::{Buffer, Device};
use super::network::Network;
use super::params::{RowBuffers, TILE_ROWS};
use super::precision::Precision;
use crate::error::{Error, Result};

/// What rows need beside the activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowNeeds {
    /// Probes of a row.
    pub n_probes: usize,
    /// Whether a bend asks for the gradient at the points.
    pub grad_x: bool,
}

/// The buffers of [`RowBuffers`] with their bytes for one row, in the order of its fields.
fn bytes_of_row(network: &Network, precision: Precision, needs: RowNeeds) -> [usize; 28] {
    let operand = precision.bytes();
    let places = network.params.places as usize;
    let probes = needs.n_probes;
    let probed = if probes > 0 { places * operand } else { 0 };
    let (dim, features) = (network.params.dim as usize, network.params.n_features as usize);
    let (in_width, out_width) = (network.in_width(), network.out_width());
    let f32s = |n: usize| n * size_of::<f32>();
    [
        f32s(dim),                                // x
        f32s(1),                                  // t
        f32s(features),                           // d_phi
        f32s(dim),                                // velocity
        f32s(1),                                  // weight
        f32s(1),                                  // on_potential
        f32s(1),                                  // measure
        f32s(1),                                  // kappa
        places * operand,                         // a
        places * operand,                         // c
        places * operand,                         // delta
        places * operand,                         // z_bar
        places * operand,                         // f1
        places * operand,                         // g
        probed,                                   // f2
        probed,                                   // h
        probed,                                   // u_f3
        probes * places * operand,                // e_a
        probes * places * operand,                // e_z
        f32s(out_width),                          // output
        f32s(out_width),                          // output_c
        f32s(probes * out_width),                 // output_e
        f32s(in_width),                           // input_grad
        f32s(1),                                  // s
        f32s(dim),                                // grad_s
        f32s(1),                                  // ds_dt
        f32s(usize::from(probes > 0)),            // generator
        f32s(if needs.grad_x { dim } else { 0 }), // grad_x
    ]
}

/// Bytes of one row.
pub fn row_bytes(network: &Network, precision: Precision, needs: RowNeeds) -> usize {
    bytes_of_row(network, precision, needs).iter().sum()
}

/// Rows that are worked on at a time: enough tiles for every multiprocessor of a large GPU twice, and no more memory than a GPU of any size has.
/// Depends on shape and batch alone, so that sums do too.
pub fn chunk_rows(network: &Network, precision: Precision, needs: RowNeeds, n_rows: usize) -> usize {
    const MOST_ROWS: usize = 1 << 14;
    const MOST_BYTES: usize = 1 << 30;
    let fit = MOST_BYTES / row_bytes(network, precision, needs) / TILE_ROWS * TILE_ROWS;
    n_rows.next_multiple_of(TILE_ROWS).clamp(TILE_ROWS, fit.clamp(TILE_ROWS, MOST_ROWS))
}

/// Rows on the device.
pub struct Rows {
    buffers: Vec<Buffer<u8>>,
    params: RowBuffers,
}

impl Rows {
    /// Space for `n_rows` rows, a multiple of [`TILE_ROWS`].
    ///
    /// # Errors
    /// [`Error::Device`] says how much memory was asked for, how much there is, and what to reduce.
    pub fn new(
        device: &Device,
        network: &Network,
        precision: Precision,
        needs: RowNeeds,
        n_rows: usize,
    ) -> Result<Rows> {
        let bytes = bytes_of_row(network, precision, needs).map(|bytes| bytes * n_rows);
        device.expect_memory(bytes.iter().sum(), &format!("{n_rows} rows of the network take"))?;
        let buffers = bytes.iter().map(|&bytes| device.allocate(bytes)).collect::<Result<Vec<Buffer<u8>>>>()?;
        // The sizes stand in the order of the fields, so the addresses do.
        let mut params = RowBuffers { n_rows: n_rows as u32, n_probes: needs.n_probes as u32, ..RowBuffers::default() };
        let addresses = &mut bytemuck::cast_slice_mut::<RowBuffers, u64>(std::slice::from_mut(&mut params))[1..];
        debug_assert_eq!(addresses.len(), buffers.len());
        addresses.iter_mut().zip(&buffers).for_each(|(address, buffer)| *address = buffer.address());
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
    fn buffer(&mut self, address: u64) -> Result<&mut Buffer<u8>> {
        let missing = Error::Shape { buffer: "rows", expected: 1, got: 0 };
        self.buffers.iter_mut().find(|buffer| buffer.address() == address).ok_or(missing)
    }

    /// Replaces the first bytes of the buffer at `address`, one of the fields of [`Rows::params`].
    pub fn write(&mut self, device: &Device, address: u64, bytes: &[u8]) -> Result<()> {
        self.write_at(device, address, 0, bytes)
    }

    /// The same from byte `start` of the buffer on.
    pub fn write_at(&mut self, device: &Device, address: u64, start: usize, bytes: &[u8]) -> Result<()> {
        let buffer = self.buffer(address)?;
        device.write_at(buffer, start, bytes)
    }

    /// The first `n` numbers of the f32 buffer at `address`, one of the fields of [`Rows::params`].
    pub fn read(&mut self, device: &Device, address: u64, n: usize) -> Result<Vec<f32>> {
        let mut values = vec![0.0f32; n];
        let buffer = self.buffer(address)?;
        device.read_into(buffer, bytemuck::cast_slice_mut::<f32, u8>(&mut values))?;
        Ok(values)
    }
}
