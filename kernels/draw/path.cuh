// How x moves between snapshots. Counterpart of src/density_path/mod.rs, coupling.rs and
// generative.rs, spline.rs, turn.rs. Indices, times, masses, straight lines and splines equal the
// host's bit for bit; progress along a turn does so up to the rounding of an arctangent.
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
  float limit;                              // of the tangents of a spline
  const float *before, *from, *to, *after;  // kRow uses only `from`, kNoise only `to`
  float ratio, per_time;
  float start_widths, end_widths;  // spline::widths at both ends
  float noise, data, noise_slope, data_slope;
  uint32_t noise_row;
};

struct Path {
  const PathParams& params;
  uint32_t dim;

  __device__ __forceinline__ bool is_generative() const { return params.interpolant >= Interpolant::kGenerativeLinear; }
  __device__ __forceinline__ uint32_t n_intervals() const { return params.n_times - 1; }
  __device__ __forceinline__ f64 time(uint32_t k) const { return params.times[k]; }
  // First and last time: 0 and 1, unless a group has fewer times than others.
  __device__ __forceinline__ f64 start() const { return time(0); }
  __device__ __forceinline__ f64 end() const { return time(params.n_times - 1); }
  __device__ __forceinline__ f64 length(uint32_t left) const { return time(left + 1) - time(left); }
  __device__ __forceinline__ f64 snapshot_mass(uint32_t k) const {
    return params.masses == nullptr ? 1.0 : params.masses[k];
  }
  __device__ __forceinline__ uint32_t n_rows(uint32_t k) const {
    return static_cast<uint32_t>(params.offsets[k + 1] - params.offsets[k]);
  }
  // Counterpart of Snapshots::draw: the row of snapshot `k` that `word` selects.
  __device__ __forceinline__ uint32_t draw(uint32_t k, uint32_t word) const {
    if (params.cumulative == nullptr) return random_index(word, n_rows(k));
    const uint32_t* cumulative = params.cumulative + params.offsets[k];
    const uint32_t below_all = min(word, UINT32_MAX - 1);  // the largest number stands for the end
    return partition_point(n_rows(k), [&](uint32_t row) { return cumulative[row] <= below_all; });
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
      const uint32_t to = draw(0, words.y);
      return {left, to, to, to, to, 1.0, 1.0, nullptr};
    }
    const f64 start_mass = snapshot_mass(left), end_mass = snapshot_mass(left + 1);
    if (params.couplings == nullptr) {
      const uint32_t from = draw(left, words.y);
      // Snapshots with equally many rows may follow the same particles: one word then chooses the
      // same particle in both.
      const uint32_t word = params.interpolant == Interpolant::kNearest ? words.y : words.z;
      const uint32_t to = draw(left + 1, word);
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

  // spline::widths of interval `own` beside interval `beyond`.
  __device__ __forceinline__ float widths(uint32_t own, uint32_t beyond) const {
    const f64 ratio = f64(params.widths[own]) / f64(params.widths[beyond]);
    return to_f32(fmin(fmax(ratio.value, 1e-3), 1e3));
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
      curve.per_time = to_f32(1.0 / length(left));
      const bool has_before = left > 0, has_after = left + 1 < n_intervals();
      curve.before = has_before ? row(left - 1, trajectory.before) : curve.from;
      curve.after = has_after ? row(left + 2, trajectory.after) : curve.to;
      curve.start_widths = has_before ? widths(left, left - 1) : 0.0f;
      curve.end_widths = has_after ? widths(left, left + 1) : 0.0f;
      curve.limit = params.limit;
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
      curve.from = row(snapshot, draw(snapshot, word));
    }
    return curve;
  }
};

struct PointAndVelocity {
  float x, u;
};

// Chords before, in and after the interval of a spline, coordinate i.
struct Chords {
  f32 before, own, after;

  __device__ __forceinline__ Chords(const Curve& curve, uint32_t i) {
    const f32 from = curve.from[i], to = curve.to[i];
    before = from - curve.before[i], own = to - from, after = f32(curve.after[i]) - to;
  }
};

