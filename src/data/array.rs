//! Arrays in files: one face for every format, and the checks that all of them share.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::model::MAX_DIM;

/// What a file says of one of its arrays.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ArrayInfo {
    pub shape: Vec<usize>,
    /// Whether the first index runs fastest.
    pub fortran: bool,
    /// Element type and storage, for people.
    pub storage: String,
}

/// A file of named arrays of numbers. Lengths have been checked against the bytes that are there, so memory may be
/// set aside for them.
pub(super) trait ArrayFile {
    /// The file that holds array `name`.
    fn path(&self, name: &str) -> PathBuf;

    /// Names of the arrays.
    fn names(&self) -> Vec<String>;

    /// Shape and storage of array `name`.
    fn info(&mut self, name: &str) -> Result<ArrayInfo>;

    /// The elements of `name` in the order of the file.
    fn for_each(&mut self, name: &str, sink: &mut dyn FnMut(f64)) -> Result<()>;
}

/// Rows `[n, dim]` as f32.
pub(super) struct Matrix {
    pub dim: usize,
    pub values: Vec<f32>,
}

/// Reads array `name` as a matrix; one of a single axis is one column.
pub(super) fn read_matrix(file: &mut dyn ArrayFile, name: &str) -> Result<Matrix> {
    let (path, info) = (file.path(name), file.info(name)?);
    let (n, dim) = match info.shape[..] {
        [n] => (n, 1),
        [n, dim] => (n, dim),
        _ => {
            let problem = format!("has shape {:?}", info.shape);
            return Err(Error::input(path, name, problem, "give one row for each sample: shape [N, d]"));
        }
    };
    check_dim(&path, name, dim)?;
    if n == 0 {
        return Err(Error::input(path, name, "holds no rows", "give at least one sample"));
    }
    let len = n.checked_mul(dim).ok_or_else(|| too_large(&path, name, &info.shape))?;
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| too_large(&path, name, &info.shape))?;
    if info.fortran && dim > 1 {
        values.resize(len, 0.0);
        let mut index = 0;
        file.for_each(name, &mut |value| {
            let (column, row) = (index / n, index % n);
            values[row * dim + column] = value as f32;
            index += 1;
        })?;
    } else {
        file.for_each(name, &mut |value| values.push(value as f32))?;
    }
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(Matrix { dim, values }),
        Some(index) => Err(not_finite(&path, name, index / dim, Some(index % dim), values[index].into())),
    }
}

/// Reads array `name` as a list of finite numbers.
pub(super) fn read_vector(file: &mut dyn ArrayFile, name: &str) -> Result<Vec<f64>> {
    let (path, info) = (file.path(name), file.info(name)?);
    let n = match info.shape[..] {
        [n] | [n, 1] | [1, n] => n,
        _ => {
            let problem = format!("has shape {:?}", info.shape);
            return Err(Error::input(path, name, problem, "give one time for each sample: shape [N]"));
        }
    };
    let mut values = Vec::new();
    values.try_reserve_exact(n).map_err(|_| too_large(&path, name, &info.shape))?;
    file.for_each(name, &mut |value| values.push(value))?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(row) => Err(not_finite(&path, name, row, None, values[row])),
    }
}

/// Checks the dimension of samples.
pub(super) fn check_dim(path: &Path, name: &str, dim: usize) -> Result<()> {
    if (1..=MAX_DIM).contains(&dim) {
        return Ok(());
    }
    Err(Error::input(path, name, format!("has {dim} columns"), format!("give 1 to {MAX_DIM} columns")))
}

pub(super) fn not_finite(path: &Path, name: &str, row: usize, column: Option<usize>, value: f64) -> Error {
    let place = column.map_or(String::new(), |column| format!(", column {column}"));
    Error::input(
        path,
        name,
        format!("row {row}{place} is {value} (rows count from 0)"),
        "remove the row or replace the value; it must be finite in f32",
    )
}

pub(super) fn too_large(path: &Path, name: &str, shape: &[usize]) -> Error {
    Error::input(path, name, format!("claims shape {shape:?}"), "give an array that fits into memory")
}

/// The error for an array that a file lacks.
pub(super) fn missing(path: &Path, name: &str, names: &[String]) -> Error {
    let shown = if names.is_empty() { "nothing".to_string() } else { names.join(", ") };
    Error::input(path, name, "there is no such array", format!("the file holds: {shown}"))
}
