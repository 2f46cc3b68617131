//! Ranges of values, and settings that contradict each other.

use std::path::Path;

use super::{Config, Mass, Pairing, PathConfig, Schedule};
use crate::density_path::Interpolant;
use crate::engine::Estimator;
use crate::error::{Error, Result};
use crate::laplacian::MAX_PROBES;
use crate::transport::MAX_POINTS;

impl Config {
    /// Checks every value and every pair of values that may contradict each other.
    ///
    /// # Errors
    /// [`Error::Input`] names the file, the key and the fix.
    pub(super) fn validate(&self, path: &Path) -> Result<()> {
        let fail = |key: &str, value: String, fix: &str| Err(Error::input(path, key, format!("is {value}"), fix));
        if self.data.path.as_os_str().is_empty() {
            return Err(Error::input(path, "data.path", "is missing", "name the file of the snapshots"));
        }
        if let Some(time) = self.data.hold_out.iter().find(|time| !time.is_finite()) {
            return fail("data.hold_out", time.to_string(), "use finite times");
        }
        let training = &self.training;
        for (key, rows) in
            [("training.interior_rows", training.interior_rows), ("training.boundary_rows", training.boundary_rows)]
        {
            if rows == 0 || u32::try_from(rows).is_err() {
                return fail(key, rows.to_string(), "use 1 to 2³² − 1 rows");
            }
        }
        for (key, count) in [
            ("training.steps", training.steps),
            ("output.checkpoint_every", self.output.checkpoint_every),
            ("output.metrics_every", self.output.metrics_every),
        ] {
            if count == 0 {
                return fail(key, "0".into(), "use at least 1");
            }
        }
        for (key, value) in [("training.learning_rate", training.learning_rate), ("training.epsilon", training.epsilon)]
        {
            if !(value.is_finite() && value > 0.0) {
                return fail(key, value.to_string(), "use a number > 0");
            }
        }
        for (key, value) in
            [("training.weight_decay", training.weight_decay), ("training.clip_norm", training.clip_norm)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return fail(key, value.to_string(), "use a number ≥ 0");
            }
        }
        for (key, value) in [
            ("training.beta1", training.beta1),
            ("training.beta2", training.beta2),
            ("training.ema_decay", training.ema_decay),
        ] {
            if !(0.0..1.0).contains(&value) {
                return fail(key, value.to_string(), "use a number ≥ 0 and < 1");
            }
        }
        if let Schedule::Cosine { final_rate } = training.schedule
            && !(0.0..=1.0).contains(&final_rate)
        {
            return fail("training.schedule.final_rate", final_rate.to_string(), "use a fraction from 0 to 1");
        }
        if let Pairing::Ot { rows } | Pairing::Unbalanced { rows, .. } = self.objective.pairing
            && !(1..=MAX_POINTS).contains(&rows)
        {
            return fail("objective.pairing.rows", rows.to_string(), "use 1 to 5000 rows");
        }
        let objective = &self.objective;
        let interpolant = objective.path.interpolant();
        let conflicts = [
            (
                objective.mass == Mass::Counts && objective.growth == 0.0,
                ("objective.mass", "is counts without growth", "set objective.growth > 0"),
            ),
            (
                matches!(objective.pairing, Pairing::Unbalanced { .. }) && objective.growth == 0.0,
                (
                    "objective.pairing",
                    "is unbalanced without growth",
                    "set objective.growth > 0, or objective.pairing = ot",
                ),
            ),
            (
                objective.pairing == Pairing::Independent && interpolant == Interpolant::Spline,
                (
                    "objective.pairing",
                    "is independent, but objective.path = spline follows chains of pairs",
                    "set objective.pairing = ot",
                ),
            ),
            (
                objective.estimator == Some(Estimator::Regression) && !interpolant.has_velocity(),
                (
                    "objective.estimator",
                    "is regression, but this objective.path has no known velocity",
                    "set objective.estimator = action",
                ),
            ),
            (
                interpolant == Interpolant::Learned && !matches!(self.estimator(), Estimator::Action { .. }),
                ("objective.estimator", "does not suit objective.path = learned", "set objective.estimator = action"),
            ),
            (
                interpolant.is_generative() && (objective.mass == Mass::Counts || !self.data.hold_out.is_empty()),
                (
                    "objective.path",
                    "is generative: its data have a single time and no mass",
                    "remove objective.mass and data.hold_out",
                ),
            ),
        ];
        if let Some((_, (key, problem, fix))) = conflicts.into_iter().find(|(conflict, _)| *conflict) {
            return Err(Error::input(path, key, problem, fix));
        }
        if let Some(bend) = self.bend(1) {
            bend.architecture.validate(&format!("{} (objective.path)", path.display()))?;
        }
        if let PathConfig::Learned { rate, .. } = objective.path
            && !(rate.is_finite() && rate > 0.0)
        {
            return fail("objective.path.rate", rate.to_string(), "use a number > 0");
        }
        if objective.estimator == Some(Estimator::Weak { intervals: 0 }) {
            return fail("objective.estimator.intervals", "0".into(), "use at least 1");
        }
        if let Pairing::Unbalanced { relaxation, .. } = objective.pairing
            && !(relaxation.is_finite() && relaxation > 0.0)
        {
            return fail("objective.pairing.relaxation", relaxation.to_string(), "use a number > 0");
        }
        let probes = objective.laplacian.n_probes;
        if probes == 0 || probes > MAX_PROBES {
            return fail("objective.laplacian.probes", probes.to_string(), "use 1 to 1024 probes");
        }
        self.architecture(1).validate(&path.display().to_string())?;
        self.objective().validate(path)
    }
}
