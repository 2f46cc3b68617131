//! Samples grouped by time.

/// Samples of a population at several times, one snapshot per time.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshots {
    /// Dimension of a sample.
    pub dim: usize,
    /// The distinct times, increasing.
    pub times: Vec<f64>,
    /// Snapshot `k` is rows `offsets[k]..offsets[k + 1]`; length `times.len() + 1`.
    pub offsets: Vec<usize>,
    /// All rows `[offsets.last(), dim]`.
    pub samples: Vec<f32>,
}

impl Snapshots {
    /// Rows `[n, dim]` of snapshot `k`.
    pub fn rows(&self, k: usize) -> &[f32] {
        &self.samples[self.offsets[k] * self.dim..self.offsets[k + 1] * self.dim]
    }

    /// Number of rows of snapshot `k`.
    pub fn n_rows(&self, k: usize) -> usize {
        self.offsets[k + 1] - self.offsets[k]
    }
}
