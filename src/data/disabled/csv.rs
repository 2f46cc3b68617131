//! In the place of `csv.rs` in builds without the feature `files`: no tables are written. Formats
//! are refused where their suffix is looked at (`Format::of`), so no call gets here.

use std::io::{self, Write};

use super::file::Encoding;
use super::write::PointArray;

pub(super) fn write(
    _writer: &mut dyn Write,
    _delimiter: u8,
    _encoding: Encoding,
    _arrays: &[PointArray<'_>],
    _n_rows: usize,
) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
