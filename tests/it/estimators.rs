//! The forms of the loss: the gradient of each against differences of the loss written out in f64,
//! and all of them against each other.

use std::sync::Arc;

use crate::common::{Numbers, model, revealing_optimizer};
use action_matching::data::{Snapshots, draw_gaussian};
use action_matching::density_path::{
    DensityPath, End, Interpolant, Moment, RowKey, TimeDensity, TimeMoments, TimeRule, optimal_couplings,
    unbalanced_couplings,
};
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::engine::{Derivatives, Differentiate, Engine, Estimator, TrainState, Training};
use action_matching::model::{Activation, Head, Model, TimeEmbedding};
use action_matching::objective::{Objective, TimeWeight};
use action_matching::rng::{Purpose, Stream, unit_f32, words};
use action_matching::stage::Stage;

const SEED: u64 = 77;
const DIM: usize = 3;

fn snapshots() -> Snapshots {
    let mut samples = draw_gaussian(101, DIM, &mut Stream::of_normals(3, DIM));
    // The population moves, so that velocities have nonzero means.
    samples.chunks_exact_mut(DIM).enumerate().for_each(|(row, x)| x[0] += 0.02 * row as f32);
    Snapshots { dim: DIM, times: vec![0.0, 0.3, 1.0], offsets: vec![0, 31, 48, 101], samples, mass: Default::default() }
}

fn path(interpolant: Interpolant, masses: Option<Vec<f64>>) -> DensityPath {
    let snapshots = if interpolant.is_generative() {
        Snapshots { times: vec![1.0], offsets: vec![0, 101], ..snapshots() }
    } else {
        snapshots()
    };
    let couplings = match interpolant {
        Interpolant::Spline => {
            Some(Arc::new(optimal_couplings(&snapshots, 200, 1, &Stage::default()).expect("couplings")))
        }
        Interpolant::Linear if masses.is_some() => {
            let masses = masses.as_deref().unwrap_or_default();
            Some(Arc::new(unbalanced_couplings(&snapshots, masses, 1.5, 200, 1, &Stage::default()).expect("couplings")))
        }
        _ => None,
    };
    DensityPath { couplings, masses, ..DensityPath::new(interpolant, snapshots) }
}

fn training(model: &Model, path: DensityPath, estimator: Estimator, time_rule: TimeRule) -> Training {
    Training {
        objective: model.objective.clone(),
        estimator,
        time_rule,
        n_interior: 103,
        n_boundary: 59,
        optimizer: revealing_optimizer(),
        seed: SEED,
        ..Training::new(model.architecture.clone(), path)
    }
}

fn gradient(training: &Training, state: TrainState) -> (Vec<f64>, f64) {
    let mut trainer = CpuEngine::new(2).trainer(training.clone(), state).expect("a trainer");
    let mut records = Vec::new();
    trainer.steps(1, &mut records).expect("a step");
    (trainer.state().expect("a state").action.moment1.iter().map(|&m| f64::from(m)).collect(), records[0].loss)
}

/// Points of a batch with the inputs of their loss, in f64.
#[derive(Default)]
struct Rows {
    x: Vec<f64>,
    t: Vec<f64>,
    /// Weight of H(∇s) + ½λs².
    weight: Vec<f64>,
    /// Weight of ∂ₜs.
    on_time: Vec<f64>,
    /// Weight of s.
    on_potential: Vec<f64>,
    /// Coefficient of −∇s, the row's weight included.
    carried: Vec<f64>,
}

impl Rows {
    fn push(&mut self, x: &[f64], t: f64, [weight, on_time, on_potential]: [f64; 3], velocity: &[f64]) {
        self.x.extend(x);
        self.t.push(t);
        self.weight.push(weight);
        self.on_time.push(on_time);
        self.on_potential.push(on_potential);
        self.carried.extend(velocity.iter().map(|u| weight * u));
    }

