//! What the model says at each cell.

use super::population::{Group, Population};
use crate::engine::Engine;
use crate::error::Result;
use crate::stage::{Stage, check};
use crate::{Ensemble, Local};

/// A value for each cell of a file; NaN for cells that are left out.
pub(super) struct Fields {
    /// `[n, dim]`, data units per unit of time.
    pub velocity: Vec<f32>,
    /// `[n]`, like those below.
    pub action: Vec<f64>,
    pub growth_rate: Vec<f64>,
    pub hjb_residual: Vec<f64>,
}

impl Fields {
    fn unknown(n: usize, dim: usize) -> Fields {
        let none = || vec![f64::NAN; n];
        Fields { velocity: vec![f32::NAN; n * dim], action: none(), growth_rate: none(), hjb_residual: none() }
    }

    fn put(&mut self, dim: usize, cells: &[u32], local: &Local) {
        for (k, &cell) in cells.iter().enumerate() {
            let cell = cell as usize;
            let velocity = self.velocity[cell * dim..].iter_mut().zip(&local.velocity[k * dim..][..dim]);
            velocity.for_each(|(to, &v)| *to = v as f32);
            self.action[cell] = local.potential[k];
            self.growth_rate[cell] = local.growth_rate[k];
            self.hjb_residual[cell] = local.hjb_residual[k];
        }
    }

    /// The velocity; the others take memory no longer.
    pub fn into_velocity(self) -> Vec<f32> {
        self.velocity
    }

    /// ‖v‖ `[n]`.
    pub fn speed(&self, dim: usize) -> Vec<f64> {
        let norm = |v: &[f32]| v.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        self.velocity.chunks_exact(dim).map(norm).collect()
    }

    /// Fields of all cells, and of an ensemble their standard deviations over its members.
    ///
    /// # Errors
    /// Those of the engine; [`Error::Interrupted`](crate::Error::Interrupted).
    pub fn of(population: &Population, engine: &dyn Engine, stage: &Stage) -> Result<(Fields, Option<Fields>)> {
        /// Cells between two looks at the watch: few, since the system keeps what they take.
        const AT_ONCE: usize = 1 << 10;
        let (n, dim, n_asked) = (population.times.len(), population.dim, population.n_asked());
        let mut fields = Fields::unknown(n, dim);
        let mut spread = None;
        let mut done = 0;
        for Group { models, cells } in &population.groups {
            let coordinates = &models[0].coordinates;
            if let [model] = &models[..] {
                for cells in cells.chunks(AT_ONCE) {
                    check(stage.watch)?;
                    let x = population.positions(cells, coordinates);
                    fields.put(dim, cells, &model.local(engine, &x, &population.times_of(cells))?);
                    done += cells.len();
                    stage.watch.advanced(done as u64, n_asked as u64);
                }
                if model.growth_of_potential() == 0.0 {
                    // As the potential, the residual is known up to a function of time.
                    for (_, cells) in population.by_time(cells) {
                        let residuals = || cells.iter().map(|&cell| cell as usize);
                        let mean = residuals().map(|cell| fields.hjb_residual[cell]).sum::<f64>() / cells.len() as f64;
                        residuals().for_each(|cell| fields.hjb_residual[cell] -= mean);
                    }
                }
            } else {
                // Members are compared after their means over all cells of a time are taken off.
                let x = population.positions(cells, coordinates);
                let [mean, deviation] =
                    Ensemble::new(models.clone())?.local(engine, &x, &population.times_of(cells))?;
                fields.put(dim, cells, &mean);
                spread.get_or_insert_with(|| Fields::unknown(n, dim)).put(dim, cells, &deviation);
                done += cells.len();
                stage.watch.advanced(done as u64, n_asked as u64);
            }
        }
        Ok((fields, spread))
    }
}
