//! `--device` and `--threads`: which engine does the work.

use action_matching::Error;
use action_matching::engine::Engine;
use action_matching::engine::cpu::CpuEngine;

#[derive(clap::Args)]
pub struct DeviceArguments {
    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// CPU threads (0: one for each core); results do not depend on it
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

impl DeviceArguments {
    /// The engine of the device.
    pub fn engine(&self) -> action_matching::Result<Box<dyn Engine>> {
        let device = self.device.as_str();
        let index = device.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').unwrap_or(rest));
        match (device, index) {
            ("auto" | "cpu", _) => Ok(Box::new(CpuEngine::new(self.threads))),
            (_, Some(index)) if index.is_empty() || index.parse::<u32>().is_ok() => Err(Error::Device {
                device: device.into(),
                problem: "this version has no CUDA engine".into(),
                fix: "use --device cpu".into(),
            }),
            _ => Err(Error::Device {
                device: device.into(),
                problem: "is not a device".into(),
                fix: "use auto, cpu, cuda or cuda:0".into(),
            }),
        }
    }
}