    fn loss(&self, model: &Model) -> f64 {
        let Derivatives { s, grad_s, ds_dt } = ReferenceEngine.derivatives(model, &self.x, &self.t).expect("evaluates");
        let (q, growth) = (model.objective.cost_exponent, model.objective.growth);
        (0..self.t.len())
            .map(|row| {
                let p = &grad_s[row * DIM..][..DIM];
                let hamiltonian: f64 = p.iter().map(|p| p.abs().powf(q) / q).sum();
                let carried: f64 = p.iter().zip(&self.carried[row * DIM..]).map(|(p, u)| p * u).sum();
                self.weight[row] * (hamiltonian + 0.5 * growth * s[row] * s[row])
                    + self.on_time[row] * ds_dt[row]
                    + self.on_potential[row] * s[row]
                    - carried
            })
            .sum()
    }
}

/// The batch of `step`, from the documented random words.
fn drawn(training: &Training, step: u64, density: &TimeDensity) -> Rows {
    let (path, rule) = (&training.path, training.time_rule);
    let (n, n_boundary) = (training.n_interior, training.n_boundary);
    let offset = |row: u32| words(SEED, Purpose::TimeOffset, step, row)[0];
    let moment = |row: usize, n: usize, offset: u32, own: u32| -> (Moment, f64) {
        let u = f64::from(unit_f32(rule.word(row, n, offset, own)));
        let (t, weight) = if rule == TimeRule::Importance { density.draw(u) } else { (u, 1.0) };
        (path.moment(rule, t), weight)
    };
    let omega = |t: f64| training.objective.time_weight.at(t);
    let mut rows = Rows::default();
    for row in 0..n {
        let own = words(SEED, Purpose::Interior, step, row as u32);
        let (moment, measure) = moment(row, n, offset(0), own[0]);
        let share = measure / n as f64;
        let trajectory = path.trajectory(moment.left, own, RowKey { seed: SEED, step, row: row as u32 });
        let (mut x, mut u) = (vec![0.0; DIM], vec![0.0; DIM]);
        path.point(&trajectory, &moment, |i, x_i, u_i| (x[i], u[i]) = (f64::from(x_i), f64::from(u_i)));
        let t = f64::from(moment.t);
        let ((omega, d_omega), (mass, mass_slope)) = (omega(t), path.mass(&trajectory, &moment));
        match training.estimator {
            Estimator::Action { centering } => {
                let weight = omega * mass * share;
                rows.push(&x, t, [weight, weight, d_omega * mass * share], &[0.0; DIM]);
                if centering {
                    rows.push(&[0.0; DIM], t, [0.0, -omega * share, -d_omega * share], &[0.0; DIM]);
                }
            }
            Estimator::Weak { .. } => rows.push(&x, t, [omega * mass * share, 0.0, 0.0], &[0.0; DIM]),
            Estimator::Regression => {
                rows.push(&x, t, [omega * mass * share, 0.0, -omega * mass_slope * share], &u);
            }
            other => unimplemented!("{other:?}"),
        }
    }
    for row in 0..n_boundary {
        let noise = RowKey { seed: SEED, step, row: (n + row) as u32 };
        match training.estimator {
            Estimator::Action { .. } => {
                for (end, purpose) in [(End::Start, Purpose::Boundary0), (End::End, Purpose::Boundary1)] {
                    let mut x = vec![0.0; DIM];
                    let word = words(SEED, purpose, step, row as u32)[0];
                    path.end_point(end, word, noise, |i, x_i| x[i] = f64::from(x_i));
                    let t = if end == End::Start { 0.0 } else { 1.0 };
                    let last = path.masses.as_ref().map_or(1.0, |masses| masses[masses.len() - 1]);
                    let weight = omega(t).0 * if end == End::End { -last } else { 1.0 } / n_boundary as f64;
                    rows.push(&x, t, [0.0, 0.0, weight], &[0.0; DIM]);
                }
            }
            Estimator::Weak { intervals } => {
                let own = words(SEED, Purpose::Boundary0, step, row as u32);
                let (moment, measure) = moment(row, n_boundary, offset(1), own[0]);
                let trajectory = path.trajectory(moment.left, own, noise);
                let parts = f64::from(intervals);
                let part = (moment.ratio * parts).floor().min(parts - 1.0);
                let [a, b] = [path.at(moment.left, part / parts), path.at(moment.left, (part + 1.0) / parts)];
                for (sampled, sign) in [(&a, 1.0), (&b, -1.0)] {
                    let mut x = vec![0.0; DIM];
                    path.point(&trajectory, sampled, |i, x_i, _| x[i] = f64::from(x_i));
                    for t in [a.t, b.t] {
                        let weight = sign * 0.5 * omega(f64::from(moment.t)).0 * path.mass(&trajectory, sampled).0;
                        let per_length = parts / path.length(moment.left);
                        let share = weight * measure * per_length / n_boundary as f64;
                        rows.push(&x, f64::from(t), [0.0, 0.0, share], &[0.0; DIM]);
                    }
                }
            }
            Estimator::Regression => {}
            other => unimplemented!("{other:?}"),
        }
    }
    if let Estimator::Action { centering: true } = training.estimator {
        for (t, sign) in [(0.0, -1.0), (1.0, 1.0)] {
            rows.push(&[0.0; DIM], t, [0.0, 0.0, sign * omega(t).0], &[0.0; DIM]);
        }
    }
    rows
}

