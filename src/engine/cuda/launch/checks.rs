//! Checks of sizes that several launches make.

use super::super::abi::{BatchParams, TILE_ROWS};
use crate::error::{Result, check_len};

/// Checks that `capacity` rows or slots hold `n_tiles` tiles.
pub(super) fn check_tiles(buffer: &'static str, n_tiles: u32, capacity: usize) -> Result<()> {
    check_least(buffer, n_tiles as usize * TILE_ROWS, capacity)
}

/// Checks that a buffer of `got` elements has at least `wanted`.
pub(super) fn check_least(buffer: &'static str, wanted: usize, got: usize) -> Result<()> {
    check_len(buffer, wanted, got.min(wanted))
}

/// Checks that `batch` is a chunk of its own parts.
pub(super) fn check_chunk(batch: &BatchParams) -> Result<()> {
    let end = batch.first_tile as usize + batch.n_tiles as usize;
    check_least("tiles of the parts", end, batch.all_tiles() as usize)
}
