// The sums of one block's tile of a matrix product, and the visits that elementwise code pays them.
// Which thread has which sums is the product's affair (`Shape`); all have eight consecutive
// elements of a row in one thread.
#pragma once
#include "abi.h"
#include "element.cuh"
#include "opaque.cuh"

// Where a product finds its left operand: in global memory, or in its place on the chip, where the
// product before has stored it.
enum class OperandIn { kGlobal, kPlace };

// Layout of the result of a product: lines of `width` elements that start at `origin`. The current
// column tile starts at column0, has n_columns, and its first unit is unit0.
struct Lines {
  size_t origin;
  uint32_t width, column0, n_columns, unit0;
};

// Position of eight consecutive elements of a result: in the lines, in the next product's operand
// (`slot`: a byte of shared memory, or a register), and their number `eight` among those that the
// thread has of the group of columns, whose first unit is unit0 (carried.cuh).
struct ElementIndex {
  size_t origin;
  uint32_t width, row, column, slot, unit0, eight;

  __device__ __forceinline__ size_t index() const { return origin + row * width + column; }

  // Eight rows further, `step` slots from here.
  __device__ __forceinline__ void advance(uint32_t step) { row += 8, slot += step, ++eight; }
};

// `Shape` says for a thread of a product: kGroups groups of columns, kGroupColumns apart, of kM
// times 16 rows and kN times 8 columns for its warp; first_row(), first_column() and has_group() of
// its warp; kWordsAhead, registers for what elementwise code loads ahead of its use; slot(row,
// column, group), where the next product's operand has an element, and kSlotsOfEight from there to
// eight rows further.
template <class Shape>
struct Sums {
  static constexpr int kGroups = Shape::kGroups, kM = Shape::kM, kN = Shape::kN;
  static constexpr int kEights = 2 * kM;            // of a thread, in a group
  static constexpr int kUnits = kGroups * kEights;  // of a column tile

  // acc[group][m][n]: the warp's 16 x 8 tiles. Tile n has the columns 8 i + 2 n and 8 i + 2 n + 1,
  // so each thread owns 8 consecutive elements of a row (one vector access) and 4 threads cover
  // whole sectors.
  Accumulator acc[kGroups][kM][kN];

  // Calls `visit(element, values, ahead)` for each eight consecutive elements of a row.
  // `load(element)` is called for several of them before the first visit, so that their loads, of
  // `kWords` registers each, are in flight together.
  template <int kWords, class Load, class Visit>
  __device__ __forceinline__ void for_each(const Lines& lines, Load load, Visit visit) {
    constexpr int kRoom = kWords > Shape::kWordsAhead ? 1 : Shape::kWordsAhead / kWords;
    constexpr int kAtOnce = kRoom < 2 ? 1 : kRoom < 4 || kEights < 4 ? 2 : 4;
    static_assert(kEights % kAtOnce == 0, "all turns are whole");
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      if (!Shape::has_group(group, lines.n_columns)) return;
      ElementIndex next = first_element(lines, group);
#pragma unroll
      for (int first = 0; first < kEights; first += kAtOnce) {
        ElementIndex elements[kAtOnce];
        decltype(load(next)) ahead[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          elements[i] = next;
          ahead[i] = load(next);
          next.advance(Shape::kSlotsOfEight);
        }
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          float values[8];
          get(group, first + i, values);
          visit(elements[i], values, ahead[i]);
          __syncwarp();  // keeps the compiler from interleaving visits, which would spill
        }
      }
    }
  }

  // Calls `visit(element, values)`, without loads. Looped so that a long `visit` is instantiated
  // twice for a group, not eight times. Destroys `acc`: its rows shift up as they are consumed.
  template <class Visit>
  __device__ __forceinline__ void for_each_sum(const Lines& lines, Visit visit) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      if (!Shape::has_group(group, lines.n_columns)) return;
      ElementIndex element = first_element(lines, group);
#pragma unroll 1
      for (int i = 0; i < kM; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float values[8];
          get(group, half, values);
          visit(element, values);
          element.advance(Shape::kSlotsOfEight);
          __syncwarp();  // as above
        }
#pragma unroll
        for (int m = 1; m < kM; ++m)
#pragma unroll
          for (int n = 0; n < kN; ++n) acc[group][m - 1][n] = acc[group][m][n];
      }
    }
  }

  // The same for a product of many groups, whose results are the next operand in registers, eight
  // of a group: `visit` leaves them in the first eight of `operand`. Looped so that a long `visit`
  // is instantiated once for each half; sums shift down as they are consumed, and results wait in
  // their place.
  template <class Visit, uint32_t kRegisters>
  __device__ __forceinline__ void for_each_sum_rolled(const Lines& lines, Visit visit,
                                                      uint32_t (&operand)[kRegisters]) {
    static_assert(kM == 1 && kRegisters == 8 * kGroups, "each group has eight registers of the operand");
#pragma unroll 1
    for (int group = 0; group < kGroups; ++group) {
      if (Shape::has_group(group, lines.n_columns)) {
        ElementIndex element = first_element(lines, group);
        element.slot = Shape::slot(0, 0, 0);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float values[8];
          get(0, half, values);
          visit(element, values);
          element.advance(Shape::kSlotsOfEight);
          __syncwarp();  // as above
        }
      }
#pragma unroll
      for (int next = 1; next < kGroups; ++next)
#pragma unroll
        for (int n = 0; n < kN; ++n) acc[next - 1][0][n] = acc[next][0][n];
#pragma unroll
      for (int i = 0; i < 8; ++i) acc[kGroups - 1][0][i / 4].value[i % 4] = __uint_as_float(operand[i]);
    }
#pragma unroll
    for (int i = 0; i < 8 * kGroups; ++i) operand[i] = __float_as_uint(acc[i / 8][0][i % 8 / 4].value[i % 4]);
  }

 protected:
  static __device__ __forceinline__ ElementIndex first_element(const Lines& lines, int group) {
    const uint32_t lane = this_thread() % 32, row = Shape::first_row() + lane / 4,
                   column = lines.column0 + Shape::first_column() + group * Shape::kGroupColumns + lane % 4 * 8;
    return {lines.origin,
            lines.width,
            row,
            column,
            Shape::slot(row, column, group),
            lines.unit0 + static_cast<uint32_t>(group * kEights),
            0};
  }

  __device__ __forceinline__ void get(int group, int eight, float (&values)[8]) const {
    const int m = eight / 2, half = eight % 2;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const Accumulator& sum = acc[group][m][n];
      values[2 * n] = sum.value[2 * half], values[2 * n + 1] = sum.value[2 * half + 1];
    }
  }

  __device__ __forceinline__ void begin(const float* bias, uint32_t n_columns) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      float values[8] = {};
      const int column = Shape::first_column() + group * Shape::kGroupColumns + this_thread() % 4 * 8;
      if (bias != nullptr && Shape::has_group(group, n_columns)) {
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
          const float4 four = *reinterpret_cast<const float4*>(bias + column + i);
          values[i] = four.x, values[i + 1] = four.y, values[i + 2] = four.z, values[i + 3] = four.w;
        }
      }
      // Sums that begin with the same value would share a register, from which the compiler moves
      // them apart in the loop over chunks, each time.
      const float zero = bias != nullptr ? opaque_zero(n_columns) : 0.0f;
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int n = 0; n < kN; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) acc[group][m][n].value[i] = values[2 * n + i % 2] + zero;
    }
  }
};
