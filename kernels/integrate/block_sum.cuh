// Sums over a block that can follow each other in the same memory.
#pragma once
#include "../tile/reduce.cuh"

// Sum of `value` over the block, returned to every thread.
__device__ __forceinline__ double block_sum(double value) {
  __shared__ double sm_sums[kThreads / 32];
  sync_workers();  // the sums of the call before are read
  return block_sum(value, sm_sums);
}
