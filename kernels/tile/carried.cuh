// Values that each thread carries from one sweep to a later one: f', f'', ... of the elements that
// it owns in every product of its tile. No other thread reads them, so they need no barrier, and
// they lie as suits the memory: in units of eight elements of each thread, 16 bytes of one thread
// beside those of the next. The first units lie in shared memory, as far as it has room, the others
// in global memory. There they belong to the block, which reuses them for all its tiles, so that L2
// can keep them.
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

  __device__ __forceinline__ Packed8<S> load(uint32_t unit) const {
    const uint4* from = pieces(unit);
    Packed8<S> eight;
#pragma unroll
    for (uint32_t i = 0; i < kPieces; ++i) eight.pieces[i] = from[i * kThreads];
    return eight;
  }
  __device__ __forceinline__ void store(uint32_t unit, const Packed8<S>& eight) const {
    uint4* to = pieces(unit);
#pragma unroll
    for (uint32_t i = 0; i < kPieces; ++i) to[i * kThreads] = eight.pieces[i];
  }

  // Prefetches `n` units into L2, line by line.
  __device__ __forceinline__ void fetch(uint32_t unit, uint32_t n) const {
    constexpr uint32_t kLine = 128, kLines = kUnitBytes / kLine;
    const unsigned char* units = static_cast<unsigned char*>(global) + static_cast<size_t>(in_global(0)) * kUnitBytes;
#pragma unroll 1
    for (uint32_t line = max(unit, layout.n_shared) * kLines + this_thread(); line < (unit + n) * kLines;
         line += kThreads)
      prefetch(units + static_cast<size_t>(line) * kLine);
  }

 private:
  // Index of a unit among those of all blocks.
  __device__ __forceinline__ uint32_t in_global(uint32_t unit) const { return blockIdx.x * layout.of_tile + unit; }

  __device__ __forceinline__ uint4* pieces(uint32_t unit) const {
    const bool is_shared = unit < layout.n_shared;
    unsigned char* base = is_shared ? shared : static_cast<unsigned char*>(global);
    const uint32_t index = is_shared ? unit : in_global(unit);
    return reinterpret_cast<uint4*>(base + static_cast<size_t>(index) * kUnitBytes) + this_thread();
  }
};
