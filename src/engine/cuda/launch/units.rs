//! Launches of `kernels/units.cu`: points that already lie on the device.

use super::super::abi::{PlaceParams, THREADS, TILE_ROWS, UnitsParams};
use super::super::driver::{Buffer, Device, Kernel};
use super::super::network::Network;
use super::Rows;
use super::checks::check_least;
use crate::error::{Error, Result, check_len};
use crate::precision::Precision;

/// Threads of a warp.
const WARP: usize = 32;

/// Blocks of a change of units at most: enough for every GPU.
const MOST_BLOCKS: usize = 1 << 10;

fn n_blocks(n_elements: usize) -> usize {
    n_elements.div_ceil(THREADS as usize).clamp(1, MOST_BLOCKS)
}

/// Warps that change the units of `n_elements`.
pub fn n_warps(n_elements: usize) -> usize {
    n_blocks(n_elements) * (THREADS as usize / WARP)
}

/// A change of units on the device, `[columns]` each: v becomes (v · factor + offset) / divisor.
pub struct Units {
    /// What values are multiplied by.
    pub factor: Buffer<f64>,
    /// What is then added.
    pub offset: Buffer<f64>,
    /// What the sum is divided by.
    pub divisor: Buffer<f64>,
}

/// Changes the units of rows.
pub struct ChangeUnits<'a> {
    /// Rows of as many columns as `units` has.
    pub from: &'a Buffer<f32>,
    /// Written: as many.
    pub to: &'a Buffer<f32>,
    /// Of each column.
    pub units: &'a Units,
    /// Written, [`n_warps`]: the first element that is not finite, of those of each warp; the
    /// number of elements if all are.
    pub first_not_finite: &'a Buffer<u64>,
}

impl ChangeUnits<'_> {
    /// Launches it.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn launch(&self, device: &Device) -> Result<()> {
        let ChangeUnits { from, to, units, first_not_finite } = *self;
        let (n, n_columns) = (from.len(), units.factor.len());
        check_len("rows in other units", n, to.len())?;
        check_len("offsets of units", n_columns, units.offset.len())?;
        check_len("divisors of units", n_columns, units.divisor.len())?;
        check_len("whole rows", n / n_columns.max(1) * n_columns, n)?;
        check_len("first elements that are not finite", n_warps(n), first_not_finite.len())?;
        let arguments = UnitsParams {
            from: from.address(),
            to: to.address(),
            factor: units.factor.address(),
            offset: units.offset.address(),
            divisor: units.divisor.address(),
            first_not_finite: first_not_finite.address(),
            n_elements: n as u64,
            n_columns: n_columns as u32,
            unused: 0,
        };
        // SAFETY: reads `from` and `units`, writes `to` and `first_not_finite`, whose lengths are
        // checked above; without elements there are no columns to read.
        unsafe { device.launch(Kernel::ChangeUnits, [n_blocks(n) as u32, 1, 1], THREADS, 0, &arguments) }
    }
}

/// Places points, and the time features of their rows, where a sweep reads them.
pub struct PlaceRows<'a> {
    /// Whose rows they are.
    pub network: &'a Network,
    /// Of its operands.
    pub precision: Precision,
    /// Points `[n, dim]`, network coordinates.
    pub points: &'a Buffer<f32>,
    /// The first of them to be placed, and how many.
    pub first: usize,
    /// Rows behind these, which fill the last tile, are zeros.
    pub n_given: usize,
    /// Time features `[rows of whole tiles, features]`.
    pub phi: &'a Buffer<f32>,
    /// Written: `x` and `a_in`.
    pub rows: &'a Rows,
}

impl PlaceRows<'_> {
    /// Launches it.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn launch(&self, device: &Device) -> Result<()> {
        let PlaceRows { network, precision, points, first, n_given, phi, rows } = *self;
        let (dim, n_features) = (network.params.dim as usize, network.params.n_features as usize);
        let n_rows = n_given.next_multiple_of(TILE_ROWS);
        rows.check(network, precision, rows.needs().work)?;
        check_least("points on the device", (first + n_given) * dim, points.len())?;
        check_least("time features", n_rows * n_features, phi.len())?;
        check_least("rows", n_rows, rows.n_rows())?;
        let buffers = rows.params();
        if buffers.x.is_null() || buffers.a_in.is_null() {
            return Err(Error::Shape { buffer: "inputs of rows", expected: n_rows, got: 0 });
        }
        let arguments = PlaceParams {
            points: points.address().offset(first * dim),
            phi: phi.address(),
            x: buffers.x,
            a_in: buffers.a_in,
            n_rows: n_rows as u32,
            n_given: n_given as u32,
            dim: dim as u32,
            n_features: n_features as u32,
            in_width: network.in_width() as u32,
            unused: 0,
        };
        let n_blocks = (n_rows * WARP).div_ceil(THREADS as usize).max(1);
        // SAFETY: reads `points` and `phi`, writes `x` and `a_in` of `rows`, whose lengths are
        // checked above.
        unsafe { device.launch(Kernel::PlaceRows(precision), [n_blocks as u32, 1, 1], THREADS, 0, &arguments) }
    }
}
