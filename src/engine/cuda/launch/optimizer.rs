//! Launches of `kernels/optimizer.cu`: sum partial gradients, decide the step, update. Each launch
//! checks the sizes of the buffers that its kernel reads and writes.

use std::ops::Range;

use super::super::abi::{
    BatchParams, DevicePtr, DeviceRecord, FinishStepParams, GatherParams, GatheredParams, MAX_PARTS, MAX_SHARDS,
    MOMENTS, OptimizerParams, PARAM_TILE, SliceParams, StepNetworkParams, StepSizes, StepState, THREADS, Tag, TileSums,
    TimesParams, UpdateParams,
};
use super::super::driver::{Buffer, Device, Kernel};

use super::super::network::Network;
use super::checks::check_least;
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
    /// Shards that the partial gradients are of.
    pub n_shards: usize,
    /// Number of partial gradients.
    pub n_partials: usize,
    /// Of the step.
    pub state: &'a Buffer<StepState>,
    /// `[n_partials, padded parameters]` at least.
    pub partials: &'a Buffer<f32>,
    /// Written: `[padded parameters]` at least.
    pub gradient: &'a Buffer<f32>,
    /// Written, unless they are the shards of one rank: one for each block.
    pub squares: &'a Buffer<f64>,
}

impl Gather<'_> {
    /// Sums them, to the gradient.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn launch(&self, device: &Device) -> Result<()> {
        self.launch_kernel(device, Kernel::GatherGradient)
    }

    /// Sums those of a rank, to what it adds to the sums of the others.
    ///
    /// # Errors
    /// As [`Gather::launch`].
    pub fn launch_of_rank(&self, device: &Device) -> Result<()> {
        self.launch_kernel(device, Kernel::AddPartials)
    }

    fn launch_kernel(&self, device: &Device, kernel: Kernel) -> Result<()> {
        let Gather { network, n_shards, n_partials, state, partials, gradient, squares } = *self;
        let (n, n_blocks) = (network.params.n_parameters as usize, n_blocks(network));
        check_shares("shards of partial gradients", n_shards)?;
        check_len("state of the step", 1, state.len())?;
        check_least("partial gradients", n_partials * n, partials.len())?;
        check_least("gradient", n, gradient.len())?;
        check_len("sums of squares", n_blocks, squares.len())?;
        let arguments = GatherParams {
            network: network.params,
            n_partials: n_partials as u32,
            n_blocks: n_blocks as u32,
            n_shards: n_shards as u32,
            unused: 0,
            state: state.address(),
            partials: partials.address(),
            gradient: gradient.address(),
            squares: squares.address(),
        };
        // SAFETY: reads `state` and `partials`, writes `gradient` and `squares`, whose lengths are
        // checked above.
        unsafe { device.launch(kernel, [n_blocks as u32, 1, 1], THREADS, 0, &arguments) }
    }
}

/// Checks that `n` shards or ranks are a number that kernels add up: 1, 2, 4, … [`MAX_SHARDS`].
fn check_shares(what: &'static str, n: usize) -> Result<()> {
    check_len(what, n.max(1).next_power_of_two().min(MAX_SHARDS), n)
}

/// Adds what ranks have summed, in one rank's slice of the gradient.
pub struct AddSlices<'a> {
    /// Ranks.
    pub n_ranks: usize,
    /// The rank whose slice it is.
    pub rank: usize,
    /// The elements of the slice; both ends are multiples of four.
    pub slice: Range<usize>,
    /// Of the step.
    pub state: &'a Buffer<StepState>,
    /// The rank's own sum, of all elements.
    pub own: &'a Buffer<f32>,
    /// `[ranks, elements of the longest slice]`: the slice in the sums of the others.
    pub sums: &'a Buffer<f32>,
    /// Its slice is written.
    pub gradient: &'a Buffer<f32>,
}

