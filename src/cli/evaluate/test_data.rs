//! The data of an evaluation, with what the training of the model knew of them.

use action_matching::Error;
use action_matching::config::Config;
use action_matching::data::{DataSet, DataSource, DividedSet, RowGroups, Snapshots, read_divided, read_snapshots};
use action_matching::evaluate::{Labeled, Role};
use action_matching::model::{ConditionValue, Coordinates, Model};
use anyhow::bail;

use super::super::condition::matching;
use super::super::output::note;
use super::super::signal::Signals;
use super::super::watch::OnScreen;

/// Snapshots to compare with, and what the training of the model knew of them.
pub struct TestData {
    /// Differences from `origin`.
    pub snapshots: Snapshots,
    roles: Vec<Role>,
    /// Rows that were held out of times that are among `snapshots` too.
    pub held_out: Option<Snapshots>,
    /// Of the rows of `snapshots` and then of `held_out`.
    pub groups: RowGroups,
    /// The data of the run, if they are others and known.
    own: Option<DividedSet>,
    pub origin: Vec<f64>,
    pub columns: Option<Vec<String>>,
    /// For the report.
    pub notes: Vec<String>,
}

impl TestData {
    /// Reads the data of `source`: those of the run, if `is_own`, or others. The model was trained
    /// without the times `held_out`, if these are given.
    pub fn read(
        is_own: bool,
        held_out: Option<&[f64]>,
        config: Option<&Config>,
        model: &Model,
        source: &DataSource,
        signals: &Signals,
    ) -> anyhow::Result<Self> {
        let screen = OnScreen::new("bytes of data", signals);
        let mut test = match config {
            Some(_) if is_own && held_out.is_none() => TestData::divided(read_divided(source, &screen)?),
            _ => TestData::whole(read_snapshots(source, &screen)?),
        };
        if let Some(held_out) = held_out {
            test.roles.fill(Role::Seen);
            for &time in held_out {
                let k = test.snapshots.index_of(time, &source.path, "--held-out")?;
                if k == 0 {
                    bail!("--held-out: names the first time, which every prediction starts from (name others)");
                }
                test.roles[k] = Role::HeldOut;
            }
        } else if let Some(config) = config.filter(|_| !is_own) {
            match read_divided(&DataSource { components: source.components.clone(), ..config.source() }, &screen) {
                Ok(own) => test.own = Some(own),
                Err(Error::Interrupted) => return Err(Error::Interrupted.into()),
                Err(error) => test.notes.push(format!(
                    "Which of these times the model was trained on is unknown, because the data of its run cannot be \
                     read: {error}"
                )),
            }
        } else if config.is_none() {
            test.compare_with_range(model.coordinates.time_range);
        }
        Ok(test)
    }

    /// Snapshots of which nothing is known.
    fn whole(DataSet { snapshots, origin, columns, groups, warnings }: DataSet) -> Self {
        warnings.iter().for_each(|warning| note!("warning: {warning}"));
        let roles = vec![Role::Unknown; snapshots.times.len()];
        TestData { snapshots, roles, held_out: None, groups, own: None, origin, columns, notes: Vec::new() }
    }

    /// The data of the run itself.
    fn divided(DividedSet { training, held_out }: DividedSet) -> Self {
        let mut test = TestData::whole(training);
        test.roles.fill(Role::Seen);
        test.held_out = (!held_out.times.is_empty()).then_some(held_out);
        test
    }

    /// The rows of group `k`.
    pub fn of_group(&self, k: usize, coordinates: &Coordinates) -> Self {
        let n_rows = self.snapshots.samples.len() / self.snapshots.dim;
        let snapshots = self.groups.snapshots(&self.snapshots, 0, k);
        let held_out = self.held_out.as_ref().map(|held_out| self.groups.snapshots(held_out, n_rows, k));
        let role = |time: &f64| self.snapshots.find(*time).map_or(Role::Unknown, |at| self.roles[at]);
        TestData {
            roles: snapshots.times.iter().map(role).collect(),
            snapshots,
            held_out: held_out.filter(|held_out| !held_out.times.is_empty()),
            groups: RowGroups::default(),
            own: self.own.as_ref().map(|own| of_values(own, &self.groups.values[k], coordinates)),
            origin: self.origin.clone(),
            columns: self.columns.clone(),
            notes: self.notes.clone(),
        }
    }

