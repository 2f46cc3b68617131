// Kernels of sm_90a: two warpgroups run the sweeps, with products of wgmma_product.cuh, and one
// thread of a third brings them their weights. Files of such kernels define
// AMATCH_STREAMED_WEIGHTS.
#pragma once
#include "../tile/wgmma_product.cuh"
#include "sweeps.cuh"
#include "weight_stream.cuh"

// See MmaEngine.
template <class T>
struct WgmmaEngine {
  using Operand = T;
  using Memory = WgmmaMemory;
  static constexpr int kColumns = kBroadColumns, kRows = kTileRows;
  static constexpr bool kOwnRows = true, kResidentWeights = false, kManyGroups = true;

  template <int kColumnsOfProduct>
  using Product = WgmmaProduct<T, kColumnsOfProduct>;
};

// Values that threads carry lie behind the stages.
__device__ __forceinline__ unsigned char* behind_stages(unsigned char* sm) { return sm + kWgmmaBytes; }

// The pipe, with its barriers set up. All threads of the block call it.
__device__ __forceinline__ WeightPipe make_pipe(const unsigned char* sm, PipeBarriers& sm_barriers) {
  if (threadIdx.x == 0) WeightPipe::init(sm_barriers);
  __syncthreads();  // the barriers are initialized
  return WeightPipe(sm, sm_barriers);
}

// Roles of threads. Registers go from those that bring weights, of which one copies, to those that
// multiply.
__device__ __forceinline__ bool brings_weights() { return threadIdx.x >= kThreads; }
__device__ __forceinline__ bool copies_weights() { return threadIdx.x == kThreads; }
