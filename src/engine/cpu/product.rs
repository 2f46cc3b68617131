//! The register-blocked product of a tile with a weight matrix, with an elementwise epilogue fused
//! into its last step.
//!
//! `out[row, lane] = epilogue(start[lane] + Σₖ a[row, k] · weight[k, lane])`: values of `a` are
//! broadcast, lanes of the packed weights loaded. Used by all four sweeps: primal and tangent with
//! W, reverse and adjoint with Wᵀ.

use pulp::{Simd, WithSimd};

use super::lanes::Lanes;
use super::panel::{Tile, panel_width, prefetch};

/// Rows of the register block: 6 rows × 2 vectors leave 4 of 16 registers for operands.
pub const REGISTER_ROWS: usize = 6;

/// Inner length after which a product spills its sums: 256 × 64 bytes of packed weights are half of
/// a 32 KiB cache.
const INNER_LENGTH: usize = 256;

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

/// One product, as described at the top of the module. It is safe to run: the caller of
/// [`Product::new`] guarantees what that takes.
pub struct Product<E> {
    a: *const f32,
    a_stride: usize,
    weight: *const f32,
    start: *const f32,
    inner: usize,
    n_panels: usize,
    n_rows: usize,
    out_stride: usize,
    parked: *mut f32,
    epilogue: E,
    /// Lanes of the panels of all operands.
    width: usize,
}

/// The packed weights of a product, and the start of its sums.
#[derive(Clone, Copy)]
pub struct Operand {
    /// Packed weights `[n_panels][inner][lane]`.
    pub weight: *const f32,
    /// Start of the sums, `[n_panels][lane]`; null for zero.
    pub start: *const f32,
    /// Length of the sums.
    pub inner: usize,
    /// Panels of the result.
    pub n_panels: usize,
}

impl<E: Epilogue> Product<E> {
    /// The product of the first `n_rows` rows of `a`, rounded up to whole register blocks, with
    /// `operand`. `parked` holds the sums of one panel between stretches of the inner dimension: as
    /// many floats as a panel of `a`.
    ///
    /// # Panics
    /// When `a` or `parked` have no such rows, or `a` has fewer columns than the sums are long.
    ///
    /// # Safety
    /// Until the product has run,
    /// - `operand` points at as many floats as it says, in panels as wide as those of `a`, and
    ///   nothing writes them;
    /// - `a` and every tile of `epilogue` are alive; those have the rows and panel width of `a` and
    ///   `n_panels` panels; nothing else touches what `epilogue` writes, nor `parked`, and it
    ///   writes nothing of `a`.
    pub unsafe fn new(a: &Tile, n_rows: usize, operand: Operand, parked: *mut [f32], epilogue: E) -> Self {
        let Operand { weight, start, inner, n_panels } = operand;
        let n_rows = n_rows.next_multiple_of(REGISTER_ROWS);
        let (width, stride) = (a.width(), a.stride());
        assert!(n_rows <= a.capacity() && inner <= a.n_panels() * width, "a tile without these rows or columns");
        assert!(n_rows * width <= parked.len(), "too little space for sums");
        let parked = parked.cast();
        Product {
            a: a.as_ptr(),
            a_stride: stride,
            weight,
            start,
            inner,
            n_panels,
            n_rows,
            out_stride: stride,
            parked,
            epilogue,
            width,
        }
    }
}

