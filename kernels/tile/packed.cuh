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

// Where the hardware has column `index` of a product of warpgroups, if a thread's sums of four of
// its tiles of eight columns are eight consecutive columns: tile, thread and element change places
// in 32 columns. An even index and the next one stay neighbors.
__device__ __forceinline__ uint32_t in_order_of_sums(uint32_t index) {
  return index / 32 * 32 + index / 2 % 4 * 8 + index / 8 % 4 * 2 + index % 2;
}

// The same for products of warpgroups, of elements of 16 bits: blocks of kWgmmaDepth elements of
// all lines, as their stages of shared memory have them. Swizzle: eight lines permute their 16-byte
// pieces so that together they touch all banks.
__device__ __forceinline__ uint32_t packed_index_of_warpgroups(uint32_t n_lines, uint32_t line, uint32_t k) {
  const uint32_t own_line = in_order_of_sums(line), own_k = in_order_of_sums(k);
  const uint32_t piece = own_k % kWgmmaDepth / 8 ^ own_line % 8;
  return (own_k / kWgmmaDepth * n_lines + own_line) * kWgmmaDepth + piece * 8 + own_k % 8;
}
