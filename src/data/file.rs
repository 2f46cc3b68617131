//! An open data file of any format; the suffix determines the format.

use std::path::{Path, PathBuf};

use super::anndata::AnnData;
use super::array::{Array, Meter, Rows, list};
use super::conditions::ConditionColumn;
use super::grouping::RowTimes;
use super::hold_out::{SplitColumn, SplitValue};
use super::ids::IDS;
use super::npy;
use super::npz::Archive;
use super::row_filter::RowFilter;
use super::safetensors::Tensors;
use super::table::Table;
use crate::destination::Destination;
use crate::error::{Error, InputKind, Result};

/// The bytes of a table's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Gzip,
}

/// The formats read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Npy,
    Npz,
    /// Text. The separator is for writing; when reading, the header line determines it.
    Table {
        delimiter: u8,
        encoding: Encoding,
    },
    Safetensors,
    H5ad,
    /// Only read.
    Parquet,
}

impl Format {
    /// The format in which `to` is written: that of its suffix. A pipe or device without a suffix
    /// gets a table.
    ///
    /// # Errors
    /// As [`Format::of`]; also for a format that is only read.
    pub fn of_destination(to: &Destination) -> Result<Self> {
        let format = if to.is_stream() && to.path().extension().is_none() {
            Format::Table { delimiter: b',', encoding: Encoding::Plain }
        } else {
            Format::by_suffix(to.path())?
        };
        if format == Format::Parquet {
            return Err(only_read(to.path()));
        }
        format.check_is_built(to.path())
    }

    /// The format of `path` by its suffix, in upper or lower case.
    ///
    /// # Errors
    /// [`Error::Input`] listing the suffixes, or naming the feature that the build lacks.
    pub fn of(path: &Path) -> Result<Self> {
        Format::by_suffix(path)?.check_is_built(path)
    }

    fn by_suffix(path: &Path) -> Result<Self> {
        let suffix_of = |path: &Path| path.extension().map(|suffix| suffix.to_string_lossy().to_lowercase());
        let suffix = suffix_of(path);
        let encoding = if suffix.as_deref() == Some("gz") { Encoding::Gzip } else { Encoding::Plain };
        let inner = match encoding {
            Encoding::Gzip => suffix_of(&path.with_extension("")),
            Encoding::Plain => suffix.clone(),
        };
        Ok(match (inner.as_deref(), encoding) {
            (Some("npy"), Encoding::Plain) => Format::Npy,
            (Some("npz"), Encoding::Plain) => Format::Npz,
            (Some("csv"), _) => Format::Table { delimiter: b',', encoding },
            (Some("tsv"), _) => Format::Table { delimiter: b'\t', encoding },
            (Some("safetensors"), Encoding::Plain) => Format::Safetensors,
            (Some("h5ad"), Encoding::Plain) => Format::H5ad,
            (Some("parquet"), Encoding::Plain) => Format::Parquet,
            _ => {
                let problem = match (suffix, inner) {
                    (None, _) => "has no suffix".into(),
                    (Some(suffix), Some(inner)) if encoding == Encoding::Gzip => {
                        format!("has the unknown suffix .{inner}.{suffix}")
                    }
                    (Some(suffix), _) => format!("has the unknown suffix .{suffix}"),
                };
                let fix =
                    "use a file that ends in .npz, .npy, .csv, .tsv, .csv.gz, .tsv.gz, .parquet, .safetensors or .h5ad";
                return Err(Error::input(path, "path", problem, fix));
            }
        })
    }

    /// This format, if the build reads and writes it.
    ///
    /// # Errors
    /// [`Error::Input`] about `path` that names the feature to build with.
    fn check_is_built(self, path: &Path) -> Result<Self> {
        match self {
            Format::Npz | Format::Table { .. } if cfg!(not(feature = "files")) => Err(no_files(path)),
            Format::H5ad if cfg!(not(feature = "h5ad")) => Err(no_h5ad(path)),
            Format::Parquet if cfg!(not(feature = "parquet")) => Err(no_parquet(path)),
            _ => Ok(self),
        }
    }

