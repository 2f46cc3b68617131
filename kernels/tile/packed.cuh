// The order in which weights lie in memory, that in which a product streams them: all lines of one
// chunk of the inner dimension, then all of the next. Counterpart of `packed_index` in
// src/engine/cuda/network.rs.
#pragma once
#include <cstdint>

#include "abi.h"

// Index of element k of line `line` among those of `n_lines` lines.
template <class T>
__device__ __forceinline__ uint32_t packed_index(uint32_t n_lines, uint32_t line, uint32_t k) {
  constexpr uint32_t kChunk = kChunkBytes / sizeof(T);
  return (k / kChunk * n_lines + line) * kChunk + k % kChunk;
}
