//! Integration of one tile of particles: all steps and stages between two saved times happen here,
//! in cache.
//!
//! Particles obey dy = ∇H(∇s) dτ + σ dW (network coordinates); along a path d log w = λ s dτ, or g
//! dτ by a growth head, and d log q = −∇·v dτ. A state and its stages hold positions `[n_rows,
//! dim]`, then log w and log q
//! `[n_rows]` if requested.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use pulp::{Simd, WithSimd};

use super::sweeps::{Keep, Sweeps};
use super::workspace::Workspace;
use super::{draw, growth, head, loss};
use crate::engine::IntegrationReport;
use crate::engine::batch::Potential;
use crate::error::Result;
use crate::integrate::{Noise, Plan, Share, StepControl};
use crate::objective::Objective;
use crate::rng::{self, Purpose, RowWords};
use crate::stage::{Watch, check};
use crate::tableau::Tableau;

/// Maximum number of steps that error control tries between two saved times before it gives up.
const MAX_ADAPTIVE_STEPS: u64 = 100_000;

/// Channels that are integrated in addition to positions.
#[derive(Clone, Copy)]
pub struct Channels {
    /// log w.
    pub weights: bool,
    /// log q.
    pub density: bool,
}

/// Reports the progress of a tile to a watch, and stops the tile if the watch cancels.
pub struct TileProgress<'a> {
    watch: &'a dyn Watch,
    /// Particles finished by all tiles; those of unfinished tiles count by the fraction of their
    /// time.
    done: &'a AtomicU64,
    total: u64,
    n_rows: u64,
    /// Number of the tile's rows already counted in `done`.
    counted: u64,
    told: Instant,
}

impl<'a> TileProgress<'a> {
    /// Time between two reports of a tile.
    const EVERY: Duration = Duration::from_millis(100);

    /// Progress of a tile of `n_rows` of the `total` particles, `done` of which are finished.
    pub fn new(watch: &'a dyn Watch, done: &'a AtomicU64, total: u64, n_rows: usize) -> Self {
        TileProgress { watch, done, total, n_rows: n_rows as u64, counted: 0, told: Instant::now() }
    }

    /// Reports that `fraction` of the integration time is done.
    fn at(&mut self, share: f64) -> Result<()> {
        check(self.watch)?;
        if self.told.elapsed() >= Self::EVERY {
            self.told = Instant::now();
            self.count((share * self.n_rows as f64) as u64);
        }
        Ok(())
    }

    fn finish(&mut self) {
        self.count(self.n_rows);
    }

    fn count(&mut self, rows: u64) {
        let new = rows.min(self.n_rows).saturating_sub(self.counted);
        self.counted += new;
        self.watch.advanced(self.done.fetch_add(new, Relaxed) + new, self.total);
    }
}

/// One tile of particles and the memory to move them.
pub struct Particles<'a, S> {
    sweeps: Sweeps<'a, S>,
    /// The growth head, with a workspace of its own.
    growth: Option<(Sweeps<'a, S>, Workspace)>,
    objective: &'a Objective,
    plan: &'a Plan,
    tableau: &'static Tableau,
    work: Workspace,
    n_rows: usize,
    channels: Channels,
    /// Index of the first row among all particles.
    first: usize,
    /// Directions of the divergence `[direction, n_rows, dim]`, constant along the path.
    directions: Vec<Vec<f32>>,
    /// State.
    y: Vec<f32>,
    /// Point at which the velocity is evaluated; after a step, the new state.
    point: Vec<f32>,
    /// Noise of the step.
    noise: Vec<f32>,
    /// Steps taken since the start; the index of a step's noise.
    n_steps: u64,
    /// Velocities of the stages.
    stages: Vec<Vec<f32>>,
    /// True if the first stage already holds the velocity at `y`.
    first_stage_ready: bool,
    /// Step size that error control proposes next, with the sign of the direction; 0 before the
    /// first step.
    proposed: f64,
    /// Work done so far.
    pub report: IntegrationReport,
}

