#pragma once
#include <cstdint>

// How many of 0..n come before the first for which `is_below` is false; it is true up to there. Rust's partition_point.
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
