//! `.npz`: a zip archive of `.npy` arrays, each stored or deflated.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use zip::CompressionMethod;
use zip::read::ZipArchive;
use zip::result::ZipError;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::array::{Array, check_n_bytes, damaged, list, truncated};
use super::npy;
use super::write::PointArray;
use crate::error::{Error, InputKind, Result};
use crate::files::open_file;

/// Deflate cannot shrink by more than this factor (two bits stand for 258 bytes), which limits the
/// claim of a small member.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Maximum bytes of a name in a message.
const SHOWN_NAME: usize = 60;

/// An open archive.
pub(super) struct Archive {
    path: PathBuf,
    size: u64,
    zip: ZipArchive<BufReader<File>>,
    /// A second handle of the file, for the names in the local headers.
    file: File,
}

impl Archive {
    /// # Errors
    /// [`Error::Input`] if `path` is not a zip archive.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, size) = open_file(path)?;
        let mut reader = BufReader::new(file);
        let mut start = Vec::new();
        reader.by_ref().take(npy::MAGIC.len() as u64).read_to_end(&mut start).map_err(Error::io(path, "read"))?;
        reader.rewind().map_err(Error::io(path, "read"))?;
        let refuse =
            |problem: &str, fix| Err(Error::input(path, "archive", problem, fix).of_kind(InputKind::Malformed));
        match start[..] {
            [] => return refuse("is empty", "save it with numpy.savez"),
            [b'P', b'K', ..] => {}
            _ if start == npy::MAGIC => {
                return refuse("is a single .npy array", "rename it to .npy, and name its times with times_path");
            }
            [0x80, ..] => return refuse("is a Python pickle, which is never loaded", "save it with numpy.savez"),
            _ => return refuse("is not a zip archive", "save it with numpy.savez"),
        }
        let zip = ZipArchive::new(reader).map_err(|e| zip_error(path, "archive", e))?;
        let (file, _) = open_file(path)?;
        let archive = Archive { path: path.into(), size, zip, file };
        // Readers disagree about which of two equal names counts.
        let mut names = archive.names();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse(&format!("has two arrays {:?}", twice[0]), "save it again with numpy.savez");
        } else if archive.zip.has_duplicate_names() {
            return refuse("has two arrays of one name", "save it again with numpy.savez");
        }
        Ok(archive)
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
        // Search by raw names, which are hashed; other searches visit all of them.
        let index = self.zip.index_for_name_raw(format!("{name}.npy").as_bytes());
        index.or_else(|| self.zip.index_for_name_raw(name.as_bytes()))
    }

    /// The name in the local file header at `header_start` (APPNOTE 4.3.7).
    fn local_name(&self, header_start: u64) -> io::Result<Vec<u8>> {
        let mut header = [0; 30];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(header_start))?;
        file.read_exact(&mut header)?;
        let mut name = vec![0; usize::from(u16::from_le_bytes([header[26], header[27]]))];
        file.read_exact(&mut name)?;
        Ok(name)
    }

    /// Opens the array `name`.
    ///
    /// # Errors
    /// [`Error::Input`] if it does not exist, or is not one complete array.
    pub fn array(&mut self, name: &str) -> Result<Array<'_>> {
        let path = self.path.as_path();
        let refuse = |problem: String, fix: &str| Err(Error::input(path, name, problem, fix));
        let Some(index) = self.index_of(name) else {
            let fix = format!("name one that is there: {}", list(self.names()));
            return Err(Error::input(path, name, "no such array", fix).of_kind(InputKind::Missing));
        };
        let member = self.zip.by_index_data(index).map_err(|e| zip_error(path, name, e))?;
        let (stored, size) = (member.compressed_size(), member.size());
        if member.encrypted() {
            return refuse("is encrypted".into(), "save it with numpy.savez");
        }
        let (header_start, in_directory) = (member.header_start(), member.name_raw().to_vec());
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
        let before_it = self.local_name(header_start).map_err(|e| damaged(path, name, e))?;
        if before_it != in_directory {
            let problem = format!(
                "is called {:?} in the directory of the archive, {:?} where it lies",
                String::from_utf8_lossy(&in_directory),
                String::from_utf8_lossy(&before_it[..before_it.len().min(SHOWN_NAME)])
            );
            return refuse(problem, "the archive is damaged: save it again with numpy.savez");
        }
        let mut data = self.zip.by_index(index).map_err(|e| zip_error(path, name, e))?;
        let (header, n_header_bytes) = npy::read_header(path, name, &mut data)?;
        check_n_bytes(path, name, &header, size.saturating_sub(n_header_bytes))?;
        Ok(Array { file: path, name: name.into(), header, stored, data: Box::new(data), kept: None })
    }
}

fn zip_error(path: &Path, field: &str, error: ZipError) -> Error {
    match error {
        ZipError::Io(e) => damaged(path, field, e),
        ZipError::InvalidArchive(_) => {
            Error::input(path, field, format!("{error}"), "the archive is damaged or cut short: copy or save it again")
                .of_kind(InputKind::Malformed)
        }
        _ => Error::input(path, field, format!("{error}"), "save it with numpy.savez"),
    }
}

/// Writes `arrays` as members of an archive, stored.
pub(super) fn write(writer: &mut BufWriter<File>, arrays: &[PointArray<'_>]) -> io::Result<()> {
    let mut zip = ZipWriter::new(MuteAfterError { writer, failed: false, position: 0 });
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    for array in arrays {
        zip.start_file(format!("{}.npy", array.name), options)?;
        array.write_npy(&mut zip)?;
    }
    zip.finish()?;
    Ok(())
}

/// Reports the first failure, then accepts everything. An archive that is dropped after a failure
/// is finished by its writer, which would print a second failure in its own words.
struct MuteAfterError<'a> {
    writer: &'a mut BufWriter<File>,
    failed: bool,
    /// Position of a writer that had accepted everything.
    position: u64,
}

impl Write for MuteAfterError<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = if self.failed { bytes.len() } else { note_failure(self.writer.write(bytes), &mut self.failed)? };
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.failed { Ok(()) } else { note_failure(self.writer.flush(), &mut self.failed) }
    }
}

impl Seek for MuteAfterError<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            _ if !self.failed => note_failure(self.writer.seek(to), &mut self.failed)?,
            SeekFrom::Start(position) => position,
            SeekFrom::Current(offset) => self.position.saturating_add_signed(offset),
            SeekFrom::End(_) => self.position,
        };
        Ok(self.position)
    }
}

fn note_failure<T>(result: io::Result<T>, failed: &mut bool) -> io::Result<T> {
    *failed = result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
    result
}
