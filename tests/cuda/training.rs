//! Training on the CUDA engine: it draws the same rows as the CPU, has the same gradients and
//! losses, and is reproducible bit for bit.

use std::sync::Arc;

use crate::common::rounded::{self, Rounding};
use crate::common::{assert_close, conditioned, embeddings, model, revealing_optimizer};
use action_matching::Error;
use action_matching::data::{Snapshots, draw_gaussian};
use action_matching::density_path::{
    DensityPath, End, Group, Groups, Interpolant, RowKey, TimeMoments, TimeRule, optimal_couplings,
    unbalanced_couplings,
};
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::cuda::{CudaEngine, devices};
use action_matching::engine::{
    Batch, Bend, Cosine, Engine, Estimator, LearningRate, NetworkState, Optimizer, StepRecord, TrainState, Training,
};
use action_matching::laplacian::{Laplacian, LaplacianRule};
use action_matching::model::{Activation, Head, Model, initial_parameters};
use action_matching::objective::{Objective, SigmaSchedule, TimeWeight};
use action_matching::precision::Precision;
use action_matching::rng::{Purpose, Stream, unit_f32, words};
use action_matching::stage::Stage;

const SEED: u64 = 0x1234_5678_9abc_def0;
const DIM: usize = 2;

fn engine(precision: Precision) -> CudaEngine {
    CudaEngine::new(0, precision).expect("a GPU or the virtual one")
}

/// A population that moves, in three snapshots at uneven times with different numbers of rows.
fn snapshots(dim: usize) -> Snapshots {
    let mut samples = draw_gaussian(101, dim, &mut Stream::of_normals(3, dim));
    samples.chunks_exact_mut(dim).enumerate().for_each(|(row, x)| x[0] += 0.02 * row as f32);
    Snapshots { dim, times: vec![0.0, 0.3, 1.0], offsets: vec![0, 31, 48, 101], samples, mass: Default::default() }
}

fn path(dim: usize, interpolant: Interpolant) -> DensityPath {
    let snapshots = if interpolant.is_generative() {
        Snapshots { times: vec![1.0], offsets: vec![0, 101], ..snapshots(dim) }
    } else {
        snapshots(dim)
    };
    let couplings = (interpolant == Interpolant::Spline)
        .then(|| Arc::new(optimal_couplings(&snapshots, 200, 1, &Stage::default()).expect("couplings")));
    DensityPath { couplings, ..DensityPath::new(interpolant, snapshots) }
}

/// One tile of interior rows and one of each boundary.
pub(super) fn training(model: &Model, estimator: Estimator) -> Training {
    let cosine = Some(Cosine { end: 200, floor: 0.1 });
    Training {
        objective: model.objective.clone(),
        estimator,
        n_interior: 61,
        n_boundary: 33,
        optimizer: Optimizer {
            learning_rate: LearningRate { peak: 3e-3, warmup_steps: 5, cosine },
            beta2: 0.99,
            weight_decay: 0.01,
            ema_decay: 0.9,
            ..Optimizer::default()
        },
        seed: SEED,
        ..Training::new(model.architecture.clone(), path(model.architecture.dim, Interpolant::Linear))
    }
}

const ACTION: Estimator = Estimator::Action { centering: false };

fn small_model(head: Head, objective: Objective) -> Model {
    model(DIM, &[19], Activation::Silu, head, embeddings()[1].clone(), objective)
}

pub(super) fn run(
    engine: &dyn Engine,
    training: &Training,
    state: TrainState,
    chunks: &[u64],
) -> (TrainState, Vec<StepRecord>) {
    let mut trainer = engine.trainer(training.clone(), state).expect("a trainer");
    let mut records = Vec::new();
    for &n in chunks {
        trainer.steps(n, &mut records).expect("steps");
    }
    (trainer.state().expect("a state"), records)
}

