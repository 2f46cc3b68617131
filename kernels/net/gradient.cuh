// s and its gradient at the rows of a tile: primal sweep, head, reverse sweep, head.
#pragma once
#include "head.cuh"
#include "sweeps.cuh"

// A thread a row between sweeps: heads have few columns.
template <class T, int kOrders>
struct HeadRow {
  const Sweeps<T, kOrders>& sweeps;
  uint32_t row;  // within the tile

  __device__ __forceinline__ uint32_t dim() const { return sweeps.network.dim; }
  __device__ __forceinline__ Head head() const { return sweeps.network.head; }
  __device__ __forceinline__ uint32_t out_width() const { return sweeps.width(sweeps.network.n_layers); }
  __device__ __forceinline__ float x(uint32_t i) const {
    return sweeps.network.head == Head::kScalar ? 0.0f : sweeps.of_rows(sweeps.rows.x, dim())[row * dim() + i];
  }
  // The output is formed for heads of several outputs, or where s is asked for.
  __device__ __forceinline__ float o(uint32_t i) const {
    return sweeps.of_rows(sweeps.rows.output, out_width())[row * out_width() + i];
  }

  __device__ __forceinline__ float potential() const {
    float s = 0.0f;
    for (uint32_t i = 0; i < sweeps.network.n_outputs; ++i) s += potential_term(head(), x(i), o(i));
    return s;
  }

  // The seed of an adjoint sweep: `component(i)` for each output, zeros in the pads.
  template <class Component>
  __device__ __forceinline__ void seed(T* to, Component component) const {
    to += row * out_width();
    for (uint32_t i = 0; i < out_width(); ++i) to[i] = to_element<T>(i < sweeps.network.n_outputs ? component(i) : 0.0f);
  }

  __device__ __forceinline__ float output_seed_of(uint32_t i) const {
    return head() == Head::kScalar ? 1.0f : output_seed(head(), x(i), o(i));
  }

  __device__ __forceinline__ float gradient(uint32_t i) const {
    const uint32_t in_width = sweeps.width(0);
    const float through = sweeps.of_rows(sweeps.rows.input_grad, in_width)[row * in_width + i];
    return head() == Head::kScalar ? through : through + direct_gradient(head(), x(i), o(i));
  }
};

// From rows.x and a's input, written and waited for: s where it is asked for, and the gradient; what kOrders says stays for the sweeps that follow.
template <class T, int kOrders>
__device__ __forceinline__ void potential_and_gradient(Sweeps<T, kOrders>& sweeps, bool with_potential) {
  const NetworkParams& network = sweeps.network;
  sweeps.primal();
  if (with_potential || network.head != Head::kScalar) sweeps.output();
  __syncthreads();  // the output is written
  const bool has_row = threadIdx.x < kTileRows;
  const HeadRow<T, kOrders> row{sweeps, threadIdx.x};
  if (has_row) {
    if (with_potential) sweeps.rows.s[sweeps.first_row + row.row] = row.potential();
    row.seed(sweeps.template at<T>(sweeps.rows.delta, network.n_layers), [&](uint32_t i) { return row.output_seed_of(i); });
  }
  sweeps.reverse();
  __syncthreads();  // the gradient at the input is written
  if (has_row) {
    float* grad_s = sweeps.of_rows(sweeps.rows.grad_s, network.dim) + row.row * network.dim;
    for (uint32_t i = 0; i < network.dim; ++i) grad_s[i] = row.gradient(i);
  }
  __syncthreads();  // s and the gradient are written
}

// The generator of a row from the tangents' outputs: Σ over outputs along c, and k Σ over probes of the head's own curvature. `c(i)` is the tangent at
// the input, scaled as c is.
template <class T, int kOrders, class Tangent>
__device__ __forceinline__ float row_generator(const HeadRow<T, kOrders>& row, float k, Tangent c) {
  const Sweeps<T, kOrders>& sweeps = row.sweeps;
  const uint32_t n = row.out_width();
  const float* o_c = sweeps.of_rows(sweeps.rows.output_c, n) + row.row * n;
  float along = 0.0f, curvature = 0.0f;
  if (row.head() == Head::kScalar) return o_c[0];
  for (uint32_t i = 0; i < sweeps.network.n_outputs; ++i) along += generator_term(row.head(), row.x(i), row.o(i), c(i), o_c[i]);
  for (uint32_t probe = 0; probe < sweeps.rows.n_probes; ++probe) {
    const float* o_e = sweeps.of_rows(sweeps.rows.output_e, n) + (static_cast<size_t>(probe) * sweeps.rows.n_rows + row.row) * n;
    const T* e = sweeps.template at<T>(sweeps.rows.e_a, 0, probe) + row.row * sweeps.width(0);
    for (uint32_t i = 0; i < sweeps.network.n_outputs; ++i) curvature += probe_term(row.head(), from_element(e[i]), o_e[i]);
  }
  return along + k * curvature;
}
