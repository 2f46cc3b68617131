//! Shape of the network: sizes, limits, and where each parameter lies in the flat buffer.

use super::{Activation, Head, TimeEmbedding};
use crate::error::{Error, Origin, Result};

/// Largest width of a hidden layer.
pub const MAX_WIDTH: usize = 1024;
/// Largest number of hidden layers.
pub const MAX_DEPTH: usize = 16;
/// Largest dimension of the data.
pub const MAX_DIM: usize = 1024;
/// Largest number of inputs that stand for conditions.
pub const MAX_CONDITIONS: usize = 256;

/// Everything that fixes the function s(x, t), or s(x, t, c), but its parameters.
///
/// ```
/// use action_matching::model::{Activation, Architecture};
///
/// let plain = Architecture::new(2, [64; 3]);
/// let periodic = Architecture { activation: Activation::Sin, ..plain.clone() };
/// // Inputs are the two coordinates and the time: 3·64 + 64·64 + 64·64 + 64 weights, 3·64 + 1 biases.
/// assert_eq!(plain.n_parameters(), 8641);
/// assert_eq!(periodic.n_parameters(), plain.n_parameters());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Dimension of the data, 1..=[`MAX_DIM`].
    pub dim: usize,
    /// Widths of the hidden layers, each 1..=[`MAX_WIDTH`], 1..=[`MAX_DEPTH`] of them.
    pub hidden: Vec<usize>,
    /// Activation between layers.
    pub activation: Activation,
    /// How the output becomes s.
    pub head: Head,
    /// Time features.
    pub time_embedding: TimeEmbedding,
    /// Inputs of the network that stand for conditions c, 0..=[`MAX_CONDITIONS`]: the last ones.
    pub conditions: usize,
}

/// One linear map of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Number of inputs.
    pub n_in: usize,
    /// Number of outputs.
    pub n_out: usize,
    /// Offset of `weight [n_out, n_in]` in the flat parameters.
    pub weight: usize,
    /// Offset of `bias [n_out]` in the flat parameters.
    pub bias: usize,
}

impl Architecture {
    /// The shape of a growth head beside a network of this shape: the same with one output, the
    /// rate.
    #[must_use]
    pub fn growth_head(&self) -> Architecture {
        Architecture { head: Head::Scalar, ..self.clone() }
    }

    /// Hidden layers that the program takes unless it is told.
    pub const HIDDEN: [usize; 3] = [128; 3];

    /// A network of `hidden` layers for data of dimension `dim`, with the default activation, head
    /// and time features.
    #[must_use]
    pub fn new(dim: usize, hidden: impl Into<Vec<usize>>) -> Self {
        Architecture {
            dim,
            hidden: hidden.into(),
            activation: Activation::default(),
            head: Head::default(),
            time_embedding: TimeEmbedding::default(),
            conditions: 0,
        }
    }

    /// Width of the network's input: x, the time features and the conditions.
    #[must_use]
    pub fn n_inputs(&self) -> usize {
        self.dim + self.time_embedding.width() + self.conditions
    }

    /// Width of the network's output.
    #[must_use]
    pub fn n_outputs(&self) -> usize {
        self.head.n_outputs(self.dim)
    }

    /// The linear maps from input to output (`hidden.len() + 1` of them).
    #[must_use]
    pub fn layers(&self) -> Vec<Layer> {
        let mut layers = Vec::with_capacity(self.hidden.len() + 1);
        let (mut n_in, mut offset) = (self.n_inputs(), 0);
        for n_out in self.hidden.iter().copied().chain([self.n_outputs()]) {
            layers.push(Layer { n_in, n_out, weight: offset, bias: offset + n_in * n_out });
            offset += n_in * n_out + n_out;
            n_in = n_out;
        }
        layers
    }

    /// Number of parameters.
    #[must_use]
    pub fn n_parameters(&self) -> usize {
        self.layers().last().map_or(0, |layer| layer.bias + layer.n_out)
    }

    /// Checks every size against its limit.
    ///
    /// # Errors
    /// [`Error::Input`] with `origin`, and the field as named in the model file and the
    /// configuration.
    pub fn validate(&self, origin: impl Into<Origin>) -> Result<()> {
        let origin = origin.into();
        let within = |field: &str, value: usize, max: usize| {
            if (1..=max).contains(&value) {
                Ok(())
            } else {
                Err(Error::input(&origin, field, format!("is {value}"), format!("use 1 to {max}")))
            }
        };
        within("dim", self.dim, MAX_DIM)?;
        within("hidden (number of layers)", self.hidden.len(), MAX_DEPTH)?;
        for (i, &width) in self.hidden.iter().enumerate() {
            within(&format!("hidden[{i}]"), width, MAX_WIDTH)?;
        }
        if self.conditions > MAX_CONDITIONS {
            let problem = format!("make {} inputs of the network", self.conditions);
            let fix =
                format!("use at most {MAX_CONDITIONS}: a number takes one, a category one for each of its values");
            return Err(Error::input(&origin, "conditions", problem, fix));
        }
        if let TimeEmbedding::Fourier { frequencies } = &self.time_embedding {
            within("time_embedding.frequencies (count)", frequencies.len(), 256)?;
            if let Some(f) = frequencies.iter().find(|f| !f.is_finite()) {
                return Err(Error::input(
                    &origin,
                    "time_embedding.frequencies",
                    format!("contains {f}"),
                    "use finite numbers",
                ));
            }
        }
        Ok(())
    }
}
