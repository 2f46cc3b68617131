//! The test that ends a run: each check fires on a model that is wrong in its way, and stays silent
//! on one that is right.

use std::sync::Arc;

use crate::cli::{SMALL, amatch, command, succeeds, text, workplace};
use crate::common::{Numbers, model};
use action_matching::data::Snapshots;
use action_matching::density_path::{DensityPath, Interpolant};
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::{Estimator, Training};
use action_matching::model::{Activation, Head, Model, TimeEmbedding};
use action_matching::objective::Objective;
use action_matching::stage::Stage;
use action_matching::train::{Loss, SelfTest, Subject, Verdict};

const SHIFT: [f32; 2] = [1.6, -1.0];

/// A cloud of `n` rows at time 0, and of `m` others around the end of a way by `shift` at time 1.
fn clouds(n: usize, m: usize, shift: [f32; 2]) -> Snapshots {
    let mut numbers = Numbers::new(31);
    let mut rows = |n: usize, at: [f32; 2]| -> Vec<f32> {
        numbers.take(2 * n).iter().enumerate().map(|(i, &x)| x as f32 + at[i % 2]).collect()
    };
    Snapshots::from_rows(2, [(0.0, rows(n, [0.0; 2])), (1.0, rows(m, shift))]).expect("snapshots")
}

/// The action b·x.
fn linear(objective: Objective, b: [f32; 2]) -> Model {
    let mut model = model(2, &[4], Activation::Tanh, Head::Dot, TimeEmbedding::Raw, objective);
    model.parameters.fill(0.0);
    let n = model.parameters.len();
    model.parameters[n - 2..].copy_from_slice(&b);
    model
}

fn test_of(model: &Model, path: DensityPath, estimator: Estimator, loss: Option<Loss>, threads: usize) -> SelfTest {
    let training =
        Training { objective: model.objective.clone(), estimator, ..Training::new(model.architecture.clone(), path) };
    let subject = Subject { training: &training, steps: 10_000, loss };
    SelfTest::measure(&CpuEngine::new(threads), model, &subject, &Stage::new(threads, &())).expect("is tested")
}

/// The test of `model` on pairs of optimal transport between two clouds.
fn on_clouds(model: &Model, snapshots: Snapshots) -> SelfTest {
    let path = DensityPath::linear(snapshots).paired(0, &Stage::default()).expect("pairs");
    test_of(model, path, Estimator::Regression, None, 1)
}

fn failed(test: &SelfTest) -> Vec<&str> {
    test.checks.iter().filter(|check| check.verdict == Verdict::Failed).map(|check| &*check.name).collect()
}

/// One row has no distribution, so nothing is said of its motion.
#[test]
fn a_snapshot_of_one_row_is_no_failure() {
    let test = on_clouds(&linear(Objective::default(), SHIFT), clouds(1, 40, SHIFT));
    assert_eq!(test.check("motion").map(|check| check.verdict), Some(Verdict::NotApplicable), "{test}");
}

#[test]
fn a_right_model_passes_on_any_number_of_threads() {
    let right = linear(Objective::default(), SHIFT);
    let test = on_clouds(&right, clouds(300, 350, SHIFT));
    assert_eq!(failed(&test), [""; 0], "{test}");
    assert_eq!(test.verdict, Verdict::Passed);
    assert_eq!(test.notices().count(), 0);
    let path = DensityPath::linear(clouds(300, 350, SHIFT)).paired(0, &Stage::default()).expect("pairs");
    assert_eq!(test_of(&right, path, Estimator::Regression, None, 3), test);
    // Every check has a number, or says why it has none.
    assert!(test.checks.iter().all(|check| check.value.is_some() != check.message.is_some()), "{test:?}");
}

#[test]
fn a_model_that_is_worse_than_not_moving_fails() {
    let test = on_clouds(&linear(Objective::default(), SHIFT.map(|b| -b)), clouds(300, 350, SHIFT));
    assert!(failed(&test).contains(&"motion"), "{test}");
    assert!(test.warnings().any(|message| message.contains("worse than not moving")), "{test:?}");
    // A small error on a population that hardly moves is not that.
    let test = on_clouds(&linear(Objective::default(), [0.03, 0.0]), clouds(300, 350, [0.0; 2]));
    assert_eq!(failed(&test), [""; 0], "{test}");
}

#[test]
fn a_model_that_is_too_fast_fails() {
    let test = on_clouds(&linear(Objective::default(), SHIFT.map(|b| 4.0 * b)), clouds(300, 350, SHIFT));
    assert_eq!(failed(&test), ["motion", "speed", "range"], "{test}");
    // Particles whose positions are no numbers are found by every check that needs them.
    let test = on_clouds(&linear(Objective::default(), [f32::MAX; 2]), clouds(300, 350, SHIFT));
    assert!(failed(&test).contains(&"speed"), "{test}");
    assert!(test.motions.iter().all(|motion| motion.model.is_none()), "{test:?}");
    assert_ne!(test.check("motion").map(|check| check.verdict), Some(Verdict::Passed));
}

