//! A growth head: growth by a network of its own, where one potential cannot give both velocity and
//! growth.

use std::sync::Arc;

use action_matching::data::{read_points, read_snapshots};
use action_matching::density_path::optimal_couplings;
use action_matching::engine::TrainState;
use action_matching::prelude::*;

use crate::cli::{amatch, fails, succeeds, text};
use crate::common::{assert_close, conditioned, model, revealing_optimizer};

const GROWTH: f64 = 0.25;

/// 300 rows from 0 to 1 that do not move and grow at the rate x, at the times 0 and 1, each paired
/// with itself; the mass of each of both times.
fn standing() -> (Snapshots, [f64; 2]) {
    let x: Vec<f32> = (0..300).map(|i| (i as f32 + 0.5) / 300.0).collect();
    let grown: Vec<f64> = x.iter().map(|&x| f64::from(x).exp()).collect();
    let total = grown.iter().sum::<f64>() / 300.0;
    let snapshots = Snapshots::from_rows(1, [(0.0, &x), (1.0, &x)]).expect("snapshots");
    let weighted = snapshots.weighted([vec![1.0; 300], grown].concat()).expect("weights");
    let rates = x.iter().chain(&x).map(|&x| f64::from(x)).collect();
    (weighted.growing(rates).expect("rates"), [1.0, total])
}

/// A training on `snapshots` with `masses`, paired by known rates.
fn training(snapshots: Snapshots, masses: [f64; 2], growth_head: bool) -> Training {
    let couplings = optimal_couplings(&snapshots, 2048, 0, &Stage::default()).expect("couplings");
    let path = DensityPath {
        couplings: Some(Arc::new(couplings)),
        masses: Some(masses.to_vec()),
        ..DensityPath::linear(snapshots)
    };
    Training {
        objective: Objective { growth: GROWTH, ..Objective::default() },
        growth_head,
        n_interior: 256,
        ..Training::new(Architecture::new(1, [32, 32]), path)
    }
}

/// Cells that divide at a rate that depends on their place, and do not move: a potential of this
/// growth has the slope of a motion, so one alone gives a compromise of both.
#[test]
fn growth_without_motion_is_found() {
    let (snapshots, masses) = standing();
    let (standardized, coordinates) = snapshots.clone().standardize(Standardization::Isotropic).expect("standardizes");
    let engine = CpuEngine::new(2);
    let errors = |growth_head: bool| -> ([f64; 2], f64) {
        let training = training(standardized.clone(), masses, growth_head).for_steps(1500);
        let mut trainer = engine.start(training).expect("a trainer");
        trainer.steps(1500, &mut ()).expect("steps");
        let model = trainer.model(coordinates.clone()).expect("a model");
        assert_eq!(model.growth_head.is_some(), growth_head);
        let (mut speed, mut rate) = (0.0f64, 0.0f64);
        for x in [0.1, 0.3, 0.5, 0.7, 0.9] {
            for t in [0.1, 0.5, 0.9] {
                // The mass of a pair is linear in time.
                let gain = f64::exp(x) - 1.0;
                let wanted = gain / (1.0 + gain * t);
                rate = rate.max((model.growth_rate(&engine, &[x], t).expect("a rate")[0] - wanted).abs());
                speed = speed.max(model.velocity(&engine, &[x], t).expect("a velocity")[0].abs());
            }
        }
        let solver = Solver::rk4(20);
        let (_, weights) = model.weighted_flow(&engine, snapshots.rows(0), [0.0, 1.0], solver).expect("moves");
        ([speed, rate], weights.iter().sum::<f64>() / 300.0 / masses[1])
    };
    let ([speed, rate], mass) = errors(true);
    let ([one_speed, one_rate], _) = errors(false);
    println!(
        "largest speed {speed:.4}, error of rates {rate:.4}, mass {mass:.4}; one potential {one_speed:.3}, {one_rate:.3}"
    );
    assert!(speed < 0.02 && rate < 0.06 && (mass - 1.0).abs() < 0.01, "{speed}, {rate}, {mass}");
    assert!(one_speed > 0.1 || one_rate > 0.2, "one potential does as well: {one_speed}, {one_rate}");
}

