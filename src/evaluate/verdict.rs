//! Which of two predictions is better, by each measure, and what a user should know of it.

use serde::Serialize;

use super::labels::{Kind, Role};
use super::means::{MODEL, Mean, Means, NO_MOTION, PLAN_MIDPOINT};
use super::report::{Comparison, Distances};
use crate::display::significant;

/// From so many dimensions on the energy distance decides. There an average of two rows has less
/// noise than a row, and is nearer to every other row than rows are to each other; its Wasserstein
/// distances are smaller than those of better predictions. The spread of the points, which the
/// energy distance and MMD² compare too, tells.
const MANY_DIMENSIONS: usize = 20;

/// A distance of distributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Measure {
    /// Exact W₁.
    W1,
    /// Exact W₂.
    W2,
    /// Unbiased squared energy distance.
    Energy,
    /// Unbiased MMD² with half the bandwidth.
    Mmd2Half,
    /// Unbiased MMD², bandwidth the median distance of the truth.
    Mmd2,
    /// Unbiased MMD² with twice the bandwidth.
    Mmd2Double,
}

impl Measure {
    /// Every measure, in the order of reports.
    pub const ALL: [Measure; 6] =
        [Measure::W1, Measure::W2, Measure::Energy, Measure::Mmd2Half, Measure::Mmd2, Measure::Mmd2Double];

    /// The measure to go by in `dim` dimensions.
    #[must_use]
    pub fn deciding(dim: usize) -> Measure {
        if dim >= MANY_DIMENSIONS { Measure::Energy } else { Measure::W1 }
    }

    /// Its value, if there is one.
    #[must_use]
    pub fn of(self, distances: &Distances) -> Option<f64> {
        match self {
            Measure::W1 => Some(distances.w1),
            Measure::W2 => Some(distances.w2),
            Measure::Energy => distances.energy,
            Measure::Mmd2Half => distances.mmd2_half,
            Measure::Mmd2 => distances.mmd2,
            Measure::Mmd2Double => distances.mmd2_double,
        }
    }

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Measure::W1 => "W1",
            Measure::W2 => "W2",
            Measure::Energy => "energy distance",
            Measure::Mmd2Half => "MMD² at h/2",
            Measure::Mmd2 => "MMD² at h",
            Measure::Mmd2Double => "MMD² at 2h",
        }
    }
}

/// The model against another prediction of the same truths.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// What the training knew of the truths.
    pub training: Role,
    /// Where they lie.
    pub kind: Kind,
    /// The other prediction.
    pub rival: &'static str,
    /// The measure to go by.
    pub deciding: Measure,
    /// The measures by which the model is nearer to the truth, beyond the noise of the comparisons.
    pub model_is_better: Vec<Measure>,
    /// Those by which the other prediction is.
    pub rival_is_better: Vec<Measure>,
    /// Means of the deciding measure: of the model, and of the other.
    #[serde(skip)]
    means: [f64; 2],
}

