//! What `evaluate` compares, and what it says of it.

use std::fs;
use std::path::Path;

use action_matching::data::{AnalyticProblem, Snapshots};
use action_matching::engine::cpu::CpuEngine;
use action_matching::evaluate::{EvaluateOptions, Kind, Labeled, Report, Role, StartFrom, evaluate, evaluate_labeled};
use action_matching::model::{Activation, Head, Model, TimeEmbedding};
use action_matching::objective::Objective;
use action_matching::stage::Stage;

use zip::CompressionMethod;

use super::cli::{SMALL, amatch, fails, succeeds, text, workplace};
use super::common::model;
use super::data_support::{f32s, npy, npz};

fn trained_with(folder: &Path, settings: &[&str]) {
    let sets: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    succeeds(folder, &[&["train", "run.toml", "--force"][..], &SMALL, &sets].concat());
}

/// The line of a report that starts with `start`.
#[track_caller]
fn line<'a>(report: &'a str, start: &str) -> &'a str {
    report.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no line {start:?}: {report}"))
}

#[test]
fn a_forecast_is_called_one() {
    let (_guard, folder) = workplace();
    trained_with(&folder, &["data.hold_out=[2]"]);
    let report = succeeds(&folder, &["evaluate", "runs/run", "--json", "scores.json"]);
    line(&report, "held out, a forecast: 1 comparison");
    line(&report, "seen: 1 comparison");
    line(&report, "1 → 2 * →");
    line(&report, "A forecast is of a time after the last one");
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("scores.json")).expect("readable")).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let last = &json["comparisons"][1];
    assert_eq!((text(&last["training"]), text(&last["kind"])), ("held-out".into(), "forecast".into()), "{json}");
    assert!(last["equal_numbers"]["roll_out"]["energy"].is_f64() && last["equal_numbers"]["next"].is_null(), "{json}");
    assert_eq!(text(&json["means"][0]["training"]), "held-out", "{json}");
    assert!(json["means"][0]["sets"][0]["w1"]["mean"].is_f64(), "{json}");
    assert!(json["verdicts"][0]["deciding"] == "w1" && json["warnings"].is_array(), "{json}");
    assert!(text(&json["sources"]["configuration"]).ends_with("config.toml"), "{json}");
    assert!(text(&json["sources"]["run"]).ends_with("run"), "{json}");
    // Its time lies beyond those of the training.
    let sample = ["sample", "runs/run", "--from", "snapshot:1", "--t1", "2", "--out", "p.csv"];
    let output = super::cli::amatch(&folder, &sample);
    assert!(output.status.success() && super::cli::text(&output.stderr).contains("time 2 lies outside 0 to 1"));
}

#[test]
fn rows_that_were_held_out_are_a_group_of_their_own() {
    let (_guard, folder) = workplace();
    trained_with(&folder, &["data.hold_out={ share = 0.3, seed = 1 }"]);
    let report = succeeds(&folder, &["evaluate", "runs/run"]);
    line(&report, "Snapshots: 3 seen, 4");
    line(&report, "held out rows of times that were seen: 2 comparisons, 15 points a side");
    line(&report, "seen: 2 comparisons, 17 points a side");
    assert_eq!(report.lines().filter(|line| line.starts_with("0 → 1")).count(), 2, "{report}");
}

/// Whatever file is given, its times have the roles that they had for the model.
#[test]
fn times_are_seen_held_out_or_never_seen() {
    let (_guard, folder) = workplace();
    trained_with(&folder, &["data.hold_out=[1]"]);
    let mut csv = String::from("times,x,y\n");
    for row in 0..120 {
        let time = [0.0, 0.5, 1.0, 2.0][row % 4];
        csv += &format!("{time},{},{}\n", (row as f64).sin() + time, (row as f64).cos());
    }
    fs::write(folder.join("other.csv"), csv).expect("written");
    let report = succeeds(&folder, &["evaluate", "runs/run", "other.csv"]);
    line(&report, "Snapshots: 2 seen, 1 held out, 1 never seen.");
    line(&report, "0 → 0.5 ? ");
    line(&report, "0 → 1 * ");
    line(&report, "0 → 2  ");
    line(&report, "plan midpoint");
    // The configuration is gone, and with it all knowledge.
    fs::copy(folder.join("runs/run/model.safetensors"), folder.join("model.safetensors")).expect("copied");
    let report = succeeds(&folder, &["evaluate", "model.safetensors", "other.csv"]);
    line(&report, "Which of the times from 0 to 2 the model was trained on is unknown: there is no");
    line(&report, "seen or not: unknown: 3 comparisons");
    let report = succeeds(&folder, &["evaluate", "model.safetensors", "other.csv", "--held-out", "0.5"]);
    line(&report, "Snapshots: 3 seen, 1 held out.");
    line(&report, "0 → 0.5 * ");
    fs::rename(folder.join("data.csv"), folder.join("moved.csv")).expect("renamed");
    let report = succeeds(&folder, &["evaluate", "runs/run", "other.csv"]);
    line(&report, "Which of these times the model was trained on is unknown, because the data of");
    line(&report, "Snapshots: 4 unknown.");
    fails(&folder, &["evaluate", "runs/run"], &["data.csv"]);
}

