// The sweeps over one tile of rows, each a chain of matrix products with an elementwise part after
// each. Counterpart of src/engine/cpu/sweeps.rs.
//
//   primal    z = W a + b    a = f(z), f'(z), f''(z)
//   reverse   u = W' delta   delta = u f', h = u f''
//   tangent   c_z = W c      c_a = f' c_z, g = h c_z
//   adjoint   a_bar = W' z_bar   z_bar = f' a_bar + g
//
// and with probes of weight k
//
//   primal           f'''(z) too
//   reverse          h in addition to f'', u f'''
//   probe tangent    e_z = W e      e_a = f' e_z
//   tangent          c_a = f' c_z + k f'' Σ e_z², g = h c_z + k u f''' Σ e_z²
//   probe adjoint    e_a_bar = W' e_bar   e_bar = f' e_a_bar + 2 k h e_z, g += e_a_bar f'' e_z
//
// The weight of the interior term is folded into the tangent's seed, so c and g arrive scaled.
// kOrders: number of activation derivatives that are kept: 1 for a gradient alone, 2 for interior
// rows, 3 with probes. kColumns: those that a product forms at a time; kNarrowColumns is for layers
// that have no more.
//
// A sweep's operand stays in shared memory from product to product: the elementwise part of one
// stores its result where the next one finds its left operand. It goes to global memory only if a
// weight gradient reads it (kOperands), or if it does not fit: if the layer has more than kColumns
// columns, so that the operand is still needed when the first of them are done, or more than shared
// memory has room for.
//
// Every product begins with a barrier. Any other reader of a result needs its own.
#pragma once
#include "../tile/product.cuh"
#include "abi.h"
#include "activation.cuh"
#include "tile_rows.cuh"

// What becomes of operands after their sweep.
enum class Operands { kDiscard, kKeepForGradient };

template <class T, int kOrders, int kColumns, Operands kOperands>
struct Sweeps : TileRows<T> {
  using Operand = T;
  static constexpr bool kProbes = kOrders == 3;
  // With probes, and registers for two blocks, the reverse sweep has none to address shared memory.
  static constexpr bool kReverseStays = !kProbes || kColumns != kWideColumns;
  static constexpr int kStages = kColumns == kNarrowColumns ? kNarrowStages : kWideStages;
  using S = State<T>;
  using TileRows<T>::network;
  using TileRows<T>::rows;
  using TileRows<T>::width;
  using TileRows<T>::first_slot;

  const T* weights;
  const float* biases;
  ProductMemory memory;
  float* sm_probe_weight;  // [kTileRows]: k of each row; only with probes

  // Activation l > 0 in a buffer of slots. (The base's name needs `template` before each use.)
  template <class E>
  __device__ __forceinline__ E* at(void* buffer, uint32_t l, uint32_t k = 0) const {
    return TileRows<T>::template at<E>(buffer, l, k);
  }

  // Buffers that an elementwise part reads besides its product; null counts as zeros.
  template <int kBuffers>
  struct Sources {
    const S* of[kBuffers];
  };
  // Eight consecutive elements of each.
  template <int kBuffers>
  struct Ahead {
    Packed8<S> of[kBuffers];
  };
  struct NoSources {};

  // A finished column tile of a product. Indices are relative to the start of the activation
  // buffers, so addresses use kernel parameters directly and cost no registers.
  template <class P>
  struct Result {
    P& product;
    Lines lines;