impl Verdict {
    /// The verdicts about every group of comparisons, in `dim` dimensions.
    pub(super) fn of(dim: usize, groups: &[Means], comparisons: &[Comparison]) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for group in groups {
            let of: Vec<&Comparison> =
                comparisons.iter().filter(|each| each.group() == (group.training, group.kind)).collect();
            for (rival, distances) in [NO_MOTION, PLAN_MIDPOINT] {
                let pairs: Vec<(Distances, Distances, &Comparison)> =
                    (of.iter()).filter_map(|each| Some((MODEL.1(each)?, distances(each)?, *each))).collect();
                let difference = |measure: Measure| difference(measure, &pairs);
                let signs: Vec<(Measure, f64)> =
                    Measure::ALL.into_iter().filter_map(|measure| Some((measure, difference(measure)?))).collect();
                let with = |sign: f64| -> Vec<Measure> {
                    signs.iter().filter(|(_, d)| d * sign > 0.0).map(|(measure, _)| *measure).collect()
                };
                // Without an energy distance (a single row a snapshot) W1 is all there is.
                let wanted = Measure::deciding(dim);
                let has = |measure: Measure| pairs.iter().any(|(model, ..)| measure.of(model).is_some());
                let deciding = if has(wanted) { wanted } else { Measure::W1 };
                let mean = |side: fn(&(Distances, Distances, &Comparison)) -> Distances| {
                    Mean::of(pairs.iter().filter_map(|pair| deciding.of(&side(pair))))
                        .map_or(f64::NAN, |mean| mean.mean)
                };
                if !pairs.is_empty() {
                    verdicts.push(Verdict {
                        training: group.training,
                        kind: group.kind,
                        rival,
                        deciding,
                        model_is_better: with(-1.0),
                        rival_is_better: with(1.0),
                        means: [mean(|pair| pair.0), mean(|pair| pair.1)],
                    });
                }
            }
        }
        verdicts
    }

    /// One sentence, if the measures disagree.
    #[must_use]
    pub fn disagreement(&self) -> Option<String> {
        let list = |measures: &[Measure]| {
            let names: Vec<&str> = measures.iter().map(|measure| measure.name()).collect();
            match &names[..] {
                [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
                names => names.concat(),
            }
        };
        if self.model_is_better.is_empty() || self.rival_is_better.is_empty() {
            return None;
        }
        let (model, rival) = (list(&self.model_is_better), list(&self.rival_is_better));
        let reason = match self.deciding {
            Measure::Energy => {
                "In 20 dimensions and more an average of two rows has less noise than a row, which flatters its W1 and \
                 W2, so go by the energy distance."
            }
            _ => "Below 20 dimensions go by W1.",
        };
        let (rival_name, place) = (self.rival_name(), self.place());
        Some(format!("{place} the measures disagree: {model} prefer the model, {rival} {rival_name}. {reason}"))
    }

    /// One sentence with a remedy, if the model is worse than not moving by the deciding measure.
    pub(super) fn warning(&self) -> Option<String> {
        if self.rival != NO_MOTION.0 || !self.rival_is_better.contains(&self.deciding) {
            return None;
        }
        let [model, rival] = self.means.map(|mean| significant(mean, 3));
        let remedy = match (self.training, self.kind) {
            (_, Kind::Forecast) => {
                "beyond the last time of its training a model only goes on as before: trust no forecast so far ahead"
            }
            (Role::HeldOut | Role::NeverSeen, _) => {
                "compare paths, pairings and time embeddings (docs/paths.md), and check that the snapshots are \
                 of one closed population"
            }
            _ => {
                "it does not follow the data that it was trained on: train it longer, with pairs by optimal transport \
                 (objective.pairing = \"ot\"), or check that the snapshots are of one closed population"
            }
        };
        let (place, measure) = (self.place(), self.deciding.name());
        Some(format!("{place} the model is worse than not moving ({measure} {model} against {rival}): {remedy}"))
    }

    fn place(&self) -> &'static str {
        match (self.training, self.kind) {
            (_, Kind::Forecast) => "in forecasts",
            (_, Kind::Rows) => "on held-out rows",
            (Role::HeldOut, _) => "at held-out times",
            (Role::NeverSeen, _) => "at times never seen",
            (Role::Seen, _) => "at times that were seen",
            (Role::Unknown, _) => "on these data",
        }
    }

    fn rival_name(&self) -> &'static str {
        if self.rival == NO_MOTION.0 { "not moving" } else { "the plan's midpoint" }
    }
}

/// Mean of model − rival, 0 if it is not beyond noise: the standard error over comparisons; for
/// unbiased distances also the deviation from 0 that two halves of the truths have; and a
/// hundredth of the rival's own. `None` if the measure does not exist.
fn difference(measure: Measure, pairs: &[(Distances, Distances, &Comparison)]) -> Option<f64> {
    let both = |(model, rival, _): &(Distances, Distances, &Comparison)| Some((measure.of(model)?, measure.of(rival)?));
    let values: Vec<(f64, f64)> = pairs.iter().filter_map(both).collect();
    let of_differences = Mean::of(values.iter().map(|(model, rival)| model - rival))?;
    let of_rival = Mean::of(values.iter().map(|(_, rival)| *rival))?;
    let is_unbiased = !matches!(measure, Measure::W1 | Measure::W2);
    let halves = pairs.iter().filter_map(|pair| measure.of(pair.2.sampling_floor.as_ref()?));
    let of_halves = Mean::of(halves.map(f64::abs)).filter(|_| is_unbiased).map_or(0.0, |mean| mean.mean);
    let n = (values.len() as f64).sqrt();
    let noise = (of_differences.standard_error.unwrap_or(0.0)).max(of_halves / n).max(0.01 * of_rival.mean.abs());
    Some(if of_differences.mean.abs() > noise { of_differences.mean } else { 0.0 })
}
