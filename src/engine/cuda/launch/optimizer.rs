//! Launches of `kernels/optimizer.cu`: sum partial gradients, decide the step, update. Each launch
//! checks the sizes of the buffers that its kernel reads and writes.

use super::super::abi::{
    BatchParams, DevicePtr, DeviceRecord, FinishStepParams, GatherParams, MAX_PARTS, MOMENTS, OptimizerParams,
    PARAM_TILE, StepNetworkParams, StepSizes, StepState, THREADS, Tag, TileSums, TimesParams, UpdateParams,
};
use super::super::driver::{Buffer, Device, Kernel};
use super::super::network::Network;
use crate::density_path::TIME_KNOTS;
use crate::engine::{Cosine, Optimizer};
use crate::error::{Result, check_len};
use crate::precision::Precision;

impl From<&Optimizer> for OptimizerParams {
    fn from(optimizer: &Optimizer) -> Self {
        let Cosine { end: cosine_steps, floor } =
            optimizer.learning_rate.cosine.unwrap_or(Cosine { end: 0, floor: 1.0 });
        OptimizerParams {
            warmup_steps: optimizer.learning_rate.warmup_steps,
            cosine_steps,
            peak: optimizer.learning_rate.peak,
            floor,
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            epsilon: optimizer.epsilon,
            weight_decay: optimizer.weight_decay,
            ema_decay: optimizer.ema_decay,
            clip_norm: optimizer.clip_norm.unwrap_or(f64::INFINITY),
        }
    }
}

/// Blocks that divide the parameters of `network`, and the number of its sums of squares.
pub fn n_blocks(network: &Network) -> usize {
    const OF_BLOCK: usize = PARAM_TILE * PARAM_TILE;
    let of_layer = |(n_in, n_out): (usize, usize)| n_in * n_out / OF_BLOCK + n_out.div_ceil(OF_BLOCK);
    network.layers().iter().map(|layer| of_layer((layer.n_in as usize, layer.n_out as usize))).sum()
}

/// Sums the partial gradients of one network, shard by shard: see `kernels/batch.cuh`.
pub struct Gather<'a> {
    /// Whose gradient it is.
    pub network: &'a Network,
    /// Number of partial gradients.
    pub n_partials: usize,
    /// Of the step.
    pub state: &'a Buffer<StepState>,
    /// `[n_partials, padded parameters]`.
    pub partials: &'a Buffer<f32>,
    /// Written: `[padded parameters]`.
    pub gradient: &'a Buffer<f32>,
    /// Written: one for each block.
    pub squares: &'a Buffer<f64>,
}

impl Gather<'_> {
    /// Sums them.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn launch(&self, device: &Device) -> Result<()> {
        let Gather { network, n_partials, state, partials, gradient, squares } = *self;
        let (n, n_blocks) = (network.params.n_parameters as usize, n_blocks(network));
        check_len("state of the step", 1, state.len())?;
        check_len("partial gradients", n_partials * n, partials.len())?;
        check_len("gradient", n, gradient.len())?;
        check_len("sums of squares", n_blocks, squares.len())?;
        let arguments = GatherParams {
            network: network.params,
            n_partials: n_partials as u32,
            n_blocks: n_blocks as u32,
            state: state.address(),
            partials: partials.address(),
            gradient: gradient.address(),
            squares: squares.address(),
        };
        // SAFETY: reads `state` and `partials`, writes `gradient` and `squares`, whose lengths are
        // checked above.
        unsafe { device.launch(Kernel::GatherGradient, [n_blocks as u32, 1, 1], THREADS, 0, &arguments) }
    }
}

/// One optimizer step of one network.
pub struct Update<'a> {
    /// The network that is updated.
    pub network: &'a Network,
    /// The type of the packed weights.
    pub precision: Precision,
    /// Of the step.
    pub state: &'a Buffer<StepState>,
    /// From `finish_step`.
    pub sizes: &'a Buffer<StepSizes>,
    /// `[padded parameters]`, not clipped.
    pub gradient: &'a Buffer<f32>,
    /// Changed: parameters, moving average, first and second moment.
    pub values: [&'a Buffer<f32>; 4],
    /// Written: packed both ways.
    pub weights: &'a Buffer<u8>,
    /// Written.
    pub biases: &'a Buffer<f32>,
}

impl Update<'_> {
    /// Takes the step if it counts.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn launch(&self, device: &Device) -> Result<()> {
        let Update { network, precision, state, sizes, gradient, values, weights, biases } = *self;
        let n = network.params.n_parameters as usize;
        check_len("state of the step", 1, state.len())?;
        check_len("step sizes", 1, sizes.len())?;
        check_len("gradient", n, gradient.len())?;
        for values in values {
            check_len("parameters and moments", n, values.len())?;
        }
        check_len("packed weights", network.n_packed * precision.bytes(), weights.len())?;
        check_len("packed biases", network.n_biases, biases.len())?;
        let [parameters, ema, moment1, moment2] = values.map(Buffer::address);
        let arguments = UpdateParams {
            network: network.params,
            state: state.address(),
            sizes: sizes.address(),
            gradient: gradient.address(),
            parameters,
            ema,
            moment1,
            moment2,
            weights: weights.address(),
            biases: biases.address(),
            products: Tag::of(network.products),
            unused: 0,
        };
        let kernel = Kernel::Update(precision);
        // SAFETY: reads and writes the buffers above, whose lengths are checked.
        unsafe { device.launch(kernel, [n_blocks(network) as u32, 1, 1], THREADS, 0, &arguments) }
    }
}

