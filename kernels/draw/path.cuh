// How x moves between snapshots. Counterpart of src/density_path/mod.rs, coupling.rs and
// generative.rs. Indices, times, masses and straight lines equal the host's bit for bit, but for
// progress along a turn, which contains an arctangent.
#pragma once
#include "../exact.cuh"
#include "../rng/normal.cuh"
#include "abi.h"
#include "search.cuh"
#include "times.cuh"

// A time between two snapshots.
struct Moment {
  uint32_t left;
  f64 ratio;
  float t;
};

// The samples that a batch row moves between, as indices into their snapshots.
struct Trajectory {
  uint32_t left, from, to, before, after;
  f64 start_mass, end_mass;
  const float* turn;  // angle, cosine and sine, or null: the library's Turn
};

enum class CurveKind : uint32_t { kOrigin, kRow, kLine, kSpline, kNoise };

// Everything needed to form the coordinates of a point of a trajectory at a moment.
struct Curve {
  CurveKind kind;
  bool has_before, has_after;
  const float *before, *from, *to, *after;  // kRow uses only `from`, kNoise only `to`
  float ratio, per_time;
  float length_before, length, length_after;
  float noise, data, noise_slope, data_slope;
  uint32_t noise_row;
};

struct Path {
  const PathParams& params;
  uint32_t dim;

  __device__ __forceinline__ bool is_generative() const { return params.interpolant >= Interpolant::kGenerativeLinear; }
  __device__ __forceinline__ uint32_t n_intervals() const { return params.n_times - 1; }
  __device__ __forceinline__ f64 time(uint32_t k) const { return params.times[k]; }
  __device__ __forceinline__ f64 length(uint32_t left) const { return time(left + 1) - time(left); }
  __device__ __forceinline__ f64 snapshot_mass(uint32_t k) const {
    return params.masses == nullptr ? 1.0 : params.masses[k];
  }
  __device__ __forceinline__ uint32_t n_rows(uint32_t k) const {
    return static_cast<uint32_t>(params.offsets[k + 1] - params.offsets[k]);
  }
  __device__ __forceinline__ const float* row(uint32_t snapshot, uint32_t index) const {
    return params.samples + (params.offsets[snapshot] + index) * dim;
  }

  __device__ __forceinline__ Moment at(uint32_t left, f64 ratio) const {
    return {left, ratio, to_f32(time(left) + ratio * length(left))};
  }

  // The moment that `rule` visits if `t` in 0..=1 is drawn.
  __device__ __forceinline__ Moment moment(TimeRule rule, f64 t) const {
    const double* times = params.times;
    const uint32_t beyond = partition_point(params.n_times, [&](uint32_t k) { return times[k] <= t.value; });
    const uint32_t left = min(max(beyond, 1u), params.n_times - 1) - 1;
    const f64 drawn = (t - time(left)) / length(left);
    const double ratio = time_node(rule, drawn.value);
    // A rule without nodes keeps t bit for bit.
    return ratio == drawn.value ? Moment{left, ratio, to_f32(t)} : at(left, ratio);
  }

  // Counterpart of Links::partner.
  static __device__ __forceinline__ uint32_t partner(const LinkParams& links, uint32_t row, uint32_t word) {
    const uint32_t start = links.starts[row], n = links.starts[row + 1] - start;
    const uint32_t chosen = partition_point(n, [&](uint32_t link) { return links.cumulative[start + link] <= word; });
    const uint32_t link = start + min(chosen, max(n, 1u) - 1);
    return link < links.n_partners ? links.partners[link] : 0;
  }

  // Chooses a trajectory through the interval after snapshot `left` by words 1, 2 and 3.
  __device__ __forceinline__ Trajectory trajectory(uint32_t left, uint4 words) const {
    if (is_generative()) {
      const uint32_t to = random_index(words.y, n_rows(0));
      return {left, to, to, to, to, 1.0, 1.0, nullptr};
    }
    const f64 start_mass = snapshot_mass(left), end_mass = snapshot_mass(left + 1);
    if (params.couplings == nullptr) {
      const uint32_t from = random_index(words.y, n_rows(left));
      // Snapshots with equally many rows may follow the same particles: one word then chooses the
      // same particle in both.
      const uint32_t word = params.interpolant == Interpolant::kNearest ? words.y : words.z;
      const uint32_t to = random_index(word, n_rows(left + 1));
      return {left, from, to, from, to, start_mass, end_mass, nullptr};
    }
    const CouplingParams& coupling = params.couplings[left];
    const uint32_t chosen =
        partition_point(coupling.n_pairs, [&](uint32_t pair) { return coupling.cumulative[pair] <= words.y; });
    const uint32_t pair = min(chosen, coupling.n_pairs - 1);
    const uint32_t from = coupling.pairs[2 * pair], to = coupling.pairs[2 * pair + 1];
    Trajectory trajectory{left, from, to, from, to, start_mass, end_mass, nullptr};
    if (coupling.turns != nullptr) trajectory.turn = coupling.turns + 3 * static_cast<size_t>(pair);
    if (coupling.masses != nullptr) {
      trajectory.start_mass = start_mass * static_cast<double>(coupling.masses[2 * pair]);
      trajectory.end_mass = end_mass * static_cast<double>(coupling.masses[2 * pair + 1]);
    }
    if (params.interpolant == Interpolant::kSpline) {
      if (left > 0) trajectory.before = partner(params.couplings[left - 1].by_right, from, words.z);
      if (left + 1 < n_intervals()) trajectory.after = partner(params.couplings[left + 1].by_left, to, words.w);
    }
    return trajectory;
  }

