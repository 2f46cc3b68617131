// Entry points of training tiles on sm_90a, of networks that are not narrow, in types of 16 bits:
// see sweep.cuh and net/wgmma_engine.cuh.
#define AMATCH_STREAMED_WEIGHTS
#include "net/wgmma_engine.cuh"
#include "sweep.cuh"

// The weights of the tiles that a block sweeps over: sweep_tile.
template <class T>
__device__ __forceinline__ void stream_tiles(const SweepParams& params, WeightPipe& pipe) {
  WeightStream<T> weights{params.network, static_cast<const T*>(params.weights), pipe};
#pragma unroll 1
  for (uint32_t tile = blockIdx.x; tile < params.batch.n_tiles; tile += gridDim.x) {
    if (params.batch.first_tile + tile < params.batch.n_interior_tiles) {
      weights.potential_and_gradient(params.with_potential != 0);
      weights.tangent();
      weights.adjoint();
      if (params.with_grad_x) weights.adjoint_to_input();
    } else {
      weights.primal();
      weights.output();
      weights.adjoint();
    }
  }
}

template <class T>
__device__ __forceinline__ void sweep_wgmma(const SweepParams& params) {
  extern __shared__ __align__(128) unsigned char sm[];
  __shared__ TileMemory sm_tile;
  __shared__ PipeBarriers sm_barriers;
  if (params.state->halted) return;
  WeightPipe pipe = make_pipe(sm, sm_barriers);
  if (brings_weights()) {
    give_registers<kStreamRegisters>();
    if (copies_weights()) stream_tiles<T>(params, pipe);
  } else {
    take_registers<kWorkRegisters>();
    uint32_t a[kOperandRegisters] = {};
    begin_turns();
    sweep_tiles(params, sm_tile, [&](uint32_t first_row) {
      return TrainingSweeps<false, WgmmaEngine<T>>{{params.network, params.rows, first_row, first_row},
                                                   nullptr,
                                                   params.biases,
                                                   {a, pipe},
                                                   {params.carried, params.rows.carried, behind_stages(sm)},
                                                   sm_tile.probe_weight};
    });
    end_turns();
  }
}

#define SWEEP_WGMMA(NAME, TYPE)                                                                                 \
  extern "C" __global__ void __launch_bounds__(kWgmmaThreads, 1) sweep_wgmma_##NAME(const SweepParams params) { \
    sweep_wgmma<TYPE>(params);                                                                                  \
  }
SWEEP_WGMMA(bf16, __nv_bfloat16)
SWEEP_WGMMA(f16, __half)
