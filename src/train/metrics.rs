//! `metrics.jsonl`: one line of JSON now and then, the same lines however often a run is interrupted (but for rows/s).

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::StepRecord;
use crate::error::{Error, Result};
use crate::files::{open_file, write_atomically};

/// One line of `metrics.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Index of the step, from 0.
    pub step: u64,
    /// The loss.
    pub loss: f64,
    /// ω(0) E[s(x, 0)].
    pub boundary0: f64,
    /// −ω(1) E[s(x, 1)].
    pub boundary1: f64,
    /// E[ω · interior + ω′ s].
    pub interior: f64,
    /// E[½‖∇s‖²].
    pub kinetic: f64,
    /// Global gradient norm before clipping.
    pub gradient_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Rows of the batch a second.
    pub rows_per_s: f64,
}

impl Metrics {
    /// The line for `record`.
    pub fn new(record: &StepRecord, rows_per_s: f64) -> Self {
        let StepRecord { step, loss, boundary0, boundary1, interior, kinetic, gradient_norm, learning_rate } = *record;
        Metrics { step, loss, boundary0, boundary1, interior, kinetic, gradient_norm, learning_rate, rows_per_s }
    }
}

/// Reads the lines of `path`; one cut off in the middle ends the file.
pub fn read_metrics(path: &Path) -> Result<Vec<Metrics>> {
    let (file, _) = open_file(path)?;
    let lines = BufReader::new(file).lines();
    Ok(lines.map_while(|line| serde_json::from_str(&line.ok()?).ok()).collect())
}

/// Appends to `metrics.jsonl`.
pub struct MetricsWriter {
    path: PathBuf,
    out: BufWriter<File>,
}

impl MetricsWriter {
    /// Continues `path` behind the lines before `step`, or starts it.
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        let mut kept = if path.exists() { read_metrics(path)? } else { Vec::new() };
        kept.retain(|metrics| metrics.step < step);
        write_atomically(path, |out| kept.iter().try_for_each(|metrics| write_line(&mut *out, metrics)))?;
        let out = OpenOptions::new().append(true).open(path).map_err(Error::io(path, "open"))?;
        Ok(MetricsWriter { path: path.to_owned(), out: BufWriter::new(out) })
    }

    /// Adds a line.
    pub fn write(&mut self, metrics: &Metrics) -> Result<()> {
        write_line(&mut self.out, metrics).map_err(Error::io(&self.path, "write"))
    }

    /// Hands everything written to the system.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(Error::io(&self.path, "write"))
    }
}

fn write_line(mut out: impl Write, metrics: &Metrics) -> std::io::Result<()> {
    serde_json::to_writer(&mut out, metrics)?;
    out.write_all(b"\n")
}