  // √(m₀ m₁) cos θ of a turn.
  static __device__ __forceinline__ f64 mixed_mass(const Trajectory& trajectory) {
    const f64 product = trajectory.start_mass * trajectory.end_mass;
    return f64(__dsqrt_rn(product.value)) * static_cast<double>(trajectory.turn[1]);
  }

  // Mass of the trajectory at `moment`, and its derivative in network time.
  __device__ __forceinline__ f64 mass(const Trajectory& trajectory, const Moment& moment) const {
    const f64 start = trajectory.start_mass, end = trajectory.end_mass;
    if (trajectory.turn != nullptr) {
      const f64 r = moment.ratio, s = 1.0 - r;
      return start * s * s + 2.0 * mixed_mass(trajectory) * r * s + end * r * r;
    }
    return start + moment.ratio * (end - start);
  }
  __device__ __forceinline__ f64 mass_slope(const Trajectory& trajectory, const Moment& moment) const {
    if (trajectory.turn != nullptr) {
      const f64 r = moment.ratio, s = 1.0 - r, mixed = mixed_mass(trajectory);
      const f64 slope = 2.0 * ((mixed - trajectory.start_mass) * s + (trajectory.end_mass - mixed) * r);
      return slope / length(trajectory.left);
    }
    const f64 rise = trajectory.end_mass - trajectory.start_mass;
    return rise.value == 0.0 ? f64(0.0) : rise / length(trajectory.left);
  }

  // Coefficients of x = alpha noise + beta data and their time derivatives.
  __device__ __forceinline__ void set_coefficients(Curve& curve, double ratio) const {
    const f64 t = fmin(fmax(ratio, 1e-6), 1.0 - 1e-6);  // slopes may be infinite at the very ends
    f64 noise, data, noise_slope, data_slope;
    if (params.interpolant == Interpolant::kGenerativeLinear) {
      noise = 1.0 - t, data = t, noise_slope = -1.0, data_slope = 1.0;
    } else if (params.interpolant == Interpolant::kGenerativeSqrt) {
      noise = __dsqrt_rn((1.0 - t).value), data = __dsqrt_rn(t.value);
      noise_slope = -0.5 / noise, data_slope = 0.5 / data;
    } else {
      // Variance-preserving diffusion in reverse time, with rates from 0.1 to 20.
      constexpr double kFirst = 0.1, kRise = 20.0 - 0.1;
      const f64 tau = 1.0 - t;
      const f64 rate = kFirst + tau * kRise;
      const f64 exponent = 0.5 * tau * kFirst + 0.25 * tau * tau * kRise;
      data = exp(-exponent.value);
      noise = __dsqrt_rn(-expm1((-2.0 * exponent).value));
      data_slope = 0.5 * rate * data;
      noise_slope = -data * data_slope / noise;
    }
    curve.noise = to_f32(noise), curve.data = to_f32(data);
    curve.noise_slope = to_f32(noise_slope), curve.data_slope = to_f32(data_slope);
  }

  // Turn::progress: the fraction of a straight way at `ratio`, and its derivative in network time.
  __device__ __forceinline__ void set_progress(Curve& curve, const Trajectory& trajectory, f64 ratio) const {
    f64 fraction = ratio, speed = 1.0;
    if (trajectory.turn != nullptr) {
      const f64 start = __dsqrt_rn(trajectory.start_mass.value), end = __dsqrt_rn(trajectory.end_mass.value);
      const f64 angle = static_cast<double>(trajectory.turn[0]), sine = static_cast<double>(trajectory.turn[2]);
      const f64 along = (1.0 - ratio) * start + ratio * end * static_cast<double>(trajectory.turn[1]);
      const f64 across = ratio * end * sine;
      const f64 mass = along * along + across * across;
      if (angle.value != 0.0 && mass.value != 0.0) {
        fraction = atan2(across.value, along.value) / angle;
        speed = start * end * sine / (angle * mass);
      }
    }
    curve.ratio = to_f32(fraction);
    curve.per_time = to_f32(speed / length(trajectory.left));
  }

