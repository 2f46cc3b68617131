// Scratch memory of a tile of particles: the slot of its block, small enough to stay in L2.
//
// A state and its stages hold positions [kRows][dim], then log w and log q [kRows] if they
// are integrated. Value i of each belongs to thread i % kThreads; other readers need a barrier.
#pragma once
#include "../tile/opaque.cuh"
#include "abi.h"

struct ParticleTile {
  uint64_t index;
  uint32_t n_rows;  // real rows; the others are padding
  // Which of two slabs is y, and whether the first and last stage are swapped: an accepted step
  // copies nothing.
  bool is_second, is_swapped;
  bool is_fresh;     // before the first evaluation
  bool has_weights;  // whether log w is integrated: cached to save a register
};

// kRows: of a tile.
template <int kRowsOfTile>
struct ParticleState {
  static constexpr uint32_t kRows = kRowsOfTile;

  const IntegrateParams& params;
  const ParticleTile& tile;

  __device__ __forceinline__ uint32_t dim() const { return params.network.dim; }
  __device__ __forceinline__ bool has_weights() const { return tile.has_weights; }
  __device__ __forceinline__ uint32_t weights() const { return kRows * opaque(dim()); }
  __device__ __forceinline__ uint32_t density() const { return weights() + (has_weights() ? kRows : 0); }
  __device__ __forceinline__ uint32_t n_values() const {
    return density() + (params.log_density != nullptr ? kRows : 0);
  }
  __device__ __forceinline__ uint32_t first_row() const {
    return static_cast<uint32_t>(params.first_particle + tile.index * kRows);
  }

  __device__ __forceinline__ float* slot() const { return params.scratch + opaque(blockIdx.x) * params.slot_size; }
  __device__ __forceinline__ float* y() const { return slot() + (tile.is_second ? n_values() : 0); }
  // The point where the velocity is evaluated; after a step, the new state.
  __device__ __forceinline__ float* point() const { return slot() + (tile.is_second ? 0 : n_values()); }
  __device__ __forceinline__ float* stage(uint32_t i) const {
    const uint32_t last = params.tableau.n_stages - 1;
    const bool moved = tile.is_swapped && (i == 0 || i == last);
    return slot() + (2 + (moved ? last - i : i)) * n_values();
  }
  // ∫σ dW over the step, for positions only.
  __device__ __forceinline__ float* noise() const { return slot() + (2 + params.tableau.n_stages) * n_values(); }
  __device__ __forceinline__ float* features() const { return noise() + kRows * dim(); }

  // True if value i belongs to a real row.
  __device__ __forceinline__ bool counts(uint32_t i) const {
    return i < weights() ? i < tile.n_rows * dim() : (i - weights()) % kRows < tile.n_rows;
  }
  __device__ __forceinline__ uint32_t n_counted() const { return n_values() / kRows * tile.n_rows; }

  // Address of value i at saved time k in the buffers that the host reads and writes.
  __device__ __forceinline__ float* saved(uint32_t k, uint32_t i) const {
    const uint64_t slab = k * params.n_particles + tile.index * kRows;
    if (i < weights()) return params.positions + slab * dim() + i;
    return (i < density() ? params.log_weights : params.log_density) + slab + (i - weights()) % kRows;
  }
};
