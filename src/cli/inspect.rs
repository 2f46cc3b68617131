//! `amatch inspect`.

use std::path::{Path, PathBuf};

use action_matching::cli_support::{TensorFileKind, describe};
use action_matching::config::{Config, manual};
use action_matching::data::Components;
use action_matching::display::significant;
use action_matching::model::Model;
use action_matching::train::{Checkpoint, RunFolder, read_metrics};
use action_matching::{Error, InputKind};

use super::output::{note, print_result};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch inspect examples/data/emt.npz
  amatch inspect runs/hematopoiesis
  amatch inspect runs/hematopoiesis/checkpoints/step-0000001000.safetensors")]
pub struct Arguments {
    /// Model, checkpoint, configuration, run folder or data file
    #[arg(required_unless_present = "keys")]
    file: Option<PathBuf>,
    /// Print what each key of a configuration means, its unit, its default, and when to change it
    #[arg(long, conflicts_with = "file")]
    keys: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Some(path) = &arguments.file else { return print_result(manual()) };
    let suffix = path.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
    if std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        // Before the suffix is checked, because the suffix of a missing file does not matter.
        let fix = "check the name, and the folder that relative paths start from";
        return Err(Error::input(path, "path", "does not exist", fix).of_kind(InputKind::Missing).into());
    }
    let text = if path.is_dir() {
        describe_run(&RunFolder::new(path))?
    } else if suffix == "toml" {
        Config::read_noting(path, &[], |line| note!("{line}"))?.to_toml()?
    } else if suffix == "safetensors" {
        describe_tensors(path)?
    } else {
        describe(path, &())?
    };
    print_result(text)
}

/// Describes a checkpoint, a model or data, depending on the file's content.
fn describe_tensors(path: &Path) -> action_matching::Result<String> {
    match TensorFileKind::of(path)? {
        TensorFileKind::Checkpoint => Ok(format!("checkpoint\n{}", Checkpoint::load(path)?.describe())),
        TensorFileKind::Model => Ok(format!("model\n{}", Model::load(path)?.describe())),
        TensorFileKind::Components => Ok(format!("components\n{}", describe_components(&Components::load(path)?))),
        TensorFileKind::Data => describe(path, &()),
    }
}

fn describe_run(folder: &RunFolder) -> action_matching::Result<String> {
    let config = Config::read(&folder.config(), &[])?;
    let mut text = format!("run\ndata             {}\n", config.data.path.display());
    let newest = Checkpoint::load_newest(&folder.checkpoints(), |warning| note!("warning: {warning}"))?;
    let step = newest.map_or(0, |checkpoint| checkpoint.state.step);
    text += &format!("steps            {step} of {}\n", config.training.steps);
    if let Some(last) = read_metrics(&folder.metrics(), |warning| note!("warning: {warning}"))?.last() {
        text += &format!("loss             {} at step {}\n", significant(last.loss, 6), last.step);
    }
    if config.training.seeds > 1 {
        let written = (1..=config.training.seeds).filter(|&number| folder.member(number).model().exists()).count();
        text += &format!("members          {written} of {} have a model; the first follows\n", config.training.seeds);
    }
    if folder.model().exists() {
        text += &Model::load(&folder.model())?.describe();
    }
    if config.data.components.is_some() && folder.loadings().exists() {
        text += &describe_components(&Components::load(&folder.loadings())?);
    }
    Ok(text)
}

fn describe_components(components: &Components) -> String {
    format!("components       {}\n", components.describe())
}
