// One tile of a batch: an interior tile's four sweeps and the head between them, or a boundary tile's primal and adjoint. One block a tile; the weight
// gradient reads a, c, delta, z_bar and, of probes, e_a and e_bar.
#pragma once
#include "net/gradient.cuh"
#include "net/hamiltonian.cuh"

// What an interior row of a part measures.
struct InteriorForm {
  bool has_time, moves, has_velocity, with_potential;
  float growth;
};

// One interior row between the sweeps.
template <class T, int kOrders>
struct InteriorRow {
  const SweepParams& params;
  const HeadRow<T, kOrders>& head;
  InteriorForm form;
  float weight, on_potential, measure;  // of the row; weight and on_potential scaled to a share of the batch
  float loss_scale;
  float s, ds_dt, along;
  double value, kinetic;

  __device__ __forceinline__ float grad_s(uint32_t i) const {
    return head.sweeps.of_rows(params.rows.grad_s, head.dim())[head.row * head.dim() + i];
  }

  // The direction of the generator: drift - velocity.
  __device__ __forceinline__ float direction(uint32_t i) const {
    float direction = form.moves ? hamiltonian(grad_s(i), params.cost_exponent).y : 0.0f;
    if (form.has_velocity) direction -= head.sweeps.of_rows(params.rows.velocity, head.dim())[head.row * head.dim() + i];
    return direction;
  }

  // The tangent at the input, as the sweep carries it.
  __device__ __forceinline__ float c(uint32_t i) const { return loss_scale * weight * direction(i); }

  // After the reverse sweep: the terms of the row, and the tangent's input.
  __device__ __forceinline__ void seed_tangent() {
    const Sweeps<T, kOrders>& sweeps = head.sweeps;
    const uint32_t dim = head.dim(), in_width = sweeps.width(0), n_features = sweeps.network.n_features;
    const float* through = sweeps.of_rows(params.rows.input_grad, in_width) + head.row * in_width;
    const float* d_phi = sweeps.of_rows(params.rows.d_phi, n_features) + head.row * n_features;
    T* c_in = sweeps.template at<T>(params.rows.c, 0) + head.row * in_width;
    float energy = 0.0f, squares = 0.0f;
    along = 0.0f, ds_dt = 0.0f;
    for (uint32_t i = 0; i < dim; ++i) {
      const float p = grad_s(i), v = direction(i);
      squares = fmaf(p, p, squares);
      if (form.moves) energy += hamiltonian(p, params.cost_exponent).x;
      if (form.has_velocity) energy -= sweeps.of_rows(params.rows.velocity, dim)[head.row * dim + i] * p;
      along = fmaf(v, p, along);
      c_in[i] = to_element<T>(c(i));
    }
    float total_ds_dt = 0.0f;
    for (uint32_t i = 0; i < n_features; ++i) {
      total_ds_dt = fmaf(through[dim + i], d_phi[i], total_ds_dt);
      c_in[dim + i] = to_element<T>(form.has_time ? loss_scale * weight * d_phi[i] : 0.0f);
    }
    for (uint32_t i = dim + n_features; i < in_width; ++i) c_in[i] = to_element<T>(0.0f);
    params.rows.ds_dt[sweeps.first_row + head.row] = total_ds_dt;
    ds_dt = form.has_time ? total_ds_dt : 0.0f;
    value = static_cast<double>(weight * (ds_dt + energy + 0.5f * form.growth * s * s) + on_potential * s);
    kinetic = static_cast<double>(0.5f * squares * measure) * params.scale;
  }

  // After the tangent sweep, with probes: what the generator has beyond d_t s + w.grad s is the Laplacian.
  __device__ __forceinline__ void add_curvature(float probe_weight) {
    const float generator = row_generator(head, probe_weight, [&](uint32_t i) { return c(i); });
    const double whole = static_cast<double>(generator) / loss_scale;
    params.rows.generator[head.sweeps.first_row + head.row] = static_cast<float>(whole);
    value += whole - static_cast<double>(weight * (ds_dt + along));
    for (uint32_t probe = 0; probe < params.rows.n_probes; ++probe) seed_probe(probe, probe_weight);
  }

