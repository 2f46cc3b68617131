//! `[model]`.

use serde::{Deserialize, Serialize};

use super::kind;
use crate::model::{Activation, Architecture, Head, TimeEmbedding};

/// `[model]`: the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Widths of the hidden layers. `None`, written `auto`, is [`Architecture::hidden_for`] the
    /// data.
    #[serde(with = "kind::auto")]
    pub hidden: Option<Vec<usize>>,
    /// `silu`, `tanh`, `softplus`, `gelu` or `sin`.
    pub activation: Activation,
    /// `scalar`, `quadratic` or `dot`.
    pub head: Head,
    /// `raw`, or `{ kind = "fourier", frequencies = [0.5, 1] }`. `None`, written `auto`, is one of
    /// the candidates of the path `auto`, and raw with any other path.
    #[serde(with = "kind::auto")]
    pub time_embedding: Option<TimeEmbedding>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        let Architecture { activation, head, .. } = Architecture::new(1, Architecture::HIDDEN);
        ModelConfig { hidden: None, activation, head, time_embedding: None }
    }
}
