//! `amatch check`.

use std::path::PathBuf;

use action_matching::check::{read_batch, write_loss_gradient};
use action_matching::check_writable;
use action_matching::engine::Differentiate;
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::model::Model;
use action_matching::objective::Objective;

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  amatch check --model runs/hematopoiesis/model.safetensors --batch batch.safetensors --out gradients.safetensors

All in network coordinates. The batch holds x [n, d], t [n], x0 [n0, d], x1 [n1, d]; optionally omega [n], d_omega [n] and the scalars
omega0, omega1 (default: time weight 1, slope 0); with diffusion also probe [k, n, d] (default: the exact Laplacian). The output holds
loss, grad.<tensor name> for every parameter, and for each interior row s, ds_dx, ds_dt and with diffusion laplacian, in float64. --precision f64 runs a plain implementation that shares no kernel with the engine.")]
pub struct Arguments {
    /// Model file
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Batch (safetensors)
    #[arg(long, value_name = "FILE")]
    batch: PathBuf,
    /// Result (safetensors)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Diffusion σ instead of the model's
    #[arg(long, value_name = "SIGMA")]
    sigma: Option<f64>,
    /// Growth rate λ instead of the model's
    #[arg(long, value_name = "LAMBDA")]
    growth: Option<f64>,
    /// Cost exponent q instead of the model's
    #[arg(long, value_name = "Q")]
    cost_exponent: Option<f64>,
    /// Arithmetic
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Precision {
    F32,
    F64,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut model = Model::load(&arguments.model)?;
    let Objective { sigma, growth, cost_exponent, .. } = &mut model.objective;
    *sigma = arguments.sigma.unwrap_or(*sigma);
    *growth = arguments.growth.unwrap_or(*growth);
    *cost_exponent = arguments.cost_exponent.unwrap_or(*cost_exponent);
    model.objective.validate("command line".as_ref())?;
    let batch = read_batch(&arguments.batch, &model)?;
    check_writable(&arguments.out)?;
    let engine: &dyn Differentiate = match arguments.precision {
        Precision::F32 => &CpuEngine::new(1),
        Precision::F64 => &ReferenceEngine,
    };
    let result = engine.loss_gradient(&model, &batch)?;
    write_loss_gradient(&arguments.out, &model, &result)?;
    println!("loss {}", result.loss);
    Ok(())
}
