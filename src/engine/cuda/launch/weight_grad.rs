//! Launch of `kernels/weight_grad.cu`: partial weight gradients of a chunk of swept tiles.

use super::super::abi::{BatchParams, StepState, THREADS, WEIGHT_GRAD_BYTES, WeightGradParams};
use super::super::driver::{Buffer, Device, Kernel};
use super::super::network::Network;
use super::Rows;
use super::checks::{check_chunk, check_least, check_tiles};
use crate::engine::batch::Onto;
use crate::error::{Result, check_len};
use crate::precision::Precision;

/// A chunk of tiles whose weight gradient is formed.
#[derive(Clone, Copy, Debug)]
pub struct GradChunk {
    /// The chunk; interior-like tiles have all channels.
    pub batch: BatchParams,
    /// Tiles per partial gradient.
    pub tiles_per_partial: u32,
    /// The sums of earlier chunks, or nothing.
    pub onto: Onto,
}

/// Partial weight gradients of a chunk.
#[derive(Clone, Copy)]
pub struct WeightGrad<'a> {
    /// Whose gradient it is.
    pub network: &'a Network,
    /// Type of the products' operands.
    pub precision: Precision,
    /// Swept rows.
    pub rows: &'a Rows,
    /// The chunk.
    pub chunk: GradChunk,
    /// Of the step.
    pub state: &'a Buffer<StepState>,
    /// Written: `[partials, padded parameters]`.
    pub partials: &'a Buffer<f32>,
}

impl WeightGrad<'_> {
    /// Launches the products.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn launch(&self, device: &Device) -> Result<()> {
        let WeightGrad { network, precision, rows, chunk, state, partials } = *self;
        let GradChunk { batch, tiles_per_partial, onto } = chunk;
        rows.check(network, precision, rows.needs().work)?;
        check_chunk(&batch)?;
        check_tiles("rows", batch.n_tiles, rows.n_rows())?;
        check_tiles("slots", batch.n_tiles, rows.n_slots())?;
        check_len("state of the step", 1, state.len())?;
        let n_partials = batch.n_tiles.div_ceil(tiles_per_partial.max(1));
        let n_values = n_partials as usize * network.params.n_parameters as usize;
        check_least("partial gradients", n_values, partials.len())?;
        let params = WeightGradParams {
            network: network.params,
            rows: rows.params(),
            state: state.address(),
            partials: partials.address(),
            batch,
            tiles_per_partial: tiles_per_partial.max(1),
            accumulate: u32::from(onto == Onto::Sum),
        };
        let grid = [network.n_grad_tiles as u32, n_partials, 1];
        // SAFETY: reads the rows and writes the partial gradients, both large enough for the grid
        // (checked above).
        unsafe { device.launch(Kernel::WeightGrad(precision), grid, THREADS, WEIGHT_GRAD_BYTES as u32, &params) }
    }
}