/// s = b·x cos(2πft) with f = 20.3: velocities that turn 20 times between two snapshots.
#[test]
fn a_velocity_that_turns_between_snapshots_fails() {
    let embedding = TimeEmbedding::Fourier { frequencies: vec![20.3] };
    let mut turning = model(2, &[1], Activation::Tanh, Head::Dot, embedding, Objective::default());
    turning.parameters.fill(0.0);
    // Inputs: x, y, t, sin, cos; then the bias of the hidden layer; the two outputs; their biases.
    turning.parameters[4] = 0.01;
    turning.parameters[6..8].copy_from_slice(&[100.0, 100.0]);
    let test = on_clouds(&turning, clouds(300, 350, SHIFT));
    assert!(failed(&test).contains(&"hjb"), "{test}");
    assert!(test.warnings().any(|message| message.contains("residual")), "{test:?}");
}

/// −½|b|² is the least loss of a model of velocity b.
#[test]
fn a_loss_below_what_its_energy_allows_fails() {
    let action = Estimator::Action { centering: false };
    let right = linear(Objective::default(), SHIFT);
    let least = -0.5 * f64::from(SHIFT.iter().map(|b| b * b).sum::<f32>());
    let test = |mean: f64, standard_error: f64| {
        let path = DensityPath::new(Interpolant::Nearest, clouds(300, 350, SHIFT));
        test_of(&right, path, action, Some(Loss { mean, standard_error }), 1)
    };
    assert_eq!(failed(&test(least, 0.0)), [""; 0]);
    assert_eq!(failed(&test(3.0 * least, -least)), [""; 0], "it may be noise");
    let bad = test(3.0 * least, 0.01);
    assert_eq!(failed(&bad), ["loss"], "{bad}");
    assert!(bad.warnings().any(|message| message.contains("without bound")), "{bad:?}");
    let check = bad.check("loss").expect("a check");
    assert!((check.value.expect("a number") - 3.0).abs() < 0.05, "{check:?}");
    let none = test_of(&right, DensityPath::linear(clouds(300, 350, SHIFT)), Estimator::Regression, None, 1);
    assert_eq!(none.check("loss").map(|check| check.verdict), Some(Verdict::NotApplicable));
}

#[test]
fn growth_that_moves_mass_fails() {
    let growing = Objective { growth: 1.0, ..Objective::default() };
    // Weights e^(λ∫s dt) differ along b.
    let test = on_clouds(&linear(growing.clone(), SHIFT), clouds(300, 350, SHIFT));
    assert!(failed(&test).contains(&"growth"), "{test}");
    // With masses that are known, the sum is what counts.
    let path = |masses| {
        let path = DensityPath::linear(clouds(300, 350, [0.0; 2])).paired(0, &Stage::default()).expect("pairs");
        DensityPath { masses: Some(masses), ..path }
    };
    let mut steady = linear(growing, [0.0; 2]);
    let verdict = |model: &Model, mass| {
        let test = test_of(model, path(vec![1.0, mass]), Estimator::Regression, None, 1);
        test.check("mass").map(|check| check.verdict)
    };
    assert_eq!(verdict(&steady, 1.0), Some(Verdict::Passed));
    assert_eq!(verdict(&steady, 3.0), Some(Verdict::Failed));
    assert_eq!(verdict(&steady, 0.3), Some(Verdict::Failed));
    steady.objective.growth = 0.0;
    assert_eq!(verdict(&steady, 1.0), Some(Verdict::NotApplicable));
}

#[test]
fn numbers_of_rows_that_change_are_noticed() {
    let right = linear(Objective::default(), SHIFT);
    let test = on_clouds(&right, clouds(300, 1000, SHIFT));
    assert_eq!((failed(&test).len(), test.notices().count(), test.verdict), (0, 1, Verdict::Noticed), "{test}");
    // Ten rows may become 25 by chance.
    assert_eq!(on_clouds(&right, clouds(10, 25, SHIFT)).notices().count(), 0);
}

/// Particles on a grid move by a quarter of its width; seen through a window, those of one column
/// leave at each frame and those of another enter.
#[test]
fn rows_that_enter_and_leave_are_found() {
    let mut numbers = Numbers::new(8);
    let particles: Vec<f32> = numbers.take(2 * 400).iter().map(|x| 4.0 * *x as f32).collect();
    let frame = |shift: f32, seen: f32| -> Vec<f32> {
        let moved = particles.chunks_exact(2).map(|x| [x[0] + shift, x[1]]);
        moved.filter(|x| x.iter().all(|x| x.abs() < seen)).flatten().collect()
    };
    let still = linear(Objective::default(), [0.0; 2]);
    let test = |seen: f32| {
        let snapshots = [0.0, 0.5, 1.0].map(|time| (time, frame(0.1 * time as f32, seen)));
        on_clouds(&still, Snapshots::from_rows(2, snapshots).expect("snapshots"))
    };
    assert_eq!(failed(&test(1.5)), ["open-view"], "{}", test(1.5));
    assert_eq!(test(9.0).check("open-view").map(|check| check.verdict), Some(Verdict::Passed), "{}", test(9.0));
}

