//! Ranges of values, and settings that contradict each other.

use std::path::Path;

use super::{
    Config, DataConfig, Mass, ObjectiveConfig, OutputConfig, Pairing, PathConfig, Schedule, Stop, TrainingConfig,
};
use crate::data::{HoldOut, RowShare, SplitColumn, SplitValue};
use crate::density_path::{Interpolant, Spline};
use crate::error::{Error, InputKind, Result};
use crate::laplacian::MAX_PROBES;
use crate::model::MAX_DIM;
use crate::ranks::shards;
use crate::training::Estimator;
use crate::transport::MAX_POINTS;

impl Config {
    /// Checks a configuration made in code as [`Config::read`] checks a file. Trainings do it too.
    ///
    /// # Errors
    /// [`Error::Input`] names the key and the fix.
    pub fn check(&self) -> Result<()> {
        self.validate(Path::new("configuration"))
    }

    /// Checks every value and every pair of values that may contradict each other.
    ///
    /// # Errors
    /// [`Error::Input`] names the file, the key and the fix.
    pub(super) fn validate(&self, path: &Path) -> Result<()> {
        let file = File(path);
        self.data.validate(&file)?;
        self.output.validate(&file)?;
        self.training.validate(&file)?;
        self.check_conflicts(&file)?;
        self.objective.validate(&file)?;
        if let Some(bend) = self.bend(1) {
            bend.architecture.validate(path).map_err(|error| error.below("objective.path"))?;
        }
        self.architecture(1).validate(path).map_err(|error| error.below("model"))?;
        self.objective().validate(path).map_err(|error| error.below("objective"))
    }

    /// Values that are right alone and wrong together.
    fn check_conflicts(&self, file: &File) -> Result<()> {
        let objective = &self.objective;
        let interpolant = objective.path.interpolant();
        let is_unbalanced = matches!(objective.pairing, Pairing::Unbalanced { .. });
        let is_wfr = matches!(objective.pairing, Pairing::Wfr { .. });
        let is_still = objective.growth == Some(0.0);
        file.refuse_if(
            objective.growth.is_none() && (objective.pairing != Pairing::Auto || !interpolant.has_pairs()),
            [
                "objective.growth",
                "is auto, but pairs are not, among which it is chosen",
                "set objective.pairing = auto and a path that has pairs, or objective.growth to a number",
            ],
        )?;
        file.refuse_if(
            objective.mass == Mass::Counts && is_still,
            ["objective.mass", "is counts without growth", "set objective.growth > 0"],
        )?;
        file.refuse_if(
            matches!(objective.mass, Mass::Totals { .. }) && is_still,
            ["objective.mass", "is totals without growth", "set objective.growth > 0"],
        )?;
        file.refuse_if(
            objective.growth_head && objective.lambda() == 0.0,
            [
                "objective.growth_head",
                "is true, but the model does not grow, or whether it does is left open",
                "set objective.growth to a number above 0",
            ],
        )?;
        file.refuse_if(
            objective.growth_head && self.estimator() != Estimator::Regression,
            [
                "objective.growth_head",
                "is true, but it fits growth rates of pairs, which regression alone does",
                "set objective.estimator = regression and a path that has pairs",
            ],
        )?;
        file.refuse_if(
            objective.growth_head && self.training.stop != Stop::Never,
            ["training.stop", "is held-out, which does not go with objective.growth_head", "set training.stop = never"],
        )?;
        file.refuse_if(
            objective.mass == Mass::Growth && self.data.growth.is_none(),
            [
                "objective.mass",
                "is growth, but data.growth names no rates that it could follow from",
                "set data.growth, or objective.mass = counts or totals",
            ],
        )?;
        file.refuse_if(
            self.data.growth.is_some() && (objective.lambda() == 0.0 || objective.mass == Mass::Ignored),
            [
                "data.growth",
                "is given, but the model does not grow, or whether it does is left open",
                "set objective.growth to a number above 0 and objective.mass = growth (as these rates say), counts or totals",
            ],
        )?;
        file.refuse_if(
            self.data.growth.is_some() && (!interpolant.has_pairs() || objective.pairing == Pairing::Independent),
            [
                "data.growth",
                "is given, but rows are not paired, for which it is",
                "set objective.path = linear or spline and objective.pairing = ot or wfr",
            ],
        )?;
        file.refuse_if(
            !self.data.conditions.is_empty() && matches!(objective.mass, Mass::Totals { .. }),
            [
                "objective.mass",
                "is totals, which are those of one population, and data.conditions make several",
                "set objective.mass = counts, or train one model for each condition",
            ],
        )?;
        file.refuse_if(
            is_wfr && is_still,
            [
                "objective.pairing",
                "is wfr without growth, which decides how far mass moves rather than grows",
                "set objective.growth > 0, or objective.pairing = ot",
            ],
        )?;
        file.refuse_if(
            is_wfr && objective.mass == Mass::Ignored,
            [
                "objective.pairing",
                "is wfr, but objective.mass is ignored",
                "set objective.mass = counts, or { kind = \"totals\", values = [the mass at each time] }, \
                 all 1 if it is constant",
            ],
        )?;
        let DataConfig { conditions, weights, growth, .. } = &self.data;
        file.refuse_if(
            self.training.stop != Stop::Never && (!conditions.is_empty() || weights.is_some() || growth.is_some()),
            [
                "training.stop",
                "is held-out, which does not go with data.conditions, data.weights or data.growth",
                "set training.stop = never",
            ],
        )?;
        // Rows without a partner are left out, which only the velocities of pairs survive.
        file.refuse_if(
            is_unbalanced
                && is_still
                && (objective.path != PathConfig::Linear || self.estimator() != Estimator::Regression),
            [
                "objective.pairing",
                "is unbalanced without growth, which needs the velocities of straight pairs",
                "set objective.growth > 0, or objective.path = linear and objective.estimator = auto, or \
                 objective.pairing = ot",
            ],
        )?;
        file.refuse_if(
            objective.pairing == Pairing::Independent && interpolant == Interpolant::Spline,
            [
                "objective.pairing",
                "is independent, but objective.path = spline follows chains of pairs",
                "set objective.pairing = ot",
            ],
        )?;
        file.refuse_if(
            objective.estimator == Some(Estimator::Regression) && !interpolant.has_velocity(),
            [
                "objective.estimator",
                "is regression, but this objective.path has no velocity",
                "set objective.estimator = action or weak",
            ],
        )?;
        file.refuse_if(
            interpolant == Interpolant::Learned && !matches!(self.estimator(), Estimator::Action { .. }),
            ["objective.estimator", "does not suit objective.path = learned", "set objective.estimator = action"],
        )?;
        file.refuse_if(
            interpolant.is_generative()
                && (objective.mass != Mass::Ignored
                    || self.data.hold_out.is_of_times() && !self.data.hold_out.is_empty()),
            [
                "objective.path",
                "is generative: its data have a single time and no mass",
                "remove objective.mass and the times of data.hold_out",
            ],
        )
    }
}

