// Types that activations are stored in, and access to eight consecutive elements at a time.
#pragma once
#include "mma.cuh"

// Type of values that only elementwise code reads (f', g, …): T if T has 16 bits, else f32.
template <class T>
struct StateOf {
  using type = T;
};
template <>
struct StateOf<tf32> {
  using type = float;
};
template <class T>
using State = typename StateOf<T>::type;

template <class T>
__device__ __forceinline__ T to_element(float value);
template <>
__device__ __forceinline__ float to_element<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ tf32 to_element<tf32>(float value) {
  tf32 rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded.bits) : "f"(value));
  return rounded;
}
template <>
__device__ __forceinline__ __nv_bfloat16 to_element<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ __forceinline__ __half to_element<__half>(float value) {
  return __float2half_rn(value);
}

__device__ __forceinline__ float from_element(float value) { return value; }
__device__ __forceinline__ float from_element(tf32 value) { return __uint_as_float(value.bits); }
__device__ __forceinline__ float from_element(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ float from_element(__half value) { return __half2float(value); }

// Eight consecutive elements as they lie in memory. Loads ahead of use are kept packed to save
// registers.
template <class E>
struct Packed8 {
  uint4 pieces[sizeof(E) / 2];
};

template <class E>
__device__ __forceinline__ Packed8<E> load8(const E* from) {
  Packed8<E> eight;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(E)) / 2; ++i) eight.pieces[i] = reinterpret_cast<const uint4*>(from)[i];
  return eight;
}
template <class E>
__device__ __forceinline__ void store8(E* to, const Packed8<E>& eight) {
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(E)) / 2; ++i) reinterpret_cast<uint4*>(to)[i] = eight.pieces[i];
}

template <class E>
__device__ __forceinline__ Packed8<E> pack8(const float (&v)[8]) {
  Packed8<E> eight;
#pragma unroll
  for (int i = 0; i < 8; i += 4) {
    const auto bits = [&](int k) {
      const E element = to_element<E>(v[i + k]);
      return *reinterpret_cast<const uint32_t*>(&element);
    };
    eight.pieces[i / 4] = make_uint4(bits(0), bits(1), bits(2), bits(3));
  }
  return eight;
}
template <class Pair, class ToPair>
__device__ __forceinline__ uint4 pack_pairs(const float (&v)[8], ToPair to_pair) {
  const Pair pairs[4] = {to_pair(v[0], v[1]), to_pair(v[2], v[3]), to_pair(v[4], v[5]), to_pair(v[6], v[7])};
  const auto bits = [&](int i) { return *reinterpret_cast<const uint32_t*>(&pairs[i]); };
  return make_uint4(bits(0), bits(1), bits(2), bits(3));
}
template <>
__device__ __forceinline__ Packed8<__nv_bfloat16> pack8(const float (&v)[8]) {
  return {{pack_pairs<__nv_bfloat162>(v, [](float low, float high) { return __floats2bfloat162_rn(low, high); })}};
}
template <>
__device__ __forceinline__ Packed8<__half> pack8(const float (&v)[8]) {
  return {{pack_pairs<__half2>(v, [](float low, float high) { return __floats2half2_rn(low, high); })}};
}

__device__ __forceinline__ float2 unpack_pair(uint32_t bits, __nv_bfloat16) {
  return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u));
}
__device__ __forceinline__ float2 unpack_pair(uint32_t bits, __half) {
  return __half22float2(*reinterpret_cast<const __half2*>(&bits));
}
template <class E>
__device__ __forceinline__ void unpack8(const Packed8<E>& eight, float (&v)[8]) {
  const uint4 four = eight.pieces[0];
  const uint32_t words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = unpack_pair(words[i], E{});
    v[2 * i] = pair.x, v[2 * i + 1] = pair.y;
  }
}
template <>
__device__ __forceinline__ void unpack8(const Packed8<float>& eight, float (&v)[8]) {
#pragma unroll
  for (int i = 0; i < 8; i += 4) {
    const uint4 four = eight.pieces[i / 4];
    v[i] = __uint_as_float(four.x), v[i + 1] = __uint_as_float(four.y);
    v[i + 2] = __uint_as_float(four.z), v[i + 3] = __uint_as_float(four.w);
  }
}
