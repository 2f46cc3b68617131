//! The network and its place in data space: shape, activation, head, time embedding, parameters,
//! file.
//!
//! ```
//! use action_matching::prelude::*;
//!
//! let model = Model::initial(Architecture::new(2, [16; 2]), 7);
//! let folder = tempfile::tempdir().expect("a folder");
//! let file = folder.path().join("model.safetensors");
//! model.save(&file)?;
//! assert_eq!(Model::load(&file)?, model);
//! # Ok::<(), Error>(())
//! ```

mod activation;
mod condition;
mod embedding;
mod file;
mod head;
mod init;
mod shape;

pub use activation::Activation;
pub use condition::{Condition, ConditionValue};
pub use embedding::TimeEmbedding;
pub(crate) use file::{growth_tensor_names, tensor_names};
pub use head::Head;
pub use init::initial_parameters;
pub use shape::{Architecture, Layer, MAX_CONDITIONS, MAX_DEPTH, MAX_DIM, MAX_WIDTH};

use crate::error::{Result, check_len};
use crate::objective::Objective;

/// Largest |mean| and scale of [`Coordinates`]: below the largest f32 is room for particles 10⁸
/// scales away.
pub(crate) const MAX_MAGNITUDE: f64 = 1e30;

/// Smallest scale of [`Coordinates`].
pub(crate) const MIN_SCALE: f64 = 1e-30;

/// The affine change from data units to network coordinates, y = (x − mean) / scale, τ = (t − t₀) /
/// (t₁ − t₀), and what the dimensions are called.
///
/// Data may lie far from 0 (map coordinates, identifiers of instruments), where f32 is coarser than
/// their spread: mean and scale are f64, and only differences from the mean are rounded to f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Coordinates {
    /// Subtracted from each dimension, length `dim`.
    pub mean: Vec<f64>,
    /// Divides each dimension, length `dim`, every entry positive.
    pub scale: Vec<f64>,
    /// First and last time of the data, in data units; increasing.
    pub time_range: [f64; 2],
    /// Names of the dimensions, length `dim`, where the data are a table: other tables must have
    /// the same.
    pub columns: Option<Vec<String>>,
    /// The conditions of a model s(x, t, c), in the order of its inputs; none for s(x, t).
    pub conditions: Vec<Condition>,
}

impl Coordinates {
    /// Coordinates that change nothing, for times 0..=1.
    #[must_use]
    pub fn identity(dim: usize) -> Self {
        Coordinates {
            mean: vec![0.0; dim],
            scale: vec![1.0; dim],
            time_range: [0.0, 1.0],
            columns: None,
            conditions: Vec::new(),
        }
    }

    /// These coordinates for samples that are given as differences from `origin` (length `dim`).
    #[must_use]
    pub fn relative_to(&self, origin: &[f64]) -> Self {
        let mean = self.mean.iter().zip(origin).map(|(mean, origin)| mean - origin).collect();
        Coordinates { mean, ..self.clone() }
    }

    /// τ of data time `t`.
    #[must_use]
    pub fn network_time(&self, t: f64) -> f64 {
        (t - self.time_range[0]) / (self.time_range[1] - self.time_range[0])
    }

    /// Data time of τ.
    #[must_use]
    pub fn data_time(&self, tau: f64) -> f64 {
        self.time_range[0] + tau * (self.time_range[1] - self.time_range[0])
    }

    /// Rows `[n, dim]` from data units to network coordinates, in place; rounded once.
    pub fn to_network(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.mean.len()) {
            for ((x, mean), scale) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
                *x = ((f64::from(*x) - mean) / scale) as f32;
            }
        }
    }

    /// Rows `[n, dim]` from network coordinates to data units, in place; rounded once, to f32.
    pub fn to_data(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.mean.len()) {
            for ((x, mean), scale) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
                *x = (f64::from(*x) * scale + mean) as f32;
            }
        }
    }

    /// Rows `[n, dim]` from network coordinates to data units, f64.
    #[must_use]
    pub fn to_data_f64(&self, rows: &[f32]) -> Vec<f64> {
        let affine = self.scale.iter().zip(&self.mean).cycle();
        rows.iter().zip(affine).map(|(&y, (scale, mean))| f64::from(y) * scale + mean).collect()
    }

    /// True if f32 is too coarse for positions in data units: it would round one near the mean by
    /// more than 10⁻⁵ scales.
    #[must_use]
    pub fn need_f64(&self) -> bool {
        self.mean.iter().zip(&self.scale).any(|(&mean, &scale)| is_coarse(mean, scale))
    }
}

