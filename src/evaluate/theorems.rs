//! The theorems of Action Matching, checked on a problem whose action is known (arXiv 2210.06662,
//! theorem 2.2 and section 2).

use std::fmt;

use serde::Serialize;

use super::likelihood::log_likelihood;
use crate::data::AnalyticProblem;
use crate::display::significant;
use crate::engine::reference::ReferenceEngine;
use crate::engine::{Batch, Differentiate, Engine};
use crate::error::{Error, Result};
use crate::integrate::{Method, Plan, StepControl, Trajectories};
use crate::model::Model;
use crate::rng::Stream;
use crate::stage::{Section, Stage, Watch, check};
use crate::transport::{MAX_POINTS, wasserstein2};

/// Distance of an action from the true one: `ActionGap(s, s*) = L(s) + E*`, with m the mass of q_t:
///
/// `gap = ½∫ m E[‖∇s − ∇s*‖² + λ(s − s*)²] dt`, `E* = ½∫ m E[‖∇s*‖² + λ s*²] dt`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ActionGap {
    /// L(s), with ω = 1.
    pub loss: f64,
    /// E*: without growth the kinetic energy of s*.
    pub energy: f64,
    /// The gap from its definition.
    pub gap: f64,
    /// √(∫E‖∇s − ∇s*‖² / ∫E‖∇s*‖²).
    pub drift_error: f64,
    /// √(∫E(s − s*)² / ∫E s*²), if growth fixes s*.
    pub growth_error: Option<f64>,
}

impl ActionGap {
    /// L(s) + E*: the gap computed from the loss.
    #[must_use]
    pub fn from_loss(&self) -> f64 {
        self.loss + self.energy
    }

    /// Measures `model` on `problem`, given in network coordinates, with `n` exact samples. Each is
    /// moved to one time in 0..=1, and its start and end give the boundary terms, so that the two
    /// sides share their noise.
    ///
    /// # Errors
    /// [`Error::Input`] if the model has other dynamics or coordinates than the problem; errors of
    /// the engine; [`Error::Interrupted`].
    pub fn measure(
        engine: &dyn Differentiate,
        model: &Model,
        problem: &AnalyticProblem,
        n: usize,
        seed: u64,
        watch: &dyn Watch,
    ) -> Result<ActionGap> {
        /// Rows between two looks at the watch.
        const ROWS: usize = 2000;
        check_fit(model, problem)?;
        let z = problem.draw(n, &mut Stream::of_normals(seed, problem.dim()));
        let times: Vec<f64> = (0..n).map(|row| (row as f64 + 0.5) / n as f64).collect();
        let mut sum = ActionGapSums::default();
        for (z, times) in z.chunks(ROWS * problem.dim()).zip(times.chunks(ROWS)) {
            check(watch)?;
            sum.add(engine, model, problem, z, times)?;
            watch.advanced(sum.n as u64, n as u64);
        }
        Ok(sum.gap(problem.objective().growth))
    }
}

/// Sums over exact samples, each with its own time.
#[derive(Default)]
struct ActionGapSums {
    n: usize,
    loss: f64,
    drift: f64,
    exact_drift: f64,
    value: f64,
    exact_value: f64,
}

impl ActionGapSums {
    /// Adds the samples `z` at `times`.
    fn add(
        &mut self,
        engine: &dyn Differentiate,
        model: &Model,
        problem: &AnalyticProblem,
        z: &[f64],
        times: &[f64],
    ) -> Result<()> {
        let (dim, n) = (problem.dim(), times.len());
        let points = |time: &dyn Fn(usize) -> f64| -> Vec<f64> {
            z.chunks_exact(dim).enumerate().flat_map(|(row, z)| problem.point(z, time(row))).collect()
        };
        let batch = Batch {
            x: points(&|row| times[row]),
            omega: times.iter().map(|&t| problem.mass(t)).collect(),
            d_omega: vec![0.0; n],
            x0: points(&|_| 0.0),
            x1: points(&|_| 1.0),
            omega0: problem.mass(0.0),
            omega1: problem.mass(1.0),
            t: times.to_vec(),
            ..Batch::default()
        };
        let result = engine.loss_gradient(model, &batch)?;
        self.n += n;
        self.loss += result.loss * n as f64;
        for (row, x) in batch.x.chunks_exact(dim).enumerate() {
            let weight = batch.omega[row];
            let grad = &result.interior.grad_s[row * dim..][..dim];
            for (p, exact) in grad.iter().zip(problem.grad_action(x, batch.t[row])) {
                self.drift += weight * (p - exact).powi(2);
                self.exact_drift += weight * exact * exact;
            }
            if let Some(exact) = problem.action(x) {
                self.value += weight * (result.interior.s[row] - exact).powi(2);
                self.exact_value += weight * exact * exact;
            }
        }
        Ok(())
    }

