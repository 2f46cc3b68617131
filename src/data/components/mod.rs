//! Wide samples as a few principal components: what a model of them is trained on, and the way back
//! to the columns of the data.

mod file;
#[cfg(feature = "components")]
mod fit;
#[cfg(not(feature = "components"))]
#[path = "../disabled/fit.rs"]
mod fit;
mod kept;
mod product;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub(super) use self::fit::fit;
pub(super) use self::kept::Kept;
use self::product::{Matrix, product};
use super::array::MAX_COLUMNS;
use super::check_fits;
use crate::error::{Error, Result, check_len};
use crate::memory;
use crate::model::{Coordinates, MAX_DIM, MAX_MAGNITUDE};
use crate::stage::{Section, Stage};

/// How the columns of samples become fewer dimensions.
#[derive(Clone, Debug, PartialEq)]
pub enum Reduction {
    /// So many principal components, fitted to the rows to train on: 1 to 1024, fewer than rows and
    /// columns. For [`load`](super::load) and
    /// [`load_single`](super::load_single); the other readers never fit.
    Fit(usize),
    /// Components that a run has fitted. Samples that already are components of that name and
    /// number stay as they are.
    Given(Arc<Components>),
    /// The first columns, so many, of an array that holds components already, in the order of their
    /// variance.
    First(usize),
}

impl Reduction {
    /// How `samples` of the file `path` become `count` components: an array of `obsm` in a `.h5ad`
    /// holds such already, of everything else they are fitted.
    #[must_use]
    pub fn of(path: &Path, samples: &str, count: usize) -> Self {
        let is_cells = path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("h5ad"));
        let is_expression = samples == "X" || samples.starts_with("X/") || samples.starts_with("layers/");
        if is_cells && !is_expression { Reduction::First(count) } else { Reduction::Fit(count) }
    }
}

/// Principal components of samples with many columns: orthonormal directions L `[k, d]` along which
/// the rows that they were fitted to vary most, and the mean μ of those rows.
///
/// A sample x has the scores L (x − μ), in the units of the data, which are called PC1 to PCk; the
/// scores s are decoded as μ + Lᵀ s, the point of the subspace nearest to x. The signs are such
/// that the largest loading of each component is positive.
///
/// ```
/// # #[cfg(feature = "components")] {
/// use std::sync::Arc;
///
/// use action_matching::data::{Components, DataSource, Reduction, load};
/// use action_matching::stage::Stage;
///
/// let folder = tempfile::tempdir().expect("a folder");
/// let file = folder.path().join("cells.csv");
/// let rows = "0,1,2,3\n0,2,4,2\n1,3,6,4\n1,4,8,5\n"; // b is always twice a
/// std::fs::write(&file, format!("times,a,b,c\n{rows}")).expect("written");
///
/// let source = DataSource { components: Some(Reduction::Fit(2)), ..DataSource::new(&file) };
/// let components: Arc<Components> = load(&source, &())?.components.expect("were asked for");
/// let scores = components.project(&[1.0, 2.0, 3.0], &Stage::default())?;
/// let decoded = components.decode(&scores, &Stage::default())?;
/// assert!(decoded.iter().zip([1.0, 2.0, 3.0]).all(|(got, want)| (got - want).abs() < 1e-5));
///
/// components.save(&folder.path().join("loadings.safetensors"))?;
/// assert_eq!(Components::load(&folder.path().join("loadings.safetensors"))?, *components);
/// # }
/// # Ok::<(), action_matching::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Components {
    /// L `[k, d]`.
    loadings: Vec<f32>,
    /// μ `[d]`.
    mean: Vec<f64>,
    /// Variance along each component, `[k]`, descending.
    variance: Vec<f64>,
    /// Sum of the variances of all columns.
    total_variance: f64,
    /// Names of the columns, if the data were a table.
    columns: Option<Vec<String>>,
}

/// Most components: the largest dimension of a model.
pub(super) const MAX_COMPONENTS: usize = MAX_DIM;

/// Rows that are projected or decoded between two looks at the watch.
const ROWS: usize = 4096;

/// Rows that one thread takes at a time.
const ROWS_AT_ONCE: usize = 64;