/// Each network takes the gradient of the loss of the step, which is the sum of a part of either.
#[test]
fn each_network_takes_the_gradient_of_the_loss() {
    let (snapshots, masses) = standing();
    let (standardized, _) = snapshots.standardize(Standardization::Isotropic).expect("standardizes");
    for time_rule in [TimeRule::LowDiscrepancy, TimeRule::Importance] {
        let training = Training {
            optimizer: revealing_optimizer(),
            time_rule,
            seed: 5,
            ..training(standardized.clone(), masses, true)
        };
        let mut start = training.initial_state().expect("a state");
        // A head that says something.
        let head = start.growth.as_mut().expect("a head");
        head.parameters.iter_mut().enumerate().for_each(|(i, p)| *p += 0.1 * ((i * 7 % 11) as f32 / 5.0 - 1.0));
        let step = |state: &TrainState| {
            let mut records = Vec::new();
            let mut trainer = CpuEngine::new(2).trainer(training.clone(), state.clone()).expect("a trainer");
            trainer.steps(1, &mut records).expect("a step");
            (records[0].loss, trainer.state().expect("a state"))
        };
        let (_, after) = step(&start);
        let (action, growth) = (after.action.moment1, after.growth.expect("a head").moment1);
        for (name, gradient) in [("action", action), ("growth head", growth)] {
            let along = |state: &TrainState, step: f32| {
                let mut state = state.clone();
                let network = if name == "action" { &mut state.action } else { state.growth.as_mut().expect("a head") };
                let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
                network.parameters.iter_mut().zip(&gradient).for_each(|(p, g)| *p += step * g / norm);
                state
            };
            let h = 1e-2;
            let slope = (step(&along(&start, h)).0 - step(&along(&start, -h)).0) / (2.0 * f64::from(h));
            let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            assert!(norm > 1e-3 && (slope / norm - 1.0).abs() < 5e-3, "{name}: {slope}, not {norm}");
        }
    }
}

/// What a head is of: growth and pairs.
#[test]
fn heads_without_growth_are_refused() {
    let (snapshots, masses) = standing();
    let (standardized, _) = snapshots.standardize(Standardization::Isotropic).expect("standardizes");
    let good = training(standardized, masses, true);
    let state = good.initial_state().expect("a state");
    let refused = |training: Training, state: &TrainState| {
        CpuEngine::new(1).trainer(training, state.clone()).err().expect("is refused").to_string()
    };
    let still = Training { objective: Objective::default(), ..good.clone() };
    assert!(refused(still, &state).contains("growth_head: fits the growth rates of pairs"));
    let action = Training { estimator: Estimator::Action { centering: false }, ..good.clone() };
    assert!(refused(action, &state).contains("use the estimator regression"));
    let none = TrainState { growth: None, ..state.clone() };
    assert!(refused(good, &none).contains("growth_head: does not suit the state"));
}

/// A model with a head, one that says other than its potential.
fn with_head(conditions: usize) -> Model {
    let objective = Objective { growth: GROWTH, ..Objective::default() };
    let plain = model(2, &[13, 7], Activation::Silu, Head::Quadratic, TimeEmbedding::Raw, objective);
    let plain = if conditions > 0 { conditioned(&plain, conditions) } else { plain };
    let head = action_matching::model::initial_parameters(&plain.architecture.growth_head(), 31);
    Model { growth_head: Some(head), ..plain }
}

