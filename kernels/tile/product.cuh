// One block's tile of a matrix product C = A B^T: kRows rows of A times up to kColumns rows of
// B, both row-major with the inner dimension along the row. A holds activations [row][input], B
// weights [output][input] or, for the transpose, [input][output]. A comes from global memory, or
// lies in shared memory already: a result that is the next product's A is stored there.
//
// Precondition: buffers are padded to whole tiles. Nothing is checked here.
#pragma once
#include <type_traits>

#include "abi.h"
#include "sums.cuh"

constexpr int kLinesAtOnce = kThreads / 4;  // each thread copies one 16-byte piece of a line
static_assert(kWidthUnit % kLinesAtOnce == 0, "all threads copy at once");

// Offset of byte `byte` of a line in a chunk. Two lines fill the 32 banks. Swizzle: the eight rows
// of one ldmatrix permute their 16-byte pieces so that together they touch all 32 banks once. For A
// they are consecutive rows, for B pairs eight rows apart (see Product).
__device__ __forceinline__ int swizzled_a(int line, int byte) {
  return line * kChunkBytes + (byte ^ (line / 2 % 4 * 16));
}
__device__ __forceinline__ int swizzled_b(int line, int byte) {
  return line * kChunkBytes + (byte ^ (line / 8 % 4 * 16));
}

// Shared memory of a product: `n_operand_chunks` chunk buffers for A, then the pipeline stages of
// B. If all of A fits, it is loaded once and reused for every column tile; otherwise it cycles
// through the first buffers.
struct ProductMemory {
  unsigned char* sm;
  uint32_t n_operand_chunks;

  // True if it holds an A of so many bytes a row.
  __device__ __forceinline__ bool has_room(size_t bytes) const { return bytes <= n_operand_chunks * kChunkBytes; }

  // Stores elements of A for a product that finds it in shared memory. All threads must have read
  // the A before.
  template <class T>
  __device__ __forceinline__ void store_operand(const ElementIndex& element, const Packed8<T>& eight) const {
#pragma unroll
    for (uint32_t i = 0; i < sizeof(T) / 2; ++i)
      *reinterpret_cast<uint4*>(sm + (element.slot ^ (16 * i))) = eight.pieces[i];
  }
};

// Software pipeline: `load(chunk, stage)` starts the asynchronous copies of a chunk into a stage,
// `multiply(chunk, stage)` uses them while the copies of the next chunks are in flight. Chunks come
// in steps of kAtOnce, each with one barrier; their number is a multiple of it.
template <int kStages, int kAtOnce, class Load, class Multiply>
__device__ __forceinline__ void pipelined(int n_chunks, Load load, Multiply multiply) {
  static_assert(kStages % kAtOnce == 0, "stages of whole steps");
  constexpr int kSteps = kStages / kAtOnce;
  const auto load_step = [&](int chunk, int stage) {
    if (chunk < n_chunks) {
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) load(chunk + i, stage + i);
    }
    commit_copies();
  };
#pragma unroll
  for (int stage = 0; stage < kStages - kAtOnce; stage += kAtOnce) load_step(stage, stage);
  int stage = 0;
  for (int chunk = 0; chunk < n_chunks; chunk += kAtOnce) {
    wait_copies<kSteps - 2>();
    __syncthreads();  // all threads' copies of this step have landed; all have read the step that is overwritten next
    load_step(chunk + kStages - kAtOnce, stage == 0 ? kStages - kAtOnce : stage - kAtOnce);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) multiply(chunk + i, stage + i);
    stage = stage + kAtOnce == kStages ? 0 : stage + kAtOnce;
  }
  wait_copies<0>();
}