/// With diffusion the drift is not the velocity: such checks say so, and the particles move with
/// noise.
#[test]
fn diffusion_and_noise_are_tested_as_far_as_that_has_a_meaning() {
    let diffusive = Objective { sigma: 0.2, ..Objective::default() };
    let test = on_clouds(&linear(diffusive, SHIFT), clouds(300, 350, SHIFT));
    assert_eq!(failed(&test), [""; 0], "{test}");
    for name in ["speed", "hjb"] {
        let check = test.check(name).expect("a check");
        assert!(check.message.as_ref().is_some_and(|message| message.contains("diffusion")), "{check:?}");
    }
    let mut one = clouds(300, 350, SHIFT);
    one = Snapshots {
        times: vec![1.0],
        offsets: vec![0, 650],
        samples: std::mem::take(&mut one.samples),
        dim: 2,
        mass: Default::default(),
    };
    let path = DensityPath::new(Interpolant::GenerativeLinear, Arc::new(one));
    let test = test_of(&linear(Objective::default(), [30.0, 0.0]), path, Estimator::Regression, None, 1);
    assert!(failed(&test).contains(&"motion") && test.motions[0].from.is_none(), "{test}");
}

#[test]
fn a_test_can_be_cancelled() {
    let right = linear(Objective::default(), SHIFT);
    let path = DensityPath::linear(clouds(100, 100, SHIFT)).paired(0, &Stage::default()).expect("pairs");
    let training = Training::new(right.architecture.clone(), path);
    let subject = Subject { training: &training, steps: 10_000, loss: None };
    crate::common::Patience::ends(|watch| {
        SelfTest::measure(&CpuEngine::new(1), &right, &subject, &Stage::new(1, watch))
    });
}

/// The file has every check; only `--strict` turns a warning into an exit code; a finished run that
/// is resumed is tested again, and the old file goes.
#[test]
fn strict_runs_end_with_code_3() {
    let (_guard, folder) = workplace();
    let arguments = |extra: &[&'static str]| [&["train", "run.toml", "--force"][..], &SMALL, extra].concat();
    let growing = ["--set", "objective.growth=5", "--set", "training.learning_rate=0.03", "--strict"];
    let output = amatch(&folder, &arguments(&growing));
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{message}");
    let (_, last) = message.split_once("model: ").expect("the model's line");
    assert!(last.contains("\nwarning: "), "{message}");
    let output = amatch(&folder, &arguments(&growing[..4]));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));

    let file = folder.join("runs/run/selftest.json");
    let read =
        || -> serde_json::Value { serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON") };
    let bad = read();
    assert_eq!((&bad["verdict"], &bad["steps"]), (&"failed".into(), &60.into()));
    assert_eq!(bad["checks"].as_array().map(Vec::len), Some(9), "{bad}");
    let check = &bad["checks"][0];
    assert!(check["name"] == "motion" && check["threshold"].is_number() && check["meaning"].is_string(), "{check}");

    succeeds(&folder, &arguments(&["--set", "objective.pairing=ot", "--strict"]));
    assert_eq!(read()["verdict"], "passed");
    let nearest = arguments(&["--set", "objective.path=nearest"]);
    let said = text(&amatch(&folder, &nearest).stderr);
    assert!(said.contains("warning: objective.path = \"nearest\" of snapshots of 50 rows"), "{said}");
    succeeds(&folder, &arguments(&["--set", "objective.pairing=ot"]));
    std::fs::write(&file, "{}").expect("written");
    let resumed = [&["train", "run.toml", "--resume", "--set", "objective.pairing=ot"][..], &SMALL].concat();
    let output = command(&folder, &resumed).output().expect("starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(read()["steps"], 60);
}

/// No warning on the data that come with the program.
#[test]
fn the_examples_pass() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = tempfile::tempdir().expect("a folder");
    for (name, pairing) in [("hematopoiesis", "ot"), ("hematopoiesis", "independent"), ("emt", "ot")] {
        let config = root.join(format!("examples/{name}.toml"));
        let (config, out) = (config.to_string_lossy(), place.path().join(format!("{name}-{pairing}")));
        let pairing = format!("objective.pairing={pairing}");
        let settings = [
            "training.steps=500",
            "training.interior_rows=256",
            "model.hidden=[32, 32]",
            "training.learning_rate=0.003",
            &pairing,
        ];
        let mut arguments = vec!["train", &config, "--strict", "--threads", "1"];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        let out = out.to_string_lossy();
        arguments.extend(["--out", &out]);
        let output = amatch(root, &arguments);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output.stderr));
    }
}
