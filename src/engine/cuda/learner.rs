//! One network in training on the device: parameters and moments in padded order, gradient, and
//! weights packed for the products.

use std::sync::{Arc, Mutex};

use super::abi::{MAX_SHARDS, StepSizes, StepState};
use super::driver::{Buffer, Device, Pinned, Transfer};
use super::launch::{AddSlices, Gather, Packed, StepNetwork, Update, n_blocks};
use super::network::Network;
use super::weight_grad::Division;
use crate::engine::NetworkState;
use crate::error::{Result, check_len};
use crate::precision::Precision;
use crate::ranks::shards::{self, Plan};

/// A network, its optimizer state, and the buffers that carry a step from kernel to kernel.
pub struct Learner {
    device: Arc<Device>,
    network: Network,
    precision: Precision,
    /// Learning rate, in units of the action's.
    relative_rate: f64,
    n_partials: usize,
    /// Shards of the batch.
    n_shards: usize,
    /// Parameters, moving average, first and second moment.
    values: [Buffer<f32>; 4],
    partials: Buffer<f32>,
    gradient: Buffer<f32>,
    /// If ranks divide the batch.
    divided: Option<Divided>,
    squares: Buffer<f64>,
    sizes: Buffer<StepSizes>,
    weights: Buffer<u8>,
    biases: Buffer<f32>,
    /// Host copies of `values`.
    copies: Mutex<[Pinned; 4]>,
}

/// The gradient of a network whose shards ranks have: see [`crate::ranks::shards`].
struct Divided {
    rank: usize,
    n_ranks: usize,
    plan: Plan,
    /// The sum of the rank's shards, `[padded parameters]`.
    own: Buffer<f32>,
    /// This rank's slice in the sums of the others: `[ranks, longest slice]`.
    received: Buffer<f32>,
}

const _: () = assert!(MAX_SHARDS == shards::MAX_SHARDS, "kernels and ranks divide a batch alike");

/// Elements that kernels move at once.
const UNIT: usize = 4;

/// The plan of rank `rank` of `n_ranks` for the gradient of `network` over `n_shards` shards.
fn plan(network: &Network, n_shards: usize, rank: usize, n_ranks: usize) -> Result<Plan> {
    Plan::new(n_shards, n_ranks, rank, network.params.n_parameters as usize, UNIT)
}

/// Bytes that a learner takes on the device, whose batch `n_ranks` ranks divide.
pub fn learner_bytes(network: &Network, precision: Precision, division: &Division, n_ranks: usize) -> Result<usize> {
    let n = network.params.n_parameters as usize;
    let longest = plan(network, division.n_shards, 0, n_ranks)?.slice_len();
    let gradients = if n_ranks > 1 { n + 2 * n_ranks * longest } else { n };
    let values = 4 + division.n_partials; // parameters, their average and moments; partial gradients
    Ok(size_of::<f32>() * (values * n + gradients + network.n_biases)
        + size_of::<f64>() * n_blocks(network)
        + size_of::<StepSizes>()
        + precision.bytes() * network.n_packed)
}

impl Learner {
    /// A network with the parameters and moments of `state`, whose gradient is the sum of the
    /// partial ones of `division`.
    ///
    /// # Errors
    /// `Shape` for a state of another network, `Device` for want of memory.
    pub fn new(
        device: &Arc<Device>,
        network: Network,
        state: &NetworkState,
        precision: Precision,
        division: &Division,
        relative_rate: f64,
    ) -> Result<Learner> {
        let NetworkState { parameters, ema, moment1, moment2 } = state;
        let &Division { n_partials, n_shards, .. } = division;
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
            divided: None,
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
            n_shards,
        })
    }

    /// The same network as rank `rank` of `n_ranks`, whose partial gradients are those of its
    /// shards.
    ///
    /// # Errors
    /// `Device` for want of memory; `Input` for a number of ranks that does not divide the shards.
    pub fn of_rank(self, rank: usize, n_ranks: usize) -> Result<Learner> {
        if n_ranks == 1 {
            return Ok(self);
        }
        let (device, plan) = (&self.device, plan(&self.network, self.n_shards, rank, n_ranks)?);
        let longest = plan.slice_len();
        let divided = Divided {
            own: device.allocate(self.network.params.n_parameters as usize)?,
            received: device.allocate(n_ranks * longest)?,
            rank,
            n_ranks,
            plan,
        };
        // All slices are handed on at equal lengths, also the end of the last one.
        let gradient = device.zeros(n_ranks * longest)?;
        Ok(Learner { gradient, divided: Some(divided), ..self })
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

    /// Sums the partial gradients, or what ranks have left of that to do.
    pub fn gather(&self, state: &Buffer<StepState>) -> Result<()> {
        let Learner { network, n_shards, n_partials, partials, gradient, squares, .. } = self;
        let (n_shards, n_partials, partials) =
            if self.divided.is_some() { (1, 1, gradient) } else { (*n_shards, *n_partials, partials) };
        Gather { network, n_shards, n_partials, state, partials, gradient, squares }.launch(&self.device)
    }

    /// Sums the partial gradients of the rank's shards.
    pub fn gather_own(&self, state: &Buffer<StepState>) -> Result<()> {
        let Some(Divided { plan, own, .. }) = &self.divided else { return Ok(()) };
        let Learner { network, n_partials, partials, squares, .. } = self;
        let n_shards = plan.own_shards().len();
        Gather { network, n_shards, n_partials: *n_partials, state, partials, gradient: own, squares }
            .launch_of_rank(&self.device)
    }

    /// What hands the ranks' sums to those who add them, slice by slice.
    pub fn transfers(&self) -> impl Iterator<Item = Transfer<'_>> {
        self.divided.iter().flat_map(|Divided { plan, own, received, .. }| {
            let sends =
                plan.sends().map(|slice| Transfer::Send { bytes: own.bytes_of(slice.elements), to: slice.peer });
            let receives = plan.receives().map(|slice| {
                let start = slice.peer * plan.slice_len();
                let bytes = received.bytes_of(start..start + slice.elements.len());
                Transfer::Receive { bytes, from: slice.peer }
            });
            sends.chain(receives)
        })
    }

    /// Adds the ranks' sums in the slice of this rank.
    pub fn add_slices(&self, state: &Buffer<StepState>) -> Result<()> {
        let Some(Divided { rank, n_ranks, plan, own, received }) = &self.divided else { return Ok(()) };
        let (slice, gradient) = (plan.slice(*rank), &self.gradient);
        AddSlices { n_ranks: *n_ranks, rank: *rank, slice, state, own, sums: received, gradient }.launch(&self.device)
    }

    /// What hands the slices to all.
    pub fn gathering(&self) -> Option<Transfer<'_>> {
        self.divided.as_ref().map(|Divided { rank, plan, .. }| {
            let start = rank * plan.slice_len();
            let own = self.gradient.bytes_of(start..start + plan.slice_len());
            Transfer::Gather { own, all: self.gradient.bytes() }
        })
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
