// Standard normal numbers from random words (Box-Muller). Counterpart of rng::normals, within a few
// ulp, as logarithm and sine differ.
#pragma once
#include "philox.cuh"

// Two independent normal numbers from two words.
__device__ __forceinline__ float2 normal_pair(uint32_t a, uint32_t b) {
  const float radius = sqrtf(-2.0f * logf(unit_f32(a)));
  // sin(2 pi u) as sinpi of the exact 2u: its argument reduction has no slow path, which would need
  // local memory.
  float sine, cosine;
  sincospif(2.0f * unit_f32(b), &sine, &cosine);
  return make_float2(radius * cosine, radius * sine);
}

// Four independent normal numbers from the words of one counter.
__device__ __forceinline__ float4 normals(uint4 words) {
  const float2 first = normal_pair(words.x, words.y), second = normal_pair(words.z, words.w);
  return make_float4(first.x, first.y, second.x, second.y);
}

// Number `index` of the four.
__device__ __forceinline__ float normal(uint4 words, uint32_t index) {
  const bool first = index < 2;
  const float2 pair = normal_pair(first ? words.x : words.z, first ? words.y : words.w);
  return index % 2 == 0 ? pair.x : pair.y;
}

// Counterpart of rng::RowWords: random words of rows that use n_counters counters each.
struct RowWords {
  uint64_t seed, step;
  Purpose purpose;
  uint32_t n_counters;

  __device__ __forceinline__ uint4 of(uint32_t row, uint32_t counter) const {
    return random_words(seed, purpose, step, row * n_counters + counter);
  }
};