    /// True for tables, whose times are a column.
    pub fn is_table(self) -> bool {
        matches!(self, Format::Table { .. } | Format::Parquet)
    }
}

/// Whether the suffix of `path` is that of data.
#[cfg(feature = "files")]
pub(crate) fn names_data(path: &Path) -> bool {
    Format::by_suffix(path).is_ok()
}

/// The error for a file whose format needs the feature `files`, in a build without it.
pub(super) fn no_files(path: &Path) -> Error {
    let problem = "is a .npz file or a table, and this build of action-matching reads and writes neither";
    Error::input(path, "path", problem, "build it with the feature `files`, or use .npy or .safetensors")
}

/// The error for a `.h5ad` file in a build that does not read it.
pub(super) fn no_h5ad(path: &Path) -> Error {
    let problem = "is a .h5ad file, which this build of action-matching does not read";
    Error::input(path, "path", problem, "build it with the feature `h5ad`, or save obsm and times as .npz")
}

/// The error for a `.parquet` file in a build that does not read it.
pub(super) fn no_parquet(path: &Path) -> Error {
    let problem = "is a .parquet file, which this build of action-matching does not read";
    Error::input(path, "path", problem, "build it with the feature `parquet`, or save the table as .csv.gz")
}

/// The error for a `.parquet` file that is to be written.
pub(super) fn only_read(path: &Path) -> Error {
    let problem = "would be a .parquet file, which is read but not written";
    Error::input(
        path,
        "path",
        problem,
        "write .csv.gz, .npz or .h5ad; pandas.read_csv(\"….csv.gz\").to_parquet(…) turns it into one",
    )
}

/// An open data file.
pub(super) enum DataFile {
    Arrays(ArrayFile),
    Table(Table),
}

/// An open file of named arrays.
pub(super) enum ArrayFile {
    /// One array, which answers to any name.
    Npy(PathBuf),
    Npz(Archive),
    Safetensors(Tensors),
    H5ad(Box<AnnData>),
}

impl ArrayFile {
    /// The array `name`, with its header read and its size checked.
    pub fn array(&mut self, name: &str) -> Result<Array<'_>> {
        match self {
            ArrayFile::Npy(path) => npy::open(path, name),
            ArrayFile::Npz(archive) => archive.array(name),
            ArrayFile::Safetensors(tensors) => tensors.array(name),
            ArrayFile::H5ad(cells) => cells.array(name),
        }
    }

    /// True if there is an array `name`.
    fn has(&mut self, name: &str) -> bool {
        match self {
            ArrayFile::Npy(_) => true,
            ArrayFile::Npz(archive) => archive.names().iter().any(|known| known == name),
            ArrayFile::Safetensors(tensors) => tensors.names().iter().any(|known| known == name),
            ArrayFile::H5ad(cells) => cells.has(name),
        }
    }

    /// The array of the condition `wanted`, and its column there if that is not all of it: a model
    /// calls the columns of an array `dose [N, m]` `dose_0`, `dose_1`, ….
    fn place_of_condition<'n>(&self, wanted: &'n str) -> (&'n str, Option<usize>) {
        let names = match self {
            ArrayFile::Npz(archive) => archive.names(),
            ArrayFile::Safetensors(tensors) => tensors.names(),
            ArrayFile::Npy(_) | ArrayFile::H5ad(_) => Vec::new(),
        };
        let has = |name: &str| names.iter().any(|known| known == name);
        let numbered = wanted.rsplit_once('_').and_then(|(array, column)| Some((array, column.parse().ok()?)));
        match numbered {
            Some((array, column)) if !has(wanted) && has(array) => (array, Some(column)),
            _ => (wanted, None),
        }
    }
}

