//! The files of `amatch check`: reading, writing, and the error for each bad batch.

use std::path::Path;

use crate::common::files::{self, Stored};
use crate::common::{Numbers, assert_close, batch, embeddings};
use action_matching::check::{read_batch, write_loss_gradient};
use action_matching::engine::reference::ReferenceEngine;
use action_matching::engine::{Batch, Differentiate};
use action_matching::model::{Activation, Head, Model};
use action_matching::objective::Objective;
use half::{bf16, f16};
use safetensors::Dtype;

/// A batch of 7 interior, 3 + 2 boundary rows and 2 probes in 5 dimensions, and the tensors that
/// store it.
fn stored_batch() -> (Batch, Vec<Stored>) {
    let batch = Batch { probe: Some(Numbers::new(23).take(2 * 7 * 5)), ..batch(5, 7, 3, 2) };
    let narrowed: Vec<f32> = batch.x.iter().map(|&x| x as f32).collect();
    let tensors = vec![
        Stored::f32("x", &[7, 5], &narrowed),
        Stored::f64("t", &[7], &batch.t),
        Stored::f64("omega", &[7], &batch.omega),
        Stored::f64("d_omega", &[7], &batch.d_omega),
        Stored::f64("x0", &[3, 5], &batch.x0),
        Stored::f64("x1", &[2, 5], &batch.x1),
        Stored::f64("omega0", &[], &[batch.omega0]),
        Stored::f64("omega1", &[1], &[batch.omega1]),
        Stored::f64("probe", &[2, 7, 5], batch.probe.as_deref().unwrap_or_default()),
    ];
    (batch, tensors)
}

/// A model of that dimension, which is all that reading a batch needs.
fn model(dim: usize) -> Model {
    let objective = Objective { sigma: 0.8, ..Objective::default() };
    crate::common::model(dim, &[7, 11], Activation::Gelu, Head::Dot, embeddings()[1].clone(), objective)
}

fn written(folder: &Path, tensors: &[Stored]) -> std::path::PathBuf {
    let path = folder.join("batch.safetensors");
    files::write(&path, tensors, Default::default());
    path
}

#[test]
fn a_batch_is_read_as_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let (batch, tensors) = stored_batch();
    assert_eq!(read_batch(&written(folder.path(), &tensors), &model(5)).expect("reads"), batch);
}

#[test]
fn without_a_time_weight_omega_is_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (batch, mut tensors) = stored_batch();
    tensors.retain(|tensor| !tensor.name.contains("omega") && tensor.name != "probe");
    let want = Batch { omega: vec![1.0; 7], d_omega: vec![0.0; 7], omega0: 1.0, omega1: 1.0, probe: None, ..batch };
    assert_eq!(read_batch(&written(folder.path(), &tensors), &model(5)).expect("reads"), want);
}

#[test]
fn half_precision_is_widened() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut batch, mut tensors) = stored_batch();
    let half: Vec<f16> = batch.x0.iter().map(|&x| f16::from_f64(x)).collect();
    let brain: Vec<bf16> = batch.x1.iter().map(|&x| bf16::from_f64(x)).collect();
    tensors[4].dtype = Dtype::F16;
    tensors[4].bytes = half.iter().flat_map(|x| x.to_le_bytes()).collect();
    tensors[5].dtype = Dtype::BF16;
    tensors[5].bytes = brain.iter().flat_map(|x| x.to_le_bytes()).collect();
    batch.x0 = half.into_iter().map(f64::from).collect();
    batch.x1 = brain.into_iter().map(f64::from).collect();
    assert_eq!(read_batch(&written(folder.path(), &tensors), &model(5)).expect("reads"), batch);
}

/// Each spoiled batch is refused with the file, the tensor and its defect.
#[test]
fn bad_batches_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    type Spoil = fn(&mut Vec<Stored>);
    let cases: [(&str, &str, Spoil); 10] = [
        ("t", "no such tensor", |tensors| tensors.retain(|tensor| tensor.name != "t")),
        ("x1", "no such tensor", |tensors| tensors.retain(|tensor| tensor.name != "x1")),
        ("x", "shape [35]", |tensors| tensors[0].shape = vec![35]),
        ("x", "shape [5, 7]", |tensors| tensors[0].shape = vec![5, 7]),
        ("omega", "shape [6]", |tensors| tensors[2] = Stored::f64("omega", &[6], &[1.0; 6])),
        ("omega0", "shape [2]", |tensors| tensors[6] = Stored::f64("omega0", &[2], &[1.0; 2])),
        ("probe", "shape [7, 2, 5]", |tensors| tensors[8].shape = vec![7, 2, 5]),
        ("probe", "shape [0, 7, 5]", |tensors| tensors[8] = Stored::f64("probe", &[0, 7, 5], &[])),
        ("x0", "NaN", |tensors| tensors[4] = Stored::f64("x0", &[1, 5], &[0.5, 1.0, f64::NAN, 2.0, 3.0])),
        ("d_omgea", "not a tensor of a batch", |tensors| tensors[3].name = "d_omgea".into()),
    ];
    for (tensor, problem, spoil) in cases {
        let (_, mut tensors) = stored_batch();
        spoil(&mut tensors);
        let error = read_batch(&written(folder.path(), &tensors), &model(5)).expect_err(problem).to_string();
        assert!(error.contains(&format!("batch.safetensors: {tensor}: ")) && error.contains(problem), "{error}");
    }
    let (_, tensors) = stored_batch();
    let error = read_batch(&written(folder.path(), &tensors), &model(4)).expect_err("another dimension").to_string();
    assert!(error.contains("x: has shape [7, 5]") && error.contains("[7, 4]"), "{error}");
}

#[test]
fn the_answer_holds_every_tensor_and_row() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("answer.safetensors");
    let (batch, _) = stored_batch();
    let model = model(5);
    let result = ReferenceEngine.loss_gradient(&model, &batch).expect("evaluates");
    write_loss_gradient(&path, &model, &result).expect("writes");

    let (tensors, _) = files::read(&path);
    let same = |name: &str, shape: &[usize], want: &[f64]| {
        let tensor = files::find(&tensors, name);
        assert_eq!((tensor.shape.as_slice(), tensor.dtype), (shape, Dtype::F64), "{name}");
        assert_close(name, &tensor.values(), want, 0.0);
    };
    same("loss", &[], &[result.loss]);
    same("s", &[7], &result.interior.s);
    same("ds_dx", &[7, 5], &result.interior.grad_s);
    same("ds_dt", &[7], &result.interior.ds_dt);
    same("laplacian", &[7], &result.laplacian);
    // 5 coordinates and 5 time features in; 5 outputs of the dot head.
    let mut start = 0;
    for (name, shape) in [
        ("grad.net.0.weight", &[7usize, 10] as &[usize]),
        ("grad.net.0.bias", &[7]),
        ("grad.net.2.weight", &[11, 7]),
        ("grad.net.2.bias", &[11]),
        ("grad.net.4.weight", &[5, 11]),
        ("grad.net.4.bias", &[5]),
    ] {
        let n: usize = shape.iter().product();
        same(name, shape, &result.gradient[start..start + n]);
        start += n;
    }
    assert_eq!((start, tensors.len()), (result.gradient.len(), 11));
}
