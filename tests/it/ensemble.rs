//! Ensembles: models that differ in their seed alone, in one run folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use action_matching::config::{Config, Pairing, PathConfig};
use action_matching::data::{DataSource, Points, read_points};
use action_matching::engine::{
    Batch, Derivatives, Differentiate, Engine, IntegrationReport, LossGradient, Records, TrainState, Trainer, Training,
};
use action_matching::integrate::{Plan, Share};
use action_matching::prelude::{CpuEngine, Model, Solver, Watch};
use action_matching::train::{Checkpoint, Existing, MemberFiles, Observer, Outcome, RunFolder, Unobserved, train};
use action_matching::{DeviceKind, Ensemble, Error};
use serde_json::Value;

use crate::cli::{amatch, fails, succeeds, text};
use crate::common::Numbers;
use crate::interrupt::names;

/// A table of three times in a new folder.
fn place() -> (tempfile::TempDir, PathBuf) {
    let guard = tempfile::tempdir().expect("a folder");
    let folder = guard.path().to_owned();
    let mut csv = String::from("times,x,y\n");
    for row in 0..90 {
        let angle = row as f64 * 0.9;
        csv += &format!("{},{},{}\n", row % 3, angle.cos() + (row % 3) as f64, 0.7 * angle.sin());
    }
    fs::write(folder.join("data.csv"), csv).expect("written");
    let config = "[data]\npath = \"data.csv\"\n[model]\nhidden = [9, 7]\n[objective]\npath = \"linear\"\n\
                  pairing = \"ot\"\n[training]\nsteps = 40\ninterior_rows = 37\nboundary_rows = 5\nseed = 5\n\
                  learning_rate = 1e-2\n[output]\ncheckpoint_every = 10\nmetrics_every = 3\n";
    fs::write(folder.join("run.toml"), config).expect("written");
    (guard, folder)
}

/// The configuration of `folder` for `seeds` members in the run folder `out`.
fn config(folder: &Path, out: &str, seeds: usize) -> Config {
    let mut config = Config::read(&folder.join("run.toml"), &[]).expect("reads");
    config.output.folder = folder.join(out);
    config.training.seeds = seeds;
    config
}

fn trained(engine: &dyn Engine, config: &Config, existing: Existing) -> RunFolder {
    let outcome = train(engine, config, existing, 1, &mut Unobserved).expect("trains");
    assert_eq!(outcome, Outcome::Finished);
    RunFolder::new(&config.output.folder)
}

