//! A batch as tiles: which part of the batch each stretch of tiles holds.

use super::params::{BatchParams, MAX_PARTS, Part, PartKind, TILE_ROWS};
use crate::engine::{Estimator, Training};

/// The tiles of a batch, interior-like parts first.
#[derive(Clone, Debug)]
pub struct Tiling {
    /// For blocks of arguments; a launch names its chunk in them.
    params: BatchParams,
    n_tiles: usize,
}

impl Tiling {
    /// The batch of one step of `training`: the parts and rows of the CPU engine's.
    pub fn of(training: &Training) -> Tiling {
        let mut parts = vec![(PartKind::Interior, training.n_interior)];
        let boundary = [(PartKind::Boundary0, training.n_boundary), (PartKind::Boundary1, training.n_boundary)];
        match training.estimator {
            Estimator::Action { centring: false } => parts.extend(boundary),
            Estimator::Action { centring: true } => {
                parts.push((PartKind::Centre, training.n_interior));
                parts.extend(boundary);
                parts.push((PartKind::CentreEnds, 2));
            }
            Estimator::Weak { .. } => {
                let n = 2 * training.n_boundary;
                parts.extend([(PartKind::WeakEnds0, n), (PartKind::WeakEnds1, n)]);
            }
            Estimator::Regression => {}
        }
        Tiling::new(&parts, training.n_interior, training.n_boundary)
    }

    /// Parts with their numbers of rows, at most [`MAX_PARTS`], interior-like ones first; those without rows are left out.
    pub fn new(parts: &[(PartKind, usize)], n_interior: usize, n_boundary: usize) -> Tiling {
        let mut params =
            BatchParams { n_interior: n_interior as u32, n_boundary: n_boundary as u32, ..BatchParams::default() };
        let mut first_tile = 0;
        for &(kind, n_rows) in parts.iter().filter(|part| part.1 > 0).take(MAX_PARTS) {
            let n_tiles = n_rows.div_ceil(TILE_ROWS) as u32;
            params.parts[params.n_parts as usize] =
                Part { kind: kind as u32, first_tile, n_tiles, n_rows: n_rows as u32 };
            params.n_parts += 1;
            first_tile += n_tiles;
            if kind.is_interior() {
                params.n_interior_tiles = first_tile;
            }
        }
        params.n_tiles = first_tile;
        Tiling { params, n_tiles: first_tile as usize }
    }

    /// All tiles.
    pub fn n_tiles(&self) -> usize {
        self.n_tiles
    }

    /// Interior-like tiles.
    pub fn n_interior_tiles(&self) -> usize {
        self.params.n_interior_tiles as usize
    }

    /// For blocks of arguments: the whole batch as one chunk.
    pub fn params(&self) -> BatchParams {
        self.params
    }

    /// The batch in chunks of at most `tiles` tiles.
    pub fn chunks(&self, tiles: usize) -> impl Iterator<Item = Chunk> + '_ {
        (0..self.n_tiles).step_by(tiles.max(1)).map(move |first| {
            let n_tiles = tiles.min(self.n_tiles - first);
            let params = BatchParams { first_tile: first as u32, n_tiles: n_tiles as u32, ..self.params };
            Chunk {
                params,
                first,
                n_tiles,
                n_interior_tiles: self.n_interior_tiles().saturating_sub(first).min(n_tiles),
            }
        })
    }
}

/// Consecutive tiles of a batch that are worked on together.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    /// The batch with this chunk named.
    pub params: BatchParams,
    /// Its first tile.
    pub first: usize,
    /// Its tiles.
    pub n_tiles: usize,
    /// Its interior-like tiles, the first ones.
    pub n_interior_tiles: usize,
}

impl Chunk {
    /// The rows of the batch that row `row` of the chunk stands for: its part and its number there; `None` for a row that only fills a tile.
    pub fn place(&self, row: usize) -> Option<(u32, usize)> {
        let tile = (self.first + row / TILE_ROWS) as u32;
        let parts = &self.params.parts[..self.params.n_parts as usize];
        let part = parts.iter().rfind(|part| part.first_tile <= tile)?;
        let number = (tile - part.first_tile) as usize * TILE_ROWS + row % TILE_ROWS;
        (number < part.n_rows as usize).then_some((part.kind, number))
    }
}
