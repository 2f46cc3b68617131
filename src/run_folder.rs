//! The names of the files of a run folder. What a run does with them is told in `train`.

use std::path::{Path, PathBuf};

/// The files of a run folder.
#[derive(Clone, Debug)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// The run folder at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        RunFolder(path.into())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The complete configuration: reproduces the run.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The model: moving-average parameters of the newest checkpoint.
    pub fn model(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// Loss and other metrics over the steps.
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// The plot of [`RunFolder::metrics`].
    pub fn plot(&self) -> PathBuf {
        self.0.join("loss.svg")
    }
}