fn checkpoints(member: &MemberFiles) -> Vec<PathBuf> {
    let entries = fs::read_dir(member.checkpoints()).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// Model, newest state and metrics of a member: all but the time that it took.
fn results(member: &MemberFiles) -> (Vec<u8>, TrainState, Vec<String>) {
    let newest = Checkpoint::load(checkpoints(member).last().expect("a checkpoint")).expect("whole");
    let metrics = fs::read_to_string(member.metrics()).expect("readable");
    let lines = metrics.lines().map(|line| line.split(",\"rows_per_s\"").next().unwrap_or_default().to_string());
    (fs::read(member.model()).expect("readable"), newest.state, lines.collect())
}

#[test]
fn members_are_the_runs_of_their_seeds_on_the_data_and_pairs_of_the_first() {
    let (_guard, folder) = place();
    let all = trained(&CpuEngine::new(1), &config(&folder, "all", 3), Existing::Refuse);
    let single = trained(&CpuEngine::new(2), &config(&folder, "single", 1), Existing::Refuse);
    assert!(results(&all.member(1)) == results(&single.member(1)));
    assert_eq!(fs::read(&checkpoints(&all.member(1))[2]).ok(), fs::read(&checkpoints(&single.member(1))[2]).ok());
    let two = trained(&CpuEngine::new(2), &config(&folder, "two", 2), Existing::Refuse);
    for number in [1, 2] {
        assert!(results(&all.member(number)) == results(&two.member(number)), "another number of threads");
    }
    // Without pairs, which are drawn from the first seed, a member is the run of its own seed.
    let unpaired = |out: &str, seeds: usize, seed: u64| {
        let mut config = config(&folder, out, seeds);
        config.objective.pairing = Pairing::Independent;
        config.training.seed = seed;
        trained(&CpuEngine::new(1), &config, Existing::Refuse)
    };
    let (members, alone) = (unpaired("unpaired", 3, 5), unpaired("alone", 1, 7));
    assert!(results(&members.member(3)) == results(&alone.member(1)));
    let models: Vec<Model> = (1..=3).map(|k| Model::load(&all.member(k).model()).expect("a model")).collect();
    assert!(models[0].coordinates == models[2].coordinates);
    assert!(models.iter().enumerate().all(|(k, model)| models[..k].iter().all(|other| other != model)));
    let wanted = [
        "README.md",
        "checkpoints",
        "checkpoints-2",
        "config.toml",
        "loss.svg",
        "metrics-2.jsonl",
        "metrics.jsonl",
        "model-2.safetensors",
        "model.safetensors",
        "selftest.json",
        "tensorboard",
        "tensorboard-2",
    ];
    assert_eq!(names(two.path()), wanted);
}

/// What a kill leaves: members that are ahead of others, without a model, without a checkpoint.
#[test]
fn every_member_goes_on_from_where_it_stands() {
    let (_guard, folder) = place();
    let config = config(&folder, "run", 3);
    let engine = CpuEngine::new(1);
    let run = trained(&engine, &config, Existing::Refuse);
    let whole: Vec<_> = (1..=3).map(|number| results(&run.member(number))).collect();
    let remove = |path: &Path| fs::remove_file(path).expect("removed");
    checkpoints(&run.member(2))[1..].iter().for_each(|path| remove(path));
    remove(&run.member(2).model());
    checkpoints(&run.member(3)).iter().for_each(|path| remove(path));
    remove(&run.self_test());
    trained(&engine, &config, Existing::Resume);
    let resumed: Vec<_> = (1..=3).map(|number| results(&run.member(number))).collect();
    assert!(resumed == whole);
    assert!(run.self_test().exists());
    // The state of one member is not taken for that of another.
    fs::copy(&checkpoints(&run.member(2))[2], &checkpoints(&run.member(3))[2]).expect("copied");
    let error = train(&engine, &config, Existing::Resume, 1, &mut Unobserved).expect_err("another's").to_string();
    assert!(error.contains("other data"), "{error}");
}

#[test]
fn an_ensemble_killed_at_random_moments_ends_like_one_that_was_not() {
    let (_guard, folder) = place();
    let train = |out: &str, more: &[&str]| {
        let mut command = crate::cli::command(&folder, &["train", "run.toml", "--device", "cpu", "--threads", "1"]);
        command.args(["--set", "training.seeds=3", "--out", out]).args(more).stderr(std::process::Stdio::null());
        command.spawn().expect("the program starts")
    };
    let began = std::time::Instant::now();
    assert!(train("whole", &[]).wait().expect("ends").success());
    let duration = began.elapsed();
    let of = |out: &str| -> Vec<_> {
        let run = RunFolder::new(folder.join(out));
        (1..=3).map(|number| results(&run.member(number))).collect()
    };
    let (whole, mut numbers, mut killed) = (of("whole"), Numbers::new(3), 0);
    for attempt in 0..40 {
        let out = format!("run{attempt}");
        let mut child = train(&out, &[]);
        std::thread::sleep(duration.mul_f64(0.5 * (1.0 + numbers.next())));
        child.kill().expect("killed");
        if !child.wait().expect("ends").success() {
            killed += 1;
            assert!(train(&out, &["--resume"]).wait().expect("ends").success(), "attempt {attempt}");
        }
        assert!(of(&out) == whole, "attempt {attempt}");
        if killed == 8 {
            return;
        }
    }
    panic!("{killed} of 40 runs were killed");
}

#[test]
fn a_run_can_get_more_members_and_not_fewer() {
    let (_guard, folder) = place();
    let engine = CpuEngine::new(1);
    let run = trained(&engine, &config(&folder, "run", 1), Existing::Refuse);
    let all = trained(&engine, &config(&folder, "all", 3), Existing::Refuse);
    let before = results(&run.member(1));
    trained(&engine, &config(&folder, "run", 3), Existing::Resume);
    assert!(results(&run.member(1)) == before);
    assert!((1..=3).all(|number| results(&run.member(number)) == results(&all.member(number))));
    let error = train(&engine, &config(&folder, "run", 2), Existing::Resume, 1, &mut Unobserved);
    let error = error.expect_err("fewer").to_string();
    assert!(error.contains("training.seeds: is 2, but the run in this folder has 3 members"), "{error}");
    // Replaced by fewer, nothing of the others is left.
    trained(&engine, &config(&folder, "run", 1), Existing::Replace);
    let wanted = [
        "README.md",
        "checkpoints",
        "config.toml",
        "loss.svg",
        "metrics.jsonl",
        "model.safetensors",
        "selftest.json",
        "tensorboard",
    ];
    assert_eq!(names(run.path()), wanted);
}

/// A CPU whose memory holds one trainer at a time.
struct Cramped {
    cpu: CpuEngine,
    held: Arc<AtomicUsize>,
}

struct Holding {
    trainer: Box<dyn Trainer>,
    held: Arc<AtomicUsize>,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Relaxed);
    }
}

