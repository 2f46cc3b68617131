//! Standard output and standard error that cannot be written: the work is done, files are written,
//! and nothing panics.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use super::cli::{SMALL, command, fails, succeeds, text, trained, workplace};

/// A stream whose next write fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    /// A full disk.
    Full,
    /// A pipe whose reader is gone.
    Closed,
}

impl Broken {
    fn open(self) -> Stdio {
        match self {
            Broken::Full => File::options().write(true).open("/dev/full").expect("a full device").into(),
            Broken::Closed => std::io::pipe().expect("a pipe").1.into(),
        }
    }
}

/// Exit code and messages of a command whose standard output is broken.
fn without_stdout(folder: &Path, arguments: &[&str], stdout: Broken) -> (Option<i32>, String) {
    let mut command = command(folder, arguments);
    let output = command.stdout(stdout.open()).stderr(Stdio::piped()).spawn().expect("starts").wait_with_output();
    let output = output.expect("ends");
    (output.status.code(), text(&output.stderr))
}

fn without_stderr(folder: &Path, arguments: &[&str], stderr: Broken) -> Option<i32> {
    command(folder, arguments).stdout(Stdio::null()).stderr(stderr.open()).status().expect("starts").code()
}

/// A batch for `amatch check`, next to the run.
fn write_batch(folder: &Path) {
    use crate::common::files::{Stored, write};
    let tensors = [
        Stored::f32("x", &[1, 2], &[0.1, 0.2]),
        Stored::f32("t", &[1], &[0.5]),
        Stored::f32("x0", &[1, 2], &[0.3, 0.4]),
        Stored::f32("x1", &[1, 2], &[0.5, 0.6]),
    ];
    write(&folder.join("batch.safetensors"), &tensors, Default::default());
}

const CHECK: [&str; 5] = ["check", "--model", "runs/run/model.safetensors", "--batch", "batch.safetensors"];

#[test]
fn a_result_that_cannot_be_printed_is_an_error_unless_its_reader_is_gone() {
    let (_guard, folder) = trained();
    write_batch(&folder);
    for arguments in [
        &["inspect", "data.csv"][..],
        &["inspect", "runs/run"],
        &["inspect", "runs/run/model.safetensors"],
        &["inspect", "run.toml"],
        &["evaluate", "runs/run", "--json", "scores.json"],
        &["evaluate", "runs/run"],
        &[&CHECK[..], &["--out", "gradients.safetensors", "--force"]].concat(),
        &["bench", "toy2d", "--rows", "8", "--seconds", "0.01", "--threads", "1"],
        &["bench", "peak", "--json", "--seconds", "0.01", "--threads", "1"],
        &["bench", "--list"],
        &["devices"],
        &["problem", "--list"],
        &["--help"],
        &["train", "--help"],
        &["--version"],
    ] {
        let (code, said) = without_stdout(&folder, arguments, Broken::Full);
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains("standard output"), "{arguments:?}: {said}");
        assert_eq!(said.matches("No space left").count(), 1, "{said}");
        let (code, said) = without_stdout(&folder, arguments, Broken::Closed);
        assert!(code == Some(0) && !said.contains("error"), "{arguments:?}: {code:?} {said}");
    }
}

/// Files come first: they exist even if the text cannot be printed.
#[test]
fn files_are_written_before_anything_is_printed() {
    for stdout in [Broken::Full, Broken::Closed] {
        let (_guard, folder) = trained();
        write_batch(&folder);
        without_stdout(&folder, &["evaluate", "runs/run", "--json", "scores.json"], stdout);
        without_stdout(&folder, &[&CHECK[..], &["--out", "gradients.safetensors"]].concat(), stdout);
        let scores = std::fs::read(folder.join("scores.json")).expect("a report");
        assert!(serde_json::from_slice::<serde_json::Value>(&scores).expect("JSON")["comparisons"].is_array());
        assert!(succeeds(&folder, &["inspect", "gradients.safetensors"]).contains("grad.net.0.weight"));
    }
}

