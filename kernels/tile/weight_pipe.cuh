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

// A thread's view of the pipe.
struct WeightPipe {
  uint32_t stages, barriers;  // addresses in shared memory
  uint32_t count;             // stages filled or read so far

  // Stages begin at the first whole atom of the swizzle in `sm`, which has kSwizzleAtom bytes more
  // than stages.
  __device__ __forceinline__ WeightPipe(const unsigned char* sm, const PipeBarriers& barriers)
      : stages((shared_address(sm) + kSwizzleAtom - 1) / kSwizzleAtom * kSwizzleAtom),
        barriers(shared_address(&barriers)),
        count(0) {}

  // The next stage to fill or to read, and the parity of its phase for a reader.
  __device__ __forceinline__ uint32_t stage() const { return stages + count % kWgmmaStages * kWgmmaStageBytes; }
  __device__ __forceinline__ uint32_t parity() const { return count / kWgmmaStages % 2; }

  __device__ __forceinline__ void wait_full() const { wait_for(full(count), parity()); }
  // Releases the stage before, which a warp has read.
  __device__ __forceinline__ void release_last() const {
    if (threadIdx.x % 32 == 0) arrive(empty(count - 1));
  }

  // The one thread that copies: fills the next stage from `n_bytes` of memory.
  __device__ __forceinline__ void fill(const void* from, uint32_t n_bytes) {
    wait_for(empty(count), parity() ^ 1);
    arrive_and_expect(full(count), n_bytes);
    copy_bulk(stage(), from, n_bytes, full(count));
    ++count;
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

 private:
  __device__ __forceinline__ uint32_t full(uint32_t index) const { return barriers + index % kWgmmaStages * 8; }
  __device__ __forceinline__ uint32_t empty(uint32_t index) const { return full(index) + kWgmmaStages * 8; }
};
static_assert((kWgmmaStages & (kWgmmaStages - 1)) == 0, "counts may wrap around");