impl DataFile {
    /// # Errors
    /// [`Error::Input`] for a wrong suffix, a missing file, or one that is not of its format.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(match Format::of(path)? {
            Format::Npy => DataFile::Arrays(ArrayFile::Npy(path.into())),
            Format::Npz => DataFile::Arrays(ArrayFile::Npz(Archive::open(path)?)),
            Format::Safetensors => DataFile::Arrays(ArrayFile::Safetensors(Tensors::open(path)?)),
            Format::H5ad => DataFile::Arrays(ArrayFile::H5ad(Box::new(AnnData::open(path)?))),
            Format::Table { encoding, .. } => DataFile::Table(Table::open_text(path, encoding)?),
            Format::Parquet => DataFile::Table(Table::open_parquet(path)?),
        })
    }

    /// Reads only the rows that `filter` admits.
    ///
    /// # Errors
    /// [`Error::Input`] if the file has no columns to filter by, or no row passes.
    pub fn keep_only(&mut self, path: &Path, filter: &RowFilter) -> Result<()> {
        match self {
            DataFile::Arrays(ArrayFile::H5ad(cells)) => cells.keep_only(filter),
            DataFile::Table(table) => table.keep_only(filter),
            DataFile::Arrays(_) => {
                let fix = "give the data as a table or .h5ad, or leave data.where out";
                Err(Error::input(path, "data.where", "needs columns, and this file holds arrays", fix))
            }
        }
    }

    /// The row of the file that is row `row` of those that are read, for messages.
    pub fn file_row(&self, row: usize) -> usize {
        match self {
            DataFile::Arrays(ArrayFile::H5ad(cells)) => cells.file_row(row),
            DataFile::Arrays(_) => row,
            DataFile::Table(table) => table.file_row(row),
        }
    }

    /// Takes the first `count` columns of `samples`, which are components already.
    ///
    /// # Errors
    /// [`Error::Input`] if they are not, or there are fewer.
    pub fn take_first(&mut self, path: &Path, samples: &str, count: usize) -> Result<()> {
        match self {
            DataFile::Arrays(ArrayFile::H5ad(cells)) => cells.take_first(samples, count),
            _ => {
                let fix = "name an array of obsm in a .h5ad, or let components be fitted";
                Err(Error::input(path, samples, "has no columns in the order of their importance", fix))
            }
        }
    }

    /// What was guessed about the content, one sentence each.
    pub fn take_notices(&mut self) -> Vec<String> {
        match self {
            DataFile::Arrays(ArrayFile::H5ad(cells)) => cells.take_notices(),
            DataFile::Arrays(_) => Vec::new(),
            DataFile::Table(table) => table.take_notices(),
        }
    }

    /// Takes the columns `conditions` of a table out of the samples.
    pub fn without_conditions(&mut self, conditions: &[String]) {
        if let DataFile::Table(table) = self {
            table.without_conditions(conditions);
        }
    }

    /// The values of `conditions` in every row, in the order of the names.
    pub fn conditions(&mut self, conditions: &[String], meter: &mut Meter<'_>) -> Result<Vec<ConditionColumn>> {
        let file = match self {
            DataFile::Arrays(ArrayFile::H5ad(cells)) => return cells.conditions(conditions),
            DataFile::Arrays(file) => file,
            DataFile::Table(table) => return table.conditions(conditions, meter),
        };
        let mut columns = Vec::new();
        for wanted in conditions {
            let (name, column) = file.place_of_condition(wanted);
            let mut array = file.array(name)?;
            let n_bytes = array.header.n_bytes().unwrap_or(0);
            meter.expect(n_bytes);
            if array.is_suspicious() {
                meter.expect(n_bytes);
                array.verify(meter)?;
                array = file.array(name)?;
            }
            let path = array.file;
            let mut found = array.read_conditions(meter)?;
            match column {
                None => columns.extend(found),
                Some(column) if column < found.len() => columns.push(found.swap_remove(column)),
                Some(_) => {
                    let problem = format!("has no column for the condition {wanted}: it has {}", found.len());
                    let fix = format!("give an array {wanted}, or as many columns as the model has conditions");
                    return Err(Error::input(path, name, problem, fix).of_kind(InputKind::Missing));
                }
            }
        }
        Ok(columns)
    }

    /// (rows, columns) of the array `samples`, within their limits. `times` is the name of the
    /// times, which are not among the samples of a table.
    pub fn shape(&mut self, samples: &str, times: &str, meter: &mut Meter<'_>) -> Result<(usize, usize)> {
        match self {
            DataFile::Arrays(file) => file.array(samples)?.matrix_shape(),
            DataFile::Table(table) => table.shape(samples, times, meter),
        }
    }

    /// Number of columns of `samples`, if that can be told before anything is read: what is wrong
    /// is reported later.
    pub fn n_columns(&mut self, samples: &str, times: &str) -> Option<usize> {
        match self {
            DataFile::Arrays(file) => Some(file.array(samples).ok()?.matrix_shape().ok()?.1),
            DataFile::Table(table) => table.n_columns(samples, times).ok(),
        }
    }

    /// The array `times`, one finite time per row. In a table this also surveys `samples`.
    pub fn times(&mut self, samples: &str, times: &str, meter: &mut Meter<'_>) -> Result<RowTimes> {
        match self {
            DataFile::Arrays(file) => {
                let mut array = file.array(times)?;
                let n_bytes = array.header.n_bytes().unwrap_or(0);
                meter.expect(n_bytes);
                if array.is_suspicious() {
                    // An array that is too wide is refused below.
                    meter.expect(n_bytes);
                    array.verify(meter)?;
                    array = file.array(times)?;
                }
                array.read_times(meter)
            }
            DataFile::Table(table) => table.times(samples, times, meter),
        }
    }

    /// True if there are times called `times`.
    pub fn has_times(&mut self, times: &str) -> bool {
        match self {
            DataFile::Arrays(file) => file.has(times),
            DataFile::Table(table) => table.has_column(table.times_column(times)),
        }
    }

    /// True if there are samples called `samples`, beside the `times`.
    pub fn has_samples(&mut self, samples: &str, times: &str) -> bool {
        match self {
            DataFile::Arrays(file) => file.has(samples),
            DataFile::Table(table) => table.has_samples(samples, times),
        }
    }

    /// True if there is a column or array `name` with a value of each row.
    pub fn has_values(&mut self, name: &str) -> bool {
        match self {
            DataFile::Arrays(file) => file.has(name),
            DataFile::Table(table) => table.has_column(name),
        }
    }

    /// The same, but not of a `.npy`, whose array answers to any name.
    pub fn has_column(&mut self, name: &str) -> bool {
        !matches!(self, DataFile::Arrays(ArrayFile::Npy(_))) && self.has_values(name)
    }

    /// Names of the `n_rows` rows that are read, if the file has any.
    ///
    /// # Errors
    /// [`Error::Input`] if there are more or fewer, or the file is damaged.
    pub fn ids(&mut self, n_rows: usize, meter: &mut Meter<'_>) -> Result<Option<Vec<String>>> {
        match self {
            DataFile::Arrays(ArrayFile::H5ad(cells)) => cells.ids(n_rows).map(Some),
            DataFile::Arrays(ArrayFile::Npz(archive)) if archive.names().iter().any(|name| name == IDS) => {
                npy::texts(archive.array(IDS)?, n_rows, meter)
            }
            DataFile::Arrays(_) => Ok(None),
            DataFile::Table(table) => table.ids(n_rows, meter),
        }
    }

    /// Leaves the column `name` of a table out of what patterns and the default name select.
    pub fn leave_out(&mut self, name: &str) {
        match self {
            DataFile::Arrays(_) => {}
            DataFile::Table(table) => table.leave_out(name),
        }
    }

    /// Which of the `n_rows` rows have the value of `split` in its column or array.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such column or array, it has another length, or no row has
    /// the value, or all have.
    pub fn rows_with(
        &mut self,
        path: &Path,
        split: &SplitColumn,
        n_rows: usize,
        meter: &mut Meter<'_>,
    ) -> Result<Vec<bool>> {
        let SplitColumn { column, value } = split;
        let (rows, others) = match self {
            DataFile::Arrays(ArrayFile::Npy(_)) => {
                let fix = "put samples, times and this array into one .npz";
                return Err(Error::input(path, column, "is no array of a .npy file, which holds one", fix));
            }
            DataFile::Arrays(ArrayFile::H5ad(cells)) => cells.rows_with(column, value)?,
            DataFile::Arrays(file) => {
                let SplitValue::Number(value) = *value else {
                    let fix = "give a number, or the data as a table";
                    return Err(Error::input(
                        path,
                        column,
                        format!("is an array, which holds no text such as {value}"),
                        fix,
                    ));
                };
                let array = file.array(column)?;
                let shape = array.matrix_shape()?;
                if shape != (n_rows, 1) {
                    let problem = format!("has shape [{}, {}], but there are {n_rows} rows", shape.0, shape.1);
                    return Err(Error::input(path, column, problem, "give one value per row"));
                }
                meter.expect(array.header.n_bytes().unwrap_or(0));
                array.rows_with(value, meter)?
            }
            DataFile::Table(table) => table.rows_with(column, value, meter)?,
        };
        let n_with = rows.iter().filter(|is_equal| **is_equal).count();
        if n_with == 0 {
            let fix = format!("name a value that it holds: {}", list(others));
            return Err(Error::input(path, column, format!("holds {value} in no row"), fix));
        } else if n_with == n_rows {
            let fix = "name a value of those rows alone that are not to be trained on";
            return Err(Error::input(path, column, format!("holds {value} in every row"), fix));
        }
        Ok(rows)
    }

    /// The array or column `name` of numbers, one for each of `n_rows` rows; `what` it holds is for
    /// messages.
    ///
    /// # Errors
    /// [`Error::Input`] if there is none, it has another shape, or a field of a table is no number.
    /// The numbers may be any.
    pub fn values(
        &mut self,
        path: &Path,
        (name, what): (&str, &str),
        n_rows: usize,
        meter: &mut Meter<'_>,
    ) -> Result<Vec<f64>> {
        match self {
            DataFile::Arrays(ArrayFile::Npy(_)) => {
                let problem = "is no array of a .npy file, which holds one";
                Err(Error::input(path, name, problem, "put samples, times and this array into one .npz"))
            }
            DataFile::Arrays(file) => {
                let array = file.array(name)?;
                let shape = array.matrix_shape()?;
                if shape != (n_rows, 1) {
                    let problem = format!("has shape [{}, {}], but there are {n_rows} rows", shape.0, shape.1);
                    return Err(Error::input(path, name, problem, "give one value per row"));
                }
                meter.expect(array.header.n_bytes().unwrap_or(0));
                array.read_values(meter)
            }
            DataFile::Table(table) => table.values(name, what, meter),
        }
    }

    /// The array or column `times`, one number for each of `n_rows` rows.
    ///
    /// # Errors
    /// As [`DataFile::values`].
    pub fn row_times(&mut self, path: &Path, times: &str, n_rows: usize, meter: &mut Meter<'_>) -> Result<Vec<f64>> {
        match self {
            DataFile::Arrays(_) => self.values(path, (times, "times"), n_rows, meter),
            DataFile::Table(table) => table.row_times(times, meter),
        }
    }

    /// Properties of `samples` that are needed before they are read as f32.
    pub fn features(&mut self, samples: &str, times: &str, meter: &mut Meter<'_>) -> Result<Features> {
        match self {
            DataFile::Arrays(file) => {
                let columns = match file {
                    ArrayFile::H5ad(cells) => cells.column_names(samples),
                    _ => None,
                };
                let array = file.array(samples)?;
                let (element, (_, dim)) = (array.element()?, array.matrix_shape()?);
                let (epsilon, n_bytes) = (element.epsilon(), array.header.n_bytes().unwrap_or(0));
                meter.expect(n_bytes);
                let unknown = Features { epsilon, origin: vec![0.0; dim], columns, ..Features::default() };
                if element.fits_f32() && !array.is_suspicious() {
                    return Ok(unknown);
                }
                meter.expect(n_bytes);
                let path = array.file;
                let survey = array.survey(meter, |_| true)?;
                refuse_too_small(path, samples, survey.too_small())?;
                Ok(Features { origin: survey.origin(), counting: Some(survey.counting()), ..unknown })
            }
            DataFile::Table(table) => table.features(samples, times, meter),
        }
    }

    /// The origin of those rows of `samples` that `wanted` selects: [`Features::origin`].
    pub fn origin_of(
        &mut self,
        samples: &str,
        times: &str,
        wanted: impl Fn(usize) -> bool,
        meter: &mut Meter<'_>,
    ) -> Result<Vec<f64>> {
        match self {
            DataFile::Arrays(file) => {
                let array = file.array(samples)?;
                meter.expect(array.header.n_bytes().unwrap_or(0));
                Ok(array.survey(meter, wanted)?.origin())
            }
            DataFile::Table(table) => table.origin_of(samples, times, wanted, meter),
        }
    }

    /// Reads the array `samples` into `rows`, which have its shape.
    pub fn read_rows(&mut self, samples: &str, times: &str, rows: &mut Rows<'_>, meter: &mut Meter<'_>) -> Result<()> {
        match self {
            DataFile::Arrays(file) => file.array(samples)?.read_rows(rows, meter),
            DataFile::Table(table) => table.read_rows(samples, times, rows, meter),
        }
    }
}

