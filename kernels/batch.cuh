// The part of a batch that a tile belongs to, and the order in which a gradient is summed over its
// tiles.
//
// Tile t belongs to group t mod G, of G groups: kWideGroups or kNarrowGroups, or more if there are
// more than kFewShards shards. A group's partial gradient is formed tile after tile, and in a tile
// channel after channel. If the group has tiles in several chunks of the batch, a launch goes on
// with the sums that the one before has stored. `gather_gradient` adds the groups of each of the V
// shards, which are s, s + V, ... of shard s, and then the shards. So the order depends on the
// batch alone: not on its chunks, the number of blocks or the GPU, and the sums of some shards can
// be formed without the others.
//
// A rank has 2^BatchParams::log2_own consecutive shards, and counts their tiles alone: its k-th
// tile is in the shard and in the group k of its own, modulo the number of those.
#pragma once
#include <type_traits>

#include "abi.h"

// The part that `tile` of the batch belongs to.
__device__ __forceinline__ const Part& part_of(const BatchParams& batch, uint32_t tile) {
  uint32_t k = 0;
  while (k + 1 < batch.n_parts && tile - batch.parts[k].first_tile >= batch.parts[k].n_tiles) ++k;
  return batch.parts[k];
}

// Tiles of all parts.
__device__ __forceinline__ uint32_t all_tiles(const BatchParams& batch) {
  const Part& last = batch.parts[batch.n_parts - 1];
  return last.first_tile + last.n_tiles;
}

static_assert(kWideGroups % kFewShards == 0 && kNarrowGroups % kFewShards == 0, "a group lies in one shard");

// Groups of the rank's shards; all shards have kGroups of them, or more if they are many.
template <uint32_t kGroups>
__device__ __forceinline__ uint32_t groups_of(const BatchParams& batch) {
  return max(kGroups >> batch.log2_shards, kGroups / kFewShards) << batch.log2_own;
}

// The number that `tile` of the rank, in `part`, has among all tiles of the part.
__device__ __forceinline__ uint32_t tile_of_part(const BatchParams& batch, const Part& part, uint32_t tile) {
  const uint32_t round = tile >> batch.log2_own, shard = tile - (round << batch.log2_own);
  return (round << batch.log2_shards) + batch.first_shard + shard - part.first_of_batch;
}

// True if operands of type T are rounded from f32.
template <class T>
constexpr bool kRounds = !std::is_same<T, float>::value;

// Part::sum_scale of the rows of `tile` for operands of type T; 1 if those are not rounded.
template <class T>
__device__ __forceinline__ float sum_scale(const BatchParams& batch, uint32_t tile) {
  if constexpr (kRounds<T>) return part_of(batch, tile).sum_scale;
  return 1.0f;
}

// The sums of a group have the scale of the part of its last tile so far. Returns the factor that
// gives those before `tile` the scale of its part.
template <class T, uint32_t kGroups>
__device__ __forceinline__ float rescaling(const BatchParams& batch, uint32_t tile) {
  if constexpr (kRounds<T>) {
    const uint32_t n_groups = groups_of<kGroups>(batch);
    if (tile >= n_groups) return sum_scale<T>(batch, tile - n_groups) / sum_scale<T>(batch, tile);
  }
  return 1.0f;
}
