//! Mean and scale of the training snapshots: y = (x − mean) / scale.

use super::array::list;
use super::{DataSource, Snapshots, Standardisation};
use crate::model::Coordinates;

/// The coordinates that `source` asks for, from the rows of `training` in data units. Warns of dimensions without spread.
pub(super) fn coordinates_of(
    source: &DataSource,
    training: &Snapshots,
    time_range: [f64; 2],
    warnings: &mut Vec<String>,
) -> Coordinates {
    let identity = Coordinates { time_range, ..Coordinates::identity(training.dim) };
    if source.standardise == Standardisation::None {
        return identity;
    }
    let (mean, variance) = moments(&training.samples, training.dim);
    let scale = match source.standardise {
        Standardisation::Isotropic => {
            let mean_variance = variance.iter().sum::<f64>() / variance.len() as f64;
            vec![mean_variance.sqrt() as f32; training.dim]
        }
        _ => variance.iter().map(|v| v.sqrt() as f32).collect(),
    };
    let constant: Vec<usize> = (0..training.dim).filter(|&i| !scale[i].is_normal()).collect();
    let scale = scale.into_iter().map(|scale| if scale.is_normal() { scale } else { 1.0 }).collect();
    if constant.len() == training.dim {
        warnings.push(format!("{}: no dimension varies: the scale is 1", source.path.display()));
    } else if !constant.is_empty() {
        let columns = list(&constant);
        warnings.push(format!("{}: columns without spread keep scale 1: {columns}", source.path.display()));
    }
    Coordinates { mean: mean.iter().map(|&m| m as f32).collect(), scale, ..identity }
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
