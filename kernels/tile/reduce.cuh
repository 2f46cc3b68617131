// Sums over a block's threads, in a fixed order.
#pragma once
#include <cstdint>

#include "workers.cuh"

// Σ over the lanes of a warp, in lane 0.
__device__ __forceinline__ double warp_sum(double value) {
#pragma unroll
  for (int half = 16; half > 0; half /= 2) value += __shfl_down_sync(0xffffffffu, value, half);
  return value;
}

// Σ over the threads of a block of kWarps warps, returned to all of them. All threads must call it,
// and none may write sm_sums before the next barrier.
template <uint32_t kWarps>
__device__ __forceinline__ double block_sum(double value, double (&sm_sums)[kWarps]) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) sm_sums[threadIdx.x / 32] = value;
  sync_workers();  // the warps' sums are written
  double sum = 0.0;
#pragma unroll
  for (uint32_t warp = 0; warp < kWarps; ++warp) sum += sm_sums[warp];
  return sum;
}
