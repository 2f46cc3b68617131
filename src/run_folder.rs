//! The names of the files of a run folder; `train` reads and writes them.

use std::path::{Path, PathBuf};

/// Name of the claim in the run folder.
pub(crate) const CLAIM: &str = ".amatch-claim";
/// Name of the claim on the claim, held briefly by a process that takes over.
pub(crate) const TAKEOVER: &str = ".amatch-takeover";

/// The files of a run folder.
#[derive(Clone, Debug)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// The run folder at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        RunFolder(path.into())
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The complete configuration: reproduces the run.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The model: moving-average parameters of the newest checkpoint.
    #[must_use]
    pub fn model(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }

    /// The loadings of the components that the model was trained on, if it was: beside the model.
    #[must_use]
    pub fn loadings(&self) -> PathBuf {
        self.0.join("loadings.safetensors")
    }

    /// The folder of checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// Loss and other metrics over the steps.
    #[must_use]
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// The plot of [`RunFolder::metrics`].
    #[must_use]
    pub fn plot(&self) -> PathBuf {
        self.0.join("loss.svg")
    }

    /// The test that the run ends with.
    #[must_use]
    pub fn self_test(&self) -> PathBuf {
        self.0.join("selftest.json")
    }

    /// The claim of the process that writes to the folder.
    pub(crate) fn claim(&self) -> PathBuf {
        self.0.join(CLAIM)
    }

    /// The claim of a process that takes over [`RunFolder::claim`].
    pub(crate) fn takeover(&self) -> PathBuf {
        self.0.join(TAKEOVER)
    }
}