  // DensityPath::point without its coordinates. `noise_row` selects the start noise.
  __device__ __forceinline__ Curve curve(const Trajectory& trajectory, const Moment& moment, uint32_t noise_row) const {
    const uint32_t left = trajectory.left;
    Curve curve{};
    curve.noise_row = noise_row;
    curve.ratio = to_f32(moment.ratio);
    if (is_generative()) {
      curve.kind = CurveKind::kNoise;
      curve.to = row(0, trajectory.to);
      set_coefficients(curve, moment.ratio.value);
      return curve;
    }
    if (trajectory.turn != nullptr && (trajectory.start_mass.value == 0.0 || trajectory.end_mass.value == 0.0)) {
      // Mass vanishes or appears where it is.
      curve.kind = CurveKind::kRow;
      curve.from = trajectory.end_mass.value == 0.0 ? row(left, trajectory.from) : row(left + 1, trajectory.to);
      return curve;
    }
    if (params.interpolant == Interpolant::kNearest) {
      curve.kind = CurveKind::kRow;
      curve.from = moment.ratio.value >= 0.5 ? row(left + 1, trajectory.to) : row(left, trajectory.from);
      return curve;
    }
    curve.from = row(left, trajectory.from);
    curve.to = row(left + 1, trajectory.to);
    curve.kind = CurveKind::kLine;
    if (params.interpolant == Interpolant::kSpline) {
      curve.kind = CurveKind::kSpline;
      curve.has_before = left > 0;
      curve.has_after = left + 1 < n_intervals();
      curve.before = curve.has_before ? row(left - 1, trajectory.before) : curve.from;
      curve.after = curve.has_after ? row(left + 2, trajectory.after) : curve.to;
      curve.length_before = curve.has_before ? to_f32(length(left - 1)) : 0.0f;
      curve.length = to_f32(length(left));
      curve.length_after = curve.has_after ? to_f32(length(left + 1)) : 0.0f;
    } else {
      set_progress(curve, trajectory, moment.ratio);
    }
    return curve;
  }

  // DensityPath::end_point: a sample at the first time, or at the last if `at_end`.
  __device__ __forceinline__ Curve end_point(bool at_end, uint32_t word, uint32_t noise_row) const {
    Curve curve{};
    curve.noise_row = noise_row;
    if (is_generative() && !at_end) {
      curve.kind = CurveKind::kNoise;
      curve.to = row(0, 0);  // its coefficient is 0
      curve.noise = 1.0f;
    } else {
      const uint32_t snapshot = at_end ? params.n_snapshots - 1 : 0;
      curve.kind = CurveKind::kRow;
      curve.from = row(snapshot, random_index(word, n_rows(snapshot)));
    }
    return curve;
  }
};

struct PointAndVelocity {
  float x, u;
};

// One coordinate of the cubic of density_path::spline.
__device__ __forceinline__ PointAndVelocity spline(const Curve& curve, uint32_t i) {
  const f32 h0 = curve.length_before, h = curve.length, h2 = curve.length_after;
  const f32 from = curve.from[i], to = curve.to[i];
  const f32 secant = (to - from) / h;
  f32 start = secant, end = secant;
  if (curve.has_before) start = ((from - curve.before[i]) / h0 * h + secant * h0) / (h + h0);
  if (curve.has_after) end = ((curve.after[i] - to) / h2 * h + secant * h2) / (h + h2);
  const f32 a = start - secant, b = end - secant;
  const f32 r = curve.ratio, s = 1.0f - r;
  const f32 x = from + h * (secant * r + r * s * (a * s - b * r));
  const f32 slope = secant + a * s * (1.0f - 3.0f * r) - b * r * (2.0f - 3.0f * r);
  return {x.value, slope.value};
}

// Coordinate i of the point and of its velocity; velocity 0 if the path does not define one.
__device__ __forceinline__ PointAndVelocity point(const Curve& curve, uint32_t i, const RowWords& start_noise) {
  switch (curve.kind) {
    case CurveKind::kRow: return {curve.from[i], 0.0f};
    case CurveKind::kLine: {
      const f32 from = curve.from[i], step = curve.to[i] - from;
      return {(from + curve.ratio * step).value, (curve.per_time * step).value};
    }
    case CurveKind::kSpline: return spline(curve, i);
    case CurveKind::kNoise: {
      const f32 noise = normal(start_noise.of(curve.noise_row, i / 4), i % 4), data = curve.to[i];
      return {(curve.noise * noise + curve.data * data).value,
              (curve.noise_slope * noise + curve.data_slope * data).value};
    }
    default: return {0.0f, 0.0f};
  }
}
