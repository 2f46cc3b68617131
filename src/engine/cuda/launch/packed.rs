//! A network as the products of a kernel read it.

use super::super::driver::Buffer;
use super::super::network::Network;
use crate::error::{Result, check_len};
use crate::precision::Precision;

/// A network whose weights lie on the device, packed for products of `precision`.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    /// Its layout.
    pub network: &'a Network,
    /// Type of the products' operands.
    pub precision: Precision,
    /// Weights and their transposes: see [`Network::pack`].
    pub weights: &'a Buffer<u8>,
    /// Biases.
    pub biases: &'a Buffer<f32>,
}

impl Packed<'_> {
    /// Checks that both buffers have the lengths of the layout.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) names the buffer.
    pub(super) fn check(&self) -> Result<()> {
        check_len("packed weights", self.network.n_packed * self.precision.bytes(), self.weights.len())?;
        check_len("packed biases", self.network.n_biases, self.biases.len())
    }
}
