//! Argument blocks of the sweeps, the weight gradient and the bend.

use super::{BatchParams, CarriedParams, Const, DevicePtr, NetworkParams, Opaque, RowBuffers, StepState, TileSums};

device_types! {
    /// Arguments of `sweep`.
    struct SweepParams {
        network: NetworkParams,
        rows: RowBuffers,
        carried: CarriedParams,
        batch: BatchParams,
        /// T.
        weights: DevicePtr<Const<Opaque>>,
        biases: DevicePtr<Const<f32>>,
        state: DevicePtr<Const<StepState>>,
        /// `[tiles of the batch]`.
        sums: DevicePtr<TileSums>,
        /// `[tiles of the batch][MOMENTS]`: of the integrand; null unless times are
        /// importance-sampled.
        moments: DevicePtr<f64>,
        growth: f32,
        cost_exponent: f32,
        /// 1 / interior rows of the batch.
        scale: f32,
        /// True if the interior term contains the time derivative.
        has_time: u32,
        /// True if it contains H(∇s) and growth.
        has_drift: u32,
        /// True if it contains the velocity of the path.
        has_velocity: u32,
        /// True if interior rows need s.
        with_potential: u32,
        /// True if a bend needs the gradient at the points.
        with_grad_x: u32,
        /// In shared memory: see ProductMemory.
        n_operand_chunks: u32,
        unused: u32,
    }

    /// Arguments of `sweep_narrow`.
    struct SweepNarrowParams {
        /// One tile of slots per block.
        sweep: SweepParams,
        /// `[groups][n_parameters]`.
        partials: DevicePtr<f32>,
        /// `[blocks][n_layers - n_resident]` of LAYER_SUM_BYTES: sums that do not fit shared
        /// memory.
        spilled: DevicePtr<Opaque>,
        /// The first n_resident layers keep their sums in shared memory.
        n_resident: u32,
        /// Layers whose weights lie in shared memory, both ways.
        n_resident_weights: u32,
    }

    /// Arguments of `weight_grad`.
    struct WeightGradParams {
        network: NetworkParams,
        rows: RowBuffers,
        state: DevicePtr<Const<StepState>>,
        /// `[groups][n_parameters]`.
        partials: DevicePtr<f32>,
        /// All tiles have z_bar and a; the batch's first n_interior_tiles also the other channels.
        batch: BatchParams,
    }

    /// Arguments of `bend_forward` and `bend_backward`.
    struct BendParams {
        /// The bend's: dim is twice the action's.
        network: NetworkParams,
        /// The bend's: weight holds 2 r (1 - r).
        rows: RowBuffers,
        /// The bend's, of each tile from one pass to the other: none in shared memory.
        carried: CarriedParams,
        /// The action's, tile for tile.
        action: RowBuffers,
        /// T.
        weights: DevicePtr<Const<Opaque>>,
        biases: DevicePtr<Const<f32>>,
        state: DevicePtr<Const<StepState>>,
        action_in_width: u32,
        n_tiles: u32,
        /// In shared memory: see ProductMemory.
        n_operand_chunks: u32,
        unused: u32,
    }
}
