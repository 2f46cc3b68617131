// The optimiser's step (AdamW, Loshchilov & Hutter 2019): parts of the gradient added up, global norm, clip, update, moving average, and the
// weights in the type of the products. Two kernels, as the norm needs all of the gradient: gather_gradient, then update_parameters.
//
// Parameters are flat f32: of each layer its weight [n_out][n_in] and bias [n_out], padded. What is padding stays 0.
#pragma once
#include "net/element.cuh"
#include "params.h"

constexpr int kOptimizerThreads = 256;
constexpr int kElementsPerBlock = 4 * kOptimizerThreads;

struct OptimizerParams {
  NetworkParams network;
  const float* parts;  // [n_parts][n_parameters]
  uint32_t n_parts, n_parameters;
  uint32_t n_blocks;   // of both kernels: n_parameters over kElementsPerBlock, rounded up
  float clip_norm;     // 0 does not clip
  // 1 - beta1, 1 - beta2, rate / (1 - beta1^n), 1 / sqrt(1 - beta2^n), epsilon, 1 - rate * decay, 1 - beta of the moving average.
  float toward1, toward2, step_size, root_correction, epsilon, keep, toward_ema;
  float *gradient, *parameters, *ema, *moment1, *moment2;
  double* squares;     // [n_blocks]
  float* norm;         // the global norm before clipping; a step whose norm is not finite changes nothing
  void* weights;       // packed, both ways
  float* biases;
};

// Where a parameter lies: its layer, and the row and column of a weight; column n_in stands for a bias.
struct ParameterPlace {
  const LayerParams* layer;
  uint32_t row, column;

  __device__ __forceinline__ ParameterPlace(const NetworkParams& network, uint32_t index) {
    uint32_t found = 0;
    while (found + 1 < network.n_layers && index >= network.layers[found + 1].parameters) ++found;
    layer = &network.layers[found];
    const uint32_t inside = index - layer->parameters, n_weights = layer->n_in * layer->n_out;
    row = inside < n_weights ? inside / layer->n_in : inside - n_weights;
    column = inside < n_weights ? inside % layer->n_in : layer->n_in;
  }
  __device__ __forceinline__ bool is_bias() const { return column == layer->n_in; }
  __device__ __forceinline__ bool is_padding() const {
    return row >= layer->out_size || (!is_bias() && column >= layer->in_size);
  }
};

// Adds the parts of each parameter up in their order, and the squares of a block's.
__device__ void gather_gradient(const OptimizerParams& params) {
  __shared__ double sm_squares[kOptimizerThreads];
  double squares = 0.0;
  for (int k = 0; k < kElementsPerBlock / kOptimizerThreads; ++k) {
    const uint32_t index = blockIdx.x * kElementsPerBlock + k * kOptimizerThreads + threadIdx.x;
    if (index >= params.n_parameters) break;
    float sum = 0.0f;
    if (!ParameterPlace(params.network, index).is_padding())
      for (uint32_t part = 0; part < params.n_parts; ++part)
        sum += params.parts[static_cast<size_t>(part) * params.n_parameters + index];
    params.gradient[index] = sum;
    squares += static_cast<double>(sum) * static_cast<double>(sum);
  }
  sm_squares[threadIdx.x] = squares;
  for (int half = kOptimizerThreads / 2; half > 0; half /= 2) {
    __syncthreads();  // the sums of both halves are written
    if (threadIdx.x < half) sm_squares[threadIdx.x] += sm_squares[threadIdx.x + half];
  }
  if (threadIdx.x == 0) params.squares[blockIdx.x] = sm_squares[0];
}

template <class T>
__device__ void update_parameters(const OptimizerParams& params) {
  __shared__ float sm_norm;
  if (threadIdx.x == 0) {
    double squares = 0.0;
    for (uint32_t block = 0; block < params.n_blocks; ++block) squares += params.squares[block];
    sm_norm = static_cast<float>(sqrt(squares));
    if (blockIdx.x == 0) *params.norm = sm_norm;
  }
  __syncthreads();  // the norm is written
  const float norm = sm_norm;
  if (!isfinite(norm)) return;
  const float scale = params.clip_norm > 0.0f && norm > params.clip_norm ? params.clip_norm / norm : 1.0f;
  T* weights = static_cast<T*>(params.weights);
  for (int k = 0; k < kElementsPerBlock / kOptimizerThreads; ++k) {
    const uint32_t index = blockIdx.x * kElementsPerBlock + k * kOptimizerThreads + threadIdx.x;
    if (index >= params.n_parameters) break;
    const ParameterPlace place(params.network, index);
    float p = 0.0f;
    if (!place.is_padding()) {
      const float g = params.gradient[index] * scale;
      const float m = fmaf(params.toward1, g - params.moment1[index], params.moment1[index]);
      const float v = fmaf(params.toward2, g * g - params.moment2[index], params.moment2[index]);
      const float root = fmaf(sqrtf(v), params.root_correction, params.epsilon);
      p = params.keep * params.parameters[index] - params.step_size * (m / root);
      params.moment1[index] = m;
      params.moment2[index] = v;
      params.parameters[index] = p;
      params.ema[index] = fmaf(params.toward_ema, p - params.ema[index], params.ema[index]);
    }
    const LayerParams& layer = *place.layer;
    if (place.is_bias()) {
      params.biases[layer.bias + place.row] = p;
    } else {
      weights[layer.forward + place.row * layer.n_in + place.column] = to_element<T>(p);
      weights[layer.reverse + place.column * layer.n_out + place.row] = to_element<T>(p);
    }
  }
}
