//! Training on a problem whose action is known: the loss falls to the true kinetic energy, and the gap closes.

mod common;

use std::sync::Arc;

use action_matching::data::GaussianProblem;
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::{Engine, Laplacian, LearningRate, Optimizer, Path, TimeRule, TrainState, Training};
use action_matching::evaluate::{ActionGap, EvaluateOptions, evaluate};
use action_matching::model::{Activation, Coordinates, Head, Model, TimeEmbedding, initial_parameters};
use action_matching::objective::Objective;
use action_matching::transport::wasserstein1;
use common::model;

fn problem() -> GaussianProblem {
    GaussianProblem { shift: vec![1.5, -1.0], scale0: vec![1.0, 0.6], scale1: vec![0.5, 1.2] }
}

/// Both sides of the gap identity, on networks that know nothing of the problem.
#[test]
fn the_gap_identity_holds_for_any_action() {
    let engine = CpuEngine::new(0);
    for head in Head::ALL {
        let model = model(2, &[23, 17], Activation::Tanh, head, TimeEmbedding::Raw, Objective::default());
        let gap = ActionGap::measure(&engine, &model, &problem(), 200_000, 5).expect("measures");
        let difference = gap.from_loss() - gap.gap;
        assert!(difference.abs() < 0.01 * gap.gap, "{head:?}: {gap:?}, difference {difference}");
    }
}

#[test]
fn training_closes_the_gap_to_2_percent_of_the_kinetic_energy() {
    let problem = problem();
    let times: Vec<f64> = (0..=100).map(|k| f64::from(k) / 100.0).collect();
    let snapshots = Arc::new(problem.snapshots(&times, 2000, 7));
    let engine = CpuEngine::new(0);
    let mut model = Model {
        architecture: action_matching::model::Architecture {
            dim: 2,
            hidden: vec![48, 48],
            activation: Activation::Silu,
            head: Head::Scalar,
            time_embedding: TimeEmbedding::Raw,
        },
        coordinates: Coordinates::identity(2),
        objective: Objective::default(),
        parameters: Vec::new(),
    };
    model.parameters = initial_parameters(&model.architecture, 1);
    let training = Training {
        architecture: model.architecture.clone(),
        objective: model.objective.clone(),
        snapshots: Arc::clone(&snapshots),
        path: Path::Nearest,
        time_rule: TimeRule::LowDiscrepancy,
        couplings: None,
        masses: None,
        laplacian: Laplacian::default(),
        n_interior: 512,
        n_boundary: 512,
        optimizer: Optimizer {
            learning_rate: LearningRate { peak: 5e-3, warmup_steps: 50, cosine: Some((2000, 0.01)) },
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip_norm: Some(1.0),
            ema_decay: 0.99,
        },
        seed: 1,
    };
    let gap = |model: &Model| ActionGap::measure(&engine, model, &problem, 50_000, 9).expect("measures");
    let before = gap(&model);
    assert!(before.gap > 0.5 * before.kinetic_energy, "{before:?}");

    let mut trainer = engine.trainer(training, TrainState::initial(model.parameters.clone())).expect("a trainer");
    trainer.steps(2000, &mut Vec::new()).expect("steps");
    model.parameters = trainer.state().ema;
    let after = gap(&model);
    let share = |value: f64| value / after.kinetic_energy;
    assert!(share(after.gap) < 0.02, "the gap is {:.4} of the kinetic energy", share(after.gap));
    assert!(share(after.from_loss()) < 0.02, "the loss says {:.4}", share(after.from_loss()));

    // Particles of q₀ arrive as q₁: closer to it than twice the distance between two samples of q₁.
    let ends = problem.snapshots(&[0.0, 1.0], 1000, 21);
    let report = evaluate(&engine, &model, &ends, &[], &EvaluateOptions::default(), &|_, _| {}).expect("evaluates");
    let comparison = &report.comparisons[0];
    let floor = wasserstein1(2, ends.rows(1), problem.snapshots(&[1.0], 1000, 40).rows(0)).expect("solves");
    assert!(comparison.model.w1 < 2.0 * floor, "{} against {floor}", comparison.model.w1);
    assert!(comparison.no_motion.w1 > 1.0, "{}", comparison.no_motion.w1);
    assert!((comparison.kinetic_energy / after.kinetic_energy - 1.0).abs() < 0.1, "{comparison:?}");
}
