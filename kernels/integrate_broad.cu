// Integrates particles with a network of more than kWideColumns columns: see integrate.cu.
#include "integrate/particles.cuh"

#define INTEGRATE_BROAD(NAME, TYPE)                                                                                \
  extern "C" __global__ void __launch_bounds__(kThreads, 1) integrate_broad_##NAME(const IntegrateParams params) { \
    integrate<TYPE, false, kBroadColumns>(params);                                                                 \
  }                                                                                                                \
  extern "C" __global__ void __launch_bounds__(kThreads, 1)                                                        \
      integrate_broad_density_##NAME(const IntegrateParams params) {                                               \
    integrate<TYPE, true, kBroadColumns>(params);                                                                  \
  }
INTEGRATE_BROAD(f32, float)
INTEGRATE_BROAD(tf32, tf32)
INTEGRATE_BROAD(bf16, __nv_bfloat16)
INTEGRATE_BROAD(f16, __half)
