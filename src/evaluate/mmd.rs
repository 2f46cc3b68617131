//! Unbiased maximum mean discrepancy (Gretton et al., JMLR 2012, equation 3).

use super::pair_means::{Weighted, between, shares, squared_distance, within};
use crate::error::Result;
use crate::rng::{Purpose, index, words};
use crate::stage::Watch;

/// Radial basis kernel k(x, y) = exp(−‖x − y‖² / (2h²)).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kernel {
    /// h.
    pub bandwidth: f64,
}

impl Kernel {
    /// The kernel whose bandwidth is the median distance between rows `[n, dim]`, over 10 000
    /// random pairs. `None` if there are fewer than two different rows.
    #[must_use]
    pub fn median(dim: usize, rows: &[f32], seed: u64) -> Option<Kernel> {
        const PAIRS: u32 = 10_000;
        let n = rows.len() / dim;
        if n < 2 {
            return None;
        }
        let mut distances: Vec<f64> = (0..PAIRS)
            .filter_map(|pair| {
                let [a, b, ..] = words(seed, Purpose::Evaluation, 1, pair);
                let (i, j) = (index(a, n), index(b, n));
                let squared = squared_distance(&rows[i * dim..][..dim], &rows[j * dim..][..dim]);
                (squared > 0.0).then(|| squared.sqrt())
            })
            .collect();
        let middle = distances.len() / 2;
        (!distances.is_empty())
            .then(|| Kernel { bandwidth: *distances.select_nth_unstable_by(middle, f64::total_cmp).1 })
    }

    fn at(self, squared_distance: f64) -> f64 {
        (-squared_distance / (2.0 * self.bandwidth * self.bandwidth)).exp()
    }

    /// The values of the kernels with half the bandwidth, this one, and twice it.
    pub(super) fn of_three(self, squared_distance: f64) -> [f64; 3] {
        // Powers of one exponential, which costs more than the distance.
        let double = (-squared_distance / (8.0 * self.bandwidth * self.bandwidth)).exp();
        let own = double.powi(4);
        [own.powi(4), own, double]
    }

    /// Formula for reports.
    #[must_use]
    pub fn name(self) -> String {
        format!("exp(−‖x−y‖²/(2h²)), h = {}", crate::display::significant(self.bandwidth, 4))
    }
}

/// Unbiased MMD² between rows `x [n, dim]` and `y [m, dim]`; it may be negative. Rows of x may have
/// `weights [n]`, which are divided by their sum. `None` if a side has fewer than two rows with
/// weight.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted) if `watch` cancels.
pub fn mmd2(
    kernel: Kernel,
    dim: usize,
    x: &[f32],
    weights: Option<&[f64]>,
    y: &[f32],
    watch: &dyn Watch,
) -> Result<Option<f64>> {
    let (p, q) = (shares(x.len() / dim, weights), shares(y.len() / dim, None));
    let (x, y) = (Weighted { rows: x, shares: &p }, Weighted { rows: y, shares: &q });
    let at = |squared: f64| [kernel.at(squared)];
    let (Some([within_x]), Some([within_y])) = (within(dim, x, &at, watch)?, within(dim, y, &at, watch)?) else {
        return Ok(None);
    };
    let [across] = between(dim, x, y, &at, watch)?;
    Ok(Some(within_x + within_y - 2.0 * across))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mmd2(kernel: Kernel, dim: usize, x: &[f32], weights: Option<&[f64]>, y: &[f32]) -> Option<f64> {
        super::mmd2(kernel, dim, x, weights, y, &()).expect("is not cancelled")
    }

    #[test]
    fn a_cancelled_discrepancy_is_interrupted() {
        let outcome =
            super::mmd2(Kernel { bandwidth: 1.0 }, 1, &[0.0, 1.0], None, &[2.0, 3.0], &crate::stage::tests::Cancelled);
        assert!(matches!(outcome, Err(crate::Error::Interrupted)));
    }

    /// Written out for two and three points on a line.
    #[test]
    fn mmd2_agrees_with_its_definition() {
        let kernel = Kernel { bandwidth: 1.5 };
        let k = |a: f64, b: f64| (-(a - b).powi(2) / 4.5).exp();
        let got = mmd2(kernel, 1, &[0.0, 1.0], None, &[2.0, 2.5, 4.0]).expect("enough rows");
        let within_y = (k(2.0, 2.5) + k(2.0, 4.0) + k(2.5, 4.0)) / 3.0;
        let across = [2.0, 2.5, 4.0].iter().map(|&y| k(0.0, y) + k(1.0, y)).sum::<f64>() / 6.0;
        assert!((got - (k(0.0, 1.0) + within_y - 2.0 * across)).abs() < 1e-14);
        assert_eq!(mmd2(kernel, 1, &[0.0], None, &[1.0, 2.0]), None);
        assert_eq!(mmd2(kernel, 1, &[0.0, 5.0], Some(&[1.0, 0.0]), &[1.0, 2.0]), None);
    }

    /// The MMD² of rows repeated in proportion to their weights tends to the MMD² of the weights.
    #[test]
    fn weights_count_like_repeated_rows() {
        const COPIES: usize = 400;
        let kernel = Kernel { bandwidth: 1.5 };
        let (x, y) = ([0.0, 1.0, 3.0], [2.0, 2.5, 4.0]);
        let biased = |weights: [usize; 3]| {
            let rows: Vec<f32> = x.iter().zip(weights).flat_map(|(&x, n)| vec![x; n * COPIES]).collect();
            mmd2(kernel, 1, &rows, None, &y).expect("enough rows")
        };
        // The unbiased form leaves out pairs of a row with itself; among copies these pairs occur,
        // and their contribution is known.
        let p = [1.0 / 6.0, 2.0 / 6.0, 3.0 / 6.0f64];
        let own: f64 = p.iter().map(|p| p * p).sum();
        let got = mmd2(kernel, 1, &x, Some(&[1.0, 2.0, 3.0]), &y).expect("enough rows");
        let k = |a: f64, b: f64| (-(a - b).powi(2) / 4.5).exp();
        let pairs = 2.0 * (p[0] * p[1] * k(0.0, 1.0) + p[0] * p[2] * k(0.0, 3.0) + p[1] * p[2] * k(1.0, 3.0));
        let want = biased([1, 2, 3]) - (pairs + own) + pairs / (1.0 - own);
        assert!((got - want).abs() < 1e-3, "{got}, not {want}");
    }

    #[test]
    fn the_median_kernel_needs_two_different_rows() {
        assert_eq!(Kernel::median(1, &[3.0], 0), None);
        assert_eq!(Kernel::median(1, &[3.0, 3.0], 0), None);
        assert_eq!(Kernel::median(2, &[0.0, 0.0, 3.0, 4.0], 0), Some(Kernel { bandwidth: 5.0 }));
    }
}