const ESTIMATORS: [Estimator; 5] = [
    Estimator::Action { centering: false },
    Estimator::Action { centering: true },
    Estimator::Weak { intervals: 1 },
    Estimator::Weak { intervals: 5 },
    Estimator::Regression,
];

fn small_model(head: Head, objective: Objective) -> Model {
    let embedding = TimeEmbedding::Fourier { frequencies: vec![0.5] };
    model(DIM, &[19, 11], Activation::Silu, head, embedding, objective)
}

/// Loss and gradient of a step of every estimator, against central differences of the loss in f64
/// along random directions.
#[test]
fn a_step_takes_the_gradient_of_its_form_of_the_loss() {
    let time_weight = TimeWeight::Polynomial { coefficients: vec![1.0, 0.5, -0.25] };
    let objective = Objective { growth: 0.3, cost_exponent: 2.5, time_weight, ..Objective::default() };
    let masses = Some(vec![1.0, 0.6, 2.5]);
    let paths = [
        (Interpolant::Linear, None),
        (Interpolant::Linear, masses.clone()),
        (Interpolant::Spline, masses),
        (Interpolant::Nearest, None),
        (Interpolant::GenerativeVp, None),
    ];
    let rules = [TimeRule::Stratified, TimeRule::Importance, TimeRule::Simpson];
    let mut moments = TimeMoments::default();
    (0..500).for_each(|i| moments.add_row(f64::from(i) / 500.0, 1.0 + f64::from(i % 7) + f64::from(i) / 100.0));
    for (which, (interpolant, masses)) in paths.into_iter().enumerate() {
        for (index, estimator) in ESTIMATORS.into_iter().enumerate() {
            if estimator == Estimator::Regression && !interpolant.has_velocity() {
                continue;
            }
            let head = Head::ALL[(which + index) % 3];
            let rule = rules[(2 * which + index) % 3];
            let name = format!("{interpolant:?} {estimator:?} {head:?} {rule:?}");
            let start = small_model(head, objective.clone());
            let training = training(&start, path(interpolant, masses.clone()), estimator, rule);
            let state =
                TrainState { step: 4, time_moments: moments.to_vec(), ..TrainState::initial(start.parameters.clone()) };
            let density = TimeDensity::new(&TimeMoments::from_slice(&state.time_moments).expect("moments"));
            let (gradient, loss) = gradient(&training, state);
            let rows = drawn(&training, 4, &density);
            let want = rows.loss(&start);
            assert!((loss - want).abs() < 2e-5 * (1.0 + want.abs()), "{name}: loss {loss}, not {want}");

            let size = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
            let mut numbers = Numbers::new(5);
            for _ in 0..6 {
                let direction = numbers.take(gradient.len());
                let moved = |sign: f64| {
                    let parameters = start.parameters.iter().zip(&direction);
                    let parameters = parameters.map(|(&p, v)| (f64::from(p) + sign * 1e-3 * v) as f32).collect();
                    Model { parameters, ..start.clone() }
                };
                let (above, below) = (moved(1.0), moved(-1.0));
                let slope: f64 = (above.parameters.iter().zip(&below.parameters).zip(&gradient))
                    .map(|((above, below), g)| (f64::from(*above) - f64::from(*below)) * g)
                    .sum();
                let difference = rows.loss(&above) - rows.loss(&below);
                let length = 2e-3 * direction.iter().map(|v| v * v).sum::<f64>().sqrt();
                let error = (difference - slope).abs() / (size * length);
                assert!(error < 2e-5, "{name}: {difference:e} along a direction, not {slope:e} (error {error:e})");
            }
        }
    }
}

