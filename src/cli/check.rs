//! `amatch check`.

use std::path::PathBuf;

use action_matching::check::{read_batch, write_loss_gradient};
use action_matching::engine::Differentiate;
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::cuda::CudaEngine;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::model::Model;
use action_matching::objective::Objective;
use action_matching::precision::Precision;
use action_matching::{Destination, DeviceKind, Error};

use super::device::{device_ordinal, gpu_only, parse_precision};
use super::output::{model_file, print_result, replace_files};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch check --model runs/a --batch b.safetensors --out g.safetensors
  amatch check --model m.safetensors --batch b.safetensors --out g.safetensors --device cuda

All values are in network coordinates. The batch holds
  x [n, d], t [n]          interior rows
  x0 [n0, d], x1 [n1, d]   rows at the first and the last time
  omega [n], d_omega [n]   time weight and its slope (default: 1 and 0)
  omega0, omega1           time weight at the first and the last time (default: 1)
  c [n, m], c0, c1         of a model with conditions: its inputs in each row
  probe [k, n, d]          with diffusion: probes (default: the exact Laplacian)
The result holds, in float64,
  loss
  grad.<tensor name>       for every parameter
  s, ds_dx, ds_dt          for each interior row; with diffusion also laplacian
--precision f64 runs a plain implementation that shares no kernel with the engines.")]
pub struct Arguments {
    /// Model file or run folder
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Batch (safetensors)
    #[arg(long, value_name = "FILE")]
    batch: PathBuf,
    /// Result (safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace the result if it exists (never a model, a file of a run, or a file that this command
    /// reads)
    #[arg(long)]
    force: bool,
    /// Diffusion σ instead of the model's
    #[arg(long, value_name = "SIGMA")]
    sigma: Option<f64>,
    /// Growth rate λ instead of the model's
    #[arg(long, value_name = "LAMBDA")]
    growth: Option<f64>,
    /// Cost exponent q instead of the model's
    #[arg(long, value_name = "Q")]
    cost_exponent: Option<f64>,
    /// Device: cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: String,
    /// Arithmetic: f32, or f64 on a CPU, or tf32, bf16 or f16 on a GPU
    #[arg(long, value_parser = Arithmetic::parse, default_value = "f32")]
    precision: Arithmetic,
}

#[derive(Clone, Copy)]
enum Arithmetic {
    F64,
    Engine(Precision),
}

impl Arithmetic {
    fn parse(name: &str) -> Result<Self, String> {
        if name == "f64" {
            return Ok(Arithmetic::F64);
        }
        parse_precision(name).map(Arithmetic::Engine).map_err(|names| format!("{names}, f64"))
    }

    /// The engine for this arithmetic on `device`.
    fn on(self, device: &str) -> action_matching::Result<Box<dyn Differentiate>> {
        match (self, device_ordinal(device)?) {
            // Only the reference engine has f64.
            (Arithmetic::F64, None) => Ok(Box::new(ReferenceEngine)),
            (Arithmetic::F64, _) if device == "auto" => Ok(Box::new(ReferenceEngine)),
            (Arithmetic::F64, Some(_)) => Err(Error::Device {
                kind: DeviceKind::Unsupported,
                device: device.into(),
                problem: "--precision f64 is for the CPU".into(),
                fix: "use --device cpu".into(),
            }),
            (Arithmetic::Engine(precision), Some(ordinal)) => Ok(Box::new(CudaEngine::new(ordinal, precision)?)),
            (Arithmetic::Engine(Precision::F32), None) => Ok(Box::new(CpuEngine::new(1))),
            (Arithmetic::Engine(precision), None) => Err(gpu_only(device, precision)),
        }
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let file = model_file(&arguments.model);
    let out = Destination::check(&arguments.out, &[&file, &arguments.batch], replace_files(arguments.force))?;
    let mut model = Model::load(&file)?;
    let Objective { sigma, growth, cost_exponent, .. } = &mut model.objective;
    *sigma = arguments.sigma.unwrap_or(*sigma);
    *growth = arguments.growth.unwrap_or(*growth);
    *cost_exponent = arguments.cost_exponent.unwrap_or(*cost_exponent);
    model.objective.validate("command line")?;
    let batch = read_batch(&arguments.batch, &model)?;
    let engine = arguments.precision.on(&arguments.device)?;
    let result = engine.loss_gradient(&model, &batch)?;
    write_loss_gradient(&out, &model, &result)?;
    print_result(format_args!("loss {}\n", result.loss))
}
