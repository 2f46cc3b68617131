// Entry points of the weight gradient: see weight_grad.cuh.
#include "weight_grad.cuh"

#define WEIGHT_GRAD(NAME, TYPE, BLOCKS)                                                                              \
  extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS) weight_grad_##NAME(const WeightGradParams params) { \
    weight_grad<TYPE>(params);                                                                                       \
  }
WEIGHT_GRAD(f32, float, 1)
WEIGHT_GRAD(tf32, tf32, 1)
WEIGHT_GRAD(bf16, __nv_bfloat16, 2)
WEIGHT_GRAD(f16, __half, 2)