impl AddSlices<'_> {
    /// Adds them.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn launch(&self, device: &Device) -> Result<()> {
        const AT_ONCE: usize = 4;
        let AddSlices { n_ranks, rank, ref slice, state, own, sums, gradient } = *self;
        let stride = sums.len() / n_ranks.max(1);
        check_shares("ranks", n_ranks)?;
        check_least("ranks", rank + 1, n_ranks)?;
        check_len("state of the step", 1, state.len())?;
        for (what, n) in [("start of a slice", slice.start), ("end of a slice", slice.end), ("longest slice", stride)] {
            check_len(what, n / AT_ONCE * AT_ONCE, n)?;
        }
        check_least("sums of ranks", slice.len(), stride)?;
        check_least("sum of a rank", slice.end, own.len())?;
        check_least("gradient", slice.end, gradient.len())?;
        if slice.is_empty() {
            return Ok(());
        }
        let arguments = SliceParams {
            n_ranks: n_ranks as u32,
            rank: rank as u32,
            n_elements: slice.len() as u32,
            stride: stride as u32,
            state: state.address(),
            own: own.address().offset(slice.start),
            sums: sums.address(),
            gradient: gradient.address().offset(slice.start),
        };
        let n_blocks = (slice.len() / AT_ONCE).div_ceil(THREADS as usize);
        // SAFETY: reads `state`, `own` and `sums`, writes `gradient`, whose lengths are checked
        // above.
        unsafe { device.launch(Kernel::AddSlices, [n_blocks as u32, 1, 1], THREADS, 0, &arguments) }
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
    /// Those of all ranks, if there are several.
    pub all_tile_moments: Option<Buffer<f64>>,
    /// As a checkpoint holds them.
    pub moments: Buffer<f32>,
    /// Of the next draw, at the knots, and behind it its integral from 0.
    pub density: Buffer<f64>,
}

impl Times {
    /// Continues from `moments`, for `n_tiles` interior tiles of each of `n_ranks` ranks if the
    /// times follow the integrand; the density is there after it.
    pub fn new(device: &Device, moments: &[f32], n_tiles: Option<usize>, n_ranks: usize) -> Result<Times> {
        let of_all = n_tiles.filter(|_| n_ranks > 1).map(|n| n_ranks * n);
        let times = Times {
            tile_moments: n_tiles.map(|n| device.zeros(n * MOMENTS)).transpose()?,
            all_tile_moments: of_all.map(|n| device.allocate(n * MOMENTS)).transpose()?,
            moments: device.upload(moments)?,
            density: device.zeros(2 * TIME_KNOTS)?,
        };
        // SAFETY: reads and writes the buffers of `times`, whose lengths are checked.
        unsafe { device.launch(Kernel::RenewDensity, [1, 1, 1], THREADS, 0, &times.params()?)? };
        Ok(times)
    }

    /// The moments of all tiles.
    fn gathered_moments(&self) -> Option<&Buffer<f64>> {
        self.all_tile_moments.as_ref().or(self.tile_moments.as_ref())
    }

    fn params(&self) -> Result<TimesParams> {
        check_len("time moments", MOMENTS, self.moments.len())?;
        check_len("density of times", 2 * TIME_KNOTS, self.density.len())?;
        Ok(TimesParams {
            tile_moments: self.gathered_moments().map_or(DevicePtr::NULL, Buffer::address),
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
    /// The whole batch in tiles of the sweeps; its interior part is the first.
    pub batch: &'a BatchParams,
    /// Where the values of tiles are.
    pub gathered: GatheredParams,
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
    /// Of all tiles of the batch, at the places of `gathered`.
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
        let FinishStep { batch, gathered, optimizer, action, bend, times, scales_loss, sums, state, history } = self;
        let parts = &batch.parts[..MAX_PARTS.min(batch.n_parts as usize)];
        check_len("parts of a batch", batch.n_parts as usize, parts.len())?;
        let n_tiles = parts.iter().map(|part| part.n_tiles as usize).sum();
        let n_ranks = gathered.n_ranks();
        check_least("places of sums", n_tiles, n_ranks * gathered.n_tiles as usize)?;
        check_len("sums of tiles", n_ranks * gathered.n_tiles as usize, sums.len())?;
        let end = parts.iter().map(|part| (part.first_tile + part.n_tiles) as usize).max().unwrap_or(0);
        check_len("tiles of the parts", n_tiles, end)?;
        if let Some(moments) = times.gathered_moments() {
            let n_places = n_ranks * gathered.n_interior_tiles as usize;
            check_least("places of moments", batch.n_interior_tiles as usize, n_places)?;
            check_len("moments of tiles", n_places * MOMENTS, moments.len())?;
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
            gathered: *gathered,
            n_networks: 1 + u32::from(bend.is_some()),
            scales_loss: u32::from(*scales_loss),
            capacity: history.len() as u32,
            sums: sums.address(),
            state: state.address(),
            history: history.address(),
        };
        // SAFETY: reads and writes the buffers above, whose lengths are checked; at most
        // `history.len()` records are written.
        unsafe { device.launch(Kernel::FinishStep, [1, 1, 1], THREADS, 0, &arguments) }
    }
}
