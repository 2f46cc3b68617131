// Points that already lie on the device: from units to others, and into the rows of a sweep.
// Counterparts on the host, with equal bits: src/flow.rs, and `Evaluation::place` in
// src/engine/cuda/evaluate.rs. Launched by src/engine/cuda/launch/units.rs.
#include "abi.h"
#include "exact.cuh"
#include "tile/element.cuh"

constexpr uint32_t kWarpSize = 32;

// The smallest of the values of a warp's lanes, in lane 0.
__device__ __forceinline__ uint64_t warp_min(uint64_t value) {
#pragma unroll
  for (int half = 16; half > 0; half /= 2) {
    const uint64_t other = __shfl_down_sync(0xffffffffu, value, half);
    value = other < value ? other : value;
  }
  return value;
}

// Formed in f64 and rounded once, as the host does. An element is read and written by one thread.
extern "C" __global__ void __launch_bounds__(kThreads) change_units(const __grid_constant__ UnitsParams params) {
  const uint64_t thread = static_cast<uint64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const uint64_t n_threads = static_cast<uint64_t>(gridDim.x) * kThreads;
  uint64_t first_not_finite = params.n_elements;
  for (uint64_t i = thread; i < params.n_elements; i += n_threads) {
    const uint32_t column = static_cast<uint32_t>(i % params.n_columns);
    const float value = params.from[i];
    if (!isfinite(value) && i < first_not_finite) first_not_finite = i;
    const f64 scaled = f64(value) * f64(params.factor[column]) + f64(params.offset[column]);
    params.to[i] = to_f32(scaled / f64(params.divisor[column]));
  }
  first_not_finite = warp_min(first_not_finite);
  if (threadIdx.x % kWarpSize == 0) params.first_not_finite[thread / kWarpSize] = first_not_finite;
}

// A warp for each row: its point, the time features, zero padding.
template <class T>
__device__ __forceinline__ void place_rows(const PlaceParams& params) {
  const uint32_t lane = threadIdx.x % kWarpSize;
  const size_t row = (static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarpSize;
  if (row >= params.n_rows) return;
  T* input = static_cast<T*>(params.a_in) + row * params.in_width;
  for (uint32_t column = lane; column < params.in_width; column += kWarpSize) {
    float value = 0.0f;
    if (column < params.dim) {
      if (row < params.n_given) value = params.points[row * params.dim + column];
      params.x[row * params.dim + column] = value;
    } else if (column < params.dim + params.n_features) {
      value = params.phi[row * params.n_features + column - params.dim];
    }
    input[column] = to_element<T>(value);
  }
}

#define PLACE_ROWS(NAME, TYPE)                                        \
  extern "C" __global__ void __launch_bounds__(kThreads)              \
      place_rows_##NAME(const __grid_constant__ PlaceParams params) { \
    place_rows<TYPE>(params);                                         \
  }
PLACE_ROWS(f32, float)
PLACE_ROWS(tf32, tf32)
PLACE_ROWS(bf16, __nv_bfloat16)
PLACE_ROWS(f16, __half)
