//! Elementary functions in f32, from which the activations are built.
//!
//! Polynomials are minimax fits; each function states its absolute error.

use pulp::Simd;

use super::lanes::Lanes;

/// Adding 1.5·2²³ rounds to an integer and leaves it in the low bits.
const ROUND: f32 = 12_582_912.0;

/// 2ˣ for |x| ≤ 126, relative error 1.5e-7; larger |x| give 2^±126. A NaN may be lost.
#[inline(always)]
pub fn exp2<S: Simd, const N: usize>(x: Lanes<S, N>) -> Lanes<S, N> {
    const EXPONENT_BIAS: f32 = 127.0;
    let x = x.clamp(126.0);
    let biased = x + (ROUND + EXPONENT_BIAS);
    let fraction = x - (biased - (ROUND + EXPONENT_BIAS));
    let mantissa = fraction.polynomial([1.0, 0.693_146_94, 0.240_221_2, 0.055_507_13, 0.009_675_541, 0.001_327_647_2]);
    mantissa * biased.shift_left(f32::MANTISSA_DIGITS - 1)
}

/// (σ(z), 1 − σ(z)) of the logistic function σ, each to 6e-8; a NaN may be lost.
#[inline(always)]
pub fn logistic<S: Simd, const N: usize>(z: Lanes<S, N>) -> (Lanes<S, N>, Lanes<S, N>) {
    let decay = exp2(z * -std::f32::consts::LOG2_E);
    let value = decay.splat(1.0) / (decay + 1.0);
    (value, decay * value)
}

/// log(1 + u) for 0 ≤ u ≤ 1, to 1e-7.
#[inline(always)]
pub fn log1p_unit<S: Simd, const N: usize>(u: Lanes<S, N>) -> Lanes<S, N> {
    // log(1 + u) = 2 artanh(w), w = u / (2 + u) ≤ 1/3.
    let w = u / (u + 2.0);
    w * (w * w).polynomial([2.0, 0.666_658_76, 0.400_392_17, 0.277_888_98, 0.288_651_02])
}

/// (Φ(z), φ(z)): distribution function and density of the standard normal. Their errors, also
/// multiplied by |z|, are at most 1e-7. A NaN may be lost.
#[inline(always)]
pub fn normal<S: Simd, const N: usize>(z: Lanes<S, N>) -> (Lanes<S, N>, Lanes<S, N>) {
    const DENSITY_AT_0: f32 = 0.398_942_3;
    let one = z.splat(1.0);
    let decay = exp2(z * z * (-0.5 * std::f32::consts::LOG2_E));
    // Φ(−|z|) = exp(−z²/2) · R(t) with a polynomial R in t = 1 / (1 + 0.33 |z|), the form that
    // Abramowitz & Stegun 7.1.26 use for erf.
    let t = one / z.abs().mul_add(z.splat(0.33), one);
    let tail = decay
        * t.polynomial([
            0.006_155_383_3,
            0.073_682_755,
            0.358_984_4,
            -0.354_825_32,
            0.623_499_7,
            -0.232_719_96,
            0.025_223_028,
        ]);
    (tail.where_else(z.negative(), one - tail), decay * DENSITY_AT_0)
}

/// (sin z, cos z), each to 1e-7, for every finite z.
#[inline(always)]
pub fn sin_cos<S: Simd, const N: usize>(z: Lanes<S, N>) -> (Lanes<S, N>, Lanes<S, N>) {
    /// For smaller |z| the three-part reduction by π/2 below has no visible error.
    const REDUCIBLE: f32 = 8192.0;
    if z.abs().largest() > REDUCIBLE {
        return sin_cos_by_lane(z);
    }
    let biased = z.mul_add(z.splat(std::f32::consts::FRAC_2_PI), z.splat(ROUND));
    let quarter_turns = biased - ROUND;
    let mut r = z;
    // π/2 in three terms; the first two are short enough that their products with the number of
    // quarter turns are exact.
    for piece in [1.570_312_5_f32, 4.837_513e-4, 7.549_79e-8] {
        r = quarter_turns.mul_add(z.splat(-piece), r);
    }
    let square = r * r;
    let sin = (square.polynomial([-0.166_666_5, 0.008_331_925, -0.000_194_888_4]) * square).mul_add(r, r);
    let cos = square.polynomial([-0.5, 0.041_666_646, -0.001_388_730_7, 2.443_134_1e-5]);
    let cos = cos.mul_add(square, z.splat(1.0));
    // The low bits hold the number of quarter turns: bit 0 selects the function, bit 1 its sign
    // (for cos, bit 1 of the next quarter).
    let odd = biased.bit(0);
    let next = biased + 1.0;
    let (s, c) = (cos.where_else(odd, sin), sin.where_else(odd, cos));
    ((-s).where_else(biased.bit(1), s), (-c).where_else(next.bit(1), c))
}

#[cold]
fn sin_cos_by_lane<S: Simd, const N: usize>(z: Lanes<S, N>) -> (Lanes<S, N>, Lanes<S, N>) {
    let (mut sin, mut cos) = (z, z);
    let cosines = bytemuck::cast_slice_mut::<S::f32s, f32>(&mut cos.vectors);
    for (sin, cos) in bytemuck::cast_slice_mut::<S::f32s, f32>(&mut sin.vectors).iter_mut().zip(cosines) {
        (*sin, *cos) = sin.sin_cos();
    }
    (sin, cos)
}
