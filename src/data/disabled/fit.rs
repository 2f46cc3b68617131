//! In the place of `components/fit.rs` in builds without the feature `components`: components that
//! others have fitted can be used.

use std::path::Path;

use super::Components;
use crate::error::{Error, Result};
use crate::stage::Stage;

pub(in crate::data) fn fit(
    path: &Path,
    _rows: (&[f32], Option<&[f64]>),
    _origin: &[f64],
    _columns: Option<&[String]>,
    _count: usize,
    _stage: &Stage,
) -> Result<Components> {
    let problem = "are to be fitted, which this build of action-matching does not do";
    Err(Error::input(
        path,
        "data.components",
        problem,
        "build it with the feature `components`, or give their loadings",
    ))
}
