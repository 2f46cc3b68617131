//! The other ranks of a training on several GPUs of this machine: processes that rank 0, which the
//! user has started, starts and ends.
//!
//! A child is what `torchrun` would have started: the same program with the same arguments, but for
//! its GPU, and with the variables of `torchrun`. It has a process group of its own, so that the
//! terminal's Ctrl-C reaches rank 0 alone, which tells the others ([`Signals::of_follower`]). None
//! outlives rank 0: it ends them, and the system does if it is killed (Linux), or they notice that
//! it is gone (`ranks/liveness.rs`).
//!
//! [`Signals::of_follower`]: super::signal::Signals::of_follower

use std::ffi::OsString;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use action_matching::ranks::environment::{Launcher, World};
use action_matching::stage::Watch;
use anyhow::{Context, bail};

use super::exit;

/// Bytes of the last lines of a rank that are kept.
const KEPT: usize = 2048;

/// Time between two looks at children that are about to end.
const PAUSE: Duration = Duration::from_millis(20);

/// Starts this program once for each of `devices` but the first, with `arguments`, those of this
/// process, in which `--device cuda:N` takes the place of `--devices LIST`. This process is rank 0,
/// on the first of `devices`. Must be called by a thread that lives as long as the training.
///
/// # Errors
/// For a process that a launcher has started as one of several, and if the system starts none.
pub fn start(devices: &[usize], arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<(World, Children)> {
    if let Some(world) = World::from_environment()?.filter(|world| world.size > 1) {
        bail!(
            "--devices: this process is rank {} of {}, which {} has started (leave --devices out, or start one process)",
            world.rank,
            world.size,
            world.launcher
        );
    }
    let program = std::env::current_exe().context("cannot find this program, to start its other ranks")?;
    start_program(&program, devices, &arguments.into_iter().collect::<Vec<_>>())
}

fn start_program(program: &Path, devices: &[usize], arguments: &[OsString]) -> anyhow::Result<(World, Children)> {
    let (host, size) = ("127.0.0.1".to_owned(), devices.len());
    // Free now; if another program takes it before rank 0 does, that is an error which says so.
    let port = TcpListener::bind((&*host, 0)).and_then(|free| free.local_addr());
    let port = port.context("cannot find a port at which the ranks could meet")?.port();
    let children = Children::default();
    for (rank, &device) in devices.iter().enumerate().skip(1) {
        let mut command = Command::new(program);
        command.args(on_device(arguments, device));
        let variables = [("RANK", rank), ("WORLD_SIZE", size), ("LOCAL_RANK", device), ("MASTER_PORT", port.into())];
        command.envs(variables.map(|(name, value)| (name, value.to_string()))).env("MASTER_ADDR", &host);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        stands_apart(&mut command);
        let mut process = command.spawn().with_context(|| format!("rank {rank} on GPU {device} does not start"))?;
        let reader = process.stderr.take().map(|stderr| std::thread::spawn(move || tail(stderr)));
        children.lock().push(Started { rank, device, process, reader, said: String::new() });
    }
    let local_rank = devices.first().copied().unwrap_or(0);
    Ok((World { rank: 0, size, local_rank, host, port, launcher: Launcher::Program }, children))
}

/// `arguments` with `--device cuda:N` for `--devices LIST`.
fn on_device(arguments: &[OsString], device: usize) -> Vec<OsString> {
    let of_one = || ["--device".into(), format!("cuda:{device}").into()];
    let mut changed: Vec<OsString> = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("--devices") => {
                rest.next();
                changed.extend(of_one());
            }
            Some(text) if text.starts_with("--devices=") => changed.extend(of_one()),
            // No options follow.
            Some("--") => {
                changed.push(argument.clone());
                changed.extend(rest.by_ref().cloned());
            }
            _ => changed.push(argument.clone()),
        }
    }
    changed
}

