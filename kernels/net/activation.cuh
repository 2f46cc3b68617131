// f, f', f'', f''' of each activation at z. Counterpart of src/engine/cpu/activation.rs.
// GELU is the exact one (erf), softplus has beta = 1, sine is sin z.
#pragma once
#include <cuda_bf16.h>

#include "abi.h"

struct Orders {
  float f, f1, f2, f3;
};

// sigma(z), and 1 - sigma(z) without cancellation.
template <class T>
struct Logistic {
  static __device__ __forceinline__ float2 at(float z) {
    const float e = __expf(-fabsf(z));
    const float large = __fdividef(1.0f, 1.0f + e), small = e * large;
    return z >= 0.0f ? make_float2(large, small) : make_float2(small, large);
  }
};
// One special function instead of two, accurate to 2^-12, which is finer than bf16 rounding.
template <>
struct Logistic<__nv_bfloat16> {
  static __device__ __forceinline__ float2 at(float z) {
    float t;
    asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(0.5f * z));
    return make_float2(fmaf(0.5f, t, 0.5f), fmaf(-0.5f, t, 0.5f));
  }
};

// sin z and cos z for every finite z. The library functions have a slow path for large z with a
// table in local memory.
__device__ __forceinline__ float2 sine_and_cosine(float z) {
  // Reduces z to quarter turns and a remainder. pi/2 is split into three terms; the first two have
  // few digits, so that their products with the number of turns are exact.
  float turns = rintf(z * 0.63661977f);
  float r = fmaf(turns, -1.5703125f, z);
  r = fmaf(turns, -4.837513e-4f, r);
  r = fmaf(turns, -7.54979e-8f, r);
  long long quarter = static_cast<long long>(turns);
  if (fabsf(z) > 8192.0f) {
    const double wide = rint(static_cast<double>(z) * 0.63661977236758134);
    r = static_cast<float>(fma(wide, -1.5707963267948966, static_cast<double>(z)));
    quarter = static_cast<long long>(wide);
  }
  const float square = r * r;
  const float s = fmaf(fmaf(fmaf(-0.0001948884f, square, 0.008331925f), square, -0.1666665f) * square, r, r);
  const float c =
      fmaf(fmaf(fmaf(fmaf(2.4431341e-5f, square, -0.0013887307f), square, 0.041666646f), square, -0.5f), square, 1.0f);
  const bool odd = quarter & 1;
  const float sine = odd ? c : s, cosine = odd ? s : c;
  return make_float2(quarter & 2 ? -sine : sine, (quarter + 1) & 2 ? -cosine : cosine);
}

template <class T, Activation kActivation>
__device__ __forceinline__ Orders activation(float z) {
  if constexpr (kActivation == Activation::kSilu) {
    const float2 s = Logistic<T>::at(z);
    const float d1 = s.x * s.y;         // sigma'
    const float d2 = d1 * (s.y - s.x);  // sigma''
    const float d3 = d1 * (1.0f - 6.0f * d1);
    return {z * s.x, fmaf(z, d1, s.x), fmaf(z, d2, 2.0f * d1), fmaf(z, d3, 3.0f * d2)};
  } else if constexpr (kActivation == Activation::kTanh) {
    const float t = tanhf(z), d1 = fmaf(-t, t, 1.0f);
    return {t, d1, -2.0f * t * d1, d1 * (6.0f * t * t - 2.0f)};
  } else if constexpr (kActivation == Activation::kSoftplus) {
    const float2 s = Logistic<T>::at(z);
    const float d1 = s.x * s.y;
    return {fmaxf(z, 0.0f) + log1pf(__expf(-fabsf(z))), s.x, d1, d1 * (s.y - s.x)};
  } else if constexpr (kActivation == Activation::kGelu) {
    const float cdf = 0.5f * erfcf(-0.70710678118654752f * z);
    const float pdf = 0.39894228040143268f * __expf(-0.5f * z * z);
    return {z * cdf, fmaf(z, pdf, cdf), pdf * (2.0f - z * z), pdf * z * (z * z - 4.0f)};
  } else {
    const float2 s = sine_and_cosine(z);
    return {s.x, s.y, -s.x, -s.y};
  }
}
