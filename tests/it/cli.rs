//! The program from the user's side: commands end to end, messages, exit codes, and files that stay
//! unchanged when something fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use action_matching::data::{DataSource, read_snapshots};

pub const SMALL: [&str; 10] = [
    "--set",
    "training.steps=60",
    "--set",
    "training.interior_rows=64",
    "--set",
    "training.boundary_rows=32",
    "--set",
    "model.hidden=[16, 16]",
    "--threads",
    "2",
];

/// The program on a machine without a visible GPU: `--device auto` is the CPU.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amatch"));
    command.args(arguments).current_dir(folder).env_remove("LD_LIBRARY_PATH").env("CUDA_VISIBLE_DEVICES", "");
    command
}

pub fn amatch(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().expect("the program starts")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
pub fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let output = amatch(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Fails with exit code 1, one line that contains every part, and no panic.
#[track_caller]
pub fn fails(folder: &Path, arguments: &[&str], parts: &[&str]) {
    let output = amatch(folder, arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    assert!(message.contains("error: ") && !message.contains("panicked"), "{message}");
}

/// A folder with a data set and a configuration for it.
pub fn workplace() -> (tempfile::TempDir, PathBuf) {
    let guard = tempfile::tempdir().expect("a folder");
    let folder = guard.path().to_owned();
    let mut csv = String::from("times,x,y\n");
    for row in 0..150 {
        let (time, angle) = (row % 3, row as f64 * 0.7);
        csv += &format!("{time},{},{}\n", angle.cos() + time as f64, angle.sin() * (1.0 + 0.1 * time as f64));
    }
    std::fs::write(folder.join("data.csv"), csv).expect("written");
    std::fs::write(folder.join("run.toml"), "[data]\npath = \"data.csv\"\n").expect("written");
    (guard, folder)
}

pub fn trained() -> (tempfile::TempDir, PathBuf) {
    let (guard, folder) = workplace();
    succeeds(&folder, &[&["train", "run.toml"][..], &SMALL].concat());
    (guard, folder)
}

#[test]
fn help_teaches_with_examples() {
    let here = Path::new(".");
    assert!(succeeds(here, &["--help"]).contains("amatch train examples/hematopoiesis.toml"));
    for command in ["train", "sample", "evaluate", "check", "inspect", "problem", "bench", "devices"] {
        let help = succeeds(here, &[command, "--help"]);
        assert!(help.contains("Example") && help.contains(&format!("amatch {command}")), "{help}");
    }
    assert!(succeeds(here, &["--version"]).contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(amatch(here, &["train"]).status.code(), Some(2), "a usage error");
}

/// Scripts rely on these codes: the table is complete.
#[test]
fn help_lists_the_exit_codes() {
    let here = Path::new(".");
    let help = succeeds(here, &["--help"]);
    let (_, table) = help.split_once("Exit codes:\n").expect("a table");
    let codes: Vec<&str> = table.lines().map(|line| line.split("  ").nth(1).unwrap_or_default().trim()).collect();
    assert_eq!(codes, ["0", "1", "2", "3", "75", "128 + n"], "{table}");
    for part in ["done", "error", "command line", "failed its own test", "--resume", "signal"] {
        assert!(table.contains(part), "{part:?} is not in {table}");
    }
    assert_eq!(amatch(here, &["inspect", "absent.npz"]).status.code(), Some(1));
    assert_eq!(amatch(here, &["--unknown"]).status.code(), Some(2));
}

/// Without a driver the CPU is listed, and what to install; this is not a failure.
#[test]
fn devices_says_what_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    // Files that are not libraries hide those of the machine.
    for name in ["cuda", "nvcuda"].into_iter().flat_map(cudarc::get_lib_name_candidates) {
        std::fs::write(folder.path().join(name), "").expect("written");
    }
    let output = command(folder.path(), &["devices"]).env("LD_LIBRARY_PATH", folder.path()).output().expect("starts");
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    for part in ["cpu, ", "f32 × ", "there is no NVIDIA driver", "install driver ", "nvcc"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert!(!said.contains("cuda:0"), "{said}");
}

#[test]
fn a_run_trains_samples_evaluates_and_describes_itself() {
    let (_guard, folder) = trained();
    let run = folder.join("runs/run");
    for file in ["config.toml", "model.safetensors", "metrics.jsonl", "loss.svg"] {
        assert!(run.join(file).exists(), "{file}");
    }
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).expect("readable");
    assert_eq!(metrics.lines().count(), 7, "steps 0, 10, …, 50 and the last");
    for key in ["step", "loss", "boundary0", "interior", "kinetic", "gradient_norm", "learning_rate", "rows_per_s"] {
        assert!(metrics.contains(&format!("\"{key}\":")), "{key}");
    }

    succeeds(&folder, &["sample", "runs/run", "--from", "snapshot:0", "--save-at", "0", "1.5", "2", "--out", "p.npz"]);
    let particles = read_snapshots(&DataSource::new(folder.join("p.npz")), &()).expect("readable").snapshots;
    assert_eq!((&particles.times[..], &particles.offsets[..]), (&[0.0, 1.5, 2.0][..], &[0, 50, 100, 150][..]));
    let data = read_snapshots(&DataSource::new(folder.join("data.csv")), &()).expect("readable").positions(0);
    for (&got, want) in particles.rows(0).iter().zip(&data) {
        assert!((f64::from(got) - want).abs() < 1e-5, "the start is the snapshot");
    }
    assert!(
        particles.rows(2).iter().zip(&data).any(|(&end, start)| (f64::from(end) - start).abs() > 1e-3),
        "they moved"
    );

    let backward = ["sample", "runs/run", "--from", "p.npz", "--t0", "2", "--t1", "0", "-n", "7", "--method", "rk4"];
    succeeds(&folder, &[&backward[..], &["--steps", "9", "--out", "b.csv"]].concat());
    assert_eq!(std::fs::read_to_string(folder.join("b.csv")).expect("readable").lines().count(), 8);
    let model = "runs/run/model.safetensors";
    let gaussian = ["sample", model, "--from", "gaussian", "-n", "9", "--rtol", "1e-3", "--out", "g.safetensors"];
    succeeds(&folder, &gaussian);

    let table = succeeds(&folder, &["evaluate", "runs/run", "--json", "scores.json"]);
    for part in ["0 → 1", "1 → 2", "W1", "W2", "MMD²", "floor", "no motion", "kinetic energy", "HJB residual"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("scores.json")).expect("readable")).expect("JSON");
    assert!(json["comparisons"][1]["sampling_floor"]["w1"].as_f64().is_some(), "{json}");
    let held = succeeds(&folder, &["evaluate", model, "data.csv", "--held-out", "1", "--points", "20"]);
    assert!(held.contains("0 → 1 *") && held.contains("0 → 2"), "{held}");

    for (file, part) in [
        ("runs/run", "60 of 60"),
        (model, "hidden layers    [16, 16]"),
        ("runs/run/checkpoints/step-0000000060.safetensors", "fingerprint"),
        ("runs/run/config.toml", "interior_rows = 64"),
        ("data.csv", "x"),
        ("p.npz", "samples"),
    ] {
        let description = succeeds(&folder, &["inspect", file]);
        assert!(description.contains(part), "{part} is not in\n{description}");
    }
}

#[test]
fn a_run_is_reproduced_from_its_own_folder() {
    let (_guard, folder) = trained();
    let again = ["train", "runs/run/config.toml", "--out", "again", "--threads", "1"];
    // The precision of a GPU is recorded, and does not matter on the CPU.
    succeeds(&folder, &[&again[..], &["--set", "training.precision=f16", "--precision", "f32"]].concat());
    let config = std::fs::read_to_string(folder.join("again/config.toml")).expect("readable");
    assert!(config.contains("precision = \"f16\""), "{config}");
    let read = |path: &str| std::fs::read(folder.join(path)).expect("readable");
    assert!(read("runs/run/model.safetensors") == read("again/model.safetensors"), "the models differ");
}

#[test]
fn existing_run_folders_are_left_alone_unless_told_otherwise() {
    let (_guard, folder) = trained();
    let model = folder.join("runs/run/model.safetensors");
    let before = std::fs::read(&model).expect("readable");
    let train = [&["train", "run.toml"][..], &SMALL].concat();
    fails(&folder, &train, &["runs/run", "already exists", "--resume", "--force"]);
    assert_eq!(std::fs::read(&model).expect("readable"), before);
    succeeds(&folder, &[&train[..], &["--set", "training.seed=5", "--force"]].concat());
    assert_ne!(std::fs::read(&model).expect("readable"), before);
    let other_seed = [&train[..], &["--set", "training.seed=6", "--resume"]].concat();
    fails(&folder, &other_seed, &["--resume", "training.seed was 5 and is 6"]);
    std::fs::create_dir(folder.join("mine")).expect("created");
    std::fs::write(folder.join("mine/thesis.txt"), "years of work").expect("written");
    fails(&folder, &["train", "run.toml", "--out", "mine", "--force"], &["mine", "not a run's"]);
    fails(&folder, &["train", "run.toml", "--out", "data.csv"], &["data.csv", "is a file"]);
    assert!(folder.join("mine/thesis.txt").exists());
}

#[test]
fn bad_training_input_names_file_field_and_fix_and_writes_nothing() {
    let (_guard, folder) = workplace();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
    fails(&folder, &["train", "absent.toml"], &["absent.toml", "does not exist"]);
    write("bad.toml", "[data]\npath = \"data.csv\"\n[training]\nlearing_rate = 1.0\n");
    fails(
        &folder,
        &["train", "bad.toml"],
        &["bad.toml", "training.learing_rate", "did you mean training.learning_rate?"],
    );
    write("bad.toml", "[data]\npath = \"nowhere.npz\"\n");
    fails(&folder, &["train", "bad.toml"], &["nowhere.npz", "does not exist"]);
    fails(&folder, &["train", "run.toml", "--set", "training.interior_rows=0"], &["training.interior_rows", "is 0"]);
    fails(&folder, &["train", "run.toml", "--set", "training.interior_rows=-4"], &["training.interior_rows"]);
    fails(&folder, &["train", "run.toml", "--set", "data.hold_out=[0]"], &["data.csv", "hold_out"]);
    fails(&folder, &["train", "run.toml", "--set", "data.hold_out=[7]"], &["data.csv", "7"]);
    fails(
        &folder,
        &["train", "run.toml", "--set", "objective.laplacian.probes=0"],
        &["objective.laplacian.probes", "is 0"],
    );
    fails(&folder, &["train", "run.toml", "--device", "cuda:0"], &["cuda:0", "--device cpu"]);
    fails(&folder, &["train", "run.toml", "--device", "cuda:x"], &["cuda:x", "is not a device"]);
    for (device, name) in [("cpu", "device cpu"), ("auto", "auto (here the CPU)")] {
        let train = ["train", "run.toml", "--device", device, "--precision", "bf16"];
        fails(&folder, &train, &[name, "--precision bf16", "--device cuda"]);
    }
    let output = amatch(&folder, &["train", "run.toml", "--precision", "f64"]);
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("f32, tf32, bf16, f16"));
    fails(&folder, &["train", "run.toml", "--device", "tpu"], &["tpu", "is not a device"]);
    fails(&folder, &["train", "run.toml", "--out", "data.csv/run"], &["data.csv"]);
    write("one.csv", "times,x\n0,1\n0,2\n");
    fails(&folder, &["train", "run.toml", "--set", "data.path=one.csv"], &["one.csv", "time"]);
    write("nan.csv", "times,x\n0,1\n1,nan\n");
    fails(&folder, &["train", "run.toml", "--set", "data.path=nan.csv"], &["nan.csv", "row 1"]);
    assert!(!folder.join("runs").exists(), "a failed start leaves no run folder");
}

#[test]
fn a_loss_that_is_lost_stops_with_the_step_and_keeps_the_last_checkpoint() {
    let (_guard, folder) = workplace();
    let steady = [
        "--set",
        "output.checkpoint_every=2",
        "--set",
        "training.warmup_steps=20",
        "--set",
        "training.schedule=constant",
    ];
    let wild = ["--set", "training.learning_rate=1e38", "--set", "model.head=quadratic"];
    let train = [&["train", "run.toml"][..], &SMALL, &steady, &wild].concat();
    fails(&folder, &train, &["not finite at step", "learning_rate"]);
    let kept = std::fs::read_dir(folder.join("runs/run/checkpoints")).expect("readable").count();
    assert!(kept <= 3, "{kept} checkpoints");
}

#[test]
fn bad_sampling_and_evaluation_input_writes_nothing() {
    let (_guard, folder) = trained();
    let sample = |arguments: &[&str], parts: &[&str]| {
        fails(&folder, &[&["sample", "runs/run", "--out", "out.npz"][..], arguments].concat(), parts);
        assert!(!folder.join("out.npz").exists());
    };
    sample(&["--from", "gaussian"], &["-n"]);
    sample(&["--from", "gaussian", "-n", "0"], &["no particles"]);
    sample(&["--from", "snapshot:7"], &["data.csv", "7", "0, 1, 2"]);
    sample(&["--from", "snapshot:x"], &["snapshot", "\"x\""]);
    sample(&["--from", "absent.npz"], &["absent.npz", "does not exist"]);
    sample(&["--from", "gaussian", "-n", "3", "--method", "euler", "--rtol", "1e-3"], &["--rtol", "Euler"]);
    sample(&["--from", "gaussian", "-n", "3", "--steps", "0"], &["--steps", "0"]);
    sample(&["--from", "gaussian", "-n", "3", "--save-at", "2", "1"], &["--save-at", "order"]);
    std::fs::write(folder.join("three.csv"), "a,b,c\n1,2,3\n").expect("written");
    sample(&["--from", "three.csv"], &["three.csv: columns: a, b, c are not those", "trained on x, y"]);
    fails(&folder, &["sample", "runs/run", "--from", "gaussian", "-n", "3", "--out", "out.txt"], &["out.txt", ".npz"]);
    fails(&folder, &["sample", "runs/run", "--from", "gaussian", "-n", "3", "--out", "no/out.npz"], &["no/out.npz"]);
    fails(
        &folder,
        &["sample", "data.csv", "--from", "gaussian", "-n", "3", "--out", "out.npz"],
        &["data.csv", "header"],
    );

    fails(&folder, &["evaluate", "runs/run", "three.csv"], &["three.csv"]);
    fails(&folder, &["evaluate", "runs/run", "--held-out", "0"], &["--held-out", "first time"]);
    fails(&folder, &["evaluate", "runs/run", "--held-out", "9"], &["--held-out", "9"]);
    fails(&folder, &["evaluate", "runs/run", "--points", "0"], &["--points"]);
    fails(&folder, &["evaluate", "runs/run", "--json", "no/scores.json"], &["no/scores.json"]);
    std::fs::rename(folder.join("runs/run/config.toml"), folder.join("moved.toml")).expect("renamed");
    fails(&folder, &["evaluate", "runs/run"], &["data"]);
    fails(&folder, &["inspect", "absent.npz"], &["absent.npz", "does not exist"]);
    fails(&folder, &["bench", "everything"], &["everything", "--list"]);
}

#[test]
fn check_writes_what_porters_need() {
    let (_guard, folder) = trained();
    let mut bytes = Vec::new();
    let mut tensor = |values: &[f32]| {
        let start = bytes.len();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        (start, bytes.len())
    };
    let (x, t) = (tensor(&[0.1, 0.2, -0.3, 0.4, 0.5, -0.6]), tensor(&[0.2, 0.5, 0.9]));
    let (x0, x1) = (tensor(&[0.7, 0.8]), tensor(&[-0.9, 1.0, 1.1, 1.2]));
    let entry = |name: &str, shape: &str, (start, end): (usize, usize)| {
        format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[{start},{end}]}}")
    };
    let entries = [entry("x", "[3,2]", x), entry("t", "[3]", t), entry("x0", "[1,2]", x0), entry("x1", "[2,2]", x1)];
    let header = format!("{{{}}}", entries.join(","));
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes].concat();
    std::fs::write(folder.join("batch.safetensors"), file).expect("written");
    let check = ["check", "--model", "runs/run", "--batch", "batch.safetensors", "--out"];
    let single = succeeds(&folder, &[&check[..], &["single.safetensors"]].concat());
    let double = succeeds(&folder, &[&check[..], &["double.safetensors", "--precision", "f64"]].concat());
    for (arguments, parts) in [
        (["--precision", "tf32", "--device", "cpu"], ["device cpu", "--precision tf32 is for GPUs"]),
        (["--precision", "f64", "--device", "cuda"], ["device cuda", "--precision f64 is for the CPU"]),
    ] {
        fails(&folder, &[&check[..], &["none.safetensors"], &arguments].concat(), &parts);
        assert!(!folder.join("none.safetensors").exists());
    }
    let automatic = ["double.safetensors", "--force", "--precision", "f64", "--device", "auto"];
    assert_eq!(succeeds(&folder, &[&check[..], &automatic].concat()), double);
    let loss = |text: &str| -> f64 {
        text.trim().strip_prefix("loss ").and_then(|loss| loss.parse().ok()).unwrap_or_else(|| panic!("{text}"))
    };
    assert!((loss(&single) - loss(&double)).abs() < 1e-5, "{single}{double}");
    let bytes = std::fs::read(folder.join("double.safetensors")).expect("readable");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
    let shape = |name: &str| tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}")).shape().to_vec();
    assert_eq!(shape("grad.net.0.weight"), [16, 3]);
    assert_eq!(shape("grad.net.4.bias"), [1]);
    assert_eq!((shape("loss"), shape("s"), shape("ds_dx"), shape("ds_dt")), (vec![], vec![3], vec![3, 2], vec![3]));
}

