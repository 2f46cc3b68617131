// From the partial gradients to the gradient: the groups of each shard are added in their order,
// the shards in pairs (batch.cuh), and last the loss scale is removed.
//
// If several ranks have the shards, `add_partials` adds those of a rank, which is a node of the
// tree that the pairs make; `add_slices` adds the sums of all ranks, each rank a slice of the
// gradient for all; and what is left to do, `gather_gradient` does with the sum as its only
// partial. No sum is
// -0, as each begins with +0, so what is added in one step or in several has equal bits.
#pragma once
#include "../tile/reduce.cuh"
#include "param_tile.cuh"

__device__ __forceinline__ float4 operator+(const float4& a, const float4& b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// Adds kN values in pairs of neighbors.
template <uint32_t kN>
__device__ __forceinline__ float4 sum_in_pairs(float4 (&values)[kN]) {
#pragma unroll
  for (uint32_t apart = 1; apart < kN; apart *= 2)
#pragma unroll
    for (uint32_t k = 0; k < kN; k += 2 * apart) values[k] = values[k] + values[k + apart];
  return values[0];
}

// The sum of `n_partials` partials of kN shards, `stride` apart: the k-th is of shard k mod kN.
template <uint32_t kN>
__device__ __forceinline__ float4 sum_of_shards(const float4* partial, size_t stride, uint32_t n_partials) {
  float4 shards[kN] = {};
  constexpr uint32_t kAtOnce = 2 * kShards;  // loads in flight
  uint32_t first = 0;
#pragma unroll 1
  for (; first + kAtOnce <= n_partials; first += kAtOnce) {
    float4 ahead[kAtOnce];
#pragma unroll
    for (uint32_t k = 0; k < kAtOnce; ++k) ahead[k] = partial[(first + k) * stride];
#pragma unroll
    for (uint32_t k = 0; k < kAtOnce; ++k) shards[k % kN] = shards[k % kN] + ahead[k];
  }
#pragma unroll
  for (uint32_t k = 0; k < kAtOnce; ++k)
    if (first + k < n_partials) shards[k % kN] = shards[k % kN] + partial[(first + k) * stride];
  return sum_in_pairs(shards);
}

// The sum of the partials at the four parameters of `quad`.
__device__ __forceinline__ float4 sum_of_partials(const GatherParams& params, const ParamQuad& quad) {
  const float4* partial = reinterpret_cast<const float4*>(params.partials + quad.index);
  const size_t stride = params.network.n_parameters / kElementsOfThread;
  switch (params.n_shards) {
    case 1: return sum_of_shards<1>(partial, stride, params.n_partials);
    case 2: return sum_of_shards<2>(partial, stride, params.n_partials);
    case 4: return sum_of_shards<4>(partial, stride, params.n_partials);
    default: return sum_of_shards<kShards>(partial, stride, params.n_partials);
  }
}

// Adds the partials of the rank's shards.
__device__ __forceinline__ void add_own_shards(const GatherParams& params) {
  if (params.state->halted) return;
  const ParamTile tile(params.network);
  const ParamQuad quad(params.network.layers[tile.layer], tile);
  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (quad.n_real > 0) sum = sum_of_partials(params, quad);
  if (quad.exists) *reinterpret_cast<float4*>(params.gradient + quad.index) = sum;
}

// Adds the sums of kRanks ranks at the four elements of `quad` within the slice.
template <uint32_t kRanks>
__device__ __forceinline__ float4 sum_of_ranks(const SliceParams& params, uint32_t quad) {
  float4 sums[kRanks];
#pragma unroll
  for (uint32_t rank = 0; rank < kRanks; ++rank) {
    const float* slice = params.sums + static_cast<size_t>(rank) * params.stride;
    sums[rank] = reinterpret_cast<const float4*>(rank == params.rank ? params.own : slice)[quad];
  }
  return sum_in_pairs(sums);
}

// Adds the sums of all ranks in the rank's slice of the gradient.
__device__ __forceinline__ void add_ranks(const SliceParams& params) {
  const uint32_t quad = blockIdx.x * kThreads + threadIdx.x;
  if (params.state->halted || quad >= params.n_elements / kElementsOfThread) return;
  float4 sum;
  switch (params.n_ranks) {
    case 2: sum = sum_of_ranks<2>(params, quad); break;
    case 4: sum = sum_of_ranks<4>(params, quad); break;
    default: sum = sum_of_ranks<kShards>(params, quad); break;
  }
  reinterpret_cast<float4*>(params.gradient)[quad] = sum;
}

// Adds the partials of all shards, and forms the gradient and each block's sum of its squares.
__device__ __forceinline__ void gather(const GatherParams& params) {
  __shared__ double sm_sums[kThreads / 32];
  if (params.state->halted) return;
  const ParamTile tile(params.network);
  const ParamQuad quad(params.network.layers[tile.layer], tile);
  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (quad.n_real > 0) {
    sum = sum_of_partials(params, quad);
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
