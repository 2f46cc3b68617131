//! From noise to data: training along a generative path, samples, and the log-likelihood against
//! exact values.

use std::path::Path;

use crate::common::expanding;
use action_matching::config::Config;
use action_matching::data::{Snapshots, draw_gaussian, load_single};
use action_matching::engine::cpu::CpuEngine;
use action_matching::evaluate::{EvaluateOptions, Labeled, Role, StartFrom, evaluate, evaluate_labeled};
use action_matching::model::{Coordinates, Model};
use action_matching::objective::Objective;
use action_matching::rng::Stream;
use action_matching::stage::Stage;
use action_matching::train::{Existing, Outcome, RunFolder, Unobserved, train};

const SCALE: [f32; 2] = [3.0, 0.5];

/// Normal rows with two different deviations.
fn snapshots() -> Snapshots {
    let mut samples = draw_gaussian(1500, 2, &mut Stream::of_normals(4, 2));
    samples.chunks_exact_mut(2).for_each(|x| (x[0], x[1]) = (SCALE[0] * x[0] + 10.0, SCALE[1] * x[1] - 2.0));
    Snapshots { dim: 2, times: vec![0.0], offsets: vec![0, 1500], samples, mass: Default::default() }
}

fn configuration(folder: &Path, path: &str) -> Config {
    let mut csv = String::from("times,x,y\n");
    for x in snapshots().samples.chunks_exact(2) {
        csv += &format!("0,{},{}\n", x[0], x[1]);
    }
    std::fs::write(folder.join("data.csv"), csv).expect("written");
    let text = format!(
        "[data]\npath = \"data.csv\"\nstandardize = \"isotropic\"\n[model]\nhidden = [48, 48]\n[objective]\npath = \"{path}\"\n\
         [training]\nsteps = 1500\ninterior_rows = 512\nlearning_rate = 5e-3\nwarmup_steps = 50\nema_decay = 0.99\n"
    );
    let file = folder.join("run.toml");
    std::fs::write(&file, text).expect("written");
    let mut config = Config::read(&file, &[]).expect("a configuration");
    config.output.folder = folder.join("run");
    config
}

#[test]
fn noise_arrives_as_the_data_with_their_likelihood() {
    let engine = CpuEngine::new(0);
    for path in ["generative-linear", "generative-vp", "generative-sqrt"] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = configuration(folder.path(), path);
        let outcome = train(&engine, &config, Existing::Refuse, 2, &mut Unobserved).expect("trains");
        assert_eq!(outcome, Outcome::Finished);
        let model = Model::load(&RunFolder::new(&config.output.folder).model()).expect("a model");
        let options = EvaluateOptions { start: StartFrom::Noise, ..EvaluateOptions::default() };
        let report = evaluate(&engine, &model, &snapshots(), &[], &options, &Stage::default()).expect("evaluates");
        let comparison = &report.comparisons[0];
        assert_eq!(comparison.from, None);
        let floor = comparison.sampling_floor.expect("a floor").w1;
        assert!(comparison.model.w1 < 2.0 * floor, "{path}: {} against {floor}", comparison.model.w1);
        assert!(comparison.no_motion.w1 > 5.0 * floor, "{path}: {:?}", comparison.no_motion);

        // The normal density with the samples' own moments is the best normal one.
        let loaded = load_single(&config.source(), &()).expect("loads");
        assert_eq!(loaded.training.times, [1.0]);
        let variance = |i: usize| {
            let column: Vec<f64> = snapshots().samples.iter().skip(i).step_by(2).map(|&x| f64::from(x)).collect();
            let mean = column.iter().sum::<f64>() / column.len() as f64;
            column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / column.len() as f64
        };
        let best = -(0..2).map(|i| 0.5 * (1.0 + (std::f64::consts::TAU * variance(i)).ln())).sum::<f64>();
        let got = comparison.log_likelihood.expect("a likelihood");
        assert!((got - best).abs() < 0.06, "{path}: {got}, not {best}");
    }
}

