// Integrates particles on sm_90a with networks that are not narrow, in types of 16 bits: see
// integrate.cu and net/wgmma_engine.cuh.
#define AMATCH_STREAMED_WEIGHTS
#include "integrate/particles.cuh"
#include "net/wgmma_engine.cuh"

template <class T>
__device__ __forceinline__ void integrate_wgmma(const IntegrateParams& params) {
  extern __shared__ __align__(128) unsigned char sm[];
  __shared__ IntegrationMemory<kTileRows> sm_integration;
  __shared__ PipeBarriers sm_barriers;
  __shared__ bool sm_goes_on;
  sm_integration.begin(params);
  WeightPipe pipe = make_pipe(sm, sm_barriers);
  // Evaluations follow each other as their errors demand, so each is announced: the weights of its
  // first products arrive while its input is written.
  const uint32_t go = shared_address(&sm_barriers.go);
  if (brings_weights()) {
    give_registers<kStreamRegisters>();
    if (copies_weights()) {
      WeightStream<T> weights{params.network, static_cast<const T*>(params.weights), pipe};
      uint32_t parity = 0;
#pragma unroll 1
      for (wait_for(go, parity); sm_goes_on; wait_for(go, parity)) {
        parity ^= 1;
        weights.potential_and_gradient(params.log_weights != nullptr);
      }
    }
  } else {
    take_registers<kWorkRegisters>();
    uint32_t a[kOperandRegisters] = {};
    begin_turns();
    const auto sweeps_of = [&](uint32_t first_row) {
      return ParticleSweeps<false, WgmmaEngine<T>>{{params.network, params.rows, first_row, first_row},
                                                   nullptr,
                                                   params.biases,
                                                   {a, pipe},
                                                   {params.carried, params.rows.carried, behind_stages(sm)},
                                                   sm_integration.probe_weight};
    };
    // Announces whether an evaluation follows.
    const auto goes_on = [&] {
      const bool does = advance<kTileRows>(params, sm_integration.progress);
      if (threadIdx.x == 0) {
        sm_goes_on = does;
        arrive(go);
      }
      return does;
    };
    const ParticleState<kTileRows> state{params, sm_integration.progress.tile};
#pragma unroll 1
    while (goes_on()) {
      const uint32_t first_row = sm_integration.progress.slot_row;
      auto sweeps = sweeps_of(first_row);
      velocity(sweeps, state, sm_integration.progress.stage, sm_integration.progress.t_stage);
      if (threadIdx.x == 0) params.blocks[blockIdx.x].velocity_evaluations += sm_integration.progress.tile.n_rows;
    }
    end_turns();
  }
}

#define INTEGRATE_WGMMA(NAME, TYPE)                              \
  extern "C" __global__ void __launch_bounds__(kWgmmaThreads, 1) \
      integrate_wgmma_##NAME(const IntegrateParams params) {     \
    integrate_wgmma<TYPE>(params);                               \
  }
INTEGRATE_WGMMA(bf16, __nv_bfloat16)
INTEGRATE_WGMMA(f16, __half)
