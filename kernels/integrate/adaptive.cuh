// Error control of a tile: the formulas of src/engine/cpu/particles.rs, in f64. All threads of the
// block get the same numbers.
#pragma once
#include "block_sum.cuh"
#include "state.cuh"

// Maximum number of attempted steps between two saved times.
constexpr uint32_t kMaxAttempts = 100000;

// Root mean square of value(i) / (atol + rtol size(i)) over the values of real rows.
template <class State, class Value, class Size>
__device__ __forceinline__ double scaled_norm(const State& state, Value value, Size size) {
  double sum = 0.0;
#pragma unroll 1
  for (uint32_t i = threadIdx.x; i < state.n_values(); i += kThreads) {
    if (!state.counts(i)) continue;
    const double ratio = value(i) / (state.params.atol + state.params.rtol * static_cast<double>(size(i)));
    sum += ratio * ratio;
  }
  return sqrt(block_sum(sum) / state.n_counted());
}

// The error of a step of size h from y to `point`, in tolerances.
template <class State>
__device__ __forceinline__ double error_norm(const State& state, double h) {
  const TableauParams& tableau = state.params.tableau;
  const float *y = state.y(), *point = state.point();
  return scaled_norm(
      state,
      [&](uint32_t i) {
        double error = 0.0;
#pragma unroll 1
        for (uint32_t k = 0; k < tableau.n_stages; ++k)
          error += tableau.error[k] * static_cast<double>(state.stage(k)[i]);
        return h * error;
      },
      [&](uint32_t i) { return fmaxf(fabsf(y[i]), fabsf(point[i])); });
}

// f32 accuracy suffices for step sizes.
__device__ __forceinline__ double power(double base, float exponent) {
  return powf(static_cast<float>(base), exponent);
}

// Ratio of the next step size to this one (Hairer, Nørsett & Wanner, Solving ODEs I, II.4); a NaN
// shrinks it.
__device__ __forceinline__ double step_factor(double error) {
  return isfinite(error) ? fmin(fmax(0.9 * power(error, -0.2f), 0.2), 5.0) : 0.2;
}

// Length of the trial Euler step for choosing the first step, from the sizes of y and its velocity.
template <class State>
__device__ __forceinline__ double first_probe(const State& state) {
  const float *y = state.y(), *velocity = state.stage(0);
  const auto size = [&](uint32_t i) { return fabsf(y[i]); };
  const double position = scaled_norm(state, [&](uint32_t i) { return static_cast<double>(y[i]); }, size);
  const double speed = scaled_norm(state, [&](uint32_t i) { return static_cast<double>(velocity[i]); }, size);
  return position < 1e-5 || speed < 1e-5 ? 1e-6 : 0.01 * position / speed;
}

// First step size, from the change of the velocity over the trial Euler step `probe`.
template <class State>
__device__ __forceinline__ double first_step(const State& state, double probe) {
  const float *y = state.y(), *velocity = state.stage(0), *later = state.stage(1);
  const auto size = [&](uint32_t i) { return fabsf(y[i]); };
  const double speed = scaled_norm(state, [&](uint32_t i) { return static_cast<double>(velocity[i]); }, size);
  const double change =
      scaled_norm(state, [&](uint32_t i) { return static_cast<double>(later[i] - velocity[i]); }, size);
  const double largest = fmax(speed, change / probe);
  const double second = largest <= 1e-15 ? fmax(probe * 1e-3, 1e-6) : power(0.01 / largest, 0.2f);
  return fmin(100.0 * probe, second);
}
