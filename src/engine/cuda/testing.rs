//! The device of the tests, and the order of sums.

use std::sync::Arc;

use super::abi::SHARDS;
use super::driver::Device;
/// The sum of shards, a power of two of them, in pairs.
pub use crate::ranks::shards::sum as sum_in_pairs;

/// The first GPU, or the virtual one.
pub fn device() -> Arc<Device> {
    Device::open(0).expect("a device: build vgpu, and put it on the library path as libcuda.so")
}

/// The sum of the groups `partial(k)`, k < `n`, of shard `shard`.
pub fn sum_of_shard(shard: usize, n: usize, partial: impl Fn(usize) -> f32) -> f32 {
    (shard..n).step_by(SHARDS).map(partial).fold(0.0, |sum, value| sum + value)
}
