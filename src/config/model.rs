//! `[model]`.

use serde::{Deserialize, Serialize};

use super::kind;
use crate::model::{Activation, Architecture, Head, TimeEmbedding};

/// `[model]`: the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// `silu`, `tanh`, `softplus`, `gelu` or `sin`.
    pub activation: Activation,
    /// `scalar`, `quadratic` or `dot`.
    pub head: Head,
    /// `raw`, or `{ kind = "fourier", frequencies = [0.5, 1] }`.
    #[serde(with = "kind")]
    pub time_embedding: TimeEmbedding,
}

impl Default for ModelConfig {
    fn default() -> Self {
        let Architecture { hidden, activation, head, time_embedding, .. } = Architecture::new(1, Architecture::HIDDEN);
        ModelConfig { hidden, activation, head, time_embedding }
    }
}
