//! `amatch devices`: what can do the work.

use action_matching::engine::Engine;
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::cuda::{self, DeviceInfo};

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  amatch devices
  amatch train run.toml --device cuda:1     on the second GPU

Lists the CPU and each GPU with its name for --device, and says what is missing where there is none.")]
pub struct Arguments {}

pub fn run(_: &Arguments) -> anyhow::Result<()> {
    println!("{}", CpuEngine::new(0).describe());
    // Whoever asks for the devices is told what is wrong with them: that is an answer, not a failure of the command.
    match cuda::devices() {
        Ok(devices) if devices.is_empty() => {
            println!("cuda: the NVIDIA driver sees no GPU (`nvidia-smi` lists what it sees)")
        }
        Ok(devices) => devices.iter().for_each(|device| println!("{}", describe(device))),
        Err(missing) => println!("{missing}"),
    }
    if let Ok(driver) = cuda::driver() {
        println!("driver: {driver}");
    }
    match cuda::kernels() {
        Ok(kernels) => println!("kernels: {kernels}; driver {} or later", cuda::oldest_driver()),
        Err(missing) => println!("{missing}"),
    }
    Ok(())
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
