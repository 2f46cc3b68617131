//! A tile of particles on its way: all steps and stages happen here, on chip, between two saved times.
//!
//! Particles obey dy/dτ = ∇H(∇s) (network coordinates). Positions and stages are row-major `[n_rows, dim]`.

use pulp::{Simd, WithSimd};

use super::loss;
use super::sweeps::{Keep, Sweeps};
use super::tableau::Tableau;
use super::workspace::Workspace;
use crate::engine::IntegrationReport;
use crate::error::{Error, Result};
use crate::integrate::{Plan, StepControl};
use crate::objective::Objective;

/// Most steps that error control may try between two saved times before it gives up.
const MAX_ADAPTIVE_STEPS: u64 = 100_000;

/// One tile of particles and the space to move them.
pub struct Particles<'a, S> {
    sweeps: Sweeps<'a, S>,
    objective: &'a Objective,
    plan: &'a Plan,
    tableau: &'static Tableau,
    work: Workspace,
    n_rows: usize,
    /// Positions.
    y: Vec<f32>,
    /// Where the velocity is evaluated; after a step, the new positions.
    point: Vec<f32>,
    /// Velocities of the stages.
    stages: Vec<Vec<f32>>,
    /// Whether the first stage already holds the velocity at `y`.
    first_stage_ready: bool,
    /// Step that error control proposes next, with the sign of the direction; 0 before the first.
    proposed: f64,
    /// What has been done so far.
    pub report: IntegrationReport,
}

impl<'a, S: Simd> Particles<'a, S> {
    /// Space for tiles of up to `capacity` particles.
    pub fn new(sweeps: Sweeps<'a, S>, objective: &'a Objective, plan: &'a Plan, capacity: usize) -> Self {
        let tableau = Tableau::of(plan.method);
        let rows = || vec![0.0; capacity * sweeps.architecture.dim];
        Particles {
            work: Workspace::new(sweeps.architecture, sweeps.packing, capacity, 0),
            y: rows(),
            point: rows(),
            stages: tableau.nodes.iter().map(|_| rows()).collect(),
            sweeps,
            objective,
            plan,
            tableau,
            n_rows: 0,
            first_stage_ready: false,
            proposed: 0.0,
            report: IntegrationReport::default(),
        }
    }

    /// Moves the particles `saved[0]` along the plan and leaves them in `saved[k]` at the k-th saved time.
    pub fn run(&mut self, saved: &mut [&mut [f32]]) -> Result<()> {
        let Some(start) = saved.first() else { return Ok(()) };
        self.n_rows = start.len() / self.sweeps.architecture.dim;
        self.y[..start.len()].copy_from_slice(start);
        self.first_stage_ready = false;
        self.proposed = 0.0;
        let mut t = self.plan.t0;
        for (&to, slab) in self.plan.save_at.iter().zip(saved) {
            match self.plan.control {
                StepControl::Fixed { .. } => self.fixed_steps(t, to, self.plan.fixed_steps(t, to)),
                StepControl::Adaptive { rtol, atol } => self.adaptive_steps(t, to, rtol, atol)?,
            }
            slab.copy_from_slice(&self.y[..slab.len()]);
            if slab.iter().any(|y| !y.is_finite()) {
                return Err(Error::NotFinite {
                    what: "a particle's position",
                    step: self.report.accepted_steps,
                    fix: "use more steps or a tolerance, or check that the particles start where the model was trained",
                });
            }
            t = to;
        }
        Ok(())
    }

    fn n_values(&self) -> usize {
        self.n_rows * self.sweeps.architecture.dim
    }

    fn fixed_steps(&mut self, from: f64, to: f64, n: u64) {
        for step in 0..n {
            let at = |step: u64| from + (to - from) * (step as f64 / n as f64);
            let t = at(step);
            self.step(t, at(step + 1) - t);
            self.accept();
        }
    }

    fn adaptive_steps(&mut self, from: f64, to: f64, rtol: f64, atol: f64) -> Result<()> {
        let direction = if to >= from { 1.0 } else { -1.0 };
        let (mut t, mut attempts) = (from, 0);
        if self.proposed == 0.0 && from != to {
            self.proposed = direction * self.initial_step(t, rtol, atol);
        }
        while (to - t) * direction > 0.0 {
            let remaining = to - t;
            let last = self.proposed.abs() >= remaining.abs() * (1.0 - 1e-9);
            let h = if last { remaining } else { self.proposed };
            attempts += 1;
            if t + h == t || attempts > MAX_ADAPTIVE_STEPS {
                return Err(Error::input(
                    "integration plan",
                    "--rtol/--atol",
                    format!("cannot be met near t = {t} (network time)"),
                    "loosen the tolerances, or use --method rk4 with --steps",
                ));
            }
            self.step(t, h);
            let error = self.error_norm(h, rtol, atol);
            // The controller of Hairer, Nørsett & Wanner (Solving ODEs I, II.4); a NaN shrinks the step.
            let factor = if error.is_finite() { (0.9 * error.powf(-0.2)).clamp(0.2, 5.0) } else { 0.2 };
            if error <= 1.0 {
                t = if last { to } else { t + h };
                self.accept();
                // A step cut short to meet a saved time says nothing about the next one.
                self.proposed = if last { self.proposed.abs().max(h.abs() * factor) * direction } else { h * factor };
            } else {
                self.report.rejected_steps += 1;
                self.proposed = h * factor.min(1.0);
            }
        }
        Ok(())
    }

