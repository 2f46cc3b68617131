//! Arithmetic of single lanes: values are bits in 64-bit registers, read and written with the width
//! of a type.

use half::{bf16, f16};

use crate::ptx::{Binary, Compare, Rounding, Ternary, Type, Unary};

#[inline(always)]
pub fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

#[inline(always)]
fn bits_of(value: f32) -> u64 {
    u64::from(value.to_bits())
}

#[inline(always)]
fn flush(value: f32, ftz: bool) -> f32 {
    if ftz && value.is_subnormal() { 0.0_f32.copysign(value) } else { value }
}

/// `value` rounded to `bits` bits of mantissa, the result of an approximation with that accuracy.
#[inline(always)]
fn approximate(value: f64, bits: u32) -> f32 {
    let value = value as f32;
    if !value.is_finite() || value == 0.0 {
        return value;
    }
    let dropped = 23 - bits;
    let rounded = (value.to_bits() + (1 << dropped >> 1)) >> dropped << dropped;
    f32::from_bits(rounded)
}

/// The f32 next to `value` towards zero, odd if it is not `value` itself: rounded on to fewer
/// digits it gives what `value` does. (`from_f64` of f16 and bf16 omits the last digits, so that it
/// takes values just above the middle of two for ties.)
fn to_odd(value: f64) -> f32 {
    let near = value as f32;
    if near.is_nan() || f64::from(near) == value {
        return near;
    }
    let beyond = f64::from(near).abs() > value.abs();
    f32::from_bits((near.to_bits() - u32::from(beyond)) | 1)
}

/// `value` rounded to the nearest f16 or bf16, its bits.
pub fn nearest_f16(value: f64) -> u16 {
    f16::from_f32(to_odd(value)).to_bits()
}
pub fn nearest_bf16(value: f64) -> u16 {
    bf16::from_f32(to_odd(value)).to_bits()
}

/// Both halves of a packed register, through f32.
#[inline(always)]
fn by_halves(ty: Type, bits: u64, map: impl Fn(f32) -> f32) -> u64 {
    let half = |half: u16| -> u16 {
        if ty == Type::Bf16x2 {
            bf16::from_f32(map(bf16::from_bits(half).to_f32())).to_bits()
        } else {
            f16::from_f32(map(f16::from_bits(half).to_f32())).to_bits()
        }
    };
    u64::from(half(bits as u16)) | u64::from(half((bits >> 16) as u16)) << 16
}

#[inline(always)]
fn halves(ty: Type, bits: u64) -> [f32; 2] {
    [bits as u16, (bits >> 16) as u16].map(|half| {
        if matches!(ty, Type::Bf16x2 | Type::Bf16) {
            bf16::from_bits(half).to_f32()
        } else {
            f16::from_bits(half).to_f32()
        }
    })
}

#[inline(always)]
fn from_halves(ty: Type, values: [f64; 2]) -> u64 {
    let [low, high] = values
        .map(|value| if matches!(ty, Type::Bf16x2 | Type::Bf16) { nearest_bf16(value) } else { nearest_f16(value) });
    u64::from(low) | u64::from(high) << 16
}

