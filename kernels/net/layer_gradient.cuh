// Gradient of one layer over rows: dW = z_bar^T a + delta^T c + Σ e_bar^T e_a, one product whose
// inner dimension stacks these channels, and db = Σ z_bar, for the output layer of its unrounded
// z_bar. All rows have the first channel; only the first `n_interior` have the others.
#pragma once
#include "../tile/grad_product.cuh"
#include "tile_rows.cuh"

// Adds the kTile x kTile elements that start at (out0, in0) to `product`, and db of their outputs
// if in0 = 0. Precondition: operands visible to the block, `sm` free.
template <class T, uint32_t kTile>
__device__ __forceinline__ void add_channels(GradProduct<T, kTile>& product, const TileRows<T>& tile, uint32_t layer,
                                             uint32_t out0, uint32_t in0, uint32_t n_rows, uint32_t n_interior,
                                             unsigned char* sm) {
  using P = GradProduct<T, kTile>;
  const uint32_t n_out = tile.width(layer), n_in = tile.width(layer - 1);
  const int n_left = min(kTile, n_out - out0), n_right = min(kTile, n_in - in0);
  const bool has_outputs = P::first_out() < n_left, has_elements = has_outputs && P::first_in() < n_right;
  // Addresses of this thread's piece of a channel's first line on both sides; null beyond the
  // columns.
  const int line = threadIdx.x / P::kPieces, byte = threadIdx.x % P::kPieces * 16;
  const bool has_left = byte < n_left * static_cast<int>(sizeof(T)),
             has_right = byte < n_right * static_cast<int>(sizeof(T));
  const auto piece = [&](const T* side, uint32_t width, uint32_t column) {
    return reinterpret_cast<const unsigned char*>(side + static_cast<size_t>(line) * width + column) + byte;
  };
  const unsigned char *left = nullptr, *right = nullptr;
  // Chunks are loaded in order, channel after channel.
  const auto select_channel = [&](uint32_t channel) {
    const T *adjoint = nullptr, *input = nullptr;
    if (channel == 0) {
      adjoint = tile.template at<T>(tile.rows.z_bar, layer), input = tile.a(layer - 1);
    } else if (channel == 1) {
      adjoint = tile.template at<T>(tile.rows.delta, layer), input = tile.c(layer - 1);
    } else {
      adjoint = tile.template at<T>(tile.rows.e_bar, layer, channel - 2), input = tile.e_a(layer - 1, channel - 2);
    }
    if (has_left) left = piece(adjoint, n_out, out0);
    if (has_right) right = piece(input, n_in, in0);
  };
  const uint32_t left_pitch = n_out * sizeof(T), right_pitch = n_in * sizeof(T);
  const uint32_t own = shared_address(sm) + P::swizzled(line, byte);
  const uint32_t of_interior = n_interior / P::kRowsPerChunk;
  uint32_t channel = 0, remaining = n_rows / P::kRowsPerChunk;
  const bool has_bias = has_outputs && in0 == 0, is_output = layer == tile.network.n_layers;
  const int n_of_bias = has_bias && !is_output ? static_cast<int>(remaining) : 0;
  const uint32_t n_chunks = remaining + of_interior * (1 + tile.rows.n_probes);
  select_channel(0);
  pipelined<P::kStages>(
      static_cast<int>(n_chunks),
      [&](int, int index) {
        if (remaining == 0) {
          select_channel(++channel);
          remaining = of_interior;
        }
        --remaining;
        const uint32_t stage = own + index * P::kStageBytes;
        P::load(left, left_pitch, stage);
        P::load(right, right_pitch, stage + P::kSideBytes);
        if (has_left) left += P::kRowsPerChunk * left_pitch;
        if (has_right) right += P::kRowsPerChunk * right_pitch;
      },
      [&](int chunk, int index) {
        if (has_elements) product.multiply(sm + index * P::kStageBytes);
        if (chunk < n_of_bias) product.add_lines(sm + index * P::kStageBytes);
      });
  if (!has_bias || !is_output) return;
  product.add_to_lines([&](int out) {
    const float* sums = tile.seed_sums(tile.first_slot / kTileRows, 0) + out0 + out;
    float sum = 0.0f;
#pragma unroll 8  // keeps loads in flight; the order of the sum is unchanged
    for (uint32_t k = 0; k < n_rows / kTileRows * kWarps; ++k) sum += sums[k * n_out];
    return sum;
  });
}

// Stores the elements that start at (out0, in0) to the layer's stretch of a gradient, weights
// [n_out][n_in] and then biases; `add` adds to what is there.
template <class T, uint32_t kTile>
__device__ __forceinline__ void store_gradient(const GradProduct<T, kTile>& product, float* partial, uint32_t n_out,
                                               uint32_t n_in, uint32_t out0, uint32_t in0, bool add) {
  using P = GradProduct<T, kTile>;
  if (P::first_out() >= static_cast<int>(n_out - out0)) return;
  const auto element = [&](int out, int in) {
    return reinterpret_cast<float2*>(partial + static_cast<size_t>(out0 + out) * n_in + in0 + in);
  };
  if (P::first_in() < static_cast<int>(n_in - in0)) {
    product.for_each([&](int out, int in) { return add ? *element(out, in) : float2{}; },
                     [&](int out, int in, float2 value, float2 before) {
                       *element(out, in) = make_float2(before.x + value.x, before.y + value.y);
                     });
  }
  if (in0 > 0) return;
  float* bias = partial + static_cast<size_t>(n_out) * n_in + out0;
  product.for_each_line([&](int out, float sum) { bias[out] = add ? bias[out] + sum : sum; });
}
