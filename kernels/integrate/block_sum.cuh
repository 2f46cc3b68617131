// Sums over a block, one after the other in the same memory.
#pragma once
#include "../tile/product.cuh"
#include "../tile/reduce.cuh"

// The sum of `value` over the block, in every thread.
__device__ __forceinline__ double block_sum(double value) {
  __shared__ double sm_sums[kThreads / 32];
  __syncthreads();  // the sums of the call before are read
  return block_sum(value, sm_sums);
}
