//! Log-likelihood of points under a model with a known start density: log q₁(x₁) = log q₀(x₀) − ∫
//! ∇·v dt along the flow that ends at x₁.

use crate::engine::Engine;
use crate::error::Result;
use crate::integrate::{Method, Plan, StepControl, Trajectories};
use crate::model::Model;
use crate::stage::Watch;

/// log q̂ of each of `points [n, dim]` at network time 1, in network coordinates, with the exact
/// divergence. `log_start` is log q at time 0.
///
/// # Errors
/// Errors of the engine; flows with noise have no such formula.
pub fn log_likelihood(
    engine: &dyn Engine,
    model: &Model,
    points: &[f32],
    (method, control): (Method, StepControl),
    log_start: impl Fn(&[f32]) -> f64,
    watch: &dyn Watch,
) -> Result<Vec<f64>> {
    let dim = model.architecture.dim;
    let mut positions = points.to_vec();
    let mut log_density = vec![0.0; points.len() / dim];
    let plan = Plan::new(method, control, 1.0, vec![0.0]);
    let trajectories = Trajectories { log_density: Some(&mut log_density), ..Trajectories::of(&mut positions) };
    engine.integrate(model, &plan, trajectories, watch)?;
    // Integrated backward, the channel holds log q₀(x₀) − log q₁(x₁).
    let rows = positions.chunks_exact(dim).zip(&log_density);
    Ok(rows.map(|(x, &rise)| log_start(x) - f64::from(rise)).collect())
}

/// log of the standard normal density.
pub fn log_standard_normal(x: &[f32]) -> f64 {
    let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
    -0.5 * (squares + x.len() as f64 * std::f64::consts::TAU.ln())
}
