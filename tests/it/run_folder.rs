//! The run folder in trouble: a second process, a kill at the very start, damaged or missing files,
//! signals, links and modes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use action_matching::train::Checkpoint;

/// A folder with data and a configuration.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a folder");
        let mut csv = String::from("times,x,y\n");
        for row in 0..60 {
            let angle = row as f64 * 0.9;
            csv += &format!("{},{},{}\n", row % 2, angle.cos() + (row % 2) as f64, 0.7 * angle.sin());
        }
        fs::write(place.path().join("data.csv"), csv).expect("written");
        let config = "[data]\npath = \"data.csv\"\n[model]\nhidden = [12, 9]\n[training]\nsteps = 40\ninterior_rows = 33\n\
                      boundary_rows = 17\n[output]\ncheckpoint_every = 10\nmetrics_every = 2\n";
        fs::write(place.path().join("run.toml"), config).expect("written");
        Place(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn start(&self, more: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_amatch"))
            .args(["train", "run.toml", "--device", "cpu", "--threads", "1"])
            .args(more)
            .current_dir(self.0.path())
            .env_remove("SLURM_JOB_ID")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts")
    }

    fn train(&self, more: &[&str]) -> (Option<i32>, String) {
        ended(self.start(more).wait_with_output().expect("the program ends"))
    }

    #[track_caller]
    fn trains(&self, more: &[&str]) -> String {
        let (code, message) = self.train(more);
        assert_eq!(code, Some(0), "{message}");
        message
    }

    #[track_caller]
    fn refuses(&self, more: &[&str], wanted: &[&str]) {
        let (code, message) = self.train(more);
        assert_eq!(code, Some(1), "{message}");
        wanted.iter().for_each(|wanted| assert!(message.contains(wanted), "no {wanted:?} in {message:?}"));
    }

    /// Names in the folder `name`, sorted.
    fn names(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(name)).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("readable")
    }
}

fn ended(output: Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[track_caller]
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill runs").success());
}

/// Options of a run that continues until it is stopped.
const ENDLESS: [&str; 6] = [
    "--set",
    "training.steps=100000000",
    "--set",
    "training.schedule=\"constant\"",
    "--set",
    "output.checkpoint_every=100000000",
];

/// What the folder of a finished run holds.
pub const RUN_FILES: [&str; 9] = [
    "README.md",
    "checkpoints",
    "config.toml",
    "loss.svg",
    "metrics.jsonl",
    "model.safetensors",
    "report.html",
    "selftest.json",
    "tensorboard",
];

#[test]
fn a_folder_that_a_living_run_holds_is_refused_to_all_others() {
    let place = Place::new();
    let mut first = place.start(&[&ENDLESS[..], &["--out", "run"]].concat());
    wait_until("the first run's claim", || place.path("run/.amatch-claim").exists());
    for more in [&[][..], &["--resume"], &["--force"]] {
        place.refuses(&[&["--out", "run"], more].concat(), &["run: ", "is in use: process", "--out"]);
    }
    wait_until("a step of the first run", || {
        place.path("run/metrics.jsonl").metadata().is_ok_and(|found| found.len() > 0)
    });
    first.kill().expect("is killed");
    first.wait().expect("ends");
    // Its process is dead, so the folder is free at once.
    assert!(place.trains(&["--out", "run", "--force"]).contains("replacing a run without a checkpoint"));
    assert_eq!(place.names("run"), RUN_FILES);
}

#[test]
fn of_two_jobs_that_start_together_one_is_refused() {
    let place = Place::new();
    let slow = ["--set", "training.steps=3000", "--out", "run"];
    let jobs = [1, 2].map(|seed| place.start(&[&slow[..], &["--set", &format!("training.seed={seed}")]].concat()));
    let mut ends = jobs.map(|job| ended(job.wait_with_output().expect("ends")));
    ends.sort();
    assert_eq!((ends[0].0, ends[1].0), (Some(0), Some(1)), "{ends:?}");
    assert!(ends[1].1.contains("is in use"), "{ends:?}");
    assert_eq!(fs::read_to_string(place.path("run/metrics.jsonl")).expect("readable").lines().count(), 1501);
}

