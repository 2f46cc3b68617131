// Division of the parameters among blocks and threads: a block has kParamTile x kParamTile elements
// of a weight or kParamTile² of a bias, a thread four consecutive ones. The host counts the blocks
// in engine::cuda::launch::n_blocks.
#pragma once
#include "abi.h"

constexpr uint32_t kElementsOfThread = 4;  // one 16-byte access
constexpr uint32_t kThreadsOfRow = kParamTile / kElementsOfThread;
static_assert(kParamTile * kParamTile == kThreads * kElementsOfThread, "a block has one tile");
static_assert(kWidthUnit % kParamTile == 0, "tiles do not reach over edges of weights");

struct ParamTile {
  uint32_t layer, row, column;  // of the block's first element; for a bias, row is its index
  bool is_bias;

  __device__ __forceinline__ explicit ParamTile(const NetworkParams& network) {
    uint32_t block = blockIdx.x;
    for (layer = 0; layer + 1 < network.n_layers; ++layer) {
      const uint32_t n_blocks = blocks_of(network.layers[layer]);
      if (block < n_blocks) break;
      block -= n_blocks;
    }
    const LayerParams& params = network.layers[layer];
    const uint32_t across = params.n_in / kParamTile, n_weights = across * (params.n_out / kParamTile);
    is_bias = block >= n_weights;
    row = is_bias ? (block - n_weights) * (kParamTile * kParamTile) : block / across * kParamTile;
    column = is_bias ? 0 : block % across * kParamTile;
  }

  static __device__ __forceinline__ uint32_t blocks_of(const LayerParams& layer) {
    return layer.n_in * layer.n_out / (kParamTile * kParamTile) +
           (layer.n_out + kParamTile * kParamTile - 1) / (kParamTile * kParamTile);
  }
};

// The four consecutive parameters of this thread.
struct ParamQuad {
  uint32_t row, column;  // of the first; the others follow in column (weight) or row (bias)
  uint32_t index;        // within the padded parameters
  uint32_t n_real;       // the first n_real are no padding
  bool exists;

  __device__ __forceinline__ ParamQuad(const LayerParams& layer, const ParamTile& tile) {
    if (tile.is_bias) {
      row = tile.row + threadIdx.x * kElementsOfThread;
      column = 0;
      exists = row < layer.n_out;
      index = layer.parameters + layer.n_in * layer.n_out + row;
      n_real = row < layer.n_out_real ? layer.n_out_real - row : 0;
    } else {
      row = tile.row + threadIdx.x / kThreadsOfRow;
      column = tile.column + threadIdx.x % kThreadsOfRow * kElementsOfThread;
      exists = true;
      index = layer.parameters + row * layer.n_in + column;
      n_real = row < layer.n_out_real && column < layer.n_in_real ? layer.n_in_real - column : 0;
    }
  }
};
