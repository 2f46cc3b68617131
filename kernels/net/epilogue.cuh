// The elementwise part of each sweep, applied to the sums of its product: one functor for each
// formula, with the names and in the order of src/engine/cpu/epilogue.rs. Each call gets the sums
// of eight consecutive elements, and `ahead`: the values of kinds `reads()` that the thread carries
// of them.
#pragma once
#include "../tile/carried.cuh"
#include "../tile/sums.cuh"
#include "activation.cuh"

// What becomes of operands after their sweep.
enum class Operands { kDiscard, kKeepForGradient };

// Kinds of values that a thread carries, in the order of their units. kOrders: see Sweeps. Without
// probes g takes the place of h, and h that of f''. Probe i has kEZ + i.
template <int kOrders>
struct Kinds {
  static constexpr uint32_t kF1 = 0, kG = 1, kF2 = kOrders == 3 ? 2 : kG, kH = kOrders == 3 ? 3 : kG, kUF3 = 4, kEZ = 5;
};
constexpr uint32_t kZeros = ~0u;  // no values: they count as zeros

template <int kCount>
struct Reads {
  uint32_t kinds[kCount];
};

// Eight consecutive elements of each kind.
template <class S, int kCount>
struct Ahead {
  Packed8<S> of[kCount];
};

// Eight consecutive elements of `order` times `values`.
template <class E, class S>
__device__ __forceinline__ Packed8<E> scale8(const Packed8<S>& order, const float (&values)[8]) {
  float product[8];
  unpack8(order, product);
#pragma unroll
  for (int i = 0; i < 8; ++i) product[i] *= values[i];
  return pack8<E>(product);
}

// Common to all: where results go. `Tile` is the Sweeps of the tile.
template <class Tile>
struct Epilogue {
  using T = typename Tile::Operand;
  using S = State<T>;

  const Tile& tile;
  bool stays;  // the result takes the operand's place

  // Carries eight elements of a kind to a later sweep.
  __device__ __forceinline__ void carry(uint32_t kind, const ElementIndex& element, const Packed8<S>& eight) const {
    tile.carried.store(tile.unit(kind, element.unit0), element.eight, eight);
  }

  // Makes eight elements part of the next product's operand. They go to their index in `buffer`, of
  // probe `probe` if it has probes, if a weight gradient reads them or they do not stay.
  __device__ __forceinline__ void hand_on(void* buffer, const ElementIndex& element, const Packed8<T>& eight,
                                          uint32_t probe = 0) const {
    if (stays) tile.memory.store_operand(element, eight);
    if (!stays || Tile::kOperands == Operands::kKeepForGradient)
      store8(static_cast<T*>(buffer) + (probe * tile.probe_pitch() + element.index()), eight);
  }
};

// a = f(z), f', and, if `curved`, the further derivatives that kOrders keeps.
template <class Tile, Activation kActivation>
struct Primal : Epilogue<Tile> {
  using typename Epilogue<Tile>::T;
  using typename Epilogue<Tile>::S;
  using Kinds = ::Kinds<Tile::kOrders>;
  bool curved;

  __device__ __forceinline__ void operator()(const ElementIndex& element, float (&z)[8]) const {
    float first[8], second[8], third[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const Orders orders = activation<T, kActivation>(z[i]);
      z[i] = orders.f, first[i] = orders.f1, second[i] = orders.f2, third[i] = orders.f3;
    }
    this->hand_on(this->tile.rows.a, element, pack8<T>(z));
    this->carry(Kinds::kF1, element, pack8<S>(first));
    if (!curved) return;
    if (Tile::kOrders >= 2) this->carry(Kinds::kF2, element, pack8<S>(second));
    if (Tile::kOrders >= 3) this->carry(Kinds::kUF3, element, pack8<S>(third));
  }
};

// The same with any activation but SiLU, in one piece of code.
template <class Tile>
struct PrimalOfAny : Epilogue<Tile> {
  using typename Epilogue<Tile>::T;
  using typename Epilogue<Tile>::S;
  using Kinds = ::Kinds<Tile::kOrders>;
  static_assert(Tile::kOrders <= 2, "no third derivative is kept");
  bool curved;

