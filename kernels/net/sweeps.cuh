// The sweeps over one tile of rows, each a chain of products with its elementwise part behind it: twin of src/engine/cpu/sweeps.rs.
//
//   primal    z = W a + b    a = f(z), f'(z), f''(z)
//   reverse   u = W' delta   delta = u f', h = u f''
//   tangent   c_z = W c      c_a = f' c_z, g = h c_z
//   adjoint   a_bar = W' z_bar   z_bar = f' a_bar + g
//
// and with probes of weight k
//
//   primal           f'''(z) too
//   reverse          h beside f'', u f'''
//   probe tangent    e_z = W e      e_a = f' e_z
//   tangent          c_a = f' c_z + k f'' Σ e_z², g = h c_z + k u f''' Σ e_z²
//   probe adjoint    e_a_bar = W' e_bar   e_bar = f' e_a_bar + 2 k h e_z, g += e_a_bar f'' e_z
//
// The weight of the interior term is folded into the tangent's seed, so c and g arrive scaled. kOrders: derivatives of the activation kept: 1 for
// a gradient alone, 2 for interior rows, 3 with probes. kWide: wide products, right for every network; the others are for
// layers of no more than 64 columns.
//
// A product waits for what the block wrote before it; whoever else reads a result must wait itself.
#pragma once
#include "../params.h"
#include "../tile/product.cuh"
#include "activation.cuh"
#include "tile_rows.cuh"

template <class T, int kOrders, bool kWide = true>
struct Sweeps : TileRows<T> {
  using Operand = T;
  static constexpr bool kProbes = kOrders == 3;
  static constexpr int kStages = kWide ? 3 : 2;
  using S = State<T>;
  using TileRows<T>::network;
  using TileRows<T>::rows;
  using TileRows<T>::width;
  using TileRows<T>::of_rows;
  using TileRows<T>::of_slots;

  const T* weights;
  const float* biases;
  ProductMemory memory;
  float* sm_probe_weight;  // [kTileRows]: k of each row, where there are probes

  // Activation l > 0 in a buffer of slots. (The base's name needs `template` before each use.)
  template <class E>
  __device__ __forceinline__ E* at(void* buffer, uint32_t l, uint32_t k = 0) const {
    return TileRows<T>::template at<E>(buffer, l, k);
  }

  // `visit(product, column0, n_columns)` for each tile of columns of operand x weights.
  template <bool kWideProduct, class Visit>
  __device__ __forceinline__ void multiply(const T* operand, uint32_t depth, const T* weight, uint32_t n, Visit visit) {
#pragma unroll 1
    for (uint32_t column0 = 0; column0 < n; column0 += Product<T, kWideProduct, kStages>::kColumns) {
      const uint32_t n_columns = min(static_cast<uint32_t>(Product<T, kWideProduct, kStages>::kColumns), n - column0);
      Product<T, kWideProduct, kStages> product;
      product.run(operand, weight + static_cast<size_t>(column0) * depth, depth, n_columns, column0 == 0, memory);
      visit(product, column0, n_columns);
    }
  }

  // `visit(index, column, values)` for each four neighbours of W x operand at the output of `layer`, or W' x operand at its input.
  template <class Visit>
  __device__ __forceinline__ void forward(uint32_t layer, const T* operand, Visit visit) {
    const LayerParams& map = network.layers[layer - 1];
    multiply<kWide>(operand, map.n_in, weights + map.forward, map.n_out, [&](auto& product, uint32_t column0, uint32_t n) {
      product.for_each(map.n_out, column0, n, visit);
    });
  }
  template <class Visit>
  __device__ __forceinline__ void backward(uint32_t layer, const T* operand, Visit visit) {
    const LayerParams& map = network.layers[layer - 1];
    multiply<kWide>(operand, map.n_out, weights + map.reverse, map.n_in, [&](auto& product, uint32_t column0, uint32_t n) {
      product.for_each(map.n_in, column0, n, visit);
    });
  }

  // Four neighbours of `order` times `values`, into `to`, which may be `order`.
  template <class E>
  static __device__ __forceinline__ void scale4(const S* order, const float (&values)[4], E* to, uint32_t index) {
    float product[4];
    load4(order + index, product);
#pragma unroll
    for (int i = 0; i < 4; ++i) product[i] *= values[i];
    store4(to + index, product);
  }

  // The output of the network, or of a tangent, in f32; its pads are left out.
  __device__ __forceinline__ void to_output(const T* operand, const float* bias, float* out) {
    const LayerParams& map = network.layers[network.n_layers - 1];
    multiply<false>(operand, map.n_in, weights + map.forward, map.n_out, [&](auto& product, uint32_t column0, uint32_t n) {
      product.for_each(map.n_out, column0, n, [&](uint32_t index, uint32_t column, float (&o)[4]) {
        if (column >= network.n_outputs) return;
        if (bias != nullptr) {
          float b[4];
          load4(bias + column, b);
#pragma unroll
          for (int i = 0; i < 4; ++i) o[i] += b[i];
        }
        store4(out + index, o);
      });
    });
  }

