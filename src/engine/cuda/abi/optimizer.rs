//! Argument blocks of the kernels between the partial gradients and the next weights.

use bytemuck::{Pod, Zeroable};
use cudarc::driver::DeviceRepr;

use super::params::{BatchParams, NetworkParams};
use super::twins;

/// See `GatherParams` in `kernels/params.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct GatherParams {
    pub network: NetworkParams,
    pub n_parts: u32,
    pub n_blocks: u32,
    pub state: u64,
    pub parts: u64,
    pub gradient: u64,
    pub squares: u64,
}

/// See `StepSizes` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct StepSizes {
    pub gradient_scale: f32,
    pub toward1: f32,
    pub toward2: f32,
    pub step_size: f32,
    pub root_correction: f32,
    pub epsilon: f32,
    pub keep: f32,
    pub toward_ema: f32,
}

/// See `OptimizerParams` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct OptimizerParams {
    pub warmup_steps: u64,
    pub cosine_steps: u64,
    pub peak: f64,
    pub floor: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
    pub ema_decay: f64,
    pub clip_norm: f64,
}

/// See `TimesParams` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct TimesParams {
    pub tile_moments: u64,
    pub moments: u64,
    pub density: u64,
    pub cumulative: u64,
}

/// See `JudgedNetwork` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct JudgedNetwork {
    pub squares: u64,
    pub sizes: u64,
    pub relative_rate: f64,
    pub n_blocks: u32,
    pub unused: u32,
}

/// See `JudgeParams` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct JudgeParams {
    pub batch: BatchParams,
    pub optimizer: OptimizerParams,
    pub networks: [JudgedNetwork; 2],
    pub times: TimesParams,
    pub n_networks: u32,
    pub scales_loss: u32,
    pub capacity: u32,
    pub unused: u32,
    pub sums: u64,
    pub state: u64,
    pub history: u64,
}

/// See `UpdateParams` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct UpdateParams {
    pub network: NetworkParams,
    pub state: u64,
    pub sizes: u64,
    pub gradient: u64,
    pub parameters: u64,
    pub ema: u64,
    pub moment1: u64,
    pub moment2: u64,
    pub weights: u64,
    pub biases: u64,
}

twins! {
    GatherParams, size_of::<NetworkParams>() + 40;
    StepSizes, 32;
    OptimizerParams, 80;
    TimesParams, 32;
    JudgedNetwork, 32;
    JudgeParams, size_of::<BatchParams>() + 80 + 2 * 32 + 32 + 40;
    UpdateParams, size_of::<NetworkParams>() + 72;
}
