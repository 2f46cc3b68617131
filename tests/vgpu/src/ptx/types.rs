//! Types of PTX values (PTX ISA, "Fundamental Types").

/// A type suffix of an instruction or a declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32,
    F64,
    Tf32,
    Pred,
}

impl Type {
    /// The type that `name` names, without its dot.
    pub fn parse(name: &str) -> Option<Type> {
        Some(match name {
            "b8" => Type::B8,
            "b16" => Type::B16,
            "b32" => Type::B32,
            "b64" => Type::B64,
            "b128" => Type::B128,
            "u8" => Type::U8,
            "u16" => Type::U16,
            "u32" => Type::U32,
            "u64" => Type::U64,
            "s8" => Type::S8,
            "s16" => Type::S16,
            "s32" => Type::S32,
            "s64" => Type::S64,
            "f16" => Type::F16,
            "f16x2" => Type::F16x2,
            "bf16" => Type::Bf16,
            "bf16x2" => Type::Bf16x2,
            "f32" => Type::F32,
            "f64" => Type::F64,
            "tf32" => Type::Tf32,
            "pred" => Type::Pred,
            _ => return None,
        })
    }

    /// Bytes in memory.
    #[inline(always)]
    pub fn bytes(self) -> usize {
        match self {
            Type::B8 | Type::U8 | Type::S8 | Type::Pred => 1,
            Type::B16 | Type::U16 | Type::S16 | Type::F16 | Type::Bf16 => 2,
            Type::B32 | Type::U32 | Type::S32 | Type::F16x2 | Type::Bf16x2 | Type::F32 | Type::Tf32 => 4,
            Type::B64 | Type::U64 | Type::S64 | Type::F64 => 8,
            Type::B128 => 16,
        }
    }

    /// True for signed integers.
    #[inline(always)]
    pub fn is_signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64)
    }

    /// True for one or two floating-point numbers.
    #[inline(always)]
    pub fn is_float(self) -> bool {
        matches!(self, Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 | Type::F32 | Type::F64 | Type::Tf32)
    }

    /// `bits` truncated to the width of the type.
    #[inline(always)]
    pub fn truncate(self, bits: u64) -> u64 {
        match self.bytes() {
            1 => bits & 0xff,
            2 => bits & 0xffff,
            4 => bits & 0xffff_ffff,
            _ => bits,
        }
    }

    /// `bits` extended to 64 bits, by sign or by zeros.
    #[inline(always)]
    pub fn extend(self, bits: u64) -> i64 {
        match (self.bytes(), self.is_signed()) {
            (1, true) => i64::from(bits as i8),
            (2, true) => i64::from(bits as i16),
            (4, true) => i64::from(bits as i32),
            _ => self.truncate(bits) as i64,
        }
    }
}

/// Address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Const,
    Param,
}
