//! Resuming: the newest whole checkpoint of a run, if the run did the same work.

use super::checkpoint::Checkpoint;
use super::stopping::Best;
use super::{Observer, read_metrics};
use crate::config::{Config, OutputConfig, Schedule, Settings, inline};
use crate::data::Snapshots;
use crate::engine::TrainState;
use crate::error::{Error, InputKind, Result};
use crate::run_folder::RunFolder;

/// State of the earlier run, read before it is resumed.
pub(super) struct Earlier {
    /// Its newest checkpoint; `None` before the first one.
    pub state: Option<TrainState>,
    /// Its checkpoint with the fingerprint of this version, if an earlier version gave it another
    /// one. It is to be saved before the configuration in the folder changes, which shows that they
    /// agree.
    pub renewed: Option<Checkpoint>,
    /// Its best weights, with early stopping.
    pub best: Option<Best>,
    /// Steps between its lines of metrics.
    pub metrics_every: u64,
}

impl Default for Earlier {
    fn default() -> Self {
        let metrics_every = OutputConfig::default().metrics_every;
        Earlier { state: None, renewed: None, best: None, metrics_every }
    }
}

/// The fingerprint of the checkpoints of member `number` of the ensemble of a run.
pub(super) fn fingerprint_of(number: usize, fingerprint: &str) -> String {
    match number {
        1 => fingerprint.to_string(),
        _ => format!("{fingerprint}, member {number}"),
    }
}

/// The run in `folder`, to be resumed as `config` says: the state of each member. Writes nothing.
///
/// # Errors
/// [`Error::Input`] if the run had other settings (named with both values) or other data, or has
/// taken more steps than requested; [`Error::Io`] if a checkpoint may exist but cannot be seen.
pub(super) fn load(
    folder: &RunFolder,
    config: &Config,
    snapshots: &Snapshots,
    fingerprint: &str,
    arithmetic: &str,
    observer: &mut dyn Observer,
) -> Result<Vec<Earlier>> {
    let (earlier, wanted) = (folder.last_member()?, config.training.seeds);
    if earlier > wanted {
        let (problem, fix) = (
            format!("is {wanted}, but the run in this folder has {earlier} members"),
            "ask for as many or more, or start again with `Existing::Replace` or another `output.folder`",
        );
        return Err(Error::input(folder.path(), "training.seeds", problem, fix).of_kind(InputKind::Conflict));
    }
    if earlier < wanted && folder.config().exists() {
        let from_config = Config::read(&folder.config(), &[]).map_or(earlier, |old| old.training.seeds);
        if from_config < wanted {
            observer.notice(&format!("training.seeds is {wanted}, was {from_config}: new members start at step 0"));
        }
    }
    (1..=wanted)
        .map(|number| load_member(folder, number, config, snapshots, fingerprint, arithmetic, observer))
        .collect()
}

