// The sweeps over one tile of rows, each a chain of matrix products with an elementwise part after
// each (epilogue.cuh). Counterpart of src/engine/cpu/sweeps.rs.
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
// A sweep's operand stays on the chip from product to product, in shared memory or, for an engine
// that has it there, in registers: the elementwise part of one stores its result where the next one
// finds its left operand. It goes to global memory only if a weight gradient reads it (kOperands),
// or if it does not fit: if the layer has more than kColumns columns, so that the operand is still
// needed when the first of them are done, or more than its place has room for. What elementwise
// parts need of earlier sweeps their threads carry (carried.cuh).
//
// Every product begins with a barrier of those who share its rows: the block, or a warp that has
// all columns of its rows (kOwnRows). Any other reader of a result needs its own.
#pragma once
#include "../tile/carried.cuh"
#include "../tile/product.cuh"
#include "../tile/workers.cuh"
#include "abi.h"
#include "epilogue.cuh"
#include "tile_rows.cuh"

// The products of tiles of kRows rows, kColumns columns at a time, by `mma.sync`, whose operands
// all warps of the block copy to shared memory.
template <class T, int kColumnsAtOnce, int kRowsOfTile = kTileRows>
struct MmaEngine {
  using Operand = T;
  using Memory = ProductMemory;
  static constexpr int kColumns = kColumnsAtOnce, kRows = kRowsOfTile;
  static constexpr int kStages = kColumns == kNarrowColumns ? kNarrowStages : kWideStages;
  // True if each warp has all columns of its rows: then only the weights are shared by warps.
  static constexpr bool kOwnRows = kColumns == kNarrowColumns && kRows == kTileRows;
  // True if weights can lie in shared memory from the first product to the last.
  static constexpr bool kResidentWeights = kOwnRows;
  // True if a thread has so many groups of columns that code for each of them would be too long.
  static constexpr bool kManyGroups = false;

  template <int kColumnsOfProduct>
  using Product = ::Product<T, kColumnsOfProduct, kStages, kRows>;

  static constexpr uint32_t kOperandChunk = Product<kColumns>::kOperandChunk;

  // Bytes of shared memory that products take: left operands and stages of the right ones, which
  // nothing needs if all weights are resident.
  static __device__ __forceinline__ uint32_t bytes_of_products(uint32_t n_operand_chunks, bool all_resident = false) {
    return n_operand_chunks * kOperandChunk + (all_resident ? 0 : kStages * Product<kColumns>::kStageBytes);
  }
};

template <class ProductEngine, int kOrdersKept, Operands kOperandsAfter>
struct Sweeps : TileRows<typename ProductEngine::Operand> {
  using Engine = ProductEngine;
  using Operand = typename Engine::Operand;
  using T = Operand;
  static constexpr int kOrders = kOrdersKept, kRows = Engine::kRows, kColumns = Engine::kColumns;
  static constexpr Operands kOperands = kOperandsAfter;
  static constexpr bool kProbes = kOrders == 3, kOwnRows = Engine::kOwnRows;
  using S = State<T>;
  using TileRows<T>::network;
  using TileRows<T>::rows;
  using TileRows<T>::width;
  using TileRows<T>::first_slot;

  const T* weights;
  const float* biases;
  typename Engine::Memory memory;
  Carried<S> carried;
  float* sm_probe_weight;  // [kRows]: k of each row; only with probes
  // Weights that lie in shared memory: both ways of the first n_resident layers. Only with
  // Engine::kResidentWeights.
  unsigned char* sm_resident = nullptr;
  uint32_t n_resident = 0;

  // Barrier of all that share rows.
  static __device__ __forceinline__ void sync() {
    if constexpr (kOwnRows) {
      __syncwarp();
    } else {
      sync_workers();  // results of other warps are written, and operands read
    }
  }

  // Activation l > 0 in a buffer of slots. (The base's name needs `template` before each use.)
  template <class E>
  __device__ __forceinline__ E* at(void* buffer, uint32_t l, uint32_t k = 0) const {
    return TileRows<T>::template at<E>(buffer, l, k);
  }

  // Unit of a kind of values, from that of the first kind.
  __device__ __forceinline__ uint32_t unit(uint32_t kind, uint32_t of_first) const {
    return kind * carried.layout.of_kind + of_first;
  }

