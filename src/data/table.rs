//! A table of any format: named columns, of which some are samples, and rows that a filter admits.
//!
//! Rows are read twice, first for times, number of rows and origin, then for the samples, so that
//! memory holds the samples once.

use std::path::{Path, PathBuf};

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
use super::{csv, parquet};
use crate::error::{Error, InputKind, Result};

/// The rows of a file, in one format.
pub(super) trait Records {
    /// Calls `visit` with every row, of which only `columns` are needed; returns the number of
    /// rows. The meter has counted the whole file afterwards.
    ///
    /// # Errors
    /// [`Error::Input`] if the file is damaged; what `visit` returns.
    fn for_each(
        &self,
        columns: &[usize],
        meter: &mut Meter<'_>,
        visit: &mut dyn FnMut(&Record<'_>) -> Result<()>,
    ) -> Result<usize>;
}

/// A row of a file.
pub(super) struct Record<'a> {
    /// Its number in the file, counted as in arrays: neither blank lines nor the header line count.
    pub place: usize,
    pub fields: &'a dyn Fields,
}

/// The fields of a row.
pub(super) trait Fields {
    /// Field `column`; one without a value is an empty text.
    fn field(&self, column: usize) -> Field<'_>;

    /// The number in field `column`, to its last bit, or that its text says.
    fn number(&self, column: usize) -> Option<f64> {
        self.field(column).number()
    }
}

impl Record<'_> {
    /// The row in words.
    fn row(&self) -> String {
        format!("row {} (counted from 0)", self.place)
    }
}

/// A table on disk whose header was read.
pub(super) struct Table {
    path: PathBuf,
    size: u64,
    records: Box<dyn Records>,
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
    /// A table of text.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no header line, or the file is not UTF-8 text.
    pub fn open_text(path: &Path, encoding: Encoding) -> Result<Self> {
        let (text, names) = csv::Text::open(path, encoding)?;
        Ok(Table::new(path, text.size(), Box::new(text), names))
    }

    /// A `.parquet` file.
    ///
    /// # Errors
    /// [`Error::Input`] if it is none, or damaged.
    pub fn open_parquet(path: &Path) -> Result<Self> {
        let (columns, names) = parquet::Columns::open(path)?;
        Ok(Table::new(path, columns.size(), Box::new(columns), names))
    }

