//! Launches of `kernels/sweep.cu` and `kernels/sweep_narrow.cu`: the loss of a chunk of tiles, and
//! in narrow networks its partial weight gradients.

use super::super::abi::{
    BatchParams, CHUNK_BYTES, CarriedParams, DevicePtr, LAYER_SUM_BYTES, MOMENTS, NARROW_COLUMNS, NARROW_GROUPS,
    NARROW_STAGE_BYTES, NARROW_STAGES, Products, StepState, SweepNarrowParams, SweepParams, THREADS, TILE_ROWS,
    TileSums,
};
use super::super::carried::{carried, unit_bytes};
use super::super::driver::{Buffer, Device, Kernel};
use super::super::needs::{PointGradient, RowNeeds, Tiles, Work};
use super::super::network::Network;
use super::checks::{check_chunk, check_least, check_tiles};
use super::shared_layout::{ProductWidth, SharedLayout, resident_layers};
use super::{Packed, Rows, threads};
use crate::engine::batch::{LossForm, Potential};
use crate::error::{Result, check_len};
use crate::objective::Objective;
use crate::precision::Precision;

/// Sweeps over a chunk of tiles.
#[derive(Clone, Copy)]
pub struct Sweep<'a> {
    /// The action.
    pub action: Packed<'a>,
    /// Drawn or given rows; results and operands of the gradient are written to them.
    pub rows: &'a Rows,
    /// The chunk.
    pub batch: &'a BatchParams,
    /// Dynamics whose loss is formed.
    pub objective: &'a Objective,
    /// Terms of an interior row.
    pub form: LossForm,
    /// Multiplies the terms of all interior rows.
    pub scale: f32,
    /// Needed if a term of the interior rows contains s.
    pub potential: Potential,
    /// Of the step.
    pub state: &'a Buffer<StepState>,
    /// Written: one for each tile of the batch, or of the rank's shards of it.
    pub sums: &'a Buffer<TileSums>,
    /// Written if times follow the integrand: `[interior tiles, MOMENTS]`.
    pub tile_moments: Option<&'a Buffer<f64>>,
}

impl Sweep<'_> {
    /// The chunk in the tiles of the sweeps.
    fn tiles(&self) -> BatchParams {
        self.batch.in_tiles_of(self.rows.needs().tiles.rows())
    }

    /// The argument block, after checking the length of every buffer in it.
    fn params(&self) -> Result<SweepParams> {
        let Sweep { action, rows, batch, objective, form, scale, potential, state, sums, tile_moments } = *self;
        let tiles = self.tiles();
        action.check()?;
        rows.check(action.network, action.precision, Work::Training)?;
        check_chunk(batch)?;
        check_tiles("rows", batch.n_tiles, rows.n_rows())?;
        check_len("state of the step", 1, state.len())?;
        check_least("sums of tiles", tiles.all_tiles() as usize, sums.len())?;
        if let Some(moments) = tile_moments {
            check_least("moments of tiles", tiles.n_interior_tiles as usize * MOMENTS, moments.len())?;
        }
        Ok(SweepParams {
            network: action.network.params,
            rows: rows.params(),
            batch: tiles,
            weights: action.weights.address(),
            biases: action.biases.address(),
            state: state.address(),
            sums: sums.address(),
            moments: tile_moments.map_or(DevicePtr::NULL, Buffer::address),
            growth: objective.growth as f32,
            cost_exponent: objective.cost_exponent as f32,
            scale,
            has_time: u32::from(form.has_time()),
            has_drift: u32::from(form.has_drift()),
            has_velocity: u32::from(form.has_velocity()),
            with_potential: u32::from(potential == Potential::Needed),
            with_grad_x: u32::from(rows.needs().grad_x == PointGradient::Needed),
            carried: CarriedParams::default(),
            n_operand_chunks: 0,
            unused: 0,
        })
    }

    /// Launches the sweeps.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn launch(&self, device: &Device) -> Result<()> {
        let Sweep { action: Packed { network, precision, .. }, rows, batch, .. } = *self;
        check_tiles("slots", batch.n_tiles, rows.n_slots())?;
        let (kernel, layout) = sweep_kernel(device, precision, network, rows.needs())?;
        let SharedLayout { n_operand_chunks, carried, bytes, .. } = layout;
        let params = SweepParams { n_operand_chunks, carried, ..self.params()? };
        let n_blocks = layout.n_blocks(device, params.batch.n_tiles)?;
        // SAFETY: reads and writes the buffers of `self`, whose lengths `params` checks; rows and
        // slots hold the chunk's tiles (checked above), of which there are no fewer than blocks.
        unsafe { device.launch(kernel, [n_blocks, 1, 1], threads(kernel), bytes, &params) }
    }
}