#[test]
fn messages_that_cannot_be_written_change_nothing() {
    let (_guard, folder) = trained();
    write_batch(&folder);
    let model = |run: &str| std::fs::read(folder.join(run).join("model.safetensors")).expect("a model");
    for (stderr, name) in [(Broken::Full, "full"), (Broken::Closed, "closed")] {
        let done =
            |arguments: &[&str]| assert_eq!(without_stderr(&folder, arguments, stderr), Some(0), "{arguments:?}");
        done(&[&["train", "run.toml", "--out", name][..], &SMALL].concat());
        assert!(model(name) == model("runs/run"), "the models differ");
        assert_eq!(std::fs::read_dir(folder.join(name).join("checkpoints")).expect("a folder").count(), 1);
        let out = |file: &str| format!("{name}-{file}");
        done(&["sample", "runs/run", "--from", "snapshot:0", "--out", &out("p.npz")]);
        done(&["sample", "runs/run", "--from", "snapshot:0", "--t1", "9", "--out", &out("far.npz")]); // warns
        done(&["problem", "scaling", "-n", "10", "--times", "3", "--out", &out("scaling.csv")]);
        done(&["evaluate", "runs/run", "--json", &out("scores.json")]);
        done(&[&CHECK[..], &["--out", &out("gradients.safetensors")]].concat());
        for file in ["p.npz", "far.npz", "scaling.csv", "scores.json", "gradients.safetensors"] {
            assert!(folder.join(out(file)).exists(), "{file}");
        }
        for (arguments, code) in [
            (&["train", "absent.toml"][..], 1),
            (&["sample", "runs/run", "--from", "absent.npz", "--out", "x.npz"], 1),
            (&["evaluate", "absent"], 1),
            (&["inspect", "absent.npz"], 1),
            (&["problem", "unknown", "--out", "x.npz"], 1),
            (&["bench", "unknown"], 1),
            (&["train"], 2),
            (&["unknown"], 2),
            (&[], 2),
        ] {
            assert_eq!(without_stderr(&folder, arguments, stderr), Some(code), "{arguments:?}");
        }
    }
}

/// The log of a long run is read by `head`, which exits after the first line.
#[test]
fn a_run_goes_on_when_the_reader_of_its_log_leaves() {
    use std::io::{BufRead, BufReader};
    let (_guard, folder) = workplace();
    let mut run = command(&folder, &[&["train", "run.toml"][..], &SMALL].concat());
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut line = String::new();
    BufReader::new(run.stderr.take().expect("piped")).read_line(&mut line).expect("a line");
    assert!(!line.is_empty());
    assert_eq!(run.wait().expect("ends").code(), Some(0));
    assert!(folder.join("runs/run/model.safetensors").exists());
}

/// Particles as text on standard output: a reader that stops early is not an error, a full disk is.
#[test]
fn particles_go_down_a_pipe() {
    let (_guard, folder) = trained();
    let sample = ["sample", "runs/run", "--from", "gaussian", "-n", "20000", "--steps", "1", "--method", "euler"];
    let sample = [&sample[..], &["--out", "/dev/stdout"]].concat();
    let table = succeeds(&folder, &sample);
    assert!(table.starts_with("x,y,times\n"), "{}", &table[..60]);
    assert_eq!(table.lines().count(), 20_001);
    let (code, said) = without_stdout(&folder, &sample, Broken::Closed);
    assert!(code == Some(0) && !said.contains("error"), "{code:?} {said}");
    let (code, said) = without_stdout(&folder, &sample, Broken::Full);
    assert!(code == Some(1) && said.contains("/dev/stdout: cannot write: No space left"), "{code:?} {said}");
    fails(&folder, &[&sample[..10], &["--out", "/dev/full"]].concat(), &["/dev/full: cannot write"]);
}