// The f32 path, the reference: same layout, scalar fused multiply-adds.
template <class P>
__device__ __forceinline__ void multiply_f32(P& product, const unsigned char* sm_a, const unsigned char* sm_b,
                                             uint32_t n_columns) {
  const int lane = this_thread() % 32;
  const int row = P::first_row() + lane / 4, column = P::first_column() + lane % 4 * 8;
#pragma unroll 1
  for (int byte = 0; byte < kChunkBytes; byte += 8) {
    float2 a[P::kM][2];
#pragma unroll
    for (int m = 0; m < P::kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        a[m][half] = *reinterpret_cast<const float2*>(sm_a + swizzled_a(row + 16 * m + 8 * half, byte));
#pragma unroll
    for (int group = 0; group < P::kGroups; ++group) {
      if (group > 0 && !P::has_group(group, n_columns)) break;
#pragma unroll
      for (int n = 0; n < P::kN; ++n)
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          const int line = group * P::kGroupColumns + column + 2 * n + k;
          const float2 b = *reinterpret_cast<const float2*>(sm_b + swizzled_b(line, byte));
#pragma unroll
          for (int m = 0; m < P::kM; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              float& sum = product.acc[group][m][n].value[2 * half + k];
              sum = fmaf(a[m][half].x, b.x, sum);
              sum = fmaf(a[m][half].y, b.y, sum);
            }
        }
    }
  }
}

// Warps of kTileRows: 8 x 1 of 16 x 64 for kNarrowColumns, 2 x 4 of 64 x 32 for kWideColumns, 2 x 4
// of 64 x 64 for kBroadColumns; of kMiddleTileRows for those 2 x 4 of 32 x 64. A warp of 64 columns
// has two groups of 32, half of the product's columns apart: so all warps have work in a broad
// column tile of up to half as many, too. Of fewer rows: warps of 32 columns and as few rows as
// keep all of them busy, but at least 16.
template <class T, int kColumnsAtOnce, int kRowsOfTile>
struct ProductShape {
  static constexpr int kColumns = kColumnsAtOnce, kRows = kRowsOfTile;
  static constexpr int kOperandChunk = kRows * kChunkBytes;  // bytes of a chunk of A
  static constexpr int kN = 4;
  static constexpr int kGroups =
      kColumns == kBroadColumns && kRows >= kMiddleTileRows || kColumns == kNarrowColumns && kRows == kTileRows ? 2 : 1;
  static constexpr int kGroupColumns = kColumns / kGroups;  // from a group's first column to the next one's
  static constexpr int kWarpColumns = kGroupColumns / (8 * kN);
  static constexpr int kWarpRows = kWarps / kWarpColumns < kRows / 16 ? kWarps / kWarpColumns : kRows / 16;
  static constexpr int kM = kRows / (16 * kWarpRows);
  static constexpr int kWordsAhead = 16;

  static __device__ __forceinline__ int first_row() {
    return static_cast<int>(16 * kM * (this_thread() / (32u * kWarpColumns)));
  }
  static __device__ __forceinline__ int first_column() {
    return static_cast<int>(8 * kN * (this_thread() / 32u % kWarpColumns));
  }

  // True if the warp has part `group` of a column tile.
  static __device__ __forceinline__ bool has_group(int group, uint32_t n_columns) {
    if (kWarpRows * kWarpColumns < kWarps && first_row() >= kRows) return false;
    return first_column() + group * kGroupColumns < static_cast<int>(n_columns);
  }

  // The byte of an operand in shared memory where an element lies. The swizzle repeats after eight
  // lines.
  static constexpr uint32_t kSlotsOfEight = 8 * kChunkBytes;
  static __device__ __forceinline__ uint32_t slot(uint32_t row, uint32_t column, int) {
    const uint32_t byte = column * static_cast<uint32_t>(sizeof(T));
    return byte / kChunkBytes * kOperandChunk + swizzled_a(row, byte % kChunkBytes);
  }
};

template <class T, int kColumnsAtOnce, int kStages, int kRowsOfTile = kTileRows>
struct Product : Sums<ProductShape<T, kColumnsAtOnce, kRowsOfTile>> {
  using Shape = ProductShape<T, kColumnsAtOnce, kRowsOfTile>;
  using Base = Sums<Shape>;
  using Base::acc, Base::begin;
  using Base::kGroups, Base::kM, Base::kN;
  static constexpr int kColumns = Shape::kColumns, kRows = Shape::kRows;
  static constexpr int kOperandChunk = Shape::kOperandChunk;
  static constexpr int kStageBytes = kColumns * kChunkBytes;
  static constexpr int kGroupColumns = Shape::kGroupColumns, kWarpColumns = Shape::kWarpColumns;
  static constexpr int kChunk = kChunkBytes / static_cast<int>(sizeof(T));

  static __device__ __forceinline__ int first_row() { return Shape::first_row(); }
  static __device__ __forceinline__ int first_column() { return Shape::first_column(); }
  static __device__ __forceinline__ bool has_group(int group, uint32_t n_columns) {
    return Shape::has_group(group, n_columns);
  }

