//! The library from memory to particles: snapshots, training and models in data units.

use crate::common::{Numbers, assert_close, model};
use action_matching::config::PathConfig;
use action_matching::density_path::TimeRule;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::engine::{Cosine, StepRecord, TrainState};
use action_matching::integrate::{Method, StepControl};
use action_matching::prelude::*;
use action_matching::{Destination, DeviceKind, InputKind, Origin, Replace, memory};

/// Not a multiple of a tile of rows on any engine.
const N: usize = 131;

/// A model in coordinates of its own: a scale for each dimension, far from 0, over 5 time units
/// from −3.
fn far_model(dim: usize, embedding: TimeEmbedding, objective: Objective) -> Model {
    let coordinates = Coordinates {
        mean: (0..dim).map(|i| 40.0 - 25.0 * i as f64).collect(),
        scale: (0..dim).map(|i| [0.5, 30.0, 4.0][i % 3]).collect(),
        time_range: [-3.0, 2.0],
        columns: None,
        conditions: Vec::new(),
    };
    Model { coordinates, ..model(dim, &[37, 20], Activation::Tanh, Head::Scalar, embedding, objective) }
}

/// N points around the mean of `model`, in data units.
fn points(model: &Model, seed: u64) -> Vec<f64> {
    let Coordinates { mean, scale, .. } = &model.coordinates;
    let affine = mean.iter().zip(scale).cycle();
    Numbers::new(seed).take(N * mean.len()).iter().zip(affine).map(|(y, (mean, scale))| mean + scale * y).collect()
}

/// vᵢ = scaleᵢ / T · ∂ᵢH(p) with pᵢ = scaleᵢ ∂s/∂xᵢ, where the slope is by differences in data
/// units.
#[test]
fn velocity_is_the_slope_of_the_potential_in_data_units() {
    for (dim, q) in [(1, 2.0), (3, 2.0), (3, 2.5), (5, 1.5)] {
        let objective = Objective { cost_exponent: q, growth: 0.4, ..Objective::default() };
        let model = far_model(dim, TimeEmbedding::Fourier { frequencies: vec![0.5, 1.25] }, objective);
        let (x, t) = (points(&model, 5), 0.7);
        let potential = |x: &[f64]| model.potential(&ReferenceEngine, x, t).expect("evaluates");
        let mut expected = vec![0.0; x.len()];
        for i in 0..dim {
            let scale = model.coordinates.scale[i];
            let moved = |h: f64| -> Vec<f64> {
                x.iter().enumerate().map(|(k, &x)| if k % dim == i { x + h * scale } else { x }).collect()
            };
            let (right, left) = (potential(&moved(1e-5)), potential(&moved(-1e-5)));
            for (row, (right, left)) in right.iter().zip(&left).enumerate() {
                let p = (right - left) / 2e-5;
                expected[row * dim + i] = scale / 5.0 * p.abs().powf(q - 1.0).copysign(p);
            }
        }
        let velocity = model.velocity(&ReferenceEngine, &x, t).expect("evaluates");
        assert_close(&format!("velocity, {dim} dimensions, q = {q}"), &velocity, &expected, 1e-6);
        // An engine in f32, from points in f32: the same but for rounding.
        let narrow: Vec<f32> = x.iter().map(|&x| x as f32).collect();
        let velocity: Vec<f32> = model.velocity(&CpuEngine::new(2), &narrow, t).expect("evaluates");
        let velocity: Vec<f64> = velocity.iter().map(|&v| f64::from(v)).collect();
        assert_close(&format!("velocity in f32, {dim} dimensions, q = {q}"), &velocity, &expected, 2e-4);
    }
}