/// Rates are the head's, wherever they are asked for, and weights are their integral.
#[test]
fn rates_and_weights_are_those_of_the_head() {
    let model = Model {
        coordinates: Coordinates { scale: vec![2.0, 0.5], time_range: [1.0, 5.0], ..Coordinates::identity(2) },
        ..with_head(0)
    };
    let engine = CpuEngine::new(1);
    let (x, t) = ([0.3, -0.2, 1.1, 0.4], [2.0, 2.0]);
    let head = model.growth_network().expect("a head");
    let network = engine.derivatives(&head, &[0.15, -0.4, 0.55, 0.8], &[0.25; 2]).expect("evaluates").s;
    let wanted: Vec<f64> = network.iter().map(|rate| rate / 4.0).collect();
    let local = model.local(&engine, &x, &t).expect("evaluates");
    assert_close("rates", &model.growth_rate(&engine, &x, 2.0).expect("evaluates"), &wanted, 1e-6);
    assert_close("local rates", &local.growth_rate, &wanted, 1e-6);
    // Growth of the head is no term of the equation of the potential.
    let still = Model { objective: Objective::default(), growth_head: None, ..model.clone() };
    assert_eq!(local.hjb_residual, still.local(&engine, &x, &t).expect("evaluates").hjb_residual);
    // Positions do not depend on it.
    let solver = Solver::rk4(40);
    let (moved, weights) = model.weighted_flow(&engine, &x, [1.0, 5.0], solver).expect("moves");
    assert_eq!(moved, still.flow(&engine, &x, [1.0, 5.0], solver).expect("moves"));
    let (mut place, mut logs) = (x.to_vec(), [0.0; 2]);
    for step in 0..200 {
        let t = 1.0 + 0.02 * f64::from(step);
        let half = still.flow(&engine, &place, [t, t + 0.01], Solver::rk4(1)).expect("moves");
        let rates = model.growth_rate(&engine, &half, t + 0.01).expect("evaluates");
        logs.iter_mut().zip(rates).for_each(|(log, rate)| *log += 0.02 * rate);
        place = still.flow(&engine, &place, [t, t + 0.02], Solver::rk4(1)).expect("moves");
    }
    let logs: Vec<f64> = logs.iter().map(|log| log.exp()).collect();
    assert_close("weights", &weights, &logs, 1e-4);
}

/// The head depends on the conditions as the potential does.
#[test]
fn a_head_under_a_condition_is_that_of_the_model_under_it() {
    let model = with_head(2);
    for inputs in [[0.5, -1.0], [0.0, 2.0]] {
        let under = model.under_inputs(&inputs).expect("a model");
        let head = model.growth_network().expect("a head").under_inputs(&inputs).expect("a head");
        assert_eq!(under.growth_network().expect("a head"), head);
    }
    let [a, b] = [[0.5f32, -1.0], [0.0, 2.0]].map(|inputs| model.under_inputs(&inputs).expect("a model").growth_head);
    assert_ne!(a, b);
}

/// Files hold both networks, in version 2, and their defects are named.
#[test]
fn files_hold_the_head() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let model = with_head(0);
    model.save(&path).expect("saved");
    assert_eq!(Model::load(&path).expect("loads"), model);
    let bytes = std::fs::read(&path).expect("read");
    let header = String::from_utf8_lossy(&bytes[8..8 + bytes[0] as usize + 256 * bytes[1] as usize]).into_owned();
    for part in ["growth_head.0.weight", "growth_head.4.bias", "\\\"growth_head\\\":true", "\\\"version\\\":2"] {
        assert!(header.contains(part), "{part} is not in {header}");
    }
    assert!(model.describe().contains("growth head") && model.describe().contains("growth_head.2.weight"));
    let refused = |model: &Model| model.save(&path).expect_err("is refused").to_string();
    let short = Model { growth_head: Some(vec![0.0; 3]), ..model.clone() };
    assert!(refused(&short).contains("growth_head"));
    let still = Model { objective: Objective::default(), ..model.clone() };
    assert!(refused(&still).contains("growth_head: stands in a model without growth"));
    let mut lost = model.clone();
    lost.growth_head.as_mut().expect("a head")[2] = f32::NAN;
    assert!(refused(&lost).contains("growth_head.0.weight: holds NaN at element 2"));
    // Of a file that says less than it holds, or more.
    for (from, to, message) in [
        ("\\\"growth_head\\\":true", "\\\"growth_heap\\\":true", ": is not a tensor of this network"),
        ("\\\"version\\\":2", "\\\"version\\\":1", "growth_head: stands in a model of version 1"),
    ] {
        let text = header.replace(from, to);
        std::fs::write(&path, [&bytes[..8], text.as_bytes(), &bytes[8 + header.len()..]].concat()).expect("written");
        let error = Model::load(&path).expect_err("is refused").to_string();
        assert!(error.contains(message), "{error}, not {message}");
    }
}

