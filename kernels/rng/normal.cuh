// Standard normal numbers from random words (Box-Muller): twin of rng::normals. The host's come from other logarithms and sines: a few ulp apart.
#pragma once
#include "philox.cuh"

// Two independent ones from two words.
__device__ __forceinline__ float2 normal_pair(uint32_t a, uint32_t b) {
  const float radius = sqrtf(-2.0f * logf(unit_f32(a)));
  // sin(2 pi u) of an exact 2u: its reduction has no slow path, which would take local memory.
  float sine, cosine;
  sincospif(2.0f * unit_f32(b), &sine, &cosine);
  return make_float2(radius * cosine, radius * sine);
}

// Four independent ones from the words of one counter.
__device__ __forceinline__ float4 normals(uint4 words) {
  const float2 first = normal_pair(words.x, words.y), second = normal_pair(words.z, words.w);
  return make_float4(first.x, first.y, second.x, second.y);
}

// Number `place` of the four.
__device__ __forceinline__ float normal(uint4 words, uint32_t place) {
  const bool first = place < 2;
  const float2 pair = normal_pair(first ? words.x : words.z, first ? words.y : words.w);
  return place % 2 == 0 ? pair.x : pair.y;
}

// Twin of rng::RowWords: words of rows that take n_counters counters each. The words of counter `counter` of `row`.
struct RowWords {
  uint64_t seed, step;
  Purpose purpose;
  uint32_t n_counters;

  __device__ __forceinline__ uint4 of(uint32_t row, uint32_t counter) const {
    return random_words(seed, purpose, step, row * n_counters + counter);
  }
};
