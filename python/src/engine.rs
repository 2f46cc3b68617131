//! The engine that `device`, `precision` and `threads` name.

use std::sync::Arc;

use action_matching::config::Config;
use action_matching::engine::Engine;
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::cuda::{self, CudaEngine};
use action_matching::precision::Precision;
use action_matching::stage::MAX_THREADS;
use action_matching::{DeviceKind, Error, Result};

/// The device that does the work, as the caller names it.
#[derive(Clone, Debug, pyo3::FromPyObject)]
pub struct Device {
    #[pyo3(item)]
    device: String,
    /// Of a GPU's matrix products.
    #[pyo3(item)]
    precision: Option<String>,
    #[pyo3(item)]
    threads: usize,
}

/// The engine of a device.
#[derive(Clone)]
pub enum Opened {
    Cpu(Arc<CpuEngine>),
    Gpu(Arc<CudaEngine>),
}

impl Opened {
    /// What engines of all devices do.
    pub fn engine(&self) -> &dyn Engine {
        match self {
            Opened::Cpu(engine) => &**engine,
            Opened::Gpu(engine) => &**engine,
        }
    }
}

impl Device {
    /// Its engine.
    pub fn open(&self) -> Result<Opened> {
        self.open_for(&mut Config::default())
    }

    /// Its engine. On a GPU the precision is that of the device, else that of `config`, which then
    /// records it.
    pub fn open_for(&self, config: &mut Config) -> Result<Opened> {
        self.threads()?;
        let asked = self.precision.as_deref().map(precision_of).transpose()?;
        match self.ordinal()? {
            Some(ordinal) => {
                let engine = CudaEngine::new(ordinal, asked.or(config.training.precision).unwrap_or_default())?;
                config.training.precision = Some(engine.precision());
                Ok(Opened::Gpu(Arc::new(engine)))
            }
            None => match asked.filter(|asked| *asked != Precision::F32) {
                Some(asked) => {
                    let problem = format!("precision {:?} is for GPUs", asked.name());
                    let fix = "use device=\"cuda\", or leave precision out: a CPU computes in f32";
                    Err(self.error(DeviceKind::Unsupported, problem, fix))
                }
                None => Ok(Opened::Cpu(Arc::new(CpuEngine::new(self.threads)))),
            },
        }
    }

    /// CPU threads; 0 means one for each core.
    pub fn threads(&self) -> Result<usize> {
        if self.threads > MAX_THREADS {
            let fix = format!("use 0 (one for each core) to {MAX_THREADS}");
            return Err(Error::input("device", "threads", format!("is {}", self.threads), fix));
        }
        Ok(self.threads)
    }

    /// The number of a GPU; `None` for the CPU.
    fn ordinal(&self) -> Result<Option<usize>> {
        match (&*self.device, self.device.strip_prefix("cuda:").map(str::parse::<u32>)) {
            ("cpu", _) => Ok(None),
            ("auto", _) => Ok(cuda::is_available().then_some(0)),
            ("cuda", _) => Ok(Some(0)),
            (_, Some(Ok(ordinal))) => Ok(Some(ordinal as usize)),
            _ => Err(self.error(DeviceKind::Unavailable, "is not a device".into(), "use auto, cpu, cuda or cuda:0")),
        }
    }

    fn error(&self, kind: DeviceKind, problem: String, fix: &str) -> Error {
        Error::Device { kind, device: self.device.clone(), problem, fix: fix.into() }
    }
}

fn precision_of(name: &str) -> Result<Precision> {
    let known = Precision::ALL.into_iter().find(|precision| precision.name() == name);
    known.ok_or_else(|| {
        let fix = format!("use one of {}", Precision::ALL.map(Precision::name).join(", "));
        Error::input("device", "precision", format!("is {name:?}"), fix)
    })
}
