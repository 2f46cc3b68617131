// The weight gradient: see weight_grad.cuh.
#include "weight_grad.cuh"

#define WEIGHT_GRAD(NAME, TYPE)                                                                          \
  extern "C" __global__ void __launch_bounds__(kThreads, 1) weight_grad_##NAME(const WeightGradParams params) { \
    weight_grad<TYPE>(params);                                                                           \
  }
WEIGHT_GRAD(f32, float)
WEIGHT_GRAD(tf32, tf32)
WEIGHT_GRAD(bf16, __nv_bfloat16)
WEIGHT_GRAD(f16, __half)