#[test]
fn a_refused_run_leaves_no_trace_and_a_bad_place_is_found_before_the_data_is_read() {
    let place = Place::new();
    place.refuses(&["--set", "data.path=\"absent.csv\"", "--out", "a/b"], &["absent.csv"]);
    assert!(!place.path("a").exists());
    // The data do not exist either: the folder is checked first.
    fs::write(place.path("file"), "").expect("written");
    for (out, wanted) in
        [("file", "is a file"), ("file/run", "file/run: cannot create the folder"), ("/proc/run", "/proc/run")]
    {
        place.refuses(&["--set", "data.path=\"absent.csv\"", "--out", out], &[wanted]);
    }
    fs::create_dir(place.path("foreign")).expect("made");
    fs::write(place.path("foreign/notes.txt"), "mine").expect("written");
    for (more, wanted) in [(&[][..], "already exists"), (&["--resume"], "no run"), (&["--force"], "not a run's")] {
        place.refuses(&[&["--out", "foreign"], more].concat(), &["foreign", wanted]);
    }
    assert_eq!(place.names("foreign"), ["notes.txt"]);
}

#[test]
fn what_a_run_killed_at_its_start_leaves_is_taken_by_every_kind_of_start() {
    let place = Place::new();
    place.trains(&["--out", "whole"]);
    for more in [&[][..], &["--resume"], &["--force"]] {
        let out = format!("start{}", more.concat());
        fs::create_dir_all(place.path(&out).join("checkpoints")).expect("made");
        let dead = "{\"process\":\"\",\"machine\":\"here\",\"pid\":1,\"nonce\":0}";
        fs::write(place.path(&out).join(".amatch-claim"), dead).expect("written");
        let hour = std::time::SystemTime::now() - Duration::from_secs(3600);
        let file = fs::File::options().write(true).open(place.path(&out).join(".amatch-claim")).expect("opens");
        file.set_modified(hour).expect("set");
        fs::write(place.path(&out).join(".amatch-0-1-2-abcdef.part"), "half").expect("written");
        fs::write(place.path(&out).join("checkpoints/.amatch-0-1-2-abcdef.part"), "half").expect("written");
        place.trains(&[&["--out", &out], more].concat());
        assert_eq!(place.names(&out), RUN_FILES);
        assert_eq!(place.names(&format!("{out}/checkpoints")).len(), 3);
        assert_eq!(place.bytes(&format!("{out}/model.safetensors")), place.bytes("whole/model.safetensors"));
    }
    // A `--force` that was killed before it removed everything; the configuration goes last.
    place.trains(&["--out", "f"]);
    for name in ["f/model.safetensors", "f/metrics.jsonl"] {
        fs::remove_file(place.path(name)).expect("removed");
    }
    place.trains(&["--out", "f", "--force"]);
    assert_eq!(place.bytes("f/model.safetensors"), place.bytes("whole/model.safetensors"));
    // --resume starts a run that does not exist yet, and says so.
    assert!(place.trains(&["--out", "new", "--resume"]).contains("there is no run yet, it starts at step 0"));
}

#[test]
fn links_and_modes_outlive_a_replaced_run() {
    let place = Place::new();
    place.trains(&["--out", "run"]);
    fs::rename(place.path("run/checkpoints"), place.path("elsewhere")).expect("moved");
    symlink("../elsewhere", place.path("run/checkpoints")).expect("linked");
    let private = place.path("run/model.safetensors");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).expect("set");
    place.trains(&["--out", "run", "--resume"]);
    assert_eq!(fs::metadata(&private).expect("there").permissions().mode() & 0o777, 0o600);
    let message = place.trains(&["--out", "run", "--force", "--set", "training.seed=3"]);
    assert!(message.contains("replacing a run of 40 steps, loss"), "{message}");
    assert!(fs::symlink_metadata(place.path("run/checkpoints")).expect("there").is_symlink());
    assert_eq!(place.names("elsewhere").len(), 3);
}

