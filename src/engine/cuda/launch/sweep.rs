//! One function per kernel of a training tile: checks sizes, chooses grid and shared memory,
//! launches.

use super::super::abi::{
    BatchParams, BendParams, CHUNK_BYTES, LAYER_SUM_BYTES, NARROW_COLUMNS, NARROW_STAGE_BYTES, NARROW_STAGES,
    NetworkParams, OPERAND_CHUNK_BYTES, RowBuffers, StepState, SweepNarrowParams, SweepParams, THREADS, TILE_ROWS,
    WEIGHT_GRAD_BYTES, WIDE_COLUMNS, WIDE_STAGES, WeightGradParams,
};
use super::super::driver::{Buffer, Device, kernel_of};
use super::super::network::Network;
use crate::error::{Result, check_len};
use crate::precision::Precision;

/// Where the products of a kernel keep their left operand: ProductMemory.
pub struct Operands {
    /// Chunks of it that shared memory has places for.
    pub n_chunks: u32,
    /// Bytes of shared memory that the kernel is to have.
    pub shared: u32,
}

impl Operands {
    /// Places for the widest operand of `network` that there is room for, or as many as a product
    /// has stages.
    pub fn of(
        device: &Device,
        precision: Precision,
        kernel: &'static str,
        network: &NetworkParams,
        is_wide: bool,
    ) -> Result<Operands> {
        let (n_stages, columns) = if is_wide { (WIDE_STAGES, WIDE_COLUMNS) } else { (NARROW_STAGES, NARROW_COLUMNS) };
        let stage_bytes = n_stages * columns * CHUNK_BYTES;
        let room = device.most_shared_memory(kernel)?.saturating_sub(stage_bytes) / OPERAND_CHUNK_BYTES;
        let layers = &network.layers[..network.n_layers as usize];
        let widths = layers.iter().flat_map(|layer| [layer.n_in, layer.n_out]);
        let chunks =
            widths.map(|width| width as usize * precision.bytes() / CHUNK_BYTES).filter(|&chunks| chunks <= room);
        let n_chunks = chunks.max().unwrap_or(0).max(n_stages);
        Ok(Operands { n_chunks: n_chunks as u32, shared: (stage_bytes + n_chunks * OPERAND_CHUNK_BYTES) as u32 })
    }
}

/// Checks that a chunk of tiles fits the rows, or the slots.
fn check_chunk(capacity: u32, n_tiles: usize) -> Result<()> {
    check_len("rows (tiles)", n_tiles, n_tiles.min(capacity as usize / TILE_ROWS))
}

/// Sweeps over the chunk of tiles in `params.batch`.
pub fn sweep(device: &Device, precision: Precision, params: &SweepParams) -> Result<()> {
    let n_tiles = params.batch.n_tiles;
    check_chunk(params.rows.n_slots, n_tiles as usize)?;
    let kernel = if params.rows.n_probes > 0 {
        kernel_of!(precision, "sweep_diffusive")
    } else {
        kernel_of!(precision, "sweep")
    };
    let Operands { n_chunks, shared } = Operands::of(device, precision, kernel, &params.network, true)?;
    let params = SweepParams { n_operand_chunks: n_chunks, ..*params };
    // SAFETY: the rows hold `n_tiles` tiles of this network (checked); the caller takes addresses
    // from live buffers of its learner and workspace.
    unsafe { device.launch(kernel, [n_tiles, 1, 1], THREADS, shared, &params) }
}

/// The kernel of narrow networks, and how many of its blocks fit the registers of a multiprocessor.
pub fn narrow_kernel(precision: Precision, n_probes: usize) -> (&'static str, usize) {
    if n_probes > 0 {
        (kernel_of!(precision, "sweep_narrow_diffusive"), 1)
    } else {
        (kernel_of!(precision, "sweep_narrow"), if precision == Precision::F32 { 1 } else { 2 })
    }
}

