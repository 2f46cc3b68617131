//! Writing of safetensors files, whole or not at all.

use std::borrow::Cow;
use std::collections::HashMap;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::destination::Destination;
use crate::error::{Error, Result};

/// A tensor to write: little-endian values and their shape.
pub(crate) struct NewTensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> NewTensor<'a> {
    /// An f32 tensor.
    pub fn f32(shape: &[usize], values: &'a [f32]) -> Self {
        Self::of(Dtype::F32, shape, values, f32::to_le_bytes)
    }

    /// An f64 tensor.
    pub fn f64(shape: &[usize], values: &'a [f64]) -> Self {
        Self::of(Dtype::F64, shape, values, f64::to_le_bytes)
    }

    fn of<T: bytemuck::NoUninit, const N: usize>(
        dtype: Dtype,
        shape: &[usize],
        values: &'a [T],
        to_le_bytes: fn(T) -> [u8; N],
    ) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        let bytes = if cfg!(target_endian = "little") {
            Cow::Borrowed(bytemuck::cast_slice(values))
        } else {
            Cow::Owned(values.iter().flat_map(|value| to_le_bytes(*value)).collect())
        };
        NewTensor { dtype, shape: shape.to_vec(), bytes }
    }
}

/// Writes `tensors` and `metadata`, whole or not at all. The data is streamed, not copied.
pub(crate) fn write_tensors(
    to: &Destination,
    mut tensors: Vec<(String, NewTensor)>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    // Wide elements first: with the header padded to 8 bytes, every tensor is aligned.
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
    let mut header = header.map_err(Error::io(to.path(), "write"))?;
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    to.write(|out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        tensors.iter().try_for_each(|(_, tensor)| out.write_all(&tensor.bytes))
    })
}
