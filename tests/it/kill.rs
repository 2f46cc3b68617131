//! A run that is ended at any moment, by a kill or by a system error, leaves a folder that can be
//! resumed, and the resumed run ends like an undisturbed one, bit for bit.
//!
//! `cargo test` kills 20 runs at random moments; `AMATCH_KILLS=200 cargo test --test it kill::`
//! kills more. Tests with one kill, or one error, at every system call need `strace` and take
//! minutes:
//!
//! ```text
//! cargo test --test it kill:: -- --ignored --nocapture
//! ```

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use action_matching::config::Config;
use action_matching::model::Model;
use action_matching::rng::{Purpose, words};
use action_matching::train::Checkpoint;

use crate::resume::metrics;
use crate::run_folder::RUN_FILES;

/// Time after which a run counts as hung.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The folder of the run that is disturbed.
const OUT: &str = "out";

/// A folder with data, and the result of an undisturbed run in it.
struct Place {
    folder: tempfile::TempDir,
    model: Vec<u8>,
    checkpoint: Vec<u8>,
    metrics: Vec<String>,
    /// Duration of the undisturbed run.
    duration: Duration,
}

/// End of a process.
struct Ended {
    status: ExitStatus,
    /// Its standard error.
    messages: String,
}

impl Place {
    /// Uses a file system in `memory`, if there is one, where syncing costs nothing: for tests of
    /// thousands of runs.
    fn new(steps: u64, memory: &str) -> Self {
        let folder = match Path::new(memory).is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let folder = folder.expect("a folder");
        let mut csv = String::from("times,x,y\n");
        for row in 0..60 {
            let angle = row as f64 * 0.9;
            csv += &format!("{},{},{}\n", row % 3, angle.cos() + (row % 3) as f64, 0.7 * angle.sin());
        }
        fs::write(folder.path().join("data.csv"), csv).expect("written");
        let config = format!(
            "[data]\npath = \"data.csv\"\n[model]\nhidden = [7]\n[training]\nsteps = {steps}\ninterior_rows = 19\n\
             boundary_rows = 5\n[output]\ncheckpoint_every = 5\nmetrics_every = 1\n"
        );
        fs::write(folder.path().join("run.toml"), config).expect("written");
        let mut place =
            Place { folder, model: Vec::new(), checkpoint: Vec::new(), metrics: Vec::new(), duration: Duration::ZERO };
        let began = Instant::now();
        let ended = place.run("whole", &[]);
        place.duration = began.elapsed();
        assert!(ended.status.success(), "{}", ended.messages);
        let whole = place.path("whole");
        place.model = fs::read(whole.join("model.safetensors")).expect("readable");
        place.checkpoint = fs::read(checkpoints(&whole).pop().expect("a checkpoint")).expect("readable");
        place.metrics = metrics(&whole);
        assert_eq!(place.metrics.len() as u64, steps);
        place.assert_is_whole("whole", "a run that nothing disturbs");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The run in folder `out`, started by the program `before`.
    fn command(&self, before: &[String], out: &str, more: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_amatch");
        let mut words = before.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().unwrap_or(program));
        command
            .args(words)
            .args(["train", "run.toml", "--device", "cpu", "--threads", "1", "--out", out])
            .args(more)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.path("messages")).expect("a file for messages"))
            // A process group of its own, so that all its processes can be ended.
            .process_group(0);
        command
    }

    fn wait(&self, mut child: Child) -> Ended {
        let deadline = Instant::now() + TIME_LIMIT;
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child") {
                break status;
            }
            if Instant::now() > deadline {
                let group = format!("-{}", child.id());
                let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
                let _ = child.wait();
                panic!("it hangs: {}", fs::read_to_string(self.path("messages")).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let messages = fs::read(self.path("messages")).expect("readable");
        Ended { status, messages: String::from_utf8_lossy(&messages).into_owned() }
    }

    fn run(&self, out: &str, more: &[&str]) -> Ended {
        self.wait(self.command(&[], out, more).spawn().expect("the program starts"))
    }

    /// Checks a folder in any state: no file of it is torn, and `--resume`, `--force` and, if there
    /// is no run yet, a plain start all end like the undisturbed run.
    fn assert_can_be_gone_on_with(&self, what: &str) {
        let out = self.path(OUT);
        for path in checkpoints(&out) {
            Checkpoint::load(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        let (model, config) = (out.join("model.safetensors"), out.join("config.toml"));
        if model.exists() {
            Model::load(&model).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        if config.exists() {
            Config::read(&config, &[]).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        let has_run = model.exists() || config.exists() || !checkpoints(&out).is_empty();
        for (how, arguments) in [("resume", &["--resume"][..]), ("force", &["--force"]), ("plain", &[])] {
            let _ = fs::remove_dir_all(self.path(how));
            copy(&out, &self.path(how));
            let ended = self.run(how, arguments);
            let is_refused = ended.status.code() == Some(1) && ended.messages.contains("already exists");
            if how == "plain" && is_refused && (has_run || out.join("metrics.jsonl").exists()) {
                continue;
            }
            let listing = listing(&out);
            assert!(ended.status.success(), "{what}: {how}: {}\nin {listing:#?}", ended.messages);
            self.assert_is_whole(how, what);
        }
    }

    /// The run of folder `out` equals the undisturbed one, and there are no other files.
    fn assert_is_whole(&self, out: &str, what: &str) {
        self.assert_has_the_results(out, what);
        let out = self.path(out);
        let mut names = listing(&out);
        names.retain(|name| !["checkpoints/step-", "tensorboard/events"].iter().any(|start| name.starts_with(start)));
        assert_eq!(names, RUN_FILES, "{what}: {}", out.display());
        // A kill during `--force` may have removed some files of a run that `--resume` then finds
        // finished.
        assert!((1..=3).contains(&checkpoints(&out).len()), "{what}: {}", out.display());
        for path in checkpoints(&out) {
            Checkpoint::load(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }

    /// Model, last checkpoint and metrics of folder `out` are those of the undisturbed run.
    fn assert_has_the_results(&self, out: &str, what: &str) {
        let out = self.path(out);
        let same = |path: PathBuf, whole: &[u8]| fs::read(path).is_ok_and(|bytes| bytes == whole);
        assert!(same(out.join("model.safetensors"), &self.model), "{what}: {}: another model", out.display());
        let newest = checkpoints(&out).pop().unwrap_or_default();
        assert!(same(newest, &self.checkpoint), "{what}: {}: another last checkpoint", out.display());
        assert_eq!(metrics(&out), self.metrics, "{what}: {}", out.display());
    }
}

/// The checkpoints of run folder `out`, oldest first.
fn checkpoints(out: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(out.join("checkpoints")).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "safetensors"))
        .collect();
    paths.sort();
    paths
}

/// Everything in `folder`, recursively and sorted; empty if it does not exist.
fn listing(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            names.extend(listing(&entry.path()).iter().map(|inside| format!("{name}/{inside}")));
        }
        names.push(name);
    }
    names.sort();
    names
}

/// A copy of a folder, if it exists.
fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a folder");
    }
    for entry in fs::read_dir(from).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

#[test]
fn runs_killed_at_random_moments() {
    let n_kills = match std::env::var("AMATCH_KILLS") {
        Ok(text) => text.parse().expect("AMATCH_KILLS is a number"),
        Err(_) => 20,
    };
    let place = Place::new(40, "");
    let (mut killed, mut attempts) = ([0u32; 3], 0);
    while killed.iter().sum::<u32>() < n_kills {
        attempts += 1;
        assert!(attempts <= 20 * n_kills, "{killed:?} kills in {attempts} attempts");
        let [way, moment, ..] = words(5, Purpose::Evaluation, 0, attempts);
        // A fresh start, or one on top of what the previous kill left.
        let way = way as usize % 3;
        if way == 0 {
            let _ = fs::remove_dir_all(place.path(OUT));
        }
        let arguments = [&[][..], &["--resume"], &["--force"]][way];
        let mut child = place.command(&[], OUT, arguments).spawn().expect("the program starts");
        std::thread::sleep(place.duration.mul_f64(1.1 * f64::from(moment) / 4_294_967_296.0));
        child.kill().expect("killed");
        let ended = place.wait(child);
        if ended.status.signal() == Some(9) {
            killed[way] += 1;
            place.assert_can_be_gone_on_with(&format!("attempt {attempts}, {arguments:?}"));
        } else {
            assert!(ended.status.success(), "{}", ended.messages);
            place.assert_is_whole(OUT, &format!("attempt {attempts}, {arguments:?}"));
        }
    }
    let [anew, resumed, forced] = killed;
    println!("killed {anew} runs started anew, {resumed} resumed and {forced} with --force, of {attempts}");
    assert!(n_kills < 20 || killed.iter().all(|&n| n > 0), "{killed:?}");
}

/// System calls by which a run changes or reads its folder. Calls that a platform lacks are
/// skipped; so is `close`, whose errors on folders abort in the standard library.
const CALLS: [&str; 27] = [
    "openat",
    "write",
    "writev",
    "pwrite64",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "link",
    "linkat",
    "getdents64",
    "ftruncate",
    "fchmod",
    "chmod",
    "lseek",
    "statx",
    "newfstatat",
    "read",
    "utimensat",
    "copy_file_range",
];

/// State of the folder when a run starts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    /// Nothing.
    Anew,
    /// A run with two checkpoints, to be resumed.
    Resume,
    /// A finished run, to be replaced.
    Force,
}