/// The result of `op` with the width of `ty`; `None` if the executor does not support it.
#[inline(always)]
pub fn unary(op: Unary, ty: Type, ftz: bool, a: u64) -> Option<u64> {
    if matches!(ty, Type::F16x2 | Type::Bf16x2) {
        return Some(match op {
            Unary::Abs => a & 0x7fff_7fff,
            Unary::Neg => a ^ 0x8000_8000,
            Unary::TanhApprox => by_halves(ty, a, |x| approximate(f64::from(x).tanh(), 10)),
            Unary::Ex2Approx => by_halves(ty, a, |x| approximate(f64::from(x).exp2(), 10)),
            _ => return None,
        });
    }
    if ty == Type::F32 {
        let x = flush(f32_of(a), ftz);
        let wide = f64::from(x);
        let value = match op {
            Unary::Abs => x.abs(),
            Unary::Neg => -x,
            Unary::Sqrt => x.sqrt(),
            Unary::Rcp => 1.0 / x,
            Unary::SqrtApprox => approximate(wide.sqrt(), 22),
            Unary::RsqrtApprox => approximate(1.0 / wide.sqrt(), 22),
            Unary::RcpApprox => approximate(1.0 / wide, 22),
            Unary::SinApprox => (wide.sin() + 0.0) as f32,
            Unary::CosApprox => wide.cos() as f32,
            Unary::Ex2Approx => approximate(wide.exp2(), 22),
            Unary::Lg2Approx => approximate(wide.log2(), 22),
            Unary::TanhApprox => approximate(wide.tanh(), 11),
            _ => return None,
        };
        return Some(bits_of(flush(value, ftz)));
    }
    if ty == Type::F64 {
        let x = f64::from_bits(a);
        let value = match op {
            Unary::Abs => x.abs(),
            Unary::Neg => -x,
            Unary::Sqrt => x.sqrt(),
            Unary::Rcp => 1.0 / x,
            _ => return None,
        };
        return Some(value.to_bits());
    }
    if matches!(ty, Type::F16 | Type::Bf16) {
        return Some(match op {
            Unary::Abs => a & 0x7fff,
            Unary::Neg => (a ^ 0x8000) & 0xffff,
            _ => return None,
        });
    }
    let width = 8 * ty.bytes() as u32;
    let bits = ty.truncate(a);
    Some(ty.truncate(match op {
        Unary::Abs => ty.extend(a).wrapping_abs() as u64,
        Unary::Neg => (ty.extend(a).wrapping_neg()) as u64,
        Unary::Not if ty == Type::Pred => return Some(u64::from(a == 0)),
        Unary::Not => !a,
        Unary::Popc => return Some(u64::from(bits.count_ones())),
        Unary::Clz => return Some(u64::from(bits.leading_zeros() - (64 - width))),
        Unary::Brev => bits.reverse_bits() >> (64 - width),
        Unary::Bfind => {
            let bits = if ty.is_signed() && ty.extend(a) < 0 { ty.truncate(!a) } else { bits };
            return Some(if bits == 0 { 0xffff_ffff } else { u64::from(63 - bits.leading_zeros()) });
        }
        _ => return None,
    }))
}

#[inline(always)]
pub fn binary(op: Binary, ty: Type, ftz: bool, saturate: bool, a: u64, b: u64) -> Option<u64> {
    if matches!(ty, Type::F16x2 | Type::Bf16x2 | Type::F16 | Type::Bf16)
        && !matches!(op, Binary::And | Binary::Or | Binary::Xor)
    {
        let (x, y) = (halves(ty, a), halves(ty, b));
        let each = |k: usize| -> Option<f64> {
            let (x, y) = (f64::from(x[k]), f64::from(y[k]));
            Some(match op {
                Binary::Add => x + y,
                Binary::Sub => x - y,
                Binary::MulLo => x * y,
                Binary::Min => x.min(y),
                Binary::Max => x.max(y),
                _ => return None,
            })
        };
        let bits = from_halves(ty, [each(0)?, each(1)?]);
        return Some(ty.truncate(bits));
    }
    match ty {
        Type::F32 => {
            let (x, y) = (flush(f32_of(a), ftz), flush(f32_of(b), ftz));
            let value = match op {
                Binary::Add => x + y,
                Binary::Sub => x - y,
                Binary::MulLo => x * y,
                Binary::Div => x / y,
                Binary::DivApprox => approximate(f64::from(x) / f64::from(y), 22),
                Binary::Min => x.min(y),
                Binary::Max => x.max(y),
                Binary::Copysign => y.copysign(x), // the sign of the first, the magnitude of the second
                _ => return None,
            };
            let value = flush(value, ftz);
            Some(bits_of(if saturate { if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) } } else { value }))
        }
        Type::F64 => {
            let (x, y) = (f64::from_bits(a), f64::from_bits(b));
            let value = match op {
                Binary::Add => x + y,
                Binary::Sub => x - y,
                Binary::MulLo => x * y,
                Binary::Div => x / y,
                Binary::Min => x.min(y),
                Binary::Max => x.max(y),
                Binary::Copysign => y.copysign(x),
                _ => return None,
            };
            Some(value.to_bits())
        }
        _ => integer(op, ty, a, b),
    }
}

