// The learned path: a second network displaces the points of interior rows by weight · net(t, xₗ,
// xᵣ). Its adjoint starts from the negative gradient at the points, so it ascends the loss that the
// action descends. Counterpart of src/engine/cpu/bend.rs.
#pragma once
#include "net/gradient.cuh"

template <class T>
using BendSweeps = Sweeps<MmaEngine<T, kWideColumns>, 1, Operands::kKeepForGradient>;

template <class T>
__device__ __forceinline__ void bend_forward(const BendParams& params) {
  extern __shared__ __align__(128) unsigned char sm[];
  if (params.state->halted) return;
  const uint32_t first_row = blockIdx.x * kTileRows, dim = params.network.dim / 2;
  BendSweeps<T> sweeps{{params.network, params.rows, first_row, first_row},
                       static_cast<const T*>(params.weights),
                       params.biases,
                       {sm, params.n_operand_chunks},
                       {params.carried, params.rows.carried, nullptr},
                       nullptr};
  sweeps.primal(false);
  sweeps.output();
  __syncwarp();  // the output of the warp's rows is written
  for_each_row<kTileRows>([&](uint32_t i) {
    const auto row = head_row(sweeps, i);
    const float weight = *row.of(params.rows.weight);
    float* x = row.of(params.action.x, dim);
    T* a = static_cast<T*>(params.action.a_in) + static_cast<size_t>(first_row + i) * params.action_in_width;
    RowLanes<kTileRows>::for_each_component(dim, [&](uint32_t k) {
      x[k] = fmaf(weight, row.o(k), x[k]);
      a[k] = to_element<T>(x[k]);
    });
  });
}

template <class T>
__device__ __forceinline__ void bend_backward(const BendParams& params) {
  extern __shared__ __align__(128) unsigned char sm[];
  if (params.state->halted) return;
  const uint32_t first_row = blockIdx.x * kTileRows, dim = params.network.dim / 2;
  BendSweeps<T> sweeps{{params.network, params.rows, first_row, first_row},
                       static_cast<const T*>(params.weights),
                       params.biases,
                       {sm, params.n_operand_chunks},
                       {params.carried, params.rows.carried, nullptr},
                       nullptr};
  // Only the first half of the outputs displaces points. The gradient at the points already carries
  // the loss scale.
  const auto seed = [&](const auto& row, uint32_t k) {
    return k < dim ? -*row.of(params.rows.weight) * row.of(params.action.grad_x, dim)[k] : 0.0f;
  };
  write_seeds(sweeps, params.rows.z_bar, 0, [&](uint32_t i, uint32_t k) { return seed(head_row(sweeps, i), k); });
  sweeps.adjoint(false);
  sum_seeds(sweeps, [&](uint32_t i, uint32_t k) { return seed(head_row(sweeps, i), k); });
}