  enum class Way { kForward, kBackward };
  static constexpr uint32_t kAllColumns = ~0u;

  // True if a product's result of `width` columns can take its operand's place.
  __device__ __forceinline__ bool stays(uint32_t width) const {
    return width <= kColumns && memory.has_room(width * sizeof(T));
  }

  // Where the operand of `layer` lies in a chain of products: the first one's is in global memory.
  template <Way kWay>
  __device__ __forceinline__ OperandIn operand_in(uint32_t layer) const {
    const bool is_first = kWay == Way::kForward ? layer == 1 : layer == network.n_layers;
    const uint32_t l = kWay == Way::kForward ? layer - 1 : layer;
    return !is_first && stays(width(l)) ? OperandIn::kPlace : OperandIn::kGlobal;
  }

  // Bytes of a layer's weights in shared memory, one way.
  static constexpr uint32_t kResidentBytes = kNarrowColumns * kNarrowColumns * sizeof(T);

  template <Way kWay>
  __device__ __forceinline__ unsigned char* resident(uint32_t map) const {
    return sm_resident + (2 * (map - 1) + (kWay == Way::kForward ? 0 : 1)) * kResidentBytes;
  }

  // Copies the weights of the first n_resident layers to shared memory. All threads of the block
  // must call it, and meet at a barrier before the first product.
  __device__ __forceinline__ void make_resident() const {
    using P = typename Engine::template Product<kColumns>;
#pragma unroll 1
    for (uint32_t map = 1; map <= n_resident; ++map) {
      const LayerParams& layer = network.layers[map - 1];
      P::make_resident(weights + layer.forward, resident<Way::kForward>(map), kNarrowColumns);
      P::make_resident(weights + layer.reverse, resident<Way::kBackward>(map), kNarrowColumns);
    }
    commit_copies();
    wait_copies<0>();
  }

  // Forms W x operand (plus the bias if kBiased) or, backward, W' x operand, and calls
  // `finish(product, lines)` for each column tile, up to that of column `wanted` - 1. W belongs to
  // the layer `map`; `operand(map)` returns the operand, which lies in `operand_in`. The result
  // belongs to activation l = map, or l = map - 1 backward, and lies at `origin_of(l)`. Addresses
  // are recomputed for every tile to leave registers to the product (opaque.cuh).
  template <Way kWay, int kColumnsAtOnce, bool kBiased, class Operand, class OriginOf, class Begin, class Finish>
  __device__ __forceinline__ void multiply(uint32_t layer, uint32_t wanted, Operand operand, OriginOf origin_of,
                                           Begin begin, Finish finish) {
    using P = typename Engine::template Product<kColumnsAtOnce>;
    constexpr bool kForward = kWay == Way::kForward;
#pragma unroll 1
    for (uint32_t column0 = 0;; column0 += P::kColumns) {
      const uint32_t map = opaque(layer);
      const LayerParams& of_map = network.layers[map - 1];
      const uint32_t width = kForward ? of_map.n_out : of_map.n_in, depth = kForward ? of_map.n_in : of_map.n_out;
      const uint32_t end = min(width, opaque(wanted));
      if (column0 >= end) break;
      const uint32_t n_columns = min(static_cast<uint32_t>(P::kColumns), end - column0);
      const auto lines = [&] {
        const uint32_t l = kForward ? opaque(layer) : opaque(layer) - 1;
        const uint32_t unit0 = (l - 1) * carried.layout.of_layer + column0 / P::kColumns * P::kUnits;
        return Lines{origin_of(l), width, column0, n_columns, unit0};
      };
      begin(lines());
      const float* bias = kBiased ? biases + of_map.bias + column0 : nullptr;
      const OperandIn from = column0 == 0 ? operand_in<kWay>(layer) : OperandIn::kPlace;
      P product;
      if (Engine::kResidentWeights && map <= n_resident) {
        if constexpr (Engine::kResidentWeights)
          product.run_resident(operand(map), resident<kWay>(map), bias, depth, n_columns, from, memory);
      } else {
        product.run(operand(map), weights + (kForward ? of_map.forward : of_map.reverse) + column0 * P::kChunk, bias,
                    depth, width, n_columns, from, memory);
      }
      finish(product, lines());
    }
  }