#[inline(always)]
fn integer(op: Binary, ty: Type, a: u64, b: u64) -> Option<u64> {
    let width = 8 * ty.bytes() as u32;
    let (x, y) = (ty.extend(a), ty.extend(b));
    let (ux, uy) = (ty.truncate(a), ty.truncate(b));
    let signed = ty.is_signed();
    let value = match op {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::MulLo => a.wrapping_mul(b),
        Binary::MulHi if signed => ((i128::from(x) * i128::from(y)) >> width) as u64,
        Binary::MulHi => ((u128::from(ux) * u128::from(uy)) >> width) as u64,
        // The product is twice as wide as the type.
        Binary::MulWide if signed => return Some(widened(ty, x.wrapping_mul(y) as u64)),
        Binary::MulWide => return Some(widened(ty, ux.wrapping_mul(uy))),
        Binary::Div if y == 0 || uy == 0 => u64::MAX,
        Binary::Div if signed => x.wrapping_div(y) as u64,
        Binary::Div => ux / uy,
        Binary::Rem if uy == 0 => a,
        Binary::Rem if signed => x.wrapping_rem(y) as u64,
        Binary::Rem => ux % uy,
        Binary::Min if signed => x.min(y) as u64,
        Binary::Min => ux.min(uy),
        Binary::Max if signed => x.max(y) as u64,
        Binary::Max => ux.max(uy),
        Binary::And => a & b,
        Binary::Or => a | b,
        Binary::Xor => a ^ b,
        // Shift amounts beyond the width count as the width.
        Binary::Shl => a.checked_shl((b as u32).min(width)).filter(|_| (b as u32) < width).unwrap_or(0),
        Binary::Shr if signed => (x >> (b as u32).min(width - 1).min(63)) as u64,
        Binary::Shr => {
            if (b as u32) < width {
                ux >> (b as u32)
            } else {
                0
            }
        }
        _ => return None,
    };
    Some(if ty == Type::Pred { value & 1 } else { ty.truncate(value) })
}

/// Bits of a value twice as wide as `ty`.
#[inline(always)]
fn widened(ty: Type, value: u64) -> u64 {
    match ty.bytes() {
        2 => value & 0xffff_ffff,
        _ => value,
    }
}

#[allow(clippy::too_many_arguments)] // the operands and modifiers of one instruction
#[inline(always)]
pub fn ternary(op: Ternary, ty: Type, ftz: bool, saturate: bool, relu: bool, a: u64, b: u64, c: u64) -> Option<u64> {
    Some(match op {
        Ternary::Fma => match ty {
            Type::F32 => {
                let value = flush(f32_of(a), ftz).mul_add(flush(f32_of(b), ftz), flush(f32_of(c), ftz));
                let value = flush(value, ftz);
                bits_of(if saturate { if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) } } else { value })
            }
            Type::F64 => f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits(),
            Type::F16 | Type::Bf16 | Type::F16x2 | Type::Bf16x2 => {
                let (x, y, z) = (halves(ty, a), halves(ty, b), halves(ty, c));
                let each = |k: usize| {
                    let value = f64::from(x[k]) * f64::from(y[k]) + f64::from(z[k]);
                    if relu && value < 0.0 { 0.0 } else { value }
                };
                ty.truncate(from_halves(ty, [each(0), each(1)]))
            }
            _ => return None,
        },
        Ternary::MadLo => ty.truncate(a.wrapping_mul(b).wrapping_add(c)),
        Ternary::MadHi => ty.truncate(integer(Binary::MulHi, ty, a, b)?.wrapping_add(c)),
        Ternary::MadWide => {
            let sum = integer(Binary::MulWide, ty, a, b)?.wrapping_add(c);
            if ty.bytes() == 2 { sum & 0xffff_ffff } else { sum }
        }
        Ternary::Bfe => {
            let width = 8 * ty.bytes() as u32;
            let (position, length) = ((b as u32) & 0xff, (c as u32) & 0xff);
            if length == 0 {
                0
            } else {
                let last = (position + length - 1).min(width - 1);
                let sign = if ty.is_signed() { a >> last & 1 } else { 0 };
                let field = if position >= width { 0 } else { ty.truncate(a) >> position };
                let kept = length.min(width.saturating_sub(position));
                let mask = if kept >= 64 { u64::MAX } else { (1u64 << kept) - 1 };
                let value = field & mask;
                ty.truncate(if sign == 1 { value | !mask } else { value })
            }
        }
        // b is the high word, a the low one.
        Ternary::ShfLeft { clamp } => {
            let amount = if clamp { (c as u32).min(32) } else { c as u32 & 31 };
            let pair = (b & 0xffff_ffff) << 32 | a & 0xffff_ffff;
            (u128::from(pair) << amount >> 32) as u64 & 0xffff_ffff
        }
        Ternary::ShfRight { clamp } => {
            let amount = if clamp { (c as u32).min(32) } else { c as u32 & 31 };
            let pair = (b & 0xffff_ffff) << 32 | a & 0xffff_ffff;
            pair >> amount & 0xffff_ffff
        }
        Ternary::Prmt => {
            let pool = (b & 0xffff_ffff) << 32 | a & 0xffff_ffff;
            (0..4).fold(0, |result, k| {
                let selector = c >> (4 * k) & 0xf;
                let byte = pool >> (8 * (selector & 7)) & 0xff;
                let byte = if selector & 8 == 0 {
                    byte
                } else if byte & 0x80 != 0 {
                    0xff
                } else {
                    0
                };
                result | byte << (8 * k)
            })
        }
        Ternary::Lop3(table) => by_table(table, a, b, c),
    })
}

