// What kernels are told: twins of src/engine/cuda/params.rs, where each size is asserted too.
//
// Rows of a batch lie in tiles of kTileRows; widths of layers are padded to multiples of kWidthUnit with zeros, so no kernel looks at
// odd sizes. "T" stands for the type of a kernel's operands (float, tf32, bf16, f16), "S" for that of what only elementwise parts read (T where
// it has 16 bits, else float).
#pragma once
#include <cstdint>

constexpr uint32_t kMaxLayers = 17;  // MAX_DEPTH hidden layers and the output
constexpr uint32_t kTileRows = 128;
constexpr uint32_t kWarps = 8;  // of a block that has a tile
constexpr uint32_t kWidthUnit = 64;
constexpr uint32_t kTimeKnots = 33;  // density_path::TIME_KNOTS
constexpr uint32_t kMaxParts = 8;

// In the order of model::Activation and model::Head.
enum class Activation : uint32_t { kSilu, kTanh, kSoftplus, kGelu, kSin };
enum class Head : uint32_t { kScalar, kQuadratic, kDot };

// One linear map, padded to n_in and n_out from in_size and out_size. `forward` [n_out][n_in] and `reverse` [n_in][n_out] lie in the packed
// weights, `bias` [n_out] in the packed biases; weight [n_out][n_in] and bias lie together from `parameters` on in the padded parameters.
// `place` is where the map's output lies among the activations of a row: see RowBuffers.
struct LayerParams {
  uint32_t n_in, n_out, in_size, out_size;
  uint32_t forward, reverse, bias, parameters;
  uint32_t place, grad_tile;  // grad_tile: first tile of its weight gradient among all layers'
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

// The rows that a launch works on and what it leaves of them.
//
// Rows have what is given and what is read by whoever comes after; slots have what the sweeps keep of a tile for as long as they work on it. A slot
// belongs to a row where another kernel needs the activations, else to a block, which goes from tile to tile. Buffers of activations hold
// [n_slots][width] for hidden layers and output one after the other: the output of map l starts at n_slots * place elements. Those of probes hold that
// for each probe.
struct RowBuffers {
  uint32_t n_rows, n_slots;  // multiples of kTileRows: the capacity, whatever a launch uses of it
  uint32_t n_probes, unused;
  // Rows: given
  float *x, *t;      // [rows][dim], [rows]
  float *d_phi;      // [rows][n_features]
  float *velocity;   // [rows][dim] of the path
  float *weight, *on_potential, *measure;  // [rows]: of the interior term, of s, of the row's time
  float *kappa;      // [rows]: what one probe's curvature counts, before `weight`
  void *a_in, *e_in; // T: [rows][n_in of the first layer], [probe][rows][the same]
  // Rows: left
  float *s, *grad_s, *ds_dt;          // [rows], [rows][dim], [rows]
  float *generator;                   // [rows]: weight (d_t s + w.grad s) + weight kappa Σ e' Hess s e, with probes alone
  float *grad_x;                      // [rows][dim]: gradient of each row's term in its point, where a bend asks for it
  // Slots
  void *c_in;                         // T: [slots][n_in of the first layer]
  void *a, *c, *delta, *z_bar;        // T; delta may take the place of f1, z_bar that of g
  void *f1, *g;                       // S: f'; f'', h = u f'', g = h c_z in turn
  void *f2, *h, *u_f3;                // S, with probes alone
  void *e_a, *e_z;                    // T, probes; e_z becomes e_bar
  float *output, *output_c;           // [slots][n_out of the last layer]
  float *output_e;                    // [probe][slots][n_out of the last layer]
  float *input_grad;                  // [slots][n_in of the first layer]
  float *seed_sums;                   // [tiles of slots][kWarps][n_out of the last layer]: of the output's z_bar before it is rounded
};
static_assert(sizeof(RowBuffers) == 16 + 32 * 8, "RowBuffers");

// What a stretch of the batch's tiles holds. Interior-like parts (kInterior, kCentre) come first in a batch.
enum class PartKind : uint32_t { kInterior, kCentre, kCentreEnds, kBoundary0, kBoundary1, kWeakEnds0, kWeakEnds1 };
struct Part {
  PartKind kind;
  uint32_t first_tile, n_tiles, n_rows;  // n_rows of the tiles' rows count; the others have weight 0
  // The factor that all rows have in common, 1 / n of a mean, is a power of two times this one from [1, 2). Operands carry the power of two, which
  // rounds nothing; sums over the rows are multiplied with the rest. Else it would be rounded with each operand, to another value for each kind of
  // rows, and terms that cancel, as those of an offset of s do, would no longer. 1 for operands in f32.
  float sum_scale;
};
static_assert(sizeof(Part) == 20, "Part");

// The batch of a step. A launch works on the chunk of tiles first_tile .. first_tile + n_tiles, whose rows start at 0 of RowBuffers.
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

// What changes from step to step; one on the device. `judge` writes it; the other kernels read it.
struct StepState {
  uint64_t step;        // optimiser steps taken
  uint32_t halted;      // a loss was lost: nothing changes any more
  uint32_t apply;       // whether the step's gradient is finite and counts
  uint32_t n_records;   // records written since the host last read
  uint32_t good_steps;  // since the loss scale last changed
  float loss_scale;     // a power of two that gradients are multiplied with on their way
  uint32_t unused;
};
static_assert(sizeof(StepState) == 32, "StepState");

// engine::StepRecord, as the device leaves it.
struct StepRecord {
  uint64_t step;
  double loss, boundary0, boundary1, interior, kinetic, gradient_norm, learning_rate;
};
static_assert(sizeof(StepRecord) == 64, "StepRecord");

// What `sweep` is told.
struct SweepParams {
  NetworkParams network;
  RowBuffers rows;
  Batch batch;
  const void* weights;
  const float* biases;
  const StepState* state;
  TileSums* sums;   // [tiles of the batch]
  double* moments;  // [tiles of the batch][2 kTimeKnots]: of the integrand, squares then weights; null where nobody follows it
  float growth, cost_exponent, scale;  // scale: 1 / interior rows of the batch
  uint32_t has_time;                   // whether the interior term has the time derivative
  uint32_t moves;                      // whether it has H(grad s) and growth
  uint32_t has_velocity;               // whether it has the velocity of the path
  uint32_t with_potential;             // whether interior rows need s
  uint32_t with_grad_x;                // whether a bend asks for the gradient at the points
  uint32_t n_operand_chunks, unused;   // in shared memory: see ProductMemory
};
static_assert(sizeof(SweepParams) == sizeof(NetworkParams) + sizeof(RowBuffers) + sizeof(Batch) + 5 * 8 + 3 * 4 + 7 * 4,
              "SweepParams");

// Bytes of a layer's gradient in the making, in `sweep_narrow`.
constexpr uint32_t kLayerSumBytes = (64 * 64 + 2 * 256) * 4;

// What `sweep_narrow` is told.
struct SweepNarrowParams {
  SweepParams sweep;  // a slot for each block
  float* parts;       // [blocks][n_parameters]
  void* far_sums;     // [blocks][n_layers - n_near] of kLayerSumBytes: of the layers that the chip has no memory for
  uint32_t n_near;    // layers that it has memory for, the first ones
  uint32_t accumulate;  // whether the parts hold the sums of earlier chunks
};
static_assert(sizeof(SweepNarrowParams) == sizeof(SweepParams) + 24, "SweepNarrowParams");

// What `weight_grad` is told.
struct WeightGradParams {
  NetworkParams network;
  RowBuffers rows;
  const StepState* state;
  float* parts;              // [parts][n_parameters]
  Batch batch;             // all tiles of the chunk have z_bar and a; the first n_interior_tiles of the batch the other channels too
  uint32_t tiles_per_part;
  uint32_t accumulate;     // whether the parts hold the sums of earlier chunks
};
static_assert(sizeof(WeightGradParams) == sizeof(NetworkParams) + sizeof(RowBuffers) + sizeof(Batch) + 24, "WeightGradParams");

// What `bend_forward` and `bend_backward` are told.
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

// A network between its gradient's parts and its next weights: what `gather_gradient` adds up. Blocks of it and of `update` work on the shares
// that optimizer/share.cuh gives out, n_blocks of them.
struct GatherParams {
  NetworkParams network;
  uint32_t n_parts, n_blocks;
  const StepState* state;
  const float* parts;  // [n_parts][n_parameters]
  float* gradient;     // [n_parameters]
  double* squares;     // [n_blocks]: Σ g² of each block
};
static_assert(sizeof(GatherParams) == sizeof(NetworkParams) + 40, "GatherParams");

// The numbers of a step for one network, as engine::cpu::StepSizes has them.
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

// TimeMoments and TimeDensity of density_path on the device.
struct TimesParams {
  // [interior-like tiles][2 * kTimeKnots], squares first, of which the first part's count; null where times do not follow the integrand.
  const double* tile_moments;
  float* moments;              // [2 * kTimeKnots], as a checkpoint holds them
  double *density, *cumulative;  // [kTimeKnots]: of the next draw
};
static_assert(sizeof(TimesParams) == 32, "TimesParams");

// A network to `judge`.
struct JudgedNetwork {
  const double* squares;  // [n_blocks]
  StepSizes* sizes;
  double relative_rate;   // in units of the learning rate
  uint32_t n_blocks, unused;
};
static_assert(sizeof(JudgedNetwork) == 32, "JudgedNetwork");

struct JudgeParams {
  Batch batch;  // whatever its chunk: all tiles count
  OptimizerParams optimizer;
  JudgedNetwork networks[2];  // the action, and the bend if there is one
  TimesParams times;
  uint32_t n_networks;
  uint32_t scales_loss;  // whether the loss scale is looked for
  uint32_t capacity;     // of `history`; a full one holds the run until the host has read it
  uint32_t unused;
  const TileSums* sums;  // [tiles of the batch]
  StepState* state;
  StepRecord* history;
};
static_assert(sizeof(JudgeParams) == sizeof(Batch) + 80 + 2 * 32 + 32 + 40, "JudgeParams");

// The optimiser's step of one network.
struct UpdateParams {
  NetworkParams network;
  const StepState* state;
  const StepSizes* sizes;
  const float* gradient;
  float *parameters, *ema, *moment1, *moment2;
  void* weights;  // T: packed, both ways
  float* biases;
};
static_assert(sizeof(UpdateParams) == sizeof(NetworkParams) + 72, "UpdateParams");

// In the order of density_path::Interpolant and TimeRule, engine::LaplacianRule, objective::SigmaSchedule; engine::Estimator without its settings.
enum class Interpolant : uint32_t { kLinear, kSpline, kLearned, kNearest, kGenerativeLinear, kGenerativeVp, kGenerativeSqrt };
enum class TimeRule : uint32_t { kLowDiscrepancy, kUniform, kStratified, kImportance, kTrapezoid, kSimpson, kGaussLegendre };
enum class LaplacianRule : uint32_t { kRademacher, kGaussian, kExact };
enum class SigmaSchedule : uint32_t { kConstant, kOneMinusT };
enum class Estimator : uint32_t { kAction, kWeak, kRegression };

// For each row of one side of a coupling, the rows of the other: those of row i lie from starts[i] to starts[i + 1].
struct LinkParams {
  const uint32_t *starts, *partners, *cumulative;
  uint32_t n_partners, unused;
};
static_assert(sizeof(LinkParams) == 32, "LinkParams");

// density_path::Coupling.
struct CouplingParams {
  const uint32_t *pairs, *cumulative;  // [n_pairs][2], [n_pairs]
  const float *masses;                 // [n_pairs][2], or null where all are 1
  uint32_t n_pairs, unused;
  LinkParams by_left, by_right;
};
static_assert(sizeof(CouplingParams) == 96, "CouplingParams");

// density_path::DensityPath. Rows of snapshot k are offsets[k] .. offsets[k + 1] of the samples: those that are on the device now.
struct PathParams {
  uint32_t n_times, n_snapshots;  // a generative path has two times, 0 and 1, and one snapshot
  Interpolant interpolant;
  uint32_t unused;
  const double *times;
  const uint64_t *offsets;
  const float *samples;             // [row][dim]
  const double *masses;             // [n_snapshots], or null where all are 1
  const CouplingParams *couplings;  // [n_times - 1], or null where rows are paired independently
};
static_assert(sizeof(PathParams) == 56, "PathParams");

// What `draw` and `draw_bend` are told. For the latter, network and rows are those of the bend: its points are the two ends of a pair.
struct DrawParams {
  NetworkParams network;
  RowBuffers rows;
  Batch batch;
  const PathParams *path;
  const StepState *state;
  const double *density;       // density_path::TimeDensity: its knots, and behind them the cumulative ones
  const double *coefficients;  // of the time weight, from the constant one on
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

// A Butcher tableau, as src/engine/cpu/tableau.rs has it: row i of `stages` forms the point of stage i + 1.
struct Tableau {
  uint32_t n_stages, first_same_as_last;
  double nodes[kMaxStages];
  double stages[kMaxStages - 1][kMaxStages - 1];
  double weights[kMaxStages];
  double error[kMaxStages];
};
static_assert(sizeof(Tableau) == 8 + 8 * (3 * kMaxStages + (kMaxStages - 1) * (kMaxStages - 1)), "Tableau");

// A step that the plan fixes: from t by h, with the standard deviation of each increment of its noise.
struct FixedStep {
  double t, h;
  float deviation;
  uint32_t unused;
};
static_assert(sizeof(FixedStep) == 24, "FixedStep");

enum class IntegrationFailure : uint32_t { kNone, kNotFinite, kTolerance };

// What one block did. A block that fails goes no further: its tiles ascend, so the least failed tile of all blocks is the least of all.
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
  float *positions, *log_weights, *log_density;  // [n_saved][n_particles][dim], [n_saved][n_particles]; the latter null where not followed
  uint64_t n_particles, first_particle;          // first_particle: index of the first one, which numbers random words
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
  float growth, cost_exponent, share;  // share: what the curvature along one direction counts
  uint32_t n_saved, increments_per_step;
  LaplacianRule rule;
  uint32_t n_operand_chunks, unused;  // in shared memory: see ProductMemory
};
static_assert(sizeof(IntegrateParams) == sizeof(NetworkParams) + sizeof(RowBuffers) + sizeof(Tableau) + 7 * 8 + 3 * 8 + 4 * 8 + 5 * 8 + 8 * 4,
              "IntegrateParams");
