//! From a configuration and its snapshots to a path and a training.

use std::sync::Arc;

use super::{Config, Mass, Pairing};
use crate::data::Snapshots;
use crate::density_path::{Coupling, DensityPath, optimal_couplings, partial_couplings, unbalanced_couplings};
use crate::error::Result;
use crate::stage::Stage;
use crate::training::Training;

impl Config {
    /// The path through `snapshots` with the masses it needs; an empty list of couplings if it
    /// needs them.
    pub(crate) fn unpaired_path(&self, snapshots: impl Into<Arc<Snapshots>>) -> DensityPath {
        let (objective, snapshots) = (&self.objective, snapshots.into());
        let counts = |k: usize| snapshots.n_rows(k) as f64 / snapshots.n_rows(0) as f64;
        let n_times = snapshots.times.len();
        let masses: Option<Vec<f64>> = (objective.mass == Mass::Counts).then(|| (0..n_times).map(counts).collect());
        let interpolant = objective.path.interpolant();
        let is_paired = interpolant.has_pairs() && objective.pairing != Pairing::Independent;
        DensityPath {
            snapshots,
            interpolant,
            couplings: is_paired.then(Arc::default),
            masses,
            spline: objective.path.slopes(),
        }
    }

    /// The couplings of `path`.
    ///
    /// # Errors
    /// As [`optimal_couplings`], [`partial_couplings`] and [`unbalanced_couplings`].
    pub(crate) fn couplings(&self, path: &DensityPath, stage: &Stage) -> Result<Vec<Coupling>> {
        let (snapshots, seed) = (&path.snapshots, self.training.seed);
        match self.objective.pairing {
            Pairing::Independent => Ok(Vec::new()),
            Pairing::Auto => optimal_couplings(snapshots, DensityPath::PAIRING_ROWS, seed, stage),
            Pairing::Ot { rows } => optimal_couplings(snapshots, rows, seed, stage),
            Pairing::Unbalanced { relaxation, rows } if self.objective.growth == 0.0 => {
                partial_couplings(snapshots, relaxation, rows, seed, stage)
            }
            Pairing::Unbalanced { relaxation, rows } => {
                let masses = path.masses.clone().unwrap_or_else(|| vec![1.0; snapshots.times.len()]);
                unbalanced_couplings(snapshots, &masses, relaxation, rows, seed, stage)
            }
        }
    }

    /// The inputs of a trainer on `path`.
    pub(crate) fn training(&self, path: DensityPath) -> Training {
        let dim = path.snapshots.dim;
        Training {
            architecture: self.architecture(dim),
            objective: self.objective(),
            bend: self.bend(dim),
            estimator: self.estimator(),
            time_rule: self.objective.time_rule,
            laplacian: self.laplacian(),
            n_interior: self.training.interior_rows,
            n_boundary: self.training.boundary_rows,
            optimizer: self.optimizer(),
            seed: self.training.seed,
            path,
        }
    }
}