/// Columns and rows of a .csv file of numbers.
fn table(path: &Path) -> (String, Vec<Vec<f64>>) {
    let text = std::fs::read_to_string(path).expect("a table");
    let mut lines = text.lines();
    let header = lines.next().expect("a header").to_string();
    (header, lines.map(|line| line.split(',').map(|cell| cell.parse().expect("a number")).collect()).collect())
}

/// With growth particles carry weights; resampling turns them into equally weighted ones.
#[test]
fn particles_of_a_growing_population_carry_weights() {
    let (_guard, folder) = workplace();
    let growing = ["--set", "objective.growth=1", "--set", "objective.mass=counts", "--set", "objective.pairing=ot"];
    succeeds(&folder, &[&["train", "run.toml"][..], &SMALL, &growing].concat());
    let sample = ["sample", "runs/run", "--from", "snapshot:0", "-n", "40", "--save-at", "1,2", "--out", "p.csv"];
    succeeds(&folder, &sample);
    let (header, rows) = table(&folder.join("p.csv"));
    assert!(header.ends_with(",times,log_weights"), "{header}");
    assert_eq!(rows.len(), 80);
    assert!(rows.iter().any(|row| row[3] != rows[0][3]));
    succeeds(&folder, &[&sample[..], &["--resample", "--force"]].concat());
    let (header, resampled) = table(&folder.join("p.csv"));
    assert!(header.ends_with(",times"), "{header}");
    assert!(resampled.iter().all(|row| rows.iter().any(|all| all[..3] == row[..])));
    assert!(succeeds(&folder, &["evaluate", "runs/run"]).contains("relative mass"));
}

