//! The register-blocked product of a tile with a weight matrix, with an elementwise epilogue fused
//! into its last step.
//!
//! `out[row, lane] = epilogue(start[lane] + Σₖ a[row, k] · weight[k, lane])`: values of `a` are
//! broadcast, lanes of the packed weights loaded. Used by all four sweeps: primal and tangent with
//! W, reverse and adjoint with Wᵀ.

use pulp::{Simd, WithSimd};

use super::lanes::Lanes;
use super::panel::{panel_width, prefetch};

/// Rows of the register block: 6 rows × 2 vectors leave 4 of 16 registers for operands.
pub const BLOCK_ROWS: usize = 6;

/// Inner length after which a product spills its sums: 256 × 64 bytes of packed weights are half of
/// a 32 KiB cache.
const INNER_BLOCK: usize = 256;

/// Number of vectors that an epilogue handles together: two rows.
pub const GROUP: usize = 4;

/// Elementwise work on finished sums before they are stored.
pub trait Epilogue: Copy {
    /// Prefetches the lines that [`Epilogue::apply`] will access at `offset`.
    fn prefetch(&self, offset: usize);

    /// Consumes [`GROUP`] consecutive vectors of sums. They belong `offset` floats from the start
    /// of each tile involved, and `offset_in_panel` floats from the start of their panel.
    ///
    /// # Safety
    /// `offset..offset + GROUP * S::F32_LANES` lies inside every tile that the epilogue holds.
    unsafe fn apply<S: Simd>(self, offset: usize, offset_in_panel: usize, sums: Lanes<S, GROUP>);
}

/// One product, as described at the top of the module.
pub struct Product<E> {
    /// Tile `a`, panel layout, `inner` columns.
    pub a: *const f32,
    /// Floats between panels of `a`.
    pub a_stride: usize,
    /// Packed weights `[panel][inner][lane]`.
    pub weight: *const f32,
    /// Start of the sums, `[panel][lane]`; null for zero.
    pub start: *const f32,
    /// Length of the sums.
    pub inner: usize,
    /// Panels of the result.
    pub n_panels: usize,
    /// Rows of the tile, a multiple of [`BLOCK_ROWS`].
    pub n_rows: usize,
    /// Floats between panels of the result.
    pub out_stride: usize,
    /// Memory for the spilled sums of one panel, `n_rows · lanes`.
    pub parked: *mut f32,
    /// Work on the finished sums.
    pub epilogue: E,
}

impl<E: Epilogue> WithSimd for Product<E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = panel_width::<S>();
        debug_assert_eq!(self.n_rows % BLOCK_ROWS, 0);
        for panel in 0..self.n_panels {
            let mut done = 0;
            loop {
                let length = INNER_BLOCK.min(self.inner - done);
                let last = done + length == self.inner;
                for row in (0..self.n_rows).step_by(BLOCK_ROWS) {
                    // SAFETY: the fields' sizes, which the caller guarantees, bound `panel`, `row`
                    // and `done`.
                    unsafe {
                        let out = panel * self.out_stride + row * width;
                        if last {
                            for i in 0..BLOCK_ROWS {
                                self.epilogue.prefetch(out + i * width);
                            }
                        }
                        let parked = self.parked.add(row * width);
                        let mut sums = [[simd.splat_f32s(0.0); 2]; BLOCK_ROWS];
                        if done > 0 {
                            for (i, sum) in sums.iter_mut().enumerate() {
                                *sum = load_pair::<S>(parked.add(i * width));
                            }
                        } else if !self.start.is_null() {
                            sums = [load_pair::<S>(self.start.add(panel * width)); BLOCK_ROWS];
                        }
                        accumulate(
                            simd,
                            self.a.add(done / width * self.a_stride + row * width),
                            self.a_stride,
                            self.weight.add((panel * self.inner + done) * width),
                            length,
                            &mut sums,
                        );
                        if last {
                            for (i, pair) in sums.chunks_exact(2).enumerate() {
                                let group = [pair[0][0], pair[0][1], pair[1][0], pair[1][1]];
                                let (shift, group) = (2 * i * width, Lanes::new(simd, group));
                                self.epilogue.apply(out + shift, row * width + shift, group);
                            }
                        } else {
                            for (i, sum) in sums.iter().enumerate() {
                                store::<S>(parked.add(i * width), sum[0]);
                                store::<S>(parked.add(i * width + S::F32_LANES), sum[1]);
                            }
                        }
                    }
                }
                done += length;
                if last {
                    break;
                }
            }
        }
    }
}

