//! The destination of a command's result, with the files that it must not replace: checked before
//! the work, and obeyed by the write after it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, InputKind, Result};
#[cfg(feature = "h5ad")]
use crate::files::write_whole_by;
use crate::files::{IfPresent, check_writable, open_file, write_whole};
use crate::run_folder::{RunFolder, later_member};
use crate::tensors::TensorFileKind;

/// The existing files that a result may replace. A file that the same command reads, a model, a
/// checkpoint and a file of a run are never replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// None.
    Nothing,
    /// An earlier report of `amatch evaluate`.
    Reports,
    /// Any other.
    Files,
}

/// A checked place to which a result is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    path: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A file that must not exist yet.
    New,
    /// A file that may replace an existing one.
    Replaced,
    /// A device, a pipe, or an open descriptor, which takes bytes as they come.
    Stream,
}

impl Kind {
    fn if_present(self) -> IfPresent {
        match self {
            Kind::Replaced => IfPresent::Replace,
            Kind::New | Kind::Stream => IfPresent::Keep,
        }
    }
}

/// Reports are a few kilobytes; a larger file is not one.
const MAX_REPORT: u64 = 16 << 20;

impl Destination {
    /// The destination `path` of a command that reads the files `reads`. Fails early, before long
    /// work, for the reasons for which [`Destination::write`] would fail late, and leaves nothing
    /// behind.
    ///
    /// # Errors
    /// [`Error::Input`] if no file can be at `path`, or if it holds one that must not be replaced;
    /// [`Error::Io`] if its folder cannot be written to.
    pub fn check(path: &Path, reads: &[impl AsRef<Path>], replace: Replace) -> Result<Destination> {
        let refuse = |problem: String, fix: &str| Err(Error::input(path, "output path", problem, fix));
        const ANOTHER: &str = "name another file";
        let kind = match fs::metadata(path) {
            Ok(found) if found.is_dir() => Kind::New, // refused below, like any other write
            Ok(found) => {
                if let Some(read) = reads.iter().map(AsRef::as_ref).find(|read| is_same_file(path, &found, read)) {
                    return refuse(format!("is {}, which this command reads", read.display()), ANOTHER);
                }
                if !found.is_file() || is_descriptor(path) {
                    return Ok(Destination { path: path.to_owned(), kind: Kind::Stream });
                }
                match TensorFileKind::of(path) {
                    Ok(TensorFileKind::Model) => return refuse("is a model".into(), ANOTHER),
                    Ok(TensorFileKind::Components) => return refuse("holds the loadings of a model".into(), ANOTHER),
                    Ok(TensorFileKind::Checkpoint) => return refuse("is a checkpoint".into(), ANOTHER),
                    _ => Kind::Replaced,
                }
            }
            Err(_) if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) => {
                return refuse("is a link that leads nowhere".into(), "remove it, or name another file");
            }
            Err(_) => Kind::New,
        };
        if let Some(run) = run_that_owns(path) {
            return refuse(format!("belongs to the run in {}", run.display()), ANOTHER);
        }
        check_writable(path)?;
        let allowed = match replace {
            Replace::Nothing => false,
            Replace::Reports => is_report(path),
            Replace::Files => true,
        };
        if kind == Kind::Replaced && !allowed {
            let exists = refuse("already exists".into(), "name another file, or replace it with `Replace::Files`");
            return exists.map_err(|error| error.of_kind(InputKind::Exists));
        }
        Ok(Destination { path: path.to_owned(), kind })
    }

    /// The path as given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True for a device or pipe, which is not replaced as a file.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.kind == Kind::Stream
    }

    /// Writes the output of `write`: to a file whole or not at all, to a stream as it comes.
    ///
    /// # Errors
    /// [`Error::Io`] naming the path; [`Error::Input`] if a file has appeared there since the
    /// check. An old file is then untouched. A closed reader of standard output is no error.
    pub fn write(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        match self.kind {
            Kind::Stream => self.write_stream(|stream| write(stream)),
            kind => write_whole(&self.path, kind.if_present(), |file| write(file)),
        }
    }

    /// [`Destination::write`] for formats that go back to fill in sizes.
    pub(crate) fn write_seekable(&self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
        match self.kind {
            Kind::Stream => self.write_stream(|stream| {
                let mut whole = BufWriter::new(tempfile::tempfile()?);
                write(&mut whole)?;
                let mut whole = whole.into_inner().map_err(io::IntoInnerError::into_error)?;
                whole.rewind()?;
                io::copy(&mut whole, stream).map(drop)
            }),
            kind => write_whole(&self.path, kind.if_present(), write),
        }
    }

    /// [`Destination::write`] for writers that open the unfinished file themselves: `write` gets
    /// it, empty, and its path.
    #[cfg(feature = "h5ad")]
    pub(crate) fn write_file(&self, write: impl FnOnce(File, &Path) -> Result<()>) -> Result<()> {
        match self.kind {
            Kind::Stream => {
                let whole = tempfile::NamedTempFile::new().map_err(Error::io(&self.path, "create a file for"))?;
                let file = whole.reopen().map_err(Error::io(&self.path, "create a file for"))?;
                write(file, whole.path())?;
                self.write_stream(|stream| io::copy(&mut File::open(whole.path())?, stream).map(drop))
            }
            kind => write_whole_by(&self.path, kind.if_present(), write),
        }
    }

    fn write_stream(&self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
        // Append: the descriptor may be that of a file with content.
        let file = OpenOptions::new().append(true).open(&self.path).map_err(Error::io(&self.path, "open"))?;
        let is_stdout = match (file.metadata(), fs::metadata("/dev/stdout")) {
            (Ok(file), Ok(stdout)) => is_same(&file, &stdout),
            _ => false,
        };
        let mut stream = BufWriter::with_capacity(1 << 18, file);
        match write(&mut stream).and_then(|()| stream.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && is_stdout => Ok(()),
            result => result.map_err(Error::io(&self.path, "write")),
        }
    }
}

