//! One AdamW update (Loshchilov & Hutter 2019) with the moving average, on a range of parameters.

use pulp::{Simd, WithSimd};

use crate::engine::step_sizes::StepSizes;

/// The update of slices of equal length.
pub struct Update<'a> {
    /// The step's coefficients.
    pub sizes: StepSizes,
    /// Gradient, not clipped.
    pub gradient: &'a [f32],
    /// Parameters.
    pub parameters: &'a mut [f32],
    /// Moving average of the parameters.
    pub ema: &'a mut [f32],
    /// First moment.
    pub moment1: &'a mut [f32],
    /// Second moment.
    pub moment2: &'a mut [f32],
}

impl WithSimd for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let StepSizes {
            gradient_scale,
            toward1,
            toward2,
            step_size,
            root_correction,
            epsilon,
            decay_factor,
            toward_ema,
        } = self.sizes;
        let (gradient, gradient_rest) = S::as_simd_f32s(self.gradient);
        let (parameters, parameters_rest) = S::as_mut_simd_f32s(self.parameters);
        let (ema, ema_rest) = S::as_mut_simd_f32s(self.ema);
        let (moment1, moment1_rest) = S::as_mut_simd_f32s(self.moment1);
        let (moment2, moment2_rest) = S::as_mut_simd_f32s(self.moment2);

        let vectors = gradient.iter().zip(parameters).zip(ema).zip(moment1).zip(moment2);
        for ((((&g, p), e), m), v) in vectors {
            let g = simd.mul_f32s(g, simd.splat_f32s(gradient_scale));
            *m = simd.mul_add_f32s(simd.splat_f32s(toward1), simd.sub_f32s(g, *m), *m);
            *v = simd.mul_add_f32s(simd.splat_f32s(toward2), simd.sub_f32s(simd.mul_f32s(g, g), *v), *v);
            let root =
                simd.mul_add_f32s(simd.sqrt_f32s(*v), simd.splat_f32s(root_correction), simd.splat_f32s(epsilon));
            let step = simd.mul_f32s(simd.splat_f32s(step_size), simd.div_f32s(*m, root));
            *p = simd.sub_f32s(simd.mul_f32s(simd.splat_f32s(decay_factor), *p), step);
            *e = simd.mul_add_f32s(simd.splat_f32s(toward_ema), simd.sub_f32s(*p, *e), *e);
        }
        let rest = gradient_rest.iter().zip(parameters_rest).zip(ema_rest).zip(moment1_rest).zip(moment2_rest);
        for ((((&g, p), e), m), v) in rest {
            let g = g * gradient_scale;
            *m = toward1.mul_add(g - *m, *m);
            *v = toward2.mul_add(g * g - *v, *v);
            let root = v.sqrt().mul_add(root_correction, epsilon);
            *p = decay_factor * *p - step_size * (*m / root);
            *e = toward_ema.mul_add(*p - *e, *e);
        }
    }
}

/// Σ gᵢ² in f64.
pub struct SumOfSquares<'a>(pub &'a [f32]);

impl WithSimd for SumOfSquares<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> f64 {
        // Independent lanes, so that additions do not wait for each other.
        const LANES: usize = 8;
        let chunks = self.0.chunks_exact(LANES);
        let rest: f64 = chunks.remainder().iter().map(|&g| f64::from(g) * f64::from(g)).sum();
        let mut sums = [0.0_f64; LANES];
        for chunk in chunks {
            for (sum, &g) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(g) * f64::from(g);
            }
        }
        sums.iter().sum::<f64>() + rest
    }
}

#[cfg(test)]
mod tests {
    use pulp::Arch;

    use super::*;
    use crate::engine::NetworkState;
    use crate::engine::testing::{AdamW, optimizer};

    /// Thirteen parameters (whole vectors and a remainder) over five steps, compared with AdamW
    /// written out in f64.
    #[test]
    fn update_agrees_with_adamw_in_f64() {
        const N: usize = 13;
        let optimizer = optimizer();
        let mut parameters: Vec<f32> = (0..N).map(|i| 0.3 * (i as f32 - 4.5)).collect();
        let (mut ema, mut moment1, mut moment2) = (parameters.clone(), vec![0.0; N], vec![0.0; N]);
        let mut exact = AdamW::new(&optimizer, &parameters, 1.0);
        for step in 0..5 {
            let gradient: Vec<f32> = (0..N).map(|i| ((i * 7 + step as usize * 3) % 11) as f32 * 0.1 - 0.4).collect();
            let norm = SumOfSquares(&gradient).with_simd(pulp::Scalar::new()).sqrt();
            Arch::new().dispatch(Update {
                sizes: StepSizes::new(&optimizer, step as u64, norm, 1.0),
                gradient: &gradient,
                parameters: &mut parameters,
                ema: &mut ema,
                moment1: &mut moment1,
                moment2: &mut moment2,
            });
            exact.step(step as u64, &gradient);
            let [parameters, ema, moment1, moment2] = [&parameters, &ema, &moment1, &moment2].map(Clone::clone);
            let state = NetworkState { parameters, ema, moment1, moment2 };
            exact.assert_close(&format!("step {step}"), &state, 1e-6);
        }
    }
}
