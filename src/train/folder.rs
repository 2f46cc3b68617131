//! The run folder: its files, its state, and a way to replace them that no interruption can
//! corrupt.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::card;
use super::checkpoint;
use super::events::list_events;
use crate::error::{Error, Result};
use crate::files::{is_temporary, is_unfinished};
use crate::run_folder::{CLAIM, MemberFiles, RunFolder, TAKEOVER, later_member};

impl RunFolder {
    /// The files of a run without its checkpoints. The configuration, which makes the folder a run
    /// folder, is last.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let members = self.members()?;
        let mut files = vec![self.report(), self.self_test()];
        files.extend(members.iter().map(MemberFiles::model));
        files.extend([self.loadings(), self.plot()]);
        files.extend(members.iter().map(MemberFiles::metrics));
        files.push(self.config());
        Ok(files)
    }

    /// The members of an ensemble that have files here, and the first one in any case.
    fn members(&self) -> Result<Vec<MemberFiles>> {
        let names = names(self.path())?;
        let numbers: BTreeSet<usize> = names.iter().filter_map(|name| later_member(name)).chain([1]).collect();
        Ok(numbers.into_iter().map(|number| self.member(number)).collect())
    }

    /// Number of the last member of an ensemble that has files here; at least 1.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be listed.
    pub(super) fn last_member(&self) -> Result<usize> {
        Ok(names(self.path())?.iter().filter_map(|name| later_member(name)).max().unwrap_or(1))
    }

    /// State of the folder.
    ///
    /// # Errors
    /// [`Error::Input`] if the path is a file, [`Error::Io`] if the folder cannot be listed.
    pub(super) fn content(&self) -> Result<Content> {
        let path = self.path();
        if look_at(path)?.is_some_and(|found| !found.is_dir()) {
            return Err(Error::input(path, "output.folder", "is a file", "name another folder with `output.folder`"));
        }
        let checkpoints: Vec<PathBuf> = self.members()?.iter().map(MemberFiles::checkpoints).collect();
        for folder in &checkpoints {
            if !list_checkpoints(folder)?.is_empty() {
                return Ok(Content::Run);
            }
        }
        let (all, files) = (names(path)?, self.files()?);
        if all.iter().any(|name| files.contains(&path.join(name))) {
            return Ok(Content::Run);
        }
        let folders = [checkpoints, self.members()?.iter().map(MemberFiles::events).collect()].concat();
        for name in all {
            let place = path.join(&name);
            let is_folder = folders.contains(&place) && look_at(&place)?.is_some_and(|found| found.is_dir());
            let is_unused = is_folder && names(&place)?.iter().all(|name| is_leftover(name));
            if !(is_leftover(&name) || is_unused) {
                return Ok(Content::Foreign);
            }
        }
        Ok(Content::Nothing)
    }

    /// True if a process holds a claim on the folder, or died while holding it.
    ///
    /// # Errors
    /// [`Error::Io`] if the system cannot tell: an unreadable claim must not count as missing.
    pub(super) fn is_claimed(&self) -> Result<bool> {
        Ok(look_at(&self.claim())?.is_some())
    }

    /// Removes the run. Folders, links and files that do not belong to a run stay. If this is
    /// interrupted at any point, the rest is still a run that can be replaced or resumed: metrics
    /// stay as long as there is a checkpoint to continue them.
    ///
    /// # Errors
    /// [`Error::Io`] names the file that cannot be removed.
    pub(super) fn clear(&self) -> Result<()> {
        let (members, files) = (self.members()?, self.files()?);
        let mut old = Vec::new();
        for member in &members {
            old.extend(list_checkpoints(&member.checkpoints())?);
        }
        for member in &members {
            old.extend(list_events(&member.events())?);
        }
        self.remove_card()?;
        for file in old.into_iter().chain(files) {
            remove(&file)?;
        }
        // A folder that holds files of others stays.
        members.iter().for_each(|member| drop(fs::remove_dir(member.events())));
        members.iter().skip(1).for_each(|member| drop(fs::remove_dir(member.checkpoints())));
        Ok(())
    }

    /// Removes the card, unless a person wrote or changed it.
    fn remove_card(&self) -> Result<()> {
        if card::is_unchanged(&self.card()) { remove(&self.card()) } else { Ok(()) }
    }

    /// Creates the folders of `n_members` members, and removes the half-written files of dead
    /// processes, and the test, the report and the card of models that are about to change. Call it
    /// under the claim, which excludes other writers.
    ///
    /// # Errors
    /// [`Error::Io`] names the folder or file.
    pub(super) fn tidy(&self, n_members: usize) -> Result<()> {
        remove(&self.report())?;
        remove(&self.self_test())?;
        self.remove_card()?;
        let mut folders = vec![self.path().to_owned()];
        for number in 1..=n_members {
            for folder in [self.member(number).checkpoints(), self.member(number).events()] {
                fs::create_dir_all(&folder).map_err(Error::io(&folder, "create the folder"))?;
                folders.push(folder);
            }
        }
        for folder in &folders {
            for name in names(folder)?.iter().filter(|name| is_unfinished(name)) {
                remove(&folder.join(name))?;
            }
        }
        Ok(())
    }
}

