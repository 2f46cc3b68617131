// The types that activations are kept in, four neighbours at a time.
#pragma once
#include "../tile/mma.cuh"

// What only elementwise parts read (f', g, …) has 16 bits where operands have, else it is f32.
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
__device__ __forceinline__ float to_element<float>(float value) { return value; }
template <>
__device__ __forceinline__ tf32 to_element<tf32>(float value) {
  tf32 rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded.bits) : "f"(value));
  return rounded;
}
template <>
__device__ __forceinline__ __nv_bfloat16 to_element<__nv_bfloat16>(float value) { return __float2bfloat16_rn(value); }
template <>
__device__ __forceinline__ __half to_element<__half>(float value) { return __float2half_rn(value); }

__device__ __forceinline__ float from_element(float value) { return value; }
__device__ __forceinline__ float from_element(tf32 value) { return __uint_as_float(value.bits); }
__device__ __forceinline__ float from_element(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ float from_element(__half value) { return __half2float(value); }

__device__ __forceinline__ void store4(float* to, const float (&v)[4]) {
  *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
}
__device__ __forceinline__ void store4(tf32* to, const float (&v)[4]) {
  *reinterpret_cast<uint4*>(to) = make_uint4(to_element<tf32>(v[0]).bits, to_element<tf32>(v[1]).bits,
                                             to_element<tf32>(v[2]).bits, to_element<tf32>(v[3]).bits);
}
__device__ __forceinline__ void store4(__nv_bfloat16* to, const float (&v)[4]) {
  const __nv_bfloat162 low = __floats2bfloat162_rn(v[0], v[1]), high = __floats2bfloat162_rn(v[2], v[3]);
  *reinterpret_cast<uint2*>(to) =
      make_uint2(*reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high));
}
__device__ __forceinline__ void store4(__half* to, const float (&v)[4]) {
  const __half2 low = __floats2half2_rn(v[0], v[1]), high = __floats2half2_rn(v[2], v[3]);
  *reinterpret_cast<uint2*>(to) =
      make_uint2(*reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high));
}

__device__ __forceinline__ void load4(const float* from, float (&v)[4]) {
  const float4 four = *reinterpret_cast<const float4*>(from);
  v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
}
__device__ __forceinline__ void load4(const __nv_bfloat16* from, float (&v)[4]) {
  const uint2 four = *reinterpret_cast<const uint2*>(from);
  v[0] = __uint_as_float(four.x << 16), v[1] = __uint_as_float(four.x & 0xffff0000u);
  v[2] = __uint_as_float(four.y << 16), v[3] = __uint_as_float(four.y & 0xffff0000u);
}
__device__ __forceinline__ void load4(const __half* from, float (&v)[4]) {
  const uint2 four = *reinterpret_cast<const uint2*>(from);
  const float2 low = __half22float2(*reinterpret_cast<const __half2*>(&four.x));
  const float2 high = __half22float2(*reinterpret_cast<const __half2*>(&four.y));
  v[0] = low.x, v[1] = low.y, v[2] = high.x, v[3] = high.y;
}
