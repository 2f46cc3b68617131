//! Writing particles, in the formats that are read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::file::Format;
use super::npy;
use crate::destination::Destination;
use crate::error::{Error, Result};
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

/// Fails early, before long work, where [`write_points`] would not know the format.
///
/// # Errors
/// [`Error::Input`] for a wrong suffix.
pub fn check_points_format(to: &Destination) -> Result<()> {
    Format::of_destination(to).map(drop)
}

/// Writes `arrays`, f32, in the format of the suffix, streaming, whole or not at all. A pipe or device without a suffix gets `.csv`.
///
/// `.npy` holds one array: the first, which may be followed by `times` alone (not written). In `.csv`, the array `x [n, d]`
/// becomes the columns `x_0`, …, and `x [n]` the column `x`.
///
/// # Errors
/// [`Error::Input`] for a wrong suffix or arrays that do not fit one file, [`Error::Io`] when writing fails.
pub fn write_points(to: impl Into<Destination>, arrays: &[PointArray<'_>]) -> Result<()> {
    let to = to.into();
    let refuse = |name: &str, problem: String, fix: &str| Err(Error::input(to.path(), name, problem, fix));
    let format = Format::of_destination(&to)?;
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
        Format::Npy => to.write(|mut writer| {
            npy::write_header(&mut writer, &first.shape())?;
            write_values(&mut writer, first.values)
        }),
        Format::Npz => to.write_seekable(|writer| write_npz(writer, arrays)),
        Format::Safetensors => {
            let tensors =
                arrays.iter().map(|array| (array.name.to_owned(), NewTensor::f32(&array.shape(), array.values)));
            write_tensors(&to, tensors.collect(), HashMap::new())
        }
        Format::Csv => to.write(|writer| {
            write_csv(writer, arrays, first.n_rows()).map_err(|error| match error.into_kind() {
                // The system's own answer, so that its kind is known.
                csv::ErrorKind::Io(error) => error,
                other => io::Error::other(format!("{other:?}")),
            })
        }),
    }
}

fn write_npz(writer: &mut BufWriter<File>, arrays: &[PointArray<'_>]) -> io::Result<()> {
    let mut zip = ZipWriter::new(MuteAfterError { writer, failed: false, position: 0 });
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    for array in arrays {
        zip.start_file(format!("{}.npy", array.name), options)?;
        npy::write_header(&mut zip, &array.shape())?;
        write_values(&mut zip, array.values)?;
    }
    zip.finish()?;
    Ok(())
}

/// Reports the first failure, then takes everything. An archive that is dropped after a failure is finished by its writer, which
/// would print a second failure in words of its own.
struct MuteAfterError<'a> {
    writer: &'a mut BufWriter<File>,
    failed: bool,
    /// Where a writer that took everything would be.
    position: u64,
}

impl Write for MuteAfterError<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = if self.failed { bytes.len() } else { note_failure(self.writer.write(bytes), &mut self.failed)? };
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.failed { Ok(()) } else { note_failure(self.writer.flush(), &mut self.failed) }
    }
}

impl Seek for MuteAfterError<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            _ if !self.failed => note_failure(self.writer.seek(to), &mut self.failed)?,
            SeekFrom::Start(position) => position,
            SeekFrom::Current(offset) => self.position.saturating_add_signed(offset),
            SeekFrom::End(_) => self.position,
        };
        Ok(self.position)
    }
}

fn note_failure<T>(result: io::Result<T>, failed: &mut bool) -> io::Result<T> {
    *failed = result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
    result
}

fn write_csv(writer: &mut dyn Write, arrays: &[PointArray<'_>], n_rows: usize) -> csv::Result<()> {
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
    Ok(table.flush()?)
}

/// Little-endian values.
fn write_values(writer: &mut impl Write, values: &[f32]) -> io::Result<()> {
    if cfg!(target_endian = "little") {
        return writer.write_all(bytemuck::cast_slice(values));
    }
    values.iter().try_for_each(|value| writer.write_all(&value.to_le_bytes()))
}
