// Addresses of the rows of a tile and of their scratch memory: see RowBuffers.
#pragma once
#include "../tile/element.cuh"
#include "../tile/opaque.cuh"
#include "abi.h"

template <class T>
struct TileRows {
  const NetworkParams& network;
  const RowBuffers& rows;
  uint32_t first_row, first_slot;

  __device__ __forceinline__ uint32_t width(uint32_t l) const {
    return l == 0 ? network.layers[0].n_in : network.layers[l - 1].n_out;
  }

  // The tile in a per-row or per-slot buffer of `columns` values each, of probe k if it has probes.
  template <class E>
  __device__ __forceinline__ E* of_rows(E* buffer, uint32_t columns, uint32_t k = 0) const {
    return buffer + (static_cast<size_t>(k) * rows.n_rows + opaque(first_row)) * columns;
  }
  template <class E>
  __device__ __forceinline__ E* of_slots(E* buffer, uint32_t columns, uint32_t k = 0) const {
    return buffer + (static_cast<size_t>(k) * rows.n_slots + opaque(first_slot)) * columns;
  }

  // Start of activation l > 0 in a per-slot buffer, and the distance to the next probe's.
  __device__ __forceinline__ size_t origin(uint32_t l) const {
    return static_cast<size_t>(network.layers[l - 1].offset) * rows.n_slots +
           static_cast<size_t>(opaque(first_slot)) * width(l);
  }
  __device__ __forceinline__ size_t probe_pitch() const {
    return static_cast<size_t>(network.row_elements) * rows.n_slots;
  }
  template <class E>
  __device__ __forceinline__ E* at(void* buffer, uint32_t l, uint32_t k = 0) const {
    return static_cast<E*>(buffer) + (k * probe_pitch() + origin(l));
  }

  // Seed sums of warp `warp` for the tile in slots `tile`.
  __device__ __forceinline__ float* seed_sums(uint32_t tile, uint32_t warp) const {
    return rows.seed_sums + static_cast<size_t>(tile * kWarps + warp) * width(network.n_layers);
  }

  // Activations, tangents and probes; l = 0 is the input.
  __device__ __forceinline__ T* a(uint32_t l) const {
    if (l == 0) return of_rows(static_cast<T*>(rows.a_in), width(0));
    return at<T>(rows.a, l);
  }
  __device__ __forceinline__ T* c(uint32_t l) const {
    if (l == 0) return of_slots(static_cast<T*>(rows.c_in), width(0));
    return at<T>(rows.c, l);
  }
  __device__ __forceinline__ T* e_a(uint32_t l, uint32_t k) const {
    if (l == 0) return of_rows(static_cast<T*>(rows.e_in), width(0), k);
    return at<T>(rows.e_a, l, k);
  }
};
