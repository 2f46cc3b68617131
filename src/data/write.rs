//! Writing particles, in the formats that are read.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::file::Format;
use super::npy;
use crate::error::{Error, Result};
use crate::files::{check_writable, write_atomically, write_atomically_seekable};
use crate::tensors::{NewTensor, write_tensors};

/// One named array to write: `samples [n, d]`, `times [n]`, or another with as many rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PointArray<'a> {
    /// Name in the file.
    pub name: &'a str,
    /// Columns of `[n, d]`; `None` for `[n]`.
    pub dim: Option<usize>,
    /// The values, row by row.
    pub values: &'a [f32],
}

impl PointArray<'_> {
    fn n_rows(&self) -> usize {
        self.values.len() / self.dim.unwrap_or(1).max(1)
    }

    fn shape(&self) -> Vec<usize> {
        [self.n_rows()].into_iter().chain(self.dim).collect()
    }
}

/// Fails early, before long work, where [`write_points`] would fail late.
///
/// # Errors
/// [`Error::Input`] for a wrong suffix or a path that is no place for a file, [`Error::Io`] when its folder cannot be written to.
pub fn check_points_path(path: &Path) -> Result<()> {
    Format::of(path)?;
    check_writable(path)
}

/// Writes `arrays`, f32, to `path` in the format of its suffix, streaming and atomically.
///
/// `.npy` holds one array: the first, which may be followed by `times` alone (not written). In `.csv`, the array `x [n, d]`
/// becomes the columns `x_0`, …, and `x [n]` the column `x`.
///
/// # Errors
/// [`Error::Input`] for a wrong suffix or arrays that do not fit one file, [`Error::Io`] when writing fails.
pub fn write_points(path: &Path, arrays: &[PointArray<'_>]) -> Result<()> {
    let refuse = |name: &str, problem: String, fix: &str| Err(Error::input(path, name, problem, fix));
    let format = Format::of(path)?;
    let Some(first) = arrays.first() else {
        return refuse("arrays", "there are none to write".into(), "name at least one");
    };
    for (i, array) in arrays.iter().enumerate() {
        if array.values.len() != array.n_rows() * array.dim.unwrap_or(1) || array.n_rows() != first.n_rows() {
            let problem =
                format!("{} values are not {} rows of {}", array.values.len(), first.n_rows(), array.dim.unwrap_or(1));
            return refuse(array.name, problem, "give every array as many rows as the first");
        }
        if arrays[..i].iter().any(|other| other.name == array.name) {
            return refuse(array.name, "two arrays have this name".into(), "rename one of them");
        }
        if format == Format::Npy && i > 0 && array.name != "times" {
            let problem = "does not fit: a .npy file holds one array".into();
            return refuse(array.name, problem, "write a .npz file instead");
        }
    }
    match format {
        Format::Npy => write_atomically(path, |mut writer| {
            npy::write_header(&mut writer, &first.shape())?;
            write_values(&mut writer, first.values)
        }),
        Format::Npz => write_atomically_seekable(path, |writer| {
            let mut zip = ZipWriter::new(writer);
            let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
            for array in arrays {
                zip.start_file(format!("{}.npy", array.name), options)?;
                npy::write_header(&mut zip, &array.shape())?;
                write_values(&mut zip, array.values)?;
            }
            zip.finish()?;
            Ok(())
        }),
        Format::Safetensors => {
            let tensors =
                arrays.iter().map(|array| (array.name.to_owned(), NewTensor::f32(&array.shape(), array.values)));
            write_tensors(path, tensors.collect(), HashMap::new())
        }
        Format::Csv => write_atomically(path, |writer| write_csv(writer, arrays, first.n_rows())),
    }
}

fn write_csv(writer: &mut dyn Write, arrays: &[PointArray<'_>], n_rows: usize) -> io::Result<()> {
    let mut table = csv::Writer::from_writer(writer);
    for array in arrays {
        match array.dim {
            None => table.write_field(array.name)?,
            Some(dim) => (0..dim).try_for_each(|j| table.write_field(format!("{}_{j}", array.name)))?,
        }
    }
    table.write_record(None::<&[u8]>)?;
    let mut text = Vec::new();
    for row in 0..n_rows {
        for array in arrays {
            let dim = array.dim.unwrap_or(1);
            for value in &array.values[row * dim..(row + 1) * dim] {
                text.clear();
                write!(text, "{value}")?;
                table.write_field(&text)?;
            }
        }
        table.write_record(None::<&[u8]>)?;
    }
    table.flush()
}

/// Little-endian values.
fn write_values(writer: &mut impl Write, values: &[f32]) -> io::Result<()> {
    if cfg!(target_endian = "little") {
        return writer.write_all(bytemuck::cast_slice(values));
    }
    values.iter().try_for_each(|value| writer.write_all(&value.to_le_bytes()))
}
