//! Sizes that host and kernels share.

use crate::model::MAX_DEPTH;

/// Rows per tile.
pub const TILE_ROWS: usize = 128;
/// Warps per block that works on a tile.
pub const WARPS: usize = 8;
/// Layer widths are padded to multiples of this.
pub const WIDTH_UNIT: usize = 64;
/// Maximum number of parts of a batch.
pub const MAX_PARTS: usize = 8;
/// Maximum number of layers.
pub const MAX_LAYERS: usize = MAX_DEPTH + 1;
/// Rows and columns of a weight-gradient tile, at most.
pub const GRAD_TILE: usize = 128;
/// Stages of the longest Runge–Kutta method.
pub const MAX_STAGES: usize = 7;
