//! How the network's output o becomes the potential s.

use serde::{Deserialize, Serialize};

/// Head of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Head {
    /// s = o, one output.
    #[default]
    Scalar,
    /// s = ½‖x − o‖², `dim` outputs.
    Quadratic,
    /// s = o·x, `dim` outputs.
    Dot,
}

impl Head {
    /// Every head.
    pub const ALL: [Head; 3] = [Head::Scalar, Head::Quadratic, Head::Dot];

    /// Number of outputs of the network in `dim` dimensions.
    #[must_use]
    pub fn n_outputs(self, dim: usize) -> usize {
        match self {
            Head::Scalar => 1,
            Head::Quadratic | Head::Dot => dim,
        }
    }
}
