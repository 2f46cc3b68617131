//! The claim on a run folder: only one process at a time writes there, among all machines that
//! share the file system.
//!
//! The claim is a file that names its holder. It is created by a hard link, which succeeds for only
//! one process, also on network file systems (not all of them support locks by `flock`). The holder
//! writes it again every 10 seconds. A claim is abandoned if its process is gone (as far as that
//! can be seen from this machine), if it was not written for 60 seconds by the clock of the file
//! system, or if the batch job that held it was queued again. An abandoned claim is replaced by a
//! rename, under a second claim of the same kind, so that only one of two processes that find it
//! abandoned takes it over.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::{Error, InputKind, Result};
use crate::files::{CLAIMANT, temporary_in};
use crate::process::ProcessId;
use crate::run_folder::{CLAIM, TAKEOVER};
use crate::train::folder::look_at;

/// Time between two writes by the holder.
const BEAT: Duration = Duration::from_secs(10);
/// A claim that was not written for this long is abandoned.
const ABANDONED: Duration = Duration::from_secs(60);

/// Content of a claim file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    /// [`ProcessId`] as text.
    process: String,
    /// Name of the machine, for people.
    machine: String,
    /// Process number, for people.
    pid: u32,
    /// Job of the batch system, and the number of times it was queued again.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<(String, u64)>,
    /// Distinguishes claims of one process.
    nonce: u64,
}

impl Holder {
    fn current() -> Self {
        use std::hash::{BuildHasher, RandomState};
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let job = std::env::var("SLURM_JOB_ID").ok().map(|job| (job, number("SLURM_RESTART_COUNT").unwrap_or(0)));
        let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_string();
        let process = ProcessId::current().to_string();
        // A hasher is seeded with random numbers of the system.
        Holder { process, machine, pid: std::process::id(), job, nonce: RandomState::new().hash_one(0) }
    }

    /// True if `newcomer` may take over a claim of this holder that is `age` old.
    fn is_abandoned(&self, age: Duration, newcomer: &Holder) -> bool {
        let is_queued_again = match (&self.job, &newcomer.job) {
            (Some((job, count)), Some((same, later))) => job == same && later > count,
            _ => false,
        };
        let process = ProcessId::parse(Some(&self.process));
        is_queued_again || age >= ABANDONED || process.and_then(|process| process.is_alive()) == Some(false)
    }
}

/// A run folder to which only this process writes, until dropped.
pub(super) struct Claim {
    path: PathBuf,
    holder: Holder,
    /// Folders that were created for the claim, innermost last.
    made: Vec<PathBuf>,
    lost: Arc<AtomicBool>,
    end: Arc<(Mutex<bool>, Condvar)>,
    beat: Option<JoinHandle<()>>,
}

impl Claim {
    /// Claims `folder`, and creates it if it does not exist.
    ///
    /// # Errors
    /// [`Error::Input`] if another process holds it; [`Error::Io`] if the folder cannot be created
    /// or written to.
    pub fn take(folder: &Path) -> Result<Claim> {
        Claim::take_beating(folder, BEAT)
    }

    /// [`Claim::take`] with an interval of `beat` between two writes.
    fn take_beating(folder: &Path, beat: Duration) -> Result<Claim> {
        let made = make_folder(folder)?;
        let (path, holder) = (folder.join(CLAIM), Holder::current());
        if let Err(error) = take_file(folder, &path, &holder) {
            remove_folders(&made);
            return Err(error);
        }
        let (lost, end) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut claim = Claim { path, holder, made, lost, end, beat: None };
        claim.beat = Some(claim.start_beat(beat)?);
        Ok(claim)
    }

    /// Marks that the folder holds results, so that it stays.
    pub fn keep_folder(&mut self) {
        self.made.clear();
    }

