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
        let k = components.count();
        let center = components.center(origin);
        // Σ over snapshots of rows · (mean of the snapshot)²: of all columns, of each component.
        // The
        // mean of rows with unequal weights has the noise of fewer rows, by a factor of `noise`.
        let (mut all, mut of_components, mut noise) = (0.0, vec![0.0; k], 0.0);
        for at in 0..n_times {
            let (first, last) = (wide.offsets[at], wide.offsets[at + 1]);
            let (rows, weights) = ((last - first) as f64, wide.weights(at));
            all += rows * means(wide.rows(at), &center, weights).iter().map(|mean| mean * mean).sum::<f64>();
            let means = means(&scores[first * k..last * k], &vec![0.0; k], weights);
            of_components.iter_mut().zip(means).for_each(|(sum, mean)| *sum += rows * mean * mean);
            let squares = |weights: &[f64]| weights.iter().map(|weight| (weight / wide.total(at)).powi(2)).sum::<f64>();
            noise += weights.map_or(1.0, |weights| rows * squares(weights));
        }
        let between = |sum: f64, variance: f64| {
            let within = (variance * n as f64 - sum).max(0.0);
            let real = sum - within * (noise - 1.0) / (n - n_times) as f64;
            // Below three times what chance makes of equal means they count as equal.
            if real > 2.0 / 3.0 * sum { real } else { 0.0 }
        };
        let share = (n > n_times && n_times > 1).then(|| {
            let inside: f64 = of_components.iter().zip(&components.variance).map(|(&sum, &v)| between(sum, v)).sum();
            let rest = |all: f64, parts: &[f64]| (all - parts.iter().sum::<f64>()).max(0.0);
            let outside = between(rest(all, &of_components), rest(components.total_variance, &components.variance));
            (inside + outside > 0.0).then(|| inside / (inside + outside))
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
        let what = if variance.len() == 1 { "component keeps" } else { "components keep" };
        let (path, k, d) = (path.display(), variance.len(), mean.len());
        format!("{path}: {k} {what} {kept} of the variance of {d} columns{between}")
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

/// Mean of each column of `rows`, which count in proportion to `weights` or alike, less `center`.
fn means(rows: &[f32], center: &[f64], weights: Option<&[f64]>) -> Vec<f64> {
    let (mut sums, mut total) = (vec![0.0; center.len()], 0.0);
    for (i, row) in rows.chunks_exact(center.len()).enumerate() {
        let weight = weights.map_or(1.0, |weights| weights[i]);
        total += weight;
        sums.iter_mut().zip(row).zip(center).for_each(|((sum, x), center)| *sum += weight * (f64::from(*x) - center));
    }
    sums.into_iter().map(|sum| sum / total).collect()
}
