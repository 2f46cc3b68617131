// Kernel argument blocks. Each struct mirrors one in src/engine/cuda/ (params.rs, launch.rs,
// draw.rs, optimizer.rs, path.rs, particles.rs); both sides assert its size.
//
// Batch rows lie in tiles of kTileRows. Layer widths are zero-padded to multiples of kWidthUnit, so
// kernels never see odd sizes. "T" is the type of a kernel's operands (float, tf32, bf16, f16). "S"
// is the type of values that only elementwise code reads: T if T has 16 bits, else float.
#pragma once
#include <cstdint>

constexpr uint32_t kMaxLayers = 17;  // MAX_DEPTH hidden layers and the output
constexpr uint32_t kTileRows = 128;
constexpr uint32_t kWarps = 8;  // of a block that works on a tile
constexpr uint32_t kWidthUnit = 64;
constexpr uint32_t kTimeKnots = 33;  // density_path::TIME_KNOTS
constexpr uint32_t kMaxParts = 8;

// Same order as model::Activation and model::Head.
enum class Activation : uint32_t { kSilu, kTanh, kSoftplus, kGelu, kSin };
enum class Head : uint32_t { kScalar, kQuadratic, kDot };

// One linear map, padded from in_size and out_size to n_in and n_out. Offsets, in elements:
// `forward` [n_out][n_in] and `reverse` [n_in][n_out] into the packed weights; `bias` [n_out] into
// the packed biases; `parameters` into the padded parameters (weight [n_out][n_in], then bias);
// `place` of the map's output within the activations of a row (see RowBuffers).
struct LayerParams {
  uint32_t n_in, n_out, in_size, out_size;
  uint32_t forward, reverse, bias, parameters;
  uint32_t place, grad_tile;  // grad_tile: index of its first weight-gradient tile, over all layers
};
static_assert(sizeof(LayerParams) == 40, "LayerParams");

struct NetworkParams {
  uint32_t n_layers;  // hidden layers and the output
  uint32_t dim, n_features, n_outputs;
  Activation activation;
  Head head;
  uint32_t n_parameters;  // padded
  uint32_t places;        // Σ padded widths of hidden layers and output
  LayerParams layers[kMaxLayers];
};
static_assert(sizeof(NetworkParams) == 32 + 40 * kMaxLayers, "NetworkParams");

// Inputs, outputs and scratch memory of the rows of a launch.
//
// Per-row buffers hold inputs and results. Per-slot buffers hold a tile's activations while its
// sweeps run. If a later kernel reads the activations, every row has its own slot; otherwise a
// block reuses its slots for all its tiles. Activation buffers hold [n_slots][width] for each
// hidden layer and the output, one after the other: the output of map l starts at element n_slots *
// place. Activation buffers of probes repeat that for each probe.
struct RowBuffers {
  uint32_t n_rows, n_slots;  // capacity, in multiples of kTileRows; a launch may use less
  uint32_t n_probes, unused;
  // Per row: inputs
  float *x, *t;      // [rows][dim], [rows]
  float *d_phi;      // [rows][n_features]
  float *velocity;   // [rows][dim] of the path
  float *weight, *on_potential, *measure;  // [rows]: weight of the interior term, of s, of the time drawn
  float *kappa;      // [rows]: weight of one probe's εᵀ∇²s ε, not yet multiplied by `weight`
  void *a_in, *e_in; // T: [rows][n_in of the first layer], [probe][rows][the same]
  // Per row: outputs
  float *s, *grad_s, *ds_dt;          // [rows], [rows][dim], [rows]
  float *generator;                   // [rows]: weight (d_t s + w.grad s) + weight kappa Σ e' Hess s e; only with probes
  float *grad_x;                      // [rows][dim]: gradient of each row's loss term in its point; only with a bend
  // Per slot: scratch
  void *c_in;                         // T: [slots][n_in of the first layer]
  void *a, *c, *delta, *z_bar;        // T; delta may share f1's memory, z_bar g's
  void *f1, *g;                       // S: f'; g holds f'', then h = u f'', then g = h c_z
  void *f2, *h, *u_f3;                // S, only with probes
  void *e_a, *e_z;                    // T, only with probes; e_bar overwrites e_z
  float *output, *output_c;           // [slots][n_out of the last layer]
  float *output_e;                    // [probe][slots][n_out of the last layer]
  float *input_grad;                  // [slots][n_in of the first layer]
  float *seed_sums;                   // [tiles of slots][kWarps][n_out of the last layer]: sums of the output's unrounded z_bar
};
static_assert(sizeof(RowBuffers) == 16 + 32 * 8, "RowBuffers");

