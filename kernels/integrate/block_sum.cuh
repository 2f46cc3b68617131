// Sums over the threads of a block, in a fixed order.
#pragma once
#include "../tile/product.cuh"

// The sum of `value` over the block, in every thread.
__device__ __forceinline__ double block_sum(double value) {
  __shared__ double sm_sums[kThreads / 32];
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
  __syncthreads();  // the sums of the call before are read
  if (threadIdx.x % 32 == 0) sm_sums[threadIdx.x / 32] = value;
  __syncthreads();  // the sums are written
  double sum = 0.0;
#pragma unroll
  for (int warp = 0; warp < kThreads / 32; ++warp) sum += sm_sums[warp];
  return sum;
}
