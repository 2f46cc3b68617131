// One tile of interior rows: the four sweeps and the head between them. One block a tile; the weight gradient reads a, c, delta, z_bar.
#pragma once
#include "net/head.cuh"
#include "net/sweeps.cuh"

// Blocks of a multiprocessor: with four (128 registers a thread) the compiler spills on sm_90.
constexpr int kSweepBlocks = 3;

// H(p) and dH/dp of one component, H = |p|^q / q.
__device__ __forceinline__ float2 hamiltonian(float p, float q) {
  if (q == 2.0f) return make_float2(0.5f * p * p, p);
  const float slope = powf(fabsf(p), q - 1.0f);
  return make_float2(slope * fabsf(p) / q, copysignf(slope, p));
}

template <class T, Activation kActivation, Head kHead>
__device__ void sweep_interior(const SweepParams& params) {
  extern __shared__ __align__(16) unsigned char sm[];
  const NetworkParams& network = params.network;
  const RowBuffers& rows = params.rows;
  const uint32_t dim = network.dim, n_layers = network.n_layers;
  const uint32_t in_width = network.layers[0].n_in, out_width = network.layers[n_layers - 1].n_out;
  const size_t first_row = static_cast<size_t>(blockIdx.x) * kTileRows;
  Sweeps<T, kActivation> sweeps{network, rows, static_cast<const T*>(params.weights), params.biases, sm, first_row};

  sweeps.primal();
  __syncthreads();  // the output is written

  // A thread a row: heads have few columns.
  const size_t row = first_row + threadIdx.x;
  const bool has_row = threadIdx.x < kTileRows;
  const float* o = rows.output + row * out_width;
  const float* x = rows.x + row * dim;
  float s = 0.0f;
  if (has_row) {
    T* seed = static_cast<T*>(rows.delta[n_layers]) + row * out_width;
    for (uint32_t i = 0; i < out_width; ++i) {
      const bool is_output = i < network.n_outputs;
      const float x_i = kHead != Head::kScalar && is_output ? x[i] : 0.0f;
      seed[i] = to_element<T>(is_output ? output_seed<kHead>(x_i, o[i]) : 0.0f);
      if (is_output) s += potential_term<kHead>(x_i, o[i]);
    }
    rows.s[row] = s;
  }

  sweeps.reverse();
  __syncthreads();  // the gradient at the input is written

  float term = 0.0f;
  const float weight = has_row ? rows.weight[row] : 0.0f;
  if (has_row) {
    const float* through = rows.input_grad + row * in_width;
    T* c = static_cast<T*>(rows.c[0]) + row * in_width;
    float energy = 0.0f, ds_dt = 0.0f;
    for (uint32_t i = 0; i < dim; ++i) {
      const float p = through[i] + (kHead == Head::kScalar ? 0.0f : direct_gradient<kHead>(x[i], o[i]));
      const float u = params.has_velocity ? rows.velocity[row * dim + i] : 0.0f;
      const float2 h = hamiltonian(p, params.cost_exponent);
      energy += h.x - u * p;
      rows.grad_s[row * dim + i] = p;
      c[i] = to_element<T>(weight * (h.y - u));
    }
    for (uint32_t i = 0; i < network.n_features; ++i) {
      const float d_phi = rows.d_phi[row * network.n_features + i];
      ds_dt = fmaf(through[dim + i], d_phi, ds_dt);
      c[dim + i] = to_element<T>(params.has_time ? weight * d_phi : 0.0f);
    }
    for (uint32_t i = dim + network.n_features; i < in_width; ++i) c[i] = to_element<T>(0.0f);
    rows.ds_dt[row] = ds_dt;
    term = weight * ((params.has_time ? ds_dt : 0.0f) + energy + 0.5f * params.growth * s * s) + rows.on_potential[row] * s;
  }

  sweeps.tangent();
  __syncthreads();  // the tangent of the output is written

  if (has_row) {
    T* z_bar = static_cast<T*>(rows.z_bar[n_layers]) + row * out_width;
    const float on_s = weight * params.growth * s + rows.on_potential[row];
    for (uint32_t i = 0; i < out_width; ++i) {
      float value = 0.0f;
      if (i < network.n_outputs) {
        const float x_i = kHead == Head::kScalar ? 0.0f : x[i];
        float c_i = 0.0f;
        if (kHead != Head::kScalar) {
          const float2 h = hamiltonian(rows.grad_s[row * dim + i], params.cost_exponent);
          c_i = weight * (h.y - (params.has_velocity ? rows.velocity[row * dim + i] : 0.0f));
        }
        value = generator_seed<kHead>(c_i, rows.output_c[row * out_width + i]) + on_s * output_seed<kHead>(x_i, o[i]);
      }
      z_bar[i] = to_element<T>(value);
    }
  }

  sweeps.adjoint();
  __syncthreads();  // the last stage of the last product is read: its memory takes the terms

  // The tile's sum, in a fixed order.
  float* sm_terms = reinterpret_cast<float*>(sm);
  if (has_row) sm_terms[threadIdx.x] = term;
  __syncthreads();  // the terms are written
  if (threadIdx.x == 0) {
    float sum = 0.0f;
    for (int i = 0; i < kTileRows; ++i) sum += sm_terms[i];
    rows.loss[blockIdx.x] = sum;
  }
}
