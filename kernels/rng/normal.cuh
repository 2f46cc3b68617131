// Standard normal numbers (Box-Muller): twin of rng::normals.
#pragma once
#include "philox.cuh"

// Four independent ones from the words of one counter.
__device__ __forceinline__ float4 normals(uint4 words) {
  float4 n;
  sincospif(2.0f * unit_f32(words.y), &n.y, &n.x);
  sincospif(2.0f * unit_f32(words.w), &n.w, &n.z);
  const float first = sqrtf(-2.0f * logf(unit_f32(words.x))), second = sqrtf(-2.0f * logf(unit_f32(words.z)));
  return make_float4(first * n.x, first * n.y, second * n.z, second * n.w);
}
