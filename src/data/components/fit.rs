//! Principal components of wide samples: randomized subspace iteration on their covariance (Halko,
//! Martinsson and Tropp 2011, arXiv 0909.4061), then the Rayleigh–Ritz procedure.
//!
//! With orthonormal W `[d, l]`, an iteration forms P = A W and Z = Aᵀ P, where A are the centered
//! rows, and takes the orthonormal basis of Z for the next W. The eigenvectors of PᵀP at last turn
//! W to the components. Of rows with weights, the center is the weighted mean and each row of A
//! has the root of its weight as a factor, so that AᵀA / n is the weighted covariance.

use std::path::Path;

use nalgebra::{DMatrix, SymmetricEigen};

use super::product::{Matrix, product};
use super::{Components, MAX_COMPONENTS};
use crate::data::standardize::weighted_moments;
use crate::error::{Error, Result};
use crate::memory;
use crate::rng::{Purpose, unit_f32, words};
use crate::stage::{Section, Stage};

/// Directions beyond those that are kept: the last ones that are kept converge faster.
const OVERSAMPLING: usize = 10;

/// Most iterations.
const MAX_ITERATIONS: u64 = 12;

/// Iterations end when one raises the variance within the subspace by less than this share of the
/// total.
const LEAST_GAIN: f64 = 1e-6;

/// Rows and columns that one thread takes at a time.
const ROWS_AT_ONCE: usize = 64;
const COLUMNS_AT_ONCE: usize = 64;

/// `count` components of rows `[n, origin.len()]`, differences from `origin`, that count in
/// proportion to their weights `[n]`, whose mean is 1, or alike without any; `path` is for
/// messages.
///
/// # Errors
/// [`Error::Input`] if there cannot be so many, because of the number of rows or columns, or
/// because the rows vary in fewer directions; [`Error::Interrupted`] if the watch cancels.
pub(in crate::data) fn fit(
    path: &Path,
    (rows, weights): (&[f32], Option<&[f64]>),
    origin: &[f64],
    columns: Option<&[String]>,
    count: usize,
    stage: &Stage,
) -> Result<Components> {
    let dim = origin.len();
    let n = rows.len() / dim;
    let refuse = |problem: String, fix: String| Err(Error::input(path, FIELD, problem, fix));
    if !(1..=MAX_COMPONENTS).contains(&count) {
        return refuse(format!("is {count}"), format!("use 1 to {MAX_COMPONENTS}"));
    }
    // As many as columns would be no reduction, and could not be told from the columns.
    let n_counted = weights.map_or(n, |weights| weights.iter().filter(|&&weight| weight > 0.0).count());
    if count >= dim.min(n_counted) {
        let problem = format!("is {count}, and there are {n_counted} rows to train on, of {dim} columns");
        return refuse(problem, "ask for fewer components than rows and columns".into());
    }
    let width = (count + OVERSAMPLING).min(dim);
    memory::require(path, FIELD, working_memory(n, dim, width))?;
    stage.check()?;
    let (center, spread) = weighted_moments(rows, dim, weights);
    let total_variance: f64 = spread.iter().sum();
    let roots = weights.map(|weights| weights.iter().map(|weight| weight.sqrt()).collect());
    let centered = Centered { rows, center: &center, roots };

    let bytes = size_of_val(rows) as u64;
    let mut basis = orthonormal(&start(dim, width));
    let mut last_variance = 0.0;
    let mut iteration = 0;
    let (basis, scores) = loop {
        let pass = |at: u64| Section {
            watch: stage.watch,
            before: at * bytes,
            units: bytes,
            total: 2 * MAX_ITERATIONS * bytes,
        };
        let scores = centered.times(&basis, &stage.watched_by(&pass(2 * iteration)))?;
        let variance = scores.values.iter().map(|p| p * p).sum::<f64>() / n as f64;
        iteration += 1;
        if variance - last_variance <= LEAST_GAIN * total_variance || iteration == MAX_ITERATIONS {
            break (basis, scores);
        }
        last_variance = variance;
        basis = orthonormal(&centered.transposed_times(&scores, &stage.watched_by(&pass(2 * iteration - 1)))?);
    };

    let (variance, turn) = ritz(&scores, stage)?;
    drop(scores);
    let rank = variance.iter().take_while(|&&v| v > rounding_variance(&center, &spread, n) + 1e-14 * variance[0]);
    let rank = rank.count();
    if rank < count {
        let problem = format!("is {count}, but the rows to train on vary in {rank} directions only");
        let fix = match rank {
            0 => "remove it: the columns are constant".into(),
            _ => format!("set it to {rank} or less"),
        };
        return refuse(problem, fix);
    }
    let mut loadings = vec![0.0f32; count * dim];
    let turned = Matrix::from_fn(width, count, |i, c| turn[(i, c)]);
    let turned = times(&basis, &turned, stage)?;
    for (c, loadings) in loadings.chunks_exact_mut(dim).enumerate() {
        let column = |j: usize| turned.row(j)[c];
        // The sign is arbitrary: the largest loading becomes positive.
        let largest = (1..dim).fold(0, |largest, j| if column(j).abs() > column(largest).abs() { j } else { largest });
        let sign = column(largest).signum();
        loadings.iter_mut().enumerate().for_each(|(j, loading)| *loading = (sign * column(j)) as f32);
    }
    let mean = center.iter().zip(origin).map(|(center, origin)| origin + center).collect();
    let variance = variance[..count].to_vec();
    Components::new(path, loadings, mean, variance, total_variance, columns.map(<[String]>::to_vec))
}

