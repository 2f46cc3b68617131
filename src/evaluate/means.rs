//! Means over comparisons of one kind, with their standard errors.

use serde::Serialize;

use super::labels::{Kind, Role};
use super::large::SlicedScores;
use super::report::{Comparison, Distances, EqualNumbers};
use super::verdict::Measure;

/// A mean with the standard error of that mean, s / √n for the deviation s between n values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Its standard error; `None` for a single value, and for infinite ones.
    pub standard_error: Option<f64>,
}

impl Mean {
    /// Of `values`; `None` if there are none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Mean> {
        let values: Vec<f64> = values.into_iter().collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let standard_error = (values.len() > 1 && mean.is_finite()).then(|| (squares / (n - 1.0) / n).sqrt());
        (!values.is_empty()).then_some(Mean { mean, standard_error })
    }
}

/// Means of the distances of one set of points from the truth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SetMeans {
    /// What the points are: the model's particles, or points that need no model.
    pub name: &'static str,
    /// Number of comparisons that have this set.
    pub comparisons: usize,
    /// Exact W₁.
    pub w1: Option<Mean>,
    /// Exact W₂.
    pub w2: Option<Mean>,
    /// Unbiased squared energy distance.
    pub energy: Option<Mean>,
    /// Unbiased MMD² with half the bandwidth.
    pub mmd2_half: Option<Mean>,
    /// Unbiased MMD² with the median distance as bandwidth.
    pub mmd2: Option<Mean>,
    /// Unbiased MMD² with twice the bandwidth.
    pub mmd2_double: Option<Mean>,
}

/// Means of the sliced distances of one set of points from the truth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlicedMeans {
    /// As [`SetMeans::name`].
    pub name: &'static str,
    /// Number of comparisons that have this set.
    pub comparisons: usize,
    /// √d · [sliced W₂](super::sliced_wasserstein2).
    pub sliced_w2: Mean,
}

/// Means over all comparisons of one role and kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Means {
    /// What the training knew of the truths.
    pub training: Role,
    /// Where the truths lie.
    pub kind: Kind,
    /// Number of comparisons.
    pub comparisons: usize,
    /// Smallest and largest number of points of the Wasserstein distances, on each side.
    pub n_points: Option<[usize; 2]>,
    /// The sets of points, the model's first.
    pub sets: Vec<SetMeans>,
    /// Smallest and largest number of points of the sliced distances, on each side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_sliced: Option<[usize; 2]>,
    /// Sliced distances, where snapshots have more points than exact ones take.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sliced: Vec<SlicedMeans>,
    /// Kinetic energy, network units.
    pub kinetic_energy: Option<Mean>,
    /// Hamilton–Jacobi–Bellman residual, network units.
    pub hjb_residual: Option<Mean>,
}

