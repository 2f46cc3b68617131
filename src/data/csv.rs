//! Tables (`.csv`, `.tsv`, both also `.gz`): a header line of column names, then one row of numbers
//! per sample.
//!
//! The file is read twice, first for times, number of rows and origin, then for the samples, so
//! that memory holds the samples once. The rest takes a few times the size of the header line and
//! of one row.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use csv::{ByteRecord, Position, Reader, ReaderBuilder, Trim};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::array::{MAX_COLUMNS, Meter, Rows, check_shape, describe_not_finite, list};
use super::columns::{Names, Selection};
use super::conditions::{ConditionColumn, MAX_GROUPS, too_many};
use super::distinct::Distinct;
use super::file::{Encoding, Features, SHOWN_VALUES, refuse_too_small};
use super::grouping::RowTimes;
use super::hold_out::SplitValue;
use super::ids::Ids;
use super::row_filter::{Field, RowFilter, Term};
use super::source::DEFAULT_TIMES;
use super::survey::Survey;
use super::time_text::{self, TimeTexts};
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

/// A table on disk whose header was read.
pub(super) struct Table {
    path: PathBuf,
    encoding: Encoding,
    size: u64,
    delimiter: u8,
    names: Names,
    selection: Option<Selection>,
    /// The rows that are read: columns and the terms about them; all if empty.
    filter: Vec<(usize, Term)>,
    /// Names of columns that are conditions, no samples.
    conditions: Vec<String>,
    /// Result of the first pass over the file.
    first_pass: Option<(usize, Survey)>,
    /// What was guessed.
    notices: Vec<String>,
}

impl Table {
    /// # Errors
    /// [`Error::Input`] if there is no header line, or the file is not UTF-8 text.
    pub fn open(path: &Path, encoding: Encoding) -> Result<Self> {
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
        let delimiter = delimiter_of(&start);
        let mut table = Table {
            path: path.into(),
            encoding,
            size,
            delimiter,
            names: Names::default(),
            selection: None,
            filter: Vec::new(),
            conditions: Vec::new(),
            first_pass: None,
            notices: Vec::new(),
        };
        let mut reader = table.reader()?;
        let header = reader.csv.byte_headers().map_err(|e| csv_error(path, e))?;
        let columns: Vec<String> = header.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        if columns.is_empty() {
            return refuse("is missing: the file is empty", "give a line of column names, then one row per sample");
        }
        if columns.iter().all(|name| name.parse::<f64>().is_ok()) {
            return refuse("is missing: the first line holds numbers", "name the columns in it, as in times,x1,x2");
        }
        table.names = Names::new(columns);
        Ok(table)
    }

    /// Names of the columns.
    pub fn names(&self) -> &[String] {
        self.names.all()
    }

    /// The column that `times` names; by the default name, if no column has it, one whose name
    /// likely means times.
    pub fn times_column<'a>(&'a self, times: &'a str) -> &'a str {
        const LIKELY: [&str; 6] = ["time", "t", "day", "days", "timepoint", "time_point"];
        let all = self.names.all();
        if times != DEFAULT_TIMES || all.iter().any(|name| name == times) {
            return times;
        }
        let is_likely = |name: &&String| LIKELY.contains(&name.to_lowercase().as_str());
        all.iter().find(is_likely).map_or(times, String::as_str)
    }

    /// What was guessed since the last call, one sentence each.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Reads only the rows that `filter` admits.
    ///
    /// # Errors
    /// [`Error::Input`] if it names a column that is not there.
    pub fn keep_only(&mut self, filter: &RowFilter) -> Result<()> {
        for term in filter.terms() {
            let Some(place) = self.names.find(&self.path, &term.column)? else {
                let fix = format!("name one of its columns: {}", list(self.names.all()));
                return Err(Error::input(&self.path, &term.column, "no such column for data.where", fix)
                    .of_kind(InputKind::Missing));
            };
            self.filter.push((place, term.clone()));
        }
        Ok(())
    }

    fn admits(&self, record: &ByteRecord) -> bool {
        self.filter.iter().all(|(place, term)| {
            let field = String::from_utf8_lossy(record.get(*place).unwrap_or_default());
            term.admits(&Field::Text(&field))
        })
    }

