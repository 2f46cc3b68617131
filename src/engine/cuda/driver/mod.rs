//! The only floor that calls the driver: one GPU with its memory, streams and kernels, alone
//! or among others; the list of GPUs; the compiled kernels.

mod communicator;
mod device;
mod foreign;
mod list;
mod modules;
mod nccl;
mod peak;
mod pointer;

pub use foreign::ForeignArray;
pub use list::{DeviceInfo, devices, driver, is_available, kernels, n_devices, oldest_driver};

pub(super) use communicator::Transfer;
pub use communicator::{Id, nccl_id, nccl_version};
#[cfg(test)]
pub(super) use device::TAMPER;
pub(super) use device::{Buffer, Device, Pinned, Pod, Recording};
pub(super) use modules::Kernel;
pub use modules::images;
pub(super) use peak::peak_flops;
pub(super) use pointer::DevicePtr;