/// `b` with `length` bits of `a` from `position` on.
pub fn insert_bits(ty: Type, a: u64, b: u64, position: u64, length: u64) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if length == 0 || position >= 8 * ty.bytes() as u64 {
        return ty.truncate(b);
    }
    let ones = if length >= 64 { u64::MAX } else { (1 << length) - 1 } << position;
    ty.truncate(b & !ones | a << position & ones)
}

/// Bit k of `table` is the result for bits of a, b and c that form the number k.
#[inline(always)]
pub fn by_table(table: u8, a: u64, b: u64, c: u64) -> u64 {
    let chosen = |k: u32, bits: u64| if table >> k & 1 == 1 { bits } else { 0 };
    let with_c = |k: u32| chosen(k, !c) | chosen(k + 1, c);
    (!a & (!b & with_c(0) | b & with_c(2)) | a & (!b & with_c(4) | b & with_c(6))) & 0xffff_ffff
}

#[inline(always)]
pub fn compare(compare: Compare, ty: Type, a: u64, b: u64) -> Option<bool> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match ty {
        Type::F32 => f32_of(a).partial_cmp(&f32_of(b)),
        Type::F64 => f64::from_bits(a).partial_cmp(&f64::from_bits(b)),
        Type::F16 | Type::Bf16 => halves(ty, a)[0].partial_cmp(&halves(ty, b)[0]),
        Type::F16x2 | Type::Bf16x2 => return None,
        _ if ty.is_signed() => Some(ty.extend(a).cmp(&ty.extend(b))),
        _ => Some(ty.truncate(a).cmp(&ty.truncate(b))),
    };
    let ordered = |holds: fn(std::cmp::Ordering) -> bool| order.is_some_and(holds);
    let unordered = |holds: fn(std::cmp::Ordering) -> bool| order.is_none_or(holds);
    Some(match compare {
        Compare::Eq => ordered(|o| o == Equal),
        Compare::Ne => ordered(|o| o != Equal),
        Compare::Lt => ordered(|o| o == Less),
        Compare::Le => ordered(|o| o != Greater),
        Compare::Gt => ordered(|o| o == Greater),
        Compare::Ge => ordered(|o| o != Less),
        Compare::Equ => unordered(|o| o == Equal),
        Compare::Neu => unordered(|o| o != Equal),
        Compare::Ltu => unordered(|o| o == Less),
        Compare::Leu => unordered(|o| o != Greater),
        Compare::Gtu => unordered(|o| o == Greater),
        Compare::Geu => unordered(|o| o != Less),
        Compare::Num => order.is_some(),
        Compare::Nan => order.is_none(),
    })
}

/// Rounding and limits of a conversion.
#[derive(Clone, Copy, Debug)]
pub struct Conversion {
    pub to: Type,
    pub from: Type,
    pub rounding: Option<Rounding>,
    /// Rounds to an integer value, in a floating-point type.
    pub integral: bool,
    pub saturate: bool,
    pub ftz: bool,
    pub relu: bool,
}

