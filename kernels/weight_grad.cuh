// The weight gradient of all layers: dW = z_bar^T a + delta^T c + Σ e_bar^T e_a, one product whose inner dimension stacks the channels, and
// db = Σ z_bar.
//
// A block forms kGradTile x kGradTile elements of one layer's dW over its share of the rows (blockIdx.y) and adds them to its partial sum; whoever adds
// the partial sums up does so in their order, so the result does not depend on which block was first.
#pragma once
#include "net/element.cuh"
#include "tile/product.cuh"

constexpr uint32_t kGradTile = 128;

template <class T>
struct GradProduct {
  static constexpr int kLineBytes = static_cast<int>(kGradTile * sizeof(T));
  static constexpr int kPieces = kLineBytes / 16;
  static constexpr int kRowsPerChunk = 8192 / kLineBytes;  // 32 rows of 16-bit operands, 16 of 32-bit
  static constexpr int kSideBytes = kRowsPerChunk * kLineBytes;
  static constexpr int kStageBytes = 2 * kSideBytes;

  // Lines are rows of the batch. A fragment reads one piece of 8 lines (16 bit), or 8 words of 4 lines (32 bit): each line has its pieces
  // in another order, so that they cover all banks.
  static __device__ __forceinline__ int swizzled(int line, int byte) {
    return line * kLineBytes + (byte ^ (sizeof(T) == 2 ? line % 8 * 16 : line % 4 * 32));
  }

  // 2 x 4 warps of 64 outputs x 32 inputs: acc[m][n] are 16 x 8 tiles.
  Accumulator acc[4][4];

  static __device__ __forceinline__ int first_out() { return 64 * (static_cast<int>(threadIdx.x) / 128); }
  static __device__ __forceinline__ int first_in() { return 32 * (static_cast<int>(threadIdx.x) / 32 % 4); }

  // Starts the copies of kRowsPerChunk rows of one side, from `source`: the thread's own piece of its first line, or null where that is nobody's.
  static constexpr int kLinesAtOnce = kThreads / kPieces;
  static_assert(kLinesAtOnce % 8 == 0, "lines of a thread have their pieces in one order");
  static __device__ __forceinline__ void load(const unsigned char* source, uint32_t pitch_bytes, uint32_t side) {
    if (source == nullptr) return;
#pragma unroll
    for (int line = 0; line < kRowsPerChunk; line += kLinesAtOnce)
      copy_async16(side + line * kLineBytes, source + line * pitch_bytes);
  }

