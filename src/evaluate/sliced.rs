//! Sliced W₂: the distance for more points than exact transport takes. On a line an optimal plan
//! keeps the order of the points, so W₂ between projections needs a sort alone.

use super::points::Particles;
use crate::error::{Error, Result, check_len};
use crate::rng::{Purpose, RowWords, normals};
use crate::stage::Stage;

/// Most directions of [`sliced_wasserstein2`].
pub const DIRECTIONS: usize = 500;

/// √d · SW₂ between rows `x [n, dim]` and `y [m, dim]`, in the unit of the data: SW₂² is the mean
/// of W₂² between the projections on random directions (Rabin, Peyré, Delon & Bernot, SSVM 2011).
/// Rows of x may have weights `[n]`, which are divided by their sum.
///
/// The directions are orthonormal in groups of `dim` (Rowland et al., AISTATS 2019), as many groups
/// as [`DIRECTIONS`] holds; in more dimensions than that they are one part of such a group. They
/// depend on `dim` and `seed` alone. With whole groups the distance is at most W₂, and equals W₂ if
/// y is x moved by one vector, or scaled. Elsewhere it is smaller, so the two must not be compared
/// with each other. Like W₂ it falls with the number of points.
///
/// Time O((n + m) · (dim + log(n + m))) for each direction, on the threads of `stage`; sums in f64,
/// in an order that does not depend on them.
///
/// ```
/// use action_matching::evaluate::sliced_wasserstein2;
/// use action_matching::stage::Stage;
///
/// // Moved by (3, 4).
/// let (x, y) = ([0.0, 0.0, 1.0, 7.0], [4.0, 11.0, 3.0, 4.0]);
/// let distance = sliced_wasserstein2(2, &x, None, &y, 0, &Stage::default())?;
/// assert!((distance - 5.0).abs() < 1e-12);
/// # Ok::<(), action_matching::Error>(())
/// ```
///
/// # Errors
/// [`Error::Input`] if a side has no rows, or not only finite values, or the weights are negative
/// or have no positive, finite sum; [`Error::Shape`] if they are not one a row;
/// [`Error::Interrupted`] if the watch of `stage` cancels.
pub fn sliced_wasserstein2<T: Copy + Into<f64> + Sync>(
    dim: usize,
    x: &[T],
    x_weights: Option<&[f64]>,
    y: &[T],
    seed: u64,
    stage: &Stage,
) -> Result<f64> {
    let (n, m) = (x.len() / dim.max(1), y.len() / dim.max(1));
    x_weights.iter().try_for_each(|weights| check_len("weights of x", n, weights.len()))?;
    for (side, n) in [("x", n), ("y", m)] {
        if n == 0 {
            return Err(Error::input("sliced W2", side, "has no rows", "give one or more"));
        }
    }
    let total: f64 = x_weights.map_or(1.0, |weights| weights.iter().sum());
    let is_mass = |weights: &[f64]| weights.iter().all(|&weight| weight >= 0.0);
    if !(total.is_finite() && total > 0.0 && x_weights.is_none_or(is_mass)) {
        let fix = "give weights ≥ 0 with a finite, positive sum";
        return Err(Error::input("sliced W2", "weights of x", "cannot be divided by their sum", fix));
    }
    let x = Particles { rows: x, weights: x_weights };
    Ok(Slices::new(dim, seed).distances(&[x], y, stage)?[0])
}

/// The directions of a dimension and a seed.
pub(super) struct Slices {
    dim: usize,
    /// Unit vectors `[n, dim]`.
    directions: Vec<f64>,
}

impl Slices {
    pub fn new(dim: usize, seed: u64) -> Self {
        let in_group = dim.min(DIRECTIONS);
        // On a line all directions are alike.
        let n_groups = if dim == 1 { 1 } else { DIRECTIONS / in_group };
        let mut directions: Vec<f64> = Vec::with_capacity(n_groups * in_group * dim);
        for group in 0..n_groups {
            let words = RowWords::new(seed, Purpose::Directions, group as u64, dim);
            let begin = directions.len();
            for row in 0..in_group {
                let mut vector: Vec<f64> = words.of(row as u32).flat_map(normals).take(dim).map(f64::from).collect();
                // Gram & Schmidt, twice: the second time removes what the rounding of the first
                // left.
                for _ in 0..2 {
                    for earlier in directions[begin..].chunks_exact(dim) {
                        let along = dot(&vector, earlier);
                        vector.iter_mut().zip(earlier).for_each(|(v, e)| *v -= along * e);
                    }
                    let norm = dot(&vector, &vector).sqrt();
                    vector.iter_mut().for_each(|v| *v /= norm);
                }
                directions.extend(vector);
            }
        }
        Slices { dim, directions }
    }

    /// Number of directions.
    pub fn count(&self) -> usize {
        self.directions.len() / self.dim
    }

