//! Training on a problem with known action: the loss falls to the true kinetic energy, and the gap
//! closes.

use crate::common::{Counted, Patience, model};
use action_matching::data::AnalyticProblem;
use action_matching::density_path::DensityPath;
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::{Cosine, Engine, LearningRate, Optimizer, Training};
use action_matching::evaluate::{ActionGap, EvaluateOptions, Theorems, evaluate};
use action_matching::model::{Activation, Architecture, Coordinates, Head, Model, TimeEmbedding};
use action_matching::objective::Objective;
use action_matching::stage::Stage;
use action_matching::transport::wasserstein1;

fn problem() -> AnalyticProblem {
    AnalyticProblem::named("anisotropic").expect("a problem")
}

/// Both sides of the gap identity, for untrained networks.
#[test]
fn the_gap_identity_holds_for_any_action() {
    let engine = CpuEngine::new(0);
    for head in Head::ALL {
        let model = model(2, &[23, 17], Activation::Tanh, head, TimeEmbedding::Raw, Objective::default());
        let gap = ActionGap::measure(&engine, &model, &problem(), 200_000, 5, &()).expect("measures");
        let difference = gap.from_loss() - gap.gap;
        assert!(difference.abs() < 0.01 * gap.gap, "{head:?}: {gap:?}, difference {difference}");
    }
}

/// A small network trained on exact samples of `problem`, with `rows` samples at the first of 101
/// times.
fn trained(problem: &AnalyticProblem, rows: usize, steps: u64) -> Model {
    let times: Vec<f64> = (0..=100).map(|k| f64::from(k) / 100.0).collect();
    let snapshots = problem.snapshots(&times, rows, 7);
    let objective = problem.objective();
    let masses = (objective.growth > 0.0).then(|| times.iter().map(|&t| problem.mass(t)).collect());
    let path = DensityPath { masses, ..DensityPath::nearest(snapshots) };
    let cosine = Some(Cosine { end: steps, floor: 0.001 });
    let training = Training {
        objective,
        n_interior: 2048,
        n_boundary: 2048,
        optimizer: Optimizer {
            learning_rate: LearningRate { peak: 5e-3, warmup_steps: 50, cosine },
            ema_decay: 0.998,
            ..Optimizer::default()
        },
        seed: 1,
        ..Training::new(Architecture::new(problem.dim(), [48; 2]), path)
    };
    let mut trainer = CpuEngine::new(0).start(training).expect("a trainer");
    trainer.steps(steps, &mut ()).expect("steps");
    trainer.model(Coordinates::identity(problem.dim())).expect("a model")
}

#[test]
fn training_closes_the_gap_to_2_percent_of_the_kinetic_energy() {
    let (problem, engine) = (problem(), CpuEngine::new(0));
    let gap = |model: &Model| ActionGap::measure(&engine, model, &problem, 50_000, 9, &()).expect("measures");
    let before = gap(&trained(&problem, 1000, 1));
    assert!(before.gap > 0.5 * before.energy, "{before:?}");

    let model = trained(&problem, 20_000, 2000);
    let after = gap(&model);
    let share = |value: f64| value / after.energy;
    assert!((after.energy / 1.93 - 1.0).abs() < 0.01, "½(1.5² + 1² + 0.5² + 0.6²) = 1.93, not {}", after.energy);
    assert!(share(after.gap) < 0.02, "the gap is {:.4} of the kinetic energy", share(after.gap));
    assert!(share(after.from_loss()) < 0.02, "the loss says {:.4}", share(after.from_loss()));

    // Particles of q₀ arrive at q₁: closer to it than twice the distance between two samples of q₁.
    let ends = problem.snapshots(&[0.0, 1.0], 1000, 21);
    let report =
        evaluate(&engine, &model, &ends, &[], &EvaluateOptions::default(), &Stage::default()).expect("evaluates");
    let comparison = &report.comparisons[0];
    let floor = wasserstein1(2, ends.rows(1), problem.snapshots(&[1.0], 1000, 40).rows(0), &()).expect("solves");
    assert!(comparison.model.w1 < 2.0 * floor, "{} against {floor}", comparison.model.w1);
    assert!(comparison.no_motion.w1 > 1.0, "{}", comparison.no_motion.w1);
    assert!((comparison.kinetic_energy / after.energy - 1.0).abs() < 0.1, "{comparison:?}");
}

