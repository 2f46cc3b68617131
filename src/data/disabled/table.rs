//! In the place of `table.rs` in builds without the feature `files`: there are no tables. Formats
//! are refused where their suffix is looked at (`Format::of`), so no call gets here.

use std::convert::Infallible;
use std::path::Path;

use super::array::{Meter, Rows};
use super::conditions::ConditionColumn;
use super::file::{Encoding, Features, no_files, no_parquet};
use super::grouping::RowTimes;
use super::hold_out::SplitValue;
use super::row_filter::RowFilter;
use crate::error::Result;

pub(super) struct Table(Infallible);

impl Table {
    pub fn open_text(path: &Path, _encoding: Encoding) -> Result<Self> {
        Err(no_files(path))
    }

    pub fn open_parquet(path: &Path) -> Result<Self> {
        Err(no_parquet(path))
    }

    pub fn names(&self) -> &[String] {
        match self.0 {}
    }

    pub fn file_row(&self, _row: usize) -> usize {
        match self.0 {}
    }

    pub fn times_column<'a>(&'a self, _times: &'a str) -> &'a str {
        match self.0 {}
    }

    pub fn take_notices(&mut self) -> Vec<String> {
        match self.0 {}
    }

    pub fn leave_out(&mut self, _column: &str) {
        match self.0 {}
    }

    pub fn rows_with(
        &self,
        _column: &str,
        _value: &SplitValue,
        _meter: &mut Meter<'_>,
    ) -> Result<(Vec<bool>, Vec<String>)> {
        match self.0 {}
    }

    pub fn values(&self, _name: &str, _what: &str, _meter: &mut Meter<'_>) -> Result<Vec<f64>> {
        match self.0 {}
    }

    pub fn row_times(&self, _times: &str, _meter: &mut Meter<'_>) -> Result<Vec<f64>> {
        match self.0 {}
    }

    pub fn has_column(&self, _name: &str) -> bool {
        match self.0 {}
    }

    pub fn has_samples(&self, _samples: &str, _times: &str) -> bool {
        match self.0 {}
    }

    pub fn ids(&self, _n_rows: usize, _meter: &mut Meter<'_>) -> Result<Option<Vec<String>>> {
        match self.0 {}
    }

    pub fn n_columns(&mut self, _samples: &str, _times: &str) -> Result<usize> {
        match self.0 {}
    }

    pub fn shape(&mut self, _samples: &str, _times: &str, _meter: &mut Meter<'_>) -> Result<(usize, usize)> {
        match self.0 {}
    }

    pub fn times(&mut self, _samples: &str, _name: &str, _meter: &mut Meter<'_>) -> Result<RowTimes> {
        match self.0 {}
    }

    pub fn features(&mut self, _samples: &str, _times: &str, _meter: &mut Meter<'_>) -> Result<Features> {
        match self.0 {}
    }

    pub fn keep_only(&mut self, _filter: &RowFilter) -> Result<()> {
        match self.0 {}
    }

    pub fn origin_of(
        &mut self,
        _samples: &str,
        _times: &str,
        _wanted: impl Fn(usize) -> bool,
        _meter: &mut Meter<'_>,
    ) -> Result<Vec<f64>> {
        match self.0 {}
    }

    pub fn without_conditions(&mut self, _conditions: &[String]) {
        match self.0 {}
    }

    pub fn conditions(&self, _conditions: &[String], _meter: &mut Meter<'_>) -> Result<Vec<ConditionColumn>> {
        match self.0 {}
    }

    pub fn read_rows(&mut self, _: &str, _: &str, _rows: &mut Rows<'_>, _meter: &mut Meter<'_>) -> Result<()> {
        match self.0 {}
    }
}
