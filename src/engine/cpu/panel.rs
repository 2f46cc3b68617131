//! Panel layout: the order of matrices in memory that lets every product read its operands without
//! repacking.
//!
//! A *panel* is two SIMD vectors wide. A tile matrix `[rows, columns]` is stored as
//! `[panel][row][lane]`: the columns of one panel are contiguous, rows follow each other, panels
//! come last. The products of all four sweeps broadcast single values of one operand and load whole
//! lanes of the other. A tile matrix can be either operand, and the result of one product is the
//! operand of the next.

use bytemuck::{Pod, Zeroable};
use pulp::Simd;

/// Lanes of one panel for the instruction set `S`.
#[inline(always)]
pub fn panel_width<S: Simd>() -> usize {
    2 * S::F32_LANES
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct CacheLine([f32; 16]);

/// Zero-initialized f32 storage that starts on a cache line.
pub struct Aligned {
    lines: Vec<CacheLine>,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Aligned { lines: vec![CacheLine([0.0; 16]); len.div_ceil(16)], len }
    }

    /// The values.
    pub fn as_slice(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }

    /// The values, mutable.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

/// A tile matrix in panel layout.
pub struct Tile {
    values: Aligned,
    capacity: usize,
    width: usize,
    /// log₂ of `width`, so that indexing needs no division.
    shift: u32,
}

impl Tile {
    /// Zeros for up to `capacity` rows of `columns` columns, in panels of `width` lanes.
    pub fn zeros(capacity: usize, columns: usize, width: usize) -> Self {
        debug_assert!(width.is_power_of_two());
        let values = Aligned::zeros(columns.div_ceil(width) * capacity * width);
        Tile { values, capacity, width, shift: width.ilog2() }
    }

    /// Lanes of a panel.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Floats from one panel to the next.
    pub fn stride(&self) -> usize {
        self.capacity * self.width
    }

    /// Rows it has space for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Panels of its columns.
    pub fn n_panels(&self) -> usize {
        self.values.len / self.stride().max(1)
    }

    /// First value. Pointers from here and from [`Tile::as_mut_ptr`] stay valid beside each other:
    /// neither makes a reference to the values, so a product may have one tile as operand and
    /// result.
    pub fn as_ptr(&self) -> *const f32 {
        self.values.lines.as_ptr().cast()
    }

    /// First value, mutable.
    pub fn as_mut_ptr(&mut self) -> *mut f32 {
        self.values.lines.as_mut_ptr().cast()
    }

    #[inline(always)]
    fn position(&self, row: usize, column: usize) -> usize {
        (((column >> self.shift) * self.capacity + row) << self.shift) + (column & (self.width - 1))
    }

    /// Value at (`row`, `column`).
    #[inline(always)]
    pub fn at(&self, row: usize, column: usize) -> f32 {
        self.values.as_slice()[self.position(row, column)]
    }

    /// Value at (`row`, `column`), mutable.
    #[inline(always)]
    pub fn at_mut(&mut self, row: usize, column: usize) -> &mut f32 {
        let position = self.position(row, column);
        &mut self.values.as_mut_slice()[position]
    }
}

/// Prefetches the cache line that holds `address`, for a read or write soon.
#[inline(always)]
pub fn prefetch(address: *const f32) {
    // SAFETY: a prefetch never faults, whatever the address.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}
