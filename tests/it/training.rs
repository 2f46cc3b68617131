//! Optimizer steps: their batches, their gradients, and their reproducibility.

use std::sync::Arc;

use crate::common::{Numbers, assert_close, embeddings, model};
use action_matching::Error;
use action_matching::config::Config;
use action_matching::data::{AnalyticProblem, Snapshots};
use action_matching::density_path::{DensityPath, Interpolant, Spline, TimeRule, optimal_couplings};
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::engine::{
    Batch, Cosine, Differentiate, Engine, Estimator, LearningRate, NetworkState, Optimizer, StepRecord, TrainState,
    Training,
};
use action_matching::integrate::{Solver, Trajectories};
use action_matching::laplacian::{Laplacian, LaplacianRule};
use action_matching::model::{Activation, Architecture, Coordinates, Head, Model, TimeEmbedding};
use action_matching::objective::{Objective, SigmaSchedule, TimeWeight};
use action_matching::rng::{Purpose, index, normal_pair, unit_f32, words};
use action_matching::stage::Stage;
use action_matching::train::{Existing, Observer, Outcome, Unexplained, train};
use action_matching::transport::wasserstein1;

const SEED: u64 = 0x1234_5678_9abc_def0;

/// Three snapshots at uneven times with different numbers of rows.
fn snapshots(dim: usize) -> Snapshots {
    let offsets = vec![0, 31, 48, 101];
    let mut numbers = Numbers::new(23);
    let samples = numbers.take(101 * dim).iter().map(|x| *x as f32).collect();
    Snapshots { dim, times: vec![0.0, 0.3, 1.0], offsets, samples, mass: Default::default() }
}

fn training(model: &Model, interpolant: Interpolant, time_rule: TimeRule) -> Training {
    let path = DensityPath::new(interpolant, snapshots(model.architecture.dim));
    let cosine = Some(Cosine { end: 40, floor: 0.1 });
    Training {
        objective: model.objective.clone(),
        estimator: Estimator::Action { centering: false },
        time_rule,
        n_interior: 203,
        n_boundary: 97,
        optimizer: Optimizer {
            learning_rate: LearningRate { peak: 1e-3, warmup_steps: 2, cosine },
            beta2: 0.99,
            weight_decay: 0.01,
            clip_norm: Some(0.5),
            ema_decay: 0.9,
            ..Optimizer::default()
        },
        seed: SEED,
        ..Training::new(model.architecture.clone(), path)
    }
}

fn small_model(head: Head, embedding: TimeEmbedding) -> Model {
    let time_weight = TimeWeight::Polynomial { coefficients: vec![1.0, 0.5, -0.25] };
    let objective = Objective { growth: 0.2, time_weight, ..Objective::default() };
    model(3, &[37, 20], Activation::Silu, head, embedding, objective)
}

/// The batch of `step`, drawn independently from the documented counters.
fn drawn(training: &Training, step: u64) -> Batch {
    let snapshots = &training.path.snapshots;
    let sample = |k: usize, word: u32| {
        let rows = snapshots.rows(k);
        &rows[index(word, snapshots.n_rows(k)) * snapshots.dim..][..snapshots.dim]
    };
    let mut batch = Batch::default();
    let offset = words(SEED, Purpose::TimeOffset, step, 0)[0];
    for row in 0..training.n_interior {
        let [time, left, right, _] = words(SEED, Purpose::Interior, step, row as u32);
        let t = unit_f32(match training.time_rule {
            TimeRule::Uniform => time,
            TimeRule::LowDiscrepancy => {
                offset.wrapping_add(((row as u64 * (1 << 32)) / training.n_interior as u64) as u32)
            }
            rule => panic!("{rule:?} has its own test"),
        });
        let k = usize::from(f64::from(t) >= 0.3);
        let (start, end) = (snapshots.times[k], snapshots.times[k + 1]);
        let ratio = (f64::from(t) - start) / (end - start);
        match training.path.interpolant {
            Interpolant::Linear => {
                let row = |k: usize, i: usize| &snapshots.rows(k)[i * snapshots.dim..][..snapshots.dim];
                let (from, to) = match &training.path.couplings {
                    Some(couplings) => {
                        let (i, j, _) = couplings[k].pair(left);
                        (row(k, i), row(k + 1, j))
                    }
                    None => (sample(k, left), sample(k + 1, right)),
                };
                let ends = from.iter().zip(to);
                batch.x.extend(ends.map(|(&l, &r)| f64::from(l) + ratio * f64::from(r - l)));
            }
            _ => {
                let nearest = if ratio < 0.5 { k } else { k + 1 };
                batch.x.extend(sample(nearest, left).iter().map(|&x| f64::from(x)));
            }
        }
        batch.t.push(f64::from(t));
        let (omega, d_omega) = training.objective.time_weight.at(f64::from(t));
        let mass =
            training.path.masses.as_ref().map_or(1.0, |masses| masses[k] * (1.0 - ratio) + masses[k + 1] * ratio);
        batch.omega.push(omega * mass);
        batch.d_omega.push(d_omega * mass);
    }
    for (points, purpose, k) in [(&mut batch.x0, Purpose::Boundary0, 0), (&mut batch.x1, Purpose::Boundary1, 2)] {
        for row in 0..training.n_boundary {
            points.extend(sample(k, words(SEED, purpose, step, row as u32)[0]).iter().map(|&x| f64::from(x)));
        }
    }
    batch.omega0 = training.objective.time_weight.at(0.0).0;
    batch.omega1 =
        training.objective.time_weight.at(1.0).0 * training.path.masses.as_ref().map_or(1.0, |masses| masses[2]);
    batch
}

