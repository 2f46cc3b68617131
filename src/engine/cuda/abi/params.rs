//! Argument blocks that several kernels take.

use super::{Activation, DevicePtr, Head, MAX_LAYERS, MAX_PARTS, Opaque, PartKind, Tag};

device_types! {
    /// One linear map, padded from n_in_real and n_out_real to n_in and n_out. Offsets are in
    /// elements.
    struct LayerParams {
        n_in: u32,
        n_out: u32,
        n_in_real: u32,
        n_out_real: u32,
        /// `[n_out][n_in]`, into the packed weights.
        forward: u32,
        /// `[n_in][n_out]`, into the packed weights.
        reverse: u32,
        /// `[n_out]`, into the packed biases.
        bias: u32,
        /// Into the padded parameters: weight `[n_out][n_in]`, then bias.
        parameters: u32,
        /// Of the map's output within the activations of a row: see RowBuffers.
        offset: u32,
        /// Index of its first weight-gradient tile, over all layers.
        grad_tile: u32,
    }

    struct NetworkParams {
        /// Hidden layers and the output.
        n_layers: u32,
        dim: u32,
        n_features: u32,
        n_outputs: u32,
        activation: Tag<Activation>,
        head: Tag<Head>,
        /// Padded.
        n_parameters: u32,
        /// Σ padded widths of hidden layers and output.
        row_elements: u32,
        layers: [LayerParams; MAX_LAYERS],
    }

    /// Inputs, outputs and scratch memory of the rows of a launch.
    ///
    /// Per-row buffers hold inputs and results. Per-slot buffers hold a tile's activations while
    /// its sweeps run. If a later kernel reads the activations, every row has its own slot;
    /// otherwise a block reuses its slots for all its tiles. Activation buffers hold
    /// `[n_slots][width]` for each hidden layer and the output, one after the other: the output of
    /// map l starts at element n_slots * offset. Activation buffers of probes repeat that for each
    /// probe.
    struct RowBuffers {
        /// Capacity, in multiples of TILE_ROWS; a launch may use less.
        n_rows: u32,
        /// Likewise.
        n_slots: u32,
        n_probes: u32,
        /// Rows of a tile of the sweeps; a divisor of TILE_ROWS.
        tile_rows: u32,

        /// Input, `[rows][dim]`.
        x: DevicePtr<f32>,
        /// Input, `[rows]`.
        t: DevicePtr<f32>,
        /// Input, `[rows][n_features]`: time derivatives of the time features.
        d_phi: DevicePtr<f32>,
        /// Input, `[rows][dim]`: of the path.
        velocity: DevicePtr<f32>,
        /// Input, `[rows]`: weight of the interior term.
        weight: DevicePtr<f32>,
        /// Input, `[rows]`: weight of s.
        on_potential: DevicePtr<f32>,
        /// Input, `[rows]`: weight of the time drawn.
        sampling_weight: DevicePtr<f32>,
        /// Input, `[rows]`: weight of one probe's εᵀ∇²s ε, not yet multiplied by `weight`.
        kappa: DevicePtr<f32>,
        /// Input, T: `[rows][n_in of the first layer]`.
        a_in: DevicePtr<Opaque>,
        /// Input, T: `[probe][rows][n_in of the first layer]`.
        e_in: DevicePtr<Opaque>,

        /// Output, `[rows]`.
        s: DevicePtr<f32>,
        /// Output, `[rows][dim]`.
        grad_s: DevicePtr<f32>,
        /// Output, `[rows]`.
        ds_dt: DevicePtr<f32>,
        /// Output, `[rows]`: weight (∂ₜs + w·∇s) + weight kappa Σ eᵀ∇²s e; only with probes.
        generator: DevicePtr<f32>,
        /// Output, `[rows][dim]`: gradient of each row's loss term in its point; only with a bend.
        grad_x: DevicePtr<f32>,

        /// Scratch, T: `[slots][n_in of the first layer]`.
        c_in: DevicePtr<Opaque>,
        /// Scratch, T.
        a: DevicePtr<Opaque>,
        /// Scratch, T.
        c: DevicePtr<Opaque>,
        /// Scratch, T; may share the memory of a.
        delta: DevicePtr<Opaque>,
        /// Scratch, T.
        z_bar: DevicePtr<Opaque>,
        /// Scratch, T; only with probes.
        e_a: DevicePtr<Opaque>,
        /// Scratch, T; only with probes.
        e_bar: DevicePtr<Opaque>,
        /// Scratch, S: `[tiles of slots][units]` of what threads carry, see CarriedParams.
        carried: DevicePtr<Opaque>,
        /// Scratch, `[slots][n_out of the last layer]`.
        output: DevicePtr<f32>,
        /// Scratch, `[slots][n_out of the last layer]`.
        output_c: DevicePtr<f32>,
        /// Scratch, `[probe][slots][n_out of the last layer]`.
        output_e: DevicePtr<f32>,
        /// Scratch, `[slots][n_in of the first layer]`.
        input_grad: DevicePtr<f32>,
        /// Scratch, `[tiles of slots][WARPS][n_out of the last layer]`: sums of the output's
        /// unrounded z_bar.
        seed_sums: DevicePtr<f32>,
    }

    /// Values that each thread carries from one sweep to a later one, counted in units: eight
    /// elements of each thread of a block.
    struct CarriedParams {
        /// Units of a hidden layer.
        of_layer: u32,
        /// Units of one kind of values, such as f', of all hidden layers.
        of_kind: u32,
        /// Units of all kinds.
        of_tile: u32,
        /// The first units, which lie in shared memory: those of whole groups of columns.
        n_shared: u32,
    }

    struct Part {
        kind: Tag<PartKind>,
        first_tile: u32,
        n_tiles: u32,
        /// The number of the part's first tile among all tiles of the batch. It is first_tile,
        /// unless a rank has some shards alone.
        first_of_batch: u32,
        /// The first n_rows rows count; padding rows have weight 0.
        n_rows: u32,
        /// The factor common to all rows, 1 / n of a mean, is a power of two times sum_scale in
        /// [1, 2). Operands carry the power of two, which is exact; sums over rows are multiplied
        /// by sum_scale. If operands carried the whole factor, it would be rounded differently for
        /// each kind of row, and terms that should cancel, such as those of a constant added to s,
        /// would not. 1 for f32 operands.
        sum_scale: f32,
    }

    /// The batch of a step, or the tiles of it that are in the shards of a rank, in their order. A
    /// launch works on the chunk of tiles first_tile .. first_tile + n_tiles, whose first row is
    /// row 0 of RowBuffers.
    struct BatchParams {
        n_parts: u32,
        /// Interior-like tiles.
        n_interior_tiles: u32,
        /// Of the chunk.
        first_tile: u32,
        /// Of the chunk.
        n_tiles: u32,
        /// Interior rows of a step, as the library's Training counts them.
        n_interior: u32,
        /// Boundary rows, likewise.
        n_boundary: u32,
        /// The batch has 2^log2_shards shards.
        log2_shards: u32,
        /// Of them, the rank has 2^log2_own consecutive ones.
        log2_own: u32,
        /// A multiple of their number.
        first_shard: u32,
        unused: u32,
        parts: [Part; MAX_PARTS],
    }

    /// A tile's sums over its rows, f64 in a fixed order.
    struct TileSums {
        /// Of the loss, scaled.
        value: f64,
        /// Of ½‖∇s‖² over interior rows, scaled.
        kinetic: f64,
    }

    /// State that changes from step to step; one instance on the device. `finish_step` writes it,
    /// the other kernels read it.
    struct StepState {
        /// Optimizer steps taken.
        step: u64,
        /// Set once the loss or a gradient is non-finite; later steps are no-ops.
        halted: u32,
        /// True if `update` applies the step: loss and gradient are finite, the history has room.
        apply: u32,
        /// Records written since the host last read.
        n_records: u32,
        /// Since the loss scale last changed.
        good_steps: u32,
        /// A power of two that multiplies gradients until `gather_gradient`.
        loss_scale: f32,
        unused: u32,
    }

    /// The library's StepRecord.
    struct DeviceRecord {
        step: u64,
        loss: f64,
        boundary0: f64,
        boundary1: f64,
        interior: f64,
        kinetic: f64,
        gradient_norm: f64,
        learning_rate: f64,
    }
}
