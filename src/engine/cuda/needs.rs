//! What rows are for, which decides the buffers and the kernels that they get.

use super::abi::{LOW_TILE_ROWS, TILE_ROWS};
use super::network::Network;

/// Purpose of rows, which decides the sweeps they get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Work {
    /// The loss of a batch and its gradient: all sweeps.
    #[default]
    Training,
    /// The value of a network and its adjoint.
    Bend,
    /// The gradient at the input, and the tangents of probes.
    Particles,
}

/// The gradient of a loss term in the point of its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PointGradient {
    /// A bend reads it.
    Needed,
    /// Not formed.
    #[default]
    Unread,
}

/// Requirements of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowNeeds {
    /// Probes per row.
    pub n_probes: usize,
    /// Gradient of each row's loss term at its point.
    pub grad_x: PointGradient,
    /// Purpose of the rows.
    pub work: Work,
    /// Height of the tiles of their sweeps.
    pub tiles: Tiles,
}

/// Height of the tiles of the sweeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tiles {
    /// [`TILE_ROWS`] rows: reads the weights least often.
    #[default]
    High,
    /// Fewer rows, so that a small batch has a tile for each multiprocessor.
    Low,
}

impl Tiles {
    /// For a batch of `n_tiles` high tiles. Depends on shape and batch alone, as sums over rows
    /// follow the tiles.
    pub fn of(network: &Network, n_tiles: usize) -> Tiles {
        // Multiprocessors of a large GPU. Tiles of a narrow network take little time anyway.
        const MULTIPROCESSORS: usize = 132;
        let is_low = !network.is_narrow() && n_tiles * TILE_ROWS <= MULTIPROCESSORS * LOW_TILE_ROWS;
        if is_low { Tiles::Low } else { Tiles::High }
    }

    /// Rows of a tile.
    pub fn rows(self) -> usize {
        match self {
            Tiles::High => TILE_ROWS,
            Tiles::Low => LOW_TILE_ROWS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Architecture;

    /// Low tiles for batches that would otherwise leave multiprocessors of a large GPU idle.
    #[test]
    fn small_batches_have_low_tiles() {
        let [wide, narrow] = [vec![256; 4], vec![64; 3]].map(|hidden| Network::new(&Architecture::new(3, hidden)));
        let tiles = |network: &Network, n_tiles: usize| Tiles::of(network, n_tiles);
        assert_eq!([1, 33].map(|n| tiles(&wide, n)), [Tiles::Low; 2]);
        assert_eq!([34, 1536].map(|n| tiles(&wide, n)), [Tiles::High; 2]);
        assert_eq!(tiles(&narrow, 1), Tiles::High);
        assert_eq!(TILE_ROWS % Tiles::Low.rows(), 0);
    }
}
