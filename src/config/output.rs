//! `[output]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[output]`: where results go. Nothing here changes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputConfig {
    /// Run folder, relative to where the program is started; empty: `runs/` and the configuration's
    /// name.
    pub folder: PathBuf,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between lines of `metrics.jsonl`.
    pub metrics_every: u64,
}

impl Default for OutputConfig {
    fn default() -> Self {
        OutputConfig { folder: PathBuf::new(), checkpoint_every: 1000, metrics_every: 10 }
    }
}
