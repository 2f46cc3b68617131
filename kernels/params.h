// What kernels are told: twins of src/engine/cuda/params.rs.
#pragma once
#include <cstdint>

constexpr int kMaxLayers = 17;  // MAX_DEPTH hidden layers and the output

// One linear map, padded from in_size and out_size: `forward` [n_out][n_in] and `reverse` [n_in][n_out] lie in the packed weights, `bias` [n_out]
// in the packed biases, and weight and bias together from `parameters` on in the flat parameters.
struct LayerParams {
  uint32_t n_in, n_out, in_size, out_size;
  uint32_t forward, reverse, bias, parameters;
};

struct NetworkParams {
  uint32_t n_layers;  // hidden layers and the output
  uint32_t dim, n_features, n_outputs;
  LayerParams layers[kMaxLayers];
};

// The rows of a batch and what the sweeps leave of them. Index l counts activations: 0 is the input, n_layers the output. Pitches are the padded
// widths. Operands of products (a, c, delta, z_bar) have the type of the kernel, everything else is f32.
struct RowBuffers {
  const float *x, *d_phi, *velocity;           // [rows][dim], [rows][n_features], [rows][dim]
  const float *weight, *on_potential;          // [rows]: of the interior term, of s
  void *a[kMaxLayers + 1], *c[kMaxLayers + 1]; // [rows][width]; a[0] and the pads of c[0] are given
  void *delta[kMaxLayers + 1], *z_bar[kMaxLayers + 1];
  float *f1[kMaxLayers + 1], *g[kMaxLayers + 1];  // f' and, in turn, f'', h = u f'', g = h c_z
  float *output, *output_c, *input_grad;
  float *s, *grad_s, *ds_dt;
  float *loss;  // [tiles]: sum of the rows' weighted terms
};

struct SweepParams {
  NetworkParams network;
  RowBuffers rows;
  const void* weights;
  const float* biases;
  float growth, cost_exponent;
  uint32_t has_time;      // whether the interior term has the time derivative
  uint32_t has_velocity;  // whether it has the velocity
};