// Kind of a part, a stretch of the batch's tiles. Interior-like parts (kInterior, kCenter) come
// first.
enum class PartKind : uint32_t { kInterior, kCenter, kCenterEnds, kBoundary0, kBoundary1, kWeakEnds0, kWeakEnds1 };
struct Part {
  PartKind kind;
  uint32_t first_tile, n_tiles, n_rows;  // the first n_rows rows count; padding rows have weight 0
  // The factor common to all rows, 1 / n of a mean, is a power of two times sum_scale in [1, 2).
  // Operands carry the power of two, which is exact; sums over rows are multiplied by sum_scale. If
  // operands carried the whole factor, it would be rounded differently for each kind of row, and
  // terms that should cancel, such as those of a constant added to s, would not. 1 for f32
  // operands.
  float sum_scale;
};
static_assert(sizeof(Part) == 20, "Part");

// The batch of a step. A launch works on the chunk of tiles first_tile .. first_tile + n_tiles,
// whose first row is row 0 of RowBuffers.
struct Batch {
  uint32_t n_parts, n_interior_tiles;  // interior-like tiles
  uint32_t first_tile, n_tiles;        // the chunk
  uint32_t n_interior, n_boundary;     // rows of a step, as engine::Training counts them
  Part parts[kMaxParts];
};
static_assert(sizeof(Batch) == 24 + 20 * kMaxParts, "Batch");

// A tile's sums over its rows, f64 in a fixed order.
struct TileSums {
  double value;    // of the loss, scaled
  double kinetic;  // of ½‖∇s‖² over interior rows, scaled
};

// State that changes from step to step; one instance on the device. `judge` writes it, the other
// kernels read it.
struct StepState {
  uint64_t step;        // optimizer steps taken
  uint32_t halted;      // set once the loss or a gradient is non-finite; later steps are no-ops
  uint32_t apply;       // whether `update` applies the step: loss and gradient are finite, the history has room
  uint32_t n_records;   // records written since the host last read
  uint32_t good_steps;  // since the loss scale last changed
  float loss_scale;     // a power of two that multiplies gradients until `gather_gradient`
  uint32_t unused;
};
static_assert(sizeof(StepState) == 32, "StepState");

// engine::StepRecord in device layout.
struct StepRecord {
  uint64_t step;
  double loss, boundary0, boundary1, interior, kinetic, gradient_norm, learning_rate;
};
static_assert(sizeof(StepRecord) == 64, "StepRecord");

// Arguments of `sweep`.
struct SweepParams {
  NetworkParams network;
  RowBuffers rows;
  Batch batch;
  const void* weights;
  const float* biases;
  const StepState* state;
  TileSums* sums;   // [tiles of the batch]
  double* moments;  // [tiles of the batch][2 kTimeKnots]: of the integrand, squares then weights; null unless
                    // times are importance-sampled
  float growth, cost_exponent, scale;  // scale: 1 / interior rows of the batch
  uint32_t has_time;                   // whether the interior term contains the time derivative
  uint32_t moves;                      // … H(grad s) and growth
  uint32_t has_velocity;               // … the velocity of the path
  uint32_t with_potential;             // whether interior rows need s
  uint32_t with_grad_x;                // whether a bend needs the gradient at the points
  uint32_t n_operand_chunks, unused;   // in shared memory: see ProductMemory
};
static_assert(sizeof(SweepParams) == sizeof(NetworkParams) + sizeof(RowBuffers) + sizeof(Batch) + 5 * 8 + 3 * 4 + 7 * 4,
              "SweepParams");

// Bytes of the running sum of a layer's gradient in `sweep_narrow`.
constexpr uint32_t kLayerSumBytes = (64 * 64 + 2 * 256) * 4;

// Arguments of `sweep_narrow`.
struct SweepNarrowParams {
  SweepParams sweep;  // one tile of slots per block
  float* parts;       // [blocks][n_parameters]
  void* far_sums;     // [blocks][n_layers - n_near] of kLayerSumBytes: sums that do not fit shared memory
  uint32_t n_near;    // the first n_near layers keep their sums in shared memory
  uint32_t accumulate;  // whether the parts hold the sums of earlier chunks
};
static_assert(sizeof(SweepNarrowParams) == sizeof(SweepParams) + 24, "SweepNarrowParams");

// Arguments of `weight_grad`.
struct WeightGradParams {
  NetworkParams network;
  RowBuffers rows;
  const StepState* state;
  float* parts;              // [parts][n_parameters]
  Batch batch;             // all tiles have z_bar and a; the batch's first n_interior_tiles also the other channels
  uint32_t tiles_per_part;
  uint32_t accumulate;     // whether the parts hold the sums of earlier chunks
};
static_assert(sizeof(WeightGradParams) == sizeof(NetworkParams) + sizeof(RowBuffers) + sizeof(Batch) + 24, "WeightGradParams");

