//! Sizes, numbers and enums that host and kernels share.

device_types! {
    /// Threads per block, in every kernel.
    const THREADS: u32 = 256;
    /// Warps per block.
    const WARPS: usize = THREADS as usize / 32;
    /// Rows per tile.
    const TILE_ROWS: usize = 128;
    /// Rows per tile of broad products of which a multiprocessor has two blocks; a divisor of
    /// TILE_ROWS.
    const MIDDLE_TILE_ROWS: usize = 64;
    /// Rows per tile of the sweeps of a small batch; a divisor of TILE_ROWS.
    const LOW_TILE_ROWS: usize = 32;
    /// Layer widths are padded to multiples of this.
    const WIDTH_UNIT: usize = 64;
    /// Maximum number of layers: hidden ones and the output.
    const MAX_LAYERS: usize = 17;
    /// Maximum number of parts of a batch.
    const MAX_PARTS: usize = 8;
    /// Most shards of a batch: tile t of a batch with V shards belongs to shard t mod V, so that
    /// each has its share of every part.
    const MAX_SHARDS: usize = 64;
    /// Shards whose partial gradients a thread adds at a time.
    const SHARDS_AT_ONCE: usize = 8;
    /// Groups of the tiles of a batch, each with a partial gradient: tile t belongs to group t mod
    /// WIDE_GROUPS. Enough blocks for a large GPU, few enough to sum quickly. Each group lies in
    /// one shard. A batch of more than FEW_SHARDS shards has as many groups in each as one of
    /// FEW_SHARDS.
    const WIDE_GROUPS: usize = 16;
    /// The same for narrow networks, where a block forms all of a partial gradient: enough to fill
    /// a large GPU evenly.
    const NARROW_GROUPS: usize = 256;
    /// See WIDE_GROUPS.
    const FEW_SHARDS: usize = 8;
    /// Stages of the longest Runge–Kutta method.
    const MAX_STAGES: usize = 7;

    /// Bytes of each row's inner dimension that one step of a product's pipeline works on.
    const CHUNK_BYTES: usize = 64;
    /// Columns that a wide product forms at a time.
    const WIDE_COLUMNS: usize = 128;
    /// Columns that a broad product forms at a time: all of a layer, whose result can then take
    /// the place of its operand.
    const BROAD_COLUMNS: usize = 2 * WIDE_COLUMNS;
    /// Stages of the pipeline of wide and broad products.
    const WIDE_STAGES: usize = 4;
    /// Chunks of wide and broad products between two barriers.
    const WIDE_CHUNKS_AT_ONCE: usize = 2;
    /// Columns of a narrow product, and the widest layer of a narrow network.
    const NARROW_COLUMNS: usize = WIDTH_UNIT;
    /// Stages of a narrow product's pipeline.
    const NARROW_STAGES: usize = 2;
    /// Rows and columns of a weight-gradient tile, at most.
    const GRAD_TILE: usize = 128;
    /// Stages of the weight gradient's pipeline.
    const GRAD_STAGES: usize = 3;
    /// Bytes of shared memory of `weight_grad`: its stages of chunks of both sides.
    const WEIGHT_GRAD_BYTES: usize = GRAD_STAGES * 2 * CHUNK_BYTES * GRAD_TILE;
    /// Bytes of a stage of a narrow product's pipeline.
    const NARROW_STAGE_BYTES: usize = CHUNK_BYTES * NARROW_COLUMNS;
    /// Bytes of the running sum of a layer's gradient in `sweep_narrow`: each weight, and two
    /// biases for each thread.
    const LAYER_SUM_BYTES: usize = 4 * (NARROW_COLUMNS * NARROW_COLUMNS + 2 * THREADS as usize);
    /// Side of a tile of parameters, those that one block of the optimizer works on: 128 bytes in
    /// f32, whole sectors in 16-bit copies of W and its transpose.
    const PARAM_TILE: usize = 32;

    /// Threads of a warpgroup, the four warps that multiply together on 9.0.
    const WARPGROUP: u32 = 128;
    /// Threads per block of kernels whose products 9.0 multiplies: those of other kernels, and a
    /// warpgroup beside them, one thread of which copies weights.
    const WGMMA_THREADS: u32 = THREADS + WARPGROUP;
    /// Elements of 16 bits of the inner dimension in a stage of their weights: a line of 128 bytes.
    const WGMMA_DEPTH: usize = 64;
    /// Stages of their weights.
    const WGMMA_STAGES: usize = 4;
    /// Columns of its smaller products; the larger ones have BROAD_COLUMNS. Hidden layers are
    /// padded to multiples of this.
    const WGMMA_COLUMNS: usize = 128;
    /// Bytes of a stage.
    const WGMMA_STAGE_BYTES: usize = 2 * WGMMA_DEPTH * BROAD_COLUMNS;
    /// Bytes of eight lines, over which their swizzle goes: stages begin at multiples of it.
    const SWIZZLE_ATOM: usize = 1024;
    /// Bytes of shared memory of the stages, wherever they may begin.
    const WGMMA_BYTES: usize = WGMMA_STAGES * WGMMA_STAGE_BYTES + SWIZZLE_ATOM;
    /// Registers of a thread that copies weights, and of one that multiplies: those of a block fit
    /// a multiprocessor's 65,536.
    const STREAM_REGISTERS: u32 = 24;
    const WORK_REGISTERS: u32 = 240;
    /// Named barriers: of the threads that multiply, and of the turn of each of their warpgroups.
    const WORKERS_BARRIER: u32 = 1;
    const TURN_BARRIER: u32 = 2;

    /// Knots of the density of times.
    const TIME_KNOTS: usize = 33;
    /// Moments of the integrand per tile: the squares at the knots, then their weights.
    const MOMENTS: usize = 2 * TIME_KNOTS;
    /// Fraction of the running moments of the integrand that a step keeps.
    const MEMORY: f64 = 0.99;
    /// Fraction of the density of times that is uniform.
    const UNIFORM_SHARE: f64 = 0.3;
    /// Good steps after which the loss scale doubles.
    const STEPS_BEFORE_GROWTH: u32 = 2000;
    /// The largest loss scale, 2^24.
    const LARGEST_SCALE: f32 = 16_777_216.0;

    /// The instruction that products are made of, which decides the order of packed weights.
    enum Products {
        /// `mma.sync`, by warps: on every card.
        Mma,
        /// `wgmma`, by warpgroups: on 9.0.
        Wgmma,
    }

    enum Activation { Silu, Tanh, Softplus, Gelu, Sin }

    enum Head { Scalar, Quadratic, Dot }

    enum Interpolant { Linear, Spline, Learned, Nearest, GenerativeLinear, GenerativeVp, GenerativeSqrt }

    enum TimeRule { LowDiscrepancy, Uniform, Stratified, Importance, Trapezoid, Simpson, GaussLegendre }

    enum LaplacianRule { Rademacher, Gaussian, Exact }

    enum SigmaSchedule { Constant, OneMinusT }

    /// The library's estimator without its settings.
    enum Estimator { Action, Weak, Regression }

    /// Kind of a part, a stretch of the batch's tiles. Interior-like parts (Interior, Center) come
    /// first.
    enum PartKind { Interior, Center, CenterEnds, Boundary0, Boundary1, WeakEnds0, WeakEnds1 }

    /// Why a block stopped before the end of its integration.
    enum IntegrationFailure {
        None,
        /// A value that is not finite.
        NotFinite,
        /// No step is small enough for the tolerance.
        Tolerance,
    }

    /// Purpose of random words; part of the counter of the generator. A value is never reused.
    enum Purpose {
        Interior = 0,
        Boundary0 = 1,
        Boundary1 = 2,
        TimeOffset = 3,
        Probe = 4,
        Noise = 5,
        StartNoise = 11,
        Group = 15,
    }
}
