//! The part of HDF5 that `.h5ad` needs, read through hdf5-pure. Files are untrusted: what a data
//! set claims is held against the bytes of its file before anything is read.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use hdf5_pure::{
    AttrValue, Chunk, Dataset, Datatype, DatatypeByteOrder, FloatingPointLayout, Group, Layout, VlenStringReadOptions,
};

use sha2::{Digest, Sha256};

use crate::data::array::MAX_TRUSTED_RATIO;
use crate::element::{Element, ElementType, Refusal};
use crate::error::{Error, InputKind, Result};
use crate::files::open_file;

/// Bytes that are read from a data set at a time, if its chunks are not larger.
const WINDOW_BYTES: u64 = 1 << 20;

/// Bytes that a chunk may have in memory, however small the file.
const MAX_SMALL_CHUNK: u64 = 1 << 22;

pub(super) const SAVE_AGAIN: &str = "save it again with anndata's write_h5ad";

/// An open file.
pub(super) struct Hdf5 {
    path: PathBuf,
    size: u64,
    file: hdf5_pure::File,
}

impl Hdf5 {
    /// # Errors
    /// [`Error::Input`] if `path` is not an HDF5 file.
    pub fn open(path: &Path) -> Result<Self> {
        let (_, size): (File, u64) = open_file(path)?;
        if !hdf5_pure::is_hdf5(path).map_err(Error::io(path, "read"))? {
            let problem = if size == 0 { "is empty" } else { "is not an HDF5 file" };
            return Err(Error::input(path, "file", problem, SAVE_AGAIN).of_kind(InputKind::Malformed));
        }
        let file = hdf5_pure::File::open_streaming(path).map_err(|error| unreadable(path, "file", &error))?;
        Ok(Hdf5 { path: path.into(), size, file })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn unreadable(&self, at: &str) -> impl Fn(hdf5_pure::Error) -> Error {
        move |error| unreadable(&self.path, at, &error)
    }

    /// The group at `at`; `""` is the root.
    fn group(&self, at: &str) -> Option<Group> {
        if at.is_empty() { Some(self.file.root()) } else { self.file.group(at).ok() }
    }

    /// True if there is a group at `at`.
    pub fn is_group(&self, at: &str) -> bool {
        self.group(at).is_some()
    }

    /// True if there is a data set at `at`.
    pub fn is_dataset(&self, at: &str) -> bool {
        self.file.dataset(at).is_ok()
    }

    /// Names of the groups and data sets in the group `at`, sorted; none if it does not exist.
    ///
    /// # Errors
    /// [`Error::Input`] if the file is damaged.
    pub fn names(&self, at: &str) -> Result<Vec<String>> {
        let Some(group) = self.group(at) else { return Ok(Vec::new()) };
        let mut names = group.datasets().map_err(self.unreadable(at))?;
        names.extend(group.groups().map_err(self.unreadable(at))?);
        names.sort_unstable();
        Ok(names)
    }

    /// The text attribute `name` of the group or data set at `at`.
    pub fn text_attribute(&self, at: &str, name: &str) -> Option<String> {
        match self.attribute(at, name)? {
            AttrValue::String(text)
            | AttrValue::VarLenString(text)
            | AttrValue::AsciiString(text)
            | AttrValue::VarLenAsciiString(text) => Some(text),
            AttrValue::StringSized { value, .. } | AttrValue::AsciiStringSized { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The attribute `name` of `at` as a list of texts.
    pub fn texts_attribute(&self, at: &str, name: &str) -> Option<Vec<String>> {
        match self.attribute(at, name)? {
            AttrValue::StringArray(texts)
            | AttrValue::VarLenStringArray(texts)
            | AttrValue::AsciiStringArray(texts)
            | AttrValue::VarLenAsciiStringArray(texts) => Some(texts),
            _ => None,
        }
    }

    /// The attribute `name` of `at` as two sizes.
    pub fn shape_attribute(&self, at: &str, name: &str) -> Option<[u64; 2]> {
        match self.attribute(at, name)? {
            AttrValue::I64Array(sizes) => sizes.iter().map(|&n| u64::try_from(n).ok()).collect::<Option<Vec<_>>>(),
            AttrValue::I32Array(sizes) => sizes.iter().map(|&n| u64::try_from(n).ok()).collect(),
            AttrValue::U64Array(sizes) => Some(sizes),
            _ => None,
        }
        .and_then(|sizes| sizes.try_into().ok())
    }

    fn attribute(&self, at: &str, name: &str) -> Option<AttrValue> {
        let mut attributes = match self.group(at) {
            Some(group) => group.attrs().ok()?,
            None => self.file.dataset(at).ok()?.attrs().ok()?,
        };
        attributes.remove(name)
    }

    /// The data set at `at`, checked against the size of the file.
    ///
    /// # Errors
    /// [`Error::Input`] if there is none, or it claims values that the file does not hold.
    pub fn values(&self, at: &str) -> Result<Values> {
        let refuse =
            |problem: &str| Err(Error::input(&self.path, at, problem, SAVE_AGAIN).of_kind(InputKind::Malformed));
        let dataset = self.file.dataset(at).map_err(self.unreadable(at))?;
        let shape = dataset.shape().map_err(self.unreadable(at))?;
        let datatype = dataset.datatype().map_err(self.unreadable(at))?;
        let (dtype, element) = element_of(&datatype);
        let size = dataset.element_size().map_err(self.unreadable(at))?;
        let row_bytes = shape.iter().skip(1).try_fold(size, |bytes, &n| bytes.checked_mul(n));
        let n_rows = shape.first().copied().unwrap_or(1);
        let Some((row_bytes, n_bytes)) = row_bytes.and_then(|bytes| Some((bytes, bytes.checked_mul(n_rows)?))) else {
            return refuse("claims a shape that no file can hold");
        };
        let mut window_rows = WINDOW_BYTES / row_bytes.max(1);
        if n_bytes == 0 && n_rows > 0 {
            return refuse("has no columns"); // its number of rows is held against no bytes
        }
        let stored = match dataset.layout().map_err(self.unreadable(at))? {
            _ if n_bytes == 0 => 0,
            Layout::Compact { size } | Layout::Contiguous { address: Some(_), size } => {
                if size < n_bytes || n_bytes > self.size {
                    return refuse("is cut short: it claims more values than the file holds");
                }
                n_bytes
            }
            Layout::Contiguous { .. } => return refuse("has no values: they were never written"),
            Layout::Chunked { chunk_shape, .. } => {
                let n_chunks = (chunk_shape.len() == shape.len() && !chunk_shape.contains(&0))
                    .then(|| {
                        shape
                            .iter()
                            .zip(&chunk_shape)
                            .try_fold(1u64, |n, (&all, &of_one)| n.checked_mul(all.div_ceil(of_one)))
                    })
                    .flatten();
                let rows_of_chunk = chunk_shape.first().copied().unwrap_or(1);
                let chunk_bytes = chunk_shape.iter().try_fold(size, |bytes, &n| bytes.checked_mul(n));
                // Every chunk is stored in a byte at least.
                let (Some(n_chunks), Some(chunk_bytes)) = (n_chunks.filter(|&n| n <= self.size), chunk_bytes) else {
                    return refuse("has chunks that do not fit its shape");
                };
                let in_memory = chunk_bytes.max(row_bytes.saturating_mul(rows_of_chunk.min(n_rows)));
                if in_memory > MAX_SMALL_CHUNK.max(self.size.saturating_mul(MAX_TRUSTED_RATIO)) {
                    return refuse("has chunks too large for its file");
                }
                let chunks = dataset.chunks().map_err(self.unreadable(at))?;
                let is_there = |chunk: &Chunk| chunk.address.saturating_add(chunk.storage_size) <= self.size;
                // A reader adds places within a chunk to where it begins.
                let is_inside = |chunk: &Chunk| chunk.offset.iter().zip(&shape).all(|(offset, size)| offset < size);
                if !chunks.iter().all(is_there) {
                    return refuse("is cut short: it claims more values than the file holds");
                } else if !chunks.iter().all(is_inside) {
                    return refuse("has chunks that do not fit its shape");
                } else if chunks.len() as u64 != n_chunks {
                    return refuse("lacks some of its values: they were never written");
                }
                window_rows = rows_of_chunk * (window_rows / rows_of_chunk).max(1);
                chunks.iter().fold(0u64, |bytes, chunk| bytes.saturating_add(chunk.storage_size)).min(self.size)
            }
            _ => return refuse("is spread over several files, which is not read"),
        };
        Ok(Values {
            dataset,
            dtype,
            element,
            n_rows,
            shape,
            stored,
            row_bytes: row_bytes as usize,
            window_rows: window_rows.max(1),
        })
    }

    /// Shape and name of the element type of the data set at `at`.
    ///
    /// # Errors
    /// [`Error::Input`] if there is none, or its header is damaged.
    pub fn shape_and_type(&self, at: &str) -> Result<(Vec<u64>, String)> {
        let dataset = self.file.dataset(at).map_err(self.unreadable(at))?;
        let datatype = dataset.datatype().map_err(self.unreadable(at))?;
        Ok((dataset.shape().map_err(self.unreadable(at))?, element_of(&datatype).0))
    }

    /// The texts of the data set at `at`, `[n]`; of a missing one the text is empty.
    ///
    /// # Errors
    /// [`Error::Input`] if it does not hold texts.
    pub fn texts(&self, at: &str) -> Result<Vec<String>> {
        let refuse =
            |problem: &str| Err(Error::input(&self.path, at, problem, SAVE_AGAIN).of_kind(InputKind::Malformed));
        let values = self.values(at)?;
        if values.shape.len() > 1 {
            return refuse("has several dimensions, but is a list of texts");
        }
        let in_memory = values.n_rows.saturating_mul(values.row_bytes as u64);
        if in_memory > MAX_SMALL_CHUNK.max(self.size.saturating_mul(MAX_TRUSTED_RATIO)) {
            return refuse("claims texts too long for its file");
        }
        match values.dataset.datatype().map_err(self.unreadable(at))? {
            Datatype::VariableLength { is_string: true, .. } => {
                let limit = usize::try_from(self.size).unwrap_or(usize::MAX).saturating_mul(2);
                let options = VlenStringReadOptions::new().with_max_payload_bytes(limit);
                values.dataset.read_vlen_strings(options).map_err(self.unreadable(at))
            }
            Datatype::String { .. } => values.dataset.read_string().map_err(self.unreadable(at)),
            _ => refuse("does not hold texts"),
        }
    }
}

/// The error of a file that hdf5-pure refuses.
fn unreadable(path: &Path, at: &str, error: &hdf5_pure::Error) -> Error {
    if let hdf5_pure::Error::Io(error) = error
        && error.kind() != io::ErrorKind::UnexpectedEof
    {
        return Error::io(path, "read")(io::Error::new(error.kind(), error.to_string()));
    }
    Error::input(path, at, format!("cannot be read: {error}"), SAVE_AGAIN).of_kind(InputKind::Malformed)
}

/// A data set: its shape `[n_rows, …]` and its values, row by row.
pub(super) struct Values {
    dataset: Dataset,
    /// Name of the element type, as NumPy spells it.
    pub dtype: String,
    /// The element type, if it is a number.
    pub element: std::result::Result<Element, Refusal>,
    pub shape: Vec<u64>,
    /// First dimension; 1 for a single value.
    pub n_rows: u64,
    /// Bytes in the file.
    pub stored: u64,
    pub row_bytes: usize,
    /// Rows that are best read together: whole chunks.
    window_rows: u64,
}

impl Values {
    /// The values of the next window of rows from `row` on, whose chunks have not been read yet.
    ///
    /// # Errors
    /// An error of the file, or of its content.
    pub fn window(&self, row: u64) -> io::Result<Vec<u8>> {
        let end = (row / self.window_rows + 1).saturating_mul(self.window_rows).min(self.n_rows);
        let bytes = self.dataset.read_raw_rows(row, end - row).map_err(|error| match error {
            hdf5_pure::Error::Io(error) => io::Error::new(error.kind(), error.to_string()),
            error => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
        })?;
        if bytes.len() as u64 == (end - row) * self.row_bytes as u64 {
            Ok(bytes)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// True if the values are HDF5's truth values.
    pub fn is_bool(&self) -> bool {
        self.dtype == "bool"
    }

    /// SHA-256 of all values as they are stored, uncompressed.
    ///
    /// # Errors
    /// As [`Self::window`].
    pub fn digest(&self) -> io::Result<[u8; 32]> {
        let mut digest = Sha256::new();
        let mut row = 0;
        while row < self.n_rows && self.row_bytes > 0 {
            let bytes = self.window(row)?;
            digest.update(&bytes);
            row += (bytes.len() / self.row_bytes) as u64;
        }
        Ok(digest.finalize().into())
    }

    /// All values as indices; one that is none is [`u32::MAX`].
    ///
    /// # Errors
    /// As [`Self::all`].
    pub fn indices(&self) -> io::Result<Vec<u32>> {
        self.decoded(|x| if (0.0..f64::from(u32::MAX)).contains(&x) { x as u32 } else { u32::MAX })
    }

    /// All values as f64.
    ///
    /// # Errors
    /// As [`Self::window`]; also if they are no numbers.
    pub fn all(&self) -> io::Result<Vec<f64>> {
        self.decoded(|x| x)
    }

    fn decoded<T: Copy>(&self, of: impl Fn(f64) -> T) -> io::Result<Vec<T>> {
        let Ok(element) = self.element else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("holds {}, not numbers", self.dtype)));
        };
        let (mut all, mut numbers) = (Vec::new(), Vec::new());
        let mut row = 0;
        while row < self.n_rows {
            let bytes = self.window(row)?;
            numbers.resize(bytes.len() / element.size(), 0.0);
            all.try_reserve(numbers.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
            element.decode_f64(&bytes, &mut numbers);
            all.extend(numbers.iter().map(|&x| of(x)));
            row += (bytes.len() / self.row_bytes.max(1)) as u64;
        }
        Ok(all)
    }
}

/// (name as NumPy spells it, the number type or why it is none).
fn element_of(datatype: &Datatype) -> (String, std::result::Result<Element, Refusal>) {
    use ElementType::{F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
    let number = |name: &str, number, order: DatatypeByteOrder| {
        let big_endian = order == DatatypeByteOrder::BigEndian;
        (name.into(), Ok(Element { number, big_endian }))
    };
    match datatype {
        Datatype::FixedPoint { size, byte_order, layout }
            if layout.bit_offset == 0 && u64::from(layout.bit_precision) == 8 * u64::from(*size) =>
        {
            match (size, layout.signed) {
                (1, true) => number("int8", I8, *byte_order),
                (2, true) => number("int16", I16, *byte_order),
                (4, true) => number("int32", I32, *byte_order),
                (8, true) => number("int64", I64, *byte_order),
                (1, false) => number("uint8", U8, *byte_order),
                (2, false) => number("uint16", U16, *byte_order),
                (4, false) => number("uint32", U32, *byte_order),
                (8, false) => number("uint64", U64, *byte_order),
                _ => refused(format!("an integer of {size} bytes")),
            }
        }
        Datatype::FloatingPoint { size: 4, byte_order, layout } if *layout == FloatingPointLayout::IEEE754_BINARY32 => {
            number("float32", F32, *byte_order)
        }
        Datatype::FloatingPoint { size: 8, byte_order, layout } if *layout == FloatingPointLayout::IEEE754_BINARY64 => {
            number("float64", F64, *byte_order)
        }
        Datatype::FloatingPoint { size: 2, byte_order, layout }
            if (layout.exponent_location, layout.exponent_size, layout.mantissa_size) == (10, 5, 10) =>
        {
            number("float16", F16, *byte_order)
        }
        Datatype::Enumeration { size: 1, .. } => {
            ("bool".into(), Ok(Element { number: ElementType::U8, big_endian: false }))
        }
        Datatype::String { .. } | Datatype::VariableLength { is_string: true, .. } => refused("text".into()),
        Datatype::Compound { .. } => refused("a compound of several values".into()),
        _ => refused("a type that is not a number".into()),
    }
}

fn refused(name: String) -> (String, std::result::Result<Element, Refusal>) {
    let problem = format!("holds {name}, not numbers");
    (name, Err(Refusal { problem, fix: "name an array of numbers" }))
}
