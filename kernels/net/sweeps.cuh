// The four sweeps over one tile of rows, each a chain of products with its elementwise part in the epilogue: twin of
// src/engine/cpu/sweeps.rs.
//
//   primal    z = W a + b    a = f(z), f'(z), f''(z)
//   reverse   u = W' delta   delta = u f', h = u f''
//   tangent   c_z = W c      c_a = f' c_z, g = h c_z
//   adjoint   a_bar = W' z_bar   z_bar = f' a_bar + g
//
// The weight of the interior term is folded into the tangent's seed, so c and g arrive scaled.
#pragma once
#include "../params.h"
#include "../tile/product.cuh"
#include "activation.cuh"
#include "element.cuh"

template <class T, Activation kActivation>
struct Sweeps {
  const NetworkParams& network;
  const RowBuffers& rows;
  const T* weights;
  const float* biases;
  unsigned char* sm_stages;
  size_t first_row;

  // `visit(index, column, value)` for each element of operand x weights, index = row * width + column of the result. A product waits for what
  // the block wrote before it; whoever else reads a result must wait itself.
  template <class Visit>
  __device__ __forceinline__ void multiply(const void* operand, uint32_t depth, const T* weight, uint32_t width, Visit visit) {
    const T* a = static_cast<const T*>(operand) + first_row * depth;
    for (uint32_t column0 = 0; column0 < width; column0 += kTileColumns) {
      Product<T> product;
      product.run(a, depth, weight + static_cast<size_t>(column0) * depth, depth, depth, sm_stages);
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int n = 0; n < 4; ++n)
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            const uint32_t column = column0 + product.column(n, k);
            visit((first_row + product.row(m, k)) * width + column, column, product.acc[m][n].value[k]);
          }
    }
  }

  template <class Visit>
  __device__ __forceinline__ void forward(uint32_t layer, void* const* operand, Visit visit) {
    const LayerParams& map = network.layers[layer - 1];
    multiply(operand[layer - 1], map.n_in, weights + map.forward, map.n_out, visit);
  }

  template <class Visit>
  __device__ __forceinline__ void backward(uint32_t layer, void* const* operand, Visit visit) {
    const LayerParams& map = network.layers[layer - 1];
    multiply(operand[layer], map.n_out, weights + map.reverse, map.n_in, visit);
  }

  // a, f' and f'' of the hidden layers, and the output.
  __device__ void primal() {
    for (uint32_t layer = 1; layer < network.n_layers; ++layer) {
      const float* bias = biases + network.layers[layer - 1].bias;
      T* a = static_cast<T*>(rows.a[layer]);
      float *f1 = rows.f1[layer], *f2 = rows.g[layer];
      forward(layer, rows.a, [&](size_t index, uint32_t column, float z) {
        const Orders orders = activation<kActivation>(z + bias[column]);
        a[index] = to_element<T>(orders.f);
        f1[index] = orders.f1;
        f2[index] = orders.f2;
      });
    }
    const float* bias = biases + network.layers[network.n_layers - 1].bias;
    forward(network.n_layers, rows.a, [&](size_t index, uint32_t column, float z) { rows.output[index] = z + bias[column]; });
  }

  // delta and h of the hidden layers from the seed in delta[n_layers], and the gradient at the input.
  __device__ void reverse() {
    for (uint32_t layer = network.n_layers; layer > 1; --layer) {
      T* delta = static_cast<T*>(rows.delta[layer - 1]);
      float *f1 = rows.f1[layer - 1], *h = rows.g[layer - 1];
      backward(layer, rows.delta, [&](size_t index, uint32_t, float u) {
        delta[index] = to_element<T>(u * f1[index]);
        h[index] *= u;
      });
    }
    backward(1, rows.delta, [&](size_t index, uint32_t, float u) { rows.input_grad[index] = u; });
  }

  // c_a and g of the hidden layers from c[0], and the tangent of the output.
  __device__ void tangent() {
    for (uint32_t layer = 1; layer < network.n_layers; ++layer) {
      T* c = static_cast<T*>(rows.c[layer]);
      float *f1 = rows.f1[layer], *g = rows.g[layer];
      forward(layer, rows.c, [&](size_t index, uint32_t, float c_z) {
        c[index] = to_element<T>(f1[index] * c_z);
        g[index] *= c_z;
      });
    }
    forward(network.n_layers, rows.c, [&](size_t index, uint32_t, float o_c) { rows.output_c[index] = o_c; });
  }

  // z_bar of the hidden layers from its seed in z_bar[n_layers].
  __device__ void adjoint() {
    for (uint32_t layer = network.n_layers; layer > 1; --layer) {
      T* z_bar = static_cast<T*>(rows.z_bar[layer - 1]);
      float *f1 = rows.f1[layer - 1], *g = rows.g[layer - 1];
      backward(layer, rows.z_bar, [&](size_t index, uint32_t, float a_bar) {
        z_bar[index] = to_element<T>(fmaf(f1[index], a_bar, g[index]));
      });
    }
  }
};
