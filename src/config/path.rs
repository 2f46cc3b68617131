//! From a configuration and its snapshots to a path and a training.

use std::sync::Arc;

use super::{Config, Mass, Pairing};
use crate::data::Snapshots;
use crate::density_path::{
    Coupling, DensityPath, optimal_couplings, partial_couplings, unbalanced_couplings, wfr_couplings,
};
use crate::error::{Error, Result};
use crate::stage::Stage;
use crate::training::Training;

impl Config {
    /// The path through `snapshots` with the masses it needs; an empty list of couplings if it
    /// needs them.
    ///
    /// # Errors
    /// As [`Config::masses`].
    pub(crate) fn unpaired_path(&self, snapshots: impl Into<Arc<Snapshots>>) -> Result<DensityPath> {
        let (objective, snapshots) = (&self.objective, snapshots.into());
        let masses = self.masses(&snapshots)?;
        let interpolant = objective.path.interpolant();
        let is_paired = interpolant.has_pairs() && objective.pairing != Pairing::Independent;
        let couplings = is_paired.then(Arc::default);
        Ok(DensityPath { snapshots, interpolant, couplings, masses, spline: objective.path.slopes() })
    }

    /// Mass of each of `snapshots` relative to the first; `None` if it is ignored.
    ///
    /// # Errors
    /// [`Error::Input`] if the known totals are not one for each snapshot.
    pub(crate) fn masses(&self, snapshots: &Snapshots) -> Result<Option<Vec<f64>>> {
        let n_times = snapshots.times.len();
        let totals: Option<Vec<f64>> = match &self.objective.mass {
            Mass::Ignored => None,
            Mass::Counts => Some((0..n_times).map(|k| snapshots.total(k)).collect()),
            Mass::Growth => {
                snapshots.check_grown()?;
                let grown = |mass: &mut f64, k: usize| {
                    let now = *mass;
                    *mass *= if k + 1 < n_times { snapshots.grown(k) } else { 1.0 };
                    Some(now)
                };
                Some((0..n_times).scan(1.0, grown).collect())
            }
            Mass::Totals { values } if values.len() == n_times => Some(values.clone()),
            Mass::Totals { values } => {
                let problem = format!("has {} for {n_times} times that are trained on", values.len());
                let fix = "give the mass at each of them, in order of time; those in data.hold_out have none";
                return Err(Error::input("configuration", "objective.mass.values", problem, fix));
            }
        };
        Ok(totals.map(|totals| totals.iter().map(|total| total / totals[0]).collect()))
    }

    /// The couplings of `path`.
    ///
    /// # Errors
    /// As [`optimal_couplings`], [`partial_couplings`], [`unbalanced_couplings`] and
    /// [`wfr_couplings`].
    pub(crate) fn couplings(&self, path: &DensityPath, stage: &Stage) -> Result<Vec<Coupling>> {
        let (snapshots, seed) = (&path.snapshots, self.training.seed);
        let masses = || path.masses.clone().unwrap_or_else(|| vec![1.0; snapshots.times.len()]);
        match self.objective.pairing {
            Pairing::Independent => Ok(Vec::new()),
            Pairing::Auto => optimal_couplings(snapshots, DensityPath::PAIRING_ROWS, seed, stage),
            Pairing::Ot { rows } => optimal_couplings(snapshots, rows, seed, stage),
            Pairing::Unbalanced { relaxation, rows } if self.objective.lambda() == 0.0 => {
                partial_couplings(snapshots, relaxation, rows, seed, stage)
            }
            Pairing::Unbalanced { relaxation, rows } => {
                unbalanced_couplings(snapshots, &masses(), relaxation, rows, seed, stage)
            }
            Pairing::Wfr { rows } => wfr_couplings(snapshots, &masses(), self.objective.lambda(), rows, seed, stage),
        }
    }

    /// The inputs of a trainer on `path`.
    pub(crate) fn training(&self, path: DensityPath) -> Training {
        let dim = path.snapshots.dim;
        Training {
            architecture: self.architecture(dim),
            objective: self.objective(),
            bend: self.bend(dim),
            growth_head: self.objective.growth_head,
            estimator: self.estimator(),
            time_rule: self.objective.time_rule,
            laplacian: self.laplacian(),
            n_interior: self.training.interior_rows,
            n_boundary: self.training.boundary_rows,
            n_shards: self.training.shards,
            optimizer: self.optimizer(),
            seed: self.training.seed,
            groups: None,
            path,
        }
    }
}
