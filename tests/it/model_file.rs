//! `model.safetensors`: a saved model is loaded with equal bits, and each bad file gets an error
//! that names its defect.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::common::files::{self, Stored};
use crate::common::{Numbers, conditioned, embeddings, model};
use action_matching::model::{Activation, Condition, ConditionValue, Coordinates, Head, Model, TimeEmbedding};
use action_matching::objective::Objective;
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Numbers with long decimal forms, so that an error of one unit in the last place would show.
fn hard_model(head: Head, activation: Activation, time_embedding: TimeEmbedding) -> Model {
    let third = 1.0 / 3.0;
    let objective = Objective { sigma: 0.1 + 0.2, growth: third, cost_exponent: 1.0 + third, ..Objective::default() };
    let coordinates = Coordinates {
        mean: vec![0.1, -7.3e-8, 160_777_217.3],
        scale: vec![1.0 / 3.0, 1.0e-30, 3.4e29],
        time_range: [-third, 7.0 + 0.1],
        columns: Some(["PC1", "x, \"2\"", "größe"].map(String::from).to_vec()),
        conditions: Vec::new(),
    };
    Model { coordinates, ..model(3, &[7, 11], activation, head, time_embedding, objective) }
}

fn saved(model: &Model) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    model.save(&path).expect("saves");
    (folder, path)
}

#[test]
fn every_model_comes_back_to_the_last_bit() {
    let mut frequencies = vec![5e-324, f64::MAX, 0.1 + 0.2];
    frequencies.extend(Numbers::new(29).take(200).iter().map(|x| (30.0 * x).exp() / 3.0));
    for head in Head::ALL {
        for activation in Activation::ALL {
            for embedding in [TimeEmbedding::Raw, TimeEmbedding::Fourier { frequencies: frequencies.clone() }] {
                let model = hard_model(head, activation, embedding);
                let (_folder, path) = saved(&model);
                assert_eq!(Model::load(&path).expect("loads"), model);
            }
        }
    }
}

/// The names and shapes of an `nn.Sequential` of Linear and activation, in f32, and the documented
/// metadata.
#[test]
fn the_layout_is_the_documented_one() {
    let model = hard_model(Head::Quadratic, Activation::Softplus, embeddings()[1].clone());
    let (_folder, path) = saved(&model);
    let (tensors, metadata) = files::read(&path);
    let mut start = 0;
    for (name, shape) in [
        ("net.0.weight", &[7usize, 8] as &[usize]),
        ("net.0.bias", &[7]),
        ("net.2.weight", &[11, 7]),
        ("net.2.bias", &[11]),
        ("net.4.weight", &[3, 11]),
        ("net.4.bias", &[3]),
    ] {
        let tensor = files::find(&tensors, name);
        assert_eq!((tensor.shape.as_slice(), tensor.dtype), (shape, Dtype::F32), "{name}");
        let n: usize = shape.iter().product();
        let want: Vec<f64> = model.parameters[start..start + n].iter().map(|&p| p.into()).collect();
        assert_eq!(tensor.values(), want, "{name}");
        start += n;
    }
    assert_eq!((start, tensors.len()), (model.parameters.len(), 6));

    let Value::Object(json) = serde_json::from_str(&metadata["action_matching"]).expect("JSON") else {
        panic!("not an object: {metadata:?}")
    };
    assert_eq!(json["version"], 1);
    assert_eq!(json["dim"], 3);
    assert_eq!(json["hidden"], json!([7, 11]));
    assert_eq!(json["activation"], "softplus");
    assert_eq!(json["head"], "quadratic");
    assert_eq!(json["time_embedding"], json!({"kind": "fourier", "frequencies": [0.5, 1.25]}));
    assert_eq!(json["cost_exponent"].as_f64(), Some(model.objective.cost_exponent));
    let mut keys: Vec<_> = json.keys().map(String::as_str).collect();
    keys.sort_unstable();
    let mut documented = ["version", "dim", "hidden", "activation", "head", "time_embedding"].to_vec();
    documented.extend(["mean", "scale", "time_range", "columns", "sigma", "growth", "cost_exponent"]);
    documented.sort_unstable();
    assert_eq!(keys, documented);
}

