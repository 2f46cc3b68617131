// Barriers in shared memory that are waited for by the state of an arrival, begun again, or tested
// by parity; bulk copies out of shared memory; fences of one memory. The project's own kernels use
// none of these. tests/asynchronous.rs compares the results and changes the marked instructions.
#include <cstdint>

constexpr uint32_t kThreads = 128;

__device__ uint32_t address_of(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

__device__ void init(uint32_t barrier, uint32_t n_arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(n_arrivals) : "memory");
}

__device__ uint64_t arrive(uint32_t barrier) {
  uint64_t state;
  asm volatile("mbarrier.arrive.shared::cta.b64 %0, [%1]; // arrive" : "=l"(state) : "r"(barrier) : "memory");
  return state;
}

#define WAIT(NAME, INSTRUCTION, TYPE, CONSTRAINT)                                                               \
  __device__ void NAME(uint32_t barrier, TYPE phase) {                                                          \
    uint32_t done;                                                                                              \
    do {                                                                                                        \
      asm volatile("{\n .reg .pred p;\n " INSTRUCTION " p, [%1], %2; // " #NAME "\n selp.u32 %0, 1, 0, p;\n}\n" \
                   : "=r"(done)                                                                                 \
                   : "r"(barrier), CONSTRAINT(phase)                                                            \
                   : "memory");                                                                                 \
    } while (done == 0);                                                                                        \
  }
WAIT(test_state, "mbarrier.test_wait.shared::cta.b64", uint64_t, "l")
WAIT(try_state, "mbarrier.try_wait.shared::cta.b64", uint64_t, "l")
WAIT(test_parity, "mbarrier.test_wait.parity.shared::cta.b64", uint32_t, "r")
WAIT(try_parity, "mbarrier.try_wait.parity.shared::cta.b64", uint32_t, "r")

// Threads add what others wrote in the same round. Each waits for the state of its own arrival, or
// by `fault` for that of two rounds before, for that of another barrier, or for no state.
extern "C" __global__ void states(uint32_t* output, uint32_t n_rounds, uint32_t fault) {
  __shared__ uint32_t values[2][kThreads];
  __shared__ uint64_t barriers[2];
  const uint32_t all = address_of(barriers), own = all + 8;
  if (threadIdx.x == 0) {
    init(all, kThreads);
    init(own, kThreads);
  }
  __syncthreads();
  const uint64_t other = arrive(own);
  uint64_t last = 0, before = 0;
  uint32_t value = threadIdx.x + 1;
  for (uint32_t round = 0; round < n_rounds; ++round) {
    values[round % 2][threadIdx.x] = value;
    const uint64_t state = arrive(all);
    const uint64_t named = fault == 1 && round >= 2 ? before : fault == 2 ? other : fault == 3 ? round : state;
    before = last;
    last = state;
    if (threadIdx.x < kThreads / 2)
      test_state(all, named);
    else
      try_state(all, named);
    value += 3 * values[round % 2][(threadIdx.x + 33) % kThreads];
  }
  output[blockIdx.x * kThreads + threadIdx.x] = value;
}

// A barrier ends, its place holds a number, and another barrier begins there, of half of the
// threads. `outside` is for the fault of a generic address that is not of shared memory.
extern "C" __global__ void again(uint32_t* output, uint64_t* outside) {
  __shared__ uint64_t place;
  __shared__ uint32_t values[kThreads];
  const uint32_t barrier = address_of(&place);
  if (threadIdx.x == 0) init(barrier, kThreads);
  __syncthreads();
  values[threadIdx.x] = threadIdx.x;
  uint64_t* const generic = outside ? outside : &place;
  asm volatile("mbarrier.arrive.b64 _, [%0]; // generic" ::"l"(generic) : "memory");
  test_parity(barrier, 0);
  const uint32_t value = values[threadIdx.x ^ 77];
  __syncthreads();
  if (threadIdx.x == 5) asm volatile("mbarrier.inval.shared::cta.b64 [%0]; // over" ::"r"(barrier) : "memory");
  __syncthreads();
  if (threadIdx.x == 70) place = 1000;
  __syncthreads();
  if (threadIdx.x == 40) {
    values[0] = static_cast<uint32_t>(place);
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1; // anew" ::"r"(barrier), "r"(kThreads / 2) : "memory");
  }
  __syncthreads();
  if (threadIdx.x >= kThreads / 2) {
    values[threadIdx.x] = value + values[0];
    arrive(barrier);
  }
  try_parity(barrier, 0);
  output[threadIdx.x] = values[kThreads / 2 + threadIdx.x % (kThreads / 2)];
}

// Each block writes numbers to global memory and fetches them by a bulk copy; then it sends twice
// these by another one, and reads what it sent.
extern "C" __global__ void both_ways(uint32_t* middle, uint32_t* sent, uint32_t* output) {
  constexpr uint32_t kBytes = 4 * kThreads;
  __shared__ __align__(128) uint32_t tile[kThreads];
  __shared__ uint64_t full;
  const uint32_t barrier = address_of(&full), first = blockIdx.x * kThreads, index = first + threadIdx.x;
  if (threadIdx.x == 0) {
    init(barrier, 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  middle[index] = 7 * index;
  asm volatile("fence.proxy.async.global; // global-fence" ::: "memory");
  __syncthreads();
  if (threadIdx.x == 0) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1; // expect" ::"r"(barrier), "r"(kBytes)
                 : "memory");
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3]; // fetch" ::"r"(
            address_of(tile)),
        "l"(middle + first), "r"(kBytes), "r"(barrier)
        : "memory");
  }
  test_parity(barrier, 0);
  const uint32_t value = tile[threadIdx.x ^ 64];
  __syncthreads();
  tile[threadIdx.x] = 2 * value;
  asm volatile("fence.proxy.async.shared::cta; // shared-fence" ::: "memory");
  __syncthreads();
  if (threadIdx.x == 0) {
    asm volatile("cp.async.bulk.commit_group; // nothing" ::: "memory");
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2; // send" ::"l"(sent + first),
                 "r"(address_of(tile)), "r"(kBytes)
                 : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
    asm volatile("cp.async.bulk.wait_group 0; // sent" ::: "memory");
  }
  __syncthreads();
  tile[threadIdx.x] = 0;
  output[index] = sent[first + (threadIdx.x ^ 3)];
}

// One warp sends numbers by a bulk copy, waits for it and ends; the other reads them long after.
extern "C" __global__ void handed_on(uint32_t* sent, uint32_t* output) {
  __shared__ __align__(128) uint32_t tile[32];
  __shared__ uint32_t flag;
  const uint32_t lane = threadIdx.x % 32;
  if (threadIdx.x == 0) flag = 0;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (uint32_t i = 0; i < 32; ++i) tile[i] = 5 * i;
    asm volatile("fence.proxy.async;" ::: "memory");
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], 128;" ::"l"(sent), "r"(address_of(tile))
                 : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
    asm volatile("cp.async.bulk.wait_group 0; // handed" ::: "memory");
    asm volatile("st.release.cta.shared::cta.u32 [%0], 1;" ::"r"(address_of(&flag)) : "memory");
  } else if (threadIdx.x >= 32) {
    uint32_t there;
    do {
      asm volatile("ld.acquire.cta.shared::cta.u32 %0, [%1];" : "=r"(there) : "r"(address_of(&flag)) : "memory");
    } while (there == 0);
#pragma unroll 1
    for (uint32_t i = 0; i < 3000; ++i) asm volatile("" ::: "memory");
    output[lane] = sent[lane];
  }
}
