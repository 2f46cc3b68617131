// Draws the rows of a training batch into RowBuffers. Counterpart of src/engine/cpu/draw.rs;
// launched by src/engine/cuda/draw.rs with one block per tile of the chunk.
//
// First one thread per row makes the random choices; then each warp writes whole rows, one lane per
// coordinate, so that stores are coalesced. A row depends only on (seed, step, row), so any
// division into chunks draws the same batch.
#include "abi.h"
#include "draw/embedding.cuh"
#include "draw/probes.cuh"
#include "draw/row.cuh"
#include "tile/element.cuh"

constexpr uint32_t kWarpSize = 32;

// Writes one row of the network's input: x, the time features, the conditions, zero padding. Also
// stores x, phi', the velocity, t and the weight in their own buffers.
template <class T, class Coordinate>
__device__ __forceinline__ void write_row(const DrawParams& params, const DrawnRow& row, size_t at,
                                          Coordinate coordinate) {
  const RowBuffers& rows = params.rows;
  const GroupParams& groups = params.groups;
  const uint32_t lane = threadIdx.x % kWarpSize;
  const uint32_t dim = params.network.dim, n_features = params.network.n_features,
                 in_width = params.network.layers[0].n_in, conditions = dim + n_features,
                 end = conditions + groups.n_conditions;
  T* input = static_cast<T*>(rows.a_in) + at * in_width;
  for (uint32_t column = lane; column < in_width; column += kWarpSize) {
    float value = 0.0f;
    if (column < dim) {
      const PointAndVelocity moving = coordinate(column);
      value = moving.x;
      rows.x[at * dim + column] = moving.x;
      if (rows.velocity != nullptr) rows.velocity[at * dim + column] = row.is_interior ? moving.u : 0.0f;
    } else if (column < conditions) {
      TimeFeature feature{};
      if (row.is_used) feature = time_feature(params.frequencies, n_features, column - dim, row.t);
      value = feature.phi;
      rows.d_phi[at * n_features + column - dim] = feature.d_phi;
    } else if (column < end) {
      if (row.is_used) value = groups.conditions[row.group * groups.n_conditions + column - conditions];
    }
    input[column] = to_element<T>(value);
  }
  if (lane == 0) {
    rows.t[at] = row.t;
    rows.weight[at] = row.weight;
  }
}

template <class T>
__device__ __forceinline__ void write_probes(const DrawParams& params, const DrawnRow& row, size_t at,
                                             const Probes& probes) {
  const RowBuffers& rows = params.rows;
  const uint32_t lane = threadIdx.x % kWarpSize, in_width = params.network.layers[0].n_in;
  for (uint32_t probe = 0; probe < rows.n_probes; ++probe) {
    T* input = static_cast<T*>(rows.e_in) + (static_cast<size_t>(probe) * rows.n_rows + at) * in_width;
    for (uint32_t column = lane; column < in_width; column += kWarpSize) {
      const bool is_component = row.is_interior && column < params.network.dim;
      input[column] = to_element<T>(is_component ? probes.component(row.index, probe, column) : 0.0f);
    }
  }
}

template <class T>
__device__ __forceinline__ void draw(const DrawParams& params) {
  __shared__ DrawnRow sm_rows[kTileRows];
  if (params.state->halted) return;
  const RowBuffers& rows = params.rows;
  const Draw draw(params, params.network.dim);
  const uint32_t tile = params.batch.first_tile + blockIdx.x;
  const Part part = part_of(params.batch, tile);
  if (threadIdx.x < kTileRows)
    sm_rows[threadIdx.x] = draw.row(part, tile_of_part(params.batch, part, tile) * kTileRows + threadIdx.x);
  __syncthreads();  // rows are chosen by some threads, written by all

  const RowWords start_noise{params.seed, draw.step, Purpose::kStartNoise, (params.network.dim + 3) / 4};
  const Probes probes(params.laplacian_rule, params.network.dim, rows.n_probes, params.seed, draw.step);
  for (uint32_t i = threadIdx.x / kWarpSize; i < kTileRows; i += kThreads / kWarpSize) {
    const DrawnRow& row = sm_rows[i];
    const size_t at = static_cast<size_t>(blockIdx.x) * kTileRows + i;
    const Tangents tangents = ::tangents(row.curve, params.network.dim);
    write_row<T>(params, row, at, [&](uint32_t column) { return point(row.curve, tangents, column, start_noise); });
    if (threadIdx.x % kWarpSize == 0) {
      rows.on_potential[at] = row.on_potential;
      rows.sampling_weight[at] = row.sampling_weight;
      if (rows.n_probes > 0) rows.kappa[at] = row.kappa;
    }
    if (rows.n_probes > 0) write_probes<T>(params, row, at, probes);
  }
}

// Draws the input of the bend: the two ends of a pair, as one point of twice the dimension.
template <class T>
__device__ __forceinline__ void draw_bend(const DrawParams& params) {
  __shared__ DrawnRow sm_rows[kTileRows];
  if (params.state->halted) return;
  const uint32_t dim = params.network.dim / 2;
  const Draw draw(params, dim);
  const uint32_t tile = params.batch.first_tile + blockIdx.x;
  const Part part = part_of(params.batch, tile);
  if (part.kind != PartKind::kInterior) return;
  if (threadIdx.x < kTileRows)
    sm_rows[threadIdx.x] = draw.bend_row(tile_of_part(params.batch, part, tile) * kTileRows + threadIdx.x, part.n_rows);
  __syncthreads();  // rows are chosen by some threads, written by all

  const RowWords no_noise{};
  for (uint32_t i = threadIdx.x / kWarpSize; i < kTileRows; i += kThreads / kWarpSize) {
    const DrawnRow& row = sm_rows[i];
    const size_t at = static_cast<size_t>(blockIdx.x) * kTileRows + i;
    write_row<T>(params, row, at, [&](uint32_t column) {
      Curve end = row.curve;
      end.ratio = column < dim ? 0.0f : 1.0f;
      return point(end, {}, column < dim ? column : column - dim, no_noise);
    });
  }
}

// At least one block per multiprocessor, so the compiler may use as many registers as it needs and
// spills none on any architecture.
#define DRAW(NAME, TYPE)                                                                                             \
  extern "C" __global__ void __launch_bounds__(kThreads, 1) draw_##NAME(const __grid_constant__ DrawParams params) { \
    draw<TYPE>(params);                                                                                              \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(kThreads, 1)                                                          \
      draw_bend_##NAME(const __grid_constant__ DrawParams params) {                                                  \
    draw_bend<TYPE>(params);                                                                                         \
  }
DRAW(f32, float)
DRAW(tf32, tf32)
DRAW(bf16, __nv_bfloat16)
DRAW(f16, __half)
