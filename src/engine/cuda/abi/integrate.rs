//! Argument blocks of the particles.

use super::{
    CarriedParams, Const, DevicePtr, IntegrationFailure, LaplacianRule, MAX_STAGES, NetworkParams, Opaque, RowBuffers,
    Tag,
};

device_types! {
    /// The library's Butcher tableau: row i of `stages` forms the point of stage i + 1.
    struct TableauParams {
        n_stages: u32,
        first_same_as_last: u32,
        nodes: [f64; MAX_STAGES],
        stages: [[f64; MAX_STAGES - 1]; MAX_STAGES - 1],
        weights: [f64; MAX_STAGES],
        error: [f64; MAX_STAGES],
    }

    /// A fixed step: from t by h.
    struct FixedStep {
        t: f64,
        h: f64,
        /// Standard deviation of each increment of its noise.
        deviation: f32,
        unused: u32,
    }

    /// Report of one block. A block stops at its first failed tile. As its tiles ascend, the
    /// smallest failed tile of all blocks is the smallest that would fail.
    struct IntegrationBlock {
        velocity_evaluations: u64,
        accepted_steps: u64,
        rejected_steps: u64,
        failed_tile: u64,
        failed_step: u64,
        failed_time: f64,
        failure: Tag<IntegrationFailure>,
        unused: u32,
    }

    /// Arguments of the kernels that move particles.
    struct IntegrateParams {
        network: NetworkParams,
        /// TILE_ROWS rows for each block.
        rows: RowBuffers,
        carried: CarriedParams,
        /// T.
        weights: DevicePtr<Const<Opaque>>,
        biases: DevicePtr<Const<f32>>,
        /// `[n_saved][n_particles][dim]`.
        positions: DevicePtr<f32>,
        /// `[n_saved][n_particles]`, or null if not integrated.
        log_weights: DevicePtr<f32>,
        /// `[n_saved][n_particles]`, or null if not integrated.
        log_density: DevicePtr<f32>,
        n_particles: u64,
        /// Its index among all particles, which random numbers depend on.
        first_particle: u64,
        tableau: TableauParams,
        /// Null: steps are adaptive.
        steps: DevicePtr<Const<FixedStep>>,
        /// `[n_saved]`: fixed steps before each saved time.
        steps_before: DevicePtr<Const<u32>>,
        /// `[n_saved]`.
        save_at: DevicePtr<Const<f64>>,
        t0: f64,
        direction: f64,
        rtol: f64,
        atol: f64,
        /// `[(n_features - 1) / 2]`.
        frequencies: DevicePtr<Const<f64>>,
        seed: u64,
        /// slot_size floats for each block.
        scratch: DevicePtr<f32>,
        slot_size: u64,
        /// `[grid]`.
        blocks: DevicePtr<IntegrationBlock>,
        growth: f32,
        cost_exponent: f32,
        /// Weight of the curvature along one direction.
        probe_weight: f32,
        n_saved: u32,
        increments_per_step: u32,
        rule: Tag<LaplacianRule>,
        /// In shared memory: see ProductMemory.
        n_operand_chunks: u32,
        /// Layers whose weights lie in shared memory, both ways. Only of narrow networks.
        n_resident: u32,
    }
}