/// log q of particles from the standard normal: at the start time it is that of the normal itself,
/// in data units.
#[test]
fn densities_are_written_in_data_units() {
    let (_guard, folder) = trained();
    let sample =
        ["sample", "runs/run", "--from", "gaussian", "-n", "30", "--density", "--save-at", "0,2", "--out", "p.csv"];
    succeeds(&folder, &sample);
    let (header, rows) = table(&folder.join("p.csv"));
    assert!(header.ends_with(",times,log_density"), "{header}");
    let model = action_matching::model::Model::load(&folder.join("runs/run/model.safetensors")).expect("a model");
    let (mean, scale) = (&model.coordinates.mean, &model.coordinates.scale);
    for row in &rows[..30] {
        let square: f64 = (0..2).map(|i| ((row[i] - mean[i]) / scale[i]).powi(2)).sum();
        let volume: f64 = scale.iter().map(|scale| scale.ln()).sum();
        let want = -std::f64::consts::TAU.ln() - 0.5 * square - volume;
        assert!((row[3] - want).abs() < 1e-4, "{}, not {want}", row[3]);
    }
    assert!(rows[30..].iter().zip(&rows).any(|(end, start)| (end[3] - start[3]).abs() > 1e-6));
    fails(&folder, &[&sample[..6], &["--out", "q.csv", "--resample"]].concat(), &["--resample", "no growth"]);
    assert!(!folder.join("q.csv").exists());
}