/// The size of the terms of a loss.
fn size(record: &StepRecord) -> f64 {
    [record.boundary0, record.boundary1, record.interior].iter().fold(0.1, |size: f64, term| size.max(term.abs()))
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// Largest difference of `records` from `want` over the steps, relative to the size of the terms.
fn largest_gap(name: &str, records: &[StepRecord], want: &[StepRecord]) -> f64 {
    assert_eq!(records.len(), want.len(), "{name}");
    let mut largest = 0.0f64;
    for (got, want) in records.iter().zip(want) {
        assert_eq!(got.step, want.step, "{name}");
        let rates = got.learning_rate / want.learning_rate;
        assert!((rates - 1.0).abs() < 1e-12, "{name}, step {}: learning rate {}", got.step, got.learning_rate);
        let terms = [
            (got.loss, want.loss, size(want)),
            (got.boundary0, want.boundary0, size(want)),
            (got.boundary1, want.boundary1, size(want)),
            (got.interior, want.interior, size(want)),
            (got.kinetic, want.kinetic, want.kinetic.max(0.1)),
            (got.gradient_norm, want.gradient_norm, 10.0 * want.gradient_norm),
        ];
        for (which, (got_term, want_term, size)) in terms.into_iter().enumerate() {
            let gap = (got_term - want_term).abs() / size;
            assert!(gap.is_finite(), "{name}, step {}, number {which}: {got:?}, not {want:?}", got.step);
            largest = largest.max(gap);
        }
    }
    largest
}

#[test]
fn the_gap_between_records_sees_every_number() {
    let want = StepRecord {
        step: 3,
        loss: 0.25,
        boundary0: 1.0,
        boundary1: -2.0,
        interior: 1.25,
        kinetic: 0.5,
        gradient_norm: 0.75,
        learning_rate: 1e-3,
    };
    assert_eq!(largest_gap("same", &[want], &[want]), 0.0);
    for off in [
        StepRecord { loss: 0.26, ..want },
        StepRecord { boundary0: 0.99, ..want },
        StepRecord { boundary1: -2.01, ..want },
        StepRecord { interior: 1.24, ..want },
        StepRecord { kinetic: 0.49, ..want },
        StepRecord { gradient_norm: 0.76, ..want },
    ] {
        assert!(largest_gap("off", &[off], &[want]) > 1e-3, "{off:?}");
    }
}

/// The device follows the CPU step by step, in every number of the record.
fn follows(name: &str, training: &Training, state: TrainState, steps: u64) {
    follows_on(&engine(Precision::F32), name, training, state, steps);
}

fn follows_on(engine: &CudaEngine, name: &str, training: &Training, state: TrainState, steps: u64) {
    let (want_state, want) = run(&CpuEngine::new(1), training, state.clone(), &[steps]);
    let (got_state, got) = run(engine, training, state.clone(), &[steps]);
    let gap = largest_gap(name, &got, &want);
    eprintln!("{name}: {:.1} % of the tolerance over {steps} steps", 100.0 * gap / 1e-4);
    assert!(gap < 1e-4, "{name}: off by {gap:.1e} of the size of the terms");
    assert_eq!(got_state.step, want_state.step);
    // Relative to the distance that the parameters moved.
    let networks = [(Some(&got_state.action), Some(&want_state.action), Some(&state.action))];
    for (got, want, start) in
        networks.into_iter().chain([(got_state.bend.as_ref(), want_state.bend.as_ref(), state.bend.as_ref())])
    {
        let (Some(got), Some(want), Some(start)) = (got, want, start) else {
            assert!(got.is_none() && want.is_none(), "{name}: a bend");
            continue;
        };
        for (what, got, want, start) in [
            ("parameters", &got.parameters, &want.parameters, &start.parameters),
            ("ema", &got.ema, &want.ema, &start.ema),
        ] {
            let moved = |to: &[f32]| wide(to).iter().zip(wide(start)).map(|(to, from)| to - from).collect::<Vec<f64>>();
            assert_close(&format!("way of the {what}, {name}"), &moved(got), &moved(want), 1e-2);
        }
    }
    assert_close(
        &format!("time moments, {name}"),
        &wide(&got_state.time_moments),
        &wide(&want_state.time_moments),
        1e-4,
    );
}

fn follows_from_the_start(name: &str, model: &Model, training: &Training, steps: u64) {
    follows(name, training, TrainState::initial(model.parameters.clone()), steps);
}

#[test]
fn action_follows_the_cpu() {
    let time_weight = TimeWeight::Polynomial { coefficients: vec![1.0, 0.5, -0.25] };
    let model = small_model(Head::Scalar, Objective { time_weight, ..Objective::default() });
    follows_from_the_start("action", &model, &training(&model, ACTION), 200);
}

/// A wide network has other kernels, with low tiles for a small batch.
#[test]
fn a_wide_network_follows_the_cpu() {
    let objective = Objective { growth: 0.3, ..Objective::default() };
    let model = model(DIM, &[66, 19], Activation::Silu, Head::Quadratic, embeddings()[1].clone(), objective);
    let (training, start) = (training(&model, ACTION), TrainState::initial(model.parameters.clone()));
    follows_on(&engine(Precision::F32), "wide, low tiles", &training, start.clone(), 200);
    follows_on(&engine(Precision::F32).with_large_tiles(), "wide, high tiles", &training, start, 200);
}

#[test]
fn weak_follows_the_cpu() {
    let model = small_model(Head::Quadratic, Objective::default());
    follows_from_the_start("weak", &model, &training(&model, Estimator::Weak { intervals: 2 }), 200);
}

#[test]
fn regression_follows_the_cpu() {
    let model = small_model(Head::Dot, Objective { cost_exponent: 2.5, ..Objective::default() });
    follows_from_the_start("regression", &model, &training(&model, Estimator::Regression), 200);
}

#[test]
fn entropic_action_follows_the_cpu() {
    let model = small_model(Head::Quadratic, Objective { sigma: 0.7, ..Objective::default() });
    let laplacian = Laplacian { rule: LaplacianRule::Rademacher, n_probes: 2 };
    follows_from_the_start("entropic", &model, &Training { laplacian, ..training(&model, ACTION) }, 200);
}

#[test]
fn growth_follows_the_cpu() {
    let model = small_model(Head::Scalar, Objective { growth: 0.5, ..Objective::default() });
    let mut training = training(&model, ACTION);
    training.path.masses = Some(vec![1.0, 0.7, 1.4]);
    follows_from_the_start("growth", &model, &training, 200);
}

#[test]
fn a_learned_path_follows_the_cpu() {
    let model = small_model(Head::Scalar, Objective { growth: 0.2, ..Objective::default() });
    let bend = Bend::new(&model.architecture, vec![13], 0.3);
    let mut training = Training { bend: Some(bend.clone()), ..training(&model, ACTION) };
    training.path.interpolant = Interpolant::Learned;
    let parameters = initial_parameters(&bend.architecture, 8);
    let state =
        TrainState { bend: Some(NetworkState::initial(parameters)), ..TrainState::initial(model.parameters.clone()) };
    follows("learned", &training, state, 20);
}

#[test]
fn importance_and_centering_follow_the_cpu() {
    let model = small_model(Head::Scalar, Objective::default());
    let importance = Training { time_rule: TimeRule::Importance, ..training(&model, ACTION) };
    follows_from_the_start("importance", &model, &importance, 20);
    let centering = training(&model, Estimator::Action { centering: true });
    follows_from_the_start("centering", &model, &centering, 20);
}

/// One step of every form of the loss, path, rule of times and rule of the Laplacian, from the
/// middle of a run and with rows of several tiles. An optimizer without memory leaves the gradient
/// in the first moment.
#[test]
fn a_step_takes_the_gradient_of_the_cpu() {
    let time_weight = TimeWeight::Polynomial { coefficients: vec![1.0, 0.5, -0.25] };
    let plain = Objective { time_weight, growth: 0.3, cost_exponent: 2.5, ..Objective::default() };
    let entropic = Objective { sigma: 0.8, sigma_schedule: SigmaSchedule::OneMinusT, ..plain.clone() };
    let (centered, weak) = (Estimator::Action { centering: true }, Estimator::Weak { intervals: 3 });
    let probes = |rule, n_probes| Laplacian { rule, n_probes };
    let none = Laplacian::default();
    let cases = [
        (&plain, ACTION, Interpolant::Nearest, TimeRule::Uniform, none),
        (&plain, ACTION, Interpolant::Spline, TimeRule::Stratified, none),
        (&plain, ACTION, Interpolant::GenerativeLinear, TimeRule::Trapezoid, none),
        (&plain, centered, Interpolant::Linear, TimeRule::Importance, none),
        (&plain, centered, Interpolant::GenerativeVp, TimeRule::Simpson, none),
        (&plain, weak, Interpolant::Linear, TimeRule::GaussLegendre, none),
        (&plain, weak, Interpolant::Spline, TimeRule::Importance, none),
        (&plain, weak, Interpolant::Nearest, TimeRule::Stratified, none),
        (&plain, Estimator::Regression, Interpolant::Linear, TimeRule::Importance, none),
        (&plain, Estimator::Regression, Interpolant::Spline, TimeRule::Uniform, none),
        (&plain, Estimator::Regression, Interpolant::GenerativeSqrt, TimeRule::LowDiscrepancy, none),
        (&entropic, ACTION, Interpolant::Linear, TimeRule::Uniform, probes(LaplacianRule::Rademacher, 3)),
        (&entropic, centered, Interpolant::Spline, TimeRule::Simpson, probes(LaplacianRule::Gaussian, 2)),
        (&entropic, weak, Interpolant::Linear, TimeRule::Uniform, Laplacian::EXACT),
        (&entropic, Estimator::Regression, Interpolant::GenerativeVp, TimeRule::Stratified, Laplacian::EXACT),
    ];
    let device = engine(Precision::F32);
    let mut moments = TimeMoments::default();
    (0..500).for_each(|i| moments.add_row(f64::from(i) / 500.0, 1.0 + f64::from(i % 7) + f64::from(i) / 100.0));
    for (index, (objective, estimator, interpolant, time_rule, laplacian)) in cases.into_iter().enumerate() {
        // Eleven dimensions: three probes exceed one word of signs, and normal numbers one counter.
        let dim = 11;
        let head = Head::ALL[index % 3];
        let name =
            format!("{head:?} {estimator:?} {interpolant:?} {time_rule:?} {laplacian:?} σ = {}", objective.sigma);
        let hidden = [19, 66][index / 2 % 2];
        let start = model(dim, &[hidden], Activation::Silu, head, embeddings()[index % 2].clone(), objective.clone());
        let mut path = path(dim, interpolant);
        if interpolant == Interpolant::Linear && estimator == weak {
            let masses = vec![1.0, 0.6, 2.5];
            let couplings =
                unbalanced_couplings(&path.snapshots, &masses, 1.5, 200, 1, &Stage::default()).expect("couplings");
            (path.couplings, path.masses) = (Some(Arc::new(couplings)), Some(masses));
        }
        let training = Training {
            path,
            time_rule,
            laplacian,
            n_interior: 167,
            n_boundary: 131,
            optimizer: revealing_optimizer(),
            ..training(&start, estimator)
        };
        let state =
            TrainState { step: 5, time_moments: moments.to_vec(), ..TrainState::initial(start.parameters.clone()) };
        let (want_state, want) = run(&CpuEngine::new(1), &training, state.clone(), &[1]);
        let (got_state, got) = run(&device, &training, state, &[1]);
        let gap = largest_gap(&name, &got, &want);
        assert!(gap < 1e-5, "{name}: {:?}, not {:?}", got[0], want[0]);
        let gradient = |state: &TrainState| wide(&state.action.moment1);
        assert_close(&format!("gradient, {name}"), &gradient(&got_state), &gradient(&want_state), 5e-5);
        assert_close(&name, &wide(&got_state.time_moments), &wide(&want_state.time_moments), 1e-5);
    }
}

/// Groups of unequal numbers of rows, each under a condition of `n` inputs, the last of which has
/// only a part of the time.
fn groups(n: usize, interpolant: Interpolant) -> Groups {
    let group = |k: usize| {
        let all = path(DIM, interpolant).snapshots;
        let rows = (0..all.times.len()).map(|snapshot| {
            let rows = all.rows(snapshot).iter().map(|x| x + 0.3 * k as f32);
            let time = if k == 2 { 0.2 + 0.5 * all.times[snapshot] } else { all.times[snapshot] };
            (time, rows.take(DIM * (all.n_rows(snapshot) - 5 * k)).collect::<Vec<f32>>())
        });
        let snapshots = Snapshots::from_rows(DIM, rows).expect("snapshots");
        let couplings = (interpolant == Interpolant::Spline)
            .then(|| Arc::new(optimal_couplings(&snapshots, 200, 1, &Stage::default()).expect("couplings")));
        let condition = (0..n).map(|i| (0.7 * (i + 1) as f32 + k as f32).sin()).collect();
        Group { condition, path: DensityPath { couplings, ..DensityPath::new(interpolant, snapshots) } }
    };
    Groups::new((0..3).map(group).collect()).expect("groups")
}

/// Rows under several conditions: in narrow networks, in wide ones whose input has more columns for
/// conditions than for all else, in low and in high tiles, and for the bend.
#[test]
fn training_under_conditions_follows_the_cpu() {
    let objective = Objective { growth: 0.3, ..Objective::default() };
    let (low, high) = (engine(Precision::F32), engine(Precision::F32).with_large_tiles());
    let entropic = Objective { sigma: 0.7, ..objective.clone() };
    let centered = Estimator::Action { centering: true };
    for (name, engine, hidden, n, objective, estimator, interpolant) in [
        ("narrow", &low, &[19][..], 3, &objective, centered, Interpolant::Linear),
        ("narrow, entropic", &low, &[19, 7], 2, &entropic, ACTION, Interpolant::Spline),
        ("wide, low tiles", &low, &[66, 19], 71, &objective, Estimator::Weak { intervals: 2 }, Interpolant::Linear),
        ("wide, high tiles", &high, &[66, 19], 71, &entropic, centered, Interpolant::Linear),
        ("regression", &high, &[70], 1, &objective, Estimator::Regression, Interpolant::Spline),
        ("learned", &low, &[19], 3, &objective, ACTION, Interpolant::Learned),
    ] {
        let plain = model(DIM, hidden, Activation::Silu, Head::Quadratic, embeddings()[1].clone(), objective.clone());
        let model = conditioned(&plain, n);
        let groups = groups(n, interpolant);
        let bend = (interpolant == Interpolant::Learned).then(|| Bend::new(&model.architecture, vec![13], 0.3));
        let of_bend = bend.as_ref().map(|bend| NetworkState::initial(initial_parameters(&bend.architecture, 8)));
        let training =
            Training { path: groups.first().path.clone(), groups: Some(groups), bend, ..training(&model, estimator) };
        let state = TrainState { bend: of_bend, ..TrainState::initial(model.parameters.clone()) };
        follows_on(engine, &format!("{name}, conditions"), &training, state, 8);
    }
}

/// The batch of `step` on the straight path with uniform times.
fn drawn(training: &Training, step: u64) -> Batch {
    let (path, dim) = (&training.path, training.architecture.dim);
    let mut batch = Batch { omega0: 1.0, omega1: 1.0, ..Batch::default() };
    for row in 0..training.n_interior {
        let own = words(SEED, Purpose::Interior, step, row as u32);
        let moment = path.moment(training.time_rule, f64::from(unit_f32(own[0])));
        let trajectory = path.trajectory(moment.left, own, RowKey { seed: SEED, step, row: row as u32 });
        let mut x = vec![0.0; dim];
        path.point(&trajectory, &moment, |i, x_i, _| x[i] = f64::from(x_i));
        batch.x.extend(x);
        batch.t.push(f64::from(moment.t));
        let (omega, d_omega) = training.objective.time_weight.at(f64::from(moment.t));
        batch.omega.push(omega);
        batch.d_omega.push(d_omega);
    }
    for (end, purpose, points) in
        [(End::Start, Purpose::Boundary0, &mut batch.x0), (End::End, Purpose::Boundary1, &mut batch.x1)]
    {
        for row in 0..training.n_boundary {
            let noise = RowKey { seed: SEED, step, row: (training.n_interior + row) as u32 };
            let mut x = vec![0.0; dim];
            let word = words(SEED, purpose, step, row as u32)[0];
            path.end_point(end, word, noise, |i, x_i| x[i] = f64::from(x_i));
            points.extend(x);
        }
    }
    (batch.omega0, batch.omega1) = (training.objective.time_weight.at(0.0).0, training.objective.time_weight.at(1.0).0);
    batch
}

/// Losses of `steps` steps by plain code with the roundings of `rounding`: AdamW in f64 on
/// parameters in f32.
fn twin_losses(rounding: Rounding, model: &Model, training: &Training, steps: u64) -> Vec<f64> {
    let Optimizer { ref learning_rate, beta1, beta2, epsilon, weight_decay, clip_norm, .. } = training.optimizer;
    let mut model = model.clone();
    let mut moments = vec![[0.0; 2]; model.parameters.len()];
    let mut losses = Vec::new();
    for step in 0..steps {
        let of_step = rounded::loss_gradient(rounding, &model, &drawn(training, step)).values;
        losses.push(of_step.loss);
        let norm = of_step.gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let clip = clip_norm.map_or(1.0, |limit| (limit / norm).min(1.0));
        let (rate, taken) = (learning_rate.at(step), step as i32 + 1);
        for ((p, [m, v]), g) in model.parameters.iter_mut().zip(&mut moments).zip(&of_step.gradient) {
            let g = clip * g;
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            let (m_hat, v_hat) = (*m / (1.0 - beta1.powi(taken)), *v / (1.0 - beta2.powi(taken)));
            let parameter = f64::from(*p);
            *p = (parameter - rate * (m_hat / (v_hat.sqrt() + epsilon) + weight_decay * parameter)) as f32;
        }
    }
    losses
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).fold(0.0, |largest: f64, (a, b)| largest.max((a - b).abs()))
}

