// Entry points of low training tiles, for small batches: see sweep.cuh.
#include "sweep.cuh"

#define SWEEP_LOW(NAME, TYPE)                                                                                      \
  extern "C" __global__ void __launch_bounds__(kThreads, 1) sweep_low_##NAME(const SweepParams params) {           \
    sweep<TYPE, false, kBroadColumns, kLowTileRows>(params);                                                       \
  }                                                                                                                \
  extern "C" __global__ void __launch_bounds__(kThreads, 1) sweep_low_diffusive_##NAME(const SweepParams params) { \
    sweep<TYPE, true, kBroadColumns, kLowTileRows>(params);                                                        \
  }
SWEEP_LOW(f32, float)
SWEEP_LOW(tf32, tf32)
SWEEP_LOW(bf16, __nv_bfloat16)
SWEEP_LOW(f16, __half)
