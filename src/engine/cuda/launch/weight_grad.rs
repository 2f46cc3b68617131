//! Launch of `kernels/weight_grad.cu`: partial weight gradients of a chunk of swept tiles.

use super::super::abi::{BatchParams, StepState, THREADS, WEIGHT_GRAD_BYTES, WIDE_GROUPS, WeightGradParams};
use super::super::driver::{Buffer, Device, Kernel};
use super::super::network::Network;
use super::Rows;
use super::checks::{check_chunk, check_least, check_tiles};
use crate::error::{Result, check_len};
use crate::precision::Precision;

/// Adds the weight gradient of a chunk to the partial gradients of its groups: see
/// `kernels/batch.cuh`.
#[derive(Clone, Copy)]
pub struct WeightGrad<'a> {
    /// Whose gradient it is.
    pub network: &'a Network,
    /// Type of the products' operands.
    pub precision: Precision,
    /// Swept rows.
    pub rows: &'a Rows,
    /// The chunk; interior-like tiles have all channels.
    pub batch: &'a BatchParams,
    /// Of the step.
    pub state: &'a Buffer<StepState>,
    /// Changed: `[groups, padded parameters]`.
    pub partials: &'a Buffer<f32>,
}

impl WeightGrad<'_> {
    /// Launches the products.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn launch(&self, device: &Device) -> Result<()> {
        let WeightGrad { network, precision, rows, batch, state, partials } = *self;
        rows.check(network, precision, rows.needs().work)?;
        check_chunk(batch)?;
        check_tiles("rows", batch.n_tiles, rows.n_rows())?;
        check_tiles("slots", batch.n_tiles, rows.n_slots())?;
        check_len("state of the step", 1, state.len())?;
        let n_groups = batch.groups_of(WIDE_GROUPS).min(batch.all_tiles() as usize);
        check_least("partial gradients", n_groups * network.params.n_parameters as usize, partials.len())?;
        let params = WeightGradParams {
            network: network.params,
            rows: rows.params(),
            state: state.address(),
            partials: partials.address(),
            batch: *batch,
        };
        let grid = [network.n_grad_tiles as u32, batch.n_tiles.min(n_groups as u32), 1];
        // SAFETY: reads the rows and writes the partial gradients, both large enough for the grid
        // (checked above).
        unsafe { device.launch(Kernel::WeightGrad(precision), grid, THREADS, WEIGHT_GRAD_BYTES as u32, &params) }
    }
}
