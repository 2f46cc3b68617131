//! Every way the library can fail, holding what was expected and what came.

use std::path::{Path, PathBuf};

/// Result of a fallible library call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the library. The message of each variant names the file or buffer, the field and
/// the fix. Settings are named as the library has them, in backquotes: `Plan::save_at`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("{}: cannot {action}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The attempt, as a verb phrase (`"read"`, `"create the folder"`).
        action: &'static str,
        /// The system's answer. Part of the message, and therefore not the error's `source`:
        /// whoever prints a chain of causes would print it twice.
        cause: std::io::Error,
    },
    /// The content of a file (data, configuration, model, checkpoint) or of an argument is
    /// unusable.
    #[error("{file}: {field}: {problem} ({fix})")]
    Input {
        /// The file, or the argument, that holds the field.
        file: String,
        /// The array or key at fault.
        field: String,
        /// The problem, with the values found and expected.
        problem: String,
        /// The remedy.
        fix: String,
    },
    /// A setting of a call is out of its range, or contradicts another.
    #[error("{of}: `{setting}`: {problem} ({fix})")]
    Setting {
        /// The owner of the setting, in words.
        of: &'static str,
        /// Its path in the library, as in `Plan::save_at`.
        setting: &'static str,
        /// The problem, with the value.
        problem: String,
        /// The remedy.
        fix: String,
    },
    /// A buffer handed to the library has the wrong length.
    #[error("{buffer}: expected {expected} values, got {got}")]
    Shape {
        /// The buffer.
        buffer: &'static str,
        /// The wanted number of values.
        expected: usize,
        /// The number of values that came.
        got: usize,
    },
    /// Training or integration produced a value that is not finite.
    #[error("{what} is not finite at step {step} ({fix})")]
    NotFinite {
        /// The quantity.
        what: &'static str,
        /// The optimizer or integrator step, counted from 0.
        step: u64,
        /// The remedy.
        fix: &'static str,
    },
    /// The requested device cannot be used.
    #[error("device {device}: {problem} ({fix})")]
    Device {
        /// The device as the user named it.
        device: String,
        /// Why it cannot be used.
        problem: String,
        /// The remedy.
        fix: String,
    },
    /// A [`Watch`](crate::stage::Watch) ended the work before it was done; nothing is half-written.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// An [`Error::Input`] about `field` of `file`.
    pub fn input(
        file: impl AsRef<Path>,
        field: impl Into<String>,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Error::Input {
            file: file.as_ref().display().to_string(),
            field: field.into(),
            problem: problem.into(),
            fix: fix.into(),
        }
    }

    /// An [`Error::Setting`] about `setting` of `of`.
    pub(crate) fn setting(
        of: &'static str,
        setting: &'static str,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Error::Setting { of, setting, problem: problem.into(), fix: fix.into() }
    }

    /// An [`Error::Io`]: `action` is what was tried on `path`. Fits `map_err`.
    pub fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |cause| Error::Io { path, action, cause }
    }
}

/// `Ok` when `got == expected`, else [`Error::Shape`] for `buffer`.
pub(crate) fn check_len(buffer: &'static str, expected: usize, got: usize) -> Result<()> {
    if got == expected { Ok(()) } else { Err(Error::Shape { buffer, expected, got }) }
}
