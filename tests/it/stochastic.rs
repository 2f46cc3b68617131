//! Noise, weights and densities along the paths of particles.

use crate::common::{Numbers, model};
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::engine::{Differentiate, Engine};
use action_matching::integrate::{Method, Noise, Plan, StepControl, Trajectories, systematic_resample};
use action_matching::laplacian::Laplacian;
use action_matching::model::{Activation, Head, Model, TimeEmbedding};
use action_matching::objective::{Objective, SigmaSchedule};

fn run(threads: usize, model: &Model, plan: &Plan, starts: &[f32]) -> Vec<f32> {
    let mut out = starts.repeat(plan.save_at.len());
    CpuEngine::new(threads).integrate(model, plan, Trajectories::of(&mut out), &()).expect("integrates");
    out
}

/// dx = a w cos(w x + v t + b) dt + σ dW: a network of one unit.
fn cosine_field(sigma: f64) -> Model {
    let objective = Objective { sigma, ..Objective::default() };
    let mut model = model(1, &[1], Activation::Sin, Head::Scalar, TimeEmbedding::Raw, objective);
    model.parameters = vec![1.0, -3.0, 0.3, 2.0, 0.0];
    model
}

fn starts(n: usize) -> Vec<f32> {
    Numbers::new(31).take(n).iter().map(|x| *x as f32).collect()
}

/// `steps` steps along the Brownian path that 256 increments make.
fn plan(method: Method, steps: u64) -> Plan {
    let noise = Noise { seed: 5, increments_per_step: (256 / steps) as u32 };
    Plan { noise, ..Plan::new(method, StepControl::Fixed { steps }, 0.0, vec![1.0]) }
}

fn fitted_order(errors: [f64; 2]) -> f64 {
    (errors[0] / errors[1]).log2()
}

/// The root mean square distance to the fine solution on the same Brownian path falls with order 1,
/// and the error of expectations with the weak order.
#[test]
fn stochastic_methods_have_their_strong_and_weak_orders() {
    let (model, starts) = (cosine_field(1.0), starts(60_000));
    let fine = run(2, &model, &plan(Method::StochasticHeun, 256), &starts);
    let square = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / x.len() as f64;
    for (method, strong, weak) in [(Method::EulerMaruyama, 1.0, 1.0), (Method::StochasticHeun, 1.0, 2.0)] {
        let solutions = [8, 16].map(|steps| run(2, &model, &plan(method, steps), &starts));
        let distance = |x: &Vec<f32>| {
            let sum: f64 = x.iter().zip(&fine).map(|(x, fine)| f64::from(x - fine).powi(2)).sum();
            (sum / x.len() as f64).sqrt()
        };
        let strong_errors = solutions.each_ref().map(distance);
        let weak_errors = solutions.each_ref().map(|x| (square(x) - square(&fine)).abs());
        let (got_strong, got_weak) = (fitted_order(strong_errors), fitted_order(weak_errors));
        assert!((got_strong - strong).abs() < 0.2, "{method:?}: strong order {got_strong:.2}, {strong_errors:?}");
        assert!((got_weak - weak).abs() < 0.2, "{method:?}: weak order {got_weak:.2}, {weak_errors:?}");
    }
}

/// Without drift a particle moves by a normal number of variance ∫σ² dt (Kolmogorov–Smirnov, 1 %
/// level).
#[test]
fn noise_is_normal_with_the_variance_of_its_schedule() {
    let n = 20_000;
    for (schedule, variance) in [(SigmaSchedule::Constant, 0.64), (SigmaSchedule::OneMinusT, 0.64 / 3.0)] {
        let objective = Objective { sigma: 0.8, sigma_schedule: schedule, ..Objective::default() };
        let mut model = model(5, &[3], Activation::Silu, Head::Scalar, TimeEmbedding::Raw, objective);
        model.parameters.fill(0.0);
        let plan = Plan { save_at: vec![0.4, 1.0], ..plan(Method::EulerMaruyama, 4) };
        let moved = run(2, &model, &plan, &vec![0.0; 5 * n]);
        let mut ends = moved[5 * n..].to_vec();
        ends.sort_by(f32::total_cmp);
        let distribution = |x: f32| 0.5 * libm::erfc(-f64::from(x) / (2.0_f64 * variance).sqrt());
        let count = ends.len() as f64;
        let gap = ends.iter().enumerate().map(|(i, &x)| (distribution(x) - (i as f64 + 0.5) / count).abs());
        let largest = gap.fold(0.0, f64::max) * count.sqrt();
        assert!(largest < 1.63, "{schedule:?}: {largest}");
        // Components and time intervals are independent: correlations of n numbers stay below 4 /
        // √n.
        for (a, b) in [(0, 1), (3, 4)] {
            let product: f64 = moved[5 * n..].chunks_exact(5).map(|x| f64::from(x[a]) * f64::from(x[b])).sum();
            assert!((product / n as f64 / variance).abs() < 4.0 / (n as f64).sqrt(), "{schedule:?}: {product}");
        }
    }
}

