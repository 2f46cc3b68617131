// Blocks that exchange data within a launch, for tests/between_blocks.rs.
#include <cstdint>

__device__ __forceinline__ uint32_t load_acquire(const uint32_t* at) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(__cvta_generic_to_global(at)) : "memory");
  return value;
}

__device__ __forceinline__ void store_release(uint32_t* at, uint32_t value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(at)), "r"(value) : "memory");
}

__device__ __forceinline__ void add_release(uint32_t* at, uint32_t value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(at)), "r"(value) : "memory");
}

// All blocks of the grid wait for each other, the `round`th time from 1 on.
__device__ __forceinline__ void grid_barrier(uint32_t* arrived, uint32_t round) {
  __syncthreads();  // all threads have written what others read
  if (threadIdx.x == 0) {
    add_release(arrived, 1);
    while (load_acquire(arrived) < gridDim.x * round) __nanosleep(20);
  }
  __syncthreads();  // the others have arrived
}

// In each round a thread takes the value of its counterpart in the next block, and adds one.
extern "C" __global__ void rounds(uint32_t* arrived, uint32_t* values, uint32_t n_rounds) {
  const uint32_t own = blockIdx.x * blockDim.x + threadIdx.x;
  values[own] = own;
  for (uint32_t round = 0; round < n_rounds; ++round) {
    grid_barrier(arrived, 2 * round + 1);
    const uint32_t next = values[(own + blockDim.x) % (gridDim.x * blockDim.x)];
    grid_barrier(arrived, 2 * round + 2);
    values[own] = next + 1;
  }
}

// Block 0 sends to block 1 through a ring of slots, with flags as they were before C++11.
constexpr uint32_t kSlots = 3;
extern "C" __global__ void ring(volatile uint32_t* sent, volatile uint32_t* taken, uint32_t* slots, uint32_t* out,
                                uint32_t n) {
  for (uint32_t i = 0; i < n; ++i) {
    uint32_t* slot = slots + i % kSlots * blockDim.x;
    if (blockIdx.x == 0) {
      if (threadIdx.x == 0) {
        while (*taken + kSlots <= i) continue;
        __threadfence();  // the slot has been read
      }
      __syncthreads();
      slot[threadIdx.x] = 1000 * i + threadIdx.x;
      __syncthreads();  // all have written
      if (threadIdx.x == 0) {
        __threadfence();  // the slot is written
        *sent = i + 1;
      }
    } else {
      if (threadIdx.x == 0) {
        while (*sent <= i) continue;
        __threadfence();  // the slot can be read
      }
      __syncthreads();
      out[i * blockDim.x + threadIdx.x] = slot[threadIdx.x];
      __syncthreads();  // all have read
      if (threadIdx.x == 0) {
        __threadfence();  // the slot can be written
        *taken = i + 1;
      }
    }
  }
}

// The sum of all values; the last block to end adds the blocks' sums. One warp a block.
extern "C" __global__ void sum(const uint32_t* values, uint32_t* partial, uint32_t* ended, uint32_t* total) {
  uint32_t own = values[blockIdx.x * 32 + threadIdx.x];
  for (uint32_t step = 16; step > 0; step /= 2) own += __shfl_xor_sync(0xffffffff, own, step);
  if (threadIdx.x != 0) return;
  partial[blockIdx.x] = own;
  __threadfence();  // the partial sum is written
  if (atomicAdd(ended, 1) + 1 < gridDim.x) return;
  __threadfence();  // those of others can be read
  uint32_t all = 0;
  for (uint32_t block = 0; block < gridDim.x; ++block) all += partial[block];
  *total = all;
}

// Sums up to and including each value, by one thread a block: a block adds the sums before it until
// it finds one that includes all. A block takes its place when it begins, so those before it run.
extern "C" __global__ void scan(const uint32_t* values, uint32_t* tickets, uint32_t* state, uint32_t* alone,
                                uint32_t* inclusive) {
  const uint32_t own = atomicAdd(tickets, 1);
  const uint32_t value = values[own];
  alone[own] = value;
  store_release(state + own, 1);
  uint32_t before = 0;
  for (uint32_t at = own; at > 0;) {
    --at;
    uint32_t found;
    do found = load_acquire(state + at);
    while (found == 0);
    before += found == 2 ? inclusive[at] : alone[at];
    if (found == 2) break;
  }
  inclusive[own] = before + value;
  store_release(state + own, 2);
}

// Warps of one block exchange a value through a flag in shared memory instead of a barrier.
extern "C" __global__ void between_warps(uint32_t* out) {
  __shared__ uint32_t value;
  __shared__ volatile uint32_t flag;
  if (threadIdx.x == 0) flag = 0;
  __syncthreads();  // the flag is zero
  if (threadIdx.x == 32) {
    value = blockIdx.x + 7;
    __threadfence_block();  // the value is written
    flag = 1;
  } else if (threadIdx.x == 0) {
    while (flag == 0) continue;
    __threadfence_block();  // the value can be read
    out[blockIdx.x] = value;
  }
}
