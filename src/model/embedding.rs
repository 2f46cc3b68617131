//! The time features φ(t) that join x at the input of the network.

use serde::{Deserialize, Serialize};

/// Time embedding φ(t).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum TimeEmbedding {
    /// φ = \[t\].
    #[default]
    Raw,
    /// φ = \[t, sin(2πf₁t), …, sin(2πf_mt), cos(2πf₁t), …, cos(2πf_mt)\].
    Fourier {
        /// f₁ … f_m, in cycles per unit of network time.
        frequencies: Vec<f64>,
    },
}

impl TimeEmbedding {
    /// f₁ … f_m; none for φ = \[t\].
    #[must_use]
    pub fn frequencies(&self) -> &[f64] {
        match self {
            TimeEmbedding::Raw => &[],
            TimeEmbedding::Fourier { frequencies } => frequencies,
        }
    }

    /// Number of features.
    #[must_use]
    pub fn width(&self) -> usize {
        1 + 2 * self.frequencies().len()
    }

    /// Calls `feature(i, φᵢ(t), φᵢ′(t))` once for each feature, in no particular order.
    #[inline]
    pub fn for_each(&self, t: f64, mut feature: impl FnMut(usize, f64, f64)) {
        feature(0, t, 1.0);
        let m = self.frequencies().len();
        for (i, f) in self.frequencies().iter().enumerate() {
            let angular = std::f64::consts::TAU * f;
            let (sin, cos) = (angular * t).sin_cos();
            feature(1 + i, sin, angular * cos);
            feature(1 + m + i, cos, -angular * sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fourier_slopes_agree_with_differences() {
        let embedding = TimeEmbedding::Fourier { frequencies: vec![0.5, 2.0, 3.25] };
        let at = |t: f64| {
            let mut values = vec![(f64::NAN, f64::NAN); embedding.width()];
            embedding.for_each(t, |i, value, slope| values[i] = (value, slope));
            values
        };
        let (t, h) = (0.31, 1e-5);
        for ((low, high), mid) in at(t - h).iter().zip(at(t + h)).zip(at(t)) {
            assert!(((high.0 - low.0) / (2.0 * h) - mid.1).abs() < 1e-6);
        }
    }
}