  template <Activation kActivation>
  static __device__ __forceinline__ void evaluate(float (&z)[8], float (&first)[8], float (&second)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const Orders orders = activation<T, kActivation>(z[i]);
      z[i] = orders.f, first[i] = orders.f1, second[i] = orders.f2;
    }
  }

  __device__ __forceinline__ void operator()(const ElementIndex& element, float (&z)[8]) const {
    float first[8], second[8];
    switch (this->tile.network.activation) {
      case Activation::kTanh: evaluate<Activation::kTanh>(z, first, second); break;
      case Activation::kSoftplus: evaluate<Activation::kSoftplus>(z, first, second); break;
      case Activation::kGelu: evaluate<Activation::kGelu>(z, first, second); break;
      default: evaluate<Activation::kSin>(z, first, second); break;
    }
    this->hand_on(this->tile.rows.a, element, pack8<T>(z));
    this->carry(Kinds::kF1, element, pack8<S>(first));
    if (Tile::kOrders >= 2 && curved) this->carry(Kinds::kF2, element, pack8<S>(second));
  }
};

// delta = f' u. With two orders also h = u f'', with three also u f''', which replaces f'''.
template <class Tile>
struct Reverse : Epilogue<Tile> {
  using typename Epilogue<Tile>::T;
  using typename Epilogue<Tile>::S;
  using Kinds = ::Kinds<Tile::kOrders>;
  static constexpr int kReads = Tile::kOrders;

  static __device__ __forceinline__ Reads<kReads> reads() {
    Reads<kReads> reads{{Kinds::kF1}};
    if constexpr (kReads >= 2) reads.kinds[1] = Kinds::kF2;
    if constexpr (kReads >= 3) reads.kinds[2] = Kinds::kUF3;
    return reads;
  }

  __device__ __forceinline__ void operator()(const ElementIndex& element, float (&u)[8],
                                             const Ahead<S, kReads>& ahead) const {
    this->hand_on(this->tile.rows.delta, element, scale8<T>(ahead.of[0], u));
    if constexpr (kReads >= 2) this->carry(Kinds::kH, element, scale8<S>(ahead.of[1], u));
    if constexpr (kReads >= 3) this->carry(Kinds::kUF3, element, scale8<S>(ahead.of[2], u));
  }
};

// c_a = f' c_z; g = h c_z, which replaces h.
template <class Tile>
struct Tangent : Epilogue<Tile> {
  using typename Epilogue<Tile>::T;
  using typename Epilogue<Tile>::S;
  using Kinds = ::Kinds<Tile::kOrders>;

  static __device__ __forceinline__ Reads<2> reads() { return {{Kinds::kF1, Kinds::kH}}; }

  __device__ __forceinline__ void operator()(const ElementIndex& element, float (&c_z)[8],
                                             const Ahead<S, 2>& ahead) const {
    this->hand_on(this->tile.rows.c, element, scale8<T>(ahead.of[0], c_z));
    this->carry(Kinds::kG, element, scale8<S>(ahead.of[1], c_z));
  }
};

// e_z unchanged, and e_a = f' e_z, of one probe.
template <class Tile>
struct ProbeTangent : Epilogue<Tile> {
  using typename Epilogue<Tile>::T;
  using typename Epilogue<Tile>::S;
  using Kinds = ::Kinds<Tile::kOrders>;
  uint32_t probe;

  static __device__ __forceinline__ Reads<1> reads() { return {{Kinds::kF1}}; }

  __device__ __forceinline__ void operator()(const ElementIndex& element, float (&e_z)[8],
                                             const Ahead<S, 1>& ahead) const {
    this->carry(Kinds::kEZ + probe, element, pack8<S>(e_z));
    this->hand_on(this->tile.rows.e_a, element, scale8<T>(ahead.of[0], e_z), probe);
  }
};