impl<'a, S: Simd> Particles<'a, S> {
    /// Memory for tiles of up to `capacity` particles. The second network is the growth head.
    pub fn new(
        (sweeps, growth): (Sweeps<'a, S>, Option<Sweeps<'a, S>>),
        objective: &'a Objective,
        plan: &'a Plan,
        channels: Channels,
        capacity: usize,
    ) -> Self {
        let tableau = Tableau::of(plan.method);
        let dim = sweeps.architecture.dim;
        let rows = || vec![0.0; capacity * (dim + usize::from(channels.weights) + usize::from(channels.density))];
        let n_directions = if channels.density { plan.divergence.n_directions(dim) } else { 0 };
        let mut work = Workspace::new(sweeps.architecture, sweeps.packing, capacity, n_directions);
        if channels.density {
            (0..capacity).for_each(|row| work.set_probe_weight(row, plan.divergence.probe_weight() as f32));
        }
        let of_growth = |sweeps: Sweeps<'a, S>| {
            let work = Workspace::new(sweeps.architecture, sweeps.packing, capacity, 0);
            (sweeps, work)
        };
        Particles {
            work,
            growth: growth.map(of_growth),
            channels,
            first: 0,
            directions: vec![vec![0.0; capacity * dim]; n_directions],
            noise: if plan.method.is_stochastic() { rows() } else { Vec::new() },
            n_steps: 0,
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

    /// Moves the particles of a tile along the plan.
    ///
    /// # Errors
    /// If a particle becomes non-finite or the tolerance cannot be met;
    /// [`Error::Interrupted`](crate::Error::Interrupted) after the step in which `progress` was
    /// cancelled.
    pub fn run(&mut self, saved: &mut Share<'_>, progress: &mut TileProgress) -> Result<()> {
        let dim = self.sweeps.architecture.dim;
        let Some(start) = saved.positions.first() else { return Ok(()) };
        self.n_rows = start.len() / dim;
        self.y[..start.len()].copy_from_slice(start);
        let (weights, density) = (self.weights(), self.density());
        for (range, slabs) in [(weights.clone(), &saved.log_weights), (density.clone(), &saved.log_density)] {
            if let Some(start) = slabs.first() {
                self.y[range].copy_from_slice(start);
            }
        }
        self.first = saved.first;
        self.n_steps = 0;
        self.first_stage_ready = false;
        self.proposed = 0.0;
        if self.channels.density {
            let rule = self.plan.divergence.rule;
            draw::probes(rule, dim, self.plan.noise.seed, 0, self.first, self.n_rows, &mut self.work);
            for (directions, ends) in self.directions.iter_mut().zip(&self.work.probes) {
                for (row, direction) in directions.chunks_exact_mut(dim).enumerate().take(self.n_rows) {
                    direction.iter_mut().enumerate().for_each(|(i, value)| *value = ends.input.at(row, i));
                }
            }
        }
        let (start, end) = (self.plan.t0, self.plan.save_at.last().copied().unwrap_or(self.plan.t0));
        let mut step_done = |t: f64| progress.at(if end == start { 0.0 } else { (t - start) / (end - start) });
        let mut t = start;
        for (k, &to) in self.plan.save_at.iter().enumerate() {
            match self.plan.control {
                StepControl::Fixed { .. } => {
                    for (t, h) in self.plan.steps_between(t, to) {
                        self.step(t, h);
                        self.accept();
                        step_done(t + h)?;
                    }
                }
                StepControl::Adaptive { rtol, atol } => self.adaptive_steps(t, to, (rtol, atol), &mut step_done)?,
            }
            let positions = 0..self.n_rows * dim;
            for (range, slabs) in [
                (positions, &mut saved.positions),
                (weights.clone(), &mut saved.log_weights),
                (density.clone(), &mut saved.log_density),
            ] {
                if let Some(slab) = slabs.get_mut(k) {
                    slab.copy_from_slice(&self.y[range]);
                }
            }
            if self.y[..self.n_values()].iter().any(|y| !y.is_finite()) {
                return Err(Plan::lost_particle(self.n_steps));
            }
            t = to;
        }
        progress.finish();
        Ok(())
    }

    /// Length of the state.
    fn n_values(&self) -> usize {
        self.density().end
    }

    /// Range of log w in the state.
    fn weights(&self) -> Range<usize> {
        let start = self.n_rows * self.sweeps.architecture.dim;
        start..start + if self.channels.weights { self.n_rows } else { 0 }
    }

    /// Range of log q in the state.
    fn density(&self) -> Range<usize> {
        let start = self.weights().end;
        start..start + if self.channels.density { self.n_rows } else { 0 }
    }

    fn adaptive_steps(
        &mut self,
        from: f64,
        to: f64,
        (rtol, atol): (f64, f64),
        step_done: &mut impl FnMut(f64) -> Result<()>,
    ) -> Result<()> {
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
            if !h.is_finite() || t + h == t || attempts > MAX_ADAPTIVE_STEPS {
                return Err(Plan::impossible_tolerance(t));
            }
            self.step(t, h);
            let error = self.error_norm(h, rtol, atol);
            // The controller of Hairer, Nørsett & Wanner (Solving ODEs I, II.4); a NaN shrinks the
            // step.
            let factor = if error.is_finite() { (0.9 * error.powf(-0.2)).clamp(0.2, 5.0) } else { 0.2 };
            if error <= 1.0 {
                t = if last { to } else { t + h };
                self.accept();
                // A step shortened to meet a saved time is no evidence for the next step size.
                self.proposed = if last { self.proposed.abs().max(h.abs() * factor) * direction } else { h * factor };
            } else {
                self.report.rejected_steps += 1;
                self.proposed = h * factor.min(1.0);
            }
            step_done(t)?;
        }
        Ok(())
    }

    /// Computes `point`, the result of one step of size `h` from `y`.
    fn step(&mut self, t: f64, h: f64) {
        let n_stages = self.tableau.nodes.len();
        if self.plan.method.is_stochastic() {
            self.draw_noise(t, h);
        }
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
        self.n_steps += 1;
    }

