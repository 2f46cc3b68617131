// Values that each thread carries from one sweep to a later one: f', f'', ... of the elements that
// it owns in every product of its tile. No other thread reads them, so they need no barrier, and
// they lie as suits the memory: in units of eight elements of each thread, 16 bytes of one thread
// beside those of the next. The units of the first groups of columns lie in shared memory, as far
// as it has room, the others in global memory. There they belong to the block, which reuses them
// for all its tiles, so that L2 can keep them.
#pragma once
#include "abi.h"
#include "element.cuh"
#include "opaque.cuh"

template <class S>
struct Carried {
  static constexpr uint32_t kPieces = sizeof(S) / 2;  // of 16 bytes each
  static constexpr uint32_t kUnitBytes = kPieces * kThreads * 16;

  const CarriedParams& layout;
  void* const& global;    // units of all blocks
  unsigned char* shared;  // units of this one

  // Eight `eight` of a group of columns whose first unit is `unit0`.
  __device__ __forceinline__ Packed8<S> load(uint32_t unit0, uint32_t eight) const {
    const uint4* from = pieces(unit0) + eight * kPieces * kThreads;
    Packed8<S> values;
#pragma unroll
    for (uint32_t i = 0; i < kPieces; ++i) values.pieces[i] = from[i * kThreads];
    return values;
  }
  __device__ __forceinline__ void store(uint32_t unit0, uint32_t eight, const Packed8<S>& values) const {
    uint4* to = pieces(unit0) + eight * kPieces * kThreads;
#pragma unroll
    for (uint32_t i = 0; i < kPieces; ++i) to[i * kThreads] = values.pieces[i];
  }

  // Prefetches the `n` units of a group of columns into L2, where not all of what blocks carry
  // stays.
  __device__ __forceinline__ void fetch(uint32_t unit0, uint32_t n) const {
    constexpr uint32_t kLine = 128, kLines = kUnitBytes / kLine;
    if (unit0 < layout.n_shared) return;
    const unsigned char* units = reinterpret_cast<const unsigned char*>(pieces(unit0) - threadIdx.x);
#pragma unroll 1
    for (uint32_t line = this_thread(); line < n * kLines; line += kThreads) prefetch(units + line * kLine);
  }

 private:
  // This thread's part of the units of a group of columns, which lie in one memory.
  __device__ __forceinline__ uint4* pieces(uint32_t unit0) const {
    const bool is_shared = unit0 < layout.n_shared;
    unsigned char* base = is_shared ? shared : static_cast<unsigned char*>(global);
    const uint32_t index = is_shared ? unit0 : blockIdx.x * layout.of_tile + unit0;
    return reinterpret_cast<uint4*>(base + static_cast<size_t>(index) * kUnitBytes) + this_thread();
  }
};