    /// √d · SW₂ of each of `sets` from rows `y`; none is empty.
    ///
    /// # Errors
    /// As [`sliced_wasserstein2`].
    pub fn distances<T: Copy + Into<f64> + Sync>(
        &self,
        sets: &[Particles<'_, T>],
        y: &[T],
        stage: &Stage,
    ) -> Result<Vec<f64>> {
        let directions: Vec<&[f64]> = self.directions.chunks_exact(self.dim).collect();
        let of_directions = stage.map(directions.len(), &directions, |direction| {
            let y = Quantiles::of(Particles::equal(y), direction);
            let squared = |x: &Particles<'_, T>| Quantiles::of(*x, direction).squared_distance(&y);
            Ok(sets.iter().map(squared).collect::<Vec<f64>>())
        })?;
        let factor = self.dim as f64 / directions.len() as f64;
        let distance = |set: usize| {
            let sum: f64 = of_directions.iter().map(|squared| squared[set]).sum();
            let distance = (factor * sum).sqrt();
            if distance.is_finite() {
                return Ok(distance);
            }
            let fix = "give finite rows that lie less far apart";
            Err(Error::input("sliced W2", "x and y", "have no finite distance", fix))
        };
        (0..sets.len()).map(distance).collect()
    }
}

fn dot<T: Copy + Into<f64>>(a: &[T], b: &[f64]) -> f64 {
    // Four sums, so that additions do not wait for one another.
    let mut sums = [0.0; 4];
    let (a, b) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(&a, b)| a.into() * b).sum();
    for (a, b) in a.zip(b) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (&a, b))| *sum += a.into() * b);
    }
    sums.iter().sum::<f64>() + rest
}

/// The quantile function of projected points.
struct Quantiles {
    /// Increasing.
    values: Vec<f64>,
    /// The mass up to each value and with it, of 1 in all; `None` if all have the same.
    levels: Option<Vec<f64>>,
}

impl Quantiles {
    fn of<T: Copy + Into<f64>>(points: Particles<'_, T>, direction: &[f64]) -> Self {
        let projected = points.rows.chunks_exact(direction.len()).map(|row| dot(row, direction));
        let Some(weights) = points.weights else {
            let mut values: Vec<f64> = projected.collect();
            values.sort_unstable_by(f64::total_cmp);
            return Quantiles { values, levels: None };
        };
        let mut weighted: Vec<(f64, f64)> =
            projected.zip(weights.iter().copied()).filter(|&(_, weight)| weight > 0.0).collect();
        // Stable, so that sums over equal values have one order too.
        weighted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: f64 = weighted.iter().map(|(_, weight)| weight).sum();
        let mut sum = 0.0;
        let (values, mut levels): (Vec<f64>, Vec<f64>) = (weighted.into_iter())
            .map(|(value, weight)| {
                sum += weight;
                (value, sum / total)
            })
            .unzip();
        levels.iter_mut().next_back().into_iter().for_each(|last| *last = 1.0);
        Quantiles { values, levels: Some(levels) }
    }

    fn level(&self, i: usize) -> f64 {
        // A quotient of whole numbers is rounded correctly, so equal levels of two sides are equal.
        self.levels.as_ref().map_or_else(|| (i + 1) as f64 / self.values.len() as f64, |levels| levels[i])
    }