    /// `point` = the result of one step of size `h` from `y`.
    fn step(&mut self, t: f64, h: f64) {
        let n_stages = self.tableau.nodes.len();
        if !self.first_stage_ready {
            self.point.copy_from_slice(&self.y);
            self.velocity(t, 0);
            self.first_stage_ready = true;
        }
        for stage in 1..n_stages {
            self.combine(h, self.tableau.stages[stage - 1]);
            self.velocity(t + self.tableau.nodes[stage] * h, stage);
        }
        if !self.tableau.first_same_as_last {
            self.combine(h, self.tableau.weights);
        }
    }

    /// Makes the result of the last step the new positions.
    fn accept(&mut self) {
        std::mem::swap(&mut self.y, &mut self.point);
        self.first_stage_ready = self.tableau.first_same_as_last;
        if self.tableau.first_same_as_last {
            let last = self.stages.len() - 1;
            self.stages.swap(0, last);
        }
        self.report.accepted_steps += 1;
    }

    /// `point` = y + h Σ coefficientsᵢ stageᵢ.
    fn combine(&mut self, h: f64, coefficients: &[f64]) {
        let n = self.n_values();
        self.sweeps.simd.vectorize(Combine {
            out: &mut self.point[..n],
            y: &self.y[..n],
            stages: &self.stages,
            coefficients,
            h,
        });
    }

    /// Velocity ∇H(∇s) at `point` and time `t` into stage `stage`.
    fn velocity(&mut self, t: f64, stage: usize) {
        let (dim, n_rows) = (self.sweeps.architecture.dim, self.n_rows);
        for (row, x) in self.point[..self.n_values()].chunks_exact(dim).enumerate() {
            for (i, &value) in x.iter().enumerate() {
                *self.work.a0.at_mut(row, i) = value;
            }
        }
        self.sweeps.architecture.time_embedding.for_each(t, |i, phi, _| {
            for row in 0..n_rows {
                *self.work.a0.at_mut(row, dim + i) = phi as f32;
            }
        });
        loss::gradient(&self.sweeps, &mut self.work, n_rows, Keep::First, false);
        let velocity = &mut self.stages[stage][..n_rows * dim];
        velocity.copy_from_slice(&self.work.grad_s[..n_rows * dim]);
        if self.objective.cost_exponent != 2.0 {
            for v in velocity {
                *v = self.objective.hamiltonian(*v).1;
            }
        }
        self.report.velocity_evaluations += n_rows as u64;
    }

    /// Root mean square over the tile of error / (atol + rtol |y|).
    fn error_norm(&self, h: f64, rtol: f64, atol: f64) -> f64 {
        let n = self.n_values();
        let sum: f64 = (0..n)
            .map(|i| {
                let error: f64 =
                    self.tableau.error.iter().zip(&self.stages).map(|(e, stage)| e * f64::from(stage[i])).sum();
                let size = f64::from(self.y[i].abs().max(self.point[i].abs()));
                let ratio = h * error / (atol + rtol * size);
                ratio * ratio
            })
            .sum();
        (sum / n as f64).sqrt()
    }

    /// First step of error control, from the sizes of y, its velocity and the velocity's change over an Euler step
    /// (Hairer, Nørsett & Wanner, II.4).
    fn initial_step(&mut self, t: f64, rtol: f64, atol: f64) -> f64 {
        self.point.copy_from_slice(&self.y);
        self.velocity(t, 0);
        self.first_stage_ready = true;
        let n = self.n_values();
        let norm = |value: &dyn Fn(usize) -> f32, y: &[f32]| {
            let sum: f64 = (0..n).map(|i| (f64::from(value(i)) / (atol + rtol * f64::from(y[i].abs()))).powi(2)).sum();
            (sum / n as f64).sqrt()
        };
        let position = norm(&|i| self.y[i], &self.y);
        let speed = norm(&|i| self.stages[0][i], &self.y);
        let small = if position < 1e-5 || speed < 1e-5 { 1e-6 } else { 0.01 * position / speed };
        let direction = if self.plan.save_at.last() < Some(&self.plan.t0) { -1.0 } else { 1.0 };
        self.combine(direction * small, &[1.0]);
        self.velocity(t + direction * small, 1);
        let bend = norm(&|i| self.stages[1][i] - self.stages[0][i], &self.y) / small;
        let largest = speed.max(bend);
        let second = if largest <= 1e-15 { (small * 1e-3).max(1e-6) } else { (0.01 / largest).powf(0.2) };
        (100.0 * small).min(second)
    }
}

/// out = y + h Σ coefficientsᵢ stageᵢ.
struct Combine<'a> {
    out: &'a mut [f32],
    y: &'a [f32],
    stages: &'a [Vec<f32>],
    coefficients: &'a [f64],
    h: f64,
}

impl WithSimd for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        self.out.copy_from_slice(self.y);
        for (coefficient, stage) in self.coefficients.iter().zip(self.stages) {
            let factor = (self.h * coefficient) as f32;
            if factor != 0.0 {
                for (out, &v) in self.out.iter_mut().zip(stage) {
                    *out = factor.mul_add(v, *out);
                }
            }
        }
    }
}
