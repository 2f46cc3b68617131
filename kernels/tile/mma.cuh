// Fragments and matrix products of one warp: the only arithmetic PTX.
//
// All operand types share one byte layout: a product takes 16 rows x 32 bytes of A, 8 rows x 32
// bytes of B (B stored by output column), each as 8 x 16-byte matrices, and adds to a 16 x 8 tile
// of f32.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

// tf32 travels as f32 bits, already rounded.
struct tf32 {
  uint32_t bits;
};

// Lane -> element: row = lane / 4 (+ 8), column = 2 (lane % 4) (+ 1).
struct __align__(16) Accumulator {
  float value[4];
};

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Four 8 x 16-byte matrices; lane i gives the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ void load_matrices(uint32_t (&fragment)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(address));
}

// The same, each matrix of 16-bit elements transposed.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&fragment)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(address));
}

template <class T>
__device__ __forceinline__ void multiply_add(Accumulator& d, const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

#define AMATCH_MMA(TYPE, INSTRUCTION)                                                                      \
  template <>                                                                                              \
  __device__ __forceinline__ void multiply_add<TYPE>(Accumulator & d, const uint32_t (&a)[4], uint32_t b0, \
                                                     uint32_t b1) {                                        \
    asm volatile(INSTRUCTION " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"            \
                 : "+f"(d.value[0]), "+f"(d.value[1]), "+f"(d.value[2]), "+f"(d.value[3])                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                          \
  }
AMATCH_MMA(__nv_bfloat16, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")
AMATCH_MMA(__half, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32")
AMATCH_MMA(tf32, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32")
#undef AMATCH_MMA

// Copies 16 bytes from global to shared memory asynchronously (cp.async).
__device__ __forceinline__ void copy_async16(uint32_t shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(__cvta_generic_to_global(global)));
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;"); }
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending));
}

// Prefetches the line of `global` into L2.
__device__ __forceinline__ void prefetch(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(global)));
}
