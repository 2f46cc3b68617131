// Sums the partial gradients, the groups of each shard in their order and then the shards in pairs
// (batch.cuh), removes the loss scale, and forms the sum of squares of each block.
#pragma once
#include "../tile/reduce.cuh"
#include "param_tile.cuh"

__device__ __forceinline__ float4 operator+(const float4& a, const float4& b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

__device__ __forceinline__ void gather(const GatherParams& params) {
  __shared__ double sm_sums[kThreads / 32];
  if (params.state->halted) return;
  const ParamTile tile(params.network);
  const ParamQuad quad(params.network.layers[tile.layer], tile);
  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (quad.n_real > 0) {
    const float4* partial = reinterpret_cast<const float4*>(params.partials + quad.index);
    const size_t stride = params.network.n_parameters / kElementsOfThread;
    float4 shards[kShards] = {};
    constexpr uint32_t kAtOnce = 2 * kShards;  // loads in flight
    uint32_t first = 0;
#pragma unroll 1
    for (; first + kAtOnce <= params.n_partials; first += kAtOnce) {
      float4 ahead[kAtOnce];
#pragma unroll
      for (uint32_t k = 0; k < kAtOnce; ++k) ahead[k] = partial[(first + k) * stride];
#pragma unroll
      for (uint32_t k = 0; k < kAtOnce; ++k) shards[k % kShards] = shards[k % kShards] + ahead[k];
    }
#pragma unroll
    for (uint32_t k = 0; k < kAtOnce; ++k)
      if (first + k < params.n_partials) shards[k % kShards] = shards[k % kShards] + partial[(first + k) * stride];
#pragma unroll
    for (uint32_t apart = 1; apart < kShards; apart *= 2)
#pragma unroll
      for (uint32_t k = 0; k < kShards; k += 2 * apart) shards[k] = shards[k] + shards[k + apart];
    sum = shards[0];
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
