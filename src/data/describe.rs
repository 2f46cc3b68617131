//! Description of a data file: the text of `inspect`.

use std::fmt::Write as _;
use std::path::Path;

use super::array::{Array, Order, list};
use super::file::{ArrayFile, DataFile};
use super::ids::IDS;
use super::npy;
use super::standardize::moments_of_first;
use super::{DataSource, Loaded, Points, Snapshots, load, load_single, read_points, read_snapshots};
use crate::display::significant;
use crate::error::{Error, Result};
use crate::stage::Watch;

/// Number of dimensions and of snapshots that are shown; the rest is only counted.
const SHOWN_DIMENSIONS: usize = 4;
const SHOWN_SNAPSHOTS: usize = 24;

/// Describes the data file at `path`, line by line: its arrays (type, shape, order, compression)
/// and, if `samples` and `times` make snapshots, their times, counts, means and deviations. Lines
/// that start with `problem:` explain why they do not. `watch` receives the bytes read.
///
/// # Errors
/// As [`super::load`], if not even the arrays can be described.
pub fn describe(path: &Path, watch: &dyn Watch) -> Result<String> {
    let mut text = String::new();
    let source = DataSource::new(path);
    let is_snapshots = match &mut DataFile::open(path)? {
        DataFile::Table(table) => {
            let names = table.names();
            line(&mut text, format!("table with columns {}", list(names)));
            names.iter().any(|name| name == table.times_column(&source.times))
        }
        DataFile::Arrays(ArrayFile::H5ad(cells)) => {
            cells.describe()?.into_iter().for_each(|content| line(&mut text, content));
            cells.has_snapshots()
        }
        DataFile::Arrays(file) => {
            let names = match file {
                ArrayFile::H5ad(_) => Vec::new(),
                ArrayFile::Npy(_) => vec![source.samples.clone()],
                ArrayFile::Npz(archive) => archive.names(),
                ArrayFile::Safetensors(tensors) => tensors.names(),
            };
            for name in &names {
                describe_array(&mut text, file, name);
            }
            [&source.samples, &source.times].into_iter().all(|wanted| names.contains(wanted))
        }
    };
    if is_snapshots {
        match read_snapshots(&source, watch) {
            Ok(data) => {
                // What a training would say of the same file.
                let load = if data.snapshots.times.len() == 1 { load_single } else { load };
                match load(&source, watch) {
                    Ok(Loaded { notices, table, warnings, .. }) => {
                        notices.into_iter().for_each(|notice| line(&mut text, notice));
                        text.push_str(&table);
                        warnings.iter().for_each(|warning| line(&mut text, format!("warning: {warning}")));
                    }
                    Err(Error::Interrupted) => return Err(Error::Interrupted),
                    Err(error) => {
                        text.push_str(&table_of([&data.snapshots, &Snapshots::none(data.snapshots.dim)], &data.origin));
                        data.warnings.iter().for_each(|warning| line(&mut text, format!("warning: {warning}")));
                        line(&mut text, format!("problem: {error}"));
                    }
                }
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => line(&mut text, format!("problem: {error}")),
        }
    } else {
        match read_points(&source, watch) {
            Ok(Points { dim, rows, origin, warnings, .. }) => {
                line(&mut text, format!("{} points of dimension {dim}, no times", rows.len() / dim));
                line(&mut text, format!("  {}", statistics(&rows, &origin)));
                warnings.iter().for_each(|warning| line(&mut text, format!("warning: {warning}")));
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => line(&mut text, format!("problem: {error}")),
        }
    }
    Ok(text)
}

fn line(text: &mut String, content: String) {
    text.push_str(&content);
    text.push('\n');
}

fn describe_array(text: &mut String, file: &mut ArrayFile, name: &str) {
    let compression = match file {
        ArrayFile::Npz(archive) => format!(", {}", archive.compression(name)),
        _ => String::new(),
    };
    let found = file
        .array(name)
        .map(|array| (array_header(&array), array.element().map(drop), npy::is_text(&array.header.dtype)));
    match found {
        Ok((header, readable, is_names)) => {
            line(text, format!("array {name}: {header}{compression}"));
            if let Err(error) = readable
                && !(name == IDS && is_names)
            {
                line(text, format!("problem: {error}"));
            }
        }
        Err(error) => line(text, format!("array {name}\nproblem: {error}")),
    }
}

fn array_header(array: &Array<'_>) -> String {
    let order = match array.header.order {
        Order::C => "C order",
        Order::Fortran => "Fortran order",
    };
    format!("{} {:?}, {order}", array.header.dtype, array.header.shape)
}

/// The table of snapshots that are trained on and of those held out, differences from `origin` in
/// data units: dimension and rows, then a line for each time.
pub(super) fn table_of([training, held_out]: [&Snapshots; 2], origin: &[f64]) -> String {
    let mut text = String::new();
    let rows_of = |snapshots: &Snapshots| snapshots.samples.len() / snapshots.dim;
    let mut all: Vec<(f64, &Snapshots, usize)> = [training, held_out]
        .into_iter()
        .flat_map(|side| side.times.iter().enumerate().map(move |(k, &time)| (time, side, k)))
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0)); // stable: what is trained on first
    let n = all.chunk_by(|a, b| a.0 == b.0).count();
    let (plural, rows) = (if n == 1 { "" } else { "s" }, rows_of(training) + rows_of(held_out));
    let apart = match rows_of(held_out) {
        0 => String::new(),
        n => format!(", {n} of them held out"),
    };
    line(&mut text, format!("{n} snapshot{plural} of dimension {}, {rows} rows{apart}", training.dim));
    for &(time, side, k) in all.iter().take(SHOWN_SNAPSHOTS) {
        let apart = if std::ptr::eq(side, held_out) { " held out" } else { "" };
        let statistics = statistics(side.rows(k), origin);
        line(&mut text, format!("  time {time}: {} rows{apart}, {statistics}", side.n_rows(k)));
    }
    if all.len() > SHOWN_SNAPSHOTS {
        line(&mut text, format!("  … and {} more", all.len() - SHOWN_SNAPSHOTS));
    }
    text
}

/// Mean ± deviation of the first columns; rows are differences from `origin`.
fn statistics(rows: &[f32], origin: &[f64]) -> String {
    let dim = origin.len();
    let (mean, variance) = moments_of_first(rows, dim, SHOWN_DIMENSIONS);
    let mean: Vec<f64> = mean.iter().zip(origin).map(|(mean, origin)| mean + origin).collect();
    let mut text = String::from("mean ± std");
    for (mean, variance) in mean.iter().zip(&variance).take(SHOWN_DIMENSIONS) {
        // Writing to a String cannot fail.
        let _ = write!(text, " {} ± {}", significant(*mean, 4), significant(variance.sqrt(), 4));
        text.push(',');
    }
    if dim > SHOWN_DIMENSIONS { text + " …" } else { text.trim_end_matches(',').into() }
}
