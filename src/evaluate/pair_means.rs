//! Means over pairs of points, which distances of distributions are made of.

use crate::error::Result;
use crate::stage::{Watch, check};

/// Rows `[n, dim]` with weights `[n]` whose sum is 1.
#[derive(Clone, Copy)]
pub(super) struct Weighted<'a, T> {
    pub rows: &'a [T],
    pub shares: &'a [f64],
}

/// `weights` divided by their sum, or equal ones for `n` rows.
pub(super) fn shares(n: usize, weights: Option<&[f64]>) -> Vec<f64> {
    match weights {
        None => vec![1.0 / n as f64; n],
        Some(weights) => {
            let total: f64 = weights.iter().sum();
            weights.iter().map(|weight| weight / total).collect()
        }
    }
}

/// Σᵢⱼ pᵢ qⱼ f(‖xᵢ − yⱼ‖²), for each of the N values of f.
pub(super) fn between<T: Copy + Into<f64>, const N: usize>(
    dim: usize,
    x: Weighted<'_, T>,
    y: Weighted<'_, T>,
    f: &impl Fn(f64) -> [f64; N],
    watch: &dyn Watch,
) -> Result<[f64; N]> {
    let mut sums = [0.0; N];
    for (a, p) in x.rows.chunks_exact(dim).zip(x.shares) {
        check(watch)?;
        let mut of_row = [0.0; N];
        for (b, q) in y.rows.chunks_exact(dim).zip(y.shares) {
            add(&mut of_row, *q, f(squared_distance(a, b)));
        }
        add(&mut sums, *p, of_row);
    }
    Ok(sums)
}

/// Σ_{i ≠ j} pᵢ pⱼ f(‖xᵢ − xⱼ‖²) / Σ_{i ≠ j} pᵢ pⱼ. `None` with fewer than two rows with weight.
pub(super) fn within<T: Copy + Into<f64>, const N: usize>(
    dim: usize,
    x: Weighted<'_, T>,
    f: &impl Fn(f64) -> [f64; N],
    watch: &dyn Watch,
) -> Result<Option<[f64; N]>> {
    let different = 1.0 - x.shares.iter().map(|p| p * p).sum::<f64>();
    if x.shares.is_empty() || different <= 1e-12 {
        return Ok(None);
    }
    let mut sums = [0.0; N];
    for (i, a) in x.rows.chunks_exact(dim).enumerate() {
        check(watch)?;
        let mut of_row = [0.0; N];
        for (b, p) in x.rows[(i + 1) * dim..].chunks_exact(dim).zip(&x.shares[i + 1..]) {
            add(&mut of_row, *p, f(squared_distance(a, b)));
        }
        add(&mut sums, 2.0 * x.shares[i] / different, of_row);
    }
    Ok(Some(sums))
}

fn add<const N: usize>(sums: &mut [f64; N], share: f64, values: [f64; N]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += share * value);
}

/// ‖a − b‖² in f64. Four partial sums, so that additions do not wait for one another.
pub(super) fn squared_distance<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> f64 {
    let square = |(&a, &b): (&T, &T)| (a.into() - b.into()).powi(2);
    let mut sums = [0.0; 4];
    let (a, b) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(square).sum();
    for (a, b) in a.zip(b) {
        (sums.iter_mut().zip(a.iter().zip(b))).for_each(|(sum, pair)| *sum += square(pair));
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::squared_distance;

    #[test]
    fn every_coordinate_counts() {
        for dim in 1..=9 {
            let a: Vec<f32> = (0..dim).map(|i| (i * i) as f32).collect();
            let b: Vec<f32> = (0..dim).map(|i| 3.0 - i as f32).collect();
            let want: f32 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
            assert_eq!(squared_distance(&a, &b), f64::from(want), "{dim}");
        }
    }
}
