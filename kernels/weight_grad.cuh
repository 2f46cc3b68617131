// The weight gradient of one layer: dW = z_bar^T a + delta^T c, one product whose inner dimension stacks the channels, and db = sum z_bar.
//
// A block forms kTileColumns x kTileColumns elements of dW over its share of the rows (blockIdx.z) and writes them to its partial sum; whoever
// adds the partial sums up does so in their order, so the result does not depend on which block was first.
#pragma once
#include "net/element.cuh"
#include "tile/product.cuh"

struct WeightGradParams {
  const void *z_bar, *a, *delta, *c;  // [rows][n_out], [rows][n_in], …
  uint32_t n_out, n_in;               // padded widths
  uint32_t n_rows;                    // a multiple of kTileRows
  uint32_t n_channels;                // 1 for boundary rows, which have no delta and c
  uint32_t tiles_per_part;            // tiles of rows that a block adds up
  float* weight;                      // [parts][n_out][n_in]
  float* bias;                        // [parts][n_out]
};

template <class T>
struct GradTile {
  static constexpr int kLineBytes = kTileColumns * static_cast<int>(sizeof(T));
  static constexpr int kPieces = kLineBytes / 16;
  static constexpr int kRowsPerChunk = 4096 / kLineBytes;  // 32 rows of 16-bit operands, 16 of 32-bit
  static constexpr int kChunkBytesOfOne = kRowsPerChunk * kLineBytes;
  static constexpr int kStageBytesOfBoth = 2 * kChunkBytesOfOne;

  // Lines are rows of the batch. A fragment reads one piece of 8 lines (16 bit), or 8 words of 4 lines (32 bit): each line has its pieces
  // in another order, so that they cover all banks.
  static __device__ __forceinline__ int swizzled(int line, int byte) {
    return line * kLineBytes + (byte ^ (sizeof(T) == 2 ? line % 8 * 16 : line % 4 * 32));
  }

  Accumulator acc[2][4];

  static __device__ __forceinline__ void load(const T* left, uint32_t left_pitch, const T* right, uint32_t right_pitch,
                                              uint32_t stage) {
    for (int i = threadIdx.x; i < 2 * kRowsPerChunk * kPieces; i += kThreads) {
      const int side = i / (kRowsPerChunk * kPieces), line = i / kPieces % kRowsPerChunk, piece = i % kPieces;
      const T* source = side == 0 ? left + static_cast<size_t>(line) * left_pitch
                                  : right + static_cast<size_t>(line) * right_pitch;
      copy_async16(stage + side * kChunkBytesOfOne + swizzled(line, 16 * piece),
                   reinterpret_cast<const unsigned char*>(source) + 16 * piece);
    }
  }

  // Adds left^T right of the chunk in `stage`.
  __device__ __forceinline__ void multiply(const unsigned char* sm_stage) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int left0 = 32 * (warp / 2), right0 = 32 * (warp % 2);
    if constexpr (sizeof(T) == 2) {
      const uint32_t left = shared_address(sm_stage), right = left + kChunkBytesOfOne;
#pragma unroll
      for (int row = 0; row < kRowsPerChunk; row += 16) {
        uint32_t a_frag[2][4], b_frag[2][4];
        // Transposed matrices: lines are the inner dimension, pieces the outputs (left) or inputs (right).
#pragma unroll
        for (int m = 0; m < 2; ++m)
          load_matrices_transposed(
              a_frag[m], left + swizzled(row + lane / 16 * 8 + lane % 8, 2 * (left0 + 16 * m + lane / 8 % 2 * 8)));
#pragma unroll
        for (int pair = 0; pair < 2; ++pair)
          load_matrices_transposed(
              b_frag[pair], right + swizzled(row + lane / 8 % 2 * 8 + lane % 8, 2 * (right0 + 16 * pair + lane / 16 * 8)));
#pragma unroll
        for (int m = 0; m < 2; ++m)
#pragma unroll
          for (int n = 0; n < 4; ++n)
            multiply_add<T>(acc[m][n], a_frag[m], b_frag[n / 2][n % 2 * 2], b_frag[n / 2][n % 2 * 2 + 1]);
      }
    } else {
      const auto left = [&](int row, int column) {
        return *reinterpret_cast<const uint32_t*>(sm_stage + swizzled(row, 4 * (left0 + column)));
      };
      const auto right = [&](int row, int column) {
        return *reinterpret_cast<const uint32_t*>(sm_stage + kChunkBytesOfOne + swizzled(row, 4 * (right0 + column)));
      };
      const int group = lane / 4, thread = lane % 4;
      for (int row = 0; row < kRowsPerChunk; row += 8) {
        uint32_t b_frag[4][2];
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          b_frag[n][0] = right(row + thread, 8 * n + group);
          b_frag[n][1] = right(row + thread + 4, 8 * n + group);
        }
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          const int column = 16 * m + group;
          const uint32_t a_frag[4] = {left(row + thread, column), left(row + thread, column + 8),
                                      left(row + thread + 4, column), left(row + thread + 4, column + 8)};
#pragma unroll
          for (int n = 0; n < 4; ++n) multiply_add<T>(acc[m][n], a_frag, b_frag[n][0], b_frag[n][1]);
        }
      }
    }
  }
};