/// The gradient of the first step of `training` is that of its documented batch.
fn first_step_agrees(name: &str, model: &Model, mut training: Training) {
    training.optimizer.beta1 = 0.0;
    training.optimizer.clip_norm = None;
    let want = ReferenceEngine.loss_gradient(model, &drawn(&training, 0)).expect("evaluates");
    let state = TrainState::initial(model.parameters.clone());
    let mut trainer = CpuEngine::new(2).trainer(training, state).expect("a trainer");
    let mut records = Vec::new();
    trainer.steps(1, &mut records).expect("a step");
    let gradient: Vec<f64> = trainer.state().expect("a state").action.moment1.iter().map(|&m| f64::from(m)).collect();
    assert_close(&format!("gradient, {name}"), &gradient, &want.gradient, 2e-5);
    assert!((records[0].loss - want.loss).abs() < 1e-5 * want.loss.abs().max(1.0), "{name}");
}

#[test]
fn optimal_pairs_and_masses_enter_the_batch() {
    let model = small_model(Head::Scalar, TimeEmbedding::Raw);
    let plain = training(&model, Interpolant::Linear, TimeRule::LowDiscrepancy);
    let couplings =
        Some(Arc::new(optimal_couplings(&plain.path.snapshots, 40, 1, &Stage::default()).expect("couplings")));
    let masses = Some(vec![1.0, 0.6, 2.5]);
    let with = |path: DensityPath| Training { path, ..plain.clone() };
    first_step_agrees("pairs", &model, with(DensityPath { couplings: couplings.clone(), ..plain.path.clone() }));
    first_step_agrees("masses", &model, with(DensityPath { masses: masses.clone(), ..plain.path.clone() }));
    first_step_agrees("both", &model, with(DensityPath { couplings, masses, ..plain.path.clone() }));
}

/// The probes of `step`: component i of probe k is number k·dim + i of its row.
fn drawn_probes(training: &Training, step: u64) -> Option<Vec<f64>> {
    let (n, dim, k) = (training.n_interior, training.architecture.dim, training.laplacian.n_probes);
    let word = |row: usize, number: usize, n_words: usize| {
        let counter = row * n_words.div_ceil(4) + number / 4;
        words(SEED, Purpose::Probe, step, counter as u32)[number % 4]
    };
    let value = |row: usize, number: usize| match training.laplacian.rule {
        LaplacianRule::Rademacher => {
            let word = word(row, number / 32, (k * dim).div_ceil(32));
            1.0 - 2.0 * f64::from(word >> (number % 32) & 1)
        }
        _ => {
            let pair = number / 2 * 2;
            f64::from(normal_pair(word(row, pair, k * dim), word(row, pair + 1, k * dim))[number % 2])
        }
    };
    if training.laplacian.rule == LaplacianRule::Exact {
        return None;
    }
    let rows = |k: usize| (0..n).flat_map(move |row| (0..dim).map(move |i| (row, k * dim + i)));
    Some((0..k).flat_map(rows).map(|(row, number)| value(row, number)).collect())
}