// Arguments of `bend_forward` and `bend_backward`.
struct BendParams {
  NetworkParams network;  // the bend's: dim is twice the action's
  RowBuffers rows;        // the bend's: weight holds 2 r (1 - r)
  RowBuffers action;      // the action's, tile for tile
  const void* weights;
  const float* biases;
  const StepState* state;
  uint32_t action_in_width, n_tiles;
  uint32_t n_operand_chunks, unused;  // in shared memory: see ProductMemory
};
static_assert(sizeof(BendParams) == sizeof(NetworkParams) + 2 * sizeof(RowBuffers) + 40, "BendParams");

// Arguments of `gather_gradient`, which sums the partial gradients. It and `update` run one block
// for each of the n_blocks shares of the parameters (optimizer/share.cuh).
struct GatherParams {
  NetworkParams network;
  uint32_t n_parts, n_blocks;
  const StepState* state;
  const float* parts;  // [n_parts][n_parameters]
  float* gradient;     // [n_parameters]
  double* squares;     // [n_blocks]: Σ g² of each block
};
static_assert(sizeof(GatherParams) == sizeof(NetworkParams) + 40, "GatherParams");

// AdamW factors of one step for one network: engine::cpu::StepSizes.
struct StepSizes {
  float gradient_scale;          // min(1, clip / norm)
  float toward1, toward2;        // 1 - beta1, 1 - beta2
  float step_size;               // rate / (1 - beta1^n)
  float root_correction;         // 1 / sqrt(1 - beta2^n)
  float epsilon, keep;           // keep: 1 - rate * decay
  float toward_ema;              // Optimizer::ema_rate
};
static_assert(sizeof(StepSizes) == 32, "StepSizes");

// engine::Optimizer with its LearningRate.
struct OptimizerParams {
  uint64_t warmup_steps, cosine_steps;  // cosine_steps: the step at which the cosine ends; 0 keeps the peak
  double peak, floor;
  double beta1, beta2, epsilon, weight_decay, ema_decay;
  double clip_norm;  // infinite: does not clip
};
static_assert(sizeof(OptimizerParams) == 80, "OptimizerParams");

// density_path::TimeMoments and TimeDensity in device layout.
struct TimesParams {
  // [interior-like tiles][2 * kTimeKnots], squares first; only those of the first part are read.
  // Null unless times are importance-sampled.
  const double* tile_moments;
  float* moments;              // [2 * kTimeKnots], as a checkpoint holds them
  double *density, *cumulative;  // [kTimeKnots]: used by the next draw
};
static_assert(sizeof(TimesParams) == 32, "TimesParams");

// What `judge` reads and writes for one network.
struct JudgedNetwork {
  const double* squares;  // [n_blocks]
  StepSizes* sizes;
  double relative_rate;   // in units of the learning rate
  uint32_t n_blocks, unused;
};
static_assert(sizeof(JudgedNetwork) == 32, "JudgedNetwork");

struct JudgeParams {
  Batch batch;  // the whole batch: its chunk is ignored
  OptimizerParams optimizer;
  JudgedNetwork networks[2];  // the action, and the bend if there is one
  TimesParams times;
  uint32_t n_networks;
  uint32_t scales_loss;  // whether the loss scale adapts
  uint32_t capacity;     // of `history`; when full, steps are skipped until the host drains it
  uint32_t unused;
  const TileSums* sums;  // [tiles of the batch]
  StepState* state;
  StepRecord* history;
};
static_assert(sizeof(JudgeParams) == sizeof(Batch) + 80 + 2 * 32 + 32 + 40, "JudgeParams");

// Arguments of `update`: the optimizer step of one network.
struct UpdateParams {
  NetworkParams network;
  const StepState* state;
  const StepSizes* sizes;
  const float* gradient;
  float *parameters, *ema, *moment1, *moment2;
  void* weights;  // T: packed, W and its transpose
  float* biases;
};
static_assert(sizeof(UpdateParams) == sizeof(NetworkParams) + 72, "UpdateParams");

// Same order as density_path::Interpolant and TimeRule, engine::LaplacianRule,
// objective::SigmaSchedule; Estimator is engine::Estimator without its settings.
enum class Interpolant : uint32_t { kLinear, kSpline, kLearned, kNearest, kGenerativeLinear, kGenerativeVp, kGenerativeSqrt };
enum class TimeRule : uint32_t { kLowDiscrepancy, kUniform, kStratified, kImportance, kTrapezoid, kSimpson, kGaussLegendre };
enum class LaplacianRule : uint32_t { kRademacher, kGaussian, kExact };
enum class SigmaSchedule : uint32_t { kConstant, kOneMinusT };
enum class Estimator : uint32_t { kAction, kWeak, kRegression };

// For each row of one side of a coupling, its partners on the other side: those of row i are
// partners[starts[i] .. starts[i + 1]].
struct LinkParams {
  const uint32_t *starts, *partners, *cumulative;
  uint32_t n_partners, unused;
};
static_assert(sizeof(LinkParams) == 32, "LinkParams");

