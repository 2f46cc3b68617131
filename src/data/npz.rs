//! `.npz`: a zip archive of `.npy` arrays, each stored or deflated.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use zip::CompressionMethod;
use zip::read::ZipArchive;
use zip::result::ZipError;

use super::array::{Array, check_n_bytes, damaged, list, truncated};
use super::npy;
use crate::error::{Error, Result};
use crate::files::open_file;

/// Deflate cannot shrink by more than this (two bits stand for 258 bytes): the limit on what a small member may claim.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// An open archive.
pub(super) struct Archive {
    path: PathBuf,
    size: u64,
    zip: ZipArchive<BufReader<File>>,
}

impl Archive {
    /// # Errors
    /// [`Error::Input`] when `path` is no zip archive.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, size) = open_file(path)?;
        let mut reader = BufReader::new(file);
        let mut start = Vec::new();
        reader.by_ref().take(npy::MAGIC.len() as u64).read_to_end(&mut start).map_err(Error::io(path, "read"))?;
        reader.rewind().map_err(Error::io(path, "read"))?;
        let refuse = |problem: &str, fix| Err(Error::input(path, "archive", problem, fix));
        match start[..] {
            [] => return refuse("is empty", "save it with numpy.savez"),
            [b'P', b'K', ..] => {}
            _ if start == npy::MAGIC => {
                return refuse("is a single .npy array", "rename it to .npy, and name its times with times_path");
            }
            [0x80, ..] => return refuse("is a Python pickle, which is never loaded", "save it with numpy.savez"),
            _ => return refuse("is not a zip archive", "save it with numpy.savez"),
        }
        match ZipArchive::new(reader) {
            Ok(zip) => Ok(Archive { path: path.into(), size, zip }),
            Err(e) => Err(zip_error(path, "archive", e)),
        }
    }

    /// Names of the arrays, in the order of the archive.
    pub fn names(&self) -> Vec<String> {
        let names = self.zip.file_names_raw().map(|name| String::from_utf8_lossy(name).into_owned());
        names.map(|name| name.strip_suffix(".npy").map_or(name.clone(), Into::into)).collect()
    }

    /// How the array is compressed.
    pub fn compression(&self, name: &str) -> &'static str {
        match self.index_of(name).and_then(|i| self.zip.by_index_data(i).ok()).map(|member| member.compression()) {
            Some(CompressionMethod::Stored) => "stored",
            Some(CompressionMethod::Deflated) => "deflated",
            _ => "unknown compression",
        }
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.zip.index_for_name(&format!("{name}.npy")).or_else(|| self.zip.index_for_name(name))
    }

    /// Opens the array `name`.
    ///
    /// # Errors
    /// [`Error::Input`] when it is not there, or not one complete array.
    pub fn array(&mut self, name: &str) -> Result<Array<'_>> {
        let path = self.path.as_path();
        let refuse = |problem: String, fix: &str| Err(Error::input(path, name, problem, fix));
        let Some(index) = self.index_of(name) else {
            let fix = format!("name one that is there: {}", list(self.names()));
            return Err(Error::input(path, name, "no such array", fix));
        };
        let member = self.zip.by_index_data(index).map_err(|e| zip_error(path, name, e))?;
        let (stored, size) = (member.compressed_size(), member.size());
        if member.encrypted() {
            return refuse("is encrypted".into(), "save it with numpy.savez");
        }
        if stored > self.size {
            return Err(truncated(path, name, format!("claims {stored} bytes of a file of {}", self.size)));
        }
        let possible = match member.compression() {
            CompressionMethod::Stored => stored,
            CompressionMethod::Deflated => stored.saturating_mul(MAX_DEFLATE_RATIO),
            other => {
                return refuse(
                    format!("is compressed with {other}"),
                    "save it with numpy.savez or numpy.savez_compressed",
                );
            }
        };
        if size > possible {
            return refuse(
                format!("claims {size} bytes, which its {stored} compressed bytes cannot hold"),
                "the archive is damaged: save it again",
            );
        }
        let mut data = self.zip.by_index(index).map_err(|e| zip_error(path, name, e))?;
        let (header, n_header_bytes) = npy::read_header(path, name, &mut data)?;
        check_n_bytes(path, name, &header, size.saturating_sub(n_header_bytes))?;
        Ok(Array { file: path, name: name.into(), header, data: Box::new(data) })
    }
}

fn zip_error(path: &Path, field: &str, error: ZipError) -> Error {
    match error {
        ZipError::Io(e) => damaged(path, field, e),
        ZipError::InvalidArchive(_) => {
            Error::input(path, field, format!("{error}"), "the archive is damaged or cut short: copy or save it again")
        }
        _ => Error::input(path, field, format!("{error}"), "save it with numpy.savez"),
    }
}
