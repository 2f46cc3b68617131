//! The files of `amatch check`, for porting models: a batch in, the loss and its derivatives out.
//!
//! Both are safetensors files in network coordinates. A batch holds `x [n, d]`, `t [n]`,
//! `x0 [n0, d]`, `x1 [n1, d]`, and may hold `omega [n]`, `d_omega [n]`, the scalars `omega0` and
//! `omega1`, and `probe [k, n, d]`. For a model with conditions it holds their inputs too:
//! `c [n, m]`, `c0 [n0, m]` and `c1 [n1, m]`.
//!
//! ```
//! use action_matching::check::write_loss_gradient;
//! use action_matching::engine::{Batch, Differentiate, reference::ReferenceEngine};
//! use action_matching::prelude::*;
//!
//! let model = Model::initial(Architecture::new(1, [4]), 0);
//! let batch = Batch { x: vec![0.5], t: vec![0.2], omega: vec![1.0], d_omega: vec![0.0], ..Batch::default() };
//! let result = ReferenceEngine.loss_gradient(&model, &batch)?;
//! let folder = tempfile::tempdir().expect("a folder");
//! let file = folder.path().join("gradient.safetensors");
//! write_loss_gradient(&file, &model, &result)?;
//! assert!(file.exists() && result.gradient.len() == model.parameters.len());
//! # Ok::<(), Error>(())
//! ```

use std::collections::HashMap;
use std::path::Path;

use crate::destination::Destination;
use crate::engine::{Batch, LossGradient};
use crate::error::{Error, InputKind, Result, check_len};
use crate::model::{Model, tensor_names};
use crate::tensor_writer::{NewTensor, write_tensors};
use crate::tensors::TensorFile;

/// Every tensor of a batch file.
const BATCH_TENSORS: [&str; 12] =
    ["x", "t", "x0", "x1", "c", "c0", "c1", "omega", "d_omega", "omega0", "omega1", "probe"];

/// Reads a batch of points of `model`: f16, bf16, f32, f64 or integers. Without a time weight in
/// the file ω = 1 and ω′ = 0.
///
/// # Errors
/// [`Error::Input`] names the tensor that is missing, misshapen, unknown or not finite.
pub fn read_batch(path: &Path, model: &Model) -> Result<Batch> {
    if model.growth_head.is_some() {
        let problem = "has a growth head, of whose loss a batch does not tell the growth rates";
        return Err(Error::input("model", "growth_head", problem, "check a model without one"));
    }
    let (dim, conditions) = (model.architecture.dim, model.architecture.conditions);
    let mut file = TensorFile::open(path)?;
    // Without this check a misspelled optional tensor would silently take its default.
    if let Some(name) = file.names().into_iter().find(|name| !BATCH_TENSORS.contains(&name.as_str())) {
        let fix = format!("remove or rename it; a batch may hold {}", BATCH_TENSORS.join(", "));
        return Err(Error::input(path, name, "is not a tensor of a batch", fix).of_kind(InputKind::Unknown));
    }
    let n = leading_size(&file, "t")?;
    let (n0, n1) = (leading_size(&file, "x0")?, leading_size(&file, "x1")?);
    let has = |file: &TensorFile, name: &str| file.find(name).is_some();
    let condition = |file: &mut TensorFile, name: &str, n: usize| match conditions {
        0 if file.find(name).is_some() => {
            Err(Error::input(path, name, "is there, but the model has no conditions", "leave it out"))
        }
        0 => Ok(Vec::new()),
        _ => file.f64s(name, &[n, conditions]),
    };
    let (c, c0, c1) = (condition(&mut file, "c", n)?, condition(&mut file, "c0", n0)?, condition(&mut file, "c1", n1)?);
    Ok(Batch {
        c,
        c0,
        c1,
        x: file.f64s("x", &[n, dim])?,
        t: file.f64s("t", &[n])?,
        x0: file.f64s("x0", &[n0, dim])?,
        x1: file.f64s("x1", &[n1, dim])?,
        omega: if has(&file, "omega") { file.f64s("omega", &[n])? } else { vec![1.0; n] },
        d_omega: if has(&file, "d_omega") { file.f64s("d_omega", &[n])? } else { vec![0.0; n] },
        omega0: scalar_or_one(&mut file, "omega0")?,
        omega1: scalar_or_one(&mut file, "omega1")?,
        probe: if has(&file, "probe") {
            // At least one probe: without any there would be no estimate.
            let k = leading_size(&file, "probe")?.max(1);
            Some(file.f64s("probe", &[k, n, dim])?)
        } else {
            None
        },
    })
}

/// Writes in f64: `loss`, `grad.<tensor name>` for every parameter; per interior row `s [n]`,
/// `ds_dx [n, d]` and `ds_dt [n]`; with diffusion `laplacian [n]`.
///
/// # Errors
/// [`Error::Shape`] if `result` is not of this model, [`Error::Io`] if the file cannot be written.
pub fn write_loss_gradient(to: impl Into<Destination>, model: &Model, result: &LossGradient) -> Result<()> {
    let LossGradient { loss, gradient, interior, laplacian } = result;
    let (n, architecture) = (interior.s.len(), &model.architecture);
    check_len("gradient", architecture.n_parameters(), gradient.len())?;
    check_len("ds_dx", n * architecture.dim, interior.grad_s.len())?;
    check_len("ds_dt", n, interior.ds_dt.len())?;

    let mut tensors = vec![
        ("loss".to_string(), NewTensor::f64(&[], std::slice::from_ref(loss))),
        ("s".to_string(), NewTensor::f64(&[n], &interior.s)),
        ("ds_dx".to_string(), NewTensor::f64(&[n, architecture.dim], &interior.grad_s)),
        ("ds_dt".to_string(), NewTensor::f64(&[n], &interior.ds_dt)),
    ];
    if !laplacian.is_empty() {
        check_len("laplacian", n, laplacian.len())?;
        tensors.push(("laplacian".to_string(), NewTensor::f64(&[n], laplacian)));
    }
    for (index, layer) in architecture.layers().iter().enumerate() {
        let [(weight, weight_shape), (bias, bias_shape)] = tensor_names(index, layer);
        let (d_weight, d_bias) = gradient[layer.weight..layer.bias + layer.n_out].split_at(layer.n_in * layer.n_out);
        tensors.push((format!("grad.{weight}"), NewTensor::f64(&weight_shape, d_weight)));
        tensors.push((format!("grad.{bias}"), NewTensor::f64(&bias_shape, d_bias)));
    }
    write_tensors(&to.into(), tensors, HashMap::new())
}

/// Number of rows (or of probes) of a required tensor; 0 for a scalar, whose shape is refused when
/// it is read.
fn leading_size(file: &TensorFile, name: &str) -> Result<usize> {
    Ok(file.shape(name)?.first().copied().unwrap_or(0))
}

/// A scalar, stored with shape `[]` or `[1]`; 1 if it is not stored.
fn scalar_or_one(file: &mut TensorFile, name: &str) -> Result<f64> {
    let shape: &[usize] = match file.find(name) {
        None => return Ok(1.0),
        Some(([1], _)) => &[1],
        Some(_) => &[],
    };
    Ok(file.f64s(name, shape)?.first().copied().unwrap_or(1.0))
}
