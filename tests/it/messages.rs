//! Messages about absurd, hostile or damaged input: one error with one cause, early, and in the
//! program's own words.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::cli::{amatch, command, fails, succeeds, text, trained, workplace};

/// As [`fails`], for a command that might hang.
#[track_caller]
fn fails_soon(folder: &Path, arguments: &[&str], parts: &[&str]) {
    let mut run = command(folder, arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let began = Instant::now();
    while run.try_wait().expect("waits").is_none() {
        if began.elapsed() > Duration::from_secs(20) {
            run.kill().expect("killed");
            panic!("{arguments:?} is still running");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = run.wait_with_output().expect("ends");
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn a_cause_is_told_once() {
    let (_guard, folder) = trained();
    std::fs::create_dir(folder.join("folder.toml")).expect("created");
    for (arguments, cause) in [
        (&["train", "absent.toml"][..], "does not exist"),
        (&["train", "folder.toml"], "is a folder"),
        (&["inspect", "absent"], "does not exist"),
        (&["train", "run.toml", "--out", "/proc/run"], "os error"),
        (&["sample", "runs/run", "--from", "gaussian", "-n", "5", "--out", "/proc/p.npz"], "os error"),
    ] {
        let message = text(&amatch(&folder, arguments).stderr);
        assert!(message.starts_with("error: ") && message.lines().count() == 1, "{message}");
        assert_eq!(message.matches(cause).count(), 1, "{message}");
    }
    // A disk that is full in the middle of a file, simulated by a limit on the size of files, for
    // every format.
    for file in ["p.npz", "p.npy", "p.csv", "p.safetensors"] {
        let script = format!(
            "ulimit -f 100; trap '' XFSZ; exec {} sample runs/run --from gaussian -n 100000 --method euler --steps 1 --out {file}",
            env!("CARGO_BIN_EXE_amatch")
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).current_dir(&folder).env_remove("LD_LIBRARY_PATH").env("CUDA_VISIBLE_DEVICES", "");
        let output = shell.output().expect("starts");
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        let wanted = format!("error: {file}: cannot write: File too large (os error 27)\n");
        assert_eq!(message, wanted);
        assert!(!folder.join(file).exists());
    }
}

#[test]
fn configurations_are_regular_files_of_bounded_size() {
    let (_guard, folder) = workplace();
    assert!(Command::new("mkfifo").arg(folder.join("fifo.toml")).status().expect("starts").success());
    std::os::unix::fs::symlink("/dev/zero", folder.join("zero.toml")).expect("linked");
    std::fs::File::create(folder.join("large.toml")).expect("created").set_len(1 << 40).expect("sparse");
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain("[data]\n".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    std::fs::write(folder.join("utf16.toml"), utf16).expect("written");
    std::fs::write(folder.join("latin.toml"), b"[data]\npath = \"caf\xe9.npz\"\n").expect("written");
    for (file, problem) in [
        ("fifo.toml", "is not a regular file"),
        ("zero.toml", "is not a regular file"),
        ("large.toml", "has 1099511627776 bytes"),
        ("utf16.toml", "line 1: is UTF-16 text"),
        ("latin.toml", "line 2: is not UTF-8 text"),
    ] {
        fails_soon(&folder, &["inspect", file], &[file, problem]);
        fails_soon(&folder, &["train", file], &[file, problem]);
    }
}

#[test]
fn data_in_the_place_of_a_configuration_is_said_to_be_data() {
    let (_guard, folder) = workplace();
    for file in ["cells.csv", "cells.npz", "cells.H5AD", "cells.tsv.gz"] {
        std::fs::write(folder.join(file), "t,x\n0,1\n").expect("written");
        fails_soon(&folder, &["train", file], &[file, "is a data file", "path = "]);
        fails_soon(&folder, &["validate", file], &[file, "is a data file", "path = "]);
    }
}

#[test]
fn metrics_that_are_no_file_do_not_block() {
    let (_guard, folder) = trained();
    std::fs::remove_file(folder.join("runs/run/metrics.jsonl")).expect("removed");
    assert!(Command::new("mkfifo").arg(folder.join("runs/run/metrics.jsonl")).status().expect("starts").success());
    fails_soon(&folder, &["inspect", "runs/run"], &["metrics.jsonl", "is not a regular file"]);
    fails_soon(&folder, &["train", "runs/run/config.toml", "--out", "runs/run", "--resume"], &["metrics.jsonl"]);
}

/// A model does not need the configuration next to it.
#[test]
fn a_damaged_configuration_is_no_hindrance_where_it_is_not_needed() {
    let (_guard, folder) = trained();
    let config = folder.join("runs/run/config.toml");
    let text_of_config = std::fs::read_to_string(&config).expect("readable");
    std::fs::write(&config, text_of_config.replace("[output]", "[output]\nlater_key = 3")).expect("written");
    for model in ["runs/run", "runs/run/model.safetensors"] {
        let out = format!("{}.csv", model.replace('/', "-"));
        let sample = ["sample", model, "--from", "gaussian", "-n", "10", "--out", &out];
        let warned = amatch(&folder, &sample);
        assert!(warned.status.success(), "{}", text(&warned.stderr));
        let said = text(&warned.stderr);
        assert!(said.contains("warning: ") && said.contains("output.later_key"), "{said}");
        succeeds(&folder, &["evaluate", model, "data.csv"]);
        fails(&folder, &["evaluate", model], &["warning: ", "output.later_key", "names its data"]);
        let snapshot = ["sample", model, "--from", "snapshot:0", "--out", "snapshot.csv"];
        fails(&folder, &snapshot, &["output.later_key", "--data"]);
        succeeds(&folder, &[&snapshot[..], &["--data", "data.csv", "--force"]].concat());
        std::fs::remove_file(folder.join("snapshot.csv")).expect("written");
    }
}

/// A path that is not UTF-8 cannot be stored in a text file: it is refused before the first step,
/// with the key named.
#[test]
fn paths_that_are_not_utf_8_are_refused_before_the_work() {
    let (_guard, folder) = workplace();
    let latin = folder.join(OsStr::from_bytes(b"caf\xe9"));
    std::fs::create_dir(&latin).expect("created");
    let train = |place: &Path, arguments: &[&OsStr]| {
        let mut run = command(place, &["train"]);
        let output = run.args(arguments).args(["--set", "training.steps=3"]).output().expect("starts");
        (output.status.code(), text(&output.stderr))
    };
    let (code, said) = train(&folder, &["run.toml".as_ref(), "--out".as_ref(), latin.join("run").as_os_str()]);
    assert!(code == Some(1) && said.contains("output.folder: ") && said.contains("not UTF-8"), "{code:?} {said}");
    for file in ["run.toml", "data.csv"] {
        std::fs::copy(folder.join(file), latin.join(file)).expect("copied");
    }
    // Started inside such a folder, whose name is part of the absolute paths.
    let (code, said) = train(&latin, &["run.toml".as_ref()]);
    assert!(code == Some(1) && said.contains("data.path: ") && said.contains("not UTF-8"), "{code:?} {said}");
    assert_eq!(std::fs::read_dir(&latin).expect("a folder").count(), 2, "something was written");
}

/// Sizes beyond any machine give an error that names the flag and the bytes, before anything is
/// read or allocated.
#[test]
fn absurd_sizes_are_refused_with_flag_and_bytes() {
    let (_guard, folder) = trained();
    const MOST: &str = "18446744073709551615";

    for (arguments, parts) in [
        (vec!["sample", "--from", "gaussian", "-n", MOST], vec![MOST, "takes", "bytes", "use fewer"]),
        (vec!["sample", "--from", "snapshot:0", "-n", MOST], vec![MOST, "bytes"]),
        (vec!["sample", "--from", "gaussian", "-n", "1000000000000"], vec!["-n 1000000000000", "16000000000000 bytes"]),
        (vec!["sample", "--from", "snapshot:0", "-n", "1000000000000"], vec!["-n 1000000000000", "bytes (14.55 TiB)"]),
        (vec!["sample", "--from", "data.csv", "--samples", "x,y", "-n", "1000000000000"], vec!["-n 1000000000000"]),
        (vec!["problem", "anisotropic", "-n", "1000000000000"], vec!["-n 1000000000000 --times 101", "bytes"]),
        (vec!["problem", "anisotropic", "-n", MOST, "--times", MOST], vec![MOST, "more than 10³⁸ bytes"]),
        (vec!["problem", "hydrogen", "-n", "10", "--times", MOST], vec!["--times", MOST, "bytes"]),
        (vec!["problem", "growth", "-n", "1", "--times", "1000000000000000"], vec!["--times", "bytes"]),
    ] {
        let mut arguments = arguments.clone();
        if arguments[0] == "sample" {
            arguments.insert(1, "runs/run");
        }
        fails_soon(&folder, &[&arguments[..], &["--out", "p.npz"]].concat(), &parts);
    }
    fails_soon(&folder, &["bench", "sampling-toy2d", "--rows", MOST], &["--rows", MOST, "bytes"]);
    fails_soon(&folder, &["bench", "toy2d", "--rows", MOST], &["--rows", MOST, "bytes"]);
    fails_soon(&folder, &["bench", "sampling-toy2d", "--rows", "0"], &["--rows 0"]);
    fails_soon(&folder, &["bench", "toy2d", "--rows", "10", "--seconds", "1e300"], &["--seconds 1e300:", "at most"]);
    fails_soon(&folder, &["bench", "toy2d", "--rows", "10", "--seconds", "nan"], &["--seconds NaN"]);
    fails_soon(&folder, &["evaluate", "runs/run", "--points", MOST], &["--points", MOST]);
    assert!(!folder.join("p.npz").exists());
    let threads = amatch(&folder, &["train", "run.toml", "--out", "x", "--threads", MOST]);
    let said = text(&threads.stderr);
    assert!(threads.status.code() == Some(2) && said.contains("--threads") && said.contains("1024"), "{said}");
}

/// Unbounded keys and nesting, on the command line and in the file.
#[test]
fn endless_keys_are_refused_in_a_short_message() {
    let (_guard, folder) = workplace();
    let key = vec!["a"; 60_000].join(".");
    let refused = |arguments: &[&str], parts: &[&str]| {
        fails_soon(&folder, arguments, parts);
        let message = text(&amatch(&folder, arguments).stderr);
        assert!(message.len() < 500, "{} bytes", message.len());
    };
    refused(&["train", "run.toml", "--set", &format!("{key}=1")], &["--set", "a.a.a", "too many levels"]);
    refused(&["train", "run.toml", "--set", &format!("training.steps={}", "[".repeat(60_000))], &["training.steps"]);
    for text in [format!("{key} = 1\n"), format!("[{key}]\n"), format!("a = {}\n", "[".repeat(60_000))] {
        std::fs::write(folder.join("deep.toml"), text).expect("written");
        refused(&["train", "deep.toml"], &["deep.toml", "line 1", "nested too deeply"]);
    }
    let long = format!("\"{}\" = 1\n", "k".repeat(100_000));
    std::fs::write(folder.join("long.toml"), long).expect("written");
    refused(&["train", "long.toml"], &["long.toml", "is not a key"]);
}
