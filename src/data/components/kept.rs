//! What components keep of the variance, and of that part of it by which the snapshots differ.

use std::path::Path;

use super::{Components, percent};
use crate::data::Snapshots;

/// Components that keep less of the variance between the snapshots' means lose motion.
const ENOUGH: f64 = 0.9;

/// Shares that components keep of the rows they were fitted to.
pub(in crate::data) struct Kept<'a> {
    components: &'a Components,
    /// Of the variance between the means of the snapshots, less what random rows of one
    /// distribution would have (analysis of variance). `None` if the means differ no more than
    /// that, or there are no two rows of a time.
    between: Option<f64>,
}

impl<'a> Kept<'a> {
    /// For `wide` rows, differences from `origin`, that have `scores [n, k]`.
    pub fn of(components: &'a Components, wide: &Snapshots, origin: &[f64], scores: &[f32]) -> Kept<'a> {
        let n = wide.samples.len() / wide.dim;
        let n_times = wide.times.len();
        let zero = vec![0.0; components.count()];
        let mut sums = [0.0; 2]; // Σₖ nₖ ‖mean of snapshot k‖², of all columns and of the scores
        for k in 0..n_times {
            let scores = &scores[wide.offsets[k] * zero.len()..wide.offsets[k + 1] * zero.len()];
            let squares = [square_of_mean(wide.rows(k), &components.center(origin)), square_of_mean(scores, &zero)];
            sums.iter_mut().zip(squares).for_each(|(sum, square)| *sum += wide.n_rows(k) as f64 * square);
        }
        let kept: f64 = components.variance.iter().sum();
        let between = |sum: f64, variance: f64| {
            let within = variance * n as f64 - sum;
            sum - within * (n_times as f64 - 1.0) / (n - n_times) as f64
        };
        let share = (n > n_times && n_times > 1).then(|| {
            let all = between(sums[0], components.total_variance);
            // Means that differ by chance alone have no share that could be told.
            (all > 0.5 * sums[0]).then(|| (between(sums[1], kept) / all).clamp(0.0, 1.0))
        });
        Kept { components, between: share.flatten() }
    }

    /// The shares, in a sentence.
    pub fn notice(&self, path: &Path) -> String {
        let Components { variance, mean, .. } = self.components;
        let between = match self.between {
            Some(share) => format!(", and {} of that between the means of the snapshots", percent(share)),
            None => String::new(),
        };
        let kept = percent(self.components.kept());
        format!(
            "{}: {} components keep {kept} of the variance of {} columns{between}",
            path.display(),
            variance.len(),
            mean.len()
        )
    }

    /// A warning if the components lose part of the motion.
    pub fn warning(&self, path: &Path) -> Option<String> {
        let lost = 1.0 - self.between.filter(|&share| share < ENOUGH)?;
        Some(format!(
            "{}: the snapshots also differ where no component leads: {} of the variance between their means is lost; raise \
             data.components",
            path.display(),
            percent(lost)
        ))
    }
}

/// Square of the distance of the mean of `rows` from `center`.
fn square_of_mean(rows: &[f32], center: &[f64]) -> f64 {
    let mut sums = vec![0.0; center.len()];
    for row in rows.chunks_exact(center.len()) {
        sums.iter_mut().zip(row).zip(center).for_each(|((sum, x), center)| *sum += f64::from(*x) - center);
    }
    let n = (rows.len() / center.len()) as f64;
    sums.iter().map(|sum| (sum / n).powi(2)).sum()
}
