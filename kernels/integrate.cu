// Integrates particles along their flow: positions and log w; `integrate_density` also the
// log-density. A block loops over tiles and takes all steps of each.
#include "integrate/particles.cuh"

#define INTEGRATE(NAME, TYPE, BLOCKS)                                                                             \
  extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS) integrate_##NAME(const IntegrateParams params) { \
    integrate<TYPE, false, kWideColumns>(params);                                                                 \
  }                                                                                                               \
  extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS)                                                  \
      integrate_density_##NAME(const IntegrateParams params) {                                                    \
    integrate<TYPE, true, kWideColumns>(params);                                                                  \
  }
INTEGRATE(f32, float, 1)
INTEGRATE(tf32, tf32, 1)
INTEGRATE(bf16, __nv_bfloat16, 2)
INTEGRATE(f16, __half, 1)