const FIELD: &str = "data.components";

/// Bytes that a fit takes besides the samples.
fn working_memory(n: usize, dim: usize, width: usize) -> u128 {
    let pitch = width + super::product::LANES;
    // P and the parts that it is made of; W, Z and the two copies that an orthonormal basis is made
    // from.
    memory::bytes(&[2, n, pitch, 8]).saturating_add(memory::bytes(&[4, dim, pitch, 8]))
}

/// Numbers from −1 to 1, the same for all data: `[dim, width]`.
fn start(dim: usize, width: usize) -> Matrix {
    Matrix::from_fn(dim, width, |i, j| {
        let words = words(0, Purpose::Components, j as u64 / 4, i as u32);
        2.0 * f64::from(unit_f32(words[j % 4])) - 1.0
    })
}

/// An orthonormal basis of the columns of `z`, `[rows, width]`.
fn orthonormal(z: &Matrix) -> Matrix {
    let q = DMatrix::from_fn(z.n_rows(), z.width, |i, j| z.row(i)[j]).qr().q();
    Matrix::from_fn(z.n_rows(), z.width, |i, j| q[(i, j)])
}

/// Variances in descending order along the eigenvectors of the covariance of centered `scores`, and
/// the eigenvectors in the columns.
fn ritz(scores: &Matrix, stage: &Stage) -> Result<(Vec<f64>, DMatrix<f64>)> {
    let (n, width) = (scores.n_rows(), scores.width);
    let gram = product(width, scores, LANES_AT_ONCE, stage, |first, terms, packed| {
        for (packed, s) in packed.iter_mut().zip(terms) {
            packed.iter_mut().zip(&scores.row(s)[first..]).for_each(|(value, p)| *value = *p);
        }
    })?;
    let eigen = SymmetricEigen::new(DMatrix::from_fn(width, width, |i, j| gram.row(i)[j] / n as f64));
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let variance = order.iter().map(|&i| eigen.eigenvalues[i].max(0.0)).collect();
    Ok((variance, DMatrix::from_fn(width, width, |i, c| eigen.eigenvectors[(i, order[c])])))
}

/// Columns of PᵀP that one thread forms at a time.
const LANES_AT_ONCE: usize = 16;

/// A · B for two matrices.
fn times(a: &Matrix, b: &Matrix, stage: &Stage) -> Result<Matrix> {
    product(a.n_rows(), b, COLUMNS_AT_ONCE, stage, |first, terms, packed| {
        for (lane, i) in (first..a.n_rows()).take(4).enumerate() {
            packed.iter_mut().zip(&a.row(i)[terms.clone()]).for_each(|(packed, value)| packed[lane] = *value);
        }
    })
}