/// The path, with permission to replace any file.
impl From<&Path> for Destination {
    fn from(path: &Path) -> Self {
        Destination { path: path.to_owned(), kind: Kind::Replaced }
    }
}

/// The path, with permission to replace any file.
impl From<&PathBuf> for Destination {
    fn from(path: &PathBuf) -> Self {
        path.as_path().into()
    }
}

impl From<&Destination> for Destination {
    fn from(destination: &Destination) -> Self {
        destination.clone()
    }
}

/// True if `path`, with metadata `found`, and `other` are one file, under whatever names.
fn is_same_file(path: &Path, found: &Metadata, other: &Path) -> bool {
    match fs::metadata(other) {
        Ok(other_found) if cfg!(unix) => is_same(found, &other_found),
        // Without file numbers, at least links are resolved.
        Ok(_) => {
            fs::canonicalize(path).ok().is_some_and(|path| fs::canonicalize(other).is_ok_and(|other| path == other))
        }
        Err(_) => false,
    }
}

#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    false
}

/// True if `path` names an open descriptor, such as standard output, rather than a file.
fn is_descriptor(path: &Path) -> bool {
    ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"].iter().any(|place| path.starts_with(place))
}

/// The run folder to whose files `path` belongs, or would belong.
fn run_that_owns(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?;
    let target = fs::canonicalize(path).ok().or_else(|| {
        let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        Some(fs::canonicalize(parent).ok()?.join(name))
    })?;
    target.ancestors().skip(1).take(2).map(RunFolder::new).find_map(|run| {
        let is_run = run.config().is_file() && (run.checkpoints().is_dir() || run.model().is_file());
        let of_work = [
            run.config(),
            run.model(),
            run.loadings(),
            run.metrics(),
            run.plot(),
            run.self_test(),
            run.card(),
            run.report(),
        ];
        let files = [&of_work[..], &[run.claim(), run.takeover()]].concat();
        let first = target.strip_prefix(run.path()).ok().and_then(|inside| inside.components().next());
        let is_of_member = first.is_some_and(|name| later_member(&name.as_os_str().to_string_lossy()).is_some());
        let is_inside = [run.checkpoints(), run.events()].iter().any(|folder| target.starts_with(folder));
        let owns = files.contains(&target) || is_inside || is_of_member;
        (is_run && owns).then(|| run.path().to_owned())
    })
}

/// True if `path` holds a report of `amatch evaluate`.
fn is_report(path: &Path) -> bool {
    let Some((file, _)) = open_file(path).ok().filter(|(_, size)| *size <= MAX_REPORT) else { return false };
    let report = serde_json::from_reader::<_, serde_json::Value>(io::BufReader::new(file.take(MAX_REPORT)));
    // Of a model with conditions there is a report for each group.
    let is_one = |report: &serde_json::Value| report["comparisons"].is_array() && report["method"].is_string();
    report.is_ok_and(|report| is_one(&report) || is_one(&report["groups"][0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READS: &[&Path] = &[];

    #[test]
    fn a_file_that_came_there_since_the_check_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        let destination = Destination::check(&path, READS, Replace::Nothing).unwrap();
        fs::write(&path, b"of somebody else").unwrap();
        let error = destination.write(|out| out.write_all(b"ours")).unwrap_err().to_string();
        assert!(error.contains("out.csv: output path: appeared while"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"of somebody else");
        Destination::check(&path, READS, Replace::Files).unwrap().write(|out| out.write_all(b"ours")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ours");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file stayed behind");
    }

    #[test]
    fn only_reports_pass_for_reports() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.json");
        for (text, replaced) in [
            (r#"{"comparisons": [], "method": "euler", "seed": 0}"#, true),
            (r#"{"comparisons": 3, "method": "euler"}"#, false),
            (r#"{"name": "package"}"#, false),
            ("[1, 2]", false),
            ("", false),
        ] {
            fs::write(&path, text).unwrap();
            let checked = Destination::check(&path, READS, Replace::Reports);
            assert_eq!(checked.is_ok(), replaced, "{text}: {checked:?}");
            assert!(Destination::check(&path, READS, Replace::Nothing).is_err());
        }
    }
}