impl Trainer for Holding {
    fn steps(&mut self, n: u64, records: &mut dyn Records) -> action_matching::Result<()> {
        self.trainer.steps(n, records)
    }

    fn training(&self) -> &Training {
        self.trainer.training()
    }

    fn state(&self) -> action_matching::Result<TrainState> {
        self.trainer.state()
    }
}

impl Differentiate for Cramped {
    fn derivatives(&self, model: &Model, x: &[f64], t: &[f64]) -> action_matching::Result<Derivatives> {
        self.cpu.derivatives(model, x, t)
    }

    fn loss_gradient(&self, model: &Model, batch: &Batch) -> action_matching::Result<LossGradient> {
        self.cpu.loss_gradient(model, batch)
    }
}

impl Engine for Cramped {
    fn describe(&self) -> String {
        "a small device".into()
    }

    fn arithmetic(&self) -> String {
        self.cpu.arithmetic()
    }

    fn training_memory(&self, _training: &Training) -> action_matching::Result<Option<usize>> {
        Ok(Some(3 << 20))
    }

    fn tile_of_particles(&self, n_all: usize) -> usize {
        self.cpu.tile_of_particles(n_all)
    }

    fn integrate_share(
        &self,
        model: &Model,
        plan: &Plan,
        share: Share<'_>,
        watch: &dyn Watch,
    ) -> action_matching::Result<IntegrationReport> {
        self.cpu.integrate_share(model, plan, share, watch)
    }

    fn trainer(&self, training: Training, state: TrainState) -> action_matching::Result<Box<dyn Trainer>> {
        if self.held.load(Relaxed) > 0 {
            return Err(Error::Device {
                kind: DeviceKind::OutOfMemory,
                device: self.describe(),
                problem: "is full".into(),
                fix: "free it".into(),
            });
        }
        let trainer = self.cpu.trainer(training, state)?;
        self.held.fetch_add(1, Relaxed);
        Ok(Box::new(Holding { trainer, held: self.held.clone() }))
    }
}

/// What a run said, and the steps that its progress showed.
#[derive(Default)]
struct Listener {
    said: Vec<String>,
    steps: Vec<u64>,
}

impl Observer for Listener {
    fn preparing(&mut self, what: &str) {
        self.said.push(what.into());
    }

    fn notice(&mut self, message: &str) {
        self.said.push(message.into());
    }

    fn progress(&mut self, last: &action_matching::engine::StepRecord, _rows_per_s: f64) {
        self.steps.push(last.step + 1);
    }
}

#[test]
fn members_that_do_not_fit_together_are_trained_one_after_another() {
    let (_guard, folder) = place();
    let together = trained(&CpuEngine::new(1), &config(&folder, "together", 3), Existing::Refuse);
    let engine = Cramped { cpu: CpuEngine::new(1), held: Arc::default() };
    let mut listener = Listener::default();
    let config = config(&folder, "run", 3);
    train(&engine, &config, Existing::Refuse, 1, &mut listener).expect("trains");
    let run = RunFolder::new(&config.output.folder);
    assert!((1..=3).all(|number| results(&run.member(number)) == results(&together.member(number))));
    let said = listener.said.join("\n");
    assert!(said.contains("taking 9 MiB of a small device"), "{said}");
    assert!(
        said.contains("memory of a small device holds 1 of 3 members: they are trained one after another"),
        "{said}"
    );
    // One progress for all: it never falls, and ends with the last step of the last member.
    assert!(listener.steps.is_sorted() && listener.steps.last() == Some(&40), "{:?}", listener.steps);
    assert!(listener.steps.iter().any(|&step| step < 13), "{:?}", listener.steps);
}