impl DataConfig {
    fn validate(&self, file: &File) -> Result<()> {
        if self.path.as_os_str().is_empty() {
            let missing = Error::input(file.0, "data.path", "is missing", "name the file of the snapshots");
            return Err(missing.of_kind(InputKind::Missing));
        }
        for (key, name) in [("data.weights", &self.weights), ("data.growth", &self.growth)] {
            if let Some(name) = name.as_ref().filter(|name| name.is_empty() || **name == self.times) {
                return file.refuse(key, format!("{name:?}"), "name the array or column that holds them");
            }
        }
        let mut names = self.conditions.clone();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return file.refuse("data.conditions", format!("a list with {:?} twice", pair[0]), "name each once");
        }
        if let Some(name) = names.iter().find(|name| **name == self.times || **name == self.samples) {
            let fix = "name other arrays or columns: samples and times are inputs of the network anyway";
            return file.refuse("data.conditions", format!("a list with {name:?}, which is data too"), fix);
        }
        if let Some(count) = self.components.filter(|count| !(1..=MAX_DIM).contains(count)) {
            return file.refuse("data.components", count, "use 1 to 1024 components");
        }
        match &self.hold_out {
            HoldOut::Times(times) => match times.iter().find(|time| !time.is_finite()) {
                Some(time) => file.refuse("data.hold_out", time, "use finite times"),
                None => Ok(()),
            },
            HoldOut::Range(_) => Ok(()),
            HoldOut::Share(RowShare { share, .. }) if !(*share > 0.0 && *share < 1.0) => {
                file.refuse("data.hold_out.share", share, "use a share of the rows between 0 and 1")
            }
            HoldOut::Column(SplitColumn { column, .. }) if column.is_empty() => {
                let fix = "name the column or array that marks the rows";
                Err(Error::input(file.0, "data.hold_out.column", "is not given", fix).of_kind(InputKind::Missing))
            }
            HoldOut::Column(SplitColumn { value: SplitValue::Text(value), .. }) if value.is_empty() => {
                let fix = "name the value of the rows to hold out";
                Err(Error::input(file.0, "data.hold_out.value", "is not given", fix).of_kind(InputKind::Missing))
            }
            _ => Ok(()),
        }
    }
}

