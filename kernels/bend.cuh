// The learned path: a second network moves the points of interior rows by weight · net(t, xₗ, xᵣ), and its adjoint takes the gradient at the points
// with the opposite sign: it ascends the loss that the action descends. Twin of src/engine/cpu/bend.rs.
#pragma once
#include "net/gradient.cuh"

template <class T>
__device__ __forceinline__ void bend_forward(const BendParams& params) {
  extern __shared__ __align__(16) unsigned char sm[];
  if (params.state->halted) return;
  const uint32_t first_row = blockIdx.x * kTileRows, dim = params.network.dim / 2;
  Sweeps<T, 1> sweeps{params.network, params.rows, static_cast<const T*>(params.weights), params.biases, sm, first_row, nullptr};
  sweeps.primal();
  sweeps.output();
  __syncthreads();  // the output is written
  if (threadIdx.x >= kTileRows) return;
  const uint32_t row = first_row + threadIdx.x, out_width = sweeps.width(params.network.n_layers);
  const float weight = params.rows.weight[row];
  for (uint32_t i = 0; i < dim; ++i) {
    float& x = params.action.x[static_cast<size_t>(row) * dim + i];
    x = fmaf(weight, params.rows.output[static_cast<size_t>(row) * out_width + i], x);
    static_cast<T*>(params.action.a)[static_cast<size_t>(row) * params.action_in_width + i] = to_element<T>(x);
  }
}

template <class T>
__device__ __forceinline__ void bend_backward(const BendParams& params) {
  extern __shared__ __align__(16) unsigned char sm[];
  if (params.state->halted) return;
  const uint32_t first_row = blockIdx.x * kTileRows, dim = params.network.dim / 2;
  Sweeps<T, 1> sweeps{params.network, params.rows, static_cast<const T*>(params.weights), params.biases, sm, first_row, nullptr};
  if (threadIdx.x < kTileRows) {
    const HeadRow<T, 1> row{sweeps, threadIdx.x};
    const float weight = params.rows.weight[first_row + threadIdx.x];
    const float* grad_x = params.action.grad_x + static_cast<size_t>(first_row + threadIdx.x) * dim;
    // Of the outputs the first half bends. The gradient at the points carries the loss scale.
    row.seed(sweeps.template at<T>(params.rows.z_bar, params.network.n_layers),
             [&](uint32_t i) { return i < dim ? -weight * grad_x[i] : 0.0f; });
  }
  sweeps.adjoint(false);
}
