//! Problems whose action is known in closed form, as a reference for training and evaluation.

use rand::Rng;

use super::{Snapshots, draw_gaussian};
use crate::objective::Objective;
use crate::rng::Stream;

/// A population whose law q_t, t in 0..=1, and action s* are known exactly.
///
/// The action is the one that solves the problem's own dynamics (arXiv 2210.06662, propositions
/// 2.1, 3.1 and 3.2). Without growth it is known up to an offset c(t), which has no effect on
/// motion.
#[derive(Clone, Debug, PartialEq)]
pub struct AnalyticProblem {
    /// Centers of the mixture of standard normal components from which z is drawn; one at 0 for a
    /// Gaussian.
    centers: Vec<Vec<f64>>,
    law: Law,
}

/// How x_t is computed from z.
#[derive(Clone, Debug, PartialEq)]
enum Law {
    /// `x = t·shift + scale(t) ⊙ z`, scale linear in t:
    /// `∇s* = shift + (scale′ / scale) ⊙ (x − t·shift)`.
    Affine { shift: Vec<f64>, scale0: Vec<f64>, scale1: Vec<f64> },
    /// `dx = −rate·x dt + sigma dW` from `mean0 + scale0·z`: `∇s* = −rate·x`, with diffusion.
    OrnsteinUhlenbeck { mean0: Vec<f64>, scale0: f64, rate: f64, sigma: f64 },
    /// Mass 1 at t = 0, normal of variance 1 around `(1 + λ) t·direction`, with
    /// `s* = direction·x + offset` and growth λ: mass grows where s* is large.
    Growing { direction: Vec<f64>, offset: f64, growth: f64 },
}

impl AnalyticProblem {
    /// The built-in problems and their descriptions.
    pub const NAMES: [(&'static str, &'static str); 6] = [
        ("translation", "a Gaussian that moves (2-D)"),
        ("scaling", "a Gaussian that shrinks to a third (3-D)"),
        ("anisotropic", "a Gaussian that moves, narrows in one direction and widens in the other (2-D)"),
        ("mixture", "four Gaussians that move apart (2-D)"),
        ("ornstein-uhlenbeck", "a Gaussian that relaxes under noise, sigma = 0.8 (2-D, entropic)"),
        ("growth", "a Gaussian that moves and gains mass, growth = 0.5 (2-D, unbalanced)"),
    ];

