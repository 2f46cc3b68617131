//! `.npz`: a zip of `.npy` members, stored or deflated.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use zip::{CompressionMethod, ZipArchive};

use super::array::{ArrayFile, ArrayInfo, missing};
use super::npy::Header;
use crate::error::{Error, Result};

/// Most bytes that one deflated byte can stand for (the format's limit is 1032).
const MAX_INFLATION: u64 = 1040;

/// An open `.npz`.
pub(super) struct Npz {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
}

impl Npz {
    /// Opens `path` and reads the directory of its members.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let archive = ZipArchive::new(BufReader::with_capacity(1 << 18, file)).map_err(|error| {
            Error::input(path, "zip directory", format!("cannot be read: {error}"), "give a file of numpy.savez")
        })?;
        Ok(Npz { path: path.to_owned(), archive })
    }

    /// Header of member `name`, its reader just behind, and how it is compressed.
    fn member<T>(
        &mut self,
        name: &str,
        then: impl FnOnce(Header, &mut dyn std::io::Read) -> std::io::Result<T>,
    ) -> Result<(T, &'static str)> {
        let (path, names) = (self.path.clone(), self.names());
        let Some(index) = self.archive.index_for_name(&format!("{name}.npy")) else {
            return Err(missing(&path, name, &names));
        };
        let fail = |problem: String, fix: &str| Error::input(&path, name, problem, fix);
        let mut member = self.archive.by_index(index).map_err(|error| {
            fail(format!("cannot be opened: {error}"), "save it with numpy.savez or numpy.savez_compressed")
        })?;
        let (available, compression) = match member.compression() {
            CompressionMethod::Stored => (member.size().min(member.compressed_size()), ""),
            CompressionMethod::Deflated => {
                let possible = member.compressed_size().saturating_mul(MAX_INFLATION);
                (member.size().min(possible), ", deflated")
            }
            other => return Err(fail(format!("is compressed with {other}"), "store or deflate it")),
        };
        let header = Header::read(&mut member, available, &path, name)?;
        let result = then(header, &mut member)
            .map_err(|error| fail(format!("is truncated or altered: {error}"), "save the file again"))?;
        Ok((result, compression))
    }
}

impl ArrayFile for Npz {
    fn path(&self, _name: &str) -> PathBuf {
        self.path.clone()
    }

    fn names(&self) -> Vec<String> {
        let names = self.archive.file_names().filter_map(|name| name.ok());
        names.map(|name| name.strip_suffix(".npy").unwrap_or(&name).to_string()).collect()
    }

    fn info(&mut self, name: &str) -> Result<ArrayInfo> {
        let (mut info, compression) = self.member(name, |header, _| Ok(header.info))?;
        info.storage += compression;
        Ok(info)
    }

    fn for_each(&mut self, name: &str, sink: &mut dyn FnMut(f64)) -> Result<()> {
        self.member(name, |header, reader| {
            header.decode(reader, sink)?;
            // Reading to the end lets the archive compare its checksum.
            std::io::copy(reader, &mut std::io::sink()).map(drop)
        })?;
        Ok(())
    }
}
