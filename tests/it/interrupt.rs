//! Long stages of the commands: threads stay within the request and the limits of the system, and
//! signals end the stages soon.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use action_matching::model::{Activation, Head, TimeEmbedding};
use action_matching::objective::Objective;

use crate::common::{Numbers, model};

/// Time within which a command must end after a signal: a second, doubled for a busy machine.
const SOON: Duration = Duration::from_secs(2);

/// A folder with a model of two dimensions and `n` points at each of `n_times` times.
fn place(n: usize, n_times: usize) -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a folder");
    let mut numbers = Numbers::new(5);
    let mut csv = String::from("times,x,y\n");
    for row in 0..n * n_times {
        csv += &format!("{},{},{}\n", row / n, numbers.next(), numbers.next());
    }
    fs::write(place.path().join("data.csv"), csv).expect("written");
    let config = "[data]\npath = \"data.csv\"\n[model]\nhidden = [8]\n[objective]\npairing = { kind = \"ot\", rows = 5000 }\n\
                  [training]\nsteps = 3\ninterior_rows = 8\nboundary_rows = 8\n";
    fs::write(place.path().join("run.toml"), config).expect("written");
    let model = model(2, &[8], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, Objective::default());
    model.save(&place.path().join("model.safetensors")).expect("saves");
    place
}

fn amatch(place: &Path, command: &[&str]) -> Command {
    let mut amatch = Command::new(env!("CARGO_BIN_EXE_amatch"));
    amatch.args(command).current_dir(place).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    amatch
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill runs").success());
}

/// Waits for the end, for a limited time.
#[track_caller]
fn end_within(limit: Duration, mut child: Child) -> Output {
    let began = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if began.elapsed() > limit {
            child.kill().expect("is killed");
            panic!("still running after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("the program ends")
}

/// Names in `folder`, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Stages that take minutes: one tile of many steps; problems of thousands of points, in distances
/// and in pairing, as many as a fast machine does not solve before the signal; many particles.
#[test]
fn signals_end_every_long_stage_within_a_second() {
    let small = place(40, 2);
    let large = place(5000, 40);
    let sample =
        "sample model.safetensors --from gaussian -n 40 --method euler --steps 1000000000 --out out.npz --device cpu";
    for (place, command) in [
        (small.path(), sample),
        (small.path(), "problem hydrogen -n 200000 --times 101 --out out.npz"),
        (large.path(), "evaluate model.safetensors data.csv --json out.json --device cpu"),
        (large.path(), "train run.toml --out run --force --device cpu"),
    ] {
        for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
            let command: Vec<&str> = command.split(' ').collect();
            let child = amatch(place, &command).spawn().expect("starts");
            // Time to read the data, and to reach the middle of the stage.
            std::thread::sleep(Duration::from_millis(1500));
            send(signal, &child);
            let output = end_within(SOON, child);
            let message = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{command:?}: {message}");
            assert!(message.contains("interrupted"), "{command:?}: {message}");
            let left = names(place);
            assert!(left.iter().all(|name| !name.starts_with("out") && !name.contains("part")), "{left:?}");
        }
    }
}

/// A step of so many rows cannot be interrupted, so the first signal waits for its end; the second
/// one ends the process.
#[test]
fn a_second_signal_ends_what_does_not_hear_the_first() {
    let place = place(40, 2);
    let train = ["train", "run.toml", "--out", "slow", "--device", "cpu", "--threads", "1"];
    let rows = ["--set", "training.interior_rows=100000000"];
    let mut child = amatch(place.path(), &[&train[..], &rows].concat()).spawn().expect("starts");
    // Written immediately before the first step.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !place.path().join("slow/metrics.jsonl").exists() {
        assert!(Instant::now() < deadline && child.try_wait().expect("a child").is_none(), "no step was begun");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    send("-INT", &child);
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().expect("a child").is_none(), "the first signal waits for the step");
    send("-INT", &child);
    assert_eq!(end_within(SOON, child).status.code(), Some(130));
}

/// Maximum number of threads that the process has for some milliseconds: a thread that has ended
/// counts until the system has removed it.
fn most_threads(mut child: Child) -> usize {
    let tasks = format!("/proc/{}/task", child.id());
    let (mut most, mut last) = (0, [0; 3]);
    while child.try_wait().expect("a child").is_none() {
        last = [last[1], last[2], fs::read_dir(&tasks).map_or(0, Iterator::count)];
        most = most.max(*last.iter().min().expect("three"));
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    most
}

/// Here pairing and distances have tasks for several threads.
#[test]
#[cfg(target_os = "linux")]
fn no_stage_takes_more_threads_than_asked_for() {
    let place = place(400, 5);
    for (command, beside) in [
        // In addition to its workers, a run has a thread that renews its claim.
        (&["train", "run.toml", "--out", "run", "--device", "cpu"][..], 1),
        (&["evaluate", "model.safetensors", "data.csv", "--device", "cpu"], 0),
    ] {
        for threads in [1, 3] {
            let mut command = [command, &["--threads", ["", "1", "2", "3"][threads]]].concat();
            if command[0] == "train" {
                command.push("--force");
            }
            let most = most_threads(amatch(place.path(), &command).spawn().expect("starts"));
            assert!(most <= threads + beside, "{command:?}: {most} threads");
            assert!(threads == 1 || most > 1 + beside, "{command:?}: {most} threads");
        }
    }
}

/// If the system starts no more threads, those that run do the work, and a message says so.
#[test]
#[cfg(target_os = "linux")]
fn threads_that_the_system_does_not_start_are_done_without() {
    let place = place(60, 3);
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).expect("for anyone");
    fs::copy(env!("CARGO_BIN_EXE_amatch"), place.path().join("amatch")).expect("copied");
    // The limit counts all processes of the user, and does not apply to root; root therefore
    // becomes a user without any process.
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let become_user = "setpriv --reuid=64321 --regid=64321 --clear-groups bash";
    let limited = |limit: u32, command: &str| {
        let mut words = if is_root { become_user } else { "bash" }.split(' ');
        let child = Command::new(words.next().expect("a program"))
            .args(words)
            .args(["-c", &format!("ulimit -u {limit} && exec ./amatch {command} --device cpu --threads 8")])
            .current_dir(place.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let output = end_within(Duration::from_secs(60), child.expect("bash, and for root setpriv, are there"));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, message) = limited(1, "sample model.safetensors --from gaussian -n 500 --out out.npz");
    assert!(code == Some(0) && message.contains("of 8 threads the system lets 1 run"), "{message}");
    if is_root {
        // At first the second thread is available, then the one that renews the claim takes it.
        let (code, message) = limited(2, "train run.toml --out run");
        assert!(code == Some(0) && message.contains("of 8 threads the system lets 2 run"), "{message}");
    }
}