    /// Fails if another process has taken over the folder, so that nothing more is written to it.
    ///
    /// # Errors
    /// [`Error::Input`] naming the other process.
    pub fn check(&self) -> Result<()> {
        if !self.lost.load(Relaxed) {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let problem = "was taken over by another process, as this one did not answer for a minute (a suspended \
                       process, or a file system that stood still)";
        Err(Error::input(folder, "output.folder", problem, "leave it to the other process").of_kind(InputKind::InUse))
    }

    /// [`Claim::check`] with a look at the claim file itself, before a file is replaced: a
    /// suspended process may continue here before its next beat.
    ///
    /// # Errors
    /// As [`Claim::check`].
    pub fn verify(&self) -> Result<()> {
        if let Ok(found) = read(&self.path)
            && found.is_none_or(|(holder, _)| holder != self.holder)
        {
            self.lost.store(true, Relaxed);
        }
        self.check()
    }

    /// Rewrites the claim periodically on a thread of its own, because pairing and steps may take
    /// longer than a beat.
    fn start_beat(&self, interval: Duration) -> Result<JoinHandle<()>> {
        let (path, holder) = (self.path.clone(), self.holder.clone());
        let (lost, end) = (Arc::clone(&self.lost), Arc::clone(&self.end));
        let beat = move || {
            let (ended, wakes) = &*end;
            let mut guard = ended.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            loop {
                guard = match wakes.wait_timeout_while(guard, interval, |ended| !*ended) {
                    Ok((guard, _)) => guard,
                    Err(poisoned) => poisoned.into_inner().0,
                };
                if *guard {
                    return;
                }
                match read(&path) {
                    Ok(Some((found, _))) if found == holder => {
                        // A failed write is not yet a lost claim: a new holder shows in the next
                        // round.
                        let _ = write_in_place(&path, &holder);
                    }
                    Ok(_) => {
                        lost.store(true, Relaxed);
                        return;
                    }
                    Err(_) => {}
                }
            }
        };
        let spawned = std::thread::Builder::new().name("claim".into()).spawn(beat);
        spawned.map_err(Error::io(&self.path, "start a thread that keeps the claim"))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let (ended, wakes) = &*self.end;
        *ended.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = true;
        wakes.notify_all();
        if let Some(beat) = self.beat.take() {
            let _ = beat.join();
        }
        if matches!(read(&self.path), Ok(Some((found, _))) if found == self.holder) {
            let _ = fs::remove_file(&self.path);
        }
        remove_folders(&self.made);
    }
}

/// Removes folders that are empty, innermost first; the list has the outermost first.
fn remove_folders(made: &[PathBuf]) {
    for folder in made.iter().rev() {
        let _ = fs::remove_dir(folder);
    }
}

/// Creates `folder` and its parents; returns those that were created, outermost first.
fn make_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut missing = Vec::new();
    for path in folder.ancestors().take_while(|path| !path.as_os_str().is_empty()) {
        if look_at(path)?.is_some() {
            break;
        }
        missing.push(path);
    }
    let mut made = Vec::new();
    for path in missing.into_iter().rev() {
        match fs::create_dir(path) {
            Ok(()) => made.push(path.to_owned()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) => {
                remove_folders(&made);
                return Err(Error::io(path, "create the folder")(error));
            }
        }
    }
    Ok(made)
}

/// Writes `holder` to the file `path` of `folder`, which must not exist or must be abandoned.
fn take_file(folder: &Path, path: &Path, holder: &Holder) -> Result<()> {
    let unique = temporary_in(folder, CLAIMANT).map_err(Error::io(folder, "write to the folder"))?;
    write_in_place(unique.path(), holder)?;
    if link(unique.path(), path)? {
        return Ok(());
    }
    let now = modified(unique.path())?;
    let Some((found, written)) = read(path)? else {
        return Err(held(folder, None, None)); // taken over or given up at this moment
    };
    let age = now.duration_since(written).unwrap_or_default();
    if !found.is_abandoned(age, holder) {
        return Err(held(folder, Some(&found), Some(age)));
    }
    // Only one process at a time takes over, and the claim must still be the one that it found.
    let takeover = folder.join(TAKEOVER);
    if let Ok(Some((other, written))) = read(&takeover)
        && other.is_abandoned(now.duration_since(written).unwrap_or_default(), holder)
    {
        let _ = fs::remove_file(&takeover); // its process died while taking over
    }
    if !link(unique.path(), &takeover)? {
        return Err(held(folder, None, None));
    }
    let replaced = match read(path)? {
        Some((still, _)) if still == found => {
            let fresh = temporary_in(folder, CLAIMANT).map_err(Error::io(folder, "write to the folder"))?;
            write_in_place(fresh.path(), holder)?;
            fresh.into_temp_path().persist(path).map_err(|error| Error::io(path, "take over")(error.error))
        }
        _ => Err(held(folder, None, None)),
    };
    let _ = fs::remove_file(&takeover);
    replaced
}

