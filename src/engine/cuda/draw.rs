//! Drawing the rows of training batches on the device.

use std::sync::Arc;

use super::abi::{BatchParams, StepState};
use super::driver::{Buffer, Device};
use super::launch::{Draw, DrawSettings, Rows};
use super::network::Network;
use super::path::DevicePath;
use crate::engine::Training;
use crate::error::Result;
use crate::objective::TimeWeight;
use crate::precision::Precision;

/// Draws the rows of training batches.
pub struct Drawer {
    device: Arc<Device>,
    precision: Precision,
    settings: DrawSettings,
    /// Of the time weight.
    coefficients: Buffer<f64>,
    action: DrawnNetwork,
    /// The network that bends the path.
    bend: Option<DrawnNetwork>,
}

/// A network that rows are drawn for.
struct DrawnNetwork {
    network: Network,
    /// Of its time features.
    frequencies: Buffer<f64>,
}

/// Device state that decides where rows come from.
#[derive(Clone, Copy)]
pub struct Drawn<'a> {
    pub path: &'a DevicePath,
    pub state: &'a Buffer<StepState>,
    /// At the knots, and behind it its integral from 0.
    pub density: &'a Buffer<f64>,
}

impl Drawer {
    /// For `training`, which is valid, whose action has the layout `action`, with operands of
    /// `precision`.
    pub fn new(device: &Arc<Device>, training: &Training, action: &Network, precision: Precision) -> Result<Self> {
        let coefficients: &[f64] = match &training.objective.time_weight {
            TimeWeight::Constant => &[1.0],
            TimeWeight::OneMinusT => &[1.0, -1.0],
            TimeWeight::Polynomial { coefficients } => coefficients,
        };
        let drawn = |network| DrawnNetwork::new(device, network);
        Ok(Drawer {
            precision,
            settings: DrawSettings::from(training),
            coefficients: device.upload(coefficients)?,
            action: drawn(action.clone())?,
            bend: training.bend.as_ref().map(|bend| drawn(Network::new(&bend.architecture))).transpose()?,
            device: device.clone(),
        })
    }

    /// Draws the chunk of `batch` into `rows` of the action.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for buffers that are too small, else the device's.
    pub fn draw(&self, rows: &Rows, batch: &BatchParams, drawn: Drawn<'_>) -> Result<()> {
        self.launch(&self.action, rows, batch, drawn).launch(&self.device)
    }

    /// Draws the pairs behind the chunk's interior rows into `rows` of the network that bends the
    /// path; does nothing without one.
    ///
    /// # Errors
    /// As [`Drawer::draw`].
    pub fn draw_bend(&self, rows: &Rows, batch: &BatchParams, drawn: Drawn<'_>) -> Result<()> {
        let Some(bend) = &self.bend else { return Ok(()) };
        self.launch(bend, rows, batch, drawn).launch_bend(&self.device)
    }

    fn launch<'a>(
        &'a self,
        DrawnNetwork { network, frequencies }: &'a DrawnNetwork,
        rows: &'a Rows,
        batch: &'a BatchParams,
        Drawn { path, state, density }: Drawn<'a>,
    ) -> Draw<'a> {
        let Drawer { precision, settings, coefficients, .. } = self;
        let (precision, path) = (*precision, path.tables());
        Draw { settings, network, precision, rows, batch, path, state, density, coefficients, frequencies }
    }
}

impl DrawnNetwork {
    fn new(device: &Device, network: Network) -> Result<Self> {
        let frequencies = device.upload(network.architecture.time_embedding.frequencies())?;
        Ok(DrawnNetwork { network, frequencies })
    }
}

#[cfg(test)]
pub(super) mod tests;
