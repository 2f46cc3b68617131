//! What a source asks of a file that [`super::write_points`] wrote: its names, and nothing of
//! columns that it lacks.

use super::DataSource;
use super::file::DataFile;
use super::row_mass::LOG_WEIGHTS;
use super::source::{DEFAULT_SAMPLES, DEFAULT_TIMES};
use crate::error::Result;

impl DataSource {
    /// This source, with `samples` and `times`, as [`super::write_points`] calls them, where the
    /// file has those and not what the source names, and a sentence about it: particles of a run
    /// are read by its source, of which only the path changes.
    ///
    /// # Errors
    /// As [`super::load`] for a file that cannot be opened.
    pub fn with_written_names(self) -> Result<(DataSource, Option<String>)> {
        let mut file = DataFile::open(&self.path)?;
        let (mut source, mut missing) = (self.clone(), Vec::new());
        if !file.has_times(&self.times) && file.has_times(DEFAULT_TIMES) {
            missing.push(std::mem::replace(&mut source.times, DEFAULT_TIMES.into()));
        }
        if !file.has_samples(&self.samples, &source.times) && file.has_samples(DEFAULT_SAMPLES, &source.times) {
            missing.push(std::mem::replace(&mut source.samples, DEFAULT_SAMPLES.into()));
        }
        let said = (!missing.is_empty()).then(|| {
            let (path, missing) = (self.path.display(), missing.join(" and no "));
            format!("{path}: has no {missing}, so it is read by the names under which particles are written")
        });
        Ok((source, said))
    }

    /// This source, with the weights that [`super::write_points`] wrote for particles of a growing
    /// population, where the file has those and the source names none, and a sentence about it.
    ///
    /// # Errors
    /// As [`super::load`] for a file that cannot be opened.
    pub fn with_written_weights(mut self) -> Result<(DataSource, Option<String>)> {
        let has_weights = || Ok(DataFile::open(&self.path)?.has_column(LOG_WEIGHTS));
        if self.weights.is_some() || !has_weights()? {
            return Ok((self, None));
        }
        let said = format!("{}: its rows count by exp({LOG_WEIGHTS}), as particles that grow do", self.path.display());
        self.weights = Some(LOG_WEIGHTS.into());
        Ok((self, Some(said)))
    }

    /// This source without the filter, weights and growth rates whose columns the file lacks, and
    /// what that means, one sentence each.
    ///
    /// # Errors
    /// As [`super::load`] for a file that cannot be opened.
    pub fn without_missing_columns(mut self) -> Result<(DataSource, Vec<String>)> {
        let mut file = DataFile::open(&self.path)?;
        let path = self.path.display().to_string();
        let mut said = Vec::new();
        let mut missing = |column: &str| !file.has_values(column);
        let of_filter = self.only.as_ref().and_then(|filter| filter.columns().find(|column| missing(column)));
        if let Some(column) = of_filter {
            said.push(format!("{path}: has no column {column}, so all its rows are taken, whatever data.where says"));
            self.only = None;
        }
        if let Some(column) = self.weights.take_if(|column| missing(column)) {
            said.push(format!("{path}: has no weights {column}: its rows count alike"));
        }
        if let Some(column) = self.growth.take_if(|column| missing(column)) {
            said.push(format!("{path}: has no growth rates {column}: they are not used"));
        }
        Ok((self, said))
    }
}
