//! Models s(x, t, c): batches of groups of rows, and flows that depend on a condition.

use crate::cli::{SMALL, fails, succeeds};
use crate::common::{assert_close, conditioned, model, revealing_optimizer};
use action_matching::data::{
    DataSource, PointArray, RowGroups, Snapshots, Standardization, draw_gaussian, load, read_points, read_snapshots,
    write_points,
};
use action_matching::density_path::{DensityPath, Group, Groups};
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::engine::{Batch, Differentiate, Engine, Estimator, TrainState, Training};
use action_matching::model::{
    Activation, Architecture, Condition, ConditionValue, Coordinates, Head, Model, TimeEmbedding,
};
use action_matching::objective::{Objective, TimeWeight};
use action_matching::rng::{Purpose, Stream, index, unit_f32, words};
use action_matching::stage::Stage;

const SEED: u64 = 0x1234_5678_9abc_def0;

/// Snapshots at `times`, of `n` points each, of particles that `flow(x, t)` moves from the standard
/// normal distribution in two dimensions.
fn moved(times: &[f64], n: usize, seed: u64, flow: impl Fn([f32; 2], f64) -> [f64; 2]) -> Snapshots {
    let start = draw_gaussian(n, 2, &mut Stream::of_normals(seed, 2));
    let at =
        |t: f64| -> Vec<f32> { start.chunks_exact(2).flat_map(|x| flow([x[0], x[1]], t)).map(|x| x as f32).collect() };
    Snapshots::from_rows(2, times.iter().map(|&t| (t, at(t)))).expect("snapshots")
}

/// Group with straight lines between pairs of optimal transport.
fn group(condition: &[f32], snapshots: Snapshots) -> Group {
    let path = DensityPath::linear(snapshots).paired(1, &Stage::default()).expect("pairs");
    Group { condition: condition.to_vec(), path }
}

/// Three groups of unequal sizes, two condition inputs, for a model of dimension 2.
fn unequal_groups() -> Groups {
    let group = |n: usize, condition: [f32; 2]| {
        let snapshots = moved(&[0.0, 1.0], n, n as u64, |[x, y], t| [f64::from(x) + t, f64::from(y) * (1.0 + t)]);
        Group { condition: condition.to_vec(), path: DensityPath::linear(snapshots) }
    };
    Groups::new(vec![group(11, [0.5, -1.0]), group(40, [-0.25, 0.75]), group(23, [1.5, 0.0])]).expect("groups")
}

/// The first step takes the gradient of the batch that the documented counters draw: a group for
/// each row, its condition, and points of its snapshots.
#[test]
fn a_step_takes_the_gradient_of_the_groups_that_it_draws() {
    let time_weight = TimeWeight::Polynomial { coefficients: vec![1.0, 0.5, -0.25] };
    let objective = Objective { growth: 0.2, time_weight, ..Objective::default() };
    for head in Head::ALL {
        let model = conditioned(&model(2, &[37, 20], Activation::Silu, head, TimeEmbedding::Raw, objective.clone()), 2);
        let groups = unequal_groups();
        let training = Training {
            objective: model.objective.clone(),
            estimator: Estimator::Action { centering: false },
            n_interior: 203,
            n_boundary: 97,
            optimizer: revealing_optimizer(),
            seed: SEED,
            time_rule: action_matching::density_path::TimeRule::Uniform,
            ..Training::under_conditions(model.architecture.clone(), groups.clone())
        };
        let mut batch = Batch { omega0: 1.0, omega1: 1.25, ..Batch::default() };
        let mut drawn = [0; 3];
        let mut group_of = |row: usize| {
            let k = groups.select(words(SEED, Purpose::Group, 0, row as u32)[0]);
            drawn[k] += 1;
            &groups.all()[k]
        };
        let sample = |group: &Group, k: usize, word: u32| -> Vec<f64> {
            let rows = group.path.snapshots.rows(k);
            rows[2 * index(word, rows.len() / 2)..][..2].iter().map(|&x| f64::from(x)).collect()
        };
        let wide = |group: &Group| group.condition.iter().map(|&c| f64::from(c)).collect::<Vec<f64>>();
        for row in 0..training.n_interior {
            let [time, from, to, _] = words(SEED, Purpose::Interior, 0, row as u32);
            let (group, t) = (group_of(row), f64::from(unit_f32(time)));
            let ends = sample(group, 0, from).into_iter().zip(sample(group, 1, to));
            batch.x.extend(ends.map(|(from, to)| from + t * (to - from)));
            batch.t.push(t);
            batch.c.extend(wide(group));
            let (omega, d_omega) = model.objective.time_weight.at(t);
            batch.omega.push(omega);
            batch.d_omega.push(d_omega);
        }
        for row in 0..training.n_boundary {
            let group = group_of(training.n_interior + row);
            let word = |purpose| words(SEED, purpose, 0, row as u32)[0];
            batch.x0.extend(sample(group, 0, word(Purpose::Boundary0)));
            batch.x1.extend(sample(group, 1, word(Purpose::Boundary1)));
            batch.c0.extend(wide(group));
            batch.c1.extend(wide(group));
        }
        assert!(drawn.iter().all(|&n| n > 20), "{drawn:?}");
        let want = ReferenceEngine.loss_gradient(&model, &batch).expect("evaluates");
        let state = TrainState::initial(model.parameters.clone());
        let mut trainer = CpuEngine::new(2).trainer(training, state).expect("a trainer");
        let mut records = Vec::new();
        trainer.steps(1, &mut records).expect("a step");
        let gradient: Vec<f64> = trainer.state().expect("a state").action.moment1.iter().map(|&m| m.into()).collect();
        assert_close(&format!("gradient, {head:?}"), &gradient, &want.gradient, 2e-5);
        assert!((records[0].loss - want.loss).abs() < 1e-5 * want.loss.abs().max(1.0), "{head:?}");
    }
}

