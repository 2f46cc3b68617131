// The parts of a batch.
#pragma once
#include "params.h"

// The part that `tile` of the batch belongs to.
__device__ __forceinline__ const Part& part_of(const Batch& batch, uint32_t tile) {
  uint32_t k = 0;
  while (k + 1 < batch.n_parts && tile - batch.parts[k].first_tile >= batch.parts[k].n_tiles) ++k;
  return batch.parts[k];
}

// Part::sum_scale of the rows of `tile` where operands are of type T: only those of 16 bits have one.
template <class T>
__device__ __forceinline__ float sum_scale(const Batch& batch, uint32_t tile) {
  if constexpr (sizeof(T) == 2) return part_of(batch, tile).sum_scale;
  return 1.0f;
}