/// A model that moves nothing.
fn at_rest(dim: usize) -> Model {
    let mut model = model(dim, &[4], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, Objective::default());
    model.parameters.fill(0.0);
    model
}

fn evaluated(model: &Model, snapshots: &Snapshots, held_out: &[f64], options: &EvaluateOptions) -> Report {
    evaluate(&CpuEngine::new(1), model, snapshots, held_out, options, &Stage::new(2, &())).expect("evaluates")
}

/// A population that is shifted: the plan's midpoint is another sample of the truth, and a model at
/// rest is as good as no motion, which is no warning.
#[test]
fn baselines_stand_beside_what_was_held_out() {
    let shifted = |time: f64| {
        let rows = AnalyticProblem::named("translation").expect("a problem").snapshots(&[0.0], 300, 7 + time as u64);
        let rows: Vec<f32> = rows.samples.iter().map(|x| x + 3.0 * time as f32).collect();
        (time, rows)
    };
    let dim = AnalyticProblem::named("translation").expect("a problem").dim();
    let snapshots = Snapshots::from_rows(dim, [0.0, 1.0, 2.0, 3.0].map(shifted)).expect("snapshots");
    let report = evaluated(&at_rest(dim), &snapshots, &[1.0, 3.0], &EvaluateOptions::default());
    let [middle, seen, last] = &report.comparisons[..] else { panic!("{report}") };
    assert_eq!([middle.kind, seen.kind, last.kind], [Kind::Between, Kind::Between, Kind::Forecast]);
    let equal = middle.equal_numbers.as_ref().expect("enough rows");
    assert_eq!((equal.n_points, middle.n_truth), (150, 300));
    let midpoint = equal.plan_midpoint.expect("between two");
    let floor = middle.sampling_floor.expect("enough rows");
    assert!(midpoint.w1 < 1.3 * floor.w1 && midpoint.energy < Some(0.05), "{midpoint:?} {floor:?}");
    assert_eq!(equal.model, equal.no_motion);
    // Half of the pooled rows are those of the snapshot after.
    let pooled = equal.pooled_neighbors.expect("between two");
    assert!(pooled.w1 != equal.no_motion.w1 && pooled.w1 > 1.5 * midpoint.w1, "{pooled:?}");
    assert!(equal.model.w1 > 4.0 * midpoint.w1, "{equal:?}");
    // The distance of two populations a shift apart does not depend on the number of points.
    assert!((middle.model.energy.expect("enough rows") - equal.model.energy.expect("enough rows")).abs() < 1e-9);
    assert!(seen.equal_numbers.as_ref().is_some_and(|equal| equal.plan_midpoint.is_none() && equal.next.is_none()));
    assert!(last.equal_numbers.as_ref().is_some_and(|equal| equal.plan_midpoint.is_none()));
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    let groups: Vec<(Role, Kind)> = report.means.iter().map(|means| (means.training, means.kind)).collect();
    let wanted = [(Role::HeldOut, Kind::Between), (Role::HeldOut, Kind::Forecast), (Role::Seen, Kind::Between)];
    assert_eq!(groups, wanted);
    let refused =
        evaluate(&CpuEngine::new(1), &at_rest(dim), &snapshots, &[0.0], &EvaluateOptions::default(), &Stage::default());
    assert!(refused.expect_err("the first").to_string().contains("names the first time"));
}

