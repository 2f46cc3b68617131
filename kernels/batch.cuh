// Looks up the part of a batch that a tile belongs to.
#pragma once
#include <type_traits>

#include "abi.h"

// The part that `tile` of the batch belongs to.
__device__ __forceinline__ const Part& part_of(const BatchParams& batch, uint32_t tile) {
  uint32_t k = 0;
  while (k + 1 < batch.n_parts && tile - batch.parts[k].first_tile >= batch.parts[k].n_tiles) ++k;
  return batch.parts[k];
}

// True if operands of type T are rounded from f32.
template <class T>
constexpr bool kRounds = !std::is_same<T, float>::value;

// Part::sum_scale of the rows of `tile` for operands of type T; 1 if those are not rounded.
template <class T>
__device__ __forceinline__ float sum_scale(const BatchParams& batch, uint32_t tile) {
  if constexpr (kRounds<T>) return part_of(batch, tile).sum_scale;
  return 1.0f;
}
