//! Tensors of other libraries on a GPU, in and out without the host: the DLPack protocol, in
//! capsules with and without a version (<https://dmlc.github.io/dlpack/latest/>).
//!
//! The layouts below are all of `dlpack.h` that is needed; crates that wrap it bring another
//! version of pyo3.

use std::ffi::{CStr, c_void};

use action_matching::engine::cuda::{CudaEngine, DeviceArray, ForeignArray};
use action_matching::{Error, Result};
use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::prelude::*;
use pyo3::{ffi, intern};

use crate::errors::exception;

/// Device types of `dlpack.h`: `kDLCUDA`.
pub const CUDA: i32 = 2;

/// The type code of floating-point numbers, `kDLFloat`.
const FLOAT: u8 = 2;

/// The version of the structures.
const VERSION: Version = Version { major: 1, minor: 0 };

/// `DLPACK_FLAG_BITMASK_IS_COPIED`.
const IS_COPIED: u64 = 2;

/// The legacy default stream, as consumers name it.
const DEFAULT_STREAM: i32 = 1;

#[derive(Clone, Copy)]
#[repr(C)]
struct Version {
    major: u32,
    minor: u32,
}

#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLManagedTensor`.
#[repr(C)]
struct Unversioned {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Unversioned)>,
}

/// `DLManagedTensorVersioned`.
#[repr(C)]
struct Versioned {
    version: Version,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    tensor: Tensor,
}

/// One of both kinds of capsule.
trait Managed: Sized {
    /// The name of a capsule that nobody has consumed.
    const NAME: &'static CStr;
    /// Its name afterwards.
    const USED: &'static CStr;

    fn new(tensor: Tensor, context: *mut c_void, flags: u64) -> Self;
    fn tensor(&self) -> &Tensor;
    fn context(&self) -> *mut c_void;
    /// The version of the structure, 1 for all without one.
    fn major(&self) -> u32;
    fn deleter(&self) -> Option<unsafe extern "C" fn(*mut Self)>;
}

impl Managed for Unversioned {
    const NAME: &'static CStr = c"dltensor";
    const USED: &'static CStr = c"used_dltensor";

    fn new(tensor: Tensor, context: *mut c_void, _flags: u64) -> Unversioned {
        Unversioned { tensor, context, deleter: Some(release::<Unversioned>) }
    }

    fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    fn context(&self) -> *mut c_void {
        self.context
    }

    fn major(&self) -> u32 {
        VERSION.major
    }

    fn deleter(&self) -> Option<unsafe extern "C" fn(*mut Unversioned)> {
        self.deleter
    }
}

impl Managed for Versioned {
    const NAME: &'static CStr = c"dltensor_versioned";
    const USED: &'static CStr = c"used_dltensor_versioned";

    fn new(tensor: Tensor, context: *mut c_void, flags: u64) -> Versioned {
        Versioned { version: VERSION, context, deleter: Some(release::<Versioned>), flags, tensor }
    }

    fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    fn context(&self) -> *mut c_void {
        self.context
    }

    fn major(&self) -> u32 {
        self.version.major
    }

    fn deleter(&self) -> Option<unsafe extern "C" fn(*mut Versioned)> {
        self.deleter
    }
}

// ---- out ----

/// What a capsule of ours keeps: `keep` is the memory.
struct Held<K> {
    shape: Vec<i64>,
    strides: Vec<i64>,
    _keep: K,
}

/// Type-erased [`Held`], which a deleter drops.
type Keep = Box<dyn Send>;

/// Where an array lies.
pub struct Place {
    /// Address of its first element, f32.
    pub address: u64,
    /// Number of the GPU.
    pub ordinal: usize,
    /// Its shape; C-contiguous.
    pub shape: Vec<usize>,
    /// True if nobody else has the memory.
    pub is_copied: bool,
}

/// A capsule of the array at `place`, whose memory `keep` keeps until a consumer, or the capsule
/// that none has consumed, releases it.
pub fn capsule<'py>(
    py: Python<'py>,
    place: Place,
    keep: impl Send + 'static,
    is_versioned: bool,
) -> PyResult<Bound<'py, PyAny>> {
    if is_versioned { managed::<Versioned>(py, place, keep) } else { managed::<Unversioned>(py, place, keep) }
}