impl Components {
    /// Components with `loadings [k, d]`, `mean [d]` and `variance [k]`; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Input`] for values that no components have.
    fn new(
        path: &Path,
        loadings: Vec<f32>,
        mean: Vec<f64>,
        variance: Vec<f64>,
        total_variance: f64,
        columns: Option<Vec<String>>,
    ) -> Result<Components> {
        let refuse = |field: &str, problem: String, fix: &str| Err(Error::input(path, field, problem, fix));
        let (k, d) = (variance.len(), mean.len());
        if !(1..=MAX_COMPONENTS.min(d)).contains(&k) || d > MAX_COLUMNS {
            let fix = format!("store 1 to {MAX_COMPONENTS} components of at most {MAX_COLUMNS} columns");
            return refuse("loadings", format!("has shape [{k}, {d}]"), &fix);
        }
        check_len("loadings", k * d, loadings.len())?;
        if let Some(value) = mean.iter().find(|value| !(-MAX_MAGNITUDE..=MAX_MAGNITUDE).contains(*value)) {
            let fix = format!("store numbers of magnitude {MAX_MAGNITUDE:e} at most, in other units");
            return refuse("mean", format!("contains {value:e}"), &fix);
        }
        if let Some(value) = variance.iter().find(|value| !(value.is_finite() && **value >= 0.0)) {
            return refuse("variance", format!("contains {value:e}"), "store finite variances");
        }
        /// Loadings and variances may come from programs that compute in 32 bits.
        const TOLERANCE: f64 = 1e-3;
        let kept: f64 = variance.iter().sum();
        if !(total_variance.is_finite() && kept <= total_variance * (1.0 + TOLERANCE)) {
            let problem = format!("is {total_variance:e}, but the components have {kept:e}");
            return refuse("total_variance", problem, "store the sum of the variances of all columns");
        }
        for (c, loadings) in loadings.chunks_exact(d).enumerate() {
            let square: f64 = loadings.iter().map(|&l| f64::from(l).powi(2)).sum();
            if !(1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&square) {
                let problem = format!("row {c}, counted from 0, has length {:e}", square.sqrt());
                return refuse("loadings", problem, "store orthogonal rows of length 1");
            }
        }
        if let Some(names) = columns.as_ref().filter(|names| names.len() != d) {
            let problem = format!("has {} names for {d} columns", names.len());
            return refuse("columns", problem, "store one name for each column");
        }
        Ok(Components { loadings, mean, variance, total_variance, columns })
    }

    /// Number of components k.
    #[must_use]
    pub fn count(&self) -> usize {
        self.variance.len()
    }

    /// Number of columns d of the data.
    #[must_use]
    pub fn n_columns(&self) -> usize {
        self.mean.len()
    }

    /// Names of the columns of the data, `[d]`, if they were a table.
    #[must_use]
    pub fn columns(&self) -> Option<&[String]> {
        self.columns.as_deref()
    }