/// (x(t + h) − x(t − h)) / 2h along the flow, both ways in time.
#[test]
fn the_flow_moves_with_the_velocity() {
    let model = far_model(3, TimeEmbedding::Raw, Objective { cost_exponent: 2.5, ..Objective::default() });
    let (engine, x, t, h) = (CpuEngine::new(2), points(&model, 6), -1.5, 0.1);
    let flow = |times| model.flow(&engine, &x, times, Solver::rk4(4)).expect("moves");
    let (later, earlier) = (flow([t, t + h]), flow([t, t - h]));
    let difference: Vec<f64> =
        later.iter().zip(&earlier).map(|(later, earlier)| (later - earlier) / (2.0 * h)).collect();
    let velocity = model.velocity(&ReferenceEngine, &x, t).expect("evaluates");
    // Compared in units of the scales, so that the largest does not hide the others.
    let scaled = |v: &[f64]| -> Vec<f64> {
        v.iter().zip(model.coordinates.scale.iter().cycle()).map(|(v, scale)| v / scale).collect()
    };
    assert_close("velocity", &scaled(&difference), &scaled(&velocity), 1e-3);
    let back = model.flow(&engine, &flow([-3.0, 2.0]), [2.0, -3.0], Solver::default()).expect("moves");
    assert_close("there and back", &scaled(&back), &scaled(&x), 1e-3);
    assert!(model.flow::<f64>(&engine, &[], [0.0, 1.0], Solver::rk4(4)).expect("moves").is_empty());
}

/// d log w / dt = λ s / T.
#[test]
fn weights_grow_with_the_potential() {
    let growth = 0.3;
    let model = far_model(2, TimeEmbedding::Raw, Objective { growth, ..Objective::default() });
    let (engine, x, t, h) = (CpuEngine::new(1), points(&model, 7), 0.5, 0.05);
    let log_weights = |to: f64| -> Vec<f64> {
        let (positions, weights) = model.weighted_flow(&engine, &x, [t, to], Solver::rk4(4)).expect("moves");
        assert_eq!((positions.len(), weights.len()), (2 * N, N));
        weights.into_iter().map(f64::ln).collect()
    };
    let difference: Vec<f64> = log_weights(t + h)
        .iter()
        .zip(log_weights(t - h))
        .map(|(later, earlier)| (later - earlier) / (2.0 * h))
        .collect();
    let rate = model.growth_rate(&ReferenceEngine, &x, t).expect("evaluates");
    assert_close("growth", &difference, &rate, 1e-3);
    let potential = model.potential(&ReferenceEngine, &x, t).expect("evaluates");
    let of_potential: Vec<f64> = potential.iter().map(|s| growth * s / 5.0).collect();
    assert_close("growth of the potential", &rate, &of_potential, 1e-12);
    let error = model.flow(&engine, &x, [0.0, 1.0], Solver::rk4(4)).expect_err("weights are lost").to_string();
    assert!(error.contains("growth") && error.contains("weighted_flow"), "{error}");
    // Without growth all weights are 1.
    let model = Model { objective: Objective::default(), ..model };
    assert!(model.growth_rate(&ReferenceEngine, &x, t).expect("evaluates").iter().all(|&rate| rate == 0.0));
    let (positions, weights) = model.weighted_flow(&engine, &x, [0.0, 1.0], Solver::rk4(4)).expect("moves");
    assert!(weights.iter().all(|&w| w == 1.0));
    assert_eq!(positions, model.flow(&engine, &x, [0.0, 1.0], Solver::rk4(4)).expect("moves"));
}

/// With diffusion a flow needs noise, and has that of the model in data units: variance σ² scale²
/// Δt / T.
#[test]
fn diffusion_needs_noise_and_has_that_of_the_model() {
    let sigma = 0.8;
    let mut model = far_model(2, TimeEmbedding::Raw, Objective { sigma, ..Objective::default() });
    model.parameters.fill(0.0); // no drift
    let engine = CpuEngine::new(2);
    let start: Vec<f64> = model.coordinates.mean.repeat(4001);
    let moved = model.flow(&engine, &start, [-3.0, -1.0], Solver::suited_to(&model.objective, 3)).expect("moves");
    for i in 0..2 {
        let want = sigma * sigma * model.coordinates.scale[i].powi(2) * 2.0 / 5.0;
        let square = |k: usize| (moved[2 * k + i] - start[i]).powi(2);
        let variance = (0..4001).map(square).sum::<f64>() / 4001.0;
        // Five standard deviations of a variance of so many normals.
        assert!((variance / want - 1.0).abs() < 5.0 * (2.0f64 / 4001.0).sqrt(), "{variance}, not {want}");
    }
    for (solver, times) in [(Solver::rk4(10), [0.0, 1.0]), (Solver::euler_maruyama(10, 0), [1.0, 0.0])] {
        let error = model.flow(&engine, &start, times, solver).expect_err("cannot be").to_string();
        assert!(error.contains("sigma"), "{error}");
    }
}

