//! Particles on the CUDA engine against the CPU engine: every method, every channel, every way to
//! save.

use crate::common::{Counted, Numbers, Patience, assert_close, embeddings, model};
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::cuda::CudaEngine;
use action_matching::engine::{Engine, IntegrationReport};
use action_matching::integrate::{Method, Noise, Plan, StepControl, Trajectories};
use action_matching::laplacian::{Laplacian, LaplacianRule};
use action_matching::model::{Activation, Head, Model, TimeEmbedding};
use action_matching::objective::{Objective, SigmaSchedule};
use action_matching::precision::Precision;
use action_matching::{Error, Result};

const DIM: usize = 3;

/// Hidden layers for the kernels of each width of products.
const NARROW: [usize; 2] = [16, 20];
const WIDE: [usize; 2] = [70, 20];
const BROAD: [usize; 2] = [140, 200];

fn field_of(hidden: [usize; 2], head: Head, embedding: TimeEmbedding, objective: Objective) -> Model {
    model(DIM, &hidden, Activation::Tanh, head, embedding, objective)
}

fn field(head: Head, embedding: TimeEmbedding, objective: Objective) -> Model {
    field_of(NARROW, head, embedding, objective)
}

fn cuda(precision: Precision) -> CudaEngine {
    CudaEngine::new(0, precision).expect("a GPU, or the virtual one in LD_LIBRARY_PATH")
}

/// Positions, log w and log q at all saved times.
struct Saved {
    positions: Vec<f32>,
    log_weights: Vec<f32>,
    log_density: Vec<f32>,
    report: IntegrationReport,
}

/// The channels in addition to positions.
#[derive(Clone, Copy)]
struct Followed {
    weights: bool,
    density: bool,
}

