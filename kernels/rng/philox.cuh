// Philox4x32-10 (Salmon et al., SC 2011): the same stream as src/rng.rs, bit for bit.
// Key = seed, counter = (row, purpose, step).
#pragma once
#include "abi.h"

// Ten-round bijection of `counter` under `key`.
__device__ __forceinline__ uint4 philox4x32(uint2 key, uint4 counter) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(kMultiplier0, counter.x), low0 = kMultiplier0 * counter.x;
    const uint32_t high1 = __umulhi(kMultiplier1, counter.z), low1 = kMultiplier1 * counter.z;
    counter = make_uint4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
    key.x += kWeyl0;
    key.y += kWeyl1;
  }
  return counter;
}

// The four random words of (seed, purpose, step, row).
__device__ __forceinline__ uint4 random_words(uint64_t seed, Purpose purpose, uint64_t step, uint32_t row) {
  const uint2 key = make_uint2(static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  return philox4x32(key, make_uint4(row, static_cast<uint32_t>(purpose), static_cast<uint32_t>(step),
                                    static_cast<uint32_t>(step >> 32)));
}

// Uniform in the open interval (0, 1), 23 bits: exact.
__device__ __forceinline__ float unit_f32(uint32_t word) {
  return (static_cast<float>(word >> 9) + 0.5f) * (1.0f / 8388608.0f);
}

// Uniform index in 0..n.
__device__ __forceinline__ uint32_t random_index(uint32_t word, uint32_t n) { return __umulhi(word, n); }
