// Integrates particles with a network of more than kWideColumns columns: see integrate.cu. In types
// of 16 bits tiles have half of the rows, so that two blocks share a multiprocessor.
#include "integrate/particles.cuh"

#define INTEGRATE_BROAD(NAME, TYPE, ROWS, BLOCKS)                    \
  extern "C" __global__ void __launch_bounds__(kThreads, BLOCKS)     \
      integrate_broad_##NAME(const IntegrateParams params) {         \
    integrate<TYPE, false, kBroadColumns, ROWS>(params);             \
  }                                                                  \
  extern "C" __global__ void __launch_bounds__(kThreads, 1)          \
      integrate_broad_density_##NAME(const IntegrateParams params) { \
    integrate<TYPE, true, kBroadColumns>(params);                    \
  }
INTEGRATE_BROAD(f32, float, kTileRows, 1)
INTEGRATE_BROAD(tf32, tf32, kTileRows, 1)
INTEGRATE_BROAD(bf16, __nv_bfloat16, kMiddleTileRows, 2)
INTEGRATE_BROAD(f16, __half, kMiddleTileRows, 2)