#[test]
fn points_and_coordinates_that_cannot_be_are_refused() {
    let (model, engine) = (far_model(3, TimeEmbedding::Raw, Objective::default()), CpuEngine::new(1));
    let refused = |model: &Model, x: &[f64], t: f64| {
        let errors = [
            model.potential(&engine, x, t).expect_err("refused").to_string(),
            model.velocity(&engine, x, t).expect_err("refused").to_string(),
            model.flow(&engine, x, [t, 1.0], Solver::rk4(2)).expect_err("refused").to_string(),
        ];
        assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
        errors[0].clone()
    };
    assert_eq!(refused(&model, &[0.0; 7], 0.0), "points: expected 6 values, got 7");
    let error = refused(&model, &[0.0, 0.0, 0.0, 0.0, f64::NAN, 0.0], 0.0);
    assert!(error.contains("row 1: column 1, counted from 0, is NaN"), "{error}");
    assert!(refused(&model, &[0.0; 3], f64::INFINITY).contains("time: is inf"));
    let with = |coordinates: Coordinates| Model { coordinates, ..model.clone() };
    let flat = Coordinates { scale: vec![1.0, 0.0, 1.0], ..model.coordinates.clone() };
    assert!(refused(&with(flat), &[0.0; 3], 0.0).contains("scale"));
    let instant = Coordinates { time_range: [1.0, 1.0], ..model.coordinates.clone() };
    assert!(refused(&with(instant), &[0.0; 3], 0.0).contains("time_range"));
    let error = model.flow(&engine, &[0.0; 3], [0.0, f64::NAN], Solver::rk4(2)).expect_err("refused").to_string();
    assert!(error.contains("NaN"), "{error}");
}

/// Rows of three times whose mean and spread are known, far from 0 and in any order.
fn moving(shift: f32) -> Vec<(f64, Vec<f32>)> {
    let cloud = |t: f64| -> Vec<f32> {
        let numbers = Numbers::new(9).take(2 * N);
        numbers.chunks_exact(2).flat_map(|x| [x[0] as f32 + shift + t as f32, 100.0 * x[1] as f32]).collect()
    };
    [6.0, 2.0, 3.0].map(|t| (t, cloud(t))).to_vec()
}

#[test]
fn standardized_rows_come_back() {
    for rule in
        [Standardization::Isotropic, Standardization::PerDimension, Standardization::Robust, Standardization::None]
    {
        let original = Snapshots::from_rows(2, moving(50.0)).expect("good rows");
        let (snapshots, coordinates) = original.clone().standardize(rule).expect("standardizes");
        assert_eq!(snapshots.times, [0.0, 0.25, 1.0], "{rule:?}");
        assert_eq!(coordinates.time_range, [2.0, 6.0]);
        let mut back = snapshots.samples.clone();
        coordinates.to_data(&mut back);
        assert!(back.iter().zip(&original.samples).all(|(got, want)| (got - want).abs() < 1e-4), "{rule:?}");
        let n = 3.0 * N as f64;
        let column = |i: usize| snapshots.samples.iter().skip(i).step_by(2).map(|&y| f64::from(y));
        let means = [0, 1].map(|i| column(i).sum::<f64>() / n);
        let variances = [0, 1].map(|i| column(i).map(|y| (y - means[i]).powi(2)).sum::<f64>() / n);
        match rule {
            Standardization::Isotropic => assert!((variances[0] + variances[1] - 2.0).abs() < 1e-5, "{variances:?}"),
            Standardization::PerDimension => assert!(variances.iter().all(|v| (v - 1.0).abs() < 1e-5), "{variances:?}"),
            Standardization::Robust => assert!(variances.iter().all(|v| (0.2..5.0).contains(v)), "{variances:?}"),
            Standardization::None => assert_eq!(snapshots.samples, original.samples),
            other => unimplemented!("{other:?}"),
        }
        if matches!(rule, Standardization::Isotropic | Standardization::PerDimension) {
            assert!(means.iter().all(|mean| mean.abs() < 1e-5), "{rule:?}: {means:?}");
        }
    }
}

