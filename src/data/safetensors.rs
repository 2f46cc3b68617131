//! `.safetensors`: tensors as arrays.

use std::path::Path;

use super::array::{Array, Header, Order, check_n_bytes, list};
use crate::error::{Error, InputKind, Result};
use crate::tensors::{TensorFile, element};

/// An open file.
pub(super) struct Tensors(TensorFile);

impl Tensors {
    /// # Errors
    /// [`Error::Input`] if the header is invalid, or does not account for every byte of the file.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Tensors(TensorFile::open(path)?))
    }

    /// Names of the arrays, in the order of the file.
    pub fn names(&self) -> Vec<String> {
        self.0.names()
    }

    /// Opens the array `name`.
    ///
    /// # Errors
    /// [`Error::Input`] if it does not exist.
    pub fn array(&self, name: &str) -> Result<Array<'_>> {
        let Some((shape, dtype)) = self.0.find(name) else {
            let fix = format!("name one that is there: {}", list(self.0.names()));
            return Err(Error::input(self.0.path(), name, "no such array", fix).of_kind(InputKind::Missing));
        };
        let header = Header {
            dtype: dtype.to_string(),
            element: element(dtype),
            order: Order::C,
            shape: shape.iter().map(|&n| n as u64).collect(),
        };
        let (path, bytes) = (self.0.path(), self.0.bytes(name)?);
        let stored = bytes.limit();
        check_n_bytes(path, name, &header, stored)?;
        Ok(Array { file: path, name: name.into(), header, stored, data: Box::new(bytes), kept: None })
    }
}
