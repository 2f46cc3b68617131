// Entry points of training tiles of narrow networks: see sweep_narrow.cuh. Two blocks share a
// multiprocessor if registers allow it: not in f32, and not with probes.
#include "sweep_narrow.cuh"

#define SWEEP_NARROW(NAME, TYPE, BLOCKS)                                                                               \
  extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS) sweep_narrow_##NAME(const SweepNarrowParams params) { \
    sweep_narrow<TYPE, false>(params);                                                                                 \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(kThreads, 1)                                                            \
      sweep_narrow_diffusive_##NAME(const SweepNarrowParams params) {                                                  \
    sweep_narrow<TYPE, true>(params);                                                                                  \
  }
SWEEP_NARROW(f32, float, 1)
SWEEP_NARROW(tf32, tf32, 2)
SWEEP_NARROW(bf16, __nv_bfloat16, 2)
SWEEP_NARROW(f16, __half, 2)