#[test]
fn snapshots_that_have_no_coordinates_are_refused() {
    let standardize = |rows: Vec<(f64, Vec<f32>)>| Snapshots::from_rows(1, rows).expect("good rows");
    let error =
        |snapshots: Snapshots| snapshots.standardize(Standardization::PerDimension).expect_err("refused").to_string();
    let large = standardize(vec![(0.0, vec![-3e38, 3e38]), (1.0, vec![0.0])]);
    assert!(error(large).contains("column 0, counted from 0: has mean"), "of no model file");
    let broken = Snapshots { samples: vec![f32::NAN; 3], ..standardize(vec![(0.0, vec![1.0, 2.0]), (1.0, vec![0.0])]) };
    assert!(error(broken.clone()).contains("NaN"));
    let error = broken.standardize(Standardization::Robust).expect_err("refused").to_string();
    assert!(error.contains("snapshots: "), "{error}");
    // A dimension without spread keeps scale 1, and one time becomes the end of a generative path.
    let still = standardize(vec![(4.0, vec![7.0; 5])]);
    let (snapshots, coordinates) = still.standardize(Standardization::PerDimension).expect("standardizes");
    assert_eq!((snapshots.times, snapshots.samples), (vec![1.0], vec![0.0; 5]));
    assert_eq!((coordinates.scale, coordinates.time_range), (vec![1.0], [0.0, 1.0]));
}

fn small_training(rule: Standardization) -> (Training, Coordinates) {
    let snapshots = Snapshots::from_rows(2, moving(0.0)).expect("good rows");
    let (snapshots, coordinates) = snapshots.standardize(rule).expect("standardizes");
    let training = Training {
        n_interior: 67,
        n_boundary: 67,
        ..Training::new(Architecture::new(2, [19; 2]), DensityPath::linear(snapshots))
    };
    (training, coordinates)
}

/// Data times are no network times: training on them would draw all rows from the first interval.
#[test]
fn a_path_in_data_times_is_refused() {
    let (training, _) = small_training(Standardization::None);
    let raw = Snapshots::from_rows(2, moving(0.0)).expect("good rows");
    let training = Training { path: DensityPath::linear(raw), ..training };
    let error = CpuEngine::new(1).start(training).err().expect("refused").to_string();
    assert!(error.contains("times from 2 to 6") && error.contains("standardize"), "{error}");
}

