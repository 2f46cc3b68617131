//! Shared memory of the kernels that multiply matrices.

use super::super::abi::{
    BROAD_COLUMNS, CHUNK_BYTES, CarriedParams, NARROW_COLUMNS, NARROW_STAGES, WGMMA_BYTES, WIDE_COLUMNS, WIDE_STAGES,
};
use super::super::carried::{carried, unit_bytes};
use super::super::driver::{Device, Kernel};
use super::super::needs::{RowNeeds, Work};
use super::super::network::Network;
use super::threads;
use crate::error::Result;
use crate::precision::Precision;

/// Columns that the products of a kernel form at a time. A layer with no more than these leaves its
/// operand in shared memory for the next product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductWidth {
    /// [`BROAD_COLUMNS`]: right for every network.
    Broad,
    /// [`WIDE_COLUMNS`], with two blocks in bf16: right for every network.
    Wide,
    /// [`NARROW_COLUMNS`]: for networks whose layers have no more.
    Narrow,
    /// [`BROAD_COLUMNS`] of low tiles: right for every network.
    Low,
    /// [`BROAD_COLUMNS`] of warpgroups, whose left operands lie in registers.
    Warpgroup,
}

impl ProductWidth {
    fn columns(self) -> usize {
        match self {
            ProductWidth::Broad | ProductWidth::Low | ProductWidth::Warpgroup => BROAD_COLUMNS,
            ProductWidth::Wide => WIDE_COLUMNS,
            ProductWidth::Narrow => NARROW_COLUMNS,
        }
    }

    /// Bytes of the pipeline stages of the right operand.
    fn stage_bytes(self) -> usize {
        match self {
            ProductWidth::Narrow => CHUNK_BYTES * NARROW_STAGES * self.columns(),
            ProductWidth::Broad | ProductWidth::Wide | ProductWidth::Low => CHUNK_BYTES * WIDE_STAGES * self.columns(),
            ProductWidth::Warpgroup => WGMMA_BYTES,
        }
    }

    /// Chunks of a left operand without which no product works.
    fn least_chunks(self) -> usize {
        if self == ProductWidth::Narrow { NARROW_STAGES } else { WIDE_STAGES }
    }
}

/// Chunks of an operand of `width` columns.
fn chunks(width: u32, precision: Precision) -> usize {
    width as usize * precision.bytes() / CHUNK_BYTES
}

/// Bytes of the weights of a layer of a narrow network, both ways.
fn weights_bytes(precision: Precision) -> usize {
    2 * NARROW_COLUMNS * NARROW_COLUMNS * precision.bytes()
}

/// Layers of a narrow network whose weights fit `room` bytes, and the bytes of those.
pub fn resident_layers(network: &Network, precision: Precision, room: usize) -> (u32, usize) {
    let n_resident = (room / weights_bytes(precision)).min(network.layers().len());
    (n_resident as u32, n_resident * weights_bytes(precision))
}

/// Division of the shared memory of a block: left operands of its products (ProductMemory), the
/// pipeline stages of the right ones, and the first of the values that its threads carry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SharedLayout {
    /// Chunks of a left operand that there is room for.
    pub n_operand_chunks: u32,
    /// Values that threads carry, and how many units of them there is room for.
    pub carried: CarriedParams,
    /// Layers of a narrow network whose weights lie in shared memory, both ways.
    pub n_resident: u32,
    /// Bytes that the kernel is to have.
    pub bytes: u32,
    /// Blocks that a multiprocessor runs at a time.
    pub blocks_at_once: usize,
    /// Columns that a product forms at a time.
    pub columns: usize,
}

impl SharedLayout {
    /// Room for the widest operand of `network` that fits, or for as many chunks as a product has
    /// pipeline stages. Carried values get what is left without costing a multiprocessor a block.
    pub fn of(
        device: &Device,
        precision: Precision,
        kernel: Kernel,
        network: &Network,
        needs: RowNeeds,
        width: ProductWidth,
    ) -> Result<SharedLayout> {
        let of_chunk = CHUNK_BYTES * needs.tiles.rows();
        let room = device.most_shared_memory(kernel)?.saturating_sub(width.stage_bytes()) / of_chunk;
        let widths = network.layers().iter().flat_map(|layer| [layer.n_in, layer.n_out]);
        let fit = widths.map(|width| chunks(width, precision)).filter(|&chunks| chunks <= room);
        let n_chunks = match width {
            ProductWidth::Warpgroup => chunks(BROAD_COLUMNS as u32, precision),
            _ => fit.max().unwrap_or(0).max(width.least_chunks()),
        };
        let of_operands = if width == ProductWidth::Warpgroup { 0 } else { n_chunks * of_chunk };
        let of_products = width.stage_bytes() + of_operands;
        // A small batch has no more low tiles than a large GPU has multiprocessors.
        let blocks_at_once = match width {
            ProductWidth::Low => 1,
            _ => device.blocks_at_once(kernel, threads(kernel), of_products as u32)?,
        };
        let room = device.shared_memory_among(kernel, blocks_at_once.max(1))?;
        // Narrow networks have their weights in shared memory, and if all fit, need no stages.
        let (n_resident, of_weights, of_products) = match width {
            ProductWidth::Narrow => {
                let (n_all, of_all) = resident_layers(network, precision, room.saturating_sub(of_operands));
                if n_all as usize == network.layers().len() {
                    (n_all, of_all, of_operands)
                } else {
                    let (n_some, of_some) = resident_layers(network, precision, room.saturating_sub(of_products));
                    (n_some, of_some, of_products)
                }
            }
            _ => (0, 0, of_products),
        };
        let room = match needs.work {
            Work::Bend => 0, // from one kernel to the next
            Work::Training | Work::Particles => room.saturating_sub(of_products + of_weights),
        };
        let carried = carried(network, precision, needs, width.columns(), room);
        let bytes = of_products + of_weights + carried.n_shared as usize * unit_bytes(precision);
        Ok(SharedLayout {
            n_operand_chunks: n_chunks as u32,
            carried,
            n_resident,
            bytes: bytes as u32,
            blocks_at_once,
            columns: width.columns(),
        })
    }

