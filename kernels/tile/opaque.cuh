// Values of which the compiler knows nothing. What is made of one is worked out where it is used, not once and then kept in registers over the
// products of a kernel, which need all of them.
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
