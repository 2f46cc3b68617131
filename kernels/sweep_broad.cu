// Entry points of training tiles of wider networks, with one block per multiprocessor: see
// sweep.cuh.
#include "sweep.cuh"

#define SWEEP_BROAD(NAME, TYPE)                                                                                      \
  extern "C" __global__ void __launch_bounds__(kThreads, 1) sweep_broad_##NAME(const SweepParams params) {           \
    sweep<TYPE, false, kBroadColumns>(params);                                                                       \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(kThreads, 1) sweep_broad_diffusive_##NAME(const SweepParams params) { \
    sweep<TYPE, true, kBroadColumns>(params);                                                                        \
  }
SWEEP_BROAD(f32, float)
SWEEP_BROAD(tf32, tf32)
SWEEP_BROAD(bf16, __nv_bfloat16)
SWEEP_BROAD(f16, __half)