/// The program trains, resumes, moves, queries, evaluates and describes models with a head.
#[test]
fn the_program_honors_a_growth_head() {
    let guard = tempfile::tempdir().expect("a folder");
    let folder = guard.path();
    let mut csv = String::from("times,x,y\n");
    for (time, n) in [(0, 60), (1, 80), (2, 110)] {
        for i in 0..n {
            let (x, y) = (f64::from(i * 37 % n) / f64::from(n), f64::from(i * 23 % n) / f64::from(n));
            csv += &format!("{time},{},{y}\n", x + 0.5 * f64::from(time));
        }
    }
    std::fs::write(folder.join("cells.csv"), csv).expect("written");
    let config = "[data]\npath = \"cells.csv\"\n[model]\nhidden = [16, 16]\n[objective]\npath = \"linear\"\n\
                  pairing = \"wfr\"\ngrowth = 0.25\nmass = \"counts\"\ngrowth_head = true\n[training]\nsteps = 60\n\
                  interior_rows = 64\nwarmup_steps = 5\n[output]\ncheckpoint_every = 20\n";
    std::fs::write(folder.join("run.toml"), config).expect("written");
    let train = |more: &[&str]| {
        let output = amatch(folder, &[&["train", "run.toml", "--device", "cpu"][..], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    train(&["--out", "whole"]);
    // A run that goes on from its first checkpoint has the bits of one that ran through, of both
    // networks.
    train(&["--out", "parts"]);
    for step in [40, 60] {
        std::fs::remove_file(folder.join(format!("parts/checkpoints/step-{step:010}.safetensors"))).expect("removed");
    }
    train(&["--out", "parts", "--resume"]);
    let model = |run: &str| Model::load(&folder.join(run).join("model.safetensors")).expect("a model");
    assert!(model("parts") == model("whole") && model("whole").growth_head.is_some());
    let without = amatch(
        folder,
        &["train", "run.toml", "--out", "whole", "--resume", "--device", "cpu", "--set", "objective.growth_head=false"],
    );
    assert!(!without.status.success(), "a run with a head went on without it");

    let column = |file: &str, name: &str| {
        let source = DataSource { samples: name.into(), ..DataSource::new(folder.join(file)) };
        read_points(&source, &()).expect("reads").positions()
    };
    succeeds(folder, &["query", "whole", "--at", "cells.csv", "--out", "q.npz"]);
    let wanted = model("whole").local(&CpuEngine::new(1), &column("q.npz", "samples"), &column("q.npz", "times"));
    assert_close("rates", &column("q.npz", "growth_rate"), &wanted.expect("evaluates").growth_rate, 1e-6);
    succeeds(folder, &["sample", "whole", "--from", "snapshot:0", "--save-at", "2", "--out", "p.npz"]);
    let weights = column("p.npz", "log_weights");
    let cells = read_snapshots(&DataSource::new(folder.join("cells.csv")), &()).expect("reads");
    let start = cells.positions(0);
    let moved = model("whole").weighted_flow(&CpuEngine::new(1), &start, [0.0, 2.0], Solver::default());
    let wanted: Vec<f64> = moved.expect("moves").1.iter().map(|weight| weight.ln()).collect();
    assert_close("log-weights", &weights, &wanted, 1e-2);
    assert!(succeeds(folder, &["evaluate", "whole"]).contains("model"));
    assert!(succeeds(folder, &["inspect", "whole"]).contains("growth head"));
    assert!(folder.join("whole/selftest.json").exists());
    let card = std::fs::read_to_string(folder.join("whole/README.md")).expect("a card");
    assert!(card.contains("by a network of its own"), "{card}");
    fails(folder, &["check", "--model", "whole", "--batch", "none.npz", "--out", "o.npz"], &["growth head"]);
}
