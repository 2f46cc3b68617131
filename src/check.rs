//! The files of `amatch check`: a batch in, loss, gradients and derivatives out. For people who port models.

use std::collections::HashMap;
use std::path::Path;

use crate::engine::{Batch, LossGradient};
use crate::error::{Error, Result};
use crate::model::{Model, tensor_names};
use crate::tensors::{NewTensor, TensorFile, write_tensors};

/// Reads a batch for `model` in network coordinates from a safetensors file: `x [n, d]`, `t [n]`, `x0 [n0, d]`, `x1 [n1, d]`; optional
/// `omega [n]`, `d_omega [n]`, scalars `omega0`, `omega1` (default ω = 1, ω′ = 0), and `probe [k, n, d]`.
///
/// # Errors
/// [`Error::Input`] names the tensor that is missing, misshapen or not finite.
pub fn read_batch(path: &Path, model: &Model) -> Result<Batch> {
    let mut file = TensorFile::open(path)?;
    let dim = model.architecture.dim;
    let n_of = |file: &TensorFile, name: &str| match file.shape(name)?[..] {
        [n, d] if d == dim => Ok(n),
        ref shape => Err(Error::input(
            path,
            name,
            format!("has shape {shape:?}"),
            format!("store [n, {dim}]: the model has dimension {dim}"),
        )),
    };
    let (n, n0, n1) = (n_of(&file, "x")?, n_of(&file, "x0")?, n_of(&file, "x1")?);
    let optional = |file: &mut TensorFile, name: &str, default: f64| match file.find(name) {
        Some(_) => file.f64s(name, &[n]),
        None => Ok(vec![default; n]),
    };
    let scalar = |file: &mut TensorFile, name: &str| -> Result<f64> {
        let Some((shape, _)) = file.find(name) else { return Ok(1.0) };
        let shape = if shape.is_empty() { vec![] } else { vec![1] };
        Ok(file.f64s(name, &shape)?[0])
    };
    Ok(Batch {
        omega: optional(&mut file, "omega", 1.0)?,
        d_omega: optional(&mut file, "d_omega", 0.0)?,
        omega0: scalar(&mut file, "omega0")?,
        omega1: scalar(&mut file, "omega1")?,
        probe: match file.find("probe").map(|(shape, _)| shape.first().copied().unwrap_or(0)) {
            Some(k) => Some(file.f64s("probe", &[k.max(1), n, dim])?),
            None => None,
        },
        x: file.f64s("x", &[n, dim])?,
        t: file.f64s("t", &[n])?,
        x0: file.f64s("x0", &[n0, dim])?,
        x1: file.f64s("x1", &[n1, dim])?,
    })
}

/// Writes `loss`, `grad.<tensor>` for every parameter tensor, and `s`, `ds_dx`, `ds_dt` (with diffusion `laplacian`) of the interior
/// rows, all f64, to a safetensors file.
///
/// # Errors
/// [`Error::Io`] names the file.
pub fn write_loss_gradient(path: &Path, model: &Model, result: &LossGradient) -> Result<()> {
    let (n, dim) = (result.interior.s.len(), model.architecture.dim);
    let loss = [result.loss];
    let mut tensors = vec![
        ("loss".to_string(), NewTensor::f64(&[], &loss)),
        ("s".to_string(), NewTensor::f64(&[n], &result.interior.s)),
        ("ds_dx".to_string(), NewTensor::f64(&[n, dim], &result.interior.grad_s)),
        ("ds_dt".to_string(), NewTensor::f64(&[n], &result.interior.ds_dt)),
    ];
    if !result.laplacian.is_empty() {
        tensors.push(("laplacian".to_string(), NewTensor::f64(&[n], &result.laplacian)));
    }
    let layers = model.architecture.layers();
    for (index, layer) in layers.iter().enumerate() {
        let [(weight, weight_shape), (bias, bias_shape)] = tensor_names(index, layer);
        let d_weight = &result.gradient[layer.weight..layer.bias];
        let d_bias = &result.gradient[layer.bias..layer.bias + layer.n_out];
        tensors.push((format!("grad.{weight}"), NewTensor::f64(&weight_shape, d_weight)));
        tensors.push((format!("grad.{bias}"), NewTensor::f64(&bias_shape, d_bias)));
    }
    write_tensors(path, tensors, HashMap::new())
}
