//! Safe access to files: opened only if regular, written whole or not at all (to a temporary file
//! in the same folder, synced, then renamed). Temporary files of a killed process are removed by
//! the next one that writes there.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::{Builder, NamedTempFile};

use crate::error::{Error, InputKind, Result};
use crate::process::ProcessId;

/// Opens a regular file: (file, size in bytes).
///
/// # Errors
/// [`Error::Input`] if there is no file at `path`, [`Error::Io`] if the system refuses.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64)> {
    let refuse = |problem: &str, fix: &str| Err(Error::input(path, "path", problem, fix));
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => refuse("is a folder", "name a file inside it"),
        Ok(found) if !found.is_file() => refuse("is not a regular file", "copy its content to a file"),
        Ok(found) => Ok((File::open(path).map_err(Error::io(path, "open"))?, found.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let fix = "check the name, and the folder that relative paths start from";
            Err(Error::input(path, "path", "does not exist", fix).of_kind(InputKind::Missing))
        }
        Err(e) => Err(Error::io(path, "open")(e)),
    }
}

/// Replaces `path` by the output of `write`. A reader, or a crash at any moment, sees the old file
/// or the new one.
///
/// # Errors
/// [`Error::Io`] naming `path`; the old file, if any, is unchanged.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    write_atomically_seekable(path, |writer| write(writer))
}

/// [`write_atomically`] for formats that seek back to fill in sizes.
pub(crate) fn write_atomically_seekable(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    write_whole(path, IfPresent::Replace, write)
}

/// What happens to a file that is there when the new one is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IfPresent {
    /// It is replaced.
    Replace,
    /// It stays, which is an error.
    Keep,
}

/// Writes `path` whole or not at all.
pub(crate) fn write_whole(
    path: &Path,
    if_present: IfPresent,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    write_whole_by(path, if_present, |file, _| {
        let mut writer = BufWriter::with_capacity(1 << 18, file);
        write(&mut writer).and_then(|()| writer.flush()).map_err(Error::io(path, "write"))
    })
}

/// [`write_whole`] by a writer of the unfinished file, which gets its path as well.
pub(crate) fn write_whole_by(
    path: &Path,
    if_present: IfPresent,
    write: impl FnOnce(File, &Path) -> Result<()>,
) -> Result<()> {
    let target = resolved(path)?;
    let folder = folder_of(&target);
    let temporary = temporary_in(folder, UNFINISHED).map_err(Error::io(path, "create a file beside it"))?;
    let (file, temporary_path) = temporary.into_parts();
    remove_abandoned(folder, &temporary_path);
    if let Ok(old) = fs::metadata(&target) {
        // A private file stays private.
        file.set_permissions(old.permissions()).map_err(Error::io(path, "keep the permissions of"))?;
    }
    let written = file.try_clone().map_err(Error::io(path, "write"))?;
    write(file, &temporary_path)?;
    written.sync_all().map_err(Error::io(path, "sync"))?;
    drop(written);
    let renamed = match if_present {
        IfPresent::Replace => temporary_path.persist(&target),
        IfPresent::Keep => temporary_path.persist_noclobber(&target),
    };
    renamed.map_err(|refused| match refused.error.kind() {
        io::ErrorKind::AlreadyExists if if_present == IfPresent::Keep => {
            Error::input(path, "output path", "appeared while its content was made", "name another file")
                .of_kind(InputKind::Exists)
        }
        _ => Error::io(path, "rename the finished file to it")(refused.error),
    })?;
    sync_folder(folder).map_err(Error::io(path, "sync the folder of"))
}

/// Fails early, before long work, for the reasons for which [`write_atomically`] would fail late.
/// Leaves nothing behind.
///
/// # Errors
/// [`Error::Input`] if no file can be at `path`, [`Error::Io`] if its folder cannot be written to.
pub fn check_writable(path: &Path) -> Result<()> {
    let target = resolved(path)?;
    temporary_in(folder_of(&target), UNFINISHED).map(drop).map_err(Error::io(path, "create a file beside it"))
}

/// `path` with its symbolic link resolved (otherwise the rename would replace the link), and its
/// name checked.
fn resolved(path: &Path) -> Result<PathBuf> {
    let refuse = |problem: String, fix: &str| Err(Error::input(path, "output path", problem, fix));
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match fs::metadata(&target) {
        Ok(found) if found.is_dir() => return refuse("is a folder".into(), "add a file name"),
        Ok(found) if !found.is_file() => return refuse("is not a regular file".into(), "name a file"),
        _ => {}
    }
    if target.file_name().is_none() {
        return refuse("names no file".into(), "add a file name");
    }
    let folder = folder_of(&target);
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(target),
        Ok(_) => refuse(format!("{} is not a folder", folder.display()), "put the file into a folder"),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            let missing = refuse(format!("the folder {} does not exist", folder.display()), "create it first");
            missing.map_err(|error| error.of_kind(InputKind::Missing))
        }
        Err(e) => Err(Error::io(folder, "look at the folder")(e)),
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Prefix of the names of temporary files. Process and random letters follow, then the kind.
const TEMPORARY: &str = ".amatch-";
/// Suffix of a file that is being written.
const UNFINISHED: &str = ".part";
/// Suffix of a file by which a process claims a folder.
pub(crate) const CLAIMANT: &str = ".claimant";

