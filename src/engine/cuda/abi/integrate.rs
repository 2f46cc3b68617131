//! Argument blocks of the particles.

use bytemuck::{Pod, Zeroable};
use cudarc::driver::DeviceRepr;

use super::params::{NetworkParams, RowBuffers};
use super::shape::MAX_STAGES;
use super::twins;

/// See `Tableau` in `kernels/params.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct TableauParams {
    pub n_stages: u32,
    pub first_same_as_last: u32,
    pub nodes: [f64; MAX_STAGES],
    pub stages: [[f64; MAX_STAGES - 1]; MAX_STAGES - 1],
    pub weights: [f64; MAX_STAGES],
    pub error: [f64; MAX_STAGES],
}

/// See `FixedStep` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct FixedStep {
    pub t: f64,
    pub h: f64,
    pub deviation: f32,
    pub unused: u32,
}

/// See `IntegrationBlock` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct IntegrationBlock {
    pub velocity_evaluations: u64,
    pub accepted_steps: u64,
    pub rejected_steps: u64,
    pub failed_tile: u64,
    pub failed_step: u64,
    pub failed_time: f64,
    pub failure: u32,
    pub unused: u32,
}

/// See `IntegrateParams` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct IntegrateParams {
    pub network: NetworkParams,
    pub rows: RowBuffers,
    pub weights: u64,
    pub biases: u64,
    pub positions: u64,
    pub log_weights: u64,
    pub log_density: u64,
    pub n_particles: u64,
    pub first_particle: u64,
    pub tableau: TableauParams,
    pub steps: u64,
    pub steps_before: u64,
    pub save_at: u64,
    pub t0: f64,
    pub direction: f64,
    pub rtol: f64,
    pub atol: f64,
    pub frequencies: u64,
    pub seed: u64,
    pub scratch: u64,
    pub slot_size: u64,
    pub blocks: u64,
    pub growth: f32,
    pub cost_exponent: f32,
    pub share: f32,
    pub n_saved: u32,
    pub increments_per_step: u32,
    pub rule: u32,
    pub n_operand_chunks: u32,
    pub unused: u32,
}

/// `IntegrationFailure::kTolerance` there; the other one is a value that is not finite.
pub const TOLERANCE: u32 = 2;

const TABLEAU_BYTES: usize = 8 + 8 * (3 * MAX_STAGES + (MAX_STAGES - 1) * (MAX_STAGES - 1));
twins! {
    TableauParams, TABLEAU_BYTES;
    FixedStep, 24;
    IntegrationBlock, 56;
    IntegrateParams, size_of::<NetworkParams>() + size_of::<RowBuffers>() + TABLEAU_BYTES + 19 * 8 + 8 * 4;
}
