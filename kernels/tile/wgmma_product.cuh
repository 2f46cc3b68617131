// One block's tile of a matrix product C = A B^T on the tensor cores of sm_90a: kTileRows rows of A
// times up to kColumns rows of B. Two warpgroups of 64 rows each keep A in registers: the sums of a
// product become, in place, the A of the next one. B comes through the weight pipe. The warpgroups
// take turns, so that one multiplies while the other does its elementwise part.
//
// A thread has rows lane / 4 and lane / 4 + 8 of its warp's 16. In the hardware's order it has the
// columns 8 j + 2 (lane % 4) and the next one of each tile j of eight; as the lines and the inner
// dimension of B are permuted (packed.cuh), those of four tiles are eight consecutive ones of a
// group of 32, as elementwise code wants them.
#pragma once
#include "sums.cuh"
#include "weight_pipe.cuh"

// The warpgroups' turns to multiply: one begins when the other warpgroup has issued its products.
__device__ __forceinline__ uint32_t turn_of(uint32_t warpgroup) { return kTurnBarrier + warpgroup; }
__device__ __forceinline__ uint32_t this_warpgroup() { return this_thread() / kWarpgroup; }
__device__ __forceinline__ void take_turn() {
  asm volatile("bar.sync %0, %1;" ::"r"(turn_of(this_warpgroup())), "n"(kThreads) : "memory");
}
__device__ __forceinline__ void pass_turn() {
  asm volatile("bar.arrive %0, %1;" ::"r"(turn_of(this_warpgroup() ^ 1)), "n"(kThreads) : "memory");
}
// The first turn is that of warpgroup 0, and the other one's last passes to it.
__device__ __forceinline__ void begin_turns() {
  if (this_warpgroup() == 1) pass_turn();
}
__device__ __forceinline__ void end_turns() {
  if (this_warpgroup() == 0) take_turn();
}

// A in registers: of each 16 elements of the inner dimension, in order, the two rows' first eight
// and then their second eight.
constexpr uint32_t kFragment = 4;  // registers of 16 elements
constexpr uint32_t kOperandRegisters = kBroadColumns / 16 * kFragment;

// What a product needs besides its sums.
struct WgmmaMemory {
  uint32_t (&a)[kOperandRegisters];
  WeightPipe& pipe;

  // True if registers hold an A of so many bytes a row.
  __device__ __forceinline__ bool has_room(size_t bytes) const { return bytes <= kBroadColumns * 2; }

  // Makes eight sums elements of the next A.
  template <class T>
  __device__ __forceinline__ void store_operand(const ElementIndex& element, const Packed8<T>& eight) const {
    const uint4 words = eight.pieces[0];
    a[element.slot] = words.x, a[element.slot + 2] = words.y;
    a[element.slot + 4] = words.z, a[element.slot + 6] = words.w;
  }
};

template <int kColumnsAtOnce>
struct WgmmaShape {
  static constexpr int kM = 1, kN = 4, kGroupColumns = 8 * kN, kGroups = kColumnsAtOnce / kGroupColumns;
  static constexpr int kWordsAhead = 8;

  static __device__ __forceinline__ int first_row() { return static_cast<int>(16 * (this_thread() / 32)); }
  static __device__ __forceinline__ int first_column() { return 0; }
  static __device__ __forceinline__ bool has_group(int group, uint32_t n_columns) {
    return group * kGroupColumns < static_cast<int>(n_columns);
  }
  // The register of an element's eight in the next A: see store_operand.
  static constexpr uint32_t kSlotsOfEight = 1;
  static __device__ __forceinline__ uint32_t slot(uint32_t, uint32_t, int group) { return 2 * kFragment * group; }
};

template <class T, int kColumnsAtOnce>
struct WgmmaProduct : Sums<WgmmaShape<kColumnsAtOnce>> {
  using Base = Sums<WgmmaShape<kColumnsAtOnce>>;
  using Base::acc, Base::begin;
  using Base::kGroups, Base::kN;
  static constexpr int kColumns = kColumnsAtOnce;
  static constexpr int kChunk = kWgmmaDepth;  // elements of the inner dimension in a stage

