//! `amatch validate`, and the path `auto` of `amatch train`.

use std::path::Path;

use action_matching::config::{Config, PathConfig};
use action_matching::model::Model;

use super::cli::{amatch, succeeds, text};

/// Ten times at which 40 particles each go round a circle; the rows of time `moved` are displaced.
fn orbit(folder: &Path, moved: Option<usize>) {
    let mut csv = String::from("times,x,y\n");
    for time in 0..10 {
        for row in 0..40 {
            let spread = f64::from(row * row * 7 % 41) / 41.0 - 0.5;
            let angle = 0.6 * time as f64 + 0.4 * (f64::from(row) / 40.0 - 0.5) + 0.1 * f64::from(time * row % 3);
            let far = if moved == Some(time as usize) { 50.0 + f64::from(row) } else { 0.0 };
            csv += &format!(
                "{time},{},{}\n",
                (1.0 + 0.3 * spread) * angle.cos() + far,
                (1.0 + 0.3 * spread) * angle.sin()
            );
        }
    }
    std::fs::write(folder.join("orbit.csv"), csv).expect("written");
    let config = "[data]\npath = \"orbit.csv\"\nhold_out = [4]\n[model]\nhidden = [16, 16]\ntime_embedding = \"raw\"\n\
                  [training]\nsteps = 300\ninterior_rows = 64\nboundary_rows = 16\nwarmup_steps = 20\n";
    std::fs::write(folder.join("run.toml"), config).expect("written");
}

fn train(folder: &Path, more: &[&str]) -> String {
    let output = amatch(folder, &[&["train", "run.toml", "--device", "cpu"][..], more].concat());
    let message = text(&output.stderr);
    assert!(output.status.success(), "{message}");
    message
}

fn config(folder: &Path, file: &str) -> Config {
    Config::read(&folder.join(file), &[]).expect("reads")
}

/// The choice is made once, is written, and reproduces the run; a resumed run makes none.
#[test]
fn a_run_keeps_its_choice() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    orbit(folder, None);
    let message = train(folder, &["--out", "run", "--threads", "1"]);
    let line = message.lines().find(|line| line.starts_with("chosen: ")).expect(&message);
    for part in [" + ot, raw, 2×16; energy distance ", ", of spline", "7 times left out in turn", "unmoved"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let kept = config(folder, "run/config.toml");
    assert!(matches!(kept.objective.path, PathConfig::Spline { .. }), "{:?}", kept.objective.path);
    let written = kept.to_toml().expect("text");
    assert!(
        !["path", "pairing", "hidden", "time_embedding"]
            .iter()
            .any(|key| written.contains(&format!("{key} = \"auto\"")))
    );
    let model = |run: &str| Model::load(&folder.join(run).join("model.safetensors")).expect("loads");

    // On three threads, from the file of the run, and in two parts: the same bits.
    let again = train(folder, &["--out", "threads", "--threads", "3"]);
    assert_eq!(again.lines().find(|line| line.starts_with("chosen: ")), Some(line));
    assert_eq!(model("threads"), model("run"));
    let from_file = ["train", "run/config.toml", "--device", "cpu", "--out", "again"];
    let output = amatch(folder, &from_file);
    assert!(output.status.success() && !text(&output.stderr).contains("chosen"), "{}", text(&output.stderr));
    assert_eq!(model("again"), model("run"));
    let resumed = train(folder, &["--out", "run", "--resume", "--set", "training.steps=310"]);
    assert!(!resumed.contains("chosen") && !resumed.contains("comparing"), "{resumed}");
    assert_eq!(config(folder, "run/config.toml").objective, kept.objective);

    // A setting that is given is not the one that was chosen.
    let conflict =
        ["train", "run.toml", "--out", "run", "--resume", "--device", "cpu", "--set", "objective.path=linear"];
    let refused = amatch(folder, &conflict);
    let message = text(&refused.stderr);
    assert!(
        !refused.status.success() && message.contains("objective.path was ") && message.contains("is \"linear\""),
        "{message}"
    );
}

/// Times that are held out for the end decide nothing.
#[test]
fn held_out_rows_change_no_choice() {
    let [plain, moved] = [None, Some(4)].map(|moved| {
        let folder = tempfile::tempdir().expect("a folder");
        orbit(folder.path(), moved);
        let message = train(folder.path(), &["--out", "run"]);
        let line = message.lines().find(|line| line.starts_with("chosen: ")).expect(&message).to_owned();
        let table = succeeds(folder.path(), &["validate", "run.toml", "--set", "training.steps=20", "--threads", "1"]);
        (line, table, Model::load(&folder.path().join("run/model.safetensors")).expect("loads"))
    });
    assert_eq!((plain.0, plain.1), (moved.0, moved.1));
    // All rows of the file share the origin from which f32 holds them, which rounds them.
    let parameters = plain.2.parameters.iter().zip(&moved.2.parameters);
    assert!(parameters.clone().all(|(a, b)| (a - b).abs() < 1e-4), "{parameters:?}");
}

#[test]
fn a_validation_writes_what_trains() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    orbit(folder, None);
    let few = ["--set", "training.steps=20"];
    let validate = |more: &[&str]| amatch(folder, &[&["validate", "run.toml"][..], &few, more].concat());
    let output = validate(&["--write", "chosen.toml", "--threads", "2"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("Take * spline") && !text(&output.stdout).contains("Settings"));
    let chosen = config(folder, "chosen.toml");
    assert!(matches!(chosen.objective.path, PathConfig::Spline { .. }), "{:?}", chosen.objective.path);
    assert_eq!(chosen.data.hold_out, vec![4.0].into());
    let trained = amatch(folder, &["train", "chosen.toml", "--device", "cpu", "--out", "run"]);
    assert!(trained.status.success() && !text(&trained.stderr).contains("chosen: "), "{}", text(&trained.stderr));

    let kept = validate(&["--write", "chosen.toml"]);
    assert!(!kept.status.success() && text(&kept.stderr).contains("chosen.toml"), "{}", text(&kept.stderr));
    let read = validate(&["--write", "run.toml", "--force"]);
    assert!(!read.status.success() && text(&read.stderr).contains("which this command reads"));
    for leave_out in ["last", "rows"] {
        let output = validate(&["--leave-out", leave_out, "--seeds", "2"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let generative = validate(&["--set", "objective.path=generative-vp", "--set", "data.hold_out=[]"]);
    assert!(!generative.status.success() && text(&generative.stderr).contains("there is no snapshot to leave out"));
}

/// The table as the program prints it, for the snapshots.
pub fn table() -> String {
    let folder = tempfile::tempdir().expect("a folder");
    orbit(folder.path(), None);
    succeeds(folder.path(), &["validate", "run.toml", "--set", "training.steps=40", "--threads", "1"])
}
