//! The batch of a step in tiles, part after part: see [`BatchPart`].

use super::abi::{BatchParams, MAX_PARTS, Part, PartKind, TILE_ROWS, Tag};
use crate::density_path::End;
use crate::engine::Training;
use crate::engine::batch::BatchPart;
use crate::error::{Error, Result};
use crate::precision::Precision;

/// The mantissa m in [1, 2) of `value` = m · 2ᵉ, for a normal number > 0.
fn significand(value: f32) -> f32 {
    const MANTISSA: u32 = (1 << 23) - 1;
    f32::from_bits(value.to_bits() & MANTISSA | 1.0f32.to_bits())
}

/// The whole batch of a step, as one chunk, for products of `precision`.
///
/// # Errors
/// [`Error::Input`] for more rows than can be numbered.
pub fn whole_batch(training: &Training, precision: Precision) -> Result<BatchParams> {
    let (n_interior, n_boundary) = (training.n_interior, training.n_boundary);
    let list: Vec<(PartKind, usize)> =
        BatchPart::of(training).into_iter().map(|(part, n)| (PartKind::from(part), n)).collect();
    let n_rows: usize = list.iter().map(|&(_, n)| n.next_multiple_of(TILE_ROWS)).sum();
    if u32::try_from(n_rows).is_err() {
        let problem = format!("makes a batch of {n_rows} rows");
        return Err(Error::input("training", "interior_rows, boundary_rows", problem, "use fewer than 2³² in all"));
    }
    let batch = BatchParams { n_interior: n_interior as u32, n_boundary: n_boundary as u32, ..BatchParams::of(&list) };
    Ok(batch.with_common_factors(precision, |kind| match kind {
        PartKind::Interior | PartKind::Center => 1.0 / n_interior as f32,
        PartKind::CenterEnds => 1.0,
        PartKind::Boundary0 | PartKind::Boundary1 | PartKind::WeakEnds0 | PartKind::WeakEnds1 => {
            1.0 / n_boundary as f32
        }
    }))
}

impl From<BatchPart> for PartKind {
    fn from(part: BatchPart) -> Self {
        match part {
            BatchPart::Interior => PartKind::Interior,
            BatchPart::Center => PartKind::Center,
            BatchPart::CenterEnds => PartKind::CenterEnds,
            BatchPart::Boundary(End::Start) => PartKind::Boundary0,
            BatchPart::Boundary(End::End) => PartKind::Boundary1,
            BatchPart::WeakEnds { end: End::Start, .. } => PartKind::WeakEnds0,
            BatchPart::WeakEnds { end: End::End, .. } => PartKind::WeakEnds1,
        }
    }
}

impl BatchParams {
    /// Parts with their numbers of rows, interior-like ones first, as one chunk; those without rows
    /// are left out.
    pub fn of(list: &[(PartKind, usize)]) -> BatchParams {
        let mut batch = BatchParams::default();
        debug_assert!(list.len() <= MAX_PARTS);
        for (&(kind, n_rows), part) in list.iter().filter(|part| part.1 > 0).zip(&mut batch.parts) {
            let n_tiles = n_rows.div_ceil(TILE_ROWS) as u32;
            *part =
                Part { kind: Tag::of(kind), first_tile: batch.n_tiles, n_tiles, n_rows: n_rows as u32, sum_scale: 1.0 };
            batch.n_parts += 1;
            batch.n_tiles += n_tiles;
            batch.n_interior_tiles += if kind.is_interior() { n_tiles } else { 0 };
        }
        batch
    }

    /// The batch where the rows of each kind have the factor `common(kind)` > 0 in common, for
    /// products of `precision`: operands leave to sums what they would round of it.
    pub fn with_common_factors(mut self, precision: Precision, common: impl Fn(PartKind) -> f32) -> BatchParams {
        let n_parts = self.n_parts as usize;
        for part in &mut self.parts[..n_parts] {
            part.sum_scale = match (precision, part.kind.get()) {
                (Precision::Tf32 | Precision::Bf16 | Precision::F16, Some(kind)) => significand(common(kind)),
                _ => 1.0,
            };
        }
        self
    }

    /// The row of the batch that row `row` of the chunk stands for: the kind of its part and its
    /// number there; `None` for one that only fills a tile.
    pub fn part_and_number(&self, row: usize) -> Option<(PartKind, usize)> {
        let tile = self.first_tile + (row / TILE_ROWS) as u32;
        let part = self.parts().iter().rfind(|part| part.first_tile <= tile)?;
        let number = (tile - part.first_tile) as usize * TILE_ROWS + row % TILE_ROWS;
        Some((part.kind.get()?, number)).filter(|_| number < part.n_rows as usize)
    }

    /// The parts in use.
    pub fn parts(&self) -> &[Part] {
        &self.parts[..self.n_parts as usize]
    }

    /// Tiles of the whole batch.
    pub fn all_tiles(&self) -> u32 {
        self.parts().last().map_or(0, |part| part.first_tile + part.n_tiles)
    }

    /// The batch in chunks of at most `n_tiles` tiles.
    pub fn chunks(&self, n_tiles: u32) -> impl Iterator<Item = BatchParams> + '_ {
        let (all, n_tiles) = (self.all_tiles(), n_tiles.max(1));
        (0..all.div_ceil(n_tiles)).map(move |k| {
            let first_tile = k * n_tiles;
            BatchParams { first_tile, n_tiles: n_tiles.min(all - first_tile), ..*self }
        })
    }

    /// The same batch in tiles of `rows` rows, a divisor of [`TILE_ROWS`].
    #[must_use]
    pub fn in_tiles_of(mut self, rows: usize) -> BatchParams {
        let of_tile = (TILE_ROWS / rows) as u32;
        self.n_interior_tiles *= of_tile;
        self.first_tile *= of_tile;
        self.n_tiles *= of_tile;
        for part in &mut self.parts {
            part.first_tile *= of_tile;
            part.n_tiles *= of_tile;
        }
        self
    }

    /// Tiles of the chunk in the part [`PartKind::Interior`]: the first ones.
    pub fn n_drawn_tiles(&self) -> u32 {
        self.parts[0].n_tiles.saturating_sub(self.first_tile).min(self.n_tiles)
    }
}