  // Adds left^T right of the chunk in `sm_stage`.
  __device__ __forceinline__ void multiply(const unsigned char* sm_stage) {
    const int lane = threadIdx.x % 32;
    if constexpr (sizeof(T) == 2) {
      const uint32_t left = shared_address(sm_stage), right = left + kSideBytes;
#pragma unroll
      for (int row = 0; row < kRowsPerChunk; row += 16) {
        uint32_t a_frag[4][4], b_frag[2][4];
        // Transposed matrices: lines are the inner dimension, pieces the outputs (left) or inputs (right).
#pragma unroll
        for (int m = 0; m < 4; ++m)
          load_matrices_transposed(a_frag[m], left + swizzled(row + lane / 16 * 8 + lane % 8,
                                                              2 * (first_out() + 16 * m + lane / 8 % 2 * 8)));
#pragma unroll
        for (int pair = 0; pair < 2; ++pair)
          load_matrices_transposed(b_frag[pair], right + swizzled(row + lane / 8 % 2 * 8 + lane % 8,
                                                                  2 * (first_in() + 16 * pair + lane / 16 * 8)));
#pragma unroll
        for (int m = 0; m < 4; ++m)
#pragma unroll
          for (int n = 0; n < 4; ++n)
            multiply_add<T>(acc[m][n], a_frag[m], b_frag[n / 2][n % 2 * 2], b_frag[n / 2][n % 2 * 2 + 1]);
      }
    } else {
      const auto left = [&](int row, int column) {
        return *reinterpret_cast<const uint32_t*>(sm_stage + swizzled(row, 4 * (first_out() + column)));
      };
      const auto right = [&](int row, int column) {
        return *reinterpret_cast<const uint32_t*>(sm_stage + kSideBytes + swizzled(row, 4 * (first_in() + column)));
      };
      const int group = lane / 4, thread = lane % 4;
#pragma unroll 1
      for (int row = 0; row < kRowsPerChunk; row += 8) {
        uint32_t b_frag[4][2];
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          b_frag[n][0] = right(row + thread, 8 * n + group);
          b_frag[n][1] = right(row + thread + 4, 8 * n + group);
        }
#pragma unroll
        for (int m = 0; m < 4; ++m) {
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
__device__ __forceinline__ void GradProduct<float>::multiply(const unsigned char* sm_stage) {
  const int lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4 * 2;
#pragma unroll 1
  for (int row = 0; row < kRowsPerChunk; ++row) {
    float left[4][2];
    float2 right[4];
#pragma unroll
    for (int m = 0; m < 4; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        left[m][half] =
            *reinterpret_cast<const float*>(sm_stage + swizzled(row, 4 * (first_out() + 16 * m + group + 8 * half)));
#pragma unroll
    for (int n = 0; n < 4; ++n)
      right[n] = *reinterpret_cast<const float2*>(sm_stage + kSideBytes + swizzled(row, 4 * (first_in() + 8 * n + pair)));
#pragma unroll
    for (int m = 0; m < 4; ++m)
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float(&sum)[4] = acc[m][n].value;
          sum[2 * half] = fmaf(left[m][half], right[n].x, sum[2 * half]);
          sum[2 * half + 1] = fmaf(left[m][half], right[n].y, sum[2 * half + 1]);
        }
  }
}

template <class T>
__device__ __forceinline__ void weight_grad(const WeightGradParams& params) {
  extern __shared__ __align__(16) unsigned char sm[];
  using Tile = GradProduct<T>;
  if (params.state->halted) return;
  const NetworkParams& network = params.network;
  const RowBuffers& rows = params.rows;
  uint32_t layer = 1;
  while (layer < network.n_layers && blockIdx.x >= network.layers[layer].grad_tile) ++layer;
  const LayerParams& map = network.layers[layer - 1];
  const uint32_t n_in = map.n_in, n_out = map.n_out, in_place = layer == 1 ? 0 : network.layers[layer - 2].place;
  const uint32_t tile = blockIdx.x - map.grad_tile, tiles_across = (n_in + kGradTile - 1) / kGradTile;
  const uint32_t in0 = tile % tiles_across * kGradTile, out0 = tile / tiles_across * kGradTile;
  const int n_left = min(kGradTile, n_out - out0), n_right = min(kGradTile, n_in - in0);
  const bool has_elements = Tile::first_out() < n_left && Tile::first_in() < n_right;

  // Rows of this part: all channels of its interior tiles, the first channel of the others.
  const uint32_t first_tile = blockIdx.y * params.tiles_per_part;
  const uint32_t end_tile = min(params.n_tiles, first_tile + params.tiles_per_part);
  const uint32_t end_interior = max(first_tile, min(params.n_interior_tiles, end_tile));
  const uint32_t first_row = first_tile * kTileRows;
  constexpr uint32_t kChunksPerTile = kTileRows / Tile::kRowsPerChunk;
  const uint32_t n_interior = (end_interior - first_tile) * kChunksPerTile;
  const uint32_t n_chunks = (end_tile - first_tile) * kChunksPerTile + n_interior * (1 + rows.n_probes);

  // Where this thread's piece of a channel's first line lies, on both sides; null where there are no columns.
  const int line = threadIdx.x / Tile::kPieces, byte = threadIdx.x % Tile::kPieces * 16;
  const auto piece = [&](const void* buffer, uint32_t place, uint32_t probe, uint32_t width, uint32_t column) {
    const size_t start = (static_cast<size_t>(probe) * network.places + place) * rows.n_rows;
    const T* first = static_cast<const T*>(buffer) + start + static_cast<size_t>(first_row + line) * width + column;
    return reinterpret_cast<const unsigned char*>(first) + byte;
  };
  const bool has_left = byte < n_left * static_cast<int>(sizeof(T)), has_right = byte < n_right * static_cast<int>(sizeof(T));
  const uint32_t left_pitch = n_out * sizeof(T), right_pitch = n_in * sizeof(T);
  const uint32_t own = shared_address(sm) + Tile::swizzled(line, byte);
  // What is copied next: chunks are asked for in their order, channel after channel.
  uint32_t channel = 0, left_in_channel = (end_tile - first_tile) * kChunksPerTile;
  const unsigned char* left = has_left ? piece(rows.z_bar, map.place, 0, n_out, out0) : nullptr;
  const unsigned char* right = has_right ? piece(rows.a, in_place, 0, n_in, in0) : nullptr;
  const auto next_channel = [&] {
    left_in_channel = n_interior;
    ++channel;
    if (channel == 1) {
      if (has_left) left = piece(rows.delta, map.place, 0, n_out, out0);
      if (has_right) right = piece(rows.c, in_place, 0, n_in, in0);
    } else {
      if (has_left) left = piece(rows.e_z, map.place, channel - 2, n_out, out0);
      if (has_right) right = piece(rows.e_a, in_place, channel - 2, n_in, in0);
    }
  };
  Tile product;
#pragma unroll
  for (int m = 0; m < 4; ++m)
#pragma unroll
    for (int n = 0; n < 4; ++n) product.acc[m][n] = Accumulator{};
  pipelined(
      static_cast<int>(n_chunks),
      [&](int index) {
        if (left_in_channel == 0) next_channel();
        --left_in_channel;
        const uint32_t stage = own + index % kStages * Tile::kStageBytes;
        Tile::load(left, left_pitch, stage);
        Tile::load(right, right_pitch, stage + Tile::kSideBytes);
        if (has_left) left += Tile::kRowsPerChunk * left_pitch;
        if (has_right) right += Tile::kRowsPerChunk * right_pitch;
      },
      [&](int index) {
        if (has_elements) product.multiply(sm + index % kStages * Tile::kStageBytes);
      });

  float* part = params.parts + static_cast<size_t>(blockIdx.y) * network.n_parameters + map.parameters;
  const int lane = threadIdx.x % 32;
  if (has_elements) {
#pragma unroll
    for (int m = 0; m < 4; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          const uint32_t out = out0 + Tile::first_out() + 16 * m + lane / 4 + 8 * half;
          const uint32_t in = in0 + Tile::first_in() + 8 * n + lane % 4 * 2;
          float2* sum = reinterpret_cast<float2*>(part + static_cast<size_t>(out) * n_in + in);
          float2 value = make_float2(product.acc[m][n].value[2 * half], product.acc[m][n].value[2 * half + 1]);
          if (params.accumulate) value = make_float2(value.x + sum->x, value.y + sum->y);
          *sum = value;
        }
  }

  // The blocks of the first inputs have the biases: two threads an output, each half of the rows.
  if (in0 == 0) {
    __syncthreads();  // the last stage is read: its memory takes the halves
    float* sm_half = reinterpret_cast<float*>(sm);
    const uint32_t out = threadIdx.x % kGradTile, half = threadIdx.x / kGradTile;
    float sum = 0.0f;
    if (static_cast<int>(out) < n_left) {
      const T* z = static_cast<const T*>(rows.z_bar) + static_cast<size_t>(map.place) * rows.n_rows + out0 + out;
      const uint32_t middle = first_row + (end_tile - first_tile) * kTileRows / 2;
      const uint32_t from = half == 0 ? first_row : middle, to = half == 0 ? middle : end_tile * kTileRows;
      for (uint32_t row = from; row < to; ++row) sum += from_element(z[static_cast<size_t>(row) * n_out]);
    }
    sm_half[threadIdx.x] = sum;
    __syncthreads();  // the halves are written
    if (half == 0 && static_cast<int>(out) < n_left) {
      float* bias = part + static_cast<size_t>(n_out) * n_in + out0 + out;
      const float whole = sm_half[out] + sm_half[out + kGradTile];
      *bias = params.accumulate ? *bias + whole : whole;
    }
  }
}
