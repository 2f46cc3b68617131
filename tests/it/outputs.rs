//! Outputs of a command replace nothing that matters: no input, no model, no file of a run, and no
//! other file without permission.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use action_matching::data::{DataSource, read_points};

use super::cli::{amatch, command, fails, succeeds, text, trained};
use crate::common::files::{Stored, write};

const CHECK: [&str; 5] = ["check", "--model", "runs/run/model.safetensors", "--batch", "batch.safetensors"];
const SAMPLE: [&str; 9] = ["sample", "runs/run", "--from", "snapshot:0", "--method", "euler", "--steps", "1", "--out"];
const PROBLEM: [&str; 7] = ["problem", "scaling", "-n", "5", "--times", "3", "--out"];

/// A run, a batch for `check`, and the path of the folder.
fn place() -> (tempfile::TempDir, PathBuf) {
    let (guard, folder) = trained();
    let tensors = [
        Stored::f32("x", &[1, 2], &[0.1, 0.2]),
        Stored::f32("t", &[1], &[0.5]),
        Stored::f32("x0", &[1, 2], &[0.3, 0.4]),
        Stored::f32("x1", &[1, 2], &[0.5, 0.6]),
    ];
    write(&folder.join("batch.safetensors"), &tensors, Default::default());
    (guard, folder)
}

fn checkpoint(folder: &Path) -> PathBuf {
    let mut entries = std::fs::read_dir(folder.join("runs/run/checkpoints")).expect("a folder");
    entries.next().expect("a checkpoint").expect("readable").path()
}

/// Every file below `folder` with its content; links are not followed.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_symlink() {
            continue;
        } else if path.is_dir() {
            found.extend(files(&path));
        } else {
            let content = std::fs::read(&path).expect("readable");
            found.push((path, content));
        }
    }
    found.sort();
    found
}

/// Refused with and without `--force`, and every file is unchanged.
#[track_caller]
fn refused(folder: &Path, arguments: &[&str], parts: &[&str]) {
    let before = files(folder);
    fails(folder, arguments, parts);
    fails(folder, &[arguments, &["--force"]].concat(), parts);
    assert!(files(folder) == before, "{arguments:?}: a file was changed");
}

#[test]
fn what_a_command_reads_is_never_replaced() {
    let (_guard, folder) = place();
    let at = |name: &str| folder.join(name);
    std::fs::copy(at("data.csv"), at("points.csv")).expect("copied");
    symlink("data.csv", at("link.csv")).expect("linked");
    std::fs::hard_link(at("data.csv"), at("twin.csv")).expect("linked");
    symlink(".", at("here")).expect("linked");
    std::fs::hard_link(at("batch.safetensors"), at("twin.safetensors")).expect("linked");
    const READS: &str = "which this command reads";
    for out in ["data.csv", "link.csv", "twin.csv", "here/data.csv", "./data.csv"] {
        refused(&folder, &[&SAMPLE[..], &[out]].concat(), &[out, "data.csv", READS]);
        let from = ["sample", "runs/run", "--from", "data.csv", "--samples", "x,y", "--out", out];
        refused(&folder, &from, &[out, READS]);
        refused(&folder, &["evaluate", "runs/run", "--json", out], &[out, READS]);
        refused(&folder, &["evaluate", "runs/run", "data.csv", "--json", out], &[out, READS]);
    }
    let other = ["sample", "runs/run", "--from", "snapshot:0", "--data", "points.csv", "--out", "points.csv"];
    refused(&folder, &other, &["points.csv", READS]);
    let model = "runs/run/model.safetensors";
    refused(&folder, &["sample", model, "--from", "gaussian", "-n", "3", "--out", model], &[model, READS]);
    for out in ["batch.safetensors", "twin.safetensors", model] {
        refused(&folder, &[&CHECK[..], &["--out", out]].concat(), &[out, READS]);
    }
}