    /// The built-in problem `name`, one of [`AnalyticProblem::NAMES`].
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let gaussian = |law| Some(AnalyticProblem { centers: vec![vec![0.0; 2]], law });
        match name {
            "translation" => Some(Self::moving(vec![2.0, -1.0], vec![1.0; 2], vec![1.0; 2])),
            "scaling" => Some(Self::moving(vec![0.0; 3], vec![1.5; 3], vec![0.5; 3])),
            "anisotropic" => Some(Self::moving(vec![1.5, -1.0], vec![1.0, 0.6], vec![0.5, 1.2])),
            "mixture" => Some(AnalyticProblem {
                centers: vec![vec![4.0, 4.0], vec![-4.0, 4.0], vec![4.0, -4.0], vec![-4.0, -4.0]],
                law: Law::Affine { shift: vec![0.5, 0.0], scale0: vec![0.2; 2], scale1: vec![0.4; 2] },
            }),
            "ornstein-uhlenbeck" => {
                gaussian(Law::OrnsteinUhlenbeck { mean0: vec![2.0, -1.0], scale0: 0.5, rate: 1.5, sigma: 0.8 })
            }
            "growth" => gaussian(Law::Growing { direction: vec![0.8, 0.4], offset: 0.6, growth: 0.5 }),
            _ => None,
        }
    }

    /// A Gaussian that moves by `shift` while its deviations change linearly in t from `scale0` to
    /// `scale1` (positive).
    #[must_use]
    pub fn moving(shift: Vec<f64>, scale0: Vec<f64>, scale1: Vec<f64>) -> Self {
        AnalyticProblem { centers: vec![vec![0.0; shift.len()]], law: Law::Affine { shift, scale0, scale1 } }
    }

    /// Dimension.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.centers[0].len()
    }

    /// The dynamics that s* solves.
    #[must_use]
    pub fn objective(&self) -> Objective {
        match self.law {
            Law::Affine { .. } => Objective::default(),
            Law::OrnsteinUhlenbeck { sigma, .. } => Objective { sigma, ..Objective::default() },
            Law::Growing { growth, .. } => Objective { growth, ..Objective::default() },
        }
    }

    /// `n` independent z `[n, dim]`, drawn as [`draw_gaussian`] does; the components alternate.
    pub fn draw(&self, n: usize, random: &mut impl Rng) -> Vec<f64> {
        let normal = draw_gaussian(n, self.dim(), random);
        let centers = self.centers.iter().cycle();
        normal.chunks_exact(self.dim()).zip(centers).flat_map(|(z, center)| zip(z, center)).collect()
    }

    /// The point of q_t that belongs to z. Without noise z moves along the flow.
    #[must_use]
    pub fn point(&self, z: &[f64], t: f64) -> Vec<f64> {
        (0..self.dim()).map(|i| self.mean(i, t) + self.scale(i, t) * z[i]).collect()
    }

    /// ∇s*(x, t).
    #[must_use]
    pub fn grad_action(&self, x: &[f64], t: f64) -> Vec<f64> {
        match &self.law {
            Law::Affine { shift, scale0, scale1 } => (0..self.dim())
                .map(|i| shift[i] + (scale1[i] - scale0[i]) / self.scale(i, t) * (x[i] - t * shift[i]))
                .collect(),
            Law::OrnsteinUhlenbeck { rate, .. } => x.iter().map(|x| -rate * x).collect(),
            Law::Growing { direction, .. } => direction.clone(),
        }
    }

    /// s*(x, t) if growth fixes its offset; otherwise `None`.
    #[must_use]
    pub fn action(&self, x: &[f64]) -> Option<f64> {
        match &self.law {
            Law::Growing { direction, offset, .. } => {
                Some(x.iter().zip(direction).map(|(x, b)| x * b).sum::<f64>() + offset)
            }
            _ => None,
        }
    }

    /// log of the density of q_t at x, for mass 1.
    pub fn log_density(&self, x: &[f64], t: f64) -> f64 {
        let z = |i: usize| (x[i] - self.mean(i, t)) / self.scale(i, t);
        let squares = |center: &Vec<f64>| -> f64 { (0..x.len()).map(|i| (z(i) - center[i]).powi(2)).sum() };
        let nearest = self.centers.iter().map(squares).fold(f64::INFINITY, f64::min);
        // Relative to the nearest center: far from all of them every term would underflow.
        let terms: f64 = self.centers.iter().map(|center| (-0.5 * (squares(center) - nearest)).exp()).sum();
        let log_scale: f64 = (0..x.len()).map(|i| self.scale(i, t).ln() + 0.5 * std::f64::consts::TAU.ln()).sum();
        (terms / self.centers.len() as f64).ln() - 0.5 * nearest - log_scale
    }

    /// Mass of q_t.
    #[must_use]
    pub fn mass(&self, t: f64) -> f64 {
        match &self.law {
            // For this mean, ∂ₜq = −∇·(q∇s*) + λ s* q at every x implies m′/m = λ((1 + λ)‖b‖² t +
            // c).
            Law::Growing { direction, offset, growth } => {
                let square: f64 = direction.iter().map(|b| b * b).sum();
                (growth * ((1.0 + growth) * square * t * t / 2.0 + offset * t)).exp()
            }
            _ => 1.0,
        }
    }

    /// Independent exact samples at each of `times`: `n` at t = 0, and at other times in proportion
    /// to the mass.
    #[must_use]
    pub fn snapshots(&self, times: &[f64], n: usize, seed: u64) -> Snapshots {
        let (mut samples, mut offsets) = (Vec::new(), vec![0]);
        for (k, &t) in times.iter().enumerate() {
            let rows = ((n as f64 * self.mass(t)).round() as usize).max(1);
            let mut stream = Stream::of_normals(seed.wrapping_add(k as u64), self.dim());
            for z in self.draw(rows, &mut stream).chunks_exact(self.dim()) {
                samples.extend(self.point(z, t).iter().map(|&x| x as f32));
            }
            offsets.push(offsets[k] + rows);
        }
        Snapshots { dim: self.dim(), times: times.to_vec(), offsets, samples, mass: Default::default() }
    }

    fn mean(&self, i: usize, t: f64) -> f64 {
        match &self.law {
            Law::Affine { shift, .. } => t * shift[i],
            Law::OrnsteinUhlenbeck { mean0, rate, .. } => (-rate * t).exp() * mean0[i],
            Law::Growing { direction, growth, .. } => (1.0 + growth) * t * direction[i],
        }
    }

    fn scale(&self, i: usize, t: f64) -> f64 {
        match &self.law {
            Law::Affine { scale0, scale1, .. } => scale0[i] + t * (scale1[i] - scale0[i]),
            Law::OrnsteinUhlenbeck { scale0, rate, sigma, .. } => {
                let decay = (-2.0 * rate * t).exp();
                (decay * scale0 * scale0 + sigma * sigma * (1.0 - decay) / (2.0 * rate)).sqrt()
            }
            Law::Growing { .. } => 1.0,
        }
    }
}

