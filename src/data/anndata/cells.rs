//! The cells of a file as they are annotated: every row, whatever it lacks.

use std::path::Path;

use super::column::{Column, Labels};
use super::{AnnData, Place, column_at, names_of};
use crate::data::array::{Meter, Rows, damaged, zeros};
use crate::data::components::Reduction;
use crate::data::row_filter::RowFilter;
use crate::error::{Error, InputKind, Result};
use crate::model::ConditionValue;
use crate::stage::Stage;

/// An open file of AnnData.
pub(crate) struct Cells {
    data: AnnData,
}

/// Samples of all cells.
pub(crate) struct CellSamples {
    /// Where they are, such as `obsm/X_pca`.
    pub at: String,
    pub dim: usize,
    /// Differences `[n, dim]` from the origin that was asked for; NaN where there is no number.
    pub rows: Vec<f32>,
    /// Names of the columns, if the file has them.
    pub columns: Option<Vec<String>>,
}

/// A text for each cell, of which many are equal.
pub(crate) struct CellLabels {
    /// Index into `names` of each cell; `None` without a label.
    pub codes: Vec<Option<u32>>,
    pub names: Vec<String>,
}

/// Neighbors of each cell, as the rows of a sparse matrix.
pub(crate) struct Graph {
    /// Start of the neighbors of each cell, and their number.
    pub starts: Vec<usize>,
    pub neighbors: Vec<u32>,
}

impl Cells {
    /// # Errors
    /// [`Error::Input`] if `path` is not a file of anndata 0.8 or later.
    pub fn open(path: &Path) -> Result<Cells> {
        Ok(Cells { data: AnnData::open(path)? })
    }

    pub fn len(&self) -> usize {
        self.data.n_cells as usize
    }

    /// What was guessed since the last call, one sentence each.
    pub fn take_notices(&mut self) -> Vec<String> {
        self.data.take_notices()
    }

    /// True if there is something at `at`.
    pub fn has(&self, at: &str) -> bool {
        self.data.file.is_group(at) || self.data.file.is_dataset(at)
    }

    /// The texts at `at`; none if there are none.
    pub fn texts(&self, at: &str) -> Vec<String> {
        self.data.file.texts(at).unwrap_or_default()
    }

    /// Names of the cells.
    ///
    /// # Errors
    /// [`Error::Input`] if the file is damaged.
    pub fn names(&self) -> Result<Vec<String>> {
        names_of(&self.data.file, "obs")
    }

    /// Names of the genes.
    ///
    /// # Errors
    /// [`Error::Input`] if the file is damaged.
    pub fn genes(&self) -> Result<Vec<String>> {
        names_of(&self.data.file, "var")
    }

    /// The samples `name`, of which `components` are taken, as differences from `origin`, or from
    /// 0 if they have another number of columns than that.
    ///
    /// # Errors
    /// [`Error::Input`] if there are none, or the file is damaged; [`Error::Interrupted`].
    pub fn samples(
        &mut self,
        name: &str,
        components: Option<&Reduction>,
        origin: &[f64],
        stage: &Stage,
    ) -> Result<CellSamples> {
        let Place::Embedding(at) = self.data.place_of(name)? else {
            return self.expression(name, components, origin, stage);
        };
        if let Some(Reduction::First(count)) = components {
            self.data.take_first(name, *count)?;
        }
        let columns = self.data.column_names(name);
        let (dim, rows) = self.matrix(name, origin, stage)?;
        Ok(CellSamples { at, dim, rows, columns })
    }

    /// Samples that are genes, or components of them.
    fn expression(
        &mut self,
        name: &str,
        components: Option<&Reduction>,
        origin: &[f64],
        stage: &Stage,
    ) -> Result<CellSamples> {
        let at = self.data.place_of(name)?.at();
        let columns = self.data.column_names(name);
        let Some(Reduction::Given(components)) = components else {
            let (dim, rows) = self.matrix(name, origin, stage)?;
            return Ok(CellSamples { at, dim, rows, columns });
        };
        let (wide, rows) = self.matrix(name, components.mean(), stage)?;
        components.take(self.data.path(), wide, columns.as_deref())?;
        let mut rows = components.scores(&rows, components.mean(), stage)?;
        let of_origin = rows.iter_mut().zip(origin.iter().cycle());
        of_origin.for_each(|(score, origin)| *score = (f64::from(*score) - origin) as f32);
        Ok(CellSamples { at, dim: components.count(), rows, columns: Some(components.names()) })
    }

    /// (columns, differences `[n, columns]` from `origin`) of the matrix `name`.
    fn matrix(&mut self, name: &str, origin: &[f64], stage: &Stage) -> Result<(usize, Vec<f32>)> {
        let path = self.data.path().to_owned();
        let mut meter = Meter::new(stage.watch);
        let array = self.data.array(name)?;
        let (n, dim) = array.matrix_shape()?;
        let n_bytes = array.header.n_bytes().unwrap_or(0);
        meter.expect(n_bytes);
        match array.is_suspicious() {
            true => {
                meter.expect(n_bytes);
                array.visit(&mut meter)?;
            }
            false => drop(array),
        }
        let zero = vec![0.0; dim];
        let origin = if origin.len() == dim { origin } else { &zero };
        let mut rows = zeros(&path, name, n, dim)?;
        self.data.array(name)?.read_rows_with_gaps(&mut Rows::new(origin, None, &mut rows, &mut []), &mut meter)?;
        Ok((dim, rows))
    }