    fn new(path: &Path, size: u64, records: Box<dyn Records>, names: Vec<String>) -> Self {
        Table {
            path: path.into(),
            size,
            records,
            names: Names::new(names),
            selection: None,
            filter: Vec::new(),
            conditions: Vec::new(),
            first_pass: None,
            notices: Vec::new(),
        }
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

    fn admits(&self, record: &Record<'_>) -> bool {
        self.filter.iter().all(|(column, term)| term.admits(&record.fields.field(*column)))
    }

    /// The row of the file that is row `row` of those that the filter admits; `row` itself if the
    /// file cannot be read again.
    pub fn file_row(&self, row: usize) -> usize {
        let mut place = row;
        if !self.filter.is_empty() {
            let look = |n: usize, record: &Record<'_>| {
                if n == row {
                    place = record.place;
                }
                Ok(())
            };
            // It was read before, and is read again for a message: what is wrong now is no matter.
            let _ = self.for_each_row(&[], &mut Meter::new(&()), look);
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
        let Some(at) = self.names.find(&self.path, column)? else {
            let fix = format!("name one of its columns: {}", list(self.names.all()));
            return Err(
                Error::input(&self.path, column, "no such column to hold out by", fix).of_kind(InputKind::Missing)
            );
        };
        let (mut rows, mut others) = (Vec::new(), Vec::new());
        self.for_each_row(&[at], meter, |_, record| {
            let field = record.fields.field(at);
            let is_equal = field.is(value);
            if !is_equal && others.len() < SHOWN_VALUES {
                let text = field.text();
                if !others.iter().any(|other| *other == text) {
                    others.push(text.into_owned());
                }
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
        self.for_each_row(&[column], meter, |_, record| {
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
        self.for_each_row(&[column], meter, |_, record| {
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
    fn time(&self, texts: &mut TimeTexts, name: &str, record: &Record<'_>, column: usize) -> Result<f64> {
        match record.fields.field(column) {
            Field::Number(time) => Ok(time),
            Field::Text(text) if !text.is_empty() && !is_decimal_comma(&text) => {
                texts.number(&text).map_err(|problem| {
                    let problem = format!("{problem}, in {}", record.row());
                    Error::input(&self.path, name, problem, time_text::FIX)
                })
            }
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
        self.for_each_row(&[column], meter, |_, record| ids.push(&record.fields.field(column).text()))?;
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
        self.for_each_row(&columns, meter, |_, record| {
            for ((&column, values), name) in columns.iter().zip(&mut values).zip(conditions) {
                let field = record.fields.field(column);
                let text = field.text();
                if text.is_empty() {
                    let problem = format!("is empty in {}", record.row());
                    return Err(Error::input(&self.path, name, problem, "give a value in every row"));
                }
                values.push(&*text);
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
                self.first_pass(samples, &columns, None, meter, |_| Ok(()))?
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
        self.for_each_row(&columns, meter, |row, record| {
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
        let found = self.first_pass(samples, &columns, Some(column), meter, |record| {
            let time = self.time(&mut texts, name, record, column)?;
            if !time.is_finite() {
                let problem = format!("is {time} in {}", record.row());
                return Err(Error::input(&path, name, problem, "remove rows without a time"));
            }
            times.push(time)
        })?;
        self.first_pass = Some(found);
        self.notices.extend(texts.notice(name));
        Ok(times)
    }

    /// Counts the rows and surveys `columns`, calling `visit` with each row, of which it looks at
    /// the column `also`.
    fn first_pass(
        &self,
        samples: &str,
        columns: &[usize],
        also: Option<usize>,
        meter: &mut Meter<'_>,
        mut visit: impl FnMut(&Record<'_>) -> Result<()>,
    ) -> Result<(usize, Survey)> {
        if columns.is_empty() || columns.len() > MAX_COLUMNS {
            check_shape(&self.path, samples, 1, columns.len() as u64)?;
        }
        let mut survey = Survey::new(columns.len());
        let needed: Vec<usize> = columns.iter().copied().chain(also).collect();
        let n_rows = self.for_each_row(&needed, meter, |_, record| {
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
        let n_read = self.for_each_row(&columns, meter, |row, record| {
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
    fn finite(&self, record: &Record<'_>, column: usize) -> Result<f64> {
        let name = &self.names.all()[column];
        let x = number(&self.path, name, record, column)?;
        if (x as f32).is_finite() {
            return Ok(x);
        }
        let (problem, fix) = describe_not_finite(x);
        Err(Error::input(&self.path, name, format!("{problem} in {}", record.row()), fix))
    }

    /// Calls `visit` with the number of each row that the filter admits, and with the row, of which
    /// it looks at `columns`; returns their number.
    fn for_each_row(
        &self,
        columns: &[usize],
        meter: &mut Meter<'_>,
        mut visit: impl FnMut(usize, &Record<'_>) -> Result<()>,
    ) -> Result<usize> {
        let needed: Vec<usize> = columns.iter().copied().chain(self.filter.iter().map(|(column, _)| *column)).collect();
        meter.expect(self.size);
        let mut n_rows = 0;
        let n_read = self.records.for_each(&needed, meter, &mut |record| {
            if self.admits(record) {
                visit(n_rows, record)?;
                n_rows += 1;
            }
            Ok(())
        })?;
        if n_rows == 0 && n_read > 0 && !self.filter.is_empty() {
            let fix = "compare the columns with values that they have";
            return Err(Error::input(&self.path, "data.where", format!("admits none of {n_read} rows"), fix));
        }
        Ok(n_rows)
    }
}

/// Field `column` of `record`, whose column is called `name`.
fn number(path: &Path, name: &str, record: &Record<'_>, column: usize) -> Result<f64> {
    record.fields.number(column).ok_or_else(|| {
        const SHOWN: usize = 40;
        let field = record.fields.field(column);
        let text: String = field.text().chars().take(SHOWN).collect();
        let row = record.row();
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
