// Tiles of a narrow network, all of whose layers have kNarrow columns, and their weight gradient. A block goes from tile to tile with one slot for
// activations and adds each tile's share of the gradient up as it goes: no operand of the gradient outlives its tile, and no second kernel reads it.
#pragma once
#include "net/layer_gradient.cuh"
#include "sweep.cuh"

constexpr uint32_t kNarrow = 64;

// A layer's gradient in the making, element by element where its threads have it.
template <class T>
struct LayerSums {
  Accumulator weights[GradProduct<T, kNarrow>::kM * GradProduct<T, kNarrow>::kN][kThreads];
  float biases[kThreads];
};
static_assert(sizeof(LayerSums<float>) == kLayerSumBytes, "LayerSums");

template <class T, bool kDiffusive>
__device__ __forceinline__ void sweep_narrow(const SweepNarrowParams& params) {
  using P = GradProduct<T, kNarrow>;
  extern __shared__ __align__(16) unsigned char sm[];
  __shared__ TileMemory sm_tile;
  const SweepParams& sweep = params.sweep;
  const NetworkParams& network = sweep.network;
  const Batch& batch = sweep.batch;
  if (sweep.state->halted) return;

  constexpr int kStageMemory = Product<T, false, 2>::kLeastBytes;
  static_assert(kStageMemory >= P::kBytes, "both products use the same stages");
  LayerSums<T>* sm_sums = reinterpret_cast<LayerSums<T>*>(sm + kStageMemory);
  LayerSums<T>* far_sums = static_cast<LayerSums<T>*>(params.far_sums) + static_cast<size_t>(blockIdx.x) * (network.n_layers - params.n_near);
  // The first layers' sums are on the chip, as many as there is memory for.
  const auto sums_of = [&](uint32_t layer) -> LayerSums<T>& {
    if (layer <= params.n_near) return sm_sums[layer - 1];
    return far_sums[layer - 1 - params.n_near];
  };
#pragma unroll 1
  for (uint32_t layer = 1; layer <= network.n_layers; ++layer) {
    LayerSums<T>& sums = sums_of(layer);
#pragma unroll
    for (int i = 0; i < P::kM * P::kN; ++i) sums.weights[i][threadIdx.x] = Accumulator{};
    sums.biases[threadIdx.x] = 0.0f;
  }

#pragma unroll 1
  for (uint32_t index = blockIdx.x; index < batch.n_tiles; index += gridDim.x) {
    Sweeps<T, kDiffusive ? 3 : 2, false> tile{{network, sweep.rows, index * kTileRows, blockIdx.x * kTileRows},
                                              static_cast<const T*>(sweep.weights),
                                              sweep.biases,
                                              {sm, 2},
                                              sm_tile.probe_weight};
    const bool interior = batch.first_tile + index < batch.n_interior_tiles;
    sweep_tile(sweep, batch.first_tile + index, interior, tile, sm_tile);
#pragma unroll 1
    for (uint32_t layer = 1; layer <= network.n_layers; ++layer) {
      LayerSums<T>& sums = sums_of(layer);
      __syncthreads();  // the operands are written, and the product before this one has read its last stage
      P product;
#pragma unroll
      for (int i = 0; i < P::kM * P::kN; ++i) product.acc[i / P::kN][i % P::kN] = sums.weights[i][threadIdx.x];
      add_channels(product, tile, layer, 0, 0, kTileRows, interior ? kTileRows : 0, sm);
#pragma unroll
      for (int i = 0; i < P::kM * P::kN; ++i) sums.weights[i][threadIdx.x] = product.acc[i / P::kN][i % P::kN];
      sums.biases[threadIdx.x] += bias_share<kNarrow>(tile, layer, 0, kTileRows);
    }
  }

  float* part = params.parts + static_cast<size_t>(blockIdx.x) * network.n_parameters;
#pragma unroll 1
  for (uint32_t layer = 1; layer <= network.n_layers; ++layer) {
    const LayerSums<T>& sums = sums_of(layer);
    float* of_layer = part + network.layers[layer - 1].parameters;
    P product;
#pragma unroll
    for (int i = 0; i < P::kM * P::kN; ++i) product.acc[i / P::kN][i % P::kN] = sums.weights[i][threadIdx.x];
    leave_weights(product, of_layer, kNarrow, params.accumulate != 0);
    __syncthreads();  // the stages, and the shares of the layer before, are read
    const float sum = bias_sum<kNarrow>(sums.biases[threadIdx.x], sm);
    float* bias = of_layer + kNarrow * kNarrow + threadIdx.x;
    if (threadIdx.x < kNarrow) *bias = params.accumulate != 0 ? *bias + sum : sum;
  }
}
