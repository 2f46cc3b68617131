//! The lane that holds each element of a matrix (PTX ISA, "Matrix Fragments for mma.m16n8k4, k8,
//! k16" and "ldmatrix").

use half::f16;

use crate::arithmetic::f32_of;
use crate::lanes::{LANES, Lanes, vectorized};
use crate::ptx::MatrixProduct;

/// Inner dimension, and elements per register of an operand.
#[inline(always)]
fn shape(product: MatrixProduct) -> (usize, usize) {
    match product {
        MatrixProduct::F16 | MatrixProduct::Bf16 => (16, 2),
        MatrixProduct::F16K8 | MatrixProduct::Bf16K8 => (8, 2),
        MatrixProduct::Tf32 => (8, 1),
        MatrixProduct::Tf32K4 => (4, 1),
    }
}

/// Row and column in A (16 × k) of element `i` of register `register` in `lane`.
#[inline(always)]
pub fn a_element(product: MatrixProduct, lane: usize, register: usize, i: usize) -> (usize, usize) {
    let (_, per_register) = shape(product);
    // Registers alternate: the upper eight rows, the lower eight, then the next columns.
    let columns = 4 * per_register;
    (lane / 4 + 8 * (register % 2), lane % 4 * per_register + i + columns * (register / 2))
}

/// Row and column in B (k × 8).
#[inline(always)]
pub fn b_element(product: MatrixProduct, lane: usize, register: usize, i: usize) -> (usize, usize) {
    let (_, per_register) = shape(product);
    (lane % 4 * per_register + i + 4 * per_register * register, lane / 4)
}

/// Row and column in C and D (16 × 8).
pub fn c_element(lane: usize, register: usize) -> (usize, usize) {
    (lane / 4 + 8 * (register / 2), lane % 4 * 2 + register % 2)
}

#[inline(always)]
fn value(product: MatrixProduct, bits: u64, i: usize) -> f64 {
    let half = (bits >> (16 * i)) as u16;
    match product {
        MatrixProduct::F16 | MatrixProduct::F16K8 => f64::from(f16::from_bits(half).to_f32()),
        MatrixProduct::Bf16 | MatrixProduct::Bf16K8 => f64::from(f32::from_bits(u32::from(half) << 16)),
        // The unit reads the upper 19 bits.
        MatrixProduct::Tf32 | MatrixProduct::Tf32K4 => f64::from(f32_of(bits & 0xffff_e000)),
    }
}

/// D = A B + C in the shape of `product`. A, B and C have at most `K` inner elements.
#[inline(always)]
fn multiply_in<const K: usize>(product: MatrixProduct, a: &[&Lanes], b: &[&Lanes], c: &[&Lanes; 4]) -> [Lanes; 4] {
    let (_, per_register) = shape(product);
    let (mut left, mut right) = ([[0.0; K]; 16], [[0.0; 8]; K]);
    for (register, values) in a.iter().enumerate() {
        for lane in 0..LANES {
            for i in 0..per_register {
                let (row, column) = a_element(product, lane, register, i);
                left[row][column] = value(product, values[lane], i);
            }
        }
    }
    for (register, values) in b.iter().enumerate() {
        for lane in 0..LANES {
            for i in 0..per_register {
                let (row, column) = b_element(product, lane, register, i);
                right[row][column] = value(product, values[lane], i);
            }
        }
    }
    let mut d = [[0; LANES]; 4];
    for (row, elements) in left.iter().enumerate() {
        let mut sums = [0.0; 8];
        for inner in 0..K {
            for column in 0..8 {
                // The product is exact in f64.
                sums[column] += elements[inner] * right[inner][column];
            }
        }
        for (column, sum) in sums.into_iter().enumerate() {
            let (register, lane) = (row / 8 * 2 + column % 2, row % 8 * 4 + column / 2);
            d[register][lane] = u64::from(((sum + f64::from(f32_of(c[register][lane]))) as f32).to_bits());
        }
    }
    d
}

