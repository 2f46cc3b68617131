//! Arrays of the caller: rows of f32 or f64 that are read where they lie, and new arrays.

use action_matching::model::Coordinates;
use action_matching::{Coordinate, Error, Result};
use numpy::{PyArray, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::device_array::DeviceArray;

/// A type of numbers that arrays of points have.
pub trait Number: Coordinate + numpy::Element + Sync + Send {}

impl Number for f32 {}
impl Number for f64 {}

/// Points `[n, dim]`, C-contiguous.
#[derive(FromPyObject)]
pub enum Points<'py> {
    Device(PyRef<'py, DeviceArray>),
    F32(PyReadonlyArray2<'py, f32>),
    F64(PyReadonlyArray2<'py, f64>),
}

/// Calls a function that is generic over the type of `$points` with their rows, those on a GPU with
/// a copy of them.
macro_rules! with_rows {
    ($py:expr, $points:expr, $rows:ident => $work:expr) => {
        match &$points {
            $crate::rows::Points::Device(array) => {
                let array: &$crate::device_array::DeviceArray = array;
                let read = $py.detach(|| array.read());
                let copied = read.map_err(|error| $crate::errors::exception($py, error))?;
                let $rows = &copied[..];
                $work
            }
            $crate::rows::Points::F32(array) => {
                let $rows = array.as_slice()?;
                $work
            }
            $crate::rows::Points::F64(array) => {
                let $rows = array.as_slice()?;
                $work
            }
        }
    };
}
pub(crate) use with_rows;

impl Points<'_> {
    /// Refuses points of another dimension than `dim`.
    pub fn check_dim(&self, dim: usize) -> Result<()> {
        let found = match self {
            Points::Device(array) => array.n_columns(),
            Points::F32(array) => array.shape()[1],
            Points::F64(array) => array.shape()[1],
        };
        if found == dim {
            return Ok(());
        }
        let problem = format!("has {found} columns, but the model {dim} dimensions");
        Err(Error::input("points", "x", problem, format!("give an array [n, {dim}]")))
    }
}

/// The values of a contiguous array, for work that holds no interpreter.
pub fn values<'a>(array: &'a PyReadonlyArray1<'_, f64>) -> PyResult<&'a [f64]> {
    Ok(array.as_slice()?)
}

/// Rows `[n, dim]` of the caller in network coordinates, f32; differences from the mean are formed
/// in f64.
pub fn to_network<T: Number>(x: &[T], coordinates: &Coordinates) -> Result<Vec<f32>> {
    let dim = coordinates.mean.len();
    let affine = coordinates.mean.iter().zip(&coordinates.scale).cycle();
    let place = |(at, (&x, (mean, scale))): (usize, (&T, (&f64, &f64)))| {
        let x: f64 = x.into();
        if x.is_finite() {
            return Ok(((x - mean) / scale) as f32);
        }
        let problem = format!("column {}, counted from 0, is {x}", at % dim);
        Err(Error::input("points", format!("row {}", at / dim), problem, "leave such points out"))
    };
    x.iter().zip(affine).enumerate().map(place).collect()
}

/// A new array of `values` in this shape, which takes them over.
pub fn array<'py, T: numpy::Element, D: numpy::ndarray::IntoDimension>(
    py: Python<'py>,
    values: Vec<T>,
    shape: D,
) -> PyResult<Bound<'py, PyArray<T, D::Dim>>> {
    PyArray::from_vec(py, values).reshape(shape)
}
