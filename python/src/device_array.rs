//! `DeviceArray`: results on a GPU, which other libraries take by DLPack.

use std::sync::Arc;

use action_matching::engine::cuda::{self, CudaEngine};
use pyo3::exceptions::{PyBufferError, PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::dlpack::{self, CUDA, Place};
use crate::errors::exception;
use crate::rows;

/// An array of f32 on a GPU, C-contiguous.
#[pyclass(frozen, module = "action_matching")]
pub struct DeviceArray {
    memory: Arc<cuda::DeviceArray>,
    /// Of the first element.
    first: usize,
    shape: Vec<usize>,
}

impl DeviceArray {
    /// All of `memory` in this shape.
    pub fn new(memory: cuda::DeviceArray, shape: impl Into<Vec<usize>>) -> DeviceArray {
        DeviceArray { memory: Arc::new(memory), first: 0, shape: shape.into() }
    }

    /// The tensor `tensor` as points `[n, dim]`.
    pub fn take(name: &str, tensor: &Bound<'_, PyAny>, engine: &CudaEngine) -> PyResult<DeviceArray> {
        let (memory, shape) = dlpack::taken(name, tensor, engine)?;
        Ok(DeviceArray::new(memory, shape))
    }

    /// What the points of a whole array are.
    pub fn memory(&self) -> &cuda::DeviceArray {
        &self.memory
    }

    /// Columns of points `[n, dim]`.
    pub fn n_columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// All elements, on the host.
    pub fn read(&self) -> action_matching::Result<Vec<f32>> {
        self.memory.read(self.first..self.first + self.len_of_all())
    }

    fn len_of_all(&self) -> usize {
        self.shape.iter().product()
    }
}

#[pymethods]
impl DeviceArray {
    /// Lengths of the axes.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    /// Number of axes.
    #[getter]
    fn ndim(&self) -> usize {
        self.shape.len()
    }

    /// float32.
    #[getter]
    fn dtype<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        numpy::dtype::<f32>(py).into_any()
    }

    /// `cuda:N`.
    #[getter]
    fn device(&self) -> String {
        format!("cuda:{}", self.memory.ordinal())
    }

    fn __repr__(&self) -> String {
        format!("<action_matching.DeviceArray {:?} float32 on {}>", self.shape, self.device())
    }

    fn __len__(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// Element `index` of the first axis, which shares the memory.
    fn __getitem__(&self, index: isize) -> PyResult<DeviceArray> {
        let (n, rest) = match self.shape.split_first() {
            Some((n, rest)) if !rest.is_empty() => (*n, rest),
            _ => {
                return Err(PyIndexError::new_err("a vector on a GPU has no parts: call numpy() or torch.from_dlpack"));
            }
        };
        let at = if index < 0 { index + n as isize } else { index };
        let at = usize::try_from(at).ok().filter(|at| *at < n);
        let at = at.ok_or_else(|| PyIndexError::new_err(format!("{index} of {n}")))?;
        let of_each: usize = rest.iter().product();
        Ok(DeviceArray { memory: Arc::clone(&self.memory), first: self.first + at * of_each, shape: rest.to_vec() })
    }

    /// A copy on the host.
    fn numpy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let values = py.detach(|| self.read()).map_err(|error| exception(py, error))?;
        Ok(rows::array(py, values, &self.shape[..])?.into_any())
    }

    /// A copy on the host, for `numpy.asarray`.
    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if copy == Some(false) {
            return Err(PyValueError::new_err("an array on a GPU becomes one of NumPy by a copy alone"));
        }
        let array = self.numpy(py)?;
        match dtype {
            Some(dtype) => array.call_method1("astype", (dtype,)),
            None => Ok(array),
        }
    }

    /// Type and number of the device.
    fn __dlpack_device__(&self) -> (i32, usize) {
        (CUDA, self.memory.ordinal())
    }

    /// A capsule with the array. It was finished before it was handed out, so that any `stream` can
    /// use it.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<i64>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(stream) = stream.filter(|stream| *stream == 0 || *stream < -1) {
            return Err(PyValueError::new_err(format!(
                "stream {stream} is none of CUDA (use 1 for the default stream, 2 for that of a thread, a handle, \
                 or -1)"
            )));
        }
        let (kind, ordinal) = self.__dlpack_device__();
        if dl_device.is_some_and(|asked| asked != (kind, ordinal as i32)) {
            return Err(PyBufferError::new_err(format!("lies on {} (numpy() copies it to the host)", self.device())));
        }
        let is_copied = copy == Some(true);
        let (memory, first) = if is_copied {
            let copied = py.detach(|| self.memory.copy(self.first..self.first + self.len_of_all()));
            (Arc::new(copied.map_err(|error| exception(py, error))?), 0)
        } else {
            (Arc::clone(&self.memory), self.first)
        };
        let address = memory.address() + (first * size_of::<f32>()) as u64;
        let place = Place { address, ordinal, shape: self.shape.clone(), is_copied };
        let is_versioned = max_version.is_some_and(|(major, _)| major >= 1);
        dlpack::capsule(py, place, memory, is_versioned)
    }
}
