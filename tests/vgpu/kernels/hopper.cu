// A chain of layers as a warp-specialized kernel of sm_90a runs it: one warp brings weights in
// blocks that lie as shared memory wants them (128-byte swizzle), two warpgroups keep 64 rows each
// in registers. tests/hopper.rs compares the result and changes the marked instructions one at a
// time.
#include <cuda_bf16.h>

#include <cstdint>

constexpr uint32_t kWidth = 64;
constexpr uint32_t kStages = 2;
constexpr uint32_t kStageBytes = kWidth * kWidth * 2;
constexpr uint32_t kResultBytes = 64 * kWidth * 4;  // of one warpgroup
constexpr uint32_t kBarriers = kStages * kStageBytes + 2 * kResultBytes;

__device__ uint32_t address_of(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

__device__ void wait(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile(
        "{\n .reg .pred p;\n mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;\n}\n"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (done == 0);
}

__device__ void multiply(float (&d)[32], const uint32_t* a, uint64_t weights, uint32_t adds) {
  asm volatile(
      "{\n .reg .pred p;\n setp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, p, 1, 1, 0; // product\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]),
        "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]),
        "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]),
        "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(weights), "r"(adds));
}

// Output of a block: its 128 rows after all layers, a <- bf16(W a) / 2 between them, in f32.
extern "C" __global__ void __launch_bounds__(384, 1)
    layers(const unsigned char* weights, const uint32_t* input, float* output, uint32_t n_layers) {
  extern __shared__ __align__(1024) unsigned char sm[];
  const uint32_t stages = address_of(sm), full = stages + kBarriers, empty = full + 8 * kStages;
  if (threadIdx.x == 0) {
    for (uint32_t i = 0; i < kStages; ++i) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(full + 8 * i));
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 8; // consumers" ::"r"(empty + 8 * i));
    }
    asm volatile("fence.mbarrier_init.release.cluster; // init-fence" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40; // fewer");
    if (threadIdx.x < 32) {
      uint32_t elected;
      asm volatile("{\n .reg .pred p;\n elect.sync _|p, 0xffffffff;\n selp.u32 %0, 1, 0, p;\n}\n" : "=r"(elected));
      if (elected) {
        for (uint32_t layer = 0; layer < n_layers; ++layer) {
          const uint32_t stage = layer % kStages;
          wait(empty + 8 * stage, layer / kStages % 2 ^ 1);
          asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1; // expect" ::"r"(full + 8 * stage),
                       "r"(kStageBytes)
                       : "memory");
          asm volatile(
              "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3]; // load" ::"r"(
                  stages + stage * kStageBytes),
              "l"(weights + layer * kStageBytes), "r"(kStageBytes), "r"(full + 8 * stage)
              : "memory");
        }
      }
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232; // more");
    const uint32_t group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const uint32_t row = 64 * group + 16 * warp + lane / 4, pair = lane % 4;
    const uint32_t* from = input + (blockIdx.x * 128 + row) * kWidth / 2 + pair;
    uint32_t a[kWidth / 4];
    for (uint32_t i = 0; i < kWidth / 4; ++i) a[i] = from[i / 2 * 4 + i % 2 * 8 * kWidth / 2];
    float d[32];
    for (uint32_t layer = 0; layer < n_layers; ++layer) {
      const uint32_t stage = layer % kStages;
      wait(full + 8 * stage, layer / kStages % 2);
      asm volatile("wgmma.fence.sync.aligned; // fence" ::: "memory");
      const uint64_t start = (stages + stage * kStageBytes) >> 4;
      const uint64_t descriptor = start | 1ull << 16 | 1024ull >> 4 << 32 | 1ull << 62;
      for (uint32_t k = 0; k < 4; ++k) multiply(d, a + 4 * k, descriptor + 2 * k, k > 0);
      asm volatile("wgmma.commit_group.sync.aligned; // commit" ::: "memory");
      asm volatile("wgmma.wait_group.sync.aligned 0; // wait" ::: "memory");
      if (lane == 0)
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0]; // release" ::"r"(empty + 8 * stage) : "memory");
      asm volatile("wgmma.wait_group.sync.aligned 0; // again, for the fault that the first is missing" ::: "memory");
      for (uint32_t i = 0; i < 32; ++i) asm volatile("" : "+f"(d[i])::"memory");
      for (uint32_t i = 0; i < 16; ++i)
        asm volatile("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(a[i]) : "f"(d[2 * i + 1] / 2), "f"(d[2 * i] / 2));
    }
    unsigned char* result = sm + kStages * kStageBytes + group * kResultBytes;
    for (uint32_t i = 0; i < 32; ++i) {
      const uint32_t of_group = 16 * warp + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + 2 * pair + i % 2;
      reinterpret_cast<float*>(result)[of_group * kWidth + column] = d[i];
    }
    asm volatile("fence.proxy.async; // proxy-fence" ::: "memory");
    asm volatile("bar.sync %0, 128; // named" ::"r"(group + 1) : "memory");
    if (threadIdx.x % 128 == 0) {
      asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2; // store" ::"l"(
                       output + (blockIdx.x * 128 + 64 * group) * kWidth),
                   "r"(address_of(result)), "r"(kResultBytes)
                   : "memory");
      asm volatile("cp.async.bulk.commit_group;\n cp.async.bulk.wait_group.read 0; // store-wait" ::: "memory");
    }
  }
}
