//! `amatch export`: `onnx` accepts the graph, and `onnxruntime` computes what the model says in
//! data units (`interop/onnx_values.py`).

use std::path::Path;

use action_matching::Local;
use action_matching::data::{DataSource, read_points};
use action_matching::engine::reference::ReferenceEngine;
use action_matching::model::{Activation, Condition, ConditionValue, Coordinates, Head, Model, TimeEmbedding};
use action_matching::objective::Objective;

use crate::cli::{amatch, fails, succeeds, text, trained};
use crate::common::files::{self, Stored};
use crate::common::{Numbers, assert_close, conditioned, embeddings, model};
use crate::interop::{models_of_every_kind, run_python};

const N: usize = 61;

/// Points `[n, dim]` and times inside of the data of `coordinates`, as f32 holds them unless these
/// need more.
fn points(coordinates: &Coordinates) -> (Vec<f64>, Vec<f64>) {
    let mut numbers = Numbers::new(3);
    let Coordinates { mean, scale, time_range: [start, end], .. } = coordinates;
    let rounded = |x: f64| if coordinates.need_f64() { x } else { f64::from(x as f32) };
    let x = (0..N).flat_map(|_| mean.iter().zip(scale)).map(|(mean, scale)| rounded(mean + scale * numbers.next()));
    let x = x.collect();
    let t = numbers.take(N).iter().map(|t| f64::from((start + (end - start) * 0.5 * (t + 1.0)) as f32)).collect();
    (x, t)
}

/// A model, and the value of each of its conditions, the same in all rows.
struct Case {
    name: String,
    model: Model,
    conditions: Vec<ConditionValue>,
}

impl Case {
    fn plain(name: impl Into<String>, model: Model) -> Case {
        Case { name: name.into(), model, conditions: Vec::new() }
    }

    /// The inputs of the graph.
    fn inputs(&self) -> Vec<Stored> {
        let (x, t) = points(&self.model.coordinates);
        let dim = self.model.coordinates.mean.len();
        let mut inputs = vec![Stored::f64("x", &[N, dim], &x), Stored::f64("t", &[N], &t)];
        for (condition, value) in self.model.coordinates.conditions.iter().zip(&self.conditions) {
            let number = match (condition, value) {
                (_, ConditionValue::Number(number)) => *number,
                (Condition::Category { categories, .. }, ConditionValue::Category(category)) => {
                    categories.iter().position(|known| known == category).expect("known") as f64
                }
                _ => panic!("a value of another kind"),
            };
            inputs.push(Stored::f64(&format!("condition_{}", condition.name()), &[N], &vec![number; N]));
        }
        inputs
    }

    fn expected(&self) -> Local {
        let (x, t) = points(&self.model.coordinates);
        self.model.under(&self.conditions).and_then(|model| model.local(&ReferenceEngine, &x, &t)).expect("computed")
    }
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> =
        models_of_every_kind().into_iter().map(|(name, model)| Case::plain(name, model)).collect();
    let of = |head: Head, objective: Objective| {
        let [_, fourier] = embeddings();
        model(2, &[13, 7], Activation::Silu, head, fourier, objective)
    };
    // Where f32 is too coarse for place and time.
    let far = Coordinates {
        mean: vec![4e8, -1.0],
        scale: vec![2.0, 0.5],
        time_range: [1.7e9, 1.7e9 + 256.0],
        ..Coordinates::identity(2)
    };
    cases.push(Case::plain("far", Model { coordinates: far, ..of(Head::Scalar, Objective::default()) }));
    let grows = Objective { growth: 0.7, cost_exponent: 2.7, ..Objective::default() };
    cases.push(Case::plain("grows", of(Head::Quadratic, grows)));
    let head = of(Head::Dot, Objective { growth: 0.5, ..Objective::default() });
    let parameters = action_matching::model::initial_parameters(&head.architecture.growth_head(), 5);
    cases.push(Case::plain("head", Model { growth_head: Some(parameters), ..head }));
    let one_layer = model(1, &[5], Activation::Tanh, Head::Dot, TimeEmbedding::Raw, Objective::default());
    cases.push(Case::plain("one", one_layer));
    let conditions = vec![
        Condition::Category { name: "drug".into(), categories: ["none", "A", "B"].map(String::from).into() },
        Condition::Number { name: "dose".into(), mean: 30.0, scale: 0.25, range: [29.0, 31.0] },
    ];
    for drug in ["none", "B"] {
        let model = conditioned(&of(Head::Dot, Objective::default()), 4);
        let coordinates = Coordinates { conditions: conditions.clone(), ..model.coordinates.clone() };
        let values = vec![drug.into(), 30.5.into()];
        cases.push(Case { name: drug.into(), model: Model { coordinates, ..model }, conditions: values });
    }
    cases
}

