//! The GPUs of this machine, and what is missing if there are none.

use std::sync::Arc;

use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use cudarc::driver::{CudaContext, DriverError, result, sys};

use super::modules::{MODULES, NVCC};
use crate::error::{DeviceKind, Error, Result};

/// How to get the compiler if the system has none.
const PACKAGES: &str = "pip install nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-crt nvidia-nvvm nvidia-cuda-cccl";

/// A GPU as the driver describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceInfo {
    /// Its number, N of `cuda:N`.
    pub ordinal: usize,
    /// Name of the model.
    pub model: String,
    /// Major and minor number of its compute capability.
    pub compute_capability: (u32, u32),
    /// Multiprocessors.
    pub n_multiprocessors: usize,
    /// Highest clock of a multiprocessor, Hz.
    pub clock: f64,
    /// Bytes of memory.
    pub total_memory: usize,
    /// Those of them that are free; `None` where another process keeps the device for itself.
    pub free_memory: Option<usize>,
}

impl DeviceInfo {
    /// Describes the GPU of `context`.
    pub(super) fn new(context: &Arc<CudaContext>) -> std::result::Result<DeviceInfo, DriverError> {
        let free = context.mem_get_info().map(|(free, _)| free).ok();
        DeviceInfo::of(context.ordinal(), free)
    }

    fn of(ordinal: usize, free_memory: Option<usize>) -> std::result::Result<DeviceInfo, DriverError> {
        let device = result::device::get(ordinal as i32)?;
        let attribute = |attribute| {
            // SAFETY: the device comes from the driver.
            unsafe { result::device::get_attribute(device, attribute) }.map(|value| value.max(0) as u32)
        };
        Ok(DeviceInfo {
            ordinal,
            model: result::device::get_name(device)?,
            compute_capability: (
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            n_multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
            clock: f64::from(attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?) * 1e3,
            // SAFETY: the device comes from the driver.
            total_memory: unsafe { result::device::total_mem(device) }?,
            free_memory,
        })
    }
}

/// The GPUs of this machine; empty if the driver sees none.
///
/// # Errors
/// [`Error::Device`]: there is no driver, or it fails.
pub fn devices() -> Result<Vec<DeviceInfo>> {
    check_driver("cuda")?;
    let list = || -> std::result::Result<Vec<DeviceInfo>, DriverError> {
        let count = count()?;
        // Asking for free memory needs a context, which a device in exclusive use refuses.
        let free = |ordinal| CudaContext::new(ordinal).and_then(|context| context.mem_get_info()).map(|(free, _)| free);
        (0..count).map(|ordinal| DeviceInfo::of(ordinal, free(ordinal).ok())).collect()
    };
    list().map_err(failure)
}

/// Number of the GPUs of this machine; 0 if the driver sees none.
///
/// # Errors
/// As [`devices`].
pub fn n_devices() -> Result<usize> {
    check_driver("cuda")?;
    count().map_err(failure)
}

fn failure(error: DriverError) -> Error {
    Error::Device {
        kind: DeviceKind::Unavailable,
        device: "cuda".into(),
        problem: format!("the NVIDIA driver fails: {}", super::device::describe(error)),
        fix: "`nvidia-smi` says more; reinstall the driver, or use the `CpuEngine`".into(),
    }
}

/// True if this program has kernels and the machine a driver that sees a GPU. Decides which
/// engine `auto` is.
#[must_use]
pub fn is_available() -> bool {
    !MODULES.is_empty() && check_driver("cuda").is_ok() && count().is_ok_and(|count| count > 0)
}

/// The release of the driver and the newest CUDA it can run, for the user.
///
/// # Errors
/// [`Error::Device`]: there is no driver.
pub fn driver() -> Result<String> {
    check_driver("cuda")?;
    let mut version = 0;
    // SAFETY: writes one number.
    let cuda = match unsafe { sys::cuDriverGetVersion(&mut version) }.result() {
        Ok(()) => format!("CUDA {}.{}", version / 1000, version % 1000 / 10),
        Err(error) => super::device::describe(error),
    };
    // The driver interface does not report its release; the kernel module does.
    let module = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    Ok(release(&module).map_or(cuda.clone(), |release| format!("{release}, {cuda}")))
}

/// The release in the version text of the kernel module, such as `NVRM version: NVIDIA UNIX x86_64
/// Kernel Module  550.54.14  Thu Feb 22 …`.
fn release(module: &str) -> Option<&str> {
    let line = module.lines().find(|line| line.starts_with("NVRM version"))?;
    line.split_whitespace()
        .find(|word| word.contains('.') && word.split('.').all(|number| number.parse::<u32>().is_ok()))
}

/// The compiler that made the kernels in this program, and for which architectures.
///
/// # Errors
/// [`Error::Device`] if there are none, with how to get them.
pub fn kernels() -> Result<&'static str> {
    check_kernels("cuda")?;
    Ok(NVCC.unwrap_or_default())
}

/// The oldest driver release that runs the kernels in this program, or, without kernels, those of
/// the newest compiler.
#[must_use]
pub fn oldest_driver() -> u32 {
    driver_of(NVCC.ok())
}

/// CUDA Toolkit release notes, minor version compatibility.
fn driver_of(compiler: Option<&str>) -> u32 {
    let major = compiler.and_then(|text| text.strip_prefix("nvcc ")?.split('.').next()?.parse::<u32>().ok());
    match major {
        Some(..=11) => 450,
        Some(12) => 525,
        Some(13..) | None => 580,
    }
}

/// Fails if this program has no kernels.
pub(super) fn check_kernels(device: &str) -> Result<()> {
    if !MODULES.is_empty() {
        return Ok(());
    }
    let why = NVCC.err().unwrap_or("it has no kernels");
    Err(Error::Device {
        kind: DeviceKind::Unavailable,
        device: device.into(),
        problem: format!("this program was built without CUDA kernels: {why}"),
        fix: format!(
            "install the CUDA toolkit, or in a virtual environment `{PACKAGES}`, and build with AMATCH_CUDA=on; or use the `CpuEngine`"
        ),
    })
}

/// Fails if there is no driver. After success the driver's functions may be called.
pub(super) fn check_driver(device: &str) -> Result<()> {
    // SAFETY: looks for a library by name; none of its functions is called.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    Err(Error::Device {
        kind: DeviceKind::Unavailable,
        device: device.into(),
        problem: "there is no NVIDIA driver (libcuda) on this machine".into(),
        fix: format!("install driver {} or later, or use the `CpuEngine`", oldest_driver()),
    })
}

/// Number of GPUs. The driver reports having none as an error, which counts as 0.
fn count() -> std::result::Result<usize, DriverError> {
    match result::init().and_then(|()| result::device::get_count()) {
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
        count => Ok(count?.max(0) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_toolkit_has_its_oldest_driver() {
        let [eleven, twelve, thirteen] =
            ["nvcc 11.8.89: sm_80", "nvcc 12.4.131: sm_80", "nvcc 13.0.88: sm_80"].map(Some);
        assert_eq!([eleven, twelve, thirteen, None].map(driver_of), [450, 525, 580, 580]);
    }

    #[test]
    fn the_release_is_found_in_what_the_kernel_module_says() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\nGCC version:  gcc 11.4.0";
        assert_eq!(release(closed), Some("550.54.14"));
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build\n";
        assert_eq!(release(open), Some("580.82.07"));
        assert_eq!(release("GCC version:  gcc 11.4.0"), None);
    }
}
