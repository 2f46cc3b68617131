// Weight gradient of all layers, from the operands that the sweeps stored for the rows of a chunk.
//
// A block forms kGradTile x kGradTile elements of one layer's dW over its tiles (blockIdx.y) and
// writes them to a partial gradient of its own. `gather_gradient` sums the partial gradients in
// their order, so the result does not depend on the order in which blocks run.
#pragma once
#include "batch.cuh"
#include "net/layer_gradient.cuh"

// Adds tiles `begin` .. `end` of the batch to the elements that start at (out0, in0).
template <class T>
__device__ __forceinline__ void add_tiles(GradProduct<T, kGradTile>& product, const WeightGradParams& params,
                                          uint32_t layer, uint32_t out0, uint32_t in0, uint32_t begin, uint32_t end,
                                          unsigned char* sm) {
  const uint32_t end_interior = max(begin, min(params.batch.n_interior_tiles, end)),
                 first_row = (begin - params.batch.first_tile) * kTileRows;
  const TileRows<T> tile{params.network, params.rows, first_row, first_row};
  add_channels(product, tile, layer, out0, in0, (end - begin) * kTileRows, (end_interior - begin) * kTileRows, sm);
}

template <class T>
__device__ __forceinline__ void weight_grad(const WeightGradParams& params) {
  extern __shared__ __align__(128) unsigned char sm[];
  using P = GradProduct<T, kGradTile>;
  static_assert(P::kBytes == kWeightGradBytes, "the host gives the stages their shared memory: WEIGHT_GRAD_BYTES");
  if (params.state->halted) return;
  const NetworkParams& network = params.network;
  uint32_t layer = 1;
  while (layer < network.n_layers && blockIdx.x >= network.layers[layer].grad_tile) ++layer;
  const LayerParams& map = network.layers[layer - 1];
  const uint32_t n_in = map.n_in, n_out = map.n_out;
  const uint32_t index = blockIdx.x - map.grad_tile, tiles_across = (n_in + kGradTile - 1) / kGradTile;
  const uint32_t in0 = index % tiles_across * kGradTile, out0 = index / tiles_across * kGradTile;

  // Tile indices within the batch.
  const BatchParams& batch = params.batch;
  const uint32_t begin = batch.first_tile + blockIdx.y * params.tiles_per_partial;
  const uint32_t end = min(batch.first_tile + batch.n_tiles, begin + params.tiles_per_partial);

  P product;
  product.clear();
  if constexpr (kRounds<T>) {
    // Part by part, as each has its own sum_scale: the sums are rescaled in between.
#pragma unroll 1
    for (uint32_t tile = begin; tile < end;) {
      const Part& part = part_of(batch, tile);
      const uint32_t end_of_part = min(end, part.first_tile + part.n_tiles);
      if (tile > begin) {
        product.multiply_by(sum_scale<T>(batch, tile - 1) / part.sum_scale);
        __syncthreads();  // the part before has been read from shared memory
      }
      add_tiles(product, params, layer, out0, in0, tile, end_of_part, sm);
      tile = end_of_part;
    }
    product.multiply_by(sum_scale<T>(batch, end - 1));
  } else {
    add_tiles(product, params, layer, out0, in0, begin, end, sm);
  }

  float* partial = params.partials + static_cast<size_t>(blockIdx.y) * network.n_parameters + map.parameters;
  store_gradient(product, partial, n_out, n_in, out0, in0, params.accumulate != 0);
}
