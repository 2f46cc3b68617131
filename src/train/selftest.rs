//! The test that every run ends with: what its model does with the snapshots that it has seen.
//!
//! It takes seconds, and holds no data back: it finds models that are wrong even where they were
//! trained, not those that are wrong in between. Each check has a number, a threshold and, where it
//! fails, a remedy. A check that has no meaning for a model says so.

mod measure;
mod members;

use std::borrow::Cow;
use std::fmt;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use self::measure::{Interval, Measured};
use crate::density_path::DensityPath;
use crate::display::significant;
use crate::engine::Engine;
use crate::error::{Error, InputKind, Result};
use crate::evaluate::Mean;
use crate::files::{open_file, write_atomically};
use crate::model::Model;
use crate::stage::Stage;
use crate::training::{Estimator, Training};

/// What the test found about one property of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The number is within its threshold.
    Passed,
    /// The data say something that the settings ignore; the model may still be right.
    Noticed,
    /// The model is not to be believed.
    Failed,
    /// The check has no meaning for this model.
    NotApplicable,
}

/// One property of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Its name, kebab-case.
    pub name: Cow<'static, str>,
    /// The verdict.
    pub verdict: Verdict,
    /// The number that was measured.
    pub value: Option<f64>,
    /// Above this it is not passed.
    pub threshold: f64,
    /// Meaning of the number.
    pub meaning: Cow<'static, str>,
    /// If it is not passed: what was found and what helps, or why the check has no meaning.
    pub message: Option<String>,
}

/// How far one snapshot moved to the next is from it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Motion {
    /// Time of the start, data units; `None` for noise.
    pub from: Option<f64>,
    /// Time of the end.
    pub to: f64,
    /// Rows of either side.
    pub rows: usize,
    /// Energy distance of the moved rows from the snapshot at the end, network units; `None` if
    /// they were lost on the way.
    pub model: Option<f64>,
    /// Energy distance of the rows that did not move.
    pub no_motion: f64,
    /// Size of the error of both by sampling: that which their biased forms would have for equal
    /// distributions.
    pub sampling: f64,
}

/// The test of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfTest {
    /// Steps that the model was trained for.
    pub steps: u64,
    /// The worst verdict of a check.
    pub verdict: Verdict,
    /// The checks, always the same ones in the same order.
    pub checks: Vec<Check>,
    /// The motions behind the first check.
    pub motions: Vec<Motion>,
    /// Share of the path's kinetic energy that the model leaves unexplained, if that is known
    /// ([`Unexplained`](super::Unexplained)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unexplained: Option<f64>,
    /// The tests of all members, if this is that of an ensemble: the checks above are the worst.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<SelfTest>,
}

/// The loss of the last steps of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Its mean.
    pub mean: f64,
    /// Standard error of the mean.
    pub standard_error: f64,
}

impl Loss {
    /// Of the losses of some steps; `None` if there are fewer than two.
    #[must_use]
    pub fn of(losses: impl Iterator<Item = f64>) -> Option<Loss> {
        let Mean { mean, standard_error } = Mean::of(losses)?;
        Some(Loss { mean, standard_error: standard_error? })
    }
}

/// What is tested besides the model.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The training that made the model.
    pub training: &'a Training,
    /// Steps that were taken.
    pub steps: u64,
    /// The loss of the last of them, if known.
    pub loss: Option<Loss>,
}

impl SelfTest {
    /// Most rows of a snapshot that are moved.
    pub const ROWS: usize = 1000;
    /// Most intervals between snapshots that are tested, evenly chosen.
    pub const INTERVALS: usize = 8;