#[test]
fn noise_depends_on_seed_and_particle_alone() {
    let (model, starts) = (cosine_field(0.7), starts(301));
    let plan = plan(Method::StochasticHeun, 16);
    let want = run(1, &model, &plan, &starts);
    assert_eq!(run(3, &model, &plan, &starts), want);
    assert_eq!(run(2, &model, &plan, &starts[..17]), want[..17]);
    let other = Plan { noise: Noise { seed: 6, ..plan.noise }, ..plan };
    assert!(run(1, &model, &other, &starts).iter().zip(&want).all(|(a, b)| a != b));
}

#[test]
fn a_model_with_diffusion_needs_noise_and_goes_forward() {
    let model = cosine_field(0.5);
    let good = plan(Method::EulerMaruyama, 4);
    for (plan, field) in [
        (Plan { method: Method::Rk4, ..good.clone() }, "Plan::method"),
        (Plan { t0: 1.0, save_at: vec![0.0], ..good.clone() }, "Plan::t0"),
        (Plan { noise: Noise { seed: 0, increments_per_step: 0 }, ..good.clone() }, "Plan::noise"),
    ] {
        let error = CpuEngine::new(1).integrate(&model, &plan, Trajectories::of(&mut [0.0; 2]), &());
        let error = error.expect_err("an error").to_string();
        assert!(error.contains(field), "{error}");
    }
    let (mut positions, mut log_density) = ([0.0; 2], [0.0; 2]);
    let out = Trajectories { log_density: Some(&mut log_density), ..Trajectories::of(&mut positions) };
    let error = CpuEngine::new(1).integrate(&model, &good, out, &()).expect_err("an error").to_string();
    assert!(error.contains("log_density"), "{error}");
}

/// Positions, λ∫s dt and −∫∇·v dt by classical Runge–Kutta in f64; the divergence from differences
/// of the reference's velocity.
fn exact(model: &Model, starts: &[f32], steps: usize) -> [Vec<f64>; 3] {
    let (dim, q, growth) = (model.architecture.dim, model.objective.cost_exponent, model.objective.growth);
    let n = starts.len() / dim;
    let velocity = |x: &[f64], t: f64| -> (Vec<f64>, Vec<f64>) {
        let at = ReferenceEngine.derivatives(model, x, &vec![t; n]).expect("evaluates");
        (at.grad_s.iter().map(|p| p.abs().powf(q - 1.0).copysign(*p)).collect(), at.s)
    };
    let rates = |x: &[f64], t: f64| -> [Vec<f64>; 3] {
        let (v, s) = velocity(x, t);
        let mut log_q = vec![0.0; n];
        for i in 0..dim {
            const H: f64 = 1e-5;
            let moved = |h: f64| {
                let mut x = x.to_vec();
                x.chunks_exact_mut(dim).for_each(|x| x[i] += h);
                velocity(&x, t).0
            };
            let (ahead, behind) = (moved(H), moved(-H));
            for (row, log_q) in log_q.iter_mut().enumerate() {
                *log_q -= (ahead[row * dim + i] - behind[row * dim + i]) / (2.0 * H);
            }
        }
        [v, s.iter().map(|s| growth * s).collect(), log_q]
    };
    let mut state = [starts.iter().map(|&x| f64::from(x)).collect(), vec![0.0; n], vec![0.0; n]];
    let h = 1.0 / steps as f64;
    for step in 0..steps {
        let t = step as f64 * h;
        let along =
            |k: &[Vec<f64>; 3], h: f64| state[0].iter().zip(&k[0]).map(|(x, k)| x + h * k).collect::<Vec<f64>>();
        let k1 = rates(&state[0], t);
        let k2 = rates(&along(&k1, h / 2.0), t + h / 2.0);
        let k3 = rates(&along(&k2, h / 2.0), t + h / 2.0);
        let k4 = rates(&along(&k3, h), t + h);
        for (channel, values) in state.iter_mut().enumerate() {
            for (i, value) in values.iter_mut().enumerate() {
                *value += h / 6.0 * (k1[channel][i] + 2.0 * (k2[channel][i] + k3[channel][i]) + k4[channel][i]);
            }
        }
    }
    state
}

