//! Shared memory for the left operands of a kernel's products.

use super::super::abi::{CHUNK_BYTES, NARROW_COLUMNS, NARROW_STAGES, OPERAND_CHUNK_BYTES, WIDE_COLUMNS, WIDE_STAGES};
use super::super::driver::{Device, Kernel};
use super::super::network::Network;
use crate::error::Result;
use crate::precision::Precision;

/// Columns that the products of a kernel work on at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductWidth {
    /// Wide columns: right for every network.
    Wide,
    /// Narrow columns: for layers that have no more.
    Narrow,
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
        let (n_stages, columns) = match width {
            ProductWidth::Wide => (WIDE_STAGES, WIDE_COLUMNS),
            ProductWidth::Narrow => (NARROW_STAGES, NARROW_COLUMNS),
        };
        let stage_bytes = n_stages * columns * CHUNK_BYTES;
        let room = device.most_shared_memory(kernel)?.saturating_sub(stage_bytes) / OPERAND_CHUNK_BYTES;
        let widths = network.layers().iter().flat_map(|layer| [layer.n_in, layer.n_out]);
        let chunks =
            widths.map(|width| width as usize * precision.bytes() / CHUNK_BYTES).filter(|&chunks| chunks <= room);
        let n_chunks = chunks.max().unwrap_or(0).max(n_stages);
        Ok(Operands { n_chunks: n_chunks as u32, shared: (stage_bytes + n_chunks * OPERAND_CHUNK_BYTES) as u32 })
    }
}
