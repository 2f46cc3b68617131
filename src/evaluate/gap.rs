//! The action gap, measured from both sides of its identity (arXiv 2210.06662, theorem 2.2).

use crate::data::{GaussianProblem, draw_gaussian};
use crate::engine::Differentiate;
use crate::error::Result;
use crate::model::Model;

/// How far an action is from the true one: `ActionGap(s, s*) = ½∫E‖∇s − ∇s*‖² = L(s) + ½∫E‖∇s*‖²`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActionGap {
    /// L(s), with ω = 1.
    pub loss: f64,
    /// ½∫E‖∇s*‖².
    pub kinetic_energy: f64,
    /// ½∫E‖∇s − ∇s*‖².
    pub gap: f64,
}

impl ActionGap {
    /// L(s) + ½∫E‖∇s*‖²: the gap by way of the loss.
    pub fn from_loss(&self) -> f64 {
        self.loss + self.kinetic_energy
    }

    /// Measures `model` on `problem`, given in network coordinates, with `n` exact samples: each is followed to one time of 0..=1,
    /// and its start and end give the boundary terms, so that the two sides share their noise.
    ///
    /// # Errors
    /// The engine's.
    pub fn measure(
        engine: &dyn Differentiate,
        model: &Model,
        problem: &GaussianProblem,
        n: usize,
        seed: u64,
    ) -> Result<ActionGap> {
        let dim = problem.dim();
        let z = draw_gaussian(n, dim, seed);
        let times: Vec<f64> = (0..n).map(|row| (row as f64 + 0.5) / n as f64).collect();
        let points = |time: &dyn Fn(usize) -> f64| -> Vec<f64> {
            z.chunks_exact(dim).enumerate().flat_map(|(row, z)| problem.point(z, time(row))).collect()
        };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / n as f64;
        let potential =
            |t: f64| -> Result<f64> { Ok(mean(&engine.derivatives(model, &points(&|_| t), &vec![t; n])?.s)) };
        let x = points(&|row| times[row]);
        let interior = engine.derivatives(model, &x, &times)?;
        let (mut kinetic, mut gap) = (0.0, 0.0);
        for (row, (x, grad)) in x.chunks_exact(dim).zip(interior.grad_s.chunks_exact(dim)).enumerate() {
            for (p, exact) in grad.iter().zip(problem.grad_action(x, times[row])) {
                kinetic += 0.5 * p * p / n as f64;
                gap += 0.5 * (p - exact).powi(2) / n as f64;
            }
        }
        let loss = potential(0.0)? - potential(1.0)? + mean(&interior.ds_dt) + kinetic;
        Ok(ActionGap { loss, kinetic_energy: problem.kinetic_energy(), gap })
    }
}
