//! The device of the tests, and the order of sums.

use std::sync::Arc;

use super::driver::Device;
/// The sum of shards, a power of two of them, in pairs.
pub use crate::ranks::shards::sum as sum_in_pairs;

/// The first GPU, or the virtual one.
pub fn device() -> Arc<Device> {
    Device::open(0).expect("a device: build vgpu, and put it on the library path as libcuda.so")
}

/// The sum of the groups `partial(k)`, k < `n`, of `n_shards` shards.
pub fn sum_of_all(n_shards: usize, n: usize, partial: impl Fn(usize) -> f32) -> f32 {
    let of_shard = |shard| sum_of_shard((shard, n_shards), n, &partial);
    sum_in_pairs(&(0..n_shards).map(of_shard).collect::<Vec<f32>>())
}

/// The sum of the groups `partial(k)`, k < `n`, of shard `shard` of `n_shards`.
pub fn sum_of_shard((shard, n_shards): (usize, usize), n: usize, partial: impl Fn(usize) -> f32) -> f32 {
    (shard..n).step_by(n_shards).map(partial).fold(0.0, |sum, value| sum + value)
}