// density_path::Coupling.
struct CouplingParams {
  const uint32_t *pairs, *cumulative;  // [n_pairs][2], [n_pairs]
  const float *masses;                 // [n_pairs][2], or null if all are 1
  uint32_t n_pairs, unused;
  LinkParams by_left, by_right;
};
static_assert(sizeof(CouplingParams) == 96, "CouplingParams");

// density_path::DensityPath. Rows offsets[k] .. offsets[k + 1] of the samples belong to snapshot k:
// those that are on the device now.
struct PathParams {
  uint32_t n_times, n_snapshots;  // a generative path has two times, 0 and 1, and one snapshot
  Interpolant interpolant;
  uint32_t unused;
  const double *times;
  const uint64_t *offsets;
  const float *samples;             // [row][dim]
  const double *masses;             // [n_snapshots], or null if all are 1
  const CouplingParams *couplings;  // [n_times - 1], or null if rows are paired independently
};
static_assert(sizeof(PathParams) == 56, "PathParams");

// Arguments of `draw` and `draw_bend`. For `draw_bend`, network and rows are those of the bend,
// whose points are the two ends of a pair.
struct DrawParams {
  NetworkParams network;
  RowBuffers rows;
  Batch batch;
  const PathParams *path;
  const StepState *state;
  const double *density;       // density_path::TimeDensity: density at the knots, then its cumulative integral
  const double *coefficients;  // of the time weight, constant term first
  const double *frequencies;   // of the time features, in cycles; n_features = 1 + 2 n
  uint64_t seed;
  double sigma, probe_share;
  TimeRule time_rule;
  Estimator estimator;
  uint32_t weak_intervals, n_coefficients;
  LaplacianRule laplacian_rule;
  SigmaSchedule sigma_schedule;
};
static_assert(sizeof(DrawParams) == sizeof(NetworkParams) + sizeof(RowBuffers) + sizeof(Batch) + 8 * 8 + 6 * 4, "DrawParams");

// Particles.

constexpr uint32_t kMaxStages = 7;

// The Butcher tableau of src/engine/cpu/tableau.rs: row i of `stages` forms the point of stage i +
// 1.
struct Tableau {
  uint32_t n_stages, first_same_as_last;
  double nodes[kMaxStages];
  double stages[kMaxStages - 1][kMaxStages - 1];
  double weights[kMaxStages];
  double error[kMaxStages];
};
static_assert(sizeof(Tableau) == 8 + 8 * (3 * kMaxStages + (kMaxStages - 1) * (kMaxStages - 1)), "Tableau");

// A fixed step: from t by h. `deviation` is the standard deviation of each increment of its noise.
struct FixedStep {
  double t, h;
  float deviation;
  uint32_t unused;
};
static_assert(sizeof(FixedStep) == 24, "FixedStep");

enum class IntegrationFailure : uint32_t { kNone, kNotFinite, kTolerance };

// Report of one block. A block stops at its first failed tile. As its tiles ascend, the smallest
// failed tile of all blocks is the smallest that would fail.
struct IntegrationBlock {
  uint64_t velocity_evaluations, accepted_steps, rejected_steps;
  uint64_t failed_tile, failed_step;
  double failed_time;
  IntegrationFailure failure;
  uint32_t unused;
};
static_assert(sizeof(IntegrationBlock) == 56, "IntegrationBlock");

struct IntegrateParams {
  NetworkParams network;
  RowBuffers rows;  // kTileRows rows for each block
  const void* weights;  // T
  const float* biases;
  float *positions, *log_weights, *log_density;  // [n_saved][n_particles][dim], [n_saved][n_particles] (null if not integrated)
  uint64_t n_particles, first_particle;          // first_particle: its index among all, which random numbers depend on
  Tableau tableau;
  const FixedStep* steps;        // null: steps are adaptive
  const uint32_t* steps_before;  // [n_saved]: fixed steps before each saved time
  const double* save_at;         // [n_saved]
  double t0, direction, rtol, atol;
  const double* frequencies;  // [(n_features - 1) / 2]
  uint64_t seed;
  float* scratch;  // slot_size floats for each block
  uint64_t slot_size;
  IntegrationBlock* blocks;  // [grid]
  float growth, cost_exponent, share;  // share: weight of the curvature along one direction
  uint32_t n_saved, increments_per_step;
  LaplacianRule rule;
  uint32_t n_operand_chunks, unused;  // in shared memory: see ProductMemory
};
static_assert(sizeof(IntegrateParams) == sizeof(NetworkParams) + sizeof(RowBuffers) + sizeof(Tableau) + 7 * 8 + 3 * 8 + 4 * 8 + 5 * 8 + 8 * 4,
              "IntegrateParams");