/// Sweeps over the chunk of tiles in `params.batch`, with one partial weight gradient per block:
/// running sums of the first `n_near` layers in shared memory, the others in `far_sums`.
/// `accumulate`: whether the partial gradients already hold earlier chunks.
pub fn sweep_narrow(
    device: &Device,
    precision: Precision,
    params: &SweepParams,
    (parts, far_sums): (&Buffer<f32>, &Buffer<u8>),
    n_near: u32,
    accumulate: bool,
) -> Result<()> {
    let SweepParams { network, rows, batch, .. } = params;
    check_chunk(rows.n_rows, batch.n_tiles as usize)?;
    let n_blocks = (rows.n_slots / TILE_ROWS as u32).min(batch.n_tiles);
    let n_values = n_blocks as usize * network.n_parameters as usize;
    check_len("parts of the gradient", n_values, n_values.min(parts.len()))?;
    let far_bytes = n_blocks as usize * (network.n_layers - n_near) as usize * LAYER_SUM_BYTES;
    check_len("far sums of the gradient", far_bytes, far_bytes.min(far_sums.len()))?;
    let shared = NARROW_STAGE_BYTES + n_near as usize * LAYER_SUM_BYTES;
    let params = SweepNarrowParams {
        sweep: *params,
        parts: parts.address(),
        far_sums: far_sums.address(),
        n_near,
        accumulate: u32::from(accumulate),
    };
    let (kernel, _) = narrow_kernel(precision, rows.n_probes as usize);
    // SAFETY: the rows hold the tiles, and each block has slots, a partial gradient and `far_sums`
    // (checked); the caller takes addresses from live buffers.
    unsafe { device.launch(kernel, [n_blocks, 1, 1], THREADS, shared as u32, &params) }
}

/// A chunk of tiles whose weight gradient is wanted.
pub struct GradChunk {
    /// The chunk; interior-like tiles have all channels.
    pub batch: BatchParams,
    /// Tiles that one partial sum has.
    pub tiles_per_part: u32,
    /// Whether earlier chunks are in the partial sums.
    pub accumulate: bool,
}

/// Partial sums of the weight gradient of a chunk, into `parts`.
pub fn weight_grad(
    device: &Device,
    precision: Precision,
    network: &Network,
    rows: &RowBuffers,
    (state, parts): (&Buffer<StepState>, &Buffer<f32>),
    chunk: &GradChunk,
) -> Result<()> {
    let n_tiles = chunk.batch.n_tiles;
    check_chunk(rows.n_slots, n_tiles as usize)?;
    check_len("tiles of the parts", n_tiles as usize, n_tiles.min(chunk.batch.all_tiles()) as usize)?;
    let n_parts = n_tiles.div_ceil(chunk.tiles_per_part);
    let n_values = n_parts as usize * network.params.n_parameters as usize;
    check_len("parts of the gradient", n_values, n_values.min(parts.len()))?;
    let params = WeightGradParams {
        network: network.params,
        rows: *rows,
        state: state.address(),
        parts: parts.address(),
        batch: chunk.batch,
        tiles_per_part: chunk.tiles_per_part,
        accumulate: u32::from(chunk.accumulate),
    };
    let grid = [network.n_grad_tiles as u32, n_parts, 1];
    // SAFETY: the rows hold the chunk, and the parts are as many as the grid has (both checked).
    unsafe { device.launch(kernel_of!(precision, "weight_grad"), grid, THREADS, WEIGHT_GRAD_BYTES as u32, &params) }
}

/// Displaces the points of the first `params.n_tiles` tiles by the bend.
pub fn bend_forward(device: &Device, precision: Precision, params: &BendParams) -> Result<()> {
    bend(device, precision, kernel_of!(precision, "bend_forward"), params)
}

/// Adjoint sweep of the bend from the gradient at the points.
pub fn bend_backward(device: &Device, precision: Precision, params: &BendParams) -> Result<()> {
    bend(device, precision, kernel_of!(precision, "bend_backward"), params)
}

fn bend(device: &Device, precision: Precision, kernel: &'static str, params: &BendParams) -> Result<()> {
    check_chunk(params.rows.n_slots, params.n_tiles as usize)?;
    check_chunk(params.action.n_rows, params.n_tiles as usize)?;
    let Operands { n_chunks, shared } = Operands::of(device, precision, kernel, &params.network, true)?;
    let params = BendParams { n_operand_chunks: n_chunks, ..*params };
    // SAFETY: both sets of rows hold the tiles (checked); the caller takes addresses from live
    // buffers.
    unsafe { device.launch(kernel, [params.n_tiles, 1, 1], THREADS, shared, &params) }
}
