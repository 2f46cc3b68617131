// What CUDA's own libraries make of synchronization between blocks, for tests/between_blocks.rs.
#include <cooperative_groups.h>

#include <cstdint>
#include <cuda/atomic>

// Each thread reads what its counterpart in the next block wrote before a barrier of the grid.
extern "C" __global__ void grid_sync(uint32_t* values, uint32_t* out) {
  const uint32_t own = blockIdx.x * blockDim.x + threadIdx.x;
  for (uint32_t round = 0; round < 3; ++round) {
    values[own] = own + round;
    cooperative_groups::this_grid().sync();
    out[own] = values[(own + blockDim.x) % (gridDim.x * blockDim.x)];
    cooperative_groups::this_grid().sync();
  }
}

// Blocks take turns in adding to a sum that is no atomic, by a lock.
extern "C" __global__ void lock(uint32_t* locked, uint32_t* sum) {
  cuda::atomic_ref<uint32_t, cuda::thread_scope_device> lock(*locked);
  if (threadIdx.x != 0) return;
  uint32_t open = 0;
  while (!lock.compare_exchange_weak(open, 1, cuda::memory_order_acquire)) open = 0;
  *sum += blockIdx.x + 1;
  lock.store(0, cuda::memory_order_release);
}

// A message with fences beside relaxed accesses.
extern "C" __global__ void message(uint32_t* flag, uint32_t* value, uint32_t* out) {
  cuda::atomic_ref<uint32_t, cuda::thread_scope_device> ready(*flag);
  if (blockIdx.x == 0) {
    *value = 5;
    cuda::atomic_thread_fence(cuda::memory_order_release, cuda::thread_scope_device);
    ready.store(1, cuda::memory_order_relaxed);
  } else {
    while (ready.load(cuda::memory_order_relaxed) == 0) continue;
    cuda::atomic_thread_fence(cuda::memory_order_acquire, cuda::thread_scope_device);
    *out = *value + 1;
  }
}
