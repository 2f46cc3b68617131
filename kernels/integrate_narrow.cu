// Integrates particles with a narrow network, whose layers all have 64 columns: see integrate.cu.
#include "integrate/particles.cuh"

#define INTEGRATE_NARROW(NAME, TYPE)                                                                                \
  extern "C" __global__ void __launch_bounds__(kThreads, 2) integrate_narrow_##NAME(const IntegrateParams params) { \
    integrate<TYPE, false, kNarrowColumns>(params);                                                                 \
  }                                                                                                                 \
  extern "C" __global__ void __launch_bounds__(kThreads, 1)                                                         \
      integrate_narrow_density_##NAME(const IntegrateParams params) {                                               \
    integrate<TYPE, true, kNarrowColumns>(params);                                                                  \
  }
INTEGRATE_NARROW(f32, float)
INTEGRATE_NARROW(tf32, tf32)
INTEGRATE_NARROW(bf16, __nv_bfloat16)
INTEGRATE_NARROW(f16, __half)
