//! `.csv`: a header line of column names, then one row of numbers a sample.
//!
//! The file is read twice, for the times and then for the samples, so that memory holds the samples once.

use std::fs::File;
use std::path::{Path, PathBuf};

use csv::{ByteRecord, Position, Reader, ReaderBuilder, Trim};

use super::array::{Rows, check_shape, describe_not_finite, list};
use crate::error::{Error, Result};
use crate::files::open_file;
use crate::model::MAX_DIM;

/// Columns never taken for samples unless asked for by name.
const TIME_NAMES: [&str; 2] = ["times", "time"];

/// The array name that, where no column bears it, stands for all columns but the times.
const DEFAULT_SAMPLES: &str = "samples";

/// A table on disk, known by its header.
pub(super) struct Table {
    path: PathBuf,
    columns: Vec<String>,
    /// Counted by the first pass over the file.
    n_rows: Option<usize>,
}

impl Table {
    /// # Errors
    /// [`Error::Input`] when there is no header line.
    pub fn open(path: &Path) -> Result<Self> {
        let mut reader = reader(path)?;
        let header = reader.byte_headers().map_err(|e| csv_error(path, e))?;
        let columns: Vec<String> = header.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let refuse = |problem: &str, fix: &str| Err(Error::input(path, "header line", problem, fix));
        if columns.is_empty() {
            return refuse("is missing: the file is empty", "give a line of column names, then one row per sample");
        }
        if columns.iter().all(|name| name.parse::<f64>().is_ok()) {
            return refuse("is missing: the first line holds numbers", "name the columns in it, as in times,x1,x2");
        }
        Ok(Table { path: path.into(), columns, n_rows: None })
    }

    /// Names of the columns.
    pub fn names(&self) -> &[String] {
        &self.columns
    }

    /// (rows, columns) of `samples`.
    ///
    /// # Errors
    /// As [`Self::read_rows`].
    pub fn shape(&mut self, samples: &str, times: &str) -> Result<(usize, usize)> {
        let dim = self.sample_columns(samples, times)?.len();
        let n_rows = match self.n_rows {
            Some(n_rows) => n_rows,
            None => self.for_each_row(|_, _| Ok(()))?,
        };
        check_shape(&self.path, samples, n_rows as u64, dim as u64)
    }

    /// The column `name` as finite times.
    ///
    /// # Errors
    /// [`Error::Input`] naming the row of a field that is no time.
    pub fn times(&mut self, name: &str) -> Result<Vec<f64>> {
        let Some(column) = self.column(name)? else {
            let fix = format!("set times to one of its columns: {}", list(&self.columns));
            return Err(Error::input(&self.path, name, "no such column of times", fix));
        };
        let mut times = Vec::new();
        let path = self.path.clone();
        self.for_each_row(|_, record| {
            let time = number::<f64>(&path, name, record, column)?;
            if !time.is_finite() {
                let problem = format!("is {time} in {}", row_at(record.position()));
                return Err(Error::input(&path, name, problem, "remove rows without a time"));
            }
            times.push(time);
            Ok(())
        })?;
        Ok(times)
    }

    /// Reads the sample columns into `rows`.
    ///
    /// # Errors
    /// [`Error::Input`] naming row and column of a field that is no finite f32.
    pub fn read_rows(&mut self, samples: &str, times: &str, rows: &mut Rows<'_>) -> Result<()> {
        let columns = self.sample_columns(samples, times)?;
        let path = self.path.clone();
        let names = self.columns.clone();
        let changed = || Error::input(&path, samples, "changed while it was read", "read it when nothing writes to it");
        let n_rows = rows.len();
        let n_read = self.for_each_row(|row, record| {
            if row >= n_rows {
                return Err(changed());
            }
            for (value, &column) in rows.row_mut(row).iter_mut().zip(&columns) {
                *value = number(&path, &names[column], record, column)?;
                if !value.is_finite() {
                    let (problem, fix) = describe_not_finite(number(&path, &names[column], record, column)?);
                    let problem = format!("{problem} in {}", row_at(record.position()));
                    return Err(Error::input(&path, &names[column], problem, fix));
                }
            }
            Ok(())
        })?;
        if n_read == n_rows { Ok(()) } else { Err(changed()) }
    }