vectorized! {
    /// D = A B + C. Products are exact, and their sum with C is rounded once; hardware may be
    /// slightly less accurate.
    pub fn multiply(product: MatrixProduct, a: &[&Lanes], b: &[&Lanes], c: &[&Lanes; 4]) -> [Lanes; 4] {
        use MatrixProduct::*;
        match product {
            F16 => multiply_in::<16>(F16, a, b, c),
            Bf16 => multiply_in::<16>(Bf16, a, b, c),
            F16K8 => multiply_in::<8>(F16K8, a, b, c),
            Bf16K8 => multiply_in::<8>(Bf16K8, a, b, c),
            Tf32 => multiply_in::<8>(Tf32, a, b, c),
            Tf32K4 => multiply_in::<4>(Tf32K4, a, b, c),
        }
    }
}

/// Rows and inner dimension of a product of a warpgroup, m64nNk16.
pub const WARPGROUP_ROWS: usize = 64;
pub const WARPGROUP_DEPTH: usize = 16;

/// The left operand of a warpgroup, row by row, from the four registers of each warp. Warp w holds
/// rows 16w to 16w + 15, as for m16n8k16.
pub fn warpgroup_rows(warps: &[[Lanes; 4]]) -> Vec<u16> {
    let mut rows = vec![0; WARPGROUP_ROWS * WARPGROUP_DEPTH];
    for (warp, registers) in warps.iter().enumerate() {
        for (register, values) in registers.iter().enumerate() {
            for (lane, value) in values.iter().enumerate() {
                for i in 0..2 {
                    let (row, column) = a_element(MatrixProduct::Bf16, lane, register, i);
                    rows[(16 * warp + row) * WARPGROUP_DEPTH + column] = (value >> (16 * i)) as u16;
                }
            }
        }
    }
    rows
}

/// Rows of the left operand that one warp holds.
pub const WARP_ROWS: usize = 16;
/// Columns of the right operand that four registers of D cover.
pub const TILE_COLUMNS: usize = 8;

/// Values of the left operand of a warp, by row; and of eight columns of the right one, by inner
/// index.
pub type LeftTile = [[f64; WARPGROUP_DEPTH]; WARP_ROWS];
pub type RightTile = [[f64; TILE_COLUMNS]; WARPGROUP_DEPTH];

/// The value of 16 bits: bf16, or f16 without a branch, so that a loop over it is vectorized.
#[inline(always)]
fn half_value(bf16: bool, bits: u16) -> f64 {
    if bf16 {
        return f64::from(f32::from_bits(u32::from(bits) << 16));
    }
    let (sign, rest) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff) << 13);
    // As an f32 its exponent is too small by 112, also that of a subnormal number; that of infinity
    // and NaN is the largest of either format.
    let scaled = f32::from_bits(rest) * f32::from_bits((112 + 127) << 23);
    let special = if rest >= 0x0f80_0000 { 0x7f80_0000 } else { 0 };
    f64::from(f32::from_bits(scaled.to_bits() | special | sign))
}

vectorized! {
    /// The left operand of each warp: `rows` of 16 elements, negated if so.
    pub fn left_tiles(bf16: bool, negated: bool, rows: &[u16]) -> Vec<LeftTile> {
        let sign = if negated { -1.0 } else { 1.0 };
        let (rows, _) = rows.as_chunks::<WARPGROUP_DEPTH>();
        let (warps, _) = rows.as_chunks::<WARP_ROWS>();
        warps.iter().map(|rows| rows.map(|row| row.map(|element| sign * half_value(bf16, element)))).collect()
    }
}

vectorized! {
    /// The right operand in parts of eight columns of 16 elements.
    pub fn right_tiles(bf16: bool, columns: &[u16]) -> Vec<RightTile> {
        let (columns, _) = columns.as_chunks::<WARPGROUP_DEPTH>();
        let (parts, _) = columns.as_chunks::<TILE_COLUMNS>();
        let tile = |part: &[[u16; WARPGROUP_DEPTH]; TILE_COLUMNS]| {
            std::array::from_fn(|k| std::array::from_fn(|column| half_value(bf16, part[column][k])))
        };
        parts.iter().map(tile).collect()
    }
}

