//! `.parquet` files: tables of typed columns, of which only those that are needed are read, some
//! rows of a row group at a time. Files are untrusted: what the metadata claims is held against the
//! bytes of the file, and a panic of the crate that decodes them is an error.

mod compact;
mod pages;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use half::f16;
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::schema::types::ColumnDescriptor;

use self::compact::has_sound_schema;
use self::pages::{Pages, damaged};
use super::array::{MAX_TRUSTED_RATIO, Meter};
use super::grouping::shortest_decimal;
use super::row_filter::Field;
use super::table::{Fields, Record, Records};
use crate::error::{Error, InputKind, Result};
use crate::files::open_file;

/// Values of the columns that are read for each byte of the file, at most: equal ones take no
/// bytes, however many they are claimed to be. Deflate can claim 1032 bytes for one.
const VALUES_PER_BYTE: u64 = 1024;

/// Bytes that the pages of all columns that are read may have in memory, however small the file.
const SMALL_PAGES: u64 = 1 << 20;

/// Values that are decoded at a time, over all columns.
const BATCH: usize = 1 << 14;

const SAVE_AGAIN: &str = "copy or save it again, as with pyarrow or pandas";

/// An open file.
pub(super) struct Columns {
    path: PathBuf,
    size: u64,
    file: Arc<File>,
    metadata: ParquetMetaData,
    names: Vec<String>,
}

