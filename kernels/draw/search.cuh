#pragma once
#include <cstdint>

// Rust's partition_point: the first index in 0..n for which `is_below` is false, or n. `is_below`
// must be true for all smaller indices.
template <class IsBelow>
__device__ __forceinline__ uint32_t partition_point(uint32_t n, IsBelow is_below) {
  uint32_t start = 0;
  while (n > 0) {
    const uint32_t half = n / 2;
    if (is_below(start + half)) {
      start += half + 1;
      n -= half + 1;
    } else {
      n = half;
    }
  }
  return start;
}