/// A temporary file that, once renamed, has the permissions of an ordinary new file (those of the
/// crate `tempfile` are 0600).
pub(crate) fn temporary_in(folder: &Path, suffix: &str) -> io::Result<NamedTempFile> {
    let prefix = format!("{TEMPORARY}{}-", ProcessId::current());
    let mut builder = Builder::new();
    builder.prefix(&prefix).suffix(suffix);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// True if `name` is that of a file that was being written.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.starts_with(TEMPORARY) && name.ends_with(UNFINISHED)
}

/// True if `name` is that of a temporary file of any kind.
pub(crate) fn is_temporary(name: &str) -> bool {
    is_unfinished(name) || name.starts_with(TEMPORARY) && name.ends_with(CLAIMANT)
}

/// Removes temporary files in `folder` whose process is gone. A file of another machine is removed
/// if it was last written an hour before `newest`, which was just made: only the clock of the file
/// system counts. Errors are ignored.
fn remove_abandoned(folder: &Path, newest: &Path) {
    const FORGOTTEN: Duration = Duration::from_secs(3600);
    let written = |path: &Path| fs::symlink_metadata(path).and_then(|found| found.modified()).ok();
    let Some(now) = written(newest) else { return };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_temporary(name)) else { continue };
        let process = ProcessId::parse(name[TEMPORARY.len()..].rsplit_once('-').map(|(process, _)| process));
        let abandoned = match process.map(|process| process.is_alive()) {
            Some(Some(alive)) => !alive,
            _ => written(&entry.path()).is_some_and(|then| now.duration_since(then).is_ok_and(|age| age > FORGOTTEN)),
        };
        if abandoned {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Makes the rename itself durable, if the file system can: some cannot sync folders, or only for
/// some users.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if cannot_be_synced(&error) => Ok(()),
        result => result,
    }
}

/// True if `error` says that a folder cannot be synced at all, rather than that syncing failed.
fn cannot_be_synced(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn replaces_whole_and_leaves_the_old_file_when_the_writer_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.bin");
        write_atomically(&path, |w| w.write_all(b"first")).unwrap();
        let failed = write_atomically(&path, |w| {
            w.write_all(b"half of the sec")?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), format!("{}: cannot write: disk full", path.display()));
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write_atomically(&path, |w| w.write_all(b"second")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(entries(folder.path()), 1, "a temporary file stayed behind");
    }

    #[test]
    fn check_writable_names_the_obstacle_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        for (path, wanted) in [
            (folder.path().join("missing/out.npz"), "does not exist (create it first)"),
            (folder.path().to_owned(), "is a folder (add a file name)"),
            (file.join("out.npz"), "output path"),
        ] {
            for error in [check_writable(&path).unwrap_err(), write_atomically(&path, |_| Ok(())).unwrap_err()] {
                let message = error.to_string();
                assert!(message.starts_with(&path.display().to_string()) && message.contains(wanted), "{message}");
            }
        }
        check_writable(&file).unwrap();
        check_writable(&folder.path().join("new.npz")).unwrap();
        assert_eq!(entries(folder.path()), 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn folders_that_cannot_be_synced_are_told_from_those_that_failed() {
        let [eperm, eio, eacces, einval, enospc, eopnotsupp] = [1, 5, 13, 22, 28, 95];
        for (number, wanted) in
            [(eperm, true), (eacces, true), (einval, true), (eopnotsupp, true), (eio, false), (enospc, false)]
        {
            assert_eq!(cannot_be_synced(&io::Error::from_raw_os_error(number)), wanted, "error {number}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn writes_through_a_symbolic_link_with_ordinary_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (file, link, plain) = (folder.path().join("file"), folder.path().join("link"), folder.path().join("plain"));
        fs::write(&file, b"old").unwrap();
        fs::write(&plain, b"made the ordinary way").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_atomically(&link, |w| w.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&file), mode(&plain));
        let error = check_writable(Path::new("/dev/null")).unwrap_err().to_string();
        assert!(error.contains("/dev/null: output path: is not a regular file"), "{error}");
    }
}
