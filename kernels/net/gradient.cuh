// s and its gradient at the rows of a tile, between the primal sweep and the tangent: head, reverse
// sweep, head.
#pragma once
#include "row.cuh"

// The output of the network, if the head or, with `with_potential`, s needs it. Ends with a barrier
// of those who share rows.
template <class TileSweeps>
__device__ __forceinline__ void needed_output(TileSweeps& tile, bool with_potential) {
  if (with_potential || tile.network.head != Head::kScalar) tile.output();
  TileSweeps::sync();  // the output is written
}

// Forms the gradient of s and, if asked for, s, from rows.x and the needed output. Leaves the
// derivatives that kOrders keeps.
template <class TileSweeps>
__device__ __forceinline__ void potential_and_gradient(TileSweeps& tile, bool with_potential) {
  const NetworkParams& network = tile.network;
  if (with_potential) {
    for_each_row<TileSweeps::kRows>([&](uint32_t i) {
      const auto row = head_row(tile, i);
      const float s = row.potential();
      if (RowLanes<TileSweeps::kRows>::is_first()) *row.of(tile.rows.s) = s;
    });
  }
  write_seeds(tile, tile.rows.delta, 0, [&](uint32_t i, uint32_t k) { return head_row(tile, i).output_seed_of(k); });
  tile.reverse();
  TileSweeps::sync();  // the gradient at the input is written
  for_each_value<TileSweeps::kRows>(network.dim, [&](uint32_t i, uint32_t k) {
    const auto row = head_row(tile, i);
    row.of(tile.rows.grad_s, network.dim)[k] = row.gradient(k);
  });
  TileSweeps::sync();  // s and the gradient are written
}
