//! `.h5ad`: cells as anndata 0.8 and later write them, without a C library. Samples are an array of
//! `obsm`, `X` or a layer, dense or sparse; times and other values of a cell are columns of `obs`.
//! Matrices are streamed; columns of `obs` take 8 bytes per cell while they are read.

mod cells;
mod column;
mod coupling;
mod edit;
mod hdf5;
mod matrix;
mod write;

use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

pub(crate) use self::cells::{CellLabels, CellSamples, Cells, Graph};
use self::column::{Column, Labels};
pub(crate) use self::coupling::{Coupled, write_coupling};
pub(crate) use self::edit::{Item, write_extended};
use self::hdf5::{Hdf5, Values};
use self::matrix::{Dense, Frame, Part, RunReader, Sparse};
pub(super) use self::write::write;
use super::array::{Array, Header, MAX_COLUMNS, Order, damaged, list};
use super::columns::Names;
use super::conditions::{ConditionColumn, MAX_GROUPS, too_many};
use super::distinct::Distinct;
use super::file::SHOWN_VALUES;
use super::hold_out::SplitValue;
use super::ids::{IDS, Ids};
use super::row_filter::{RowFilter, file_row};
use super::source::{DEFAULT_SAMPLES, DEFAULT_TIMES};
use super::time_text::{self, TimeTexts};
use crate::element::{Element, ElementType, Refusal};
use crate::error::{Error, InputKind, Result};

/// The samples that the default name means, in this order: the first that exists.
const LIKELY_SAMPLES: [&str; 1] = ["obsm/X_pca"];

/// The columns of `obs` that the default name of the times means, in this order.
const LIKELY_TIMES: [&str; 8] =
    ["times", "time", "day", "timepoint", "time_point", "time_point_processed", "days", "stage"];

const F64: Element = Element { number: ElementType::F64, big_endian: false };

/// An open file.
pub(super) struct AnnData {
    file: Hdf5,
    n_cells: u64,
    rows: Option<Arc<[bool]>>,
    /// Columns of an array of `obsm` that are read, if not all.
    first_columns: Option<usize>,
    notices: Vec<String>,
}

/// Where an array is.
enum Place {
    /// A column of `obs`.
    Column(String),
    /// A matrix of `obsm`.
    Embedding(String),
    /// `X` or a layer, and the genes that are wanted, if not all.
    Expression { at: String, genes: Option<String> },
}