/// Largest variance along a direction that the rounding of n rows to f32 makes: errors of up to
/// half a unit in the last place, taken for independent (Marchenko and Pastur), twice.
fn rounding_variance(center: &[f64], spread: &[f64], n: usize) -> f64 {
    let dim = center.len() as f64;
    let unit = f64::from(f32::EPSILON);
    let mean_square: f64 = center.iter().zip(spread).map(|(mean, variance)| mean * mean + variance).sum::<f64>() / dim;
    2.0 * unit * unit / 12.0 * mean_square * (1.0 + (dim / n as f64).sqrt()).powi(2)
}

/// A: rows `[n, dim]` less their center, times the roots of their weights.
struct Centered<'a> {
    rows: &'a [f32],
    center: &'a [f64],
    roots: Option<Vec<f64>>,
}

impl Centered<'_> {
    /// A · B.
    fn times(&self, b: &Matrix, stage: &Stage) -> Result<Matrix> {
        let mut found = super::centered_times(self.rows, self.center, b, ROWS_AT_ONCE, stage)?;
        for (row, root) in found.values.chunks_exact_mut(found.pitch).zip(self.roots.iter().flatten()) {
            row.iter_mut().for_each(|value| *value *= root);
        }
        Ok(found)
    }

    /// Aᵀ · B.
    fn transposed_times(&self, b: &Matrix, stage: &Stage) -> Result<Matrix> {
        let dim = self.center.len();
        product(dim, b, COLUMNS_AT_ONCE, stage, |first, terms, packed| {
            for (packed, s) in packed.iter_mut().zip(terms) {
                let values = self.rows[s * dim + first..(s + 1) * dim].iter().zip(&self.center[first..]);
                let root = self.roots.as_ref().map_or(1.0, |roots| roots[s]);
                packed.iter_mut().zip(values).for_each(|(value, (x, center))| *value = root * (f64::from(*x) - center));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::normals;

    /// Independent standard normal numbers.
    fn noise(seed: u64, n: usize) -> Vec<f64> {
        let of = |i: usize| normals(words(seed, Purpose::Free, 0, i as u32));
        (0..n.div_ceil(4)).flat_map(of).map(f64::from).take(n).collect()
    }

    fn fitted(rows: &[f32], dim: usize, count: usize, threads: usize) -> Result<Components> {
        fit(Path::new("a.npz"), (rows, None), &vec![0.0; dim], None, count, &Stage::new(threads, &()))
    }

    /// Eigenvalues, descending, and eigenvectors in rows of a symmetric matrix, by cyclic Jacobi
    /// rotations.
    fn eigen(mut a: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
        let n = a.len();
        let mut v: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
        for _ in 0..30 {
            for p in 0..n {
                for q in p + 1..n {
                    let (sin, cos) = (0.5 * (2.0 * a[p][q]).atan2(a[q][q] - a[p][p])).sin_cos();
                    let turn = |x: &mut f64, y: &mut f64| (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
                    for row in &mut a {
                        let [x, y] = row.get_disjoint_mut([p, q]).expect("differ");
                        turn(x, y);
                    }
                    for matrix in [&mut a, &mut v] {
                        let [x, y] = matrix.get_disjoint_mut([p, q]).expect("differ");
                        x.iter_mut().zip(y).for_each(|(x, y)| turn(x, y));
                    }
                }
            }
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&i, &j| a[j][j].total_cmp(&a[i][i]));
        (order.iter().map(|&i| a[i][i]).collect(), order.iter().map(|&i| v[i].clone()).collect())
    }

    /// Rows of `dim` columns: column j has mean j and deviation 0.8ʲ before they are mixed.
    fn mixed_rows(n: usize, dim: usize) -> Vec<f32> {
        let values = noise(1, n * dim);
        let mut rows = Vec::new();
        for row in values.chunks_exact(dim) {
            let scaled: Vec<f64> = row.iter().enumerate().map(|(j, x)| x * 0.8f64.powi(j as i32)).collect();
            rows.extend((0..dim).map(|j| (j as f64 + scaled[j] + 0.5 * scaled[(j + 1) % dim]) as f32));
        }
        rows
    }

    /// With few columns the first basis spans them all; with 40, iterations must find the subspace.
    #[test]
    fn components_are_the_eigenvectors_of_the_covariance() {
        for (n, dim, count, tolerance) in [(57, 12, 5, 1e-6), (300, 40, 6, 1e-4)] {
            let rows = mixed_rows(n, dim);
            let components = fitted(&rows, dim, count, 2).expect("fits");
            let mean: Vec<f64> = (0..dim)
                .map(|j| rows.iter().skip(j).step_by(dim).map(|&x| f64::from(x)).sum::<f64>() / n as f64)
                .collect();
            let mut covariance = vec![vec![0.0; dim]; dim];
            for row in rows.chunks_exact(dim) {
                let centered: Vec<f64> = row.iter().zip(&mean).map(|(x, mean)| f64::from(*x) - mean).collect();
                for (sums, x) in covariance.iter_mut().zip(&centered) {
                    sums.iter_mut().zip(&centered).for_each(|(sum, y)| *sum += x * y / n as f64);
                }
            }
            let total: f64 = (0..dim).map(|i| covariance[i][i]).sum();
            let (values, vectors) = eigen(covariance);
            assert!((components.total_variance / total - 1.0).abs() < 1e-12);
            assert!(components.mean.iter().zip(&mean).all(|(got, want)| (got - want).abs() < 1e-12));
            for c in 0..count {
                assert!((components.variance[c] / values[c] - 1.0).abs() < tolerance, "{c}: {:?}", components.variance);
                let loadings = &components.loadings[c * dim..(c + 1) * dim];
                let dot: f64 = loadings.iter().zip(&vectors[c]).map(|(l, v)| f64::from(*l) * v).sum();
                assert!((dot.abs() - 1.0).abs() < tolerance, "{c}: {dot}");
                let largest = loadings.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).expect("values");
                assert!(largest > 0.0, "{c}: {largest}");
            }
        }
    }

    /// Rows μ + Σ sᵢ uᵢ + noise in 1500 columns, with orthonormal u of deviations 9, 6 and 3.
    fn plane(n: usize, dim: usize, deviation: f64) -> (Vec<f32>, Vec<Vec<f64>>) {
        // Two bumps and a sine that do not overlap.
        let shape = |i: usize, j: usize| if j % 3 == i { ((j / 3) as f64 * 0.37 + i as f64).sin() } else { 0.0 };
        let directions: Vec<Vec<f64>> = (0..3)
            .map(|i| {
                let length = (0..dim).map(|j| shape(i, j).powi(2)).sum::<f64>().sqrt();
                (0..dim).map(|j| shape(i, j) / length).collect()
            })
            .collect();
        let (scores, errors) = (noise(2, 3 * n), noise(3, n * dim));
        let value = |row: usize, j: usize| {
            let inside = (0..3).map(|i| [9.0, 6.0, 3.0][i] * scores[3 * row + i] * directions[i][j]).sum::<f64>();
            (5.0 + (j % 7) as f64 + inside + deviation * errors[row * dim + j]) as f32
        };
        ((0..n * dim).map(|at| value(at / dim, at % dim)).collect(), directions)
    }

    #[test]
    fn a_subspace_in_many_columns_is_found_in_spite_of_noise() {
        let (n, dim, deviation) = (400, 1500, 0.02);
        let (rows, directions) = plane(n, dim, deviation);
        let components = fitted(&rows, dim, 3, 2).expect("fits");
        for (i, direction) in directions.iter().enumerate() {
            // The length of its projection: what is missing is the noise of the estimate.
            let square: f64 = (0..3)
                .map(|c| {
                    let loadings = &components.loadings[c * dim..(c + 1) * dim];
                    loadings.iter().zip(direction).map(|(l, u)| f64::from(*l) * u).sum::<f64>().powi(2)
                })
                .sum();
            assert!((0.9998..1.0001).contains(&square), "direction {i}: {square}");
        }
        assert!(components.variance.iter().zip([81.0, 36.0, 9.0]).all(|(got, want)| (got / want - 1.0).abs() < 0.25));
        let noise_share = dim as f64 * deviation * deviation / components.total_variance;
        assert!((1.0 - components.kept() - noise_share).abs() < 0.05 * noise_share, "{}", components.kept());

        let stage = Stage::new(2, &());
        let scores = components.project(&rows, &stage).expect("projects");
        let decoded = components.decode(&scores, &stage).expect("decodes");
        let square: f64 = decoded.iter().zip(&rows).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let error = (square / rows.len() as f64).sqrt();
        assert!((0.9 * deviation..1.01 * deviation).contains(&error), "{error}");
        let wide = components.decode_f64(&scores, &stage).expect("decodes");
        assert!(wide.iter().zip(&decoded).all(|(wide, narrow)| *wide as f32 == *narrow));
    }

    /// A row of weight 3 counts as three rows, one of weight 0 as none.
    #[test]
    fn weighted_rows_have_the_components_of_repeated_ones() {
        let (dim, rows) = (40, mixed_rows(90, 40));
        let weight = |row: usize| [1.0, 0.0, 3.0][row % 3];
        let weights: Vec<f64> = (0..90).map(|row| weight(row) * 90.0 / 120.0).collect();
        let repeated: Vec<f32> =
            rows.chunks_exact(dim).enumerate().flat_map(|(row, x)| x.repeat(weight(row) as usize)).collect();
        let fitted_by = |rows, weights| {
            fit(Path::new("a.npz"), (rows, weights), &vec![0.0; dim], None, 4, &Stage::new(2, &())).expect("fits")
        };
        let (got, want) = (fitted_by(&rows, Some(&weights)), fitted_by(&repeated, None));
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9 * (1.0 + b.abs()));
        assert!(near(&got.mean, &want.mean) && near(&got.variance, &want.variance), "{got:?}, not {want:?}");
        assert!((got.total_variance / want.total_variance - 1.0).abs() < 1e-12);
        let is_near = got.loadings.iter().zip(&want.loadings).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(is_near, "{:?}, not {:?}", got.loadings, want.loadings);
        assert_ne!(fitted_by(&rows, None).loadings, got.loadings);
        let only = [[1.0].repeat(4), [0.0].repeat(86)].concat();
        let refused = fit(Path::new("a.npz"), (&rows, Some(&only)), &vec![0.0; dim], None, 4, &Stage::default());
        assert!(refused.expect_err("too few rows").to_string().contains("there are 4 rows to train on"));
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let (rows, _) = plane(150, 1100, 0.3);
        let one = fitted(&rows, 1100, 7, 1).expect("fits");
        assert_eq!(one, fitted(&rows, 1100, 7, 3).expect("fits"));
        let scores = [1, 3].map(|threads| one.project(&rows, &Stage::new(threads, &())).expect("projects"));
        assert_eq!(scores[0], scores[1]);
    }

    #[test]
    fn what_rows_and_columns_cannot_have_is_refused() {
        let refused = |rows: &[f32], dim: usize, count: usize| {
            fitted(rows, dim, count, 1).expect_err("cannot have so many").to_string()
        };
        let rows = mixed_rows(9, 12);
        for (count, wanted) in [
            (0, "a.npz: data.components: is 0 (use 1 to 1024)"),
            (1025, "is 1025 (use 1 to 1024)"),
            (
                9,
                "is 9, and there are 9 rows to train on, of 12 columns (ask for fewer components than rows and columns)",
            ),
        ] {
            let message = refused(&rows, 12, count);
            assert!(message.contains(wanted), "{message}");
        }
        assert!(refused(&mixed_rows(30, 12), 12, 12).contains("30 rows to train on, of 12 columns"));
        assert!(fitted(&rows, 12, 8, 1).is_ok());
        // Rounding to f32 leaves a little in every direction, which is no component.
        let (flat, _) = plane(60, 1200, 0.0);
        assert!(fitted(&flat, 1200, 3, 1).is_ok());
        let message = refused(&flat, 1200, 4);
        assert!(message.contains("vary in 3 directions only (set it to 3 or less)"), "{message}");
        assert!(refused(&[2.5; 40], 4, 1).contains("vary in 0 directions only (remove it"));
    }

    #[test]
    fn a_cancelled_fit_ends() {
        struct Cancelled;
        impl crate::stage::Watch for Cancelled {
            fn is_cancelled(&self) -> bool {
                true
            }
        }
        let rows = mixed_rows(30, 12);
        let outcome = fit(Path::new("a.npz"), (&rows, None), &[0.0; 12], None, 3, &Stage::new(2, &Cancelled));
        assert!(matches!(outcome, Err(Error::Interrupted)));
    }
}