  // A product of a chain, in which its result is the next one's operand. `fetch(lines)` prefetches
  // what `apply(product, lines, stays)`, the elementwise part, reads; `stays`: its result takes the
  // operand's place.
  template <Way kWay, bool kBiased, class Operand, class Fetch, class Apply>
  __device__ __forceinline__ void chain(uint32_t layer, Operand operand, Fetch fetch, Apply apply) {
    multiply<kWay, kColumns, kBiased>(
        layer, kAllColumns, operand, [&](uint32_t l) { return this->origin(l); }, fetch,
        [&](auto& product, const Lines& lines) {
          const bool stays_here = stays(opaque(lines.width));
          if (stays_here) sync();  // all who read the operand that the result replaces have done so
          apply(product, lines, stays_here);
        });
  }

  // Such a product with the epilogue `epilogue(stays)`, which reads `reads`.
  template <Way kWay, int kCount, class Operand, class Make>
  __device__ __forceinline__ void chain(uint32_t layer, Operand operand, const Reads<kCount>& reads, Make epilogue) {
    constexpr int kWords = kCount * static_cast<int>(sizeof(Packed8<S>)) / 4;
    const auto fetch = [&](const Lines& lines) {
      using P = typename Engine::template Product<kColumns>;
#pragma unroll
      for (int i = 0; i < kCount * P::kGroups; ++i) {
        const uint32_t kind = reads.kinds[i / P::kGroups];
        if (kind != kZeros) carried.fetch(unit(kind, lines.unit0 + i % P::kGroups * P::kEights), P::kEights);
      }
    };
    chain<kWay, false>(layer, operand, fetch, [&](auto& product, const Lines& lines, bool stays) {
      const auto load = [&](const ElementIndex& element) {
        Ahead<S, kCount> ahead{};
#pragma unroll
        for (int i = 0; i < kCount; ++i)
          if (reads.kinds[i] != kZeros) ahead.of[i] = carried.load(unit(reads.kinds[i], element.unit0), element.eight);
        return ahead;
      };
      product.template for_each<kWords>(lines, load, epilogue(stays));
    });
  }

  // Stores the output of the network or of a tangent, in f32, to probe k of `out`. Padding is not
  // written.
  template <bool kBiased, class Operand>
  __device__ __forceinline__ void to_output(Operand operand, float* out, uint32_t k = 0) {
    const auto origin_of = [&](uint32_t l) { return (static_cast<size_t>(k) * rows.n_slots + first_slot) * width(l); };
    multiply<Way::kForward, kNarrowColumns, kBiased>(
        network.n_layers, network.n_outputs, operand, origin_of, [](const Lines&) {},
        [&](auto& product, const Lines& lines) {
          product.for_each_sum(lines, [&](const ElementIndex& element, float (&o)[8]) {
            if (element.column < network.n_outputs) store8(out + element.index(), pack8<float>(o));
          });
        });
  }

  // Stores W' adjoint of the first layer, the gradient at the input, in f32. Padding is not
  // written.
  template <class AdjointOf>
  __device__ __forceinline__ void to_input(AdjointOf adjoint) {
    const auto origin_of = [&](uint32_t l) { return static_cast<size_t>(first_slot) * width(l); };
    multiply<Way::kBackward, kNarrowColumns, false>(
        1, network.dim + network.n_features, adjoint, origin_of, [](const Lines&) {},
        [&](auto& product, const Lines& lines) {
          product.for_each_sum(lines, [&](const ElementIndex& element, float (&u)[8]) {
            if (element.column < network.dim + network.n_features)
              store8(rows.input_grad + element.index(), pack8<float>(u));
          });
        });
  }

  // Primal sweep of the hidden layers.
  __device__ __forceinline__ void primal(bool curved) {
    const auto operand = [&](uint32_t l) { return this->a(l - 1); };
#pragma unroll 1
    for (uint32_t layer = 1; layer < network.n_layers; ++layer) {
      const auto apply = [&](auto& product, const Lines& lines, bool stays) {
        if constexpr (Engine::kManyGroups) {
          // The usual activation has code for each group; the longer ones share theirs.
          if (network.activation == Activation::kSilu)
            return product.for_each_sum(lines, Primal<Sweeps, Activation::kSilu>{{*this, stays}, curved});
          return product.for_each_sum_rolled(lines, PrimalOfAny<Sweeps>{{*this, stays}, curved}, memory.a);
        } else {
          switch (network.activation) {
            case Activation::kSilu: return activate<Activation::kSilu>(product, lines, stays, curved);
            case Activation::kTanh: return activate<Activation::kTanh>(product, lines, stays, curved);
            case Activation::kSoftplus: return activate<Activation::kSoftplus>(product, lines, stays, curved);
            case Activation::kGelu: return activate<Activation::kGelu>(product, lines, stays, curved);
            case Activation::kSin: return activate<Activation::kSin>(product, lines, stays, curved);
          }
        }
      };
      chain<Way::kForward, true>(layer, operand, [](const Lines&) {}, apply);
    }
  }

