// Conversions between f32 and the types of operands.
#pragma once
#include "../tile/mma.cuh"

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
