//! `amatch export`.

use std::path::PathBuf;

use action_matching::model::Condition;
use action_matching::{Destination, Trained};
use anyhow::bail;

use super::condition::chosen;
use super::ensemble::MemberArgument;
use super::output::{note, replace_files};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch export runs/hematopoiesis --out action.onnx
  amatch export runs/doses --condition dose=0.3 --out dose.onnx
In Python:
  session = onnxruntime.InferenceSession(\"action.onnx\")
  action, velocity, slope = session.run(None, {\"x\": x, \"t\": t})    # f32: x [n, d], t [n]

The graph has opset 17, computes in f32, and holds the derivatives, as ONNX has none of its own.
Inputs, in the units of the data:
  x [n, d], t [n]          points, and the time of each; f64 where f32 is coarser than the data
  condition_NAME [n]       of a model with conditions, unless --condition fixes them: the number, or
                           the index of the category as i64
Outputs, as those of `amatch query`:
  action [n]               the potential s, which has no unit
  velocity [n, d]          of particles there, without their noise
  time_derivative [n]      the slope of s in time
  growth_rate [n]          with growth: m' = growth_rate · m for the mass m of a particle")]
pub struct Arguments {
    /// Model file or run folder
    model: PathBuf,
    /// Output: .onnx
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Value of a condition of the model, each once [default: conditions are inputs]
    #[arg(long, value_name = "NAME=VALUE", num_args = 1)]
    condition: Vec<String>,
    /// Replace the output if it exists (never a model, a file of a run, or a file that this command
    /// reads)
    #[arg(long)]
    force: bool,
    /// Member of an ensemble, counted from 1 [default: 1, model.safetensors]
    #[arg(long, value_name = "K")]
    member: Option<usize>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.out.extension().is_none_or(|suffix| !suffix.eq_ignore_ascii_case("onnx")) {
        bail!("{}: is not called .onnx, the one format of this command (rename it)", arguments.out.display());
    }
    let member = MemberArgument::new(arguments.member);
    let Trained { file, models, .. } = member.load(&arguments.model)?;
    let destination = Destination::check(&arguments.out, &[&file], replace_files(arguments.force))?;
    if models.len() > 1 {
        note!("member 1 of {} is exported; --member chooses another", models.len());
    }
    let model = &models[0];
    let model = match arguments.condition.is_empty() {
        true => model.clone(),
        false => model.under(&chosen("--condition", &arguments.condition, &model.coordinates)?)?,
    };
    model.export_onnx(&destination)?;
    let conditions = model.coordinates.conditions.iter().map(Condition::name);
    let inputs: Vec<String> =
        ["x", "t"].map(String::from).into_iter().chain(conditions.map(|name| format!("condition_{name}"))).collect();
    note!("inputs {}: {}", inputs.join(", "), destination.path().display());
    Ok(())
}
