//! Particles to files, in the formats that the readers read.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use npyz::WriterBuilder;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::atomic::write_atomically;
use crate::error::{Error, Result};
use crate::tensors::{NewTensor, write_tensors};

/// Checks the suffix of an output of [`write_points`], before long work.
///
/// # Errors
/// [`Error::Input`] lists the suffixes.
pub fn check_points_suffix(path: &Path) -> Result<()> {
    match suffix(path).as_str() {
        "npz" | "npy" | "csv" | "safetensors" => Ok(()),
        other => Err(Error::input(
            path,
            "suffix",
            if other.is_empty() { "is missing".to_string() } else { format!("is .{other}") },
            "write to a .npz, .npy, .csv or .safetensors file",
        )),
    }
}

/// Writes `samples [n, dim]` and `times [n]` to `path`, whole or not at all; the suffix decides the format (a `.npy` holds
/// the samples alone).
///
/// # Errors
/// [`Error::Io`] or [`Error::Input`] names the file; [`Error::Shape`] a length.
pub fn write_points(path: &Path, dim: usize, samples: &[f32], times: &[f32]) -> Result<()> {
    check_points_suffix(path)?;
    crate::error::check_len("samples", times.len() * dim, samples.len())?;
    let (n, d) = (times.len(), dim);
    match suffix(path).as_str() {
        "npz" => write_atomically(path, |out| {
            let mut archive = ZipWriter::new(out);
            let options =
                SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored).large_file(true);
            archive.start_file("samples.npy", options).map_err(std::io::Error::other)?;
            write_npy(&mut archive, &[n, d], samples)?;
            archive.start_file("times.npy", options).map_err(std::io::Error::other)?;
            write_npy(&mut archive, &[n], times)?;
            archive.finish().map(drop).map_err(std::io::Error::other)
        }),
        "npy" => write_atomically(path, |out| write_npy(out, &[n, d], samples)),
        "csv" => write_atomically(path, |out| {
            write!(out, "times")?;
            (1..=d).try_for_each(|i| write!(out, ",x{i}"))?;
            writeln!(out)?;
            for (row, time) in samples.chunks_exact(d).zip(times) {
                write!(out, "{time}")?;
                row.iter().try_for_each(|x| write!(out, ",{x}"))?;
                writeln!(out)?;
            }
            Ok(())
        }),
        _ => {
            let tensors = vec![
                ("samples".to_string(), NewTensor::f32(&[n, d], samples)),
                ("times".to_string(), NewTensor::f32(&[n], times)),
            ];
            write_tensors(path, tensors, HashMap::new())
        }
    }
}

fn suffix(path: &Path) -> String {
    path.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default().to_lowercase()
}

fn write_npy(out: &mut impl Write, shape: &[usize], values: &[f32]) -> std::io::Result<()> {
    let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
    let mut writer = npyz::WriteOptions::<f32>::new().default_dtype().shape(&shape).writer(out).begin_nd()?;
    writer.extend(values.iter().copied())?;
    writer.finish()
}