/// Snapshots with more points than exact distances take: all points are compared by sliced W2,
/// which shares no column with W2, and the exact numbers stay as they are.
#[test]
fn large_snapshots_are_also_compared_by_sliced_w2() {
    let dim = 3;
    let shifted = |time: f64| {
        let row = |i: usize| ((i * i) as f64 * 0.37 + time).sin() as f32 + if i % dim == 1 { time as f32 } else { 0.0 };
        (time, (0..400 * dim).map(row).collect::<Vec<f32>>())
    };
    let snapshots = Snapshots::from_rows(dim, [0.0, 1.0, 2.0, 3.0].map(shifted)).expect("snapshots");
    let of = |max_points: usize, max_sliced: usize, threads: usize| {
        let options = EvaluateOptions { max_points, max_sliced, ..EvaluateOptions::default() };
        let stage = Stage::new(threads, &());
        evaluate(&CpuEngine::new(1), &at_rest(dim), &snapshots, &[1.0], &options, &stage).expect("evaluates")
    };
    let report = of(100, 50_000, 2);
    let middle = report.comparisons[0].sliced.as_ref().expect("large snapshots");
    let names: Vec<&str> = middle.sets.iter().map(|set| set.name).collect();
    let all = ["model", "from the first", "no motion", "next", "pooled neighbors", "plan midpoint", "sampling floor"];
    assert_eq!(names, [&all[..], &["model, all points"]].concat());
    // Half of the truth, beside a hundred points of the exact distances.
    assert_eq!((middle.n_points, middle.directions), (200, 498));
    let numbers = |report: &Report| -> Vec<Option<usize>> {
        report.comparisons.iter().map(|each| each.equal_numbers.as_ref().map(|equal| equal.n_points)).collect()
    };
    assert_eq!(numbers(&report), [Some(100); 3]);
    let at = |name: &str| middle.of(name).expect("a distance");
    assert_eq!((at("model"), at("from the first")), (at("no motion"), at("no motion")));
    assert!(at("plan midpoint") < 0.5 * at("no motion") && at("sampling floor") < 0.5 * at("no motion"), "{middle:?}");
    // Between all points the shift of the truth by 1 is nearly all there is.
    assert!((at("model, all points") - 1.0).abs() < 0.05, "{middle:?}");
    // It starts from the snapshot before the last one, which was trained on.
    let last = report.comparisons[2].sliced.as_ref().expect("large snapshots");
    assert!(last.of("next").is_none() && last.of("from the first") > last.of("no motion"), "{last:?}");

    let text = report.to_string();
    line(&text, "sliced W2, 200 points a side");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("the root of d times the mean squared W2 along 498 directions"), "{text}");
    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!(json["comparisons"][0]["sliced"]["sets"][0]["sliced_w2"], at("model"));
    assert_eq!(json["means"][0]["sliced"][0]["sliced_w2"]["mean"], at("model"));
    assert_eq!(json["means"][0]["n_sliced"], serde_json::json!([200, 200]));

    assert_eq!(of(100, 50_000, 1), report, "on any number of threads");
    assert_eq!(of(100, 60, 1).comparisons[0].sliced, None, "fewer than exact distances take");
    let without = of(100, 0, 1);
    let strip = |report: &Report| -> Vec<action_matching::evaluate::Comparison> {
        let strip = |each: &action_matching::evaluate::Comparison| action_matching::evaluate::Comparison {
            sliced: None,
            ..each.clone()
        };
        report.comparisons.iter().map(strip).collect()
    };
    assert_eq!(strip(&report), without.comparisons);
    assert!(!without.to_string().contains("liced"), "{without}");
    // All of a snapshot is in the exact distances.
    assert_eq!(of(400, 50_000, 1).comparisons[0].sliced, None);
}

/// Particles carry weights, and the roll-out from the first snapshot is its flow.
#[test]
fn sliced_w2_has_the_weights_of_particles() {
    let objective = Objective { growth: 0.7, ..Objective::default() };
    let model = model(2, &[9], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, objective);
    let row = |i: usize, time: f64| (i as f64 * 0.37 + time).sin() as f32;
    let at = |time: f64| (time, (0..160).map(|i| row(i, time)).collect::<Vec<f32>>());
    let snapshots = Snapshots::from_rows(2, [0.0, 0.4, 1.0].map(at)).expect("snapshots");
    let of = |start, max_points| {
        let options = EvaluateOptions { start, max_points, ..EvaluateOptions::default() };
        evaluated(&model, &snapshots, &[], &options)
    };
    let (steps, whole) = (of(StartFrom::Previous, 20), of(StartFrom::First, 20));
    for (step, whole) in steps.comparisons.iter().zip(&whole.comparisons) {
        let [step, whole] = [step, whole].map(|each| each.sliced.as_ref().expect("large snapshots"));
        let [rolled, flown] = [step.of("from the first"), whole.of("model")].map(|found| found.expect("a distance"));
        assert!((rolled - flown).abs() < 1e-4 * flown, "{step:?} {whole:?}");
        assert_eq!(whole.of("from the first"), None);
    }
    // W2 of the same weighted points is not less, and not much more in two dimensions.
    let exact = of(StartFrom::Previous, 80);
    for (sliced, exact) in steps.comparisons.iter().zip(&exact.comparisons) {
        let all = sliced.sliced.as_ref().and_then(|scores| scores.of("model, all points")).expect("a distance");
        assert!(all <= exact.model.w2 && all > 0.7 * exact.model.w2, "{all} {:?}", exact.model);
    }
}

