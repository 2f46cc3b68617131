//! The density of a population at points and times, followed back along the flow to where it is
//! known: log q(x, t) = log q₀(x₀) − ∫ (∇·v − λs) dt along the way of the particle that ends at x.

use crate::engine::Engine;
use crate::error::{Error, Result, check_len};
use crate::integrate::{Solver, Trajectories};
use crate::model::Model;
use crate::stage::{Stage, check};

/// The density at the first time of a model, network coordinates.
#[derive(Clone, Debug, PartialEq)]
pub enum StartDensity {
    /// Standard normal: that of models whose path begins with noise.
    Normal,
    /// A Gaussian kernel around each row, as wide in each dimension as Scott's rule has it.
    Kernels {
        /// Rows `[m, dim]`.
        rows: Vec<f32>,
        /// Width of the kernels in each dimension.
        widths: Vec<f64>,
    },
}

impl StartDensity {
    /// Rows that kernels stand at, at most.
    pub const MOST_ROWS: usize = 5000;

    /// Kernels at `rows [m, dim]`, evenly chosen if there are more than [`Self::MOST_ROWS`]; widths
    /// are σᵢ m^(−1/(dim + 4)) for the deviation σᵢ of each dimension (Scott 1992).
    ///
    /// # Errors
    /// [`Error::Input`] for fewer than two rows, or rows that are all equal in a dimension.
    pub fn of_rows(dim: usize, rows: &[f32]) -> Result<StartDensity> {
        let n = rows.len() / dim;
        let m = n.min(Self::MOST_ROWS);
        let chosen: Vec<f32> = (0..m).flat_map(|k| rows[k * n / m * dim..][..dim].to_vec()).collect();
        let narrower = (m as f64).powf(-1.0 / (dim as f64 + 4.0));
        let width = |i: usize| {
            let column = || chosen.iter().skip(i).step_by(dim).map(|&y| f64::from(y));
            let mean = column().sum::<f64>() / m as f64;
            narrower * (column().map(|y| (y - mean).powi(2)).sum::<f64>() / m as f64).sqrt()
        };
        let widths: Vec<f64> = (0..dim).map(width).collect();
        if m < 2 || widths.iter().any(|&width| width <= 0.0) {
            let problem = format!("are {n}, or equal in a dimension, and have no density");
            return Err(Error::input("density", "rows of the first time", problem, "leave log-densities out"));
        }
        Ok(StartDensity::Kernels { rows: chosen, widths })
    }

    /// log q₀ at `y [n, dim]`, `[n]`.
    fn at(&self, dim: usize, y: &[f32], stage: &Stage) -> Result<Vec<f64>> {
        /// Points that a thread takes at a time.
        const AT_ONCE: usize = 64;
        let tau = std::f64::consts::TAU;
        let points: Vec<&[f32]> = y.chunks(AT_ONCE * dim).collect();
        let found = stage.map(stage.threads, &points, |points| {
            let log_density = |y: &[f32]| match self {
                StartDensity::Normal => {
                    let squares: f64 = y.iter().map(|&y| f64::from(y).powi(2)).sum();
                    -0.5 * (squares + dim as f64 * tau.ln())
                }
                StartDensity::Kernels { rows, widths } => {
                    let exponent = |row: &[f32]| -> f64 {
                        let each = y.iter().zip(row).zip(widths);
                        each.map(|((y, r), width)| -0.5 * ((f64::from(*y) - f64::from(*r)) / width).powi(2)).sum()
                    };
                    let exponents: Vec<f64> = rows.chunks_exact(dim).map(exponent).collect();
                    let largest = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = exponents.iter().map(|e| (e - largest).exp()).sum();
                    let volume: f64 = widths.iter().map(|width| width.ln() + 0.5 * tau.ln()).sum();
                    largest + sum.ln() - (exponents.len() as f64).ln() - volume
                }
            };
            Ok(points.chunks_exact(dim).map(log_density).collect::<Vec<f64>>())
        })?;
        Ok(found.concat())
    }
}

impl Model {
    /// log q at points `x [n, dim]` and the time `t [n]` of each, in data units: `[n]`. With growth
    /// it is the density of mass, whose integral at the first time is 1.
    ///
    /// # Errors
    /// As [`Model::local`]; [`Error::Input`] for a model with diffusion, whose density does not
    /// follow the flow; [`Error::NotFinite`] for a particle that is lost; [`Error::Interrupted`].
    pub fn log_density(
        &self,
        engine: &dyn Engine,
        x: &[f64],
        t: &[f64],
        start: &StartDensity,
        stage: &Stage,
    ) -> Result<Vec<f64>> {
        let dim = self.architecture.dim;
        let (y, tau) = self.rows_to_network(x, t)?;
        if let StartDensity::Kernels { rows, widths } = start {
            check_len("widths", dim, widths.len())?;
            check_len("rows", rows.len() / dim * dim, rows.len())?;
        }
        let log_volume: f64 = self.coordinates.scale.iter().map(|scale| scale.ln()).sum();
        let mut order: Vec<usize> = (0..tau.len()).collect();
        order.sort_by(|&a, &b| tau[a].total_cmp(&tau[b]));
        let mut found = vec![0.0; tau.len()];
        for rows in order.chunk_by(|&a, &b| tau[a] == tau[b]) {
            check(stage.watch)?;
            let mut at: Vec<f32> = rows.iter().flat_map(|&row| &y[row * dim..][..dim]).map(|&y| y as f32).collect();
            let mut rise = vec![0.0f32; rows.len()];
            let mut growth = vec![0.0f32; rows.len()];
            let plan = Solver::default().plan(tau[rows[0]], vec![0.0]);
            let log_weights = (self.objective.growth > 0.0).then_some(&mut growth[..]);
            let out = Trajectories { log_density: Some(&mut rise), log_weights, ..Trajectories::of(&mut at) };
            engine.integrate(self, &plan, out, stage.watch)?;
            // Integrated backward, the channels hold what is lost on the way back.
            let started = start.at(dim, &at, stage)?;
            for (((&row, started), rise), growth) in rows.iter().zip(started).zip(rise).zip(growth) {
                found[row] = started - f64::from(rise) - f64::from(growth) - log_volume;
            }
        }
        Ok(found)
    }
}
