//! Where a run comes from.

use std::path::Path;

use crate::config::{Config, digest_of_file};
use crate::error::Result;
use crate::run_folder::RunFolder;

/// Names and values: the program, the files of the run, the digest of its model if there is one.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the model cannot be read.
pub fn provenance(folder: &RunFolder, model: &Path, config: Option<&Config>) -> Result<Vec<(String, String)>> {
    let mut pairs = vec![("program".to_string(), format!("action-matching {}", env!("CARGO_PKG_VERSION")))];
    let mut add = |name: &str, value: String| pairs.push((name.into(), value));
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into()).display().to_string();
    add("run", whole(folder.path()));
    add("model", whole(model));
    if model.exists() {
        add("SHA-256 of the model", digest_of_file(model)?);
    }
    if let Some(config) = config {
        config.source().files().for_each(|file| add("data", whole(file)));
        add("seed", config.training.seed.to_string());
    }
    Ok(pairs)
}

/// The name of the run in `folder`.
#[must_use]
pub fn name_of(folder: &Path) -> String {
    let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.into());
    whole.file_name().map_or_else(|| whole.display().to_string(), |name| name.to_string_lossy().into_owned())
}
