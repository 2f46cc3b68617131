// Division of the parameters among blocks and threads: a block has kShare x kShare elements of a
// weight or kShare² of a bias, a thread four consecutive ones. engine::cuda::optimizer counts the
// blocks.
#pragma once
#include "abi.h"

constexpr uint32_t kElementsOfThread = 4;  // one 16-byte access
constexpr uint32_t kThreadsOfRow = kShare / kElementsOfThread;
static_assert(kShare * kShare == kThreads * kElementsOfThread, "a block has one share");
static_assert(kWidthUnit % kShare == 0, "shares do not reach over edges of weights");

struct Share {
  uint32_t layer, row, column;  // of the block's first element; for a bias, row is its index
  bool is_bias;

  __device__ __forceinline__ explicit Share(const NetworkParams& network) {
    uint32_t block = blockIdx.x;
    for (layer = 0; layer + 1 < network.n_layers; ++layer) {
      const uint32_t n_blocks = blocks_of(network.layers[layer]);
      if (block < n_blocks) break;
      block -= n_blocks;
    }
    const LayerParams& params = network.layers[layer];
    const uint32_t across = params.n_in / kShare, n_weights = across * (params.n_out / kShare);
    is_bias = block >= n_weights;
    row = is_bias ? (block - n_weights) * (kShare * kShare) : block / across * kShare;
    column = is_bias ? 0 : block % across * kShare;
  }

  static __device__ __forceinline__ uint32_t blocks_of(const LayerParams& layer) {
    return layer.n_in * layer.n_out / (kShare * kShare) + (layer.n_out + kShare * kShare - 1) / (kShare * kShare);
  }
};

// The four consecutive parameters of this thread.
struct Place {
  uint32_t row, column;  // of the first; the others follow in column (weight) or row (bias)
  uint32_t index;        // within the padded parameters
  uint32_t n_real;       // the first n_real are no padding
  bool exists;

  __device__ __forceinline__ Place(const LayerParams& layer, const Share& share) {
    if (share.is_bias) {
      row = share.row + threadIdx.x * kElementsOfThread;
      column = 0;
      exists = row < layer.n_out;
      index = layer.parameters + layer.n_in * layer.n_out + row;
      n_real = row < layer.out_size ? layer.out_size - row : 0;
    } else {
      row = share.row + threadIdx.x / kThreadsOfRow;
      column = share.column + threadIdx.x % kThreadsOfRow * kElementsOfThread;
      exists = true;
      index = layer.parameters + row * layer.n_in + column;
      n_real = row < layer.out_size && column < layer.in_size ? layer.in_size - column : 0;
    }
  }
};