impl Columns {
    /// The file and the names of its columns; one of a structure is called by its path, `a.b`.
    ///
    /// # Errors
    /// [`Error::Input`] if it is no Parquet file, or its metadata are damaged.
    pub fn open(path: &Path) -> Result<(Self, Vec<String>)> {
        let (mut file, size) = open_file(path)?;
        let bytes = metadata_of(path, &mut file, size)?;
        if !has_sound_schema(&bytes) {
            return Err(refused(path, "has damaged metadata", SAVE_AGAIN));
        }
        let metadata = guarded(|| ParquetMetaDataReader::decode_metadata(&bytes))
            .map_err(|error| unreadable(path, "file", error))?;
        let columns = metadata.file_metadata().schema_descr().columns();
        let names: Vec<String> = columns.iter().map(|column| column.path().string()).collect();
        let groups = metadata.row_groups();
        let n_rows = groups.iter().try_fold(0u64, |sum, group| sum.checked_add(u64::try_from(group.num_rows()).ok()?));
        if n_rows.is_none() || groups.iter().any(|group| group.num_columns() != names.len()) {
            return Err(refused(path, "has damaged metadata", SAVE_AGAIN));
        }
        Ok((Columns { path: path.into(), size, file: Arc::new(file), metadata, names: names.clone() }, names))
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Number of rows, held against the bytes of the file for `n_columns` of them.
    fn n_rows(&self, n_columns: usize) -> Result<u64> {
        let n_rows = self.metadata.row_groups().iter().map(|group| group.num_rows() as u64).sum();
        let n_values = (n_columns.max(1) as u64).saturating_mul(n_rows);
        if n_values > self.size.saturating_mul(VALUES_PER_BYTE) {
            let problem = format!("claims {n_rows} rows, more than {} bytes are likely to hold", self.size);
            let error = Error::input(&self.path, "file", problem, "save it again without rows that are all the same");
            return Err(error.of_kind(InputKind::TooLarge));
        }
        Ok(n_rows)
    }

    /// A reader of `column` of `group`, one of `n_columns` that are read together.
    fn column(&self, group: &RowGroupMetaData, column: usize, n_columns: usize) -> Result<Column> {
        let name = &self.names[column];
        let chunk = group.column(column);
        let descriptor = chunk.column_descr_ptr();
        let kind = Kind::of(&descriptor).map_err(|what| {
            let problem = format!("holds {what}, which are neither numbers nor texts");
            let fix = "leave this column out with samples = \"a,b\" or \"x*\", or save it as numbers or texts";
            Error::input(&self.path, name, problem, fix)
        })?;
        let start = chunk.dictionary_page_offset().filter(|&at| at > 0).unwrap_or(chunk.data_page_offset());
        let (Ok(at), Ok(n_bytes)) = (u64::try_from(start), u64::try_from(chunk.compressed_size())) else {
            return Err(unreadable(&self.path, name, damaged("has no place in the file")));
        };
        let end = at.saturating_add(n_bytes);
        if end > self.size || chunk.file_path().is_some() {
            return Err(unreadable(
                &self.path,
                name,
                damaged("is cut short: it claims more values than the file holds"),
            ));
        }
        let budget = SMALL_PAGES.max(self.size.saturating_mul(MAX_TRUSTED_RATIO));
        let pages = Pages {
            file: self.file.clone(),
            at,
            end,
            compression: chunk.compression(),
            physical: descriptor.physical_type(),
            largest: budget / n_columns as u64,
            has_dictionary: false,
        };
        let most = descriptor.max_def_level();
        Ok(Column { reader: get_column_reader(descriptor, Box::new(pages)), kind, most, levels: Vec::new() })
    }
}

/// The metadata at the end of a file of `size` bytes.
fn metadata_of(path: &Path, file: &mut File, size: u64) -> Result<Vec<u8>> {
    /// "PAR1" at both ends, and the length of the metadata.
    const FRAME: u64 = 12;
    let refuse = |problem: &str, fix: &str| Err(refused(path, problem, fix));
    if size < FRAME {
        return refuse(if size == 0 { "is empty" } else { "is not a Parquet file" }, SAVE_AGAIN);
    }
    let mut last = |from_end: i64, bytes: &mut [u8]| {
        let read = file.seek(SeekFrom::End(-from_end)).and_then(|_| file.read_exact(bytes));
        read.map_err(Error::io(path, "read"))
    };
    let mut end = [0; 8];
    last(8, &mut end)?;
    let [a, b, c, d, mark @ ..] = end;
    match &mark {
        b"PAR1" => {}
        b"PARE" => return refuse("is encrypted, which is not read", "save it without encryption"),
        _ => return refuse("is not a Parquet file, or cut short", SAVE_AGAIN),
    }
    let length = u32::from_le_bytes([a, b, c, d]);
    if u64::from(length) > size - FRAME {
        return refuse("is cut short: it lacks a part of its metadata", SAVE_AGAIN);
    }
    let mut bytes = vec![0; length as usize];
    last(8 + i64::from(length), &mut bytes)?;
    Ok(bytes)
}

/// The error of a file that is damaged, or none of Parquet.
fn refused(path: &Path, problem: &str, fix: &str) -> Error {
    Error::input(path, "file", problem, fix).of_kind(InputKind::Malformed)
}

thread_local! {
    /// Whether this thread does work whose panics are errors.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// `work` of the crate `parquet`, whose panics are errors: some of its checks are assertions.
fn guarded<T>(work: impl FnOnce() -> std::result::Result<T, ParquetError>) -> std::result::Result<T, ParquetError> {
    silence_guarded_panics();
    IS_GUARDED.set(true);
    // What it leaves half-done is not used again.
    let outcome = catch_unwind(AssertUnwindSafe(work));
    IS_GUARDED.set(false);
    outcome.unwrap_or_else(|_| Err(damaged("breaks the rules of the format")))
}

/// Lets the process say nothing of panics that become errors; of all others, what it said before.
fn silence_guarded_panics() {
    static SILENCED: Once = Once::new();
    SILENCED.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                usual(panic);
            }
        }));
    });
}

/// The error of a column, or of the whole file, that cannot be read.
fn unreadable(path: &Path, name: &str, error: ParquetError) -> Error {
    let (problem, fix) = match error {
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            // The system's own, not one of a decompressor.
            Ok(error) if error.raw_os_error().is_some() => return Error::io(path, "read")(*error),
            Ok(error) => (format!("is damaged: {error}"), SAVE_AGAIN),
            Err(error) => (format!("is damaged: {error}"), SAVE_AGAIN),
        },
        ParquetError::NYI(problem) => {
            (problem, "save it with the settings that pyarrow, pandas or polars have by default")
        }
        ParquetError::General(problem) | ParquetError::EOF(problem) => (problem, SAVE_AGAIN),
        other => (format!("is damaged: {other}"), SAVE_AGAIN),
    };
    Error::input(path, name, problem, fix).of_kind(InputKind::Malformed)
}

