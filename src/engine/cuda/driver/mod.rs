//! The only floor that calls the driver: one GPU with its memory, streams and kernels; the list of
//! GPUs; the compiled kernels.

mod device;
mod list;
mod modules;
mod peak;
mod pointer;

pub use list::{DeviceInfo, devices, driver, is_available, kernels, oldest_driver};

#[cfg(test)]
pub(super) use device::TAMPER;
pub(super) use device::{Buffer, Device, Pinned, Recording};
pub(super) use modules::Kernel;
pub use modules::images;
pub(super) use peak::peak_flops;
pub(super) use pointer::DevicePtr;
