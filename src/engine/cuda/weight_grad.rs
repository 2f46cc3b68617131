//! Sweeps of a batch and its partial weight gradients: one kernel for narrow networks, two for the
//! others.

use super::abi::{BatchParams, LAYER_SUM_BYTES, NARROW_STAGE_BYTES, StepState, SweepParams, TILE_ROWS};
use super::driver::{Buffer, Device};
use super::launch::{GradChunk, narrow_kernel, sweep, sweep_narrow, weight_grad};
use super::network::Network;
use super::workspace::{Extent, RowNeeds, chunk_rows, narrow_extent};
use crate::error::Result;
use crate::precision::Precision;

/// Maximum number of partial gradients: enough blocks for a large GPU, few enough to sum quickly.
const MOST_PARTS: usize = 16;
/// Maximum blocks for a narrow network, each with a partial gradient: enough to fill a large GPU
/// evenly.
const MOST_BLOCKS: usize = 256;

/// Division of a batch. Depends only on its shape, so that sums have the same order on every GPU.
#[derive(Clone, Copy, Debug)]
pub struct Division {
    /// Rows that are worked on at a time, and slots.
    pub extent: Extent,
    /// Partial sums of the gradient.
    pub n_parts: usize,
    /// Tiles of a partial sum, where a kernel of its own forms it.
    tiles_per_part: usize,
}

impl Division {
    /// For a batch of `n_rows` rows, of which `most` are worked on at a time.
    pub fn of(network: &Network, precision: Precision, needs: RowNeeds, n_rows: usize, most: usize) -> Division {
        if network.is_narrow() {
            let n_rows = n_rows.min(most);
            Division::of_blocks(narrow_extent(network, precision, needs, n_rows, MOST_BLOCKS * TILE_ROWS))
        } else {
            Division::of_rows(chunk_rows(network, precision, needs, n_rows.min(most)))
        }
    }

    /// Where the slots belong to blocks, each of which forms a partial sum.
    pub fn of_blocks(extent: Extent) -> Division {
        Division { extent, n_parts: extent.slots / TILE_ROWS, tiles_per_part: 1 }
    }

    /// Where each of `rows` rows, worked on at a time, has a slot.
    pub fn of_rows(rows: usize) -> Division {
        let n_tiles = rows / TILE_ROWS;
        let tiles_per_part = n_tiles.div_ceil(MOST_PARTS);
        Division { extent: Extent::of_rows(rows), n_parts: n_tiles.div_ceil(tiles_per_part), tiles_per_part }
    }

    /// Tiles that are worked on at a time.
    pub fn n_tiles(&self) -> usize {
        self.extent.rows / TILE_ROWS
    }

    /// The weight gradient of the chunk `batch`.
    pub fn grad_chunk(&self, batch: BatchParams) -> GradChunk {
        GradChunk { batch, tiles_per_part: self.tiles_per_part as u32, accumulate: batch.first_tile > 0 }
    }
}

/// The sweeps over a chunk of a batch and its weight gradient.
pub struct GradientSweep {
    division: Division,
    /// In a narrow network, layers whose sums have room on the chip; and memory for the others'.
    n_near: usize,
    far_sums: Buffer<u8>,
}

/// Layers of a narrow network whose sums have room on the chip, and the bytes that those of the
/// others take.
fn layer_sums(
    device: &Device,
    network: &Network,
    precision: Precision,
    needs: RowNeeds,
    division: &Division,
    most_near: Option<usize>,
) -> Result<(usize, usize)> {
    if !network.is_narrow() {
        return Ok((0, 0));
    }
    let n_layers = network.layers().len();
    // As many blocks as fit the registers of a multiprocessor must fit its shared memory.
    let (kernel, blocks_at_once) = narrow_kernel(precision, needs.n_probes);
    let room = device.shared_memory_among(kernel, blocks_at_once)?;
    let n_near =
        (room.saturating_sub(NARROW_STAGE_BYTES) / LAYER_SUM_BYTES).min(most_near.unwrap_or(n_layers)).min(n_layers);
    Ok((n_near, division.n_parts * (n_layers - n_near) * LAYER_SUM_BYTES))
}

/// Bytes that a [`GradientSweep`] takes on the device.
pub fn gradient_sweep_bytes(
    device: &Device,
    network: &Network,
    precision: Precision,
    needs: RowNeeds,
    division: &Division,
) -> Result<usize> {
    Ok(layer_sums(device, network, precision, needs, division, None)?.1)
}

impl GradientSweep {
    /// Sweeps over what `division` divides. At most `most_near` layers have their sums on the chip;
    /// by default as many as there is memory for.
    pub fn new(
        device: &Device,
        network: &Network,
        precision: Precision,
        needs: RowNeeds,
        division: Division,
        most_near: Option<usize>,
    ) -> Result<Self> {
        let (n_near, far_bytes) = layer_sums(device, network, precision, needs, &division, most_near)?;
        Ok(GradientSweep { division, n_near, far_sums: device.allocate(far_bytes)? })
    }

    /// How the batch is divided.
    pub fn division(&self) -> &Division {
        &self.division
    }

    /// Sweeps over the chunk in `params.batch`; the partial sums of the gradient go to `parts`,
    /// behind those of the chunks before it.
    pub fn launch(
        &self,
        device: &Device,
        precision: Precision,
        network: &Network,
        params: &SweepParams,
        (state, parts): (&Buffer<StepState>, &Buffer<f32>),
    ) -> Result<()> {
        let chunk = &params.batch;
        let accumulate = chunk.first_tile > 0;
        if !network.is_narrow() {
            sweep(device, precision, params)?;
            let grad_chunk = self.division.grad_chunk(*chunk);
            return weight_grad(device, precision, network, &params.rows, (state, parts), &grad_chunk);
        }
        sweep_narrow(device, precision, params, (parts, &self.far_sums), self.n_near as u32, accumulate)
    }
}

#[cfg(test)]
mod tests {
    use super::super::workspace::{Work, rows_bytes};
    use super::*;
    use crate::model::{Activation, Architecture, Head, TimeEmbedding};

    /// However many probes rows have, what is kept of a narrow network's fits any GPU, and each
    /// block has its partial sum.
    #[test]
    fn memory_has_a_bound() {
        for (dim, hidden) in [(2, vec![64; 3]), (50, vec![64; 16])] {
            let architecture = Architecture {
                dim,
                hidden,
                activation: Activation::Silu,
                head: Head::Quadratic,
                time_embedding: TimeEmbedding::Raw,
            };
            let network = Network::new(&architecture);
            assert!(network.is_narrow());
            for n_probes in [0, 1, 64, 1024] {
                let needs = RowNeeds { n_probes, grad_x: false, work: Work::Training };
                for n_rows in [1, 3 * 4096, 1 << 22] {
                    let division = Division::of(&network, Precision::F32, needs, n_rows, n_rows);
                    let n_bytes = rows_bytes(&network, Precision::F32, needs, division.extent);
                    let tile = Extent { rows: 0, slots: TILE_ROWS };
                    let most = (1 << 30) + (1 << 30).max(rows_bytes(&network, Precision::F32, needs, tile));
                    assert!(n_bytes <= most, "{n_probes} probes, {n_rows} rows: {n_bytes} bytes");
                    let Extent { rows, slots } = division.extent;
                    assert!(slots <= rows && slots == division.n_parts * TILE_ROWS && division.n_parts > 0);
                }
            }
        }
    }
}
