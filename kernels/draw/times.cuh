// The time of a row. Counterpart of src/density_path/times.rs.
#pragma once
#include "../exact.cuh"
#include "abi.h"
#include "search.cuh"

// The random word of row `row` of `n`, before any quadrature.
__device__ __forceinline__ uint32_t time_word(TimeRule rule, uint32_t row, uint32_t n, uint32_t offset, uint32_t own) {
  if (rule == TimeRule::kUniform) return own;
  const uint64_t start = (static_cast<uint64_t>(row) << 32) / n;
  if (rule != TimeRule::kStratified) return offset + static_cast<uint32_t>(start);
  const uint64_t width = ((static_cast<uint64_t>(row) + 1) << 32) / n - start;
  return static_cast<uint32_t>(start + (own * width >> 32));
}

// The quadrature node that stands for position `ratio` of an interval; `ratio` itself for rules
// without nodes.
__device__ __forceinline__ double time_node(TimeRule rule, double ratio) {
  switch (rule) {
    case TimeRule::kTrapezoid: return ratio < 0.5 ? 0.0 : 1.0;
    case TimeRule::kSimpson: return ratio < 1.0 / 6.0 ? 0.0 : ratio < 1.0 / 6.0 + 2.0 / 3.0 ? 0.5 : 1.0;
    case TimeRule::kGaussLegendre:
      return ratio < 5.0 / 18.0 ? 0.1127016653792583 : ratio < 5.0 / 18.0 + 8.0 / 18.0 ? 0.5 : 0.8872983346207417;
    default: return ratio;
  }
}

struct WeighedTime {
  f64 t, weight;
};

// Counterpart of TimeDensity::draw: the time at which the cumulative density is `u`, and the weight
// 1 / density of a row there.
__device__ __forceinline__ WeighedTime draw_time(const double* density, double u) {
  constexpr double kIntervals = kTimeKnots - 1;
  const double* cumulative = density + kTimeKnots;
  const f64 scaled = u * f64(cumulative[kTimeKnots - 1]);
  const uint32_t beyond = partition_point(kTimeKnots, [&](uint32_t knot) { return cumulative[knot] <= scaled.value; });
  const uint32_t knot = min(max(beyond, 1u), kTimeKnots - 1) - 1;
  const f64 left = density[knot], right = density[knot + 1];
  const f64 rest = scaled - cumulative[knot];
  const f64 slope = (right - left) * kIntervals;
  const f64 square = left * left + 2.0 * slope * rest;
  const f64 x = 2.0 * rest / (left + __dsqrt_rn(fmax(square.value, 0.0)));
  const f64 t = f64(knot) / kIntervals + x;
  return {fmin(t.value, 1.0), 1.0 / (left + slope * x)};
}
