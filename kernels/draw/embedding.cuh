// Time features. Counterpart of model::TimeEmbedding.
#pragma once
#include <cstdint>

struct TimeFeature {
  float phi, d_phi;
};

// Feature i of n at time t: t itself, then sin(2 pi f t) for each frequency f, then cos(2 pi f t).
__device__ __forceinline__ TimeFeature time_feature(const double* frequencies, uint32_t n_features, uint32_t i,
                                                    double t) {
  if (i == 0) return {static_cast<float>(t), 1.0f};
  const uint32_t m = n_features / 2;
  const bool is_sine = i <= m;
  const double f = frequencies[is_sine ? i - 1 : i - 1 - m];
  const double angular = 6.283185307179586 * f;
  double sine, cosine;
  // In half turns rather than radians: argument reduction is exact and needs no local memory.
  sincospi(2.0 * f * t, &sine, &cosine);
  const double phi = is_sine ? sine : cosine, d_phi = angular * (is_sine ? cosine : -sine);
  return {static_cast<float>(phi), static_cast<float>(d_phi)};
}
