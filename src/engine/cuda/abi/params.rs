//! Argument blocks that several kernels take.

use bytemuck::{Pod, Zeroable};
use cudarc::driver::DeviceRepr;

use super::shape::{MAX_LAYERS, MAX_PARTS};
use super::twins;

/// See `LayerParams` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct LayerParams {
    pub n_in: u32,
    pub n_out: u32,
    pub in_size: u32,
    pub out_size: u32,
    pub forward: u32,
    pub reverse: u32,
    pub bias: u32,
    pub parameters: u32,
    pub place: u32,
    pub grad_tile: u32,
}

/// See `NetworkParams` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct NetworkParams {
    pub n_layers: u32,
    pub dim: u32,
    pub n_features: u32,
    pub n_outputs: u32,
    pub activation: u32,
    pub head: u32,
    pub n_parameters: u32,
    pub places: u32,
    pub layers: [LayerParams; MAX_LAYERS],
}

/// See `RowBuffers` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct RowBuffers {
    pub n_rows: u32,
    pub n_slots: u32,
    pub n_probes: u32,
    pub unused: u32,
    pub x: u64,
    pub t: u64,
    pub d_phi: u64,
    pub velocity: u64,
    pub weight: u64,
    pub on_potential: u64,
    pub measure: u64,
    pub kappa: u64,
    pub a_in: u64,
    pub e_in: u64,
    pub s: u64,
    pub grad_s: u64,
    pub ds_dt: u64,
    pub generator: u64,
    pub grad_x: u64,
    pub c_in: u64,
    pub a: u64,
    pub c: u64,
    pub delta: u64,
    pub z_bar: u64,
    pub f1: u64,
    pub g: u64,
    pub f2: u64,
    pub h: u64,
    pub u_f3: u64,
    pub e_a: u64,
    pub e_z: u64,
    pub output: u64,
    pub output_c: u64,
    pub output_e: u64,
    pub input_grad: u64,
    pub seed_sums: u64,
}

/// Kind of a part of a batch, numbered as `PartKind` there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum PartKind {
    Interior,
    Center,
    CenterEnds,
    Boundary0,
    Boundary1,
    WeakEnds0,
    WeakEnds1,
}

impl PartKind {
    /// The kind of this number.
    pub fn of(number: u32) -> Option<PartKind> {
        use PartKind::{Boundary0, Boundary1, Center, CenterEnds, Interior, WeakEnds0, WeakEnds1};
        [Interior, Center, CenterEnds, Boundary0, Boundary1, WeakEnds0, WeakEnds1].get(number as usize).copied()
    }

    /// Whether its rows have the interior term, and so the channels of δ and c.
    pub fn is_interior(self) -> bool {
        matches!(self, PartKind::Interior | PartKind::Center)
    }
}

/// See `Part` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Part {
    pub kind: u32,
    pub first_tile: u32,
    pub n_tiles: u32,
    pub n_rows: u32,
    pub sum_scale: f32,
}

/// See `Batch` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct BatchParams {
    pub n_parts: u32,
    pub n_interior_tiles: u32,
    pub first_tile: u32,
    pub n_tiles: u32,
    pub n_interior: u32,
    pub n_boundary: u32,
    pub parts: [Part; MAX_PARTS],
}

/// See `TileSums` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct TileSums {
    pub value: f64,
    pub kinetic: f64,
}

/// See `StepState` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct StepState {
    pub step: u64,
    pub halted: u32,
    pub apply: u32,
    pub n_records: u32,
    pub good_steps: u32,
    pub loss_scale: f32,
    pub unused: u32,
}

/// See `StepRecord` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct DeviceRecord {
    pub step: u64,
    pub loss: f64,
    pub boundary0: f64,
    pub boundary1: f64,
    pub interior: f64,
    pub kinetic: f64,
    pub gradient_norm: f64,
    pub learning_rate: f64,
}

twins! {
    LayerParams, 40;
    NetworkParams, 32 + 40 * MAX_LAYERS;
    RowBuffers, 16 + 32 * 8;
    Part, 20;
    BatchParams, 24 + 20 * MAX_PARTS;
    TileSums, 16;
    StepState, 32;
    DeviceRecord, 64;
}
