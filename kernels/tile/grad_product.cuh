// One block's kTile x kTile elements of a weight gradient left^T right. Both sides are row-major; a
// line is a row of the batch.
#pragma once
#include "product.cuh"

template <class T, uint32_t kTile>
struct GradProduct {
  static constexpr int kLineBytes = static_cast<int>(kTile * sizeof(T));
  static constexpr int kPieces = kLineBytes / 16;
  static constexpr int kRowsPerChunk = kChunkBytes / static_cast<int>(sizeof(T));
  static constexpr int kSideBytes = kRowsPerChunk * kLineBytes;
  static constexpr int kStages = kGradStages;
  static constexpr int kStageBytes = 2 * kSideBytes;
  static constexpr int kBytes = kStages * kStageBytes;  // of shared memory
  static constexpr int kM = kTile / 32, kN = kTile / 32;

  // Offset of byte `byte` of a line. A fragment reads one piece of 8 lines (16-bit types) or 8
  // words of 4 lines (32-bit types). Swizzle: each line permutes its pieces so that together they
  // touch all banks.
  static __device__ __forceinline__ int swizzled(int line, int byte) {
    return line * kLineBytes + (byte ^ (sizeof(T) == 2 ? line % 8 * 16 : line % 4 * 32));
  }

  // 2 x 4 warps of kTile / 2 outputs x kTile / 4 inputs; acc[m][n] are 16 x 8 tiles. The 4 warps of
  // a row share their outputs; the first kM of them each sum over the batch for another 16 of them,
  // the bias gradient. All columns of `line_sums` are equal.
  Accumulator acc[kM][kN], line_sums;

  static __device__ __forceinline__ int first_out() { return 16 * kM * (static_cast<int>(threadIdx.x) / 128); }
  static __device__ __forceinline__ int warp_column() { return static_cast<int>(threadIdx.x) / 32 % 4; }
  static __device__ __forceinline__ int first_in() { return 8 * kN * warp_column(); }
  static __device__ __forceinline__ int first_line() { return first_out() + 16 * warp_column(); }
  static __device__ __forceinline__ bool owns_bias_rows() { return warp_column() < kM; }

  // Starts the asynchronous copies of kRowsPerChunk rows of one side. `source` is this thread's
  // piece of its first line, or null if it lies beyond the columns.
  static constexpr int kLinesAtOnce = kThreads / kPieces;
  static_assert(kLinesAtOnce % 8 == 0, "lines of a thread have their pieces in one order");
  static __device__ __forceinline__ void load(const unsigned char* source, uint32_t pitch_bytes, uint32_t side) {
    if (source == nullptr) return;
#pragma unroll
    for (int line = 0; line < kRowsPerChunk; line += kLinesAtOnce)
      copy_async16(side + line * kLineBytes, source + line * pitch_bytes);
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n) acc[m][n] = Accumulator{};
    line_sums = Accumulator{};
  }

  // Rescales all sums.
  __device__ __forceinline__ void multiply_by(float factor) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[m][n].value[i] *= factor;
#pragma unroll
    for (int i = 0; i < 4; ++i) line_sums.value[i] *= factor;
  }

  // Calls `visit(out, in, values, ahead)` for each two consecutive elements of a row. `ahead` is
  // the result of `load(out, in)`; the loads of 16 outputs are issued together.
  template <class Load, class Visit>
  __device__ __forceinline__ void for_each(Load load, Visit visit) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      const auto out = [&](int i) { return first_out() + 16 * m + lane / 4 + 8 * (i / kN); };
      const auto in = [&](int i) { return first_in() + 8 * (i % kN) + lane % 4 * 2; };
      decltype(load(0, 0)) ahead[2 * kN];
#pragma unroll
      for (int i = 0; i < 2 * kN; ++i) ahead[i] = load(out(i), in(i));