#[inline(always)]
fn round_to_integer(value: f64, rounding: Option<Rounding>) -> f64 {
    match rounding {
        Some(Rounding::Zero) => value.trunc(),
        Some(Rounding::Down) => value.floor(),
        Some(Rounding::Up) => value.ceil(),
        _ => value.round_ties_even(),
    }
}

#[inline(always)]
pub fn convert(how: Conversion, a: u64) -> Option<u64> {
    let Conversion { to, from, rounding, integral, saturate, ftz, relu } = how;
    if from.is_float() {
        let value = match from {
            Type::F32 => f64::from(flush(f32_of(a), ftz)),
            Type::F64 => f64::from_bits(a),
            Type::F16 | Type::Bf16 => f64::from(halves(from, a)[0]),
            _ => return None,
        };
        if !to.is_float() {
            let rounded = round_to_integer(value, rounding);
            // Values out of range become the nearest limit, NaN becomes 0.
            let bits = 8 * to.bytes() as u32;
            let (least, largest) = if to.is_signed() {
                (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits))
            } else {
                (0, if bits == 64 { i64::MAX } else { (1i64 << bits) - 1 })
            };
            let value = if !to.is_signed() && bits == 64 {
                rounded as u64
            } else if rounded >= largest as f64 {
                largest as u64
            } else if rounded < least as f64 {
                least as u64
            } else {
                rounded as i64 as u64
            };
            return Some(to.truncate(value));
        }
        let value = if integral { round_to_integer(value, rounding) } else { value };
        let value = if saturate { if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) } } else { value };
        let value = if relu && value < 0.0 { 0.0 } else { value };
        return Some(match (to, rounding) {
            (Type::F64, _) => value.to_bits(),
            (Type::F32, None | Some(Rounding::Nearest)) => bits_of(flush(value as f32, ftz)),
            (Type::F32, Some(_)) if integral || from != Type::F64 => bits_of(flush(value as f32, ftz)),
            (Type::Tf32, Some(Rounding::NearestAway)) => {
                let bits = (value as f32).to_bits();
                let infinite = bits & 0x7f80_0000 == 0x7f80_0000;
                u64::from(if infinite { bits } else { bits.wrapping_add(0x1000) & !0x1fff })
            }
            (Type::F16, None | Some(Rounding::Nearest)) => u64::from(nearest_f16(value)),
            (Type::Bf16, None | Some(Rounding::Nearest)) => u64::from(nearest_bf16(value)),
            _ => return None,
        });
    }
    let value = from.extend(a);
    if to.is_float() {
        let wide = if from == Type::U64 || from == Type::B64 { a as f64 } else { value as f64 };
        let exact = from.bytes() < 8;
        return Some(match (to, rounding) {
            (Type::F32, Some(Rounding::Nearest)) if exact => bits_of(wide as f32),
            (Type::F32, Some(Rounding::Nearest)) if from.is_signed() => bits_of(value as f32),
            (Type::F32, Some(Rounding::Nearest)) => bits_of(a as f32),
            (Type::F32, Some(Rounding::Zero)) => {
                let near = wide as f32;
                let beyond = f64::from(near).abs() > wide.abs();
                bits_of(if beyond { f32::from_bits(near.to_bits() - 1) } else { near })
            }
            (Type::F64, _) => wide.to_bits(),
            (Type::F16, Some(Rounding::Nearest)) => u64::from(nearest_f16(wide)),
            (Type::Bf16, Some(Rounding::Nearest)) => u64::from(nearest_bf16(wide)),
            _ => return None,
        });
    }
    if saturate {
        let bits = 8 * to.bytes() as u32;
        let (least, largest) = if to.is_signed() {
            (i128::from(i64::MIN >> (64 - bits)), i128::from(i64::MAX >> (64 - bits)))
        } else {
            (0, (1i128 << bits) - 1)
        };
        let wide = if from.is_signed() { i128::from(value) } else { i128::from(from.truncate(a)) };
        return Some(to.truncate(wide.clamp(least, largest) as u64));
    }
    // Registers are at least as wide as their values, and extend the sign of narrow signed ones.
    Some(to.truncate(value as u64))
}