/// The same with diffusion, for every rule of the Laplacian; 2 · 37 components exceed one counter
/// and one word.
#[test]
fn a_step_takes_the_gradient_of_the_documented_probes() {
    for (rule, n_probes) in [(LaplacianRule::Rademacher, 2), (LaplacianRule::Gaussian, 3), (LaplacianRule::Exact, 1)] {
        for schedule in [SigmaSchedule::Constant, SigmaSchedule::OneMinusT] {
            let objective = Objective { sigma: 0.8, sigma_schedule: schedule, growth: 0.2, ..Objective::default() };
            let model = model(37, &[20, 33], Activation::Silu, Head::Quadratic, TimeEmbedding::Raw, objective);
            let mut training = training(&model, Interpolant::Linear, TimeRule::Uniform);
            training.laplacian = Laplacian { rule, n_probes };
            training.optimizer.beta1 = 0.0;
            training.optimizer.clip_norm = None;
            let batch = Batch { probe: drawn_probes(&training, 3), ..drawn(&training, 3) };
            let want = ReferenceEngine.loss_gradient(&model, &batch).expect("evaluates");
            let state = TrainState { step: 3, ..TrainState::initial(model.parameters.clone()) };
            let mut trainer = CpuEngine::new(2).trainer(training, state).expect("a trainer");
            let mut records = Vec::new();
            trainer.steps(1, &mut records).expect("a step");
            let gradient: Vec<f64> =
                trainer.state().expect("a state").action.moment1.iter().map(|&m| f64::from(m)).collect();
            assert_close(&format!("gradient, {rule:?} {schedule:?}"), &gradient, &want.gradient, 5e-5);
            let size = want.loss.abs().max(1.0);
            assert!(
                (records[0].loss - want.loss).abs() < 2e-5 * size,
                "{rule:?}: {}, not {}",
                records[0].loss,
                want.loss
            );
        }
    }
}

/// With β₁ = 0 and no clipping the first moment is the gradient of the step.
#[test]
fn a_step_takes_the_gradient_of_the_documented_batch() {
    for head in Head::ALL {
        for path in [Interpolant::Linear, Interpolant::Nearest] {
            for time_rule in [TimeRule::LowDiscrepancy, TimeRule::Uniform] {
                let name = format!("{head:?} {path:?} {time_rule:?}");
                let model = small_model(head, embeddings()[1].clone());
                let mut training = training(&model, path, time_rule);
                training.optimizer.beta1 = 0.0;
                training.optimizer.clip_norm = None;
                let state = TrainState { step: 5, ..TrainState::initial(model.parameters.clone()) };
                let batch = drawn(&training, 5);
                let want = ReferenceEngine.loss_gradient(&model, &batch).expect("evaluates");

                let mut trainer = CpuEngine::new(2).trainer(training, state).expect("a trainer");
                let mut records = Vec::new();
                trainer.steps(1, &mut records).expect("a step");
                let gradient: Vec<f64> =
                    trainer.state().expect("a state").action.moment1.iter().map(|&m| f64::from(m)).collect();
                assert_close(&format!("gradient, {name}"), &gradient, &want.gradient, 2e-5);

                let StepRecord { step, loss, boundary0, boundary1, interior, kinetic, gradient_norm, .. } = records[0];
                assert_eq!(step, 5);
                assert!((loss - want.loss).abs() < 1e-5, "{name}: {loss}, not {}", want.loss);
                assert!((boundary0 + boundary1 + interior - loss).abs() < 1e-12, "{name}");
                let norm = want.gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
                assert!((gradient_norm / norm - 1.0).abs() < 1e-5, "{name}: {gradient_norm}, not {norm}");
                let squares = want.interior.grad_s.iter().map(|g| g * g).sum::<f64>();
                let energy = 0.5 * squares / batch.t.len() as f64;
                assert!((kinetic / energy - 1.0).abs() < 1e-5, "{name}: {kinetic}, not {energy}");
            }
        }
    }
}