// Counterpart of spline::Tangent.
struct Tangent {
  f32 own = 1.0f, beyond = 0.0f;

  Tangent() = default;
  __device__ __forceinline__ explicit Tangent(f32 widths) {
    own = 1.0f / (1.0f + widths);
    beyond = widths * widths * own;
  }

  __device__ __forceinline__ f32 of(f32 chord, f32 chord_beyond) const { return own * chord + beyond * chord_beyond; }

  // From squares of norms: of the tangent itself and of the chords.
  __device__ __forceinline__ void shorten(f32 widths, f32 limit, f32 tangent, f32 chord, f32 chord_beyond) {
    const f32 reach = widths * widths * chord_beyond;
    const f32 bound = limit * limit * f32(fminf(reach.value, chord.value));
    if (widths.value == 0.0f || tangent.value <= bound.value) return;
    const f32 scale = __fsqrt_rn((bound / tangent).value);
    own = scale * own, beyond = scale * beyond;
  }
};

struct Tangents {
  Tangent start, end;
};

__device__ __forceinline__ f32 sum_of_lanes(f32 value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    value = value + f32(__shfl_xor_sync(0xffffffffu, value.value, distance));
  return value;
}

// Tangents of a spline, for all lanes of a warp, which have the same curve.
__device__ __forceinline__ Tangents tangents(const Curve& curve, uint32_t dim) {
  Tangents tangents;
  if (curve.kind != CurveKind::kSpline) return tangents;
  tangents = {Tangent(curve.start_widths), Tangent(curve.end_widths)};
  f32 chord = 0.0f, before = 0.0f, after = 0.0f, start = 0.0f, end = 0.0f;
  for (uint32_t i = threadIdx.x % 32; i < dim; i += 32) {
    const Chords chords(curve, i);
    const f32 at_start = tangents.start.of(chords.own, chords.before);
    const f32 at_end = tangents.end.of(chords.own, chords.after);
    chord = chord + chords.own * chords.own;
    before = before + chords.before * chords.before;
    after = after + chords.after * chords.after;
    start = start + at_start * at_start;
    end = end + at_end * at_end;
  }
  chord = sum_of_lanes(chord);
  tangents.start.shorten(curve.start_widths, curve.limit, sum_of_lanes(start), chord, sum_of_lanes(before));
  tangents.end.shorten(curve.end_widths, curve.limit, sum_of_lanes(end), chord, sum_of_lanes(after));
  return tangents;
}

// One coordinate of spline::Cubic.
__device__ __forceinline__ PointAndVelocity spline(const Curve& curve, const Tangents& tangents, uint32_t i) {
  const Chords chords(curve, i);
  const f32 chord = chords.own;
  const f32 a = tangents.start.of(chord, chords.before) - chord, b = tangents.end.of(chord, chords.after) - chord;
  const f32 r = curve.ratio, s = 1.0f - r;
  const f32 x = curve.from[i] + (chord * r + r * s * (a * s - b * r));
  const f32 slope = chord + a * s * (1.0f - 3.0f * r) - b * r * (2.0f - 3.0f * r);
  return {x.value, (curve.per_time * slope).value};
}

// Coordinate i of the point and of its velocity; velocity 0 if the path does not define one.
__device__ __forceinline__ PointAndVelocity point(const Curve& curve, const Tangents& tangents, uint32_t i,
                                                  const RowWords& start_noise) {
  switch (curve.kind) {
    case CurveKind::kRow: return {curve.from[i], 0.0f};
    case CurveKind::kLine: {
      const f32 from = curve.from[i], step = curve.to[i] - from;
      return {(from + curve.ratio * step).value, (curve.per_time * step).value};
    }
    case CurveKind::kSpline: return spline(curve, tangents, i);
    case CurveKind::kNoise: {
      const f32 noise = normal(start_noise.of(curve.noise_row, i / 4), i % 4), data = curve.to[i];
      return {(curve.noise * noise + curve.data * data).value,
              (curve.noise_slope * noise + curve.data_slope * data).value};
    }
    default: return {0.0f, 0.0f};
  }
}