/// Running moments of the integrand, and the density of times formed from them.
pub struct Times {
    /// Written by the sweeps: `[interior tiles, MOMENTS]`; `None` where times do not follow the
    /// integrand.
    pub tile_moments: Option<Buffer<f64>>,
    /// As a checkpoint holds them.
    pub moments: Buffer<f32>,
    /// Of the next draw, at the knots, and behind it its integral from 0.
    pub density: Buffer<f64>,
}

impl Times {
    /// Continues from `moments`, for `n_tiles` interior tiles if the times follow the integrand;
    /// the density is there after it.
    pub fn new(device: &Device, moments: &[f32], n_tiles: Option<usize>) -> Result<Times> {
        let times = Times {
            tile_moments: n_tiles.map(|n| device.zeros(n * MOMENTS)).transpose()?,
            moments: device.upload(moments)?,
            density: device.zeros(2 * TIME_KNOTS)?,
        };
        // SAFETY: reads and writes the buffers of `times`, whose lengths are checked.
        unsafe { device.launch(Kernel::RenewDensity, [1, 1, 1], THREADS, 0, &times.params()?)? };
        Ok(times)
    }

    fn params(&self) -> Result<TimesParams> {
        check_len("time moments", MOMENTS, self.moments.len())?;
        check_len("density of times", 2 * TIME_KNOTS, self.density.len())?;
        Ok(TimesParams {
            tile_moments: self.tile_moments.as_ref().map_or(DevicePtr::NULL, Buffer::address),
            moments: self.moments.address(),
            density: self.density.address(),
            cumulative: self.density.address().offset(TIME_KNOTS),
        })
    }
}

/// One network in `finish_step`.
#[derive(Clone, Copy)]
pub struct StepNetwork<'a> {
    /// Whose gradient it is.
    pub network: &'a Network,
    /// Learning rate, in units of the action's.
    pub relative_rate: f64,
    /// From the gather.
    pub squares: &'a Buffer<f64>,
    /// Written where the step counts.
    pub sizes: &'a Buffer<StepSizes>,
}

impl StepNetwork<'_> {
    fn params(&self) -> Result<StepNetworkParams> {
        check_len("sums of squares", n_blocks(self.network), self.squares.len())?;
        check_len("step sizes", 1, self.sizes.len())?;
        Ok(StepNetworkParams {
            squares: self.squares.address(),
            sizes: self.sizes.address(),
            relative_rate: self.relative_rate,
            n_blocks: self.squares.len() as u32,
            unused: 0,
        })
    }
}

/// Accepts or rejects a step; writes its record and step sizes.
pub struct FinishStep<'a> {
    /// Its parts; the interior one first.
    pub batch: &'a BatchParams,
    /// Settings.
    pub optimizer: &'a Optimizer,
    /// The action.
    pub action: StepNetwork<'a>,
    /// The network that bends a learned path.
    pub bend: Option<StepNetwork<'a>>,
    /// Changed where times follow the integrand.
    pub times: &'a Times,
    /// True if the loss scale adapts.
    pub scales_loss: bool,
    /// Of all tiles of the batch.
    pub sums: &'a Buffer<TileSums>,
    /// Changed.
    pub state: &'a Buffer<StepState>,
    /// Written, behind the records that are there.
    pub history: &'a Buffer<DeviceRecord>,
}

impl FinishStep<'_> {
    /// Finishes the step.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn launch(&self, device: &Device) -> Result<()> {
        let FinishStep { batch, optimizer, action, bend, times, scales_loss, sums, state, history } = self;
        let parts = &batch.parts[..MAX_PARTS.min(batch.n_parts as usize)];
        check_len("parts of a batch", batch.n_parts as usize, parts.len())?;
        let n_tiles = parts.iter().map(|part| part.n_tiles as usize).sum();
        check_len("sums of tiles", n_tiles, sums.len())?;
        let end = parts.iter().map(|part| (part.first_tile + part.n_tiles) as usize).max().unwrap_or(0);
        check_len("tiles of the parts", n_tiles, end)?;
        if let Some(moments) = &times.tile_moments {
            check_len("moments of tiles", batch.n_interior_tiles as usize * MOMENTS, moments.len())?;
            let followed = parts.first().map_or(0, |part| (part.first_tile + part.n_tiles) as usize);
            let n_interior = batch.n_interior_tiles as usize;
            check_len("tiles whose integrand is followed", followed.min(n_interior), followed)?;
        }
        check_len("state of the step", 1, state.len())?;
        let networks = [action.params()?, bend.as_ref().map(StepNetwork::params).transpose()?.unwrap_or_default()];
        let arguments = FinishStepParams {
            batch: **batch,
            optimizer: OptimizerParams::from(*optimizer),
            networks,
            times: times.params()?,
            n_networks: 1 + u32::from(bend.is_some()),
            scales_loss: u32::from(*scales_loss),
            capacity: history.len() as u32,
            unused: 0,
            sums: sums.address(),
            state: state.address(),
            history: history.address(),
        };
        // SAFETY: reads and writes the buffers above, whose lengths are checked; at most
        // `history.len()` records are written.
        unsafe { device.launch(Kernel::FinishStep, [1, 1, 1], THREADS, 0, &arguments) }
    }
}