impl AnnData {
    /// # Errors
    /// [`Error::Input`] if `path` is not a file of anndata 0.8 or later.
    pub fn open(path: &Path) -> Result<Self> {
        let file = Hdf5::open(path)?;
        if !file.is_group("obs") {
            if file.is_dataset("obs") {
                return Err(old(path));
            }
            let problem = "is an HDF5 file without obs, so not one of AnnData";
            return Err(Error::input(path, "obs", problem, "save it with anndata's write_h5ad"));
        }
        if file.text_attribute("obs", "encoding-type").is_none() {
            return Err(old(path));
        }
        let at = index_of(&file, "obs");
        let n_cells = match file.is_group(&at) {
            true => file.values(&format!("{at}/values"))?.n_rows,
            false => file.values(&at)?.n_rows,
        };
        Ok(AnnData { file, n_cells, rows: None, first_columns: None, notices: Vec::new() })
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    fn refuse<T>(&self, at: &str, problem: impl Into<String>, fix: impl Into<String>) -> Result<T> {
        Err(Error::input(self.path(), at, problem, fix))
    }

    /// Says to the user, once, what was guessed.
    fn notice(&mut self, notice: String) {
        if !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
    }

    /// What was guessed since the last call, one sentence each.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Reads only the rows that `filter` admits.
    ///
    /// # Errors
    /// [`Error::Input`] if it names a column that is not there, or admits no row.
    pub fn keep_only(&mut self, filter: &RowFilter) -> Result<()> {
        let mut rows = vec![true; self.n_cells as usize];
        for term in filter.terms() {
            let at = column_at(&term.column);
            let column = self.column(&at)?;
            let admitted = column.test(|field| term.admits(field));
            if !admitted.contains(&true) {
                let fix = format!("compare it with values that it has: {}", list(column.some(SHOWN_VALUES)));
                return self.refuse(&at, format!("passes data.where = {:?} in no row", filter.to_string()), fix);
            }
            rows.iter_mut().zip(admitted).for_each(|(row, is_admitted)| *row &= is_admitted);
        }
        let n = rows.iter().filter(|is_read| **is_read).count();
        if n == 0 {
            let problem = format!("no row passes {:?}", filter.to_string());
            return self.refuse("data.where", problem, "give a condition that some rows meet");
        }
        self.notice(format!("{n} of {} cells pass {:?}", self.n_cells, filter.to_string()));
        self.rows = Some(rows.into());
        Ok(())
    }

    /// True if there is an array `name`, in `obs` also by the name of its column.
    pub fn has(&mut self, name: &str) -> bool {
        let notices = self.notices.len();
        let has = self.place_of(name).is_ok();
        self.notices.truncate(notices);
        has
    }

    /// Names of the `n_rows` cells that are read: the index of `obs`, or its column `ids`, in which
    /// names may repeat.
    ///
    /// # Errors
    /// [`Error::Input`] if there are more or fewer, or the file is damaged.
    pub fn ids(&self, n_rows: usize) -> Result<Vec<String>> {
        let at = column_at(IDS);
        let column = if self.file.is_group(&at) || self.file.is_dataset(&at) { Some(self.column(&at)?) } else { None };
        let names = match column {
            Some(Column::Labels(Labels { codes, categories })) => {
                let name = |code: u32| categories.get(code as usize).cloned().unwrap_or_default();
                codes.into_iter().map(name).collect()
            }
            _ => names_of(&self.file, "obs")?,
        };
        let is_read = |row: usize| self.rows.as_ref().is_none_or(|rows| rows.get(row) == Some(&true));
        let mut ids = Ids::new(self.path(), "obs", self.file.size());
        names.iter().enumerate().filter(|(row, _)| is_read(*row)).try_for_each(|(_, name)| ids.push(name))?;
        ids.finish(n_rows)
    }

    /// The row of the file that is row `row` of those that are read.
    pub fn file_row(&self, row: usize) -> usize {
        file_row(self.rows.as_deref(), row)
    }

    /// Takes the first `count` columns of `samples`, an array of `obsm`.
    ///
    /// # Errors
    /// [`Error::Input`] if they are no such array, or there are fewer.
    pub fn take_first(&mut self, samples: &str, count: usize) -> Result<()> {
        let Place::Embedding(at) = self.place_of(samples)? else {
            let fix = "name an array of obsm, or let components be fitted to X or a layer";
            return self.refuse(samples, "has no columns in the order of their importance", fix);
        };
        let all = self.array(samples)?.matrix_shape()?.1;
        if count > all {
            let fix = format!("set data.components to {all} or fewer, or leave it out");
            return self.refuse(&at, format!("has {all} columns, fewer than data.components = {count}"), fix);
        }
        if count < all {
            self.notice(format!("components are the first {count} of the {all} columns of {at}"));
        }
        self.first_columns = Some(count);
        Ok(())
    }

    /// The array `name`: a path such as `obs/day`, `obsm/X_pca`, `X`, `X/GATA1,SPI1` or
    /// `layers/counts`, a name in `obsm` or `obs`, or a default name.
    ///
    /// # Errors
    /// [`Error::Input`] if there is none, or it is damaged.
    pub fn array(&mut self, name: &str) -> Result<Array<'_>> {
        match self.place_of(name)? {
            Place::Column(column) => self.values_of_cells(&format!("obs/{column}")),
            Place::Embedding(at) => {
                let columns = self.first_columns.map(|n| (0..n as u32).collect());
                self.matrix(&at, Part { rows: self.rows.clone(), columns })
            }
            Place::Expression { at, genes } => {
                let columns = match genes {
                    None => None,
                    Some(genes) => Some(self.genes(&at, &genes)?),
                };
                self.matrix(&at, Part { rows: self.rows.clone(), columns })
            }
        }
    }

