//! Safetensors files for the tests, good and bad, written and read without the library.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// A stored tensor.
#[derive(Clone)]
pub struct Stored {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Stored {
    pub fn f32(name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Stored { name: name.into(), dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    pub fn f64(name: &str, shape: &[usize], values: &[f64]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Stored { name: name.into(), dtype: Dtype::F64, shape: shape.to_vec(), bytes }
    }

    /// The values of an f32 or f64 tensor.
    pub fn values(&self) -> Vec<f64> {
        match self.dtype {
            Dtype::F32 => self.bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b).into()).collect(),
            Dtype::F64 => self.bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
            other => panic!("{}: element type {other:?}", self.name),
        }
    }
}

/// Writes `tensors` and the header's `metadata`.
pub fn write(path: &Path, tensors: &[Stored], metadata: HashMap<String, String>) {
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).expect("bytes fit the shape");
        (tensor.name.clone(), view)
    });
    let bytes = safetensors::serialize(views, Some(metadata)).expect("a valid table of tensors");
    std::fs::write(path, bytes).expect("written");
}

/// Every tensor and the header's metadata of `path`.
pub fn read(path: &Path) -> (Vec<Stored>, HashMap<String, String>) {
    let bytes = std::fs::read(path).expect("readable");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a header");
    let file = SafeTensors::deserialize(&bytes).expect("intact");
    let stored = file.iter().map(|(name, view)| Stored {
        name: name.into(),
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    });
    (stored.collect(), header.metadata().clone().unwrap_or_default())
}

/// The tensor of that name.
#[track_caller]
pub fn find<'a>(tensors: &'a [Stored], name: &str) -> &'a Stored {
    tensors.iter().find(|tensor| tensor.name == name).unwrap_or_else(|| panic!("{name} is not in the file"))
}
