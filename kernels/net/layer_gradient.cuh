// Gradient of one layer over rows: dW = z_bar^T a + delta^T c + Σ e_bar^T e_a, one product whose
// inner dimension stacks these channels, tile by tile, and db = Σ z_bar, for the output layer of
// its unrounded z_bar. All tiles have the first channel; only interior-like ones have the others.
#pragma once
#include "../tile/grad_product.cuh"
#include "tile_rows.cuh"

// Adds the kTile x kTile elements that start at (out0, in0) to `product`, and db of their outputs
// if in0 = 0, for `n_tiles` tiles, each `step` tiles behind the one before, of `n_channels`
// channels each. Precondition: operands visible to the block, `sm` free.
template <class T, uint32_t kTile>
__device__ __forceinline__ void add_channels(GradProduct<T, kTile>& product, const TileRows<T>& first, uint32_t layer,
                                             uint32_t out0, uint32_t in0, uint32_t n_channels, uint32_t n_tiles,
                                             uint32_t step, unsigned char* sm) {
  using P = GradProduct<T, kTile>;
  constexpr uint32_t kChunks = kTileRows / P::kRowsPerChunk;  // of a tile's channel
  TileRows<T> tile{first.network, first.rows, first.first_row, first.first_slot};
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
  const auto select = [&](uint32_t channel) {
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
  const bool has_bias = has_outputs && in0 == 0, is_output = layer == tile.network.n_layers;
  // Chunks are loaded in order, channel after channel and tile after tile.
  uint32_t channel = 0, remaining = kChunks;
  uint32_t multiplied = 0;  // chunks of the tile that is multiplied
  const uint32_t of_bias = has_bias && !is_output ? kChunks : 0;
  select(0);
  pipelined<P::kStages, 1>(
      static_cast<int>(n_tiles * n_channels * kChunks),
      [&](int, int index) {
        if (remaining == 0) {
          remaining = kChunks;
          if (n_channels == 1) {
            const size_t rows = (step - 1) * kTileRows;
            if (has_left) left += rows * left_pitch;
            if (has_right) right += rows * right_pitch;
          } else {
            if (++channel == n_channels) {
              channel = 0;
              tile.first_row += step * kTileRows;
              tile.first_slot += step * kTileRows;
            }
            select(channel);
          }
        }
        --remaining;
        const uint32_t stage = own + index * P::kStageBytes;
        P::load(left, left_pitch, stage);
        P::load(right, right_pitch, stage + P::kSideBytes);
        if (has_left) left += P::kRowsPerChunk * left_pitch;
        if (has_right) right += P::kRowsPerChunk * right_pitch;
      },
      [&](int, int index) {
        if (has_elements) product.multiply(sm + index * P::kStageBytes);
        if (multiplied < of_bias) product.add_lines(sm + index * P::kStageBytes);
        if (++multiplied == n_channels * kChunks) multiplied = 0;
      });
  if (!has_bias || !is_output) return;
  const uint32_t sums_of_tile = kTileRows / first.rows.tile_rows * kWarps;
#pragma unroll 1
  for (uint32_t k = 0; k < n_tiles; ++k) {
    product.add_to_lines([&](int out) {
      const uint32_t tile = first.first_slot / kTileRows + k * step;
      const float* sums = first.seed_sums(tile * (kTileRows / first.rows.tile_rows), 0) + out0 + out;
      float sum = 0.0f;
#pragma unroll 8  // keeps loads in flight; the order of the sum is unchanged
      for (uint32_t i = 0; i < sums_of_tile; ++i) sum += sums[i * n_out];
      return sum;
    });
  }
}

// Stores the elements that start at (out0, in0) to the layer's stretch of a gradient, weights
// [n_out][n_in] and then biases.
template <class T, uint32_t kTile>
__device__ __forceinline__ void store_gradient(const GradProduct<T, kTile>& product, float* partial, uint32_t n_out,
                                               uint32_t n_in, uint32_t out0, uint32_t in0) {
  using P = GradProduct<T, kTile>;
  if (P::first_out() >= static_cast<int>(n_out - out0)) return;
  if (P::first_in() < static_cast<int>(n_in - in0)) {
    product.for_each([](int, int) { return 0; },
                     [&](int out, int in, float2 value, int) {
                       float* element = partial + static_cast<size_t>(out0 + out) * n_in + in0 + in;
                       *reinterpret_cast<float2*>(element) = value;
                     });
  }
  if (in0 > 0) return;
  float* bias = partial + static_cast<size_t>(n_out) * n_in + out0;
  product.for_each_line([&](int out, float sum) { bias[out] = sum; });
}

// The inverse of store_gradient.
template <class T, uint32_t kTile>
__device__ __forceinline__ void load_gradient(GradProduct<T, kTile>& product, const float* partial, uint32_t n_out,
                                              uint32_t n_in, uint32_t out0, uint32_t in0) {
  using P = GradProduct<T, kTile>;
  if (P::first_out() >= static_cast<int>(n_out - out0)) return;
  const int lane = threadIdx.x % 32;
  if (P::first_in() < static_cast<int>(n_in - in0)) {
    const float* own =
        partial + static_cast<size_t>(out0 + P::first_out() + lane / 4) * n_in + in0 + P::first_in() + lane % 4 * 2;
#pragma unroll
    for (int m = 0; m < P::kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int n = 0; n < P::kN; ++n) {
          const float2 two = *reinterpret_cast<const float2*>(own + (16 * m + 8 * half) * n_in + 8 * n);
          float (&values)[4] = product.acc[m][n].value;
          values[2 * half] = two.x, values[2 * half + 1] = two.y;
        }
  }
  if (in0 > 0 || !P::owns_bias_rows()) return;
  const float* bias = partial + static_cast<size_t>(n_out) * n_in + out0 + P::first_line() + lane / 4;
  product.line_sums.value[0] = bias[0], product.line_sums.value[2] = bias[8];
}