    // Calls `visit(element, values, ahead)` for each eight consecutive elements; `ahead` holds
    // those of the sources.
    template <int kBuffers, class Visit>
    __device__ __forceinline__ void for_each(const Sources<kBuffers>& sources, Visit visit) const {
      constexpr int kWords = kBuffers * static_cast<int>(sizeof(Packed8<S>)) / 4;
      const auto load = [&](const ElementIndex& element) {
        Ahead<kBuffers> ahead{};
#pragma unroll
        for (int i = 0; i < kBuffers; ++i)
          if (sources.of[i] != nullptr) ahead.of[i] = load8(sources.of[i] + element.index);
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

  // True if a product's result of `width` columns can take its operand's place in shared memory.
  __device__ __forceinline__ bool stays(uint32_t width) const {
    return width <= kColumns && width * sizeof(T) <= memory.n_operand_chunks * kChunkBytes;
  }

  // Where the operand of `layer` lies in a chain of products: the first one's is in global memory,
  // and so are all if the chain is not `alone` (see `chain`).
  template <Way kWay>
  __device__ __forceinline__ OperandIn operand_in(uint32_t layer, bool alone) const {
    const bool is_first = kWay == Way::kForward ? layer == 1 : layer == network.n_layers;
    const uint32_t l = kWay == Way::kForward ? layer - 1 : layer;
    return alone && !is_first && stays(width(l)) ? OperandIn::kShared : OperandIn::kGlobal;
  }

  // Stores elements of the next operand, at their index in `buffer` if they have to leave.
  __device__ __forceinline__ void hand_on(T* buffer, const ElementIndex& element, const Packed8<T>& eight,
                                          bool stays) const {
    if (stays) memory.store_operand(element, eight);
    if (!stays || kOperands == Operands::kKeepForGradient) store8(buffer + element.index, eight);
  }

  // Forms W x operand (plus the bias if kBiased) or, backward, W' x operand, and calls
  // `finish(result, stays)` for each column tile. W belongs to the layer `map`; `operand(map)`
  // returns the operand, which lies in `operand_in`. The result belongs to activation l = map, or
  // l = map - 1 backward, and lies at `origin_of(l)`. `finish` reads the sources there, which are
  // prefetched meanwhile; if `hands_on` and the result stays, it may take the operand's place.
  // Addresses are recomputed for every tile to leave registers to the product (opaque.cuh).
  template <Way kWay, int kColumnsAtOnce, bool kBiased, class Operand, class OriginOf, class From, class Finish>
  __device__ __forceinline__ void multiply(uint32_t layer, OperandIn operand_in, bool hands_on, Operand operand,
                                           OriginOf origin_of, const From& sources, Finish finish) {
    using P = Product<T, kColumnsAtOnce, kStages>;
    constexpr bool kForward = kWay == Way::kForward;
#pragma unroll 1
    for (uint32_t column0 = 0;; column0 += P::kColumns) {
      const uint32_t map = opaque(layer);
      const LayerParams& of_map = network.layers[map - 1];
      const uint32_t width = kForward ? of_map.n_out : of_map.n_in, depth = kForward ? of_map.n_in : of_map.n_out;
      if (column0 >= width) break;
      const uint32_t n_columns = min(static_cast<uint32_t>(P::kColumns), width - column0);
      const auto lines = [&] {
        return Lines{origin_of(kForward ? opaque(layer) : opaque(layer) - 1), width, column0, n_columns};
      };
      fetch<P::kColumns>(sources, lines());
      P product;
      product.run(operand(map),
                  weights + (kForward ? of_map.forward : of_map.reverse) + static_cast<size_t>(column0) * depth,
                  kBiased ? biases + of_map.bias + column0 : nullptr, depth, n_columns,
                  column0 == 0 ? operand_in : OperandIn::kShared, memory);
      const bool stays_here = hands_on && stays(kForward ? opaque(of_map.n_out) : opaque(of_map.n_in));
      if (stays_here) __syncthreads();  // all warps have read the operand that the result replaces
      finish(Result<P>{product, lines()}, stays_here);
    }
  }
  // A product of a chain, in which its result is the next one's operand. If several chains take
  // turns, layer by layer, no chain is `alone` and operands pass through global memory.
  template <Way kWay, bool kBiased = false, class Operand, class From, class Finish>
  __device__ __forceinline__ void chain(uint32_t layer, bool alone, Operand operand, const From& sources,
                                        Finish finish) {
    multiply<kWay, kColumns, kBiased>(
        layer, operand_in<kWay>(layer, alone), alone, operand, [&](uint32_t l) { return this->origin(l); }, sources,
        finish);
  }

  // Prefetches this tile's columns of the sources into L2, line by line.
  template <int kOfTile>
  static __device__ __forceinline__ void fetch(NoSources, const Lines&) {}
  template <int kOfTile, int kBuffers>
  static __device__ __forceinline__ void fetch(const Sources<kBuffers>& sources, const Lines& lines) {
    constexpr uint32_t kLine = 128 / sizeof(S), kLinesOfRow = kOfTile / kLine;  // elements per line of L2
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

  // Eight consecutive elements of `order` times `values`.
  template <class E>
  static __device__ __forceinline__ Packed8<E> scale8(const Packed8<S>& order, const float (&values)[8]) {
    float product[8];
    unpack8(order, product);
#pragma unroll
    for (int i = 0; i < 8; ++i) product[i] *= values[i];
    return pack8<E>(product);
  }

  // Stores the output of the network or of a tangent, in f32, to probe k of `out`. Padding is not
  // written. `alone`: see `chain`.
  template <bool kBiased, class Operand>
  __device__ __forceinline__ void to_output(bool alone, Operand operand, float* out, uint32_t k = 0) {
    const auto origin_of = [&](uint32_t l) { return (static_cast<size_t>(k) * rows.n_slots + first_slot) * width(l); };
    multiply<Way::kForward, kNarrowColumns, kBiased>(
        network.n_layers, operand_in<Way::kForward>(network.n_layers, alone), false, operand, origin_of, NoSources{},
        [&](const auto& result, bool) {
          result.for_each_sum([&](const ElementIndex& element, float (&o)[8]) {
            if (element.column < network.n_outputs) store8(out + element.index, pack8<float>(o));
          });
        });
  }

  // Stores W' adjoint of the first layer, the gradient at the input, in f32. Padding is not
  // written. `alone`: see `chain`.
  template <class Adjoint>
  __device__ __forceinline__ void to_input(bool alone, Adjoint adjoint) {
    const auto origin_of = [&](uint32_t l) { return static_cast<size_t>(first_slot) * width(l); };
    multiply<Way::kBackward, kNarrowColumns, false>(
        1, operand_in<Way::kBackward>(1, alone), false, adjoint, origin_of, NoSources{}, [&](const auto& result, bool) {
          result.for_each_sum([&](const ElementIndex& element, float (&u)[8]) {
            if (element.column < network.dim + network.n_features)
              store8(rows.input_grad + element.index, pack8<float>(u));
          });
        });
  }

  template <class E>
  static __device__ __forceinline__ E* as(void* buffer) {
    return static_cast<E*>(buffer);
  }

  template <Activation kActivation, class R>
  __device__ __forceinline__ void activate(const R& result, bool stays, bool curved) {
    result.for_each_sum([&](const ElementIndex& element, float (&z)[8]) {
      float first[8], second[8], third[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const Orders orders = activation<T, kActivation>(z[i]);
        z[i] = orders.f, first[i] = orders.f1, second[i] = orders.f2, third[i] = orders.f3;
      }
      hand_on(as<T>(rows.a), element, pack8<T>(z), stays);
      store8(as<S>(rows.f1) + element.index, pack8<S>(first));
      if (!curved) return;
      if (kOrders >= 2) store8(as<S>(kOrders == 3 ? rows.f2 : rows.g) + element.index, pack8<S>(second));
      if (kOrders >= 3) store8(as<S>(rows.u_f3) + element.index, pack8<S>(third));
    });
  }

  // Primal sweep of the hidden layers: a, f' and, if `curved`, the further derivatives that kOrders
  // keeps.
  __device__ __forceinline__ void primal(bool curved) {
    const auto operand = [&](uint32_t l) { return this->a(l - 1); };
#pragma unroll 1
    for (uint32_t layer = 1; layer < network.n_layers; ++layer) {
      chain<Way::kForward, true>(layer, true, operand, NoSources{}, [&](const auto& result, bool stays) {
        switch (network.activation) {
          case Activation::kSilu: activate<Activation::kSilu>(result, stays, curved); break;
          case Activation::kTanh: activate<Activation::kTanh>(result, stays, curved); break;
          case Activation::kSoftplus: activate<Activation::kSoftplus>(result, stays, curved); break;
          case Activation::kGelu: activate<Activation::kGelu>(result, stays, curved); break;
          case Activation::kSin: activate<Activation::kSin>(result, stays, curved); break;
        }
      });
    }
  }

  __device__ __forceinline__ void output() {
    to_output<true>(true, [&](uint32_t l) { return this->a(l - 1); }, rows.output);
  }

  // Reverse sweep, from the seed in delta of the output: delta of the hidden layers, h and u f'''
  // as kOrders asks, and the gradient at the input.
  __device__ __forceinline__ void reverse() {
    const auto operand = [&](uint32_t map) { return at<T>(rows.delta, map); };
    S *f1 = as<S>(rows.f1), *f2 = as<S>(kOrders == 3 ? rows.f2 : rows.g), *h = as<S>(kOrders == 3 ? rows.h : rows.g),
      *u_f3 = as<S>(rows.u_f3);
    Sources<kOrders> sources{f1};
    if constexpr (kOrders >= 2) sources.of[1] = f2;
    if constexpr (kOrders >= 3) sources.of[2] = u_f3;
#pragma unroll 1
    for (uint32_t layer = network.n_layers; layer > 1; --layer) {
      chain<Way::kBackward>(layer, kReverseStays, operand, sources, [&](const auto& result, bool stays) {
        result.for_each(sources, [&](const ElementIndex& element, float (&u)[8], const Ahead<kOrders>& ahead) {
          hand_on(as<T>(rows.delta), element, scale8<T>(ahead.of[0], u), stays);
          if constexpr (kOrders >= 2) store8(h + element.index, scale8<S>(ahead.of[1], u));
          if constexpr (kOrders >= 3) store8(u_f3 + element.index, scale8<S>(ahead.of[2], u));
        });
      });
    }
    to_input(kReverseStays, operand);
  }

  // Tangent sweep without probes: c_a and g of the hidden layers, from c at the input.
  __device__ __forceinline__ void tangent() {
    const auto operand = [&](uint32_t l) { return this->c(l - 1); };
    const Sources<2> sources{as<S>(rows.f1), as<S>(rows.g)};
#pragma unroll 1
    for (uint32_t layer = 1; layer < network.n_layers; ++layer) {
      chain<Way::kForward>(layer, true, operand, sources, [&](const auto& result, bool stays) {
        result.for_each(sources, [&](const ElementIndex& element, float (&c_z)[8], const Ahead<2>& ahead) {
          hand_on(as<T>(rows.c), element, scale8<T>(ahead.of[0], c_z), stays);
          store8(as<S>(rows.g) + element.index, scale8<S>(ahead.of[1], c_z));
        });
      });
    }
  }

  // Tangent sweep with probes: also e_z and e_a of each probe, whose curvature is added to c_a and
  // g.
  __device__ __forceinline__ void diffusive_tangent() {
    const auto operand = [&](uint32_t l) { return this->c(l - 1); };
    // At least one probe exists, so e_z of the first is among the sources.
    const Sources<5> sources{as<S>(rows.e_z), as<S>(rows.f1), as<S>(rows.f2), as<S>(rows.h), as<S>(rows.u_f3)};
#pragma unroll 1
    for (uint32_t layer = 1; layer < network.n_layers; ++layer) {
#pragma unroll 1
      for (uint32_t k = 0; k < rows.n_probes; ++k) {
        const Sources<1> f1{as<S>(rows.f1)};
        chain<Way::kForward>(
            layer, false, [&](uint32_t l) { return this->e_a(l - 1, k); }, f1,
            [&](const auto& result, bool) {
              result.for_each(f1, [&](const ElementIndex& element, float (&z)[8], const Ahead<1>& ahead) {
                const size_t index = k * this->probe_pitch() + element.index;
                store8(as<S>(rows.e_z) + index, pack8<S>(z));
                store8(as<T>(rows.e_a) + index, scale8<T>(ahead.of[0], z));
              });
            });
      }
      chain<Way::kForward>(layer, false, operand, sources, [&](const auto& result, bool) {
        result.for_each(sources, [&](const ElementIndex& element, float (&c_z)[8], const Ahead<5>& ahead) {
          float squares[8] = {}, order[8], other[8];
          const auto add_probe = [&](const Packed8<S>& of_probe) {
            unpack8(of_probe, order);
#pragma unroll
            for (int i = 0; i < 8; ++i) squares[i] = fmaf(order[i], order[i], squares[i]);
          };
          add_probe(ahead.of[0]);
#pragma unroll 1
          for (uint32_t k = 1; k < rows.n_probes; ++k)
            add_probe(load8(as<S>(rows.e_z) + (k * this->probe_pitch() + element.index)));
          const float weight = sm_probe_weight[element.row];
#pragma unroll
          for (int i = 0; i < 8; ++i) squares[i] *= weight;
          // One derivative times c_z, plus the next derivative times the curvature.
          const auto add_curvature = [&](const Packed8<S>& along, const Packed8<S>& next) {
            unpack8(along, order);
            unpack8(next, other);
#pragma unroll
            for (int i = 0; i < 8; ++i) order[i] = fmaf(order[i], c_z[i], squares[i] * other[i]);
          };
          add_curvature(ahead.of[1], ahead.of[2]);
          store8(as<T>(rows.c) + element.index, pack8<T>(order));
          add_curvature(ahead.of[3], ahead.of[4]);
          store8(as<S>(rows.g) + element.index, pack8<S>(order));
        });
      });
    }
  }

  // Outputs of the tangents: o_c, and o_e of each probe.
  __device__ __forceinline__ void tangent_outputs() {
    if (kOrders == 3 && network.head != Head::kScalar) {
#pragma unroll 1
      for (uint32_t k = 0; k < rows.n_probes; ++k)
        to_output<false>(false, [&](uint32_t l) { return this->e_a(l - 1, k); }, rows.output_e, k);
    }
    to_output<false>(kOrders < 3, [&](uint32_t l) { return this->c(l - 1); }, rows.output_c);
  }

  // Adjoint sweep of the hidden layers, from the seeds: z_bar and, with probes, e_bar. Only
  // `interior` rows have g.
  __device__ __forceinline__ void adjoint(bool interior) {
    const Sources<2> sources{as<S>(rows.f1), interior ? as<S>(rows.g) : nullptr};
#pragma unroll 1
    for (uint32_t layer = network.n_layers; layer > 1; --layer) {
      if (kOrders == 3 && interior) {
#pragma unroll 1
        for (uint32_t k = 0; k < rows.n_probes; ++k) adjoint_of_probe(layer, k);
      }
      chain<Way::kBackward>(
          layer, is_alone(interior), [&](uint32_t map) { return at<T>(rows.z_bar, map); }, sources,
          [&](const auto& result, bool stays) {
            result.for_each(sources, [&](const ElementIndex& element, float (&a_bar)[8], const Ahead<2>& ahead) {
              float order[8], sum[8];
              unpack8(ahead.of[0], order);
              unpack8(ahead.of[1], sum);
#pragma unroll
              for (int i = 0; i < 8; ++i) sum[i] = fmaf(order[i], a_bar[i], sum[i]);
              hand_on(as<T>(rows.z_bar), element, pack8<T>(sum), stays);
            });
          });
    }
  }

  // After the adjoint sweep: W' z_bar of the first layer, the gradient at the input.
  __device__ __forceinline__ void adjoint_to_input(bool interior) {
    to_input(is_alone(interior), [&](uint32_t map) { return at<T>(rows.z_bar, map); });
  }

 private:
  // True if the adjoint sweep has no probes that take turns with it.
  static __device__ __forceinline__ bool is_alone(bool interior) { return kOrders < 3 || !interior; }

  // e_bar of probe k at the input of `layer`, and its contribution to g. e_bar overwrites e_z
  // (stored as T).
  __device__ __forceinline__ void adjoint_of_probe(uint32_t layer, uint32_t k) {
    const Sources<5> sources{as<S>(rows.e_z) + k * this->probe_pitch(), as<S>(rows.f1), as<S>(rows.f2), as<S>(rows.h),
                             as<S>(rows.g)};
    chain<Way::kBackward>(
        layer, false, [&](uint32_t map) { return at<T>(rows.e_z, map, k); }, sources,
        [&](const auto& result, bool) {
          result.for_each(sources, [&](const ElementIndex& element, float (&e_a_bar)[8], const Ahead<5>& ahead) {
            float z[8], order[8], sum[8];
            unpack8(ahead.of[0], z);
            unpack8(ahead.of[2], order);
            unpack8(ahead.of[4], sum);
#pragma unroll
            for (int i = 0; i < 8; ++i) sum[i] = fmaf(e_a_bar[i] * order[i], z[i], sum[i]);
            store8(as<S>(rows.g) + element.index, pack8<S>(sum));
            const float twice = 2.0f * sm_probe_weight[element.row];
            unpack8(ahead.of[3], order);
#pragma unroll
            for (int i = 0; i < 8; ++i) z[i] *= twice * order[i];
            unpack8(ahead.of[1], order);
#pragma unroll
            for (int i = 0; i < 8; ++i) z[i] = fmaf(e_a_bar[i], order[i], z[i]);
            store8(as<T>(rows.e_z) + (k * this->probe_pitch() + element.index), pack8<T>(z));
          });
        });
  }
};
