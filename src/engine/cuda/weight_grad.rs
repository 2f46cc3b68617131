//! Sweeps of a batch and its partial weight gradients: one kernel for narrow networks, two for the
//! others.

use super::abi::{BatchParams, LAYER_SUM_BYTES, NARROW_STAGE_BYTES, TILE_ROWS};
use super::driver::{Buffer, Device};
use super::launch::{GradChunk, Packed, Sweep, SweepNarrow, WeightGrad, narrow_kernel};
use super::needs::RowNeeds;
use super::network::Network;
use super::workspace::{Extent, chunk_rows, narrow_extent};
use crate::engine::batch::Onto;
use crate::error::Result;
use crate::precision::Precision;

/// Maximum number of partial gradients: enough blocks for a large GPU, few enough to sum quickly.
const MOST_PARTIALS: usize = 16;
/// Maximum blocks for a narrow network, each with a partial gradient: enough to fill a large GPU
/// evenly.
const MOST_BLOCKS: usize = 256;

/// Division of a batch. Depends only on its shape, so that sums have the same order on every GPU.
#[derive(Clone, Copy, Debug)]
pub struct Division {
    /// Rows that are worked on at a time, and slots.
    pub extent: Extent,
    /// Partial sums of the gradient.
    pub n_partials: usize,
    /// Tiles of a partial sum, where a kernel of its own forms it.
    tiles_per_partial: usize,
}

/// The sums that the weight gradient of `chunk` is added to: those of the chunks before it.
fn onto(chunk: &BatchParams) -> Onto {
    if chunk.first_tile > 0 { Onto::Sum } else { Onto::Nothing }
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

    /// Slots belong to blocks, each of which forms a partial gradient.
    pub fn of_blocks(extent: Extent) -> Division {
        Division { extent, n_partials: extent.slots / TILE_ROWS, tiles_per_partial: 1 }
    }

    /// Each of `rows` rows, which are worked on at a time, has a slot.
    pub fn of_rows(rows: usize) -> Division {
        let n_tiles = rows / TILE_ROWS;
        let tiles_per_partial = n_tiles.div_ceil(MOST_PARTIALS);
        Division { extent: Extent::of_rows(rows), n_partials: n_tiles.div_ceil(tiles_per_partial), tiles_per_partial }
    }

    /// Tiles that are worked on at a time.
    pub fn n_tiles(&self) -> usize {
        self.extent.rows / TILE_ROWS
    }

    /// The weight gradient of the chunk `batch`.
    pub fn grad_chunk(&self, batch: BatchParams) -> GradChunk {
        GradChunk { batch, tiles_per_partial: self.tiles_per_partial as u32, onto: onto(&batch) }
    }
}

/// The sweeps over a chunk of a batch and its weight gradient.
pub struct GradientSweep {
    division: Division,
    /// Layers of a narrow network whose running sums lie in shared memory.
    n_resident: usize,
    /// Running sums of its other layers.
    spilled: Buffer<u8>,
}

/// Layers of a narrow network whose running sums have room in shared memory, and bytes for
/// those of the others.
fn layer_sums(
    device: &Device,
    network: &Network,
    precision: Precision,
    needs: RowNeeds,
    division: &Division,
    most_resident: Option<usize>,
) -> Result<(usize, usize)> {
    if !network.is_narrow() {
        return Ok((0, 0));
    }
    let n_layers = network.layers().len();
    // As many blocks as fit the registers of a multiprocessor must fit its shared memory.
    let (kernel, blocks_at_once) = narrow_kernel(precision, needs.n_probes);
    let room = device.shared_memory_among(kernel, blocks_at_once)?;
    let n_resident = (room.saturating_sub(NARROW_STAGE_BYTES) / LAYER_SUM_BYTES)
        .min(most_resident.unwrap_or(n_layers))
        .min(n_layers);
    Ok((n_resident, division.n_partials * (n_layers - n_resident) * LAYER_SUM_BYTES))
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
    /// Sweeps over what `division` divides. At most `most_resident` layers have their sums in
    /// shared memory; by default as many as there is memory for.
    pub fn new(
        device: &Device,
        network: &Network,
        precision: Precision,
        needs: RowNeeds,
        division: Division,
        most_resident: Option<usize>,
    ) -> Result<Self> {
        let (n_resident, spilled_bytes) = layer_sums(device, network, precision, needs, &division, most_resident)?;
        Ok(GradientSweep { division, n_resident, spilled: device.allocate(spilled_bytes)? })
    }

    /// Division of the batch.
    pub fn division(&self) -> &Division {
        &self.division
    }

    /// Sweeps over a chunk and adds its weight gradient to `partials`, unless it is the first
    /// chunk, which overwrites them.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn launch(&self, device: &Device, sweep: Sweep<'_>, partials: &Buffer<f32>) -> Result<()> {
        let Sweep { action: Packed { network, precision, .. }, rows, batch, state, .. } = sweep;
        if network.is_narrow() {
            let GradientSweep { n_resident, ref spilled, .. } = *self;
            return SweepNarrow { sweep, partials, n_resident, spilled, onto: onto(batch) }.launch(device);
        }
        sweep.launch(device)?;
        let chunk = self.division.grad_chunk(*batch);
        WeightGrad { network, precision, rows, chunk, state, partials }.launch(device)
    }
}

#[cfg(test)]
mod tests {
    use super::super::workspace::rows_bytes;
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
                let needs = RowNeeds { n_probes, ..RowNeeds::default() };
                for n_rows in [1, 3 * 4096, 1 << 22] {
                    let division = Division::of(&network, Precision::F32, needs, n_rows, n_rows);
                    let n_bytes = rows_bytes(&network, Precision::F32, needs, division.extent);
                    let tile = Extent { rows: 0, slots: TILE_ROWS };
                    let most = (1 << 30) + (1 << 30).max(rows_bytes(&network, Precision::F32, needs, tile));
                    assert!(n_bytes <= most, "{n_probes} probes, {n_rows} rows: {n_bytes} bytes");
                    let Extent { rows, slots } = division.extent;
                    assert!(slots <= rows && slots == division.n_partials * TILE_ROWS && division.n_partials > 0);
                }
            }
        }
    }
}
