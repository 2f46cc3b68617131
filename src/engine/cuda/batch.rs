//! The batch of a step in tiles, part after part: see [`BatchPart`].

use std::ops::Range;

use super::abi::{BatchParams, FEW_SHARDS, GatheredParams, MAX_PARTS, Part, PartKind, TILE_ROWS, Tag};
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
    let batch = BatchParams::of(&list, training.n_shards);
    let batch = BatchParams { n_interior: n_interior as u32, n_boundary: n_boundary as u32, ..batch };
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
    /// Parts with their numbers of rows, interior-like ones first, as one chunk of `n_shards`
    /// shards, a power of two; parts without rows are left out.
    pub fn of(list: &[(PartKind, usize)], n_shards: usize) -> BatchParams {
        let log2_shards = n_shards.ilog2();
        let mut batch = BatchParams { log2_shards, log2_own: log2_shards, ..BatchParams::default() };
        debug_assert!(list.len() <= MAX_PARTS);
        for (&(kind, n_rows), part) in list.iter().filter(|part| part.1 > 0).zip(&mut batch.parts) {
            let n_tiles = n_rows.div_ceil(TILE_ROWS) as u32;
            let (first_tile, n_rows) = (batch.n_tiles, n_rows as u32);
            *part =
                Part { kind: Tag::of(kind), first_tile, n_tiles, first_of_batch: first_tile, n_rows, sum_scale: 1.0 };
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

    /// Shards of the whole batch.
    pub fn n_shards(&self) -> usize {
        1 << self.log2_shards
    }

    /// The tiles of this whole batch that are in `shards`, a power of two of them, in their order,
    /// as one chunk: tile t is in shard t mod [`BatchParams::n_shards`].
    #[must_use]
    pub fn of_shards(mut self, shards: Range<usize>) -> BatchParams {
        let (first, n, n_all) = (shards.start as u32, shards.len() as u32, self.n_shards() as u32);
        // Tiles of the shards among the first `n_tiles` tiles.
        let count = |n_tiles: u32| n_tiles / n_all * n + (n_tiles % n_all).saturating_sub(first).min(n);
        for part in &mut self.parts[..self.n_parts as usize] {
            let end = count(part.first_tile + part.n_tiles);
            part.first_tile = count(part.first_tile);
            part.n_tiles = end - part.first_tile;
        }
        let (n_tiles, n_interior_tiles) = (count(self.n_tiles), count(self.n_interior_tiles));
        BatchParams { n_tiles, n_interior_tiles, first_shard: first, log2_own: n.ilog2(), ..self }
    }

    /// The row of the batch that row `row` of the chunk stands for: the kind of its part and its
    /// number there; `None` for one that only fills a tile.
    pub fn part_and_number(&self, row: usize) -> Option<(PartKind, usize)> {
        let tile = self.first_tile + (row / TILE_ROWS) as u32;
        let part = self.parts().iter().rfind(|part| part.first_tile <= tile)?;
        let (round, own) = (tile >> self.log2_own, 1 << self.log2_own);
        let of_batch = (round << self.log2_shards) + self.first_shard + tile % own;
        let number = (of_batch - part.first_of_batch) as usize * TILE_ROWS + row % TILE_ROWS;
        Some((part.kind.get()?, number)).filter(|_| number < part.n_rows as usize)
    }

    /// Groups of the batch's own shards; all shards have `n_groups` of them, or more if they are
    /// many: see `kernels/batch.cuh`.
    pub fn groups_of(&self, n_groups: usize) -> usize {
        (n_groups >> self.log2_shards).max(n_groups / FEW_SHARDS) << self.log2_own
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
            part.first_of_batch *= of_tile;
        }
        self
    }

    /// Tiles of the chunk in the part [`PartKind::Interior`]: the first ones.
    pub fn n_drawn_tiles(&self) -> u32 {
        self.parts[0].n_tiles.saturating_sub(self.first_tile).min(self.n_tiles)
    }

    /// What a bend works on: the chunk of the part [`PartKind::Interior`], whose rows have one
    /// channel there, so that none of them counts as interior-like.
    #[must_use]
    pub fn drawn(self) -> BatchParams {
        BatchParams { n_parts: 1, n_tiles: self.n_drawn_tiles(), n_interior_tiles: 0, ..self }
    }
}

