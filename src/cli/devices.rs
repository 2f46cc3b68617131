//! `amatch devices`: the available devices.

use action_matching::cli_support::{driver, kernels, oldest_driver};
use action_matching::engine::Engine;
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::cuda::{self, DeviceInfo};

use super::output::print_result;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch devices
  amatch train run.toml --device cuda:1     on the second GPU

Lists the CPU and each GPU under its name for --device. If no GPU can be used, says what is missing.")]
pub struct Arguments {}

pub fn run(_: &Arguments) -> anyhow::Result<()> {
    let mut lines = vec![CpuEngine::new(0).describe()];
    // The user asks for the devices, so a missing driver is an answer, not a failure of the
    // command.
    match cuda::devices() {
        Ok(devices) if devices.is_empty() => {
            lines.push("cuda: the NVIDIA driver sees no GPU (`nvidia-smi` lists what it sees)".into());
        }
        Ok(devices) => lines.extend(devices.iter().map(describe)),
        Err(missing) => lines.push(super::flags::named(missing.to_string())),
    }
    if let Ok(driver) = driver() {
        lines.push(format!("driver: {driver}"));
    }
    lines.push(match kernels() {
        Ok(kernels) => format!("kernels: {kernels}; driver {} or later", oldest_driver()),
        Err(missing) => super::flags::named(missing.to_string()),
    });
    print_result(lines.join("\n") + "\n")
}

fn describe(device: &DeviceInfo) -> String {
    let gibibytes = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    let free =
        device.free_memory.map_or("in exclusive use".to_string(), |free| format!("{:.1} GiB free", gibibytes(free)));
    let (major, minor) = device.compute_capability;
    format!(
        "cuda:{}, {}, compute capability {major}.{minor}, {:.1} GiB of memory, {free}",
        device.ordinal,
        device.model,
        gibibytes(device.total_memory)
    )
}
