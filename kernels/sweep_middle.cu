// Entry points of training tiles of networks of more than kWideColumns and up to kBroadColumns
// columns in types of 16 bits: half of the rows of sweep_broad, so that two blocks share a
// multiprocessor and one multiplies while the other does its elementwise part: see sweep.cuh.
#include "sweep.cuh"

#define SWEEP_MIDDLE(NAME, TYPE)                                                                            \
  extern "C" __global__ void __launch_bounds__(kThreads, 2) sweep_middle_##NAME(const SweepParams params) { \
    sweep<TYPE, false, kBroadColumns, kMiddleTileRows>(params);                                             \
  }
SWEEP_MIDDLE(bf16, __nv_bfloat16)
SWEEP_MIDDLE(f16, __half)
