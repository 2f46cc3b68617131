//! Errors of the library as exceptions of `action_matching.errors`, with the names that settings
//! have in Python.

use action_matching::{DeviceKind, Error, InputKind};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

/// Names of settings in the library's messages, each with what Python calls it.
const NAMES: [(&str, &str); 20] = [
    ("`Model::under`", "Model.under"),
    ("`Plan::t0, Plan::save_at`", "t0, t1, save_at"),
    ("`Plan::t0`", "t0"),
    ("`Plan::save_at`", "save_at"),
    ("`Plan::method`", "method"),
    ("`Plan::noise`", "noise"),
    ("`Method::Rk4`", "method=\"rk4\""),
    ("`Method::Dopri5`", "method=\"dopri5\""),
    ("`StepControl::Fixed`", "steps"),
    ("`StepControl::Adaptive`", "rtol, atol"),
    ("`Trajectories::log_density`", "log_density"),
    ("`EvaluateOptions::max_comparisons`", "max_comparisons"),
    ("`EvaluateOptions::max_points`", "points"),
    ("`evaluate::held_out`", "held_out"),
    ("`StartFrom::Noise`", "start=\"noise\""),
    ("`Existing::Replace`", "overwrite=True"),
    ("`Existing::Resume`", "resume=True"),
    ("the `CpuEngine`", "device=\"cpu\""),
    ("`output.folder`", "out"),
    ("output.folder", "out"),
];

/// `message` of the library as users of the package read it.
pub fn named(message: &str) -> String {
    NAMES.iter().fold(message.to_string(), |message, (setting, name)| message.replace(setting, name))
}

/// The exception for `error`: its message, and its parts as attributes.
pub fn exception(py: Python<'_>, error: Error) -> PyErr {
    raised(py, error).unwrap_or_else(|failure| failure)
}

fn raised(py: Python<'_>, error: Error) -> PyResult<PyErr> {
    let message = named(&error.to_string());
    let class = match &error {
        Error::Input { .. } | Error::Setting { .. } | Error::Shape { .. } => "InputError",
        Error::Io { .. } => "FileError",
        Error::Device { .. } => "DeviceError",
        Error::NotFinite { .. } => "NotFiniteError",
        Error::Interrupted => return Ok(PyKeyboardInterrupt::new_err(message)),
        _ => "ActionMatchingError",
    };
    let exception = py.import("action_matching.errors")?.getattr(class)?.call1((message,))?;
    match error {
        Error::Input { kind, origin, field, problem, fix } => {
            exception.setattr("kind", input_kind(kind))?;
            exception.setattr("origin", origin.to_string())?;
            exception.setattr("field", field)?;
            exception.setattr("problem", named(&problem))?;
            exception.setattr("fix", named(&fix))?;
        }
        Error::Setting { of, setting, problem, fix } => {
            exception.setattr("origin", of)?;
            exception.setattr("field", named(&format!("`{setting}`")))?;
            exception.setattr("problem", named(&problem))?;
            exception.setattr("fix", named(&fix))?;
        }
        Error::Device { kind, .. } => exception.setattr("kind", device_kind(kind))?,
        _ => {}
    }
    Ok(PyErr::from_value(exception))
}

fn input_kind(kind: InputKind) -> &'static str {
    match kind {
        InputKind::Missing => "missing",
        InputKind::Unknown => "unknown",
        InputKind::Conflict => "conflict",
        InputKind::Malformed => "malformed",
        InputKind::TooLarge => "too-large",
        InputKind::Exists => "exists",
        InputKind::InUse => "in-use",
        _ => "value",
    }
}

fn device_kind(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Unavailable => "unavailable",
        DeviceKind::Unsupported => "unsupported",
        DeviceKind::OutOfMemory => "out-of-memory",
        _ => "failed",
    }
}
