// The Brownian increments of a step.
#pragma once
#include "../rng/normal.cuh"
#include "state.cuh"

// Draws the noise of step `n_steps`. `deviation` is the standard deviation of each of its
// increments.
template <class State>
__device__ __forceinline__ void draw_noise(const State& state, uint64_t n_steps, float deviation) {
  const IntegrateParams& params = state.params;
  const uint32_t dim = state.dim(), n_counters = (dim + 3) / 4;
  float* noise = state.noise();
#pragma unroll 1
  for (uint32_t i = threadIdx.x; i < State::kRows * n_counters; i += kThreads) {
    const uint32_t row = i / n_counters, counter = i % n_counters;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 1
    for (uint32_t increment = 0; increment < params.increments_per_step; ++increment) {
      const uint64_t step = n_steps * params.increments_per_step + increment;
      const RowWords words{params.seed, step, Purpose::kNoise, n_counters};
      const float4 normal = normals(words.of(state.first_row() + row, counter));
      sum.x += deviation * normal.x, sum.y += deviation * normal.y, sum.z += deviation * normal.z,
          sum.w += deviation * normal.w;
    }
    float* to = noise + row * dim + 4 * counter;
    const uint32_t n = dim - 4 * counter;
    to[0] = sum.x;
    if (n > 1) to[1] = sum.y;
    if (n > 2) to[2] = sum.z;
    if (n > 3) to[3] = sum.w;
  }
}
