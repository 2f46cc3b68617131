// Probes of the Laplacian. Counterpart of engine::cpu::draw::probes. Component i of probe k uses
// random number k dim + i of its row.
#pragma once
#include "../rng/normal.cuh"
#include "abi.h"

struct Probes {
  LaplacianRule rule;
  uint32_t dim;
  RowWords words;

  __device__ __forceinline__ Probes(LaplacianRule rule, uint32_t dim, uint32_t n_probes, uint64_t seed, uint64_t step)
      : rule(rule), dim(dim), words{seed, step, Purpose::kProbe, 0} {
    const uint32_t numbers_per_counter = rule == LaplacianRule::kRademacher ? 4 * 32 : 4;
    words.n_counters = (n_probes * dim + numbers_per_counter - 1) / numbers_per_counter;
  }

  __device__ __forceinline__ float component(uint32_t row, uint32_t probe, uint32_t i) const {
    const uint32_t number = probe * dim + i;
    switch (rule) {
      case LaplacianRule::kRademacher: {
        const uint4 drawn = words.of(row, number / 128);
        const uint32_t index = number / 32 % 4;
        const uint32_t word = index < 2 ? (index == 0 ? drawn.x : drawn.y) : (index == 2 ? drawn.z : drawn.w);
        return word >> number % 32 & 1 ? -1.0f : 1.0f;
      }
      case LaplacianRule::kGaussian: return normal(words.of(row, number / 4), number % 4);
      default: return i == probe ? 1.0f : 0.0f;
    }
  }
};
