// One instance of the sweep, into which tests/sweep.rs puts faults on purpose.
#include "../../../kernels/sweep.cuh"

extern "C" __global__ void __launch_bounds__(kThreads, kSweepBlocks) sweep_bf16_silu_scalar(const SweepParams params) {
  sweep_interior<__nv_bfloat16, Activation::kSilu, Head::kScalar>(params);
}
