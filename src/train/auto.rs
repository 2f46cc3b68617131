//! Settings that a configuration leaves to the program: chosen once, before the first step, and
//! then kept in the run folder.

use super::{Existing, Observer};
use crate::config::{Config, Pairing, PathConfig};
use crate::data::{RowGroups, Snapshots};
use crate::error::{Error, Result};
use crate::model::Coordinates;
use crate::run_folder::RunFolder;
use crate::stage::Stage;
use crate::validate::{choose_within, has_choice};

/// `config` with every setting decided: as in the run that `existing` resumes, otherwise as
/// [`choose_within`] chooses on the training `snapshots`, or on `groups` of their rows, otherwise
/// [settled](Config::settled).
///
/// # Errors
/// As [`choose_within`].
pub(super) fn decided(
    config: &Config,
    existing: Existing,
    folder: &RunFolder,
    (snapshots, groups): (&Snapshots, &RowGroups),
    coordinates: &Coordinates,
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<Config> {
    let file = folder.config();
    if existing == Existing::Resume && file.try_exists().map_err(Error::io(&file, "look for"))? {
        // What is wrong with a configuration that cannot be read is said where the run goes on.
        let earlier = Config::read(&file, &[]).ok();
        return Ok(earlier.map_or_else(|| config.clone(), |earlier| as_in(config, &earlier)).settled());
    }
    let of_conditions: Vec<Snapshots> = groups.all(snapshots).into_iter().map(|(_, snapshots)| snapshots).collect();
    let groups = if of_conditions.is_empty() { std::slice::from_ref(snapshots) } else { &of_conditions };
    if has_choice(config, groups) {
        observer.preparing("comparing paths on times left out in turn");
    }
    let choice = choose_within(config, groups, coordinates, &Stage::new(threads, observer.watch()))?;
    let Some(choice) = choice else { return Ok(config.settled()) };
    observer.notice(&choice.summary());
    Ok(choice.chosen().candidate.applied_to(config).settled())
}

/// `config` with what it leaves to the program as it is in `earlier`.
fn as_in(config: &Config, earlier: &Config) -> Config {
    let mut config = config.clone();
    if config.objective.path == PathConfig::Auto {
        config.objective.path = earlier.objective.path.clone();
    }
    if config.objective.pairing == Pairing::Auto {
        config.objective.pairing = earlier.objective.pairing;
    }
    if config.objective.growth.is_none() {
        (config.objective.growth, config.objective.mass) = (earlier.objective.growth, earlier.objective.mass.clone());
    }
    config.model.hidden = config.model.hidden.or_else(|| earlier.model.hidden.clone());
    config.model.time_embedding = config.model.time_embedding.or_else(|| earlier.model.time_embedding.clone());
    config
}