/// Member `number` of the run in `folder`.
fn load_member(
    folder: &RunFolder,
    number: usize,
    config: &Config,
    snapshots: &Snapshots,
    fingerprint: &str,
    arithmetic: &str,
    observer: &mut dyn Observer,
) -> Result<Earlier> {
    let old = Config::read(&folder.config(), &[]);
    let metrics_every = old.as_ref().unwrap_or(config).output.metrics_every;
    let path = folder.member(number).checkpoints();
    let fingerprint = &fingerprint_of(number, fingerprint)[..];
    let newest = match path.try_exists().map_err(Error::io(&path, "look for"))? {
        true => Checkpoint::load_newest(&path, |message| observer.warning(message))?,
        false => None, // stopped before the first checkpoint
    };
    let Some(checkpoint) = newest else { return Ok(Earlier { metrics_every, ..Earlier::default() }) };
    let refuse = |field: &str, problem: String, fix: &str| {
        Err(Error::input(folder.path(), field, problem, fix).of_kind(InputKind::Conflict))
    };
    // Keys without effect decided the fingerprint too when each of them was written.
    let agrees_in_the_first_form = || -> Option<bool> {
        let settings = Settings::of_first_form(&std::fs::read_to_string(folder.config()).ok()?)?;
        let old = old.as_ref().ok()?;
        Some(settings.digest(snapshots).ok()? == checkpoint.fingerprint && differences(old, config).is_empty())
    };
    let agrees = checkpoint.fingerprint == fingerprint;
    let renewed = if !agrees && number == 1 && agrees_in_the_first_form() == Some(true) {
        Some(Checkpoint { fingerprint: fingerprint.to_string(), ..checkpoint.clone() })
    } else {
        None
    };
    if !agrees && renewed.is_none() {
        let old = match &old {
            Ok(old) => old,
            Err(error) => {
                let problem = format!(
                    "the run in this folder had other settings or data, and what they were cannot be read: {error}"
                );
                return refuse(
                    "`Existing::Resume`",
                    problem,
                    "mend its config.toml, or start again with `Existing::Replace` or another `output.folder`",
                );
            }
        };
        let differences = differences(old, config);
        let problem = match &differences[..] {
            [] => "the run in this folder had other data, or was made by another version of the program".to_string(),
            _ => format!("the run in this folder had other settings: {}", differences.join("; ")),
        };
        let fix = "restore them (its config.toml has them all), or start again with `Existing::Replace` or another `output.folder`";
        return refuse("`Existing::Resume`", problem, fix);
    }
    let (taken, wanted) = (checkpoint.state.step, config.training.steps);
    if taken > wanted {
        let problem = format!("is {wanted}, but the run in this folder has taken {taken} steps");
        return refuse(
            "training.steps",
            problem,
            "ask for more steps, or start again with `Existing::Replace` or another `output.folder`",
        );
    }
    // What all members have in common is said once.
    if number > 1 {
        return Ok(Earlier { state: Some(checkpoint.state), renewed, best: checkpoint.best, metrics_every });
    }
    if let Some(old) = old.ok().filter(|old| old.training.steps != wanted) {
        let schedule = match config.training.schedule {
            Schedule::Cosine { .. } => {
                format!("; from step {taken} on the learning rate follows the cosine of a run that long")
            }
            Schedule::Constant => String::new(),
        };
        observer.notice(&format!("training.steps is {wanted}, was {}{schedule}", old.training.steps));
    }
    if !checkpoint.arithmetic.is_empty() && checkpoint.arithmetic != arithmetic {
        observer.notice(&format!(
            "the run so far was computed on {}, the rest on {arithmetic}: sums have another order there, so the last bits will \
             differ from those of a run in one place",
            checkpoint.arithmetic
        ));
    }
    Ok(Earlier { state: Some(checkpoint.state), renewed, best: checkpoint.best, metrics_every })
}

/// Settings that affect the result of a step and differ, each with its old and its new value.
fn differences(old: &Config, new: &Config) -> Vec<String> {
    // The locations of files and the numbers of steps and members do not affect a step.
    let table = |config: &Config| {
        let mut config = config.clone();
        config.output = OutputConfig::default();
        config.data.path = Default::default();
        config.data.times_path = None;
        config.training.steps = 0;
        config.training.seeds = 1;
        config.training.precision = None;
        toml::Table::try_from(config).unwrap_or_default()
    };
    let (old, new) = (table(old), table(new));
    let mut differences = Vec::new();
    let shown = |value: Option<&toml::Value>| value.map_or("not set".to_string(), inline);
    for (section, keys) in &new {
        let (Some(keys), Some(old)) = (keys.as_table(), old.get(section).and_then(toml::Value::as_table)) else {
            continue;
        };
        let gone = old.keys().filter(|key| !keys.contains_key(*key));
        for key in keys.keys().chain(gone) {
            let (before, after) = (old.get(key), keys.get(key));
            if before != after {
                differences.push(format!("{section}.{key} was {} and is {}", shown(before), shown(after)));
            }
        }
    }
    differences
}

/// The run in `folder` in a few words, for a user who is about to replace it.
pub(super) fn describe(folder: &RunFolder) -> String {
    let step = Checkpoint::load_newest(&folder.checkpoints(), |_| ()).ok().flatten().map(|newest| newest.state.step);
    let last = read_metrics(&folder.metrics(), |_| ()).ok().and_then(|lines| lines.last().map(|line| line.loss));
    match (step, last) {
        (Some(step), Some(loss)) => format!("a run of {step} steps, loss {loss:.5}"),
        (Some(step), None) => format!("a run of {step} steps"),
        _ => "a run without a checkpoint".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_differs_is_named_with_both_values() {
        let mut old = Config::default();
        old.model.hidden = Some(vec![128; 3]);
        let mut new = old.clone();
        new.output.metrics_every = 3;
        new.training.steps = 7;
        assert!(differences(&old, &new).is_empty());
        new.training.learning_rate = 5e-4;
        new.model.hidden = Some(vec![16, 16]);
        new.data.components = Some(5);
        assert_eq!(
            differences(&old, &new),
            [
                "data.components was not set and is 5",
                "model.hidden was [128, 128, 128] and is [16, 16]",
                "training.learning_rate was 0.001 and is 0.0005"
            ]
        );
        assert!(differences(&new, &old).contains(&"data.components was 5 and is not set".to_string()));
    }
}