#[test]
fn models_and_files_of_a_run_are_never_replaced() {
    let (_guard, folder) = place();
    std::fs::copy(folder.join("runs/run/model.safetensors"), folder.join("model.safetensors")).expect("copied");
    std::fs::copy(checkpoint(&folder), folder.join("step.safetensors")).expect("copied");
    symlink("runs/run", folder.join("run")).expect("linked");
    for command in [&SAMPLE[..], &PROBLEM, &[&CHECK[..], &["--out"]].concat(), &["evaluate", "runs/run", "--json"]] {
        refused(&folder, &[command, &["model.safetensors"]].concat(), &["model.safetensors: output path: is a model"]);
        refused(
            &folder,
            &[command, &["step.safetensors"]].concat(),
            &["step.safetensors: output path: is a checkpoint"],
        );
        // Files that a run has, and files that it would consider its own.
        for out in ["runs/run/checkpoints/step-0000000099.safetensors", "run/checkpoints/new.safetensors"] {
            refused(&folder, &[command, &[out]].concat(), &[out, "belongs to the run in"]);
        }
    }
    for out in [
        "runs/run/config.toml",
        "runs/run/metrics.jsonl",
        "runs/run/loss.svg",
        "runs/run/selftest.json",
        "runs/run/README.md",
        "runs/run/tensorboard/events.out.tfevents.7",
        "runs/run/report.html",
        "run/config.toml",
        "runs/run/.amatch-claim",
        "runs/run/.amatch-takeover",
    ] {
        refused(&folder, &["evaluate", "runs/run", "--json", out], &[out, "belongs to the run in"]);
    }
    std::fs::remove_file(folder.join("runs/run/model.safetensors")).expect("removed");
    let unfinished = ["problem", "scaling", "-n", "5", "--out", "runs/run/model.safetensors"];
    refused(&folder, &unfinished, &["belongs to the run in"]);
    // Other files may be in the folder of a run.
    succeeds(&folder, &[&PROBLEM[..], &["runs/run/particles.npz"]].concat());
}

#[test]
fn other_files_are_replaced_when_asked_only() {
    let (_guard, folder) = place();
    let commands: [(&[&str], &str); 4] = [
        (&SAMPLE, "p.npz"),
        (&PROBLEM, "scaling.csv"),
        (&[&CHECK[..], &["--out"]].concat(), "gradients.safetensors"),
        (&["evaluate", "runs/run", "--json"], "scores.json"),
    ];
    for (command, out) in commands {
        std::fs::write(folder.join(out), "years of work").expect("written");
        let run = [command, &[out]].concat();
        let before = files(&folder);
        fails(&folder, &run, &[out, "already exists", "--force"]);
        assert!(files(&folder) == before, "{run:?}");
        succeeds(&folder, &[&run[..], &["--force"]].concat());
        assert_ne!(std::fs::read(folder.join(out)).expect("readable"), b"years of work");
        assert_eq!(files(&folder).len(), before.len(), "{run:?} left something behind");
    }
    // A report replaces an earlier one.
    succeeds(&folder, &["evaluate", "runs/run", "--json", "scores.json", "--seed", "3"]);
    assert!(std::fs::read_to_string(folder.join("scores.json")).expect("readable").contains("\"seed\": 3"));
    symlink("nowhere.npz", folder.join("dangling.npz")).expect("linked");
    refused(&folder, &[&SAMPLE[..], &["dangling.npz"]].concat(), &["dangling.npz", "link that leads nowhere"]);
    assert_eq!(amatch(&folder, &["evaluate", "runs/run", "--force"]).status.code(), Some(2), "nothing to replace");
}

/// The destination is checked before anything is read or computed.
#[test]
fn a_place_that_does_not_do_is_refused_before_the_work() {
    let (_guard, folder) = place();
    std::fs::write(folder.join("here.npz"), "years of work").expect("written");
    std::fs::write(folder.join("bad.csv"), "no numbers").expect("written");
    for (out, problem) in [("here.npz", "already exists"), ("no/out.npz", "does not exist"), ("/proc/out.npz", "/proc")]
    {
        fails(&folder, &["sample", "runs/run", "--from", "bad.csv", "--out", out], &[out, problem]);
        fails(&folder, &["evaluate", "runs/run", "bad.csv", "--json", out], &[out, problem]);
        fails(&folder, &["check", "--model", "bad", "--batch", "bad", "--out", out], &[out, problem]);
        // The computation would take minutes.
        fails(&folder, &["problem", "hydrogen", "-n", "1000", "--times", "10000", "--out", out], &[out, problem]);
    }
}