/// Where s does not depend on x, every term of the centered loss has its counterpart: its mean is
/// 0, though the groups are of unequal sizes.
#[test]
fn centering_follows_the_groups() {
    let plain = model(2, &[16], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, Objective::default());
    let mut model = conditioned(&plain, 2);
    let first = model.architecture.layers()[0];
    model.parameters[..first.bias].chunks_exact_mut(first.n_in).for_each(|row| row[..2].fill(0.0));
    let training = Training {
        estimator: Estimator::Action { centering: true },
        optimizer: revealing_optimizer(),
        n_interior: 64,
        n_boundary: 64,
        ..Training::under_conditions(model.architecture.clone(), unequal_groups())
    };
    assert_eq!(training.rows_per_step(), 2 * 64 + 2 * 64 + 2 * 3);
    let state = TrainState::initial(model.parameters.clone());
    let mut records = Vec::new();
    CpuEngine::new(1).trainer(training, state).expect("a trainer").steps(300, &mut records).expect("steps");
    let mean = |value: &dyn Fn(usize) -> f64| (0..300).map(value).sum::<f64>() / 300.0;
    let loss = mean(&|k| records[k].loss);
    let deviation = mean(&|k| (records[k].loss - loss).powi(2)).sqrt();
    assert!(loss.abs() < 4.0 * deviation / 300f64.sqrt() && deviation < 0.1, "{loss} ± {deviation}");
    assert!(mean(&|k| records[k].boundary0.abs()) > 0.02, "s is nothing at all");
}

/// A network trained on `groups`.
fn trained(n_inputs: usize, groups: Vec<Group>, steps: u64) -> Model {
    let architecture = Architecture { conditions: n_inputs, ..Architecture::new(2, [32; 2]) };
    let groups = Groups::new(groups).expect("groups");
    let training = Training { n_interior: 256, ..Training::under_conditions(architecture, groups) };
    let mut trainer = CpuEngine::new(1).start(training.for_steps(steps)).expect("a trainer");
    trainer.steps(steps, &mut ()).expect("steps");
    trainer.model(Coordinates::identity(2)).expect("a model")
}

/// Root mean square error of the velocity of `model` under `condition` at points of `snapshots`
/// there, relative to that of `flow`.
fn velocity_error(
    model: &Model,
    condition: &[f32],
    snapshots: &Snapshots,
    flow: impl Fn([f32; 2], f64) -> [f64; 2],
) -> f64 {
    let model = model.under_inputs(condition).expect("a condition");
    let engine = CpuEngine::new(1);
    let (mut error, mut whole) = (0.0, 0.0);
    for (k, &t) in snapshots.times.iter().enumerate() {
        let points = snapshots.rows(k);
        let velocity = model.velocity(&engine, points, t).expect("velocities");
        for (x, v) in points.chunks_exact(2).zip(velocity.chunks_exact(2)) {
            for (v, want) in v.iter().zip(flow([x[0], x[1]], t)) {
                error += (f64::from(*v) - want).powi(2);
                whole += want * want;
            }
        }
    }
    (error / whole).sqrt()
}

/// Particles that spread or contract, x′ = c x, at eight values of c; at two values between them
/// that training did not see, the flow is far nearer to the truth than that of the nearest values.
#[test]
fn a_family_of_linear_flows_is_known_at_values_between_those_of_training() {
    let times: Vec<f64> = (0..9).map(|k| f64::from(k) / 8.0).collect(); // short chords of the curved motion
    let linear = |c: f64| moved(&times, 100, 3, move |[x, y], t| [x, y].map(|x| f64::from(x) * (c * t).exp()));
    let values: Vec<f64> = (0..8).map(|k| -1.0 + 2.0 * f64::from(k) / 7.0).collect();
    let groups = values.iter().map(|&c| group(&[c as f32], linear(c))).collect();
    let model = trained(1, groups, 1500);
    for unseen in [0.5 * (values[1] + values[2]), 0.5 * (values[5] + values[6])] {
        let truth = linear(unseen);
        let field = |[x, y]: [f32; 2], _| [x, y].map(|x| unseen * f64::from(x));
        let found = velocity_error(&model, &[unseen as f32], &truth, field);
        let mut nearest = values.clone();
        nearest.sort_by(|a, b| (a - unseen).abs().total_cmp(&(b - unseen).abs()));
        for &other in &nearest[..2] {
            let of_other = velocity_error(&model, &[other as f32], &truth, field);
            assert!(found < 0.15 && 1.4 * found < of_other, "c = {unseen}: {found}; as c = {other}: {of_other}");
        }
    }
}

