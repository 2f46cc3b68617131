// The sweeps of one tile: all four for an interior tile, with the head between them; primal and
// adjoint for a boundary tile. The weight gradient reads a, c, delta, z_bar and, with probes, e_a
// and e_bar. It is a kernel of its own (weight_grad.cuh), or, for narrow networks, part of this one
// (sweep_narrow.cuh).
#pragma once
#include "batch.cuh"
#include "net/gradient.cuh"
#include "net/hamiltonian.cuh"
#include "tile/reduce.cuh"

// Per-row values carried from sweep to sweep.
struct RowTerms {
  double value, kinetic;       // of the loss, scaled by 1 / interior rows of the batch
  float weight, on_potential;  // scaled likewise
  float s, along;              // along = weight (d_t s + w.grad s)
  float integrand;
};

// The formulas of one interior row between the sweeps.
template <class TileSweeps>
struct InteriorRow {
  using T = typename TileSweeps::Operand;
  using Lanes = RowLanes<TileSweeps::kRows>;

  const SweepParams& params;
  HeadRow<TileSweeps> head;
  bool is_center;              // row of a centering part: only the time derivative contributes
  const float& operand_scale;  // see TileMemory
  RowTerms& terms;

  __device__ __forceinline__ bool has_time() const { return params.has_time != 0; }
  __device__ __forceinline__ bool has_drift() const { return params.has_drift != 0 && !is_center; }
  __device__ __forceinline__ bool has_velocity() const { return params.has_velocity != 0 && !is_center; }
  __device__ __forceinline__ float growth() const { return has_drift() ? params.growth : 0.0f; }

  __device__ __forceinline__ float grad_s(uint32_t i) const { return head.of(params.rows.grad_s, head.dim())[i]; }
  __device__ __forceinline__ float velocity(uint32_t i) const { return head.of(params.rows.velocity, head.dim())[i]; }

  // The direction of the generator: drift - velocity.
  __device__ __forceinline__ float direction(uint32_t i) const {
    float direction = has_drift() ? hamiltonian(grad_s(i), params.cost_exponent).y : 0.0f;
    if (has_velocity()) direction -= velocity(i);
    return direction;
  }

  // The tangent at the input, scaled as the sweep carries it.
  __device__ __forceinline__ float c(uint32_t i) const { return operand_scale * terms.weight * direction(i); }

  // After the reverse sweep: forms the row's loss terms and the tangent's input.
  __device__ __forceinline__ void seed_tangent() const {
    const uint32_t dim = head.dim(), n_features = head.tile.network.n_features;
    const float* d_phi = head.of(params.rows.d_phi, n_features);
    const float weight = *head.of(params.rows.weight) * params.scale;
    T* c_in = head.tile.c(0) + head.row * head.in_width();
    float energy = 0.0f, squares = 0.0f, along = 0.0f, total_ds_dt = 0.0f;
    Lanes::for_each_component(dim + n_features, [&](uint32_t i) {
      float c = 0.0f;
      if (i < dim) {
        const float p = grad_s(i), w = direction(i);
        squares = fmaf(p, p, squares);
        if (has_drift()) energy += hamiltonian(p, params.cost_exponent).x;
        if (has_velocity()) energy -= velocity(i) * p;
        along = fmaf(w, p, along);
        c = w;
      } else {
        total_ds_dt = fmaf(head.through(i), d_phi[i - dim], total_ds_dt);
        if (has_time()) c = d_phi[i - dim];
      }
      c_in[i] = to_element<T>(operand_scale * weight * c);
    });
    squares = Lanes::sum(squares), energy = Lanes::sum(energy), along = Lanes::sum(along);
    total_ds_dt = Lanes::sum(total_ds_dt);
    if (!Lanes::is_first()) return;
    *head.of(params.rows.ds_dt) = total_ds_dt;
    const float ds_dt = has_time() ? total_ds_dt : 0.0f, s = params.with_potential ? *head.of(params.rows.s) : 0.0f;
    const float sampling_weight = *head.of(params.rows.sampling_weight);
    terms.weight = weight;
    terms.on_potential = *head.of(params.rows.on_potential) * params.scale;
    terms.s = s;
    terms.along = weight * (ds_dt + along);
    terms.value = static_cast<double>(weight * (ds_dt + energy + 0.5f * growth() * s * s) + terms.on_potential * s);
    terms.kinetic = static_cast<double>(0.5f * squares * sampling_weight) * params.scale;
    terms.integrand = sampling_weight != 0.0f ? static_cast<float>(terms.value / params.scale) / sampling_weight : 0.0f;
  }

  // After the tangent sweep with probes: adds the Laplacian term, the generator minus `along`.
  __device__ __forceinline__ void add_curvature(float probe_weight) const {
    const float generator = head.generator(probe_weight, [&](uint32_t i) { return c(i); });
    if (Lanes::is_first()) {
      const double whole = static_cast<double>(generator) / operand_scale;
      *head.of(params.rows.generator) = static_cast<float>(whole);
      terms.value += whole - static_cast<double>(terms.along);
    }
  }

