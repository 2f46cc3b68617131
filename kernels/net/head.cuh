// The head: the output o as potential s, the seed ds/do of the reverse sweep, and the adjoint seed of the generator J.
#pragma once

enum class Head { kScalar, kQuadratic, kDot };

template <Head kHead>
__device__ __forceinline__ float output_seed(float x, float o) {
  return kHead == Head::kScalar ? 1.0f : kHead == Head::kQuadratic ? o - x : x;
}

// The share of one output in s.
template <Head kHead>
__device__ __forceinline__ float potential_term(float x, float o) {
  return kHead == Head::kScalar ? o : kHead == Head::kQuadratic ? 0.5f * (x - o) * (x - o) : o * x;
}

// What the head itself adds to ds/dx.
template <Head kHead>
__device__ __forceinline__ float direct_gradient(float x, float o) {
  return kHead == Head::kScalar ? 0.0f : kHead == Head::kQuadratic ? x - o : o;
}

// dJ/do, from the tangent c at the input and o_c at the output, both scaled by the row's weight.
template <Head kHead>
__device__ __forceinline__ float generator_seed(float c, float o_c) {
  return kHead == Head::kScalar ? 0.0f : kHead == Head::kQuadratic ? o_c - c : c;
}