#[test]
fn resuming_is_refused_with_the_setting_that_differs_and_a_finished_run_can_be_extended() {
    let place = Place::new();
    place.trains(&["--out", "run"]);
    let before: Vec<Vec<u8>> =
        ["config.toml", "model.safetensors"].map(|name| place.bytes(&format!("run/{name}"))).into();
    let resume = ["--out", "run", "--resume"];
    let fewer = [&resume[..], &["--set", "training.steps=10"]].concat();
    place.refuses(&fewer, &["training.steps: is 10, but the run in this folder has taken 40 steps"]);
    let rate = [&resume[..], &["--set", "training.learning_rate=5e-4", "--set", "model.hidden=[12, 12]"]].concat();
    let wanted = ["training.learning_rate was 0.001 and is 0.0005", "model.hidden was [12, 9] and is [12, 12]"];
    place.refuses(&rate, &wanted);
    fs::write(place.path("other.csv"), "times,x,y\n0,1,2\n0,2,2\n1,3,1\n1,2,2\n").expect("written");
    place.refuses(&[&resume[..], &["--set", "data.path=\"other.csv\""]].concat(), &["other data"]);
    let after: Vec<Vec<u8>> =
        ["config.toml", "model.safetensors"].map(|name| place.bytes(&format!("run/{name}"))).into();
    assert!(before == after, "a refused run wrote");

    // Without its configuration the run can be resumed; the message says that differences cannot be
    // named.
    let config = place.bytes("run/config.toml");
    fs::write(place.path("run/config.toml"), "junk = [").expect("written");
    place.refuses(&rate, &["what they were cannot be read", "config.toml"]);
    place.trains(&resume);
    assert!(place.bytes("run/config.toml") == config);

    let longer = place.trains(&[&resume[..], &["--set", "training.steps=70"]].concat());
    assert!(
        longer.contains("training.steps is 70, was 40; from step 40 on the learning rate follows the cosine"),
        "{longer}"
    );
    assert!(fs::read_to_string(place.path("run/config.toml")).expect("readable").contains("steps = 70"));
    let rates: Vec<(u64, f64)> = fs::read_to_string(place.path("run/metrics.jsonl"))
        .expect("readable")
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("json"))
        .map(|line| (line["step"].as_u64().expect("a step"), line["learning_rate"].as_f64().expect("a rate")))
        .collect();
    assert_eq!(rates.iter().map(|(step, _)| *step).filter(|step| step % 2 == 0).count(), 35);
    // The learning rate is that of a run with this length from its first step.
    place.trains(&["--out", "long", "--set", "training.steps=70"]);
    let of_long = fs::read_to_string(place.path("long/metrics.jsonl")).expect("readable");
    for (step, rate) in rates.into_iter().filter(|(step, _)| *step >= 40) {
        assert!(
            of_long.contains(&format!("\"step\":{step},")) && of_long.contains(&format!("\"learning_rate\":{rate}")),
            "{step}"
        );
    }
}

#[test]
fn damaged_metrics_and_copies_of_checkpoints_do_not_mislead_a_resumed_run() {
    let place = Place::new();
    place.trains(&["--out", "run"]);
    let lines = |name: &str| fs::read_to_string(place.path(name)).expect("readable").lines().count();
    let n = lines("run/metrics.jsonl");
    let mut bytes = place.bytes("run/metrics.jsonl");
    bytes[300] = 1;
    fs::write(place.path("run/metrics.jsonl"), bytes).expect("written");
    fs::copy(
        place.path("run/checkpoints/step-0000000020.safetensors"),
        place.path("run/checkpoints/step-best.safetensors"),
    )
    .expect("copied");
    let message = place.trains(&["--out", "run", "--resume", "--set", "training.steps=44"]);
    assert!(message.contains("cannot be read and is left out") && message.contains("is missing"), "{message}");
    assert!(message.contains("steps 40 to 44"), "{message}");
    // Steps 40 and 42, and 43 as the last one; one line was lost.
    assert_eq!(lines("run/metrics.jsonl"), n - 1 + 3);
    assert!(place.names("run/checkpoints").contains(&"step-best.safetensors".to_string()));
    // A FIFO in place of the metrics is refused without blocking.
    fs::remove_file(place.path("run/metrics.jsonl")).expect("removed");
    assert!(Command::new("mkfifo").arg(place.path("run/metrics.jsonl")).status().expect("mkfifo runs").success());
    let resume = ["--out", "run", "--resume", "--set", "training.steps=44"];
    place.refuses(&resume, &["metrics.jsonl", "not a regular file"]);
}

#[test]
fn a_folder_of_checkpoints_that_cannot_be_listed_does_not_start_again() {
    let place = Place::new();
    place.trains(&["--out", "run"]);
    fs::rename(place.path("run/checkpoints"), place.path("saved")).expect("moved");
    // A link to itself: neither present nor absent.
    symlink("checkpoints", place.path("run/checkpoints")).expect("linked");
    place.refuses(&["--out", "run", "--resume"], &["checkpoints"]);
    fs::remove_file(place.path("run/checkpoints")).expect("removed");
    fs::rename(place.path("saved"), place.path("run/checkpoints")).expect("moved");
    assert!(place.trains(&["--out", "run", "--resume"]).contains("steps 40 to 40"));
}

