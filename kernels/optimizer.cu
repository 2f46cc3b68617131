// From the partial weight gradients to the next weights: gather_gradient for each network (behind
// add_partials and add_slices if there are several ranks), finish_step once, update for each
// network.
#include "optimizer/finish_step.cuh"
#include "optimizer/gather.cuh"
#include "optimizer/update.cuh"

extern "C" __global__ void __launch_bounds__(kThreads) gather_gradient(const __grid_constant__ GatherParams params) {
  gather(params);
}

extern "C" __global__ void __launch_bounds__(kThreads) add_partials(const __grid_constant__ GatherParams params) {
  add_own_shards(params);
}

extern "C" __global__ void __launch_bounds__(kThreads) add_slices(const __grid_constant__ SliceParams params) {
  add_ranks(params);
}

extern "C" __global__ void __launch_bounds__(kThreads) finish_step(const __grid_constant__ FinishStepParams params) {
  finish(params);
}

// Forms the density of times before the first step.
extern "C" __global__ void __launch_bounds__(kThreads) renew_density(const __grid_constant__ TimesParams params) {
  __shared__ TimesMemory sm_times;
  form_density(params, sm_times);
}

#define UPDATE(NAME, TYPE)                                                                                            \
  extern "C" __global__ void __launch_bounds__(kThreads) update_##NAME(const __grid_constant__ UpdateParams params) { \
    update<TYPE>(params);                                                                                             \
  }
UPDATE(f32, float)
UPDATE(tf32, tf32)
UPDATE(bf16, __nv_bfloat16)
UPDATE(f16, __half)
