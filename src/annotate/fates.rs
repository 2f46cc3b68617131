//! Where the descendants of a cell end: shares of the labels that they have at the last time.

use super::neighbors::nearest;
use super::population::{Group, Population};
use crate::data::CellLabels;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::integrate::{Solver, Trajectories};
use crate::stage::Stage;

/// How descendants are followed.
#[derive(Clone, Copy)]
pub(super) struct Descent {
    /// Particles that a cell sends, if the dynamics have noise.
    pub copies: usize,
    /// Cells of the last time that the end of a particle is compared with.
    pub neighbors: usize,
    pub seed: u64,
}

/// Shares `[n, labels]` of each label at the last time of the model, by the cells that are nearest
/// to where each cell is moved to; NaN for cells that are left out. Particles count by the mass
/// that they have gained; members of an ensemble count alike.
///
/// # Errors
/// [`Error::Input`] without labeled cells at the last time; those of the engine;
/// [`Error::Interrupted`].
pub(super) fn fates(
    population: &Population,
    labels: &CellLabels,
    column: &str,
    descent: Descent,
    engine: &dyn Engine,
    stage: &Stage,
) -> Result<Vec<f32>> {
    let (dim, n_labels) = (population.dim, labels.names.len());
    let mut shares = vec![f32::NAN; population.times.len() * n_labels];
    for Group { models, cells } in &population.groups {
        let coordinates = &models[0].coordinates;
        let is_end = |&cell: &u32| {
            let is_last = coordinates.network_time(population.times[cell as usize]) >= 1.0 - 1e-6;
            is_last && labels.codes[cell as usize].is_some()
        };
        let ends: Vec<u32> = cells.iter().copied().filter(is_end).collect();
        if ends.is_empty() {
            let problem = format!("names no cell of the last time of the model, {}", coordinates.time_range[1]);
            return Err(Error::input("cells", column, problem, "name a column with labels at that time"));
        }
        let among = population.network_rows(&ends, coordinates);
        for (time, cells) in population.by_time(cells) {
            stage.check()?;
            let mut counted = vec![0.0f64; cells.len() * n_labels];
            let from = coordinates.network_time(time).min(1.0);
            for model in models {
                let copies = if model.objective.sigma > 0.0 { descent.copies.max(1) } else { 1 };
                for copy in 0..copies as u64 {
                    let mut rows = population.network_rows(&cells, coordinates);
                    let mut log_weights = vec![0.0f32; cells.len()];
                    let solver = Solver::suited_to(&model.objective, descent.seed.wrapping_add(copy));
                    let has_weights = model.objective.growth > 0.0;
                    let weights = has_weights.then_some(&mut log_weights[..]);
                    let out = Trajectories { log_weights: weights, ..Trajectories::of(&mut rows) };
                    if from < 1.0 - 1e-6 {
                        engine.integrate(model, &solver.plan(from, vec![1.0]), out, stage.watch)?;
                    }
                    let found = nearest(dim, &rows, &among, descent.neighbors, stage)?;
                    let k = found.len() / cells.len();
                    for (row, found) in found.chunks_exact(k).enumerate() {
                        let weight = f64::from(log_weights[row]).exp();
                        for &end in found {
                            let label = labels.codes[ends[end as usize] as usize].unwrap_or(0) as usize;
                            counted[row * n_labels + label] += weight;
                        }
                    }
                }
            }
            for (counted, &cell) in counted.chunks_exact(n_labels).zip(&cells) {
                let total: f64 = counted.iter().sum();
                let shares = &mut shares[cell as usize * n_labels..][..n_labels];
                shares.iter_mut().zip(counted).for_each(|(share, count)| *share = (count / total) as f32);
            }
        }
    }
    Ok(shares)
}