    /// The row of the file that is row `row` of those that the filter admits; `row` itself if the
    /// file cannot be read again.
    pub fn file_row(&self, row: usize) -> usize {
        let mut place = row;
        if !self.filter.is_empty() {
            let look = |n: usize, record: &ByteRecord| {
                if n == row {
                    place = place_of(record.position());
                }
                Ok(())
            };
            // It was read before, and is read again for a message: what is wrong now is no matter.
            let _ = self.for_each_row(&mut Meter::new(&()), look);
        }
        place
    }

    /// Leaves `column` out of what patterns and the default name of the samples select.
    pub fn leave_out(&mut self, column: &str) {
        self.names.leave_out(column);
    }

    /// Which rows have `value` in `column`, and what others have there: the first few values.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such column.
    pub fn rows_with(
        &self,
        column: &str,
        value: &SplitValue,
        meter: &mut Meter<'_>,
    ) -> Result<(Vec<bool>, Vec<String>)> {
        let Some(place) = self.names.find(&self.path, column)? else {
            let fix = format!("name one of its columns: {}", list(self.names.all()));
            return Err(
                Error::input(&self.path, column, "no such column to hold out by", fix).of_kind(InputKind::Missing)
            );
        };
        let (mut rows, mut others) = (Vec::new(), Vec::new());
        self.for_each_row(meter, |_, record| {
            let field = String::from_utf8_lossy(record.get(place).unwrap_or_default());
            let is_equal = Field::Text(&field).is(value);
            if !is_equal && others.len() < SHOWN_VALUES && !others.iter().any(|other| *other == field) {
                others.push(field.into_owned());
            }
            rows.push(is_equal);
            Ok(())
        })?;
        Ok((rows, others))
    }

    /// The column `name`, a number in each row; `what` it holds is for messages, and its key.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such column, or a field is no number.
    pub fn values(&self, name: &str, what: &str, meter: &mut Meter<'_>) -> Result<Vec<f64>> {
        let Some(column) = self.names.find(&self.path, name)? else {
            let fix = format!("set data.{what} to one of its columns: {}", list(self.names.all()));
            return Err(
                Error::input(&self.path, name, format!("no such column of {what}"), fix).of_kind(InputKind::Missing)
            );
        };
        let mut values = Vec::new();
        self.for_each_row(meter, |_, record| {
            values.push(number(&self.path, name, record, column)?);
            Ok(())
        })?;
        Ok(values)
    }

    /// The column `times`, the time of each row.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such column, or a field is no time.
    pub fn row_times(&self, times: &str, meter: &mut Meter<'_>) -> Result<Vec<f64>> {
        let name = self.times_column(times);
        let column = self.column_of_times(name)?;
        let (mut values, mut texts) = (Vec::new(), TimeTexts::default());
        self.for_each_row(meter, |_, record| {
            values.push(self.time(&mut texts, name, record, column)?);
            Ok(())
        })?;
        Ok(values)
    }

    fn column_of_times(&self, name: &str) -> Result<usize> {
        self.names.find(&self.path, name)?.ok_or_else(|| {
            let fix = format!("set data.times to one of its columns: {}", list(self.names.all()));
            Error::input(&self.path, name, "no such column of times", fix).of_kind(InputKind::Missing)
        })
    }

    /// Field `column` of `record` as a time: a number, or a text with a number in it.
    fn time(&self, texts: &mut TimeTexts, name: &str, record: &ByteRecord, column: usize) -> Result<f64> {
        match std::str::from_utf8(record.get(column).unwrap_or_default()) {
            Ok(text) if !text.is_empty() && !is_decimal_comma(text) => texts.number(text).map_err(|problem| {
                let problem = format!("{problem}, in {}", row_at(record.position()));
                Error::input(&self.path, name, problem, time_text::FIX)
            }),
            _ => number(&self.path, name, record, column),
        }
    }

    /// True if there is a column `name`.
    pub fn has_column(&self, name: &str) -> bool {
        self.names.all().iter().any(|known| known == name)
    }

    /// True if `samples` selects columns beside the `times`.
    pub fn has_samples(&self, samples: &str, times: &str) -> bool {
        self.select(samples, times).is_ok_and(|selection| !selection.columns.is_empty())
    }