/// A cloud that goes round a circle at six rates, followed by splines; at two rates between them
/// that training did not see, the velocity is right within some per cent.
#[test]
fn a_rate_of_rotation_is_known_between_those_of_training() {
    let times: Vec<f64> = (0..7).map(|k| f64::from(k) / 6.0).collect();
    let circle = |rate: f64| {
        moved(&times, 100, 3, move |[x, y], t| {
            let (sin, cos) = (rate * t).sin_cos();
            [f64::from(x) + 2.0 * cos, f64::from(y) + 2.0 * sin]
        })
    };
    let rates: Vec<f64> = (0..6).map(|k| 1.0 + 0.4 * f64::from(k)).collect();
    let inputs = |rate: f64| [(2.0 * (rate - 2.0)) as f32];
    let group = |&rate: &f64| {
        let path = DensityPath::spline(circle(rate)).paired(1, &Stage::default()).expect("pairs");
        Group { condition: inputs(rate).to_vec(), path }
    };
    let groups = Groups::new(rates.iter().map(group).collect()).expect("groups");
    let architecture = Architecture { conditions: 1, ..Architecture::new(2, [64; 2]) };
    let training = Training { n_interior: 128, ..Training::under_conditions(architecture, groups) };
    let mut trainer = CpuEngine::new(1).start(training.for_steps(8000)).expect("a trainer");
    trainer.steps(8000, &mut ()).expect("steps");
    let model = trainer.model(Coordinates::identity(2)).expect("a model");
    for unseen in [1.6, 2.4] {
        let field = |_: [f32; 2], t: f64| [-2.0 * unseen * (unseen * t).sin(), 2.0 * unseen * (unseen * t).cos()];
        let error = velocity_error(&model, &inputs(unseen), &circle(unseen), field);
        assert!(error < 0.05, "rate {unseen}: {error}");
    }
}

/// Two categories with opposite flows: a model without conditions would see no motion at all.
#[test]
fn categories_with_opposite_flows_are_told_apart() {
    let times = [0.0, 1.0];
    let drift = |sign: f64| moved(&times, 200, 5, move |[x, y], t| [f64::from(x) + 2.0 * sign * t, f64::from(y)]);
    let groups = vec![group(&[1.0, 0.0], drift(1.0)), group(&[0.0, 1.0], drift(-1.0))];
    let model = trained(2, groups, 800);
    for (condition, sign) in [([1.0, 0.0], 1.0), ([0.0, 1.0], -1.0)] {
        let error = velocity_error(&model, &condition, &drift(sign), |_, _| [2.0 * sign, 0.0]);
        assert!(error < 0.15, "{condition:?}: {error}");
    }
}

/// A condition without effect costs nothing: the velocities are as good as those of a model that
/// does not know it.
#[test]
fn a_condition_without_effect_does_no_harm() {
    let times = [0.0, 1.0];
    let shear = |seed: u64| moved(&times, 200, seed, |[x, y], t| [f64::from(x) + t, f64::from(y) - 1.5 * t]);
    let field = |_: [f32; 2], _: f64| [1.0, -1.5];
    let groups: Vec<Group> = (0..4).map(|k| group(&[k as f32 - 1.5], shear(k))).collect();
    let path = groups[0].path.clone();
    let model = trained(1, groups, 600);
    let alone = Training { n_interior: 256, ..Training::new(Architecture::new(2, [32; 2]), path) };
    let mut trainer = CpuEngine::new(1).start(alone.for_steps(600)).expect("a trainer");
    trainer.steps(600, &mut ()).expect("steps");
    let plain = velocity_error(&trainer.model(Coordinates::identity(2)).expect("a model"), &[], &shear(9), field);
    for condition in [-1.5, 0.0, 1.5] {
        let error = velocity_error(&model, &[condition], &shear(9), field);
        assert!(error < 1.25 * plain + 0.01, "under {condition}: {error}, without conditions {plain}");
    }
}

/// A group may have fewer times than others: the loss covers its own stretch of time, by every
/// estimator.
#[test]
fn groups_may_cover_a_part_of_the_time() {
    // Velocities 1 and −2 in the first component; the second group is seen from 0.4 on.
    let of = |times: &[f64], v: f64| moved(times, 200, 5, move |[x, y], t| [f64::from(x) + v * t, f64::from(y)]);
    let (whole, late) = (of(&[0.0, 1.0], 1.0), of(&[0.4, 0.8], -2.0));
    for estimator in [Estimator::Regression, Estimator::Action { centering: false }, Estimator::Weak { intervals: 4 }] {
        let groups = Groups::new(vec![group(&[-1.0], whole.clone()), group(&[1.0], late.clone())]).expect("groups");
        let architecture = Architecture { conditions: 1, ..Architecture::new(2, [32; 2]) };
        let training = Training {
            estimator,
            n_interior: 256,
            n_boundary: 256,
            ..Training::under_conditions(architecture, groups)
        };
        let mut trainer = CpuEngine::new(1).start(training.for_steps(1000)).expect("a trainer");
        trainer.steps(1000, &mut ()).expect("steps");
        let model = trainer.model(Coordinates::identity(2)).expect("a model");
        for (condition, snapshots, v) in [(-1.0, &whole, 1.0), (1.0, &late, -2.0)] {
            let error = velocity_error(&model, &[condition], snapshots, |_, _| [v, 0.0]);
            assert!(error < 0.15, "{estimator:?}, under {condition}: {error}");
        }
    }
    // Alone, a path must cover all of the time.
    let training = Training::new(Architecture::new(2, [4]), DensityPath::linear(late));
    let error = CpuEngine::new(1).start(training).err().expect("is refused").to_string();
    assert!(error.contains("have times from 0.4 to 0.8"), "{error}");
}

