// The Hamiltonian of the cost. Counterpart of Objective::hamiltonian.
#pragma once

// H(p) and dH/dp of one component, H = |p|^q / q.
__device__ __forceinline__ float2 hamiltonian(float p, float q) {
  if (q == 2.0f) return make_float2(0.5f * p * p, p);
  const float slope = powf(fabsf(p), q - 1.0f);
  return make_float2(slope * fabsf(p) / q, copysignf(slope, p));
}