impl Start {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Start::Anew => &[],
            Start::Resume => &["--resume"],
            Start::Force => &["--force"],
        }
    }

    /// Brings the folder to this state.
    fn prepare(self, place: &Place) {
        let out = place.path(OUT);
        let _ = fs::remove_dir_all(&out);
        match self {
            Start::Anew => {}
            Start::Force => copy(&place.path("whole"), &out),
            Start::Resume => {
                copy(&place.path("whole"), &out);
                let newest = checkpoints(&out).pop().expect("a checkpoint");
                fs::remove_file(newest).expect("removed");
            }
        }
    }
}

/// The command before the program that applies `how` to its `number`-th call of `call`.
fn strace(call: &str, how: &str, number: usize) -> Vec<String> {
    let trace = format!("trace=?{call}");
    let inject = format!("inject=?{call}:{how}:when={number}");
    ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(String::from).to_vec()
}

/// How often the program makes each of [`CALLS`] from `start`: before it reads its configuration,
/// which is the loader's work, and in all.
fn numbers_of_calls(place: &Place, start: Start) -> Vec<(&'static str, usize, usize)> {
    let log = place.path("calls");
    let trace = format!("trace={}", CALLS.map(|call| format!("?{call}")).join(","));
    let before = ["strace", "-f", "-qq", "-o", "calls", "-e", &trace].map(String::from);
    start.prepare(place);
    let child = place.command(&before, OUT, start.arguments()).spawn();
    let ended = place.wait(child.expect("strace starts: it must be installed"));
    assert!(ended.status.success(), "{}", ended.messages);
    let text = fs::read_to_string(log).expect("readable");
    let from_configuration = text.find("run.toml").expect("it reads its configuration");
    let loader = &text[..text[..from_configuration].rfind('\n').unwrap_or(0)];
    let count = |text: &str, call: &str| text.lines().filter(|line| line.contains(&format!(" {call}("))).count();
    CALLS.iter().map(|call| (*call, count(loader, call), count(&text, call))).collect()
}

