//! Initial parameters.

use super::Architecture;
use crate::rng::{self, Purpose};

/// Weights uniform with variance 1 / fan-in, biases zero; drawn with [`Purpose::Initialization`].
#[must_use]
pub fn initial_parameters(architecture: &Architecture, seed: u64) -> Vec<f32> {
    let mut parameters = vec![0.0; architecture.n_parameters()];
    for layer in architecture.layers() {
        let half_width = (3.0 / layer.n_in as f32).sqrt();
        for i in layer.weight..layer.bias {
            let words = rng::words(seed, Purpose::Initialization, 0, (i / 4) as u32);
            parameters[i] = half_width * (2.0 * rng::unit_f32(words[i % 4]) - 1.0);
        }
    }
    parameters
}
