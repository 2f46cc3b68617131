// Instructions of sm_90a: products of a warpgroup whose left operand lies in registers, barriers in
// shared memory that count bytes, bulk copies, and registers that move between warps. Sections of
// the PTX ISA: "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions", "mbarrier",
// "Data Movement and Conversion Instructions: Bulk copy", "setmaxnreg".
#pragma once
#include "abi.h"
#include "element.cuh"

// Adds the product of 64 rows x 16 elements of A and 16 elements x kColumns lines of B to the sums
// of the warpgroup: those of groups of 32 columns from `sum` on. `a`: the fragment of this thread,
// rows lane / 4 and lane / 4 + 8 of its warp's 16. `b`: the descriptor of B's first line.
template <class T, int kColumns>
struct Wgmma;

#define AMATCH_TILE(g, n) \
  "+f"(sum[g][0][n].value[0]), "+f"(sum[g][0][n].value[1]), "+f"(sum[g][0][n].value[2]), "+f"(sum[g][0][n].value[3])
#define AMATCH_GROUP(g) AMATCH_TILE(g, 0), AMATCH_TILE(g, 1), AMATCH_TILE(g, 2), AMATCH_TILE(g, 3)
#define AMATCH_SUMS_64 AMATCH_GROUP(0), AMATCH_GROUP(1)
#define AMATCH_SUMS_128 AMATCH_SUMS_64, AMATCH_GROUP(2), AMATCH_GROUP(3)
#define AMATCH_SUMS_256 AMATCH_SUMS_128, AMATCH_GROUP(4), AMATCH_GROUP(5), AMATCH_GROUP(6), AMATCH_GROUP(7)
#define AMATCH_NAMES_64                                                            \
  "{"                                                                              \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "         \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31" \
  "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}\n"
#define AMATCH_NAMES_128                                                             \
  "{"                                                                                \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"   \
  "}, {%64, %65, %66, %67}, %68, p, 1, 1, 0;\n}\n"
#define AMATCH_NAMES_256                                                                           \
  "{"                                                                                              \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                         \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "               \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "               \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "               \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "               \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "               \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "   \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127" \
  "}, {%128, %129, %130, %131}, %132, p, 1, 1, 0;\n}\n"
#define AMATCH_WGMMA(TYPE, N, NAME)                                                                                  \
  template <>                                                                                                        \
  struct Wgmma<TYPE, N> {                                                                                            \
    static __device__ __forceinline__ void add(Accumulator (*sum)[1][4], const uint32_t (&a)[4], uint64_t b) {       \
      asm volatile("{\n .reg .pred p;\n setp.eq.b32 p, 0, 0;\n wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME \
                   "." NAME " " AMATCH_NAMES_##N                                                                     \
                   : AMATCH_SUMS_##N                                                                                 \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                            \
    }                                                                                                                \
  };
AMATCH_WGMMA(__nv_bfloat16, 64, "bf16")
AMATCH_WGMMA(__nv_bfloat16, 128, "bf16")
AMATCH_WGMMA(__nv_bfloat16, 256, "bf16")
AMATCH_WGMMA(__half, 64, "f16")
AMATCH_WGMMA(__half, 128, "f16")
AMATCH_WGMMA(__half, 256, "f16")
#undef AMATCH_WGMMA
#undef AMATCH_NAMES_256
#undef AMATCH_NAMES_128
#undef AMATCH_NAMES_64
#undef AMATCH_SUMS_256
#undef AMATCH_SUMS_128
#undef AMATCH_SUMS_64
#undef AMATCH_GROUP
#undef AMATCH_TILE

// The descriptor of lines of B in shared memory from `address` on, each of 128 bytes of the inner
// dimension, in the 128-byte swizzle: atoms of eight lines, 1024 bytes apart. The next 16 elements
// are two further: 32 bytes.
__device__ __forceinline__ uint64_t descriptor(uint32_t address) {
  constexpr uint64_t kSwizzle128 = 1ull << 62, kAtomPitch = 1024ull >> 4 << 32, kUnusedPitch = 1ull << 16;
  return kSwizzle128 | kAtomPitch | kUnusedPitch | address >> 4;
}

// Orders accesses of registers before it with products after it.
__device__ __forceinline__ void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

__device__ __forceinline__ void init_barrier(uint32_t barrier, uint32_t n_arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(n_arrivals) : "memory");
}
// Makes initialized barriers known to bulk copies.
__device__ __forceinline__ void fence_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void arrive_and_expect(uint32_t barrier, uint32_t n_bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(n_bytes) : "memory");
}
// Waits until the phase of this parity is over. There is no way out of the loop, such as a trap
// after many turns: with one, ptxas gives up the registers that setmaxnreg grants.
__device__ __forceinline__ void wait_for(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile(
        "{\n .reg .pred p;\n mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;\n}\n"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (done == 0);
}

// Copies bytes to shared memory; `barrier` counts them as they land.
__device__ __forceinline__ void copy_bulk(uint32_t shared, const void* global, uint32_t n_bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared),
               "l"(__cvta_generic_to_global(global)), "r"(n_bytes), "r"(barrier)
               : "memory");
}

template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
