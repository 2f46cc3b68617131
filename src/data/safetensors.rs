//! `.safetensors`: tensors as arrays.

use std::path::{Path, PathBuf};

use super::array::{ArrayFile, ArrayInfo, missing};
use crate::error::Result;
use crate::tensors::TensorFile;

/// An open safetensors file.
pub(super) struct Safetensors(TensorFile);

impl Safetensors {
    /// Opens `path`.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Safetensors(TensorFile::open(path)?))
    }
}

impl ArrayFile for Safetensors {
    fn path(&self, _name: &str) -> PathBuf {
        self.0.path().to_owned()
    }

    fn names(&self) -> Vec<String> {
        self.0.names()
    }

    fn info(&mut self, name: &str) -> Result<ArrayInfo> {
        let (shape, dtype) = self.0.find(name).ok_or_else(|| missing(self.0.path(), name, &self.0.names()))?;
        Ok(ArrayInfo { shape: shape.to_vec(), fortran: false, storage: format!("{dtype:?}").to_lowercase() })
    }

    fn for_each(&mut self, name: &str, sink: &mut dyn FnMut(f64)) -> Result<()> {
        self.0.for_each(name, sink)
    }
}
