// Entry points of the network of a learned path: see bend.cuh.
#include "bend.cuh"

#define BEND(NAME, TYPE)                                                                                    \
  extern "C" __global__ void __launch_bounds__(kThreads, 1) bend_forward_##NAME(const BendParams params) {  \
    bend_forward<TYPE>(params);                                                                             \
  }                                                                                                         \
  extern "C" __global__ void __launch_bounds__(kThreads, 1) bend_backward_##NAME(const BendParams params) { \
    bend_backward<TYPE>(params);                                                                            \
  }
BEND(f32, float)
BEND(tf32, tf32)
BEND(bf16, __nv_bfloat16)
BEND(f16, __half)
