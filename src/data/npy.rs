//! `.npy`: the header of one array, checked, and a pair of files for samples and times.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};

use super::array::{ArrayFile, ArrayInfo, missing, too_large};
use crate::elements::ElementType;
use crate::error::{Error, Result};

/// Largest header that is read; NumPy's own are below 200 bytes.
const MAX_HEADER: usize = 1 << 16;
/// Deepest nesting of brackets in a header; a plain array's has 2.
const MAX_NESTING: usize = 8;

/// A checked header: what is needed to decode the bytes that follow it.
#[derive(Clone)]
pub(super) struct Header {
    element: ElementType,
    big_endian: bool,
    pub info: ArrayInfo,
}

impl Header {
    /// Reads the header at the start of `reader`, which continues with at most `available` bytes in all.
    /// `path` and `name` are for messages.
    pub fn read(reader: &mut dyn Read, available: u64, path: &Path, name: &str) -> Result<Header> {
        let fail = |problem: String, fix: &str| Err(Error::input(path, name, problem, fix));
        const SAVE_AGAIN: &str = "save the array again with numpy.save or numpy.savez";
        // Magic, version and length first: the parser trusts the length.
        let mut start = vec![0; 12];
        if let Err(error) = reader.read_exact(&mut start) {
            return fail(format!("is too short for an array: {error}"), SAVE_AGAIN);
        }
        if &start[..6] != b"\x93NUMPY" {
            return fail("does not start like a NumPy array".into(), SAVE_AGAIN);
        }
        let (length, prefix) = match start[6] {
            1 => (usize::from(u16::from_le_bytes([start[8], start[9]])), 10),
            2 | 3 => (u32::from_le_bytes([start[8], start[9], start[10], start[11]]) as usize, 12),
            version => return fail(format!("has format version {version}"), "save it with version 1, 2 or 3"),
        };
        if length > MAX_HEADER || prefix + length < start.len() {
            return fail(format!("claims a header of {length} bytes"), SAVE_AGAIN);
        }
        let read = start.len();
        start.resize(prefix + length, 0);
        if let Err(error) = reader.read_exact(&mut start[read..]) {
            return fail(format!("is truncated in its header: {error}"), SAVE_AGAIN);
        }
        if nesting(&start[prefix..]) > MAX_NESTING {
            return fail("has a header with brackets nested too deep".into(), SAVE_AGAIN);
        }
        // The parser multiplies the shape without a check.
        let text = String::from_utf8_lossy(&start[prefix..]);
        let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
        let product = numbers
            .map(|digits| digits.parse::<u64>().ok())
            .try_fold(8_u64, |product, n| n.and_then(|n| product.checked_mul(n.max(1))));
        if product.is_none() {
            return fail("claims more elements than can be".into(), SAVE_AGAIN);
        }
        let header = match NpyHeader::from_reader(&start[..]) {
            Ok(header) => header,
            Err(error) => return fail(format!("has an invalid header: {error}"), SAVE_AGAIN),
        };
        let dtype = header.dtype();
        if header.uses_pickled_array() {
            return fail(
                "holds pickled Python objects, which are not read because they can run code".into(),
                "save plain numbers: numpy.asarray(a, dtype=numpy.float32)",
            );
        }
        let DType::Plain(plain) = &dtype else {
            return fail(format!("has the structured type {}", dtype.descr()), "save one plain array for each field");
        };
        let element = match (plain.type_char(), plain.size_field()) {
            (TypeChar::Float, 2) => ElementType::F16,
            (TypeChar::Float, 4) => ElementType::F32,
            (TypeChar::Float, 8) => ElementType::F64,
            (TypeChar::Int, 1) => ElementType::I8,
            (TypeChar::Int, 2) => ElementType::I16,
            (TypeChar::Int, 4) => ElementType::I32,
            (TypeChar::Int, 8) => ElementType::I64,
            (TypeChar::Uint, 1) => ElementType::U8,
            (TypeChar::Uint, 2) => ElementType::U16,
            (TypeChar::Uint, 4) => ElementType::U32,
            (TypeChar::Uint, 8) => ElementType::U64,
            _ => {
                let problem = format!("has elements of type {}", dtype.descr());
                return fail(problem, "save f16, f32, f64 or integers: a.astype('float32')");
            }
        };
        let shape: Option<Vec<usize>> = header.shape().iter().map(|&n| usize::try_from(n).ok()).collect();
        let shape = shape.unwrap_or_default();
        let bytes = shape
            .iter()
            .try_fold(element.size() as u64, |bytes, &n| bytes.checked_mul(n as u64))
            .ok_or_else(|| too_large(path, name, &shape))?;
        let rest = available.saturating_sub(start.len() as u64);
        if bytes > rest {
            return fail(
                format!("is truncated: shape {shape:?} takes {bytes} bytes, at most {rest} are there"),
                SAVE_AGAIN,
            );
        }
        let big_endian = plain.endianness() == Endianness::Big;
        let order = if big_endian { ", big-endian" } else { "" };
        let fortran = header.order() == Order::Fortran && shape.len() > 1;
        let storage = format!("{element:?}{order}{}", if fortran { ", Fortran order" } else { "" }).to_lowercase();
        Ok(Header { element, big_endian, info: ArrayInfo { shape, fortran, storage } })
    }

    /// Decodes the elements after the header.
    pub fn decode(&self, reader: &mut dyn Read, sink: &mut dyn FnMut(f64)) -> std::io::Result<()> {
        self.element.decode(reader, self.info.shape.iter().product(), self.big_endian, sink)
    }
}

/// Deepest level of brackets.
fn nesting(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// `.npy` files, one array each, under the names that the configuration gives them.
pub(super) struct NpyFiles {
    /// (name, file).
    files: Vec<(String, PathBuf)>,
}

impl NpyFiles {
    /// Files by array name.
    pub fn new(files: Vec<(String, PathBuf)>) -> Self {
        NpyFiles { files }
    }

    fn open(&self, name: &str) -> Result<(Header, BufReader<File>)> {
        let path = self.path(name);
        let file = File::open(&path).map_err(Error::io(&path, "open"))?;
        let len = file.metadata().map_err(Error::io(&path, "read"))?.len();
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let header = Header::read(&mut reader, len, &path, name)?;
        let position = reader.stream_position().map_err(Error::io(&path, "read"))?;
        let expected = header.info.shape.iter().product::<usize>() as u64 * header.element.size() as u64;
        if position + expected != len {
            let problem = format!("is followed by {} bytes that belong to nothing", len - position - expected);
            return Err(Error::input(&path, name, problem, "save the array again with numpy.save"));
        }
        Ok((header, reader))
    }
}

impl ArrayFile for NpyFiles {
    fn path(&self, name: &str) -> PathBuf {
        self.files.iter().find(|(known, _)| known == name).map(|(_, path)| path.clone()).unwrap_or_default()
    }

    fn names(&self) -> Vec<String> {
        self.files.iter().map(|(name, _)| name.clone()).collect()
    }

    fn info(&mut self, name: &str) -> Result<ArrayInfo> {
        if !self.files.iter().any(|(known, _)| known == name) {
            return Err(missing(&self.path(name), name, &self.names()));
        }
        Ok(self.open(name)?.0.info)
    }

    fn for_each(&mut self, name: &str, sink: &mut dyn FnMut(f64)) -> Result<()> {
        let (header, mut reader) = self.open(name)?;
        header.decode(&mut reader, sink).map_err(Error::io(self.path(name), "read"))
    }
}
