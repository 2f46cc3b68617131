//! An open data file of any format; the suffix decides which.

use std::path::{Path, PathBuf};

use super::array::{Array, Rows};
use super::csv::Table;
use super::npy;
use super::npz::Archive;
use super::safetensors::Tensors;
use crate::destination::Destination;
use crate::error::{Error, Result};

/// The formats read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Npy,
    Npz,
    Csv,
    Safetensors,
}

impl Format {
    /// The format that `to` is written in: that of its suffix; a pipe or device without one gets a table of text.
    ///
    /// # Errors
    /// As [`Format::of`].
    pub fn of_destination(to: &Destination) -> Result<Self> {
        if to.is_stream() && to.path().extension().is_none() { Ok(Format::Csv) } else { Format::of(to.path()) }
    }

    /// The format of `path` by its suffix, in any case.
    ///
    /// # Errors
    /// [`Error::Input`] listing the suffixes.
    pub fn of(path: &Path) -> Result<Self> {
        let suffix = path.extension().map(|suffix| suffix.to_string_lossy().to_lowercase());
        match suffix.as_deref() {
            Some("npy") => Ok(Format::Npy),
            Some("npz") => Ok(Format::Npz),
            Some("csv") => Ok(Format::Csv),
            Some("safetensors") => Ok(Format::Safetensors),
            other => {
                let problem =
                    other.map_or("has no suffix".into(), |suffix| format!("has the unknown suffix .{suffix}"));
                Err(Error::input(path, "path", problem, "use a file that ends in .npz, .npy, .csv or .safetensors"))
            }
        }
    }
}

/// An open data file.
pub(super) enum DataFile {
    Arrays(ArrayFile),
    Table(Table),
}

/// An open file of named arrays.
pub(super) enum ArrayFile {
    /// One array, whatever name it is asked for by.
    Npy(PathBuf),
    Npz(Archive),
    Safetensors(Tensors),
}

impl ArrayFile {
    /// The array `name`, its header read and its size checked.
    pub fn array(&mut self, name: &str) -> Result<Array<'_>> {
        match self {
            ArrayFile::Npy(path) => npy::open(path, name),
            ArrayFile::Npz(archive) => archive.array(name),
            ArrayFile::Safetensors(tensors) => tensors.array(name),
        }
    }
}

impl DataFile {
    /// # Errors
    /// [`Error::Input`] for a wrong suffix, a missing file, or one that is not of its format.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(match Format::of(path)? {
            Format::Npy => DataFile::Arrays(ArrayFile::Npy(path.into())),
            Format::Npz => DataFile::Arrays(ArrayFile::Npz(Archive::open(path)?)),
            Format::Safetensors => DataFile::Arrays(ArrayFile::Safetensors(Tensors::open(path)?)),
            Format::Csv => DataFile::Table(Table::open(path)?),
        })
    }

    /// (rows, columns) of the array `samples`, within their limits. `times` is the name of the times, which a table
    /// does not count among the samples.
    pub fn shape(&mut self, samples: &str, times: &str) -> Result<(usize, usize)> {
        match self {
            DataFile::Arrays(file) => file.array(samples)?.matrix_shape(),
            DataFile::Table(table) => table.shape(samples, times),
        }
    }

    /// The array `name` as one finite time a row.
    pub fn times(&mut self, name: &str) -> Result<Vec<f64>> {
        match self {
            DataFile::Arrays(file) => file.array(name)?.read_times(),
            DataFile::Table(table) => table.times(name),
        }
    }

    /// Reads the array `samples` into `rows`, which has its shape.
    pub fn read_rows(&mut self, samples: &str, times: &str, rows: &mut Rows<'_>) -> Result<()> {
        match self {
            DataFile::Arrays(file) => file.array(samples)?.read_rows(rows),
            DataFile::Table(table) => table.read_rows(samples, times, rows),
        }
    }
}