/// The error for a folder in use.
fn held(folder: &Path, holder: Option<&Holder>, age: Option<Duration>) -> Error {
    let problem = match (holder, age) {
        (Some(Holder { machine, pid, .. }), Some(age)) => {
            format!("is in use: process {pid} on {machine} trains there, last heard of {} s ago", age.as_secs())
        }
        _ => "is in use: another process has just claimed it".into(),
    };
    let fix = "name another folder with `output.folder`, or wait: a claim ends with its process, on another machine 60 s after its last \
               sign of life";
    Error::input(folder, "output.folder", problem, fix).of_kind(InputKind::InUse)
}

/// Links `from` to `to`; false if `to` existed. A network may lose the answer to the link, so the
/// number of links decides.
fn link(from: &Path, to: &Path) -> Result<bool> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(n_links(from) > 1),
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
            // On a file system without hard links, exclusive creation is the best substitute.
            match File::create_new(to) {
                Ok(mut file) => {
                    let content = fs::read(from).map_err(Error::io(from, "read"))?;
                    file.write_all(&content).and_then(|()| file.sync_all()).map_err(Error::io(to, "write"))?;
                    Ok(true)
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(Error::io(to, "create")(error)),
            }
        }
        Err(error) => Err(Error::io(to, "claim the folder by")(error)),
    }
}

#[cfg(unix)]
fn n_links(path: &Path) -> u64 {
    fs::metadata(path).map_or(1, |found| std::os::unix::fs::MetadataExt::nlink(&found))
}

#[cfg(not(unix))]
fn n_links(_: &Path) -> u64 {
    1
}

/// The holder in the file `path`, and the time of its last write; `None` if there is no such file.
/// A file that cannot be parsed has an unknown holder: only its age decides.
fn read(path: &Path) -> Result<Option<(Holder, SystemTime)>> {
    const LONGEST: u64 = 1 << 16;
    let not_found = |error: std::io::Error| if error.kind() == ErrorKind::NotFound { Ok(None) } else { Err(error) };
    let content = || -> std::io::Result<Option<(Vec<u8>, SystemTime)>> {
        if !fs::metadata(path)?.is_file() {
            return Err(std::io::Error::other("not a regular file"));
        }
        let file = File::open(path)?;
        let written = file.metadata()?.modified()?;
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, LONGEST), &mut content)?;
        Ok(Some((content, written)))
    };
    let found = content().or_else(not_found).map_err(Error::io(path, "read"))?;
    Ok(found.map(|(content, written)| {
        let nobody =
            Holder { process: String::new(), machine: "an unknown machine".into(), pid: 0, job: None, nonce: 0 };
        (serde_json::from_slice(&content).unwrap_or(nobody), written)
    }))
}

fn modified(path: &Path) -> Result<SystemTime> {
    fs::metadata(path).and_then(|found| found.modified()).map_err(Error::io(path, "look at"))
}

