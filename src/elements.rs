//! Numbers as files store them: element type, byte order, and the way to f32 and f64.

use std::io::Read;

use half::{bf16, f16};

/// Type of the elements of a stored array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
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

impl ElementType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            ElementType::I8 | ElementType::U8 => 1,
            ElementType::F16 | ElementType::Bf16 | ElementType::I16 | ElementType::U16 => 2,
            ElementType::F32 | ElementType::I32 | ElementType::U32 => 4,
            ElementType::F64 | ElementType::I64 | ElementType::U64 => 8,
        }
    }

    /// Reads `n` elements and hands each to `sink` as f64. Memory does not grow with `n`.
    pub fn decode(
        self,
        reader: &mut dyn Read,
        n: usize,
        big_endian: bool,
        mut sink: impl FnMut(f64),
    ) -> std::io::Result<()> {
        const BLOCK: usize = 1 << 16;
        let size = self.size();
        let mut block = vec![0; BLOCK];
        let mut left = n;
        while left > 0 {
            let take = left.min(BLOCK / size);
            let bytes = &mut block[..take * size];
            reader.read_exact(bytes)?;
            if big_endian {
                bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
            }
            macro_rules! each {
                ($ty:ty, $to_f64:expr) => {
                    for element in bytes.chunks_exact(size_of::<$ty>()) {
                        let mut raw = [0; size_of::<$ty>()];
                        raw.copy_from_slice(element);
                        sink($to_f64(<$ty>::from_le_bytes(raw)));
                    }
                };
            }
            match self {
                ElementType::F16 => each!(f16, f16::to_f64),
                ElementType::Bf16 => each!(bf16, bf16::to_f64),
                ElementType::F32 => each!(f32, f64::from),
                ElementType::F64 => each!(f64, |x| x),
                ElementType::I8 => each!(i8, f64::from),
                ElementType::I16 => each!(i16, f64::from),
                ElementType::I32 => each!(i32, f64::from),
                ElementType::I64 => each!(i64, |x| x as f64),
                ElementType::U8 => each!(u8, f64::from),
                ElementType::U16 => each!(u16, f64::from),
                ElementType::U32 => each!(u32, f64::from),
                ElementType::U64 => each!(u64, |x| x as f64),
            }
            left -= take;
        }
        Ok(())
    }
}
