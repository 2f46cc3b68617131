//! Energy distance, a discrepancy without a bandwidth to choose, which is 0 for equal distributions
//! alone.

use super::pair_means::{Weighted, between, shares, within};
use crate::error::{Error, Result, check_len};
use crate::stage::Watch;

/// Squared energy distance 2 E‖X − Y‖ − E‖X − X′‖ − E‖Y − Y′‖ between rows `x [n, dim]` and
/// `y [m, dim]`, in the unit of the data (Székely & Rizzo, J. Statist. Plann. Inference 143, 2013,
/// equation 5). Rows of x may have weights `[n]`, which are divided by their sum.
///
/// This is the unbiased form (a U-statistic): the means within a side leave out the pairs of a row
/// with itself. Its expectation does not depend on the numbers of rows, and it is about 0, also
/// below, for two samples of one distribution. Time O((n + m)² · dim), sums in f64.
///
/// ```
/// use action_matching::evaluate::energy_distance;
///
/// // 2·(2 + 4 + 1 + 3) / 4 − 1 − 2
/// assert_eq!(energy_distance(1, &[0.0, 1.0], None, &[2.0, 4.0], &())?, 2.0);
/// # Ok::<(), action_matching::Error>(())
/// ```
///
/// # Errors
/// [`Error::Input`] if a side has fewer than two rows with weight, or not only finite values;
/// [`Error::Shape`] if the weights are not one a row; [`Error::Interrupted`] if `watch` cancels.
pub fn energy_distance<T: Copy + Into<f64>>(
    dim: usize,
    x: &[T],
    x_weights: Option<&[f64]>,
    y: &[T],
    watch: &dyn Watch,
) -> Result<f64> {
    let (n, m) = (x.len() / dim, y.len() / dim);
    x_weights.iter().try_for_each(|weights| check_len("weights of x", n, weights.len()))?;
    let (p, q) = (shares(n, x_weights), shares(m, None));
    let (x, y) = (Weighted { rows: x, shares: &p }, Weighted { rows: y, shares: &q });
    let distance = |squared: f64| [squared.sqrt()];
    let too_few = |side| {
        let fix = "give two rows or more: one says nothing of a spread";
        Error::input("energy distance", side, "has fewer than two rows with weight", fix)
    };
    let [within_x] = within(dim, x, &distance, watch)?.ok_or_else(|| too_few("x"))?;
    let [within_y] = within(dim, y, &distance, watch)?.ok_or_else(|| too_few("y"))?;
    let [across] = between(dim, x, y, &distance, watch)?;
    let energy = 2.0 * across - within_x - within_y;
    if !energy.is_finite() {
        let fix = "give finite rows, and weights ≥ 0 with a finite, positive sum";
        return Err(Error::input("energy distance", "x and y", "hold a value that is not finite", fix));
    }
    Ok(energy)
}

/// 2 E‖y − y′‖ / n for rows y: the energy distance of two sets of n rows of one distribution in its
/// biased form, and the size of the error of the unbiased one.
#[cfg(feature = "files")]
pub(crate) fn sampling_error(dim: usize, rows: &[f32]) -> f64 {
    let n = rows.len() / dim;
    let row = |i: usize| &rows[i * dim..][..dim];
    // Each row with one other: as many pairs as rows.
    let distance = |i: usize| {
        let squared = row(i).iter().zip(row((i + n / 2) % n)).map(|(a, b)| f64::from(a - b).powi(2));
        squared.sum::<f64>().sqrt()
    };
    2.0 * (0..n).map(distance).sum::<f64>() / (n * n) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::draw_gaussian;
    use crate::rng::Stream;

    /// Written out for points in the plane at distances 5 and 13 of each other.
    #[test]
    fn the_distance_agrees_with_its_definition() {
        let (x, y) = ([0.0, 0.0, 3.0, 4.0], [0.0, 0.0, 5.0, 12.0, 3.0, 4.0]);
        let to = |a: &[f64], b: &[f64]| ((a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)).sqrt();
        let across: f64 = x.chunks(2).flat_map(|a| y.chunks(2).map(move |b| to(a, b))).sum::<f64>() / 6.0;
        let within_y = (13.0 + 5.0 + to(&y[2..4], &y[4..6])) / 3.0;
        let got = energy_distance(2, &x, None, &y, &()).expect("enough rows");
        assert!((got - (2.0 * across - 5.0 - within_y)).abs() < 1e-14, "{got}");
    }

    /// Its mean over many small samples of one distribution is 0, and of N(0, 1) and N(a, 1) it is
    /// that of the distributions: with E|N(a, 2)| = √(4/π) e^(−a²/4) + a erf(a/2), for a = 1
    /// 2·1.3993 − 2·√(4/π)= 0.5419.
    #[test]
    fn small_samples_are_unbiased() {
        const SAMPLES: usize = 4000;
        let mean = |shift: f32| {
            let mut stream = Stream::of_normals(7, 1);
            let distances = (0..SAMPLES).map(|_| {
                let x = draw_gaussian(4, 1, &mut stream);
                let y: Vec<f32> = draw_gaussian(3, 1, &mut stream).iter().map(|y| y + shift).collect();
                energy_distance(1, &x, None, &y, &()).expect("enough rows")
            });
            distances.sum::<f64>() / SAMPLES as f64
        };
        let (same, apart) = (mean(0.0), mean(1.0));
        assert!(same.abs() < 0.02, "{same}");
        assert!((apart - 0.5419).abs() < 0.04, "{apart}");
    }

    /// Rows of weight 0 do not count; the unit of the weights does not matter.
    #[test]
    fn weights_are_shares() {
        let y = [2.0, 2.5, 4.0];
        let of = |x: &[f64], weights: Option<&[f64]>| energy_distance(1, x, weights, &y, &()).expect("enough rows");
        let three = of(&[0.0, 1.0, 9.0], Some(&[5.0, 5.0, 0.0]));
        assert!((three - of(&[0.0, 1.0], None)).abs() < 1e-14);
        // ⅔·(1 + ½ + …): more weight on the nearer row is nearer.
        assert!(of(&[0.0, 1.0], Some(&[1.0, 2.0])) < of(&[0.0, 1.0], None));
    }

    #[test]
    fn what_has_no_distance_is_refused() {
        let message = |x: &[f64], weights: Option<&[f64]>, y: &[f64]| {
            energy_distance(1, x, weights, y, &()).unwrap_err().to_string()
        };
        assert!(message(&[1.0], None, &[1.0, 2.0]).contains("energy distance: x: has fewer than two rows"));
        assert!(message(&[1.0, 2.0], None, &[1.0]).contains("energy distance: y: has fewer"));
        assert!(message(&[1.0, 2.0], Some(&[1.0, 0.0]), &[1.0, 2.0]).contains("x: has fewer"));
        assert!(message(&[1.0, f64::NAN], None, &[1.0, 2.0]).contains("not finite"));
        assert!(message(&[1.0, 2.0], Some(&[0.0, 0.0]), &[1.0, 2.0]).contains("not finite"));
        assert!(message(&[1.0, 2.0], Some(&[1.0]), &[1.0, 2.0]).contains("weights of x"));
        let outcome = energy_distance(1, &[0.0, 1.0], None, &[2.0, 3.0], &crate::stage::tests::Cancelled);
        assert!(matches!(outcome, Err(Error::Interrupted)));
    }
}