/// A run in low precision departs from the exact one by about as much as rounding makes a run
/// depart from it. The allowed distance is three times the largest distance between the twin's run
/// and the exact one.
pub(super) fn assert_in_band(engine: &CudaEngine, rounding: Rounding, model: &Model, training: &Training, steps: u64) {
    let precision = engine.precision();
    let exact = twin_losses(Rounding::EXACT, model, training, steps);
    let band = 3.0 * largest_difference(&twin_losses(rounding, model, training, steps), &exact);
    let (_, records) = run(engine, training, TrainState::initial(model.parameters.clone()), &[steps]);
    let got: Vec<f64> = records.iter().map(|record| record.loss).collect();
    assert_eq!(got.len(), steps as usize, "{}", precision.name());
    let gap = largest_difference(&got, &exact);
    eprintln!("{}: {:.0} % of the band {band:.1e}", precision.name(), 100.0 * gap / band);
    assert!(gap <= band, "{}: {gap:.1e} is outside of the band {band:.1e}", precision.name());
}

#[test]
fn low_precision_stays_in_the_band_of_its_rounding() {
    const STEPS: u64 = 60;
    let model = small_model(Head::Scalar, Objective { growth: 0.2, ..Objective::default() });
    let training = Training { time_rule: TimeRule::Uniform, ..training(&model, ACTION) };
    let exact = twin_losses(Rounding::EXACT, &model, &training, STEPS);
    let (_, records) = run(&engine(Precision::F32), &training, TrainState::initial(model.parameters.clone()), &[STEPS]);
    let gap = largest_difference(&records.iter().map(|record| record.loss).collect::<Vec<f64>>(), &exact);
    assert!(gap < 1e-4, "f32 is off by {gap:.1e}");
    for precision in [Precision::Tf32, Precision::Bf16, Precision::F16] {
        assert_in_band(&engine(precision), Rounding::of(precision), &model, &training, STEPS);
    }
}