/// `sums[i] += Σₖ a[i, k] · weight[k]` over `length` values of k.
///
/// # Safety
/// `a` points at row 0 of a block of [`BLOCK_ROWS`] rows in a panel tile with `stride` floats
/// between panels and at least `length` columns from there on. `weight` points at `length` packed
/// rows.
#[inline(always)]
unsafe fn accumulate<S: Simd>(
    simd: S,
    a: *const f32,
    stride: usize,
    weight: *const f32,
    length: usize,
    sums: &mut [[S::f32s; 2]; BLOCK_ROWS],
) {
    let width = panel_width::<S>();
    let mut weight = weight;
    let mut panel = a;
    let mut left = length;
    // SAFETY: caller guarantees `length` columns of `a` and rows of `weight`.
    unsafe {
        while left >= width {
            // The next block of rows reads the same panels, one block further on.
            for line in 0..BLOCK_ROWS {
                prefetch(panel.add((BLOCK_ROWS + line) * width));
            }
            for k in 0..width {
                step(simd, panel.add(k), weight.add(k * width), sums);
            }
            weight = weight.add(width * width);
            panel = panel.add(stride);
            left -= width;
        }
        for k in 0..left {
            step(simd, panel.add(k), weight.add(k * width), sums);
        }
    }
}

/// `sums[i] += a[i] · weight` for one inner index. This is a function because a closure that is not
/// inlined would not be compiled for the instruction set.
///
/// # Safety
/// As [`accumulate`], with `a` and `weight` at that index.
#[inline(always)]
unsafe fn step<S: Simd>(simd: S, a: *const f32, weight: *const f32, sums: &mut [[S::f32s; 2]; BLOCK_ROWS]) {
    // SAFETY: caller guarantees both.
    unsafe {
        let [low, high] = load_pair::<S>(weight);
        for (i, sum) in sums.iter_mut().enumerate() {
            let value = simd.splat_f32s(*a.add(i * panel_width::<S>()));
            sum[0] = simd.mul_add_f32s(value, low, sum[0]);
            sum[1] = simd.mul_add_f32s(value, high, sum[1]);
        }
    }
}

#[inline(always)]
pub(super) unsafe fn load<S: Simd>(from: *const f32) -> S::f32s {
    // SAFETY: caller guarantees `S::F32_LANES` readable floats; f32 vectors accept every bit
    // pattern.
    unsafe { from.cast::<S::f32s>().read_unaligned() }
}

#[inline(always)]
pub(super) unsafe fn load_pair<S: Simd>(from: *const f32) -> [S::f32s; 2] {
    // SAFETY: as `load`, twice.
    unsafe { [load::<S>(from), load::<S>(from.add(S::F32_LANES))] }
}

/// The group of vectors at `from`.
#[inline(always)]
pub(super) unsafe fn load_group<S: Simd>(like: Lanes<S, GROUP>, from: *const f32) -> Lanes<S, GROUP> {
    let mut group = like;
    for (i, vector) in group.vectors.iter_mut().enumerate() {
        // SAFETY: caller guarantees `GROUP` readable vectors.
        *vector = unsafe { load::<S>(from.add(i * S::F32_LANES)) };
    }
    group
}

/// Stores the group of vectors at `to`.
#[inline(always)]
pub(super) unsafe fn store_group<S: Simd>(to: *mut f32, group: Lanes<S, GROUP>) {
    for (i, vector) in group.vectors.into_iter().enumerate() {
        // SAFETY: caller guarantees `GROUP` writable vectors.
        unsafe { store::<S>(to.add(i * S::F32_LANES), vector) };
    }
}

#[inline(always)]
pub(super) unsafe fn store<S: Simd>(to: *mut f32, value: S::f32s) {
    // SAFETY: caller guarantees `S::F32_LANES` writable floats.
    unsafe { to.cast::<S::f32s>().write_unaligned(value) }
}