    /// W₂² = ∫₀¹ (F⁻¹(u) − G⁻¹(u))² du, exact for any numbers and weights of points.
    fn squared_distance(&self, other: &Quantiles) -> f64 {
        let (mut i, mut j, mut done, mut sum) = (0, 0, 0.0, 0.0);
        while i < self.values.len() && j < other.values.len() {
            let (mine, others) = (self.level(i), other.level(j));
            let level = mine.min(others);
            sum += (level - done) * (self.values[i] - other.values[j]).powi(2);
            done = level;
            i += usize::from(mine <= level);
            j += usize::from(others <= level);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::draw_gaussian;
    use crate::rng::Stream;
    use crate::stage::tests::Cancelled;
    use crate::transport::{Cost, weighted_plan};

    fn sliced(dim: usize, x: &[f32], weights: Option<&[f64]>, y: &[f32]) -> f64 {
        sliced_wasserstein2(dim, x, weights, y, 4, &Stage::new(2, &())).expect("fits")
    }

    fn gaussian(n: usize, dim: usize, seed: u64) -> Vec<f32> {
        draw_gaussian(n, dim, &mut Stream::of_normals(seed, dim))
    }

    #[test]
    fn directions_are_orthonormal_in_groups() {
        for dim in [1, 2, 3, 7, 50, 300, 600] {
            let slices = Slices::new(dim, 9);
            let count = slices.count();
            let wanted = match dim {
                1 => 1,
                _ => DIRECTIONS / dim.min(DIRECTIONS) * dim.min(DIRECTIONS),
            };
            assert_eq!(count, wanted, "{dim}");
            let row = |i: usize| &slices.directions[i * dim..][..dim];
            for i in 0..count.min(60) {
                for j in (0..=i).filter(|j| j / dim == i / dim) {
                    let product = dot(row(i), row(j));
                    assert!((product - f64::from(u8::from(i == j))).abs() < 1e-14, "{dim}: {i} {j} {product}");
                }
            }
        }
        // No two groups, and no two seeds, have directions in common.
        let (a, b) = (Slices::new(3, 9).directions, Slices::new(3, 10).directions);
        assert!(a[..3] != a[9..12] && a[..3] != b[..3]);
    }

    /// Points moved by one vector, or scaled: each projection moves like them.
    #[test]
    fn translations_and_scalings_are_measured_exactly() {
        for dim in [1, 2, 3, 8] {
            let x = gaussian(400, dim, 1);
            let moved: Vec<f32> = x.iter().enumerate().map(|(i, x)| x + [3.0, -1.0, 0.5][i % dim % 3]).collect();
            let length = (0..dim).map(|i| [9.0, 1.0, 0.25f64][i % 3]).sum::<f64>().sqrt();
            // f32 rounds what was moved.
            assert!((sliced(dim, &x, None, &moved) - length).abs() < 1e-6 * length, "{dim}");
            let doubled: Vec<f32> = x.iter().map(|x| 2.0 * x).collect();
            let norm = (x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 400.0).sqrt();
            assert!((sliced(dim, &x, None, &doubled) - norm).abs() < 1e-12 * norm, "{dim}");
        }
    }

    /// Two samples of N(0, 1) and N(a, 1) in d dimensions: |a|, up to the noise of the samples.
    #[test]
    fn shifted_gaussians_are_as_far_apart_as_their_means() {
        let (x, mut y) = (gaussian(6000, 5, 1), gaussian(7000, 5, 2));
        y.chunks_exact_mut(5).for_each(|row| row[2] += 3.0);
        let distance = sliced(5, &x, None, &y);
        assert!((distance - 3.0).abs() < 0.05, "{distance}");
    }

    /// On a line it is W2, for unequal numbers of points and for weights.
    #[test]
    fn on_a_line_it_is_exact() {
        let (x, y) = (gaussian(13, 1, 1), gaussian(7, 1, 2));
        let weights: Vec<f64> = (0..13).map(|i| f64::from(i * i % 5)).collect();
        let [ones, sevenths] = [vec![1.0; 13], vec![1.0; 7]];
        for (given, masses) in [(None, &ones), (Some(&weights[..]), &weights)] {
            let plan = weighted_plan(1, (&x, masses), (&y, &sevenths), Cost::SquaredEuclidean, &()).expect("a plan");
            let got = sliced(1, &x, given, &y);
            assert!((got - plan.cost.sqrt()).abs() < 1e-10, "{got} {}", plan.cost.sqrt());
        }
        // A far row without mass does not count.
        assert_eq!(sliced(1, &[0.0, 1e30], Some(&[2.0, 0.0]), &[3.0]), 3.0);
    }

    #[test]
    fn it_is_at_most_w2_and_equal_on_any_number_of_threads() {
        let (x, y) = (gaussian(200, 4, 1), gaussian(150, 4, 2).iter().map(|y| y * y).collect::<Vec<f32>>());
        let weights: Vec<f64> = (0..200).map(|i| 1.0 + f64::from(i % 3)).collect();
        let plan =
            weighted_plan(4, (&x, &weights), (&y, &vec![1.0; 150]), Cost::SquaredEuclidean, &()).expect("a plan");
        let of = |threads| sliced_wasserstein2(4, &x, Some(&weights), &y, 0, &Stage::new(threads, &())).expect("fits");
        let one = of(1);
        assert!(one < plan.cost.sqrt() && one > 0.5 * plan.cost.sqrt(), "{one} {}", plan.cost.sqrt());
        assert_eq!([of(2), of(7)], [one; 2]);
    }

    #[test]
    fn what_has_no_distance_is_refused() {
        let message = |x: &[f32], weights: Option<&[f64]>, y: &[f32]| {
            sliced_wasserstein2(1, x, weights, y, 0, &Stage::default()).unwrap_err().to_string()
        };
        assert!(message(&[], None, &[1.0]).contains("sliced W2: x: has no rows"));
        assert!(message(&[1.0], None, &[]).contains("sliced W2: y: has no rows"));
        assert!(message(&[1.0], Some(&[0.0]), &[1.0]).contains("weights of x: cannot be divided"));
        assert!(message(&[1.0, 2.0], Some(&[2.0, -1.0]), &[1.0]).contains("weights of x"));
        assert!(message(&[1.0, 2.0], Some(&[1.0]), &[1.0]).contains("weights of x"));
        assert!(message(&[f32::NAN], None, &[1.0]).contains("no finite distance"));
        let outcome = sliced_wasserstein2(1, &[0.0f32], None, &[2.0], 0, &Stage::new(1, &Cancelled));
        assert!(matches!(outcome, Err(Error::Interrupted)));
    }
}
