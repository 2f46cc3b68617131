//! Host side of the kernel `finish_step`: state of the steps, their records, and the density of
//! times.

use std::sync::Arc;

use super::abi::{BatchParams, DeviceRecord, GatheredParams, MOMENTS, StepState, TileSums};
use super::driver::{Buffer, Device, Transfer};
use super::launch::{FinishStep, Times};
use super::learner::Learner;
use crate::density_path::TIME_KNOTS;
use crate::engine::{LossScale, Optimizer, StepRecord, TrainState};
use crate::error::Result;
use crate::precision::Precision;

/// Settings of a [`StepFinisher`].
#[derive(Clone, Debug)]
pub struct StepSettings {
    /// The whole batch; its interior part is the first.
    pub batch: BatchParams,
    /// Rows of a tile of the sweeps.
    pub tile_rows: usize,
    /// Ranks that divide the batch.
    pub n_ranks: usize,
    /// Settings of the optimizer.
    pub optimizer: Optimizer,
    /// True if the times follow the integrand.
    pub follows_integrand: bool,
    /// The type of the products: f16 alone scales the loss.
    pub precision: Precision,
    /// Records that the device holds before the host must read them: with a full history no step is
    /// taken.
    pub capacity: usize,
}

/// Accepts or rejects steps on the device.
pub struct StepFinisher {
    device: Arc<Device>,
    settings: StepSettings,
    gathered: GatheredParams,
    /// Initial loss scale; only f16 changes it.
    loss_scale: LossScale,
    state: Buffer<StepState>,
    history: Buffer<DeviceRecord>,
    sums: Buffer<TileSums>,
    /// The sums of all ranks, if there are several.
    all_sums: Option<Buffer<TileSums>>,
    times: Times,
}

impl StepSettings {
    fn gathered(&self) -> GatheredParams {
        GatheredParams::of(&self.batch, self.n_ranks, self.tile_rows)
    }
}

/// Bytes that a step finisher of `settings` takes on the device.
pub fn step_finisher_bytes(settings: &StepSettings) -> usize {
    let GatheredParams { n_tiles, n_interior_tiles, .. } = settings.gathered();
    // A rank's own, and those of all.
    let copies = if settings.n_ranks > 1 { 1 + settings.n_ranks } else { 1 };
    let followed = if settings.follows_integrand { n_interior_tiles as usize * MOMENTS } else { 0 };
    size_of::<StepState>()
        + settings.capacity * size_of::<DeviceRecord>()
        + copies * n_tiles as usize * size_of::<TileSums>()
        + size_of::<f32>() * MOMENTS
        + size_of::<f64>() * (copies * followed + 2 * TIME_KNOTS)
}

impl StepFinisher {
    /// Continues from `state`.
    pub fn new(device: &Arc<Device>, settings: StepSettings, state: &TrainState) -> Result<StepFinisher> {
        let LossScale { scale, good_steps } = state.loss_scale;
        let scales_loss = settings.precision == Precision::F16;
        let start = StepState {
            step: state.step,
            good_steps: if scales_loss { good_steps } else { 0 },
            loss_scale: if scales_loss { scale } else { 1.0 },
            ..StepState::default()
        };
        let gathered = settings.gathered();
        let (n_ranks, n_tiles) = (settings.n_ranks, gathered.n_tiles as usize);
        let n_interior = settings.follows_integrand.then_some(gathered.n_interior_tiles as usize);
        Ok(StepFinisher {
            state: device.upload(&[start])?,
            history: device.allocate(settings.capacity)?,
            // Ranks hand on places that no sweep writes, if they have fewer tiles than the first.
            sums: if n_ranks > 1 { device.zeros(n_tiles)? } else { device.allocate(n_tiles)? },
            all_sums: (n_ranks > 1).then(|| device.allocate(n_ranks * n_tiles)).transpose()?,
            times: Times::new(device, &state.time_moments, n_interior, n_ranks)?,
            device: device.clone(),
            loss_scale: state.loss_scale,
            settings,
            gathered,
        })
    }