#[test]
fn a_state_that_is_not_finite_ends_the_run_and_keeps_the_good_checkpoints() {
    let place = Place::new();
    let mut csv = String::from("times,x,y\n");
    for row in 0..40 {
        csv += &format!("{},{},{}\n", row % 2, 1e10 * (row as f64).cos(), 1e10 * (row as f64).sin());
    }
    fs::write(place.path("far.csv"), csv).expect("written");
    let far = [
        "data.path=\"far.csv\"",
        "data.standardize=\"none\"",
        "objective.time_rule=\"importance\"",
        "model.head=\"dot\"",
    ];
    let far: Vec<&str> = far.iter().flat_map(|setting| ["--set", setting]).collect();
    let (code, message) = place.train(&[&far[..], &["--out", "far"]].concat());
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("is not finite") && !message.contains("checkpoint is kept"), "{message}");
    assert!(place.names("far/checkpoints").is_empty(), "{message}");

    let diverge =
        ["training.learning_rate=1e5", "training.warmup_steps=0", "training.clip_norm=0", "output.checkpoint_every=1"];
    let diverge: Vec<&str> = diverge.iter().flat_map(|setting| ["--set", setting]).collect();
    let (code, message) = place.train(&[&diverge[..], &["--out", "diverged"]].concat());
    assert_eq!(code, Some(1), "{message}");
    let kept = place.names("diverged/checkpoints");
    for name in &kept {
        let inspected = Command::new(env!("CARGO_BIN_EXE_amatch"))
            .arg("inspect")
            .arg(place.path("diverged/checkpoints").join(name))
            .output()
            .expect("starts");
        assert!(inspected.status.success(), "{name}: {}", String::from_utf8_lossy(&inspected.stderr));
    }
    assert!(!kept.is_empty());
}

