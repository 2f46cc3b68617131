//! One network in training on the device: parameters and moments in padded order, gradient, and
//! weights packed for the products.

use std::sync::{Arc, Mutex};

use super::abi::{StepSizes, StepState};
use super::driver::{Buffer, Device, Pinned};
use super::launch::{Gather, Packed, StepNetwork, Update, n_blocks};
use super::network::Network;
use crate::engine::NetworkState;
use crate::error::{Result, check_len};
use crate::precision::Precision;

/// A network, its optimizer state, and the buffers that carry a step from kernel to kernel.
pub struct Learner {
    device: Arc<Device>,
    network: Network,
    precision: Precision,
    /// Learning rate, in units of the action's.
    relative_rate: f64,
    n_partials: usize,
    /// Parameters, moving average, first and second moment.
    values: [Buffer<f32>; 4],
    partials: Buffer<f32>,
    gradient: Buffer<f32>,
    squares: Buffer<f64>,
    sizes: Buffer<StepSizes>,
    weights: Buffer<u8>,
    biases: Buffer<f32>,
    /// Host copies of `values`.
    copies: Mutex<[Pinned; 4]>,
}

/// Bytes that a learner takes on the device.
pub fn learner_bytes(network: &Network, precision: Precision, n_partials: usize) -> usize {
    let n = network.params.n_parameters as usize;
    let values = 4 + n_partials + 1; // parameters, their average and moments; partial gradients; the gradient
    size_of::<f32>() * (values * n + network.n_biases)
        + size_of::<f64>() * n_blocks(network)
        + size_of::<StepSizes>()
        + precision.bytes() * network.n_packed
}

impl Learner {
    /// A network with the parameters and moments of `state`, whose gradient is the sum of
    /// `n_partials` partial ones.
    ///
    /// # Errors
    /// `Shape` for a state of another network, `Device` for want of memory.
    pub fn new(
        device: &Arc<Device>,
        network: Network,
        state: &NetworkState,
        precision: Precision,
        n_partials: usize,
        relative_rate: f64,
    ) -> Result<Learner> {
        let NetworkState { parameters, ema, moment1, moment2 } = state;
        for values in [parameters, ema, moment1, moment2] {
            check_len("parameters and moments", network.architecture.n_parameters(), values.len())?;
        }
        let n = network.params.n_parameters as usize;
        let load = |values: &[f32]| device.upload(&network.pad(values));
        let pinned = || device.pinned::<f32>(n);
        let (weights, biases) = network.pack(parameters, precision);
        Ok(Learner {
            values: [load(parameters)?, load(ema)?, load(moment1)?, load(moment2)?],
            partials: device.allocate(n_partials * n)?,
            gradient: device.allocate(n)?,
            squares: device.allocate(n_blocks(&network))?,
            sizes: device.allocate(1)?,
            weights: device.upload(&weights)?,
            biases: device.upload(&biases)?,
            copies: Mutex::new([pinned()?, pinned()?, pinned()?, pinned()?]),
            device: device.clone(),
            network,
            precision,
            relative_rate,
            n_partials,
        })
    }

    /// The padded layout.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The network as products read it.
    pub fn packed(&self) -> Packed<'_> {
        let Learner { network, precision, weights, biases, .. } = self;
        Packed { network, precision: *precision, weights, biases }
    }

    /// Partial weight gradients: `[n_partials, padded parameters]`.
    pub fn partials(&self) -> &Buffer<f32> {
        &self.partials
    }

    /// Buffers of this network that `finish_step` reads and writes.
    pub fn step_network(&self) -> StepNetwork<'_> {
        let Learner { network, relative_rate, squares, sizes, .. } = self;
        StepNetwork { network, relative_rate: *relative_rate, squares, sizes }
    }

    /// Sums the partial gradients.
    pub fn gather(&self, state: &Buffer<StepState>) -> Result<()> {
        let Learner { network, n_partials, partials, gradient, squares, .. } = self;
        Gather { network, n_partials: *n_partials, state, partials, gradient, squares }.launch(&self.device)
    }

    /// The sum of the partial gradients, in the flat order: what a step would follow.
    pub fn gradient(&self, state: &Buffer<StepState>) -> Result<Vec<f32>> {
        self.gather(state)?;
        Ok(self.network.unpad(&self.device.read(&self.gradient, self.gradient.len())?))
    }

    /// Takes the step that `finish_step` allowed.
    pub fn update(&self, state: &Buffer<StepState>) -> Result<()> {
        let Learner { network, precision, sizes, gradient, values, weights, biases, .. } = self;
        let values = values.each_ref();
        Update { network, precision: *precision, state, sizes, gradient, values, weights, biases }.launch(&self.device)
    }

    /// Parameters and moments after all that was launched before, in the flat order.
    pub fn state(&self) -> Result<NetworkState> {
        let mut copies = self.copies.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.device.snapshot(&self.values.each_ref(), &mut copies[..])?;
        let n = self.network.params.n_parameters as usize;
        let read = |pinned: &Pinned| Ok(self.network.unpad(&self.device.copied::<f32>(pinned, n)?));
        let [parameters, ema, moment1, moment2] = &*copies;
        Ok(NetworkState {
            parameters: read(parameters)?,
            ema: read(ema)?,
            moment1: read(moment1)?,
            moment2: read(moment2)?,
        })
    }
}

#[cfg(test)]
pub(super) mod tests;
