// Velocity ∇H(∇s) of a tile of particles, and the rates λs of log w and -∇·v of log q. Counterpart
// of Particles::velocity.
#pragma once
#include "../draw/embedding.cuh"
#include "../draw/probes.cuh"
#include "../net/gradient.cuh"
#include "../net/hamiltonian.cuh"
#include "state.cuh"

// Writes the directions of the divergence to e_a of the input. They are fixed along a path, but
// ∇·∇H(∇s) is the trace of D∇²s with the diagonal D = H''(∇s), so each is scaled by √D.
template <class TileSweeps, class State>
__device__ __forceinline__ void place_directions(const TileSweeps& sweeps, const State& state) {
  using Lanes = RowLanes<State::kRows>;
  const IntegrateParams& params = state.params;
  const uint32_t dim = state.dim(), in_width = sweeps.width(0);
  const float q = params.cost_exponent;
  const float* grad_s = sweeps.of_rows(sweeps.rows.grad_s, dim);
  const Probes probes(params.rule, dim, sweeps.rows.n_probes, params.seed, 0);
#pragma unroll 1
  for (uint32_t line = 0; line < sweeps.rows.n_probes * Lanes::kOfWarp; ++line) {
    const uint32_t k = line / Lanes::kOfWarp, row = Lanes::first_row() + line % Lanes::kOfWarp;
    auto* e = sweeps.e_a(0, k) + row * in_width;
#pragma unroll 1
    for (uint32_t i = threadIdx.x % 32; i < in_width; i += 32) {
      float value = 0.0f;
      if (i < dim) {
        value = probes.component(state.first_row() + row, k, i);
        if (q != 2.0f) value *= sqrtf((q - 1.0f) * powf(fabsf(grad_s[row * dim + i]), q - 2.0f));
      }
      e[i] = to_element<typename TileSweeps::Operand>(value);
    }
  }
}

// Evaluates stage `stage` at time t: at y for stage 0, else at the point.
template <class TileSweeps, class State>
__device__ __forceinline__ void velocity(TileSweeps& sweeps, const State& state, const uint32_t& stage,
                                         const double& t) {
  using Lanes = RowLanes<State::kRows>;
  using T = typename TileSweeps::Operand;
  const IntegrateParams& params = state.params;
  const uint32_t dim = state.dim(), n_features = params.network.n_features, in_width = sweeps.width(0);
  float* features = state.features();
  const float* point = stage == 0 ? state.y() : state.point();
#pragma unroll 1
  for (uint32_t i = threadIdx.x; i < n_features; i += kThreads) {
    features[i] = time_feature(params.frequencies, n_features, i, t).phi;
  }
  sync_workers();  // the point and the features are written
  float* x = sweeps.of_rows(sweeps.rows.x, dim);
  T* a = sweeps.a(0);
  for_each_value<State::kRows>(dim, [&](uint32_t row, uint32_t i) {
    const float value = point[row * dim + i];
    x[row * dim + i] = value;
    a[row * in_width + i] = to_element<T>(value);
  });
  // The padding stays zero for the tile's other evaluations.
  const uint32_t end = state.tile.is_fresh ? in_width : dim + n_features;
#pragma unroll 1
  for (uint32_t i = dim + threadIdx.x % 32; i < end; i += 32) {
    const T value = to_element<T>(i < dim + n_features ? features[i - dim] : 0.0f);
#pragma unroll 1
    for (uint32_t row = 0; row < Lanes::kOfWarp; ++row) a[(Lanes::first_row() + row) * in_width + i] = value;
  }
  potential_and_gradient(sweeps, [&] { return state.has_weights(); });

  const float q = params.cost_exponent;
  const float* grad_s = sweeps.of_rows(sweeps.rows.grad_s, dim);
  float* rates = state.stage(stage);
#pragma unroll 1
  for (uint32_t i = threadIdx.x % 32; i < Lanes::kOfWarp * dim; i += 32) {
    const uint32_t value = Lanes::first_row() * dim + i;
    rates[value] = hamiltonian(grad_s[value], q).y;
  }
  static_assert(Lanes::kOfWarp <= 32, "a lane for each row");
  if (threadIdx.x % 32 < Lanes::kOfWarp && state.has_weights()) {
    const uint32_t row = Lanes::first_row() + threadIdx.x % 32;
    rates[state.weights() + row] = params.growth * sweeps.rows.s[sweeps.first_row + row];
  }
  if constexpr (TileSweeps::kProbes) {
    if (q != 2.0f || state.tile.is_fresh) place_directions(sweeps, state);
    clear_lines<State::kRows>(sweeps.c(0), in_width);
    sweeps.tangent();
    TileSweeps::sync();  // the outputs are written
    for_each_row<State::kRows>([&](uint32_t i) {
      const float curvature = head_row(sweeps, i).generator(params.probe_weight, [](uint32_t) { return 0.0f; });
      if (Lanes::is_first()) state.stage(stage)[state.density() + i] = -curvature;
    });
  }
  sync_workers();  // the rates are written
}
