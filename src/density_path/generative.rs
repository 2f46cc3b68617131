//! Paths from noise to data: x = α(t) ε + β(t) x₁ with standard normal ε, network coordinates.

/// α, β and their slopes at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// α(t), of the noise.
    pub noise: f64,
    /// β(t), of the data.
    pub data: f64,
    /// α′(t).
    pub noise_slope: f64,
    /// β′(t).
    pub data_slope: f64,
}

/// α = 1 − t, β = t.
pub fn linear(t: f64) -> Coefficients {
    Coefficients { noise: 1.0 - t, data: t, noise_slope: -1.0, data_slope: 1.0 }
}

/// α = √(1 − t), β = √t: the variance stays 1 between unit variances.
pub fn sqrt(t: f64) -> Coefficients {
    let (noise, data) = ((1.0 - t).sqrt(), t.sqrt());
    Coefficients { noise, data, noise_slope: -0.5 / noise, data_slope: 0.5 / data }
}

/// The variance-preserving diffusion of Song et al. (2021), reversed: with τ = 1 − t, β =
/// exp(−½∫₀^τ b), b rising linearly from 0.1 to 20, and α = √(1 − β²).
pub fn vp(t: f64) -> Coefficients {
    const RATE: [f64; 2] = [0.1, 20.0];
    let tau = 1.0 - t;
    let rate = RATE[0] + tau * (RATE[1] - RATE[0]);
    let exponent = 0.5 * tau * RATE[0] + 0.25 * tau * tau * (RATE[1] - RATE[0]);
    let data = (-exponent).exp();
    let noise = (-(-2.0 * exponent).exp_m1()).sqrt();
    let data_slope = 0.5 * rate * data;
    Coefficients { noise, data, noise_slope: -data * data_slope / noise, data_slope }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_coefficients_and_variances_add_up() {
        for (path, keeps_variance) in [(linear as fn(f64) -> Coefficients, false), (sqrt, true), (vp, true)] {
            for t in [0.01, 0.3, 0.77, 0.99] {
                let h = 1e-6;
                let (below, at, above) = (path(t - h), path(t), path(t + h));
                let near =
                    |got: f64, want: f64| assert!((got - want).abs() < 1e-6 * (1.0 + want.abs()), "{got} {want}");
                near(at.noise_slope, (above.noise - below.noise) / (2.0 * h));
                near(at.data_slope, (above.data - below.data) / (2.0 * h));
                assert!(!keeps_variance || (at.noise.powi(2) + at.data.powi(2) - 1.0).abs() < 1e-12);
            }
            let end = path(1.0);
            assert_eq!((end.noise, end.data), (0.0, 1.0));
            assert!(path(0.0).noise > 0.9999 && path(0.0).data < 0.01);
        }
    }
}