impl<E: Epilogue> WithSimd for Product<E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = panel_width::<S>();
        assert_eq!(width, self.width, "panels of another instruction set");
        for panel in 0..self.n_panels {
            let mut done = 0;
            loop {
                let length = INNER_LENGTH.min(self.inner - done);
                let last = done + length == self.inner;
                for row in (0..self.n_rows).step_by(REGISTER_ROWS) {
                    // SAFETY: `row < n_rows`, `panel < n_panels` and `done <= inner`, all in
                    // bounds: checked in `new` or guaranteed by its caller.
                    unsafe {
                        let out = panel * self.out_stride + row * width;
                        if last {
                            for i in 0..REGISTER_ROWS {
                                self.epilogue.prefetch(out + i * width);
                            }
                        }
                        let parked = self.parked.add(row * width);
                        let mut sums = [[simd.splat_f32s(0.0); 2]; REGISTER_ROWS];
                        if done > 0 {
                            for (i, sum) in sums.iter_mut().enumerate() {
                                *sum = load_pair::<S>(parked.add(i * width));
                            }
                        } else if !self.start.is_null() {
                            sums = [load_pair::<S>(self.start.add(panel * width)); REGISTER_ROWS];
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
/// `a` points at row 0 of [`REGISTER_ROWS`] rows in a panel tile with `stride` floats between
/// panels and at least `length` columns from there on. `weight` points at `length` packed rows.
#[inline(always)]
unsafe fn accumulate<S: Simd>(
    simd: S,
    a: *const f32,
    stride: usize,
    weight: *const f32,
    length: usize,
    sums: &mut [[S::f32s; 2]; REGISTER_ROWS],
) {
    let width = panel_width::<S>();
    let mut weight = weight;
    let mut panel = a;
    let mut left = length;
    // SAFETY: caller guarantees `length` columns of `a` and rows of `weight`.
    unsafe {
        while left >= width {
            // The next register block reads the same panels, further down.
            for line in 0..REGISTER_ROWS {
                prefetch(panel.wrapping_add((REGISTER_ROWS + line) * width));
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
unsafe fn step<S: Simd>(simd: S, a: *const f32, weight: *const f32, sums: &mut [[S::f32s; 2]; REGISTER_ROWS]) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::batch::Onto;
    use crate::engine::cpu::epilogue::Plain;
    use crate::engine::cpu::narrow::{NarrowOperand, NarrowProduct};
    use crate::engine::cpu::weight_grad::{Channel, WeightGrad, WeightSum};
    use pulp::Scalar;

    const WIDTH: usize = 2 * Scalar::F32_LANES;

    /// Small whole numbers, all different nearby: products and their sums are exact.
    fn tile(n_rows: usize, columns: usize, seed: usize) -> Tile {
        let mut tile = Tile::zeros(n_rows.next_multiple_of(REGISTER_ROWS), columns, WIDTH);
        for row in 0..n_rows {
            (0..columns)
                .for_each(|column| *tile.at_mut(row, column) = ((row * 7 + column * 3 + seed) % 11) as f32 - 5.0);
        }
        tile
    }

    /// The weights `[columns][inner]` of a layer, as both products take them:
    /// `[panel][inner][lane]`.
    fn packed(columns: usize, inner: usize) -> Vec<f32> {
        let mut packed = vec![0.0; columns.next_multiple_of(WIDTH) * inner];
        for column in 0..columns {
            for k in 0..inner {
                packed[(column / WIDTH * inner + k) * WIDTH + column % WIDTH] = weight(column, k);
            }
        }
        packed
    }

    fn weight(column: usize, k: usize) -> f32 {
        ((column * 5 + k) % 7) as f32 - 3.0
    }

    #[test]
    fn products_are_those_of_plain_loops() {
        // Sums longer than a stretch of the inner dimension are parked; partial panels and register
        // blocks are there too.
        let long = if cfg!(miri) { INNER_LENGTH + 3 } else { 2 * INNER_LENGTH + 3 };
        for (n_rows, inner, columns) in [(1, 1, 1_usize), (5, 3, 5), (7, long, 3)] {
            let a = tile(n_rows, inner, 1);
            let (n_panels, mut parked) = (columns.div_ceil(WIDTH), vec![f32::NAN; a.stride()]);
            let (weights, start) = (packed(columns, inner), vec![0.5; n_panels * WIDTH]);
            let mut out = tile(n_rows, columns, 2);
            let epilogue = Plain { out: out.as_mut_ptr() };
            let operand = Operand { weight: weights.as_ptr(), start: start.as_ptr(), inner, n_panels };
            // SAFETY: all have the sizes that `operand` states; `out` is another tile, with the
            // rows of `a`.
            let product = unsafe { Product::new(&a, n_rows, operand, &mut parked[..], epilogue) };
            Scalar::new().vectorize(product);
            for (row, column) in (0..n_rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let sum: f32 = (0..inner).map(|k| a.at(row, k) * weight(column, k)).sum();
                assert_eq!(out.at(row, column), 0.5 + sum, "{row}, {column} of {n_rows} × {inner} × {columns}");
            }
        }
    }

    #[test]
    fn narrow_products_are_those_of_plain_loops() {
        let (n_rows, inner, n_columns) = (7, 9, 2);
        let a = tile(n_rows, inner, 1);
        // `[panel][column][lane]`: lanes along the sums.
        let n_panels = inner.div_ceil(WIDTH);
        let mut weights = vec![0.0; n_panels * n_columns * WIDTH];
        for (column, k) in (0..n_columns).flat_map(|column| (0..inner).map(move |k| (column, k))) {
            weights[(k / WIDTH * n_columns + column) * WIDTH + k % WIDTH] = weight(column, k);
        }
        let mut out = tile(n_rows, n_columns, 2);
        let operand = NarrowOperand { weight: weights.as_ptr(), start: [0.5, -0.5].as_ptr(), n_panels, n_columns };
        // SAFETY: all have the sizes that `operand` states; `out` is another tile, with the rows of
        // `a`.
        let product = unsafe { NarrowProduct::new(&a, n_rows, operand, out.as_mut_ptr()) };
        Scalar::new().vectorize(product);
        for (row, column) in (0..n_rows).flat_map(|row| (0..n_columns).map(move |column| (row, column))) {
            let sum: f32 = (0..inner).map(|k| a.at(row, k) * weight(column, k)).sum();
            assert_eq!(out.at(row, column), [0.5, -0.5][column] + sum, "{row}, {column}");
        }
    }

    #[test]
    fn weight_gradients_are_those_of_plain_loops() {
        let (n_rows, n_broadcast, columns) = (7, 2 * REGISTER_ROWS + 3, 5);
        let (broadcast, lanes) = (tile(n_rows, n_broadcast, 1), tile(n_rows, columns, 2));
        let n_panels = columns.div_ceil(WIDTH);
        let mut sums = vec![1.0; n_panels * n_broadcast * WIDTH];
        for onto in [Onto::Nothing, Onto::Sum] {
            let channel = |_| Channel { broadcast: &broadcast, lanes: &lanes };
            let sum = WeightSum { n_broadcast, panels: 0..n_panels, values: sums.as_mut_ptr(), onto };
            // SAFETY: `sums` has that many panels.
            Scalar::new().vectorize(unsafe { WeightGrad::new(1, channel, n_rows, sum) });
        }
        for (i, column) in (0..n_broadcast).flat_map(|i| (0..columns).map(move |column| (i, column))) {
            let sum: f32 = (0..n_rows).map(|row| broadcast.at(row, i) * lanes.at(row, column)).sum();
            let found = sums[(column / WIDTH * n_broadcast + i) * WIDTH + column % WIDTH];
            assert_eq!(found, 2.0 * sum, "{i}, {column}");
        }
    }

    fn product_of(n_rows: usize, inner: usize, n_parked: usize) -> Product<Plain> {
        let (a, mut parked) = (tile(REGISTER_ROWS, 4, 1), vec![0.0; n_parked]);
        let operand = Operand { weight: std::ptr::null(), start: std::ptr::null(), inner, n_panels: 0 };
        // SAFETY: there are no panels to form, so nothing is read or written.
        unsafe { Product::new(&a, n_rows, operand, &mut parked[..], Plain { out: std::ptr::null_mut() }) }
    }

    #[test]
    #[should_panic(expected = "a tile without these rows or columns")]
    fn a_product_of_more_rows_than_its_tile_is_refused() {
        product_of(REGISTER_ROWS + 1, 4, 2 * REGISTER_ROWS * WIDTH);
    }

    #[test]
    #[should_panic(expected = "a tile without these rows or columns")]
    fn a_product_of_longer_sums_than_its_tile_is_refused() {
        product_of(REGISTER_ROWS, 4 + WIDTH, REGISTER_ROWS * WIDTH);
    }

    #[test]
    #[should_panic(expected = "too little space for sums")]
    fn a_product_without_space_for_its_sums_is_refused() {
        product_of(REGISTER_ROWS, 4, REGISTER_ROWS * WIDTH - 1);
    }

    #[test]
    #[should_panic(expected = "panels of another instruction set")]
    fn a_product_runs_on_the_instruction_set_of_its_panels() {
        pulp::Scalar128b.vectorize(product_of(REGISTER_ROWS, 4, REGISTER_ROWS * WIDTH));
    }
}