fn managed<'py, M: Managed>(py: Python<'py>, place: Place, keep: impl Send + 'static) -> PyResult<Bound<'py, PyAny>> {
    let Place { address, ordinal, shape, is_copied } = place;
    let shape: Vec<i64> = shape.into_iter().map(|n| n as i64).collect();
    let strides = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
    let mut held = Box::new(Held { shape, strides, _keep: keep });
    let tensor = Tensor {
        data: address as *mut c_void,
        device_type: CUDA,
        device_id: ordinal as i32,
        ndim: held.shape.len() as i32,
        code: FLOAT,
        bits: 32,
        lanes: 1,
        shape: held.shape.as_mut_ptr(),
        strides: held.strides.as_mut_ptr(),
        byte_offset: 0,
    };
    // Boxed twice: the context is one pointer.
    let held: Keep = held;
    let context = Box::into_raw(Box::new(held)).cast();
    let managed = Box::into_raw(Box::new(M::new(tensor, context, if is_copied { IS_COPIED } else { 0 })));
    // SAFETY: the pointer is not null, the name is static.
    let capsule = unsafe { ffi::PyCapsule_New(managed.cast(), M::NAME.as_ptr(), Some(drop_capsule::<M>)) };
    if capsule.is_null() {
        // SAFETY: nobody else has it.
        unsafe { release(managed) };
        return Err(PyErr::fetch(py));
    }
    // SAFETY: a new reference.
    Ok(unsafe { Bound::from_owned_ptr(py, capsule) })
}

/// The deleter of our tensors, which a consumer calls once, from any thread, with the interpreter
/// or without: nothing of Python is among what is held.
unsafe extern "C" fn release<M: Managed>(managed: *mut M) {
    if managed.is_null() {
        return;
    }
    // SAFETY: both boxes were made by `managed`, and a consumer releases them once.
    unsafe {
        let managed = Box::from_raw(managed);
        drop(Box::from_raw(managed.context().cast::<Keep>()));
    }
}

/// Releases a tensor that nobody has consumed with its capsule.
unsafe extern "C" fn drop_capsule<M: Managed>(capsule: *mut ffi::PyObject) {
    // SAFETY: called by the interpreter with a capsule of ours; one that was consumed has another
    // name.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, M::NAME.as_ptr()) == 1 {
            release(ffi::PyCapsule_GetPointer(capsule, M::NAME.as_ptr()).cast::<M>());
        }
    }
}

// ---- in ----

/// A tensor that was consumed; releases it when it is dropped.
struct Consumed<M: Managed>(*mut M);

impl<M: Managed> Drop for Consumed<M> {
    fn drop(&mut self) {
        // SAFETY: the producer keeps the structure until its deleter is called, which is here.
        unsafe {
            if let Some(deleter) = (*self.0).deleter() {
                deleter(self.0);
            }
        }
    }
}

/// Consumes `capsule` if it is of this kind.
fn consume<M: Managed>(capsule: &Bound<'_, PyAny>) -> Option<Consumed<M>> {
    let capsule = capsule.as_ptr();
    // SAFETY: the interpreter is held; a capsule of this name holds a tensor of this kind, and
    // with its new name neither its destructor nor another consumer releases it.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, M::NAME.as_ptr()) != 1 {
            return None;
        }
        let managed = ffi::PyCapsule_GetPointer(capsule, M::NAME.as_ptr()).cast::<M>();
        (ffi::PyCapsule_SetName(capsule, M::USED.as_ptr()) == 0).then_some(Consumed(managed))
    }
}

/// Points `[n, dim]` in the memory of a GPU, f32 and C-contiguous; valid while the tensor is not
/// released.
struct Found {
    address: u64,
    n: usize,
    dim: usize,
}

fn refused(name: &str, field: &str, problem: impl Into<String>, fix: &str) -> Error {
    Error::input(name, field, problem, fix)
}