/// Authors of other programs store tensors in the types of their framework.
#[test]
fn other_float_types_are_rounded_to_f32() {
    let model = hard_model(Head::Scalar, Activation::Tanh, TimeEmbedding::Raw);
    let (_folder, path) = saved(&model);
    let (tensors, metadata) = files::read(&path);
    type Narrow = (Dtype, fn(f64) -> Vec<u8>, fn(f32) -> f32);
    let types: [Narrow; 3] = [
        (Dtype::F64, |x| x.to_le_bytes().to_vec(), |x| x),
        (Dtype::F16, |x| f16::from_f64(x).to_le_bytes().to_vec(), |x| f16::from_f32(x).to_f32()),
        (Dtype::BF16, |x| bf16::from_f64(x).to_le_bytes().to_vec(), |x| bf16::from_f32(x).to_f32()),
    ];
    for (dtype, bytes, rounded) in types {
        let stored: Vec<Stored> = tensors
            .iter()
            .map(|tensor| Stored {
                dtype,
                bytes: tensor.values().into_iter().flat_map(bytes).collect(),
                ..tensor.clone()
            })
            .collect();
        files::write(&path, &stored, metadata.clone());
        let parameters = model.parameters.iter().map(|&p| rounded(p)).collect();
        assert_eq!(Model::load(&path).expect("loads"), Model { parameters, ..model.clone() }, "{dtype:?}");
    }
}

/// A saved model whose tensors and metadata `spoil` has changed must be refused, naming file, field
/// and problem.
#[track_caller]
fn refused(field: &str, problem: &str, spoil: impl FnOnce(&mut Vec<Stored>, &mut Value)) {
    let (_folder, path) = saved(&hard_model(Head::Quadratic, Activation::Silu, embeddings()[1].clone()));
    let (mut tensors, mut metadata) = files::read(&path);
    let mut json: Value = serde_json::from_str(&metadata["action_matching"]).expect("JSON");
    spoil(&mut tensors, &mut json);
    metadata.insert("action_matching".into(), json.to_string());
    files::write(&path, &tensors, metadata);
    assert_refused(&path, field, problem);
}

#[track_caller]
fn assert_refused(path: &Path, field: &str, problem: &str) {
    let error = Model::load(path).expect_err("refused").to_string();
    assert!(error.starts_with(&format!("{}: ", path.display())), "{error}");
    assert!(error.contains(field) && error.contains(problem), "{field}, {problem}: {error}");
    assert!(error.len() < 1000, "a message of {} bytes", error.len());
}