  // Forms the product. `a` points at the first line of the tile; lines have `depth` elements:
  // kChunk, or a multiple of two. There are kWgmmaColumns columns, or kColumns; no more than
  // kColumns, which are all formed, if those are fewer. `operand_in`: where A lies before this
  // column tile; if in global memory, and it has room in registers, it lies there after it. Sums
  // start at `bias`, if there is one. What the pipe brings are the weights.
  __device__ __forceinline__ void run(const T* a, const T*, const float* bias, uint32_t depth, uint32_t,
                                      uint32_t n_columns, OperandIn operand_in, const WgmmaMemory& memory) {
    begin(bias, n_columns);
    const bool stays = memory.has_room(depth * sizeof(T));
    if (!stays || operand_in == OperandIn::kGlobal) __syncwarp();  // other lanes have written the operand
#pragma unroll 1
    for (uint32_t k = 0; k < depth; k += kBroadColumns) {
      const uint32_t n_chunks = min(depth - k, static_cast<uint32_t>(kBroadColumns)) / kChunk;
      if (!stays || operand_in == OperandIn::kGlobal) load(a + k, depth, n_chunks, memory.a);
      take_turn();
      // Products in flight may not meet a branch, or the compiler waits for each of them: each
      // shape has code of its own.
      if (kColumns < kBroadColumns || n_columns == kColumns) {
        add_chunks<kColumns>(n_chunks, memory);
      } else {
        add_chunks<kWgmmaColumns>(n_chunks, memory);
      }
    }
  }

 private:
  static constexpr uint32_t kOfChunk = kWgmmaDepth / 16 * kFragment;  // registers of A in a chunk
  static_assert(kBroadColumns / kWgmmaDepth <= kWgmmaStages, "a turn has a stage a chunk");

  // Loads the first n_chunks chunks of A: eight consecutive elements of each row are this thread's
  // words of two fragments. The other registers are cleared: else the A before would stay in them
  // until here.
  static __device__ __forceinline__ void load(const T* a, uint32_t depth, uint32_t n_chunks,
                                              uint32_t (&to)[kOperandRegisters]) {
    const uint32_t lane = this_thread() % 32, row = WgmmaShape<kColumns>::first_row() + lane / 4;
    const T* own = a + row * depth + lane % 4 * 8;
#pragma unroll
    for (uint32_t i = 0; i < kBroadColumns / 32; ++i)
#pragma unroll
      for (uint32_t half = 0; half < 2; ++half) {
        uint4 words = make_uint4(0, 0, 0, 0);
        if (i < n_chunks * (kWgmmaDepth / 32)) words = *reinterpret_cast<const uint4*>(own + 8 * half * depth + 32 * i);
        const uint32_t slot = 2 * kFragment * i + half;
        to[slot] = words.x, to[slot + 2] = words.y, to[slot + 4] = words.z, to[slot + 6] = words.w;
      }
  }

  // Adds the products of the first kChunks chunks of A and the pipe's next stages, for the first
  // kCount columns of the result. Releases the stages, and passes the turn when all products are in
  // flight. Sums and A are free to use behind it.
  template <int kChunks, int kCount>
  __device__ __forceinline__ void add(const WgmmaMemory& memory) {
    WeightPipe& pipe = memory.pipe;
#pragma unroll
    for (uint32_t i = 0; i < kChunks; ++i) {
      pipe.wait_full();
      fence_products();
      const uint64_t b = descriptor(pipe.stage());
#pragma unroll
      for (uint32_t k = 0; k < kWgmmaDepth / 16; ++k) {
        const uint32_t first = i * kOfChunk + k * kFragment;
        const uint32_t fragment[kFragment] = {memory.a[first], memory.a[first + 1], memory.a[first + 2],
                                              memory.a[first + 3]};
        Wgmma<T, kCount>::add(acc, fragment, b + 2 * k);
      }
      commit_products();
      if (i > 0) {
        wait_products<1>();
        pipe.release_last();
      }
      ++pipe.count;
    }
    pass_turn();
    wait_products<0>();
    pipe.release_last();
    keep(memory.a);
  }

  template <int kCount>
  __device__ __forceinline__ void add_chunks(uint32_t n_chunks, const WgmmaMemory& memory) {
    if (n_chunks == 4) return add<4, kCount>(memory);
    if (n_chunks == 2) return add<2, kCount>(memory);
    add<1, kCount>(memory);
  }

  // Keeps reads of the sums, and writes of A, behind the wait.
  __device__ __forceinline__ void keep(uint32_t (&a)[kOperandRegisters]) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group)
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(acc[group][0][n].value[i])::"memory");
#pragma unroll
    for (uint32_t i = 0; i < kOperandRegisters; ++i) asm volatile("" : "+r"(a[i])::"memory");
  }
};