fn distance(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let sum: f64 = got.iter().zip(want).map(|(got, want)| (f64::from(*got) - want).powi(2)).sum();
    (sum / want.len() as f64).sqrt()
}

#[test]
fn weights_and_densities_follow_the_flow() {
    for head in Head::ALL {
        for cost_exponent in [2.0, 2.5] {
            let objective = Objective { growth: 0.7, cost_exponent, ..Objective::default() };
            let embedding = TimeEmbedding::Fourier { frequencies: vec![0.5] };
            let model = model(3, &[19, 33], Activation::Tanh, head, embedding, objective);
            let (n, name) = (101, format!("{head:?}, q = {cost_exponent}"));
            let starts: Vec<f32> = Numbers::new(7).take(3 * n).iter().map(|x| *x as f32).collect();
            let [positions, log_weights, log_density] = exact(&model, &starts, 40);
            for (method, control) in [
                (Method::Rk4, StepControl::Fixed { steps: 40 }),
                (Method::Dopri5, StepControl::Adaptive { rtol: 1e-6, atol: 1e-6 }),
            ] {
                let plan = Plan::new(method, control, 0.0, vec![0.5, 1.0]);
                let mut out = starts.repeat(2);
                // Starting values other than zero are kept and added to.
                let (mut log_w, mut log_q) = (vec![0.25; 2 * n], vec![-1.5; 2 * n]);
                let trajectories =
                    Trajectories { positions: &mut out, log_weights: Some(&mut log_w), log_density: Some(&mut log_q) };
                CpuEngine::new(2).integrate(&model, &plan, trajectories, &()).expect("integrates");
                log_w.iter_mut().for_each(|w| *w -= 0.25);
                log_q.iter_mut().for_each(|q| *q += 1.5);
                // If a component of ∇s crosses 0, its |p|^1.5 has no second derivative, and the
                // order of the step is lost there.
                let (tolerance, for_density) = if cost_exponent == 2.0 { (1e-5, 1e-5) } else { (1e-4, 1e-3) };
                for (channel, got, want, tolerance) in [
                    ("positions", &out[3 * n..], &positions, tolerance),
                    ("log w", &log_w[n..], &log_weights, tolerance),
                    ("log q", &log_q[n..], &log_density, for_density),
                ] {
                    let error = distance(got, want);
                    assert!(error < tolerance, "{channel}, {name} {method:?}: {error}");
                }
            }
        }
    }
}

/// One probe per path gives the log-density without bias.
#[test]
fn probed_densities_agree_on_average() {
    let model = model(4, &[23], Activation::Silu, Head::Quadratic, TimeEmbedding::Raw, Objective::default());
    let n = 20_000;
    let density = |divergence: Laplacian| {
        let mut out = vec![0.3; 4 * n];
        let mut log_q = vec![0.0; n];
        let plan = Plan { divergence, ..Plan::new(Method::Heun, StepControl::Fixed { steps: 5 }, 0.0, vec![1.0]) };
        let trajectories = Trajectories { log_density: Some(&mut log_q), ..Trajectories::of(&mut out) };
        CpuEngine::new(2).integrate(&model, &plan, trajectories, &()).expect("integrates");
        log_q
    };
    let (exact, probed) = (density(Laplacian::EXACT)[0], density(Laplacian::default()));
    let mean = probed.iter().map(|&q| f64::from(q)).sum::<f64>() / n as f64;
    let variance = probed.iter().map(|&q| (f64::from(q) - mean).powi(2)).sum::<f64>() / n as f64;
    assert!(variance > 1e-6, "{variance}");
    let bound = 4.0 * (variance / n as f64).sqrt();
    assert!((mean - f64::from(exact)).abs() < bound, "{mean} ± {bound}, not {exact}");
}

#[test]
fn systematic_resampling_keeps_particles_as_often_as_their_weights_say() {
    let log_weights = [0.5_f32.ln(), 2.0_f32.ln(), f32::NEG_INFINITY, 1.5_f32.ln()];
    for offset in [0.0, 0.4, 0.999] {
        let kept = systematic_resample(&log_weights, 400, offset);
        let count = |particle| kept.iter().filter(|&&k| k == particle).count() as i64;
        for (particle, share) in [50, 200, 0, 150].into_iter().enumerate() {
            assert!((count(particle) - share).abs() <= 1, "particle {particle}: {}, not {share}", count(particle));
        }
        assert!(kept.is_sorted());
    }
}