    /// Names of the columns of the matrix `name`, if the file has them.
    pub fn column_names(&mut self, name: &str) -> Option<Vec<String>> {
        match self.place_of(name).ok()? {
            Place::Column(column) => Some(vec![column]),
            Place::Embedding(at) => {
                let mut names = self.frame_names(&at)?;
                names.truncate(self.first_columns.unwrap_or(names.len()));
                Some(names)
            }
            Place::Expression { at, genes } => {
                let all = names_of(&self.file, "var").ok()?;
                match genes {
                    None => Some(all),
                    Some(genes) => {
                        let chosen = self.genes(&at, &genes).ok()?;
                        Some(chosen.iter().map(|&gene| all[gene as usize].clone()).collect())
                    }
                }
            }
        }
    }

    /// Which rows have `value` in the column `name` of `obs`, and the first few values it has.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such column.
    pub fn rows_with(&mut self, name: &str, value: &SplitValue) -> Result<(Vec<bool>, Vec<String>)> {
        let at = column_at(name);
        let column = self.column(&at)?;
        let mut rows = column.test(|field| field.is(value));
        if let Some(kept) = &self.rows {
            let mut kept = kept.iter();
            rows.retain(|_| kept.next() == Some(&true));
        }
        Ok((rows, column.some(SHOWN_VALUES)))
    }

    /// The values of the columns `names` of `obs` in every row, in the order of the names.
    ///
    /// # Errors
    /// [`Error::Input`] if one is not there, has a missing value, or too many distinct ones.
    pub fn conditions(&mut self, names: &[String]) -> Result<Vec<ConditionColumn>> {
        let condition = |name: &String| {
            let at = column_at(name);
            let missing = |row: usize| {
                let fix = "leave such rows out with data.where";
                self.refuse(&at, format!("has no value in row {row} (counted from 0)"), fix)
            };
            let is_read = |row: usize| self.rows.as_ref().is_none_or(|rows| rows[row]);
            match self.column(&at)? {
                Column::Numbers(values) => {
                    let mut distinct: Distinct<u64> = Distinct::default();
                    for (row, value) in values.iter().enumerate().filter(|(row, _)| is_read(*row)) {
                        if !value.is_finite() {
                            return missing(row);
                        }
                        distinct.push(&(value + 0.0).to_bits());
                        if distinct.values.len() > MAX_GROUPS {
                            return Err(too_many(self.path(), &at));
                        }
                    }
                    Ok(ConditionColumn::of_numbers(name.clone(), distinct))
                }
                Column::Labels(labels) => {
                    let mut distinct: Distinct<String> = Distinct::default();
                    for (row, &code) in labels.codes.iter().enumerate().filter(|(row, _)| is_read(*row)) {
                        let Some(text) = labels.categories.get(code as usize) else { return missing(row) };
                        distinct.push(text.as_str());
                        if distinct.values.len() > MAX_GROUPS {
                            return Err(too_many(self.path(), &at));
                        }
                    }
                    ConditionColumn::of_texts(self.path(), name.clone(), distinct)
                }
            }
        };
        names.iter().map(condition).collect()
    }