    /// Calls `visit` with the number and the fields of each row; tells how many there were.
    fn for_each_row(&mut self, mut visit: impl FnMut(usize, &ByteRecord) -> Result<()>) -> Result<usize> {
        let mut reader = reader(&self.path)?;
        let mut record = ByteRecord::new();
        let mut n_rows = 0;
        while reader.read_byte_record(&mut record).map_err(|e| csv_error(&self.path, e))? {
            visit(n_rows, &record)?;
            n_rows += 1;
        }
        self.n_rows = Some(n_rows);
        Ok(n_rows)
    }

    /// The columns that `samples` selects: a list `a,b,c`, a prefix `x*`, or an array `x`, which is the column of that
    /// name or those of `x_0`, `x_1`, …
    fn sample_columns(&self, samples: &str, times: &str) -> Result<Vec<usize>> {
        if samples.contains(',') {
            return samples.split(',').map(|name| self.require(name.trim(), samples)).collect();
        }
        let with_prefix = |prefix: &str| -> Vec<usize> {
            (0..self.columns.len())
                .filter(|&i| self.columns[i] != times && self.columns[i].starts_with(prefix))
                .collect()
        };
        if let Some(prefix) = samples.strip_suffix('*') {
            let columns = with_prefix(prefix);
            return if columns.is_empty() { self.require(samples, samples).map(|i| vec![i]) } else { Ok(columns) };
        }
        if let Some(column) = self.column(samples)? {
            return Ok(vec![column]);
        }
        let columns = (0..).map_while(|k| self.columns.iter().position(|name| *name == format!("{samples}_{k}")));
        let columns: Vec<usize> = columns.take(MAX_DIM + 1).collect();
        if columns.is_empty() && samples == DEFAULT_SAMPLES {
            let is_time = |name: &String| name == times || TIME_NAMES.contains(&name.as_str());
            return Ok((0..self.columns.len()).filter(|&i| !is_time(&self.columns[i])).collect());
        }
        if columns.is_empty() { self.require(samples, samples).map(|i| vec![i]) } else { Ok(columns) }
    }

    /// The column `name`, if there is one.
    fn column(&self, name: &str) -> Result<Option<usize>> {
        let mut found = (0..self.columns.len()).filter(|&i| self.columns[i] == name);
        let first = found.next();
        if found.next().is_some() {
            return Err(Error::input(&self.path, name, "two columns have this name", "rename one of them"));
        }
        Ok(first)
    }

    fn require(&self, name: &str, samples: &str) -> Result<usize> {
        self.column(name)?.ok_or_else(|| {
            let fix = format!("samples = {samples:?} selects from its columns: {}", list(&self.columns));
            Error::input(&self.path, name, "no such column", fix)
        })
    }
}

fn reader(path: &Path) -> Result<Reader<File>> {
    let (file, _) = open_file(path)?;
    Ok(ReaderBuilder::new().trim(Trim::All).buffer_capacity(1 << 18).from_reader(file))
}

/// Where `position` is, in words. Rows are counted as in arrays: blank lines are none, and the header line is not one.
fn row_at(position: Option<&Position>) -> String {
    let row = position.map_or(0, |position| position.record().saturating_sub(1));
    format!("row {row} (counted from 0)")
}

/// Field `column` of `record`, whose column is called `name`.
fn number<T: std::str::FromStr>(path: &Path, name: &str, record: &ByteRecord, column: usize) -> Result<T> {
    let field = record.get(column).unwrap_or_default();
    let parsed = std::str::from_utf8(field).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| {
        const SHOWN: usize = 40;
        let text = String::from_utf8_lossy(&field[..field.len().min(SHOWN)]);
        let problem = match &*text {
            "" => format!("is empty in {}", row_at(record.position())),
            text => format!("is {text:?}, not a number, in {}", row_at(record.position())),
        };
        Error::input(path, name, problem, "give a number, or leave this column out with samples = \"a,b\" or \"x*\"")
    })
}

fn csv_error(path: &Path, error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(e) => Error::io(path, "read")(e),
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let problem = format!("has {len} fields, the header line {expected_len}");
            Error::input(path, row_at(pos.as_ref()), problem, "give every row one field per column")
        }
        other => {
            Error::input(path, "table", format!("cannot be parsed: {other:?}"), "save it as plain comma-separated text")
        }
    }
}
