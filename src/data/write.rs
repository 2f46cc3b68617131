//! Writing of particles, in the formats that can be read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::file::Format;
use super::npy;
use crate::destination::Destination;
use crate::error::{Error, Result};
use crate::tensors::{NewTensor, write_tensors};

/// One named array to write: `samples [n, d]`, `times [n]`, or another one with as many rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PointArray<'a> {
    name: &'a str,
    dim: Option<usize>,
    values: PointValues<'a>,
    columns: Option<&'a [String]>,
}

/// Values row by row, in the precision in which they are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PointValues<'a> {
    /// 32 bits.
    F32(&'a [f32]),
    /// 64 bits: times, and positions so far from 0 that 32 bits would be too coarse.
    F64(&'a [f64]),
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
        PointArray { name, dim, values: values.into(), columns: None }
    }

    /// The same array with column names for a table: `dim` of them.
    pub fn with_columns(self, columns: Option<&'a [String]>) -> Self {
        PointArray { columns, ..self }
    }

    fn width(&self) -> usize {
        self.dim.unwrap_or(1)
    }

    fn len(&self) -> usize {
        match self.values {
            PointValues::F32(values) => values.len(),
            PointValues::F64(values) => values.len(),
        }
    }

    fn n_rows(&self) -> usize {
        self.len() / self.width().max(1)
    }

    fn shape(&self) -> Vec<usize> {
        [self.n_rows()].into_iter().chain(self.dim).collect()
    }

    /// Writes the array as `.npy`.
    fn write_npy(&self, writer: &mut dyn Write) -> io::Result<()> {
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
        if format == Format::Npy && i > 0 && array.name != "times" {
            let problem = "does not fit: a .npy file holds one array".into();
            return refuse(array.name, problem, "write a .npz file instead");
        }
    }
    match format {
        Format::Npy => to.write(|writer| first.write_npy(writer)),
        Format::Npz => to.write_seekable(|writer| write_npz(writer, arrays)),
        Format::Safetensors => {
            let tensors = arrays.iter().map(|array| {
                let tensor = match array.values {
                    PointValues::F32(values) => NewTensor::f32(&array.shape(), values),
                    PointValues::F64(values) => NewTensor::f64(&array.shape(), values),
                };
                (array.name.to_owned(), tensor)
            });
            write_tensors(&to, tensors.collect(), HashMap::new())
        }
        Format::Table { delimiter, is_compressed: false } => {
            to.write(|writer| write_table(writer, delimiter, arrays, first.n_rows()).map_err(system_error))
        }
        Format::Table { delimiter, is_compressed: true } => to.write(|writer| {
            let mut encoder = GzEncoder::new(writer, Compression::default());
            write_table(&mut encoder, delimiter, arrays, first.n_rows()).map_err(system_error)?;
            encoder.finish().map(drop)
        }),
    }
}

fn write_npz(writer: &mut BufWriter<File>, arrays: &[PointArray<'_>]) -> io::Result<()> {
    let mut zip = ZipWriter::new(MuteAfterError { writer, failed: false, position: 0 });
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    for array in arrays {
        zip.start_file(format!("{}.npy", array.name), options)?;
        array.write_npy(&mut zip)?;
    }
    zip.finish()?;
    Ok(())
}

/// Reports the first failure, then accepts everything. An archive that is dropped after a failure
/// is finished by its writer, which would print a second failure in its own words.
struct MuteAfterError<'a> {
    writer: &'a mut BufWriter<File>,
    failed: bool,
    /// Position of a writer that had accepted everything.
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

/// The system's own error, so that its kind is known.
fn system_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

fn write_table(writer: &mut dyn Write, delimiter: u8, arrays: &[PointArray<'_>], n_rows: usize) -> csv::Result<()> {
    let mut table = csv::WriterBuilder::new().delimiter(delimiter).from_writer(writer);
    for array in arrays {
        match (array.columns, array.dim) {
            (Some(names), _) => names.iter().try_for_each(|name| table.write_field(name))?,
            (None, None) => table.write_field(array.name)?,
            (None, Some(dim)) => (0..dim).try_for_each(|j| table.write_field(format!("{}_{j}", array.name)))?,
        }
    }
    table.write_record(None::<&[u8]>)?;
    let mut text = Vec::new();
    for row in 0..n_rows {
        for array in arrays {
            let width = array.width();
            for at in row * width..(row + 1) * width {
                text.clear();
                match array.values {
                    PointValues::F32(values) => write!(text, "{}", values[at])?,
                    PointValues::F64(values) => write!(text, "{}", values[at])?,
                }
                table.write_field(&text)?;
            }
        }
        table.write_record(None::<&[u8]>)?;
    }
    Ok(table.flush()?)
}
