//! The network that bends a learned path.

use crate::model::{Architecture, Head, initial_parameters};

/// The network that bends a learned path: net(t, xₗ, xᵣ).
#[derive(Clone, Debug, PartialEq)]
pub struct Bend {
    /// Its shape. The two ends of a pair are one input of twice the data's dimension, and so are
    /// the outputs, of which the first half bends.
    pub architecture: Architecture,
    /// Learning rate, in units of the action's.
    pub relative_rate: f64,
}

impl Bend {
    /// Hidden layers of [`Bend::of`].
    pub const HIDDEN: [usize; 2] = [64; 2];
    /// Relative rate of [`Bend::of`].
    pub const RELATIVE_RATE: f64 = 0.3;

    /// A network of `hidden` layers for data like those of `action`.
    #[must_use]
    pub fn new(action: &Architecture, hidden: impl Into<Vec<usize>>, relative_rate: f64) -> Self {
        Bend {
            architecture: Architecture {
                dim: 2 * action.dim,
                hidden: hidden.into(),
                head: Head::Dot,
                ..action.clone()
            },
            relative_rate,
        }
    }

    /// The network of default size and rate for data like those of `action`.
    #[must_use]
    pub fn of(action: &Architecture) -> Self {
        Bend::new(action, Bend::HIDDEN, Bend::RELATIVE_RATE)
    }

    /// Parameters to start from: no bend at all.
    #[must_use]
    pub fn initial_parameters(&self, seed: u64) -> Vec<f32> {
        let mut parameters = initial_parameters(&self.architecture, seed);
        if let Some(last) = self.architecture.layers().last() {
            parameters[last.weight..].fill(0.0);
        }
        parameters
    }
}
