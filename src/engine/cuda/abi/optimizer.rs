//! Argument blocks of the kernels between the partial gradients and the next weights.

use super::{BatchParams, Const, DevicePtr, DeviceRecord, NetworkParams, Opaque, Products, StepState, Tag, TileSums};

device_types! {
    /// Arguments of `gather_gradient`, which sums the partial gradients, and of `add_partials`,
    /// which sums those of a rank. Like `update` they run one block for each of the n_blocks tiles
    /// of the parameters (optimizer/param_tile.cuh).
    struct GatherParams {
        network: NetworkParams,
        n_partials: u32,
        n_blocks: u32,
        /// Shards that the partials are of: a power of two, MAX_SHARDS at most.
        n_shards: u32,
        unused: u32,
        state: DevicePtr<Const<StepState>>,
        /// `[n_partials][n_parameters]`.
        partials: DevicePtr<Const<f32>>,
        /// `[n_parameters]`; of a rank's own sum, not yet without the loss scale.
        gradient: DevicePtr<f32>,
        /// `[n_blocks]`: Σ g² of each block; not of a rank's own sum.
        squares: DevicePtr<f64>,
    }

    /// Arguments of `add_slices`, which adds the sums of ranks.
    struct SliceParams {
        /// A power of two, MAX_SHARDS at most.
        n_ranks: u32,
        rank: u32,
        /// Elements of the slice, a multiple of four.
        n_elements: u32,
        /// Between the sums of two ranks, likewise.
        stride: u32,
        state: DevicePtr<Const<StepState>>,
        /// The rank's own sum of the slice, `[n_elements]`.
        own: DevicePtr<Const<f32>>,
        /// Those of the others, `[n_ranks][stride]`.
        sums: DevicePtr<Const<f32>>,
        /// `[n_elements]`.
        gradient: DevicePtr<f32>,
    }

    /// AdamW factors of one step for one network.
    struct StepSizes {
        /// min(1, clip / norm).
        gradient_scale: f32,
        /// 1 - beta1.
        toward1: f32,
        /// 1 - beta2.
        toward2: f32,
        /// rate / (1 - beta1^n).
        step_size: f32,
        /// 1 / sqrt(1 - beta2^n).
        root_correction: f32,
        epsilon: f32,
        /// 1 - rate * decay.
        decay_factor: f32,
        /// Step of the moving average: the library's Optimizer::ema_rate.
        toward_ema: f32,
    }

    /// The library's Optimizer with its LearningRate.
    struct OptimizerParams {
        warmup_steps: u64,
        /// The step at which the cosine ends; 0 keeps the peak.
        cosine_steps: u64,
        peak: f64,
        floor: f64,
        beta1: f64,
        beta2: f64,
        epsilon: f64,
        weight_decay: f64,
        ema_decay: f64,
        /// Infinite: does not clip.
        clip_norm: f64,
    }

    /// The library's TimeMoments and TimeDensity.
    struct TimesParams {
        /// `[ranks][n_interior_tiles of GatheredParams][MOMENTS]`; only those of the first part are
        /// read. Null unless times are importance-sampled.
        tile_moments: DevicePtr<Const<f64>>,
        /// `[MOMENTS]`, as a checkpoint holds them.
        moments: DevicePtr<f32>,
        /// `[TIME_KNOTS]`: used by the next draw.
        density: DevicePtr<f64>,
        /// `[TIME_KNOTS]`: its integral from 0.
        cumulative: DevicePtr<f64>,
    }

    /// How values of tiles, which sweeps leave in the order of a rank's tiles, lie once those of
    /// all ranks are gathered.
    struct GatheredParams {
        /// Of the batch's shards.
        log2_shards: u32,
        /// Of a rank's shards.
        log2_own: u32,
        /// Of the tiles of the sweeps in TILE_ROWS rows.
        log2_of_high: u32,
        /// Places for the sums of a rank's tiles.
        n_tiles: u32,
        /// Places for the moments of a rank's interior-like tiles.
        n_interior_tiles: u32,
    }

    /// One network in `finish_step`.
    struct StepNetworkParams {
        /// `[n_blocks]`.
        squares: DevicePtr<Const<f64>>,
        sizes: DevicePtr<StepSizes>,
        /// In units of the learning rate.
        relative_rate: f64,
        n_blocks: u32,
        unused: u32,
    }

    /// Arguments of `finish_step`.
    struct FinishStepParams {
        /// The whole batch: its chunk is ignored.
        batch: BatchParams,
        optimizer: OptimizerParams,
        /// The action, and the bend if there is one.
        networks: [StepNetworkParams; 2],
        times: TimesParams,
        gathered: GatheredParams,
        n_networks: u32,
        /// True if the loss scale adapts.
        scales_loss: u32,
        /// Of `history`; when full, steps are skipped until the host drains it.
        capacity: u32,
        /// `[ranks][n_tiles of gathered]`.
        sums: DevicePtr<Const<TileSums>>,
        state: DevicePtr<StepState>,
        history: DevicePtr<DeviceRecord>,
    }

    /// Arguments of `update`: the optimizer step of one network.
    struct UpdateParams {
        network: NetworkParams,
        state: DevicePtr<Const<StepState>>,
        sizes: DevicePtr<Const<StepSizes>>,
        gradient: DevicePtr<Const<f32>>,
        parameters: DevicePtr<f32>,
        ema: DevicePtr<f32>,
        moment1: DevicePtr<f32>,
        moment2: DevicePtr<f32>,
        /// T: packed, W and its transpose.
        weights: DevicePtr<Opaque>,
        biases: DevicePtr<f32>,
        /// Order of the packed weights.
        products: Tag<Products>,
        unused: u32,
    }
}
