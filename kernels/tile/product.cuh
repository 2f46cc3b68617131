// A block's share of a matrix product: kTileRows rows of A times up to kColumns rows of B, both row-major with the inner dimension along the row:
// C = A B^T. A holds activations [row][input], B weights [output][input] or, for the transpose, [input][output].
//
// Rows and columns are padded to whole tiles by whoever allocates them: nothing is checked here.
#pragma once
#include <type_traits>

#include "../params.h"
#include "mma.cuh"

constexpr int kThreads = 256;  // 8 warps
constexpr int kChunkBytes = 64;  // of the inner dimension, a line at a time
constexpr int kLinesAtOnce = kThreads / 4;  // a thread copies one piece of a line
static_assert(kTileRows % kLinesAtOnce == 0 && kWidthUnit % kLinesAtOnce == 0, "all threads copy at once");

// Shared memory of a product: first a chunk of A's lines in each of `n_operand_chunks` places, then the stages of B. An A that has places for all of
// its chunks stays there for all tiles of columns; else it goes through the first places in turns.
struct ProductMemory {
  unsigned char* sm;
  uint32_t n_operand_chunks;
};
constexpr int kOperandChunkBytes = static_cast<int>(kTileRows) * kChunkBytes;

// Where byte `byte` of a line lies in a chunk. Two lines fill the 32 banks; lines that a fragment reads together have their 16-byte pieces in
// different orders, so that one piece of 8 of them, a matrix, covers all banks too. Those of A are neighbours, those of B pairs (see Product).
__device__ __forceinline__ int swizzled_a(int line, int byte) {
  return line * kChunkBytes + (byte ^ (line / 2 % 4 * 16));
}
__device__ __forceinline__ int swizzled_b(int line, int byte) {
  return line * kChunkBytes + (byte ^ (line / 4 % 4 * 16));
}

// `load(chunk, stage)` starts the copies of a chunk into a stage, `multiply(chunk, stage)` uses them, with the copies of the next chunks on their way.
template <int kStages, class Load, class Multiply>
__device__ __forceinline__ void pipelined(int n_chunks, Load load, Multiply multiply) {
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < n_chunks) load(stage, stage);
    commit_copies();
  }
  int stage = 0, stage_before = kStages - 1;
  for (int chunk = 0; chunk < n_chunks; ++chunk) {
    wait_copies<kStages - 2>();
    __syncthreads();  // all threads' copies of this chunk have landed; all have read the chunk that is overwritten next
    if (chunk + kStages - 1 < n_chunks) load(chunk + kStages - 1, stage_before);
    commit_copies();
    multiply(chunk, stage);
    stage_before = stage;
    stage = stage + 1 == kStages ? 0 : stage + 1;
  }
  wait_copies<0>();
}

// f32 keeps the picture, with plain fused multiply-adds: the reference.
template <class P>
__device__ __forceinline__ void multiply_f32(P& product, const unsigned char* sm_a, const unsigned char* sm_b) {
  const int lane = threadIdx.x % 32;
  const int row = P::first_row() + lane / 4, column = P::first_column() + lane % 4 * 4;
#pragma unroll 1
  for (int byte = 0; byte < kChunkBytes; byte += 8) {
    float2 a[P::kM][2];
#pragma unroll
    for (int m = 0; m < P::kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        a[m][half] = *reinterpret_cast<const float2*>(sm_a + swizzled_a(row + 16 * m + 8 * half, byte));
#pragma unroll
    for (int n = 0; n < P::kN; ++n)
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const float2 b = *reinterpret_cast<const float2*>(
            sm_b + swizzled_b(column + n / 2 * 16 + n % 2 * 2 + k, byte));
#pragma unroll
        for (int m = 0; m < P::kM; ++m)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            float& sum = product.acc[m][n].value[2 * half + k];
            sum = fmaf(a[m][half].x, b.x, sum);
            sum = fmaf(a[m][half].y, b.y, sum);
          }
      }
  }
}

// Wide: 2 x 4 warps of 64 x 32. Narrow: 4 x 2 warps of 32 x 32, for results that few columns have.
template <class T, bool kWide, int kStages>
struct Product {
  static constexpr int kColumns = kWide ? 128 : 64;
  static constexpr int kStageBytes = kColumns * kChunkBytes;
  static constexpr int kLeastBytes = kStages * (kOperandChunkBytes + kStageBytes);  // of shared memory
  static constexpr int kM = kWide ? 4 : 2, kN = 4;
  static constexpr int kWarpColumns = kWide ? 4 : 2;
  static constexpr int kChunk = kChunkBytes / static_cast<int>(sizeof(T));

  // acc[m][n]: 16 x 8 tiles of the warp's. Columns 4 i, 4 i + 1 of tile pair n, n + 1 go to the first, 4 i + 2, 4 i + 3 to the second: each
  // thread so has 4 neighbours of a row, which it moves as one, and 4 threads a whole sector of memory.
  Accumulator acc[kM][kN];