    /// Means of the samples.
    fn gap(self, growth: f64) -> ActionGap {
        let ActionGapSums { n, loss, drift, exact_drift, value, exact_value } = self;
        ActionGap {
            loss: loss / n as f64,
            energy: 0.5 * (exact_drift + growth * exact_value) / n as f64,
            gap: 0.5 * (drift + growth * value) / n as f64,
            drift_error: (drift / exact_drift).sqrt(),
            growth_error: (growth > 0.0).then(|| (value / exact_value).sqrt()),
        }
    }
}

/// The bound `W₂²(q̂_τ, q_τ) ≤ e^{(1 + 2K)τ} ∫₀^τ E‖∇s − ∇s*‖² dt` at τ = 1, for flows without
/// noise and growth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TransportBound {
    /// W₂² between moved and exact particles with the same starting points, by exact optimal
    /// transport.
    pub w2_squared: f64,
    /// K: the largest absolute eigenvalue of ∇²s over samples and times.
    pub smoothness: f64,
    /// The right-hand side.
    pub bound: f64,
}

impl TransportBound {
    /// Measures both sides for `model` whose `gap` is known.
    ///
    /// # Errors
    /// [`Error::Input`] if the model has other dynamics or coordinates than the problem; errors of
    /// the engine; [`Error::Interrupted`].
    pub fn measure(
        engine: &dyn Engine,
        model: &Model,
        problem: &AnalyticProblem,
        gap: &ActionGap,
        seed: u64,
        stage: &Stage,
    ) -> Result<TransportBound> {
        /// Numbers of moved particles and of points for K: eigenvalues cost 2d evaluations each.
        const N_MOVED: usize = 2000;
        const N_CURVED: usize = 1000;
        check_fit(model, problem)?;
        let dim = problem.dim();
        let z = problem.draw(N_MOVED.min(MAX_POINTS), &mut Stream::of_normals(seed, problem.dim()));
        let at =
            |t: f64| -> Vec<f32> { z.chunks_exact(dim).flat_map(|z| problem.point(z, t)).map(|x| x as f32).collect() };
        let mut moved = at(0.0);
        let control = StepControl::Adaptive { rtol: 1e-5, atol: 1e-6 };
        let plan = Plan::new(Method::Dopri5, control, 0.0, vec![1.0]);
        engine.integrate(model, &plan, Trajectories::of(&mut moved), stage.watch)?;
        let w2 = wasserstein2(dim, &moved, &at(1.0), stage.watch)?;

        let times: Vec<f64> = (0..N_CURVED).map(|row| (row as f64 + 0.5) / N_CURVED as f64).collect();
        let x: Vec<f64> = z.chunks_exact(dim).zip(&times).flat_map(|(z, &t)| problem.point(z, t)).collect();
        let smoothness = largest_curvature(model, &x, &times, stage)?;
        Ok(TransportBound { w2_squared: w2 * w2, smoothness, bound: (1.0 + 2.0 * smoothness).exp() * 2.0 * gap.gap })
    }
}

/// Largest |eigenvalue| of ∇²s over the points, in f64, from differences of ∇s.
fn largest_curvature(model: &Model, x: &[f64], times: &[f64], stage: &Stage) -> Result<f64> {
    /// Points of a task.
    const ROWS: usize = 20;
    let tasks: Vec<(&[f64], &[f64])> = x.chunks(ROWS * model.architecture.dim).zip(times.chunks(ROWS)).collect();
    let largest = stage.map(stage.threads, &tasks, |(x, times)| curvature_of_rows(model, x, times, stage.watch))?;
    Ok(largest.into_iter().fold(0.0, f64::max))
}