    /// The matrix at `at`, which has a row per gene or cell: (rows, columns, values).
    ///
    /// # Errors
    /// [`Error::Input`] if it is no matrix of numbers, or the file is damaged.
    pub fn dense(&self, at: &str) -> Result<(usize, usize, Vec<f64>)> {
        let values = self.data.file.values(at)?;
        let [rows, columns] = values.shape[..] else {
            return self.data.refuse(at, format!("has shape {:?}", values.shape), "name a matrix");
        };
        let all = values.all().map_err(|error| damaged(self.data.path(), at, error))?;
        Ok((rows as usize, columns as usize, all))
    }

    /// A truth value for each gene at `at`; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Input`] if the file is damaged.
    pub fn of_genes(&self, at: &str) -> Result<Option<Vec<bool>>> {
        if !self.has(at) {
            return Ok(None);
        }
        Ok(Some(match Column::read(&self.data.file, at, self.data.n_genes())? {
            Column::Numbers(values) => values.iter().map(|&x| x == 1.0).collect(),
            Column::Labels(Labels { codes, categories }) => {
                codes.iter().map(|&code| categories.get(code as usize).is_some_and(|text| text == "True")).collect()
            }
        }))
    }

    /// The number in the column `name` of `obs` in each cell; NaN without one. Texts are times.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such column, or texts do not share a unit.
    pub fn times(&mut self, name: &str, stage: &Stage) -> Result<Vec<f64>> {
        self.data.array(name)?.read_values(&mut Meter::new(stage.watch))
    }

    /// Where the column of the times `name` is, such as `obs/day`.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such column.
    pub fn place(&mut self, name: &str) -> Result<String> {
        Ok(self.data.place_of(name)?.at())
    }

    /// Whether each cell passes `filter`.
    ///
    /// # Errors
    /// [`Error::Input`] if it names a column that is not there.
    pub fn pass(&self, filter: &RowFilter) -> Result<Vec<bool>> {
        let mut cells = vec![true; self.len()];
        for term in filter.terms() {
            let passes = self.data.column(&column_at(&term.column))?.test(|field| term.admits(field));
            cells.iter_mut().zip(passes).for_each(|(cell, passes)| *cell &= passes);
        }
        Ok(cells)
    }

    /// The column `name` of `obs` as texts.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such column.
    pub fn labels(&self, name: &str) -> Result<CellLabels> {
        let labels = match self.data.column(&column_at(name))? {
            Column::Labels(labels) => labels,
            Column::Numbers(numbers) => {
                let text = |x: &f64| if x.is_nan() { String::new() } else { x.to_string() };
                let mut labels = Labels::of(numbers.iter().map(text).collect());
                if let Some(none) = labels.categories.iter().position(String::is_empty) {
                    labels.codes.iter_mut().filter(|code| **code == none as u32).for_each(|code| *code = u32::MAX);
                }
                labels
            }
        };
        let Labels { codes, categories } = labels;
        let codes = codes.into_iter().map(|code| ((code as usize) < categories.len()).then_some(code)).collect();
        Ok(CellLabels { codes, names: categories })
    }

    /// The value of a condition in each cell, from the column `name` of `obs`; `None` without one.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such column.
    pub fn condition(&self, name: &str) -> Result<Vec<Option<ConditionValue>>> {
        Ok(match self.data.column(&column_at(name))? {
            Column::Numbers(numbers) => {
                numbers.into_iter().map(|x| x.is_finite().then_some(ConditionValue::Number(x))).collect()
            }
            Column::Labels(Labels { codes, categories }) => {
                // As in training: texts that all are numbers are numbers.
                let numbers: Option<Vec<f64>> = categories.iter().map(|text| text.parse().ok()).collect();
                let value = |k: usize| match &numbers {
                    Some(numbers) => ConditionValue::Number(numbers[k]),
                    None => ConditionValue::Category(categories[k].clone()),
                };
                codes.iter().map(|&code| ((code as usize) < categories.len()).then(|| value(code as usize))).collect()
            }
        })
    }

    /// The neighbors of each cell that the sparse matrix at `at` names, if there is one of them.
    ///
    /// # Errors
    /// [`Error::Input`] if the matrix is damaged.
    pub fn graph(&self, at: &str) -> Result<Option<Graph>> {
        let file = &self.data.file;
        if file.text_attribute(at, "encoding-type").as_deref() != Some("csr_matrix") {
            return Ok(None);
        }
        let refuse = |problem: &str| {
            let error = Error::input(file.path(), at, problem, "compute the neighbors again, and save the file");
            Err(error.of_kind(InputKind::Malformed))
        };
        let n = self.data.n_cells;
        if file.shape_attribute(at, "shape") != Some([n, n]) {
            return refuse("is not a matrix of all cells by all cells");
        }
        let [indptr, indices, _] = self.data.parts_of(at)?;
        let failed = |error| damaged(file.path(), at, error);
        let starts: Vec<usize> = indptr.all().map_err(failed)?.iter().map(|&start| start as usize).collect();
        let neighbors = indices.indices().map_err(failed)?;
        let is_sorted = starts.first() == Some(&0) && starts.windows(2).all(|pair| pair[0] <= pair[1]);
        if starts.len() as u64 != n + 1 || !is_sorted || starts.last() > Some(&neighbors.len()) {
            return refuse("has an indptr that does not fit its shape");
        } else if neighbors.iter().any(|&index| u64::from(index) >= n) {
            return refuse("names cells that are not there");
        }
        Ok(Some(Graph { starts, neighbors }))
    }
}