  // Adjoint seed of output i of probe k.
  __device__ __forceinline__ float probe_seed_of(uint32_t i, uint32_t k, float probe_weight) const {
    if (head.head() == Head::kScalar) return 0.0f;
    const float o_e = head.kept(params.rows.output_e, head.out_width(), k)[i];
    return probe_seed(head.head(), probe_weight, from_element(head.probe(k)[i]), o_e);
  }

  __device__ __forceinline__ float potential_weight() const {
    return operand_scale * (terms.weight * growth() * terms.s + terms.on_potential);
  }

  __device__ __forceinline__ float o_c(uint32_t i) const {
    return head.kept(params.rows.output_c, head.out_width())[i];
  }

  // Adjoint seed of output i.
  __device__ __forceinline__ float adjoint_seed(uint32_t i) const {
    const float along_c = head.head() == Head::kScalar ? 0.0f : generator_seed(head.head(), c(i), o_c(i));
    return along_c + potential_weight() * head.output_seed_of(i);
  }

  // After the adjoint sweep has reached the input: the gradient of the row's term in x. The drift
  // is held constant, for the same reason as in the parameter gradient.
  __device__ __forceinline__ void gradient_at_point() const {
    float* grad_x = head.of(params.rows.grad_x, head.dim());
    Lanes::for_each_component(head.dim(), [&](uint32_t i) {
      const float by_head = head.head() == Head::kScalar
                                ? 0.0f
                                : generator_slope(head.head(), c(i), o_c(i)) +
                                      potential_weight() * direct_gradient(head.head(), head.x(i), head.o(i));
      grad_x[i] = head.through(i) + by_head;
    });
  }
};

// Sums the tile's terms in a fixed order. Interior tiles also form their moments of the integrand.
// Precondition: the terms are visible to the block.
template <int kRows>
__device__ __forceinline__ void sum_tile(const SweepParams& params, uint32_t tile, uint32_t first_row,
                                         const RowTerms* sm_terms, bool interior) {
  if (threadIdx.x < 32) {
    TileSums sums = {0.0, 0.0};
    for (uint32_t i = threadIdx.x; i < kRows; i += 32)
      sums.value += sm_terms[i].value, sums.kinetic += sm_terms[i].kinetic;
    sums = {warp_sum(sums.value), warp_sum(sums.kinetic)};
    if (threadIdx.x == 0) params.sums[tile] = sums;
  }
  // One thread per knot, each with its hat function.
  if (params.moments == nullptr || !interior || threadIdx.x >= kTimeKnots) return;
  double squares = 0.0, weights = 0.0;
  for (uint32_t i = 0; i < kRows; ++i) {
    if (params.rows.sampling_weight[first_row + i] == 0.0f) continue;
    const double position = static_cast<double>(params.rows.t[first_row + i]) * (kTimeKnots - 1);
    const uint32_t knot = min(static_cast<uint32_t>(position), kTimeKnots - 2);
    const double ratio = position - knot;
    const double knot_weight = knot == threadIdx.x ? 1.0 - ratio : knot + 1 == threadIdx.x ? ratio : 0.0;
    squares += knot_weight * sm_terms[i].integrand * sm_terms[i].integrand;
    weights += knot_weight;
  }
  params.moments[static_cast<size_t>(tile) * 2 * kTimeKnots + threadIdx.x] = squares;
  params.moments[static_cast<size_t>(tile) * 2 * kTimeKnots + kTimeKnots + threadIdx.x] = weights;
}

// Shared memory of a tile.
struct TileMemory {
  float operand_scale;  // factor of operands besides their rows' weights: loss scale / Part::sum_scale
  RowTerms terms[kTileRows];
  float probe_weight[kTileRows];
};

