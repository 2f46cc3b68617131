//! Which candidate to take, from scores on the same left-out times.

use super::Scored;
use super::folds::{Fold, Target};
use crate::evaluate::{Mean, sampling_error};

/// Largest share of the best score by which a simpler candidate may be worse.
const TOLERANCE: f64 = 0.03;
/// The same of a candidate without growth where the best one grows.
const FOR_GROWTH: f64 = 0.1;

/// Index of the candidate to take: the simplest of those that the scores do not tell from the best.
///
/// Growth that is not there does harm wherever mass is asked for, so the best of the candidates
/// that grow has to be better than one that does not by more: by twice the standard error and by
/// [`FOR_GROWTH`] of its score.
///
/// A candidate ties with the best one if the mean of the differences between their scores, which
/// are on the same times in the mean over the same seeds, is at most the standard error of that
/// mean, and at most [`TOLERANCE`] of the best score. One difference has no standard error: then
/// the tolerance alone decides. It also ties if the mean is at most `noise`, the error that so few
/// rows leave: where all candidates are about as near to the truth as other rows of it, that is no
/// reason to take the more complex one.
pub(super) fn choose(scored: &[Scored], noise: f64) -> Option<usize> {
    let best = (0..scored.len()).min_by(|&a, &b| scored[a].energy().mean.total_cmp(&scored[b].energy().mean))?;
    let ties = (0..scored.len()).filter(|&k| k == best || is_tie(&scored[k], &scored[best], noise));
    // Equal ranks go to the better one.
    ties.min_by(|&a, &b| {
        let rank = |k: usize| scored[k].candidate.complexity();
        rank(a).cmp(&rank(b)).then(scored[a].energy().mean.total_cmp(&scored[b].energy().mean))
    })
}

/// How much worse `other` is than `best` on the same times and seeds.
pub(super) fn difference(other: &Scored, best: &Scored) -> Mean {
    mean_of(other.energies().zip(best.energies()).map(|(other, best)| other - best))
}

/// True if `other` is as good as `best`, as far as the scores tell.
pub(super) fn is_tie(other: &Scored, best: &Scored, noise: f64) -> bool {
    let Mean { mean, standard_error } = difference(other, best);
    let share = |of_best: f64| of_best * best.energy().mean.abs();
    if best.candidate.growth > 0.0 && other.candidate.growth == 0.0 {
        return mean <= share(FOR_GROWTH).max(2.0 * standard_error.unwrap_or(0.0)).max(noise);
    }
    mean <= standard_error.map_or(share(TOLERANCE), |standard_error| standard_error.min(share(TOLERANCE))).max(noise)
}

/// The error of a mean energy distance over the targets of `folds` by sampling alone, data units.
pub(super) fn noise(folds: &[Fold]) -> f64 {
    let targets = || folds.iter().flat_map(|fold| fold.targets.iter().map(move |target| (fold, target)));
    let error = |(fold, target): (&Fold, &Target)| {
        sampling_error(fold.training.dim, &fold.in_data_units(&target.truth)).powi(2)
    };
    targets().map(error).sum::<f64>().sqrt() / targets().count() as f64
}

/// The mean of `values`; not a number if there are none.
pub(super) fn mean_of(values: impl IntoIterator<Item = f64>) -> Mean {
    Mean::of(values).unwrap_or(Mean { mean: f64::NAN, standard_error: None })
}