/// Values of a split column that an error lists, at most.
pub(super) const SHOWN_VALUES: usize = 8;

/// Fails if a column holds numbers so small that f32 makes them 0.
pub(super) fn refuse_too_small(path: &Path, samples: &str, too_small: Option<(usize, f64)>) -> Result<()> {
    match too_small {
        None => Ok(()),
        Some((column, largest)) => {
            let problem =
                format!("column {column} (counted from 0) holds {largest:.3e} at most, too small for 32-bit floats");
            Err(Error::input(path, samples, problem, "rescale the data"))
        }
    }
}

/// Properties of the samples in their file.
#[derive(Clone, Debug, Default)]
pub(super) struct Features {
    /// Distance from 1 to the next number of the stored type; 0 for integers.
    pub epsilon: f64,
    /// Values to subtract before rounding to f32, `[dim]`; 0 if f32 holds every value.
    pub origin: Vec<f64>,
    /// Columns that only count the rows, if that was checked; without those that the user named.
    pub counting: Option<Vec<usize>>,
    /// Names of the columns of a table.
    pub columns: Option<Vec<String>>,
    /// Messages for the user.
    pub warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_that_are_not_built_in_are_refused_with_the_feature_to_add() {
        let (files, h5ad, parquet) = (cfg!(feature = "files"), cfg!(feature = "h5ad"), cfg!(feature = "parquet"));
        for (name, feature, is_built) in [
            ("a.npy", "", true),
            ("a.safetensors", "", true),
            ("a.npz", "`files`", files),
            ("a.csv", "`files`", files),
            ("a.TSV", "`files`", files),
            ("a.csv.gz", "`files`", files),
            ("a.h5ad", "`h5ad`", h5ad),
            ("a.Parquet", "build it with the feature `parquet`", parquet),
        ] {
            let refused = Format::of(Path::new(name)).err().map(|error| error.to_string());
            assert_eq!(refused.is_none(), is_built, "{name}");
            assert!(refused.is_none_or(|message| message.contains(&format!("the feature {feature}"))), "{name}");
        }
    }

    #[test]
    fn parquet_is_only_read() {
        let refused = Format::of_destination(&Path::new("a.parquet").into()).expect_err("refused").to_string();
        assert!(refused.contains("is read but not written (write .csv.gz, .npz or .h5ad;"), "{refused}");
    }
}