#[test]
fn networks_and_groups_that_do_not_go_together_are_refused() {
    let start = |training: Training| CpuEngine::new(1).start(training).err().expect("is refused").to_string();
    let architecture = |conditions: usize| Architecture { conditions, ..Architecture::new(2, [4]) };
    let error = start(Training::under_conditions(architecture(1), unequal_groups()));
    assert!(error.contains("condition of a group: expected 1 values, got 2"), "{error}");
    let path = unequal_groups().first().path.clone();
    let error = start(Training::new(architecture(1), path.clone()));
    assert!(error.contains("conditions (inputs, without groups): expected 0"), "{error}");
    let error = start(Training::new(architecture(257), path.clone()));
    assert!(error.contains("conditions: make 257 inputs of the network (use at most 256"), "{error}");
    let nearest = DensityPath { interpolant: action_matching::density_path::Interpolant::Nearest, ..path };
    let error = start(Training { path: nearest, ..Training::under_conditions(architecture(2), unequal_groups()) });
    assert!(error.contains("groups: have another path than the training"), "{error}");
}

/// The data of a folder, with conditions.
fn source(path: std::path::PathBuf, conditions: &[&str]) -> DataSource {
    DataSource { conditions: conditions.iter().map(|name| name.to_string()).collect(), ..DataSource::new(path) }
}

#[test]
fn rows_of_a_table_are_grouped_by_numbers_and_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cells.csv");
    // 1.50 and 1.5 are one dose; rows of a time and of a group are scattered; time 1 is held out.
    let rows = "times,drug,x,dose,y\n2,B,1,1.5,10\n0,A,2,-3,20\n0,B,3,1.50,30\n1,A,4,-3,40\n0,A,5,1.5,50\n\
                2,A,6,-3,60\n1,B,7,1.5,70\n2,A,8,1.5,80\n0,A,9,-3,90\n";
    std::fs::write(&path, rows).expect("written");
    let source = DataSource {
        hold_out: vec![1.0].into(),
        standardize: Standardization::None,
        ..source(path.clone(), &["dose", "drug"])
    };
    let loaded = load(&source, &()).expect("loads");
    assert_eq!(loaded.coordinates.columns, Some(vec!["x".to_string(), "y".to_string()]));
    let groups = &loaded.groups;
    let group = |dose: f64, drug: &str| vec![ConditionValue::from(dose), drug.into()];
    assert_eq!(groups.values, [group(-3.0, "A"), group(1.5, "A"), group(1.5, "B")]);
    assert_eq!(groups.describe(2), "dose = 1.5, drug = B");
    let x = |of: &Snapshots| of.samples.chunks(2).map(|row| row[0]).collect::<Vec<f32>>();
    let of_group = |k: usize| groups.snapshots(&loaded.training, 0, k);
    assert_eq!(
        (x(&of_group(0)), of_group(0).times, of_group(0).offsets),
        (vec![2.0, 9.0, 6.0], vec![0.0, 1.0], vec![0, 2, 3])
    );
    assert_eq!((x(&of_group(1)), x(&of_group(2))), (vec![5.0, 8.0], vec![3.0, 1.0]));
    // Behind the training rows those held out, at time 1: x = 4 of (−3, A) and 7 of (1.5, B).
    assert_eq!(groups.of_rows[7..], [0, 2]);
    assert_eq!(x(&loaded.held_out), [4.0, 7.0]);
    let dose = Condition::Number { name: "dose".into(), mean: 0.0, scale: 1.0, range: [-3.0, 1.5] };
    let drug = Condition::Category { name: "drug".into(), categories: vec!["A".into(), "B".into()] };
    assert_eq!(loaded.coordinates.conditions, [dose, drug]);

    // Standardized over the seven rows of training: three of −3 and four of 1.5.
    let loaded = load(&DataSource { standardize: Standardization::Isotropic, ..source.clone() }, &()).expect("loads");
    let Condition::Number { mean, scale, .. } = &loaded.coordinates.conditions[0] else { panic!("no number") };
    let want = (4.0 * 1.5 - 3.0 * 3.0) / 7.0;
    let variance = (3.0 * (-3.0f64 - want).powi(2) + 4.0 * (1.5f64 - want).powi(2)) / 7.0;
    assert!((mean - want).abs() < 1e-12 && (scale - variance.sqrt()).abs() < 1e-12, "{mean}, {scale}");

    let all = read_snapshots(&source, &()).expect("reads");
    assert_eq!((all.snapshots.times.len(), all.groups.of_rows.len()), (3, 9));
    assert_eq!(read_points(&source, &()).expect("reads").dim, 2);
    let plain = DataSource { conditions: Vec::new(), samples: "x,y".into(), ..source };
    assert_eq!(load(&plain, &()).expect("loads").groups, RowGroups::default());
}