    /// Names of the `n_rows` rows, if a column likely holds them.
    ///
    /// # Errors
    /// [`Error::Input`] if one is too long, or the file has changed.
    pub fn ids(&self, n_rows: usize, meter: &mut Meter<'_>) -> Result<Option<Vec<String>>> {
        let Some(column) = self.names.ids() else { return Ok(None) };
        let mut ids = Ids::new(&self.path, &self.names.all()[column], self.size);
        self.for_each_row(meter, |_, record| {
            ids.push(&String::from_utf8_lossy(record.get(column).unwrap_or_default()))
        })?;
        ids.finish(n_rows).map(Some)
    }

    /// The columns that `samples` selects.
    fn selection(&mut self, samples: &str, times: &str) -> Result<&Selection> {
        let selection = match self.selection.take() {
            Some(selection) => selection,
            None => self.select(samples, times)?,
        };
        Ok(self.selection.insert(selection))
    }

    fn select(&self, samples: &str, times: &str) -> Result<Selection> {
        let mut selection = self.names.select(&self.path, samples, self.times_column(times))?;
        let is_condition = |column: &usize| self.conditions.contains(&self.names.all()[*column]);
        if let Some(column) = selection.columns.iter().find(|column| selection.is_named && is_condition(column)) {
            let (problem, fix) = ("is a sample and a condition", "take it out of data.samples or of data.conditions");
            return Err(Error::input(&self.path, &self.names.all()[*column], problem, fix).of_kind(InputKind::Conflict));
        }
        selection.columns.retain(|column| !is_condition(column));
        Ok(selection)
    }

    /// Takes the columns `conditions` out of the samples.
    pub fn without_conditions(&mut self, conditions: &[String]) {
        self.conditions = conditions.to_vec();
    }

    /// The columns `conditions`: numbers, or words where a field is no number.
    ///
    /// # Errors
    /// [`Error::Input`] naming a column that is missing or holds too many distinct values, and the
    /// row of a field that is empty.
    pub fn conditions(&self, conditions: &[String], meter: &mut Meter<'_>) -> Result<Vec<ConditionColumn>> {
        let column = |name: &String| {
            self.names.find(&self.path, name)?.ok_or_else(|| {
                let fix = format!("set data.conditions to some of its columns: {}", list(self.names.all()));
                Error::input(&self.path, name, "no such column of conditions", fix).of_kind(InputKind::Missing)
            })
        };
        let columns: Vec<usize> = conditions.iter().map(column).collect::<Result<_>>()?;
        let mut values: Vec<Distinct<String>> = conditions.iter().map(|_| Distinct::default()).collect();
        self.for_each_row(meter, |_, record| {
            for ((&column, values), name) in columns.iter().zip(&mut values).zip(conditions) {
                let field = record.get(column).unwrap_or_default();
                if field.is_empty() {
                    let problem = format!("is empty in {}", row_at(record.position()));
                    return Err(Error::input(&self.path, name, problem, "give a value in every row"));
                }
                values.push(&*String::from_utf8_lossy(field));
                if values.values.len() > MAX_GROUPS {
                    return Err(too_many(&self.path, name));
                }
            }
            Ok(())
        })?;
        let columns = conditions.iter().zip(values);
        columns.map(|(name, values)| ConditionColumn::of_texts(&self.path, name.clone(), values)).collect()
    }

    /// (rows, columns) of `samples`.
    ///
    /// # Errors
    /// As [`Self::read_rows`].
    pub fn shape(&mut self, samples: &str, times: &str, meter: &mut Meter<'_>) -> Result<(usize, usize)> {
        let dim = self.selection(samples, times)?.columns.len();
        let n_rows = self.survey(samples, times, meter)?.0;
        check_shape(&self.path, samples, n_rows as u64, dim as u64)
    }

    /// Number of columns that `samples` selects.
    pub fn n_columns(&mut self, samples: &str, times: &str) -> Result<usize> {
        Ok(self.selection(samples, times)?.columns.len())
    }

    /// Result of the first pass over the sample columns, and the number of rows.
    fn survey(&mut self, samples: &str, times: &str, meter: &mut Meter<'_>) -> Result<&(usize, Survey)> {
        let found = match self.first_pass.take() {
            Some(found) => found,
            None => {
                let columns = self.selection(samples, times)?.columns.clone();
                self.first_pass(samples, &columns, meter, |_| Ok(()))?
            }
        };
        Ok(self.first_pass.insert(found))
    }