/// A roll-out of several intervals is the flow from the first snapshot, weights included.
#[test]
fn the_roll_out_is_the_flow_from_the_first_snapshot() {
    for growth in [0.0, 0.7] {
        let objective = Objective { growth, ..Objective::default() };
        let model = model(2, &[9], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, objective);
        let row = |i: usize, time: f64| (i as f64 * 0.37 + time).sin() as f32;
        let at = |time: f64| (time, (0..80).map(|i| row(i, time)).collect::<Vec<f32>>());
        let snapshots = Snapshots::from_rows(2, [0.0, 0.4, 1.0].map(at)).expect("snapshots");
        let of = |start| evaluated(&model, &snapshots, &[], &EvaluateOptions { start, ..EvaluateOptions::default() });
        let (steps, whole) = (of(StartFrom::Previous), of(StartFrom::First));
        for (step, whole) in steps.comparisons.iter().zip(&whole.comparisons) {
            let rolled = step.equal_numbers.as_ref().and_then(|equal| equal.roll_out).expect("a roll-out");
            let whole = whole.equal_numbers.as_ref().expect("enough rows");
            assert!((rolled.w1 - whole.model.w1).abs() < 1e-4 * whole.model.w1, "{rolled:?} {whole:?}");
            assert!(
                (rolled.energy.unwrap_or(9.0) - whole.model.energy.unwrap_or(0.0)).abs() < 1e-4,
                "{rolled:?} {whole:?}"
            );
            assert_eq!(whole.roll_out, None);
        }
        assert_ne!(steps.comparisons[1].model, whole.comparisons[1].model);
    }
}

/// A first snapshot of few rows limits the numbers of points that a roll-out is compared by.
#[test]
fn a_roll_out_of_few_rows_is_compared_by_as_many() {
    let rows =
        |time: f64, n: usize| (time, (0..n).map(|i| (i as f64 * 0.37 + time).sin() as f32).collect::<Vec<f32>>());
    let snapshots = Snapshots::from_rows(1, [rows(0.0, 20), rows(0.5, 90), rows(1.0, 300)]).expect("snapshots");
    let report = evaluated(&at_rest(1), &snapshots, &[], &EvaluateOptions::default());
    let numbers = report.comparisons.iter().map(|c| c.equal_numbers.as_ref().map(|equal| equal.n_points));
    assert_eq!(numbers.collect::<Vec<_>>(), [Some(20), Some(20)]);
    assert!(report.comparisons[1].equal_numbers.as_ref().is_some_and(|equal| equal.roll_out.is_some()));
}

/// Many snapshots are compared in part, at evenly chosen times, and the report says so.
#[test]
fn many_snapshots_are_compared_in_part() {
    let rows = |k: usize| (k as f64, (0..3).map(|i| (k * 3 + i) as f32).collect::<Vec<f32>>());
    let snapshots = Snapshots::from_rows(1, (0..3000).map(rows)).expect("snapshots");
    let report = evaluated(&at_rest(1), &snapshots, &[], &EvaluateOptions::default());
    assert_eq!((report.comparisons.len(), report.possible_comparisons), (200, 2999));
    assert!(report.to_string().contains("200 of 2999 comparisons, spread evenly over the times"));
    let times: Vec<f64> = report.comparisons.iter().map(|comparison| comparison.to).collect();
    assert!(times[0] < 20.0 && times[199] > 2980.0);
    // Each starts from the snapshot just before.
    assert!(report.comparisons.iter().all(|comparison| comparison.from == Some(comparison.to - 1.0)));
    let all = EvaluateOptions { max_comparisons: usize::MAX, ..EvaluateOptions::default() };
    let few = Snapshots::from_rows(1, (0..300).map(rows)).expect("snapshots");
    assert_eq!(evaluated(&at_rest(1), &few, &[], &all).comparisons.len(), 299);
}

