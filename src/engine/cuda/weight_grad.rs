//! Sweeps of a batch and its partial weight gradients: one kernel for narrow networks, two for the
//! others.

use super::abi::{BatchParams, LAYER_SUM_BYTES, NARROW_GROUPS, TILE_ROWS, WIDE_GROUPS};
use super::driver::{Buffer, Device};
use super::launch::{Packed, Sweep, SweepNarrow, WeightGrad, narrow_room};
use super::needs::RowNeeds;
use super::network::Network;
use super::workspace::{Extent, chunk_rows, narrow_extent};
use crate::error::Result;
use crate::precision::Precision;

/// Division of a batch into chunks, as memory allows, and groups, which do not depend on the
/// chunks: see `kernels/batch.cuh`.
#[derive(Clone, Copy, Debug)]
pub struct Division {
    /// Rows of a chunk, and slots.
    pub extent: Extent,
    /// Partial gradients: one for each group that has tiles.
    pub n_partials: usize,
    /// Shards of the whole batch, of which a rank has its share.
    pub n_shards: usize,
}

impl Division {
    /// For `batch`, of which `most` rows are worked on at a time.
    pub fn of(network: &Network, precision: Precision, needs: RowNeeds, batch: &BatchParams, most: usize) -> Division {
        // A rank may have no tile.
        let at_once = (batch.n_tiles.max(1) as usize * TILE_ROWS).min(most);
        if network.is_narrow() {
            let extent = narrow_extent(network, precision, needs, at_once, NARROW_GROUPS * TILE_ROWS);
            // Slots belong to blocks, which form the partial gradients.
            Division::among(NARROW_GROUPS, batch, extent)
        } else {
            Division::of_rows(chunk_rows(network, precision, needs, at_once), batch)
        }
    }

    /// Each of `at_once` rows, which are worked on at a time, has a slot.
    pub fn of_rows(at_once: usize, batch: &BatchParams) -> Division {
        Division::among(WIDE_GROUPS, batch, Extent::of_rows(at_once))
    }

    fn among(n_groups: usize, batch: &BatchParams, extent: Extent) -> Division {
        let n_partials = batch.groups_of(n_groups).min(batch.n_tiles as usize);
        Division { extent, n_partials, n_shards: batch.n_shards() }
    }

    /// Tiles that are worked on at a time.
    pub fn n_tiles(&self) -> usize {
        self.extent.rows / TILE_ROWS
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

/// Layers of a narrow network whose running sums have room in shared memory.
pub fn resident_sums(device: &Device, network: &Network, precision: Precision, needs: RowNeeds) -> Result<usize> {
    let room = narrow_room(device, precision, needs)?;
    Ok((room / LAYER_SUM_BYTES).min(network.layers().len()))
}

/// Layers of a narrow network whose running sums lie in shared memory, and bytes for
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
    let n_resident = resident_sums(device, network, precision, needs)?.min(most_resident.unwrap_or(n_layers));
    let n_blocks = division.extent.slots / TILE_ROWS;
    Ok((n_resident, n_blocks * (n_layers - n_resident) * LAYER_SUM_BYTES))
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

    /// Sweeps over a chunk and adds its weight gradient to `partials`. Tiles are to be swept in
    /// their order; the first one of a group overwrites its partial gradient.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn launch(&self, device: &Device, sweep: Sweep<'_>, partials: &Buffer<f32>) -> Result<()> {
        let Sweep { action: Packed { network, precision, .. }, rows, batch, state, .. } = sweep;
        if network.is_narrow() {
            let GradientSweep { n_resident, ref spilled, .. } = *self;
            return SweepNarrow { sweep, partials, n_resident, spilled }.launch(device);
        }
        sweep.launch(device)?;
        WeightGrad { network, precision, rows, batch, state, partials }.launch(device)
    }
}

#[cfg(test)]
mod tests {
    use super::super::abi::PartKind;
    use super::super::workspace::rows_bytes;
    use super::*;
    use crate::model::{Activation, Architecture, Head, TimeEmbedding};
    use crate::training::Training;

    /// However many probes rows have, what is kept of a narrow network's fits any GPU, and each
    /// group of the batch has its partial sum.
    #[test]
    fn memory_has_a_bound() {
        for (dim, hidden) in [(2, vec![64; 3]), (50, vec![64; 16])] {
            let architecture = Architecture {
                dim,
                hidden,
                activation: Activation::Silu,
                head: Head::Quadratic,
                time_embedding: TimeEmbedding::Raw,
                conditions: 0,
            };
            let network = Network::new(&architecture);
            assert!(network.is_narrow());
            for n_probes in [0, 1, 64, 1024] {
                let needs = RowNeeds { n_probes, ..RowNeeds::default() };
                for n_rows in [1, 3 * 4096, 1 << 22] {
                    let batch = BatchParams::of(&[(PartKind::Interior, n_rows)], Training::SHARDS);
                    let division = Division::of(&network, Precision::F32, needs, &batch, n_rows);
                    let n_bytes = rows_bytes(&network, Precision::F32, needs, division.extent);
                    let tile = Extent { rows: 0, slots: TILE_ROWS };
                    let most = (1 << 30) + (1 << 30).max(rows_bytes(&network, Precision::F32, needs, tile));
                    assert!(n_bytes <= most, "{n_probes} probes, {n_rows} rows: {n_bytes} bytes");
                    let Extent { rows, slots } = division.extent;
                    assert!(slots <= rows && slots > 0);
                    assert_eq!(division.n_partials, n_rows.div_ceil(TILE_ROWS).min(256));
                }
            }
        }
    }
}