  __device__ __forceinline__ void seed_probe(uint32_t probe, float probe_weight) const {
    const Sweeps<T, kOrders>& sweeps = head.sweeps;
    const uint32_t n = head.out_width();
    const float* o_e = sweeps.of_rows(params.rows.output_e, n) + (static_cast<size_t>(probe) * params.rows.n_rows + head.row) * n;
    const T* e = sweeps.template at<T>(params.rows.e_a, 0, probe) + head.row * sweeps.width(0);
    head.seed(sweeps.template at<T>(params.rows.e_z, sweeps.network.n_layers, probe), [&](uint32_t i) {
      return head.head() == Head::kScalar ? 0.0f : probe_seed(head.head(), probe_weight, from_element(e[i]), o_e[i]);
    });
  }

  __device__ __forceinline__ float potential_weight() const { return loss_scale * (weight * form.growth * s + on_potential); }

  __device__ __forceinline__ float o_c(uint32_t i) const {
    if (head.head() == Head::kScalar) return 0.0f;
    return head.sweeps.of_rows(params.rows.output_c, head.out_width())[head.row * head.out_width() + i];
  }

  __device__ __forceinline__ void seed_adjoint() const {
    const float on_s = potential_weight();
    head.seed(head.sweeps.template at<T>(params.rows.z_bar, head.sweeps.network.n_layers), [&](uint32_t i) {
      const float along_c = head.head() == Head::kScalar ? 0.0f : generator_seed(head.head(), c(i), o_c(i));
      return along_c + on_s * head.output_seed_of(i);
    });
  }

  // After the adjoint sweep has gone down to the input. By the same argument as for the parameters the drift counts as constant.
  __device__ __forceinline__ void gradient_at_point() const {
    const Sweeps<T, kOrders>& sweeps = head.sweeps;
    const uint32_t dim = head.dim(), in_width = sweeps.width(0);
    const float* through = sweeps.of_rows(params.rows.input_grad, in_width) + head.row * in_width;
    float* grad_x = sweeps.of_rows(params.rows.grad_x, dim) + head.row * dim;
    for (uint32_t i = 0; i < dim; ++i) {
      const bool scalar = head.head() == Head::kScalar;
      const float by_head = scalar ? 0.0f
                                   : generator_slope(head.head(), c(i), o_c(i)) +
                                         potential_weight() * direct_gradient(head.head(), head.x(i), head.o(i));
      grad_x[i] = through[i] + by_head;
    }
  }
};

// The tile's sums, row after row; the rows' values come through shared memory. Interior tiles add their moments of the integrand.
__device__ __forceinline__ void sum_tile(const SweepParams& params, uint32_t tile, uint32_t first_row, double value, double kinetic,
                                         float integrand, bool interior) {
  __shared__ double sm_value[kTileRows], sm_kinetic[kTileRows];
  __shared__ float sm_integrand[kTileRows];
  if (threadIdx.x < kTileRows) {
    sm_value[threadIdx.x] = value;
    sm_kinetic[threadIdx.x] = kinetic;
    sm_integrand[threadIdx.x] = integrand;
  }
  __syncthreads();  // the rows' values are written
  if (threadIdx.x == 0) {
    TileSums sums = {0.0, 0.0};
    for (uint32_t i = 0; i < kTileRows; ++i) sums.value += sm_value[i], sums.kinetic += sm_kinetic[i];
    params.sums[tile] = sums;
  }
  // A thread a knot, with its hat function.
  if (params.moments == nullptr || !interior || threadIdx.x >= kTimeKnots) return;
  double squares = 0.0, weights = 0.0;
  for (uint32_t i = 0; i < kTileRows; ++i) {
    if (params.rows.measure[first_row + i] == 0.0f) continue;
    const double place = static_cast<double>(params.rows.t[first_row + i]) * (kTimeKnots - 1);
    const uint32_t knot = min(static_cast<uint32_t>(place), kTimeKnots - 2);
    const double ratio = place - knot;
    const double share = knot == threadIdx.x ? 1.0 - ratio : knot + 1 == threadIdx.x ? ratio : 0.0;
    squares += share * sm_integrand[i] * sm_integrand[i];
    weights += share;
  }
  params.moments[static_cast<size_t>(tile) * 2 * kTimeKnots + threadIdx.x] = squares;
  params.moments[static_cast<size_t>(tile) * 2 * kTimeKnots + kTimeKnots + threadIdx.x] = weights;
}

