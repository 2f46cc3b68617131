//! Every way the library can fail, holding what was expected and what came.

use std::fmt;
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
    ///
    /// ```
    /// use action_matching::prelude::*;
    /// use action_matching::{InputKind, Origin};
    ///
    /// match Model::load("no-such.safetensors".as_ref()) {
    ///     Err(Error::Input { kind: InputKind::Missing, origin: Origin::File(path), .. }) => {
    ///         assert_eq!(path.to_str(), Some("no-such.safetensors"));
    ///     }
    ///     other => panic!("{other:?}"),
    /// }
    /// ```
    #[error("{origin}: {field}: {problem} ({fix})")]
    Input {
        /// The kind of problem, for programs that act on it.
        kind: InputKind,
        /// The file, or the argument, that holds the field.
        origin: Origin,
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
    ///
    /// ```
    /// use action_matching::DeviceKind;
    /// use action_matching::prelude::*;
    ///
    /// let engine: Box<dyn Engine> = match CudaEngine::new(999, Precision::default()) {
    ///     Ok(engine) => Box::new(engine),
    ///     Err(Error::Device { kind: DeviceKind::Unavailable, .. }) => Box::new(CpuEngine::new(0)),
    ///     Err(error) => return Err(error),
    /// };
    /// assert!(engine.describe().starts_with("cpu"));
    /// # Ok::<(), Error>(())
    /// ```
    #[error("device {device}: {problem} ({fix})")]
    Device {
        /// The kind of problem, for programs that act on it.
        kind: DeviceKind,
        /// The device as the user named it.
        device: String,
        /// Why it cannot be used.
        problem: String,
        /// The remedy.
        fix: String,
    },
    /// Another process of a training, or several, cannot take part in it.
    #[error("{problem} ({fix})")]
    Rank {
        /// The kind of problem, for programs that act on it.
        kind: RankKind,
        /// The ranks, and what is wrong with them.
        problem: String,
        /// The remedy.
        fix: &'static str,
    },
    /// A [`Watch`](crate::stage::Watch) ended the work before it was done; nothing is half-written.
    #[error("interrupted")]
    Interrupted,
}

/// What is wrong with an input, as far as a program would act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InputKind {
    /// A value, size or type that is not allowed.
    Value,
    /// Something that is named is not there: a file, array, column, key or snapshot.
    Missing,
    /// A name that has no meaning here, such as an unknown key.
    Unknown,
    /// Two settings, or a setting and what a run has done so far, contradict each other.
    Conflict,
    /// The content is not in its format: a syntax error, damaged, or cut short.
    Malformed,
    /// It does not fit into the memory of the machine.
    TooLarge,
    /// The output is there already, and is not replaced unless that is asked for.
    Exists,
    /// Another process holds it.
    InUse,
}

/// Why a device cannot be used, as far as a program would act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceKind {
    /// There is no such device, no driver for it, or no kernels in this program. Another engine may
    /// do the work.
    Unavailable,
    /// The device cannot do what is asked for.
    Unsupported,
    /// Its memory does not suffice.
    OutOfMemory,
    /// It failed at work. A run can go on from its last checkpoint.
    Failed,
}

/// What is wrong with a rank, as far as a program would act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RankKind {
    /// It has not come: the training has not begun.
    Missing,
    /// It would train something else: the training has not begun.
    Differs,
    /// It is gone or hangs. A run can go on from its last checkpoint.
    Lost,
    /// Rank 0 has ended the training in good order, and the other ranks with it.
    Ended,
}

/// Holder of an unusable input.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A file or folder.
    File(PathBuf),
    /// An argument of a call or of the program, in words.
    Argument(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Origin::File(path) => path.display().fmt(f),
            Origin::Argument(name) => name.fmt(f),
        }
    }
}

impl From<&Path> for Origin {
    fn from(path: &Path) -> Self {
        Origin::File(path.into())
    }
}

impl From<&PathBuf> for Origin {
    fn from(path: &PathBuf) -> Self {
        Origin::File(path.into())
    }
}

impl From<PathBuf> for Origin {
    fn from(path: PathBuf) -> Self {
        Origin::File(path)
    }
}

impl From<&str> for Origin {
    fn from(argument: &str) -> Self {
        Origin::Argument(argument.into())
    }
}

impl From<&Origin> for Origin {
    fn from(origin: &Origin) -> Self {
        origin.clone()
    }
}

impl Error {
    /// An [`Error::Input`] about `field` of `origin`, of the kind [`InputKind::Value`].
    pub fn input(
        origin: impl Into<Origin>,
        field: impl Into<String>,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Error::Input {
            kind: InputKind::Value,
            origin: origin.into(),
            field: field.into(),
            problem: problem.into(),
            fix: fix.into(),
        }
    }

    /// The same error, of `kind` if it is an [`Error::Input`].
    #[must_use]
    pub fn of_kind(mut self, wanted: InputKind) -> Self {
        if let Error::Input { kind, .. } = &mut self {
            *kind = wanted;
        }
        self
    }

    /// The same error with its field, if it has one, named below `key`.
    #[cfg(feature = "files")]
    pub(crate) fn below(mut self, key: &str) -> Self {
        if let Error::Input { field, .. } = &mut self {
            *field = format!("{key}.{field}");
        }
        self
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
