// Sweeps and weight gradient of a narrow network, whose layers all have kNarrowColumns columns. A
// block loops over the tiles of a group (batch.cuh), reuses one tile of slots for their activations
// and accumulates the gradient as it goes, so no operand of the gradient outlives its tile and no
// second kernel is needed.
#pragma once
#include "net/layer_gradient.cuh"
#include "sweep.cuh"

// Running sum of a layer's gradient, stored in each thread's own fragment order.
template <class T>
struct LayerSums {
  using P = GradProduct<T, kNarrowColumns>;
  Accumulator weights[P::kM * P::kN][kThreads];
  float2 biases[kThreads];

  __device__ __forceinline__ void store(const P& product) {
#pragma unroll
    for (int i = 0; i < P::kM * P::kN; ++i) weights[i][threadIdx.x] = product.acc[i / P::kN][i % P::kN];
    if (P::owns_bias_rows()) biases[threadIdx.x] = make_float2(product.line_sums.value[0], product.line_sums.value[2]);
  }
  __device__ __forceinline__ void load(P& product) const {
#pragma unroll
    for (int i = 0; i < P::kM * P::kN; ++i) product.acc[i / P::kN][i % P::kN] = weights[i][threadIdx.x];
    product.line_sums = Accumulator{};
    if (P::owns_bias_rows())
      product.line_sums.value[0] = biases[threadIdx.x].x, product.line_sums.value[2] = biases[threadIdx.x].y;
  }
};
static_assert(sizeof(LayerSums<float>) == kLayerSumBytes, "the host has room for the sums of a layer: LAYER_SUM_BYTES");

template <class T, bool kDiffusive>
__device__ __forceinline__ void sweep_narrow(const SweepNarrowParams& params) {
  using P = GradProduct<T, kNarrowColumns>;
  extern __shared__ __align__(128) unsigned char sm[];
  __shared__ TileMemory sm_tile;
  __shared__ float sm_rescaling;  // of the sums so far
  const SweepParams& sweep = params.sweep;
  const NetworkParams& network = sweep.network;
  const BatchParams& batch = sweep.batch;
  const uint32_t n_groups = groups_of<kNarrowGroups>(batch);
  if (sweep.state->halted) return;

  using Engine = MmaEngine<T, kNarrowColumns>;
  using TileSweeps = TrainingSweeps<kDiffusive, Engine>;
  constexpr uint32_t kOperandChunks = kNarrowColumns * sizeof(T) / kChunkBytes;
  constexpr uint32_t kProductMemory = kOperandChunks * Engine::kOperandChunk + kNarrowStages * kNarrowStageBytes;
  static_assert(kProductMemory >= P::kBytes, "the gradient's product uses the same memory");
  LayerSums<T>* sm_sums = reinterpret_cast<LayerSums<T>*>(sm + kProductMemory);
  unsigned char* sm_resident = reinterpret_cast<unsigned char*>(sm_sums + params.n_resident);
  unsigned char* sm_carried = sm_resident + 2 * params.n_resident_weights * TileSweeps::kResidentBytes;
  LayerSums<T>* spilled = static_cast<LayerSums<T>*>(params.spilled) +
                          static_cast<size_t>(blockIdx.x) * (network.n_layers - params.n_resident);
  // The sums of the first n_resident layers are in shared memory, the others spill to global
  // memory.
  const auto sums_of = [&](uint32_t layer) -> LayerSums<T>& {
    if (layer <= params.n_resident) return sm_sums[layer - 1];
    return spilled[layer - 1 - params.n_resident];
  };
  // The partial gradient of the group that tile `index` of the chunk belongs to.
  const auto partial = [&](uint32_t index, uint32_t layer) {
    const uint32_t group = (batch.first_tile + index) % n_groups;
    return params.partials + static_cast<size_t>(group) * network.n_parameters + network.layers[layer - 1].parameters;
  };

  const auto sweeps_of = [&](uint32_t index) {
    return TileSweeps{{network, sweep.rows, index * kTileRows, blockIdx.x * kTileRows},
                      static_cast<const T*>(sweep.weights),
                      sweep.biases,
                      {sm, kOperandChunks},
                      {sweep.carried, sweep.rows.carried, sm_carried},
                      sm_tile.probe_weight,
                      sm_resident,
                      params.n_resident_weights};
  };
  sweeps_of(0).make_resident();

  // Groups with tiles in the chunk: one after the other if they are more than the blocks.
#pragma unroll 1
  for (uint32_t first = blockIdx.x; first < min(batch.n_tiles, n_groups); first += gridDim.x) {
#pragma unroll 1
    for (uint32_t layer = 1; layer <= network.n_layers; ++layer) {
      P product;
      product.clear();
      if (batch.first_tile + first >= n_groups)
        load_gradient(product, partial(first, layer), kNarrowColumns, kNarrowColumns, 0, 0);
      sums_of(layer).store(product);
    }

    uint32_t index = first;
#pragma unroll 1
    for (; index < batch.n_tiles; index += n_groups) {
      TileSweeps tile = sweeps_of(index);
      const bool interior = batch.first_tile + index < batch.n_interior_tiles;
      sweep_tile(sweep, batch.first_tile + index, interior, tile, sm_tile);
      if (kRounds<T> && threadIdx.x == 0) sm_rescaling = rescaling<T, kNarrowGroups>(batch, batch.first_tile + index);
#pragma unroll 1
      for (uint32_t layer = 1; layer <= network.n_layers; ++layer) {
        LayerSums<T>& sums = sums_of(layer);
        __syncthreads();  // the operands are written, and the product before this one has read its last stage
        P product;
        sums.load(product);
        if (kRounds<T>) product.multiply_by(sm_rescaling);
        add_channels(product, tile, layer, 0, 0, interior ? 2 + sweep.rows.n_probes : 1, 1, 0, sm);
        sums.store(product);
      }
    }

#pragma unroll 1
    for (uint32_t layer = 1; layer <= network.n_layers; ++layer) {
      P product;
      sums_of(layer).load(product);
      const uint32_t next = batch.first_tile + index;  // of the group, behind the chunk
      if (kRounds<T> && next >= all_tiles(batch)) product.multiply_by(sum_scale<T>(batch, next - n_groups));
      store_gradient(product, partial(first, layer), kNarrowColumns, kNarrowColumns, 0, 0);
    }
  }
}
