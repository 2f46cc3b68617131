//! The arithmetic of `arithmetic` for all lanes of a warp in one loop, compiled separately for each
//! frequent operation.

use crate::arithmetic::{self, Conversion};
use crate::ptx::{Binary, Compare, Rounding, Ternary, Type, Unary};

pub const LANES: usize = 32;

/// One value per lane: bits with the width of a type, zeros above.
pub type Lanes = [u64; LANES];

/// The lanes of a mask, from the lowest.
#[inline(always)]
pub fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros() as usize;
        (rest != 0).then(|| {
            rest &= rest - 1;
            lane
        })
    })
}

/// The lanes whose predicate holds.
#[inline(always)]
pub fn holding(predicate: &Lanes) -> u32 {
    (0..LANES).fold(0, |mask, lane| mask | (predicate[lane] as u32 & 1) << lane)
}

/// Compiles a function twice if that helps, for the instructions of every processor and for those
/// of most, and calls the right one.
macro_rules! vectorized {
    ($(#[$attribute:meta])* pub fn $name:ident($($argument:ident: $ty:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$attribute])*
        pub fn $name($($argument: $ty),*) $(-> $result)? {
            #[allow(clippy::too_many_arguments)] // the operands and modifiers of one instruction
            #[inline(always)]
            fn body($($argument: $ty),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[allow(clippy::too_many_arguments)]
                #[target_feature(enable = "avx2,fma")]
                fn wide($($argument: $ty),*) $(-> $result)? {
                    body($($argument),*)
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the processor has the features.
                    return unsafe { wide($($argument),*) };
                }
            }
            body($($argument),*)
        }
    };
}
pub(crate) use vectorized;

/// Writes `value` of each lane to `out`; `false` if it is `None`, which depends only on the
/// operation.
macro_rules! each {
    ($out:ident, $lane:ident => $value:expr) => {{
        let mut known = true;
        for $lane in 0..LANES {
            match $value {
                Some(bits) => $out[$lane] = bits,
                None => known = false,
            }
        }
        known
    }};
}

vectorized! {
    pub fn unary(op: Unary, ty: Type, ftz: bool, a: &Lanes, out: &mut Lanes) -> bool {
        macro_rules! fast {
            ($($op:ident $ty:ident)*) => {
                match (op, ty, ftz) {
                    $((Unary::$op, Type::$ty, false) =>
                        each!(out, lane => arithmetic::unary(Unary::$op, Type::$ty, false, a[lane])),)*
                    _ => each!(out, lane => arithmetic::unary(op, ty, ftz, a[lane])),
                }
            };
        }
        fast! {
            Neg F32 Abs F32 Rcp F32 Sqrt F32 Not B32 Not Pred Neg S32
            RcpApprox F32 RsqrtApprox F32 SqrtApprox F32 Ex2Approx F32
        }
    }
}

vectorized! {
    pub fn binary(op: Binary, ty: Type, ftz: bool, saturate: bool, a: &Lanes, b: &Lanes, out: &mut Lanes) -> bool {
        macro_rules! fast {
            ($($op:ident $ty:ident)*) => {
                match (op, ty, ftz, saturate) {
                    $((Binary::$op, Type::$ty, false, false) => each!(out, lane =>
                        arithmetic::binary(Binary::$op, Type::$ty, false, false, a[lane], b[lane])),)*
                    _ => each!(out, lane => arithmetic::binary(op, ty, ftz, saturate, a[lane], b[lane])),
                }
            };
        }
        fast! {
            Add F32 Sub F32 MulLo F32 Min F32 Max F32 Div F32
            Add F64 Sub F64 MulLo F64
            Add S32 Add U32 Add S64 Add U64 Sub S32 Sub U32 Sub S64 Sub U64
            MulLo S32 MulLo U32 MulLo S64 MulLo U64 MulHi U32 MulWide U32 MulWide S32
            And B32 And B64 And Pred Or B32 Or B64 Or Pred Xor B32 Xor B64 Xor Pred
            Shl B32 Shl B64 Shr U32 Shr S32 Shr B32 Shr U64 Shr S64 Shr B64
            Min S32 Min U32 Max S32 Max U32
        }
    }
}

vectorized! {
    #[allow(clippy::too_many_arguments)]
    pub fn ternary(
        op: Ternary, ty: Type, ftz: bool, saturate: bool, relu: bool, a: &Lanes, b: &Lanes, c: &Lanes,
        out: &mut Lanes,
    ) -> bool {
        macro_rules! fast {
            ($($op:ident $ty:ident)*) => {
                match (op, ty, ftz, saturate, relu) {
                    $((Ternary::$op, Type::$ty, false, false, false) => each!(out, lane =>
                        arithmetic::ternary(Ternary::$op, Type::$ty, false, false, false, a[lane], b[lane], c[lane])),)*
                    (Ternary::Lop3(table), _, _, _, _) =>
                        each!(out, lane => Some(arithmetic::by_table(table, a[lane], b[lane], c[lane]))),
                    _ => each!(out, lane =>
                        arithmetic::ternary(op, ty, ftz, saturate, relu, a[lane], b[lane], c[lane])),
                }
            };
        }
        fast! { Fma F32 Fma F64 MadLo S32 MadLo U32 MadLo S64 MadWide U32 MadWide S32 Prmt B32 }
    }
}

vectorized! {
    /// 1 in each lane for which the comparison holds.
    pub fn compare(compare: Compare, ty: Type, a: &Lanes, b: &Lanes, out: &mut Lanes) -> bool {
        macro_rules! fast {
            ($($op:ident $ty:ident)*) => {
                match (compare, ty) {
                    $((Compare::$op, Type::$ty) => each!(out, lane =>
                        arithmetic::compare(Compare::$op, Type::$ty, a[lane], b[lane]).map(u64::from)),)*
                    _ => each!(out, lane => arithmetic::compare(compare, ty, a[lane], b[lane]).map(u64::from)),
                }
            };
        }
        fast! {
            Lt F32 Le F32 Gt F32 Ge F32 Eq F32 Ne F32 Ltu F32 Leu F32 Gtu F32 Geu F32 Equ F32 Neu F32
            Lt S32 Le S32 Gt S32 Ge S32 Eq S32 Ne S32 Lt U32 Le U32 Gt U32 Ge U32 Eq B32 Ne B32 Eq U32 Ne U32
            Eq S64 Ne S64 Lt U64 Ge U64 Gt U64
        }
    }
}

vectorized! {
    pub fn convert(how: Conversion, a: &Lanes, out: &mut Lanes) -> bool {
        macro_rules! fast {
            ($($to:ident $from:ident $rounding:expr),* $(,)?) => {
                match how {
                    $(Conversion {
                        to: Type::$to, from: Type::$from, rounding, integral: false, saturate: false,
                        ftz: false, relu: false,
                    } if rounding == $rounding => each!(out, lane => arithmetic::convert(Conversion {
                        to: Type::$to, from: Type::$from, rounding: $rounding, integral: false, saturate: false,
                        ftz: false, relu: false,
                    }, a[lane])),)*
                    _ => each!(out, lane => arithmetic::convert(how, a[lane])),
                }
            };
        }
        fast! {
            U64 U32 None, S64 S32 None, U32 U64 None, U32 U16 None, U16 U32 None,
            F32 Bf16 None, F32 F16 None, F64 F32 None,
            Bf16 F32 Some(Rounding::Nearest), F16 F32 Some(Rounding::Nearest), F32 F64 Some(Rounding::Nearest),
            Tf32 F32 Some(Rounding::NearestAway),
            F32 S32 Some(Rounding::Nearest), F32 U32 Some(Rounding::Nearest), S32 F32 Some(Rounding::Zero),
            U32 F32 Some(Rounding::Zero),
        }
    }
}

vectorized! {
    pub fn convert_pair(to: Type, relu: bool, high: &Lanes, low: &Lanes, out: &mut Lanes) {
        match (to, relu) {
            (Type::Bf16x2, false) =>
                (0..LANES)
                .for_each(|lane| out[lane] = arithmetic::convert_pair(Type::Bf16x2, false, high[lane], low[lane])),
            (Type::F16x2, false) =>
                (0..LANES)
                .for_each(|lane| out[lane] = arithmetic::convert_pair(Type::F16x2, false, high[lane], low[lane])),
            _ => (0..LANES).for_each(|lane| out[lane] = arithmetic::convert_pair(to, relu, high[lane], low[lane])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_of_a_mask_are_listed_in_order() {
        assert_eq!(lanes(0b1010_0001).collect::<Vec<_>>(), [0, 5, 7]);
        assert_eq!((lanes(0).count(), lanes(u32::MAX).count()), (0, 32));
        let mut predicate = [0; LANES];
        [0, 5, 31].into_iter().for_each(|lane| predicate[lane] = 1);
        assert_eq!(holding(&predicate), 1 << 31 | 1 << 5 | 1);
    }

    /// The loops of frequent operations agree with single lanes.
    #[test]
    fn loops_agree_with_single_lanes() {
        let a: Lanes = std::array::from_fn(|lane| u64::from((lane as f32 * 0.37 - 5.0).to_bits()));
        let b: Lanes = std::array::from_fn(|lane| (lane as u64).wrapping_mul(0x9e37_79b9) & 0xffff_ffff);
        for ty in
            [Type::F32, Type::F64, Type::S32, Type::U32, Type::B32, Type::U64, Type::S64, Type::Pred, Type::Bf16x2]
        {
            for op in [
                Binary::Add,
                Binary::Sub,
                Binary::MulLo,
                Binary::MulHi,
                Binary::Div,
                Binary::Xor,
                Binary::Shl,
                Binary::Shr,
            ] {
                let mut out = [0; LANES];
                let whole = binary(op, ty, false, false, &a, &b, &mut out).then_some(out);
                for lane in 0..LANES {
                    let one = arithmetic::binary(op, ty, false, false, a[lane], b[lane]);
                    assert_eq!(whole.map(|lanes| lanes[lane]), one, "{op:?} {ty:?}");
                }
            }
            for op in [Ternary::Fma, Ternary::MadLo, Ternary::Lop3(0x2d), Ternary::Prmt] {
                let mut out = [0; LANES];
                let whole = ternary(op, ty, false, false, false, &a, &b, &a, &mut out).then_some(out);
                for lane in 0..LANES {
                    let one = arithmetic::ternary(op, ty, false, false, false, a[lane], b[lane], a[lane]);
                    assert_eq!(whole.map(|lanes| lanes[lane]), one, "{op:?} {ty:?}");
                }
            }
            for op in [Compare::Lt, Compare::Geu, Compare::Eq, Compare::Num] {
                let mut out = [0; LANES];
                let whole = compare(op, ty, &a, &b, &mut out).then_some(out);
                for lane in 0..LANES {
                    let one = arithmetic::compare(op, ty, a[lane], b[lane]).map(u64::from);
                    assert_eq!(whole.map(|lanes| lanes[lane]), one, "{op:?} {ty:?}");
                }
            }
        }
    }
}