#[test]
fn bad_tensors_are_named() {
    refused("net.2.bias", "no such tensor", |tensors, _| tensors.retain(|tensor| tensor.name != "net.2.bias"));
    refused("net.4.weight", "shape [11, 3]", |tensors, _| {
        tensors.iter_mut().filter(|tensor| tensor.name == "net.4.weight").for_each(|tensor| tensor.shape.reverse());
    });
    refused("net.6.weight", "is not a tensor", |tensors, _| {
        tensors.push(Stored::f32("net.6.weight", &[1, 3], &[0.5, 1.5, 2.5]));
    });
    refused("net.0.bias", "NaN", |tensors, _| {
        let bias = tensors.iter_mut().find(|tensor| tensor.name == "net.0.bias").expect("there");
        bias.bytes[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    refused("net.0.bias", "f32", |tensors, _| {
        let bias = tensors.iter_mut().find(|tensor| tensor.name == "net.0.bias").expect("there");
        *bias = Stored::f64("net.0.bias", &[7], &[0.0, 1.0, 2.0, 1e39, 4.0, 5.0, 6.0]);
    });
    refused("net.0.bias", "type", |tensors, _| {
        let bias = tensors.iter_mut().find(|tensor| tensor.name == "net.0.bias").expect("there");
        (bias.dtype, bias.bytes) = (Dtype::BOOL, vec![1; 7]);
    });
}

#[test]
fn bad_metadata_is_named() {
    for key in ["version", "dim", "hidden", "activation", "head", "time_embedding", "mean", "scale", "time_range"]
        .into_iter()
        .chain(["sigma", "growth", "cost_exponent"])
    {
        refused(key, "missing", |_, json| {
            json.as_object_mut().expect("an object").remove(key);
        });
        refused(key, "", |_, json| json[key] = json!({"not": "this"}));
    }
    let cases = [
        ("version", json!(3), "3"),
        ("version", json!(-1), "-1"),
        ("dim", json!(0), "0"),
        ("dim", json!(1025), "1025"),
        ("dim", json!(1e30), "1e+30"),
        ("hidden", json!([]), "0"),
        ("hidden", json!(vec![7; 17]), "17"),
        ("hidden", json!([7, 1025]), "1025"),
        ("hidden", json!([7, u64::MAX]), "18446744073709551615"),
        ("activation", json!("relu"), "relu"),
        ("head", json!("linear"), "linear"),
        ("time_embedding", json!({"kind": "learned"}), "learned"),
        ("time_embedding", json!({"kind": "fourier"}), "frequencies"),
        ("time_embedding", json!({"kind": "fourier", "frequencies": []}), "0"),
        ("mean", json!([0.0, 0.0]), "2 values"),
        ("mean", json!([0.0, 1e39, 0.0]), "1e39"),
        ("scale", json!([1.0, 3e38, 1.0]), "3e38"),
        ("scale", json!([1.0, 1e-31, 1.0]), "1e-31"),
        ("columns", json!(["a", "b"]), "2 values"),
        ("columns", json!([1, 2, 3]), "string"),
        ("time_range", json!([-1e308, 1e308]), "overflows"),
        ("scale", json!([1.0, 1.0, 1.0, 1.0]), "4 values"),
        ("scale", json!([1.0, 0.0, 1.0]), "0"),
        ("scale", json!([1.0, -2.5, 1.0]), "-2.5"),
        ("time_range", json!([1.5, 1.5]), "1.5"),
        ("time_range", json!([2.5, 1.5]), "2.5"),
        ("time_range", json!([0.0]), "length 1"),
        ("sigma", json!(-0.25), "-0.25"),
        ("growth", json!(-0.25), "-0.25"),
        ("cost_exponent", json!(1.0), "1"),
    ];
    for (key, value, problem) in cases {
        refused(key, problem, |_, json| json[key] = value);
    }
}

/// Files of earlier programs have f32 numbers and no names.
#[test]
fn a_model_without_names_and_with_short_numbers_loads() {
    let model = hard_model(Head::Dot, Activation::Sin, TimeEmbedding::Raw);
    let (_folder, path) = saved(&model);
    let (tensors, mut metadata) = files::read(&path);
    let mut json: Value = serde_json::from_str(&metadata["action_matching"]).expect("JSON");
    json.as_object_mut().expect("an object").remove("columns");
    json["mean"] = json!([0.1f32, -7.3e-8f32, 16_777_216.0f32]);
    metadata.insert("action_matching".into(), json.to_string());
    files::write(&path, &tensors, metadata);
    let coordinates = Model::load(&path).expect("loads").coordinates;
    assert_eq!(coordinates.columns, None);
    assert!((coordinates.mean[0] - 0.1).abs() < 1e-8 && coordinates.mean[2] == 16_777_216.0, "{coordinates:?}");
}

/// An older program ignores a field of a later revision of version 1.
#[test]
fn unknown_metadata_is_ignored() {
    let model = hard_model(Head::Dot, Activation::Sin, TimeEmbedding::Raw);
    let (_folder, path) = saved(&model);
    let (tensors, mut metadata) = files::read(&path);
    let mut json: Value = serde_json::from_str(&metadata["action_matching"]).expect("JSON");
    json["trained_on"] = json!("cells");
    metadata.insert("action_matching".into(), json.to_string());
    metadata.insert("format".into(), "pt".into());
    files::write(&path, &tensors, metadata);
    assert_eq!(Model::load(&path).expect("loads"), model);
}

#[test]
fn hostile_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let with_header = |length: u64, header: &[u8]| {
        std::fs::write(&path, [&length.to_le_bytes(), header].concat()).expect("written");
    };
    let whole = |header: &str| with_header(header.len() as u64, header.as_bytes());

    let error = Model::load(&path).expect_err("a missing file").to_string();
    assert!(error.contains("model.safetensors") && error.contains("does not exist"), "{error}");
    std::fs::write(&path, b"").expect("written");
    assert_refused(&path, "header", "0 bytes");
    std::fs::write(&path, b"1234567").expect("written");
    assert_refused(&path, "header", "7 bytes");
    for length in [3, 1 << 20, 1 << 40, u64::MAX] {
        with_header(length, b"{}");
        assert_refused(&path, "header", &length.to_string());
    }
    with_header(2, &[0xff, 0xfe]);
    assert_refused(&path, "header", "is damaged");
    whole("[1, 2]");
    assert_refused(&path, "header", "is damaged");
    whole(&"[".repeat(1 << 20));
    assert_refused(&path, "header", "is damaged");
    whole(&format!("{{\"a\":{}", "{\"b\":".repeat(1 << 18)));
    assert_refused(&path, "header", "is damaged");
    whole("{}");
    assert_refused(&path, "action_matching", "missing");
    for (shape, offsets) in [
        ("[4611686018427387904, 4]", "[0, 0]"),
        ("[18446744073709551615]", "[0, 18446744073709551615]"),
        ("[1099511627776]", "[0, 4398046511104]"),
        ("[2]", "[8, 0]"),
        ("[2]", "[0, 4]"),
        ("[-1]", "[0, 4]"),
    ] {
        whole(&format!("{{\"net.0.weight\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}"));
        assert_refused(&path, "header", "");
    }
    // The header of the file is valid, its content is not.
    for json in ["", "7", "{\"version\": 1", &"[".repeat(1 << 16), &format!("{{\"version\":{}", "[".repeat(1 << 16))] {
        files::write(&path, &[], HashMap::from([("action_matching".to_string(), json.to_string())]));
        assert_refused(&path, "action_matching", "");
    }
    // A long list of names must not become a long message.
    let many: Vec<Stored> = (0..20_000).map(|i| Stored::f32(&format!("tensor.{i}"), &[0], &[])).collect();
    files::write(&path, &many, HashMap::new());
    assert_refused(&path, "action_matching", "missing");
}

#[test]
fn a_truncated_or_longer_file_is_refused() {
    let (_folder, path) = saved(&hard_model(Head::Dot, Activation::Gelu, TimeEmbedding::Raw));
    let bytes = std::fs::read(&path).expect("readable");
    for length in [bytes.len() - 1, bytes.len() - 4, bytes.len() / 2, 100, 9, 8] {
        std::fs::write(&path, &bytes[..length]).expect("written");
        assert_refused(&path, "header", "");
    }
    std::fs::write(&path, [&bytes[..], &[0; 4]].concat()).expect("written");
    assert_refused(&path, "header", "");
}

/// A model that could not be loaded is not saved, and an existing file stays.
#[test]
fn a_bad_model_is_not_saved() {
    let good = hard_model(Head::Scalar, Activation::Silu, TimeEmbedding::Raw);
    let (folder, path) = saved(&good);
    type Spoil = fn(&mut Model);
    let cases: [(&str, Spoil); 8] = [
        ("parameters", |model| model.parameters.truncate(3)),
        ("net.2.weight", |model| model.parameters[7 * 4 + 7] = f32::NAN),
        ("mean", |model| model.coordinates.mean.truncate(1)),
        ("scale", |model| model.coordinates.scale[2] = 0.0),
        ("time_range", |model| model.coordinates.time_range = [2.0, 1.0]),
        ("hidden", |model| model.architecture.hidden.clear()),
        ("sigma", |model| model.objective.sigma = f64::NAN),
        ("cost_exponent", |model| model.objective.cost_exponent = 1.0),
    ];
    for (field, spoil) in cases {
        let mut bad = good.clone();
        spoil(&mut bad);
        let error = bad.save(&path).expect_err(field).to_string();
        assert!(error.contains(field), "{field}: {error}");
        assert_eq!(Model::load(&path).expect("the old file"), good);
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1);
    }
    let error = good.save(&folder.path().join("missing").join("m.safetensors")).expect_err("no folder").to_string();
    assert!(error.contains("m.safetensors") && error.contains("does not exist"), "{error}");
}

#[test]
fn a_description_names_what_matters() {
    let model = hard_model(Head::Quadratic, Activation::Softplus, embeddings()[1].clone());
    let text = model.describe();
    let count = model.parameters.len().to_string();
    for part in ["softplus", "quadratic", "fourier", "[7, 11]", &count, "net.0.weight", "net.4.bias", "[3, 11]"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

/// A model of dimension 3 with five condition inputs.
fn conditioned_model() -> Model {
    let dose = Condition::Number { name: "dose".into(), mean: 0.1 + 0.2, scale: 1.0 / 3.0, range: [-0.1, 7.7] };
    let drug = Condition::Category {
        name: "drug, \"new\"".into(),
        categories: ["A", "none", "größer"].map(String::from).into(),
    };
    let age = Condition::Number { name: "age".into(), mean: 0.0, scale: 1.0, range: [0.0, 0.0] };
    let plain = model(3, &[7, 11], Activation::Silu, Head::Quadratic, embeddings()[1].clone(), Objective::default());
    let coordinates = Coordinates { conditions: vec![dose, drug, age], ..Coordinates::identity(3) };
    Model { coordinates, ..conditioned(&plain, 5) }
}

#[test]
fn a_model_with_conditions_is_of_version_2_and_comes_back() {
    let model = conditioned_model();
    let (_folder, path) = saved(&model);
    let (tensors, metadata) = files::read(&path);
    assert_eq!(files::find(&tensors, "net.0.weight").shape, [7, 3 + 5 + 5]);
    let json: Value = serde_json::from_str(&metadata["action_matching"]).expect("JSON");
    assert_eq!(json["version"], 2);
    let drug = json!({"kind": "category", "name": "drug, \"new\"", "categories": ["A", "none", "größer"]});
    assert_eq!((&json["conditions"][1], json["conditions"].as_array().map(Vec::len)), (&drug, Some(3)));
    let loaded = Model::load(&path).expect("loads");
    assert_eq!(loaded, model);
    assert!(loaded.describe().contains("dose, -0.1 to 7.7"), "{}", loaded.describe());

    // What is taken from it under one condition is a model of version 1.
    let under = model.under(&[0.4.into(), "none".into(), (-2.0).into()]).expect("three values");
    let (_folder, path) = saved(&under);
    let (_, metadata) = files::read(&path);
    let json: Value = serde_json::from_str(&metadata["action_matching"]).expect("JSON");
    assert!(json["version"] == 1 && json.get("conditions").is_none(), "{json}");
    assert_eq!(Model::load(&path).expect("loads"), under);
}

#[test]
fn bad_conditions_of_a_file_are_named() {
    let number = |name: &str, scale: f64| json!({"kind": "number", "name": name, "mean": 0.0, "scale": scale, "range": [0.0, 1.0]});
    let category = |categories: Value| json!({"kind": "category", "name": "b", "categories": categories});
    let five = json!(["1", "2", "3", "4", "5"]);
    for (key, value, problem) in [
        ("conditions", json!([]), "net.0.weight: has shape [7, 13]"),
        ("conditions", json!([category(json!(["1", "2", "3", "4"]))]), "net.0.weight"),
        ("conditions", json!([category(five.clone()), category(json!([]))]), "conditions: b: has the categories []"),
        ("conditions", json!([category(json!(["1", "2", "1", "4", "5"]))]), "conditions: b: has the categories"),
        (
            "conditions",
            json!([number("a", 1.0), number("a", 1.0), category(json!(["1", "2", "3"]))]),
            "holds two of the name \"a\"",
        ),
        (
            "conditions",
            json!([number("a", 0.0), category(json!(["1", "2", "3", "4"]))]),
            "conditions: a: has mean 0e0, scale 0e0",
        ),
        ("conditions", json!([{"kind": "colour", "name": "a"}]), "colour"),
        ("version", json!(1), "conditions: stands in a model of version 1"),
        ("version", json!(3), "this program reads versions 1 and 2: update it"),
        (
            "conditions",
            json!([category(json!((0..300).map(|i| i.to_string()).collect::<Vec<_>>()))]),
            "make 300 inputs",
        ),
    ] {
        let (_folder, path) = saved(&conditioned_model());
        let (tensors, mut metadata) = files::read(&path);
        let mut json: Value = serde_json::from_str(&metadata["action_matching"]).expect("JSON");
        json[key] = value;
        metadata.insert("action_matching".into(), json.to_string());
        files::write(&path, &tensors, metadata);
        let error = Model::load(&path).expect_err("is refused").to_string();
        assert!(error.contains("model.safetensors: ") && error.contains(problem), "{error}, not {problem}");
    }
}

#[test]
fn conditions_are_parsed_with_their_names() {
    let coordinates = conditioned_model().coordinates;
    let given = |list: &[(&str, &str)]| {
        let pairs: Vec<(String, String)> =
            list.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        coordinates.parse_condition(&pairs).map_err(|error| error.to_string())
    };
    let drug = "drug, \"new\"";
    let values = given(&[(drug, "größer"), ("age", "-1e-3"), ("dose", " 0.3 ")]).expect("all of them");
    assert_eq!(values, [0.3.into(), "größer".into(), (-1e-3).into()]);
    let inputs = coordinates.inputs_of(&values).expect("inputs");
    assert_eq!(inputs, [((0.3 - (0.1 + 0.2)) / (1.0 / 3.0)) as f32, 0.0, 0.0, 1.0, -1e-3]);
    let [dose, ..] = &coordinates.conditions[..] else { panic!("no dose") };
    for (value, outside) in [(-0.1, false), (7.7, false), (7.7 + 1e-8, false), (7.8, true), (-0.2, true)] {
        assert_eq!(dose.extrapolates(&ConditionValue::Number(value)), outside, "{value}");
    }
    for (list, message) in [
        (vec![("dose", "1"), (drug, "A")], "condition: age: is missing (give each once: dose, -0.1 to 7.7; drug"),
        (vec![("dose", "1"), (drug, "A"), ("age", "1"), ("age", "2")], "age: is given twice"),
        (vec![("dos", "1")], "dos: is no condition of the model"),
        (vec![("dose", "much"), (drug, "A"), ("age", "1")], "dose: is \"much\" (give a finite number)"),
        (vec![("dose", "inf"), (drug, "A"), ("age", "1")], "dose: is \"inf\""),
        (vec![("dose", "1e300"), (drug, "A"), ("age", "1")], ""),
        (
            vec![("dose", "1"), (drug, "C"), ("age", "1")],
            "is \"C\", which training did not know (use one of \"A\", \"none\", \"größer\")",
        ),
    ] {
        let outcome = given(&list).and_then(|values| coordinates.inputs_of(&values).map_err(|error| error.to_string()));
        let error = outcome.expect_err("is refused");
        assert!(error.contains(message), "{error}, not {message}");
    }
    let plain = Coordinates::identity(2).parse_condition(&[("dose".into(), "1".into())]).expect_err("none").to_string();
    assert!(
        plain.contains("dose: is no condition of the model (the model has no conditions: leave it out)"),
        "{plain}"
    );
    assert!(coordinates.inputs_of(&["A".into(), "A".into(), 1.0.into()]).is_err());
    assert!(coordinates.inputs_of(&[1.0.into(), 1.0.into(), 1.0.into()]).is_err());
}
