//! Scores of all members of an ensemble: how much they depend on the seed of the training.

use serde::Serialize;

use super::labels::{Kind, Labeled, Role};
use super::means;
use super::report::{Comparison, Report};
use super::verdict::Measure;
use super::{EvaluateOptions, evaluate_labeled};
use crate::engine::Engine;
use crate::error::Result;
use crate::model::Model;
use crate::stage::{Section, Stage};

/// Mean and standard deviation over the members of an ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OverMembers {
    /// The mean.
    pub mean: f64,
    /// The standard deviation, with n − 1: that of one more training from another seed.
    pub spread: f64,
}

impl OverMembers {
    /// Of one value of each member; `None` if one has none, or for fewer than two.
    fn of(values: impl Iterator<Item = Option<f64>>) -> Option<OverMembers> {
        let values: Vec<f64> = values.collect::<Option<_>>()?;
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (values.len() > 1).then(|| OverMembers { mean, spread: (squares / (n - 1.0)).sqrt() })
    }
}

/// The distances of the members' particles from one true snapshot, or their means over several:
/// between equal numbers of points, as [`EqualNumbers::model`](super::EqualNumbers::model).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemberScores {
    /// Time of the snapshot that the particles started from; `None` for noise, and for means.
    pub from: Option<f64>,
    /// Time of the true snapshot; `None` for means.
    pub to: Option<f64>,
    /// What the training knew of the truth.
    pub training: Role,
    /// Where the truth lies.
    pub kind: Kind,
    /// Exact W₁.
    pub w1: Option<OverMembers>,
    /// Exact W₂.
    pub w2: Option<OverMembers>,
    /// Unbiased squared energy distance.
    pub energy: Option<OverMembers>,
    /// Unbiased MMD² with half the bandwidth.
    pub mmd2_half: Option<OverMembers>,
    /// Unbiased MMD² with the median distance as bandwidth.
    pub mmd2: Option<OverMembers>,
    /// Unbiased MMD² with twice the bandwidth.
    pub mmd2_double: Option<OverMembers>,
    /// Sliced W₂ of all points, where snapshots have more than exact distances take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sliced_w2: Option<OverMembers>,
}

/// The scores of an ensemble.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Members {
    /// Number of members.
    pub count: usize,
    /// Means over comparisons of one kind: the mean of each member, over the members.
    pub means: Vec<MemberScores>,
    /// For each comparison of the report.
    pub comparisons: Vec<MemberScores>,
}

/// [`evaluate_labeled`] of every member of an ensemble. The report is that of the first one, with
/// the scores of all in [`Report::members`].
///
/// # Errors
/// As [`evaluate_labeled`].
pub fn evaluate_members(
    engine: &dyn Engine,
    members: &[Model],
    labeled: &[Labeled<'_>],
    options: &EvaluateOptions,
    stage: &Stage,
) -> Result<Report> {
    /// Units of progress of one member.
    const UNITS: u64 = 1000;
    if let [model] = members {
        return evaluate_labeled(engine, model, labeled, options, stage);
    }
    let mut reports = Vec::new();
    for (model, index) in members.iter().zip(0..) {
        let (before, total) = (index * UNITS, members.len() as u64 * UNITS);
        let watch = &Section { watch: stage.watch, before, units: UNITS, total };
        reports.push(evaluate_labeled(engine, model, labeled, options, &stage.watched_by(watch))?);
    }
    let members = Members::of(&reports);
    let first = reports.into_iter().next();
    let mut report = first.ok_or_else(|| {
        crate::Error::setting("evaluation", "evaluate::members", "are none".to_string(), "give one or more".to_string())
    })?;
    report.members = members;
    Ok(report)
}

impl Members {
    /// Which tables of a report are of which members.
    #[must_use]
    pub fn note(&self) -> String {
        format!(
            "An ensemble of {} members: the tables are of the first one, but for those at the end, of mean and standard \
             deviation over all.",
            self.count
        )
    }

    /// Of the reports of all members, which make the same comparisons; `None` for fewer than two.
    fn of(reports: &[Report]) -> Option<Members> {
        let [first, _, ..] = reports else { return None };
        let comparisons = (first.comparisons.iter().enumerate())
            .map(|(k, Comparison { from, to, training, kind, .. })| {
                let value = |report: &Report, measure: Measure| {
                    means::MODEL.1(&report.comparisons[k]).and_then(|distances| measure.of(&distances))
                };
                let sliced = |report: &Report| report.comparisons[k].sliced.as_ref()?.of(means::MODEL.0);
                MemberScores::of(reports, *from, Some(*to), (*training, *kind), value).with_sliced(reports, sliced)
            })
            .collect();
        let means = (first.means.iter().enumerate())
            .map(|(k, means)| {
                let value = |report: &Report, measure: Measure| {
                    let model = report.means[k].sets.iter().find(|set| set.name == means::MODEL.0)?;
                    Some(model.mean(measure)?.mean)
                };
                let sliced = |report: &Report| {
                    let model = report.means[k].sliced.iter().find(|set| set.name == means::MODEL.0)?;
                    Some(model.sliced_w2.mean)
                };
                MemberScores::of(reports, None, None, (means.training, means.kind), value).with_sliced(reports, sliced)
            })
            .collect();
        Some(Members { count: reports.len(), means, comparisons })
    }
}

impl MemberScores {
    fn of(
        reports: &[Report],
        from: Option<f64>,
        to: Option<f64>,
        (training, kind): (Role, Kind),
        value: impl Fn(&Report, Measure) -> Option<f64>,
    ) -> MemberScores {
        let over = |measure: Measure| OverMembers::of(reports.iter().map(|report| value(report, measure)));
        let [w1, w2, energy, mmd2_half, mmd2, mmd2_double] = Measure::ALL.map(over);
        MemberScores { from, to, training, kind, w1, w2, energy, mmd2_half, mmd2, mmd2_double, sliced_w2: None }
    }

    fn with_sliced(self, reports: &[Report], of: impl Fn(&Report) -> Option<f64>) -> MemberScores {
        MemberScores { sliced_w2: OverMembers::of(reports.iter().map(of)), ..self }
    }
}
