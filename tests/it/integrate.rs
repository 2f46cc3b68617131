//! Particles: the order of each method, error control, saved times, both directions, every division
//! into tiles.

use crate::common::{Counted, Numbers, Patience, model};
use action_matching::Error;
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::engine::{Differentiate, Engine, IntegrationReport};
use action_matching::integrate::{Method, Plan, StepControl, Trajectories};
use action_matching::model::{Activation, Head, Model, TimeEmbedding};
use action_matching::objective::Objective;

const DIM: usize = 3;

fn field(head: Head, cost_exponent: f64) -> Model {
    let objective = Objective { cost_exponent, ..Objective::default() };
    let embedding = TimeEmbedding::Fourier { frequencies: vec![0.5] };
    let mut model = model(DIM, &[19, 33], Activation::Tanh, head, embedding, objective);
    // A field with enough curvature for truncation errors to exceed f32 rounding.
    model.parameters.iter_mut().for_each(|p| *p *= 1.2);
    model
}

fn start(n: usize) -> Vec<f32> {
    Numbers::new(29).take(n * DIM).iter().map(|x| *x as f32).collect()
}

fn integrate(threads: usize, model: &Model, plan: &Plan, n: usize) -> (Vec<f32>, IntegrationReport) {
    let mut out = vec![f32::NAN; plan.save_at.len() * n * DIM];
    out[..n * DIM].copy_from_slice(&start(n));
    let counted = Counted::default();
    let engine = CpuEngine::new(threads);
    let report = engine.integrate(model, plan, Trajectories::of(&mut out), &counted).expect("integrates");
    counted.assert_whole(n);
    (out, report)
}

fn fixed(method: Method, steps: u64) -> Plan {
    Plan::new(method, StepControl::Fixed { steps }, 0.0, vec![1.0])
}

/// Classical Runge–Kutta with many steps in f64 on the reference engine's ∇H(∇s).
fn exact(model: &Model, starts: &[f32], t0: f64, t1: f64) -> Vec<f64> {
    let q = model.objective.cost_exponent;
    let n = starts.len() / model.architecture.dim;
    let velocity = |x: &[f64], t: f64| -> Vec<f64> {
        let grad = ReferenceEngine.derivatives(model, x, &vec![t; n]).expect("evaluates").grad_s;
        grad.iter().map(|p| p.abs().powf(q - 1.0).copysign(*p)).collect()
    };
    let along = |x: &[f64], h: f64, k: &[f64]| -> Vec<f64> { x.iter().zip(k).map(|(x, k)| x + h * k).collect() };
    let (steps, mut x) = (400, starts.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>());
    let h = (t1 - t0) / f64::from(steps);
    for step in 0..steps {
        let t = t0 + h * f64::from(step);
        let k1 = velocity(&x, t);
        let k2 = velocity(&along(&x, h / 2.0, &k1), t + h / 2.0);
        let k3 = velocity(&along(&x, h / 2.0, &k2), t + h / 2.0);
        let k4 = velocity(&along(&x, h, &k3), t + h);
        for i in 0..x.len() {
            x[i] += h / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]);
        }
    }
    x
}

fn distance(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let sum: f64 = got.iter().zip(want).map(|(got, want)| (f64::from(*got) - want).powi(2)).sum();
    (sum / want.len() as f64).sqrt()
}

/// dx/dt = a w cos(w x + v t + b): a network of one unit, smooth enough for every method to be
/// asymptotic, with a truncation error above f32 rounding.
fn cosine_field() -> Model {
    let mut model = model(1, &[1], Activation::Sin, Head::Scalar, TimeEmbedding::Raw, Objective::default());
    let (w, v, b, a) = (1.0, -3.0, 0.3, 2.0);
    model.parameters = vec![w, v, b, a, 0.0];
    model
}

