//! A run that was killed, interrupted or lost its newest checkpoint ends like an uninterrupted one,
//! bit for bit.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const STEPS: u64 = 3000;

/// A folder with data, and the arguments of its run.
struct Workplace(tempfile::TempDir);

impl Workplace {
    fn new() -> Self {
        let guard = tempfile::tempdir().expect("a folder");
        let mut csv = String::from("times,x,y\n");
        for row in 0..90 {
            let angle = row as f64 * 0.9;
            csv += &format!("{},{},{}\n", row % 3, angle.cos() + (row % 3) as f64, 0.7 * angle.sin());
        }
        std::fs::write(guard.path().join("data.csv"), csv).expect("written");
        let config = format!(
            "[data]\npath = \"data.csv\"\n[model]\nhidden = [24, 17]\n[training]\nsteps = {STEPS}\ninterior_rows = 101\n\
             boundary_rows = 53\n[output]\ncheckpoint_every = 200\nmetrics_every = 7\n"
        );
        std::fs::write(guard.path().join("run.toml"), config).expect("written");
        Workplace(guard)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn start(&self, out: &str, more: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_amatch"))
            .args(["train", "run.toml", "--device", "cpu", "--threads", "1", "--out", out])
            .args(more)
            .current_dir(self.0.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts")
    }

    fn finish(&self, out: &str, more: &[&str]) -> Output {
        let output = self.start(out, more).wait_with_output().expect("the program ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn checkpoints(&self, out: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path(out).join("checkpoints")).into_iter().flatten();
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|suffix| suffix == "safetensors"))
            .collect();
        paths.sort();
        paths
    }

    /// Waits until the run has written `n` checkpoints, then sends the signal.
    fn signal_after(&self, mut child: Child, out: &str, n: usize, signal: &str) -> Output {
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.checkpoints(out).len() < n {
            assert!(Instant::now() < deadline, "no checkpoint came");
            assert!(child.try_wait().expect("a child").is_none(), "the run ended before the signal");
            std::thread::sleep(Duration::from_millis(2));
        }
        let status = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
        child.wait_with_output().expect("the program ends")
    }
}

/// Metrics without rows/s, which differ between any two runs.
pub fn metrics(run: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).expect("readable");
    text.lines().map(|line| line.split(",\"rows_per_s\"").next().unwrap_or_default().to_string()).collect()
}

#[track_caller]
fn same_run(place: &Workplace, a: &str, b: &str) {
    let read = |run: &str| {
        let checkpoint = place.checkpoints(run).pop().expect("a checkpoint");
        let model = std::fs::read(place.path(run).join("model.safetensors")).expect("readable");
        (std::fs::read(checkpoint).expect("readable"), model)
    };
    assert!(read(a) == read(b), "the final states differ");
    assert_eq!(metrics(&place.path(a)), metrics(&place.path(b)));
}

#[test]
fn killed_and_interrupted_runs_end_like_an_uninterrupted_one() {
    let place = Workplace::new();
    place.finish("whole", &[]);

    let killed = place.start("killed", &[]);
    let output = place.signal_after(killed, "killed", 2, "-KILL");
    assert!(!output.status.success());
    place.finish("killed", &["--resume"]);
    same_run(&place, "whole", "killed");

    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let out = format!("stopped{signal}");
        let child = place.start(&out, &[]);
        let output = place.signal_after(child, &out, 1, signal);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert!(message.contains("stopped after") && message.contains("--resume"), "{message}");
        assert!(message.contains("--device cpu"), "{message}");
        // The checkpoint of the interruption is newer than the last regular one, or is a regular
        // one.
        place.finish(&out, &["--resume"]);
        same_run(&place, "whole", &out);
    }
    // Resuming a finished run changes nothing.
    place.finish("killed", &["--resume"]);
    same_run(&place, "whole", "killed");
}

#[test]
fn a_damaged_newest_checkpoint_is_noticed_and_the_one_before_it_used() {
    let place = Workplace::new();
    place.finish("whole", &[]);
    for out in ["truncated", "altered", "empty"] {
        let child = place.start(out, &[]);
        place.signal_after(child, out, 3, "-KILL");
        let newest = place.checkpoints(out).pop().expect("a checkpoint");
        let mut bytes = std::fs::read(&newest).expect("readable");
        let middle = bytes.len() / 2;
        match out {
            "truncated" => bytes.truncate(middle),
            "altered" => bytes[middle] ^= 4,
            _ => bytes.clear(),
        }
        std::fs::write(&newest, bytes).expect("written");
        let output = place.finish(out, &["--resume"]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        let name = newest.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(message.contains(&name) && message.contains("trying the checkpoint before it"), "{message}");
        same_run(&place, "whole", out);
    }
}

#[test]
fn without_any_whole_checkpoint_resuming_is_an_error() {
    let place = Workplace::new();
    let child = place.start("run", &[]);
    place.signal_after(child, "run", 1, "-KILL");
    for path in place.checkpoints("run") {
        std::fs::write(path, b"gone").expect("written");
    }
    let output = place.start("run", &["--resume"]).wait_with_output().expect("the program ends");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("error: ") && message.contains("step-"), "{message}");
}