/// With noise or growth: drift and growth to 3 %.
#[test]
fn training_recovers_drift_and_growth() {
    let engine = CpuEngine::new(0);
    for name in ["ornstein-uhlenbeck", "growth"] {
        let problem = AnalyticProblem::named(name).expect("a problem");
        let theorems = Theorems::measure(&engine, &trained(&problem, 100_000, 6000), &problem, 3, &Stage::default())
            .expect("measures");
        assert!(theorems.gap.drift_error < 0.03, "{name}: {theorems:?}");
        assert_eq!(theorems.gap.growth_error.is_some(), name == "growth");
        assert!(theorems.gap.growth_error.is_none_or(|error| error < 0.03), "{name}: {theorems:?}");
        let difference = (theorems.gap.from_loss() - theorems.gap.gap).abs();
        assert!(difference < 0.01 * theorems.gap.energy, "{name}: {theorems:?}");
        assert!(theorems.bound.is_none() && theorems.likelihood.is_none());
    }
}

#[test]
fn the_bound_holds_for_every_trained_flow() {
    let engine = CpuEngine::new(0);
    for name in ["translation", "scaling", "anisotropic", "mixture"] {
        let problem = AnalyticProblem::named(name).expect("a problem");
        let theorems = Theorems::measure(&engine, &trained(&problem, 5000, 1500), &problem, 3, &Stage::default())
            .expect("measures");
        assert!(theorems.gap.gap < 0.1 * theorems.gap.energy, "{name}: {theorems:?}");
        let bound = theorems.bound.expect("a bound");
        assert!(bound.w2_squared <= bound.bound && bound.w2_squared > 0.0, "{name}: {bound:?}");
        let likelihood = theorems.likelihood.expect("a likelihood");
        let divergence = likelihood.exact - likelihood.model;
        assert!((-0.01..0.1).contains(&divergence), "{name}: {likelihood:?}");
        // Entropy of a Gaussian: the log-density falls by the log of the volume.
        if name == "scaling" {
            let entropy = 1.5 * (1.0 + std::f64::consts::TAU.ln()) + 3.0 * 0.5f64.ln();
            assert!((likelihood.exact + entropy).abs() < 0.05, "{likelihood:?}, entropy {entropy}");
        }
    }
}

/// The bound also holds for an untrained action, for which it is far from 0.
#[test]
fn the_bound_holds_for_any_action() {
    let engine = CpuEngine::new(0);
    for head in Head::ALL {
        let model = model(2, &[23, 17], Activation::Tanh, head, TimeEmbedding::Raw, Objective::default());
        let bound = Theorems::measure(&engine, &model, &problem(), 3, &Stage::default())
            .expect("measures")
            .bound
            .expect("a bound");
        assert!(bound.w2_squared > 0.1 && bound.w2_squared <= bound.bound, "{head:?}: {bound:?}");
        assert!(bound.smoothness > 0.05, "{head:?}: {bound:?}");
    }
}

#[test]
fn a_model_of_other_dynamics_is_refused() {
    let engine = CpuEngine::new(1);
    let model = model(2, &[4], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, Objective::default());
    let refused = |model: &Model, name: &str, field: &str| {
        let problem = AnalyticProblem::named(name).expect("a problem");
        let error =
            Theorems::measure(&engine, model, &problem, 1, &Stage::default()).expect_err("an error").to_string();
        assert!(error.contains(field), "{error}");
    };
    refused(&model, "ornstein-uhlenbeck", "sigma");
    refused(&model, "growth", "growth");
    refused(&model, "scaling", "dimension");
    let coordinates = Coordinates { scale: vec![2.0; 2], ..Coordinates::identity(2) };
    refused(&Model { coordinates, ..model }, "anisotropic", "coordinates");
}

/// Every stage of an evaluation looks at the watch, and its progress adds up.
#[test]
fn an_evaluation_can_be_watched_and_ended() {
    let engine = CpuEngine::new(1);
    let problem = problem();
    let model = model(2, &[9], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, Objective::default());
    let ends = problem.snapshots(&[0.0, 0.5, 1.0], 40, 2);
    let options = EvaluateOptions::default();
    let asked = Patience::ends(|watch| evaluate(&engine, &model, &ends, &[], &options, &Stage::new(1, watch)));
    // For each of two pairs of snapshots and three sets of 40 rows or more: each row of two tables
    // of costs.
    assert!(asked > 2 * 3 * 40 * 2, "{asked}");
    let counted = Counted::default();
    evaluate(&engine, &model, &ends, &[], &options, &Stage::new(2, &counted)).expect("evaluates");
    counted.assert_whole(2 * 2 + 1);

    let asked = Patience::ends(|watch| Theorems::measure(&engine, &model, &problem, 3, &Stage::new(1, watch)));
    assert!(asked > 2000, "{asked}");
    let counted = Counted::default();
    Theorems::measure(&engine, &model, &problem, 3, &Stage::new(2, &counted)).expect("measures");
    counted.assert_whole(3);
}
