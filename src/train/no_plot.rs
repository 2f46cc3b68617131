//! In the place of `plot.rs` in builds without the feature `plot`: there is no picture.

use std::io::ErrorKind;
use std::path::Path;

use super::metrics::Metrics;
use super::unexplained::Unexplained;
use crate::error::{Error, Result};

/// Removes a picture that another build has drawn: it would not show the newest steps.
pub(super) fn plot_loss(path: &Path, _metrics: &[Metrics], _unexplained: Option<Unexplained>) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path, "remove")(error)),
        _ => Ok(()),
    }
}