/// [`largest_curvature`] of some points.
fn curvature_of_rows(model: &Model, x: &[f64], times: &[f64], watch: &dyn Watch) -> Result<f64> {
    const H: f64 = 1e-4;
    let dim = model.architecture.dim;
    let columns = (0..dim)
        .map(|i| {
            check(watch)?;
            let moved = |h: f64| {
                let mut x = x.to_vec();
                x.chunks_exact_mut(dim).for_each(|x| x[i] += h);
                Ok(ReferenceEngine.derivatives(model, &x, times)?.grad_s)
            };
            let (ahead, behind): (Vec<f64>, Vec<f64>) = (moved(H)?, moved(-H)?);
            Ok(ahead.iter().zip(&behind).map(|(a, b)| (a - b) / (2.0 * H)).collect())
        })
        .collect::<Result<Vec<Vec<f64>>>>()?;
    let mut largest = 0.0_f64;
    for row in 0..times.len() {
        let hessian = |i: usize, j: usize| columns[j][row * dim + i];
        // Power iteration on the square of the symmetric matrix gives |λ| for either sign.
        let multiply =
            |v: &[f64]| -> Vec<f64> { (0..dim).map(|i| (0..dim).map(|j| hessian(i, j) * v[j]).sum()).collect() };
        let mut v: Vec<f64> = (0..dim).map(|i| 1.0 + 0.37 * i as f64).collect();
        let mut size = 0.0;
        for _ in 0..100 {
            let image = multiply(&multiply(&v));
            let norm = image.iter().map(|v| v * v).sum::<f64>().sqrt();
            size = (norm / v.iter().map(|v| v * v).sum::<f64>().sqrt()).sqrt();
            if norm == 0.0 {
                break;
            }
            v = image.iter().map(|v| v / norm).collect();
        }
        largest = largest.max(size);
    }
    Ok(largest)
}

/// Mean log-density of exact samples at t = 1, under the model's flow and under the problem: the
/// difference is the Kullback–Leibler divergence of the model's population from the true one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Likelihood {
    /// E_{q₁}[log q̂₁].
    pub model: f64,
    /// E_{q₁}[log q₁].
    pub exact: f64,
}

impl Likelihood {
    /// Measures both with `n` exact samples, starting the model's flow from the exact q₀.
    ///
    /// # Errors
    /// [`Error::Input`] if the model has other dynamics or coordinates than the problem; errors of
    /// the engine; [`Error::Interrupted`].
    pub fn measure(
        engine: &dyn Engine,
        model: &Model,
        problem: &AnalyticProblem,
        n: usize,
        seed: u64,
        watch: &dyn Watch,
    ) -> Result<Likelihood> {
        check_fit(model, problem)?;
        let points: Vec<f64> = problem
            .draw(n, &mut Stream::of_normals(seed, problem.dim()))
            .chunks_exact(problem.dim())
            .flat_map(|z| problem.point(z, 1.0))
            .collect();
        let control = StepControl::Adaptive { rtol: 1e-5, atol: 1e-6 };
        let log_start = |x: &[f32]| problem.log_density(&x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>(), 0.0);
        let narrow: Vec<f32> = points.iter().map(|&x| x as f32).collect();
        let of_points = log_likelihood(engine, model, &narrow, (Method::Dopri5, control), log_start, watch)?;
        let exact: f64 = points.chunks_exact(problem.dim()).map(|x| problem.log_density(x, 1.0)).sum();
        Ok(Likelihood { model: of_points.iter().sum::<f64>() / n as f64, exact: exact / n as f64 })
    }
}

/// Measurements of the theorems for a model on an analytic problem.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Theorems {
    /// The gap and its identity.
    pub gap: ActionGap,
    /// The bound on W₂²; only for flows without noise and growth.
    pub bound: Option<TransportBound>,
    /// Log-likelihood of exact samples; only for flows without noise and growth.
    pub likelihood: Option<Likelihood>,
}

