// The way of weights to a block of sm_90a: one thread copies blocks of them into stages of shared
// memory, in the order in which products use them (weight_stream.cuh), and the warpgroups that
// multiply release each stage when both have read it.
#pragma once
#include "abi.h"
#include "wgmma.cuh"

// A stage's barriers: `full` when its bytes have landed, `empty` when all warps have read it. Then
// `go`, at which the multiplying threads announce an evaluation (integrate_wgmma.cu).
struct __align__(8) PipeBarriers {
  uint64_t full[kWgmmaStages], empty[kWgmmaStages], go;
};

// A thread's view of the pipe: `stage` is the next one to fill or to read, `parity` that of its
// phase for a reader.
struct WeightPipe {
  uint32_t stages, full, empty;  // addresses in shared memory
  uint32_t stage, parity;

  // Stages begin at the first whole atom of the swizzle in `sm`, which has kSwizzleAtom bytes more
  // than stages.
  __device__ __forceinline__ WeightPipe(const unsigned char* sm, const PipeBarriers& barriers)
      : stages((shared_address(sm) + kSwizzleAtom - 1) / kSwizzleAtom * kSwizzleAtom),
        full(shared_address(barriers.full)),
        empty(shared_address(barriers.empty)),
        stage(0),
        parity(0) {}

  __device__ __forceinline__ uint32_t bytes_of_stage() const { return stages + stage * kWgmmaStageBytes; }
  __device__ __forceinline__ void wait_full() const { wait_for(full + 8 * stage, parity); }
  __device__ __forceinline__ void advance() {
    if (++stage == kWgmmaStages) stage = 0, parity ^= 1;
  }
  // Releases the stage before, which a warp has read.
  __device__ __forceinline__ void release_last() const {
    const uint32_t last = stage == 0 ? kWgmmaStages - 1 : stage - 1;
    if (threadIdx.x % 32 == 0) arrive(empty + 8 * last);
  }

  // The one thread that copies: fills the next stage from `n_bytes` of memory.
  __device__ __forceinline__ void fill(const void* from, uint32_t n_bytes) {
    wait_for(empty + 8 * stage, parity ^ 1);
    arrive_and_expect(full + 8 * stage, n_bytes);
    copy_bulk(bytes_of_stage(), from, n_bytes, full + 8 * stage);
    advance();
  }

  // Sets the barriers up, from one thread; the block must meet at a barrier before it uses them.
  static __device__ __forceinline__ void init(const PipeBarriers& barriers) {
#pragma unroll 1
    for (uint32_t i = 0; i < kWgmmaStages; ++i) {
      init_barrier(shared_address(&barriers.full[i]), 1);
      init_barrier(shared_address(&barriers.empty[i]), kWarps);
    }
    init_barrier(shared_address(&barriers.go), 1);
    fence_barriers();
  }
};