impl Records for Columns {
    fn for_each(
        &self,
        columns: &[usize],
        meter: &mut Meter<'_>,
        visit: &mut dyn FnMut(&Record<'_>) -> Result<()>,
    ) -> Result<usize> {
        let mut wanted = columns.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let total = self.n_rows(wanted.len())?;
        let at_a_time = (BATCH / wanted.len().max(1)).max(1);
        let mut rows = Rows { at: vec![0; self.names.len()], values: vec![Vec::new(); wanted.len()], row: 0 };
        wanted.iter().enumerate().for_each(|(place, &column)| rows.at[column] = place as u32);
        let (mut n_read, mut seen) = (0, 0);
        for group in self.metadata.row_groups() {
            let open = |&column: &usize| self.column(group, column, wanted.len());
            let mut readers: Vec<Column> = wanted.iter().map(open).collect::<Result<_>>()?;
            let mut left = group.num_rows() as usize;
            while left > 0 {
                let n = left.min(at_a_time);
                for ((reader, values), &column) in readers.iter_mut().zip(&mut rows.values).zip(&wanted) {
                    guarded(|| reader.read(n, values))
                        .map_err(|error| unreadable(&self.path, &self.names[column], error))?;
                }
                for row in 0..n {
                    rows.row = row;
                    visit(&Record { place: n_read, fields: &rows })?;
                    n_read += 1;
                }
                left -= n;
                let now = (u128::from(self.size) * n_read as u128 / u128::from(total.max(1))) as u64;
                meter.advance(now - seen)?;
                seen = now;
            }
        }
        meter.advance(self.size - seen)?;
        Ok(n_read)
    }
}

/// Some rows, decoded.
struct Rows {
    /// Index into `values` of each column that is read.
    at: Vec<u32>,
    values: Vec<Vec<Value>>,
    /// The row that is looked at.
    row: usize,
}

#[derive(Clone)]
enum Value {
    /// Null, or an empty text.
    Missing,
    Single(f32),
    Double(f64),
    Whole(i128),
    Truth(bool),
    Text(ByteArray),
}

impl Rows {
    fn value(&self, column: usize) -> &Value {
        &self.values[self.at[column] as usize][self.row]
    }
}

impl Fields for Rows {
    fn field(&self, column: usize) -> Field<'_> {
        /// Integers up to here are f64 exactly: 2⁵³.
        const EXACT: u128 = 1 << 53;
        match self.value(column) {
            Value::Missing => Field::Text("".into()),
            // 7.2 in 32 bits is 7.2.
            Value::Single(x) => Field::Number(shortest_decimal(*x)),
            Value::Double(x) => Field::Number(*x),
            Value::Whole(x) if x.unsigned_abs() <= EXACT => Field::Number(*x as f64),
            Value::Whole(x) => Field::Text(x.to_string().into()),
            Value::Truth(x) => Field::Text(if *x { "True" } else { "False" }.into()),
            Value::Text(text) => Field::Text(String::from_utf8_lossy(text.data())),
        }
    }

    fn number(&self, column: usize) -> Option<f64> {
        match self.value(column) {
            Value::Single(x) => Some(f64::from(*x)),
            _ => self.field(column).number(),
        }
    }
}

/// What the values of a column are.
#[derive(Clone, Copy)]
enum Kind {
    Truth,
    Signed,
    Unsigned,
    Float,
    Half,
    Text,
}

impl Kind {
    /// # Errors
    /// What they are, if they are neither numbers nor texts.
    fn of(column: &ColumnDescriptor) -> std::result::Result<Self, String> {
        if column.max_rep_level() > 0 {
            return Err("lists".into());
        }
        let (logical, converted) = (column.logical_type_ref(), column.converted_type());
        let what = || match logical {
            Some(logical) => format!("values of type {logical:?}"),
            None if converted != ConvertedType::NONE => format!("values of type {converted}"),
            None => format!("values of type {}", column.physical_type()),
        };
        let is_unsigned = matches!(
            converted,
            ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64
        );
        match (column.physical_type(), logical) {
            (Type::BOOLEAN, None) => Ok(Kind::Truth),
            (Type::FLOAT | Type::DOUBLE, None) => Ok(Kind::Float),
            (Type::INT32 | Type::INT64, Some(LogicalType::Integer(integer))) if !integer.is_signed => {
                Ok(Kind::Unsigned)
            }
            (Type::INT32 | Type::INT64, Some(LogicalType::Integer(_) | LogicalType::Unknown)) => Ok(Kind::Signed),
            (Type::INT32 | Type::INT64, None) => match converted {
                _ if is_unsigned => Ok(Kind::Unsigned),
                ConvertedType::NONE
                | ConvertedType::INT_8
                | ConvertedType::INT_16
                | ConvertedType::INT_32
                | ConvertedType::INT_64 => Ok(Kind::Signed),
                _ => Err(what()),
            },
            (Type::BYTE_ARRAY, Some(LogicalType::String | LogicalType::Enum | LogicalType::Json)) => Ok(Kind::Text),
            (Type::BYTE_ARRAY, None) => match converted {
                ConvertedType::NONE | ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON => Ok(Kind::Text),
                _ => Err(what()),
            },
            (Type::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::Float16)) => Ok(Kind::Half),
            _ => Err(what()),
        }
    }
}

