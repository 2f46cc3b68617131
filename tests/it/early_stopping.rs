//! `training.stop = "held-out"`: the model of the best step is saved, a run that brings no better
//! one ends, and an interrupted run ends like an uninterrupted one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use action_matching::config::{Config, Schedule, Stop};
use action_matching::data::{draw_gaussian, load};
use action_matching::engine::cpu::CpuEngine;
use action_matching::model::Model;
use action_matching::rng::Stream;
use action_matching::stage::Watch;
use action_matching::train::{Checkpoint, Existing, Kept, Observer, Outcome, RunFolder, read_metrics, train};

use super::resume::metrics;

/// What a run says, and when it is to be stopped.
#[derive(Default)]
struct Listener {
    kept: Option<Kept>,
    /// Steps after which it is stopped.
    stop_at: Option<u64>,
    stopped: Flag,
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Watch for Flag {
    fn is_cancelled(&self) -> bool {
        self.0.load(Relaxed)
    }
}

impl Observer for Listener {
    fn progress(&mut self, last: &action_matching::engine::StepRecord, _: f64) {
        self.stopped.0.store(self.stop_at.is_some_and(|at| last.step + 1 >= at), Relaxed);
    }

    fn kept(&mut self, kept: &Kept) {
        self.kept = Some(*kept);
    }

    fn watch(&self) -> &dyn Watch {
        &self.stopped
    }
}

/// A run on three snapshots of `n` rows, each further by `shift`.
fn workplace(folder: &Path, n: usize, shift: f32) -> Config {
    let rows = draw_gaussian(3 * n, 2, &mut Stream::of_normals(11, 2));
    let line = |(i, x): (usize, &[f32])| {
        let time = i % 3;
        format!("{time},{},{}\n", x[0] + shift * time as f32, 0.5 * x[1])
    };
    let lines: String = rows.chunks_exact(2).enumerate().map(line).collect();
    std::fs::write(folder.join("data.csv"), format!("times,x,y\n{lines}")).expect("written");
    let mut config = Config::default();
    config.data.path = folder.join("data.csv");
    config.model.hidden = Some(vec![32, 32]);
    config.objective.path = action_matching::config::PathConfig::Linear;
    config.training.steps = 400;
    config.training.interior_rows = 64;
    config.training.learning_rate = 0.01;
    config.training.schedule = Schedule::Constant;
    config.training.warmup_steps = 0;
    config.training.stop = Stop::HeldOut { share: 0.1, patience: 1000 };
    config.output.checkpoint_every = 37;
    config.output.metrics_every = 50;
    config.output.folder = folder.join("run");
    config
}

fn run(config: &Config, existing: Existing, listener: &mut Listener) -> Outcome {
    train(&CpuEngine::new(1), config, existing, 1, listener).expect("trains")
}

fn newest(folder: &Path) -> PathBuf {
    let entries = std::fs::read_dir(folder.join("checkpoints")).expect("a folder");
    entries.map(|entry| entry.expect("an entry").path()).max().expect("a checkpoint")
}

/// The saved model is the moving average of the parameters at the step of the least distance, which
/// the metrics have too.
#[test]
fn the_best_model_is_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = workplace(folder.path(), 80, 1.0);
    let mut listener = Listener::default();
    assert_eq!(run(&config, Existing::Refuse, &mut listener), Outcome::Finished);
    let kept = listener.kept.expect("a line");
    let place = RunFolder::new(&config.output.folder);
    let measured: Vec<(u64, f64)> = read_metrics(&place.metrics(), |_| ())
        .expect("reads")
        .iter()
        .filter_map(|line| Some((line.step + 1, line.held_out?)))
        .collect();
    assert!((15..=51).contains(&measured.len()) && measured.last().is_some_and(|last| last.0 == 400), "{measured:?}");
    let best = measured.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).expect("some");
    assert_eq!((kept.step, kept.distance, kept.taken, kept.asked), (best.0, best.1, 400, 400));
    assert!(best.0 < 400, "the test needs a best step before the last one: {measured:?}");
    let text = std::fs::read_to_string(place.self_test()).expect("reads");
    assert!(text.contains(&format!("\"steps\": {}", best.0)), "{text}");
    // A run that ends there has that model, and the last one of the first run has another.
    let mut short = config.clone();
    short.training.steps = best.0;
    short.output.folder = folder.path().join("short");
    run(&short, Existing::Refuse, &mut Listener::default());
    let model = Model::load(&place.model()).expect("loads");
    assert!(model.parameters == Checkpoint::load(&newest(&short.output.folder)).expect("loads").state.action.ema);
    assert!(model.parameters != Checkpoint::load(&newest(&config.output.folder)).expect("loads").state.action.ema);
}

