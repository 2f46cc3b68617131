// One optimizer step (AdamW, Loshchilov & Hutter 2019) with the moving average; also stores W and
// its transpose in the type of the products and in their order (packed.cuh). Counterpart of
// src/engine/cpu/optimizer.rs.
#pragma once
#include "../tile/element.cuh"
#include "../tile/packed.cuh"
#include "param_tile.cuh"

struct alignas(16) Four {
  float values[kElementsOfThread];
};

__device__ __forceinline__ uint32_t bits_of(float value) { return __float_as_uint(value); }
__device__ __forceinline__ uint32_t bits_of(tf32 value) { return value.bits; }
__device__ __forceinline__ uint32_t bits_of(__nv_bfloat16 value) { return __bfloat16_as_ushort(value); }
__device__ __forceinline__ uint32_t bits_of(__half value) { return __half_as_ushort(value); }

// Rounds to T and stores four elements in one access: __stwb is a plain store that the compiler
// does not split.
template <class T>
__device__ __forceinline__ void store_as(T* to, float x, float y, float z, float w) {
  const uint32_t bits[4] = {bits_of(to_element<T>(x)), bits_of(to_element<T>(y)), bits_of(to_element<T>(z)),
                            bits_of(to_element<T>(w))};
  if constexpr (sizeof(T) == 4)
    __stwb(reinterpret_cast<uint4*>(to), make_uint4(bits[0], bits[1], bits[2], bits[3]));
  else
    __stwb(reinterpret_cast<uint2*>(to), make_uint2(bits[0] | bits[1] << 16, bits[2] | bits[3] << 16));
}

// Stores four consecutive elements k, ... of a line of packed weights.
template <class T>
__device__ __forceinline__ void store_packed(const UpdateParams& params, uint32_t origin, uint32_t n_lines,
                                             uint32_t line, uint32_t k, const float (&four)[kElementsOfThread]) {
  T* weights = static_cast<T*>(params.weights) + origin;
  if constexpr (sizeof(T) == 2) {
    if (params.products == Products::kWgmma) {
#pragma unroll
      for (uint32_t i = 0; i < kElementsOfThread; i += 2) {
        const uint32_t low = bits_of(to_element<T>(four[i])), high = bits_of(to_element<T>(four[i + 1]));
        const uint32_t index = packed_index_of_warpgroups(n_lines, line, k + i);
        *reinterpret_cast<uint32_t*>(weights + index) = low | high << 16;
      }
      return;
    }
  }
  store_as(weights + packed_index<T>(n_lines, line, k), four[0], four[1], four[2], four[3]);
}

struct Parameter {
  float p, ema, m, v;
};

__device__ __forceinline__ Parameter stepped(const StepSizes& sizes, float gradient, const Parameter& old) {
  const float g = gradient * sizes.gradient_scale;
  Parameter next;
  next.m = fmaf(sizes.toward1, g - old.m, old.m);
  next.v = fmaf(sizes.toward2, g * g - old.v, old.v);
  const float root = fmaf(sqrtf(next.v), sizes.root_correction, sizes.epsilon);
  next.p = sizes.decay_factor * old.p - sizes.step_size * (next.m / root);
  next.ema = fmaf(sizes.toward_ema, next.p - old.ema, old.ema);
  return next;
}

template <class T>
__device__ __forceinline__ void update(const UpdateParams& params) {
  // Transposes the tile for the reverse copy; the odd pitch keeps reads and writes free of bank
  // conflicts.
  __shared__ float sm_weights[kParamTile][kParamTile + 1];
  if (params.state->halted || !params.state->apply) return;
  const ParamTile tile(params.network);
  const LayerParams& layer = params.network.layers[tile.layer];
  const ParamQuad quad(layer, tile);
  float p[kElementsOfThread] = {};
  if (quad.n_real > 0) {
    const StepSizes sizes = *params.sizes;
    const auto load = [&](const float* from) { return *reinterpret_cast<const Four*>(from + quad.index); };
    const Four gradient = load(params.gradient);
    Four parameters = load(params.parameters), ema = load(params.ema);
    Four moment1 = load(params.moment1), moment2 = load(params.moment2);
#pragma unroll
    for (uint32_t k = 0; k < kElementsOfThread; ++k) {
      if (k >= quad.n_real) break;  // padding stays 0
      const Parameter old = {parameters.values[k], ema.values[k], moment1.values[k], moment2.values[k]};
      const Parameter next = stepped(sizes, gradient.values[k], old);
      parameters.values[k] = p[k] = next.p;
      ema.values[k] = next.ema;
      moment1.values[k] = next.m;
      moment2.values[k] = next.v;
    }
    const auto store = [&](float* to, const Four& four) { *reinterpret_cast<Four*>(to + quad.index) = four; };
    store(params.parameters, parameters);
    store(params.ema, ema);
    store(params.moment1, moment1);
    store(params.moment2, moment2);
  }
  if (tile.is_bias) {
    if (quad.exists)
      *reinterpret_cast<float4*>(params.biases + layer.bias + quad.row) = make_float4(p[0], p[1], p[2], p[3]);
    return;
  }
  const uint32_t quick = threadIdx.x % kThreadsOfRow * kElementsOfThread, slow = threadIdx.x / kThreadsOfRow;
  store_packed<T>(params, layer.forward, layer.n_out, quad.row, quad.column, p);
#pragma unroll
  for (uint32_t k = 0; k < kElementsOfThread; ++k) sm_weights[slow][quick + k] = p[k];
  __syncthreads();  // the tile is written; it is read by columns
  const float column[kElementsOfThread] = {sm_weights[quick][slow], sm_weights[quick + 1][slow],
                                           sm_weights[quick + 2][slow], sm_weights[quick + 3][slow]};
  store_packed<T>(params, layer.reverse, layer.n_in, tile.column + slow, tile.row + quick, column);
}