fn run(threads: usize, training: &Training, state: TrainState, chunks: &[u64]) -> (TrainState, Vec<StepRecord>) {
    let mut trainer = CpuEngine::new(threads).trainer(training.clone(), state).expect("a trainer");
    let mut records = Vec::new();
    for &n in chunks {
        trainer.steps(n, &mut records).expect("steps");
    }
    (trainer.state().expect("a state"), records)
}

#[test]
fn every_thread_count_and_every_division_into_calls_leaves_the_same_bits() {
    for head in Head::ALL {
        let model = small_model(head, TimeEmbedding::Raw);
        let training = training(&model, Interpolant::Linear, TimeRule::LowDiscrepancy);
        let start = TrainState::initial(model.parameters.clone());
        let (state, records) = run(1, &training, start.clone(), &[11]);
        assert_eq!(state.step, 11);
        assert_eq!(records.len(), 11);
        assert_ne!(state.action.parameters, start.action.parameters);
        for threads in [2, 3, 7] {
            assert_eq!(run(threads, &training, start.clone(), &[11]), (state.clone(), records.clone()), "{threads}");
        }
        assert_eq!(run(2, &training, start.clone(), &[1, 4, 0, 6]), (state.clone(), records));
        let (half, _) = run(2, &training, start, &[5]);
        assert_eq!(run(1, &training, half, &[6]).0, state);
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_before_the_update() {
    let model = small_model(Head::Quadratic, TimeEmbedding::Raw);
    let mut training = training(&model, Interpolant::Linear, TimeRule::Uniform);
    training.optimizer.learning_rate = LearningRate::constant(1e30);
    let start = TrainState::initial(model.parameters.clone());
    let (mut trainer, mut records) = (CpuEngine::new(2).trainer(training, start).expect("a trainer"), Vec::new());
    let error = trainer.steps(50, &mut records).expect_err("the loss is lost");
    let (state, last) = (trainer.state().expect("a state"), records.last().expect("a record"));
    assert!(matches!(error, Error::NotFinite { step, .. } if step == last.step), "{error}");
    assert!(records.len() < 50, "the run went on");
    assert!(!(last.loss.is_finite() && last.gradient_norm.is_finite()));
    assert_eq!(state.step, last.step, "the failed step does not count");
    assert!(state.action.parameters.iter().all(|p| p.is_finite()));
}

#[test]
fn training_that_cannot_work_is_refused() {
    let model = small_model(Head::Scalar, TimeEmbedding::Raw);
    let good = training(&model, Interpolant::Linear, TimeRule::Uniform);
    let state = TrainState::initial(model.parameters.clone());
    let engine = CpuEngine::new(1);
    let refused = |training: Training, state: TrainState, field: &str| {
        let error = engine.trainer(training, state).err().expect("an error").to_string();
        assert!(error.contains(field), "{error}");
    };
    refused(Training { n_interior: 0, ..good.clone() }, state.clone(), "interior_rows");
    refused(Training { n_boundary: 0, ..good.clone() }, state.clone(), "boundary_rows");
    let short = NetworkState { ema: vec![0.0; 3], ..state.action.clone() };
    refused(good.clone(), TrainState { action: short, ..state.clone() }, "ema");
    let bent = TrainState { bend: Some(state.action.clone()), ..state.clone() };
    refused(good.clone(), bent, "bend");
    let one_time =
        Snapshots { dim: 3, times: vec![0.0], offsets: vec![0, 2], samples: vec![0.0; 6], mass: Default::default() };
    let with = |path: DensityPath| Training { path, ..good.clone() };
    let on = |snapshots| DensityPath { snapshots: Arc::new(snapshots), ..good.path.clone() };
    refused(with(on(one_time)), state.clone(), "snapshots");
    let two_d = Snapshots { dim: 2, ..snapshots(2) };
    refused(with(on(two_d)), state.clone(), "dimension");
    let none = Laplacian { n_probes: 0, ..Laplacian::default() };
    refused(Training { laplacian: none, ..good.clone() }, state.clone(), "probes");
    refused(with(DensityPath { masses: Some(vec![1.0, 0.0, 2.0]), ..good.path.clone() }), state.clone(), "masses");
    let path = |interpolant| DensityPath { interpolant, ..good.path.clone() };
    refused(with(DensityPath { couplings: Some(Arc::default()), ..good.path.clone() }), state.clone(), "couplings");
    refused(with(path(Interpolant::Spline)), state.clone(), "spline");
    let limit = Spline { limit: 0.5, ..Spline::default() };
    refused(with(DensityPath { spline: limit, ..good.path.clone() }), state.clone(), "limit");
    refused(with(path(Interpolant::Learned)), state.clone(), "bend");
    refused(with(path(Interpolant::GenerativeVp)), state.clone(), "starts from noise");
    refused(
        Training { estimator: Estimator::Regression, ..with(path(Interpolant::Nearest)) },
        state.clone(),
        "estimator",
    );
    refused(Training { estimator: Estimator::Weak { intervals: 0 }, ..good.clone() }, state.clone(), "weak_intervals");
    refused(good.clone(), TrainState { time_moments: Vec::new(), ..state }, "time_moments");
}

/// W₁ between q₁ and q₀ moved by two models: with the moving average of a default run of `steps`
/// steps, and with its parameters.
fn distances_of_average_and_parameters(steps: u64, seed: u64) -> [f64; 2] {
    let problem = AnalyticProblem::named("anisotropic").expect("a problem");
    let dim = problem.dim();
    let snapshots = problem.snapshots(&[0.0, 1.0], 500, seed);
    let training = Training {
        n_interior: 64,
        n_boundary: 64,
        seed,
        ..Training::new(Architecture::new(dim, [16; 2]), DensityPath::linear(snapshots)).for_steps(steps)
    };
    let engine = CpuEngine::new(1);
    let (architecture, objective) = (training.architecture.clone(), training.objective.clone());
    let mut trainer = engine.start(training).expect("a trainer");
    trainer.steps(steps, &mut ()).expect("steps");
    let NetworkState { parameters, ema, .. } = trainer.state().expect("a state").action;
    let ends = problem.snapshots(&[0.0, 1.0], 300, 1000 + seed);
    [ema, parameters].map(|parameters| {
        let (architecture, objective) = (architecture.clone(), objective.clone());
        let model =
            Model { architecture, coordinates: Coordinates::identity(dim), objective, parameters, growth_head: None };
        let plan = Solver::rk4(20).plan(0.0, vec![1.0]);
        let mut positions = ends.rows(0).to_vec();
        engine.integrate(&model, &plan, Trajectories::of(&mut positions), &()).expect("integrates");
        wasserstein1(dim, &positions, ends.rows(1), &()).expect("solves")
    })
}

/// The model of a run of any length, which is the average, is as good as the final parameters.
#[test]
fn the_average_forgets_the_start_in_a_run_of_any_length() {
    for (steps, tolerance) in [(50, 0.10), (200, 0.03), (1000, 0.03), (10_000, 0.03)] {
        let mut ratios: Vec<f64> = (1..=5)
            .map(|seed| {
                let [average, parameters] = distances_of_average_and_parameters(steps, seed);
                average / parameters
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        assert!((ratios[2] - 1.0).abs() <= tolerance, "{steps} steps: average against parameters {ratios:.3?}");
    }
}

/// A cloud of 200 rows, and the same cloud moved by (0.8, -0.5).
fn moved_cloud() -> Snapshots {
    let start: Vec<f32> = Numbers::new(31).take(400).iter().map(|x| *x as f32).collect();
    let end = start.chunks_exact(2).flat_map(|x| [x[0] + 0.8, x[1] - 0.5]);
    let samples = start.iter().copied().chain(end).collect();
    Snapshots { dim: 2, times: vec![0.0, 1.0], offsets: vec![0, 200, 400], samples, mass: Default::default() }
}

/// Actions b·x, with known velocity, on pairs that move by (0.8, -0.5) and on pairs that cross.
#[test]
fn what_a_model_leaves_unexplained_is_its_distance_to_the_velocity_of_the_path() {
    let path = |pairs: bool, interpolant| {
        let snapshots = moved_cloud();
        let couplings =
            pairs.then(|| Arc::new(optimal_couplings(&snapshots, 200, 1, &Stage::default()).expect("couplings")));
        DensityPath { couplings, ..DensityPath::new(interpolant, snapshots) }
    };
    let linear = |objective: Objective, b: [f32; 2]| {
        let mut model = model(2, &[4], Activation::Tanh, Head::Dot, TimeEmbedding::Raw, objective);
        model.parameters.fill(0.0);
        let n = model.parameters.len();
        model.parameters[n - 2..].copy_from_slice(&b);
        model
    };
    let measure = |threads, model: &Model, path: &DensityPath| {
        Unexplained::measure(&CpuEngine::new(threads), model, path, 4096, 5).expect("measures")
    };
    let share = |model: &Model, path: &DensityPath| {
        let unexplained = measure(1, model, path).expect("a share");
        assert_eq!(unexplained.independent_pairs, path.couplings.is_none());
        assert_eq!(measure(3, model, path), Some(unexplained), "another number of threads");
        unexplained.share
    };
    let plain = Objective::default();
    let pairs = path(true, Interpolant::Linear);
    assert!(share(&linear(plain.clone(), [0.8, -0.5]), &pairs) < 1e-10);
    assert!((share(&linear(plain.clone(), [0.4, -0.25]), &pairs) - 0.25).abs() < 1e-6);
    assert_eq!(share(&linear(plain.clone(), [0.0, 0.0]), &pairs), 1.0);
    // With another cost the velocity is ∇H(∇s): here p|p|.
    let cubic = Objective { cost_exponent: 3.0, ..plain.clone() };
    assert!(share(&linear(cubic, [0.8f32.sqrt(), -0.5f32.sqrt()]), &pairs) < 1e-10);
    // Differences of two uniform coordinates have the variance 2/3 each, which no function of x and
    // t explains.
    let crossing = 4.0 / 3.0;
    let expected = crossing / (crossing + 0.89);
    let got = share(&linear(plain.clone(), [0.8, -0.5]), &path(false, Interpolant::Linear));
    assert!((got / expected - 1.0).abs() < 0.1, "{got}, not {expected}");
    // Without a velocity, or with one that is not the model's drift.
    let diffusive = Objective { sigma: 0.5, ..plain.clone() };
    assert_eq!(measure(1, &linear(diffusive, [0.8, -0.5]), &pairs), None);
    assert_eq!(measure(1, &linear(plain, [0.8, -0.5]), &path(false, Interpolant::Nearest)), None);
}

/// The observer of a run receives the value; for pairs of optimal transport it is small.
#[test]
fn a_run_says_what_its_model_leaves_unexplained() {
    #[derive(Default)]
    struct Listener(Vec<Option<Unexplained>>, Vec<String>);
    impl Observer for Listener {
        fn finished(&mut self, unexplained: Option<Unexplained>) {
            self.0.push(unexplained);
        }
        fn warning(&mut self, message: &str) {
            self.1.push(message.into());
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data = moved_cloud();
    let mut csv = String::from("times,x,y\n");
    for (row, x) in data.samples.chunks_exact(2).enumerate() {
        csv += &format!("{},{},{}\n", row / 200, x[0], x[1]);
    }
    std::fs::write(folder.path().join("data.csv"), csv).expect("written");
    let text = "[data]\npath = \"data.csv\"\n[model]\nhidden = [32]\n[training]\nsteps = 400\ninterior_rows = 256\n\
                learning_rate = 0.01\nema_decay = 0.9\n";
    std::fs::write(folder.path().join("run.toml"), text).expect("written");
    let run = |pairing: &str| {
        let overrides = [format!("objective.pairing={pairing}"), "training.warmup_steps=20".into()];
        let mut config = Config::read(&folder.path().join("run.toml"), &overrides).expect("reads");
        config.output.folder = folder.path().join(pairing);
        let mut listener = Listener::default();
        let outcome = train(&CpuEngine::new(1), &config, Existing::Refuse, 1, &mut listener).expect("trains");
        assert_eq!(outcome, Outcome::Finished);
        assert_eq!(listener.1, Vec::<String>::new());
        let [Some(unexplained)] = listener.0[..] else { panic!("{:?}", listener.0) };
        unexplained
    };
    let [paired, independent] = ["ot", "independent"].map(run);
    assert!(paired.share < 0.02 && !paired.independent_pairs, "{paired:?}");
    assert!((0.4..0.7).contains(&independent.share) && independent.independent_pairs, "{independent:?}");
    assert!(independent.to_string().contains("cannot be explained"), "{independent}");
}