#[test]
fn the_test_of_an_ensemble_names_the_members_that_fail() {
    let (_guard, folder) = place();
    // One step leaves a model at rest or worse.
    let hardly = ["--set", "training.steps=1", "--set", "training.learning_rate=30", "--set", "training.seeds=2"];
    let output = amatch(&folder, &[&["train", "run.toml", "--device", "cpu", "--out", "run"][..], &hardly].concat());
    let message = text(&output.stderr);
    let warning = message.lines().find(|line| line.starts_with("warning: ")).unwrap_or_else(|| panic!("{message}"));
    assert!(warning.contains("of 2 members") || warning.contains("all 2 members"), "{warning}");
    let test: Value =
        serde_json::from_slice(&fs::read(folder.join("run/selftest.json")).expect("readable")).expect("JSON");
    assert_eq!(test["verdict"], "failed");
    let members = test["members"].as_array().expect("a list");
    assert_eq!(members.len(), 2);
    assert!(members.iter().any(|member| member["verdict"] == "failed"));
    let value = |test: &Value| test["checks"][0]["value"].as_f64().expect("a number");
    assert_eq!(value(&test), value(&members[0]).max(value(&members[1])));
}

fn points(path: &Path) -> Points {
    let columns = DataSource { samples: "x,y".into(), ..DataSource::new(path) };
    read_points(&columns, &()).expect("reads")
}

/// The columns of a table by name.
fn column(path: &Path, name: &str) -> Vec<f64> {
    let table = fs::read_to_string(path).expect("readable");
    let mut lines = table.lines();
    let place = lines.next().and_then(|header| header.split(',').position(|column| column == name));
    let place = place.unwrap_or_else(|| panic!("no {name} in {table}"));
    lines.map(|line| line.split(',').nth(place).and_then(|x| x.parse().ok()).expect("a number")).collect()
}

#[test]
fn samples_are_means_over_the_members_with_their_spread() {
    let (_guard, folder) = place();
    for (objective, out) in [("objective.sigma=0", "run"), ("objective.sigma=0.3", "noisy")] {
        let run = ["train", "run.toml", "--device", "cpu", "--out", out, "--set", "training.seeds=3"];
        succeeds(&folder, &[&run[..], &["--set", objective]].concat());
        let sample = |more: &[&str], file: &str| {
            let command =
                ["sample", out, "--from", "snapshot:0", "--save-at", "1", "3", "--seed", "4", "--device", "cpu"];
            let output = amatch(&folder, &[&command[..], more, &["--out", file, "--force"]].concat());
            assert!(output.status.success(), "{}", text(&output.stderr));
            (folder.join(file), text(&output.stderr))
        };
        let (all, said) = sample(&[], "all.csv");
        let members: Vec<Points> =
            ["1", "2", "3"].iter().map(|number| points(&sample(&["--member", number], "one.csv").0)).collect();
        let positions = |points: &Points| -> Vec<f64> {
            points.rows.iter().enumerate().map(|(i, &x)| f64::from(x) + points.origin[i % 2]).collect()
        };
        let (means, values) = (positions(&points(&all)), members.iter().map(positions).collect::<Vec<_>>());
        let n = means.len();
        let spread = [column(&all, "spread_x"), column(&all, "spread_y")];
        assert_eq!((values[0].len(), spread[0].len()), (n, n / 2));
        let mut largest = 0.0_f64;
        for i in 0..n {
            let mean = values.iter().map(|of_member| of_member[i]).sum::<f64>() / 3.0;
            let squares: f64 = values.iter().map(|of_member| (of_member[i] - mean).powi(2)).sum();
            let deviation = (squares / 2.0).sqrt();
            assert!((means[i] - mean).abs() < 1e-5, "{} is not {mean}", means[i]);
            assert!((spread[i % 2][i / 2] - deviation).abs() < 1e-5, "{} is not {deviation}", spread[i % 2][i / 2]);
            largest = largest.max(deviation);
        }
        assert!(largest > 1e-3, "members agree: {largest}");
        assert!(said.contains("spread of 3 members, relative to the width of the particles: "), "{said}");
        assert!(said.contains(" % at time 1, ") && said.contains(" % at time 3\n"), "{said}");
        // Time 3 is a forecast.
        assert!(said.contains("the spread is the only sign of uncertainty"), "{said}");
        let (each, said) = sample(&["--all-members"], "each.csv");
        let wanted: Vec<f64> = members.iter().flat_map(positions).collect();
        let written = positions(&points(&each));
        assert_eq!(written.len(), wanted.len());
        for (i, (x, y)) in written.iter().zip(&wanted).enumerate() {
            assert!((x - y).abs() < 1e-5, "row {}: {x}, not {y}", i / 2);
        }
        let whose = column(&each, "member");
        assert!(whose.len() == 3 * n / 2 && whose[0] == 1.0 && whose.is_sorted() && whose.last() == Some(&3.0));
        assert!(!said.contains("spread of"), "{said}");
    }
}