/// Of the kernels for bf16 and f16, the one for `precision`.
pub(super) fn of_16_bits(precision: Precision, [bf16, f16]: [Kernel; 2]) -> Result<Kernel> {
    check_len("bytes of operands of 16 bits", 2, precision.bytes())?;
    Ok(if precision == Precision::F16 { f16 } else { bf16 })
}

/// The kernel for rows with `needs` of a network that is not narrow, and its shared memory.
pub fn sweep_kernel(
    device: &Device,
    precision: Precision,
    network: &Network,
    needs: RowNeeds,
) -> Result<(Kernel, SharedLayout)> {
    if network.products == Products::Wgmma {
        check_len("probes of products of warpgroups", 0, needs.n_probes)?;
        check_len("rows of tiles of products of warpgroups", TILE_ROWS, needs.tiles.rows())?;
        let kernel = of_16_bits(precision, [Kernel::SweepWgmmaBf16, Kernel::SweepWgmmaF16])?;
        return Ok((kernel, SharedLayout::of(device, precision, kernel, network, needs, ProductWidth::Warpgroup)?));
    }
    let [broad, wide, low] = if needs.n_probes > 0 {
        [Kernel::SweepBroadDiffusive, Kernel::SweepDiffusive, Kernel::SweepLowDiffusive]
    } else {
        [Kernel::SweepBroad, Kernel::Sweep, Kernel::SweepLow]
    }
    .map(|kernel| kernel(precision));
    match needs.tiles {
        Tiles::High => SharedLayout::choose(device, precision, [broad, wide], network, needs),
        Tiles::Middle => {
            let kernel = of_16_bits(precision, [Kernel::SweepMiddleBf16, Kernel::SweepMiddleF16])?;
            check_len("probes of middle tiles", 0, needs.n_probes)?;
            Ok((kernel, SharedLayout::of(device, precision, kernel, network, needs, ProductWidth::Broad)?))
        }
        Tiles::Low => Ok((low, SharedLayout::of(device, precision, low, network, needs, ProductWidth::Low)?)),
    }
}

/// The kernel of narrow networks for rows with `needs`, and how many of its blocks fit the
/// registers of a multiprocessor.
fn narrow_kernel(precision: Precision, needs: RowNeeds) -> (Kernel, usize) {
    if needs.n_probes > 0 {
        (Kernel::SweepNarrowDiffusive(precision), 1)
    } else {
        (Kernel::SweepNarrow(precision), if precision == Precision::F32 { 1 } else { 2 })
    }
}

/// The kernel of a narrow network for rows with `needs`, and its shared memory: that of its
/// products, the sums of `n_resident` layers, weights, and the first of the values that threads
/// carry.
pub fn narrow_layout(
    device: &Device,
    precision: Precision,
    network: &Network,
    needs: RowNeeds,
    n_resident: usize,
) -> Result<(Kernel, SharedLayout)> {
    let (kernel, blocks_at_once) = narrow_kernel(precision, needs);
    // The more of the sums and weights are on the chip the better; measured, sums come first.
    let of_sums = n_resident * LAYER_SUM_BYTES;
    let room = narrow_room(device, precision, needs)?.saturating_sub(of_sums);
    let (n_weights, of_weights) = resident_layers(network, precision, room);
    let carried = carried(network, precision, needs, NARROW_COLUMNS, room - of_weights);
    let of_carried = carried.n_shared as usize * unit_bytes(precision);
    let bytes = (narrow_product_bytes(precision) + of_sums + of_weights + of_carried) as u32;
    let (n_operand_chunks, columns) = ((NARROW_COLUMNS * precision.bytes() / CHUNK_BYTES) as u32, NARROW_COLUMNS);
    Ok((kernel, SharedLayout { n_operand_chunks, carried, n_resident: n_weights, bytes, blocks_at_once, columns }))
}