#[test]
fn conditions_of_arrays_may_have_columns() {
    let folder = tempfile::tempdir().expect("a folder");
    let samples: Vec<f32> = (0..16).map(|i| i as f32 * 0.37 % 1.0).collect();
    let times = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0];
    let params: Vec<f32> = (0..8).flat_map(|row| [[0.1, 0.7][row / 4], (row / 2 % 2) as f32]).collect();
    for name in ["a.npz", "a.safetensors"] {
        let path = folder.path().join(name);
        let arrays = [
            PointArray::new("samples", Some(2), &samples[..]),
            PointArray::new("times", None, &times[..]),
            PointArray::new("params", Some(2), &params[..]),
        ];
        write_points(path.as_path(), &arrays).expect("written");
        let groups = load(&source(path, &["params"]), &()).expect("loads").groups;
        assert_eq!(groups.names, ["params_0", "params_1"]);
        // f32 numbers are the decimals that were meant.
        let pairs: Vec<Vec<ConditionValue>> =
            [[0.1, 0.0], [0.1, 1.0], [0.7, 0.0], [0.7, 1.0]].map(|pair| pair.map(ConditionValue::from).to_vec()).into();
        assert_eq!(groups.values, pairs);
        // By time and then in the order of the file.
        assert_eq!(groups.of_rows, [0, 1, 2, 3, 0, 1, 2, 3]);
        // A model alone knows its conditions by these names.
        let path = folder.path().join(name);
        assert_eq!(load(&source(path.clone(), &["params_0", "params_1"]), &()).expect("loads").groups, groups);
        let error = load(&source(path, &["params_2"]), &()).expect_err("is refused").to_string();
        assert!(error.contains("params: has no column for the condition params_2: it has 2"), "{error}");
    }
}

#[test]
fn unusable_conditions_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let table = |text: &str| {
        let path = folder.path().join("cells.csv");
        std::fs::write(&path, text).expect("written");
        path
    };
    let refused = |source: DataSource| load(&source, &()).expect_err("is refused").to_string();
    let rows = "times,x,dose\n0,1,5\n1,2,5\n0,3,6\n1,4,6\n";
    for (text, conditions, message) in [
        (
            rows,
            &["dos"][..],
            "cells.csv: dos: no such column of conditions (set data.conditions to some of its columns: times, x, dose)",
        ),
        ("times,x,dose\n0,1,5\n1,2,\n", &["dose"], "dose: is empty in row 1 (counted from 0)"),
        ("times,x,dose\n0,1,5\n1,2,nan\n", &["dose"], "dose: is NaN in some row"),
        ("times,dose\n0,5\n1,5\n", &["dose"], "cells.csv: samples: "),
    ] {
        let error = refused(source(table(text), conditions));
        assert!(error.contains(message), "{error}, not {message}");
    }
    let named = DataSource { samples: "x,dose".into(), ..source(table(rows), &["dose"]) };
    assert!(refused(named).contains("dose: is a sample and a condition"));
    let each_row: String = (0..3000).map(|i| format!("{},{i},0.{i}\n", i % 2)).collect();
    let error = refused(source(table(&format!("times,x,dose\n{each_row}")), &["dose"]));
    assert!(
        error.contains("dose: has more than 1024 distinct values: a condition is shared by the rows of a group"),
        "{error}"
    );
    let pairs: String = (0..3000).map(|i| format!("{},{i},{},{}\n", i % 2, i % 50, i / 50)).collect();
    let error = refused(source(table(&format!("times,x,a,b\n{pairs}")), &["a", "b"]));
    assert!(error.contains("a, b: have more than 1024 distinct combinations of values"), "{error}");
    // A condition without variation is no error, but said.
    let loaded = load(&source(table(&rows.replace(",6", ",5")), &["dose"]), &()).expect("loads");
    assert!(
        loaded.warnings.iter().any(|warning| warning.contains("dose is the same in every row")),
        "{:?}",
        loaded.warnings
    );

    let pair = folder.path().join("x.npy");
    write_points(pair.as_path(), &[PointArray::new("samples", Some(1), &[1.0f32, 2.0][..])]).expect("written");
    let times = folder.path().join("t.npy");
    write_points(times.as_path(), &[PointArray::new("times", None, &[0.0f64, 1.0][..])]).expect("written");
    let error = refused(DataSource { times_path: Some(times), ..source(pair, &["dose"]) });
    assert!(error.contains("conditions: do not fit into a .npy file"), "{error}");
    let short = folder.path().join("short.npz");
    let arrays =
        [PointArray::new("samples", None, &[1.0f32, 2.0][..]), PointArray::new("times", None, &[0.0f64, 1.0][..])];
    write_points(short.as_path(), &arrays).expect("written");
    assert!(refused(source(short, &["dose"])).contains("short.npz: dose: "));
}

/// A folder with data of two drugs with opposite flows and two doses, and its configuration.
fn workplace() -> (tempfile::TempDir, std::path::PathBuf) {
    let guard = tempfile::tempdir().expect("a folder");
    let folder = guard.path().to_owned();
    let mut csv = String::from("times,x,y,dose,drug\n");
    for row in 0..360 {
        let (time, drug, dose) = (row % 3, row / 3 % 2, row / 6 % 2);
        let (x, y) = ((row as f64 * 0.7).cos(), (row as f64 * 1.3).sin());
        let speed = [1.0, -1.0][drug] * (1.0 + dose as f64);
        csv += &format!("{time},{},{y},{},{}\n", x + speed * time as f64, 0.5 * dose as f64, ["A", "B"][drug]);
    }
    std::fs::write(folder.join("data.csv"), csv).expect("written");
    let config = "[data]\npath = \"data.csv\"\nconditions = [\"dose\", \"drug\"]\n[objective]\npairing = \"ot\"\n";
    std::fs::write(folder.join("run.toml"), config).expect("written");
    (guard, folder)
}

/// Mean of the first column of the table `name`.
fn mean_x(folder: &std::path::Path, name: &str) -> f64 {
    let data = read_snapshots(&DataSource::new(folder.join(name)), &()).expect("reads");
    let last = data.snapshots.times.len() - 1;
    let x = data.positions(last);
    x.chunks(2).map(|row| row[0]).sum::<f64>() * 2.0 / x.len() as f64
}

