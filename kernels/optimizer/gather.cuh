// From the partial gradients to the gradient: the groups of each shard are added in their order,
// the shards in pairs (batch.cuh), and last the loss scale is removed.
//
// If several ranks have the shards, `add_partials` adds those of a rank, which is a node of the
// tree that the pairs make; `add_slices` adds the sums of all ranks, each rank a slice of the
// gradient for all; and what is left to do, `gather_gradient` does with the sum as its only
// partial. No sum is -0, as each begins with +0, so what is added in one step or in several has
// equal bits.
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

// The sum of kN consecutive shards of `n_shards`, from `first` on. Of `n_partials` partials the
// k-th, at(k), is of shard k mod n_shards. At least kLoads of them are loaded at once.
template <uint32_t kN, uint32_t kLoads, class At>
__device__ __forceinline__ float4 sum_of_node(const At& at, uint32_t first, uint32_t n_shards, uint32_t n_partials) {
  float4 shards[kN] = {};
  constexpr uint32_t kAtOnce = kLoads > kN ? kLoads : kN;
  const auto index = [&](uint32_t k) { return first + k / kN * n_shards + k % kN; };
#pragma unroll 1
  for (; index(kAtOnce - 1) < n_partials; first += kAtOnce / kN * n_shards) {
    float4 ahead[kAtOnce];
#pragma unroll
    for (uint32_t k = 0; k < kAtOnce; ++k) ahead[k] = at(index(k));
#pragma unroll
    for (uint32_t k = 0; k < kAtOnce; ++k) shards[k % kN] = shards[k % kN] + ahead[k];
  }
#pragma unroll
  for (uint32_t k = 0; k < kAtOnce; ++k)
    if (index(k) < n_partials) shards[k % kN] = shards[k % kN] + at(index(k));
  return sum_in_pairs(shards);
}

// The sum of all `n_shards` shards, a power of two.
template <uint32_t kLoads, class At>
__device__ __forceinline__ float4 sum_of_shards(const At& at, uint32_t n_shards, uint32_t n_partials) {
  constexpr uint32_t kN = kShardsAtOnce;
  static_assert(kN == 8 && kMaxShards == 8 * kN, "the cases below are all there are");
  switch (n_shards) {
    case 1: return sum_of_node<1, kLoads>(at, 0, 1, n_partials);
    case 2: return sum_of_node<2, kLoads>(at, 0, 2, n_partials);
    case 4: return sum_of_node<4, kLoads>(at, 0, 4, n_partials);
    case kN: return sum_of_node<kN, kLoads>(at, 0, kN, n_partials);
  }
  float4 waiting[3] = {};  // waiting[k]: the sum of the first 2^k of 2^(k + 1) nodes
  float4 sum = {};
#pragma unroll 1
  for (uint32_t node = 0; node < n_shards / kN; ++node) {
    sum = sum_of_node<kN, kN>(at, node * kN, n_shards, n_partials);
#pragma unroll
    for (uint32_t k = 0; k < 3; ++k) {
      const uint32_t of_pair = node % (2u << k);
      if (of_pair == (1u << k) - 1) waiting[k] = sum;
      if (of_pair == (2u << k) - 1) sum = waiting[k] + sum;
    }
  }
  return sum;
}

// The sum of the partials at the four parameters of `quad`.
__device__ __forceinline__ float4 sum_of_partials(const GatherParams& params, const ParamQuad& quad) {
  const float4* partial = reinterpret_cast<const float4*>(params.partials + quad.index);
  const size_t stride = params.network.n_parameters / kElementsOfThread;
  return sum_of_shards<2 * kShardsAtOnce>([&](uint32_t k) { return partial[k * stride]; }, params.n_shards,
                                          params.n_partials);
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

// Adds the sums of all ranks in the rank's slice of the gradient.
__device__ __forceinline__ void add_ranks(const SliceParams& params) {
  const uint32_t quad = blockIdx.x * kThreads + threadIdx.x;
  if (params.state->halted || quad >= params.n_elements / kElementsOfThread) return;
  const auto sum_of_rank = [&](uint32_t rank) {
    const float* slice = params.sums + static_cast<size_t>(rank) * params.stride;
    return reinterpret_cast<const float4*>(rank == params.rank ? params.own : slice)[quad];
  };
  reinterpret_cast<float4*>(params.gradient)[quad] = sum_of_shards<1>(sum_of_rank, params.n_ranks, params.n_ranks);
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