/// From a problem to the theorems measured on a model of it.
#[test]
fn problems_are_written_trained_on_and_judged() {
    let guard = tempfile::tempdir().expect("a folder");
    let folder = guard.path();
    assert!(succeeds(folder, &["problem", "--list"]).contains("ornstein-uhlenbeck"));
    succeeds(folder, &["problem", "anisotropic", "-n", "50", "--times", "3", "--out", "data.npz"]);
    let config = "[data]\npath = \"data.npz\"\nstandardize = \"none\"\n";
    std::fs::write(folder.join("run.toml"), config).expect("written");
    succeeds(folder, &[&["train", "run.toml"][..], &SMALL].concat());
    let report = succeeds(folder, &["evaluate", "runs/run", "--problem", "anisotropic", "--json", "scores.json"]);
    assert!(report.contains("action gap") && report.contains("K = "), "{report}");
    assert!(std::fs::read_to_string(folder.join("scores.json")).expect("scores").contains("\"w2_squared\""));
    fails(folder, &["evaluate", "runs/run", "--problem", "growth"], &["growth", "is 0", "0.5"]);
    fails(folder, &["evaluate", "runs/run", "--problem", "anistropic"], &["anistropic", "choose one of"]);
    fails(folder, &["problem", "scaling", "--out", "data.txt"], &["data.txt", "suffix"]);
    fails(folder, &["problem", "scaling", "--times", "1", "--out", "x.npz"], &["--times 1", "at least"]);
    succeeds(folder, &["problem", "hydrogen", "-n", "20", "--times", "3", "--out", "hydrogen.csv"]);
    let (_, rows) = table(&folder.join("hydrogen.csv"));
    assert_eq!((rows.len(), rows[59][3]), (60, 14_000.0));
}

