// Integration of a tile of particles. Counterpart of src/engine/cpu/particles.rs.
//
// Particles obey dy = ∇H(∇s) dτ + σ dW (network coordinates); along their way d log w = λ s dτ and
// d log q = -∇·v dτ.
//
// The velocity inlines the whole network, so the code contains it once: a tile alternates `next`,
// the work of a method between two evaluations, with one evaluation. Control flow is block-uniform.
#pragma once
#include "adaptive.cuh"
#include "noise.cuh"
#include "velocity.cuh"

// Purpose of an evaluation.
enum class Phase : uint32_t { kStart, kBetween, kStage, kFirstSpeed, kFirstBend };

// Integration state of a tile, parked in shared memory during evaluations, which need all
// registers.
struct Progress {
  uint32_t slot_row;  // the block's first row of RowBuffers
  ParticleTile tile;
  Phase phase;
  bool first_stage_ready;  // stage 0 already holds the velocity at y
  bool is_last;            // the step ends at the saved time
  uint32_t stage;          // to evaluate: stage 0 at y, later ones at the point
  uint32_t saved;          // saved times reached
  uint32_t attempts;       // since the last saved time
  uint64_t n_steps;        // accepted steps; numbers the noise
  double t, h, t_stage;
  double proposed;  // next step by error control, signed by direction; 0 before the first
  bool has_failed;  // a block stops at its first failure
};

// The same in registers, with the stepping logic.
template <int kRows>
struct TileStepper : Progress {
  const IntegrateParams& params;

  __device__ __forceinline__ ParticleState<kRows> state() const { return {params, tile}; }

  // Starts as zeros; only thread 0 writes it.
  __device__ __forceinline__ IntegrationBlock& report() const { return params.blocks[blockIdx.x]; }

  // Begins the block's next tile; false if there is none.
  __device__ __forceinline__ bool start() {
    if (tile.index * kRows >= params.n_particles) return false;
    const uint64_t n_left = params.n_particles - tile.index * kRows;
    tile.n_rows = static_cast<uint32_t>(min(static_cast<uint64_t>(kRows), n_left));
    tile.is_fresh = true;
    phase = Phase::kBetween;
    first_stage_ready = false;
    saved = attempts = 0;
    n_steps = 0;
    t = params.t0;
    proposed = 0.0;
    float* y = state().y();
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < state().n_values(); i += kThreads)
      y[i] = state().counts(i) ? *state().saved(0, i) : 0.0f;
    return true;
  }

  // Prepares the next evaluation; false after the block's last tile, or when a tile has failed.
  __device__ __forceinline__ bool next() {
    const TableauParams& tableau = params.tableau;
    tile.is_fresh = false;
    if (phase == Phase::kStage && ++stage == tableau.n_stages) finish_step();
    if (phase == Phase::kFirstSpeed) {
      h = params.direction * first_probe(state());
      combine(1, [&](uint32_t) { return h; });
      stage = 1;
      t_stage = t + h;
      phase = Phase::kFirstBend;
      return true;
    }
    if (phase == Phase::kFirstBend) {
      proposed = params.direction * first_step(state(), fabs(h));
      first_stage_ready = true;
      phase = Phase::kBetween;
    }
    if (phase == Phase::kStart || phase == Phase::kBetween) {
#pragma unroll 1
      for (;;) {
        if (phase == Phase::kStart && !start()) return false;
        if (begin_step()) break;
        if (has_failed) return false;
        tile.index += gridDim.x;
        phase = Phase::kStart;
      }
      stage = phase == Phase::kStage && first_stage_ready ? 1 : 0;
    }
    if (stage > 0) combine(stage, [&](uint32_t k) { return h * tableau.stages[stage - 1][k]; });
    t_stage = stage == 0 ? t : __dadd_rn(t, __dmul_rn(tableau.nodes[stage], h));
    return true;
  }

  // Saves the state if it is due and chooses t and h of the next step; false if the tile is
  // finished or has failed.
  __device__ __forceinline__ bool begin_step() {
    const bool is_fixed = params.steps != nullptr;
    while (is_fixed ? n_steps == params.steps_before[saved] : !((params.save_at[saved] - t) * params.direction > 0.0)) {
      if (!save()) return fail(IntegrationFailure::kNotFinite);
      if (++saved == params.n_saved) return false;
      attempts = 0;
    }
    if (is_fixed) {
      const FixedStep& step = params.steps[n_steps];
      t = step.t;
      h = step.h;
      if (step.deviation != 0.0f) {
        sync_workers();  // the noise of the step before is read
        draw_noise(state(), n_steps, step.deviation);
      }
    } else if (proposed == 0.0 && !first_stage_ready) {
      phase = Phase::kFirstSpeed;
      return true;
    } else {
      const double remaining = params.save_at[saved] - t;
      is_last = fabs(proposed) >= fabs(remaining) * (1.0 - 1e-9);
      h = is_last ? remaining : proposed;
      if (!isfinite(h) || t + h == t || ++attempts > kMaxAttempts) return fail(IntegrationFailure::kTolerance);
    }
    phase = Phase::kStage;
    return true;
  }

  // Forms the result of a step whose stages are all evaluated, and accepts or rejects it.
  __device__ __forceinline__ void finish_step() {
    const TableauParams& tableau = params.tableau;
    phase = Phase::kBetween;
    first_stage_ready = true;
    if (!tableau.first_same_as_last) combine(tableau.n_stages, [&](uint32_t k) { return h * tableau.weights[k]; });
    if (params.steps == nullptr) {
      const double error = error_norm(state(), h), factor = step_factor(error);
      if (!(error <= 1.0)) {
        if (threadIdx.x == 0) ++report().rejected_steps;
        proposed = h * fmin(factor, 1.0);
        return;
      }
      // A step cut short to meet a saved time says nothing about the next one.
      proposed = is_last ? fmax(fabs(proposed), fabs(h) * factor) * params.direction : h * factor;
      t = is_last ? params.save_at[saved] : t + h;
    }
    tile.is_second = !tile.is_second;
    if (tableau.first_same_as_last) tile.is_swapped = !tile.is_swapped;
    first_stage_ready = tableau.first_same_as_last;
    ++n_steps;
    if (threadIdx.x == 0) ++report().accepted_steps;
  }

  // point = y + noise + Σ factor(k) stage k. At least one evaluation, with its barriers, lies
  // between drawing the noise and this.
  template <class Factor>
  __device__ __forceinline__ void combine(uint32_t n, Factor factor) {
    const float *y = state().y(), *noise = state().noise();
    float* point = state().point();
    const bool has_noise = params.steps != nullptr && params.steps[n_steps].deviation != 0.0f;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < state().n_values(); i += kThreads) {
      float value = y[i];
      if (has_noise && i < state().weights()) value += noise[i];
#pragma unroll 1
      for (uint32_t k = 0; k < n; ++k) {
        const float f = static_cast<float>(factor(k));
        if (f != 0.0f) value = fmaf(f, state().stage(k)[i], value);
      }
      point[i] = value;
    }
  }

  // Stores the state for the saved time that is due; false if a value of a real row is not finite.
  __device__ __forceinline__ bool save() const {
    const float* y = state().y();
    double n_lost = 0.0;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < state().n_values(); i += kThreads) {
      if (!state().counts(i)) continue;
      *state().saved(saved, i) = y[i];
      if (!isfinite(y[i])) n_lost += 1.0;
    }
    return block_sum(n_lost) == 0.0;
  }

  __device__ __forceinline__ bool fail(IntegrationFailure what) {
    has_failed = true;
    if (threadIdx.x == 0) {
      report().failure = what;
      report().failed_tile = tile.index;
      report().failed_step = n_steps;
      report().failed_time = t;
    }
    return false;
  }
};

