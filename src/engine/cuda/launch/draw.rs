//! Launches of `kernels/draw.cu`: the rows of a batch.

use super::super::abi::{BatchParams, DrawParams, StepState, THREADS, Tag};
use super::super::driver::{Buffer, Device, Kernel};
use super::super::needs::Work;
use super::super::network::Network;
use super::checks::{check_chunk, check_tiles};
use super::{PathTables, Rows};
use crate::density_path::{TIME_KNOTS, TimeRule};
use crate::engine::{Estimator, Training};
use crate::error::{Result, check_len};
use crate::laplacian::Laplacian;
use crate::objective::SigmaSchedule;
use crate::precision::Precision;

/// Settings of a training that its rows are drawn by.
#[derive(Clone, Copy, Debug)]
pub struct DrawSettings {
    seed: u64,
    sigma: f64,
    sigma_schedule: SigmaSchedule,
    laplacian: Laplacian,
    time_rule: TimeRule,
    estimator: Estimator,
}

impl From<&Training> for DrawSettings {
    fn from(training: &Training) -> Self {
        DrawSettings {
            seed: training.seed,
            sigma: training.objective.sigma,
            sigma_schedule: training.objective.sigma_schedule,
            laplacian: training.laplacian,
            time_rule: training.time_rule,
            estimator: training.estimator,
        }
    }
}

/// Draws a chunk of a batch.
#[derive(Clone, Copy)]
pub struct Draw<'a> {
    /// Settings.
    pub settings: &'a DrawSettings,
    /// The network that the rows are for.
    pub network: &'a Network,
    /// Type of its operands.
    pub precision: Precision,
    /// Written.
    pub rows: &'a Rows,
    /// The chunk.
    pub batch: &'a BatchParams,
    /// The path that points are drawn from.
    pub path: &'a PathTables,
    /// Of the step.
    pub state: &'a Buffer<StepState>,
    /// Density of times at the knots, and behind it its integral from 0.
    pub density: &'a Buffer<f64>,
    /// Coefficients of the time weight, constant term first.
    pub coefficients: &'a Buffer<f64>,
    /// Frequencies of the network's time features.
    pub frequencies: &'a Buffer<f64>,
}

impl Draw<'_> {
    /// Draws all rows of the chunk, for the action.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn launch(&self, device: &Device) -> Result<()> {
        self.rows.check(self.network, self.precision, Work::Training)?;
        check_len("dimension of the points", self.path.dim(), self.network.params.dim as usize)?;
        self.launch_tiles(device, Kernel::Draw(self.precision), self.batch.n_tiles)
    }

    /// Draws the pairs behind the chunk's interior rows, for the network that bends the path.
    ///
    /// # Errors
    /// As [`Draw::launch`].
    pub fn launch_bend(&self, device: &Device) -> Result<()> {
        self.rows.check(self.network, self.precision, Work::Bend)?;
        check_len("dimension of the pairs", 2 * self.path.dim(), self.network.params.dim as usize)?;
        self.launch_tiles(device, Kernel::DrawBend(self.precision), self.batch.n_drawn_tiles())
    }

    fn launch_tiles(&self, device: &Device, kernel: Kernel, n_tiles: u32) -> Result<()> {
        let Draw { settings, network, rows, batch, path, state, density, coefficients, frequencies, .. } = *self;
        if n_tiles == 0 {
            return Ok(());
        }
        check_chunk(batch)?;
        check_tiles("rows", n_tiles, rows.n_rows())?;
        check_len("state of the step", 1, state.len())?;
        check_len("density of times", 2 * TIME_KNOTS, density.len())?;
        check_len("time features", network.params.n_features as usize, 1 + 2 * frequencies.len())?;
        check_len("conditions", network.architecture.conditions, path.groups().n_conditions as usize)?;
        let weak_intervals = match settings.estimator {
            Estimator::Weak { intervals } => intervals,
            Estimator::Action { .. } | Estimator::Regression => 0,
        };
        let params = DrawParams {
            network: network.params,
            rows: rows.params(),
            batch: *batch,
            paths: path.device_params().address(),
            groups: path.groups(),
            state: state.address(),
            density: density.address(),
            coefficients: coefficients.address(),
            frequencies: frequencies.address(),
            seed: settings.seed,
            sigma: settings.sigma,
            probe_weight: settings.laplacian.probe_weight(),
            time_rule: Tag::of(settings.time_rule),
            estimator: Tag::of(&settings.estimator),
            weak_intervals,
            n_coefficients: coefficients.len() as u32,
            laplacian_rule: Tag::of(settings.laplacian.rule),
            sigma_schedule: Tag::of(settings.sigma_schedule),
        };
        // SAFETY: reads and writes the buffers of `self`, whose lengths are checked above and by
        // the caller; `path` owns the tables that its argument block points to.
        unsafe { device.launch(kernel, [n_tiles, 1, 1], THREADS, 0, &params) }
    }
}
