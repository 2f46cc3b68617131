//! The fraction of a path's motion that a model leaves unexplained. Unlike the loss, which lacks a
//! constant, this number can be interpreted.

use std::fmt;

use crate::density_path::{DensityPath, RowKey, TimeRule};
use crate::engine::Differentiate;
use crate::error::Result;
use crate::model::Model;
use crate::rng::{Purpose, words};
use crate::training::Training;

/// The fraction of a path's kinetic energy that a model leaves unexplained,
/// `∫E m‖∇H(∇s) − u‖² dt / ∫E m‖u‖² dt`, where u is the velocity of the path's trajectories and m
/// their mass.
///
/// 0 if each trajectory moves as the model says, 1 for a model at rest. The model knows only x and
/// t: where trajectories of different velocity cross, the best model has their mean velocity, and
/// their differences remain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unexplained {
    /// The fraction; more than 1 for a model that is worse than none.
    pub share: f64,
    /// True if the ends of trajectories were paired independently, so that they cross everywhere.
    pub independent_pairs: bool,
}

impl Unexplained {
    /// Number of rows that [`Unexplained::measure`] gets at the end of a run; the relative error is
    /// about 2 %.
    pub const ROWS: usize = 4096;

    /// The value for `model` on `n_rows` rows of `path`, both in network coordinates. Each row has
    /// one of evenly spaced times, and a trajectory that `seed` draws. No step of training draws
    /// the same ones, and all engines and numbers of threads do.
    ///
    /// `None` if the number has no meaning: the velocity of the path is unknown, the path does not
    /// move, or the model has diffusion, whose drift is not the velocity of its densities.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for a path of another dimension; errors of the engine.
    pub fn measure(
        engine: &dyn Differentiate,
        model: &Model,
        path: &DensityPath,
        n_rows: usize,
        seed: u64,
    ) -> Result<Option<Unexplained>> {
        path.validate(model.architecture.dim)?;
        let energies = Energies::measure(engine, model, path, n_rows, seed)?;
        Ok(energies.and_then(|energies| energies.unexplained(path)))
    }

    /// [`Unexplained::measure`] for `model` on the path of `training`, on [`Unexplained::ROWS`]
    /// rows. With conditions these are divided among the groups in proportion to their samples, and
    /// each group has the model under its condition.
    ///
    /// # Errors
    /// As [`Unexplained::measure`].
    pub fn of_training(engine: &dyn Differentiate, model: &Model, training: &Training) -> Result<Option<Unexplained>> {
        let Training { path, groups: Some(groups), seed, .. } = training else {
            return Unexplained::measure(engine, model, &training.path, Unexplained::ROWS, training.seed);
        };
        let mut sum = Energies { left: 0.0, whole: 0.0 };
        for (k, group) in groups.all().iter().enumerate() {
            // A group of few rows still gets some, whose weight is its share.
            let n_rows = ((groups.share(k) * Unexplained::ROWS as f64) as usize).max(16);
            let model = model.under_inputs(&group.condition)?;
            let Some(energies) = Energies::measure(engine, &model, &group.path, n_rows, *seed)? else {
                return Ok(None);
            };
            sum.left += groups.share(k) * energies.left;
            sum.whole += groups.share(k) * energies.whole;
        }
        Ok(sum.unexplained(path))
    }
}

/// Integrals over time of a path: ∫E m‖∇H(∇s) − u‖² dt and ∫E m‖u‖² dt.
struct Energies {
    left: f64,
    whole: f64,
}

impl Energies {
    /// Those of [`Unexplained::measure`]; `None` where they have no meaning.
    fn measure(
        engine: &dyn Differentiate,
        model: &Model,
        path: &DensityPath,
        n_rows: usize,
        seed: u64,
    ) -> Result<Option<Energies>> {
        if !path.interpolant.has_velocity() || model.objective.sigma > 0.0 {
            return Ok(None);
        }
        let [start, end] = path.span();
        // No run takes so many steps.
        const STEP: u64 = u64::MAX;
        let (mut x, mut t, mut velocity, mut mass) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for row in 0..n_rows {
            let moment =
                path.moment(TimeRule::LowDiscrepancy, start + (end - start) * (row as f64 + 0.5) / n_rows as f64);
            let words = words(seed, Purpose::Interior, STEP, row as u32);
            let trajectory = path.trajectory(moment.left, words, RowKey { seed, step: STEP, row: row as u32 });
            path.point(&trajectory, &moment, |_, at, u| {
                x.push(f64::from(at));
                velocity.push(f64::from(u));
            });
            t.push(f64::from(moment.t));
            mass.push(path.mass(&trajectory, &moment).0);
        }
        let gradients = engine.derivatives(model, &x, &t)?.grad_s;
        let dim = model.architecture.dim;
        let (mut left, mut whole) = (0.0, 0.0);
        for ((gradient, velocity), mass) in gradients.chunks_exact(dim).zip(velocity.chunks_exact(dim)).zip(mass) {
            for (&p, u) in gradient.iter().zip(velocity) {
                let drift = f64::from(model.objective.hamiltonian(p as f32).1);
                left += mass * (drift - u).powi(2);
                whole += mass * u * u;
            }
        }
        let per_row = (end - start) / n_rows as f64;
        Ok(Some(Energies { left: left * per_row, whole: whole * per_row }))
    }

    /// Their quotient, unless `path` does not move.
    fn unexplained(&self, path: &DensityPath) -> Option<Unexplained> {
        let independent_pairs = path.couplings.is_none();
        (self.whole > 0.0).then(|| Unexplained { share: self.left / self.whole, independent_pairs })
    }
}

impl fmt::Display for Unexplained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} % of the path's kinetic energy is left unexplained: ", 100.0 * self.share)?;
        f.write_str(if self.independent_pairs {
            "its pairs are independent, and what crossing trajectories differ by cannot be explained"
        } else {
            "its pairs are those of optimal transport, which hardly cross, so a good model leaves little"
        })
    }
}