/// What onnxruntime computed in `folder`.
fn assert_values(name: &str, folder: &Path, expected: &Local, growth: f64, tolerance: f64) {
    let (values, _) = files::read(&folder.join("values.safetensors"));
    let compared = [
        ("action", &expected.potential),
        ("velocity", &expected.velocity),
        ("time_derivative", &expected.time_derivative),
        ("growth_rate", &expected.growth_rate),
    ];
    let compared = &compared[..if growth > 0.0 { 4 } else { 3 }];
    assert_eq!(values.len(), compared.len(), "{name}");
    for (output, expected) in compared {
        let got = files::find(&values, output).values();
        assert_close(&format!("{output}, {name}"), &got, expected, tolerance);
    }
}

#[test]
fn onnxruntime_finds_the_same_slopes() {
    let guard = tempfile::tempdir().expect("a folder");
    let cases = cases();
    for case in &cases {
        let folder = guard.path().join(&case.name);
        std::fs::create_dir(&folder).expect("a folder");
        case.model.export_onnx(&folder.join("model.onnx")).expect("written");
        files::write(&folder.join("points.safetensors"), &case.inputs(), Default::default());
    }
    run_python("onnx_values.py", guard.path(), cases.iter().map(|case| case.name.clone()));
    for case in &cases {
        let growth = case.model.objective.growth;
        assert_values(&case.name, &guard.path().join(&case.name), &case.expected(), growth, 1e-5);
    }
}

/// The program on a trained run, against its own answers.
#[test]
fn an_exported_run_says_what_query_says() {
    let (_guard, folder) = trained();
    assert!(succeeds(&folder, &["export", "--help"]).contains("opset 17"));
    let export = ["export", "runs/run", "--out"];
    let output = amatch(&folder, &[&export[..], &["model.onnx"]].concat());
    assert!(output.status.success() && text(&output.stderr).contains("inputs x, t: model.onnx"), "{output:?}");
    succeeds(&folder, &["query", "runs/run", "--at", "data.csv", "--out", "q.npz"]);
    let column = |name: &str| {
        let source = DataSource { samples: name.into(), ..DataSource::new(folder.join("q.npz")) };
        read_points(&source, &()).expect("reads").positions()
    };
    let (x, t) = (column("samples"), column("times"));
    let inputs = [Stored::f64("x", &[t.len(), 2], &x), Stored::f64("t", &[t.len()], &t)];
    files::write(&folder.join("points.safetensors"), &inputs, Default::default());
    run_python("onnx_values.py", &folder, [".".to_string()].into_iter());
    let expected = Local {
        potential: column("action"),
        velocity: column("velocity"),
        time_derivative: column("time_derivative"),
        ..Local::default()
    };
    assert_values("run", &folder, &expected, 0.0, 1e-5);

    fails(&folder, &[&export[..], &["model.onnx"]].concat(), &["already exists", "--force"]);
    succeeds(&folder, &[&export[..], &["model.onnx", "--force"]].concat());
    fails(&folder, &[&export[..], &["model.pt"]].concat(), &["model.pt", ".onnx"]);
    fails(&folder, &[&export[..], &["other.onnx", "--condition", "dose=1"]].concat(), &["dose", "no condition"]);
}
