// The optimiser's kernels, for tests/optimizer.rs.
#include "../../../kernels/optimizer.cuh"

extern "C" __global__ void __launch_bounds__(kOptimizerThreads) gather(const OptimizerParams params) {
  gather_gradient(params);
}
#define UPDATE(NAME, TYPE)                                                                                         \
  extern "C" __global__ void __launch_bounds__(kOptimizerThreads) update_##NAME(const OptimizerParams params) { \
    update_parameters<TYPE>(params);                                                                              \
  }
UPDATE(f32, float)
UPDATE(bf16, __nv_bfloat16)
