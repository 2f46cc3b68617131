//! The plan by which a network uses a GPU, in words.

use super::carried::unit_bytes;
use super::driver::{Device, Kernel};
use super::launch::SharedLayout;
use super::needs::RowNeeds;
use super::network::Network;
use crate::error::Result;
use crate::precision::Precision;

/// What a kernel keeps on the chip of a network's activations, a line for each layer.
pub fn describe(
    device: &Device,
    precision: Precision,
    network: &Network,
    needs: RowNeeds,
    (kernel, layout): (Kernel, SharedLayout),
) -> Result<String> {
    let SharedLayout { carried, bytes, blocks_at_once, .. } = layout;
    let tile_rows = needs.tiles.rows();
    let kibibytes = |bytes: usize| bytes.div_ceil(1 << 10);
    let room = kibibytes(device.shared_memory_among(kernel, 1)?);
    let mut text = format!(
        "{}: tiles of {tile_rows} rows; a multiprocessor runs {blocks_at_once} at a time, each with {} of its {room} \
         KiB of shared memory\n  layer  columns  operand of the next product  kept of a row for later sweeps\n",
        kernel.name(),
        kibibytes(bytes as usize),
    );
    let hidden = &network.layers()[..network.layers().len() - 1];
    let n_kinds = carried.of_tile.checked_div(carried.of_kind).unwrap_or(0);
    for (index, layer) in hidden.iter().enumerate() {
        let first = |kind: u32| kind * carried.of_kind + index as u32 * carried.of_layer;
        let on_chip: u32 =
            (0..n_kinds).map(|kind| carried.n_shared.saturating_sub(first(kind)).min(carried.of_layer)).sum();
        let bytes = |units: u32| units as usize * unit_bytes(precision) / tile_rows;
        let operand = if layout.keeps(layer.n_out, precision) { "on the chip" } else { "through L2" };
        let (index, width, kept, all) = (index + 1, layer.n_out, bytes(on_chip), bytes(n_kinds * carried.of_layer));
        text += &format!("  {index:<7}{width:<9}{operand:<29}{kept} of {all} bytes on the chip\n");
    }
    Ok(text)
}
