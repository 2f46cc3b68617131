//! What to read, as a configuration names it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How samples become network coordinates. Statistics are those of the training snapshots, all their rows weighing
/// the same; deviations are those of the population (divided by n).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standardization {
    /// Mean 0 in each dimension, one scale for all: the root of the mean variance. Keeps angles and the geometry of
    /// transport.
    #[default]
    Isotropic,
    /// Mean 0 and deviation 1 in each dimension.
    PerDimension,
    /// Median 0 in each dimension, and the distance of its quartiles that of a standard normal's,
    /// 1.349: a few values far out move neither. A dimension whose quartiles are equal has
    /// deviation 1.
    Robust,
    /// Samples stay as they are.
    None,
}

/// A data set of snapshots: files, names of the arrays, and what to do with them.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSource {
    /// A `.npz`, `.npy`, `.csv`, `.tsv`, `.csv.gz`, `.tsv.gz` or `.safetensors` file.
    pub path: PathBuf,
    /// The file of the times, where it is not `path`: the second of a pair of `.npy` files.
    pub times_path: Option<PathBuf>,
    /// Array of samples, `[N, d]`, or `[N]` for one dimension. Of a table: a name `x` for the
    /// column `x` or else the columns `x_0`, `x_1`, …; a list `a,b,c` of columns and patterns, in
    /// which `*` stands for any characters and `?` for any one; the default takes all columns but
    /// the times where none bears its name. Columns without a name (row numbers, as pandas and R
    /// write them) are taken only by name.
    pub samples: String,
    /// Array (or column) of times, `[N]`.
    pub times: String,
    /// Times kept from training, in data units: neither the first nor the last.
    pub hold_out: Vec<f64>,
    /// How samples become network coordinates.
    pub standardize: Standardization,
}

impl DataSource {
    /// The arrays `samples` and `times` of `path`, nothing held out, standardized isotropically.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        DataSource {
            path: path.into(),
            times_path: None,
            samples: "samples".into(),
            times: "times".into(),
            hold_out: Vec::new(),
            standardize: Standardization::default(),
        }
    }

    /// The files that are read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.path), self.times_path.as_ref()].into_iter().flatten().map(PathBuf::as_path)
    }
}