/// Writing to a pipe without a reader blocks, and the first signal ends it.
#[test]
fn a_signal_ends_the_wait_for_the_reader_of_a_pipe() {
    let (_guard, folder) = place();
    let fifo = folder.join("particles.csv");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("starts").success());
    let mut run =
        command(&folder, &[&SAMPLE[..], &["particles.csv"]].concat()).stderr(Stdio::null()).spawn().expect("starts");
    std::thread::sleep(std::time::Duration::from_secs(2)); // the particles have arrived
    assert!(run.try_wait().expect("a child").is_none());
    let killed = std::process::Command::new("kill").args(["-TERM", &run.id().to_string()]).status();
    assert!(killed.expect("kill runs").success());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while run.try_wait().expect("a child").is_none() {
        if std::time::Instant::now() > deadline {
            run.kill().expect("is killed");
            panic!("deaf to the signal");
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(run.wait().expect("ends").code(), Some(143));
}

#[test]
fn pipes_and_devices_are_written_to() {
    let (_guard, folder) = place();
    let fifo = folder.join("particles.npz");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("starts").success());
    let copy = std::fs::File::create(folder.join("copy.npz")).expect("created");
    let mut reader = std::process::Command::new("cat").arg(&fifo).stdout(copy).spawn().expect("starts");
    let written = amatch(&folder, &[&SAMPLE[..], &["particles.npz"]].concat());
    if !written.status.success() {
        reader.kill().expect("killed"); // it would block forever
    }
    assert!(reader.wait().expect("ends").success(), "{}", text(&written.stderr));
    let points = read_points(&DataSource::new(folder.join("copy.npz")), &()).expect("particles");
    assert_eq!((points.dim, points.rows.len()), (2, 100));
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&fifo.metadata().expect("there").file_type()));

    for command in [&SAMPLE[..], &PROBLEM, &[&CHECK[..], &["--out"]].concat(), &["evaluate", "runs/run", "--json"]] {
        succeeds(&folder, &[command, &["/dev/null"]].concat());
    }
    let table = text(&amatch(&folder, &[&PROBLEM[..], &["/dev/stdout"]].concat()).stdout);
    assert!(table.lines().count() == 16 && table.contains("samples_0,"), "{table}");
    // If standard output is a file, its content stays.
    std::fs::write(folder.join("log"), "first\n").expect("written");
    let log = std::fs::File::options().append(true).open(folder.join("log")).expect("opened");
    let mut run = command(&folder, &[&PROBLEM[..], &["/dev/stdout"]].concat());
    assert!(run.stdout(log).stderr(Stdio::null()).status().expect("starts").success());
    assert_eq!(std::fs::read_to_string(folder.join("log")).expect("readable"), format!("first\n{table}"));
}

/// A signal while writing: the file is finished, and no other file is left.
#[test]
fn a_signal_while_a_file_is_written_leaves_nothing_half() {
    let guard = tempfile::tempdir().expect("a folder");
    let folder = guard.path();
    let is_part = |path: &Path| path.extension().is_some_and(|suffix| suffix == "part");
    let arguments = ["problem", "translation", "-n", "2000", "--times", "1000", "--out", "p.csv"];
    let mut run = command(folder, &arguments).stderr(Stdio::null()).spawn().expect("starts");
    while !files(folder).iter().any(|(path, content)| is_part(path) && !content.is_empty()) {
        assert!(run.try_wait().expect("waits").is_none(), "ended before it was seen to write");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let kill = std::process::Command::new("kill").args(["-TERM", &run.id().to_string()]).status();
    assert!(kill.expect("starts").success());
    assert_eq!(run.wait().expect("ends").code(), Some(128 + 15));
    let names: Vec<PathBuf> = files(folder).into_iter().map(|(path, _)| path).collect();
    assert_eq!(names, [folder.join("p.csv")]);
    assert_eq!(std::fs::read_to_string(folder.join("p.csv")).expect("readable").lines().count(), 2_000_001);
}