    /// Fills `noise` with ∫σ dW over the step, and with 0 in the channels other than positions.
    fn draw_noise(&mut self, t: f64, h: f64) {
        let dim = self.sweeps.architecture.dim;
        let Noise { seed, increments_per_step } = self.plan.noise;
        let deviation = self.plan.noise_deviation(self.objective, t, h);
        self.noise.fill(0.0);
        if deviation == 0.0 {
            return;
        }
        for increment in 0..u64::from(increments_per_step) {
            let step = self.n_steps * u64::from(increments_per_step) + increment;
            let words = RowWords::new(seed, Purpose::Noise, step, dim);
            for (row, noise) in self.noise[..self.n_rows * dim].chunks_exact_mut(dim).enumerate() {
                let normals = words.of((self.first + row) as u32).flat_map(rng::normals);
                noise.iter_mut().zip(normals).for_each(|(noise, normal)| *noise += deviation * normal);
            }
        }
    }

    /// `point` = y + h Σ coefficientsᵢ stageᵢ + noise.
    fn combine(&mut self, h: f64, coefficients: &[f64]) {
        let n = self.n_values();
        self.sweeps.simd.vectorize(Combine {
            out: &mut self.point[..n],
            y: &self.y[..n],
            noise: self.noise.get(..n),
            stages: &self.stages,
            coefficients,
            h,
        });
    }

    /// Writes the velocity ∇H(∇s) at `point` and time `t` to stage `stage`, with the rates λs, or
    /// those of a growth head, of log w and −∇·v of log q.
    fn velocity(&mut self, t: f64, stage: usize) {
        let (dim, n_rows) = (self.sweeps.architecture.dim, self.n_rows);
        for (row, x) in self.point[..n_rows * dim].chunks_exact(dim).enumerate() {
            for (i, &value) in x.iter().enumerate() {
                *self.work.a0.at_mut(row, i) = value;
            }
        }
        self.sweeps.architecture.time_embedding.for_each(t, |i, phi, _| {
            for row in 0..n_rows {
                *self.work.a0.at_mut(row, dim + i) = phi as f32;
            }
        });
        let keep = if self.channels.density { Keep::Third } else { Keep::First };
        let reads_potential = self.channels.weights && self.growth.is_none();
        loss::gradient(&self.sweeps, &mut self.work, n_rows, keep, Potential::needed_if(reads_potential));
        let (weights, density) = (self.weights(), self.density());
        let rates = &mut self.stages[stage][weights];
        match &mut self.growth {
            None => {
                let growth = self.objective.growth as f32;
                rates.iter_mut().zip(&self.work.s).for_each(|(rate, &s)| *rate = growth * s);
            }
            Some((sweeps, head)) => {
                growth::rates(sweeps, &self.work, head, n_rows);
                rates.iter_mut().enumerate().for_each(|(row, rate)| *rate = head.output.at(row, 0));
            }
        }
        if self.channels.density {
            self.place_directions();
            self.sweeps.tangent(&mut self.work, n_rows);
            for (row, rate) in self.stages[stage][density].iter_mut().enumerate() {
                *rate = -head::generator(self.sweeps.architecture.head, dim, &self.work, row);
            }
        }
        let velocity = &mut self.stages[stage][..n_rows * dim];
        velocity.copy_from_slice(&self.work.grad_s[..n_rows * dim]);
        if self.objective.cost_exponent != 2.0 {
            for v in velocity {
                *v = self.objective.hamiltonian(*v).1;
            }
        }
        self.report.velocity_evaluations += n_rows as u64;
    }

    /// Writes the directions of the divergence to the inputs of the probes: ∇·∇H(∇s) is the trace
    /// of D∇²s with the diagonal D = H″(∇s), so each direction is scaled by √D.
    fn place_directions(&mut self) {
        let dim = self.sweeps.architecture.dim;
        let q = self.objective.cost_exponent as f32;
        for (ends, directions) in self.work.probes.iter_mut().zip(&self.directions) {
            for (row, direction) in directions.chunks_exact(dim).enumerate().take(self.n_rows) {
                for (i, &component) in direction.iter().enumerate() {
                    let p = self.work.grad_s[row * dim + i].abs();
                    let scale = if q == 2.0 { 1.0 } else { ((q - 1.0) * p.powf(q - 2.0)).sqrt() };
                    *ends.input.at_mut(row, i) = scale * component;
                }
            }
        }
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

    /// First step size of error control, from the sizes of y, of its velocity and of the velocity's
    /// change over an Euler step (Hairer, Nørsett & Wanner, II.4).
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

/// out = y + h Σ coefficientsᵢ stageᵢ + noise.
struct Combine<'a> {
    out: &'a mut [f32],
    y: &'a [f32],
    noise: Option<&'a [f32]>,
    stages: &'a [Vec<f32>],
    coefficients: &'a [f64],
    h: f64,
}

impl WithSimd for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        self.out.copy_from_slice(self.y);
        for (out, noise) in self.out.iter_mut().zip(self.noise.into_iter().flatten()) {
            *out += noise;
        }
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