/// Overwrites the content of `path` with `holder`. The server of a network file system sees the
/// write, and dates it by its own clock.
fn write_in_place(path: &Path, holder: &Holder) -> Result<()> {
    let json = serde_json::to_vec(holder).map_err(|error| Error::io(path, "write")(error.into()))?;
    let write = || -> std::io::Result<()> {
        let mut file = File::options().write(true).open(path)?;
        file.write_all(&json)?;
        file.sync_all()
    };
    write().map_err(Error::io(path, "write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other_process(folder: &Path, change: impl FnOnce(&mut Holder)) -> Holder {
        let mut holder = Holder { machine: "elsewhere".into(), process: "other-5-6".into(), ..Holder::current() };
        change(&mut holder);
        fs::write(folder.join(CLAIM), serde_json::to_vec(&holder).expect("json")).expect("written");
        holder
    }

    fn age(folder: &Path, seconds: u64) {
        let file = File::options().write(true).open(folder.join(CLAIM)).expect("opens");
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).expect("set");
    }

    #[test]
    fn a_folder_has_one_holder_and_is_as_it_was_afterwards() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path().join("a/b");
        let claim = Claim::take(&folder).expect("is free");
        let error = Claim::take(&folder).err().expect("is held");
        assert!(matches!(error, Error::Input { kind: InputKind::InUse, .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains("is in use: process") && message.contains("`output.folder`"), "{message}");
        assert_eq!(fs::read_dir(&folder).expect("lists").count(), 1, "the claim alone");
        drop(claim);
        assert!(!place.path().join("a").exists(), "folders made for the claim stayed");
        let mut claim = Claim::take(&folder).expect("is free again");
        claim.keep_folder();
        drop(claim);
        assert_eq!(fs::read_dir(&folder).expect("the folder stays").count(), 0);
    }

    #[test]
    fn of_many_who_find_an_abandoned_claim_one_takes_it_over() {
        for round in 0..20 {
            let place = tempfile::tempdir().expect("a folder");
            if round % 2 == 0 {
                other_process(place.path(), |_| ());
                age(place.path(), 61);
            }
            let taken: Vec<Option<Claim>> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| Claim::take(place.path()).ok())).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            assert_eq!(taken.iter().flatten().count(), 1, "round {round}");
        }
    }

    #[test]
    fn claims_are_taken_over_when_dead_silent_or_requeued_and_not_before() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path();
        let takes = || Claim::take(folder).is_ok();
        other_process(folder, |_| ());
        assert!(!takes(), "a process elsewhere, heard of just now");
        age(folder, 50);
        assert!(!takes(), "silent for 50 s");
        age(folder, 61);
        assert!(takes(), "silent for 61 s");
        // A dead process of this machine.
        if ProcessId::current().is_alive().is_some() {
            // Its number is in use again: by this process, which was started at another time.
            other_process(folder, |holder| holder.process = format!("{}1", ProcessId::current()));
            assert!(takes(), "its process is gone");
        }
        if ProcessId::current().is_alive().is_some() {
            let dead = other_process(folder, |holder| holder.process = format!("{}1", ProcessId::current()));
            fs::write(folder.join(TAKEOVER), serde_json::to_vec(&dead).expect("json")).expect("written");
            assert!(takes() && !folder.join(TAKEOVER).exists(), "it died while it took over");
        }
        fs::write(folder.join(CLAIM), "not json").expect("written");
        assert!(!takes(), "unreadable, but fresh");
        age(folder, 61);
        assert!(takes(), "unreadable and old");

        let holder = |job: Option<(&str, u64)>| Holder {
            process: "other-5-6".into(),
            job: job.map(|(job, count)| (job.into(), count)),
            ..Holder::current()
        };
        let old = holder(Some(("17", 0)));
        for (newcomer, wanted) in
            [(None, false), (Some(("17", 0)), false), (Some(("17", 1)), true), (Some(("18", 1)), false)]
        {
            assert_eq!(old.is_abandoned(Duration::ZERO, &holder(newcomer)), wanted, "{newcomer:?}");
        }
    }

    #[test]
    fn a_holder_that_was_replaced_writes_nothing_more() {
        let place = tempfile::tempdir().expect("a folder");
        let claim = Claim::take_beating(place.path(), Duration::from_millis(5)).expect("is free");
        age(place.path(), 50);
        let until = |condition: &dyn Fn() -> bool| {
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            while !condition() {
                assert!(std::time::Instant::now() < deadline, "nothing happened");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let seconds_old = || modified(&claim.path).map_or(0, |then| then.elapsed().unwrap_or_default().as_secs());
        until(&|| seconds_old() < 40);
        claim.check().expect("is held");
        other_process(place.path(), |_| ());
        until(&|| claim.check().is_err());
        assert!(claim.check().unwrap_err().to_string().contains("taken over"));
        drop(claim);
        assert!(place.path().join(CLAIM).exists(), "the other's claim was removed");
    }
}
