//! Launches of `kernels/bend.cu`: the network that displaces the points of a learned path.

use super::super::abi::{BendParams, StepState, THREADS};
use super::super::driver::{Buffer, Device, Kernel};
use super::super::needs::{PointGradient, Work};
use super::super::network::Network;
use super::checks::check_tiles;
use super::shared_layout::{ProductWidth, SharedLayout};
use super::{Packed, Rows};
use crate::error::{Result, check_len};

/// A pass of the bend over the first tiles of its rows.
#[derive(Clone, Copy)]
pub struct BendPass<'a> {
    /// The bend.
    pub bend: Packed<'a>,
    /// Its rows, drawn.
    pub rows: &'a Rows,
    /// The network whose points it displaces.
    pub action: &'a Network,
    /// Rows of that network, drawn.
    pub action_rows: &'a Rows,
    /// Of the step.
    pub state: &'a Buffer<StepState>,
    /// Tiles that are displaced.
    pub n_tiles: u32,
}

impl BendPass<'_> {
    /// Displaces the points and velocities of the action's rows.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn forward(&self, device: &Device) -> Result<()> {
        self.launch(device, Kernel::BendForward(self.bend.precision))
    }

    /// Adjoint sweep of the bend, from the gradient of the loss at the action's points.
    ///
    /// # Errors
    /// As [`BendPass::forward`].
    pub fn backward(&self, device: &Device) -> Result<()> {
        self.launch(device, Kernel::BendBackward(self.bend.precision))
    }

    fn launch(&self, device: &Device, kernel: Kernel) -> Result<()> {
        let BendPass { bend, rows, action, action_rows, state, n_tiles } = *self;
        let Packed { network, precision, weights, biases } = bend;
        bend.check()?;
        rows.check(network, precision, Work::Bend)?;
        action_rows.check(action, precision, Work::Training)?;
        check_len(
            "rows with a gradient at the points",
            1,
            usize::from(action_rows.needs().grad_x == PointGradient::Needed),
        )?;
        check_tiles("slots of the bend", n_tiles, rows.n_slots())?;
        check_tiles("rows of the action", n_tiles, action_rows.n_rows())?;
        check_len("state of the step", 1, state.len())?;
        let layout = SharedLayout::of(device, precision, kernel, network, rows.needs(), ProductWidth::Wide)?;
        let params = BendParams {
            network: network.params,
            rows: rows.params(),
            carried: layout.carried,
            action: action_rows.params(),
            weights: weights.address(),
            biases: biases.address(),
            state: state.address(),
            action_in_width: action.in_width() as u32,
            n_tiles,
            n_operand_chunks: layout.n_operand_chunks,
            unused: 0,
        };
        // SAFETY: reads and writes the buffers of `self`; both sets of rows hold the tiles (checked
        // above).
        unsafe { device.launch(kernel, [n_tiles, 1, 1], THREADS, layout.bytes, &params) }
    }
}