/// Slope of log error against log step.
#[test]
fn each_method_has_its_order() {
    let (model, end) = (cosine_field(), 4.0);
    let starts: Vec<f32> = Numbers::new(31).take(21).iter().map(|x| *x as f32).collect();
    let want = exact(&model, &starts, 0.0, end);
    for (method, order, steps) in [
        (Method::Euler, 1.0, [100, 400]),
        (Method::Heun, 2.0, [40, 120]),
        (Method::Rk4, 4.0, [16, 32]),
        (Method::Dopri5, 5.0, [18, 30]),
    ] {
        let errors = steps.map(|steps| {
            let plan = Plan { save_at: vec![end], ..fixed(method, steps) };
            let mut out = starts.clone();
            CpuEngine::new(1).integrate(&model, &plan, Trajectories::of(&mut out), &()).expect("integrates");
            distance(&out, &want)
        });
        let fitted = (errors[0] / errors[1]).ln() / (steps[1] as f64 / steps[0] as f64).ln();
        assert!((fitted - order).abs() < 0.2, "{method:?}: order {fitted:.2}, {errors:?}");
    }
}

#[test]
fn cost_exponents_bend_the_velocity() {
    let model = field(Head::Scalar, 2.5);
    let want = exact(&model, &start(7), 0.0, 1.0);
    let error = distance(&integrate(1, &model, &fixed(Method::Rk4, 60), 7).0, &want);
    assert!(error < 1e-5, "{error}");
}

#[test]
fn error_control_meets_its_tolerance_with_few_evaluations() {
    for head in Head::ALL {
        let (model, n) = (field(head, 2.0), 101);
        let want = exact(&model, &start(n), 0.0, 1.0);
        let mut evaluations = Vec::new();
        for tolerance in [1e-2, 1e-4, 1e-6] {
            let control = StepControl::Adaptive { rtol: tolerance, atol: tolerance };
            let plan = Plan { control, ..fixed(Method::Dopri5, 1) };
            let (got, report) = integrate(1, &model, &plan, n);
            let error = distance(&got, &want);
            assert!(error < 10.0 * tolerance, "{head:?}, tolerance {tolerance}: error {error}");
            evaluations.push(report.velocity_evaluations);
        }
        assert!(evaluations.windows(2).all(|pair| pair[0] < pair[1]), "{evaluations:?}");
        assert!(evaluations[2] / (n as u64) < 400, "{evaluations:?}");
    }
}

#[test]
fn particles_go_back_where_they_came_from() {
    let (model, n) = (field(Head::Dot, 2.0), 97);
    let forward = Plan::new(Method::Rk4, StepControl::Fixed { steps: 50 }, 0.0, vec![1.0]);
    let (mut there, _) = integrate(2, &model, &forward, n);
    let back = Plan { t0: 1.0, save_at: vec![0.0], ..forward };
    CpuEngine::new(1).integrate(&model, &back, Trajectories::of(&mut there), &()).expect("integrates");
    let want: Vec<f64> = start(n).iter().map(|&x| f64::from(x)).collect();
    assert!(distance(&there, &want) < 2e-5);
    // Error control backward, through a saved time.
    let adaptive = StepControl::Adaptive { rtol: 1e-6, atol: 1e-6 };
    let plan = Plan::new(Method::Dopri5, adaptive, 1.0, vec![0.6, 0.0]);
    let (got, _) = integrate(1, &model, &plan, n);
    assert!(distance(&got[n * DIM..], &exact(&model, &start(n), 1.0, 0.0)) < 2e-5);
}

#[test]
fn saved_times_hold_the_particles_of_those_times() {
    let (model, n) = (field(Head::Quadratic, 2.0), 13);
    for (method, control) in [
        (Method::Rk4, StepControl::Fixed { steps: 64 }),
        (Method::Dopri5, StepControl::Adaptive { rtol: 1e-6, atol: 1e-6 }),
        (Method::Dopri5, StepControl::Fixed { steps: 20 }),
    ] {
        let plan = Plan::new(method, control, 0.0, vec![0.0, 0.3, 0.3, 0.55, 1.0]);
        let (saved, _) = integrate(1, &model, &plan, n);
        let slabs: Vec<&[f32]> = saved.chunks(n * DIM).collect();
        assert_eq!(slabs[0], start(n));
        assert_eq!(slabs[1], slabs[2]);
        for (slab, t) in slabs.iter().zip(&plan.save_at).skip(1) {
            let error = distance(slab, &exact(&model, &start(n), 0.0, *t));
            assert!(error < 1e-5, "{method:?} {control:?} at {t}: {error}");
        }
    }
}