// f32 keeps the fragments, with plain fused multiply-adds over the whole warp's tile: the reference.
template <>
__device__ __forceinline__ void GradTile<float>::multiply(const unsigned char* sm_stage) {
  for (int row = 0; row < kRowsPerChunk; ++row) {
    float left[2][2], right[4][2];
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        left[m][half] =
            *reinterpret_cast<const float*>(sm_stage + swizzled(row, 4 * Product<float>::row(m, 2 * half)));
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
      for (int k = 0; k < 2; ++k)
        right[n][k] = *reinterpret_cast<const float*>(sm_stage + kChunkBytesOfOne +
                                                      swizzled(row, 4 * Product<float>::column(n, k)));
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int k = 0; k < 4; ++k) acc[m][n].value[k] = fmaf(left[m][k / 2], right[n][k % 2], acc[m][n].value[k]);
  }
}

template <class T>
__device__ void weight_grad(const WeightGradParams& params) {
  extern __shared__ __align__(16) unsigned char sm[];
  using Tile = GradTile<T>;
  const uint32_t n_in = params.n_in, n_out = params.n_out;
  const uint32_t in0 = blockIdx.x * kTileColumns, out0 = blockIdx.y * kTileColumns;
  const uint32_t first_row = blockIdx.z * params.tiles_per_part * kTileRows;
  const uint32_t end_row = min(params.n_rows, first_row + params.tiles_per_part * kTileRows);
  const uint32_t chunks_of_one = (end_row - first_row) / Tile::kRowsPerChunk;

  Tile tile;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int n = 0; n < 4; ++n) tile.acc[m][n] = Accumulator{};
  const uint32_t stages = shared_address(sm);
  const auto load = [&](uint32_t chunk) {
    const bool second = chunk >= chunks_of_one;
    const size_t row = first_row + (second ? chunk - chunks_of_one : chunk) * Tile::kRowsPerChunk;
    const T* left = static_cast<const T*>(second ? params.delta : params.z_bar) + row * n_out + out0;
    const T* right = static_cast<const T*>(second ? params.c : params.a) + row * n_in + in0;
    Tile::load(left, n_out, right, n_in, stages + chunk % kStages * Tile::kStageBytesOfBoth);
  };
  pipelined(params.n_channels * chunks_of_one, load,
            [&](uint32_t chunk) { tile.multiply(sm + chunk % kStages * Tile::kStageBytesOfBoth); });

  float* weight = params.weight + static_cast<size_t>(blockIdx.z) * n_out * n_in;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
      for (int k = 0; k < 4; ++k)
        weight[static_cast<size_t>(out0 + Product<T>::row(m, k)) * n_in + in0 + Product<T>::column(n, k)] =
            tile.acc[m][n].value[k];

  // The blocks of the first inputs have the biases: a thread an output.
  if (blockIdx.x == 0 && threadIdx.x < kTileColumns) {
    const T* z_bar = static_cast<const T*>(params.z_bar) + out0 + threadIdx.x;
    float sum = 0.0f;
    for (uint32_t row = first_row; row < end_row; ++row) sum += from_element(z_bar[static_cast<size_t>(row) * n_out]);
    params.bias[blockIdx.z * n_out + out0 + threadIdx.x] = sum;
  }
}
