// Random choices and weights of a batch row, for each kind of part; its coordinates are formed
// later. Counterpart of engine::cpu::draw::Draw.
#pragma once
#include "../batch.cuh"
#include "../exact.cuh"
#include "../rng/philox.cuh"
#include "abi.h"
#include "path.cuh"
#include "times.cuh"

struct DrawnRow {
  Curve curve;
  float t, weight, on_potential, sampling_weight, kappa;
  uint32_t index;    // within its part
  uint32_t group;    // 0 without conditions
  bool is_used;      // otherwise all fields are 0
  bool is_interior;  // has velocity and probes
};

struct Weight {
  f64 omega, d_omega;
};

struct Draw {
  const DrawParams& params;
  uint32_t dim;
  uint64_t step;

  __device__ __forceinline__ Draw(const DrawParams& params, uint32_t dim)
      : params(params), dim(dim), step(params.state->step) {}

  // Counterpart of Training::group_of: chooses the group of a row, which its start noise counts as
  // `number`, and returns its path.
  __device__ __forceinline__ Path path_of(DrawnRow& row, uint32_t number) const {
    const GroupParams& groups = params.groups;
    if (groups.n_groups > 0) {
      const uint32_t word = random_words(params.seed, Purpose::kGroup, step, number).x;
      const uint32_t group =
          partition_point(groups.n_groups, [&](uint32_t k) { return groups.cumulative[k] <= word; });
      row.group = min(group, groups.n_groups - 1);
    }
    return {params.paths[row.group], dim};
  }

  // The time weight and its derivative.
  __device__ __forceinline__ Weight time_weight(f64 t) const {
    f64 value = 0.0, slope = 0.0;
    for (uint32_t k = params.n_coefficients; k-- > 0;) {
      slope = slope * t + value;
      value = value * t + params.coefficients[k];
    }
    return {value, slope};
  }

  __device__ __forceinline__ uint32_t offset(uint32_t row) const {
    return random_words(params.seed, Purpose::kTimeOffset, step, row).x;
  }

  // The moment of row `row` of `n`. `sampling_weight`: the weight that makes the mean over rows a
  // mean over times.
  __device__ __forceinline__ Moment moment(const Path& path, uint32_t row, uint32_t n, uint32_t offset, uint32_t own,
                                           f64& sampling_weight) const {
    const f64 u = static_cast<double>(unit_f32(time_word(params.time_rule, row, n, offset, own)));
    WeighedTime time{u, 1.0};
    if (params.time_rule == TimeRule::kImportance) time = draw_time(params.density, u.value);
    sampling_weight = time.weight;
    if (params.groups.n_groups > 0) {  // otherwise times are all of 0..=1
      const f64 start = path.start(), span = path.end() - start;
      time.t = start + time.t * span;
      sampling_weight = time.weight * span;
    }
    return path.moment(params.time_rule, time.t);
  }

  __device__ __forceinline__ Moment interior_moment(const Path& path, uint32_t index, uint4& words,
                                                    f64& sampling_weight) const {
    words = random_words(params.seed, Purpose::kInterior, step, index);
    return moment(path, index, params.batch.n_interior, offset(0), words.x, sampling_weight);
  }

  __device__ __forceinline__ void interior(DrawnRow& row) const {
    uint4 words;
    f64 sampling_weight;
    const Path path = path_of(row, row.index);
    const Moment moment = interior_moment(path, row.index, words, sampling_weight);
    const Trajectory trajectory = path.trajectory(moment.left, words);
    row.curve = path.curve(trajectory, moment, row.index);
    row.t = moment.t;
    const f64 t = static_cast<double>(moment.t);
    const Weight weight = time_weight(t);
    const f64 mass = path.mass(trajectory, moment);
    f64 on_potential = 0.0;  // with kWeak the boundary terms contain the change of mass
    if (params.estimator == Estimator::kAction) on_potential = weight.d_omega * mass;
    if (params.estimator == Estimator::kRegression) on_potential = -weight.omega * path.mass_slope(trajectory, moment);
    row.weight = to_f32(weight.omega * mass * sampling_weight);
    row.on_potential = to_f32(on_potential * sampling_weight);
    row.sampling_weight = to_f32(sampling_weight);
    const f64 sigma = params.sigma_schedule == SigmaSchedule::kConstant ? f64(params.sigma) : params.sigma * (1.0 - t);
    row.kappa = to_f32(0.5 * (sigma * sigma) * params.probe_weight);
    row.is_interior = true;
  }

  // Centering: the times of `interior` at x = 0, with opposite weights and mass 1.
  __device__ __forceinline__ void center(DrawnRow& row) const {
    uint4 words;
    f64 sampling_weight;
    const Moment moment = interior_moment(path_of(row, row.index), row.index, words, sampling_weight);
    row.t = moment.t;
    const Weight weight = time_weight(static_cast<double>(moment.t));
    row.weight = to_f32(-weight.omega * sampling_weight);
    row.on_potential = to_f32(-weight.d_omega * sampling_weight);
  }

