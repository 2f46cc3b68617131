// s and its gradient at the rows of a tile: primal sweep, head, reverse sweep, head.
#pragma once
#include "row.cuh"

// From rows.x and a's input, written and waited for: s where it is asked for, and the gradient; what kOrders says stays for the sweeps that follow.
template <class T, int kOrders>
__device__ __forceinline__ void potential_and_gradient(Sweeps<T, kOrders>& sweeps, bool with_potential) {
  const NetworkParams& network = sweeps.network;
  sweeps.primal(true);
  if (with_potential || network.head != Head::kScalar) sweeps.output();
  __syncthreads();  // the output is written
  for_each_row([&](uint32_t i) {
    const HeadRow<T, kOrders> row{sweeps, i};
    if (with_potential) {
      const float s = row.potential();
      if (is_first_lane()) *row.of(sweeps.rows.s, 1) = s;
    }
    row.seed(row.output(sweeps.rows.delta), [&](uint32_t k) { return row.output_seed_of(k); });
  });
  sweeps.reverse();
  __syncthreads();  // the gradient at the input is written
  for_each_row([&](uint32_t i) {
    const HeadRow<T, kOrders> row{sweeps, i};
    float* grad_s = row.of(sweeps.rows.grad_s, network.dim);
    for_each_component(network.dim, [&](uint32_t k) { grad_s[k] = row.gradient(k); });
  });
  __syncthreads();  // s and the gradient are written
}
