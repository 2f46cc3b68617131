// Single-block kernel between gather and update: reduces loss and norms, accepts or rejects the
// step, writes its record and AdamW step sizes. Counterpart of src/engine/cpu/trainer.rs (record,
// follow_integrand) and of StepSizes::new.
#pragma once
#include "../tile/reduce.cuh"
#include "times.cuh"

// base^n by squaring, so that it depends only on the step; error at most n units in the last place.
__device__ __forceinline__ double power(double base, uint64_t n) {
  double product = 1.0;
  for (; n > 0; n >>= 1) {
    if (n & 1) product *= base;
    base *= base;
  }
  return product;
}

// LearningRate::at
__device__ __forceinline__ double learning_rate(const OptimizerParams& optimizer, uint64_t step) {
  const uint64_t warmup = optimizer.warmup_steps, end = optimizer.cosine_steps;
  if (step < warmup) return optimizer.peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (end <= warmup) return optimizer.peak;
  const double progress = static_cast<double>(step - warmup) / static_cast<double>(end - warmup);
  const double cosine = 0.5 * (1.0 + cospi(fmin(progress, 1.0)));
  return optimizer.peak * (optimizer.floor + (1.0 - optimizer.floor) * cosine);
}

__device__ __forceinline__ StepSizes step_sizes(const OptimizerParams& optimizer, uint64_t step, double norm,
                                                double rate, float ema_rate) {
  const double correction1 = 1.0 - power(optimizer.beta1, step + 1),
               correction2 = 1.0 - power(optimizer.beta2, step + 1);
  const double clip = optimizer.clip_norm;
  StepSizes sizes;
  sizes.gradient_scale = static_cast<float>(norm > clip ? clip / norm : 1.0);
  sizes.toward1 = static_cast<float>(1.0 - optimizer.beta1);
  sizes.toward2 = static_cast<float>(1.0 - optimizer.beta2);
  sizes.step_size = static_cast<float>(rate / correction1);
  sizes.root_correction = static_cast<float>(1.0 / sqrt(correction2));
  sizes.epsilon = static_cast<float>(optimizer.epsilon);
  sizes.decay_factor = static_cast<float>(1.0 - rate * optimizer.weight_decay);
  sizes.toward_ema = ema_rate;
  return sizes;
}

// The terms of the loss over this thread's tiles.
struct Terms {
  double boundary0 = 0.0, boundary1 = 0.0, interior = 0.0, kinetic = 0.0;

  __device__ __forceinline__ Terms(const BatchParams& batch, const TileSums* sums, const GatheredParams& gathered) {
    for (uint32_t k = 0; k < batch.n_parts; ++k) {
      const Part& part = batch.parts[k];
      double value = 0.0, energy = 0.0;
      for (uint32_t tile = threadIdx.x; tile < part.n_tiles; tile += kThreads) {
        const TileSums sum = sums[place_of(gathered, part.first_tile + tile, gathered.n_tiles)];
        value += sum.value;
        energy += sum.kinetic;
      }
      switch (part.kind) {
        case PartKind::kInterior:
        case PartKind::kCenter:
          interior += value;
          kinetic += energy;
          break;
        case PartKind::kCenterEnds: interior += value; break;
        case PartKind::kBoundary0:
        case PartKind::kWeakEnds0: boundary0 += value; break;
        case PartKind::kBoundary1:
        case PartKind::kWeakEnds1: boundary1 += value; break;
      }
    }
  }
};

__device__ __forceinline__ double sum_of_squares(const StepNetworkParams& network) {
  double sum = 0.0;
#pragma unroll 4
  for (uint32_t block = threadIdx.x; block < network.n_blocks; block += kThreads) sum += network.squares[block];
  return sum;
}

// Serial tail, thread 0 only: accepts or rejects the step; writes record, step sizes and loss
// scale.
__device__ __forceinline__ void decide(const FinishStepParams& params, StepState& state, DeviceRecord record,
                                       const double (&norms)[2]) {
  record.step = state.step;
  record.loss = record.boundary0 + record.boundary1 + record.interior;
  record.learning_rate = learning_rate(params.optimizer, state.step);
  // A non-finite gradient of either network ends the run.
  record.gradient_norm = params.n_networks > 1 && !isfinite(norms[1]) ? norms[1] : norms[0];
  const bool good = isfinite(record.loss) && isfinite(record.gradient_norm);
  if (!good && params.scales_loss && state.loss_scale > 1.0f) {
    // Most likely an overflow of the operands' type: repeat the step with half the loss scale.
    state.loss_scale *= 0.5f;
    state.good_steps = 0;
    state.apply = 0;
    return;
  }
  params.history[state.n_records++] = record;
  state.apply = good;
  state.halted = !good;
  if (!good) return;
  // Optimizer::ema_rate, bit for bit. Computed once for both networks, as an f64 division takes
  // many registers.
  const float ema_rate =
      static_cast<float>(fmax(1.0 - params.optimizer.ema_decay, 9.0 / (10.0 + static_cast<double>(state.step))));
#pragma unroll
  for (uint32_t k = 0; k < 2; ++k) {
    const StepNetworkParams& network = params.networks[k];
    if (k < params.n_networks)
      *network.sizes =
          step_sizes(params.optimizer, state.step, norms[k], network.relative_rate * record.learning_rate, ema_rate);
  }
  ++state.step;
  if (params.scales_loss && ++state.good_steps >= kStepsBeforeGrowth) {
    state.loss_scale = fminf(2.0f * state.loss_scale, kLargestScale);
    state.good_steps = 0;
  }
}

__device__ __forceinline__ void finish(const FinishStepParams& params) {
  __shared__ double sm_sums[6][kThreads / 32];
  __shared__ TimesMemory sm_times;
  __shared__ uint32_t sm_apply;
  StepState state = *params.state;
  if (state.halted) return;
  if (state.n_records >= params.capacity) {
    __syncthreads();  // the state is read
    if (threadIdx.x == 0) params.state->apply = 0;
    return;
  }
  const Terms terms(params.batch, params.sums, params.gathered);
  DeviceRecord record;
  record.boundary0 = block_sum(terms.boundary0, sm_sums[0]);
  record.boundary1 = block_sum(terms.boundary1, sm_sums[1]);
  record.interior = block_sum(terms.interior, sm_sums[2]);
  record.kinetic = block_sum(terms.kinetic, sm_sums[3]);
  const double norms[2] = {
      sqrt(block_sum(sum_of_squares(params.networks[0]), sm_sums[4])),
      params.n_networks > 1 ? sqrt(block_sum(sum_of_squares(params.networks[1]), sm_sums[5])) : 0.0,
  };
  if (threadIdx.x == 0) {
    decide(params, state, record, norms);
    *params.state = state;
    sm_apply = state.apply;
  }
  __syncthreads();  // the decision is written
  // The interior part comes first in a batch.
  if (!sm_apply || params.times.tile_moments == nullptr) return;
  follow_integrand(params.times, params.batch.parts[0], params.gathered, sm_times);
  form_density(params.times, sm_times);
}
