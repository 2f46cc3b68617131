//! Problems whose action is known in closed form, to measure training and evaluation against.

use super::{Snapshots, draw_gaussian};

/// A Gaussian that moves and stretches: `x_t = t·shift + scale(t) ⊙ z`, z standard normal, scale linear in t from `scale0` to `scale1`.
///
/// The action is `s*(x, t) = Σᵢ bᵢ xᵢ + ½ (σ̇ᵢ / σᵢ(t)) (xᵢ − t bᵢ)²` up to an offset c(t): its gradient is the velocity of every point
/// z, and every gradient field that moves q_t is this one (arXiv 2210.06662, proposition 2.1).
#[derive(Clone, Debug, PartialEq)]
pub struct GaussianProblem {
    /// b: how far the mean moves.
    pub shift: Vec<f64>,
    /// σ at t = 0, positive.
    pub scale0: Vec<f64>,
    /// σ at t = 1, positive.
    pub scale1: Vec<f64>,
}

impl GaussianProblem {
    /// Dimension.
    pub fn dim(&self) -> usize {
        self.shift.len()
    }

    /// The point that `z` (standard normal) is at time `t`.
    pub fn point(&self, z: &[f32], t: f64) -> Vec<f64> {
        (0..self.dim()).map(|i| self.shift[i] * t + self.scale(i, t) * f64::from(z[i])).collect()
    }

    /// ∇s*(x, t).
    pub fn grad_action(&self, x: &[f64], t: f64) -> Vec<f64> {
        (0..self.dim())
            .map(|i| self.shift[i] + self.stretch(i) / self.scale(i, t) * (x[i] - self.shift[i] * t))
            .collect()
    }

    /// ½ ∫ E‖∇s*‖² dt.
    pub fn kinetic_energy(&self) -> f64 {
        (0..self.dim()).map(|i| 0.5 * (self.shift[i].powi(2) + self.stretch(i).powi(2))).sum()
    }

    /// Independent exact samples, `n` at each of `times`.
    pub fn snapshots(&self, times: &[f64], n: usize, seed: u64) -> Snapshots {
        let mut samples = Vec::with_capacity(times.len() * n * self.dim());
        for (k, &t) in times.iter().enumerate() {
            for z in draw_gaussian(n, self.dim(), seed + k as u64).chunks_exact(self.dim()) {
                samples.extend(self.point(z, t).iter().map(|&x| x as f32));
            }
        }
        Snapshots {
            dim: self.dim(),
            times: times.to_vec(),
            offsets: (0..=times.len()).map(|k| k * n).collect(),
            samples,
        }
    }

    /// σᵢ(t).
    fn scale(&self, i: usize, t: f64) -> f64 {
        self.scale0[i] + t * self.stretch(i)
    }

    /// σ̇ᵢ.
    fn stretch(&self, i: usize) -> f64 {
        self.scale1[i] - self.scale0[i]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> GaussianProblem {
        GaussianProblem { shift: vec![1.5, -1.0], scale0: vec![1.0, 0.6], scale1: vec![0.5, 1.2] }
    }

    /// ∇s* is the velocity of the points, so it moves q_t as it should.
    #[test]
    fn the_gradient_is_the_velocity_of_the_points() {
        let (problem, t, h) = (problem(), 0.37, 1e-6);
        let z = [0.7, -1.3];
        let velocity = problem.grad_action(&problem.point(&z, t), t);
        let (before, after) = (problem.point(&z, t - h), problem.point(&z, t + h));
        for i in 0..2 {
            assert!(((after[i] - before[i]) / (2.0 * h) - velocity[i]).abs() < 1e-8);
        }
    }

    #[test]
    fn the_kinetic_energy_is_that_of_the_samples() {
        let problem = problem();
        let n = 100_000;
        for t in [0.0, 0.8] {
            let snapshot = problem.snapshots(&[t], n, 3);
            let energy: f64 = snapshot
                .samples
                .chunks_exact(2)
                .map(|x| {
                    let grad = problem.grad_action(&[f64::from(x[0]), f64::from(x[1])], t);
                    0.5 * (grad[0].powi(2) + grad[1].powi(2)) / n as f64
                })
                .sum();
            assert!((energy / problem.kinetic_energy() - 1.0).abs() < 0.01, "{energy}");
        }
    }
}
