// The threads of a block that work on rows: its first kThreads, which are all of them unless other
// warps bring weights (weight_stream.cuh). Kernels with such warps define AMATCH_STREAMED_WEIGHTS.
#pragma once
#include "abi.h"

// Barrier of these threads.
__device__ __forceinline__ void sync_workers() {
#ifdef AMATCH_STREAMED_WEIGHTS
  asm volatile("bar.sync %0, %1;" ::"n"(kWorkersBarrier), "n"(kThreads) : "memory");
#else
  __syncthreads();
#endif
}
