//! The network and its place in data space: shape, activation, head, time embedding, parameters, file.

mod activation;
mod embedding;
mod file;
mod head;
mod init;
mod shape;

pub use activation::Activation;
pub use embedding::TimeEmbedding;
pub(crate) use file::tensor_names;
pub use head::Head;
pub use init::initial_parameters;
pub use shape::{Architecture, Layer, MAX_DEPTH, MAX_DIM, MAX_WIDTH};

use crate::error::{Result, check_len};
use crate::objective::Objective;

/// The affine change from data units to network coordinates: y = (x − mean) / scale, τ = (t − t₀) / (t₁ − t₀).
#[derive(Clone, Debug, PartialEq)]
pub struct Coordinates {
    /// Subtracted from each dimension, length `dim`.
    pub mean: Vec<f32>,
    /// Divides each dimension, length `dim`, every entry positive.
    pub scale: Vec<f32>,
    /// First and last time of the data, in data units; increasing.
    pub time_range: [f64; 2],
}

impl Coordinates {
    /// Coordinates that change nothing, for times 0..=1.
    pub fn identity(dim: usize) -> Self {
        Coordinates { mean: vec![0.0; dim], scale: vec![1.0; dim], time_range: [0.0, 1.0] }
    }

    /// τ of data time `t`.
    pub fn network_time(&self, t: f64) -> f64 {
        (t - self.time_range[0]) / (self.time_range[1] - self.time_range[0])
    }

    /// Data time of τ.
    pub fn data_time(&self, tau: f64) -> f64 {
        self.time_range[0] + tau * (self.time_range[1] - self.time_range[0])
    }

    /// Rows `[n, dim]` from data units to network coordinates, in place.
    pub fn to_network(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.mean.len()) {
            for ((x, mean), scale) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
                *x = (*x - mean) / scale;
            }
        }
    }

    /// Rows `[n, dim]` from network coordinates to data units, in place.
    pub fn to_data(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.mean.len()) {
            for ((x, mean), scale) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
                *x = *x * scale + mean;
            }
        }
    }
}

/// A trained (or freshly initialised) action s(x, t): all that `model.safetensors` holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Shape of the network.
    pub architecture: Architecture,
    /// How data units become network coordinates.
    pub coordinates: Coordinates,
    /// The dynamics it was trained for.
    pub objective: Objective,
    /// Flat parameters in the order of [`Architecture::layers`]: weight `[out, in]` row-major, then bias, layer by layer.
    pub parameters: Vec<f32>,
}

impl Model {
    /// Checks that sizes agree and lie within their limits.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) names a size, [`Error::Shape`](crate::Error::Shape) a buffer.
    pub fn validate(&self) -> Result<()> {
        self.architecture.validate("model")?;
        check_len("parameters", self.architecture.n_parameters(), self.parameters.len())?;
        check_len("mean", self.architecture.dim, self.coordinates.mean.len())?;
        check_len("scale", self.architecture.dim, self.coordinates.scale.len())
    }
}
