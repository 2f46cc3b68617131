//! Products of warpgroups, which cards of 9.0 have: whatever depends on them. The virtual GPU is
//! such a card in a process of its own.

use crate::common::rounded::Rounding;
use crate::common::{batch, embeddings, model};
use crate::{derivatives, integrate, training};
use action_matching::density_path::TimeRule;
use action_matching::engine::cuda::{CudaEngine, devices};
use action_matching::engine::{Engine, Estimator, TrainState, Training};
use action_matching::integrate::{Method, Plan, StepControl};
use action_matching::model::{Activation, Head, Model, TimeEmbedding};
use action_matching::objective::Objective;
use action_matching::precision::Precision;

const OF_16_BITS: [Precision; 2] = [Precision::Bf16, Precision::F16];

fn engine(precision: Precision) -> CudaEngine {
    CudaEngine::new(0, precision).expect("a card of 9.0").with_large_tiles()
}

/// Runs the tests of this file that need a card of 9.0. Another real card has none of these
/// products, and there is nothing to test on it.
#[test]
fn products_of_warpgroups_are_right() {
    let card = devices().expect("a GPU, or the virtual one").remove(0);
    if !card.model.contains("Virtual GPU") && card.compute_capability != (9, 0) {
        eprintln!("{} has no products of warpgroups", card.model);
        return;
    }
    let names = ["gradients_agree_with_f64", "particles_move_as_on_the_cpu", "training_stays_in_its_band"];
    let output = std::process::Command::new(std::env::current_exe().expect("the test's own path"))
        .args(["--ignored", "--exact", "--nocapture"])
        .args(names.map(|name| format!("warpgroups::{name}")))
        .envs([("VGPU_CAPABILITY", "9.0"), ("AMATCH_PRODUCT", "wgmma")])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(&format!("ok. {} passed", names.len())), "{said}{complained}");
    eprint!("{complained}");
}

/// Layers of one and of both numbers of columns, of several column tiles, an operand of several
/// pieces, inputs of one and of two stages; every activation and head; all dynamics without probes.
#[test]
#[ignore = "products_of_warpgroups_are_right runs it on a card of 9.0"]
fn gradients_agree_with_f64() {
    let cases = [
        (3, &[70][..], [129, 3, 128], Head::Scalar, Activation::Silu, (0.0, 2.0)),
        (17, &[100, 70], [131, 7, 5], Head::Quadratic, Activation::Tanh, (0.3, 2.0)),
        (3, &[200, 130, 256], [40, 2, 9], Head::Quadratic, Activation::Silu, (0.0, 2.0)),
        (2, &[140, 90], [33, 130, 1], Head::Dot, Activation::Gelu, (0.0, 2.5)),
        (66, &[130], [9, 2, 3], Head::Dot, Activation::Sin, (0.4, 2.0)),
        (70, &[90, 150], [5, 2, 2], Head::Scalar, Activation::Softplus, (0.3, 3.0)),
        (3, &[300, 200, 600], [7, 130, 4], Head::Quadratic, Activation::Silu, (0.3, 2.0)),
        (3, &[70], [0, 5, 3], Head::Scalar, Activation::Silu, (0.0, 2.0)),
    ];
    for precision in OF_16_BITS {
        let results = cases.into_iter().map(|(dim, hidden, [n, n0, n1], head, activation, (growth, cost_exponent))| {
            let name = format!("{} {head:?} {activation:?}, dim {dim}, {hidden:?}, {n} rows", precision.name());
            let objective = Objective { growth, cost_exponent, ..Objective::default() };
            let model = model(dim, hidden, activation, head, embeddings()[1].clone(), objective);
            derivatives::check(&name, &engine(precision), precision, &model, &batch(dim, n, n0, n1))
        });
        derivatives::report(precision, results.collect());
    }
}

/// Fixed and adaptive steps, with weights and without, forward and backward; equal bits each time.
#[test]
#[ignore = "products_of_warpgroups_are_right runs it on a card of 9.0"]
fn particles_move_as_on_the_cpu() {
    let plans = [
        Plan::new(Method::Rk4, StepControl::Fixed { steps: 3 }, 0.0, vec![0.4, 1.0]),
        Plan::new(Method::Dopri5, StepControl::Adaptive { rtol: 1e-2, atol: 1e-2 }, 1.0, vec![0.2]),
    ];
    for (hidden, activation, precision) in [
        (&[140, 200][..], Activation::Silu, Precision::Bf16),
        (&[70], Activation::Tanh, Precision::F16),
        (&[300, 130], Activation::Silu, Precision::F16),
    ] {
        for plan in &plans {
            let objective = Objective { growth: 0.4, ..Objective::default() };
            let model = model(3, hidden, activation, Head::Quadratic, TimeEmbedding::Raw, objective);
            integrate::assert_near(&engine(precision), precision, &model, plan, 300);
        }
    }
}

/// Weights that the optimizer writes have the order that products read, step after step.
#[test]
#[ignore = "products_of_warpgroups_are_right runs it on a card of 9.0"]
fn training_stays_in_its_band() {
    let objective = Objective { growth: 0.2, ..Objective::default() };
    let model = |hidden: &[usize]| -> Model {
        model(2, hidden, Activation::Silu, Head::Scalar, embeddings()[1].clone(), objective.clone())
    };
    for (precision, hidden, steps) in [(Precision::Bf16, &[70, 90][..], 200), (Precision::F16, &[140], 60)] {
        let model = model(hidden);
        let training = Training {
            time_rule: TimeRule::Uniform,
            ..training::training(&model, Estimator::Action { centering: false })
        };
        training::assert_in_band(&engine(precision), Rounding::of(precision), &model, &training, steps);
        let start = TrainState::initial(model.parameters.clone());
        let engine: &dyn Engine = &engine(precision);
        let (state, records) = training::run(engine, &training, start.clone(), &[10]);
        assert_eq!(training::run(engine, &training, start.clone(), &[3, 7]), (state.clone(), records.clone()));
        let (half, mut both) = training::run(engine, &training, start, &[4]);
        let (resumed, rest) = training::run(engine, &training, half, &[6]);
        both.extend(rest);
        assert_eq!((resumed, both), (state, records), "{hidden:?}");
    }
}