impl Theorems {
    /// Measures `model` on `problem`.
    ///
    /// # Errors
    /// [`Error::Input`] if the model has other dynamics or coordinates than the problem; errors of
    /// the engine; [`Error::Interrupted`].
    pub fn measure(
        engine: &dyn Engine,
        model: &Model,
        problem: &AnalyticProblem,
        seed: u64,
        stage: &Stage,
    ) -> Result<Theorems> {
        const N: usize = 100_000;
        let plain = problem.objective().is_continuity();
        let total = if plain { 3 } else { 1 };
        let section = |before: u64| Section { watch: stage.watch, before, units: 1, total };
        let gap = ActionGap::measure(engine, model, problem, N, seed, &section(0))?;
        let (mut bound, mut likelihood) = (None, None);
        if plain {
            let watch = section(1);
            let stage = stage.watched_by(&watch);
            bound = Some(TransportBound::measure(engine, model, problem, &gap, seed.wrapping_add(1), &stage)?);
            likelihood = Some(Likelihood::measure(engine, model, problem, N / 10, seed.wrapping_add(2), &section(2))?);
        }
        Ok(Theorems { gap, bound, likelihood })
    }
}

impl fmt::Display for Theorems {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let number = |value: f64| significant(value, 6);
        let gap = &self.gap;
        let share = significant(100.0 * gap.gap / gap.energy, 4);
        writeln!(f, "action gap ½∫E‖∇s − ∇s*‖²    {}  ({share} % of the energy)", number(gap.gap))?;
        writeln!(f, "L(s) + ½∫E‖∇s*‖²            {}  (the same by the gap identity)", number(gap.from_loss()))?;
        writeln!(f, "energy ½∫E‖∇s*‖²            {}", number(gap.energy))?;
        writeln!(f, "relative error of the drift {}", number(gap.drift_error))?;
        if let Some(error) = gap.growth_error {
            writeln!(f, "relative error of growth    {}", number(error))?;
        }
        if let Some(TransportBound { w2_squared, smoothness, bound }) = self.bound {
            writeln!(f, "W₂²(moved, exact)           {}", number(w2_squared))?;
            writeln!(f, "≤ e^(1 + 2K)·∫E‖∇s − ∇s*‖²  {}  (K = {})", number(bound), significant(smoothness, 4))?;
        }
        if let Some(Likelihood { model, exact }) = self.likelihood {
            let (divergence, model, exact) = (number(exact - model), number(model), number(exact));
            writeln!(f, "log-likelihood at t = 1      {model}  (exact {exact}: KL divergence {divergence})")?;
        }
        Ok(())
    }
}

/// Checks that the model was trained for the dynamics and in the coordinates of the problem.
fn check_fit(model: &Model, problem: &AnalyticProblem) -> Result<()> {
    let fail = |field: &str, problem: String, fix: &str| Err(Error::input("analytic problem", field, problem, fix));
    if model.architecture.dim != problem.dim() {
        let found = format!("is {}, but the problem has {}", model.architecture.dim, problem.dim());
        return fail("dimension", found, "train on the problem's own samples");
    }
    let coordinates = &model.coordinates;
    let plain = coordinates.mean.iter().all(|&m| m == 0.0) && coordinates.scale.iter().all(|&s| s == 1.0);
    if !plain || coordinates.time_range != [0.0, 1.0] {
        return fail(
            "coordinates",
            "are standardized, or span times other than 0 to 1".into(),
            "train on the problem's samples with data.standardize = \"none\"",
        );
    }
    let (got, want) = (&model.objective, problem.objective());
    for (field, got, want) in [
        ("sigma", got.sigma, want.sigma),
        ("growth", got.growth, want.growth),
        ("cost_exponent", got.cost_exponent, want.cost_exponent),
    ] {
        if got != want {
            return fail(field, format!("is {got}, but the problem has {want}"), "train with the problem's value");
        }
    }
    Ok(())
}
