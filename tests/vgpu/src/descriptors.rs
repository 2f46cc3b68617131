//! Where a matrix lies in shared memory, by its descriptor (PTX ISA, "Asynchronous Warpgroup Level
//! Matrix Shared Memory Layout" and "Matrix Descriptor Format").
//!
//! A matrix consists of pieces of 8 elements, 16 bytes. Eight pieces, 16, 32, 64 or 128 bytes apart
//! (no swizzle, or a swizzle over so many bytes), form a block; the stride offset leads from one
//! block to the next across the rows of pieces, the leading offset along them.

/// The fields of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub start: u32,
    pub leading: u32,
    pub stride: u32,
    /// Bytes of a row of pieces in a block: 16 without a swizzle, else 32, 64 or 128.
    pub row: u32,
    /// By how many rows of 128 bytes the pattern of the swizzle is displaced.
    pub base: u32,
    /// Bits that no field has.
    pub stray: u64,
}

/// The bits of all fields.
const FIELDS: u64 = 0x3fff | 0x3fff << 16 | 0x3fff << 32 | 7 << 49 | 3 << 62;

impl Descriptor {
    pub fn new(bits: u64) -> Descriptor {
        let field = |at: u32| ((bits >> at & 0x3fff) as u32) << 4;
        Descriptor {
            start: field(0),
            leading: field(16),
            stride: field(32),
            row: [16, 128, 64, 32][(bits >> 62) as usize],
            base: (bits >> 49 & 7) as u32,
            stray: bits & !FIELDS,
        }
    }

    /// What is wrong with a descriptor, if something is: a matrix must begin in the first row of
    /// the swizzle's pattern.
    pub fn problem(&self) -> Option<String> {
        if self.stray != 0 {
            return Some(format!("a descriptor with the bits {:#x}, which belong to no field", self.stray));
        }
        let (start, row, pattern) = (self.start, self.row, 8 * self.row);
        let displaced = start & (pattern - 1) & !(row - 1);
        let expected = (self.base << 7) & (pattern - 1);
        (row > 16 && displaced != expected).then(|| {
            format!(
                "misaligned descriptor: {start:#x} lies {displaced} bytes behind a multiple of {pattern}, \
                 the period of a swizzle over {row} bytes, and its base offset says {expected}"
            )
        })
    }

    /// The address of piece `piece` of line `line`. A line is a row of a matrix with contiguous
    /// rows: a row of A or a column of B. Of a transposed one, it is one of its 16 inner indices.
    #[inline]
    pub fn piece(&self, transposed: bool, line: u32, piece: u32) -> u32 {
        let Descriptor { start, leading, stride, row, base, .. } = *self;
        let in_row = row / 16;
        let (block, along) = match (row, transposed) {
            (16, false) => (stride, leading),
            (16, true) => (leading, stride),
            (_, false) => (stride, 16),
            (_, true) => (stride, if piece < in_row { 0 } else { leading }),
        };
        let along = match (row, transposed) {
            (16, _) | (_, false) => piece * along,
            (_, true) => piece % in_row * 16 + piece / in_row * along,
        };
        let address = start + line % 8 * row + line / 8 * block + along;
        address ^ ((address >> 7).wrapping_sub(base) & (in_row - 1)) << 4
    }
}
