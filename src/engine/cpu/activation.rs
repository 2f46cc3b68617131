//! f, f′, f″, f‴ of each activation, side by side, on f32 vectors.
//!
//! Errors are absolute: at most 3e-7·max(1, |value|), twice that for f‴, for |z| ≤ 1e30. A NaN
//! stays a NaN.

use pulp::Simd;

use super::elementary::{exp2, log1p_unit, logistic, normal, sin_cos};
use super::lanes::Lanes;

/// f, f′, f″, f‴ at some z.
pub type Orders<S, const N: usize> = [Lanes<S, N>; 4];

/// An activation with the derivatives that the sweeps need.
pub trait ActivationKernel: Copy {
    /// [f, f′, f″, f‴] at `z`. The compiler removes the orders that the caller does not use.
    fn orders<S: Simd, const N: usize>(self, z: Lanes<S, N>) -> Orders<S, N>;
}

/// f = zσ, f′ = σ + zσ(1−σ), f″ = σ(1−σ)(2 + z(1−2σ)), f‴ = σ(1−σ)(3(1−2σ) + z(1−6σ(1−σ))).
#[derive(Clone, Copy)]
pub struct Silu;

impl ActivationKernel for Silu {
    #[inline(always)]
    fn orders<S: Simd, const N: usize>(self, z: Lanes<S, N>) -> Orders<S, N> {
        let (sigma, complement) = logistic(z);
        let slope = sigma * complement;
        let bend = complement - sigma;
        let tilt = z.mul_add(bend, z.splat(2.0));
        let third = z.mul_add(slope.mul_add(z.splat(-6.0), z.splat(1.0)), bend * 3.0);
        [z * sigma, z.mul_add(slope, sigma), slope * tilt, slope * third]
    }
}

/// f = tanh z = 2σ(2z) − 1, f′ = 1 − f², f″ = −2 f f′, f‴ = f′(4f² − 2f′).
#[derive(Clone, Copy)]
pub struct Tanh;

impl ActivationKernel for Tanh {
    #[inline(always)]
    fn orders<S: Simd, const N: usize>(self, z: Lanes<S, N>) -> Orders<S, N> {
        let (sigma, complement) = logistic(z + z);
        // z·0 carries a NaN that the exponential's clamp may have lost.
        let f = z.mul_add(z.splat(0.0), sigma - complement);
        let f1 = sigma * complement * 4.0;
        [f, f1, f * f1 * -2.0, f1 * (f * f).mul_add(f.splat(4.0), f1 * -2.0)]
    }
}

/// f = log(1 + eᶻ) = max(z, 0) + log(1 + e^−|z|), f′ = σ, f″ = σ(1−σ), f‴ = σ(1−σ)(1−2σ).
#[derive(Clone, Copy)]
pub struct Softplus;

impl ActivationKernel for Softplus {
    #[inline(always)]
    fn orders<S: Simd, const N: usize>(self, z: Lanes<S, N>) -> Orders<S, N> {
        let distance = z.abs();
        let decay = exp2(distance * -std::f32::consts::LOG2_E);
        let ramp = z.mul_add(z.splat(0.5), distance * 0.5);
        let large = z.splat(1.0) / (decay + 1.0);
        let small = decay * large;
        let slope = small * large;
        // 1 − 2σ = ∓(large − small): negative for positive z.
        let bend = large - small;
        let bend = bend.where_else(z.negative(), -bend);
        [ramp + log1p_unit(decay), small.where_else(z.negative(), large), slope, slope * bend]
    }
}

/// f = zΦ, f′ = Φ + zφ, f″ = φ(2 − z²), f‴ = zφ(z² − 4), with the exact normal distribution
/// function Φ and its density φ.
#[derive(Clone, Copy)]
pub struct Gelu;

impl ActivationKernel for Gelu {
    #[inline(always)]
    fn orders<S: Simd, const N: usize>(self, z: Lanes<S, N>) -> Orders<S, N> {
        let (distribution, density) = normal(z);
        // The density is 0 in f32 for |z| ≥ 14. With z bounded, its products with z and z² are 0
        // too.
        let bounded = z.clamp(16.0);
        let slope = bounded * density;
        let third = slope * bounded.mul_add(bounded, z.splat(-4.0));
        [z * distribution, distribution + slope, density + density - bounded * slope, third]
    }
}

/// f = sin z, f′ = cos z, f″ = −sin z, f‴ = −cos z.
#[derive(Clone, Copy)]
pub struct Sin;