    /// Tests `model`, which is in the network coordinates of the path. The work is about half that
    /// of the training at most, or that of 32 rows, and that of seconds whatever the data and the
    /// network. The watch of `stage` counts intervals.
    ///
    /// # Errors
    /// [`Error::Shape`] for a path of another dimension; errors of the engine,
    /// but for particles that are lost, which is a finding; [`Error::Interrupted`].
    pub fn measure(engine: &dyn Engine, model: &Model, subject: &Subject, stage: &Stage) -> Result<SelfTest> {
        let measured = Measured::of(engine, model, subject.training, subject.steps, stage)?;
        let path = &subject.training.path;
        let checks = vec![
            motion(&measured),
            loss(&measured, subject),
            speed(&measured),
            acceleration(&measured),
            range(&measured),
            mass(&measured),
            growth(&measured, path),
            counts(&measured, path),
            open_view(&measured),
        ];
        let worst = [Verdict::Failed, Verdict::Noticed];
        let verdict = worst.into_iter().find(|verdict| checks.iter().any(|check| check.verdict == *verdict));
        let motions = measured.intervals.iter().map(|interval| interval.motion).collect();
        Ok(SelfTest {
            steps: subject.steps,
            verdict: verdict.unwrap_or(Verdict::Passed),
            checks,
            motions,
            unexplained: None,
            members: Vec::new(),
        })
    }

    /// Writes the test to `path`, as JSON.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self).map_err(|error| Error::io(path, "write")(error.into()))?;
        write_atomically(path, |out| writeln!(out, "{json}"))
    }

    /// Reads the test that a run has written to `path`.
    ///
    /// # Errors
    /// [`Error::Input`] if it is not there, not a regular file or no such test; [`Error::Io`] if it
    /// cannot be read.
    pub fn read(path: &Path) -> Result<SelfTest> {
        /// Tests are some kilobytes for each member.
        const LONGEST: u64 = 1 << 26;
        let mut text = Vec::new();
        open_file(path)?.0.take(LONGEST).read_to_end(&mut text).map_err(Error::io(path, "read"))?;
        serde_json::from_slice(&text).map_err(|error| {
            let fix = "remove it: a run that is resumed writes it again";
            Error::input(path, "content", format!("is not the test of a run: {error}"), fix)
                .of_kind(InputKind::Malformed)
        })
    }

    /// The messages of the checks that failed.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.messages(Verdict::Failed)
    }

    /// The messages of the checks that noticed something.
    pub fn notices(&self) -> impl Iterator<Item = &str> {
        self.messages(Verdict::Noticed)
    }

    fn messages(&self, verdict: Verdict) -> impl Iterator<Item = &str> {
        let with = move |check: &&Check| check.verdict == verdict;
        self.checks.iter().filter(with).filter_map(|check| check.message.as_deref())
    }

    /// The check called `name`.
    #[must_use]
    pub fn check(&self, name: &str) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }
}

/// A table of the checks.
impl fmt::Display for SelfTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { name, verdict, value, threshold, .. } in &self.checks {
            let value = value.map_or("-".into(), |value| significant(value, 3));
            writeln!(f, "{name:<14} {:<15} {value:>10}, threshold {}", verdict.name(), significant(*threshold, 3))?;
        }
        Ok(())
    }
}

impl Verdict {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Passed => "passed",
            Verdict::Noticed => "noticed",
            Verdict::Failed => "failed",
            Verdict::NotApplicable => "not applicable",
        }
    }
}

/// A property with the number above which it is not passed.
struct Property {
    name: &'static str,
    meaning: &'static str,
    threshold: f64,
}

impl Property {
    /// The check of `value`; `finding` words what was found if it is above the threshold.
    fn check(self, value: f64, verdict: Verdict, finding: impl FnOnce() -> String) -> Check {
        let Property { name, meaning, threshold } = self;
        // A value that is not a number does not pass.
        let is_passed = value <= threshold;
        let verdict = if is_passed { Verdict::Passed } else { verdict };
        let message = (!is_passed).then(finding);
        let (name, meaning) = (name.into(), meaning.into());
        Check { name, verdict, value: value.is_finite().then_some(value), threshold, meaning, message }
    }

