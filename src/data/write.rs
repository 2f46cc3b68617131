//! Writing of particles, in the formats that can be read.

use std::collections::HashMap;
use std::io::{self, Write};

use super::file::{Format, only_read};
use super::ids::IDS;
use super::{anndata, csv, npy, npz};
use crate::destination::Destination;
use crate::error::{Error, Result};
use crate::tensor_writer::{NewTensor, write_tensors};

/// One named array to write: `samples [n, d]`, `times [n]`, or another one with as many rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PointArray<'a> {
    pub(super) name: &'a str,
    pub(super) dim: Option<usize>,
    pub(super) values: PointValues<'a>,
    pub(super) columns: Option<&'a [String]>,
    #[cfg_attr(not(feature = "h5ad"), allow(dead_code, reason = "of `.h5ad` alone"))]
    pub(super) place: Option<&'a str>,
}

/// Values row by row, in the precision in which they are written.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum PointValues<'a> {
    /// 32 bits.
    F32(&'a [f32]),
    /// 64 bits: times, and positions so far from 0 that 32 bits would be too coarse.
    F64(&'a [f64]),
    /// Texts such as names of the rows, the same of every `of_one.len()` rows. They are left out of
    /// `.npy` and `.safetensors`, which hold numbers alone.
    Texts {
        /// Those of the first rows.
        of_one: &'a [String],
        /// How often they are there, one after the other.
        times: usize,
    },
}

impl<'a> From<&'a [f32]> for PointValues<'a> {
    fn from(values: &'a [f32]) -> Self {
        PointValues::F32(values)
    }
}

impl<'a> From<&'a [f64]> for PointValues<'a> {
    fn from(values: &'a [f64]) -> Self {
        PointValues::F64(values)
    }
}

impl<'a> PointArray<'a> {
    /// The array `name` of shape `[n, dim]`, or `[n]` without a `dim`.
    pub fn new(name: &'a str, dim: Option<usize>, values: impl Into<PointValues<'a>>) -> Self {
        PointArray { name, dim, values: values.into(), columns: None, place: None }
    }

    /// Names of the rows, `ids`, the same ones `times` over: in a `.h5ad` they are the index of
    /// `obs`, with numbers at the end of those that repeat, and then also a column of it.
    #[must_use]
    pub fn ids(of_one: &'a [String], times: usize) -> Self {
        PointArray { name: IDS, dim: None, values: PointValues::Texts { of_one, times }, columns: None, place: None }
    }

    /// The same array with column names for a table: `dim` of them.
    #[must_use]
    pub fn with_columns(self, columns: Option<&'a [String]>) -> Self {
        PointArray { columns, ..self }
    }

    /// The same array, in a `.h5ad` at the place that `data.samples` or `data.times` names, such as
    /// `obsm/X_umap`, so that a run which reads such cells finds it.
    #[must_use]
    pub fn at(self, place: Option<&'a str>) -> Self {
        PointArray { place, ..self }
    }

    pub(super) fn width(&self) -> usize {
        self.dim.unwrap_or(1)
    }

    fn len(&self) -> usize {
        match self.values {
            PointValues::F32(values) => values.len(),
            PointValues::F64(values) => values.len(),
            PointValues::Texts { of_one, times } => of_one.len() * times,
        }
    }

    /// The texts of all rows; `None` for numbers.
    pub(super) fn texts(&self) -> Option<impl Iterator<Item = &'a str> + Clone + use<'a>> {
        let PointValues::Texts { of_one, times } = self.values else { return None };
        Some(std::iter::repeat_n(of_one, times).flatten().map(String::as_str))
    }

    pub(super) fn n_rows(&self) -> usize {
        self.len() / self.width().max(1)
    }

    pub(super) fn shape(&self) -> Vec<usize> {
        [self.n_rows()].into_iter().chain(self.dim).collect()
    }

