// The weight gradient of all layers from what the sweeps left of all rows of a chunk.
//
// A block forms kGradTile x kGradTile elements of one layer's dW over its share of the rows (blockIdx.y) and adds them to its partial sum; whoever adds
// the partial sums up does so in their order, so the result does not depend on which block was first.
#pragma once
#include "net/layer_gradient.cuh"

constexpr uint32_t kGradTile = 128;

template <class T>
__device__ __forceinline__ void weight_grad(const WeightGradParams& params) {
  extern __shared__ __align__(128) unsigned char sm[];
  using P = GradProduct<T, kGradTile>;
  if (params.state->halted) return;
  const NetworkParams& network = params.network;
  uint32_t layer = 1;
  while (layer < network.n_layers && blockIdx.x >= network.layers[layer].grad_tile) ++layer;
  const LayerParams& map = network.layers[layer - 1];
  const uint32_t n_in = map.n_in, n_out = map.n_out;
  const uint32_t index = blockIdx.x - map.grad_tile, tiles_across = (n_in + kGradTile - 1) / kGradTile;
  const uint32_t in0 = index % tiles_across * kGradTile, out0 = index / tiles_across * kGradTile;

  const uint32_t first_tile = blockIdx.y * params.tiles_per_part;
  const uint32_t end_tile = min(params.n_tiles, first_tile + params.tiles_per_part);
  const uint32_t end_interior = max(first_tile, min(params.n_interior_tiles, end_tile));
  const uint32_t n_rows = (end_tile - first_tile) * kTileRows, n_interior = (end_interior - first_tile) * kTileRows;
  const TileRows<T> tile{network, params.rows, first_tile * kTileRows, first_tile * kTileRows};

  P product;
  product.clear();
  add_channels(product, tile, layer, out0, in0, n_rows, n_interior, sm);

  float* part = params.parts + static_cast<size_t>(blockIdx.y) * network.n_parameters + map.parameters;
  leave(product, part, n_out, n_in, out0, in0, params.accumulate != 0);
}