    /// The check that has no meaning, because of `reason`.
    fn not_applicable(self, reason: &str) -> Check {
        let Property { name, meaning, threshold } = self;
        let (verdict, message) = (Verdict::NotApplicable, Some(reason.to_string()));
        Check { name: name.into(), verdict, value: None, threshold, meaning: meaning.into(), message }
    }
}

const NO_MOTION: &str = "no snapshot has the rows that a comparison needs";
const DIFFUSION: &str = "with diffusion the drift is not the velocity of the densities";
const LOST: &str = "no particle arrived";

/// Why no interval has the number that a check needs.
fn without_motion(measured: &Measured) -> &'static str {
    if measured.n_lost() > 0 { LOST } else { NO_MOTION }
}

fn number(value: f64) -> String {
    significant(value, 3)
}

/// The largest of `value` over the intervals, with its interval. A value that is not a number
/// counts as largest.
fn largest<'a>(measured: &'a Measured, value: impl Fn(&Interval) -> Option<f64>) -> Option<(&'a Interval, f64)> {
    let with_value = |interval: &'a Interval| value(interval).map(|value| (interval, value));
    measured.intervals.iter().filter_map(with_value).max_by(|a, b| a.1.total_cmp(&b.1))
}

fn between(motion: &Motion) -> String {
    match motion.from {
        Some(from) => format!("from time {} to {}", number(from), number(motion.to)),
        None => "from noise to the data".into(),
    }
}

/// Moved rows are nearer to the next snapshot than rows that stay, but for what sampling and a
/// tenth of the distance explain.
fn motion(measured: &Measured) -> Check {
    let property = Property {
        name: "motion",
        meaning: "energy distance to the next snapshot of moved rows, beyond that of rows that stay, \
                  in units of what is tolerated: twice the sampling error, or a tenth of the latter",
        threshold: 1.0,
    };
    let excess = |interval: &Interval| {
        let Motion { model, no_motion, sampling, rows, .. } = interval.motion;
        // One row has no distribution.
        let model = model.filter(|_| rows > 1);
        model.map(|model| (model - no_motion) / (2.0 * sampling).max(0.1 * no_motion))
    };
    match largest(measured, excess) {
        None => property.not_applicable(without_motion(measured)),
        Some((Interval { motion, .. }, value)) => property.check(value, Verdict::Failed, || {
            format!(
                "the model is worse than not moving at all: {} the rows that it moves end at the energy distance {} \
                 from the data, rows that stay at {}; {}",
                between(motion),
                number(motion.model.unwrap_or(f64::NAN)),
                number(motion.no_motion),
                measured.remedy(),
            )
        }),
    }
}

/// Along s → αs the loss is αA + α²Q, so at its least it is −Q, the quadratic part: ∫E[H(∇s) +
/// ½λs²] for the quadratic cost. A loss far below that still falls while s grows: it has not been
/// minimized yet, or it has no least value because nothing is asked of s between the samples.
fn loss(measured: &Measured, subject: &Subject) -> Check {
    let property = Property {
        name: "loss",
        meaning: "minus the mean loss of the last steps, less three standard errors, in units of the energy \
                  of the model on the path; 1 where the loss is least",
        threshold: 1.5,
    };
    if subject.training.estimator == Estimator::Regression {
        return property.not_applicable("the regression on velocities has a lower bound in every row");
    }
    let Some(Loss { mean, standard_error }) = subject.loss else {
        return property.not_applicable("the loss is not known");
    };
    let least = -measured.energy_on_path;
    property.check((-mean - 3.0 * standard_error) / measured.energy_on_path, Verdict::Failed, || {
        format!(
            "the loss is {}, but a model of that kinetic energy has no less than {} where the loss is least: the loss \
             falls without bound between the samples, or the training has hardly begun; {}",
            number(mean),
            number(least),
            if measured.is_nearest { measured.remedy() } else { "train longer, or set objective.estimator = \"auto\"" },
        )
    })
}

