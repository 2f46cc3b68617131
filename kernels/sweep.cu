// Entry points of training tiles of networks up to kWideColumns wide: see sweep.cuh. Registers
// allow two blocks per multiprocessor only in bf16, whose logistic function is the shortest, and
// without probes.
#include "sweep.cuh"

#define SWEEP(NAME, TYPE, BLOCKS)                                                                              \
  extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS) sweep_##NAME(const SweepParams params) {      \
    sweep<TYPE, false, kWideColumns>(params);                                                                  \
  }                                                                                                            \
  extern "C" __global__ void __launch_bounds__(kThreads, 1) sweep_diffusive_##NAME(const SweepParams params) { \
    sweep<TYPE, true, kWideColumns>(params);                                                                   \
  }
SWEEP(f32, float, 1)
SWEEP(tf32, tf32, 1)
SWEEP(bf16, __nv_bfloat16, 2)
SWEEP(f16, __half, 1)