/// Reads what a tensor says of itself; `name` is that of the argument.
fn read<M: Managed>(name: &str, consumed: &Consumed<M>, ordinal: usize) -> Result<Found> {
    // SAFETY: the producer keeps the structure until it is released.
    let managed = unsafe { &*consumed.0 };
    if managed.major() != VERSION.major {
        let problem = format!("is in version {} of DLPack", managed.major());
        return Err(refused(name, "DLPack", problem, "use a library with version 1"));
    }
    let tensor = managed.tensor();
    if (tensor.device_type, tensor.device_id) != (CUDA, ordinal as i32) {
        let problem = "is not where it said";
        return Err(refused(name, "DLPack", problem, "report this to the authors of its library"));
    }
    if (tensor.code, tensor.bits, tensor.lanes) != (FLOAT, 32, 1) {
        let kind = ["int", "uint", "float", "handle", "bfloat", "complex", "bool"].get(usize::from(tensor.code));
        let problem = format!("is {}{} on a GPU, where numbers are float32", kind.unwrap_or(&"type "), tensor.bits);
        return Err(refused(name, "type", problem, "convert it: .float(), or .astype(\"float32\")"));
    }
    let ndim = tensor.ndim.max(0) as usize;
    let axes = |values: *const i64| {
        // SAFETY: DLPack has `ndim` of them wherever the pointer is not null.
        if values.is_null() || ndim == 0 { &[] } else { unsafe { std::slice::from_raw_parts(values, ndim) } }
    };
    let shape = axes(tensor.shape);
    let (n, dim) = match *shape {
        [n] => (n, 1),
        [n, dim] => (n, dim),
        _ => return Err(refused(name, "shape", format!("is {shape:?}"), "give an array [n, d]")),
    };
    let strides = axes(tensor.strides);
    let expected = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product::<i64>());
    let is_dense = strides.is_empty()
        || n * dim == 0
        || expected.zip(strides).zip(shape).all(|((expected, &stride), &n)| n == 1 || stride == expected);
    if !is_dense {
        return Err(refused(name, "strides", format!("are {strides:?}, not those of rows"), "copy it: .contiguous()"));
    }
    Ok(Found { address: tensor.data as u64 + tensor.byte_offset, n: n as usize, dim: dim as usize })
}

/// A copy of the tensor, and its rows and columns; it is released on return.
fn copied<M: Managed>(
    py: Python<'_>,
    name: &str,
    consumed: &Consumed<M>,
    engine: &CudaEngine,
) -> Result<(DeviceArray, [usize; 2])> {
    let Found { address, n, dim } = read(name, consumed, engine.ordinal())?;
    // SAFETY: the producer was told to finish what writes the tensor before later work of the
    // default stream, and keeps the memory until it is released.
    let foreign = unsafe { ForeignArray::new(address, n * dim) };
    let array = py.detach(|| engine.copy_from_device(&foreign))?;
    Ok((array, [n, dim]))
}

/// A copy of `tensor`, which lies on the GPU of `engine`, with its rows and columns. `name` is that
/// of the argument.
pub fn taken(name: &str, tensor: &Bound<'_, PyAny>, engine: &CudaEngine) -> PyResult<(DeviceArray, [usize; 2])> {
    let py = tensor.py();
    let capsule = exported(name, tensor)?;
    let outcome = if let Some(consumed) = consume::<Versioned>(&capsule) {
        copied(py, name, &consumed, engine)
    } else if let Some(consumed) = consume::<Unversioned>(&capsule) {
        copied(py, name, &consumed, engine)
    } else {
        let problem = "gave no capsule of a tensor, or one that was consumed before";
        Err(refused(name, "DLPack", problem, "give the tensor itself"))
    };
    outcome.map_err(|error| exception(py, error))
}

/// The capsule of `tensor`: with a version if its library knows of versions.
fn exported<'py>(name: &str, tensor: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = tensor.py();
    let method = tensor.getattr(intern!(py, "__dlpack__"))?;
    let options = pyo3::types::PyDict::new(py);
    options.set_item("stream", DEFAULT_STREAM)?;
    let old = options.copy()?;
    options.set_item("max_version", (VERSION.major, VERSION.minor))?;
    let capsule = match method.call((), Some(&options)) {
        Err(error) if error.is_instance_of::<PyTypeError>(py) => method.call((), Some(&old)),
        other => other,
    };
    capsule.map_err(|error| {
        if !error.is_instance_of::<PyException>(py) {
            return error; // KeyboardInterrupt, and what ends the interpreter
        }
        let fix = "give a tensor without gradient: .detach()";
        exception(py, refused(name, "DLPack", error.value(py).to_string(), fix))
    })
}
