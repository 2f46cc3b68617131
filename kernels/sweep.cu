// Training tiles: see sweep.cuh.
#include "sweep.cuh"

#define SWEEP(NAME, TYPE)                                                                        \
  extern "C" __global__ void __launch_bounds__(kThreads, 1) sweep_##NAME(const SweepParams params) { \
    sweep<TYPE, false>(params);                                                                  \
  }                                                                                              \
  extern "C" __global__ void __launch_bounds__(kThreads, 1) sweep_diffusive_##NAME(const SweepParams params) { \
    sweep<TYPE, true>(params);                                                                   \
  }
SWEEP(f32, float)
SWEEP(tf32, tf32)
SWEEP(bf16, __nv_bfloat16)
SWEEP(f16, __half)
