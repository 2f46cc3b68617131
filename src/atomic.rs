//! Files that appear whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Where [`write_atomically`] lets its caller write.
pub type Output<'a> = BufWriter<&'a mut File>;

/// Writes a file through `write`: into a temporary file beside `path`, synced, then renamed over it.
///
/// # Errors
/// [`Error::Io`] names `path`; whatever was there before is untouched.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut Output) -> std::io::Result<()>) -> Result<()> {
    let folder = folder_of(path);
    let attempt = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".amatch-").suffix(".partial").tempfile_in(folder)?;
        let mut writer = BufWriter::with_capacity(1 << 20, file.as_file_mut());
        write(&mut writer)?;
        writer.flush()?;
        drop(writer);
        readable_by_others(file.as_file())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    attempt().map_err(Error::io(path, "write"))
}

/// Checks, before long work, that a file can be created at `path`.
///
/// # Errors
/// [`Error::Io`] or [`Error::Input`] names what stands in the way.
pub fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::input(path, "output", "is a folder", "name a file"));
    }
    tempfile::Builder::new()
        .prefix(".amatch-")
        .suffix(".partial")
        .tempfile_in(folder_of(path))
        .map(drop)
        .map_err(Error::io(path, "create a file here"))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Temporary files are private; the result has the permissions any new file would have here.
#[cfg(unix)]
fn readable_by_others(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable_by_others(_file: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}

/// Makes the rename itself survive a power cut. Only Unix lets a program open a folder for that.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        write_atomically(&path, |out| out.write_all(b"first")).expect("written");
        let failed = write_atomically(&path, |out| {
            out.write_all(b"half")?;
            Err(std::io::Error::other("disk full"))
        });
        assert!(failed.expect_err("an error").to_string().contains("disk full"));
        assert_eq!(std::fs::read(&path).expect("readable"), b"first");
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1);
    }

    #[test]
    fn a_missing_folder_is_named_early() {
        let error = check_writable(Path::new("no/such/folder/file")).expect_err("an error");
        assert!(error.to_string().contains("no/such/folder/file"), "{error}");
    }
}
