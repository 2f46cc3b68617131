// Weight gradient of all layers, from the operands that the sweeps stored for the rows of a chunk.
//
// A block forms kGradTile x kGradTile elements of one layer's dW over the tiles of one group
// (batch.cuh): blockIdx.y counts the groups from that of the chunk's first tile on.
#pragma once
#include "batch.cuh"
#include "net/layer_gradient.cuh"

// The elements of a block: of dW of `layer`, from row out0 and column in0 on.
struct GradBlock {
  uint32_t layer, out0, in0;

  __device__ __forceinline__ GradBlock(const NetworkParams& network, uint32_t block) : layer(1) {
    while (layer < network.n_layers && block >= network.layers[layer].grad_tile) ++layer;
    const LayerParams& map = network.layers[layer - 1];
    const uint32_t index = block - map.grad_tile, tiles_across = (map.n_in + kGradTile - 1) / kGradTile;
    in0 = index % tiles_across * kGradTile, out0 = index / tiles_across * kGradTile;
  }
};

template <class T>
__device__ __forceinline__ void weight_grad(const WeightGradParams& params) {
  extern __shared__ __align__(128) unsigned char sm[];
  using P = GradProduct<T, kGradTile>;
  static_assert(P::kBytes == kWeightGradBytes, "the host gives the stages their shared memory: WEIGHT_GRAD_BYTES");
  if (params.state->halted) return;
  const NetworkParams& network = params.network;
  const BatchParams& batch = params.batch;
  // Calls `visit(gradient, n_out, n_in, out0, in0)` with the layer's stretch of the group's partial
  // gradient. All of it is recomputed to leave registers to the product (opaque.cuh).
  const auto with_partial = [&](auto visit) {
    const GradBlock block(network, opaque(blockIdx.x));
    const LayerParams& map = network.layers[block.layer - 1];
    const uint32_t group = (batch.first_tile + opaque(blockIdx.y)) % groups_of<kWideGroups>(batch);
    visit(params.partials + static_cast<size_t>(group) * network.n_parameters + map.parameters, map.n_out, map.n_in,
          block.out0, block.in0);
  };
  P product;
  product.clear();
  const uint32_t n_groups = groups_of<kWideGroups>(batch);
  if (batch.first_tile + blockIdx.y >= n_groups) {
    with_partial([&](const float* partial, uint32_t n_out, uint32_t n_in, uint32_t out0, uint32_t in0) {
      load_gradient(product, partial, n_out, n_in, out0, in0);
    });
  }
  const GradBlock block(network, blockIdx.x);
  // Part by part, as each has its own sum_scale and channels. Tile indices within the batch.
  uint32_t tile = batch.first_tile + blockIdx.y;
#pragma unroll 1
  do {
    const float factor = rescaling<T, kWideGroups>(batch, tile);
    if (factor != 1.0f) product.multiply_by(factor);
    const Part& part = part_of(batch, tile);
    const uint32_t end_of_part = min(batch.first_tile + batch.n_tiles, part.first_tile + part.n_tiles);
    const uint32_t n_tiles = (end_of_part - tile + n_groups - 1) / n_groups;
    const uint32_t n_channels = tile < batch.n_interior_tiles ? 2 + params.rows.n_probes : 1;
    const uint32_t first_row = (tile - batch.first_tile) * kTileRows;
    const TileRows<T> rows{network, params.rows, first_row, first_row};
    add_channels(product, rows, block.layer, block.out0, block.in0, n_channels, n_tiles, n_groups, sm);
    __syncthreads();  // the part before has been read from shared memory
    tile += n_tiles * n_groups;
  } while (tile < batch.first_tile + batch.n_tiles);
  if (kRounds<T> && tile >= all_tiles(batch)) product.multiply_by(sum_scale<T>(batch, tile - n_groups));
  with_partial([&](float* partial, uint32_t n_out, uint32_t n_in, uint32_t out0, uint32_t in0) {
    store_gradient(product, partial, n_out, n_in, out0, in0);
  });
}