    /// What the file holds, for `inspect`, one line each.
    ///
    /// # Errors
    /// [`Error::Input`] if the file is damaged.
    pub fn describe(&mut self) -> Result<Vec<String>> {
        let mut lines = vec![format!("AnnData of {} cells and {} genes", self.n_cells, self.n_genes())];
        let mut matrices = Vec::from_iter(self.file.names("")?.into_iter().filter(|name| name == "X"));
        for group in ["layers", "obsm"] {
            matrices.extend(self.file.names(group)?.into_iter().map(|name| format!("{group}/{name}")));
        }
        for at in matrices {
            let encoding = self.file.text_attribute(&at, "encoding-type").unwrap_or_default();
            lines.push(match self.array(&at) {
                Ok(array) => format!("{at}: {encoding}, {} {:?}", array.header.dtype, array.header.shape),
                Err(error) => format!("{at}\nproblem: {error}"),
            });
        }
        let index = index_of(&self.file, "obs");
        for name in self.file.names("obs")? {
            let at = format!("obs/{name}");
            if at == index {
                continue;
            }
            lines.push(match self.column(&at) {
                Ok(Column::Numbers(values)) => {
                    let finite = || values.iter().copied().filter(|x| !x.is_nan());
                    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(-f64::INFINITY, f64::max));
                    format!("{at}: numbers from {low} to {high}")
                }
                Ok(Column::Labels(labels)) => format!("{at}: {}", list(&labels.categories)),
                Err(error) => format!("{at}\nproblem: {error}"),
            });
        }
        Ok(lines)
    }

    /// True if the default names mean samples and times of this file.
    pub fn has_snapshots(&mut self) -> bool {
        [DEFAULT_SAMPLES, DEFAULT_TIMES].into_iter().all(|name| self.place_of(name).is_ok())
    }

    fn place_of(&mut self, name: &str) -> Result<Place> {
        let has = |at: &str| self.file.is_group(at) || self.file.is_dataset(at);
        if let Some((group, rest)) = name.split_once('/') {
            let place = match group {
                "obs" => Some(Place::Column(rest.into())),
                "obsm" => Some(Place::Embedding(name.into())),
                "X" => Some(Place::Expression { at: "X".into(), genes: Some(rest.into()) }),
                "layers" => Some(match rest.split_once('/') {
                    Some((layer, genes)) => {
                        Place::Expression { at: format!("layers/{layer}"), genes: Some(genes.into()) }
                    }
                    None => Place::Expression { at: name.into(), genes: None },
                }),
                _ => None,
            };
            return match place {
                Some(place) if has(place.at().as_str()) => Ok(place),
                _ => Err(self.no_such(name)),
            };
        }
        if name == "X" && has("X") {
            return Ok(Place::Expression { at: "X".into(), genes: None });
        } else if has(&format!("obsm/{name}")) {
            return Ok(Place::Embedding(format!("obsm/{name}")));
        } else if has(&format!("obs/{name}")) {
            return Ok(Place::Column(name.into()));
        }
        let guess = match name {
            DEFAULT_SAMPLES => LIKELY_SAMPLES.into_iter().find(|at| has(at)).map(|at| Place::Embedding(at.into())),
            DEFAULT_TIMES => LIKELY_TIMES
                .into_iter()
                .find(|column| has(&format!("obs/{column}")))
                .map(|column| Place::Column(column.into())),
            _ => None,
        };
        let Some(guess) = guess else { return Err(self.no_such(name)) };
        self.notice(format!("{name} are {}, as nothing else is said", guess.at()));
        Ok(guess)
    }

    fn no_such(&self, name: &str) -> Error {
        let of = |group: &str| {
            let names = self.file.names(group).unwrap_or_default();
            names.into_iter().map(|name| format!("{group}/{name}")).collect::<Vec<_>>()
        };
        let fix = if name == DEFAULT_TIMES || name.starts_with("obs/") {
            let index = index_of(&self.file, "obs");
            let columns = of("obs").into_iter().filter(|at| *at != index);
            format!("set data.times to a column of obs: {}", list(columns))
        } else {
            let expression = self.file.names("").unwrap_or_default().into_iter().filter(|name| name == "X");
            format!("set data.samples to one of {}", list(of("obsm").into_iter().chain(expression).chain(of("layers"))))
        };
        Error::input(self.path(), name, "no such array", fix).of_kind(InputKind::Missing)
    }

    fn column(&self, at: &str) -> Result<Column> {
        if !self.file.is_group(at) && !self.file.is_dataset(at) {
            return Err(self.no_such(at));
        }
        Column::read(&self.file, at, self.n_cells)
    }

    /// A column of `obs` as an array of numbers; texts are times with a number in them.
    fn values_of_cells(&mut self, at: &str) -> Result<Array<'_>> {
        if !self.file.is_group(at) {
            let values = self.file.values(at)?;
            if values.element.is_ok() && !values.is_bool() {
                return self.matrix(at, Part { rows: self.rows.clone(), columns: None });
            }
        }
        let rows = self.rows.clone();
        let is_read = |row: usize| rows.as_ref().is_none_or(|rows| rows[row]);
        let (values, element) = match self.column(at)? {
            Column::Numbers(values) => (values, Ok(F64)),
            Column::Labels(labels) => {
                // Categories of the rows that are read: others may say anything.
                let mut is_used = vec![false; labels.categories.len()];
                labels.codes.iter().enumerate().filter(|(row, _)| is_read(*row)).for_each(|(_, &code)| {
                    is_used.get_mut(code as usize).into_iter().for_each(|is_used| *is_used = true);
                });
                let used: Vec<usize> = (0..is_used.len()).filter(|&k| is_used[k]).collect();
                let mut times = TimeTexts::default();
                let numbers: Result<Vec<f64>, String> =
                    used.iter().map(|&k| times.number(&labels.categories[k])).collect();
                match numbers {
                    Ok(numbers) => {
                        times.notice(at).into_iter().for_each(|notice| self.notice(notice));
                        let mut of_category = vec![f64::NAN; is_used.len()];
                        used.iter().zip(numbers).for_each(|(&k, number)| of_category[k] = number);
                        (labels.to_numbers(&of_category), Ok(F64))
                    }
                    Err(problem) => (vec![0.0; labels.codes.len()], Err(Refusal { problem, fix: time_text::FIX })),
                }
            }
        };
        let kept = values.iter().enumerate().filter(|(row, _)| is_read(*row));
        let bytes: Vec<u8> = kept.flat_map(|(_, value)| value.to_le_bytes()).collect();
        let header =
            Header { dtype: "float64".into(), element, order: Order::C, shape: vec![(bytes.len() / 8) as u64] };
        let stored = bytes.len() as u64;
        let data = Box::new(Cursor::new(bytes));
        Ok(Array { file: self.file.path(), name: at.into(), header, stored, data, kept: rows })
    }

    /// The matrix at `at`, of which `part` is read.
    fn matrix(&self, at: &str, part: Part) -> Result<Array<'_>> {
        let encoding = self.file.text_attribute(at, "encoding-type").unwrap_or_default();
        let failed = |error: io::Error| damaged(self.path(), at, error);
        let (dtype, element, order, shape, stored, data): (_, _, _, _, _, Box<dyn Read>) =
            match (encoding.as_str(), self.file.is_group(at)) {
                ("csr_matrix" | "csc_matrix", true) => {
                    let order = if encoding == "csr_matrix" { Order::C } else { Order::Fortran };
                    let Some(shape) = self.file.shape_attribute(at, "shape") else {
                        return self.refuse(at, "has no shape", "save it again with anndata's write_h5ad");
                    };
                    self.check_shape(at, &shape)?;
                    let [indptr, indices, data] = self.parts_of(at)?;
                    let stored = indptr.stored + indices.stored + data.stored;
                    let (dtype, element) = (data.dtype.clone(), data.element.clone());
                    let runs = Sparse::new(order, shape, &indptr, indices, data, &part).map_err(failed)?;
                    (dtype, element, order, shape.to_vec(), stored, Box::new(RunReader::new(runs)))
                }
                ("dataframe", true) => {
                    let names = self.frame_names(at).unwrap_or_default();
                    let wanted = part.n_columns(names.len() as u64) as usize;
                    let columns: Vec<Values> = names[..wanted.min(names.len())]
                        .iter()
                        .map(|name| self.file.values(&format!("{at}/{name}")))
                        .collect::<Result<_>>()?;
                    if let Some(k) = columns.iter().position(|column| column.element.is_err()) {
                        return self.refuse(at, format!("column {} holds no numbers", names[k]), "name another array");
                    }
                    columns.iter().try_for_each(|column| self.check_shape(at, &column.shape))?;
                    let stored = columns.iter().map(|column| column.stored).sum();
                    let shape = vec![self.n_cells, names.len() as u64];
                    let runs = Frame::new(columns, part.rows.clone());
                    ("float64".into(), Ok(F64), Order::Fortran, shape, stored, Box::new(RunReader::new(runs)))
                }
                (_, true) => {
                    let fix = "name an array, a sparse matrix or a data frame";
                    return self.refuse(at, format!("is encoded as {encoding:?}, which is not read"), fix);
                }
                (_, false) => {
                    let values = self.file.values(at)?;
                    self.check_shape(at, &values.shape)?;
                    let (dtype, element) = (values.dtype.clone(), values.element.clone());
                    let (shape, stored) = (values.shape.clone(), values.stored);
                    let runs = Dense::new(values, part.clone());
                    (dtype, element, Order::C, shape, stored, Box::new(RunReader::new(runs)))
                }
            };
        let mut shape = shape;
        if let Some(rows) = shape.first_mut() {
            *rows = part.n_rows(*rows);
        }
        if let Some(columns) = shape.get_mut(1) {
            *columns = part.n_columns(*columns);
        }
        let header = Header { dtype, element, order, shape };
        Ok(Array { file: self.file.path(), name: at.into(), header, stored, data, kept: part.rows })
    }

    /// indptr, indices and data of the sparse matrix at `at`, of one dimension each.
    fn parts_of(&self, at: &str) -> Result<[Values; 3]> {
        let part = |name: &str| {
            let at = format!("{at}/{name}");
            let values = self.file.values(&at)?;
            match values.shape.len() {
                1 => Ok(values),
                _ => self.refuse(&at, "has not one dimension", "save it again with anndata's write_h5ad"),
            }
        };
        Ok([part("indptr")?, part("indices")?, part("data")?])
    }

    /// Refuses an array that does not have a row per cell, or too many columns to look at.
    fn check_shape(&self, at: &str, shape: &[u64]) -> Result<()> {
        if shape.first() != Some(&self.n_cells) {
            let problem = format!("has shape {shape:?}, but there are {} cells", self.n_cells);
            return self.refuse(at, problem, "save it again with anndata's write_h5ad");
        }
        match shape.get(1) {
            Some(&columns) if columns > MAX_COLUMNS as u64 => {
                let problem = format!("has {columns} columns; at most {MAX_COLUMNS} are read");
                self.refuse(at, problem, "keep the highly variable genes, or name some, as in X/GATA1,SPI1")
            }
            _ => Ok(()),
        }
    }

    /// Names of the columns of the data frame at `at`, in their order.
    fn frame_names(&self, at: &str) -> Option<Vec<String>> {
        if self.file.text_attribute(at, "encoding-type")? != "dataframe" {
            return None;
        }
        let index = index_of(&self.file, at);
        let mut names = self.file.names(at).ok()?;
        names.retain(|name| format!("{at}/{name}") != index);
        let order = self.file.texts_attribute(at, "column-order").unwrap_or_default();
        let place = |name: &String| order.iter().position(|other| other == name).unwrap_or(order.len());
        names.sort_by_key(place);
        Some(names)
    }

    fn n_genes(&self) -> u64 {
        let at = index_of(&self.file, "var");
        self.file.values(&at).map_or(0, |values| values.n_rows)
    }

    /// Indices of the genes that the list or pattern `wanted` selects.
    fn genes(&self, at: &str, wanted: &str) -> Result<Vec<u32>> {
        let selection = Names::new(names_of(&self.file, "var")?).select(self.path(), wanted, "")?;
        let columns: Vec<u32> = selection.columns.into_iter().map(|column| column as u32).collect();
        let all = match self.file.shape_attribute(at, "shape") {
            Some([_, columns]) => columns,
            None => self.file.values(at)?.shape.get(1).copied().unwrap_or(1),
        };
        if columns.iter().any(|&column| u64::from(column) >= all) {
            return self.refuse(
                at,
                "has fewer columns than there are genes",
                "save it again with anndata's write_h5ad",
            );
        }
        Ok(columns)
    }
}

impl Place {
    fn at(&self) -> String {
        match self {
            Place::Column(column) => format!("obs/{column}"),
            Place::Embedding(at) | Place::Expression { at, .. } => at.clone(),
        }
    }
}

/// Where the column `name` of `obs` is, which may be a path already.
fn column_at(name: &str) -> String {
    format!("obs/{}", name.strip_prefix("obs/").unwrap_or(name))
}

/// Names of the rows of the data frame at `at`.
fn names_of(file: &Hdf5, at: &str) -> Result<Vec<String>> {
    let at = index_of(file, at);
    if file.is_group(&at) { file.texts(&format!("{at}/values")) } else { file.texts(&at) }
}

/// Where the names of the rows of the data frame at `at` are.
fn index_of(file: &Hdf5, at: &str) -> String {
    format!("{at}/{}", file.text_attribute(at, "_index").unwrap_or_else(|| "_index".into()))
}

fn old(path: &Path) -> Error {
    let problem = "was written before anndata 0.8, whose layout is not read";
    Error::input(path, "obs", problem, "read it with a newer anndata and save it again with write_h5ad")
}