    /// Writes the array as `.npy`.
    pub(super) fn write_npy(&self, writer: &mut dyn Write) -> io::Result<()> {
        match self.values {
            PointValues::F32(values) => {
                npy::write_header(writer, "<f4", &self.shape())?;
                if cfg!(target_endian = "little") {
                    return writer.write_all(bytemuck::cast_slice(values));
                }
                values.iter().try_for_each(|value| writer.write_all(&value.to_le_bytes()))
            }
            PointValues::F64(values) => {
                npy::write_header(writer, "<f8", &self.shape())?;
                if cfg!(target_endian = "little") {
                    return writer.write_all(bytemuck::cast_slice(values));
                }
                values.iter().try_for_each(|value| writer.write_all(&value.to_le_bytes()))
            }
            PointValues::Texts { .. } => npy::write_texts(writer, self.texts().into_iter().flatten()),
        }
    }
}

/// Fails early, before long work, if [`write_points`] would not know the format.
///
/// # Errors
/// [`Error::Input`] for a wrong suffix.
pub fn check_points_format(to: &Destination) -> Result<()> {
    Format::of_destination(to).map(drop)
}

/// True if the format of `to` holds texts, as [`PointArray::ids`] are.
///
/// # Errors
/// [`Error::Input`] for a wrong suffix.
pub fn writes_texts(to: &Destination) -> Result<bool> {
    Ok(!matches!(Format::of_destination(to)?, Format::Npy | Format::Safetensors))
}

/// Writes `arrays` in the format of the suffix, streaming, whole or not at all. A pipe or device
/// without a suffix gets `.csv`.
///
/// `.npy` holds one array, the first; only `times` may follow it, which is not written. In a table,
/// the array `x [n, d]` becomes the columns `x_0`, …, or those of its own names, and `x [n]` the
/// column `x`; numbers have as many digits as are needed to read them back exactly.
///
/// # Errors
/// [`Error::Input`] for a wrong suffix or arrays that do not fit into one file, [`Error::Io`] if
/// writing fails.
pub fn write_points(to: impl Into<Destination>, arrays: &[PointArray<'_>]) -> Result<()> {
    let to = to.into();
    let refuse = |name: &str, problem: String, fix: &str| Err(Error::input(to.path(), name, problem, fix));
    let format = Format::of_destination(&to)?;
    let Some(first) = arrays.first() else {
        return refuse("arrays", "there are none to write".into(), "name at least one");
    };
    for (i, array) in arrays.iter().enumerate() {
        if array.len() != array.n_rows() * array.width() || array.n_rows() != first.n_rows() {
            let problem = format!("{} values are not {} rows of {}", array.len(), first.n_rows(), array.width());
            return refuse(array.name, problem, "give every array as many rows as the first");
        }
        if array.columns.is_some_and(|names| names.len() != array.width()) {
            return refuse(
                array.name,
                format!("has no name for each of {} columns", array.width()),
                "name every column",
            );
        }
        if arrays[..i].iter().any(|other| other.name == array.name) {
            return refuse(array.name, "two arrays have this name".into(), "rename one of them");
        }
        if format == Format::Npy && i > 0 && array.name != "times" && array.texts().is_none() {
            let problem = "does not fit: a .npy file holds one array".into();
            return refuse(array.name, problem, "write a .npz file instead");
        }
    }
    match format {
        Format::Npy => to.write(|writer| first.write_npy(writer)),
        Format::Npz => to.write_seekable(|writer| npz::write(writer, arrays)),
        Format::Safetensors => {
            let tensors = arrays.iter().filter_map(|array| {
                let tensor = match array.values {
                    PointValues::F32(values) => NewTensor::f32(&array.shape(), values),
                    PointValues::F64(values) => NewTensor::f64(&array.shape(), values),
                    PointValues::Texts { .. } => return None,
                };
                Some((array.name.to_owned(), tensor))
            });
            write_tensors(&to, tensors.collect(), HashMap::new())
        }
        Format::H5ad => to.write_seekable(|writer| anndata::write(writer, arrays)),
        Format::Table { delimiter, encoding } => {
            to.write(|writer| csv::write(writer, delimiter, encoding, arrays, first.n_rows()))
        }
        Format::Parquet => Err(only_read(to.path())),
    }
}