#[test]
fn the_program_trains_samples_and_evaluates_under_conditions() {
    let (_guard, folder) = workplace();
    let train = [&["train", "run.toml", "--set", "training.steps=1000"][..], &SMALL[2..]].concat();
    succeeds(&folder, &train);
    let model = Model::load(&folder.join("runs/run/model.safetensors")).expect("loads");
    assert_eq!((model.architecture.conditions, model.coordinates.conditions.len()), (3, 2));
    assert!(succeeds(&folder, &["inspect", "runs/run"]).contains("drug, \"A\", \"B\""));

    // Drug A moves by 1 a unit of time at dose 0 and by 2 at dose 0.5, drug B the other way. Dose
    // 0.25 was never seen.
    let sample = ["sample", "runs/run", "--from", "snapshot:0", "--force", "--out", "moved.csv", "--condition"];
    for (dose, drug, from, moved) in
        [("0", "A", "0", 2.0), ("0.5", "A", "0.5", 4.0), ("0.5", "B", "0.5", -4.0), ("0.25", "A", "0", 3.0)]
    {
        let (dose, drug) = (format!("dose={dose}"), format!("drug={drug}"));
        let (from, start) = (format!("dose={from}"), ["--from-condition", &drug, "--from-condition"]);
        succeeds(&folder, &[&sample[..], &[&dose, "--condition", &drug], &start, &[&from]].concat());
        let found = mean_x(&folder, "moved.csv");
        assert!((found - moved).abs() < 0.6, "{dose}, {drug}: moved by {found}");
    }
    let report = succeeds(&folder, &["evaluate", "runs/run", "--json", "scores.json"]);
    for group in ["dose = 0, drug = A", "dose = 0.5, drug = B"] {
        assert!(report.contains(group), "{report}");
    }
    let json = std::fs::read(folder.join("scores.json")).expect("read");
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let groups = json["groups"].as_array().expect("groups");
    assert_eq!(groups.len(), 4);
    // Means over the groups come first, then a line for each.
    assert_eq!((&json["means"][0]["training"], &json["means"][0]["comparisons"]), (&"seen".into(), &8.into()));
    let over = json["means"][0]["sets"][0]["w1"]["mean"].as_f64().expect("a mean");
    let each = groups.iter().map(|group| group["means"][0]["sets"][0]["w1"]["mean"].as_f64().expect("a mean"));
    assert!((each.sum::<f64>() / 4.0 - over).abs() < 1e-12 * over, "{over}");
    assert!(report.starts_with("model ") && report.contains("\n4 groups: means over the groups"), "{report}");
    let place = |part: &str| report.find(part).unwrap_or_else(|| panic!("no {part}: {report}"));
    assert!(place("\nseen: 8 comparisons") < place("\ndose = 0.5, drug = B  "), "{report}");
    assert!(place("\ndose = 0.5, drug = B  ") < place("\ndose = 0, drug = A\n"), "{report}");
    assert!(report.lines().skip(3).all(|line| line.chars().count() <= 80), "{report}");
    for group in groups {
        let (model, still) = (&group["comparisons"][0]["model"]["w1"], &group["comparisons"][0]["no_motion"]["w1"]);
        assert!(model.as_f64() < still.as_f64().map(|w1| 0.5 * w1), "{group}");
    }
    assert_eq!(groups[3]["condition"], serde_json::json!({"dose": 0.5, "drug": "B"}));
    std::fs::copy(folder.join("runs/run/model.safetensors"), folder.join("alone.safetensors")).expect("copied");
    let alone = succeeds(&folder, &["evaluate", "alone.safetensors", "data.csv"]);
    assert!(alone.contains("dose = 0, drug = A"), "{alone}"); // the model knows the names
    let one = succeeds(&folder, &["evaluate", "runs/run", "--condition", "dose=0.5", "--condition", "drug=A"]);
    assert!(one.starts_with("dose = 0.5, drug = A\n") && !one.contains("drug = B"), "{one}");

    let failing = |more: &[&str], parts: &[&str]| {
        fails(&folder, &[&["sample", "runs/run", "--from", "snapshot:0", "--out", "b.csv"], more].concat(), parts);
    };
    failing(&[], &["--condition: is missing", "dose, 0 to 0.5; drug, \"A\", \"B\""]);
    failing(&["--condition", "dose"], &["--condition dose: has no value (write --condition dose=VALUE)"]);
    failing(&["--condition", "dose=0"], &["drug: is missing"]);
    failing(
        &["--condition", "dose=0", "--condition", "drug=C"],
        &["is \"C\", which training did not know (use one of \"A\", \"B\")"],
    );
    failing(
        &["--condition", "dose=0.3", "--condition", "drug=A"],
        &["no rows with dose = 0.3, drug = A", "--from-condition"],
    );
    fails(&folder, &["evaluate", "runs/run", "--condition", "dose=7"], &["no group of rows", "dose = 0, drug = A"]);

    // Numbers outside of training are followed, with a warning.
    let far =
        ["--condition", "dose=2", "--condition", "drug=A", "--from-condition", "dose=0", "--from-condition", "drug=A"];
    let output = crate::cli::amatch(&folder, &[&sample[..7], &far[..]].concat());
    let message = crate::cli::text(&output.stderr);
    assert!(
        output.status.success() && message.contains("dose = 2 lies outside of training (dose, 0 to 0.5)"),
        "{message}"
    );

    // Labels are a part of the fingerprint: with other ones a run is not gone on with.
    let csv = std::fs::read_to_string(folder.join("data.csv")).expect("read");
    std::fs::write(folder.join("data.csv"), csv.replacen(",A", ",B", 1)).expect("written");
    fails(&folder, &[&train[..], &["--resume"]].concat(), &["runs/run"]);
}