vectorized! {
    /// Four registers of D of a warp, whose former content is added unless it is `None`. Products
    /// are exact, their sum begins with the first, and its sum with D is rounded once.
    pub fn multiply_tiles(left: &LeftTile, right: &RightTile, before: Option<[&Lanes; 4]>) -> [Lanes; 4] {
        /// Rows whose sums fit the registers of a processor.
        const AT_ONCE: usize = 4;
        let mut d = [[0; LANES]; 4];
        for first in (0..WARP_ROWS).step_by(AT_ONCE) {
            let mut sums = [[0.0f64; TILE_COLUMNS]; AT_ONCE];
            for k in 0..WARPGROUP_DEPTH {
                for row in 0..AT_ONCE {
                    for column in 0..TILE_COLUMNS {
                        // The product is exact, so this is the same as a product and a sum.
                        sums[row][column] = left[first + row][k].mul_add(right[k][column], sums[row][column]);
                    }
                }
            }
            for (row, sums) in (first..).zip(sums) {
                for (column, sum) in sums.into_iter().enumerate() {
                    let (register, lane) = (row / 8 * 2 + column % 2, row % 8 * 4 + column / 2);
                    let before = before.map_or(0.0, |before| f64::from(f32_of(before[register][lane])));
                    d[register][lane] = u64::from(((sum + before) as f32).to_bits());
                }
            }
        }
        d
    }
}

/// Multiply–adds of one product.
pub fn multiply_adds(product: MatrixProduct) -> u64 {
    (16 * 8 * shape(product).0) as u64
}