/// Bytes of shared memory of the products of `sweep_narrow`: a left operand and the stages of the
/// right one.
fn narrow_product_bytes(precision: Precision) -> usize {
    TILE_ROWS * NARROW_COLUMNS * precision.bytes() + NARROW_STAGES * NARROW_STAGE_BYTES
}

/// Bytes of shared memory of `sweep_narrow` besides those of its products.
pub fn narrow_room(device: &Device, precision: Precision, needs: RowNeeds) -> Result<usize> {
    // As many blocks as fit the registers of a multiprocessor must fit its shared memory.
    let (kernel, blocks_at_once) = narrow_kernel(precision, needs);
    Ok(device.shared_memory_among(kernel, blocks_at_once)?.saturating_sub(narrow_product_bytes(precision)))
}

/// Sweeps over a chunk of tiles of a narrow network, whose weight gradient is added to the partial
/// gradients of its groups: see `kernels/batch.cuh`.
#[derive(Clone, Copy)]
pub struct SweepNarrow<'a> {
    /// The sweeps.
    pub sweep: Sweep<'a>,
    /// Changed: `[groups, padded parameters]`.
    pub partials: &'a Buffer<f32>,
    /// Layers whose running sums lie in shared memory: the first ones.
    pub n_resident: usize,
    /// Running sums of the other layers: [`LAYER_SUM_BYTES`] for each block and layer.
    pub spilled: &'a Buffer<u8>,
}

impl SweepNarrow<'_> {
    /// Launches the sweeps, with one block for each group that has slots.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn launch(&self, device: &Device) -> Result<()> {
        let SweepNarrow { sweep, partials, n_resident, spilled } = *self;
        let Sweep { action: Packed { network, precision, .. }, rows, batch, .. } = sweep;
        let n_layers = network.layers().len();
        check_len("layers of a narrow network", 1, usize::from(network.is_narrow()))?;
        check_least("layers with resident sums", n_resident, n_layers)?;
        check_len("high tiles of a narrow network", 1, usize::from(rows.needs().tiles == Tiles::High))?;
        let n_groups = batch.groups_of(NARROW_GROUPS).min(batch.all_tiles() as usize);
        let n_blocks = (rows.n_slots() / TILE_ROWS).min(n_groups).min(batch.n_tiles as usize);
        check_least("partial gradients", n_groups * network.params.n_parameters as usize, partials.len())?;
        let spilled_bytes = n_blocks * (n_layers - n_resident) * LAYER_SUM_BYTES;
        check_least("spilled sums of the gradient", spilled_bytes, spilled.len())?;
        let (kernel, SharedLayout { carried, bytes, n_resident: n_resident_weights, .. }) =
            narrow_layout(device, precision, network, rows.needs(), n_resident)?;
        let params = SweepNarrowParams {
            sweep: SweepParams { carried, ..sweep.params()? },
            partials: partials.address(),
            spilled: spilled.address(),
            n_resident: n_resident as u32,
            n_resident_weights,
        };
        // SAFETY: reads and writes the buffers of `self` and `sweep`, whose lengths are checked
        // above and by `Sweep::params`; each block has slots and spilled sums, each group a partial
        // gradient.
        unsafe { device.launch(kernel, [n_blocks as u32, 1, 1], THREADS, bytes, &params) }
    }
}