#[test]
fn records_go_where_they_are_wanted() {
    let (training, coordinates) = small_training(Standardization::Isotropic);
    let engine = CpuEngine::new(2);
    let mut kept: Vec<StepRecord> = Vec::new();
    let mut first = engine.start(training.clone()).expect("a trainer");
    first.steps(3, &mut kept).expect("steps");
    first.steps(2, &mut ()).expect("steps");
    let mut told = Vec::new();
    let mut second = engine.start(training.clone()).expect("a trainer");
    second.steps(5, &mut |record: StepRecord| told.push(record)).expect("steps");
    assert_eq!(told.iter().map(|record| record.step).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(kept, told[..3]);
    assert_eq!(first.state().expect("a state"), second.state().expect("a state"));
    assert_eq!(first.training().seed, training.seed);
    // The model is the average, in the coordinates given.
    let model = first.model(coordinates.clone()).expect("a model");
    assert_eq!(model.parameters, first.state().expect("a state").action.ema);
    assert_eq!((&model.coordinates, &model.objective), (&coordinates, &training.objective));
    let error = first.model(Coordinates::identity(3)).expect_err("of another dimension").to_string();
    assert!(error.contains("mean"), "{error}");
}

/// Nobody reads the records, and still it is heard.
#[test]
fn a_lost_loss_is_an_error_whoever_reads_the_records() {
    let (mut training, _) = small_training(Standardization::Isotropic);
    training.optimizer.learning_rate = LearningRate::constant(1e30);
    let mut trainer = CpuEngine::new(2).start(training).expect("a trainer");
    for _ in 0..2 {
        let error = trainer.steps(50, &mut ()).expect_err("the loss is lost");
        assert!(matches!(error, Error::NotFinite { .. }), "{error}");
    }
    let state = trainer.state().expect("a state");
    assert!(state.step < 50 && state.action.parameters.iter().all(|p| p.is_finite()));
}

/// Defaults of the library are those of the program, so that library and program learn the same.
#[test]
fn defaults_are_those_of_the_program() {
    let steps = 3000;
    let mut config = Config::default();
    config.training.steps = steps;
    let learned = serde_json::from_str(r#"{"kind": "learned"}"#).expect("a path");
    for path in [PathConfig::Linear, PathConfig::Nearest, learned] {
        let interpolant = path.interpolant();
        config.objective.path = path;
        let path =
            DensityPath::new(interpolant, Snapshots::from_rows(3, [(0.0, [0.0; 3]), (1.0, [1.0; 3])]).expect("rows"));
        let training = Training::new(Architecture::new(3, Architecture::HIDDEN), path).for_steps(steps);
        assert_eq!(training.architecture, config.architecture(3));
        assert_eq!(training.objective, config.objective());
        assert_eq!(training.bend, config.bend(3));
        assert_eq!(training.estimator, config.estimator());
        assert_eq!(training.time_rule, config.objective.time_rule);
        assert_eq!(training.laplacian, config.laplacian());
        assert_eq!(
            (training.n_interior, training.n_boundary),
            (config.training.interior_rows, config.training.boundary_rows)
        );
        assert_eq!(training.optimizer, config.optimizer());
        assert_eq!(training.seed, config.training.seed);
    }
    let cosine = LearningRate::over(100_000).cosine;
    assert_eq!((cosine, LearningRate::over(100_000).warmup_steps), (Some(Cosine { end: 100_000, floor: 0.01 }), 500));
}

/// The first state is that of the seed, on every path, and what is out of range is named, not
/// drawn.
#[test]
fn training_starts_from_its_seed() {
    let (training, _) = small_training(Standardization::Isotropic);
    let state = training.initial_state().expect("a state");
    let parameters = action_matching::model::initial_parameters(&training.architecture, 0);
    assert_eq!(state, TrainState::initial(parameters));
    let other = Training { seed: 1, ..training.clone() }.initial_state().expect("a state");
    assert_ne!(state.action, other.action);
    let learned = DensityPath { interpolant: Interpolant::Learned, ..training.path.clone() };
    let learned = Training { n_interior: 67, ..Training::new(training.architecture.clone(), learned) };
    assert!(learned.initial_state().expect("a state").bend.is_some());
    CpuEngine::new(1).start(learned).expect("a trainer").steps(2, &mut ()).expect("steps");
    let huge = Architecture::new(2, [usize::MAX / 2]);
    let error =
        CpuEngine::new(1).start(Training { architecture: huge, ..training }).err().expect("refused").to_string();
    assert!(error.contains("hidden[0]"), "{error}");
}

/// Pairs of optimal transport of one-dimensional rows keep their order, so a cloud that only moves
/// has one velocity.
#[test]
fn paired_paths_have_the_pairs_of_optimal_transport() {
    let rows = |shift: f32| Numbers::new(3).take(N).iter().map(|&x| x as f32 + shift).collect::<Vec<f32>>();
    let snapshots = || Snapshots::from_rows(1, [(0.0, rows(0.0)), (1.0, rows(4.0))]).expect("rows");
    let path = DensityPath::spline(snapshots()).paired(0, &Stage::default()).expect("pairs");
    path.validate(1).expect("a path");
    for word in (0..64).map(|i| i << 26) {
        let moment = path.moment(TimeRule::Uniform, 0.3);
        let trajectory =
            path.trajectory(moment.left, [0, word, 0, 0], action_matching::density_path::RowKey::default());
        path.point(&trajectory, &moment, |_, _, u| assert!((u - 4.0).abs() < 1e-5, "{u}"));
    }
    let error = DensityPath::nearest(snapshots()).paired(0, &Stage::default()).expect_err("no pairs").to_string();
    assert!(error.contains("no pairs"), "{error}");
}

#[test]
fn solvers_are_the_plans_that_they_name() {
    for (solver, method, control) in [
        (Solver::euler(3), Method::Euler, StepControl::Fixed { steps: 3 }),
        (Solver::heun(3), Method::Heun, StepControl::Fixed { steps: 3 }),
        (Solver::rk4(3), Method::Rk4, StepControl::Fixed { steps: 3 }),
        (Solver::dopri5(0.1, 0.2), Method::Dopri5, StepControl::Adaptive { rtol: 0.1, atol: 0.2 }),
        (Solver::euler_maruyama(3, 8), Method::EulerMaruyama, StepControl::Fixed { steps: 3 }),
        (Solver::stochastic_heun(3, 8), Method::StochasticHeun, StepControl::Fixed { steps: 3 }),
    ] {
        let plan = solver.plan(0.25, vec![0.5, 1.0]);
        assert_eq!((plan.method, plan.control, plan.t0, &plan.save_at[..]), (method, control, 0.25, &[0.5, 1.0][..]));
        assert_eq!(plan.noise.seed, if method.is_stochastic() { 8 } else { 0 });
        let sigma = if method.is_stochastic() { 1.0 } else { 0.0 };
        plan.validate(&Objective { sigma, ..Objective::default() }).expect("a plan");
    }
}

/// Programs tell problems of input apart without reading messages.
#[test]
fn kinds_of_errors_can_be_matched() {
    let place = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &[u8]| {
        let path = place.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    #[track_caller]
    fn expect<T>(outcome: Result<T>, wanted: InputKind, at: &Origin, wanted_field: &str) {
        match outcome.err().expect("an error") {
            Error::Input { kind, origin, field, .. } => {
                assert_eq!((kind, &origin, &field[..]), (wanted, at, wanted_field));
            }
            other => panic!("{other:?}"),
        }
    }
    let absent = place.path().join("absent");
    expect(Model::load(&absent), InputKind::Missing, &Origin::File(absent.clone()), "path");
    for (text, kind, field) in [
        ("data = ", InputKind::Malformed, "line 1"),
        ("data.path = \"a\"\ntraining.stepz = 1", InputKind::Unknown, "training.stepz"),
        ("data.path = \"a\"\nobjective.path = { kind = \"ot\" }", InputKind::Value, "objective.path"),
        (
            "data.path = \"a\"\nobjective = { path = \"spline\", pairing = \"independent\" }",
            InputKind::Conflict,
            "objective.pairing",
        ),
        ("data.path = \"a\"\ntraining.steps = 0", InputKind::Value, "training.steps"),
        ("data.path = \"a\"\nmodel.hidden = [0]", InputKind::Value, "model.hidden[0]"),
        (
            "data.path = \"a\"\nobjective.path = { kind = \"learned\", hidden = [0] }",
            InputKind::Value,
            "objective.path.hidden[0]",
        ),
        ("", InputKind::Missing, "data.path"),
    ] {
        let path = file("run.toml", text.as_bytes());
        expect(Config::read(&path, &[]), kind, &Origin::File(path.clone()), field);
    }
    let table = file("cells.csv", b"t,x\n0,1\n1,2\n");
    let source = |times: &str| DataSource { samples: "x".into(), times: times.into(), ..DataSource::new(&table) };
    let at = Origin::File(table.clone());
    expect(action_matching::data::load(&source("day"), &()), InputKind::Missing, &at, "day");
    let cut = file("cut.safetensors", &[9, 0]);
    expect(Model::load(&cut), InputKind::Malformed, &Origin::File(cut.clone()), "header");
    let nothing: [&str; 0] = [];
    let there = Destination::check(&table, &nothing, Replace::Nothing);
    expect(there.map(drop), InputKind::Exists, &at, "output path");
    let size = memory::require("command line", "-n", memory::bytes(&[usize::MAX, 8]));
    expect(size, InputKind::TooLarge, &Origin::Argument("command line".into()), "-n");
    match CudaEngine::new(999, Precision::default()).err() {
        Some(Error::Device { kind: DeviceKind::Unavailable, device, .. }) => assert_eq!(device, "cuda:999"),
        other => panic!("{other:?}"),
    }
}
