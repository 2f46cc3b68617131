//! `.npy`: the NumPy array format, versions 1 to 3.
//!
//! The header is parsed here because it determines sizes: general parsers of Python literals
//! recurse, overflow or panic on hostile input. This one understands only the three fields that the
//! format defines, without recursion.

use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use super::array::{Array, Header, Meter, Order, check_n_bytes, damaged};
use super::ids::{Ids, LONGEST};
use crate::element::{Element, ElementType, Refusal};
use crate::error::{Error, InputKind, Result};
use crate::files::open_file;

/// The first bytes of every `.npy` array.
pub(super) const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Maximum length of a header. NumPy itself stops at 10 000 bytes.
const MAX_HEADER: usize = 1 << 16;

/// Opens the only array of the file at `path`, called `name` in messages.
///
/// # Errors
/// [`Error::Input`] for anything but one complete array.
pub(super) fn open<'a>(path: &'a Path, name: &str) -> Result<Array<'a>> {
    let (file, size) = open_file(path)?;
    let mut reader = BufReader::new(file);
    let (header, n_header_bytes) = read_header(path, name, &mut reader)?;
    check_n_bytes(path, name, &header, size.saturating_sub(n_header_bytes))?;
    Ok(Array { file: path, name: name.into(), header, stored: size, data: Box::new(reader), kept: None })
}

/// Reads a header; also returns its length in bytes.
///
/// # Errors
/// [`Error::Input`] describing what is wrong with it.
pub(super) fn read_header(file: &Path, name: &str, reader: &mut dyn Read) -> Result<(Header, u64)> {
    let refuse = |problem: String| {
        Err(Error::input(file, name, problem, "save it with numpy.save").of_kind(InputKind::Malformed))
    };
    let mut start = [0u8; 10];
    read_up_to(reader, &mut start).map_err(|e| damaged(file, name, e))?;
    let [magic @ .., major, _, low, high] = &start;
    if magic != MAGIC {
        return refuse("is not a .npy array".into());
    }
    let mut length = usize::from(u16::from_le_bytes([*low, *high]));
    let mut n_before = start.len();
    match major {
        1 => {}
        2 | 3 => {
            let mut upper = [0u8; 2];
            reader.read_exact(&mut upper).map_err(|e| damaged(file, name, e))?;
            length |= usize::from(u16::from_le_bytes(upper)) << 16;
            n_before += upper.len();
        }
        _ => return refuse(format!("is a .npy array of version {major}; 1 to 3 are known")),
    }
    if length > MAX_HEADER {
        return refuse(format!("has a .npy header of {length} bytes; at most {MAX_HEADER} are read"));
    }
    let mut text = vec![0u8; length];
    reader.read_exact(&mut text).map_err(|e| damaged(file, name, e))?;
    match parse(&String::from_utf8_lossy(&text)) {
        Ok(header) => Ok((header, (n_before + length) as u64)),
        Err(problem) => refuse(format!("has a damaged .npy header: {problem}")),
    }
}

/// Fills `bytes` from the start; zeros remain if the stream ends early.
fn read_up_to(reader: &mut dyn Read, bytes: &mut [u8]) -> io::Result<()> {
    let mut content = Vec::with_capacity(bytes.len());
    reader.take(bytes.len() as u64).read_to_end(&mut content)?;
    bytes[..content.len()].copy_from_slice(&content);
    Ok(())
}

/// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }`.
fn parse(text: &str) -> std::result::Result<Header, &'static str> {
    let mut scanner = Scanner { rest: text };
    let (mut dtype, mut order, mut shape) = (None, None, None);
    scanner.expect("{")?;
    while !scanner.eat("}") {
        let key = scanner.quoted().ok_or("a key is not a quoted word")?;
        scanner.expect(":")?;
        match key {
            "descr" => dtype = Some(scanner.dtype()?),
            "fortran_order" if scanner.eat("True") => order = Some(Order::Fortran),
            "fortran_order" if scanner.eat("False") => order = Some(Order::C),
            "fortran_order" => return Err("fortran_order is neither True nor False"),
            "shape" => shape = Some(scanner.shape()?),
            _ => return Err("it has a key other than descr, fortran_order and shape"),
        }
        if !scanner.eat(",") {
            scanner.expect("}")?;
            break;
        }
    }
    if !scanner.rest.trim().is_empty() {
        return Err("text follows the closing brace");
    }
    let dtype = dtype.ok_or("descr is missing")?;
    Ok(Header {
        element: element(&dtype),
        dtype,
        order: order.ok_or("fortran_order is missing")?,
        shape: shape.ok_or("shape is missing")?,
    })
}

/// The unread rest of a header.
struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        let found = self.rest.strip_prefix(token);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn expect(&mut self, token: &'static str) -> std::result::Result<(), &'static str> {
        if self.eat(token) { Ok(()) } else { Err("it is not the dictionary that NumPy writes") }
    }

    fn quoted(&mut self) -> Option<&'a str> {
        let quote = if self.eat("'") {
            '\''
        } else if self.eat("\"") {
            '"'
        } else {
            return None;
        };
        let (word, rest) = self.rest.split_once(quote)?;
        self.rest = rest;
        Some(word)
    }

    /// A type string, or the source text of a structured type up to its matching bracket.
    fn dtype(&mut self) -> std::result::Result<String, &'static str> {
        if let Some(word) = self.quoted() {
            return Ok(word.into());
        }
        if !self.rest.starts_with('[') {
            return Err("descr is neither a type string nor a list of fields");
        }
        let mut depth = 0usize;
        for (at, c) in self.rest.char_indices() {
            match c {
                '[' => depth += 1,
                ']' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let (fields, rest) = self.rest.split_at(at + 1);
                self.rest = rest;
                return Ok(fields.into());
            }
        }
        Err("descr has no closing bracket")
    }

    fn shape(&mut self) -> std::result::Result<Vec<u64>, &'static str> {
        const NOT_A_TUPLE: &str = "shape is not a tuple of sizes";
        let mut shape = Vec::new();
        if !self.eat("(") {
            return Err(NOT_A_TUPLE);
        }
        while !self.eat(")") {
            self.rest = self.rest.trim_start();
            let n_digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
            let (digits, rest) = self.rest.split_at(n_digits);
            shape.push(digits.parse().map_err(|_| NOT_A_TUPLE)?);
            // Python 2 wrote long integers as 300L.
            self.rest = rest.strip_prefix('L').unwrap_or(rest);
            if !self.eat(",") {
                if !self.eat(")") {
                    return Err(NOT_A_TUPLE);
                }
                break;
            }
        }
        Ok(shape)
    }
}

/// The element type that `dtype` names, or the reason why it is unsupported.
fn element(dtype: &str) -> std::result::Result<Element, Refusal> {
    let refuse = |what: &str, fix| Err(Refusal { problem: format!("holds {what} (dtype {dtype})"), fix });
    const AS_FLOAT: &str = "save it as a plain number array: a.astype(numpy.float32)";
    let (byte_order, code) = match dtype.split_at_checked(1) {
        Some((byte_order @ ("<" | ">" | "|" | "="), code)) => (byte_order, code),
        _ if dtype.starts_with('[') => return refuse("a structured type", "save each field as an array of its own"),
        _ => return refuse("an unknown element type", AS_FLOAT),
    };
    let number = match code {
        "f2" => ElementType::F16,
        "f4" => ElementType::F32,
        "f8" => ElementType::F64,
        "i1" => ElementType::I8,
        "i2" => ElementType::I16,
        "i4" => ElementType::I32,
        "i8" => ElementType::I64,
        "u1" => ElementType::U8,
        "u2" => ElementType::U16,
        "u4" => ElementType::U32,
        "u8" => ElementType::U64,
        _ => {
            return match code.as_bytes().first() {
                Some(b'O') => refuse("pickled Python objects, which are never loaded", AS_FLOAT),
                Some(b'b') => refuse("booleans", AS_FLOAT),
                Some(b'c') => refuse("complex numbers", "save real and imaginary part as columns of their own"),
                Some(b'S' | b'U' | b'a') => refuse("text", AS_FLOAT),
                Some(b'M' | b'm') => refuse("dates", "save times as numbers, for example hours since the start"),
                Some(b'V') => refuse("raw bytes", AS_FLOAT),
                Some(b'f') => refuse("extended-precision floats", AS_FLOAT),
                _ => refuse("an unknown element type", AS_FLOAT),
            };
        }
    };
    let big_endian = byte_order == ">" || (byte_order == "=" && cfg!(target_endian = "big"));
    Ok(Element { number, big_endian })
}

