//! Tables of text (`.csv`, `.tsv`, both also `.gz`): a header line of column names, then one row of
//! numbers per sample. Reading takes a few times the size of the header line and of one row.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use csv::{ByteRecord, Position, Reader, ReaderBuilder, Trim};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::array::Meter;
use super::file::Encoding;
use super::row_filter::Field;
use super::table::{Fields, Record, Records};
use super::write::{PointArray, PointValues};
use crate::error::{Error, InputKind, Result};
use crate::files::open_file;

/// Longest line. Compressed files have the further limits [`LINE_BYTES`] and [`LINE_RATIO`] times
/// their size, because a few kB can expand to a line of any length.
const MAX_LINE: u64 = 1 << 24;
const LINE_BYTES: u64 = 1 << 19;
const LINE_RATIO: u64 = 16;

/// Bytes read from a file at a time.
const BLOCK_BYTES: usize = 1 << 18;

/// A table of text on disk.
pub(super) struct Text {
    path: PathBuf,
    encoding: Encoding,
    size: u64,
    delimiter: u8,
}

impl Text {
    /// The text and the names of its columns.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no header line, or the file is not UTF-8 text.
    pub fn open(path: &Path, encoding: Encoding) -> Result<(Self, Vec<String>)> {
        let (_, size) = open_file(path)?;
        let refuse = |problem: &str, fix: &str| {
            Err(Error::input(path, "header line", problem, fix).of_kind(InputKind::Malformed))
        };
        let mut start = Vec::new();
        let source = Source::open(path, encoding)?;
        source.reader.take(BLOCK_BYTES as u64).read_to_end(&mut start).map_err(|e| read_error(path, e))?;
        if is_utf16(&start) {
            return refuse("is UTF-16 text", "save the table as UTF-8");
        }
        if let Some(at) = start.iter().position(|&byte| byte == 0) {
            let line = start[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
            let problem = "holds a NUL byte, as no text does";
            let fix = "it is damaged or no table: save it again as UTF-8 text";
            return Err(Error::input(path, format!("line {line}"), problem, fix).of_kind(InputKind::Malformed));
        }
        let text = Text { path: path.into(), encoding, size, delimiter: delimiter_of(&start) };
        let mut reader = text.reader()?;
        let header = reader.csv.byte_headers().map_err(|e| csv_error(path, e))?;
        let columns: Vec<String> = header.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        if columns.is_empty() {
            return refuse("is missing: the file is empty", "give a line of column names, then one row per sample");
        }
        if columns.iter().all(|name| name.parse::<f64>().is_ok()) {
            return refuse("is missing: the first line holds numbers", "name the columns in it, as in times,x1,x2");
        }
        Ok((text, columns))
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn reader(&self) -> Result<OpenTable> {
        let Source { reader, consumed, line_left } = Source::open(&self.path, self.encoding)?;
        let mut builder = ReaderBuilder::new();
        builder.delimiter(self.delimiter).trim(Trim::All).buffer_capacity(BLOCK_BYTES);
        Ok(OpenTable { csv: builder.from_reader(reader), consumed, line_left })
    }
}

impl Records for Text {
    fn for_each(
        &self,
        _columns: &[usize],
        meter: &mut Meter<'_>,
        visit: &mut dyn FnMut(&Record<'_>) -> Result<()>,
    ) -> Result<usize> {
        /// Rows between looks at the watch.
        const INTERVAL: usize = 256;
        let OpenTable { mut csv, consumed, line_left } = self.reader()?;
        let max_line = line_left.get();
        let mut fields = ByteRecord::new();
        let (mut n_read, mut seen) = (0, 0);
        while csv.read_byte_record(&mut fields).map_err(|e| csv_error(&self.path, e))? {
            line_left.set(max_line);
            visit(&Record { place: place_of(fields.position()), fields: &fields })?;
            n_read += 1;
            if n_read % INTERVAL == 0 {
                let now = consumed.get();
                meter.advance(now - seen)?;
                seen = now;
            }
        }
        meter.advance(self.size.saturating_sub(seen))?;
        Ok(n_read)
    }
}

impl Fields for ByteRecord {
    fn field(&self, column: usize) -> Field<'_> {
        Field::Text(String::from_utf8_lossy(self.get(column).unwrap_or_default()))
    }
}

struct OpenTable {
    csv: Reader<Box<dyn Read>>,
    /// Bytes read from the file.
    consumed: Rc<Cell<u64>>,
    /// Bytes of text that the current line may still have.
    line_left: Rc<Cell<u64>>,
}

/// The text of a table.
struct Source {
    reader: Box<dyn Read>,
    consumed: Rc<Cell<u64>>,
    line_left: Rc<Cell<u64>>,
}

impl Source {
    fn open(path: &Path, encoding: Encoding) -> Result<Self> {
        let (file, size) = open_file(path)?;
        let consumed = Rc::new(Cell::new(0));
        let max_line = if encoding == Encoding::Gzip {
            LINE_BYTES.saturating_add(LINE_RATIO * size).min(MAX_LINE)
        } else {
            MAX_LINE
        };
        let line_left = Rc::new(Cell::new(max_line));
        let file = Counted { file, consumed: consumed.clone() };
        let text: Box<dyn Read> = if encoding == Encoding::Gzip {
            let mut file = BufReader::with_capacity(BLOCK_BYTES, file);
            let start = file.fill_buf().map_err(Error::io(path, "read"))?;
            if !start.starts_with(&[0x1f, 0x8b]) {
                return Err(Error::input(path, "path", "is not compressed by gzip", "leave .gz out of its name"));
            }
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let reader = Box::new(Bounded { text, line_left: line_left.clone() });
        Ok(Source { reader, consumed, line_left })
    }
}

/// Counts the bytes that come from a file.
struct Counted {
    file: File,
    consumed: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.consumed.set(self.consumed.get() + n as u64);
        Ok(n)
    }
}

/// Ends text with an error if a line is too long.
struct Bounded {
    text: Box<dyn Read>,
    line_left: Rc<Cell<u64>>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.text.read(buffer)?;
        // A block counts for the line in which it begins.
        match self.line_left.get().checked_sub(n as u64) {
            Some(left) => self.line_left.set(left),
            None => return Err(io::Error::new(io::ErrorKind::FileTooLarge, LongLine)),
        }
        Ok(n)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a line is too long, here or in proportion to the size of the file (at most {} MiB)", MAX_LINE >> 20)]
struct LongLine;

/// True if the text has the mark of UTF-16, or as many NUL bytes in the upper or the lower halves
/// of its units as Latin letters have there.
fn is_utf16(start: &[u8]) -> bool {
    let n_units = start.len() / 2;
    let zeros = |half: usize| start.iter().skip(half).step_by(2).filter(|&&byte| byte == 0).count();
    let has_mark = matches!(start, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
    has_mark || n_units > 0 && [0, 1].into_iter().any(|half| 2 * zeros(half) > n_units && zeros(1 - half) == 0)
}

/// The separator of the fields of the header line: the most frequent of comma, semicolon and tab
/// outside quotes.
fn delimiter_of(text: &[u8]) -> u8 {
    let mut quoted = false;
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0)];
    for &byte in text {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' | b'\r' if !quoted => break,
            _ if !quoted => counts.iter_mut().filter(|(d, _)| *d == byte).for_each(|(_, n)| *n += 1),
            _ => {}
        }
    }
    // In a tie, the first one.
    counts.into_iter().rev().max_by_key(|(_, n)| *n).map_or(b',', |(delimiter, _)| delimiter)
}

/// The row of the file at `position`: neither blank lines nor the header line count.
fn place_of(position: Option<&Position>) -> usize {
    position.map_or(0, |position| position.record().saturating_sub(1) as usize)
}

fn read_error(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::FileTooLarge if error.get_ref().is_some_and(|e| e.is::<LongLine>()) => {
            Error::input(path, "table", error.to_string(), "give one line to each sample").of_kind(InputKind::Malformed)
        }
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            Error::input(path, "table", format!("is damaged: {error}"), "copy or save the file again")
                .of_kind(InputKind::Malformed)
        }
        _ => Error::io(path, "read")(error),
    }
}