/// Two f32 as halves of one register, `low` below.
#[inline(always)]
pub fn convert_pair(to: Type, relu: bool, high: u64, low: u64) -> u64 {
    let limit = |bits: u64| {
        let value = f64::from(f32_of(bits));
        if relu && value < 0.0 { 0.0 } else { value }
    };
    from_halves(to, [limit(low), limit(high)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values just above the middle of two numbers of 16 bits are no ties, in f32 and in f64.
    #[test]
    fn halves_are_rounded_by_all_digits() {
        let above = |value: f32| f64::from(f32::from_bits(value.to_bits() + 1));
        for sign in [1.0, -1.0] {
            let (middle_bf16, middle_f16) = (1.0 + 2f32.powi(-8), 1.0 + 2f32.powi(-11));
            for nearly in [above(middle_bf16), f64::from(middle_bf16) + 1e-15] {
                assert_eq!(bf16::from_bits(nearest_bf16(sign * nearly)).to_f64(), sign * (1.0 + 2f64.powi(-7)));
            }
            for nearly in [above(middle_f16), f64::from(middle_f16) + 1e-15] {
                assert_eq!(f16::from_bits(nearest_f16(sign * nearly)).to_f64(), sign * (1.0 + 2f64.powi(-10)));
            }
            assert_eq!(bf16::from_bits(nearest_bf16(sign * f64::from(middle_bf16))).to_f64(), sign);
            assert_eq!(f16::from_bits(nearest_f16(sign * f64::from(middle_f16))).to_f64(), sign);
        }
        assert!(bf16::from_bits(nearest_bf16(1e300)).is_infinite() && f16::from_bits(nearest_f16(f64::NAN)).is_nan());
        for bits in 0..=u16::MAX {
            let (f, b) = (f16::from_bits(bits), bf16::from_bits(bits));
            assert!(f.is_nan() || nearest_f16(f.to_f64()) == bits);
            assert!(b.is_nan() || nearest_bf16(b.to_f64()) == bits);
        }
    }

    #[test]
    fn fused_products_round_once() {
        // 1 − ε² − 1: two roundings would lose the square.
        let bits = |value: f32| u64::from(value.to_bits());
        let fma =
            |a, b, c| ternary(Ternary::Fma, Type::F32, false, false, false, bits(a), bits(b), bits(c)).map(f32_of);
        assert_eq!(fma(1.0 + f32::EPSILON, 1.0 - f32::EPSILON, -1.0), Some(-(f32::EPSILON * f32::EPSILON)));
    }

    #[test]
    fn integers_follow_their_type() {
        let int = |op, ty, a: i64, b: i64| integer(op, ty, a as u64, b as u64).expect("known");
        assert_eq!(int(Binary::Add, Type::U32, 0xffff_ffff, 1), 0);
        assert_eq!(int(Binary::MulHi, Type::U32, 0x8000_0000, 6), 3);
        assert_eq!(int(Binary::MulHi, Type::S32, -5, 1), 0xffff_ffff);
        assert_eq!(int(Binary::MulWide, Type::S32, -2, 3), (-6i64) as u64);
        assert_eq!(int(Binary::MulWide, Type::U32, 0xffff_ffff, 0xffff_ffff), 0xffff_fffe_0000_0001);
        assert_eq!(int(Binary::Shr, Type::S32, -8, 1), 0xffff_fffc);
        assert_eq!(int(Binary::Shr, Type::S32, -8, 99), 0xffff_ffff);
        assert_eq!(int(Binary::Shr, Type::U32, 0x8000_0000, 31), 1);
        assert_eq!(int(Binary::Shl, Type::B32, 1, 32), 0);
        assert_eq!(int(Binary::Shl, Type::B64, 1, 63), 1 << 63);
        assert_eq!(int(Binary::Div, Type::S32, -7, 2), (-3i64) as u64 & 0xffff_ffff);
        assert_eq!(int(Binary::Rem, Type::U32, 7, 4), 3);
        assert_eq!(int(Binary::Min, Type::S32, -1, 1), 0xffff_ffff);
        assert_eq!(int(Binary::Min, Type::U32, 0xffff_ffff, 1), 1);
    }

    #[test]
    fn bits_move_as_the_manual_says() {
        let three = |op, a, b, c| ternary(op, Type::B32, false, false, false, a, b, c).expect("known");
        assert_eq!(three(Ternary::Prmt, 0x3322_1100, 0x7766_5544, 0x6420), 0x6644_2200);
        assert_eq!(three(Ternary::Prmt, 0x0000_8000, 0, 0x9999), 0xffff_ffff);
        assert_eq!(three(Ternary::ShfLeft { clamp: false }, 0x8000_0000, 1, 4), 0x18);
        assert_eq!(three(Ternary::ShfRight { clamp: false }, 0x10, 1, 4), 0x1000_0001);
        assert_eq!(three(Ternary::ShfRight { clamp: true }, 0x10, 7, 99), 7);
        assert_eq!(three(Ternary::Lop3(0x96), 0b1100, 0b1010, 0b1001), 0b1111);
        assert_eq!(three(Ternary::Lop3(0xc0), 0xff, 0x0f, 0), 0x0f);
        let field = |ty, a, position, length| ternary(Ternary::Bfe, ty, false, false, false, a, position, length);
        assert_eq!(field(Type::U32, 0xabcd, 4, 8), Some(0xbc));
        assert_eq!(field(Type::S32, 0xabcd, 4, 8), Some(0xffff_ffbc));
        assert_eq!(unary(Unary::Bfind, Type::U32, false, 0x100), Some(8));
        assert_eq!(unary(Unary::Clz, Type::B32, false, 1), Some(31));
        assert_eq!(unary(Unary::Brev, Type::B32, false, 1), Some(0x8000_0000));
    }

    #[test]
    fn conversions_round_and_saturate() {
        let to = |to, from, rounding, bits| {
            let integral = false;
            convert(Conversion { to, from, rounding, integral, saturate: false, ftz: false, relu: false }, bits)
        };
        let float = |value: f32| u64::from(value.to_bits());
        assert_eq!(to(Type::S32, Type::F32, Some(Rounding::Zero), float(-2.7)), Some(0xffff_fffe));
        assert_eq!(to(Type::S32, Type::F32, Some(Rounding::Nearest), float(2.5)), Some(2));
        assert_eq!(to(Type::S32, Type::F32, Some(Rounding::Zero), float(3e10)), Some(0x7fff_ffff));
        assert_eq!(to(Type::U32, Type::F32, Some(Rounding::Zero), float(-3.0)), Some(0));
        assert_eq!(to(Type::F32, Type::U32, Some(Rounding::Nearest), 0xffff_ffff), Some(float(4_294_967_296.0)));
        assert_eq!(to(Type::F32, Type::U32, Some(Rounding::Zero), 0xffff_ffff), Some(float(4_294_967_040.0)));
        assert_eq!(to(Type::F32, Type::Bf16, None, 0x3f80), Some(float(1.0)));
        assert_eq!(to(Type::Bf16, Type::F32, Some(Rounding::Nearest), float(1.0 + 1.0 / 256.0)), Some(0x3f80));
        assert_eq!(to(Type::Tf32, Type::F32, Some(Rounding::NearestAway), 0x3f80_1000), Some(0x3f80_2000));
        assert_eq!(to(Type::S64, Type::S32, None, 0xffff_ffff), Some(u64::MAX));
        assert_eq!(to(Type::U64, Type::U32, None, 0xffff_ffff), Some(0xffff_ffff));
        assert_eq!(convert_pair(Type::Bf16x2, false, float(2.0), float(1.0)), 0x4000_3f80);
    }

    #[test]
    fn comparisons_know_what_is_no_number() {
        let (nan, one) = (u64::from(f32::NAN.to_bits()), u64::from(1f32.to_bits()));
        let holds = |c, a, b| compare(c, Type::F32, a, b).expect("known");
        assert!(!holds(Compare::Lt, nan, one) && holds(Compare::Ltu, nan, one) && !holds(Compare::Ne, nan, one));
        assert!(holds(Compare::Neu, nan, one) && holds(Compare::Nan, nan, one) && holds(Compare::Num, one, one));
        assert_eq!(compare(Compare::Lt, Type::S32, 0xffff_ffff, 0), Some(true));
        assert_eq!(compare(Compare::Lt, Type::U32, 0xffff_ffff, 0), Some(false));
    }
}
