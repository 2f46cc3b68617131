//! Settings of a run: those of a configuration, checked as the program checks them.

use std::path::{Path, PathBuf};

use action_matching::config::Config;
use action_matching::train::RunFolder;
use action_matching::{Error, InputKind};
use pyo3::prelude::*;

use crate::errors::exception;

/// What errors call the settings.
const ORIGIN: &str = "settings";

/// A checked configuration.
#[pyclass(frozen, module = "action_matching._native")]
pub struct Settings {
    pub config: Config,
}

#[pymethods]
impl Settings {
    /// The configuration of `json`: an object of sections.
    #[new]
    fn new(py: Python<'_>, json: &str) -> PyResult<Settings> {
        let read = || {
            let unfit = |error: &dyn std::fmt::Display| {
                let fix = "use numbers, texts, lists and dicts, as a TOML file holds them";
                Error::input(ORIGIN, "values", error.to_string(), fix).of_kind(InputKind::Malformed)
            };
            let table: toml::Table = serde_json::from_str(json).map_err(|error| unfit(&error))?;
            let text = toml::to_string(&table).map_err(|error| unfit(&error))?;
            Config::parse(Path::new(ORIGIN), &text, &[])
        };
        Ok(Settings { config: read().map_err(|error| exception(py, error))? })
    }
}

/// The data file of the run in `folder`; `None` if there is no run whose configuration can be read.
#[pyfunction]
pub fn data_of(folder: PathBuf) -> Option<PathBuf> {
    let config = Config::read(&RunFolder::new(folder).config(), &[]).ok()?;
    Some(config.data.path)
}
