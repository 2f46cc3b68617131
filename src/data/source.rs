//! Description of the data to read, as in a configuration.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{HoldOut, Reduction, RowFilter};

/// Map of samples to network coordinates. Statistics are those of the training snapshots, with
/// equal weights of all rows unless they have weights of their own (then a snapshot counts with its
/// number of rows, and each row with its share of the snapshot's weight); deviations are those of
/// the population (divided by n).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Standardization {
    /// Mean 0 in each dimension, and one scale for all: the root of the mean variance. Keeps angles
    /// and the geometry of transport.
    #[default]
    Isotropic,
    /// Mean 0 and deviation 1 in each dimension.
    PerDimension,
    /// Median 0 in each dimension, and a distance of the quartiles as for a standard normal, 1.349:
    /// a few outliers change neither. A dimension whose quartiles are equal is scaled to deviation
    /// 1.
    Robust,
    /// Samples stay unchanged.
    None,
}

/// Default name of the samples.
pub(super) const DEFAULT_SAMPLES: &str = "samples";

/// Default name of the times.
pub(super) const DEFAULT_TIMES: &str = "times";

/// A data set of snapshots: files, names of the arrays, and their treatment.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSource {
    /// A `.npz`, `.npy`, `.csv`, `.tsv`, `.csv.gz`, `.tsv.gz`, `.parquet`, `.safetensors` or
    /// `.h5ad` file.
    pub path: PathBuf,
    /// The file of the times, if it is not `path`: the second of a pair of `.npy` files.
    pub times_path: Option<PathBuf>,
    /// Array of samples, `[N, d]`, or `[N]` for one dimension. In a table: a name `x` for the
    /// column `x` or else the columns `x_0`, `x_1`, …; or a list `a,b,c` of columns and patterns,
    /// in which `*` stands for any characters and `?` for any single one. If no column has the
    /// default name, it selects all columns but the times. Columns without a name (row numbers, as
    /// pandas and R write them) are selected only by name. In a `.h5ad`: `obsm/X_pca`, `X`,
    /// `layers/counts`, or some genes of these: `X/GATA1,SPI1`; the default name is `obsm/X_pca`.
    pub samples: String,
    /// Array (or column) of times, `[N]`. In a `.h5ad` a column of `obs`, such as `obs/day`, of
    /// numbers, or of texts with a number in them.
    pub times: String,
    /// The rows that are read, of a table or `.h5ad`; all if `None`.
    pub only: Option<RowFilter>,
    /// Arrays or columns of conditions, the c of s(x, t, c): `[N]` or `[N, m]` numbers, in a table
    /// also words. They are no samples.
    pub conditions: Vec<String>,
    /// Array (or column) of weights, `[N]`: rows count in proportion to them, or to exp of them if
    /// the name is `log_weights`. They are no samples.
    pub weights: Option<String>,
    /// Array (or column) of known net growth rates, `[N]`, per unit of time. They are no samples.
    pub growth: Option<String>,
    /// Columns of a table that are no samples, whatever a pattern or the default name selects.
    pub beside: Vec<String>,
    /// What is excluded from training: times, in data units, or rows.
    pub hold_out: HoldOut,
    /// Map of samples to network coordinates.
    pub standardize: Standardization,
    /// Principal components in place of the columns, which may then be more than 1024.
    pub components: Option<Reduction>,
}

impl DataSource {
    /// The arrays `samples` and `times` of `path`, nothing held out, standardized isotropically.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        DataSource {
            path: path.into(),
            times_path: None,
            samples: DEFAULT_SAMPLES.into(),
            times: DEFAULT_TIMES.into(),
            only: None,
            conditions: Vec::new(),
            beside: Vec::new(),
            weights: None,
            growth: None,
            hold_out: HoldOut::default(),
            standardize: Standardization::default(),
            components: None,
        }
    }

    /// Columns of a table that are no samples, beside the times.
    pub(super) fn beside_samples(&self) -> impl Iterator<Item = &str> {
        let named = [self.hold_out.column(), self.weights.as_deref(), self.growth.as_deref()];
        let chosen_by = self.only.iter().flat_map(RowFilter::columns);
        named.into_iter().flatten().chain(chosen_by).chain(self.beside.iter().map(String::as_str))
    }

    /// The files that are read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.path), self.times_path.as_ref()].into_iter().flatten().map(PathBuf::as_path)
    }
}
