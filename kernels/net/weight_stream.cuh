// The weights of the sweeps in the order in which their products use them: what the one thread that
// copies them does while others run Sweeps (sweeps.cuh). Each function here is named as the one
// there and goes through the same products, but for those of probes.
#pragma once
#include "../tile/weight_pipe.cuh"
#include "abi.h"

template <class T>
struct WeightStream {
  const NetworkParams& network;
  const T* weights;
  WeightPipe& pipe;

  enum class Way { kForward, kBackward };

  // The weights of a product up to column `wanted` - 1 of its result: Sweeps::multiply.
  template <Way kWay>
  __device__ __forceinline__ void multiply(uint32_t layer, uint32_t columns_at_once, uint32_t wanted = ~0u) {
    constexpr bool kForward = kWay == Way::kForward;
    const LayerParams& map = network.layers[layer - 1];
    const uint32_t width = kForward ? map.n_out : map.n_in, depth = kForward ? map.n_in : map.n_out;
    const T* from = weights + (kForward ? map.forward : map.reverse);
    const uint32_t end = min(width, wanted);
#pragma unroll 1
    for (uint32_t column0 = 0; column0 < end; column0 += columns_at_once) {
      const uint32_t n_columns = min(columns_at_once, end - column0);
      // Whole units of lines are multiplied.
      const uint32_t n_lines = (n_columns + kWidthUnit - 1) / kWidthUnit * kWidthUnit;
#pragma unroll 1
      for (uint32_t k = 0; k < depth; k += kWgmmaDepth)
        pipe.fill(from + k * width + column0 * kWgmmaDepth, n_lines * kWgmmaDepth * sizeof(T));
    }
  }

  __device__ __forceinline__ void forward() {
#pragma unroll 1
    for (uint32_t layer = 1; layer < network.n_layers; ++layer) multiply<Way::kForward>(layer, kBroadColumns);
  }
  __device__ __forceinline__ void backward() {
#pragma unroll 1
    for (uint32_t layer = network.n_layers; layer > 1; --layer) multiply<Way::kBackward>(layer, kBroadColumns);
  }
  __device__ __forceinline__ void to_output() {
    multiply<Way::kForward>(network.n_layers, kNarrowColumns, network.n_outputs);
  }
  __device__ __forceinline__ void to_input() {
    multiply<Way::kBackward>(1, kNarrowColumns, network.dim + network.n_features);
  }

  __device__ __forceinline__ void primal() { forward(); }
  __device__ __forceinline__ void output() { to_output(); }
  __device__ __forceinline__ void reverse() { backward(), to_input(); }
  __device__ __forceinline__ void tangent() {
    forward();
    if (network.head != Head::kScalar) to_output();
  }
  __device__ __forceinline__ void adjoint() { backward(); }
  __device__ __forceinline__ void adjoint_to_input() { to_input(); }

  // gradient.cuh.
  __device__ __forceinline__ void potential_and_gradient(bool with_potential) {
    primal();
    if (with_potential || network.head != Head::kScalar) output();
    reverse();
  }
};
