// Per-row work between sweeps. Consecutive threads share a row, so that they access consecutive
// components.
#pragma once
#include "head.cuh"
#include "sweeps.cuh"

// Lanes of a warp that share a row, of tiles of kRows rows. A warp has consecutive rows: those that
// are its own in narrow products.
template <int kRows>
struct RowLanes {
  static constexpr uint32_t kOfWarp = kRows / kWarps;  // rows
  static constexpr uint32_t kCount = 8;                // of all heights, as the order of a sum depends on it

  static __device__ __forceinline__ uint32_t first_row() { return this_thread() / 32 * kOfWarp; }
  static __device__ __forceinline__ bool is_first() { return this_thread() % kCount == 0; }

  // Calls `visit(i)` for this thread's components of its row, which has `n`.
  template <class Visit>
  static __device__ __forceinline__ void for_each_component(uint32_t n, Visit visit) {
#pragma unroll 1
    for (uint32_t i = this_thread() % kCount; i < n; i += kCount) visit(i);
  }

  // Sum over a row's threads, returned to all of them.
  static __device__ __forceinline__ float sum(float value) {
#pragma unroll
    for (uint32_t distance = kCount / 2; distance > 0; distance /= 2)
      value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
  }
};

// Calls `visit(row)` for each row of a tile, always from the same lanes. All lanes of a warp make
// equally many calls.
template <int kRows, class Visit>
__device__ __forceinline__ void for_each_row(Visit visit) {
  using Lanes = RowLanes<kRows>;
  constexpr uint32_t kAtOnce = kThreads / Lanes::kCount, kOfWarpAtOnce = kAtOnce / kWarps;
  static_assert(kRows % kAtOnce == 0, "all threads have as many rows");
  // Counted in steps of kAtOnce up to a constant, which ptxas makes the most of.
#pragma unroll 1
  for (uint32_t i = this_thread() / Lanes::kCount; i < kRows; i += kAtOnce)
    visit(i % kAtOnce / kOfWarpAtOnce * Lanes::kOfWarp + i / kAtOnce * kOfWarpAtOnce + i % kOfWarpAtOnce);
}

// Calls `visit(row, i)` for each of `n` values of each row, those of a warp from its own lanes: the
// loads of many are in flight together.
template <int kRows, class Visit>
__device__ __forceinline__ void for_each_value(uint32_t n, Visit visit) {
  using Lanes = RowLanes<kRows>;
#pragma unroll 1
  for (uint32_t value = this_thread() % 32; value < Lanes::kOfWarp * n; value += 32)
    visit(Lanes::first_row() + value / n, value % n);
}

// Fills the lines of a warp's rows with zeros. `lines`: of a tile, each of `width` elements. Ends
// with a barrier of the warp.
template <int kRows, class T>
__device__ __forceinline__ void clear_lines(T* lines, uint32_t width) {
  using Lanes = RowLanes<kRows>;
  uint4* own = reinterpret_cast<uint4*>(lines + Lanes::first_row() * width);
#pragma unroll 1
  for (uint32_t i = this_thread() % 32; i < Lanes::kOfWarp * width * sizeof(T) / 16; i += 32)
    own[i] = make_uint4(0, 0, 0, 0);
  __syncwarp();  // the zeros are written
}

// One row, with the formulas of the network's head. `TileSweeps` is the Sweeps of its tile.
template <class TileSweeps>
struct HeadRow {
  using T = typename TileSweeps::Operand;
  using Lanes = RowLanes<TileSweeps::kRows>;

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
  // Probe k of the row.
  __device__ __forceinline__ const T* probe(uint32_t k) const { return tile.e_a(0, k) + row * in_width(); }

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
    Lanes::for_each_component(n_outputs(), [&](uint32_t i) { s += potential_term(head(), x(i), o(i)); });
    return Lanes::sum(s);
  }

  // The generator from the tangents' outputs: Σ over outputs along c, plus `weight` times the
  // head's own curvature summed over probes. `c(i)` is the scaled tangent at the input. Returned to
  // all threads of the row.
  template <class Tangent>
  __device__ __forceinline__ float generator(float weight, Tangent c) const {
    const float* o_c = kept(tile.rows.output_c, out_width());
    if (head() == Head::kScalar) return o_c[0];
    float along = 0.0f, curvature = 0.0f;
    Lanes::for_each_component(n_outputs(), [&](uint32_t i) {
      along += generator_term(head(), x(i), o(i), c(i), o_c[i]);
      for (uint32_t k = 0; k < tile.rows.n_probes; ++k)
        curvature += probe_term(head(), from_element(probe(k)[i]), kept(tile.rows.output_e, out_width(), k)[i]);
    });
    return Lanes::sum(along + weight * curvature);
  }
};

template <class TileSweeps>
__device__ __forceinline__ HeadRow<TileSweeps> head_row(const TileSweeps& tile, uint32_t row) {
  return {tile, row};
}

// Writes the seeds of an adjoint sweep to a buffer of activations, of probe `probe` if it has
// probes: `component(row, i)` for output i of a row, zeros in the padding.
template <class TileSweeps, class Component>
__device__ __forceinline__ void write_seeds(const TileSweeps& tile, void* buffer, uint32_t probe, Component component) {
  using T = typename TileSweeps::Operand;
  T* to = tile.template at<T>(buffer, tile.network.n_layers, probe);
  const uint32_t width = tile.width(tile.network.n_layers);
  clear_lines<TileSweeps::kRows>(to, width);
  for_each_value<TileSweeps::kRows>(tile.network.n_outputs, [&](uint32_t row, uint32_t i) {
    to[row * width + i] = to_element<T>(component(row, i));
  });
}

// Sums the unrounded seeds of the adjoint sweep over the tile's rows, which gives the gradient of
// the output's bias. `component(row, i)` is the seed of output i. Each warp sums its own rows.
template <class TileSweeps, class Component>
__device__ __forceinline__ void sum_seeds(const TileSweeps& tile, Component component) {
  using Lanes = RowLanes<TileSweeps::kRows>;
  const uint32_t width = tile.width(tile.network.n_layers), n_outputs = tile.network.n_outputs;
  float* sums = tile.seed_sums(tile.first_slot / TileSweeps::kRows, this_thread() / 32);
#pragma unroll 1
  for (uint32_t first = 0; first < n_outputs; first += Lanes::kCount) {
    const uint32_t i = first + this_thread() % Lanes::kCount;
    float sum = 0.0f;
    for_each_row<TileSweeps::kRows>([&](uint32_t row) { sum += i < n_outputs ? component(row, i) : 0.0f; });
#pragma unroll
    for (uint32_t distance = Lanes::kCount; distance < 32; distance *= 2)
      sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    if (this_thread() % 32 < Lanes::kCount && i < n_outputs) sums[i] = sum;
  }
#pragma unroll 1
  for (uint32_t i = n_outputs + this_thread() % 32; i < width; i += 32) sums[i] = 0.0f;  // padding
}