/// The kinetic energy of the moved rows is that of the path, or less.
fn speed(measured: &Measured) -> Check {
    let property =
        Property { name: "speed", meaning: "kinetic energy of the moved rows, in units of the path's", threshold: 4.0 };
    let remedy = "lower training.learning_rate, check the data for outliers, or take a smaller model.hidden";
    if measured.n_lost() > 0 {
        let lost = || format!("particles leave all bounds on the way to the next snapshot; {remedy}");
        return property.check(f64::INFINITY, Verdict::Failed, lost);
    }
    if measured.is_diffusive {
        return property.not_applicable(DIFFUSION);
    }
    match measured.relative_speed() {
        None => property.not_applicable(NO_MOTION),
        Some(value) => property.check(value, Verdict::Failed, || {
            format!(
                "the model moves with {} times the kinetic energy that the data show; {}",
                number(value),
                if measured.has_velocity { remedy } else { measured.remedy() },
            )
        }),
    }
}

/// The gradient of the Hamilton–Jacobi–Bellman residual ∂ₜs + H(∇s) is the acceleration: 0 for
/// optimal transport, and not far above speed / interval for anything that snapshots can show.
fn acceleration(measured: &Measured) -> Check {
    let property = Property {
        name: "hjb",
        meaning: "spread over the moved rows of the Hamilton-Jacobi-Bellman residual, which is 0 for optimal \
                  transport, relative to speed * spread of the rows / interval",
        threshold: 10.0,
    };
    if measured.is_diffusive {
        return property.not_applicable("with diffusion the residual needs the Laplacian");
    }
    match largest(measured, |interval| interval.flow.map(|flow| flow.residual)) {
        None => property.not_applicable(without_motion(measured)),
        Some((interval, value)) => property.check(value, Verdict::Failed, || {
            format!(
                "{} the velocity changes {} times faster than snapshots that far apart can show (the residual of the \
                 Hamilton-Jacobi-Bellman equation explodes); {}",
                between(&interval.motion),
                number(value),
                measured.remedy(),
            )
        }),
    }
}

/// Moved rows stay where there are data.
fn range(measured: &Measured) -> Check {
    let property = Property {
        name: "range",
        meaning: "largest share of moved rows whose distance from the box around all data is more than a fifth of its \
                  diagonal",
        threshold: 0.1,
    };
    match largest(measured, |interval| interval.flow.map(|flow| flow.outside)) {
        None => property.not_applicable(without_motion(measured)),
        Some((interval, value)) => property.check(value, Verdict::Failed, || {
            format!(
                "{} {} % of the rows leave the range of the data; {}",
                between(&interval.motion),
                number(100.0 * value),
                measured.remedy(),
            )
        }),
    }
}

/// The mass of the population follows the masses of the snapshots.
fn mass(measured: &Measured) -> Check {
    let property = Property {
        name: "mass",
        meaning: "largest error of the mass between two snapshots: the larger of model and data divided by the smaller",
        threshold: 1.25,
    };
    if !measured.has_growth {
        return property.not_applicable("the model has no growth");
    }
    let error = |interval: &Interval| interval.flow.map(|flow| (flow.mass / interval.mass).ln().abs().exp());
    match largest(measured, error) {
        None => property.not_applicable(without_motion(measured)),
        Some((interval, value)) => property.check(value, Verdict::Failed, || {
            format!(
                "{} the mass of the model grows {} times, that of the data {} times; train longer, take a smaller \
                 objective.growth, or give up growth with objective.growth = 0",
                between(&interval.motion),
                number(interval.flow.map_or(f64::NAN, |flow| flow.mass)),
                number(interval.mass),
            )
        }),
    }
}