#[test]
fn what_has_no_meaning_for_an_ensemble_is_refused() {
    let (_guard, folder) = place();
    let run = ["train", "run.toml", "--device", "cpu", "--set", "training.steps=3", "--out"];
    succeeds(&folder, &[&run[..], &["run", "--set", "training.seeds=2"]].concat());
    succeeds(&folder, &[&run[..], &["single"]].concat());
    let sample = |run: &str, more: &[&str], parts: &[&str]| {
        let command = ["sample", run, "--from", "snapshot:0", "--out", "points.csv"];
        fails(&folder, &[&command[..], more].concat(), parts);
    };
    sample("run", &["--density"], &["--density", "--member 1"]);
    sample("run", &["--member", "3"], &["--member: is 3, but run has 2 members (use 1 to 2)"]);
    sample("run", &["--member", "0"], &["--member: is 0"]);
    sample("single", &["--all-members"], &["--all-members", "a single model"]);
    sample("run/model-2.safetensors", &["--member", "1"], &["--member", "is one model"]);
    for out in ["run/model-2.safetensors", "run/metrics-2.jsonl", "run/checkpoints-2/x.json", "run/model-3.safetensors"]
    {
        fails(&folder, &["evaluate", "single", "--json", out], &[out]);
        fails(&folder, &["evaluate", "single", "--json", out, "--force"], &[out]);
    }
    let error = Ensemble::load(&folder.join("single")).expect_err("one model").to_string();
    assert!(error.contains("training.seeds: is 1"), "{error}");
    fs::remove_file(folder.join("run/model-2.safetensors")).expect("removed");
    sample("run", &[], &["model-2.safetensors: path: does not exist, but the run has 2 members", "--resume"]);
    for (value, wanted) in [("0", "is 0 (use 1 to 100 models)"), ("101", "is 101")] {
        let set = format!("training.seeds={value}");
        fails(&folder, &[&run[..], &["new", "--set", &set]].concat(), &["training.seeds", wanted]);
    }
}

#[test]
fn evaluation_has_mean_and_spread_over_the_members() {
    let (_guard, folder) = place();
    let run = ["train", "run.toml", "--device", "cpu", "--out", "run", "--set", "training.seeds=3"];
    succeeds(&folder, &run);
    let evaluate = |more: &[&str]| {
        let command = ["evaluate", "run", "--device", "cpu", "--json", "scores.json"];
        let text = succeeds(&folder, &[&command[..], more].concat());
        let json = fs::read(folder.join("scores.json")).expect("readable");
        (text, serde_json::from_slice::<Value>(&json).expect("JSON"))
    };
    let (text, all) = evaluate(&[]);
    let one: Vec<Value> = ["1", "2", "3"].iter().map(|number| evaluate(&["--member", number]).1).collect();
    assert!(one[0]["members"].is_null() && all["comparisons"] == one[0]["comparisons"]);
    let members = &all["members"];
    assert_eq!(members["count"], 3);
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value}"));
    let agree = |over: &Value, values: Vec<f64>| {
        let mean = values.iter().sum::<f64>() / 3.0;
        let spread = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
        assert!((number(&over["mean"]) - mean).abs() < 1e-12 && (number(&over["spread"]) - spread).abs() < 1e-12);
        assert!(spread > 0.0);
    };
    for k in 0..2 {
        for measure in ["w1", "w2", "energy", "mmd2_half", "mmd2", "mmd2_double"] {
            let of = |one: &Value| number(&one["comparisons"][k]["equal_numbers"]["model"][measure]);
            agree(&members["comparisons"][k][measure], one.iter().map(of).collect());
        }
    }
    agree(
        &members["means"][0]["w1"],
        one.iter().map(|one| number(&one["means"][0]["sets"][0]["w1"]["mean"])).collect(),
    );
    // Snapshots of more points than exact distances take.
    let (text_of_large, large) = evaluate(&["--points", "20"]);
    let one: Vec<Value> =
        ["1", "2", "3"].iter().map(|number| evaluate(&["--points", "20", "--member", number]).1).collect();
    let of = |one: &Value| number(&one["comparisons"][1]["sliced"]["sets"][0]["sliced_w2"]);
    agree(&large["members"]["comparisons"][1]["sliced_w2"], one.iter().map(of).collect());
    let of = |one: &Value| number(&one["means"][0]["sliced"][0]["sliced_w2"]["mean"]);
    agree(&large["members"]["means"][0]["sliced_w2"], one.iter().map(of).collect());
    let table = text_of_large.rsplit("sliced W2").next().expect("a table");
    let mean = number(&large["members"]["comparisons"][1]["sliced_w2"]["mean"]);
    let shown = action_matching::display::significant(mean, 3);
    assert!(table.lines().any(|line| line.starts_with("1 → 2") && line.contains(&shown)), "{text_of_large}");
    assert!(text.contains("An ensemble of 3 members: the tables are of the first one"), "{text}");
    assert!(text.contains("3 members: mean ± standard deviation over the members"), "{text}");
    let w1 = number(&members["comparisons"][1]["w1"]["mean"]);
    let shown = action_matching::display::significant(w1, 3);
    let table = text.split("3 members: mean").nth(1).expect("a table");
    assert!(table.lines().any(|line| line.starts_with("1 → 2") && line.contains(&shown)), "no {shown}: {text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80 || line.starts_with("model ")), "{text}");
}