/// A column of a row group that is being read.
struct Column {
    reader: ColumnReader,
    kind: Kind,
    /// The definition level of values that are there.
    most: i16,
    levels: Vec<i16>,
}

impl Column {
    /// Puts the values of the next `n` rows into `values`.
    ///
    /// # Errors
    /// An error of the file, of its content, or that there are fewer rows.
    fn read(&mut self, n: usize, values: &mut Vec<Value>) -> std::result::Result<(), ParquetError> {
        let Column { reader, kind, most, levels } = self;
        let mut next = Next { n, most: *most, levels, values };
        let is_unsigned = matches!(kind, Kind::Unsigned);
        match reader {
            ColumnReader::BoolColumnReader(reader) => next.read(reader, Value::Truth),
            ColumnReader::Int32ColumnReader(reader) if is_unsigned => {
                next.read(reader, |x| Value::Whole((x as u32).into()))
            }
            ColumnReader::Int64ColumnReader(reader) if is_unsigned => {
                next.read(reader, |x| Value::Whole((x as u64).into()))
            }
            ColumnReader::Int32ColumnReader(reader) => next.read(reader, |x| Value::Whole(x.into())),
            ColumnReader::Int64ColumnReader(reader) => next.read(reader, |x| Value::Whole(x.into())),
            ColumnReader::FloatColumnReader(reader) => next.read(reader, Value::Single),
            ColumnReader::DoubleColumnReader(reader) => next.read(reader, Value::Double),
            ColumnReader::ByteArrayColumnReader(reader) => next.read(reader, |text| match text.data() {
                [] => Value::Missing,
                _ => Value::Text(text),
            }),
            ColumnReader::FixedLenByteArrayColumnReader(reader) => next.read(reader, |bytes| match *bytes.data() {
                [low, high] => Value::Single(f16::from_le_bytes([low, high]).into()),
                _ => Value::Missing,
            }),
            ColumnReader::Int96ColumnReader(_) => Err(damaged("holds times in an old form")),
        }
    }
}

/// The next rows of a column.
struct Next<'a> {
    n: usize,
    most: i16,
    levels: &'a mut Vec<i16>,
    values: &'a mut Vec<Value>,
}

impl Next<'_> {
    fn read<T: DataType>(
        &mut self,
        reader: &mut ColumnReaderImpl<T>,
        of: impl Fn(T::T) -> Value,
    ) -> std::result::Result<(), ParquetError> {
        let mut found = Vec::with_capacity(self.n);
        self.levels.clear();
        self.values.clear();
        let (n, _, _) = reader.read_records(self.n, Some(&mut *self.levels), None, &mut found)?;
        let mut found = found.into_iter();
        match self.most {
            0 => self.values.extend(found.map(of)),
            most => self.values.extend(self.levels.iter().map(|&level| {
                let value = if level == most { found.next() } else { None };
                value.map_or(Value::Missing, &of)
            })),
        }
        if n == self.n && self.values.len() == n { Ok(()) } else { Err(damaged("ends before its last row")) }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// In a process of its own, whose messages can be read: run with this name by the test below.
    #[test]
    #[ignore = "the child of a_panic_of_the_crate_is_an_error_and_no_message"]
    fn child_that_panics_where_it_is_guarded() {
        let outcome: std::result::Result<(), ParquetError> = guarded(|| panic!("assertion of the crate"));
        assert!(outcome.is_err_and(|error| error.to_string().contains("breaks the rules")));
        let other = catch_unwind(|| panic!("of another part"));
        assert!(other.is_err());
    }

    #[test]
    fn a_panic_of_the_crate_is_an_error_and_no_message() {
        let name = "data::parquet::tests::child_that_panics_where_it_is_guarded";
        let child = Command::new(std::env::current_exe().expect("a path"))
            .args([name, "--exact", "--ignored", "--nocapture"])
            .output()
            .expect("starts");
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{said}");
        assert!(!said.contains("assertion of the crate"), "{said}");
        assert!(said.contains("of another part"), "{said}");
    }
}
