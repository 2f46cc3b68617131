//! f, f′, f″, f‴ of each activation in f64, side by side.

use std::f64::consts::{SQRT_2, TAU};

use crate::model::Activation;

/// [f, f′, f″, f‴] at `z`.
pub fn orders(activation: Activation, z: f64) -> [f64; 4] {
    match activation {
        Activation::Silu => {
            let (sigma, complement) = (logistic(z), logistic(-z));
            let (slope, bend) = (sigma * complement, complement - sigma);
            [
                z * sigma,
                sigma + z * slope,
                slope * (2.0 + z * bend),
                slope * (3.0 * bend + z * (bend * bend - 2.0 * slope)),
            ]
        }
        Activation::Tanh => {
            let f = z.tanh();
            let f1 = 4.0 * logistic(2.0 * z) * logistic(-2.0 * z);
            [f, f1, -2.0 * f * f1, f1 * (4.0 * f * f - 2.0 * f1)]
        }
        Activation::Softplus => {
            let (sigma, complement) = (logistic(z), logistic(-z));
            let slope = sigma * complement;
            [z.max(0.0) + (-z.abs()).exp().ln_1p(), sigma, slope, slope * (complement - sigma)]
        }
        Activation::Gelu => {
            let distribution = 0.5 * libm::erfc(-z / SQRT_2);
            let density = (-0.5 * z * z).exp() / TAU.sqrt();
            [z * distribution, distribution + z * density, density * (2.0 - z * z), density * z * (z * z - 4.0)]
        }
        Activation::Sin => [z.sin(), z.cos(), -z.sin(), -z.cos()],
    }
}

/// σ(z) = 1 / (1 + e⁻ᶻ), without overflow.
fn logistic(z: f64) -> f64 {
    if z < 0.0 { z.exp() / (1.0 + z.exp()) } else { 1.0 / (1.0 + (-z).exp()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each order is the derivative of the one before it, by central differences with one
    /// Richardson step.
    #[test]
    fn each_order_is_the_slope_of_the_one_before() {
        for activation in Activation::ALL {
            for i in 0..97 {
                let z = -6.03 + 0.127 * f64::from(i);
                let slopes = orders(activation, z);
                for order in 0..3 {
                    let difference =
                        |h: f64| (orders(activation, z + h)[order] - orders(activation, z - h)[order]) / (2.0 * h);
                    let slope = (4.0 * difference(5e-4) - difference(1e-3)) / 3.0;
                    assert!((slope - slopes[order + 1]).abs() < 1e-9, "{activation:?}, order {order}, z = {z}");
                }
            }
        }
    }
}
