// f, f', f'', f''' of each activation at z, side by side: twins of src/engine/cpu/activation.rs.
// GELU is the exact one (erf), softplus has beta = 1, sine is sin z.
#pragma once

struct Orders {
  float f, f1, f2, f3;
};

enum class Activation { kSilu, kTanh, kSoftplus, kGelu, kSin };

// sigma(z), and 1 - sigma(z) without cancellation.
__device__ __forceinline__ float2 sigmoid(float z) {
  const float e = __expf(-fabsf(z));
  const float large = 1.0f / (1.0f + e), small = e * large;
  return z >= 0.0f ? make_float2(large, small) : make_float2(small, large);
}

template <Activation kActivation>
__device__ __forceinline__ Orders activation(float z);

template <>
__device__ __forceinline__ Orders activation<Activation::kSilu>(float z) {
  const float2 s = sigmoid(z);
  const float d1 = s.x * s.y;             // sigma'
  const float d2 = d1 * (s.y - s.x);      // sigma''
  const float d3 = d1 * (1.0f - 6.0f * d1);
  return {z * s.x, fmaf(z, d1, s.x), fmaf(z, d2, 2.0f * d1), fmaf(z, d3, 3.0f * d2)};
}

template <>
__device__ __forceinline__ Orders activation<Activation::kTanh>(float z) {
  const float t = tanhf(z), d1 = fmaf(-t, t, 1.0f);
  return {t, d1, -2.0f * t * d1, d1 * (6.0f * t * t - 2.0f)};
}

template <>
__device__ __forceinline__ Orders activation<Activation::kSoftplus>(float z) {
  const float2 s = sigmoid(z);
  const float d1 = s.x * s.y;
  return {fmaxf(z, 0.0f) + log1pf(__expf(-fabsf(z))), s.x, d1, d1 * (s.y - s.x)};
}

template <>
__device__ __forceinline__ Orders activation<Activation::kGelu>(float z) {
  const float cdf = 0.5f * erfcf(-0.70710678118654752f * z);
  const float pdf = 0.39894228040143268f * __expf(-0.5f * z * z);
  return {z * cdf, fmaf(z, pdf, cdf), pdf * (2.0f - z * z), pdf * z * (z * z - 4.0f)};
}

template <>
__device__ __forceinline__ Orders activation<Activation::kSin>(float z) {
  float sine, cosine;
  sincosf(z, &sine, &cosine);
  return {sine, cosine, -sine, -cosine};
}