template <class T, bool kDiffusive>
__device__ __forceinline__ void sweep(const SweepParams& params) {
  constexpr int kOrders = kDiffusive ? 3 : 2;
  extern __shared__ __align__(16) unsigned char sm[];
  __shared__ float sm_probe_weight[kTileRows];
  if (params.state->halted) return;
  const NetworkParams& network = params.network;
  const RowBuffers& rows = params.rows;
  const uint32_t tile = params.batch.first_tile + blockIdx.x, first_row = blockIdx.x * kTileRows;
  const bool interior = tile < params.batch.n_interior_tiles;
  Sweeps<T, kOrders> sweeps{network, rows, static_cast<const T*>(params.weights), params.biases, sm, first_row, sm_probe_weight};
  const HeadRow<T, kOrders> head{sweeps, threadIdx.x};
  const bool has_row = threadIdx.x < kTileRows;
  const uint32_t row = first_row + threadIdx.x;
  const float loss_scale = params.state->loss_scale;

  if (!interior) {
    sweeps.primal();
    sweeps.output();
    __syncthreads();  // the output is written
    double value = 0.0;
    if (has_row) {
      const float weight = rows.weight[row], s = head.potential();
      rows.s[row] = s;
      value = static_cast<double>(weight) * static_cast<double>(s);
      head.seed(sweeps.template at<T>(rows.z_bar, network.n_layers),
                [&](uint32_t i) { return loss_scale * weight * head.output_seed_of(i); });
    }
    sweeps.adjoint(false);
    sum_tile(params, tile, first_row, value, 0.0, 0.0f, false);
    return;
  }

  // Tiles hold rows of one part alone.
  bool centre = false;
  for (uint32_t i = 0; i < params.batch.n_parts; ++i)
    if (tile >= params.batch.parts[i].first_tile) centre = params.batch.parts[i].kind == PartKind::kCentre;
  InteriorForm form{params.has_time != 0, params.moves != 0 && !centre, params.has_velocity != 0 && !centre,
                    params.with_potential != 0, centre || params.moves == 0 ? 0.0f : params.growth};

  potential_and_gradient(sweeps, form.with_potential);
  InteriorRow<T, kOrders> own{params, head, form};
  float probe_weight = 0.0f;
  if (has_row) {
    own.weight = rows.weight[row] * params.scale;
    own.on_potential = rows.on_potential[row] * params.scale;
    own.measure = rows.measure[row];
    own.loss_scale = loss_scale;
    own.s = form.with_potential ? rows.s[row] : 0.0f;
    own.seed_tangent();
    if (kDiffusive) {
      probe_weight = loss_scale * own.weight * rows.kappa[row];
      sm_probe_weight[threadIdx.x] = probe_weight;
    }
  }
  const float integrand = has_row && own.measure != 0.0f ? static_cast<float>(own.value / params.scale) / own.measure : 0.0f;

  if (kDiffusive) {
    sweeps.diffusive_tangent();
  } else {
    sweeps.tangent();
  }
  if (kDiffusive || network.head != Head::kScalar) sweeps.tangent_outputs();
  __syncthreads();  // the tangents' outputs are written
  if (has_row) {
    if (kDiffusive) own.add_curvature(probe_weight);
    own.seed_adjoint();
  }
  sweeps.adjoint(true);
  if (params.with_grad_x) {
    sweeps.to_input(sweeps.template at<T>(rows.z_bar, 1));
    __syncthreads();  // the gradient at the input is written
    if (has_row) own.gradient_at_point();
  }
  sum_tile(params, tile, first_row, has_row ? own.value : 0.0, has_row ? own.kinetic : 0.0, integrand, true);
}