  // Forms the product. `a` points at the first line of the tile; lines have `depth` elements, a
  // multiple of 64. `b` points at the first line of the column tile in the first chunk of weights
  // of `n_lines` lines (packed.cuh). Warps beyond `n_columns` only help copy. `operand`: where A
  // lies before this column tile; if in global memory, and it fits, it lies in shared memory after
  // it. Sums start at `bias`, if there is one.
  __device__ __forceinline__ void run(const T* a, const T* b, const float* bias, uint32_t depth, uint32_t n_lines,
                                      uint32_t n_columns, OperandIn operand_in, ProductMemory memory) {
    begin(bias, n_columns);
    const int line = this_thread() / 4, byte = this_thread() % 4 * 16;
    const uint32_t pitch = depth * static_cast<uint32_t>(sizeof(T));
    const unsigned char* from_a = reinterpret_cast<const unsigned char*>(a) + line * pitch + byte;
    const unsigned char* from_b = reinterpret_cast<const unsigned char*>(b) + this_thread() * 16;
    const int n_groups = !has_group(0, n_columns) ? 0 : kGroups == 2 && has_group(1, n_columns) ? 2 : 1;
    const int n_chunks = static_cast<int>(depth) / kChunk;
    const bool stays = n_chunks <= static_cast<int>(memory.n_operand_chunks),
               copies_a = operand_in == OperandIn::kGlobal || !stays;
    const auto chunk_offset = [&](int chunk, int stage) { return (stays ? chunk : stage) * kOperandChunk; };
    // A thread's lines and fragments have the same offset in every chunk.
    const uint32_t operand = shared_address(memory.sm), stages = operand + memory.n_operand_chunks * kOperandChunk;
    const uint32_t own_a = operand + swizzled_a(line, byte), own_b = stages + swizzled_b(line, byte);
    const uint32_t left = operand + fragment_a(), right = stages + fragment_b();
    __syncthreads();  // the operands are written, and the product before this one has read its last stage
    pipelined<kStages, kStages == kWideStages ? kWideChunksAtOnce : 1>(
        n_chunks,
        [&](int chunk, int stage) {
          if (copies_a) {
            if (kRows >= kLinesAtOnce || line < kRows) {
#pragma unroll
              for (int k = 0; k < kRows; k += kLinesAtOnce)
                copy_async16(own_a + chunk_offset(chunk, stage) + k * kChunkBytes, from_a + k * pitch);
            }
            from_a += kChunkBytes;
          }
#pragma unroll
          for (int k = 0; k < kColumns; k += kLinesAtOnce)
            if (k < static_cast<int>(n_columns))
              copy_async16(own_b + stage * kStageBytes + k * kChunkBytes, from_b + k * kChunkBytes);
          from_b += n_lines * kChunkBytes;
        },
        [&](int chunk, int stage) {
          if (n_groups == 0) return;
          if constexpr (std::is_same<T, float>::value) {
            unsigned char* sm_stages = memory.sm + memory.n_operand_chunks * kOperandChunk;
            multiply_f32(*this, memory.sm + chunk_offset(chunk, stage), sm_stages + stage * kStageBytes, n_columns);
          } else {
            multiply(left + chunk_offset(chunk, stage), right + stage * kStageBytes, n_groups);
          }
        });
  }