#[test]
fn neither_threads_nor_other_particles_change_a_fixed_step_result() {
    let model = field(Head::Quadratic, 2.0);
    let plan = fixed(Method::Heun, 5);
    let (all, report) = integrate(1, &model, &plan, 1009);
    assert_eq!(report, IntegrationReport { velocity_evaluations: 1009 * 10, ..report });
    for threads in [2, 5] {
        assert_eq!(integrate(threads, &model, &plan, 1009).0, all);
    }
    for n in [1, 5, 6, 96, 97] {
        assert_eq!(integrate(1, &model, &plan, n).0, all[..n * DIM]);
    }
    assert_eq!(integrate(3, &model, &plan, 0).0, Vec::<f32>::new());
}

#[test]
fn a_particle_that_leaves_every_bound_is_an_error() {
    let mut model = field(Head::Quadratic, 2.0);
    model.parameters.iter_mut().for_each(|p| *p *= 1e20);
    let mut out = start(8);
    let error = CpuEngine::new(2).integrate(&model, &fixed(Method::Euler, 10), Trajectories::of(&mut out), &());
    assert!(error.expect_err("an error").to_string().contains("not finite"));
}

#[test]
fn plans_that_cannot_work_are_refused() {
    let model = field(Head::Scalar, 2.0);
    let good = fixed(Method::Euler, 3);
    for (plan, field) in [
        (Plan { save_at: vec![], ..good.clone() }, "Plan::save_at"),
        (Plan { save_at: vec![0.5, 0.2, 1.0], ..good.clone() }, "Plan::save_at"),
        (Plan { save_at: vec![f64::NAN], ..good.clone() }, "Plan::save_at"),
        (Plan { control: StepControl::Fixed { steps: 0 }, ..good.clone() }, "StepControl::Fixed"),
        (Plan { control: StepControl::Adaptive { rtol: 1e-3, atol: 1e-3 }, ..good.clone() }, "StepControl::Adaptive"),
        (
            Plan { method: Method::Dopri5, control: StepControl::Adaptive { rtol: -1.0, atol: 1.0 }, ..good },
            "StepControl::Adaptive",
        ),
    ] {
        let error =
            CpuEngine::new(1).integrate(&model, &plan, Trajectories::of(&mut start(2)), &()).expect_err("an error");
        assert!(error.to_string().contains(field), "{error}");
    }
}

/// A single tile with a million steps: for every method the watch is asked after each step, and
/// receives progress meanwhile.
#[test]
fn a_long_integration_can_be_watched_and_ended() {
    let plain = model(DIM, &[8], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, Objective::default());
    let noisy = Model { objective: Objective { sigma: 0.1, ..Objective::default() }, ..plain.clone() };
    let adaptive = Plan::new(Method::Dopri5, StepControl::Adaptive { rtol: 0.0, atol: 1e-12 }, 0.0, vec![1.0]);
    for (model, plan) in [
        (&plain, fixed(Method::Euler, 1_000_000)),
        (&plain, adaptive),
        (&noisy, fixed(Method::StochasticHeun, 1_000_000)),
    ] {
        let mut out = start(3);
        let watch = Patience::new(20);
        let error = CpuEngine::new(2).integrate(model, &plan, Trajectories::of(&mut out), &watch).expect_err("ends");
        assert!(matches!(error, Error::Interrupted), "{error}");
    }
    // It received a fraction of the particles before any had arrived.
    let (counted, mut out) = (Counted::default(), start(60));
    let plan = fixed(Method::Euler, 100_000);
    CpuEngine::new(1).integrate(&plain, &plan, Trajectories::of(&mut out), &counted).expect("integrates");
    counted.assert_whole(60);
    assert!(counted.reports() > 1, "{} reports", counted.reports());
}
