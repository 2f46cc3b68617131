//! `metrics.jsonl`: one line of JSON every few steps. Apart from rows/s and the time the lines are
//! the same however often a run is interrupted.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::events::EventWriter;
use super::folder::look_at;
use crate::engine::StepRecord;
use crate::error::{Error, Result};
use crate::files::{open_file, write_atomically};
use crate::run_folder::MemberFiles;

/// One line of `metrics.jsonl`. Non-finite numbers are written as `null`, and read as NaN.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Index of the step, from 0.
    pub step: u64,
    /// The loss.
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f64,
    /// ω(0) E[s(x, 0)].
    #[serde(deserialize_with = "number_or_null")]
    pub boundary0: f64,
    /// −ω(1) E[s(x, 1)].
    #[serde(deserialize_with = "number_or_null")]
    pub boundary1: f64,
    /// E[ω · interior + ω′ s].
    #[serde(deserialize_with = "number_or_null")]
    pub interior: f64,
    /// E[½‖∇s‖²].
    #[serde(deserialize_with = "number_or_null")]
    pub kinetic: f64,
    /// Global gradient norm before clipping.
    #[serde(deserialize_with = "number_or_null")]
    pub gradient_norm: f64,
    /// Learning rate.
    #[serde(deserialize_with = "number_or_null")]
    pub learning_rate: f64,
    /// With early stopping, after some steps: squared energy distance on the rows kept apart,
    /// network units; NaN of a model that loses its rows.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "measured")]
    pub held_out: Option<f64>,
    /// Rows of the batch per second.
    #[serde(deserialize_with = "number_or_null")]
    pub rows_per_s: f64,
    /// When the line was written, in seconds since 1970; 0 where that is not known.
    #[serde(default)]
    pub unix_time: f64,
}

fn number_or_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn measured<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<f64>, D::Error> {
    number_or_null(deserializer).map(Some)
}

impl Metrics {
    /// The line for `record`, at an unknown time.
    #[must_use]
    pub fn new(record: &StepRecord, rows_per_s: f64) -> Self {
        let StepRecord { step, loss, boundary0, boundary1, interior, kinetic, gradient_norm, learning_rate } = *record;
        Metrics {
            step,
            loss,
            boundary0,
            boundary1,
            interior,
            kinetic,
            gradient_norm,
            learning_rate,
            held_out: None,
            rows_per_s,
            unix_time: 0.0,
        }
    }
}

/// Reads the lines of `path`. An unreadable line is left out and reported to `warn`, except a last
/// one that was cut off. Of two lines of one step the later one counts.
///
/// # Errors
/// [`Error::Input`] if `path` is not a regular file, [`Error::Io`] if it cannot be read.
pub fn read_metrics(path: &Path, mut warn: impl FnMut(&str)) -> Result<Vec<Metrics>> {
    /// Far longer than any line.
    const LONGEST: u64 = 1 << 16;
    let mut reader = BufReader::new(open_file(path)?.0);
    let (mut lines, mut line): (Vec<Metrics>, Vec<u8>) = Default::default();
    let (mut unreadable, mut number) = (Vec::new(), 0u64);
    loop {
        line.clear();
        // A longer line comes in several reads, none of which can be parsed.
        let n = reader.by_ref().take(LONGEST).read_until(b'\n', &mut line).map_err(Error::io(path, "read"))?;
        if n == 0 {
            break;
        }
        number += 1;
        match serde_json::from_slice::<Metrics>(&line) {
            Ok(metrics) => {
                lines.truncate(lines.partition_point(|earlier| earlier.step < metrics.step));
                lines.push(metrics);
            }
            Err(_) if line.ends_with(b"\n") => unreadable.push(number),
            Err(_) => {}
        }
    }
    if let [first, ..] = unreadable[..] {
        let problem = match unreadable.len() {
            1 => format!("line {first} cannot be read and is left out"),
            n => format!("{n} lines cannot be read and are left out, line {first} first"),
        };
        warn(&format!("{}: {problem}", path.display()));
    }
    Ok(lines)
}

/// Appends to `metrics.jsonl`, and to the event file that has the same numbers.
pub struct MetricsWriter {
    path: PathBuf,
    out: BufWriter<File>,
    events: EventWriter,
}