  // W' adjoint of the first layer: the gradient at the input, in f32; its pads are left out.
  __device__ __forceinline__ void to_input(const T* adjoint) {
    const LayerParams& map = network.layers[0];
    float* out = of_slots(rows.input_grad, map.n_in);
    multiply<false>(adjoint, map.n_out, weights + map.reverse, map.n_in, [&](auto& product, uint32_t column0, uint32_t n) {
      product.for_each(map.n_in, column0, n, [&](uint32_t index, uint32_t column, float (&u)[4]) {
        if (column < network.dim + network.n_features) store4(out + index, u);
      });
    });
  }

  template <Activation kActivation, class P>
  __device__ __forceinline__ void activate(P& product, uint32_t layer, uint32_t column0, uint32_t n_columns, bool curved) {
    const float* bias = biases + network.layers[layer - 1].bias;
    T* a = at<T>(rows.a, layer);
    S* f1 = at<S>(rows.f1, layer);
    S* f2 = kOrders < 2 ? nullptr : at<S>(kOrders == 3 ? rows.f2 : rows.g, layer);
    S* f3 = kOrders < 3 ? nullptr : at<S>(rows.u_f3, layer);
    product.for_each(network.layers[layer - 1].n_out, column0, n_columns, [&](uint32_t index, uint32_t column, float (&z)[4]) {
      float b[4], first[4], second[4], third[4];
      load4(bias + column, b);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const Orders orders = activation<T, kActivation>(z[i] + b[i]);
        z[i] = orders.f, first[i] = orders.f1, second[i] = orders.f2, third[i] = orders.f3;
      }
      store4(a + index, z);
      store4(f1 + index, first);
      if (kOrders >= 2 && curved) store4(f2 + index, second);
      if (kOrders >= 3 && curved) store4(f3 + index, third);
    });
  }

  // a, f' and, for rows that are `curved`, what kOrders says of the hidden layers.
  __device__ __forceinline__ void primal(bool curved) {
#pragma unroll 1
    for (uint32_t layer = 1; layer < network.n_layers; ++layer) {
      const LayerParams& map = network.layers[layer - 1];
      multiply<kWide>(this->a(layer - 1), map.n_in, weights + map.forward, map.n_out,
                     [&](auto& product, uint32_t column0, uint32_t n) {
                       switch (network.activation) {
                         case Activation::kSilu: activate<Activation::kSilu>(product, layer, column0, n, curved); break;
                         case Activation::kTanh: activate<Activation::kTanh>(product, layer, column0, n, curved); break;
                         case Activation::kSoftplus: activate<Activation::kSoftplus>(product, layer, column0, n, curved); break;
                         case Activation::kGelu: activate<Activation::kGelu>(product, layer, column0, n, curved); break;
                         case Activation::kSin: activate<Activation::kSin>(product, layer, column0, n, curved); break;
                       }
                     });
    }
  }

  __device__ __forceinline__ void output() {
    const LayerParams& map = network.layers[network.n_layers - 1];
    to_output(this->a(network.n_layers - 1), biases + map.bias, of_slots(rows.output, map.n_out));
  }

  // delta, and h and u f''' as kOrders says, of the hidden layers from the seed in delta's output; the gradient at the input.
  __device__ __forceinline__ void reverse() {
#pragma unroll 1
    for (uint32_t layer = network.n_layers; layer > 1; --layer) {
      T* delta = at<T>(rows.delta, layer - 1);
      const S* f1 = at<S>(rows.f1, layer - 1);
      S* h = kOrders < 2 ? nullptr : at<S>(kOrders == 3 ? rows.h : rows.g, layer - 1);
      const S* f2 = kOrders == 3 ? at<S>(rows.f2, layer - 1) : h;
      S* u_f3 = kOrders < 3 ? nullptr : at<S>(rows.u_f3, layer - 1);
      backward(layer, at<T>(rows.delta, layer), [&](uint32_t index, uint32_t, float (&u)[4]) {
        scale4(f1, u, delta, index);
        if (kOrders >= 2) scale4(f2, u, h, index);
        if (kOrders >= 3) scale4(u_f3, u, u_f3, index);
      });
    }
    to_input(at<T>(rows.delta, 1));
  }

  // c_a and g of the hidden layers from c's input, without probes.
  __device__ __forceinline__ void tangent() {
#pragma unroll 1
    for (uint32_t layer = 1; layer < network.n_layers; ++layer) {
      T* c = at<T>(rows.c, layer);
      const S* f1 = at<S>(rows.f1, layer);
      S* g = at<S>(rows.g, layer);
      forward(layer, this->c(layer - 1), [&](uint32_t index, uint32_t, float (&c_z)[4]) {
        scale4(f1, c_z, c, index);
        scale4(g, c_z, g, index);
      });
    }
  }

  // The same with probes: e_z and e_a of each, whose curvature joins c_a and g.
  __device__ __forceinline__ void diffusive_tangent() {
#pragma unroll 1
    for (uint32_t layer = 1; layer < network.n_layers; ++layer) {
      const S* f1 = at<S>(rows.f1, layer);
#pragma unroll 1
      for (uint32_t k = 0; k < rows.n_probes; ++k) {
        S* e_z = at<S>(rows.e_z, layer, k);
        T* e_a = at<T>(rows.e_a, layer, k);
        forward(layer, this->e_a(layer - 1, k), [&](uint32_t index, uint32_t, float (&z)[4]) {
          store4(e_z + index, z);
          scale4(f1, z, e_a, index);
        });
      }
      T* c = at<T>(rows.c, layer);
      S* g = at<S>(rows.g, layer);
      const S *f2 = at<S>(rows.f2, layer), *h = at<S>(rows.h, layer), *u_f3 = at<S>(rows.u_f3, layer);
      const S* e_z = at<S>(rows.e_z, layer);
      const size_t probe_pitch = static_cast<size_t>(network.places) * rows.n_slots;
      const uint32_t n = width(layer);
      forward(layer, this->c(layer - 1), [&](uint32_t index, uint32_t, float (&c_z)[4]) {
        float squares[4] = {0.0f, 0.0f, 0.0f, 0.0f}, order[4], other[4];
        for (uint32_t k = 0; k < rows.n_probes; ++k) {
          load4(e_z + k * probe_pitch + index, order);
#pragma unroll
          for (int i = 0; i < 4; ++i) squares[i] = fmaf(order[i], order[i], squares[i]);
        }
        const float weight = sm_probe_weight[index / n];
#pragma unroll
        for (int i = 0; i < 4; ++i) squares[i] *= weight;
        load4(f1 + index, order);
        load4(f2 + index, other);
#pragma unroll
        for (int i = 0; i < 4; ++i) order[i] = fmaf(order[i], c_z[i], squares[i] * other[i]);
        store4(c + index, order);
        load4(h + index, order);
        load4(u_f3 + index, other);
#pragma unroll
        for (int i = 0; i < 4; ++i) order[i] = fmaf(order[i], c_z[i], squares[i] * other[i]);
        store4(g + index, order);
      });
    }
  }

  // The outputs of the tangents: o_c, and o_e of each probe.
  __device__ __forceinline__ void tangent_outputs() {
    const uint32_t last = network.n_layers - 1, n = width(network.n_layers);
    if (kOrders == 3 && network.head != Head::kScalar) {
#pragma unroll 1
      for (uint32_t k = 0; k < rows.n_probes; ++k)
        to_output(this->e_a(last, k), nullptr, of_slots(rows.output_e, n, k));
    }
    to_output(this->c(last), nullptr, of_slots(rows.output_c, n));
  }

  // z_bar of the hidden layers from its seed, and with probes e_bar of each from theirs. `interior` rows have g.
  __device__ __forceinline__ void adjoint(bool interior) {
#pragma unroll 1
    for (uint32_t layer = network.n_layers; layer > 1; --layer) {
      const S* f1 = at<S>(rows.f1, layer - 1);
      S* g = at<S>(rows.g, layer - 1);
      if (kOrders == 3 && interior) {
        const S *f2 = at<S>(rows.f2, layer - 1), *h = at<S>(rows.h, layer - 1);
        const uint32_t n = width(layer - 1);
#pragma unroll 1
        for (uint32_t k = 0; k < rows.n_probes; ++k) {
          // e_z makes way for e_bar, in the type of operands.
          const S* e_z = at<S>(rows.e_z, layer - 1, k);
          T* e_bar = at<T>(rows.e_z, layer - 1, k);
          backward(layer, at<T>(rows.e_z, layer, k), [&](uint32_t index, uint32_t, float (&e_a_bar)[4]) {
            float z[4], order[4], sum[4];
            load4(e_z + index, z);
            load4(f2 + index, order);
            load4(g + index, sum);
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[i] = fmaf(e_a_bar[i] * order[i], z[i], sum[i]);
            store4(g + index, sum);
            const float twice = 2.0f * sm_probe_weight[index / n];
            load4(h + index, order);
#pragma unroll
            for (int i = 0; i < 4; ++i) z[i] *= twice * order[i];
            load4(f1 + index, order);
#pragma unroll
            for (int i = 0; i < 4; ++i) z[i] = fmaf(e_a_bar[i], order[i], z[i]);
            store4(e_bar + index, z);
          });
        }
      }
      T* z_bar = at<T>(rows.z_bar, layer - 1);
      backward(layer, at<T>(rows.z_bar, layer), [&](uint32_t index, uint32_t, float (&a_bar)[4]) {
        float order[4], sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        load4(f1 + index, order);
        if (interior) load4(g + index, sum);
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[i] = fmaf(order[i], a_bar[i], sum[i]);
        store4(z_bar + index, sum);
      });
    }
  }
};
