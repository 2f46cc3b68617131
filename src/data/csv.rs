//! `.csv`: a header row, one column of times, the other columns samples.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::array::{ArrayFile, ArrayInfo, missing};
use crate::error::{Error, Result};

/// A table whose columns are grouped under the two array names of the configuration.
pub(super) struct Csv {
    path: PathBuf,
    header: Vec<String>,
    /// Array name, its columns.
    arrays: Vec<(String, Vec<usize>)>,
    n_rows: usize,
}

impl Csv {
    /// Opens `path` and counts its rows. Array `times` is the column of that name (or, for the name `times`, `time`);
    /// array `samples` is the columns it names, separated by commas, or all other columns.
    pub fn open(path: &Path, samples: &str, times: &str) -> Result<Self> {
        let mut reader = reader(path)?;
        let header: Vec<String> =
            reader.headers().map_err(|error| invalid(path, &error))?.iter().map(str::to_string).collect();
        if header.is_empty() || header.iter().all(|name| name.parse::<f64>().is_ok()) {
            let problem = "does not name the columns";
            return Err(Error::input(path, "first row", problem, "start with a header such as time,x1,x2"));
        }
        let position = |name: &str| header.iter().position(|column| column == name);
        let time = position(times).or_else(|| if times == "times" { position("time") } else { None });
        let named: Option<Vec<usize>> = samples.split(',').map(|name| position(name.trim())).collect();
        let columns = named.unwrap_or_else(|| (0..header.len()).filter(|&column| Some(column) != time).collect());
        let mut arrays = vec![(samples.to_string(), columns)];
        arrays.extend(time.map(|column| (times.to_string(), vec![column])));
        let mut n_rows = 0;
        let mut record = csv::ByteRecord::new();
        while reader.read_byte_record(&mut record).map_err(|error| invalid(path, &error))? {
            n_rows += 1;
        }
        Ok(Csv { path: path.to_owned(), header, arrays, n_rows })
    }

    fn columns(&self, name: &str) -> Result<&[usize]> {
        match self.arrays.iter().find(|(known, _)| known == name) {
            Some((_, columns)) => Ok(columns),
            None => Err(missing(&self.path, name, &self.header)),
        }
    }
}

fn reader(path: &Path) -> Result<csv::Reader<File>> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    Ok(csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(file))
}

fn invalid(path: &Path, error: &csv::Error) -> Error {
    let place = error.position().map_or("table".to_string(), |position| format!("line {}", position.line()));
    Error::input(path, place, format!("cannot be read: {error}"), "give every row as many fields as the header")
}

impl ArrayFile for Csv {
    fn path(&self, _name: &str) -> PathBuf {
        self.path.clone()
    }

    fn names(&self) -> Vec<String> {
        self.arrays.iter().map(|(name, _)| name.clone()).collect()
    }

    fn info(&mut self, name: &str) -> Result<ArrayInfo> {
        let columns = self.columns(name)?;
        let names: Vec<&str> = columns.iter().map(|&column| &self.header[column][..]).collect();
        let storage = format!("text, columns {}", names.join(", "));
        Ok(ArrayInfo { shape: vec![self.n_rows, columns.len()], fortran: false, storage })
    }

    fn for_each(&mut self, name: &str, sink: &mut dyn FnMut(f64)) -> Result<()> {
        let columns = self.columns(name)?;
        let mut reader = reader(&self.path)?;
        let mut record = csv::StringRecord::new();
        let mut row = 0;
        while reader.read_record(&mut record).map_err(|error| invalid(&self.path, &error))? {
            for &column in columns {
                let text = record.get(column).unwrap_or_default();
                let Ok(value) = text.parse() else {
                    let line = record.position().map_or(0, csv::Position::line);
                    return Err(Error::input(
                        &self.path,
                        &self.header[column],
                        format!("row {row} (line {line}) is {text:?}, not a number"),
                        "replace it, or name the sample columns in the configuration: samples = \"x1,x2\"",
                    ));
                };
                sink(value);
            }
            row += 1;
        }
        Ok(())
    }
}