/// Snapshots of one distribution: no model is better than one that stands still for long.
#[test]
fn a_run_in_vain_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = workplace(folder.path(), 80, 0.0);
    config.training.steps = 4000;
    config.training.stop = Stop::HeldOut { share: 0.2, patience: 3 };
    let mut listener = Listener::default();
    assert_eq!(run(&config, Existing::Refuse, &mut listener), Outcome::Finished);
    let kept = listener.kept.expect("a line");
    assert!(kept.taken < 4000 && kept.step < kept.taken, "{kept:?}");
    let said = kept.to_string();
    assert!(said.contains(&format!("the model is that of step {} of {}", kept.step, kept.taken)), "{said}");
    assert!(said.contains("3 measurements after it were no better"), "{said}");
    // It is over: going on changes nothing.
    let files = || (metrics(&config.output.folder), std::fs::read(newest(&config.output.folder)).expect("reads"));
    let before = files();
    assert_eq!(run(&config, Existing::Resume, &mut Listener::default()), Outcome::Finished);
    assert!(files() == before);
}

/// Stopped at any step, between measurements and checkpoints, and gone on with.
#[test]
fn an_interrupted_run_ends_like_an_uninterrupted_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = workplace(folder.path(), 60, 1.0);
    config.objective.growth = Some(0.5); // weights of particles too
    config.training.stop = Stop::HeldOut { share: 0.1, patience: 8 };
    run(&config, Existing::Refuse, &mut Listener::default());
    let whole = config.output.folder.clone();
    for stop_at in [1, 90, 161] {
        config.output.folder = folder.path().join(format!("stopped-{stop_at}"));
        let mut listener = Listener { stop_at: Some(stop_at), ..Listener::default() };
        let outcome = run(&config, Existing::Refuse, &mut listener);
        assert!(matches!(outcome, Outcome::Stopped { .. }), "{stop_at}: {outcome:?}");
        assert_eq!(run(&config, Existing::Resume, &mut Listener::default()), Outcome::Finished);
        let of = |folder: &Path| {
            let model = std::fs::read(folder.join("model.safetensors")).expect("reads");
            (std::fs::read(newest(folder)).expect("reads"), model)
        };
        assert!(of(&config.output.folder) == of(&whole), "{stop_at}");
        assert_eq!(metrics(&config.output.folder), metrics(&whole), "{stop_at}");
    }
    // Another share is another run.
    config.training.stop = Stop::HeldOut { share: 0.2, patience: 8 };
    let refused = train(&CpuEngine::new(1), &config, Existing::Resume, 1, &mut Listener::default());
    let message = refused.expect_err("is refused").to_string();
    assert!(message.contains("training.stop was { kind = \"held-out\", patience = 8, share = 0.1"), "{message}");
}

/// What the user holds out is not measured on: whatever it is, the model has the same bits.
#[test]
fn what_is_held_out_for_the_end_decides_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = workplace(folder.path(), 60, 1.0);
    config.training.steps = 100;
    let csv = std::fs::read_to_string(&config.data.path).expect("reads");
    let models: Vec<Vec<f32>> = ["4", "-9"]
        .iter()
        .map(|x| {
            let lines: String = (0..40).map(|row| format!("1.5,{x},{row}\n")).collect();
            std::fs::write(folder.path().join("more.csv"), format!("{csv}{lines}")).expect("written");
            config.data.path = folder.path().join("more.csv");
            config.data.hold_out = vec![1.5].into();
            run(&config, Existing::Replace, &mut Listener::default());
            Model::load(&RunFolder::new(&config.output.folder).model()).expect("loads").parameters
        })
        .collect();
    assert!(models[0] == models[1]);
    let loaded = load(&config.source(), &()).expect("loads");
    assert_eq!((loaded.held_out.times.len(), loaded.training.times.len()), (1, 3));
}

/// One snapshot and noise: measured from noise to the rows kept apart.
#[test]
fn generative_paths_stop_early_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = workplace(folder.path(), 60, 0.0);
    let csv = std::fs::read_to_string(&config.data.path).expect("reads");
    let one: String =
        csv.lines().filter(|line| !line.starts_with('1') && !line.starts_with('2')).collect::<Vec<_>>().join("\n");
    std::fs::write(&config.data.path, one).expect("written");
    config.objective.path = action_matching::config::PathConfig::GenerativeLinear;
    config.training.steps = 60;
    let mut listener = Listener::default();
    run(&config, Existing::Refuse, &mut listener);
    assert!(listener.kept.is_some_and(|kept| kept.distance.is_finite()));
}
