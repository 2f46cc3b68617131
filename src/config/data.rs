//! `[data]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::data::{DataSource, HoldOut, RowFilter, Standardization};

/// `[data]`: the snapshots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// `.npz`, `.csv`, `.tsv` (either also `.gz`), `.parquet`, `.safetensors`, `.h5ad`, or the
    /// `.npy` of the samples; relative to the configuration file.
    pub path: PathBuf,
    /// The `.npy` of the times, for a `.npy` of samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times_path: Option<PathBuf>,
    /// Name of the samples `[N, d]` (in a table: columns, separated by commas; `*` and `?` stand
    /// for any characters and any one).
    pub samples: String,
    /// Name of the times `[N]`.
    pub times: String,
    /// The rows that are read, as in `celltype == 'HSC'`.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub only: Option<RowFilter>,
    /// Names of the conditions that the model depends on: arrays `[N]` or `[N, m]`, or columns of a
    /// table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
    /// Name of the weights `[N]`, if rows have any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Name of the net growth rates `[N]`, per unit of time, if they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth: Option<String>,
    /// Times or rows that are not trained on, for `evaluate` to predict.
    pub hold_out: HoldOut,
    /// `isotropic`, `per-dimension`, `robust` or `none`.
    pub standardize: Standardization,
    /// Number of principal components in place of the columns, 1 to 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub components: Option<usize>,
}

impl Default for DataConfig {
    fn default() -> Self {
        let DataSource { path, times_path, samples, times, conditions, weights, growth, hold_out, standardize, .. } =
            DataSource::new("");
        let (only, components) = (None, None);
        DataConfig {
            path,
            times_path,
            samples,
            times,
            only,
            conditions,
            weights,
            growth,
            hold_out,
            standardize,
            components,
        }
    }
}
