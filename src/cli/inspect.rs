//! `amatch inspect`.

use std::path::{Path, PathBuf};

use action_matching::config::Config;
use action_matching::data::{DataSource, describe};
use action_matching::model::Model;
use action_matching::train::{Checkpoint, RunFolder, read_metrics};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch inspect examples/data/emt.npz
  amatch inspect runs/hematopoiesis
  amatch inspect runs/hematopoiesis/checkpoints/step-0000001000.safetensors
  amatch inspect samples.npy --times-path times.npy")]
pub struct Arguments {
    /// Model, checkpoint, configuration, run folder or data file
    file: PathBuf,
    /// Name of the samples in a data file
    #[arg(long, default_value = "samples", value_name = "NAME")]
    samples: String,
    /// Name of the times in a data file
    #[arg(long, default_value = "times", value_name = "NAME")]
    times: String,
    /// The .npy file of the times beside a .npy file of samples
    #[arg(long, value_name = "FILE")]
    times_path: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let path = &arguments.file;
    let suffix = path.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
    let text = if path.is_dir() {
        describe_run(&RunFolder::new(path))?
    } else if suffix == "toml" {
        Config::read(path, &[])?.to_toml()
    } else if suffix == "safetensors" && !is_data(path, &arguments.samples) {
        describe_tensors(path)?
    } else {
        describe(&DataSource {
            samples: arguments.samples.clone(),
            times: arguments.times.clone(),
            times_path: arguments.times_path.clone(),
            ..DataSource::new(path)
        })?
    };
    print!("{text}");
    Ok(())
}

/// Whether a safetensors file holds samples.
fn is_data(path: &Path, samples: &str) -> bool {
    action_matching::data::read_points(path, samples).is_ok()
}

/// A model or a checkpoint, whichever the file says it is.
fn describe_tensors(path: &Path) -> action_matching::Result<String> {
    match Checkpoint::load(path) {
        Ok(checkpoint) => Ok(format!("checkpoint\n{}", checkpoint.describe())),
        Err(error) if error.to_string().contains("this is no checkpoint") => {
            Ok(format!("model\n{}", Model::load(path)?.describe()))
        }
        Err(error) => Err(error),
    }
}

fn describe_run(folder: &RunFolder) -> action_matching::Result<String> {
    let config = Config::read(&folder.config(), &[])?;
    let mut text = format!("run\ndata             {}\n", config.data.path.display());
    let newest = Checkpoint::load_newest(&folder.checkpoints(), |warning| eprintln!("warning: {warning}"))?;
    let step = newest.map_or(0, |checkpoint| checkpoint.state.step);
    text += &format!("steps            {step} of {}\n", config.training.steps);
    if let Some(last) = read_metrics(&folder.metrics())?.last() {
        text += &format!("loss             {:.6} at step {}\n", last.loss, last.step);
    }
    if folder.model().exists() {
        text += &Model::load(&folder.model())?.describe();
    }
    Ok(text)
}
