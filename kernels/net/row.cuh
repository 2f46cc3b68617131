// Per-row work between sweeps. Consecutive threads share a row, so that they access consecutive
// components.
#pragma once
#include "head.cuh"
#include "sweeps.cuh"

constexpr uint32_t kRowLanes = 16;

// Calls `visit(row)` for each row of a tile, always from the same kRowLanes threads. All lanes of a
// warp make equally many calls.
template <int kRows, class Visit>
__device__ __forceinline__ void for_each_row(Visit visit) {
  static_assert(kRows % (kThreads / kRowLanes) == 0, "all threads have as many rows");
#pragma unroll 1
  for (uint32_t row = this_thread() / kRowLanes; row < kRows; row += kThreads / kRowLanes) visit(row);
}

__device__ __forceinline__ bool is_first_lane() { return this_thread() % kRowLanes == 0; }

// Calls `visit(i)` for this thread's components of its row, which has `n`.
template <class Visit>
__device__ __forceinline__ void for_each_component(uint32_t n, Visit visit) {
#pragma unroll 1
  for (uint32_t i = this_thread() % kRowLanes; i < n; i += kRowLanes) visit(i);
}

// Sum over a row's threads, returned to all of them.
__device__ __forceinline__ float row_sum(float value) {
#pragma unroll
  for (uint32_t distance = kRowLanes / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

// One row, with the formulas of the network's head. `TileSweeps` is the Sweeps of its tile.
template <class TileSweeps>
struct HeadRow {
  using T = typename TileSweeps::Operand;

  const TileSweeps& tile;
  uint32_t row;  // within the tile

  __device__ __forceinline__ uint32_t dim() const { return tile.network.dim; }
  __device__ __forceinline__ Head head() const { return tile.network.head; }
  __device__ __forceinline__ uint32_t n_outputs() const { return tile.network.n_outputs; }
  __device__ __forceinline__ uint32_t in_width() const { return tile.width(0); }
  __device__ __forceinline__ uint32_t out_width() const { return tile.width(tile.network.n_layers); }

  // The row's values in a per-row (`of`) or per-slot (`kept`) buffer of `columns` each, of probe k
  // if it has probes.
  __device__ __forceinline__ float* of(float* buffer, uint32_t columns = 1) const {
    return tile.of_rows(buffer, columns) + row * columns;
  }
  __device__ __forceinline__ float* kept(float* buffer, uint32_t columns, uint32_t k = 0) const {
    return tile.of_slots(buffer, columns, k) + row * columns;
  }
  // Probe k of the row, and its adjoint seed in a buffer of activations.
  __device__ __forceinline__ const T* probe(uint32_t k) const { return tile.e_a(0, k) + row * in_width(); }
  __device__ __forceinline__ T* seed_in(void* buffer, uint32_t k = 0) const {
    return tile.template at<T>(buffer, tile.network.n_layers, k) + row * out_width();
  }

  __device__ __forceinline__ float x(uint32_t i) const {
    return head() == Head::kScalar ? 0.0f : of(tile.rows.x, dim())[i];
  }
  // Valid only for heads of several outputs, or if s was asked for.
  __device__ __forceinline__ float o(uint32_t i) const { return kept(tile.rows.output, out_width())[i]; }
  __device__ __forceinline__ float through(uint32_t i) const { return kept(tile.rows.input_grad, in_width())[i]; }
  __device__ __forceinline__ float output_seed_of(uint32_t i) const {
    return head() == Head::kScalar ? 1.0f : output_seed(head(), x(i), o(i));
  }
  __device__ __forceinline__ float gradient(uint32_t i) const {
    return head() == Head::kScalar ? through(i) : through(i) + direct_gradient(head(), x(i), o(i));
  }

  // s, returned to all threads of the row.
  __device__ __forceinline__ float potential() const {
    float s = 0.0f;
    for_each_component(n_outputs(), [&](uint32_t i) { s += potential_term(head(), x(i), o(i)); });
    return row_sum(s);
  }

  // Writes the seed of an adjoint sweep: `component(i)` for each output, zeros in the padding.
  template <class Component>
  __device__ __forceinline__ void seed(T* to, Component component) const {
    for_each_component(out_width(), [&](uint32_t i) { to[i] = to_element<T>(i < n_outputs() ? component(i) : 0.0f); });
  }

  // The generator from the tangents' outputs: Σ over outputs along c, plus `weight` times the
  // head's own curvature summed over probes. `c(i)` is the scaled tangent at the input. Returned to
  // all threads of the row.
  template <class Tangent>
  __device__ __forceinline__ float generator(float weight, Tangent c) const {
    const float* o_c = kept(tile.rows.output_c, out_width());
    if (head() == Head::kScalar) return o_c[0];
    float along = 0.0f, curvature = 0.0f;
    for_each_component(n_outputs(), [&](uint32_t i) {
      along += generator_term(head(), x(i), o(i), c(i), o_c[i]);
      for (uint32_t k = 0; k < tile.rows.n_probes; ++k)
        curvature += probe_term(head(), from_element(probe(k)[i]), kept(tile.rows.output_e, out_width(), k)[i]);
    });
    return row_sum(along + weight * curvature);
  }
};

template <class TileSweeps>
__device__ __forceinline__ HeadRow<TileSweeps> head_row(const TileSweeps& tile, uint32_t row) {
  return {tile, row};
}

// Sums the unrounded seeds of the adjoint sweep over the tile's rows, which gives the gradient of
// the output's bias. `component(row, i)` is the seed of output i. Each warp sums its own rows.
template <class TileSweeps, class Component>
__device__ __forceinline__ void sum_seeds(const TileSweeps& tile, Component component) {
  static_assert(kThreads == 32 * kWarps && kRowLanes == 16, "a warp has two rows at a time");
#pragma unroll 1
  for (uint32_t i = this_thread() % kRowLanes; i < tile.width(tile.network.n_layers); i += kRowLanes) {
    float sum = 0.0f;
    if (i < tile.network.n_outputs) for_each_row<TileSweeps::kRows>([&](uint32_t row) { sum += component(row, i); });
    sum += __shfl_xor_sync(0xffffffffu, sum, kRowLanes);
    if (this_thread() % 32 < kRowLanes)
      tile.seed_sums(tile.first_slot / TileSweeps::kRows, this_thread() / 32)[i] = sum;
  }
}