    /// Number of different times.
    pub fn n_times(&self) -> usize {
        let of_rows = |time: &&f64| self.snapshots.find(**time).is_none();
        let beside = self.held_out.iter().flat_map(|held_out| held_out.times.iter().filter(of_rows)).count();
        self.snapshots.times.len() + beside
    }

    /// Gives roles by the times of the run's own data, if they are known, and says how many
    /// snapshots have which.
    pub fn finish(&mut self) {
        if let Some(own) = self.own.take() {
            self.compare_with(&own);
        }
        self.note_numbers();
    }

    /// Roles by the times of the run's own data.
    fn compare_with(&mut self, own: &DividedSet) {
        let role = |&time: &f64| {
            if own.training.snapshots.find(time).is_some() {
                Role::Seen
            } else if own.held_out.find(time).is_some() {
                Role::HeldOut
            } else {
                Role::NeverSeen
            }
        };
        self.roles = self.snapshots.times.iter().map(role).collect();
        if own.held_out.times.iter().any(|&time| own.training.snapshots.find(time).is_some()) {
            self.notes.push(
                "The run held rows out of times that it has seen. Which rows of this file those are is unknown: they \
                 count as seen. Leave the file out to compare with them."
                    .into(),
            );
        }
    }

    /// Roles by the first and last time of the training, which is all that a model file tells.
    fn compare_with_range(&mut self, [first, last]: [f64; 2]) {
        let slack = 1e-6 * (last - first);
        let spanned = first - slack..=last + slack;
        let role = |time: &f64| if spanned.contains(time) { Role::Unknown } else { Role::NeverSeen };
        self.roles = self.snapshots.times.iter().map(role).collect();
        self.notes.push(format!(
            "Which of the times from {first} to {last} the model was trained on is unknown: there is no configuration \
             beside it. --held-out names times that it was not trained on."
        ));
    }

    /// Adds the numbers of snapshots by role to the notes.
    fn note_numbers(&mut self) {
        let count = |role: Role| self.roles.iter().filter(|each| **each == role).count();
        let mut parts: Vec<String> = [Role::Seen, Role::Unknown, Role::HeldOut, Role::NeverSeen]
            .into_iter()
            .filter(|&role| count(role) > 0)
            .map(|role| format!("{} {}", count(role), role.name()))
            .collect();
        if let Some(held_out) = &self.held_out {
            let n_rows = held_out.samples.len() / held_out.dim;
            let is_of_times = held_out.times.iter().all(|&time| self.snapshots.find(time).is_none());
            parts.push(if is_of_times {
                format!("{} held out", held_out.times.len())
            } else {
                format!("{n_rows} rows held out")
            });
        }
        self.notes.push(format!("Snapshots: {}.", parts.join(", ")));
    }

    pub fn labeled(&self) -> Vec<Labeled<'_>> {
        let mut labeled = vec![Labeled { snapshots: &self.snapshots, roles: self.roles.clone() }];
        labeled.extend(self.held_out.as_ref().map(|held_out| Labeled::all(held_out, Role::HeldOut)));
        labeled
    }
}

/// The rows of `data` with the given values of the conditions, of which there may be none.
fn of_values(data: &DividedSet, values: &[ConditionValue], coordinates: &Coordinates) -> DividedSet {
    let DividedSet { training: DataSet { snapshots, groups, .. }, held_out } = data;
    let wanted: Vec<(usize, ConditionValue)> = values.iter().cloned().enumerate().collect();
    // No group has the number that stands for none.
    let k = matching(groups, &wanted, coordinates).first().copied().unwrap_or(usize::MAX);
    let training = DataSet {
        snapshots: groups.snapshots(snapshots, 0, k),
        origin: Vec::new(),
        columns: None,
        groups: RowGroups::default(),
        warnings: Vec::new(),
    };
    DividedSet { training, held_out: groups.snapshots(held_out, snapshots.samples.len() / snapshots.dim, k) }
}
