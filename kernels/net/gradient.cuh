// s and its gradient at the rows of a tile: primal sweep, head, reverse sweep, head.
#pragma once
#include "row.cuh"

// Forms the gradient of s and, if asked for, s, from rows.x and the input, which must be written.
// Leaves the derivatives that kOrders keeps. The predicate `asks_for_potential` is evaluated late
// to save a register.
template <class TileSweeps, class Asks>
__device__ __forceinline__ void potential_and_gradient(TileSweeps& tile, Asks asks_for_potential) {
  const NetworkParams& network = tile.network;
  tile.primal(true);
  const bool with_potential = asks_for_potential();
  if (with_potential || network.head != Head::kScalar) tile.output();
  __syncthreads();  // the output is written
  for_each_row<TileSweeps::kRows>([&](uint32_t i) {
    const auto row = head_row(tile, i);
    if (with_potential) {
      const float s = row.potential();
      if (is_first_lane()) *row.of(tile.rows.s) = s;
    }
    row.seed(row.seed_in(tile.rows.delta), [&](uint32_t k) { return row.output_seed_of(k); });
  });
  tile.reverse();
  __syncthreads();  // the gradient at the input is written
  for_each_row<TileSweeps::kRows>([&](uint32_t i) {
    const auto row = head_row(tile, i);
    float* grad_s = row.of(tile.rows.grad_s, network.dim);
    for_each_component(network.dim, [&](uint32_t k) { grad_s[k] = row.gradient(k); });
  });
  __syncthreads();  // s and the gradient are written
}