/// The texts of `array`, one for each of `n_rows` rows; `None` if it holds something else.
///
/// # Errors
/// [`Error::Input`] if there are more or fewer, one is too long, or the file is damaged.
pub(super) fn texts(mut array: Array<'_>, n_rows: usize, meter: &mut Meter<'_>) -> Result<Option<Vec<String>>> {
    let Some((encoding, width)) = text_type(&array.header.dtype) else { return Ok(None) };
    let (file, name) = (array.file, array.name.clone());
    let mut ids = Ids::new(file, &name, array.stored);
    let most = LONGEST * encoding.size();
    if array.header.shape != [n_rows as u64] || width.saturating_mul(encoding.size()) > most {
        let problem = format!("has shape {:?} and texts of {width} letters", array.header.shape);
        let fix = format!("give one name of at most {LONGEST} letters per row: {n_rows} of them");
        return Err(Error::input(file, name, problem, fix));
    }
    let mut bytes = vec![0; width * encoding.size()];
    meter.expect(bytes.len() as u64 * n_rows as u64);
    for _ in 0..n_rows {
        array.data.read_exact(&mut bytes).map_err(|error| damaged(file, &name, error))?;
        let text = encoding.decode(&bytes);
        ids.push(text.trim_end_matches('\0'))?;
        meter.advance(bytes.len() as u64)?;
    }
    ids.finish(n_rows).map(Some)
}

/// How an array holds text.
#[derive(Clone, Copy, Debug, PartialEq)]
enum TextEncoding {
    /// `S`: bytes.
    Bytes,
    /// `U`: 32 bits for each letter.
    Utf32 { big_endian: bool },
}

impl TextEncoding {
    /// Bytes of a letter.
    fn size(self) -> usize {
        match self {
            TextEncoding::Bytes => 1,
            TextEncoding::Utf32 { .. } => 4,
        }
    }

    fn decode(self, bytes: &[u8]) -> String {
        let letter = |unit: &[u8]| {
            let unit: [u8; 4] = unit.try_into().unwrap_or_default();
            let TextEncoding::Utf32 { big_endian } = self else { return char::REPLACEMENT_CHARACTER };
            let code = if big_endian { u32::from_be_bytes(unit) } else { u32::from_le_bytes(unit) };
            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
        };
        match self {
            TextEncoding::Bytes => String::from_utf8_lossy(bytes).into_owned(),
            TextEncoding::Utf32 { .. } => bytes.chunks_exact(4).map(letter).collect(),
        }
    }
}

/// (encoding, letters) of a type of texts such as `<U12`.
fn text_type(dtype: &str) -> Option<(TextEncoding, usize)> {
    let (byte_order, code) = dtype.split_at_checked(1)?;
    let encoding = match code.split_at_checked(1)?.0 {
        "S" | "a" => TextEncoding::Bytes,
        "U" => {
            TextEncoding::Utf32 { big_endian: byte_order == ">" || byte_order == "=" && cfg!(target_endian = "big") }
        }
        _ => return None,
    };
    Some((encoding, code[1..].parse().ok()?))
}