#[test]
fn a_group_with_a_single_time_is_refused_by_name() {
    let (_guard, folder) = workplace();
    let csv = std::fs::read_to_string(folder.join("data.csv")).expect("read");
    std::fs::write(folder.join("data.csv"), csv + "2,0.5,0.5,9,A\n").expect("written");
    let parts = ["data.csv: dose = 9, drug = A: has training rows at time 2 only", "leave these rows out"];
    fails(&folder, &[&["train", "run.toml"][..], &SMALL].concat(), &parts);
}

/// What is said of few rows and of mass that finds no partner holds for groups, which are what is
/// trained on.
#[test]
fn groups_are_warned_of() {
    let (_guard, folder) = workplace();
    let csv = std::fs::read_to_string(folder.join("data.csv")).expect("read");
    let loaded = |csv: &str| {
        std::fs::write(folder.join("data.csv"), csv).expect("written");
        load(&source(folder.join("data.csv"), &["dose", "drug"]), &()).expect("loads").warnings
    };
    assert!(!loaded(&csv).iter().any(|warning| warning.contains("single row")));
    let warnings = loaded(&format!("{csv}2,0.5,0.5,9,A\n1,0.5,0.5,9,A\n1,0.5,0.6,9,A\n"));
    let said = "time 2 under dose = 9, drug = A has a single row: a distribution needs many samples";
    assert!(warnings.iter().any(|warning| warning == said), "{warnings:?}");

    std::fs::write(folder.join("data.csv"), csv).expect("written");
    let said = |settings: &[&str]| {
        let train = ["train", "run.toml", "--force", "--set", "training.steps=1"];
        let output = crate::cli::amatch(&folder, &[&train[..], settings, &SMALL[2..]].concat());
        crate::cli::text(&output.stderr)
    };
    let nearest = said(&["--set", "objective.path=nearest", "--set", "objective.pairing=independent"]);
    assert!(nearest.contains("of snapshots of 30 rows under dose = 0, drug = A: its loss has no lower"), "{nearest}");
    let reach = ["--set", "objective.path=linear", "--set", "objective.pairing=wfr", "--set", "objective.growth=40"];
    let reach = said(&[&reach[..], &["--set", "objective.mass=counts"]].concat());
    assert!(reach.contains("pairing wfr: under dose = 0.5, drug = "), "{reach}");
}

/// Rows keep their weights and growth rates in their groups, and those of weight 0 are left out;
/// what is said of weights holds for groups.
#[test]
fn groups_have_the_weights_and_rates_of_their_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cells.csv");
    // Row i: times in turn, drugs in pairs of times, a weight that tells it, none in every fifth.
    let row = |i: usize| (i % 2, ["A", "B"][i / 2 % 2], if i.is_multiple_of(5) { 0.0 } else { 1.0 + i as f64 });
    let rows = (0..80).map(|i| {
        let (time, drug, weight) = row(i);
        format!("{time},{i},{drug},{weight},{}\n", 0.01 * i as f64)
    });
    std::fs::write(&path, format!("times,x,drug,w,rate\n{}", rows.collect::<String>())).expect("written");
    let source = DataSource {
        weights: Some("w".into()),
        growth: Some("rate".into()),
        standardize: Standardization::None,
        ..source(path.clone(), &["drug"])
    };
    let loaded = load(&source, &()).expect("loads");
    let groups = loaded.groups.all(&loaded.training);
    assert_eq!(groups.len(), 2);
    let mut seen = 0;
    for (k, snapshots) in &groups {
        snapshots.validate().expect("whole snapshots");
        for time in 0..2 {
            let (weights, rates) = (snapshots.weights(time).expect("weights"), snapshots.growth(time).expect("rates"));
            assert_eq!(snapshots.total(time), weights.iter().sum::<f64>());
            for ((x, weight), rate) in snapshots.rows(time).iter().zip(weights).zip(rates) {
                let i = *x as usize;
                assert_eq!((row(i).0, row(i).1, row(i).2), (time, ["A", "B"][*k], *weight));
                assert!((rate - 0.01 * i as f64).abs() < 1e-9);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 64, "all rows but those without weight");

    let heavy: String =
        (0..200).map(|i| format!("{},{i},{},{}\n", i % 2, i / 100, if i < 2 { 1000 } else { 1 })).collect();
    std::fs::write(&path, format!("times,x,dose,w\n{heavy}")).expect("written");
    let weighted = DataSource { growth: None, conditions: vec!["dose".into()], ..source };
    let warnings = load(&weighted, &()).expect("loads").warnings.join("\n");
    assert!(warnings.contains("those of time 0 under dose = 0 count as 1 equal ones of 50"), "{warnings}");
}

/// Two clouds, of which one has nine tenths of the weight of drug A and the other that of drug B:
/// start particles, pairs, masses and standing still are those of weighted groups.
#[test]
fn the_program_counts_rows_of_groups_by_their_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut csv = String::from("times,x,drug,w,rate\n");
    for (time, drug, i) in (0..3).flat_map(|time| (0..2).flat_map(move |drug| (0..60).map(move |i| (time, drug, i)))) {
        let x = 0.3 * (f64::from(i * 17 % 60) / 60.0 - 0.5) + if i % 2 == 0 { 2.0 } else { -2.0 };
        let weight = if i % 2 == drug { 9.0 } else { 1.0 };
        csv += &format!("{time},{x},{},{weight},{}\n", ["A", "B"][drug as usize], 0.5 * f64::from(drug));
    }
    std::fs::write(folder.join("cells.csv"), csv).expect("written");
    let config = "[data]\npath = \"cells.csv\"\nconditions = [\"drug\"]\nweights = \"w\"\ngrowth = \"rate\"\n\
                  [model]\nhidden = [16, 16]\n[objective]\npath = \"linear\"\npairing = \"wfr\"\ngrowth = 0.25\n\
                  mass = \"growth\"\n[training]\nsteps = 800\ninterior_rows = 64\nwarmup_steps = 5\n";
    std::fs::write(folder.join("run.toml"), config).expect("written");
    succeeds(folder, &["train", "run.toml", "--device", "cpu", "--out", "run"]);
    for (drug, wanted, growth) in [("A", 0.9, 0.0), ("B", 0.1, 1.0)] {
        let drug = format!("drug={drug}");
        let start = ["sample", "run", "--from", "snapshot:0", "-n", "4000", "--condition", &drug, "--save-at"];
        succeeds(folder, &[&start[..], &["0", "2", "--out", "start.csv", "--force"]].concat());
        let moved = std::fs::read_to_string(folder.join("start.csv")).expect("written");
        let columns: Vec<&str> = moved.lines().next().expect("a header").split(',').collect();
        let of = |name: &str| columns.iter().position(|column| *column == name).expect("a column");
        let rows: Vec<Vec<f64>> =
            moved.lines().skip(1).map(|line| line.split(',').map(|x| x.parse().expect("a number")).collect()).collect();
        let (time, x, weight) = (of("times"), of("x"), of("log_weights"));
        let [first, last] = [0.0, 2.0].map(|t| rows.iter().filter(|row| row[time] == t).collect::<Vec<_>>());
        let share = first.iter().filter(|row| row[x] > 0.0).count() as f64 / 4000.0;
        assert!((share - wanted).abs() < 0.03, "{drug}: {share}");
        let mass = last.iter().map(|row| row[weight].exp()).sum::<f64>() / 4000.0;
        assert!((mass.ln() - growth).abs() < 0.1, "{drug}: mass {mass}, not e^{growth}");
    }
}