/// State of a folder before a run starts there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing, or the remains of a run that was killed at its very start.
    Nothing,
    /// A run, or some of its files.
    Run,
    /// Files that do not belong to a run.
    Foreign,
}

/// Metadata of the file at `path`, through links; `None` if there is none. A system error is not
/// taken for a missing file.
///
/// # Errors
/// [`Error::Io`] if the system cannot tell.
pub(super) fn look_at(path: &Path) -> Result<Option<fs::Metadata>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::io(path, "look at")(error)),
    }
}

/// True if `name` is that of a file which is not a result.
fn is_leftover(name: &str) -> bool {
    name == CLAIM || name == TAKEOVER || is_temporary(name)
}

/// The checkpoints in `folder`; none if there is no such folder.
fn list_checkpoints(folder: &Path) -> Result<Vec<PathBuf>> {
    match look_at(folder)? {
        Some(found) if found.is_dir() => checkpoint::list(folder),
        _ => Ok(Vec::new()),
    }
}

/// Names in `folder`; none if there is no such folder. Names that are not UTF-8, which cannot
/// belong to a run, are converted with replacements.
fn names(folder: &Path) -> Result<Vec<String>> {
    if look_at(folder)?.is_none() {
        return Ok(Vec::new());
    }
    let list = || -> std::io::Result<Vec<String>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    list().map_err(Error::io(folder, "list"))
}

/// Removes the file `path` if it exists.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "remove")(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_start_leaves_is_nothing_and_part_of_a_run_is_a_run() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::new(place.path().join("run"));
        let content = || folder.content().expect("lists");
        let write = |name: &str| fs::write(folder.path().join(name), "x").expect("written");
        assert_eq!(content(), Content::Nothing);
        fs::create_dir_all(folder.checkpoints()).expect("made");
        write(CLAIM);
        write(".amatch-1-2-3-abc.part");
        assert_eq!(content(), Content::Nothing);
        folder.tidy(1).expect("tidies");
        assert!(!folder.path().join(".amatch-1-2-3-abc.part").exists());
        write("notes.txt");
        assert_eq!(content(), Content::Foreign);
        write("checkpoints/step-0000000010.safetensors");
        assert_eq!(content(), Content::Run);
        for name in [
            "config.toml",
            "model.safetensors",
            "loadings.safetensors",
            "metrics.jsonl",
            "loss.svg",
            "selftest.json",
            "report.html",
        ] {
            write(name);
        }
        for name in ["model-2.safetensors", "metrics-3.jsonl"] {
            write(name);
        }
        folder.tidy(3).expect("tidies");
        write("checkpoints-3/step-0000000010.safetensors");
        write("tensorboard/events.out.tfevents.1700000000");
        write("checkpoints/step-best.safetensors");
        folder.clear().expect("clears");
        // Files that do not belong to a run stay.
        assert_eq!(fs::read_dir(folder.checkpoints()).expect("lists").count(), 1);
        assert!(!folder.member(3).checkpoints().exists() && !folder.events().exists());
        assert!(folder.path().join("notes.txt").exists());
        assert_eq!(content(), Content::Foreign);
        fs::write(place.path().join("file"), "").expect("written");
        let error = RunFolder::new(place.path().join("file")).content().unwrap_err().to_string();
        assert!(error.contains("is a file"), "{error}");
    }

    /// A link to itself is neither present nor absent.
    #[cfg(unix)]
    #[test]
    fn a_claim_that_cannot_be_seen_is_an_error() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::new(place.path());
        assert!(!folder.is_claimed().expect("no claim"));
        std::os::unix::fs::symlink(CLAIM, folder.claim()).expect("linked");
        let error = folder.is_claimed().expect_err("a link to itself").to_string();
        assert!(error.contains(CLAIM), "{error}");
    }

    /// After any number of removals, the folder is still that of a run.
    #[cfg(unix)]
    #[test]
    fn checkpoints_go_first_and_the_configuration_last() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::new(place.path());
        fs::create_dir(folder.checkpoints()).expect("made");
        for file in folder.files().expect("lists") {
            fs::write(file, "").expect("written");
        }
        // A folder in place of a checkpoint cannot be removed as a file.
        fs::create_dir(folder.checkpoints().join("step-0000000010.safetensors")).expect("made");
        assert!(folder.clear().is_err());
        assert!(folder.config().exists() && folder.metrics().exists(), "metrics go before a checkpoint");
        assert_eq!(folder.content().expect("lists"), Content::Run);
        fs::remove_dir(folder.checkpoints().join("step-0000000010.safetensors")).expect("removed");
        fs::remove_file(folder.metrics()).expect("removed");
        fs::create_dir(folder.metrics()).expect("made");
        assert!(folder.clear().is_err());
        assert!(folder.config().exists() && !folder.model().exists(), "the configuration goes before the rest");
        assert_eq!(folder.content().expect("lists"), Content::Run);
    }
}
