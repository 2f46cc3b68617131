// Standard normal numbers from random words (Box-Muller): twin of rng::normals. The host's come from other logarithms and sines: a few ulp apart.
#pragma once
#include "philox.cuh"

// Number `place` of the four that the words of a counter give.
__device__ __forceinline__ float normal(uint4 words, uint32_t place) {
  const bool first = place < 2;
  const float radius = sqrtf(-2.0f * logf(unit_f32(first ? words.x : words.z)));
  // sin(2 pi u) of an exact 2u: its reduction has no slow path, which would take local memory.
  float sine, cosine;
  sincospif(2.0f * unit_f32(first ? words.y : words.w), &sine, &cosine);
  return radius * (place % 2 == 0 ? cosine : sine);
}

// All four.
__device__ __forceinline__ float4 normals(uint4 words) {
  const float first = sqrtf(-2.0f * logf(unit_f32(words.x))), second = sqrtf(-2.0f * logf(unit_f32(words.z)));
  float4 n;
  sincospif(2.0f * unit_f32(words.y), &n.y, &n.x);
  sincospif(2.0f * unit_f32(words.w), &n.w, &n.z);
  return make_float4(first * n.x, first * n.y, second * n.z, second * n.w);
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
