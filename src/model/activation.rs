//! The activation functions by name. Their values live with each engine.

use serde::{Deserialize, Serialize};

/// Activation f between layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Activation {
    /// z·σ(z).
    #[default]
    Silu,
    /// tanh z.
    Tanh,
    /// log(1 + eᶻ).
    Softplus,
    /// z·Φ(z), with the exact normal distribution function (erf).
    Gelu,
    /// sin z.
    Sin,
}

impl Activation {
    /// Every activation, in the order of the documentation.
    pub const ALL: [Activation; 5] =
        [Activation::Silu, Activation::Tanh, Activation::Softplus, Activation::Gelu, Activation::Sin];
}
