//! `--device`, `--precision` and `--threads`: selection of the engine.

use action_matching::engine::Engine;
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::cuda::{self, CudaEngine};
use action_matching::precision::Precision;
use action_matching::stage::{MAX_THREADS, startable_threads, thread_count};
use action_matching::{DeviceKind, Error};

use super::output::note;

#[derive(Clone, clap::Args)]
pub struct DeviceArguments {
    /// cpu, cuda or cuda:N (`amatch devices` lists them); auto takes a GPU if there is one
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// Matrix products of a GPU: f32, tf32, bf16 or f16 (a CPU computes in f32) [default: bf16, or
    /// training.precision of the configuration that is trained]
    #[arg(long, value_parser = parse_precision)]
    precision: Option<Precision>,
    /// CPU threads, at most 1024 (0: one for each core); they do not change results
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = parse_threads)]
    threads: usize,
}

/// The engine of a device.
pub enum DeviceEngine {
    Cpu(CpuEngine),
    Cuda(CudaEngine),
}

impl DeviceArguments {
    /// The engine of the device, in the requested precision.
    pub fn engine(&self) -> action_matching::Result<Box<dyn Engine>> {
        Ok(self.open(Precision::default())?.boxed())
    }

    /// The same, on GPU `ordinal`.
    pub fn on(&self, ordinal: usize) -> DeviceArguments {
        DeviceArguments { device: format!("cuda:{ordinal}"), ..self.clone() }
    }

    /// The precision that was asked for.
    pub fn precision(&self) -> Option<Precision> {
        self.precision
    }

    /// CPU threads as requested, or one for each core, within what the system can run.
    pub fn threads(&self) -> usize {
        startable_threads(self.threads)
    }

    /// The options, as given, that select the same device and precision again.
    pub fn again(&self) -> String {
        let device = if self.device == "auto" { String::new() } else { format!(" --device {}", self.device) };
        device + &self.precision.map_or_else(String::new, |precision| format!(" --precision {}", precision.name()))
    }

    /// True if a GPU is asked for, or would be taken, and none by its number.
    pub fn is_any_gpu(&self) -> bool {
        matches!(self.device.as_str(), "auto" | "cuda")
    }

    /// The engine of the device. On a GPU the precision is that of the command line, otherwise
    /// `precision`.
    pub fn open(&self, precision: Precision) -> action_matching::Result<DeviceEngine> {
        let (wanted, startable) = (thread_count(self.threads), self.threads());
        if startable < wanted {
            let limits = "ulimit -u, a container's limit on processes, or memory";
            note!("warning: of {wanted} threads the system lets {startable} run ({limits}); going on with those");
        }
        match device_ordinal(&self.device)? {
            Some(ordinal) => CudaEngine::new(ordinal, self.precision.unwrap_or(precision)).map(DeviceEngine::Cuda),
            None => {
                if let Some(precision) = self.precision.filter(|precision| *precision != Precision::F32) {
                    return Err(gpu_only(&self.device, precision));
                }
                Ok(DeviceEngine::Cpu(CpuEngine::new(self.threads)))
            }
        }
    }
}

impl DeviceEngine {
    /// The engine as a trait object.
    pub fn boxed(self) -> Box<dyn Engine> {
        match self {
            DeviceEngine::Cpu(engine) => Box::new(engine),
            DeviceEngine::Cuda(engine) => Box::new(engine),
        }
    }
}

/// The GPU that `device` names; `None` for the CPU.
pub fn device_ordinal(device: &str) -> action_matching::Result<Option<usize>> {
    match (device, device.strip_prefix("cuda:").map(str::parse::<u32>)) {
        ("cpu", _) => Ok(None),
        ("auto", _) => Ok(cuda::is_available().then_some(0)),
        ("cuda", _) => Ok(Some(0)),
        (_, Some(Ok(ordinal))) => Ok(Some(ordinal as usize)),
        _ => Err(Error::Device {
            kind: DeviceKind::Unavailable,
            device: device.into(),
            problem: "is not a device".into(),
            fix: "use auto, cpu, cuda or cuda:0".into(),
        }),
    }
}

/// The error for a precision that the CPU does not have.
pub fn gpu_only(device: &str, precision: Precision) -> Error {
    let device = if device == "auto" { "auto (here the CPU)" } else { device };
    Error::Device {
        kind: DeviceKind::Unsupported,
        device: device.into(),
        problem: format!("--precision {} is for GPUs", precision.name()),
        fix: "use --device cuda, or leave --precision out: a CPU computes in f32".into(),
    }
}

/// A number of threads within [`MAX_THREADS`].
pub fn parse_threads(text: &str) -> Result<usize, String> {
    let threads = text.parse().ok().filter(|threads| *threads <= MAX_THREADS);
    threads.ok_or_else(|| format!("use a whole number from 0 (one thread for each core) to {MAX_THREADS}"))
}

/// A precision by its name.
pub fn parse_precision(name: &str) -> Result<Precision, String> {
    let known = Precision::ALL.into_iter().find(|precision| precision.name() == name);
    known.ok_or_else(|| format!("use one of {}", Precision::ALL.map(Precision::name).join(", ")))
}