/// A set of points of a comparison: its name, and its distances.
type Set = (&'static str, fn(&Comparison) -> Option<Distances>);

/// The model's particles, in [`SetMeans::name`].
pub(super) const MODEL: Set =
    ("model", |comparison| Some(comparison.equal_numbers.as_ref().map_or(comparison.model, |equal| equal.model)));

/// The points that the particles started from.
pub(super) const NO_MOTION: Set = ("no motion", |comparison| {
    Some(comparison.equal_numbers.as_ref().map_or(comparison.no_motion, |equal| equal.no_motion))
});

/// Two halves of the truth, in [`SetMeans::name`].
pub(super) const SAMPLING_FLOOR: &str = "sampling floor";

/// The exact plan's points between the two snapshots beside the truth.
pub(super) const PLAN_MIDPOINT: Set = ("plan midpoint", |comparison| of_equal(comparison, |equal| equal.plan_midpoint));

/// Names of other sets, in [`SetMeans::name`].
pub(super) const ROLL_OUT: &str = "from the first";
pub(super) const ALL_POINTS: &str = "model, all points";

fn of_equal(comparison: &Comparison, set: fn(&EqualNumbers) -> Option<Distances>) -> Option<Distances> {
    comparison.equal_numbers.as_ref().and_then(set)
}

/// All sets, in the order of reports.
const SETS: [Set; 9] = [
    MODEL,
    (ROLL_OUT, |comparison| of_equal(comparison, |equal| equal.roll_out)),
    NO_MOTION,
    ("previous", |comparison| of_equal(comparison, |equal| equal.previous)),
    ("next", |comparison| of_equal(comparison, |equal| equal.next)),
    ("pooled neighbors", |comparison| of_equal(comparison, |equal| equal.pooled_neighbors)),
    PLAN_MIDPOINT,
    (SAMPLING_FLOOR, |comparison| comparison.sampling_floor),
    (ALL_POINTS, |comparison| {
        // Unbiased distances are of all points everywhere.
        let no = |model: Distances| Distances { energy: None, mmd2_half: None, mmd2: None, mmd2_double: None, ..model };
        comparison.equal_numbers.as_ref().map(|_| no(comparison.model))
    }),
];

impl Means {
    /// The means of each role and kind that occurs, what is predicted first.
    pub(super) fn of(comparisons: &[Comparison]) -> Vec<Means> {
        let mut groups: Vec<(Role, Kind)> = comparisons.iter().map(Comparison::group).collect();
        groups.sort_by_key(|&(role, kind)| (!role.is_predicted(), role, kind));
        groups.dedup();
        let of_group = |&(training, kind): &(Role, Kind)| {
            let of: Vec<&Comparison> = comparisons.iter().filter(|each| each.group() == (training, kind)).collect();
            let n_points = of.iter().filter_map(|each| each.equal_numbers.as_ref()).map(|equal| equal.n_points);
            let sliced: Vec<&SlicedScores> = of.iter().filter_map(|each| each.sliced.as_ref()).collect();
            Means {
                training,
                kind,
                comparisons: of.len(),
                n_points: range(n_points),
                n_sliced: range(sliced.iter().map(|scores| scores.n_points)),
                sliced: SETS.iter().filter_map(|(name, _)| SlicedMeans::of(name, &sliced)).collect(),
                sets: SETS.iter().filter_map(|set| SetMeans::of(*set, &of)).collect(),
                kinetic_energy: Mean::of(of.iter().map(|each| each.kinetic_energy)),
                hjb_residual: Mean::of(of.iter().map(|each| each.hjb_residual)),
            }
        };
        groups.iter().map(of_group).collect()
    }

    /// Means over `groups` of their means, each of the same weight; the standard errors are those
    /// between groups.
    pub(super) fn over(groups: &[&[Means]]) -> Vec<Means> {
        let mut keys: Vec<(Role, Kind)> =
            groups.iter().copied().flatten().map(|means| (means.training, means.kind)).collect();
        keys.sort_by_key(|&(role, kind)| (!role.is_predicted(), role, kind));
        keys.dedup();
        let of_key = |&(training, kind): &(Role, Kind)| {
            let alike = |means: &&Means| (means.training, means.kind) == (training, kind);
            let of: Vec<&Means> = groups.iter().copied().flatten().filter(alike).collect();
            let all = |ranges: fn(&Means) -> Option<[usize; 2]>| range(of.iter().filter_map(|m| ranges(m)).flatten());
            let mean = |of_one: fn(&Means) -> Option<Mean>| {
                Mean::of(of.iter().filter_map(|means| of_one(means)).map(|mean| mean.mean))
            };
            Means {
                training,
                kind,
                comparisons: of.iter().map(|means| means.comparisons).sum(),
                n_points: all(|means| means.n_points),
                n_sliced: all(|means| means.n_sliced),
                sliced: SETS.iter().filter_map(|(name, _)| SlicedMeans::over(name, &of)).collect(),
                sets: SETS.iter().filter_map(|(name, _)| SetMeans::over(name, &of)).collect(),
                kinetic_energy: mean(|means| means.kinetic_energy),
                hjb_residual: mean(|means| means.hjb_residual),
            }
        };
        keys.iter().map(of_key).collect()
    }

    /// True if `other` has the same role and kind.
    pub(super) fn is_like(&self, other: &Means) -> bool {
        (self.training, self.kind) == (other.training, other.kind)
    }

    /// The group in words, for reports.
    #[must_use]
    pub fn name(&self) -> String {
        let role = self.training.name();
        match (self.training, self.kind) {
            (Role::Unknown, _) => "seen or not: unknown".into(),
            (_, Kind::Between) => role.into(),
            (_, Kind::Forecast) => format!("{role}, a forecast"),
            (_, Kind::Rows) => format!("{role} rows of times that were seen"),
        }
    }
}

/// The smallest and the largest of `numbers`, if there are any.
fn range(numbers: impl Iterator<Item = usize>) -> Option<[usize; 2]> {
    numbers.fold(None, |range: Option<[usize; 2]>, n| {
        range.map_or(Some([n, n]), |[least, most]| Some([least.min(n), most.max(n)]))
    })
}

impl SlicedMeans {
    fn of(name: &'static str, comparisons: &[&SlicedScores]) -> Option<SlicedMeans> {
        let found: Vec<f64> = comparisons.iter().filter_map(|scores| scores.of(name)).collect();
        let comparisons = found.len();
        Mean::of(found).map(|sliced_w2| SlicedMeans { name, comparisons, sliced_w2 })
    }

    /// Means over the set `name` of `groups`.
    fn over(name: &'static str, groups: &[&Means]) -> Option<SlicedMeans> {
        let found: Vec<&SlicedMeans> =
            groups.iter().flat_map(|means| &means.sliced).filter(|set| set.name == name).collect();
        let comparisons = found.iter().map(|set| set.comparisons).sum();
        let sliced_w2 = Mean::of(found.iter().map(|set| set.sliced_w2.mean))?;
        Some(SlicedMeans { name, comparisons, sliced_w2 })
    }
}

impl SetMeans {
    fn of((name, distances): Set, comparisons: &[&Comparison]) -> Option<SetMeans> {
        let found: Vec<Distances> = comparisons.iter().filter_map(|comparison| distances(comparison)).collect();
        let mean = |measure: Measure| Mean::of(found.iter().filter_map(|distances| measure.of(distances)));
        (!found.is_empty()).then(|| SetMeans {
            name,
            comparisons: found.len(),
            w1: mean(Measure::W1),
            w2: mean(Measure::W2),
            energy: mean(Measure::Energy),
            mmd2_half: mean(Measure::Mmd2Half),
            mmd2: mean(Measure::Mmd2),
            mmd2_double: mean(Measure::Mmd2Double),
        })
    }

    /// Means over the set `name` of `groups`.
    fn over(name: &'static str, groups: &[&Means]) -> Option<SetMeans> {
        let found: Vec<&SetMeans> =
            groups.iter().flat_map(|means| &means.sets).filter(|set| set.name == name).collect();
        let mean = |measure: Measure| Mean::of(found.iter().filter_map(|set| set.mean(measure)).map(|mean| mean.mean));
        (!found.is_empty()).then(|| SetMeans {
            name,
            comparisons: found.iter().map(|set| set.comparisons).sum(),
            w1: mean(Measure::W1),
            w2: mean(Measure::W2),
            energy: mean(Measure::Energy),
            mmd2_half: mean(Measure::Mmd2Half),
            mmd2: mean(Measure::Mmd2),
            mmd2_double: mean(Measure::Mmd2Double),
        })
    }

    /// The mean of one measure.
    #[must_use]
    pub fn mean(&self, measure: Measure) -> Option<Mean> {
        match measure {
            Measure::W1 => self.w1,
            Measure::W2 => self.w2,
            Measure::Energy => self.energy,
            Measure::Mmd2Half => self.mmd2_half,
            Measure::Mmd2 => self.mmd2,
            Measure::Mmd2Double => self.mmd2_double,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_has_its_standard_error() {
        assert_eq!(Mean::of([]), None);
        assert_eq!(Mean::of([3.0]), Some(Mean { mean: 3.0, standard_error: None }));
        // Deviation 2 of three values: 2/√3.
        let mean = Mean::of([1.0, 3.0, 5.0]).expect("values");
        assert_eq!(mean.mean, 3.0);
        assert!((mean.standard_error.expect("three") - 2.0 / 3f64.sqrt()).abs() < 1e-15);
    }
}