#[test]
fn snapshots_that_do_not_suit_the_start_are_refused() {
    let engine = CpuEngine::new(1);
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = configuration(folder.path(), "generative-linear");
    config.training.steps = 2;
    train(&engine, &config, Existing::Refuse, 2, &mut Unobserved).expect("trains");
    let model = Model::load(&RunFolder::new(&config.output.folder).model()).expect("a model");
    let two = Snapshots { times: vec![0.0, 1.0], offsets: vec![0, 700, 1500], ..snapshots() };
    for (snapshots, start, part) in [
        (snapshots(), StartFrom::Previous, "two or more"),
        (snapshots(), StartFrom::First, "two or more"),
        (two.clone(), StartFrom::Noise, "one snapshot"),
    ] {
        let options = EvaluateOptions { start, ..EvaluateOptions::default() };
        let error =
            evaluate(&engine, &model, &snapshots, &[], &options, &Stage::default()).expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
    }
    let mut csv = String::from("times,x,y\n");
    (0..20).for_each(|row| csv += &format!("{},{row},1\n", row % 2));
    std::fs::write(folder.path().join("data.csv"), csv).expect("written");
    let error = train(&engine, &config, Existing::Replace, 2, &mut Unobserved).expect_err("refused").to_string();
    assert!(error.contains("2 times") && error.contains("one time"), "{error}");
}

/// s = ½‖x − b‖² moves x₀ to b + (x₀ − b) eᵗ, so that noise arrives as N(b − e b, e²): the mean
/// log-density of rows that were seen, and of those held out, in closed form and in data units.
#[test]
fn held_out_rows_have_the_likelihood_of_a_known_flow() {
    use std::f64::consts::{E, TAU};
    const B: [f32; 2] = [0.5, -0.25];
    let (mean, scale) = ([3.0, -1.0], [2.0, 0.5]);
    let mut model = expanding(&B, Objective::default());
    model.coordinates = Coordinates { mean: mean.into(), scale: scale.into(), ..Coordinates::identity(2) };
    let rows = |seed: u64| draw_gaussian(300, 2, &mut Stream::of_normals(seed, 2));
    let in_data = |rows: Vec<f32>| -> Vec<f32> {
        rows.iter().enumerate().map(|(i, &y)| (3.0 * f64::from(y) * scale[i % 2] + mean[i % 2]) as f32).collect()
    };
    let [seen, left_out] = [1, 2].map(|seed| Snapshots::from_rows(2, [(0.0, in_data(rows(seed)))]).expect("snapshots"));
    let labeled = [Labeled::all(&seen, Role::Seen), Labeled::all(&left_out, Role::HeldOut)];
    let options = EvaluateOptions { start: StartFrom::Noise, ..EvaluateOptions::default() };
    let report =
        evaluate_labeled(&CpuEngine::new(1), &model, &labeled, &options, &Stage::new(1, &())).expect("evaluates");
    let [of_seen, of_left_out] = &report.comparisons[..] else { panic!("{report}") };
    assert_eq!(of_left_out.training, Role::HeldOut);
    for (comparison, snapshots) in [(of_seen, &seen), (of_left_out, &left_out)] {
        let log_density = |row: &[f32]| -> f64 {
            let of_axis = |i: usize| {
                let center = mean[i] + scale[i] * f64::from(B[i]) * (1.0 - E);
                let z = (f64::from(row[i]) - center) / (E * scale[i]);
                -0.5 * (z * z + TAU.ln()) - (E * scale[i]).ln()
            };
            of_axis(0) + of_axis(1)
        };
        let expected = snapshots.samples.chunks_exact(2).map(log_density).sum::<f64>() / 300.0;
        let got = comparison.log_likelihood.expect("a likelihood");
        assert!((got - expected).abs() < 1e-3 * expected.abs(), "{got}, not {expected}");
    }
    assert!(of_seen.log_likelihood != of_left_out.log_likelihood);
}