/// Runs the program once for each call that it makes, from each start, with `how` applied to that
/// call. `check` receives how it ended.
fn at_every_call(place: &Place, how: &str, check: impl Fn(&Ended, &str)) -> usize {
    let mut n = 0;
    for start in [Start::Anew, Start::Resume, Start::Force] {
        for (call, loader, all) in numbers_of_calls(place, start) {
            for number in loader + 1..=all {
                start.prepare(place);
                let child = place.command(&strace(call, how, number), OUT, start.arguments()).spawn();
                let ended = place.wait(child.expect("strace starts: it must be installed"));
                let what = format!("{start:?}, {call} number {number}, {how}");
                check(&ended, &what);
                place.assert_can_be_gone_on_with(&what);
                n += 1;
            }
        }
    }
    n
}

/// The shortest run that has old checkpoints to remove.
const SHORT: u64 = 20;

#[test]
#[ignore = "needs strace and takes minutes: a kill at every system call"]
fn runs_killed_at_every_system_call() {
    let place = Place::new(SHORT, "/dev/shm");
    let n_killed = std::cell::Cell::new(0);
    let n = at_every_call(&place, "signal=KILL", |ended, what| match ended.status.signal() {
        Some(9) => n_killed.set(n_killed.get() + 1),
        // This time the call belonged to another thread.
        _ => assert!(ended.status.success(), "{what}: {}", ended.messages),
    });
    println!("killed {} of {n} runs", n_killed.get());
    assert!(n_killed.get() > 500 && n_killed.get() > n * 9 / 10);
}

#[test]
#[ignore = "needs strace and takes minutes: an error at every system call"]
fn errors_at_every_system_call() {
    let place = Place::new(SHORT, "/dev/shm");
    for error in ["ENOSPC", "EIO"] {
        let n_failed = std::cell::Cell::new(0);
        let n = at_every_call(&place, &format!("error={error}"), |ended, what| {
            assert!(!ended.messages.contains("panicked"), "{what}: {}", ended.messages);
            if ended.status.success() {
                place.assert_has_the_results(OUT, what);
            } else {
                assert_eq!(ended.status.code(), Some(1), "{what}: {}", ended.messages);
                assert!(ended.messages.contains("error: "), "{what}: {:?}", ended.messages);
                n_failed.set(n_failed.get() + 1);
            }
        });
        println!("{error}: {} of {n} runs ended with a message, the others finished", n_failed.get());
        assert!(n_failed.get() > 50 && n > 500);
    }
}