  static __device__ __forceinline__ int first_row() {
    return 16 * kM * (static_cast<int>(threadIdx.x) / 32 / kWarpColumns);
  }
  static __device__ __forceinline__ int first_column() {
    return 8 * kN * (static_cast<int>(threadIdx.x) / 32 % kWarpColumns);
  }

  // `a` and `b` point at the first line of the tile, lines of `depth` elements, a multiple of 64; `n_columns` lines of B, another one. A warp without
  // columns only copies. `is_first`: of the tiles of columns with the same A one after the other.
  __device__ __forceinline__ void run(const T* a, const T* b, uint32_t depth, uint32_t n_columns, bool is_first, ProductMemory memory) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n) acc[m][n] = Accumulator{};
    const bool has_columns = first_column() < static_cast<int>(n_columns);
    const int line = threadIdx.x / 4, byte = threadIdx.x % 4 * 16;
    const uint32_t pitch = depth * static_cast<uint32_t>(sizeof(T));
    const unsigned char* from_a = reinterpret_cast<const unsigned char*>(a) + line * pitch + byte;
    const unsigned char* from_b = reinterpret_cast<const unsigned char*>(b) + line * pitch + byte;
    const int n_chunks = static_cast<int>(depth) / kChunk;
    const bool stays = n_chunks <= static_cast<int>(memory.n_operand_chunks), copies_a = is_first || !stays;
    unsigned char* sm_stages = memory.sm + memory.n_operand_chunks * kOperandChunkBytes;
    const auto place_of = [&](int chunk, int stage) { return (stays ? chunk : stage) * kOperandChunkBytes; };
    const uint32_t operand = shared_address(memory.sm), stages = shared_address(sm_stages);
    __syncthreads();  // the operands are written, and the product before this one has read its last stage
    pipelined<kStages>(
        n_chunks,
        [&](int chunk, int stage) {
          const uint32_t to_a = operand + place_of(chunk, stage), to_b = stages + stage * kStageBytes;
          if (copies_a) {
#pragma unroll
            for (int k = 0; k < static_cast<int>(kTileRows); k += kLinesAtOnce)
              copy_async16(to_a + swizzled_a(line + k, byte), from_a + k * pitch + chunk * kChunkBytes);
          }
#pragma unroll
          for (int k = 0; k < kColumns; k += kLinesAtOnce)
            if (k < static_cast<int>(n_columns))
              copy_async16(to_b + swizzled_b(line + k, byte), from_b + k * pitch + chunk * kChunkBytes);
        },
        [&](int chunk, int stage) {
          if (has_columns) multiply(memory.sm + place_of(chunk, stage), sm_stages + stage * kStageBytes);
        });
  }

  // `visit(index, column, values)` for each four neighbours of a row: index = row * width + column within the tile whose first column is column0.
  template <class Visit>
  __device__ __forceinline__ void for_each(uint32_t width, uint32_t column0, uint32_t n_columns, Visit visit) {
    if (first_column() >= static_cast<int>(n_columns)) return;
    const int lane = threadIdx.x % 32;
    const uint32_t row = first_row() + lane / 4, column = column0 + first_column() + lane % 4 * 4;
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t row_index = (row + 16 * m + 8 * half) * width + column;
#pragma unroll
        for (int n = 0; n < kN; n += 2) {
          float values[4] = {acc[m][n].value[2 * half], acc[m][n].value[2 * half + 1], acc[m][n + 1].value[2 * half],
                             acc[m][n + 1].value[2 * half + 1]};
          visit(row_index + 8 * n, column + 8 * n, values);
        }
      }
  }

 private:
  __device__ __forceinline__ void multiply(const unsigned char* sm_a, const unsigned char* sm_b) {
    if constexpr (std::is_same<T, float>::value) {
      multiply_f32(*this, sm_a, sm_b);
    } else {
      multiply_fragments(sm_a, sm_b);
    }
  }

  __device__ __forceinline__ void multiply_fragments(const unsigned char* sm_a, const unsigned char* sm_b) {
    const int lane = threadIdx.x % 32;
    const uint32_t left = shared_address(sm_a), right = shared_address(sm_b);
    const int a_line = first_row() + lane % 16;
    const int b_line = first_column() + lane % 8 / 2 * 4 + lane % 2 + lane / 16 * 2;
#pragma unroll
    for (int step = 0; step < kChunkBytes; step += 32) {
      uint32_t a_frag[kM][4], b_frag[kN / 2][4];
      // Matrices of A: upper rows, lower rows, then the second 16 bytes of both.
#pragma unroll
      for (int m = 0; m < kM; ++m) load_matrices(a_frag[m], left + swizzled_a(a_line + 16 * m, step + lane / 16 * 16));
      // Matrices of B: both 16-byte halves of a tile of columns, then those of its partner.
#pragma unroll
      for (int pair = 0; pair < kN / 2; ++pair)
        load_matrices(b_frag[pair], right + swizzled_b(b_line + 16 * pair, step + lane / 8 % 2 * 16));
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int n = 0; n < kN; ++n)
          multiply_add<T>(acc[m][n], a_frag[m], b_frag[n / 2][n % 2 * 2], b_frag[n / 2][n % 2 * 2 + 1]);
    }
  }
};
