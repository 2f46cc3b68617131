// What is random along a path: the Brownian increments of each step, and the directions of the divergence, which stay the same.
#pragma once
#include "../rng/normal.cuh"
#include "state.cuh"


// The noise of step `n_steps`, whose increments have the standard deviation `deviation`.
__device__ __forceinline__ void draw_noise(const ParticleState& state, uint64_t n_steps, float deviation) {
  const IntegrateParams& params = state.params;
  const uint32_t dim = state.dim(), n_counters = (dim + 3) / 4;
  float* noise = state.noise();
#pragma unroll 1
  for (uint32_t i = threadIdx.x; i < kTileRows * n_counters; i += kThreads) {
    const uint32_t row = i / n_counters, counter = i % n_counters;
    const uint32_t number = (state.first_row() + row) * n_counters + counter;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 1
    for (uint32_t increment = 0; increment < params.increments_per_step; ++increment) {
      const uint64_t step = n_steps * params.increments_per_step + increment;
      const float4 normal = normals(random_words(params.seed, Purpose::kNoise, step, number));
      sum.x += deviation * normal.x, sum.y += deviation * normal.y, sum.z += deviation * normal.z, sum.w += deviation * normal.w;
    }
    float* to = noise + row * dim + 4 * counter;
    const uint32_t n = dim - 4 * counter;
    to[0] = sum.x;
    if (n > 1) to[1] = sum.y;
    if (n > 2) to[2] = sum.z;
    if (n > 3) to[3] = sum.w;
  }
}

// The directions of the tile's rows: component i of direction k has the number k dim + i in its row.
__device__ __forceinline__ void draw_directions(const ParticleState& state) {
  const IntegrateParams& params = state.params;
  if (params.rule == LaplacianRule::kExact) return;
  const bool has_signs = params.rule == LaplacianRule::kRademacher;
  const uint32_t dim = state.dim(), n_numbers = params.rows.n_probes * dim;
  const uint32_t in_counter = has_signs ? 128 : 4, n_counters = (n_numbers + in_counter - 1) / in_counter;
  float* directions = state.directions();
#pragma unroll 1
  for (uint32_t i = threadIdx.x; i < kTileRows * n_counters; i += kThreads) {
    const uint32_t row = i / n_counters, counter = i % n_counters;
    uint4 words = random_words(params.seed, Purpose::kProbe, 0, (state.first_row() + row) * n_counters + counter);
    float4 normal = normals(words);
    const uint32_t first = counter * in_counter, n = min(in_counter, n_numbers - first);
#pragma unroll 1
    for (uint32_t j = 0; j < n; ++j) {
      const uint32_t k = (first + j) / dim, component = (first + j) % dim;
      directions[(k * kTileRows + row) * dim + component] = !has_signs ? normal.x : words.x & 1 ? -1.0f : 1.0f;
      // The next number comes first: the next bit, or the next of four.
      normal = make_float4(normal.y, normal.z, normal.w, normal.x);
      words.x >>= 1;
      if (j % 32 == 31) words = make_uint4(words.y, words.z, words.w, 0);
    }
  }
}
