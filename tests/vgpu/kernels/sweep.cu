// The sweep in a few instances and the weight gradient, for tests/sweep.rs.
#include "../../../kernels/sweep.cuh"
#include "../../../kernels/weight_grad.cuh"

#define SWEEP(NAME, TYPE, ACTIVATION, HEAD)                                                      \
  extern "C" __global__ void __launch_bounds__(kThreads, kSweepBlocks) sweep_##NAME(const SweepParams params) { \
    sweep_interior<TYPE, Activation::ACTIVATION, Head::HEAD>(params);                            \
  }
SWEEP(f32_silu_scalar, float, kSilu, kScalar)
SWEEP(f32_silu_quadratic, float, kSilu, kQuadratic)
SWEEP(f32_tanh_dot, float, kTanh, kDot)
SWEEP(bf16_silu_scalar, __nv_bfloat16, kSilu, kScalar)
SWEEP(f16_silu_quadratic, __half, kSilu, kQuadratic)
SWEEP(tf32_gelu_dot, tf32, kGelu, kDot)

#define WEIGHT_GRAD(NAME, TYPE)                                                                                \
  extern "C" __global__ void __launch_bounds__(kThreads) weight_grad_##NAME(const WeightGradParams params) { \
    weight_grad<TYPE>(params);                                                                               \
  }
WEIGHT_GRAD(f32, float)
WEIGHT_GRAD(tf32, tf32)
WEIGHT_GRAD(bf16, __nv_bfloat16)
WEIGHT_GRAD(f16, __half)
