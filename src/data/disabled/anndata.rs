//! In the place of `anndata/` in builds without the feature `h5ad`. Formats are refused where their
//! suffix is looked at (`Format::of`), so no call gets here.

use std::convert::Infallible;
use std::io::{self, Write};
use std::path::Path;

use super::array::Array;
use super::conditions::ConditionColumn;
use super::file::no_h5ad;
use super::hold_out::SplitValue;
use super::row_filter::RowFilter;
use super::write::PointArray;
use crate::error::Result;

pub(super) struct AnnData(Infallible);

impl AnnData {
    pub fn open(path: &Path) -> Result<Self> {
        Err(no_h5ad(path))
    }

    pub fn take_notices(&mut self) -> Vec<String> {
        match self.0 {}
    }

    pub fn keep_only(&mut self, _filter: &RowFilter) -> Result<()> {
        match self.0 {}
    }

    pub fn has(&mut self, _name: &str) -> bool {
        match self.0 {}
    }

    pub fn ids(&self, _n_rows: usize) -> Result<Vec<String>> {
        match self.0 {}
    }

    pub fn file_row(&self, _row: usize) -> usize {
        match self.0 {}
    }

    pub fn take_first(&mut self, _samples: &str, _count: usize) -> Result<()> {
        match self.0 {}
    }

    pub fn array(&mut self, _name: &str) -> Result<Array<'_>> {
        match self.0 {}
    }

    pub fn column_names(&mut self, _name: &str) -> Option<Vec<String>> {
        match self.0 {}
    }

    pub fn rows_with(&mut self, _name: &str, _value: &SplitValue) -> Result<(Vec<bool>, Vec<String>)> {
        match self.0 {}
    }

    pub fn conditions(&mut self, _names: &[String]) -> Result<Vec<ConditionColumn>> {
        match self.0 {}
    }

    pub fn describe(&mut self) -> Result<Vec<String>> {
        match self.0 {}
    }

    pub fn has_snapshots(&mut self) -> bool {
        match self.0 {}
    }
}

pub(super) fn write(_writer: &mut dyn Write, _arrays: &[PointArray<'_>]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