    /// Properties of `samples` that are needed before they are read as f32.
    pub fn features(&mut self, samples: &str, times: &str, meter: &mut Meter<'_>) -> Result<Features> {
        let (_, survey) = self.survey(samples, times, meter)?;
        let (origin, counting, too_small) = (survey.origin(), survey.counting(), survey.too_small());
        refuse_too_small(&self.path, samples, too_small)?;
        let selection = self.selection(samples, times)?;
        let (columns, warnings) = (selection.columns.clone(), selection.warnings.clone());
        let counting = Some(if selection.is_named { Vec::new() } else { counting });
        let names = columns.iter().map(|&column| self.names.all()[column].clone()).collect();
        Ok(Features { epsilon: f64::EPSILON, origin, counting, columns: Some(names), warnings })
    }

    /// The origin of those rows of `samples` that `wanted` selects: [`Features::origin`].
    pub fn origin_of(
        &mut self,
        samples: &str,
        times: &str,
        wanted: impl Fn(usize) -> bool,
        meter: &mut Meter<'_>,
    ) -> Result<Vec<f64>> {
        let columns = self.selection(samples, times)?.columns.clone();
        let mut survey = Survey::new(columns.len());
        self.for_each_row(meter, |row, record| {
            let seen = columns.iter().enumerate().filter(|_| wanted(row));
            seen.into_iter().try_for_each(|(i, &column)| {
                survey.see(i, self.finite(record, column)?);
                Ok(())
            })
        })?;
        Ok(survey.origin())
    }

    /// The column `times` as finite times. This is also the first pass over `samples`.
    ///
    /// # Errors
    /// [`Error::Input`] naming the row of a field that is not a time, or not a sample.
    pub fn times(&mut self, samples: &str, name: &str, meter: &mut Meter<'_>) -> Result<RowTimes> {
        let path = self.path.clone();
        let guess = self.times_column(name).to_owned();
        if guess != name && self.notices.is_empty() {
            self.notices.push(format!("{name} are the column {guess}, as nothing else is said"));
        }
        let name = guess.as_str();
        let column = self.column_of_times(name)?;
        let columns = self.selection(samples, name)?.columns.clone();
        let (mut times, mut texts) = (RowTimes::new(&path, name, 0)?, TimeTexts::default());
        let found = self.first_pass(samples, &columns, meter, |record| {
            let time = self.time(&mut texts, name, record, column)?;
            if !time.is_finite() {
                let problem = format!("is {time} in {}", row_at(record.position()));
                return Err(Error::input(&path, name, problem, "remove rows without a time"));
            }
            times.push(time)
        })?;
        self.first_pass = Some(found);
        self.notices.extend(texts.notice(name));
        Ok(times)
    }

    /// Counts the rows and surveys `columns`, calling `visit` with each row.
    fn first_pass(
        &self,
        samples: &str,
        columns: &[usize],
        meter: &mut Meter<'_>,
        mut visit: impl FnMut(&ByteRecord) -> Result<()>,
    ) -> Result<(usize, Survey)> {
        if columns.is_empty() || columns.len() > MAX_COLUMNS {
            check_shape(&self.path, samples, 1, columns.len() as u64)?;
        }
        let mut survey = Survey::new(columns.len());
        let n_rows = self.for_each_row(meter, |_, record| {
            visit(record)?;
            columns.iter().enumerate().try_for_each(|(i, &column)| {
                survey.see(i, self.finite(record, column)?);
                Ok(())
            })
        })?;
        Ok((n_rows, survey))
    }

    /// Reads the sample columns into `rows`.
    ///
    /// # Errors
    /// [`Error::Input`] naming row and column of a field that is not a number in f32's range.
    pub fn read_rows(&mut self, samples: &str, times: &str, rows: &mut Rows<'_>, meter: &mut Meter<'_>) -> Result<()> {
        let columns = self.selection(samples, times)?.columns.clone();
        let changed =
            || Error::input(&self.path, samples, "changed while it was read", "read it when nothing writes to it");
        let (n_rows, origin) = (rows.len(), rows.origin());
        let n_read = self.for_each_row(meter, |row, record| {
            if row >= n_rows {
                return Err(changed());
            }
            let places = rows.row_mut(row).iter_mut().zip(origin);
            places.zip(&columns).try_for_each(|((place, origin), &column)| {
                *place = (self.finite(record, column)? - origin) as f32;
                Ok(())
            })
        })?;
        if n_read == n_rows { Ok(()) } else { Err(changed()) }
    }