    /// Of two kernels, `[broad, wide]`, the one for `network`, and its shared memory. Broad
    /// products pay where wide ones would need several for a layer, if shared memory holds the
    /// operand of the widest one.
    pub fn choose(
        device: &Device,
        precision: Precision,
        [broad, wide]: [Kernel; 2],
        network: &Network,
        needs: RowNeeds,
    ) -> Result<(Kernel, SharedLayout)> {
        let widest = network.widest_hidden();
        if widest > WIDE_COLUMNS {
            let layout = SharedLayout::of(device, precision, broad, network, needs, ProductWidth::Broad)?;
            if chunks(widest as u32, precision) <= layout.n_operand_chunks as usize {
                return Ok((broad, layout));
            }
        }
        Ok((wide, SharedLayout::of(device, precision, wide, network, needs, ProductWidth::Wide)?))
    }

    /// True if a result of `width` columns can take its operand's place: `Sweeps::stays`.
    pub fn keeps(&self, width: u32, precision: Precision) -> bool {
        width as usize <= self.columns && chunks(width, precision) <= self.n_operand_chunks as usize
    }

    /// Blocks for `n_tiles` tiles that each take one after the other: as many as run at a time.
    pub fn n_blocks(&self, device: &Device, n_tiles: u32) -> Result<u32> {
        Ok(n_tiles.min((device.n_multiprocessors()? * self.blocks_at_once.max(1)) as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cuda::testing;
    use crate::model::Architecture;

    /// Broad products from 129 columns on, as long as shared memory holds the operand: on a card of
    /// 163 KiB up to 320 columns of two bytes, and none of four.
    #[test]
    fn broad_products_are_chosen_where_their_operand_fits() {
        let device = testing::device();
        let chosen = |hidden: &[usize], precision: Precision| {
            let network = Network::new(&Architecture::new(3, hidden.to_vec()));
            let kernels = [Kernel::SweepBroad(precision), Kernel::Sweep(precision)];
            SharedLayout::choose(&device, precision, kernels, &network, RowNeeds::default()).expect("chosen")
        };
        for (hidden, precision, is_broad) in [
            (&[128, 128][..], Precision::Bf16, false),
            (&[20, 129], Precision::Bf16, true),
            (&[320], Precision::F16, true),
            (&[321], Precision::F16, false),
            (&[192], Precision::F32, false),
            (&[193], Precision::Tf32, false),
        ] {
            let (kernel, layout) = chosen(hidden, precision);
            assert_eq!(kernel == Kernel::SweepBroad(precision), is_broad, "{hidden:?}");
            assert!(layout.bytes as usize <= device.most_shared_memory(kernel).expect("known"));
        }
    }

    /// What threads carry fills shared memory, but never at the cost of a block.
    #[test]
    fn carried_values_cost_no_block() {
        let device = testing::device();
        let kernels = |precision| [Kernel::SweepBroad(precision), Kernel::Sweep(precision)];
        let mut some = 0;
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16, Precision::F16] {
            for width in [64, 128, 192, 256, 512] {
                let network = Network::new(&Architecture::new(3, vec![width; 3]));
                let needs = RowNeeds::default();
                let (kernel, layout) =
                    SharedLayout::choose(&device, precision, kernels(precision), &network, needs).expect("chosen");
                let blocks = device.blocks_at_once(kernel, threads(kernel), layout.bytes).expect("known");
                assert_eq!(blocks, layout.blocks_at_once, "{precision:?} {width}");
                some += layout.carried.n_shared;
                let room = device.shared_memory_among(kernel, blocks).expect("known") - layout.bytes as usize;
                let is_whole = layout.carried.n_shared == layout.carried.of_tile;
                let of_columns = layout.columns * needs.tiles.rows() * precision.bytes();
                assert!(is_whole || room < of_columns, "{precision:?} {width}: {room} bytes are left");
            }
        }
        assert!(some > 0);
    }
}