impl MetricsWriter {
    /// Continues the metrics of `files` after the lines before `step`, or starts them. A line is
    /// expected every `every` steps: missing and unreadable lines are reported to `warn`.
    ///
    /// # Errors
    /// [`Error::Input`] if there is something else than a regular file, [`Error::Io`] if it cannot
    /// be read or written.
    pub fn open(files: &MemberFiles, step: u64, every: u64, mut warn: impl FnMut(&str)) -> Result<Self> {
        let path = &files.metrics();
        let mut kept = if look_at(path)?.is_some() { read_metrics(path, &mut warn)? } else { Vec::new() };
        kept.retain(|metrics| metrics.step < step);
        let is_there = |step: &u64| kept.binary_search_by_key(step, |metrics| metrics.step).is_ok();
        let mut missing = (0..step).step_by(every.max(1) as usize).filter(|step| !is_there(step));
        if let Some(first) = missing.next() {
            let steps = match missing.last() {
                Some(last) => format!("the lines of steps {first} to {last} are missing, in part or all"),
                None => format!("the line of step {first} is missing"),
            };
            warn(&format!("{}: {steps}", path.display()));
        }
        write_atomically(path, |out| kept.iter().try_for_each(|metrics| write_line(&mut *out, metrics)))?;
        let out = OpenOptions::new().append(true).open(path).map_err(Error::io(path, "open"))?;
        let events = EventWriter::open(&files.events(), &kept)?;
        Ok(MetricsWriter { path: path.to_owned(), out: BufWriter::new(out), events })
    }

    /// Adds a line.
    pub fn write(&mut self, metrics: &Metrics) -> Result<()> {
        write_line(&mut self.out, metrics).map_err(Error::io(&self.path, "write"))?;
        self.events.write(metrics)
    }

    /// Passes everything written to the system.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(Error::io(&self.path, "write"))?;
        self.events.flush()
    }

    /// Makes everything written durable, before a checkpoint, so that no checkpoint is ahead of its
    /// metrics.
    pub fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.out.get_ref().sync_data().map_err(Error::io(&self.path, "sync"))
    }
}

fn write_line(mut out: impl Write, metrics: &Metrics) -> std::io::Result<()> {
    serde_json::to_writer(&mut out, metrics)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_folder::RunFolder;

    fn line(step: u64) -> Metrics {
        Metrics::new(&StepRecord { step, loss: step as f64 * 0.1 - 1.0, ..StepRecord::default() }, 1e6)
    }

    /// The steps in a file of `content`, and the warnings of reading it.
    fn read(content: &[u8]) -> (Vec<u64>, Vec<String>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, content).expect("written");
        let mut warnings = Vec::new();
        let lines = read_metrics(&path, |warning| warnings.push(warning.to_string())).expect("reads");
        (lines.iter().map(|metrics| metrics.step).collect(), warnings)
    }

    fn written(steps: impl IntoIterator<Item = u64>) -> Vec<u8> {
        let mut content = Vec::new();
        steps.into_iter().try_for_each(|step| write_line(&mut content, &line(step))).expect("writes");
        content
    }

    #[test]
    fn a_bad_byte_costs_its_line_alone() {
        let mut content = written(0..100);
        content[300] = 1;
        let (steps, warnings) = read(&content);
        assert_eq!(steps.len(), 99);
        assert!(warnings.len() == 1 && warnings[0].contains("line 2 cannot be read and is left out"), "{warnings:?}");
        content[300] = b'\n';
        assert_eq!(read(&content).0.len(), 99);
        // Zeros, as a crash of the machine leaves them, and a last line that was cut off.
        content[2000..9000].fill(0);
        content.truncate(content.len() - 5);
        let (steps, warnings) = read(&content);
        assert!(steps.len() > 40 && steps.last() == Some(&98), "{steps:?}");
        assert_eq!(warnings.len(), 1);
        assert_eq!(read(&written([0, 1, 2, 3, 2, 3, 4])).0, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn numbers_that_are_not_finite_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        let lost = Metrics { loss: f64::NAN, gradient_norm: f64::INFINITY, held_out: Some(f64::NAN), ..line(7) };
        write_atomically(&path, |out| write_line(out, &lost)).expect("writes");
        let read = read_metrics(&path, |warning| panic!("{warning}")).expect("reads");
        assert!(read.len() == 1 && read[0].loss.is_nan() && read[0].gradient_norm.is_nan() && read[0].step == 7);
        assert!(read[0].held_out.is_some_and(f64::is_nan));
    }

    #[test]
    fn gaps_are_noticed_and_lines_behind_the_checkpoint_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = RunFolder::new(folder.path()).member(1);
        let path = files.metrics();
        let open = |steps: Vec<u64>| {
            std::fs::write(&path, written(steps)).expect("written");
            let mut warnings = Vec::new();
            drop(MetricsWriter::open(&files, 100, 10, |warning| warnings.push(warning.to_string())).expect("opens"));
            (read_metrics(&path, |_| ()).expect("reads").len(), warnings)
        };
        assert_eq!(open((0..200).step_by(10).collect()), (10, vec![]));
        let (n, warnings) = open([0, 10, 60, 70, 80, 90, 110].into());
        assert!(n == 6 && warnings[0].contains("the lines of steps 20 to 50 are missing"), "{n} {warnings:?}");
    }

    #[cfg(unix)]
    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        std::os::unix::fs::symlink("/dev/zero", &path).expect("linked");
        let error = read_metrics(&path, |_| ()).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
}
