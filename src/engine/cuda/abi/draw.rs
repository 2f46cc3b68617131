//! Argument blocks of `draw`: the path and the rows of a batch.

use bytemuck::{Pod, Zeroable};
use cudarc::driver::DeviceRepr;

use super::params::{BatchParams, NetworkParams, RowBuffers};
use super::twins;

/// See `LinkParams` in `kernels/params.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct LinkParams {
    pub starts: u64,
    pub partners: u64,
    pub cumulative: u64,
    pub n_partners: u32,
    pub unused: u32,
}

/// See `CouplingParams` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct CouplingParams {
    pub pairs: u64,
    pub cumulative: u64,
    pub masses: u64,
    pub n_pairs: u32,
    pub unused: u32,
    pub by_left: LinkParams,
    pub by_right: LinkParams,
}

/// See `PathParams` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct PathParams {
    pub n_times: u32,
    pub n_snapshots: u32,
    pub interpolant: u32,
    pub unused: u32,
    pub times: u64,
    pub offsets: u64,
    pub samples: u64,
    pub masses: u64,
    pub couplings: u64,
}

/// See `DrawParams` in `kernels/params.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct DrawParams {
    pub network: NetworkParams,
    pub rows: RowBuffers,
    pub batch: BatchParams,
    pub path: u64,
    pub state: u64,
    pub density: u64,
    pub coefficients: u64,
    pub frequencies: u64,
    pub seed: u64,
    pub sigma: f64,
    pub probe_share: f64,
    pub time_rule: u32,
    pub estimator: u32,
    pub weak_intervals: u32,
    pub n_coefficients: u32,
    pub laplacian_rule: u32,
    pub sigma_schedule: u32,
}

twins! {
    LinkParams, 32;
    CouplingParams, 96;
    PathParams, 56;
    DrawParams, size_of::<NetworkParams>() + size_of::<RowBuffers>() + size_of::<BatchParams>() + 8 * 8 + 6 * 4;
}
