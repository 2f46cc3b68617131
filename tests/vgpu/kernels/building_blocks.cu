// Kernels around single building blocks of kernels/, for tests/building_blocks.rs.
#include "../../../kernels/net/activation.cuh"
#include "../../../kernels/rng/philox.cuh"
#include "../../../kernels/tile/product.cuh"

extern "C" __global__ void philox(uint64_t seed, uint64_t step, uint32_t n, uint4* words, float* units) {
  const uint32_t row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= n) return;
  const uint4 drawn = random_words(seed, Purpose::kNoise, step, row);
  words[row] = drawn;
  units[row] = unit_f32(drawn.x);
}

template <Activation kActivation>
__device__ void orders_of(const float* z, float4* orders, uint32_t n) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const Orders o = activation<float, kActivation>(z[i]);
  orders[i] = make_float4(o.f, o.f1, o.f2, o.f3);
}

#define ORDERS(NAME, ACTIVATION)                                                         \
  extern "C" __global__ void orders_##NAME(const float* z, float4* orders, uint32_t n) { \
    orders_of<Activation::ACTIVATION>(z, orders, n);                                     \
  }
ORDERS(silu, kSilu)
ORDERS(tanh, kTanh)
ORDERS(softplus, kSoftplus)
ORDERS(gelu, kGelu)
ORDERS(sin, kSin)

// C = A B^T, tile by tile. B lies in the order of packed.cuh.
#define PRODUCT(NAME, TYPE)                                                                              \
  extern "C" __global__ void __launch_bounds__(kThreads)                                                 \
      product_##NAME(const TYPE* a, const TYPE* b, float* c, uint32_t c_pitch, uint32_t depth) {         \
    extern __shared__ __align__(128) unsigned char sm[];                                                 \
    const size_t first_row = blockIdx.y * kTileRows;                                                     \
    const uint32_t first_column = blockIdx.x * 64;                                                       \
    using P = Product<TYPE, kNarrowColumns, 2>;                                                          \
    P product;                                                                                           \
    product.run(a + first_row * depth, b + first_column * P::kChunk, nullptr, depth, 64 * gridDim.x, 64, \
                OperandIn::kGlobal, {sm, 2});                                                            \
    product.for_each_sum(Lines{first_row * c_pitch, c_pitch, first_column, 64},                          \
                         [&](const ElementIndex& element, float (&values)[8]) {                          \
                           for (int i = 0; i < 8; ++i) c[element.index() + i] = values[i];               \
                         });                                                                             \
  }
PRODUCT(f32, float)
PRODUCT(tf32, tf32)
PRODUCT(bf16, __nv_bfloat16)
PRODUCT(f16, __half)