// Runs `next` on the state in shared memory.
template <int kRows>
__device__ __forceinline__ bool advance(const IntegrateParams& params, Progress& sm_progress) {
  TileStepper<kRows> stepper{sm_progress, params};
  const bool goes_on = stepper.next();
  sync_workers();  // the progress is read
  if (threadIdx.x == 0) sm_progress = stepper;
  sync_workers();  // the progress is written
  return goes_on;
}

template <bool kDensity, class Engine>
using ParticleSweeps = Sweeps<Engine, kDensity ? 3 : 1, Operands::kDiscard>;

// Shared memory of an integration besides that of its products.
template <int kRows>
struct IntegrationMemory {
  float probe_weight[kRows];
  Progress progress;

  __device__ __forceinline__ void begin(const IntegrateParams& params) {
    if (threadIdx.x < kRows) probe_weight[threadIdx.x] = params.probe_weight;
    if (threadIdx.x == 0) {
      progress = Progress{};
      progress.tile.index = blockIdx.x;
      progress.tile.has_weights = params.log_weights != nullptr;
      progress.slot_row = blockIdx.x * kRows;
    }
  }
};

// Integrates a block's tiles one after the other, all steps of each. kColumns: see Sweeps.
template <class T, bool kDensity, int kColumns, int kRows = kTileRows>
__device__ __forceinline__ void integrate(const IntegrateParams& params) {
  using Engine = MmaEngine<T, kColumns, kRows>;
  using TileSweeps = ParticleSweeps<kDensity, Engine>;
  extern __shared__ __align__(128) unsigned char sm[];
  __shared__ IntegrationMemory<kRows> sm_integration;
  const ParticleState<kRows> state{params, sm_integration.progress.tile};
  sm_integration.begin(params);
  sync_workers();  // the progress is written
  const auto sweeps_of = [&](uint32_t first_row) {
    const uint32_t n_resident = Engine::kResidentWeights ? params.n_resident : 0;
    unsigned char* sm_resident =
        sm + Engine::bytes_of_products(params.n_operand_chunks,
                                       Engine::kResidentWeights && n_resident == params.network.n_layers);
    return TileSweeps{{params.network, params.rows, first_row, first_row},
                      static_cast<const T*>(params.weights),
                      params.biases,
                      {sm, params.n_operand_chunks},
                      {params.carried, params.rows.carried, sm_resident + 2 * n_resident * TileSweeps::kResidentBytes},
                      sm_integration.probe_weight,
                      sm_resident,
                      n_resident};
  };
  if constexpr (Engine::kResidentWeights) sweeps_of(0).make_resident();
#pragma unroll 1
  while (advance<kRows>(params, sm_integration.progress)) {
    // Read again each time, so that addresses derived from it do not stay in registers across the
    // network.
    const uint32_t first_row = sm_integration.progress.slot_row;
    TileSweeps sweeps = sweeps_of(first_row);
    velocity(sweeps, state, sm_integration.progress.stage, sm_integration.progress.t_stage);
    if (threadIdx.x == 0) params.blocks[blockIdx.x].velocity_evaluations += sm_integration.progress.tile.n_rows;
  }
}