/// Two runs, and every division into calls, give the same bits; so does a run whose state was read
/// in the middle.
#[test]
fn runs_and_resumed_runs_leave_the_same_bits() {
    for precision in [Precision::F32, Precision::Bf16] {
        let engine = engine(precision);
        let model = small_model(Head::Quadratic, Objective { sigma: 0.5, growth: 0.2, ..Objective::default() });
        let training = Training { time_rule: TimeRule::Importance, ..training(&model, ACTION) };
        let start = TrainState::initial(model.parameters.clone());
        let (state, records) = run(&engine, &training, start.clone(), &[10]);
        assert_eq!((state.step, records.len()), (10, 10));
        assert_ne!(state.action.parameters, start.action.parameters);
        assert_eq!(run(&engine, &training, start.clone(), &[1, 4, 0, 5]), (state.clone(), records.clone()));
        let (half, mut both) = run(&engine, &training, start, &[5]);
        let (resumed, rest) = run(&engine, &training, half, &[5]);
        both.extend(rest);
        assert_eq!((resumed, both), (state, records));
    }
}

/// A run may continue on another engine.
#[test]
fn a_state_of_the_cpu_continues_on_the_device_and_back() {
    let (cpu, device) = (CpuEngine::new(1), engine(Precision::F32));
    let model = small_model(Head::Dot, Objective::default());
    let training = Training { time_rule: TimeRule::Importance, ..training(&model, ACTION) };
    let start = TrainState::initial(model.parameters.clone());
    let (_, want) = run(&cpu, &training, start.clone(), &[15]);
    let (state, mut records) = run(&cpu, &training, start, &[5]);
    let (state, of_device) = run(&device, &training, state, &[5]);
    let (_, of_cpu) = run(&cpu, &training, state, &[5]);
    records.extend(of_device.into_iter().chain(of_cpu));
    let gap = largest_gap("there and back", &records, &want);
    assert!(gap < 2e-5, "{gap:.1e}");
}