/// Rows left out are compared with the rows of their time that were not: the floor.
#[test]
fn the_floor_of_held_out_rows_is_what_was_trained_on() {
    let rows = |shift: f32| move |k: usize| (k as f64, (0..40).map(|i| i as f32 + shift).collect::<Vec<f32>>());
    let seen = Snapshots::from_rows(1, (0..2).map(rows(0.0))).expect("snapshots");
    let left_out = Snapshots::from_rows(1, (0..2).map(rows(0.25))).expect("snapshots");
    let labeled = [Labeled::all(&seen, Role::Seen), Labeled::all(&left_out, Role::HeldOut)];
    let options = EvaluateOptions::default();
    let report =
        evaluate_labeled(&CpuEngine::new(1), &at_rest(1), &labeled, &options, &Stage::new(1, &())).expect("evaluates");
    let [of_seen, of_rows] = &report.comparisons[..] else { panic!("{report}") };
    assert_eq!((of_seen.kind, of_rows.kind), (Kind::Between, Kind::Rows));
    let points = |comparison: &action_matching::evaluate::Comparison| {
        comparison.equal_numbers.as_ref().map_or(0, |equal| equal.n_points)
    };
    assert_eq!((points(of_seen), points(of_rows)), (20, 40));
    assert!((of_rows.sampling_floor.expect("a floor").w1 - 0.25).abs() < 1e-6);
    assert!((of_rows.model.w1 - 0.25).abs() < 1e-6);
}

/// Particles are under names of their own, whatever a run calls its samples and times, and without
/// its other columns.
#[test]
fn particles_of_a_run_are_evaluated_under_the_names_that_they_have() {
    let (_guard, folder) = workplace();
    let csv = fs::read_to_string(folder.join("data.csv")).expect("read");
    let rows: Vec<&str> = csv.lines().skip(1).collect();
    let table: String = rows.iter().map(|row| format!("{row},a,1\n")).collect();
    fs::write(folder.join("data.csv"), format!("day,x,y,kind,w\n{table}")).expect("written");
    let of_table = ["data.times=\"day\"", "data.samples=\"x,y\"", "data.where=\"kind == 'a'\"", "data.weights=\"w\""];
    trained_with(&folder, &of_table);
    let column = |k: usize| -> Vec<f32> {
        rows.iter().map(|row| row.split(',').nth(k).and_then(|x| x.parse().ok()).expect("a number")).collect()
    };
    let (t, x, y) = (column(0), column(1), column(2));
    let samples: Vec<f32> = x.into_iter().zip(y).flat_map(|(x, y)| [x, y]).collect();
    let members = [("X", npy("<f4", false, &[150, 2], &f32s(&samples))), ("t", npy("<f4", false, &[150], &f32s(&t)))];
    fs::write(folder.join("data.npz"), npz(&members, CompressionMethod::Stored)).expect("written");
    let of_arrays =
        ["data.path=\"data.npz\"", "data.times=\"t\"", "data.samples=\"X\"", "output.folder=\"runs/arrays\""];
    trained_with(&folder, &of_arrays);
    for (run, own) in [("runs/run", "data.csv"), ("runs/arrays", "data.npz")] {
        for moved in ["moved.csv", "moved.npz"] {
            let sample = ["sample", run, "--from", "snapshot:0", "--save-at", "1", "2", "--force", "--out", moved];
            succeeds(&folder, &sample);
            let output = amatch(&folder, &["evaluate", run, moved]);
            let (report, said) = (text(&output.stdout), text(&output.stderr));
            assert!(output.status.success() && report.contains("1 → 2"), "{run}, {moved}: {said}");
            for what in ["has no column kind, so all its rows are taken", "has no weights w: its rows count alike"] {
                assert_eq!(said.contains(what), run == "runs/run", "{run}, {moved}: {said}");
            }
            succeeds(&folder, &["query", run, "--at", moved, "--force", "--out", "q.csv"]);
        }
        let output = amatch(&folder, &["evaluate", run, own]);
        let said = text(&output.stderr);
        assert!(output.status.success() && !said.contains("has no"), "{said}");
    }
    // Names that are nowhere are still missed.
    fs::write(folder.join("other.csv"), "a,b\n0,1\n1,2\n").expect("written");
    fails(&folder, &["evaluate", "runs/run", "other.csv"], &["day: no such column of times"]);
}
