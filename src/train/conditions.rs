//! Training under conditions: the snapshots of each group, what they add to the fingerprint, and
//! the test of the model under each condition.

use sha2::{Digest, Sha256};

use super::selftest::{SelfTest, Subject, Verdict};
use crate::config::{Config, hexadecimal};
use crate::data::{RowGroups, Snapshots};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::evenly::evenly;
use crate::model::{Architecture, Coordinates, Model};
use crate::stage::{Section, Stage};
use crate::training::Training;

/// Most groups that are tested, evenly chosen.
const TESTED_GROUPS: usize = 8;

/// Units of the progress of pairing or testing one group.
pub const UNITS_OF_GROUP: u64 = 100;

/// A group of rows to train on.
pub struct GroupSnapshots {
    /// The condition in words.
    pub name: String,
    /// The condition as inputs of the network.
    pub condition: Vec<f32>,
    pub snapshots: Snapshots,
}

/// The groups that have rows in `snapshots`: others are held out. `None` for data without
/// conditions.
///
/// # Errors
/// [`Error::Input`] for a group that a path cannot lead through: one with a single time.
pub fn split(
    snapshots: &Snapshots,
    groups: &RowGroups,
    coordinates: &Coordinates,
    config: &Config,
) -> Result<Option<Vec<GroupSnapshots>>> {
    if groups.names.is_empty() {
        return Ok(None);
    }
    let least = if config.objective.path.interpolant().is_generative() { 1 } else { 2 };
    let group = |(k, snapshots): (usize, Snapshots)| {
        let name = groups.describe(k);
        if snapshots.times.len() < least {
            let problem = format!("has training rows at time {} only", coordinates.data_time(snapshots.times[0]));
            let fix = "leave these rows out, or give the group another time: nothing is known of its motion";
            return Err(Error::input(&config.data.path, name, problem, fix));
        }
        Ok(GroupSnapshots { name, condition: coordinates.inputs_of(&groups.values[k])?, snapshots })
    };
    Ok(Some(groups.all(snapshots).into_iter().map(group).collect::<Result<_>>()?))
}

/// The fingerprint of a run on snapshots of the given `fingerprint` whose `n_training` rows are in
/// `groups`; those that are held out decide nothing.
pub fn fingerprint(fingerprint: String, groups: &RowGroups, n_training: usize) -> String {
    if groups.names.is_empty() {
        return fingerprint;
    }
    let mut hash = Sha256::new();
    hash.update(fingerprint);
    let mut write = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    groups.names.iter().for_each(|name| write(name));
    // By their values, as held-out rows may change the numbers of the groups.
    let names: Vec<String> = (0..groups.values.len()).map(|k| groups.describe(k)).collect();
    groups.of_rows[..n_training].iter().for_each(|&group| write(&names[group as usize]));
    hexadecimal(&hash.finalize())
}

/// [`SelfTest::measure`] of `model`; of a training with groups under the condition of each, whose
/// `names` stand before what was found. Each check is that of the group where it is worst.
///
/// # Errors
/// As [`SelfTest::measure`].
pub fn self_test(
    engine: &dyn Engine,
    model: &Model,
    subject: &Subject,
    names: &[String],
    stage: &Stage,
) -> Result<SelfTest> {
    let Some(groups) = &subject.training.groups else { return SelfTest::measure(engine, model, subject, stage) };
    let chosen = evenly(groups.all().len(), TESTED_GROUPS);
    let tested = chosen.len() as u64;
    let mut worst: Option<SelfTest> = None;
    for (place, k) in (0..).zip(chosen) {
        let group = &groups.all()[k];
        let training = Training {
            architecture: Architecture { conditions: 0, ..subject.training.architecture.clone() },
            path: group.path.clone(),
            bend: None,
            groups: None,
            ..subject.training.clone()
        };
        let (before, total) = (place * UNITS_OF_GROUP, tested * UNITS_OF_GROUP);
        let watch = &Section { watch: stage.watch, before, units: UNITS_OF_GROUP, total };
        // The loss is that of all groups together. All tests together may take what one may.
        let of_group = Subject { training: &training, loss: None, steps: subject.steps / tested };
        let under = model.under_inputs(&group.condition)?;
        let mut test = SelfTest::measure(engine, &under, &of_group, &stage.watched_by(watch))?;
        test.steps = subject.steps;
        for check in &mut test.checks {
            if let (Verdict::Failed | Verdict::Noticed, Some(message), Some(name)) =
                (check.verdict, &mut check.message, names.get(k))
            {
                *message = format!("under {name}: {message}");
            }
        }
        worst = Some(match worst {
            None => test,
            Some(worst) => worse(worst, test),
        });
    }
    worst.map_or_else(|| SelfTest::measure(engine, model, subject, stage), Ok)
}

/// Two tests as one: each check as it is worse, and the motions of both.
fn worse(mut a: SelfTest, b: SelfTest) -> SelfTest {
    let severity = |verdict: Verdict| match verdict {
        Verdict::NotApplicable => 0,
        Verdict::Passed => 1,
        Verdict::Noticed => 2,
        Verdict::Failed => 3,
    };
    if severity(b.verdict) > severity(a.verdict) {
        a.verdict = b.verdict;
    }
    for (a, b) in a.checks.iter_mut().zip(b.checks) {
        if (severity(b.verdict), b.value) > (severity(a.verdict), a.value) {
            *a = b;
        }
    }
    a.motions.extend(b.motions);
    a
}
