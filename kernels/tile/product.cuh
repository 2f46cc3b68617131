// One block's share of a matrix product: kTileRows rows of A times kTileColumns rows of B, both row-major with the inner dimension along
// the row: C = A B^T. A holds activations [row][input], B weights [output][input] or, for Wᵀ, [input][output].
//
// Rows and columns are padded to whole tiles and the inner dimension to whole chunks by whoever allocates them: nothing is checked here.
#pragma once
#include "mma.cuh"

constexpr int kTileRows = 64;
constexpr int kTileColumns = 64;
constexpr int kThreads = 128;                // 2 x 2 warps of 32 x 32
constexpr int kChunkBytes = 64;              // of the inner dimension, a row at a time
constexpr int kStages = 3;
constexpr int kStageBytes = (kTileRows + kTileColumns) * kChunkBytes;
constexpr int kProductBytes = kStages * kStageBytes;

// Where byte `byte` of line `line` lies in a stage. Two lines fill the 32 banks; each pair of lines has its 16-byte pieces in another order, so
// that the same piece of 8 lines, a matrix of a fragment, covers all banks too.
__device__ __forceinline__ int swizzled(int line, int byte) {
  return line * kChunkBytes + (byte ^ (line / 2 % 4 * 16));
}

// `load(chunk)` starts the copies of a chunk into stage chunk % kStages, `multiply(chunk)` uses them, with the copies of the next chunks on their way.
template <class Load, class Multiply>
__device__ __forceinline__ void pipelined(int n_chunks, Load load, Multiply multiply) {
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < n_chunks) load(stage);
    commit_copies();
  }
  for (int chunk = 0; chunk < n_chunks; ++chunk) {
    wait_copies<kStages - 2>();
    __syncthreads();  // all threads' copies of this chunk have landed; all have read the chunk that is overwritten next
    if (chunk + kStages - 1 < n_chunks) load(chunk + kStages - 1);
    commit_copies();
    multiply(chunk);
  }
  wait_copies<0>();
}

template <class T>
struct Product {
  static constexpr int kChunk = kChunkBytes / static_cast<int>(sizeof(T));

  // acc[m][n]: 16 x 8 tiles of the warp's 32 x 32.
  Accumulator acc[2][4];

  // Row and column within the tile of value k of acc[m][n] in this thread.
  static __device__ __forceinline__ int row(int m, int k) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    return 32 * (warp / 2) + 16 * m + lane / 4 + 8 * (k / 2);
  }
  static __device__ __forceinline__ int column(int n, int k) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    return 32 * (warp % 2) + 8 * n + 2 * (lane % 4) + k % 2;
  }

  // `a` and `b` point at the first row of the tile; pitches in elements; `depth` is a multiple of kChunk.
  __device__ void run(const T* a, int a_pitch, const T* b, int b_pitch, int depth, unsigned char* sm_stages) {
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int n = 0; n < 4; ++n) acc[m][n] = Accumulator{};
    __syncthreads();  // the operands are written, and the product before this one has read its last stage
    pipelined(
        depth / kChunk, [&](int chunk) { load(a, a_pitch, b, b_pitch, chunk, sm_stages); },
        [&](int chunk) { multiply(sm_stages + chunk % kStages * kStageBytes); });
  }

 private:
  __device__ __forceinline__ void load(const T* a, int a_pitch, const T* b, int b_pitch, int chunk,
                                       unsigned char* sm_stages) {
    constexpr int kPieces = kChunkBytes / 16;
    const uint32_t stage = shared_address(sm_stages) + chunk % kStages * kStageBytes;
#pragma unroll
    for (int i = threadIdx.x; i < (kTileRows + kTileColumns) * kPieces; i += kThreads) {
      const int line = i / kPieces, piece = i % kPieces;
      const T* source = line < kTileRows ? a + static_cast<size_t>(line) * a_pitch
                                         : b + static_cast<size_t>(line - kTileRows) * b_pitch;
      const unsigned char* bytes = reinterpret_cast<const unsigned char*>(source + chunk * kChunk) + 16 * piece;
      copy_async16(stage + swizzled(line, 16 * piece), bytes);
    }
  }

  __device__ __forceinline__ void multiply(const unsigned char* sm_stage) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t stage = shared_address(sm_stage);
    const int a_line = 32 * (warp / 2) + lane % 16, b_line = kTileRows + 32 * (warp % 2) + lane / 16 * 8 + lane % 8;
#pragma unroll
    for (int step = 0; step < kChunkBytes; step += 32) {
      uint32_t a_frag[2][4], b_frag[2][4];
      // Matrices of A: upper rows, lower rows, then the second 16 bytes of both.
#pragma unroll
      for (int m = 0; m < 2; ++m)
        load_matrices(a_frag[m], stage + swizzled(a_line + 16 * m, step + lane / 16 * 16));
      // Matrices of B: both 16-byte halves of 8 columns, then those of the next 8.
#pragma unroll
      for (int pair = 0; pair < 2; ++pair)
        load_matrices(b_frag[pair], stage + swizzled(b_line + 16 * pair, step + lane / 8 % 2 * 16));
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int n = 0; n < 4; ++n)
          multiply_add<T>(acc[m][n], a_frag[m], b_frag[n / 2][n % 2 * 2], b_frag[n / 2][n % 2 * 2 + 1]);
    }
  }
};

// f32 keeps the picture, with plain fused multiply-adds: the reference.
template <>
__device__ __forceinline__ void Product<float>::multiply(const unsigned char* sm_stage) {
  const auto at = [&](int line, int inner) {
    return *reinterpret_cast<const float*>(sm_stage + swizzled(line, 4 * inner));
  };
  for (int inner = 0; inner < kChunk; ++inner) {
    float a_value[2][2], b_value[4][2];
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) a_value[m][half] = at(row(m, 2 * half), inner);
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
      for (int k = 0; k < 2; ++k) b_value[n][k] = at(kTileRows + column(n, k), inner);
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int k = 0; k < 4; ++k)
          acc[m][n].value[k] = fmaf(a_value[m][k / 2], b_value[n][k % 2], acc[m][n].value[k]);
  }
}