/// True if arrays of `dtype` hold texts.
pub(super) fn is_text(dtype: &str) -> bool {
    text_type(dtype).is_some()
}

/// Writes `texts` as an array `[n]`, padded with zeros to the length of the longest.
pub(super) fn write_texts<'a>(writer: &mut dyn Write, texts: impl Iterator<Item = &'a str> + Clone) -> io::Result<()> {
    let width = texts.clone().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
    write_header(writer, &format!("<U{width}"), &[texts.clone().count()])?;
    for text in texts {
        let letters = text.chars().map(u32::from).chain(std::iter::repeat(0));
        letters.take(width).try_for_each(|letter| writer.write_all(&letter.to_le_bytes()))?;
    }
    Ok(())
}

/// Writes the version-1 header of an array in C order, of type `descr`; the values must follow.
pub(super) fn write_header(writer: &mut dyn Write, descr: &str, shape: &[usize]) -> io::Result<()> {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if sizes.len() == 1 { "," } else { "" };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}", sizes.join(", "));
    // Values start at a multiple of 64 bytes, so that the file can be mapped.
    let n_before = MAGIC.len() + 4;
    let padded = (n_before + text.len() + 1).next_multiple_of(64) - n_before;
    text = format!("{text:width$}\n", width = padded - 1);
    writer.write_all(MAGIC)?;
    writer.write_all(&[1, 0])?;
    writer.write_all(&(padded as u16).to_le_bytes())?;
    writer.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_numpy_writes_and_its_variants() {
        for (text, dtype, order, shape) in [
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (7, 3), }   \n", "<f4", Order::C, vec![7, 3]),
            ("{\"shape\":(5,),\"descr\":\">u2\",\"fortran_order\":True}", ">u2", Order::Fortran, vec![5]),
            ("{'descr': '|i1', 'fortran_order': False, 'shape': ()}", "|i1", Order::C, vec![]),
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (300L, 2L), }", "<f8", Order::C, vec![300, 2]),
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (300L,)}", "<f8", Order::C, vec![300]),
        ] {
            let header = parse(text).unwrap();
            assert_eq!((header.dtype.as_str(), header.order, header.shape), (dtype, order, shape));
            assert!(header.element.is_ok());
        }
        let nested = "{'descr': [('a', '<f4'), ('b', [('c', '|O')], (2,))], 'fortran_order': False, 'shape': (2,)}";
        assert_eq!(
            parse(nested).unwrap().element.unwrap_err().problem,
            "holds a structured type (dtype [('a', '<f4'), ('b', [('c', '|O')], (2,))])"
        );
    }

    #[test]
    fn refuses_other_literals_without_recursion() {
        let deep = format!("{{'descr': {}, 'fortran_order': False, 'shape': (1,)}}", "[".repeat(60_000));
        let huge = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': (1{},)}}", "0".repeat(60_000));
        for text in [
            "",
            "{",
            "{}",
            "{'descr'",
            "{'descr': <f4}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (-1,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (1 2)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (1LL,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (L,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (1,)} é",
            "{'descr': 'é', 'fortran_order': True, 'shape': (1,), 'é': 1}",
            &deep,
            &huge,
        ] {
            assert!(parse(text).is_err(), "{:.60}", text);
        }
        assert!(element("é4").is_err());
        assert!(element("").is_err());
    }

    #[test]
    fn written_headers_are_aligned_and_read_back() {
        for shape in [vec![0], vec![11], vec![4_294_967_295, 1024], vec![7, 3]] {
            let mut bytes = Vec::new();
            write_header(&mut bytes, "<f4", &shape).unwrap();
            assert_eq!(bytes.len() % 64, 0);
            let (header, length) = read_header(Path::new("a.npy"), "a", &mut &bytes[..]).unwrap();
            assert_eq!(length as usize, bytes.len());
            assert_eq!(header.shape, shape.iter().map(|&n| n as u64).collect::<Vec<_>>());
        }
    }
}