    /// Names of the components, `[k]`: PC1, PC2, …
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        (1..=self.count()).map(|c| format!("PC{c}")).collect()
    }

    /// L `[k, d]`, one component after the other.
    #[must_use]
    pub fn loadings(&self) -> &[f32] {
        &self.loadings
    }

    /// μ `[d]`, data units.
    #[must_use]
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Variance of the fitted rows along each component, `[k]`, squared data units.
    #[must_use]
    pub fn variance(&self) -> &[f64] {
        &self.variance
    }

    /// The share of the variance of the fitted rows that the components keep, 0 to 1.
    #[must_use]
    pub fn kept(&self) -> f64 {
        let kept: f64 = self.variance.iter().sum();
        if kept > 0.0 { (kept / self.total_variance).min(1.0) } else { 0.0 }
    }

    /// Scores `[n, k]` of `rows [n, d]`, both in data units. Any number of threads gives the same
    /// bits.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for an incomplete row; [`Error::Input`] if a score is
    /// not finite in f32; [`Error::Interrupted`] if the watch cancels.
    pub fn project(&self, rows: &[f32], stage: &Stage) -> Result<Vec<f32>> {
        self.project_from(rows, &self.mean, stage)
    }

    /// [`Components::project`] for rows whose center, in place of μ, is `center [d]`.
    fn project_from(&self, rows: &[f32], center: &[f64], stage: &Stage) -> Result<Vec<f32>> {
        let (k, d) = (self.count(), self.n_columns());
        check_len("samples", rows.len() / d * d, rows.len())?;
        let transposed = Matrix::from_fn(d, k, |j, c| f64::from(self.loadings[c * d + j]));
        let mut scores = Vec::with_capacity(rows.len() / d * k);
        for (done, total, rows) in steps(rows, d) {
            // In bytes, as the progress of reading.
            let [before, units, total] =
                [done, (rows.len() / d) as u64, total].map(|n| n * (d * size_of::<f32>()) as u64);
            let section = Section { watch: stage.watch, before, units, total };
            let found = centered_times(rows, center, &transposed, ROWS_AT_ONCE, &stage.watched_by(&section))?;
            (0..found.n_rows()).for_each(|i| scores.extend(found.row(i).iter().map(|&score| score as f32)));
        }
        if let Some(at) = scores.iter().position(|score| !score.is_finite()) {
            let problem = format!("row {} (counted from 0) has the score {} in PC{}", at / k, scores[at], at % k + 1);
            return Err(Error::input("samples", "components", problem, "rescale the data"));
        }
        Ok(scores)
    }

    /// Rows `[n, d]` of `scores [n, k]`, both in data units, rounded once. What the components do
    /// not keep of a sample is lost: the row is the nearest one of their subspace.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for an incomplete row of scores; [`Error::Input`] if
    /// the rows do not fit into memory; [`Error::Interrupted`] if the watch cancels.
    pub fn decode(&self, scores: &[f32], stage: &Stage) -> Result<Vec<f32>> {
        self.decoded(scores, stage, |x| x as f32)
    }

    /// [`Components::decode`] in f64, for columns far from 0.
    ///
    /// # Errors
    /// As [`Components::decode`].
    pub fn decode_f64(&self, scores: &[f32], stage: &Stage) -> Result<Vec<f64>> {
        self.decoded(scores, stage, |x| x)
    }

    fn decoded<T>(&self, scores: &[f32], stage: &Stage, rounded: impl Fn(f64) -> T) -> Result<Vec<T>> {
        let (k, d) = (self.count(), self.n_columns());
        check_len("scores", scores.len() / k * k, scores.len())?;
        let n = scores.len() / k;
        memory::require("scores", "rows to decode", memory::bytes(&[n, d, size_of::<T>()]))?;
        let loadings = Matrix::from_fn(k, d, |c, j| f64::from(self.loadings[c * d + j]));
        let zero = vec![0.0; k];
        let mut rows = Vec::with_capacity(n * d);
        for (done, total, scores) in steps(scores, k) {
            let section = Section { watch: stage.watch, before: done, units: (scores.len() / k) as u64, total };
            let found = centered_times(scores, &zero, &loadings, ROWS_AT_ONCE, &stage.watched_by(&section))?;
            for i in 0..found.n_rows() {
                rows.extend(found.row(i).iter().zip(&self.mean).map(|(x, mean)| rounded(x + mean)));
            }
        }
        Ok(rows)
    }

    /// True if f32 is too coarse for decoded rows: it would round one near the mean by more than
    /// 10⁻⁵ of the root of the mean variance of the columns.
    #[must_use]
    pub fn need_f64(&self) -> bool {
        let scale = (self.total_variance / self.n_columns() as f64).sqrt();
        let columns = Coordinates {
            mean: self.mean.clone(),
            scale: vec![scale; self.n_columns()],
            ..Coordinates::identity(self.n_columns())
        };
        columns.need_f64()
    }

    /// The components in a few words.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} of {} columns, with {} of their variance", self.count(), self.n_columns(), percent(self.kept()))
    }

    /// True if samples of `path` with `dim` columns of these names are to be projected, false if
    /// they are components already.
    ///
    /// # Errors
    /// [`Error::Input`] if they are neither.
    pub(super) fn take(&self, path: &Path, dim: usize, columns: Option<&[String]>) -> Result<bool> {
        let are_scores = match columns {
            Some(names) => names == self.names(),
            None => dim == self.count() && dim != self.n_columns(),
        };
        if are_scores {
            return Ok(false);
        }
        if dim != self.n_columns() {
            let (k, d) = (self.count(), self.n_columns());
            let problem = format!("have {dim} columns, but the model was trained on {k} components of {d}");
            return Err(Error::input(path, "samples", problem, "give samples of all these columns, or components"));
        }
        let of_data = Coordinates {
            mean: self.mean.clone(),
            columns: self.columns.clone(),
            ..Coordinates::identity(self.n_columns())
        };
        check_fits(path, dim, columns, &of_data)?;
        Ok(true)
    }

    /// Scores of `rows [n, d]`, differences from `origin`.
    pub(super) fn scores(&self, rows: &[f32], origin: &[f64], stage: &Stage) -> Result<Vec<f32>> {
        self.project_from(rows, &self.center(origin), stage)
    }

    /// μ − origin.
    fn center(&self, origin: &[f64]) -> Vec<f64> {
        self.mean.iter().zip(origin).map(|(mean, origin)| mean - origin).collect()
    }
}

/// A share as per cent, with three digits.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", crate::display::significant(100.0 * share, 3))
}

/// `rows [n, width]`, [`ROWS`] at a time: rows before, rows in all, and the rows.
fn steps(rows: &[f32], width: usize) -> impl Iterator<Item = (u64, u64, &[f32])> {
    let total = (rows.len() / width) as u64;
    rows.chunks(ROWS * width).enumerate().map(move |(step, rows)| ((step * ROWS) as u64, total, rows))
}

/// (rows − center) · B for `rows [n, center.len()]`, `at_once` rows a thread.
fn centered_times(rows: &[f32], center: &[f64], b: &Matrix, at_once: usize, stage: &Stage) -> Result<Matrix> {
    let dim = center.len();
    let n = rows.len() / dim;
    product(n, b, at_once, stage, |first, terms: Range<usize>, packed| {
        for (lane, i) in (first..n).take(4).enumerate() {
            let values = rows[i * dim..][terms.clone()].iter().zip(&center[terms.clone()]);
            packed.iter_mut().zip(values).for_each(|(packed, (x, center))| packed[lane] = f64::from(*x) - center);
        }
    })
}