    /// Field `column` of `record`, finite in f32.
    fn finite(&self, record: &ByteRecord, column: usize) -> Result<f64> {
        let name = &self.names.all()[column];
        let x = number(&self.path, name, record, column)?;
        if (x as f32).is_finite() {
            return Ok(x);
        }
        let (problem, fix) = describe_not_finite(x);
        Err(Error::input(&self.path, name, format!("{problem} in {}", row_at(record.position())), fix))
    }

    /// Calls `visit` with the number and the fields of each row that the filter admits; returns
    /// their number.
    fn for_each_row(
        &self,
        meter: &mut Meter<'_>,
        mut visit: impl FnMut(usize, &ByteRecord) -> Result<()>,
    ) -> Result<usize> {
        /// Rows between looks at the watch.
        const INTERVAL: usize = 256;
        let OpenTable { mut csv, consumed, line_left } = self.reader()?;
        let max_line = line_left.get();
        meter.expect(self.size);
        let mut record = ByteRecord::new();
        let (mut n_rows, mut n_read, mut seen) = (0, 0, 0);
        while csv.read_byte_record(&mut record).map_err(|e| csv_error(&self.path, e))? {
            line_left.set(max_line);
            if self.admits(&record) {
                visit(n_rows, &record)?;
                n_rows += 1;
            }
            n_read += 1;
            if n_read % INTERVAL == 0 {
                let now = consumed.get();
                meter.advance(now - seen)?;
                seen = now;
            }
        }
        meter.advance(self.size.saturating_sub(seen))?;
        if n_rows == 0 && n_read > 0 && !self.filter.is_empty() {
            let fix = "compare the columns with values that they have";
            return Err(Error::input(&self.path, "data.where", format!("admits none of {n_read} rows"), fix));
        }
        Ok(n_rows)
    }

    fn reader(&self) -> Result<OpenTable> {
        let Source { reader, consumed, line_left } = Source::open(&self.path, self.encoding)?;
        let mut builder = ReaderBuilder::new();
        builder.delimiter(self.delimiter).trim(Trim::All).buffer_capacity(BLOCK_BYTES);
        Ok(OpenTable { csv: builder.from_reader(reader), consumed, line_left })
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

/// The row of the file at `position`, counted as in arrays: neither blank lines nor the header line
/// count.
fn place_of(position: Option<&Position>) -> usize {
    position.map_or(0, |position| position.record().saturating_sub(1) as usize)
}

/// [`place_of`] in words.
fn row_at(position: Option<&Position>) -> String {
    format!("row {} (counted from 0)", place_of(position))
}

/// Field `column` of `record`, whose column is called `name`.
fn number(path: &Path, name: &str, record: &ByteRecord, column: usize) -> Result<f64> {
    let field = record.get(column).unwrap_or_default();
    let parsed = std::str::from_utf8(field).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| {
        const SHOWN: usize = 40;
        let text = String::from_utf8_lossy(&field[..field.len().min(SHOWN)]);
        let row = row_at(record.position());
        let fix = "give a number, or leave this column out with samples = \"a,b\" or \"x*\"";
        match &*text {
            "" => Error::input(path, name, format!("is empty in {row}"), fix),
            text if is_decimal_comma(text) => {
                let problem = format!("is {text:?} in {row}: a decimal comma");
                Error::input(path, name, problem, "write numbers with a decimal point")
            }
            text => Error::input(path, name, format!("is {text:?}, not a number, in {row}"), fix),
        }
    })
}

/// True for a number whose decimals follow a comma.
fn is_decimal_comma(text: &str) -> bool {
    text.contains(',') && text.replacen(',', ".", 1).parse::<f64>().is_ok()
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
            Error::input(path, row_at(pos.as_ref()), problem, "give every row one field per column")
                .of_kind(InputKind::Malformed)
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
