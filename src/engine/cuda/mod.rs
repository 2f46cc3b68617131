//! The CUDA engine: training, evaluation and integration on an NVIDIA GPU. The host only orchestrates.
#![allow(missing_docs, dead_code)] // internal

mod device;
mod modules;
mod network;
mod params;
mod particles;
mod precision;

use std::sync::Arc;

pub use precision::Precision;

use self::device::Device;
use super::{
    Batch, Derivatives, Differentiate, Engine, IntegrationReport, LossGradient, TrainState, Trainer, Training,
};
use crate::error::Result;
use crate::integrate::{Plan, Trajectories};
use crate::model::Model;

/// Training, evaluation and integration on one GPU.
pub struct CudaEngine {
    device: Arc<Device>,
    precision: Precision,
}

impl CudaEngine {
    /// The engine on GPU number `ordinal`, with products in `precision`.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) says what is missing.
    pub fn new(ordinal: usize, precision: Precision) -> Result<CudaEngine> {
        Ok(CudaEngine { device: Device::open(ordinal)?, precision })
    }
}

impl Differentiate for CudaEngine {
    fn derivatives(&self, _model: &Model, _x: &[f64], _t: &[f64]) -> Result<Derivatives> {
        todo!()
    }

    fn loss_gradient(&self, _model: &Model, _batch: &Batch) -> Result<LossGradient> {
        todo!()
    }
}

impl Engine for CudaEngine {
    fn describe(&self) -> String {
        format!("{}, {}", self.device.describe(), self.precision.name())
    }

    fn integrate(
        &self,
        model: &Model,
        plan: &Plan,
        out: Trajectories<'_>,
        advanced: &(dyn Fn(u64) + Sync),
    ) -> Result<IntegrationReport> {
        particles::integrate(&self.device, self.precision, model, plan, out, advanced)
    }

    fn trainer(&self, _training: Training, _state: TrainState) -> Result<Box<dyn Trainer>> {
        todo!()
    }
}
