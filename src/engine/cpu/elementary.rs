//! Elementary functions on f32 vectors: what the activations are made of.
//!
//! Polynomials are minimax fits; each function states its absolute error.

use pulp::Simd;

/// Horner's rule: `coefficients[0] + x·(coefficients[1] + …)`.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, x: S::f32s, coefficients: [f32; N]) -> S::f32s {
    let mut sum = simd.splat_f32s(coefficients[N - 1]);
    for &coefficient in coefficients[..N - 1].iter().rev() {
        sum = simd.mul_add_f32s(sum, x, simd.splat_f32s(coefficient));
    }
    sum
}

/// 2ˣ for |x| ≤ 126, relative error 1.5e-7; larger |x| give 2^±126. A NaN may be lost.
#[inline(always)]
pub fn exp2<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let x = simd.max_f32s(simd.splat_f32s(-126.0), simd.min_f32s(simd.splat_f32s(126.0), x));
    // Adding 1.5·2²³ rounds to an integer and leaves it, plus the exponent's bias, in the low bits.
    let shift = simd.splat_f32s(12_582_912.0 + 127.0);
    let biased = simd.add_f32s(x, shift);
    let fraction = simd.sub_f32s(x, simd.sub_f32s(biased, shift));
    let power = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(biased), simd.splat_u32s(f32::MANTISSA_DIGITS - 1));
    let mantissa =
        polynomial(simd, fraction, [1.0, 0.693_146_94, 0.240_221_2, 0.055_507_13, 0.009_675_541, 0.001_327_647_2]);
    simd.mul_f32s(mantissa, simd.transmute_f32s_u32s(power))
}

/// (σ(z), 1 − σ(z)) of the logistic function σ, each to 6e-8; a NaN may be lost.
#[inline(always)]
pub fn logistic<S: Simd>(simd: S, z: S::f32s) -> (S::f32s, S::f32s) {
    let one = simd.splat_f32s(1.0);
    let decay = exp2(simd, simd.mul_f32s(z, simd.splat_f32s(-std::f32::consts::LOG2_E)));
    let value = simd.div_f32s(one, simd.add_f32s(one, decay));
    (value, simd.mul_f32s(decay, value))
}

/// log(1 + u) for 0 ≤ u ≤ 1, to 1e-7.
#[inline(always)]
pub fn log1p_unit<S: Simd>(simd: S, u: S::f32s) -> S::f32s {
    // log(1 + u) = 2 artanh(w), w = u / (2 + u) ≤ 1/3.
    let w = simd.div_f32s(u, simd.add_f32s(u, simd.splat_f32s(2.0)));
    let series = polynomial(simd, simd.mul_f32s(w, w), [2.0, 0.666_658_76, 0.400_392_17, 0.277_888_98, 0.288_651_02]);
    simd.mul_f32s(w, series)
}

/// (Φ(z), φ(z)): distribution function and density of the standard normal, each to 1e-7, |z|·error likewise.
/// A NaN may be lost.
#[inline(always)]
pub fn normal<S: Simd>(simd: S, z: S::f32s) -> (S::f32s, S::f32s) {
    let one = simd.splat_f32s(1.0);
    let distance = simd.abs_f32s(z);
    let exponent = simd.mul_f32s(simd.mul_f32s(z, z), simd.splat_f32s(-0.5 * std::f32::consts::LOG2_E));
    let decay = exp2(simd, exponent);
    // Φ(−|z|) = exp(−z²/2) · R(t): a polynomial in t = 1 / (1 + 0.33 |z|), as Abramowitz & Stegun 7.1.26 has for erf.
    let t = simd.div_f32s(one, simd.mul_add_f32s(distance, simd.splat_f32s(0.33), one));
    let ratio = polynomial(
        simd,
        t,
        [0.006_155_383_3, 0.073_682_755, 0.358_984_4, -0.354_825_32, 0.623_499_7, -0.232_719_96, 0.025_223_028],
    );
    let tail = simd.mul_f32s(decay, ratio);
    let below = simd.less_than_f32s(z, simd.splat_f32s(0.0));
    let distribution = simd.select_f32s(below, tail, simd.sub_f32s(one, tail));
    const DENSITY_AT_0: f32 = 0.398_942_3;
    (distribution, simd.mul_f32s(decay, simd.splat_f32s(DENSITY_AT_0)))
}

/// (sin z, cos z), each to 1e-7, for every finite z.
#[inline(always)]
pub fn sin_cos<S: Simd>(simd: S, z: S::f32s) -> (S::f32s, S::f32s) {
    /// Up to here the three-part π/2 below reduces without visible error.
    const REDUCIBLE: f32 = 8192.0;
    if simd.reduce_max_f32s(simd.abs_f32s(z)) > REDUCIBLE {
        return sin_cos_by_lane::<S>(z);
    }
    let shift = simd.splat_f32s(12_582_912.0);
    let biased = simd.mul_add_f32s(z, simd.splat_f32s(std::f32::consts::FRAC_2_PI), shift);
    let quarter_turns = simd.sub_f32s(biased, shift);
    let mut r = z;
    // π/2 in three parts, the first two short enough that their products with the quarter turns are exact.
    for part in [1.570_312_5_f32, 4.837_513e-4, 7.549_79e-8] {
        r = simd.mul_add_f32s(quarter_turns, simd.splat_f32s(-part), r);
    }
    let square = simd.mul_f32s(r, r);
    let sin = polynomial(simd, square, [-0.166_666_5, 0.008_331_925, -0.000_194_888_4]);
    let sin = simd.mul_add_f32s(simd.mul_f32s(sin, square), r, r);
    let cos = polynomial(simd, square, [-0.5, 0.041_666_646, -0.001_388_730_7, 2.443_134_1e-5]);
    let cos = simd.mul_add_f32s(cos, square, simd.splat_f32s(1.0));
    // Quarter turns modulo 4 select the function (bit 0) and its sign (bit 1; for cos, of the next quarter).
    let quarter = simd.transmute_u32s_f32s(biased);
    let odd = simd.equal_u32s(simd.and_u32s(quarter, simd.splat_u32s(1)), simd.splat_u32s(1));
    let next = simd.add_u32s(quarter, simd.splat_u32s(1));
    (
        negate_in_half(simd, simd.select_f32s(odd, cos, sin), quarter),
        negate_in_half(simd, simd.select_f32s(odd, sin, cos), next),
    )
}

/// −x where bit 1 of `quarter` is set, else x.
#[inline(always)]
fn negate_in_half<S: Simd>(simd: S, x: S::f32s, quarter: S::u32s) -> S::f32s {
    let bit = simd.and_u32s(quarter, simd.splat_u32s(2));
    let sign = simd.wrapping_dyn_shl_u32s(bit, simd.splat_u32s(30));
    simd.transmute_f32s_u32s(simd.xor_u32s(simd.transmute_u32s_f32s(x), sign))
}

#[cold]
fn sin_cos_by_lane<S: Simd>(z: S::f32s) -> (S::f32s, S::f32s) {
    let (mut sin, mut cos) = (z, z);
    for (sin, cos) in bytemuck::cast_slice_mut::<_, f32>(std::slice::from_mut(&mut sin))
        .iter_mut()
        .zip(bytemuck::cast_slice_mut::<_, f32>(std::slice::from_mut(&mut cos)))
    {
        (*sin, *cos) = sin.sin_cos();
    }
    (sin, cos)
}
