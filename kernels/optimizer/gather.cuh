// Sums the partial gradients in their order, removes the loss scale, and forms the sum of squares
// of each block.
#pragma once
#include "../tile/reduce.cuh"
#include "param_tile.cuh"

__device__ __forceinline__ void gather(const GatherParams& params) {
  __shared__ double sm_sums[kThreads / 32];
  if (params.state->halted) return;
  const ParamTile tile(params.network);
  const ParamQuad quad(params.network.layers[tile.layer], tile);
  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (quad.n_real > 0) {
    const float4* partial = reinterpret_cast<const float4*>(params.partials + quad.index);
    const size_t stride = params.network.n_parameters / kElementsOfThread;
#pragma unroll 16  // keeps loads in flight; the order of the sum is unchanged
    for (uint32_t k = 0; k < params.n_partials; ++k) {
      const float4 value = partial[k * stride];
      sum.x += value.x, sum.y += value.y, sum.z += value.z, sum.w += value.w;
    }
    // The scale is a power of two, so this is exact.
    const float unscale = 1.0f / params.state->loss_scale;
    sum.x = sum.x * unscale;
    sum.y = quad.n_real > 1 ? sum.y * unscale : 0.0f;
    sum.z = quad.n_real > 2 ? sum.z * unscale : 0.0f;
    sum.w = quad.n_real > 3 ? sum.w * unscale : 0.0f;
  }
  if (quad.exists) *reinterpret_cast<float4*>(params.gradient + quad.index) = sum;
  const double x = sum.x, y = sum.y, z = sum.z, w = sum.w;
  const double squares = block_sum((x * x + y * y) + (z * z + w * w), sm_sums);
  if (threadIdx.x == 0) params.squares[blockIdx.x] = squares;
}