// Runs the sweeps of tile `index` of the batch. `interior`: whether it is interior-like.
template <class TileSweeps>
__device__ __forceinline__ void sweep_tile(const SweepParams& params, uint32_t index, bool interior, TileSweeps& tile,
                                           TileMemory& sm_tile) {
  constexpr bool kDiffusive = TileSweeps::kProbes;
  using Lanes = RowLanes<TileSweeps::kRows>;
  const RowBuffers& rows = params.rows;
  const float& operand_scale = sm_tile.operand_scale;
  RowTerms* sm_terms = sm_tile.terms;
  if (threadIdx.x == 0)
    sm_tile.operand_scale = params.state->loss_scale / sum_scale<typename TileSweeps::Operand>(params.batch, index);
  sync_workers();  // the scale is written, and the terms of the tile before are read

  if (!interior) {
    const auto seed = [&](const HeadRow<TileSweeps>& row, uint32_t k) {
      return operand_scale * *row.of(rows.weight) * row.output_seed_of(k);
    };
    tile.primal(false);
    tile.output();
    TileSweeps::sync();  // the output is written
    for_each_row<TileSweeps::kRows>([&](uint32_t i) {
      const auto row = head_row(tile, i);
      const float weight = *row.of(rows.weight), s = row.potential();
      if (Lanes::is_first()) {
        *row.of(rows.s) = s;
        sm_terms[i].value = static_cast<double>(weight) * static_cast<double>(s);
        sm_terms[i].kinetic = 0.0;
      }
    });
    write_seeds(tile, rows.z_bar, 0, [&](uint32_t i, uint32_t k) { return seed(head_row(tile, i), k); });
    tile.adjoint(false);
    sum_seeds(tile, [&](uint32_t i, uint32_t k) { return seed(head_row(tile, i), k); });
    sync_workers();  // the terms are written
    sum_tile<TileSweeps::kRows>(params, index, tile.first_row, sm_terms, false);
    return;
  }

  // All rows of a tile belong to one part.
  const bool is_center = part_of(params.batch, index).kind == PartKind::kCenter;
  const auto row_of = [&](uint32_t i) {
    return InteriorRow<TileSweeps>{params, {tile, i}, is_center, operand_scale, sm_terms[i]};
  };

  potential_and_gradient(tile, [&] { return params.with_potential != 0; });
  clear_lines<TileSweeps::kRows>(tile.c(0), tile.width(0));
  for_each_row<TileSweeps::kRows>([&](uint32_t i) {
    const auto row = row_of(i);
    row.seed_tangent();
    if (kDiffusive && Lanes::is_first())
      sm_tile.probe_weight[i] = operand_scale * sm_terms[i].weight * *row.head.of(rows.kappa);
  });
  tile.tangent();
  TileSweeps::sync();  // the tangents' outputs are written
  if constexpr (kDiffusive) {
    for_each_row<TileSweeps::kRows>([&](uint32_t i) { row_of(i).add_curvature(sm_tile.probe_weight[i]); });
#pragma unroll 1
    for (uint32_t probe = 0; probe < rows.n_probes; ++probe)
      write_seeds(tile, rows.e_bar, probe,
                  [&](uint32_t i, uint32_t k) { return row_of(i).probe_seed_of(k, probe, sm_tile.probe_weight[i]); });
  }
  write_seeds(tile, rows.z_bar, 0, [&](uint32_t i, uint32_t k) { return row_of(i).adjoint_seed(k); });
  tile.adjoint(true);
  if (params.with_grad_x) {
    tile.adjoint_to_input();
    TileSweeps::sync();  // the gradient at the input is written
    for_each_row<TileSweeps::kRows>([&](uint32_t i) { row_of(i).gradient_at_point(); });
  }
  sum_seeds(tile, [&](uint32_t i, uint32_t k) { return row_of(i).adjoint_seed(k); });
  sync_workers();  // the terms are written
  sum_tile<TileSweeps::kRows>(params, index, tile.first_row, sm_terms, true);
}

// Runs the sweeps of the chunk's tiles, one after the other in each block. `sweeps_of(first_row)`
// makes those of a tile.
template <class SweepsOf>
__device__ __forceinline__ void sweep_tiles(const SweepParams& params, TileMemory& sm_tile, SweepsOf sweeps_of) {
  constexpr uint32_t kRows = decltype(sweeps_of(0u))::kRows;
#pragma unroll 1
  for (uint32_t chunk_tile = blockIdx.x; chunk_tile < params.batch.n_tiles; chunk_tile += gridDim.x) {
    const uint32_t index = params.batch.first_tile + chunk_tile;
    auto tile = sweeps_of(chunk_tile * kRows);
    sweep_tile(params, index, index < params.batch.n_interior_tiles, tile, sm_tile);
  }
}

template <bool kDiffusive, class Engine>
using TrainingSweeps = Sweeps<Engine, kDiffusive ? 3 : 2, Operands::kKeepForGradient>;

// The same with products that kColumns columns and kRows rows are formed of at a time by all
// threads of the block.
template <class T, bool kDiffusive, int kColumns, int kRows = kTileRows>
__device__ __forceinline__ void sweep(const SweepParams& params) {
  using Engine = MmaEngine<T, kColumns, kRows>;
  extern __shared__ __align__(128) unsigned char sm[];
  __shared__ TileMemory sm_tile;
  if (params.state->halted) return;
  sweep_tiles(params, sm_tile, [&](uint32_t first_row) {
    return TrainingSweeps<kDiffusive, Engine>{
        {params.network, params.rows, first_row, first_row},
        static_cast<const T*>(params.weights),
        params.biases,
        {sm, params.n_operand_chunks},
        {params.carried, params.rows.carried, sm + Engine::bytes_of_products(params.n_operand_chunks)},
        sm_tile.probe_weight};
  });
}