  // The same with B in shared memory, chunk after chunk as `run` has it in a stage, for warps that
  // have all columns of their rows: A's are their own, too, so that they wait for nothing of
  // others.
  __device__ __forceinline__ void run_resident(const T* a, const unsigned char* sm_b, const float* bias, uint32_t depth,
                                               uint32_t n_columns, OperandIn operand_in, ProductMemory memory) {
    static_assert(kWarpColumns == 1, "the rows of a warp are its own");
    begin(bias, n_columns);
    const int n_chunks = static_cast<int>(depth) / kChunk;
    const uint32_t operand = shared_address(memory.sm);
    __syncwarp();  // the operand is written, and the product before this one has read its own
    if (operand_in == OperandIn::kGlobal) {
      const int line = first_row() + static_cast<int>(this_thread()) % 32 / 4, byte = this_thread() % 4 * 16;
      const uint32_t pitch = depth * static_cast<uint32_t>(sizeof(T)), own = operand + swizzled_a(line, byte);
      const unsigned char* from = reinterpret_cast<const unsigned char*>(a) + line * pitch + byte;
#pragma unroll 1
      for (int chunk = 0; chunk < n_chunks; ++chunk) {
#pragma unroll
        for (int k = 0; k < 16 * kM; k += 8)
          copy_async16(own + chunk * kOperandChunk + k * kChunkBytes, from + k * pitch);
        from += kChunkBytes;
      }
      commit_copies();
      wait_copies<0>();
      __syncwarp();  // the copies of the warp have landed
    }
    const int n_groups = kGroups == 2 && has_group(1, n_columns) ? 2 : 1;
#pragma unroll 1
    for (int chunk = 0; chunk < n_chunks; ++chunk) {
      if constexpr (std::is_same<T, float>::value) {
        multiply_f32(*this, memory.sm + chunk * kOperandChunk, sm_b + chunk * kStageBytes, n_columns);
      } else {
        multiply(operand + fragment_a() + chunk * kOperandChunk,
                 shared_address(sm_b) + fragment_b() + chunk * kStageBytes, n_groups);
      }
    }
  }

  // Copies a B of kColumns lines to where `run_resident` finds it.
  static __device__ __forceinline__ void make_resident(const T* b, unsigned char* sm_b, uint32_t depth) {
    const int line = this_thread() / 4, byte = this_thread() % 4 * 16;
    const uint32_t own = shared_address(sm_b) + swizzled_b(line, byte);
    const unsigned char* from = reinterpret_cast<const unsigned char*>(b) + this_thread() * 16;
#pragma unroll 1
    for (int chunk = 0; chunk < static_cast<int>(depth) / kChunk; ++chunk) {
#pragma unroll
      for (int k = 0; k < kColumns; k += kLinesAtOnce)
        copy_async16(own + chunk * kStageBytes + k * kChunkBytes, from + k * kChunkBytes);
      from += kStageBytes;
    }
  }

 private:
  // Offset in a chunk of the line whose address this thread gives to ldmatrix. Matrices of A: upper
  // rows, lower rows, then the second 16 bytes of both. Matrices of B: both 16-byte halves of a
  // tile of columns, then those of its partner. Other tiles are a fixed number of lines further,
  // with the same swizzle; the second half of a chunk is reached by flipping address bit 5 (`^
  // step` in `multiply`).
  static __device__ __forceinline__ uint32_t fragment_a() {
    const int lane = this_thread() % 32;
    return swizzled_a(first_row() + lane % 16, lane / 16 * 16);
  }
  static __device__ __forceinline__ uint32_t fragment_b() {
    const int lane = this_thread() % 32;
    return swizzled_b(first_column() + lane % 8 / 2 * 8 + lane % 2 + lane / 16 * 2, lane / 8 % 2 * 16);
  }

  // Adds the product of a chunk to the first n_groups groups. Branches enclose whole loops, so that
  // sums need not change registers where they meet.
  __device__ __forceinline__ void multiply(uint32_t left, uint32_t right, int n_groups) {
    if (kGroups == 2 && n_groups == 2) {
      multiply_groups<kGroups>(left, right);
    } else {
      multiply_groups<1>(left, right);
    }
  }

  // Chunks start at multiples of 64 bytes, so `^ step` stays within the line.
  template <int kCount>
  __device__ __forceinline__ void multiply_groups(uint32_t left, uint32_t right) {
#pragma unroll
    for (int step = 0; step < kChunkBytes; step += 32) {
      uint32_t a_frag[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m) load_matrices(a_frag[m], (left ^ step) + 16 * m * kChunkBytes);
#pragma unroll
      for (int group = 0; group < kCount; ++group) {
        uint32_t b_frag[kN / 2][4];
        const uint32_t of_group = (right ^ step) + group * kGroupColumns * kChunkBytes;
#pragma unroll
        for (int pair = 0; pair < kN / 2; ++pair) load_matrices(b_frag[pair], of_group + 4 * pair * kChunkBytes);
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
          for (int n = 0; n < kN; ++n)
            multiply_add<T>(acc[group][m][n], a_frag[m], b_frag[n / 2][n % 2 * 2], b_frag[n / 2][n % 2 * 2 + 1]);
      }
    }
  }
};