/// Means of gradients over steps: all forms have the same one, within the statistical error.
#[test]
fn every_form_has_the_same_mean_gradient() {
    const STEPS: u64 = 400;
    let objective = Objective { growth: 0.2, ..Objective::default() };
    let start = small_model(Head::Scalar, objective);
    let mut numbers = Numbers::new(9);
    let directions: Vec<Vec<f64>> = (0..8).map(|_| numbers.take(start.parameters.len())).collect();
    let forms = [
        (Estimator::Action { centering: false }, TimeRule::LowDiscrepancy),
        (Estimator::Action { centering: true }, TimeRule::Uniform),
        (Estimator::Weak { intervals: 40 }, TimeRule::LowDiscrepancy),
        (Estimator::Regression, TimeRule::Stratified),
        (Estimator::Regression, TimeRule::Importance),
    ];
    // The mean of each direction's slope with its standard error.
    let slopes: Vec<Vec<(f64, f64)>> = (forms.into_iter())
        .map(|(estimator, rule)| {
            let training = training(&start, path(Interpolant::Linear, Some(vec![1.0, 1.3, 0.8])), estimator, rule);
            let mut moments = TimeMoments::default();
            (0..500).for_each(|i| moments.add_row(f64::from(i) / 500.0, 1.0 + f64::from(i) / 100.0));
            let time_moments = moments.to_vec();
            let of_steps: Vec<Vec<f64>> = (0..STEPS)
                .map(|step| {
                    let state = TrainState {
                        step,
                        time_moments: time_moments.clone(),
                        ..TrainState::initial(start.parameters.clone())
                    };
                    let gradient = gradient(&training, state).0;
                    directions.iter().map(|v| v.iter().zip(&gradient).map(|(v, g)| v * g).sum()).collect()
                })
                .collect();
            (0..directions.len())
                .map(|k| {
                    let mean = of_steps.iter().map(|slopes| slopes[k]).sum::<f64>() / STEPS as f64;
                    let variance =
                        of_steps.iter().map(|slopes| (slopes[k] - mean).powi(2)).sum::<f64>() / (STEPS - 1) as f64;
                    (mean, (variance / STEPS as f64).sqrt())
                })
                .collect()
        })
        .collect();
    for (form, slopes_of_form) in forms.iter().zip(&slopes).skip(1) {
        for ((mean, error), (want, want_error)) in slopes_of_form.iter().zip(&slopes[0]) {
            let deviation = (mean - want).abs() / error.hypot(*want_error);
            assert!(deviation < 4.5, "{form:?}: {mean} ± {error}, not {want} ± {want_error}");
        }
    }
}

/// An offset c(t) added to s does not change the weak and the centered form, up to rounding,
/// wherever the times are; it changes the plain one.
#[test]
fn offsets_change_nothing_in_the_invariant_forms() {
    let start = small_model(Head::Scalar, Objective::default());
    for rule in [TimeRule::Trapezoid, TimeRule::Uniform] {
        let mut changes = Vec::new();
        for estimator in &ESTIMATORS {
            let training = training(&start, path(Interpolant::Linear, None), *estimator, rule);
            let rows = drawn(&training, 2, &TimeDensity::new(&TimeMoments::default()));
            let mut rows_at_origin = Rows { x: vec![0.0; rows.x.len()], ..rows };
            // With x = 0 in every row s is an offset c(t), on which H and u·∇s do not depend.
            rows_at_origin.weight.fill(0.0);
            rows_at_origin.carried.fill(0.0);
            changes.push(rows_at_origin.loss(&start).abs());
        }
        assert!(changes[0] > 1e-3, "{changes:?}");
        assert!(changes[1..].iter().all(|change| *change < 1e-12), "{changes:?}");
    }
}