fn run(engine: &dyn Engine, model: &Model, plan: &Plan, n: usize, followed: Followed) -> Result<Saved> {
    let dim = model.architecture.dim;
    let start = |columns: usize, seed: u64| {
        let mut values = vec![f32::NAN; plan.save_at.len() * n * columns];
        for (value, number) in values[..n * columns].iter_mut().zip(Numbers::new(seed).take(n * columns)) {
            *value = number as f32;
        }
        values
    };
    let mut saved = Saved {
        positions: start(dim, 29),
        log_weights: start(usize::from(followed.weights), 30),
        log_density: start(usize::from(followed.density), 31),
        report: IntegrationReport::default(),
    };
    let out = Trajectories {
        positions: &mut saved.positions,
        log_weights: followed.weights.then_some(&mut saved.log_weights),
        log_density: followed.density.then_some(&mut saved.log_density),
    };
    let counted = Counted::default();
    saved.report = engine.integrate(model, plan, out, &counted)?;
    counted.assert_whole(n);
    Ok(saved)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Both engines agree within `tolerance`, relative to the size of each channel.
#[track_caller]
fn assert_same(
    what: &str,
    precision: Precision,
    model: &Model,
    plan: &Plan,
    n: usize,
    followed: Followed,
    tolerance: f64,
) {
    let got = run(&cuda(precision), model, plan, n, followed).expect("integrates");
    let want = run(&CpuEngine::new(2), model, plan, n, followed).expect("integrates");
    for (channel, got, want) in [
        ("positions", &got.positions, &want.positions),
        ("log w", &got.log_weights, &want.log_weights),
        ("log q", &got.log_density, &want.log_density),
    ] {
        assert_close(&format!("{what}: {channel}"), &wide(got), &wide(want), tolerance);
    }
    assert_eq!(got.report.velocity_evaluations, want.report.velocity_evaluations, "{what}");
    assert_eq!(got.report.rejected_steps, 0);
}

/// Products of 16 bits: near the CPU's positions and weights, and twice the same.
pub(super) fn assert_near(engine: &CudaEngine, precision: Precision, model: &Model, plan: &Plan, n: usize) {
    // Error control allows as much for each step, and the CPU's tiles take other steps.
    let of_steps = match plan.control {
        StepControl::Fixed { .. } => 0.0,
        StepControl::Adaptive { rtol, .. } => 2.0 * rtol,
        _ => panic!("steps of another kind"),
    };
    let tolerance = of_steps + 5.0 * crate::common::rounded::Rounding::of(precision).unit;
    let followed = Followed { weights: true, density: false };
    let got = run(engine, model, plan, n, followed).expect("integrates");
    let want = run(&CpuEngine::new(2), model, plan, n, followed).expect("integrates");
    assert_close(&format!("{} positions", precision.name()), &wide(&got.positions), &wide(&want.positions), tolerance);
    assert_close(&format!("{} log w", precision.name()), &wide(&got.log_weights), &wide(&want.log_weights), tolerance);
    let again = run(engine, model, plan, n, followed).expect("integrates");
    assert_eq!((got.positions, got.log_weights), (again.positions, again.log_weights));
}

fn fixed(method: Method, steps: u64) -> Plan {
    Plan::new(method, StepControl::Fixed { steps }, 0.0, vec![1.0])
}

fn adaptive(tolerance: f64, t0: f64, save_at: Vec<f64>) -> Plan {
    Plan::new(Method::Dopri5, StepControl::Adaptive { rtol: tolerance, atol: tolerance }, t0, save_at)
}

const METHODS: [Method; 4] = [Method::Euler, Method::Heun, Method::Rk4, Method::Dopri5];
/// More tiles than the virtual GPU has multiprocessors, the last one not full.
const N: usize = 600;
const POSITIONS: Followed = Followed { weights: false, density: false };
const ALL: Followed = Followed { weights: true, density: true };

#[test]
fn every_method_moves_particles_as_on_the_cpu() {
    for hidden in [NARROW, WIDE] {
        let model = field_of(hidden, Head::Scalar, TimeEmbedding::Raw, Objective::default());
        for method in METHODS {
            let what = format!("{method:?}, {hidden:?}");
            assert_same(&what, Precision::F32, &model, &fixed(method, 2), N, POSITIONS, 2e-5);
        }
    }
}

/// Every method with all channels it supports, on more particles than the blocks of one launch
/// hold.
#[test]
fn ten_thousand_particles_move_as_on_the_cpu() {
    let divergence = Laplacian { rule: LaplacianRule::Rademacher, n_probes: 1 };
    for method in METHODS.into_iter().chain([Method::EulerMaruyama, Method::StochasticHeun]) {
        let is_stochastic = matches!(method, Method::EulerMaruyama | Method::StochasticHeun);
        let sigma = if is_stochastic { 0.7 } else { 0.0 };
        let objective = Objective { sigma, growth: 0.4, ..Objective::default() };
        let model = model(DIM, &[16], Activation::Tanh, Head::Quadratic, TimeEmbedding::Raw, objective);
        let plan = Plan { divergence, noise: Noise::new(5), ..fixed(method, 1) };
        let followed = Followed { weights: true, density: !is_stochastic };
        assert_same(&format!("{method:?}"), Precision::F32, &model, &plan, 10_000, followed, 2e-5);
    }
}

#[test]
fn any_number_of_particles_moves() {
    let model = field(Head::Dot, TimeEmbedding::Raw, Objective::default());
    for n in [0, 1, 128, 129] {
        assert_same(&format!("{n} particles"), Precision::F32, &model, &fixed(Method::Heun, 2), n, POSITIONS, 2e-5);
    }
}

/// Saved times at the start, duplicated, and between steps; forward and backward; both embeddings.
#[test]
fn saved_times_hold_what_the_cpu_saves() {
    for (embedding, t0, save_at) in embeddings()
        .into_iter()
        .zip([(0.0, vec![0.0, 0.3, 0.3, 1.0]), (1.0, vec![0.45, 0.2, -0.1])])
        .map(|(e, (t, s))| (e, t, s))
    {
        let objective = Objective { growth: 0.6, ..Objective::default() };
        let model = field(Head::Quadratic, embedding, objective);
        let plan = Plan::new(Method::Rk4, StepControl::Fixed { steps: 4 }, t0, save_at);
        assert_same(
            &format!("from {t0}"),
            Precision::F32,
            &model,
            &plan,
            140,
            Followed { weights: true, density: false },
            2e-5,
        );
    }
}

#[test]
fn log_w_and_log_q_change_as_on_the_cpu() {
    for (hidden, head, rule, n_probes, cost_exponent) in [
        (WIDE, Head::Scalar, LaplacianRule::Exact, 1, 2.0),
        (NARROW, Head::Quadratic, LaplacianRule::Rademacher, 2, 2.5),
        (WIDE, Head::Dot, LaplacianRule::Gaussian, 3, 2.0),
        (NARROW, Head::Scalar, LaplacianRule::Rademacher, 50, 2.0),
        (NARROW, Head::Dot, LaplacianRule::Exact, 1, 2.5),
        (WIDE, Head::Quadratic, LaplacianRule::Rademacher, 1, 3.0),
    ] {
        let objective = Objective { growth: 0.4, cost_exponent, ..Objective::default() };
        let model = field_of(hidden, head, TimeEmbedding::Fourier { frequencies: vec![0.5] }, objective);
        let plan = Plan { divergence: Laplacian { rule, n_probes }, ..fixed(Method::Heun, 2) };
        assert_same(&format!("{head:?}, {rule:?}"), Precision::F32, &model, &plan, 140, ALL, 2e-5);
    }
}

#[test]
fn log_q_alone_is_the_same() {
    let model = field(Head::Quadratic, TimeEmbedding::Raw, Objective::default());
    let followed = Followed { weights: false, density: true };
    assert_same("log q", Precision::F32, &model, &fixed(Method::Dopri5, 1), 129, followed, 2e-5);
}

/// The same Brownian path on both engines, in a dimension that does not fill a counter of random
/// words.
#[test]
fn noise_takes_the_path_that_it_takes_on_the_cpu() {
    for (method, sigma_schedule, hidden) in [
        (Method::EulerMaruyama, SigmaSchedule::Constant, NARROW),
        (Method::StochasticHeun, SigmaSchedule::OneMinusT, WIDE),
    ] {
        let objective = Objective { sigma: 0.7, sigma_schedule, growth: 0.3, ..Objective::default() };
        let model = crate::common::model(5, &hidden, Activation::Silu, Head::Scalar, TimeEmbedding::Raw, objective);
        let noise = Noise { seed: 1 << 40 | 5, increments_per_step: 3 };
        let plan = Plan { noise, save_at: vec![0.4, 1.0], ..fixed(method, 3) };
        assert_same(
            &format!("{method:?}"),
            Precision::F32,
            &model,
            &plan,
            N,
            Followed { weights: true, density: false },
            2e-5,
        );
    }
    // A stochastic method without noise.
    let model = field(Head::Scalar, TimeEmbedding::Raw, Objective::default());
    assert_same("no noise", Precision::F32, &model, &fixed(Method::StochasticHeun, 2), 128, POSITIONS, 2e-5);
}

/// ‖got − want‖ / ‖want‖.
fn distance(got: &[f32], want: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let error = norm(&mut wide(got).iter().zip(wide(want)).map(|(got, want)| got - want));
    error / norm(&mut wide(want).into_iter())
}

#[test]
fn error_control_meets_its_tolerance() {
    let objective = Objective { growth: 0.4, ..Objective::default() };
    let mut model = field(Head::Scalar, TimeEmbedding::Fourier { frequencies: vec![0.5] }, objective);
    model.parameters.iter_mut().for_each(|p| *p *= 1.2);
    for (t0, save_at) in [(0.0, vec![0.35, 1.0]), (1.0, vec![0.2, 0.2, 0.0])] {
        let tight = Plan {
            method: Method::Rk4,
            control: StepControl::Fixed { steps: 100 },
            ..adaptive(1.0, t0, save_at.clone())
        };
        let want = run(&CpuEngine::new(2), &model, &tight, 260, ALL).expect("integrates");
        let mut evaluations = Vec::new();
        for tolerance in [1e-2, 1e-5] {
            let plan = adaptive(tolerance, t0, save_at.clone());
            let got = run(&cuda(Precision::F32), &model, &plan, 260, ALL).expect("integrates");
            let cpu = run(&CpuEngine::new(2), &model, &plan, 260, ALL).expect("integrates");
            let on_cpu = cpu.report;
            for (got, on_cpu, want) in [
                (&got.positions, &cpu.positions, &want.positions),
                (&got.log_weights, &cpu.log_weights, &want.log_weights),
                (&got.log_density, &cpu.log_density, &want.log_density),
            ] {
                // The tolerance is per step: errors of a path add up, on the CPU too, where other
                // tiles take other steps.
                let bound = (5.0 * tolerance).max(2.0 * distance(on_cpu, want));
                assert!(bound < 20.0 * tolerance, "the CPU itself is off by {bound:.1e}");
                assert_close(&format!("tolerance {tolerance} from {t0}"), &wide(got), &wide(want), bound);
            }
            let per_particle = |report: &IntegrationReport| report.velocity_evaluations as f64 / 260.0;
            let ratio = per_particle(&got.report) / per_particle(&on_cpu);
            assert!((0.8..1.25).contains(&ratio), "{:?}, on the CPU {on_cpu:?}", got.report);
            assert!(got.report.accepted_steps >= 6);
            evaluations.push(got.report.velocity_evaluations);
        }
        assert!(evaluations[0] < evaluations[1]);
    }
}

#[test]
fn lower_precisions_stay_close() {
    let objective = Objective { growth: 0.4, ..Objective::default() };
    for hidden in [NARROW, WIDE, BROAD] {
        let model = field_of(hidden, Head::Quadratic, TimeEmbedding::Raw, objective.clone());
        for (precision, tolerance) in [(Precision::Tf32, 2e-3), (Precision::F16, 2e-3), (Precision::Bf16, 2e-2)] {
            let what = format!("{}, {hidden:?}", precision.name());
            assert_same(&what, precision, &model, &fixed(Method::Rk4, 2), 200, POSITIONS, tolerance);
            assert_same(&what, precision, &model, &fixed(Method::Euler, 2), 64, ALL, 2.0 * tolerance);
        }
    }
}

#[test]
fn two_runs_give_the_same_bits() {
    let objective = Objective { growth: 0.4, ..Objective::default() };
    let model = field(Head::Dot, TimeEmbedding::Raw, objective);
    let engine = cuda(Precision::Bf16);
    let bits = || {
        let saved = run(&engine, &model, &adaptive(1e-2, 0.0, vec![0.5, 1.0]), N, ALL).expect("integrates");
        let values = [saved.positions, saved.log_weights, saved.log_density].concat();
        (values.into_iter().map(f32::to_bits).collect::<Vec<u32>>(), saved.report)
    };
    assert_eq!(bits(), bits());
}

#[test]
fn lost_particles_are_an_error() {
    let mut model = field(Head::Quadratic, TimeEmbedding::Raw, Objective::default());
    model.parameters.iter_mut().for_each(|p| *p *= 1e20);
    let plan = Plan { save_at: vec![0.0, 0.5, 1.0], ..fixed(Method::Euler, 4) };
    let error = run(&cuda(Precision::F32), &model, &plan, N, POSITIONS).err().expect("an error");
    assert!(matches!(error, Error::NotFinite { step: 2, .. }), "{error}");
}

#[test]
fn impossible_tolerances_are_an_error() {
    // Velocities that are not finite for any step size.
    let mut model = field(Head::Scalar, TimeEmbedding::Raw, Objective::default());
    model.parameters[0] = f32::NAN;
    let plan = adaptive(1e-6, 0.25, vec![1.0]);
    let error = run(&cuda(Precision::F32), &model, &plan, 129, POSITIONS).err().expect("an error");
    assert!(error.to_string().contains("StepControl::Adaptive"), "{error}");
}

#[test]
fn what_the_cpu_refuses_is_refused() {
    let model = field(Head::Scalar, TimeEmbedding::Raw, Objective { sigma: 0.5, ..Objective::default() });
    let engine = cuda(Precision::F32);
    for (plan, followed, field) in [
        (fixed(Method::Euler, 3), POSITIONS, "Plan::method"),
        (fixed(Method::EulerMaruyama, 0), POSITIONS, "StepControl::Fixed"),
        (fixed(Method::EulerMaruyama, 1), ALL, "log_density"),
    ] {
        let error = run(&engine, &model, &plan, 3, followed).err().expect("an error");
        assert!(error.to_string().contains(field), "{error}");
    }
    // Weights by a growth head; positions do not need it.
    let grows = field(Head::Scalar, TimeEmbedding::Raw, Objective { growth: 0.5, ..Objective::default() });
    let head = Model { growth_head: Some(grows.parameters.clone()), ..grows.clone() };
    let mut positions = vec![0.25; 3 * DIM];
    engine.integrate(&head, &fixed(Method::Euler, 3), Trajectories::of(&mut positions), &()).expect("moves");
    let mut log_weights = vec![0.0; 3];
    let out = Trajectories { log_weights: Some(&mut log_weights), ..Trajectories::of(&mut positions) };
    let error = engine.integrate(&head, &fixed(Method::Euler, 3), out, &()).expect_err("an error").to_string();
    assert!(error.contains("objective.growth_head") && error.contains("use the `CpuEngine`"), "{error}");
    let mut short = vec![0.0; 5];
    let plan = fixed(Method::EulerMaruyama, 1);
    let error = engine.integrate(&model, &plan, Trajectories::of(&mut short), &()).expect_err("an error");
    assert!(error.to_string().contains("positions"), "{error}");
}

/// Cancelled between two launches; nothing was launched here.
#[test]
fn an_integration_can_be_ended() {
    let engine = CudaEngine::new(0, Precision::F32).expect("a GPU, or the virtual one in LD_LIBRARY_PATH");
    let model = model(2, &[16], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, Objective::default());
    let plan = Plan::new(Method::Euler, StepControl::Fixed { steps: 2 }, 0.0, vec![1.0]);
    let mut out = vec![0.5; 2 * 64];
    let outcome = engine.integrate(&model, &plan, Trajectories::of(&mut out), &Patience::new(0));
    assert!(matches!(outcome, Err(Error::Interrupted)), "{outcome:?}");
    assert!(out.iter().all(|&value| value == 0.5));
}