impl OutputConfig {
    fn validate(&self, file: &File) -> Result<()> {
        file.at_least_one("output.checkpoint_every", self.checkpoint_every)?;
        file.at_least_one("output.metrics_every", self.metrics_every)
    }
}

impl TrainingConfig {
    fn validate(&self, file: &File) -> Result<()> {
        for (key, rows) in
            [("training.interior_rows", self.interior_rows), ("training.boundary_rows", self.boundary_rows)]
        {
            if rows == 0 || u32::try_from(rows).is_err() {
                return file.refuse(key, rows, "use 1 to 2³² − 1 rows");
            }
        }
        if !shards::are_possible(self.shards) {
            return file.refuse("training.shards", self.shards, shards::POSSIBLE);
        }
        file.at_least_one("training.steps", self.steps)?;
        if !(1..=TrainingConfig::MAX_SEEDS).contains(&self.seeds) {
            return file.refuse("training.seeds", self.seeds, "use 1 to 100 models");
        }
        file.positive("training.learning_rate", self.learning_rate)?;
        file.positive("training.epsilon", self.epsilon)?;
        for (key, value) in [("training.weight_decay", self.weight_decay), ("training.clip_norm", self.clip_norm)] {
            if !(value.is_finite() && value >= 0.0) {
                return file.refuse(key, value, "use a number ≥ 0");
            }
        }
        for (key, value) in
            [("training.beta1", self.beta1), ("training.beta2", self.beta2), ("training.ema_decay", self.ema_decay)]
        {
            if !(0.0..1.0).contains(&value) {
                return file.refuse(key, value, "use a number ≥ 0 and < 1");
            }
        }
        if let Stop::HeldOut { share, patience } = self.stop {
            if !Stop::SHARES.contains(&share) {
                return file.refuse("training.stop.share", share, "use a share of the rows from 0.001 to 0.5");
            }
            file.at_least_one("training.stop.patience", patience)?;
        }
        match self.schedule {
            Schedule::Cosine { final_rate } if !(0.0..=1.0).contains(&final_rate) => {
                file.refuse("training.schedule.final_rate", final_rate, "use a fraction from 0 to 1")
            }
            _ => Ok(()),
        }
    }
}

impl ObjectiveConfig {
    /// Ranges of the settings of path, pairing, estimator and Laplacian.
    fn validate(&self, file: &File) -> Result<()> {
        if let PathConfig::Learned { rate, .. } = self.path {
            file.positive("objective.path.rate", rate)?;
        }
        if let PathConfig::Spline { limit, .. } = self.path
            && !Spline::LIMITS.contains(&limit)
        {
            return file.refuse("objective.path.limit", limit, "use a number from 1 to 1e6");
        }
        if let Pairing::Ot { rows } | Pairing::Unbalanced { rows, .. } | Pairing::Wfr { rows } = self.pairing
            && !(1..=MAX_POINTS).contains(&rows)
        {
            return file.refuse("objective.pairing.rows", rows, "use 1 to 5000 rows");
        }
        if let Pairing::Unbalanced { relaxation, .. } = self.pairing {
            file.positive("objective.pairing.relaxation", relaxation)?;
        }
        if let Mass::Totals { values } = &self.mass {
            for value in values {
                file.positive("objective.mass.values", *value)?;
            }
        }
        if let Some(Estimator::Weak { intervals }) = self.estimator {
            file.at_least_one("objective.estimator.intervals", u64::from(intervals))?;
        }
        match self.laplacian.n_probes {
            1..=MAX_PROBES => Ok(()),
            probes => file.refuse("objective.laplacian.probes", probes, "use 1 to 1024 probes"),
        }
    }
}

/// The configuration file, which errors name.
struct File<'a>(&'a Path);

impl File<'_> {
    fn refuse(&self, key: &str, value: impl ToString, fix: &str) -> Result<()> {
        Err(Error::input(self.0, key, format!("is {}", value.to_string()), fix))
    }

    fn at_least_one(&self, key: &str, count: u64) -> Result<()> {
        if count == 0 { self.refuse(key, count, "use at least 1") } else { Ok(()) }
    }

    fn positive(&self, key: &str, value: f64) -> Result<()> {
        if value.is_finite() && value > 0.0 { Ok(()) } else { self.refuse(key, value, "use a number > 0") }
    }

    /// Fails if the values contradict each other: the key at fault, the problem and the fix.
    fn refuse_if(&self, is_conflict: bool, [key, problem, fix]: [&str; 3]) -> Result<()> {
        if !is_conflict {
            return Ok(());
        }
        Err(Error::input(self.0, key, problem, fix).of_kind(InputKind::Conflict))
    }
}
