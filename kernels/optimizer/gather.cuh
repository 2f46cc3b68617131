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

// The partials of `n_shards` shards at one place, `stride` apart: the k-th is of shard k mod
// n_shards.
struct PartialsOfShards {
  const float4* partials;
  size_t stride;
  uint32_t n_partials, n_shards;

  // The sum of kN consecutive shards from `first` on; at least kLoads partials are loaded at once.
  template <uint32_t kN, uint32_t kLoads>
  __device__ __forceinline__ float4 sum(uint32_t first) const {
    float4 shards[kN] = {};
    constexpr uint32_t kAtOnce = kLoads > kN ? kLoads : kN;
    const auto index = [&](uint32_t k) { return first + k / kN * n_shards + k % kN; };
#pragma unroll 1
    for (; index(kAtOnce - 1) < n_partials; first += kAtOnce / kN * n_shards) {
      float4 ahead[kAtOnce];
#pragma unroll
      for (uint32_t k = 0; k < kAtOnce; ++k) ahead[k] = partials[index(k) * stride];
#pragma unroll
      for (uint32_t k = 0; k < kAtOnce; ++k) shards[k % kN] = shards[k % kN] + ahead[k];
    }
#pragma unroll
    for (uint32_t k = 0; k < kAtOnce; ++k)
      if (index(k) < n_partials) shards[k % kN] = shards[k % kN] + partials[index(k) * stride];
    return sum_in_pairs(shards);
  }
};

// The sums of ranks, each of its shards, at four elements of a slice.
struct SumsOfRanks {
  const SliceParams& params;
  uint32_t quad;

  // The sum of kN consecutive ranks from `first` on.
  template <uint32_t kN, uint32_t kLoads>
  __device__ __forceinline__ float4 sum(uint32_t first) const {
    float4 sums[kN];
#pragma unroll
    for (uint32_t k = 0; k < kN; ++k) {
      const uint32_t rank = first + k;
      const float* slice = params.sums + static_cast<size_t>(rank) * params.stride;
      sums[k] = reinterpret_cast<const float4*>(rank == params.rank ? params.own : slice)[quad];
    }
    return sum_in_pairs(sums);
  }
};

// The sum of all `n` shards or ranks, a power of two.
template <class Terms>
__device__ __forceinline__ float4 sum_of_all(const Terms& terms, uint32_t n) {
  constexpr uint32_t kN = kShardsAtOnce, kLoads = 2 * kN;
  static_assert(kN == 8 && kMaxShards == 8 * kN, "the cases below are all there are");
  switch (n) {
    case 1: return terms.template sum<1, kLoads>(0);
    case 2: return terms.template sum<2, kLoads>(0);
    case 4: return terms.template sum<4, kLoads>(0);
    case kN: return terms.template sum<kN, kLoads>(0);
  }
  float4 waiting[3] = {};  // waiting[k]: the sum of the first 2^k of 2^(k + 1) nodes
  float4 sum = {};
#pragma unroll 1
  for (uint32_t node = 0; node < n / kN; ++node) {
    sum = terms.template sum<kN, kN>(node * kN);
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
  const float4* partials = reinterpret_cast<const float4*>(params.partials + quad.index);
  const size_t stride = params.network.n_parameters / kElementsOfThread;
  return sum_of_all(PartialsOfShards{partials, stride, params.n_partials, params.n_shards}, params.n_shards);
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
  reinterpret_cast<float4*>(params.gradient)[quad] = sum_of_all(SumsOfRanks{params, quad}, params.n_ranks);
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