/// A step beyond the range of f16 is repeated with a smaller loss scale, and not lost.
#[test]
fn f16_finds_its_loss_scale() {
    let time_weight = TimeWeight::Polynomial { coefficients: vec![3000.0, -1000.0] };
    let model = small_model(Head::Scalar, Objective { time_weight, ..Objective::default() });
    let training = training(&model, ACTION);
    let losses = |precision| {
        let state = TrainState::initial(model.parameters.clone());
        let (state, records) = run(&engine(precision), &training, state, &[3, 2]);
        assert_eq!(state.step, 5, "{}", precision.name());
        assert_eq!(records.iter().map(|record| record.step).collect::<Vec<u64>>(), [0, 1, 2, 3, 4]);
        records
    };
    let (got, want) = (losses(Precision::F16), losses(Precision::F32));
    for (got, want) in got.iter().zip(&want) {
        assert!((got.loss - want.loss).abs() < 1e-2 * size(want), "{got:?}, not {want:?}");
        assert!((got.gradient_norm / want.gradient_norm - 1.0).abs() < 1e-2, "{got:?}, not {want:?}");
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_before_the_update() {
    for precision in [Precision::F32, Precision::F16] {
        let model = small_model(Head::Quadratic, Objective::default());
        let mut training = training(&model, ACTION);
        training.optimizer.learning_rate = LearningRate::constant(1e30);
        let start = TrainState::initial(model.parameters.clone());
        let (mut trainer, mut records) = (engine(precision).trainer(training, start).expect("a trainer"), Vec::new());
        // Once it is lost, later steps are none, and say so too.
        for _ in 0..2 {
            let error = trainer.steps(20, &mut records).expect_err("the loss is lost");
            assert!(matches!(error, Error::NotFinite { .. }), "{error}");
        }
        let (state, last) = (trainer.state().expect("a state"), records.last().expect("a record"));
        assert!(records.len() < 40, "the run went on");
        assert!(!(last.loss.is_finite() && last.gradient_norm.is_finite()), "{last:?}");
        assert_eq!(state.step, last.step, "the failed step does not count");
        assert!(state.action.parameters.iter().all(|p| p.is_finite()));
    }
}

#[test]
fn training_that_cannot_work_is_refused() {
    let model = small_model(Head::Scalar, Objective::default());
    let (good, state) = (training(&model, ACTION), TrainState::initial(model.parameters.clone()));
    let engine = engine(Precision::F32);
    let refused = |training: Training, state: TrainState, field: &str| {
        let error = engine.trainer(training, state).err().expect("an error").to_string();
        assert!(error.contains(field), "{error}");
    };
    refused(Training { n_interior: 0, ..good.clone() }, state.clone(), "interior_rows");
    let short = NetworkState { ema: vec![0.0; 3], ..state.action.clone() };
    refused(good.clone(), TrainState { action: short, ..state.clone() }, "ema");
    refused(good.clone(), TrainState { time_moments: Vec::new(), ..state }, "time_moments");
    let objective = Objective { growth: 0.25, ..Objective::default() };
    let head = Training { objective, estimator: Estimator::Regression, growth_head: true, ..good };
    let state = head.initial_state().expect("a state");
    refused(head, state, "objective.growth_head: is a network of its own for growth, which a GPU does not train");
}

/// Prints the bits of runs on the card that the environment describes: see
/// [`the_card_changes_no_bit`].
#[test]
fn bits_of_a_card() {
    if std::env::var_os("AMATCH_BITS_OF_A_CARD").is_none() {
        return;
    }
    let card = &devices().expect("a driver")[0];
    println!("{}: {} multiprocessors", card.model, card.n_multiprocessors);
    // In 99 KiB the operand of the second network is too long for broad products.
    for (hidden, precisions) in [(&[20][..], &[Precision::Bf16][..]), (&[130, 19], &Precision::ALL)] {
        for &precision in precisions {
            let model =
                model(DIM, hidden, Activation::Silu, Head::Quadratic, embeddings()[1].clone(), Objective::default());
            let training = Training { n_interior: 300, n_boundary: 260, ..training(&model, ACTION) };
            let state = TrainState::initial(model.parameters.clone());
            let (state, records) = run(&engine(precision), &training, state, &[2]);
            let bits = state.action.moment2.iter().map(|value| u64::from(value.to_bits()));
            let losses = records.iter().map(|record| record.loss.to_bits());
            let digest = bits.chain(losses).fold(0, |digest: u64, bits| digest.rotate_left(5) ^ bits);
            println!("bits of {hidden:?}, {precision:?}: {digest:016x}");
        }
    }
}

/// Virtual GPUs with other shared memory, which decides how products are divided, and other numbers
/// of multiprocessors.
#[test]
fn the_card_changes_no_bit() {
    let bits = |kilobytes: usize, multiprocessors: usize| {
        let output = std::process::Command::new(std::env::current_exe().expect("the test's own path"))
            .args(["--exact", "training::bits_of_a_card", "--nocapture"])
            .env("AMATCH_BITS_OF_A_CARD", "yes")
            .env("VGPU_SHARED", (kilobytes << 10).to_string())
            .env("VGPU_MULTIPROCESSORS", multiprocessors.to_string())
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<String> = said.lines().filter(|line| line.contains("bits of [")).map(String::from).collect();
        assert_eq!(lines.len(), 1 + Precision::ALL.len(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(!said.contains("Virtual") || said.contains(&format!(": {multiprocessors} multiprocessors")), "{said}");
        lines
    };
    let large = bits(227, 132);
    assert_eq!(bits(99, 1), large);
    assert_eq!(bits(163, 7), large);
}