#pragma unroll
      for (int i = 0; i < 2 * kN; ++i) {
        const float (&values)[4] = acc[m][i % kN].value;
        visit(out(i), in(i), make_float2(values[2 * (i / kN)], values[2 * (i / kN) + 1]), ahead[i]);
      }
    }
  }

  // Calls `visit(out, sum)` for each output's sum over the batch, from one thread.
  template <class Visit>
  __device__ __forceinline__ void for_each_line(Visit visit) const {
    const int lane = threadIdx.x % 32;
    if (!owns_bias_rows() || lane % 4 != 0) return;
    visit(first_line() + lane / 4, line_sums.value[0]);
    visit(first_line() + lane / 4 + 8, line_sums.value[2]);
  }

  // Adds `sum(out)` to each output's sum.
  template <class Sum>
  __device__ __forceinline__ void add_to_lines(Sum sum) {
    const int lane = threadIdx.x % 32;
    if (!owns_bias_rows() || lane % 4 != 0) return;
    line_sums.value[0] += sum(first_line() + lane / 4);
    line_sums.value[2] += sum(first_line() + lane / 4 + 8);
  }

  // Adds the rows of the chunk in `sm_stage` to the sums of the outputs, as a product with ones.
  __device__ __forceinline__ void add_lines(const unsigned char* sm_stage) {
    const int lane = threadIdx.x % 32;
    if (!owns_bias_rows()) return;
    if constexpr (sizeof(T) == 2) {
      const uint32_t ones = std::is_same<T, __half>::value ? 0x3c003c00u : 0x3f803f80u;
#pragma unroll
      for (int row = 0; row < kRowsPerChunk; row += 16) {
        uint32_t a_frag[4];
        load_matrices_transposed(a_frag, shared_address(sm_stage) + swizzled(row + lane / 16 * 8 + lane % 8,
                                                                             2 * (first_line() + lane / 8 % 2 * 8)));
        multiply_add<T>(line_sums, a_frag, ones, ones);
      }
    } else {
#pragma unroll 4
      for (int row = 0; row < kRowsPerChunk; ++row)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          line_sums.value[2 * half] +=
              *reinterpret_cast<const float*>(sm_stage + swizzled(row, 4 * (first_line() + lane / 4 + 8 * half)));
    }
  }

  // Adds left^T right of the chunk in `sm_stage`.
  __device__ __forceinline__ void multiply(const unsigned char* sm_stage) {
    const int lane = threadIdx.x % 32;
    if constexpr (sizeof(T) == 2) {
      const uint32_t left = shared_address(sm_stage), right = left + kSideBytes;
#pragma unroll
      for (int row = 0; row < kRowsPerChunk; row += 16) {
        uint32_t a_frag[kM][4], b_frag[kN / 2][4];
        // Transposed matrices: lines are the inner dimension, pieces the outputs (left) or inputs
        // (right).
#pragma unroll
        for (int m = 0; m < kM; ++m)
          load_matrices_transposed(a_frag[m], left + swizzled(row + lane / 16 * 8 + lane % 8,
                                                              2 * (first_out() + 16 * m + lane / 8 % 2 * 8)));
#pragma unroll
        for (int pair = 0; pair < kN / 2; ++pair)
          load_matrices_transposed(b_frag[pair], right + swizzled(row + lane / 8 % 2 * 8 + lane % 8,
                                                                  2 * (first_in() + 16 * pair + lane / 16 * 8)));
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
          for (int n = 0; n < kN; ++n)
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
        uint32_t b_frag[kN][2];
#pragma unroll
        for (int n = 0; n < kN; ++n) {
          b_frag[n][0] = right(row + thread, 8 * n + group);
          b_frag[n][1] = right(row + thread + 4, 8 * n + group);
        }
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          const int column = 16 * m + group;
          const uint32_t a_frag[4] = {left(row + thread, column), left(row + thread, column + 8),
                                      left(row + thread + 4, column), left(row + thread + 4, column + 8)};
#pragma unroll
          for (int n = 0; n < kN; ++n) multiply_add<T>(acc[m][n], a_frag, b_frag[n][0], b_frag[n][1]);
        }
      }
    }
  }
};

// The f32 path, the reference: same fragments, scalar fused multiply-adds over the warp's tile.
template <uint32_t kTile>
__device__ __forceinline__ void multiply_f32(GradProduct<float, kTile>& product, const unsigned char* sm_stage) {
  using P = GradProduct<float, kTile>;
  const int lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4 * 2;
#pragma unroll 1
  for (int row = 0; row < P::kRowsPerChunk; ++row) {
    float left[P::kM][2];
    float2 right[P::kN];
#pragma unroll
    for (int m = 0; m < P::kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        left[m][half] = *reinterpret_cast<const float*>(
            sm_stage + P::swizzled(row, 4 * (P::first_out() + 16 * m + group + 8 * half)));
#pragma unroll
    for (int n = 0; n < P::kN; ++n)
      right[n] = *reinterpret_cast<const float2*>(sm_stage + P::kSideBytes +
                                                  P::swizzled(row, 4 * (P::first_in() + 8 * n + pair)));
#pragma unroll
    for (int m = 0; m < P::kM; ++m)
#pragma unroll
      for (int n = 0; n < P::kN; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float (&sum)[4] = product.acc[m][n].value;
          sum[2 * half] = fmaf(left[m][half], right[n].x, sum[2 * half]);
          sum[2 * half + 1] = fmaf(left[m][half], right[n].y, sum[2 * half + 1]);
        }
  }
}
template <>
__device__ __forceinline__ void GradProduct<float, 128>::multiply(const unsigned char* sm_stage) {
  multiply_f32(*this, sm_stage);
}
template <>
__device__ __forceinline__ void GradProduct<float, 64>::multiply(const unsigned char* sm_stage) {
  multiply_f32(*this, sm_stage);
}
