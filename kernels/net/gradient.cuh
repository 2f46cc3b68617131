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
  TileSweeps::sync();  // the output is written
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