#[test]
fn the_library_gives_mean_and_spread_in_data_units() {
    let (_guard, folder) = place();
    let engine = CpuEngine::new(1);
    let mut config = config(&folder, "run", 3);
    config.objective.path = PathConfig::Linear;
    let run = trained(&engine, &config, Existing::Refuse);
    let ensemble = Ensemble::load(run.path()).expect("an ensemble");
    let models: Vec<Model> = (1..=3).map(|number| Model::load(&run.member(number).model()).expect("a model")).collect();
    assert_eq!(ensemble.members(), models);
    let x = Numbers::new(4).take(12);
    let check = |name: &str, mean: &[f64], spread: &[f64], of: &dyn Fn(&Model) -> Vec<f64>| {
        let values: Vec<Vec<f64>> = models.iter().map(of).collect();
        assert_eq!((mean.len(), spread.len()), (values[0].len(), values[0].len()));
        for i in 0..mean.len() {
            let average = values.iter().map(|values| values[i]).sum::<f64>() / 3.0;
            let squares: f64 = values.iter().map(|values| (values[i] - average).powi(2)).sum();
            assert!((mean[i] - average).abs() < 1e-9, "{name} {i}: {} is not {average}", mean[i]);
            assert!((spread[i] - (squares / 2.0).sqrt()).abs() < 1e-9, "{name} {i}");
        }
        assert!(spread.iter().any(|x| *x > 1e-4), "{name}: {spread:?}");
    };
    let velocity = ensemble.velocity(&engine, &x, 0.7).expect("velocities");
    check("velocity", &velocity.mean, &velocity.spread, &|model| model.velocity(&engine, &x, 0.7).expect("velocities"));
    let flow = ensemble.flow(&engine, &x, [0.0, 2.0], Solver::rk4(5)).expect("flows");
    check("flow", &flow.mean, &flow.spread, &|model| {
        model.flow(&engine, &x, [0.0, 2.0], Solver::rk4(5)).expect("flows")
    });
    // A potential is known up to a constant.
    let potential = ensemble.potential(&engine, &x, 0.7).expect("potentials");
    check("potential", &potential.mean, &potential.spread, &|model| {
        let s = model.potential(&engine, &x, 0.7).expect("potentials");
        let mean = s.iter().sum::<f64>() / s.len() as f64;
        s.iter().map(|s| s - mean).collect()
    });
    // Models of other data are no ensemble.
    let mut other = models[1].clone();
    other.coordinates.scale[0] *= 2.0;
    let error = Ensemble::new(vec![models[0].clone(), other]).expect_err("another scale").to_string();
    assert!(error.contains("member 2: has other coordinates"), "{error}");
    assert!(Ensemble::new(models[..1].to_vec()).is_err() && Ensemble::new(Vec::new()).is_err());
}