/// z + center.
fn zip(z: &[f32], center: &[f64]) -> Vec<f64> {
    z.iter().zip(center).map(|(&z, center)| f64::from(z) + center).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// d/dt E[f(x_t)·m(t)] compared with the dynamics of s*, for test functions f = x_i and x_i
    /// x_j, by quadrature over z.
    ///
    /// d/dt ∫f q = ∫ (∇f·∇s* + ½σ²Δf + λ s* f) q.
    #[test]
    fn actions_solve_their_dynamics() {
        for (name, _) in AnalyticProblem::NAMES {
            let problem = AnalyticProblem::named(name).expect("a problem");
            let Objective { sigma, growth, .. } = problem.objective();
            // Matched pairs ±z make odd moments exact; the others converge as 1 / √n.
            let half = problem.draw(200_000, &mut Stream::of_normals(3, problem.dim()));
            let dim = problem.dim();
            let mean = |t: f64, f: &dyn Fn(&[f64]) -> f64| -> f64 {
                let points = half.chunks_exact(dim).map(|z| problem.point(z, t));
                problem.mass(t) * points.map(|x| f(&x)).sum::<f64>() / 200_000.0
            };
            let (t, h) = (0.43, 1e-4);
            for (i, j) in [(0, 0), (1, 1), (0, 1)] {
                let square = move |x: &[f64]| x[i] * x[j];
                let linear = move |x: &[f64]| x[i];
                let laplacian = if i == j { 2.0 } else { 0.0 };
                let slope = |f: &dyn Fn(&[f64]) -> f64| (mean(t + h, f) - mean(t - h, f)) / (2.0 * h);
                let source = |x: &[f64], f: f64| growth * problem.action(x).unwrap_or(0.0) * f;
                let of_square = mean(t, &|x| {
                    let p = problem.grad_action(x, t);
                    p[i] * x[j] + p[j] * x[i] + 0.5 * sigma * sigma * laplacian + source(x, square(x))
                });
                let of_linear = mean(t, &|x| problem.grad_action(x, t)[i] + source(x, linear(x)));
                for (got, want) in [(slope(&square), of_square), (slope(&linear), of_linear)] {
                    assert!((got - want).abs() < 0.02 * want.abs().max(1.0), "{name} {i} {j}: {got}, not {want}");
                }
            }
        }
    }

    #[test]
    fn snapshots_have_the_mass_of_their_time() {
        let problem = AnalyticProblem::named("growth").expect("a problem");
        let snapshots = problem.snapshots(&[0.0, 0.5, 1.0], 1000, 1);
        assert_eq!(snapshots.n_rows(0), 1000);
        assert_eq!(snapshots.n_rows(2), (1000.0 * problem.mass(1.0)).round() as usize);
        assert!(problem.mass(1.0) > 1.5);
    }
}
