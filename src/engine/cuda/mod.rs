//! The CUDA engine: training, evaluation and integration on an NVIDIA GPU. The host only
//! orchestrates.
//!
//! ```
//! use action_matching::prelude::*;
//!
//! match CudaEngine::new(0, Precision::default()) {
//!     Ok(engine) => assert!(engine.describe().ends_with("bf16")),
//!     // Says what is missing: a GPU, its driver, or kernels in this build.
//!     Err(error) => assert!(matches!(error, Error::Device { .. }), "{error}"),
//! }
//! ```

mod abi;
mod batch;
mod carried;
mod draw;
mod driver;
mod evaluate;
mod exchange;
mod explain;
mod launch;
mod learner;
mod needs;
mod network;
mod particles;
mod path;
mod points;
mod products;
mod step;
#[cfg(test)]
#[path = "swapped_fields/tests.rs"]
mod swapped_fields;
#[cfg(test)]
mod testing;
mod trainer;
mod weight_grad;
mod workspace;

use std::sync::Arc;

pub use driver::{DeviceInfo, ForeignArray, Id, devices, is_available, n_devices, nccl_id, nccl_version};
#[doc(hidden)] // by way of `cli_support`
pub use driver::{driver, images, kernels, oldest_driver};
pub use points::{DerivativesOnDevice, DeviceArray, MovedOnDevice, UnitChange};

use self::driver::Device;
use self::needs::TileChoice;
use self::trainer::CudaTrainer;
use super::{
    Batch, Derivatives, Differentiate, Engine, IntegrationReport, LossGradient, TrainState, Trainer, Training,
};
use crate::error::{Result, check_len};
use crate::exchange::Exchange;
use crate::integrate::{Plan, Share};
use crate::model::Model;
use crate::precision::Precision;
use crate::ranks::liveness::Liveness;
use crate::stage::Watch;

/// The instruction that products of `precision` are made of, and with it the order in which a
/// product's terms are added.
fn product_engine(device: &Device, precision: Precision) -> &'static str {
    match (precision, device.uses_warpgroups()) {
        (Precision::F32, _) => "fma",
        (Precision::Bf16 | Precision::F16, true) => "wgmma",
        (Precision::Tf32 | Precision::Bf16 | Precision::F16, _) => "mma.sync",
    }
}

/// Training, evaluation and integration on one GPU.
pub struct CudaEngine {
    device: Arc<Device>,
    precision: Precision,
    /// Of the tiles of training batches.
    tiles: TileChoice,
}

impl CudaEngine {
    /// The engine on GPU number `ordinal`, with products in `precision`.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) says what is missing.
    pub fn new(ordinal: usize, precision: Precision) -> Result<CudaEngine> {
        Ok(CudaEngine { device: Device::open(ordinal)?, precision, tiles: TileChoice::OfBatch })
    }

    /// The same engine as rank `place.0` of the `place.1` ranks of a training, which all call this
    /// with the same `id` ([`nccl_id`]). Its trainers divide each batch with those of the others,
    /// take the same steps and end with the same bits as one GPU alone.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if there is no NCCL or it fails;
    /// [`Error::Rank`](crate::Error::Rank) if `liveness` misses a rank meanwhile.
    pub fn among(&self, id: &Id, place: (usize, usize), liveness: Arc<Liveness>) -> Result<CudaEngine> {
        let CudaEngine { ref device, precision, tiles } = *self;
        Ok(CudaEngine { device: device.among(id, place, liveness)?, precision, tiles })
    }

    /// The same engine with the kernels of large batches for batches of every size, so that tests
    /// reach them with few rows.
    #[doc(hidden)]
    #[must_use]
    pub fn with_large_tiles(self) -> CudaEngine {
        CudaEngine { tiles: TileChoice::OfLargeBatches, ..self }
    }

    /// Floating-point operations a second that products can reach on this GPU at most; `None` for a
    /// card that is not in the table.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device): the driver fails.
    pub fn peak_flops(&self) -> Result<Option<f64>> {
        Ok(driver::peak_flops(&self.device.info()?, self.precision))
    }

    /// Type of the operands of products.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }
}

impl Exchange for CudaEngine {
    fn place(&self) -> (usize, usize) {
        self.device.place()
    }

    fn share(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        exchange::share(&self.device, own)
    }
}

impl Differentiate for CudaEngine {
    fn derivatives(&self, model: &Model, x: &[f64], t: &[f64]) -> Result<Derivatives> {
        model.validate()?;
        model.require_one_condition()?;
        check_len("x", t.len() * model.architecture.dim, x.len())?;
        evaluate::derivatives(&self.device, self.precision, model, x, t)
    }

    fn loss_gradient(&self, model: &Model, batch: &Batch) -> Result<LossGradient> {
        model.validate()?;
        model.objective.validate("objective")?;
        batch.validate(&model.architecture)?;
        evaluate::loss_gradient(&self.device, self.precision, self.tiles, model, batch)
    }
}

impl Engine for CudaEngine {
    fn describe(&self) -> String {
        format!("{}, {}", self.device.describe(), self.precision.name())
    }

    fn arithmetic(&self) -> String {
        let CudaEngine { device, precision, .. } = self;
        format!("cuda, {}, {} by {}", device.model(), precision.name(), product_engine(device, *precision))
    }

    fn explain_training(&self, training: &Training) -> Result<Option<String>> {
        trainer::explain(&self.device, self.precision, training).map(Some)
    }

    fn explain_integration(&self, model: &Model, plan: &Plan, has_density: bool) -> Result<Option<String>> {
        particles::explain(&self.device, self.precision, model, plan, has_density).map(Some)
    }

    fn training_memory(&self, training: &Training) -> Result<Option<usize>> {
        trainer::training_memory(&self.device, self.precision, self.tiles, training).map(Some)
    }

    fn integration_memory(&self, model: &Model, plan: &Plan, share: Share<'_>) -> Result<Option<usize>> {
        particles::integration_memory(&self.device, self.precision, model, plan, &share).map(Some)
    }

    fn tile_of_particles(&self, _n_all: usize) -> usize {
        particles::TILE
    }

    fn integrate_share(
        &self,
        model: &Model,
        plan: &Plan,
        share: Share<'_>,
        watch: &dyn Watch,
    ) -> Result<IntegrationReport> {
        particles::integrate(&self.device, self.precision, model, plan, share, watch)
    }

    fn trainer(&self, training: Training, state: TrainState) -> Result<Box<dyn Trainer>> {
        training.validate(&state)?;
        // A stream of its own, so that several trainers fill the GPU together.
        Ok(Box::new(CudaTrainer::new(&self.device.beside()?, self.precision, self.tiles, training, &state)?))
    }
}
