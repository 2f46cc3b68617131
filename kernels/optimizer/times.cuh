// Density of importance-sampled times, from moments of the integrand. Equals TimeMoments and
// TimeDensity of src/density_path/times.rs bit for bit.
#pragma once
#include "param_tile.cuh"

constexpr uint32_t kMomentGroups = kThreads / kMoments;

struct TimesMemory {
  double groups[kMomentGroups][kMoments];
  double moments[kMoments];
  double density[kTimeKnots];
  double total;
};

// Where the values of `tile` of the batch are: each rank's are in the order of its tiles, `of_rank`
// places apart (batch.cuh).
__device__ __forceinline__ uint32_t place_of(const GatheredParams& gathered, uint32_t tile, uint32_t of_rank) {
  const uint32_t high = tile >> gathered.log2_of_high, round = high >> gathered.log2_shards;
  const uint32_t shard = high - (round << gathered.log2_shards), rank = shard >> gathered.log2_own;
  const uint32_t own = (round << gathered.log2_own) + shard - (rank << gathered.log2_own);
  return rank * of_rank + (own << gathered.log2_of_high) + tile - (high << gathered.log2_of_high);
}

// Exponential moving average of the tiles' moments, over the tiles of `part`. Rounded to the f32
// that a checkpoint stores, so that a resumed run draws the same times.
__device__ __forceinline__ void follow_integrand(const TimesParams& params, const Part& part,
                                                 const GatheredParams& gathered, TimesMemory& sm) {
  const uint32_t group = threadIdx.x / kMoments, moment = threadIdx.x % kMoments;
  if (group < kMomentGroups) {
    double sum = 0.0;
#pragma unroll 8  // keeps loads in flight; the order of the sum is unchanged
    for (uint32_t tile = group; tile < part.n_tiles; tile += kMomentGroups) {
      const uint32_t place = place_of(gathered, part.first_tile + tile, gathered.n_interior_tiles);
      sum += params.tile_moments[static_cast<size_t>(place) * kMoments + moment];
    }
    sm.groups[group][moment] = sum;
  }
  __syncthreads();  // the groups' sums are written
  if (threadIdx.x < kMoments) {
    double sum = 0.0;
#pragma unroll
    for (uint32_t k = 0; k < kMomentGroups; ++k) sum += sm.groups[k][threadIdx.x];
    params.moments[threadIdx.x] =
        __double2float_rn(__dadd_rn(__dmul_rn(kMemory, static_cast<double>(params.moments[threadIdx.x])), sum));
  }
}

__device__ __forceinline__ double trapezoid(double left, double right) {
  return __dmul_rn(0.5 / (kTimeKnots - 1), __dadd_rn(left, right));
}

// Forms the density from the moments; uniform if they are not known yet. Each thread reads the
// moment that it wrote itself.
__device__ __forceinline__ void form_density(const TimesParams& params, TimesMemory& sm) {
  const uint32_t knot = threadIdx.x;
  if (knot < kMoments) sm.moments[knot] = params.moments[knot];
  __syncthreads();  // the moments are written
  if (knot < kTimeKnots) sm.density[knot] = __dsqrt_rn(__ddiv_rn(sm.moments[knot], sm.moments[kTimeKnots + knot]));
  __syncthreads();  // the size of the integrand is written; its integral is formed
  if (threadIdx.x == 0) {
    bool known = true;
    for (uint32_t k = 0; k < kTimeKnots; ++k)
      known = known && sm.moments[kTimeKnots + k] > 0.0 && isfinite(sm.moments[k]);
    double total = 0.0;
    for (uint32_t k = 0; k + 1 < kTimeKnots; ++k) total = __dadd_rn(total, trapezoid(sm.density[k], sm.density[k + 1]));
    sm.total = known ? total : 0.0;
  }
  __syncthreads();  // the integral is written; the density is divided by it
  if (knot < kTimeKnots) {
    const double value = sm.density[knot], total = sm.total;
    const double density =
        total > 0.0 ? __dadd_rn(kUniformShare, __ddiv_rn(__dmul_rn(1.0 - kUniformShare, value), total)) : 1.0;
    params.density[knot] = sm.density[knot] = density;
  }
  __syncthreads();  // the density is written; it is added up
  if (threadIdx.x == 0) {
    double cumulative = 0.0;
    params.cumulative[0] = 0.0;
    for (uint32_t k = 1; k < kTimeKnots; ++k) {
      cumulative = __dadd_rn(cumulative, trapezoid(sm.density[k - 1], sm.density[k]));
      params.cumulative[k] = cumulative;
    }
  }
}
