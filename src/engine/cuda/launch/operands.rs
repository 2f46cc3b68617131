//! Shared memory for the left operands of a kernel's products.

use super::super::abi::{
    BROAD_COLUMNS, CHUNK_BYTES, NARROW_COLUMNS, NARROW_STAGES, OPERAND_CHUNK_BYTES, WIDE_COLUMNS, WIDE_STAGES,
};
use super::super::driver::{Device, Kernel};
use super::super::network::Network;
use crate::error::Result;
use crate::precision::Precision;

/// Columns that the products of a kernel form at a time. A layer with no more than these leaves its
/// operand in shared memory for the next product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductWidth {
    /// [`BROAD_COLUMNS`], with one block per multiprocessor: right for every network.
    Broad,
    /// [`WIDE_COLUMNS`], with two blocks in bf16: right for every network.
    Wide,
    /// [`NARROW_COLUMNS`]: for networks whose layers have no more.
    Narrow,
}

impl ProductWidth {
    /// Bytes of the pipeline stages of the right operand.
    fn stage_bytes(self) -> usize {
        CHUNK_BYTES
            * match self {
                ProductWidth::Broad => WIDE_STAGES * BROAD_COLUMNS,
                ProductWidth::Wide => WIDE_STAGES * WIDE_COLUMNS,
                ProductWidth::Narrow => NARROW_STAGES * NARROW_COLUMNS,
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

/// Shared memory of the left operands of a kernel: ProductMemory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operands {
    /// Chunks of it that shared memory has room for.
    pub n_chunks: u32,
    /// Bytes of shared memory that the kernel is to have.
    pub shared: u32,
}

impl Operands {
    /// Room for the widest operand of `network` that fits, or for as many chunks as a product has
    /// pipeline stages.
    pub fn of(
        device: &Device,
        precision: Precision,
        kernel: Kernel,
        network: &Network,
        width: ProductWidth,
    ) -> Result<Operands> {
        let room = device.most_shared_memory(kernel)?.saturating_sub(width.stage_bytes()) / OPERAND_CHUNK_BYTES;
        let widths = network.layers().iter().flat_map(|layer| [layer.n_in, layer.n_out]);
        let fit = widths.map(|width| chunks(width, precision)).filter(|&chunks| chunks <= room);
        let n_chunks = fit.max().unwrap_or(0).max(width.least_chunks());
        let shared = width.stage_bytes() + n_chunks * OPERAND_CHUNK_BYTES;
        Ok(Operands { n_chunks: n_chunks as u32, shared: shared as u32 })
    }

    /// Of two kernels, `[broad, wide]`, the one for `network`, and its shared memory. Broad products
    /// pay where wide ones would need several for a layer, if shared memory holds the operand of
    /// the widest one.
    pub fn choose(
        device: &Device,
        precision: Precision,
        [broad, wide]: [Kernel; 2],
        network: &Network,
    ) -> Result<(Kernel, Operands)> {
        let hidden = network.layers().iter().rev().skip(1).map(|layer| layer.n_out);
        let widest = hidden.max().unwrap_or(0);
        if widest as usize > WIDE_COLUMNS {
            let operands = Operands::of(device, precision, broad, network, ProductWidth::Broad)?;
            if chunks(widest, precision) <= operands.n_chunks as usize {
                return Ok((broad, operands));
            }
        }
        Ok((wide, Operands::of(device, precision, wide, network, ProductWidth::Wide)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cuda::testing;
    use crate::model::Architecture;

    /// Broad products from 129 columns on, as long as shared memory holds the operand: on a card of
    /// 163 KiB up to 384 columns of two bytes, and none of 193 columns of four.
    #[test]
    fn broad_products_are_chosen_where_their_operand_fits() {
        let device = testing::device();
        let chosen = |hidden: &[usize], precision: Precision| {
            let network = Network::new(&Architecture::new(3, hidden.to_vec()));
            let kernels = [Kernel::SweepBroad(precision), Kernel::Sweep(precision)];
            Operands::choose(&device, precision, kernels, &network).expect("chosen")
        };
        for (hidden, precision, is_broad) in [
            (&[128, 128][..], Precision::Bf16, false),
            (&[20, 129], Precision::Bf16, true),
            (&[384], Precision::F16, true),
            (&[385], Precision::F16, false),
            (&[192], Precision::F32, true),
            (&[193], Precision::Tf32, false),
        ] {
            let (kernel, operands) = chosen(hidden, precision);
            assert_eq!(kernel == Kernel::SweepBroad(precision), is_broad, "{hidden:?}");
            assert!(operands.shared as usize <= device.most_shared_memory(kernel).expect("known"));
        }
    }
}
