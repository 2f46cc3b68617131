//! Element types of files, and their conversion to f32 and f64.

use half::{bf16, f16};

/// A number type that converts to f32 (samples) and f64 (times).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementType {
    F16,
    Bf16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
}

/// A number type and its byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub number: ElementType,
    pub big_endian: bool,
}

/// The reason why an array's element type cannot be read, as the two halves of an error message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub problem: String,
    pub fix: &'static str,
}

impl Element {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self.number {
            ElementType::I8 | ElementType::U8 => 1,
            ElementType::F16 | ElementType::Bf16 | ElementType::I16 | ElementType::U16 => 2,
            ElementType::F32 | ElementType::I32 | ElementType::U32 => 4,
            ElementType::F64 | ElementType::I64 | ElementType::U64 => 8,
        }
    }

    /// True if f32 holds every value of the type.
    pub fn fits_f32(self) -> bool {
        use ElementType::{Bf16, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
        match self.number {
            F16 | Bf16 | F32 | I8 | I16 | U8 | U16 => true,
            F64 | I32 | I64 | U32 | U64 => false,
        }
    }

    /// Distance of 1 to the next larger number of the type; 0 for integers, which are exact.
    pub fn epsilon(self) -> f64 {
        match self.number {
            ElementType::F16 => f16::EPSILON.to_f64(),
            ElementType::Bf16 => bf16::EPSILON.to_f64(),
            ElementType::F32 => f64::from(f32::EPSILON),
            ElementType::F64 => f64::EPSILON,
            _ => 0.0,
        }
    }
}

/// One decoder per target type, so that every value is rounded once, from its own type.
macro_rules! decoder {
    ($(#[$doc:meta])* $name:ident, $target:ty, $from_half:ident) => {
        impl Element {
            $(#[$doc])*
            pub fn $name(self, bytes: &[u8], values: &mut [$target]) {
                macro_rules! decode {
                    ($source:ty, $convert:expr) => {{
                        let (raw, _) = bytes.as_chunks::<{ size_of::<$source>() }>();
                        let from_bytes =
                            if self.big_endian { <$source>::from_be_bytes } else { <$source>::from_le_bytes };
                        for (value, raw) in values.iter_mut().zip(raw) {
                            *value = $convert(from_bytes(*raw));
                        }
                    }};
                    ($source:ty) => {
                        decode!($source, |x| x as $target)
                    };
                }
                match self.number {
                    ElementType::F16 => decode!(f16, f16::$from_half),
                    ElementType::Bf16 => decode!(bf16, bf16::$from_half),
                    ElementType::F32 => decode!(f32),
                    ElementType::F64 => decode!(f64),
                    ElementType::I8 => decode!(i8),
                    ElementType::I16 => decode!(i16),
                    ElementType::I32 => decode!(i32),
                    ElementType::I64 => decode!(i64),
                    ElementType::U8 => decode!(u8),
                    ElementType::U16 => decode!(u16),
                    ElementType::U32 => decode!(u32),
                    ElementType::U64 => decode!(u64),
                }
            }
        }
    };
}

decoder! {
    /// Converts whole elements of `bytes` to the nearest f32; too large ones become infinite.
    decode_f32, f32, to_f32
}
decoder! {
    /// Converts whole elements of `bytes` to the nearest f64.
    decode_f64, f64, to_f64
}
