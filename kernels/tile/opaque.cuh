// Hides a value from the optimizer, so that expressions of it are recomputed at each use instead of
// being hoisted and kept live in registers across the matrix products.
#pragma once
#include <cstddef>
#include <cstdint>

__device__ __forceinline__ uint32_t opaque(uint32_t value) {
  asm volatile("" : "+r"(value));
  return value;
}
__device__ __forceinline__ size_t opaque(size_t value) {
  asm volatile("" : "+l"(value));
  return value;
}
__device__ __forceinline__ uint32_t this_thread() { return opaque(threadIdx.x); }

// A zero that the compiler does not know to be one. `small` is less than 2^31.
__device__ __forceinline__ float opaque_zero(uint32_t small) { return __uint_as_float(opaque(small) >> 31); }