impl GatheredParams {
    /// Of the whole batch `batch`, divided among `n_ranks` ranks and swept in tiles of `rows` rows.
    pub fn of(batch: &BatchParams, n_ranks: usize, rows: usize) -> GatheredParams {
        let n_own = batch.n_shards() / n_ranks;
        // No rank has more tiles than the first.
        let first = batch.of_shards(0..n_own).in_tiles_of(rows);
        GatheredParams {
            log2_shards: batch.log2_shards,
            log2_own: n_own.ilog2(),
            log2_of_high: (TILE_ROWS / rows).ilog2(),
            n_tiles: first.n_tiles,
            n_interior_tiles: first.n_interior_tiles,
        }
    }

    /// Ranks that divide the batch.
    pub fn n_ranks(&self) -> usize {
        1 << (self.log2_shards - self.log2_own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cuda::abi::WIDE_GROUPS;

    /// Ranks have all tiles together, each once, in the order of the batch, and the same rows of
    /// each part as the whole.
    #[test]
    fn ranks_divide_the_rows_of_a_batch() {
        use PartKind::{Boundary0, Boundary1, Center, Interior};
        let lists: [&[(PartKind, usize)]; 3] = [
            &[(Interior, 700), (Boundary0, 130), (Boundary1, 1)],
            &[(Interior, 5000), (Center, 5000), (Boundary0, 2049), (Boundary1, 2049)],
            &[(Interior, 3)],
        ];
        for (list, n_shards) in lists.into_iter().flat_map(|list| [1, 8, 32].map(|n_shards| (list, n_shards))) {
            let whole = BatchParams::of(list, n_shards);
            for n_ranks in [1, 2, 4, 8, 32].into_iter().filter(|&n_ranks| n_ranks <= n_shards) {
                let gathered = GatheredParams::of(&whole, n_ranks, 32);
                assert_eq!(gathered.n_ranks(), n_ranks);
                let mut found = Vec::new();
                for rank in 0..n_ranks {
                    let own = n_shards / n_ranks;
                    let batch = whole.of_shards(rank * own..(rank + 1) * own);
                    assert!(4 * batch.n_tiles <= gathered.n_tiles);
                    assert!(4 * batch.n_interior_tiles <= gathered.n_interior_tiles);
                    assert_eq!(batch.all_tiles(), batch.n_tiles);
                    let rows = |batch: &BatchParams| batch.n_tiles as usize * TILE_ROWS;
                    let numbers = |batch: &BatchParams| -> Vec<(PartKind, usize)> {
                        (0..rows(batch)).filter_map(|row| batch.part_and_number(row)).collect()
                    };
                    let of_rank = numbers(&batch);
                    let shards = rank * own..(rank + 1) * own;
                    let expected: Vec<_> = (0..rows(&whole))
                        .filter(|row| shards.contains(&(row / TILE_ROWS % n_shards)))
                        .filter_map(|row| whole.part_and_number(row))
                        .collect();
                    assert_eq!(of_rank, expected, "{n_shards} shards, rank {rank} of {n_ranks}");
                    found.extend(of_rank.into_iter().map(|(kind, number)| (kind as u32, number)));
                }
                found.sort_unstable();
                let mut all: Vec<(u32, usize)> =
                    list.iter().flat_map(|&(kind, n)| (0..n).map(move |number| (kind as u32, number))).collect();
                all.sort_unstable();
                assert_eq!(found, all);
            }
        }
    }

    /// A rank of eight with 64 shards has as many groups as one GPU with the default.
    #[test]
    fn groups_lie_in_shards() {
        let groups =
            |n_shards: usize, n_own: usize| BatchParams::of(&[], n_shards).of_shards(0..n_own).groups_of(WIDE_GROUPS);
        assert_eq!([1, 2, 8, 16, 64].map(|n_shards| groups(n_shards, n_shards)), [16, 16, 16, 32, 128]);
        assert_eq!([(8, 1), (16, 2), (64, 8), (64, 1)].map(|(n_shards, n_own)| groups(n_shards, n_own)), [2, 4, 16, 2]);
    }
}