/// True if f32 would round numbers near `mean` by more than 10⁻⁵ of `scale`.
pub(crate) fn is_coarse(mean: f64, scale: f64) -> bool {
    const ROUNDING: f64 = f32::EPSILON as f64 / 2.0;
    mean.abs() * ROUNDING > 1e-5 * scale
}

/// A trained (or freshly initialized) action s(x, t): all that `model.safetensors` holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Shape of the network.
    pub architecture: Architecture,
    /// How data units become network coordinates.
    pub coordinates: Coordinates,
    /// The dynamics it was trained for.
    pub objective: Objective,
    /// Flat parameters in the order of [`Architecture::layers`]: weight `[out, in]` row-major, then
    /// bias, layer by layer.
    pub parameters: Vec<f32>,
    /// Parameters of the growth head, if growth has a network of its own in the place of λs: see
    /// [`Model::growth_network`].
    pub growth_head: Option<Vec<f32>>,
}

impl Model {
    /// An untrained model for continuity dynamics, with the parameters that `seed` draws
    /// ([`initial_parameters`]), whose data are in network coordinates.
    #[must_use]
    pub fn initial(architecture: Architecture, seed: u64) -> Model {
        Model {
            coordinates: Coordinates::identity(architecture.dim),
            objective: Objective::default(),
            parameters: initial_parameters(&architecture, seed),
            growth_head: None,
            architecture,
        }
    }

    /// The growth head as a model, whose potential is the growth rate g(x, t) per unit of network
    /// time; `None` if growth is λs.
    #[must_use]
    pub fn growth_network(&self) -> Option<Model> {
        Some(Model {
            architecture: self.architecture.growth_head(),
            coordinates: self.coordinates.clone(),
            objective: Objective::default(),
            parameters: self.growth_head.clone()?,
            growth_head: None,
        })
    }

    /// λ where growth is λs; 0 without growth and with a growth head: then the slope of s alone is
    /// part of the dynamics, and s is known up to a function of time.
    #[must_use]
    pub fn growth_of_potential(&self) -> f64 {
        if self.growth_head.is_some() { 0.0 } else { self.objective.growth }
    }

    /// Checks that sizes agree and lie within their limits.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) names a size, [`Error::Shape`](crate::Error::Shape) a
    /// buffer.
    pub fn validate(&self) -> Result<()> {
        self.architecture.validate("model")?;
        check_len("parameters", self.architecture.n_parameters(), self.parameters.len())?;
        if let Some(head) = &self.growth_head {
            check_len("growth_head", self.architecture.growth_head().n_parameters(), head.len())?;
        }
        check_len("mean", self.architecture.dim, self.coordinates.mean.len())?;
        check_len("scale", self.architecture.dim, self.coordinates.scale.len())?;
        self.coordinates.columns.iter().try_for_each(|names| check_len("columns", self.architecture.dim, names.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At 10⁸ f32 has a grid of 8, sixteen times the spread.
    #[test]
    fn coordinates_far_from_0_keep_the_digits_of_the_spread() {
        let coordinates =
            Coordinates { mean: vec![1e8 + 0.3, -2.0], scale: vec![0.5, 3.0], ..Coordinates::identity(2) };
        assert!(coordinates.need_f64());
        assert!(!Coordinates { mean: vec![16.0, -2.0], ..coordinates.clone() }.need_f64());
        let origin = [1e8, 0.0];
        let relative = coordinates.relative_to(&origin);
        let rows = [0.25f32, 1.0, -0.75, 4.0];
        let mut moved = rows;
        relative.to_network(&mut moved);
        for (i, (y, x)) in moved.iter().zip(rows).enumerate() {
            let exact = (origin[i % 2] + f64::from(x) - coordinates.mean[i % 2]) / coordinates.scale[i % 2];
            assert!((f64::from(*y) - exact).abs() < 1e-6, "{y}, not {exact}");
        }
        let back = coordinates.to_data_f64(&moved);
        for (i, (x, offset)) in back.iter().zip(rows).enumerate() {
            assert!((x - (origin[i % 2] + f64::from(offset))).abs() < 1e-6, "{x}");
        }
        relative.to_data(&mut moved);
        assert!(moved.iter().zip(rows).all(|(got, want)| (got - want).abs() < 1e-6), "{moved:?}");
    }
}
