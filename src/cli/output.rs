//! Messages and progress of the commands, and access to the files of a run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use action_matching::config::Config;
use action_matching::data::{Components, Reduction};
use action_matching::train::RunFolder;
use action_matching::{Destination, Error, Replace, Trained};
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::exit;

/// Prints a message line to standard error, like `eprintln!`. A message that cannot be written is
/// dropped: the work continues if the reader of the messages is gone or their disk is full.
macro_rules! note {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let line = $crate::cli::flags::named(format!($($argument)*));
        let _ = writeln!(std::io::stderr(), "{line}");
    }};
}
pub(crate) use note;

/// Prints the result of a command to standard output. A closed pipe is not an error.
///
/// # Errors
/// If standard output cannot take the text for another reason, such as a full disk.
pub fn print_result(text: impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("standard output: cannot write the result"))
        }
        _ => Ok(()),
    }
}

/// Prints clap's answer to the command line: help or the version to standard output, a usage error
/// to standard error.
pub fn print_answer(answer: &clap::Error) -> ExitCode {
    match answer.print().and_then(|()| std::io::stdout().flush()) {
        Err(error) if !answer.use_stderr() && error.kind() != std::io::ErrorKind::BrokenPipe => {
            note!("error: standard output: cannot write the help: {error}");
            ExitCode::from(exit::ERROR)
        }
        _ if answer.use_stderr() => ExitCode::from(exit::USAGE),
        _ => ExitCode::from(exit::DONE),
    }
}

/// The files that a command with or without `--force` may replace.
pub fn replace_files(force: bool) -> Replace {
    if force { Replace::Files } else { Replace::Nothing }
}

/// `left` in words; nothing as long as it is not known, or at the end.
fn time_left(left: Duration) -> String {
    let seconds = Duration::from_secs(left.as_secs());
    if seconds.is_zero() { String::new() } else { format!("{} left", HumanDuration(seconds)) }
}

/// Time between two lines if standard error is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Progress on standard error: a bar on a terminal, otherwise a plain line now and then.
pub struct Progress {
    bar: ProgressBar,
    plain: Option<Instant>,
    total: u64,
    what: &'static str,
}

impl Progress {
    /// Progress of `what` towards `total`, starting at `done`.
    pub fn new(what: &'static str, done: u64, total: u64) -> Self {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_position(done);
        if let Ok(style) = ProgressStyle::with_template("{bar:32} {human_pos}/{human_len} {prefix} {msg} {eta} left") {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.set_prefix(what);
        bar.reset_eta();
        Progress { bar, plain: (!terminal).then(Instant::now), total, what }
    }

    /// Sets the total if it becomes known only later.
    pub fn of(&mut self, total: u64) {
        self.total = total;
        self.bar.set_length(total);
    }

    /// Shows `done` of the total, and the time left; `message` describes the current state.
    pub fn at(&mut self, done: u64, message: impl FnOnce() -> String) {
        self.bar.set_position(done);
        match &mut self.plain {
            None => self.bar.set_message(message()),
            Some(last) if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                let parts = [format!("{done}/{} {}", self.total, self.what), message(), time_left(self.bar.eta())];
                let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                note!("{}", parts.join(", "));
            }
            Some(_) => {}
        }
    }

    /// Prints `line` above the bar.
    pub fn line(&self, line: &str) {
        self.bar.suspend(|| note!("{line}"));
    }

    /// Clears the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// The file of a model that is given as a file or as its run folder.
pub fn model_file(path: &Path) -> PathBuf {
    if path.is_dir() { RunFolder::new(path).model() } else { path.to_owned() }
}

/// What was trained, given as the file of a model or as its run folder. A defect of the
/// configuration is a warning here, and an error only for a caller that needs its content.
pub fn load(path: &Path) -> action_matching::Result<Trained> {
    let trained = Trained::load(path)?;
    if let Some(defect) = &trained.unread {
        note!("warning: {defect}; the model is used without its configuration");
    }
    Ok(trained)
}

/// Refuses a `.npy`, which holds one array, for an output of several.
pub fn require_arrays(to: &Destination) -> action_matching::Result<()> {
    if to.path().extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("npy")) {
        let fix = "write a .npz, .csv or .safetensors file";
        return Err(Error::input(to.path(), "path", "is a .npy file, which holds one array of several", fix));
    }
    Ok(())
}

/// True if `time` is one at which a model of the `range` was trained.
pub fn is_trained([first, last]: [f64; 2], time: f64) -> bool {
    // Times this close to the ends are the ends, rounded differently.
    let slack = 1e-6 * (last - first);
    (first - slack..=last + slack).contains(&time)
}

/// True if `path` is a file of AnnData.
pub fn is_cells(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("h5ad"))
}

/// Where a `.h5ad` of particles has samples and times: where the run of `config` reads those of its
/// own cells, so that it reads this file too; the usual places for any other run.
pub fn places(config: Option<&Config>) -> [Option<String>; 2] {
    let of_cells = config.filter(|config| is_cells(&config.data.path)).map(Config::source);
    of_cells.map_or([None, None], |source| [Some(source.samples), Some(source.times)])
}

/// `components` as readers of `file` take them; without any the first columns of a file of AnnData,
/// if `config` asks for those.
pub fn given(components: Option<&Arc<Components>>, config: Option<&Config>, file: &Path) -> Option<Reduction> {
    let config = config.filter(|_| is_cells(file));
    let first = || config?.source().components.filter(|reduction| matches!(reduction, Reduction::First(_)));
    components.cloned().map(Reduction::Given).or_else(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_said_once_it_is_known() {
        assert_eq!(time_left(Duration::ZERO), "");
        assert_eq!(time_left(Duration::from_millis(900)), "");
        assert_eq!(time_left(Duration::from_secs(180)), "3 minutes left");
        assert_eq!(time_left(Duration::from_secs(40)), "40 seconds left");
    }
}