  // Centering of the boundary: x = 0 at both ends, two rows for each group, with the opposite of
  // the weight of boundary rows of mass 1.
  __device__ __forceinline__ void center_ends(DrawnRow& row) const {
    const bool is_end = row.index % 2 != 0;
    row.group = row.index / 2;
    row.t = time_of_end({params.paths[row.group], dim}, is_end);
    f64 omega = time_weight(static_cast<double>(row.t)).omega;
    if (params.groups.n_groups > 0) omega = f64(params.groups.shares[row.group]) * omega;
    row.weight = to_f32(is_end ? omega : -omega);
  }

  __device__ __forceinline__ float time_of_end(const Path& path, bool at_end) const {
    if (params.groups.n_groups > 0) return to_f32(at_end ? path.end() : path.start());
    return at_end ? 1.0f : 0.0f;
  }

  __device__ __forceinline__ void boundary(DrawnRow& row, bool at_end) const {
    // Both ends draw equal groups, so that they differ in time alone.
    const Path path = path_of(row, params.batch.n_interior + row.index);
    row.t = time_of_end(path, at_end);
    const f64 omega = time_weight(static_cast<double>(row.t)).omega;
    const f64 weight = at_end ? -omega * path.snapshot_mass(path.params.n_snapshots - 1) : omega;
    const uint4 words = random_words(params.seed, at_end ? Purpose::kBoundary1 : Purpose::kBoundary0, step, row.index);
    row.curve = path.end_point(at_end, words.x, params.batch.n_interior + row.index);
    row.weight = to_f32(weight / static_cast<double>(params.batch.n_boundary));
  }

  // Counterpart of Draw::weak_ends: samples at the start or, if `at_end`, the end of an interval,
  // each evaluated at both times of its interval.
  __device__ __forceinline__ void weak_ends(DrawnRow& row, bool at_end) const {
    const uint32_t index = row.index / 2, at_later_time = row.index % 2, n = params.batch.n_boundary;
    // Both ends of an interval use the same words, so they lie on one trajectory.
    const uint4 words = random_words(params.seed, Purpose::kBoundary0, step, index);
    f64 sampling_weight;
    const Path path = path_of(row, params.batch.n_interior + index);
    const Moment moment = this->moment(path, index, n, offset(1), words.x, sampling_weight);
    const double intervals = params.weak_intervals;
    const f64 interval = fmin(floor((moment.ratio * intervals).value), intervals - 1.0);
    const Moment sampled = path.at(moment.left, (at_end ? interval + 1.0 : interval) / intervals);
    const Moment visited = path.at(moment.left, (at_later_time ? interval + 1.0 : interval) / intervals);
    const Trajectory trajectory = path.trajectory(moment.left, words);
    row.curve = path.curve(trajectory, sampled, params.batch.n_interior + index);
    row.t = visited.t;
    const f64 omega = time_weight(static_cast<double>(moment.t)).omega;
    const f64 per_length = intervals / path.length(moment.left);
    const f64 weight =
        0.5 * omega * path.mass(trajectory, sampled) * sampling_weight * per_length / static_cast<double>(n);
    row.weight = to_f32(at_end ? -weight : weight);
  }

  // Row `index` of `part`; all zeros beyond its last row.
  __device__ __forceinline__ DrawnRow row(const Part& part, uint32_t index) const {
    DrawnRow row{};
    row.index = index;
    row.is_used = index < part.n_rows;
    if (!row.is_used) return row;
    switch (part.kind) {
      case PartKind::kInterior: interior(row); break;
      case PartKind::kCenter: center(row); break;
      case PartKind::kCenterEnds: center_ends(row); break;
      case PartKind::kBoundary0:
      case PartKind::kBoundary1: boundary(row, part.kind == PartKind::kBoundary1); break;
      case PartKind::kWeakEnds0:
      case PartKind::kWeakEnds1: weak_ends(row, part.kind == PartKind::kWeakEnds1); break;
    }
    return row;
  }

  // Counterpart of Draw::bend_inputs: the straight line between the ends of an interior row's
  // trajectory.
  __device__ __forceinline__ DrawnRow bend_row(uint32_t index, uint32_t n_rows) const {
    DrawnRow row{};
    row.index = index;
    row.is_used = index < n_rows;
    if (!row.is_used) return row;
    uint4 words;
    f64 sampling_weight;
    const Path path = path_of(row, index);
    const Moment moment = interior_moment(path, index, words, sampling_weight);
    row.curve = path.curve(path.trajectory(moment.left, words), moment, index);
    row.t = moment.t;
    row.weight = to_f32(2.0 * moment.ratio * (1.0 - moment.ratio));
    return row;
  }
};