// c_a = f' c_z + k f'' Σ e_z²; g = h c_z + k u f''' Σ e_z². k: the row's weight of one probe.
template <class Tile>
struct DiffusiveTangent : Epilogue<Tile> {
  using typename Epilogue<Tile>::T;
  using typename Epilogue<Tile>::S;
  using Kinds = ::Kinds<Tile::kOrders>;

  // At least one probe exists, so e_z of the first is among them.
  static __device__ __forceinline__ Reads<5> reads() {
    return {{Kinds::kEZ, Kinds::kF1, Kinds::kF2, Kinds::kH, Kinds::kUF3}};
  }

  __device__ __forceinline__ void operator()(const ElementIndex& element, float (&c_z)[8],
                                             const Ahead<S, 5>& ahead) const {
    float squares[8] = {}, order[8], other[8];
    const auto add_probe = [&](const Packed8<S>& of_probe) {
      unpack8(of_probe, order);
#pragma unroll
      for (int i = 0; i < 8; ++i) squares[i] = fmaf(order[i], order[i], squares[i]);
    };
    add_probe(ahead.of[0]);
#pragma unroll 1
    for (uint32_t probe = 1; probe < this->tile.rows.n_probes; ++probe)
      add_probe(this->tile.carried.load(this->tile.unit(Kinds::kEZ + probe, element.unit0), element.eight));
    const float weight = this->tile.sm_probe_weight[element.row];
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
    this->hand_on(this->tile.rows.c, element, pack8<T>(order));
    add_curvature(ahead.of[3], ahead.of[4]);
    this->carry(Kinds::kG, element, pack8<S>(order));
  }
};

// z_bar = f' a_bar + g. Boundary rows have no g.
template <class Tile>
struct Adjoint : Epilogue<Tile> {
  using typename Epilogue<Tile>::T;
  using typename Epilogue<Tile>::S;
  using Kinds = ::Kinds<Tile::kOrders>;

  static __device__ __forceinline__ Reads<2> reads(bool interior) {
    return {{Kinds::kF1, interior ? Kinds::kG : kZeros}};
  }

  __device__ __forceinline__ void operator()(const ElementIndex& element, float (&a_bar)[8],
                                             const Ahead<S, 2>& ahead) const {
    float order[8], sum[8];
    unpack8(ahead.of[0], order);
    unpack8(ahead.of[1], sum);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = fmaf(order[i], a_bar[i], sum[i]);
    this->hand_on(this->tile.rows.z_bar, element, pack8<T>(sum));
  }
};

// e_bar = f' e_a_bar + 2 k h e_z, of one probe, of weight k; g += e_a_bar f'' e_z.
template <class Tile>
struct ProbeAdjoint : Epilogue<Tile> {
  using typename Epilogue<Tile>::T;
  using typename Epilogue<Tile>::S;
  using Kinds = ::Kinds<Tile::kOrders>;
  uint32_t probe;

  static __device__ __forceinline__ Reads<5> reads(uint32_t probe) {
    return {{Kinds::kEZ + probe, Kinds::kF1, Kinds::kF2, Kinds::kH, Kinds::kG}};
  }

  __device__ __forceinline__ void operator()(const ElementIndex& element, float (&e_a_bar)[8],
                                             const Ahead<S, 5>& ahead) const {
    float z[8], order[8], sum[8];
    unpack8(ahead.of[0], z);
    unpack8(ahead.of[2], order);
    unpack8(ahead.of[4], sum);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = fmaf(e_a_bar[i] * order[i], z[i], sum[i]);
    this->carry(Kinds::kG, element, pack8<S>(sum));
    const float twice = 2.0f * this->tile.sm_probe_weight[element.row];
    unpack8(ahead.of[3], order);
#pragma unroll
    for (int i = 0; i < 8; ++i) z[i] *= twice * order[i];
    unpack8(ahead.of[1], order);
#pragma unroll
    for (int i = 0; i < 8; ++i) z[i] = fmaf(e_a_bar[i], order[i], z[i]);
    this->hand_on(this->tile.rows.e_bar, element, pack8<T>(z), probe);
  }
};
