//! What rows are for, which decides the buffers and the kernels that they get.

use super::abi::{BROAD_COLUMNS, LOW_TILE_ROWS, MIDDLE_TILE_ROWS, TILE_ROWS, WIDE_COLUMNS};
use super::network::Network;
use crate::precision::Precision;

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

/// How the height of tiles is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TileChoice {
    /// [`Tiles::of`] the batch.
    #[default]
    OfBatch,
    /// As for a large batch.
    OfLargeBatches,
    /// As given.
    #[cfg(test)]
    Given(Tiles),
}

impl TileChoice {
    /// The tiles for a batch of `n_tiles` high ones.
    pub fn tiles(self, network: &Network, precision: Precision, n_probes: usize, n_tiles: usize) -> Tiles {
        match self {
            TileChoice::OfBatch => Tiles::of(network, precision, n_probes, n_tiles),
            TileChoice::OfLargeBatches => Tiles::of(network, precision, n_probes, usize::MAX / TILE_ROWS),
            #[cfg(test)]
            TileChoice::Given(tiles) => tiles,
        }
    }
}

/// Height of the tiles of the sweeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tiles {
    /// [`TILE_ROWS`] rows: reads the weights least often.
    #[default]
    High,
    /// [`MIDDLE_TILE_ROWS`] rows, so that two blocks with broad products share a multiprocessor:
    /// one multiplies while the other does its elementwise part. In types of 16 bits, without
    /// probes.
    Middle,
    /// Fewer rows, so that a small batch has a tile for each multiprocessor.
    Low,
}

impl Tiles {
    /// For a batch of `n_tiles` high tiles. Depends on shape, precision and batch alone, as sums
    /// over rows follow the tiles.
    pub fn of(network: &Network, precision: Precision, n_probes: usize, n_tiles: usize) -> Tiles {
        // Multiprocessors of a large GPU. Tiles of a narrow network take little time anyway.
        const MULTIPROCESSORS: usize = 132;
        let is_low = !network.is_narrow() && n_tiles * TILE_ROWS <= MULTIPROCESSORS * LOW_TILE_ROWS;
        if is_low {
            Tiles::Low
        } else if network.widest_hidden() <= BROAD_COLUMNS {
            Tiles::of_broad(network, precision, n_probes)
        } else {
            Tiles::High
        }
    }

    /// Those of broad products.
    pub fn of_broad(network: &Network, precision: Precision, n_probes: usize) -> Tiles {
        let is_middle = network.widest_hidden() > WIDE_COLUMNS && precision.bytes() == 2 && n_probes == 0;
        if is_middle { Tiles::Middle } else { Tiles::High }
    }

    /// Rows of a tile.
    pub fn rows(self) -> usize {
        match self {
            Tiles::High => TILE_ROWS,
            Tiles::Middle => MIDDLE_TILE_ROWS,
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
        let tiles = |network: &Network, n_tiles: usize| Tiles::of(network, Precision::F32, 0, n_tiles);
        assert_eq!([1, 33].map(|n| tiles(&wide, n)), [Tiles::Low; 2]);
        assert_eq!([34, 1536].map(|n| tiles(&wide, n)), [Tiles::High; 2]);
        assert_eq!(tiles(&narrow, 1), Tiles::High);
        assert_eq!(TILE_ROWS % Tiles::Low.rows(), 0);
    }

    /// Middle tiles where two blocks with broad products fit a multiprocessor.
    #[test]
    fn broad_products_of_16_bits_have_middle_tiles() {
        let tiles = |width: usize, precision: Precision, n_probes: usize| {
            Tiles::of(&Network::new(&Architecture::new(3, vec![width; 3])), precision, n_probes, 100)
        };
        for precision in [Precision::Bf16, Precision::F16] {
            assert_eq!([129, 256].map(|width| tiles(width, precision, 0)), [Tiles::Middle; 2]);
            assert_eq!([64, 128, 257].map(|width| tiles(width, precision, 0)), [Tiles::High; 3]);
            assert_eq!(tiles(256, precision, 1), Tiles::High);
        }
        assert_eq!([Precision::F32, Precision::Tf32].map(|precision| tiles(256, precision, 0)), [Tiles::High; 2]);
        assert_eq!(TILE_ROWS % Tiles::Middle.rows(), 0);
    }
}
