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
  using TileRows<T>::first_slot;

  const T* weights;
  const float* biases;
  ProductMemory memory;
  float* sm_probe_weight;  // [kTileRows]: k of each row, where there are probes

  // Activation l > 0 in a buffer of slots. (The base's name needs `template` before each use.)
  template <class E>
  __device__ __forceinline__ E* at(void* buffer, uint32_t l, uint32_t k = 0) const {
    return TileRows<T>::template at<E>(buffer, l, k);
  }

  // Buffers that an elementwise part reads beside its product; null ones count as zeros.
  template <int kBuffers>
  struct Sources {
    const S* of[kBuffers];
  };
  // Eight neighbours of each.
  template <int kBuffers>
  struct Ahead {
    Packed8<S> of[kBuffers];
  };
  struct NoSources {};

  // A tile of columns of a product that is done. Places are counted from the beginning of the buffers that activations lie in, so that addresses are made
  // of the buffers' own, which take no registers.
  template <class P>
  struct Result {
    P& product;
    Lines lines;

    // `visit(place, values, ahead)` for each eight neighbours, where `ahead` is what the sources have there.
    template <int kBuffers, class Visit>
    __device__ __forceinline__ void for_each(const Sources<kBuffers>& sources, Visit visit) const {
      constexpr int kWords = kBuffers * static_cast<int>(sizeof(Packed8<S>)) / 4;
      const auto load = [&](const Place& place) {
        Ahead<kBuffers> ahead{};
#pragma unroll
        for (int i = 0; i < kBuffers; ++i)
          if (sources.of[i] != nullptr) ahead.of[i] = load8(sources.of[i] + place.index);
        return ahead;
      };
      product.template for_each<kWords>(lines, load, visit);
    }
    template <class Visit>
    __device__ __forceinline__ void for_each_sum(Visit visit) const {
      product.for_each_sum(lines, visit);
    }
  };

  enum class Way { kForward, kBackward };

  // `finish(result)` for each tile of columns of W x operand, added to the bias if kBiased, or of W' x operand, where W is that of the layer `map`, and
  // `operand(map)` the operand. The result is that of activation l = map, or map - 1, or lies at `origin_of(l)`; there `finish` will read the sources,
  // which are fetched meanwhile. All that is made of `map` and l is made anew for each tile, so that the products have the registers.
  template <Way kWay, bool kWideProduct, bool kBiased, class Operand, class OriginOf, class From, class Finish>
  __device__ __forceinline__ void multiply(uint32_t layer, Operand operand, OriginOf origin_of, const From& sources, Finish finish) {
    using P = Product<T, kWideProduct, kStages>;
    constexpr bool kForward = kWay == Way::kForward;
#pragma unroll 1
    for (uint32_t column0 = 0;; column0 += P::kColumns) {
      const uint32_t map = opaque(layer);
      const LayerParams& of_map = network.layers[map - 1];
      const uint32_t width = kForward ? of_map.n_out : of_map.n_in, depth = kForward ? of_map.n_in : of_map.n_out;
      if (column0 >= width) break;
      const uint32_t n_columns = min(static_cast<uint32_t>(P::kColumns), width - column0);
      const auto lines = [&] { return Lines{origin_of(kForward ? opaque(layer) : opaque(layer) - 1), width, column0, n_columns}; };
      fetch<P::kColumns>(sources, lines());
      P product;
      product.run(operand(map), weights + (kForward ? of_map.forward : of_map.reverse) + static_cast<size_t>(column0) * depth,
                  kBiased ? biases + of_map.bias + column0 : nullptr, depth, n_columns, column0 == 0, memory);
      finish(Result<P>{product, lines()});
    }
  }
  // The same between activations.
  template <Way kWay, class Operand, class From, class Finish>
  __device__ __forceinline__ void multiply(uint32_t layer, Operand operand, const From& sources, Finish finish) {
    multiply<kWay, kWide, false>(layer, operand, [&](uint32_t l) { return this->origin(l); }, sources, finish);
  }

  // Brings this tile's columns of the sources to L2, line by line, if they are not there.
  template <int kColumns>
  static __device__ __forceinline__ void fetch(NoSources, const Lines&) {}
  template <int kColumns, int kBuffers>
  static __device__ __forceinline__ void fetch(const Sources<kBuffers>& sources, const Lines& lines) {
    constexpr uint32_t kLine = 128 / sizeof(S), kLinesOfRow = kColumns / kLine;  // elements of a line of L2
#pragma unroll
    for (uint32_t i = 0; i < kTileRows * kLinesOfRow; i += kThreads) {
      const uint32_t line = i + this_thread(), column = line % kLinesOfRow * kLine;
      if (column >= lines.n_columns) continue;
      const size_t index = lines.origin + line / kLinesOfRow * lines.width + lines.column0 + column;
#pragma unroll
      for (int k = 0; k < kBuffers; ++k)
        if (sources.of[k] != nullptr) prefetch(sources.of[k] + index);
    }
  }

  // Eight neighbours of `order` times `values`, into `to`.
  template <class E>
  static __device__ __forceinline__ void scale8(const Packed8<S>& order, const float (&values)[8], E* to) {
    float product[8];
    unpack8(order, product);
#pragma unroll
    for (int i = 0; i < 8; ++i) product[i] *= values[i];
    store8(to, pack8<E>(product));
  }

  // The output of the network, or of a tangent, in f32, into probe k of `out` where it has them; its pads are left out.
  template <bool kBiased, class Operand>
  __device__ __forceinline__ void to_output(Operand operand, float* out, uint32_t k = 0) {
    const auto origin_of = [&](uint32_t l) { return (static_cast<size_t>(k) * rows.n_slots + first_slot) * width(l); };
    multiply<Way::kForward, false, kBiased>(network.n_layers, operand, origin_of, NoSources{}, [&](const auto& result) {
      result.for_each_sum([&](const Place& place, float (&o)[8]) {
        if (place.column < network.n_outputs) store8(out + place.index, pack8<float>(o));
      });
    });
  }

  // W' adjoint of the first layer: the gradient at the input, in f32; its pads are left out.
  template <class Adjoint>
  __device__ __forceinline__ void to_input(Adjoint adjoint) {
    const auto origin_of = [&](uint32_t l) { return static_cast<size_t>(first_slot) * width(l); };
    multiply<Way::kBackward, false, false>(1, adjoint, origin_of, NoSources{}, [&](const auto& result) {
      result.for_each_sum([&](const Place& place, float (&u)[8]) {
        if (place.column < network.dim + network.n_features) store8(rows.input_grad + place.index, pack8<float>(u));
      });
    });
  }

  template <class E>
  static __device__ __forceinline__ E* as(void* buffer) {
    return static_cast<E*>(buffer);
  }

  template <Activation kActivation, class R>
  __device__ __forceinline__ void activate(const R& result, bool curved) {
    result.for_each_sum([&](const Place& place, float (&z)[8]) {
      float first[8], second[8], third[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const Orders orders = activation<T, kActivation>(z[i]);
        z[i] = orders.f, first[i] = orders.f1, second[i] = orders.f2, third[i] = orders.f3;
      }
      store8(as<T>(rows.a) + place.index, pack8<T>(z));
      store8(as<S>(rows.f1) + place.index, pack8<S>(first));
      if (!curved) return;
      if (kOrders >= 2) store8(as<S>(kOrders == 3 ? rows.f2 : rows.g) + place.index, pack8<S>(second));
      if (kOrders >= 3) store8(as<S>(rows.u_f3) + place.index, pack8<S>(third));
    });
  }

  // a, f' and, for rows that are `curved`, what kOrders says of the hidden layers.
  __device__ __forceinline__ void primal(bool curved) {
    const auto operand = [&](uint32_t l) { return this->a(l - 1); };
    const auto origin_of = [&](uint32_t l) { return this->origin(l); };
#pragma unroll 1
    for (uint32_t layer = 1; layer < network.n_layers; ++layer) {
      multiply<Way::kForward, kWide, true>(layer, operand, origin_of, NoSources{}, [&](const auto& result) {
        switch (network.activation) {
          case Activation::kSilu: activate<Activation::kSilu>(result, curved); break;
          case Activation::kTanh: activate<Activation::kTanh>(result, curved); break;
          case Activation::kSoftplus: activate<Activation::kSoftplus>(result, curved); break;
          case Activation::kGelu: activate<Activation::kGelu>(result, curved); break;
          case Activation::kSin: activate<Activation::kSin>(result, curved); break;
        }
      });
    }
  }

  __device__ __forceinline__ void output() {
    to_output<true>([&](uint32_t l) { return this->a(l - 1); }, rows.output);
  }

  // delta, and h and u f''' as kOrders says, of the hidden layers from the seed in delta's output; the gradient at the input.
  __device__ __forceinline__ void reverse() {
    const auto operand = [&](uint32_t map) { return at<T>(rows.delta, map); };
    S *f1 = as<S>(rows.f1), *f2 = as<S>(kOrders == 3 ? rows.f2 : rows.g), *h = as<S>(kOrders == 3 ? rows.h : rows.g), *u_f3 = as<S>(rows.u_f3);
    Sources<kOrders> sources{f1};
    if constexpr (kOrders >= 2) sources.of[1] = f2;
    if constexpr (kOrders >= 3) sources.of[2] = u_f3;
#pragma unroll 1
    for (uint32_t layer = network.n_layers; layer > 1; --layer) {
      multiply<Way::kBackward>(layer, operand, sources, [&](const auto& result) {
        result.for_each(sources, [&](const Place& place, float (&u)[8], const Ahead<kOrders>& ahead) {
          scale8(ahead.of[0], u, as<T>(rows.delta) + place.index);
          if constexpr (kOrders >= 2) scale8(ahead.of[1], u, h + place.index);
          if constexpr (kOrders >= 3) scale8(ahead.of[2], u, u_f3 + place.index);
        });
      });
    }
    to_input(operand);
  }

  // c_a and g of the hidden layers from c's input, without probes.
  __device__ __forceinline__ void tangent() {
    const auto operand = [&](uint32_t l) { return this->c(l - 1); };
    const Sources<2> sources{as<S>(rows.f1), as<S>(rows.g)};
#pragma unroll 1
    for (uint32_t layer = 1; layer < network.n_layers; ++layer) {
      multiply<Way::kForward>(layer, operand, sources, [&](const auto& result) {
        result.for_each(sources, [&](const Place& place, float (&c_z)[8], const Ahead<2>& ahead) {
          scale8(ahead.of[0], c_z, as<T>(rows.c) + place.index);
          scale8(ahead.of[1], c_z, as<S>(rows.g) + place.index);
        });
      });
    }
  }

  // The same with probes: e_z and e_a of each, whose curvature joins c_a and g.
  __device__ __forceinline__ void diffusive_tangent() {
    const auto operand = [&](uint32_t l) { return this->c(l - 1); };
    // There is a first probe.
    const Sources<5> sources{as<S>(rows.e_z), as<S>(rows.f1), as<S>(rows.f2), as<S>(rows.h), as<S>(rows.u_f3)};
#pragma unroll 1
    for (uint32_t layer = 1; layer < network.n_layers; ++layer) {
#pragma unroll 1
      for (uint32_t k = 0; k < rows.n_probes; ++k) {
        const Sources<1> f1{as<S>(rows.f1)};
        multiply<Way::kForward>(layer, [&](uint32_t l) { return this->e_a(l - 1, k); }, f1, [&](const auto& result) {
          result.for_each(f1, [&](const Place& place, float (&z)[8], const Ahead<1>& ahead) {
            const size_t index = k * this->probe_pitch() + place.index;
            store8(as<S>(rows.e_z) + index, pack8<S>(z));
            scale8(ahead.of[0], z, as<T>(rows.e_a) + index);
          });
        });
      }
      multiply<Way::kForward>(layer, operand, sources, [&](const auto& result) {
        result.for_each(sources, [&](const Place& place, float (&c_z)[8], const Ahead<5>& ahead) {
          float squares[8] = {}, order[8], other[8];
          const auto add_probe = [&](const Packed8<S>& of_probe) {
            unpack8(of_probe, order);
#pragma unroll
            for (int i = 0; i < 8; ++i) squares[i] = fmaf(order[i], order[i], squares[i]);
          };
          add_probe(ahead.of[0]);
#pragma unroll 1
          for (uint32_t k = 1; k < rows.n_probes; ++k) add_probe(load8(as<S>(rows.e_z) + (k * this->probe_pitch() + place.index)));
          const float weight = sm_probe_weight[place.row];
#pragma unroll
          for (int i = 0; i < 8; ++i) squares[i] *= weight;
          // An order along c, with the curvature of the next.
          const auto bend = [&](const Packed8<S>& along, const Packed8<S>& next) {
            unpack8(along, order);
            unpack8(next, other);
#pragma unroll
            for (int i = 0; i < 8; ++i) order[i] = fmaf(order[i], c_z[i], squares[i] * other[i]);
          };
          bend(ahead.of[1], ahead.of[2]);
          store8(as<T>(rows.c) + place.index, pack8<T>(order));
          bend(ahead.of[3], ahead.of[4]);
          store8(as<S>(rows.g) + place.index, pack8<S>(order));
        });
      });
    }
  }

  // The outputs of the tangents: o_c, and o_e of each probe.
  __device__ __forceinline__ void tangent_outputs() {
    if (kOrders == 3 && network.head != Head::kScalar) {
#pragma unroll 1
      for (uint32_t k = 0; k < rows.n_probes; ++k)
        to_output<false>([&](uint32_t l) { return this->e_a(l - 1, k); }, rows.output_e, k);
    }
    to_output<false>([&](uint32_t l) { return this->c(l - 1); }, rows.output_c);
  }

  // z_bar of the hidden layers from its seed, and with probes e_bar of each from theirs. `interior` rows have g.
  __device__ __forceinline__ void adjoint(bool interior) {
    const Sources<2> sources{as<S>(rows.f1), interior ? as<S>(rows.g) : nullptr};
#pragma unroll 1
    for (uint32_t layer = network.n_layers; layer > 1; --layer) {
      if (kOrders == 3 && interior) {
#pragma unroll 1
        for (uint32_t k = 0; k < rows.n_probes; ++k) adjoint_of_probe(layer, k);
      }
      multiply<Way::kBackward>(layer, [&](uint32_t map) { return at<T>(rows.z_bar, map); }, sources, [&](const auto& result) {
        result.for_each(sources, [&](const Place& place, float (&a_bar)[8], const Ahead<2>& ahead) {
          float order[8], sum[8];
          unpack8(ahead.of[0], order);
          unpack8(ahead.of[1], sum);
#pragma unroll
          for (int i = 0; i < 8; ++i) sum[i] = fmaf(order[i], a_bar[i], sum[i]);
          store8(as<T>(rows.z_bar) + place.index, pack8<T>(sum));
        });
      });
    }
  }

 private:
  // e_bar of probe k at the input of `layer`, and its part of g. e_z makes way for e_bar, in the type of operands.
  __device__ __forceinline__ void adjoint_of_probe(uint32_t layer, uint32_t k) {
    const Sources<5> sources{as<S>(rows.e_z) + k * this->probe_pitch(), as<S>(rows.f1), as<S>(rows.f2), as<S>(rows.h), as<S>(rows.g)};
    multiply<Way::kBackward>(layer, [&](uint32_t map) { return at<T>(rows.e_z, map, k); }, sources, [&](const auto& result) {
      result.for_each(sources, [&](const Place& place, float (&e_a_bar)[8], const Ahead<5>& ahead) {
        float z[8], order[8], sum[8];
        unpack8(ahead.of[0], z);
        unpack8(ahead.of[2], order);
        unpack8(ahead.of[4], sum);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[i] = fmaf(e_a_bar[i] * order[i], z[i], sum[i]);
        store8(as<S>(rows.g) + place.index, pack8<S>(sum));
        const float twice = 2.0f * sm_probe_weight[place.row];
        unpack8(ahead.of[3], order);
#pragma unroll
        for (int i = 0; i < 8; ++i) z[i] *= twice * order[i];
        unpack8(ahead.of[1], order);
#pragma unroll
        for (int i = 0; i < 8; ++i) z[i] = fmaf(e_a_bar[i], order[i], z[i]);
        store8(as<T>(rows.e_z) + (k * this->probe_pitch() + place.index), pack8<T>(z));
      });
    });
  }
};