/// Paths are compared within groups: `auto` says what it chose, `validate` has its table.
#[test]
fn paths_are_compared_within_groups() {
    let (_guard, folder) = workplace();
    let auto = ["--set", "objective.path=auto", "--set", "objective.pairing=auto", "--set", "training.steps=300"];
    let output = crate::cli::amatch(&folder, &[&["train", "run.toml"][..], &auto, &SMALL[2..]].concat());
    let message = crate::cli::text(&output.stderr);
    assert!(output.status.success() && message.contains("chosen: linear + ot"), "{message}");
    let table =
        succeeds(&folder, &[&["validate", "run.toml"][..], &auto[..4], &["--set", "training.steps=20"]].concat());
    assert!(table.contains("linear + ot") && table.contains("previous, unmoved"), "{table}");
}

/// Rows of a condition may all be held out: training does not know it, and evaluation says so.
#[test]
fn a_condition_that_is_held_out_is_predicted() {
    let (_guard, folder) = workplace();
    let csv = std::fs::read_to_string(folder.join("data.csv")).expect("read");
    let split = |row: &str| if row.ends_with("0.5,B") { "test" } else { "train" };
    let rows: String = csv.lines().skip(1).map(|row| format!("{row},{}\n", split(row))).collect();
    std::fs::write(folder.join("data.csv"), format!("times,x,y,dose,drug,split\n{rows}")).expect("written");
    let hold_out = "data.hold_out={ column = \"split\", value = \"test\" }";
    let train = [&["train", "run.toml", "--set", "training.steps=300", "--set", hold_out][..], &SMALL[2..]].concat();
    succeeds(&folder, &train);
    let report = succeeds(&folder, &["evaluate", "runs/run", "--json", "scores.json"]);
    assert!(report.contains("Snapshots: 3 held out.") && report.contains("Snapshots: 3 seen."), "{report}");
    let json = std::fs::read(folder.join("scores.json")).expect("read");
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    for group in json["groups"].as_array().expect("groups") {
        let is_held_out = group["condition"] == serde_json::json!({"dose": 0.5, "drug": "B"});
        let comparisons = group["comparisons"].as_array().expect("comparisons");
        assert_eq!(comparisons.len(), 2);
        for comparison in comparisons {
            assert_eq!(comparison["held_out"].as_bool(), Some(is_held_out), "{group}");
        }
    }
    // Of a file with the same rows, too, and of a condition that the run's data do not have.
    let other: String =
        csv.lines().filter(|row| row.ends_with("A")).map(|row| row.replace(",0.5,A", ",0.7,A") + "\n").collect();
    std::fs::write(folder.join("other.csv"), format!("times,x,y,dose,drug\n{other}")).expect("written");
    let report = succeeds(&folder, &["evaluate", "runs/run", "other.csv"]);
    let [seen, unseen] = ["Snapshots: 3 seen.", "Snapshots: 3 never seen."].map(|text| report.find(text).expect(text));
    assert!(seen < unseen, "{report}");
}