impl ActivationKernel for Sin {
    #[inline(always)]
    fn orders<S: Simd, const N: usize>(self, z: Lanes<S, N>) -> Orders<S, N> {
        let (sin, cos) = sin_cos(z);
        [sin, cos, -sin, -cos]
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, Scalar, WithSimd};

    use super::*;

    /// f, f′, f″, f‴ of every `z` (a multiple of 32 values).
    struct Map<'a, A>(&'a [f32], A);

    impl<A: ActivationKernel> WithSimd for Map<'_, A> {
        type Output = Vec<[f32; 4]>;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Vec<[f32; 4]> {
            let (vectors, rest) = S::as_simd_f32s(self.0);
            assert!(rest.is_empty());
            let mut out = Vec::new();
            for pair in vectors.chunks_exact(2) {
                let orders = self.1.orders(Lanes::new(simd, [pair[0], pair[1]]));
                let lanes = orders.map(|order| bytemuck::cast_slice::<_, f32>(&order.vectors).to_vec());
                out.extend((0..lanes[0].len()).map(|i| lanes.each_ref().map(|lanes| lanes[i])));
            }
            out
        }
    }

    fn agrees<A: ActivationKernel>(kernel: A, exact: impl Fn(f64) -> [f64; 4]) {
        let mut points: Vec<f32> = (-60_000..60_000).map(|i| i as f32 * 1.337e-3).collect();
        points.extend([
            0.0, -0.0, 1e-30, -1e-20, 126.5, -127.5, 300.0, -300.0, 9000.5, -12_345.6, 3e7, -3e7, 1e30, -1e30,
        ]);
        points.resize(points.len().next_multiple_of(32), 0.75);
        for values in [Arch::new().dispatch(Map(&points, kernel)), Scalar::new().vectorize(Map(&points, kernel))] {
            assert_eq!(values.len(), points.len());
            for (z, got) in points.iter().zip(&values) {
                for (order, (&got, want)) in got.iter().zip(exact(f64::from(*z))).enumerate() {
                    let error = (f64::from(got) - want).abs() / want.abs().max(1.0);
                    let bound = if order == 3 { 6e-7 } else { 3e-7 };
                    assert!(error <= bound, "derivative {order} at {z}: {got}, not {want}: {error:e}");
                }
            }
        }
        for z in [f32::MAX, f32::MIN] {
            for value in Arch::new().dispatch(Map(&[z; 32], kernel)).concat() {
                assert!(value.is_finite(), "at {z}: {value}");
            }
        }
        let poisoned = [f32::NAN; 32];
        for values in [Arch::new().dispatch(Map(&poisoned, kernel)), Scalar::new().vectorize(Map(&poisoned, kernel))] {
            assert!(values.iter().all(|[f, ..]| f.is_nan()));
        }
    }

    fn sigma(z: f64) -> f64 {
        if z < 0.0 { z.exp() / (1.0 + z.exp()) } else { 1.0 / (1.0 + (-z).exp()) }
    }

    #[test]
    fn silu_agrees_with_f64() {
        agrees(Silu, |z| {
            let (p, q) = (sigma(z), sigma(-z));
            [z * p, p + z * p * q, p * q * (2.0 + z * (q - p)), p * q * (3.0 * (q - p) + z * (1.0 - 6.0 * p * q))]
        });
    }

    #[test]
    fn tanh_agrees_with_f64() {
        agrees(Tanh, |z| {
            let (t, slope) = (z.tanh(), 4.0 * sigma(2.0 * z) * sigma(-2.0 * z));
            [t, slope, -2.0 * t * slope, slope * (4.0 * t * t - 2.0 * slope)]
        });
    }

    #[test]
    fn softplus_agrees_with_f64() {
        agrees(Softplus, |z| {
            let (p, q) = (sigma(z), sigma(-z));
            [z.max(0.0) + (-z.abs()).exp().ln_1p(), p, p * q, p * q * (q - p)]
        });
    }

    #[test]
    fn gelu_agrees_with_f64() {
        agrees(Gelu, |z| {
            let distribution = 0.5 * libm::erfc(-z / std::f64::consts::SQRT_2);
            let density = (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
            let term = |power: f64| if density == 0.0 { 0.0 } else { power * density };
            [z * distribution, distribution + term(z), 2.0 * density - term(z * z), term(z * (z * z - 4.0))]
        });
    }

    #[test]
    fn sin_agrees_with_f64() {
        agrees(Sin, |z| [z.sin(), z.cos(), -z.sin(), -z.cos()]);
    }
}
