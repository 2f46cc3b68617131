//! Mean and scale of the training snapshots: y = (x − mean) / scale.

use super::array::list;
use super::{DataSource, Snapshots, Standardisation};
use crate::error::{Error, Result};
use crate::model::{Coordinates, MAX_MAGNITUDE, MIN_SCALE};

/// The coordinates that `source` asks for, from the rows of `training` in data units. Warns of dimensions without spread.
///
/// # Errors
/// [`Error::Input`] for means and scales that no model file holds.
pub(super) fn coordinates_of(
    source: &DataSource,
    training: &Snapshots,
    time_range: [f64; 2],
    warnings: &mut Vec<String>,
) -> Result<Coordinates> {
    let identity = Coordinates { time_range, ..Coordinates::identity(training.dim) };
    if source.standardise == Standardisation::None {
        return Ok(identity);
    }
    let (mean, variance) = moments(&training.samples, training.dim);
    let mut scale: Vec<f64> = match source.standardise {
        Standardisation::Isotropic => {
            let mean_variance = variance.iter().sum::<f64>() / variance.len() as f64;
            vec![mean_variance.sqrt(); training.dim]
        }
        _ => variance.iter().map(|v| v.sqrt()).collect(),
    };
    let constant: Vec<usize> = (0..training.dim).filter(|&i| scale[i] == 0.0).collect();
    constant.iter().for_each(|&i| scale[i] = 1.0);
    if constant.len() == training.dim {
        warnings.push(format!("{}: no dimension varies: the scale is 1", source.path.display()));
    } else if !constant.is_empty() {
        let columns = list(&constant);
        warnings.push(format!("{}: columns without spread keep scale 1: {columns}", source.path.display()));
    }
    for (i, (mean, scale)) in mean.iter().zip(&scale).enumerate() {
        if mean.abs() > MAX_MAGNITUDE || !(MIN_SCALE..=MAX_MAGNITUDE).contains(scale) {
            let problem = format!("column {i} has mean {mean:.3e} and scale {scale:.3e}");
            let fix =
                format!("rescale the data: means to {MAX_MAGNITUDE:e}, scales {MIN_SCALE:e} to {MAX_MAGNITUDE:e}");
            return Err(Error::input(&source.path, &source.samples, problem, fix));
        }
    }
    Ok(Coordinates { mean, scale, ..identity })
}

/// Mean and population variance of each column of `rows [n, dim]`, f64, in two passes.
pub(super) fn moments(rows: &[f32], dim: usize) -> (Vec<f64>, Vec<f64>) {
    let n_rows = (rows.len() / dim) as f64;
    let mut mean = vec![0.0; dim];
    for row in rows.chunks_exact(dim) {
        for (sum, &x) in mean.iter_mut().zip(row) {
            *sum += f64::from(x);
        }
    }
    mean.iter_mut().for_each(|sum| *sum /= n_rows);
    let mut variance = vec![0.0; dim];
    for row in rows.chunks_exact(dim) {
        for ((sum, mean), &x) in variance.iter_mut().zip(&mean).zip(row) {
            *sum += (f64::from(x) - mean).powi(2);
        }
    }
    variance.iter_mut().for_each(|sum| *sum /= n_rows);
    (mean, variance)
}
