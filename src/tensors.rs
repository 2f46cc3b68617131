//! Safetensors files, read tensor by tensor and written atomically, with errors that name file, tensor and fix.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::atomic::write_atomically;
use crate::elements::ElementType;
use crate::error::{Error, Result};

/// Largest header that is read: a hundred times what a model of the largest size has.
const MAX_HEADER: u64 = 16 << 20;

/// An open safetensors file whose header has been checked against its size; tensors are read when asked for.
pub(crate) struct TensorFile {
    path: PathBuf,
    file: BufReader<File>,
    metadata: Metadata,
    data_start: u64,
}

impl TensorFile {
    /// Opens `path` and checks its header.
    pub fn open(path: &Path) -> Result<Self> {
        let invalid =
            |problem: String| Error::input(path, "header", problem, "give a complete file in the safetensors format");
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let len = file.metadata().map_err(Error::io(path, "read"))?.len();
        let mut file = BufReader::with_capacity(1 << 18, file);
        if len < 8 {
            return Err(invalid(format!("the file has {len} bytes, fewer than a header")));
        }
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(Error::io(path, "read"))?;
        let size = u64::from_le_bytes(size);
        if size > len - 8 || size > MAX_HEADER {
            return Err(invalid(format!("claims {size} bytes in a file of {len}")));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(Error::io(path, "read"))?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| invalid(format!("is not valid: {error}")))?;
        let (expected, data_start) = (metadata.data_len() as u64, 8 + size);
        if data_start + expected != len {
            return Err(invalid(format!(
                "describes {expected} bytes of tensors, but {} follow: the file is truncated or altered",
                len - data_start
            )));
        }
        Ok(TensorFile { path: path.to_owned(), file, metadata, data_start })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Value of `key` in the header's metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// Names of the tensors, in the order of the file.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Shape and stored type of `name`, if there is such a tensor.
    pub fn find(&self, name: &str) -> Option<(&[usize], Dtype)> {
        self.metadata.info(name).map(|info| (&info.shape[..], info.dtype))
    }

    /// Shape of `name`.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.info(name)?.shape.clone())
    }

    /// Elements of `name`, one after another as f64.
    pub fn for_each(&mut self, name: &str, sink: impl FnMut(f64)) -> Result<()> {
        let info = self.info(name)?;
        let element = element_type(info.dtype).ok_or_else(|| {
            Error::input(
                &self.path,
                name,
                format!("has elements of type {:?}", info.dtype),
                "store f16, bf16, f32, f64 or integers",
            )
        })?;
        let n = info.shape.iter().product();
        let start = self.data_start + info.data_offsets.0 as u64;
        let read = self.file.seek(SeekFrom::Start(start)).and_then(|_| element.decode(&mut self.file, n, false, sink));
        read.map_err(Error::io(&self.path, "read"))
    }

    /// Elements of `name`, which must have `shape`, as f64.
    pub fn f64s(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f64>> {
        let found = self.shape(name)?;
        if found != shape {
            return Err(Error::input(
                &self.path,
                name,
                format!("has shape {found:?}"),
                format!("store it with shape {shape:?}"),
            ));
        }
        let mut values = Vec::with_capacity(shape.iter().product());
        self.for_each(name, |value| values.push(value))?;
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::input(
                &self.path,
                name,
                format!("holds {} at element {index}", values[index]),
                "store finite numbers",
            ));
        }
        Ok(values)
    }

    /// Elements of `name`, which must have `shape`, as f32.
    pub fn f32s(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        Ok(self.f64s(name, shape)?.into_iter().map(|value| value as f32).collect())
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.metadata.info(name).ok_or_else(|| {
            let names = self.names();
            let shown = if names.is_empty() { "none".to_string() } else { names.join(", ") };
            Error::input(&self.path, name, "there is no such tensor", format!("the file holds: {shown}"))
        })
    }
}

/// The element type of a stored tensor; `None` for those that are not plain numbers.
pub(crate) fn element_type(dtype: Dtype) -> Option<ElementType> {
    Some(match dtype {
        Dtype::F16 => ElementType::F16,
        Dtype::BF16 => ElementType::Bf16,
        Dtype::F32 => ElementType::F32,
        Dtype::F64 => ElementType::F64,
        Dtype::I8 => ElementType::I8,
        Dtype::I16 => ElementType::I16,
        Dtype::I32 => ElementType::I32,
        Dtype::I64 => ElementType::I64,
        Dtype::U8 => ElementType::U8,
        Dtype::U16 => ElementType::U16,
        Dtype::U32 => ElementType::U32,
        Dtype::U64 => ElementType::U64,
        _ => return None,
    })
}

/// A tensor to write: little-endian values and their shape.
pub(crate) struct NewTensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> NewTensor<'a> {
    /// An f32 tensor.
    pub fn f32(shape: &[usize], values: &'a [f32]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        let bytes = if cfg!(target_endian = "little") {
            Cow::Borrowed(bytemuck::cast_slice(values))
        } else {
            Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect())
        };
        NewTensor { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    /// An f64 tensor.
    pub fn f64(shape: &[usize], values: &'a [f64]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        let bytes = if cfg!(target_endian = "little") {
            Cow::Borrowed(bytemuck::cast_slice(values))
        } else {
            Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect())
        };
        NewTensor { dtype: Dtype::F64, shape: shape.to_vec(), bytes }
    }
}

/// Writes `tensors` and `metadata` to `path`, whole or not at all. The data is streamed, not copied.
pub(crate) fn write_tensors(
    path: &Path,
    mut tensors: Vec<(String, NewTensor)>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    // Wide elements first: with the header padded to 8 bytes every tensor is aligned.
    tensors.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype.bitsize()));
    let mut end = 0;
    let infos = tensors
        .iter()
        .map(|(name, tensor)| {
            let start = end;
            end += tensor.bytes.len();
            (name.clone(), TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets: (start, end) })
        })
        .collect();
    let header = Metadata::new((!metadata.is_empty()).then_some(metadata), infos)
        .map_err(std::io::Error::other)
        .and_then(|metadata| Ok(serde_json::to_string(&metadata)?));
    let mut header = header.map_err(Error::io(path, "write"))?;
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    write_atomically(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        tensors.iter().try_for_each(|(_, tensor)| out.write_all(&tensor.bytes))
    })
}