fn csv_error(path: &Path, error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(e) => read_error(path, e),
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let problem = format!("has {len} fields, the header line {expected_len}");
            let row = format!("row {} (counted from 0)", place_of(pos.as_ref()));
            Error::input(path, row, problem, "give every row one field per column").of_kind(InputKind::Malformed)
        }
        other => {
            Error::input(path, "table", format!("cannot be parsed: {other:?}"), "save it as plain comma-separated text")
                .of_kind(InputKind::Malformed)
        }
    }
}

/// The system's own error, so that its kind is known.
fn system_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// Writes `arrays`, each of `n_rows` rows, as columns under a header line.
pub(super) fn write(
    writer: &mut dyn Write,
    delimiter: u8,
    encoding: Encoding,
    arrays: &[PointArray<'_>],
    n_rows: usize,
) -> io::Result<()> {
    if encoding == Encoding::Plain {
        return write_rows(writer, delimiter, arrays, n_rows).map_err(system_error);
    }
    let mut encoder = GzEncoder::new(writer, Compression::default());
    write_rows(&mut encoder, delimiter, arrays, n_rows).map_err(system_error)?;
    encoder.finish().map(drop)
}

fn write_rows(writer: &mut dyn Write, delimiter: u8, arrays: &[PointArray<'_>], n_rows: usize) -> csv::Result<()> {
    let mut table = csv::WriterBuilder::new().delimiter(delimiter).from_writer(writer);
    for array in arrays {
        match (array.columns, array.dim) {
            (Some(names), _) => names.iter().try_for_each(|name| table.write_field(name))?,
            (None, None) => table.write_field(array.name)?,
            (None, Some(dim)) => (0..dim).try_for_each(|j| table.write_field(format!("{}_{j}", array.name)))?,
        }
    }
    table.write_record(None::<&[u8]>)?;
    let mut text = Vec::new();
    for row in 0..n_rows {
        for array in arrays {
            let width = array.width();
            for at in row * width..(row + 1) * width {
                text.clear();
                match array.values {
                    PointValues::F32(values) => write!(text, "{}", values[at])?,
                    PointValues::F64(values) => write!(text, "{}", values[at])?,
                    PointValues::Texts { of_one, .. } => text.extend_from_slice(of_one[at % of_one.len()].as_bytes()),
                }
                table.write_field(&text)?;
            }
        }
        table.write_record(None::<&[u8]>)?;
    }
    Ok(table.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delimiter_is_the_one_of_the_header_line() {
        for (text, delimiter) in [
            ("times,x\n1;2;3\n", b','),
            ("times;x;y\n", b';'),
            ("times\tx\r\n", b'\t'),
            ("\"a,b,c\";x;\"y\"\n", b';'),
            ("times\n0,1\n", b','),
            ("a,b;c\n", b','),
            ("", b','),
        ] {
            assert_eq!(delimiter_of(text.as_bytes()), delimiter, "{text}");
        }
    }
}
