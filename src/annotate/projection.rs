//! Velocities on an embedding such as UMAP, which has no map from the space of the model: they are
//! read off the neighbors of each cell, as scVelo does (Bergen et al. 2020).

use crate::data::Graph;
use crate::error::Result;
use crate::stage::Stage;

/// κ of the kernel: the smaller, the more the neighbor that lies straight ahead counts.
const KERNEL_WIDTH: f32 = 0.1;

/// V `[n, width]` of cells with `rows [n, dim]` and `velocities [n, dim]` at `embedding [n,
/// width]`:
///
/// Vᵢ = Σⱼ (πᵢⱼ − 1/k) (eⱼ − eᵢ) / ‖eⱼ − eᵢ‖ with πᵢⱼ ∝ exp(cos(vᵢ, xⱼ − xᵢ) / κ)
///
/// over the k neighbors of each cell. It has a direction and a confidence, no unit. NaN for cells
/// that have no velocity, no place or no neighbors that have one.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted) if the watch of `stage` cancels.
pub fn projected(
    (dim, rows, velocities): (usize, &[f32], &[f32]),
    (width, embedding): (usize, &[f32]),
    graph: &Graph,
    stage: &Stage,
) -> Result<Vec<f32>> {
    /// Cells that a thread takes at a time.
    const AT_ONCE: usize = 1024;
    let n = rows.len() / dim;
    let parts: Vec<usize> = (0..n).step_by(AT_ONCE).collect();
    let found = stage.map(stage.threads, &parts, |&first| {
        let mut found = Vec::with_capacity(AT_ONCE * width);
        let mut weighted: Vec<(f32, usize)> = Vec::new();
        for cell in first..n.min(first + AT_ONCE) {
            let (x, v) = (&rows[cell * dim..][..dim], &velocities[cell * dim..][..dim]);
            let place = &embedding[cell * width..][..width];
            let speed = v.iter().map(|v| v * v).sum::<f32>().sqrt();
            weighted.clear();
            for &other in &graph.neighbors[graph.starts[cell]..graph.starts[cell + 1]] {
                let other = other as usize;
                let (mut along, mut squared) = (0.0, 0.0);
                for ((x, v), y) in x.iter().zip(v).zip(&rows[other * dim..][..dim]) {
                    along += v * (y - x);
                    squared += (y - x) * (y - x);
                }
                let cosine = along / (speed * squared.sqrt());
                // A cell itself, one without a velocity, and one at the same point have none.
                if other != cell && cosine.is_finite() {
                    weighted.push(((cosine / KERNEL_WIDTH).exp(), other));
                }
            }
            let total: f32 = weighted.iter().map(|(weight, _)| weight).sum();
            let even = 1.0 / weighted.len() as f32;
            let mut sum = vec![if weighted.is_empty() { f32::NAN } else { 0.0 }; width];
            for &(weight, other) in &weighted {
                let to = &embedding[other * width..][..width];
                let distance = to.iter().zip(place).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
                if distance > 0.0 {
                    let share = (weight / total - even) / distance;
                    sum.iter_mut().zip(to).zip(place).for_each(|((sum, a), b)| *sum += share * (a - b));
                }
            }
            found.extend(sum);
        }
        Ok(found)
    })?;
    Ok(found.concat())
}