/// A model with diffusion is sampled with noise, the same for the same seed.
#[test]
fn noise_follows_the_seed() {
    let (_guard, folder) = workplace();
    succeeds(&folder, &[&["train", "run.toml"][..], &SMALL, &["--set", "objective.sigma=0.5"]].concat());
    let sample = |seed: &str| {
        succeeds(
            &folder,
            &[
                "sample",
                "runs/run",
                "--from",
                "snapshot:0",
                "--seed",
                seed,
                "--steps",
                "5",
                "--out",
                "p.csv",
                "--force",
            ],
        );
        table(&folder.join("p.csv")).1
    };
    let first = sample("1");
    assert_eq!(sample("1"), first);
    assert_ne!(sample("2"), first);
    fails(
        &folder,
        &["sample", "runs/run", "--from", "snapshot:0", "--method", "rk4", "--out", "q.csv"],
        &["--method", "sigma = 0.5", "stochastic-heun"],
    );
    fails(
        &folder,
        &["sample", "runs/run", "--from", "snapshot:2", "--t0", "2", "--t1", "0", "--out", "q.csv"],
        &["--t0/--t1", "backward", "go forward"],
    );
}

/// Every path trains and is evaluated; a run of the learned one is resumed from a checkpoint of
/// both networks.
#[test]
fn every_path_runs_from_the_command_line() {
    let (_guard, folder) = workplace();
    let train = |path: &str, more: &[&str]| {
        let path = format!("objective.path={path}");
        succeeds(&folder, &[&["train", "run.toml", "--set", &path][..], &SMALL, more].concat());
    };
    train("spline", &["--set", "objective.pairing=ot", "--set", "objective.time_rule=importance"]);
    let table = succeeds(&folder, &["evaluate", "runs/run", "--start", "first"]);
    assert!(table.contains("0 → 1") && table.contains("0 → 2") && !table.contains("1 → 2"), "{table}");

    let checkpoints = ["--force", "--set", "output.checkpoint_every=20"];
    train("learned", &checkpoints);
    let whole = std::fs::read(folder.join("runs/run/model.safetensors")).expect("a model");
    let last = folder.join("runs/run/checkpoints/step-0000000060.safetensors");
    assert!(succeeds(&folder, &["inspect", &last.display().to_string()]).contains("bend.parameters"));
    std::fs::remove_file(&last).expect("removed");
    train("learned", &["--resume", "--set", "output.checkpoint_every=20"]);
    assert_eq!(std::fs::read(folder.join("runs/run/model.safetensors")).expect("a model"), whole);

    train("nearest", &["--force", "--set", "objective.estimator=weak", "--set", "objective.time_rule=trapezoid"]);
    let growing = ["--force", "--set", "objective.growth=1", "--set", "objective.pairing=unbalanced"];
    train("linear", &growing);
    assert!(succeeds(&folder, &["evaluate", "runs/run"]).contains("relative mass"));
    let totals = |values: &str| format!("objective.mass={{ kind = \"totals\", values = {values} }}");
    let growing = ["--force", "--set", "objective.growth=1", "--set", "objective.pairing=wfr", "--set"];
    train("linear", &[&growing[..], &[&totals("[1, 1.5, 3]")]].concat());
    train("spline", &[&growing[..], &["objective.mass=counts"]].concat());
    let two = totals("[1, 1.5]");
    let wrong = [&["train", "run.toml"][..], &SMALL, &growing, &[&two]].concat();
    fails(&folder, &wrong, &["objective.mass.values", "has 2 for 3 times", "data.hold_out"]);

    std::fs::write(
        folder.join("data.csv"),
        (0..60).fold("times,x,y\n".to_string(), |csv, row| csv + &format!("3,{},{}\n", row % 7, row % 5)),
    )
    .expect("written");
    train("generative-vp", &["--force"]);
    let table = succeeds(&folder, &["evaluate", "runs/run"]);
    assert!(table.contains("noise → 3") && table.contains("log-likelihood"), "{table}");
    succeeds(&folder, &["sample", "runs/run", "--from", "gaussian", "-n", "9", "--density", "--out", "p.csv"]);
    fails(&folder, &["evaluate", "runs/run", "--start", "first"], &["two or more"]);
}
