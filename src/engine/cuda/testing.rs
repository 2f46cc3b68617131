//! The device of the tests.

use std::sync::Arc;

use super::driver::Device;

/// The first GPU, or the virtual one.
pub fn device() -> Arc<Device> {
    Device::open(0).expect("a device: build vgpu, and put it on the library path as libcuda.so")
}