/// Growth of a population whose mass does not change makes mass vanish in one place and appear in
/// another, which motion may explain as well.
fn growth(measured: &Measured, path: &DensityPath) -> Check {
    let property = Property {
        name: "growth",
        meaning: "largest share of the mass that vanishes and appears elsewhere between two snapshots of equal mass",
        threshold: 0.05,
    };
    if !measured.has_growth {
        return property.not_applicable("the model has no growth");
    }
    if path.masses.is_some() {
        return property.not_applicable("the data have masses");
    }
    match largest(measured, |interval| interval.flow.map(|flow| flow.exchanged)) {
        None => property.not_applicable(without_motion(measured)),
        Some((interval, value)) => property.check(value, Verdict::Failed, || {
            format!(
                "{} growth moves {} % of the mass, though the snapshots have equal masses: it takes from some rows \
                 what it gives to others; set objective.growth = 0, or objective.mass = \"counts\" if the numbers of \
                 rows follow the population",
                between(&interval.motion),
                number(100.0 * value),
            )
        }),
    }
}

/// Numbers of rows that change steadily, or by much, may be growth.
fn counts(measured: &Measured, path: &DensityPath) -> Check {
    /// A steady change is noticed where it is this factor.
    const STEADY: f64 = 1.5;
    let property = Property {
        name: "counts",
        meaning: "largest number of rows of a snapshot divided by the smallest, where their mass is ignored; \
                  the threshold is 1.5 if they rise or fall all the time",
        threshold: 2.0,
    };
    if path.interpolant.is_generative() {
        return property.not_applicable("there is one snapshot");
    }
    if measured.has_growth || path.masses.is_some() {
        return property.not_applicable("the model has growth");
    }
    if path.snapshots.weights(0).is_some() {
        return property.not_applicable("rows have weights");
    }
    let rows: Vec<usize> = (0..path.snapshots.times.len()).map(|k| path.snapshots.n_rows(k)).collect();
    let (Some(&least), Some(&most)) = (rows.iter().min(), rows.iter().max()) else {
        return property.not_applicable(NO_MOTION);
    };
    let is_steady = rows.is_sorted() || rows.iter().rev().is_sorted();
    let property = if is_steady { Property { threshold: STEADY, ..property } } else { property };
    // Counts of few rows vary by themselves.
    let ratio = most as f64 / least as f64;
    let by_chance = (5.0 / (least as f64).sqrt()).exp();
    let property = Property { threshold: property.threshold.max(by_chance), ..property };
    property.check(ratio, Verdict::Noticed, || {
        format!(
            "the snapshots have {least} to {most} rows, and their mass is ignored: if the numbers follow the size of \
             the population, and not only how much was measured, set objective.mass = \"counts\", objective.growth = \
             0.25 and objective.pairing = \"wfr\""
        )
    })
}

/// Rows that enter and leave are made up for by all others, if every row must have a partner. Then
/// pairs among which rows may be without one move in a more orderly way.
fn open_view(measured: &Measured) -> Check {
    let property = Property {
        name: "open-view",
        meaning: "share of the displacements of pairs that is a linear function of their place, if rows may \
                  vanish and appear at four times the mean cost of a pair, less that if none may",
        threshold: 0.25,
    };
    match measured.open_view() {
        None => {
            property.not_applicable(if measured.has_growth { "growth lets rows enter and leave" } else { NO_MOTION })
        }
        Some(_) if measured.is_partial => property.not_applicable("the pairs let rows enter and leave"),
        Some((value, relaxation)) => property.check(value, Verdict::Failed, || {
            format!(
                "rows enter and leave, or grow in one place: pairs that may leave rows out move in a far more orderly \
                 way, while this model moves all rows to make up for the others; set objective.pairing = {{ kind = \
                 \"unbalanced\", relaxation = {} }} with objective.path = \"linear\", or if the population grows \
                 objective.pairing = \"wfr\", objective.growth = 0.25 and objective.mass = \"counts\"",
                number(relaxation),
            )
        }),
    }
}