/// The register of each lane after `ldmatrix` of one matrix, whose rows hold two halves per word.
pub fn load_matrix(rows: &[[u32; 4]; 8], transposed: bool) -> Lanes {
    let mut fragment = [0; LANES];
    for (lane, register) in fragment.iter_mut().enumerate() {
        let (major, minor) = (lane / 4, lane % 4);
        *register = if transposed {
            let at = |row: usize| u64::from(rows[row][major / 2] >> (16 * (major % 2)) & 0xffff);
            at(2 * minor) | at(2 * minor + 1) << 16
        } else {
            u64::from(rows[major][minor])
        };
    }
    fragment
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// The manual's formulas, written out for each shape: (row, column) of a_i, b_i and c_i, with i
    /// counted over all registers.
    #[test]
    fn layouts_are_the_manuals() {
        for lane in 0..LANES {
            let (group, thread) = (lane >> 2, lane % 4);
            for i in 0..8 {
                let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
                let column = if i < 4 { thread * 2 + (i & 1) } else { thread * 2 + (i & 1) + 8 };
                assert_eq!(a_element(MatrixProduct::Bf16, lane, i / 2, i % 2), (row, column), "m16n8k16 a{i}");
            }
            for i in 0..4 {
                let row = if i < 2 { thread * 2 + (i & 1) } else { thread * 2 + (i & 1) + 8 };
                assert_eq!(b_element(MatrixProduct::F16, lane, i / 2, i % 2), (row, group), "m16n8k16 b{i}");
                let row = if i < 2 { group } else { group + 8 };
                assert_eq!(c_element(lane, i), (row, thread * 2 + (i & 1)), "c{i}");
                let (row, column) = (if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1));
                assert_eq!(a_element(MatrixProduct::Bf16K8, lane, i / 2, i % 2), (row, column), "m16n8k8 a{i}");
                let row = if i == 0 || i == 2 { group } else { group + 8 };
                let column = if i < 2 { thread } else { thread + 4 };
                assert_eq!(a_element(MatrixProduct::Tf32, lane, i, 0), (row, column), "tf32 m16n8k8 a{i}");
            }
            for i in 0..2 {
                assert_eq!(b_element(MatrixProduct::F16K8, lane, 0, i), (thread * 2 + i, group), "m16n8k8 b{i}");
                assert_eq!(b_element(MatrixProduct::Tf32, lane, i, 0), (thread + 4 * i, group), "tf32 m16n8k8 b{i}");
                assert_eq!(a_element(MatrixProduct::Tf32K4, lane, i, 0), (group + 8 * i, thread), "tf32 m16n8k4 a{i}");
            }
            assert_eq!(b_element(MatrixProduct::Tf32K4, lane, 0, 0), (thread, group));
        }
    }

    /// Against a plain product, through the layouts of A, B and C.
    #[test]
    fn products_are_those_of_matrices() {
        let value = |row: usize, column: usize| ((row * 7 + column * 3) % 11) as f32 - 5.0;
        let bits = |product: MatrixProduct, value: f32| match product {
            MatrixProduct::F16 | MatrixProduct::F16K8 => u64::from(f16::from_f32(value).to_bits()),
            MatrixProduct::Bf16 | MatrixProduct::Bf16K8 => u64::from(bf16::from_f32(value).to_bits()),
            _ => u64::from(value.to_bits()),
        };
        for product in [
            MatrixProduct::F16,
            MatrixProduct::Bf16,
            MatrixProduct::F16K8,
            MatrixProduct::Bf16K8,
            MatrixProduct::Tf32,
            MatrixProduct::Tf32K4,
        ] {
            let (k, per_register) = shape(product);
            let fragment = |n: usize, at: &dyn Fn(usize, usize, usize) -> (usize, usize)| -> Vec<Lanes> {
                (0..n)
                    .map(|register| {
                        std::array::from_fn(|lane| {
                            (0..per_register).fold(0, |word, i| {
                                let (row, column) = at(lane, register, i);
                                word | bits(product, value(row, column)) << (16 * i)
                            })
                        })
                    })
                    .collect()
            };
            let a = fragment(16 * k / 32 / per_register, &|lane, register, i| a_element(product, lane, register, i));
            let b = fragment(8 * k / 32 / per_register, &|lane, register, i| b_element(product, lane, register, i));
            let c: Vec<Lanes> = (0..4)
                .map(|register| {
                    std::array::from_fn(|lane| {
                        let (row, column) = c_element(lane, register);
                        u64::from((value(row, column) * 0.5).to_bits())
                    })
                })
                .collect();
            let (a, b): (Vec<&Lanes>, Vec<&Lanes>) = (a.iter().collect(), b.iter().collect());
            let c = std::array::from_fn(|register| &c[register]);
            for (register, lanes) in multiply(product, &a, &b, &c).iter().enumerate() {
                for (lane, &bits) in lanes.iter().enumerate() {
                    let (row, column) = c_element(lane, register);
                    let want: f32 = (0..k).map(|inner| value(row, inner) * value(inner, column)).sum();
                    assert_eq!(f32_of(bits), want + 0.5 * value(row, column), "{product:?} ({row}, {column})");
                }
            }
        }
    }

    #[test]
    fn halves_have_the_values_of_their_type() {
        for bits in 0..=u16::MAX {
            for (got, want) in [
                (half_value(false, bits), f64::from(f16::from_bits(bits).to_f32())),
                (half_value(true, bits), f64::from(bf16::from_bits(bits).to_f32())),
            ] {
                assert!(
                    got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                    "{bits:x}: {got}, not {want}"
                );
            }
        }
    }

    /// Loading the transpose of B's rows gives B's fragment, as the kernels do.
    #[test]
    fn loaded_matrices_are_fragments() {
        let rows: [[u32; 4]; 8] = std::array::from_fn(|row| {
            std::array::from_fn(|pair| (10 * row + 2 * pair + (10 * row + 2 * pair + 1) * 0x10000) as u32)
        });
        for lane in 0..LANES {
            let straight = load_matrix(&rows, false)[lane];
            assert_eq!(
                (straight & 0xffff, straight >> 16),
                (((lane / 4) * 10 + lane % 4 * 2) as u64, ((lane / 4) * 10 + lane % 4 * 2 + 1) as u64)
            );
            let transposed = load_matrix(&rows, true)[lane];
            assert_eq!(transposed & 0xffff, ((lane % 4 * 2) * 10 + lane / 4) as u64);
        }
    }
}