/// Signals of the terminal do not reach the process, and on Linux it is killed if this one is.
#[cfg(target_os = "linux")]
fn stands_apart(command: &mut Command) {
    use std::ffi::{c_int, c_ulong};
    use std::io;
    use std::os::unix::process::{CommandExt, parent_id};

    const PR_SET_PDEATHSIG: c_int = 1;
    const SIGKILL: c_ulong = 9;
    unsafe extern "C" {
        // By hand, as no crate that is a dependency anyway exports it.
        fn prctl(option: c_int, ...) -> c_int;
    }

    let parent = std::process::id();
    let follow = move || {
        // SAFETY: `PR_SET_PDEATHSIG` takes the number of a signal.
        if unsafe { prctl(PR_SET_PDEATHSIG, SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // It may have ended before.
        if parent_id() == parent { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
    };
    command.process_group(0);
    // SAFETY: `follow` makes two system calls, and allocates and locks nothing.
    unsafe { command.pre_exec(follow) };
}

#[cfg(all(unix, not(target_os = "linux")))]
fn stands_apart(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

#[cfg(not(unix))]
fn stands_apart(_command: &mut Command) {}

/// The last lines that come.
fn tail(mut from: impl Read) -> String {
    let (mut kept, mut bytes) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        kept.extend(&bytes[..n]);
        if kept.len() > KEPT {
            kept.drain(..kept.len() - KEPT);
        }
    }
    let text = String::from_utf8_lossy(&kept);
    // The first line has lost its beginning.
    let whole = if kept.len() < KEPT { &text } else { text.split_once('\n').map_or(&*text, |(_, rest)| rest) };
    whole.trim_end().to_owned()
}

/// The other ranks. Dropping it ends them at once.
#[derive(Default)]
pub struct Children(Mutex<Vec<Started>>);

/// A process.
struct Started {
    rank: usize,
    device: usize,
    process: Child,
    /// Reads what it says, until it has ended.
    reader: Option<JoinHandle<String>>,
    /// Its last lines, once that is done.
    said: String,
}

impl Started {
    /// What is wrong with the rank, which has ended with `status`; `None` if nothing is.
    fn failure(&mut self, status: ExitStatus) -> Option<String> {
        if status.success() {
            return None;
        }
        if let Some(reader) = self.reader.take() {
            self.said = reader.join().unwrap_or_default();
        }
        let lines = match &self.said[..] {
            "" => "it has said nothing".to_owned(),
            said => format!("its last lines:\n{said}"),
        };
        Some(format!("rank {} on GPU {} has ended with {status}; {lines}", self.rank, self.device))
    }
}

impl Children {
    fn lock(&self) -> MutexGuard<'_, Vec<Started>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The failure of a rank that has ended by itself, with its last lines. Ranks that have only
    /// noticed that another is gone come last.
    pub fn failure(&self) -> Option<String> {
        let mut children = self.lock();
        let ended = children.iter_mut().filter_map(|child| Some((child.process.try_wait().ok()??, child)));
        let mut ended: Vec<(ExitStatus, &mut Started)> = ended.filter(|(status, _)| !status.success()).collect();
        ended.sort_by_key(|(status, _)| status.code() == Some(exit::INTERRUPTED.into()));
        ended.into_iter().next().and_then(|(status, child)| child.failure(status))
    }

    /// Waits until all have ended, once rank 0 has; those that have not after `patience` are ended.
    ///
    /// # Errors
    /// Names a rank that has failed, with its last lines, or that has not ended.
    pub fn wait(self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        let running = || -> Vec<String> {
            let mut children = self.lock();
            let named = |child: &mut Started| {
                let is_running = matches!(child.process.try_wait(), Ok(None));
                is_running.then(|| format!("{} on GPU {}", child.rank, child.device))
            };
            children.iter_mut().filter_map(named).collect()
        };
        let mut late = running();
        while !late.is_empty() && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
            late = running();
        }
        if let Some(failure) = self.failure() {
            bail!("{failure}");
        }
        if !late.is_empty() {
            bail!("rank {} has not ended within {} s after rank 0", late.join(", "), patience.as_secs_f64());
        }
        Ok(())
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        let mut children = self.lock();
        for child in children.iter_mut() {
            let _ = child.process.kill();
        }
        for child in children.iter_mut() {
            let _ = child.process.wait();
        }
    }
}

/// A watch that also ends the work once one of `children` has failed.
pub struct Attended<'a> {
    pub children: &'a Children,
    pub watch: &'a dyn Watch,
}

impl Watch for Attended<'_> {
    fn advanced(&self, done: u64, total: u64) {
        self.watch.advanced(done, total);
    }

    fn is_cancelled(&self) -> bool {
        self.watch.is_cancelled() || self.children.failure().is_some()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Children on GPUs 1 and 5 that run `script`, in which `$1` is `--device`'s value.
    fn children(script: &str) -> (World, Children) {
        let arguments = ["-c", script, "--devices", "4,1,5"].map(OsString::from);
        start_program(Path::new("/bin/sh"), &[4, 1, 5], &arguments).expect("starts")
    }

    fn wait(script: &str) -> Result<(), String> {
        children(script).1.wait(Duration::from_secs(20)).map_err(|error| error.to_string())
    }

    #[test]
    fn children_are_what_torchrun_would_start() {
        let (world, children) =
            children("[ $RANK = 1 ] || exit 0; env | grep -E 'RANK|WORLD|MASTER' >&2; echo device=$1 >&2; exit 3");
        let said = children.wait(Duration::from_secs(20)).expect_err("ends with 3").to_string();
        assert!(said.starts_with("rank 1 on GPU 1 has ended with exit status: 3; its last lines:\n"), "{said}");
        let variable = |name: &str| {
            let line = said.lines().rev().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned)
        };
        assert_eq!(variable("device").as_deref(), Some("cuda:1"), "{said}");
        let of_child = World::from_variables(variable).expect("variables").expect("a launcher's");
        let expected = World { rank: 1, local_rank: 1, launcher: Launcher::Torchrun, ..world.clone() };
        assert_eq!(of_child, expected);
        assert_eq!((world.rank, world.size, world.local_rank), (0, 3, 4));
    }

    #[test]
    fn a_rank_is_told_its_device_in_place_of_the_list() {
        let changed = |arguments: &str| {
            let arguments: Vec<OsString> = arguments.split(' ').map(OsString::from).collect();
            on_device(&arguments, 2)
                .into_iter()
                .map(|text| text.into_string().expect("text"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        for (given, expected) in [
            ("train a.toml --devices 0-3 --quiet", "train a.toml --device cuda:2 --quiet"),
            ("train --devices=all a.toml", "train --device cuda:2 a.toml"),
            ("train --devices all -- --devices x", "train --device cuda:2 -- --devices x"),
            ("train a.toml --set a=--devices", "train a.toml --set a=--devices"),
        ] {
            assert_eq!(changed(given), expected);
        }
    }

    #[test]
    fn all_that_end_well_are_well() {
        assert_eq!(wait("exit 0"), Ok(()));
    }

    #[test]
    fn the_rank_at_fault_is_named_with_its_last_lines() {
        let lost = "seq 9999 >&2; echo \"error: rank $RANK\" >&2; [ $RANK = 2 ] && exit 1; exit 75";
        let said = wait(lost).expect_err("fails");
        assert!(said.starts_with("rank 2 on GPU 5 has ended with exit status: 1; its last lines:\n"), "{said}");
        assert!(said.ends_with("\n9999\nerror: rank 2") && said.len() < KEPT + 100, "{said}");
        assert!(!said.contains("\n9\n"), "{said}");
        let silent = wait("[ $RANK = 1 ] && kill -9 $$; exit 0").expect_err("fails");
        assert!(
            silent.contains("rank 1 on GPU 1 has ended with signal: 9") && silent.ends_with("said nothing"),
            "{silent}"
        );
    }

    #[test]
    fn a_failure_ends_what_waits_for_it() {
        let (_, children) = children("[ $RANK = 1 ] && echo broken >&2 && exit 1; exec sleep 600");
        let attended = Attended { children: &children, watch: &() };
        let start = Instant::now();
        while !attended.is_cancelled() {
            assert!(start.elapsed() < Duration::from_secs(20), "nothing is noticed");
            std::thread::sleep(PAUSE);
        }
        // It is told as often as one asks.
        let said = children.wait(Duration::ZERO).expect_err("fails").to_string();
        assert!(said.ends_with("its last lines:\nbroken"), "{said}");
    }

    #[test]
    fn a_rank_that_stays_is_named_and_ended() {
        let (_, children) = children("[ $RANK = 1 ] && exit 0; exec sleep 600");
        let stays = children.lock()[1].process.id();
        let said = children.wait(Duration::from_millis(300)).expect_err("stays").to_string();
        assert_eq!(said, "rank 2 on GPU 5 has not ended within 0.3 s after rank 0");
        assert!(has_ended(stays));
    }

    fn has_ended(process: u32) -> bool {
        let status = Command::new("kill").args(["-0", &process.to_string()]).stderr(Stdio::null()).status();
        !status.expect("runs").success()
    }

    #[test]
    fn no_rank_outlives_what_started_it() {
        let (_, dropped) = children("exec sleep 600");
        let ids: Vec<u32> = dropped.lock().iter().map(|child| child.process.id()).collect();
        assert!(ids.len() == 2 && ids.iter().all(|&id| !has_ended(id)));
        drop(dropped);
        assert!(ids.into_iter().all(has_ended));
    }

    /// The system watches the thread that has started them: as with a process that is killed,
    /// nobody is left who could end them.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_ends_the_ranks_of_one_that_is_killed() {
        let killed = std::thread::spawn(|| children("exec sleep 600").1).join().expect("ends");
        let said = killed.wait(Duration::from_secs(20)).expect_err("are killed").to_string();
        assert!(said.contains("has ended with signal: 9"), "{said}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_rank_has_a_process_group_of_its_own() {
        let said = wait("echo $$ $(cut -d' ' -f5 /proc/$$/stat) >&2; exit 1").expect_err("fails");
        let numbers: Vec<&str> = said.lines().last().expect("a line").split(' ').collect();
        assert!(numbers.len() == 2 && numbers[0] == numbers[1], "{said}");
    }
}
