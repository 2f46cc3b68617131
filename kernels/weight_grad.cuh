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

  // Starts the copies of kRowsPerChunk rows of both sides; columns from n_left and n_right on are nobody's.
  static __device__ __forceinline__ void load(const T* left, uint32_t left_pitch, int n_left, const T* right, uint32_t right_pitch,
                                              int n_right, uint32_t stage) {
#pragma unroll
    for (int i = threadIdx.x; i < 2 * kRowsPerChunk * kPieces; i += kThreads) {
      const bool is_left = i < kRowsPerChunk * kPieces;
      const int line = i / kPieces % kRowsPerChunk, piece = i % kPieces;
      if (piece * 16 >= (is_left ? n_left : n_right) * static_cast<int>(sizeof(T))) continue;
      const T* source = is_left ? left + static_cast<size_t>(line) * left_pitch : right + static_cast<size_t>(line) * right_pitch;
      copy_async16(stage + (is_left ? 0 : kSideBytes) + swizzled(line, 16 * piece),
                   reinterpret_cast<const unsigned char*>(source) + 16 * piece);
    }
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
  const uint32_t n_whole = (end_tile - first_tile) * kChunksPerTile, n_interior = (end_interior - first_tile) * kChunksPerTile;
  const uint32_t n_chunks = n_whole + n_interior * (1 + rows.n_probes);

  // Chosen among by `if` below: a choice among the void pointers of the arguments crashes the compiler (cicc 13.0).
  const T *z_bar = static_cast<const T*>(rows.z_bar), *a = static_cast<const T*>(rows.a);
  const T *delta = static_cast<const T*>(rows.delta), *c = static_cast<const T*>(rows.c);
  const T *e_bar = static_cast<const T*>(rows.e_z), *e_a = static_cast<const T*>(rows.e_a);
  const auto place_of = [&](uint32_t place, uint32_t probe) {
    return (static_cast<size_t>(probe) * network.places + place) * rows.n_rows;
  };
  Tile product;
#pragma unroll
  for (int m = 0; m < 4; ++m)
#pragma unroll
    for (int n = 0; n < 4; ++n) product.acc[m][n] = Accumulator{};
  const uint32_t stages = shared_address(sm);
  pipelined(
      static_cast<int>(n_chunks),
      [&](int index) {
        const uint32_t chunk = index;
        const uint32_t channel = chunk < n_whole ? 0 : 1 + (chunk - n_whole) / n_interior;
        const uint32_t within = chunk < n_whole ? chunk : (chunk - n_whole) % n_interior;
        const T *adjoint = z_bar, *input = a;
        if (channel == 1) adjoint = delta, input = c;
        if (channel >= 2) adjoint = e_bar, input = e_a;
        const uint32_t probe = channel < 2 ? 0 : channel - 2;
        const size_t row = first_row + within * Tile::kRowsPerChunk;
        Tile::load(adjoint + place_of(map.place, probe) + row * n_out + out0, n_out, n_left,
                   input + place_of(in_place, probe) + row * n_in + in0, n_in, n_right,
                   stages + index % kStages * Tile::kStageBytes);
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
      const T* z = z_bar + place_of(map.place, 0) + out0 + out;
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