  __device__ __forceinline__ void output() {
    to_output<true>([&](uint32_t l) { return this->a(l - 1); }, rows.output);
  }

  // Reverse sweep of the hidden layers, from the seed in delta of the output, and the gradient at
  // the input.
  __device__ __forceinline__ void reverse() {
    const auto operand = [&](uint32_t map) { return at<T>(rows.delta, map); };
#pragma unroll 1
    for (uint32_t layer = network.n_layers; layer > 1; --layer)
      chain<Way::kBackward>(layer, operand, Reverse<Sweeps>::reads(),
                            [&](bool stays) { return Reverse<Sweeps>{{*this, stays}}; });
    to_input(operand);
  }

  // Tangent sweep of the hidden layers, from c at the input. With probes, theirs come first, as c_a
  // and g need the curvature along all of them.
  __device__ __forceinline__ void tangent() {
    if constexpr (kProbes) {
#pragma unroll 1
      for (uint32_t k = 0; k < rows.n_probes; ++k) {
        tangent_of<ProbeTangent<Sweeps>>([&](uint32_t l) { return this->e_a(l - 1, k); },
                                         [&](bool stays) { return ProbeTangent<Sweeps>{{*this, stays}, k}; });
        if (network.head != Head::kScalar)
          to_output<false>([&](uint32_t l) { return this->e_a(l - 1, k); }, rows.output_e, k);
      }
    }
    using Own = std::conditional_t<kProbes, DiffusiveTangent<Sweeps>, Tangent<Sweeps>>;
    const auto operand = [&](uint32_t l) { return this->c(l - 1); };
    tangent_of<Own>(operand, [&](bool stays) { return Own{{*this, stays}}; });
    if (kProbes || network.head != Head::kScalar) to_output<false>(operand, rows.output_c);
  }

  // Adjoint sweep of the hidden layers, from the seeds: e_bar of probes first, as they add to g,
  // then z_bar. Only `interior` rows have g and probes.
  __device__ __forceinline__ void adjoint(bool interior) {
    if constexpr (kProbes) {
#pragma unroll 1
      for (uint32_t k = 0; k < (interior ? rows.n_probes : 0); ++k) {
#pragma unroll 1
        for (uint32_t layer = network.n_layers; layer > 1; --layer)
          chain<Way::kBackward>(
              layer, [&](uint32_t map) { return at<T>(rows.e_bar, map, k); }, ProbeAdjoint<Sweeps>::reads(k),
              [&](bool stays) { return ProbeAdjoint<Sweeps>{{*this, stays}, k}; });
      }
    }
#pragma unroll 1
    for (uint32_t layer = network.n_layers; layer > 1; --layer)
      chain<Way::kBackward>(
          layer, [&](uint32_t map) { return at<T>(rows.z_bar, map); }, Adjoint<Sweeps>::reads(interior),
          [&](bool stays) { return Adjoint<Sweeps>{{*this, stays}}; });
  }

  // After the adjoint sweep: W' z_bar of the first layer, the gradient at the input.
  __device__ __forceinline__ void adjoint_to_input() {
    to_input([&](uint32_t map) { return at<T>(rows.z_bar, map); });
  }

 private:
  template <Activation kActivation, class P>
  __device__ __forceinline__ void activate(P& product, const Lines& lines, bool stays, bool curved) {
    product.for_each_sum(lines, Primal<Sweeps, kActivation>{{*this, stays}, curved});
  }

  template <class OfLayer, class Operand, class Make>
  __device__ __forceinline__ void tangent_of(Operand operand, Make epilogue) {
#pragma unroll 1
    for (uint32_t layer = 1; layer < network.n_layers; ++layer)
      chain<Way::kForward>(layer, operand, OfLayer::reads(), epilogue);
  }
};
