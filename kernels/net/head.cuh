// The head, one component at a time: the potential s from the output o, the seed ds/do of the
// reverse sweep, and the adjoint seeds of the generator J.
#pragma once
#include "abi.h"

__device__ __forceinline__ float output_seed(Head head, float x, float o) {
  return head == Head::kScalar ? 1.0f : head == Head::kQuadratic ? o - x : x;
}

// Contribution of one output to s.
__device__ __forceinline__ float potential_term(Head head, float x, float o) {
  return head == Head::kScalar ? o : head == Head::kQuadratic ? 0.5f * (x - o) * (x - o) : o * x;
}

// Contribution of the head itself to ds/dx.
__device__ __forceinline__ float direct_gradient(Head head, float x, float o) {
  return head == Head::kScalar ? 0.0f : head == Head::kQuadratic ? x - o : o;
}

// Contribution of one output to the generator along the drift, from the tangent c at the input and
// o_c at the output, both scaled.
__device__ __forceinline__ float generator_term(Head head, float x, float o, float c, float o_c) {
  return head == Head::kScalar ? o_c : head == Head::kQuadratic ? (x - o) * (c - o_c) : o_c * x + o * c;
}

// Contribution of the head itself to the curvature along a probe, from the probe and its tangent
// o_e.
__device__ __forceinline__ float probe_term(Head head, float probe, float o_e) {
  return head == Head::kScalar ? 0.0f : head == Head::kQuadratic ? (probe - o_e) * (probe - o_e) : 2.0f * probe * o_e;
}

// dJ/do along the drift, scaled as c and o_c are.
__device__ __forceinline__ float generator_seed(Head head, float c, float o_c) {
  return head == Head::kScalar ? 0.0f : head == Head::kQuadratic ? o_c - c : c;
}

// dJ/do_e of a probe of weight k.
__device__ __forceinline__ float probe_seed(Head head, float k, float probe, float o_e) {
  return head == Head::kScalar ? 0.0f : head == Head::kQuadratic ? -2.0f * k * (probe - o_e) : 2.0f * k * probe;
}

// dJ/dx by the head itself, scaled as c and o_c are.
__device__ __forceinline__ float generator_slope(Head head, float c, float o_c) {
  return head == Head::kScalar ? 0.0f : head == Head::kQuadratic ? c - o_c : o_c;
}
