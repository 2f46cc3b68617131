//! Several SIMD vectors computed together, with operators, so that formulas read as mathematics.
//! The independent vectors hide the latency of each operation (measured: half the time of one
//! vector at a time).

#![allow(clippy::needless_range_loop)] // indices run over several arrays in step

use std::ops::{Add, Div, Mul, Neg, Sub};

use pulp::Simd;

/// `N` vectors of f32.
#[derive(Clone, Copy)]
pub struct Lanes<S: Simd, const N: usize> {
    simd: S,
    /// The vectors.
    pub vectors: [S::f32s; N],
}

/// The lanes for which a condition holds.
#[derive(Clone, Copy)]
pub struct Mask<S: Simd, const N: usize>([S::m32s; N]);

macro_rules! operator {
    ($operator:ident, $name:ident, $function:ident) => {
        impl<S: Simd, const N: usize> $operator for Lanes<S, N> {
            type Output = Self;

            #[inline(always)]
            fn $name(mut self, other: Self) -> Self {
                for i in 0..N {
                    self.vectors[i] = self.simd.$function(self.vectors[i], other.vectors[i]);
                }
                self
            }
        }

        impl<S: Simd, const N: usize> $operator<f32> for Lanes<S, N> {
            type Output = Self;

            #[inline(always)]
            fn $name(self, other: f32) -> Self {
                self.$name(self.splat(other))
            }
        }
    };
}

operator!(Add, add, add_f32s);
operator!(Sub, sub, sub_f32s);
operator!(Mul, mul, mul_f32s);
operator!(Div, div, div_f32s);

impl<S: Simd, const N: usize> Neg for Lanes<S, N> {
    type Output = Self;

    #[inline(always)]
    fn neg(mut self) -> Self {
        for vector in &mut self.vectors {
            *vector = self.simd.neg_f32s(*vector);
        }
        self
    }
}

impl<S: Simd, const N: usize> Lanes<S, N> {
    /// Wraps `vectors`.
    #[inline(always)]
    pub fn new(simd: S, vectors: [S::f32s; N]) -> Self {
        Lanes { simd, vectors }
    }

    /// `value` in every lane.
    #[inline(always)]
    pub fn splat(self, value: f32) -> Self {
        Lanes { simd: self.simd, vectors: [self.simd.splat_f32s(value); N] }
    }

    /// self · factor + term, rounded once.
    #[inline(always)]
    pub fn mul_add(mut self, factor: Self, term: Self) -> Self {
        for i in 0..N {
            self.vectors[i] = self.simd.mul_add_f32s(self.vectors[i], factor.vectors[i], term.vectors[i]);
        }
        self
    }

    /// |self|.
    #[inline(always)]
    pub fn abs(mut self) -> Self {
        for vector in &mut self.vectors {
            *vector = self.simd.abs_f32s(*vector);
        }
        self
    }

    /// Clamped to −limit..=limit. A NaN may be lost.
    #[inline(always)]
    pub fn clamp(mut self, limit: f32) -> Self {
        let (low, high) = (self.simd.splat_f32s(-limit), self.simd.splat_f32s(limit));
        for vector in &mut self.vectors {
            *vector = self.simd.max_f32s(low, self.simd.min_f32s(high, *vector));
        }
        self
    }

    /// Largest of all lanes.
    #[inline(always)]
    pub fn largest(self) -> f32 {
        let mut largest = self.vectors[0];
        for vector in &self.vectors[1..] {
            largest = self.simd.max_f32s(largest, *vector);
        }
        self.simd.reduce_max_f32s(largest)
    }

    /// Mask of lanes with self < 0.
    #[inline(always)]
    pub fn negative(self) -> Mask<S, N> {
        let zero = self.simd.splat_f32s(0.0);
        let mut mask = [self.simd.less_than_f32s(self.vectors[0], zero); N];
        for i in 1..N {
            mask[i] = self.simd.less_than_f32s(self.vectors[i], zero);
        }
        Mask(mask)
    }

    /// Mask of lanes whose bit number `bit` is set.
    #[inline(always)]
    pub fn bit(self, bit: u32) -> Mask<S, N> {
        let wanted = self.simd.splat_u32s(1 << bit);
        let mut mask = [self.simd.equal_u32s(wanted, wanted); N];
        for i in 0..N {
            let bits = self.simd.transmute_u32s_f32s(self.vectors[i]);
            mask[i] = self.simd.equal_u32s(self.simd.and_u32s(bits, wanted), wanted);
        }
        Mask(mask)
    }

    /// self in the lanes of `mask`, `other` in the rest.
    #[inline(always)]
    pub fn where_else(mut self, mask: Mask<S, N>, other: Self) -> Self {
        for i in 0..N {
            self.vectors[i] = self.simd.select_f32s(mask.0[i], self.vectors[i], other.vectors[i]);
        }
        self
    }

    /// The lanes' bits as integers, shifted left by `bits`.
    #[inline(always)]
    pub fn shift_left(mut self, bits: u32) -> Self {
        let amount = self.simd.splat_u32s(bits);
        for vector in &mut self.vectors {
            let shifted = self.simd.wrapping_dyn_shl_u32s(self.simd.transmute_u32s_f32s(*vector), amount);
            *vector = self.simd.transmute_f32s_u32s(shifted);
        }
        self
    }

    /// Horner's rule: `coefficients[0] + self·(coefficients[1] + …)`.
    #[inline(always)]
    pub fn polynomial<const M: usize>(self, coefficients: [f32; M]) -> Self {
        let mut sum = self.splat(coefficients[M - 1]);
        for &coefficient in coefficients[..M - 1].iter().rev() {
            sum = sum.mul_add(self, self.splat(coefficient));
        }
        sum
    }
}
