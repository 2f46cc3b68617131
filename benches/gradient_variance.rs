//! Variance of the gradient of a step for each form of the loss and each rule for its times, with
//! the same networks:
//!
//!     cargo bench --bench gradient_variance
//!
//! Variance is the trace of the covariance over the squared norm of the mean gradient at the start
//! of training, for 256 batches of 1024 rows of each kind. Cost is the number of products with the
//! weights for one interior row and its two boundary rows; `action` has 12.

use std::path::Path;
use std::sync::Arc;

use action_matching::data::{AnalyticProblem, DataSource, load};
use action_matching::density_path::{DensityPath, Interpolant, TimeRule, optimal_couplings};
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::{Engine, Estimator, LearningRate, Optimizer, TrainState, Training};
use action_matching::model::{Architecture, initial_parameters};
use action_matching::stage::Stage;
use action_matching::{Error, Result};

const BATCHES: u64 = 256;
const ACTION: Estimator = Estimator::Action { centering: false };
const CENTERED: Estimator = Estimator::Action { centering: true };

fn training(path: DensityPath, estimator: Estimator, time_rule: TimeRule) -> Training {
    let learning_rate = LearningRate { peak: 2e-3, warmup_steps: 100, cosine: None };
    Training {
        estimator,
        time_rule,
        optimizer: Optimizer { learning_rate, ema_decay: 0.99, ..Optimizer::default() },
        seed: 1,
        ..Training::new(Architecture::new(path.snapshots.dim, [64; 3]), path)
    }
}

/// Mean and trace of the covariance of gradients at `state`.
fn moments(engine: &CpuEngine, mut training: Training, state: &TrainState) -> Result<(Vec<f64>, f64)> {
    // Without memory or clipping the first moment is the gradient of the step.
    training.optimizer = Optimizer { beta1: 0.0, clip_norm: None, ..training.optimizer };
    let mut time_moments = state.time_moments.clone();
    if training.time_rule == TimeRule::Importance {
        // The density settles on the integrand first.
        training.optimizer.learning_rate = LearningRate::constant(1e-30);
        let mut trainer = engine.trainer(training.clone(), state.clone())?;
        trainer.steps(200, &mut ())?;
        time_moments = trainer.state().expect("a state").time_moments;
    }
    let (mut sum, mut squares) = (vec![0.0; state.action.parameters.len()], 0.0);
    for batch in 0..BATCHES {
        let state = TrainState { step: 1_000_000 + batch, time_moments: time_moments.clone(), ..state.clone() };
        let mut trainer = engine.trainer(training.clone(), state)?;
        trainer.steps(1, &mut ())?;
        for (sum, g) in sum.iter_mut().zip(trainer.state().expect("a state").action.moment1) {
            *sum += f64::from(g);
            squares += f64::from(g).powi(2);
        }
    }
    let n = BATCHES as f64;
    let mean: Vec<f64> = sum.iter().map(|sum| sum / n).collect();
    let variance = (squares - n * mean.iter().map(|g| g * g).sum::<f64>()) / (n - 1.0);
    Ok((mean, variance))
}

fn cost(estimator: Estimator) -> u32 {
    match estimator {
        ACTION => 12,
        Estimator::Action { .. } => 18,
        Estimator::Weak { .. } => 18,
        Estimator::Regression => 6,
        other => unimplemented!("{other:?}"),
    }
}

fn table(name: &str, path: &DensityPath, forms: &[(Estimator, TimeRule)]) -> Result<()> {
    let engine = CpuEngine::new(0);
    let first = if path.interpolant.has_velocity() { Estimator::Regression } else { ACTION };
    let plain = training(path.clone(), first, TimeRule::LowDiscrepancy);
    let start = TrainState::initial(initial_parameters(&plain.architecture, 1));
    let mut trainer = engine.trainer(plain.clone(), start.clone())?;
    trainer.steps(2000, &mut ())?;
    let trained = TrainState { step: 0, ..trainer.state().expect("a state") };
    let size: f64 = moments(&engine, plain, &start)?.0.iter().map(|g| g * g).sum();
    println!("\n{name}\n{:<36}{:<18}{:>6}{:>14}{:>14}", "form", "times", "cost", "at the start", "trained");
    for &(estimator, rule) in forms {
        let training = training(path.clone(), estimator, rule);
        let variances = [&start, &trained].map(|state| moments(&engine, training.clone(), state));
        let [at_start, trained] = variances;
        let form = format!("{estimator:?}");
        let rule = format!("{rule:?}");
        println!("{form:<36}{rule:<18}{:>6}{:>14.2e}{:>14.2e}", cost(estimator), at_start?.1 / size, trained?.1 / size);
    }
    Ok(())
}

fn main() -> Result<()> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/mouse_hematopoiesis.npz");
    if !data.exists() {
        return Err(Error::input(data, "examples/data", "is missing", "run from a checkout"));
    }
    let snapshots = Arc::new(load(&DataSource::new(data), &())?.training);
    let couplings = Some(Arc::new(optimal_couplings(&snapshots, 1024, 0, &Stage::default())?));
    let rules = [TimeRule::Uniform, TimeRule::LowDiscrepancy, TimeRule::Stratified, TimeRule::Importance];
    let weak = |intervals| Estimator::Weak { intervals };
    let mut forms: Vec<(Estimator, TimeRule)> = Vec::new();
    for estimator in [ACTION, CENTERED, weak(16), Estimator::Regression] {
        forms.extend(rules.map(|rule| (estimator, rule)));
    }
    for (name, interpolant, couplings) in [
        ("Hematopoiesis, linear path, pairs by optimal transport", Interpolant::Linear, couplings),
        ("Hematopoiesis, linear path, independent pairs", Interpolant::Linear, None),
    ] {
        let path = DensityPath { couplings, ..DensityPath::new(interpolant, Arc::clone(&snapshots)) };
        table(name, &path, &forms)?;
    }
    let one = action_matching::data::Snapshots { times: vec![1.0], ..last(&snapshots) };
    for (name, interpolant) in [
        ("Hematopoiesis, from noise to the last snapshot, linear", Interpolant::GenerativeLinear),
        ("Hematopoiesis, from noise to the last snapshot, vp", Interpolant::GenerativeVp),
    ] {
        table(name, &DensityPath::new(interpolant, one.clone()), &forms)?;
    }
    for name in ["anisotropic", "mixture"] {
        let Some(problem) = AnalyticProblem::named(name) else { continue };
        let times: Vec<f64> = (0..=100).map(|k| f64::from(k) / 100.0).collect();
        let path = DensityPath::nearest(problem.snapshots(&times, 2000, 0));
        let mut forms: Vec<(Estimator, TimeRule)> = Vec::new();
        for estimator in [ACTION, CENTERED, weak(1)] {
            forms.extend([TimeRule::Uniform, TimeRule::LowDiscrepancy].map(|rule| (estimator, rule)));
        }
        table(&format!("Problem {name}, 101 frames of independent rows"), &path, &forms)?;
    }
    Ok(())
}

/// Only the last snapshot.
fn last(snapshots: &action_matching::data::Snapshots) -> action_matching::data::Snapshots {
    let k = snapshots.times.len() - 1;
    let n = snapshots.n_rows(k);
    action_matching::data::Snapshots {
        dim: snapshots.dim,
        times: vec![1.0],
        offsets: vec![0, n],
        samples: snapshots.rows(k).to_vec(),
        mass: Default::default(),
    }
}