    /// The state of the steps, which all kernels of a step read.
    pub fn state(&self) -> &Buffer<StepState> {
        &self.state
    }

    /// Loss sums of each tile of the batch, or of the rank's share of it, written by the sweeps.
    pub fn sums(&self) -> &Buffer<TileSums> {
        &self.sums
    }

    /// Moments of tiles, and the density that the next step draws from.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// What hands the values of tiles to all ranks.
    pub fn transfers(&self) -> impl Iterator<Item = Transfer<'_>> {
        let sums = self.all_sums.as_ref().map(|all| Transfer::Gather { own: self.sums.bytes(), all: all.bytes() });
        let Times { tile_moments, all_tile_moments, .. } = &self.times;
        let moments = tile_moments.as_ref().zip(all_tile_moments.as_ref());
        let moments = moments.map(|(own, all)| Transfer::Gather { own: own.bytes(), all: all.bytes() });
        sums.into_iter().chain(moments)
    }

    /// Finishes the step whose gradients, and whose values of tiles, are gathered.
    pub fn launch(&self, action: &Learner, bend: Option<&Learner>) -> Result<()> {
        let StepFinisher { settings, gathered, state, history, sums, all_sums, times, .. } = self;
        let finish = FinishStep {
            batch: &settings.batch.in_tiles_of(settings.tile_rows),
            gathered: *gathered,
            optimizer: &settings.optimizer,
            action: action.step_network(),
            bend: bend.map(Learner::step_network),
            times,
            scales_loss: settings.precision == Precision::F16,
            sums: all_sums.as_ref().unwrap_or(sums),
            state,
            history,
        };
        finish.launch(&self.device)
    }

    /// Waits for all steps launched, appends their records and makes room for more. Returns the
    /// state of the steps.
    pub fn records(&mut self, records: &mut Vec<StepRecord>) -> Result<StepState> {
        let mut state = self.read_state()?;
        let written = self.device.read(&self.history, state.n_records as usize)?;
        records.extend(written.iter().map(StepRecord::from));
        if state.n_records > 0 {
            state.n_records = 0;
            // No kernel is running, so the value read is current.
            self.device.write(&mut self.state, &[state])?;
        }
        Ok(state)
    }

    /// Everything that training changes, after all steps launched.
    pub fn train_state(&self, action: &Learner, bend: Option<&Learner>) -> Result<TrainState> {
        let state = self.read_state()?;
        let loss_scale = match self.settings.precision {
            Precision::F16 => LossScale { scale: state.loss_scale, good_steps: state.good_steps },
            Precision::F32 | Precision::Tf32 | Precision::Bf16 => self.loss_scale,
        };
        Ok(TrainState {
            step: state.step,
            action: action.state()?,
            bend: bend.map(Learner::state).transpose()?,
            growth: None,
            time_moments: self.device.read(&self.times.moments, self.times.moments.len())?,
            loss_scale,
        })
    }

    fn read_state(&self) -> Result<StepState> {
        let mut state = [StepState::default()];
        self.device.read_into(&self.state, &mut state)?;
        Ok(state[0])
    }
}

impl From<&DeviceRecord> for StepRecord {
    fn from(record: &DeviceRecord) -> Self {
        let &DeviceRecord { step, loss, boundary0, boundary1, interior, kinetic, gradient_norm, learning_rate } =
            record;
        StepRecord { step, loss, boundary0, boundary1, interior, kinetic, gradient_norm, learning_rate }
    }
}

#[cfg(test)]
impl StepFinisher {
    /// In place of what sweeps leave.
    pub fn set_sums(&mut self, sums: &[TileSums]) {
        self.device.write(&mut self.sums, sums).expect("written");
    }

    fn set_state(&mut self, of: impl FnOnce(&mut StepState)) {
        let mut state = self.read_state().expect("read");
        of(&mut state);
        self.device.write(&mut self.state, &[state]).expect("written");
    }

    fn set_tile_moments(&mut self, moments: &[f64]) {
        let buffer = self.times.tile_moments.as_mut().expect("times follow the integrand");
        self.device.write(buffer, moments).expect("written");
    }
}

#[cfg(test)]
mod tests;
