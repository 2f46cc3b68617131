// Scalars whose operations are rounded individually, as in Rust: nvcc never contracts them to a
// fused multiply-add. Used for everything that must equal the host's result bit for bit.
#pragma once

__device__ __forceinline__ double add_rn(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ double subtract_rn(double a, double b) { return __dsub_rn(a, b); }
__device__ __forceinline__ double multiply_rn(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ double divide_rn(double a, double b) { return __ddiv_rn(a, b); }
__device__ __forceinline__ float add_rn(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float subtract_rn(float a, float b) { return __fsub_rn(a, b); }
__device__ __forceinline__ float multiply_rn(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float divide_rn(float a, float b) { return __fdiv_rn(a, b); }

template <class Real>
struct Exact {
  Real value;

  Exact() = default;
  __device__ __forceinline__ Exact(Real real) : value(real) {}

  friend __device__ __forceinline__ Exact operator+(Exact a, Exact b) { return add_rn(a.value, b.value); }
  friend __device__ __forceinline__ Exact operator-(Exact a, Exact b) { return subtract_rn(a.value, b.value); }
  friend __device__ __forceinline__ Exact operator*(Exact a, Exact b) { return multiply_rn(a.value, b.value); }
  friend __device__ __forceinline__ Exact operator/(Exact a, Exact b) { return divide_rn(a.value, b.value); }
  __device__ __forceinline__ Exact operator-() const { return -value; }
};

using f64 = Exact<double>;
using f32 = Exact<float>;

__device__ __forceinline__ float to_f32(f64 x) { return __double2float_rn(x.value); }