#[test]
fn hangups_and_user_signals_write_a_checkpoint() {
    let place = Place::new();
    let child = place.start(&[&ENDLESS[..], &["--out", "run"]].concat());
    wait_until("a step", || place.path("run/metrics.jsonl").metadata().is_ok_and(|found| found.len() > 0));
    send("-USR1", &child);
    wait_until("a checkpoint", || place.path("run/model.safetensors").exists());
    let of_usr1 = place.names("run/checkpoints");
    send("-HUP", &child);
    let (code, message) = ended(child.wait_with_output().expect("ends"));
    assert_eq!(code, Some(75), "{message}");
    assert!(message.contains("checkpoint of step") && message.contains("--resume"), "{message}");
    assert!(place.names("run/checkpoints").len() > of_usr1.len(), "{message}");
    // Under nohup, closing the terminal does not end the run.
    let mut child = Command::new("nohup")
        .arg(env!("CARGO_BIN_EXE_amatch"))
        .args(["train", "run.toml", "--device", "cpu", "--threads", "1", "--out", "nohup"])
        .args(ENDLESS)
        .current_dir(place.0.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let size = || place.path("nohup/metrics.jsonl").metadata().map_or(0, |found| found.len());
    wait_until("a step", || size() > 0);
    send("-HUP", &child);
    let then = size();
    wait_until("another step", || size() > then);
    assert!(child.try_wait().expect("a child").is_none());
    child.kill().expect("is killed");
    child.wait().expect("ends");
}

#[test]
fn part_files_of_killed_writers_are_removed_by_the_next() {
    let place = Place::new();
    place.trains(&["--out", "run"]);
    // The number of a dead process.
    let mut gone = Command::new("true").spawn().expect("starts");
    gone.wait().expect("ends");
    let claimed = Place::new();
    let child = claimed.start(&[&ENDLESS[..], &["--out", "run"]].concat());
    wait_until("a claim", || claimed.path("run/.amatch-claim").exists());
    let claim = fs::read_to_string(claimed.path("run/.amatch-claim")).expect("readable");
    let process: serde_json::Value = serde_json::from_str(&claim).expect("json");
    let living = process["process"].as_str().expect("a name").to_string();
    let (host, _) = living.split_once('-').expect("a host");
    let dead = format!(".amatch-{host}-{}-1-aaaaaa.part", gone.id());
    let alive = format!(".amatch-{living}-bbbbbb.part");
    for name in [&dead, &alive] {
        fs::write(place.path(name), "half").expect("written");
    }
    let sample = Command::new(env!("CARGO_BIN_EXE_amatch"))
        .args(["sample", "run", "--from", "gaussian", "-n", "5", "--device", "cpu", "--out", "p.npz"])
        .current_dir(place.0.path())
        .output()
        .expect("starts");
    assert!(sample.status.success(), "{}", String::from_utf8_lossy(&sample.stderr));
    assert!(!place.path(&dead).exists() && place.path(&alive).exists());
    let mut child = child;
    child.kill().expect("is killed");
    child.wait().expect("ends");
}

#[test]
fn a_closed_reader_of_messages_costs_nothing() {
    let place = Place::new();
    let full = fs::File::options().write(true).open("/dev/full").expect("opens");
    let status = Command::new(env!("CARGO_BIN_EXE_amatch"))
        .args(["train", "run.toml", "--device", "cpu", "--threads", "1", "--out", "run"])
        .current_dir(place.0.path())
        .stderr(full)
        .status()
        .expect("starts");
    assert!(status.success());
    assert_eq!(place.names("run"), RUN_FILES);
    let mut child = place.start(&["--set", "training.steps=3000", "--out", "unread"]);
    drop(child.stderr.take());
    assert!(child.wait().expect("ends").success());
    assert_eq!(place.names("unread"), RUN_FILES);
    assert!(Path::new(&place.path("unread/checkpoints/step-0000003000.safetensors")).exists());
}

/// A run of an earlier version goes on, whatever its configuration says of settings without effect:
/// the configuration and fingerprint are those that such a version wrote.
#[test]
fn runs_of_earlier_versions_go_on() {
    const FIRST: &str = "7273e2f8edad41c1601553b495f4760218f80ef4096a7b8063ad9897588f9aa1";
    let place = Place::new();
    fs::write(place.path("data.csv"), "x,t\n-1,0\n0,0\n0,1\n1,1\n").expect("written");
    let keys = "[data]\npath = \"data.csv\"\nsamples = \"x\"\ntimes = \"t\"\nstandardise = \"none\"\n[model]\nhidden = [8]\n\
                [training]\nsteps = 20\ninterior_rows = 8\nboundary_rows = 8\nschedule = \"constant\"\nfinal_rate = 0.5\n\
                [objective]\npath = \"nearest\"\ncentring = true\nbend_rate = 0.5\npairing_rows = 7\n";
    fs::write(place.path("run.toml"), keys).expect("written");
    let message = place.trains(&["--out", "run"]);
    for part in [
        "old keys",
        "data.standardize",
        "{ kind = \"action\", centering = true }",
        "without effect: objective.bend_rate",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // The configuration that the earlier version wrote into the folder.
    let all = "[data]\npath = \"/data.csv\"\nsamples = \"x\"\ntimes = \"t\"\nhold_out = []\nstandardise = \"none\"\n\n\
        [model]\nhidden = [8]\nactivation = \"silu\"\nhead = \"scalar\"\n\n[model.time_embedding]\nkind = \"raw\"\n\n\
        [objective]\nsigma = 0.0\nsigma_schedule = \"constant\"\nlaplacian = \"rademacher\"\nprobes = 1\ngrowth = 0.0\n\
        cost_exponent = 2.0\nestimator = \"auto\"\ncentring = true\nweak_intervals = 16\npath = \"nearest\"\n\
        bend_hidden = [64, 64]\nbend_rate = 0.5\npairing = \"independent\"\npairing_rows = 7\npairing_relaxation = 1.0\n\
        mass = \"ignored\"\ntime_rule = \"low-discrepancy\"\n\n[objective.time_weight]\nkind = \"constant\"\n\n\
        [training]\nsteps = 20\ninterior_rows = 8\nboundary_rows = 8\nlearning_rate = 0.001\nwarmup_steps = 500\n\
        schedule = \"constant\"\nfinal_rate = 0.5\nbeta1 = 0.9\nbeta2 = 0.999\nepsilon = 0.00000001\nweight_decay = 0.0\n\
        clip_norm = 1.0\nema_decay = 0.999\nseed = 0\nprecision = \"auto\"\n\n\
        [output]\nfolder = \"/run\"\ncheckpoint_every = 1000\nmetrics_every = 10\n";
    fs::write(place.path("run/config.toml"), all).expect("written");
    let checkpoints = place.path("run/checkpoints");
    let newest = checkpoints.join("step-0000000020.safetensors");
    let now = Checkpoint::load(&newest).expect("loads");
    let then = Checkpoint { fingerprint: FIRST.into(), ..now.clone() };
    then.save(&checkpoints).expect("saves");
    let resume = ["--out", "run", "--resume", "--set", "training.steps=20"];
    place.refuses(&[&resume[..], &["--set", "training.seed=1"]].concat(), &["training.seed was 0 and is 1"]);
    assert_eq!(Checkpoint::load(&newest).expect("loads"), then);
    place.trains(&resume);
    // Now the folder is one of this version.
    assert_eq!(Checkpoint::load(&newest).expect("loads").fingerprint, now.fingerprint);
    let config = fs::read_to_string(place.path("run/config.toml")).expect("reads");
    assert!(config.contains("estimator = { kind = \"action\", centering = true }"), "{config}");
    assert!(place.trains(&["--out", "run", "--resume", "--set", "training.steps=30"]).contains("steps 20 to 30"));
}
