//! Argument blocks of the sweeps, the weight gradient and the bend.

use bytemuck::{Pod, Zeroable};
use cudarc::driver::DeviceRepr;

use super::params::{BatchParams, NetworkParams, RowBuffers};
use super::twins;

/// See `SweepParams` of `kernels/params.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct SweepParams {
    pub network: NetworkParams,
    pub rows: RowBuffers,
    pub batch: BatchParams,
    pub weights: u64,
    pub biases: u64,
    pub state: u64,
    pub sums: u64,
    pub moments: u64,
    pub growth: f32,
    pub cost_exponent: f32,
    pub scale: f32,
    pub has_time: u32,
    pub moves: u32,
    pub has_velocity: u32,
    pub with_potential: u32,
    pub with_grad_x: u32,
    pub n_operand_chunks: u32,
    pub unused: u32,
}

/// See `SweepNarrowParams` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct SweepNarrowParams {
    pub sweep: SweepParams,
    pub parts: u64,
    pub far_sums: u64,
    pub n_near: u32,
    pub accumulate: u32,
}

/// See `WeightGradParams` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct WeightGradParams {
    pub network: NetworkParams,
    pub rows: RowBuffers,
    pub state: u64,
    pub parts: u64,
    pub batch: BatchParams,
    pub tiles_per_part: u32,
    pub accumulate: u32,
}

/// See `BendParams` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BendParams {
    pub network: NetworkParams,
    pub rows: RowBuffers,
    pub action: RowBuffers,
    pub weights: u64,
    pub biases: u64,
    pub state: u64,
    pub action_in_width: u32,
    pub n_tiles: u32,
    pub n_operand_chunks: u32,
    pub unused: u32,
}

const NETWORK: usize = size_of::<NetworkParams>();
const ROWS: usize = size_of::<RowBuffers>();
const SWEEP: usize = NETWORK + ROWS + size_of::<BatchParams>() + 5 * 8 + 3 * 4 + 7 * 4;
twins! {
    SweepParams, SWEEP;
    SweepNarrowParams, SWEEP + 24;
    WeightGradParams, NETWORK + ROWS + size_of::<BatchParams>() + 24;
    BendParams, NETWORK + 2 * ROWS + 40;
}
