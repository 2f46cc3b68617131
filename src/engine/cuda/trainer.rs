//! Optimizer steps on the device. Draw, sweeps, weight gradients, `finish_step` and update of many
//! steps are replayed as one recording (a CUDA graph); the host then reads their records.

use std::sync::Arc;

use super::abi::{BatchParams, TILE_ROWS};
use super::batch::whole_batch;
use super::draw::{Drawer, Drawn};
use super::driver::{Device, Recording};
use super::exchange;
use super::explain;
use super::launch::{BendPass, Rows, Sweep, WeightGrad, narrow_layout, sweep_kernel};
use super::learner::{Learner, learner_bytes};
use super::needs::{PointGradient, RowNeeds, TileChoice, Tiles, Work};
use super::network::Network;
use super::path::{DevicePath, Residence, SampleShards};
use super::step::{StepFinisher, StepSettings, step_finisher_bytes};
use super::weight_grad::{Division, GradientSweep, gradient_sweep_bytes, resident_sums};
use super::workspace::{chunk_rows, rows_bytes};
use crate::density_path::TimeRule;
use crate::engine::batch::{LossForm, Potential};
use crate::engine::{Estimator, Records, StepRecord, TrainState, Trainer, Training};
use crate::error::{Error, Result};
use crate::objective::TimeWeight;
use crate::precision::Precision;
use crate::ranks::shards::Plan;

/// Steps per recording: enough to make the cost of launching negligible.
const RECORDED_STEPS: u64 = 32;

/// Capacity for records until the host reads them.
const HISTORY: usize = 1024;

/// A bend's own rows.
const BEND_NEEDS: RowNeeds =
    RowNeeds { n_probes: 0, grad_x: PointGradient::Unread, work: Work::Bend, tiles: Tiles::High };

/// A network that bends the path, with the rows it works on.
struct Bend {
    learner: Learner,
    rows: Rows,
}

/// Training on one GPU.
pub struct CudaTrainer {
    device: Arc<Device>,
    precision: Precision,
    training: Training,
    drawer: Drawer,
    path: DevicePath,
    /// The batch, or the rank's share of it.
    batch: BatchParams,
    gradient_sweep: GradientSweep,
    rows: Rows,
    action: Learner,
    bend: Option<Bend>,
    step_finisher: StepFinisher,
    /// Steps taken, as far as the host knows.
    step: u64,
    /// Steps launched since, by [`Trainer::begin`].
    begun: u64,
    /// Steps launched in all.
    launched: u64,
    /// Record of the step whose loss or gradient was not finite.
    failed: Option<StepRecord>,
    /// A step has been launched, so its kernels are loaded.
    has_launched: bool,
    /// Recording of [`RECORDED_STEPS`] steps, made when that many are first asked for at once.
    recording: Option<Recording>,
}

/// Device layout of a training, planned before anything is allocated.
struct Layout {
    network: Network,
    /// The batch, or the rank's share of it.
    batch: BatchParams,
    needs: RowNeeds,
    division: Division,
    settings: StepSettings,
    /// The network that bends the path, and the division of its rows.
    bend: Option<(Network, Division)>,
    residence: Residence,
    n_bytes: usize,
}

impl Layout {
    /// For `training`, of whose batch at most `most_rows` are worked on at a time. `tiles`: how
    /// their height is chosen.
    fn new(
        device: &Device,
        precision: Precision,
        tiles: TileChoice,
        training: &Training,
        most_rows: usize,
    ) -> Result<Layout> {
        let of = |place| Layout::without_samples(device, precision, tiles, training, (most_rows, place));
        let layout = of(device.place())?;
        // What one GPU has room for, so that any number of ranks has the same shards; and of its
        // total, not its free memory, so that a resumed run has them too. The rest is left to the
        // driver.
        let of_one = if device.communicator().is_some() { of(ALONE)?.n_bytes } else { layout.n_bytes };
        let room = (device.total_memory()? / 10 * 9).saturating_sub(of_one);
        let residence = Residence::of(training, room)?;
        Ok(Layout { n_bytes: layout.n_bytes + residence.n_bytes(training), residence, ..layout })
    }

    /// The same as if all samples were resident and took no memory, for rank `place.0` of
    /// `place.1`.
    fn without_samples(
        device: &Device,
        precision: Precision,
        tiles: TileChoice,
        training: &Training,
        (most_rows, (rank, n_ranks)): (usize, (usize, usize)),
    ) -> Result<Layout> {
        if training.growth_head {
            let problem = "is a network of its own for growth, which a GPU does not train";
            return Err(Error::input(
                "training",
                "objective.growth_head",
                problem,
                "use the `CpuEngine`, or leave it out",
            ));
        }
        let own_shards = Plan::new(training.n_shards, n_ranks, rank, 0, 1)?.own_shards();
        let whole = whole_batch(training, precision)?;
        let batch = whole.of_shards(own_shards);
        let grad_x = if training.bend.is_some() { PointGradient::Needed } else { PointGradient::Unread };
        let n_probes = training.n_probes();
        let choice = (tiles, whole.n_tiles as usize);
        let (network, tiles) = Network::for_batch(device, &training.architecture, precision, n_probes, choice);
        let needs = RowNeeds { n_probes, grad_x, work: Work::Training, tiles };
        // A batch of few rows leaves ranks without any.
        let n_rows = batch.n_tiles.max(1) as usize * TILE_ROWS;
        let bend = training.bend.as_ref().map(|bend| Network::new(&bend.architecture));
        // The bend has a slot for each of its rows.
        let most = bend.as_ref().map_or(n_rows, |bend| chunk_rows(bend, precision, BEND_NEEDS, n_rows)).min(most_rows);
        let division = Division::of(&network, precision, needs, &batch, most);
        let drawn = batch.drawn();
        let n_drawn = drawn.n_tiles.max(1) as usize * TILE_ROWS;
        let bend = bend.map(|network| (network, Division::of_rows(n_drawn.min(division.extent.rows), &drawn)));
        let settings = StepSettings {
            batch: whole,
            tile_rows: tiles.rows(),
            n_ranks,
            optimizer: training.optimizer.clone(),
            follows_integrand: training.time_rule == TimeRule::Importance,
            precision,
            capacity: HISTORY,
        };
        let of_network = |network: &Network, division: &Division, needs: RowNeeds| {
            let learner = learner_bytes(network, precision, division, n_ranks)?;
            Ok::<usize, Error>(rows_bytes(network, precision, needs, division.extent) + learner)
        };
        let mut n_bytes = of_network(&network, &division, needs)?
            + gradient_sweep_bytes(device, &network, precision, needs, &division)?
            + step_finisher_bytes(&settings);
        if let Some((network, division)) = &bend {
            n_bytes += of_network(network, division, BEND_NEEDS)?;
        }
        let residence = Residence::Whole;
        Ok(Layout { network, batch, needs, division, settings, bend, residence, n_bytes })
    }
}

/// Bytes of the device's memory that a trainer takes, but for a few of its settings.
pub fn training_memory(device: &Device, precision: Precision, tiles: TileChoice, training: &Training) -> Result<usize> {
    Ok(Layout::new(device, precision, tiles, training, usize::MAX)?.n_bytes)
}

/// How the sweeps of a training use the chip, and how its batch is divided.
pub fn explain(device: &Device, precision: Precision, training: &Training) -> Result<String> {
    let Layout { network, batch, needs, division, .. } =
        Layout::new(device, precision, TileChoice::OfBatch, training, usize::MAX)?;
    let plan = if network.is_narrow() {
        let n_resident = resident_sums(device, &network, precision, needs)?;
        narrow_layout(device, precision, &network, needs, n_resident)?
    } else {
        sweep_kernel(device, precision, &network, needs)?
    };
    let Division { extent, n_partials, .. } = division;
    let n_chunks = (batch.n_tiles as usize * TILE_ROWS).div_ceil(extent.rows);
    let text = explain::describe(device, precision, &network, needs, plan)?;
    let rows = extent.rows;
    Ok(format!("{text}  chunks of the batch: {n_chunks}, of at most {rows} rows; partial gradients: {n_partials}\n"))
}

impl CudaTrainer {
    /// Continues from `state`; both are valid. `tiles`: how their height is chosen.
    pub fn new(
        device: &Arc<Device>,
        precision: Precision,
        tiles: TileChoice,
        training: Training,
        state: &TrainState,
    ) -> Result<Self> {
        CudaTrainer::in_chunks(device, precision, tiles, training, state, usize::MAX)
    }

    /// The same with at most `most_rows` of the batch at a time.
    fn in_chunks(
        device: &Arc<Device>,
        precision: Precision,
        tiles: TileChoice,
        training: Training,
        state: &TrainState,
        most_rows: usize,
    ) -> Result<Self> {
        let layout = Layout::new(device, precision, tiles, &training, most_rows)?;
        device.expect_memory(layout.n_bytes, "training takes")?;
        let Layout { network, batch, needs, division, settings, bend, residence, n_bytes: _ } = layout;
        let rows = Rows::new(device, &network, precision, needs, division.extent)?;
        let gradient_sweep = GradientSweep::new(device, &network, precision, needs, division, None)?;
        let (rank, n_ranks) = device.place();
        let learner = |network, state, division: &Division, rate| {
            Learner::new(device, network, state, precision, division, rate)?.of_rank(rank, n_ranks)
        };
        let action = learner(network, &state.action, &division, 1.0)?;
        let bend = match bend.zip(training.bend.as_ref().zip(state.bend.as_ref())) {
            None => None,
            Some(((network, division), (bend, state))) => {
                let rows = Rows::new(device, &network, precision, BEND_NEEDS, division.extent)?;
                let rate = bend.relative_rate;
                let learner = learner(network, state, &division, rate)?;
                Some(Bend { learner, rows })
            }
        };
        let step_finisher = StepFinisher::new(device, settings, state)?;
        exchange::check_equal(device, residence.n_shards())?;
        let path = match residence {
            Residence::Whole => DevicePath::new(device, &training)?,
            Residence::Shards(n) => {
                let rows_per_step = training.n_interior + 2 * training.n_boundary;
                let shards = SampleShards::new(&training.path, n, rows_per_step, training.seed)?;
                DevicePath::in_shards(device, &training.path, shards, state.step)?
            }
        };
        Ok(CudaTrainer {
            device: device.clone(),
            precision,
            drawer: Drawer::new(device, &training, action.network(), precision)?,
            path,
            batch,
            gradient_sweep,
            rows,
            action,
            bend,
            step_finisher,
            step: state.step,
            begun: 0,
            launched: 0,
            failed: None,
            has_launched: false,
            recording: None,
            training,
        })
    }

    /// The sweeps over `chunk`.
    fn sweep<'a>(&'a self, chunk: &'a BatchParams) -> Sweep<'a> {
        let Training { objective, estimator, .. } = &self.training;
        // s has its own weight if ω or the mass of a trajectory changes over time.
        let weighs_potential = match estimator {
            Estimator::Action { .. } => objective.time_weight != TimeWeight::Constant,
            Estimator::Weak { .. } => false,
            Estimator::Regression => {
                self.training.paths().any(|path| path.masses.is_some() || path.couplings.is_some())
            }
        };
        Sweep {
            action: self.action.packed(),
            rows: &self.rows,
            batch: chunk,
            objective,
            form: LossForm::of(*estimator),
            scale: 1.0 / self.training.n_interior as f32,
            potential: Potential::needed_if(objective.growth != 0.0 || weighs_potential),
            state: self.step_finisher.state(),
            sums: self.step_finisher.sums(),
            tile_moments: self.step_finisher.times().tile_moments.as_ref(),
        }
    }

    /// A pass of the bend over its first `n_tiles` tiles.
    fn bend_pass<'a>(&'a self, bend: &'a Bend, n_tiles: u32) -> BendPass<'a> {
        BendPass {
            bend: bend.learner.packed(),
            rows: &bend.rows,
            action: self.action.network(),
            action_rows: &self.rows,
            state: self.step_finisher.state(),
            n_tiles,
        }
    }

    /// Launches one step.
    fn launch_step(&self) -> Result<()> {
        let (device, precision) = (&self.device, self.precision);
        let state = self.step_finisher.state();
        let drawn = Drawn { path: &self.path, state, density: &self.step_finisher.times().density };
        for chunk in self.batch.chunks(self.gradient_sweep.division().n_tiles() as u32) {
            let n_bent = chunk.n_drawn_tiles();
            let bend = self.bend.as_ref().filter(|_| n_bent > 0);
            self.drawer.draw(&self.rows, &chunk, drawn)?;
            if let Some(bend) = bend {
                self.drawer.draw_bend(&bend.rows, &chunk, drawn)?;
                self.bend_pass(bend, n_bent).forward(device)?;
            }
            self.gradient_sweep.launch(device, self.sweep(&chunk), self.action.partials())?;
            if let Some(bend) = bend {
                self.bend_pass(bend, n_bent).backward(device)?;
                let bent = &chunk.drawn();
                let (network, rows, partials) = (bend.learner.network(), &bend.rows, bend.learner.partials());
                WeightGrad { network, precision, rows, batch: bent, state, partials }.launch(device)?;
            }
        }
        let bend = self.bend.as_ref().map(|bend| &bend.learner);
        let learners = || std::iter::once(&self.action).chain(bend);
        exchange::launch(device, learners, &self.step_finisher)?;
        learners().try_for_each(|learner| learner.gather(state))?;
        self.step_finisher.launch(&self.action, bend)?;
        learners().try_for_each(|learner| learner.update(state))
    }

    /// Steps that may be launched at once: ranks launch blocks of them, so that all have launched
    /// the same ones when one step turns out to be the last.
    fn left_of_block(&self) -> u64 {
        match self.device.communicator() {
            Some(_) => RECORDED_STEPS - self.launched % RECORDED_STEPS,
            None => u64::MAX,
        }
    }

    /// Launches `n` steps.
    fn launch(&mut self, mut n: u64) -> Result<()> {
        self.launched += n;
        if self.device.communicator().is_some() {
            // NCCL wants recordings to be replayed by all ranks or by none, but ranks ask for their
            // steps in numbers of their own.
            return (0..n).try_for_each(|_| self.launch_step());
        }
        if !self.has_launched && n > 0 {
            // Loads the kernels, which a recording cannot.
            self.launch_step()?;
            self.has_launched = true;
            n -= 1;
        }
        for _ in 0..n / RECORDED_STEPS {
            if self.recording.is_none() {
                let steps = || (0..RECORDED_STEPS).try_for_each(|_| self.launch_step());
                self.recording = Some(self.device.capture(steps)?);
            }
            if let Some(recording) = &mut self.recording {
                self.device.replay(recording)?;
            }
        }
        (0..n % RECORDED_STEPS).try_for_each(|_| self.launch_step())
    }
}

/// The place of a GPU without others.
const ALONE: (usize, usize) = (0, 1);

impl Trainer for CudaTrainer {
    fn begin(&mut self, n: u64) -> Result<()> {
        self.path.advance(self.step)?;
        let in_shard = self.path.steps_in_shard(self.step).unwrap_or(u64::MAX);
        self.begun = n.min(in_shard).min(HISTORY as u64).min(self.left_of_block());
        if let Some(communicator) = self.device.communicator() {
            communicator.liveness().begins(self.step);
        }
        self.launch(self.begun)
    }

    fn steps(&mut self, n: u64, records: &mut dyn Records) -> Result<()> {
        let end = self.step + n;
        while self.step < end {
            if self.begun == 0 {
                self.begin(end - self.step)?;
            }
            self.begun = 0;
            // In f16 a step may be repeated, so fewer steps are taken than launched, never more.
            let mut taken = Vec::new();
            let state = self.step_finisher.records(&mut taken)?;
            taken.iter().for_each(|&record| records.push(record));
            self.step = state.step;
            if state.halted != 0 {
                self.failed = self.failed.or(taken.last().copied());
                // Other ranks may have launched more steps, which wait for this one.
                if self.device.communicator().is_some() {
                    self.launch(self.left_of_block() % RECORDED_STEPS)?;
                }
                break;
            }
        }
        // Later steps of a device that halted do nothing and leave no record.
        self.failed.map_or(Ok(()), |record| record.check())
    }

    fn training(&self) -> &Training {
        &self.training
    }

    fn state(&self) -> Result<TrainState> {
        self.step_finisher.train_state(&self.action, self.bend.as_ref().map(|bend| &bend.learner))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::super::draw::tests::{coupled, grouped, path, training, unbalanced, weighted};
    use super::super::testing;
    use super::*;
    use crate::density_path::{DensityPath, Interpolant};
    use crate::engine::{NetworkState, Training};
    use crate::model::{Architecture, initial_parameters};

    /// The memory stated before is the memory taken, but for constants of a few hundred bytes.
    #[test]
    fn memory_is_stated_to_the_last_kibibyte() {
        let objective = |sigma: f64| crate::objective::Objective { sigma, ..Default::default() };
        let of = |path, sigma, time_rule| {
            let training = training(path);
            Training { objective: objective(sigma), time_rule, ..training }
        };
        let learned = of(path(Interpolant::Learned, 3), 0.0, TimeRule::Uniform);
        let bend = crate::engine::Bend::new(&learned.architecture, vec![70, 20], 1.0);
        for training in [
            of(path(Interpolant::Linear, 2), 0.0, TimeRule::Importance),
            of(coupled(path(Interpolant::Spline, 3)), 0.5, TimeRule::Uniform),
            of(unbalanced(path(Interpolant::Linear, 17)), 0.5, TimeRule::Importance),
            Training { bend: Some(bend), ..learned },
            grouped(|_| coupled(path(Interpolant::Spline, 3))),
            of(weighted(path(Interpolant::Linear, 3)), 0.0, TimeRule::Uniform),
            grouped(|_| weighted(path(Interpolant::Linear, 3))),
        ] {
            for precision in Precision::ALL {
                let device = testing::device();
                let state = TrainState {
                    bend: (training.bend.as_ref())
                        .map(|bend| NetworkState::initial(initial_parameters(&bend.architecture, 1))),
                    ..TrainState::initial(initial_parameters(&training.architecture, 1))
                };
                let stated = training_memory(&device, precision, TileChoice::OfBatch, &training).expect("fits");
                assert_eq!(device.taken.load(Relaxed), 0);
                let _trainer = CudaTrainer::new(&device, precision, TileChoice::OfBatch, training.clone(), &state)
                    .expect("a trainer");
                let taken = device.taken.load(Relaxed);
                assert!((stated..stated + 1024).contains(&taken), "{precision:?}: {taken}, said to be {stated}");
            }
        }
    }

    /// Chunks of any size, which memory decides, are steps of the same bits: with all that is
    /// summed over tiles, of wide and of narrow networks and their bends.
    #[test]
    fn chunks_change_no_bit_of_a_step() {
        let device = testing::device();
        let learned = Training {
            estimator: Estimator::Action { centering: true },
            time_rule: TimeRule::Importance,
            n_interior: 1200,
            n_boundary: 600,
            ..training(path(Interpolant::Learned, 3))
        };
        let bent = |hidden: &[usize], of_bend: &[usize]| {
            let time_embedding = learned.architecture.time_embedding.clone();
            let architecture = Architecture { time_embedding, ..Architecture::new(3, hidden) };
            let bend = Some(crate::engine::Bend::new(&architecture, of_bend.to_vec(), 1.0));
            Training { architecture, bend, ..learned.clone() }
        };
        // More than 256 tiles.
        let many = Training { n_interior: 400, n_boundary: 128 * 128, ..training(path(Interpolant::Linear, 2)) };
        for (training, precision, chunks) in [
            (bent(&[70], &[70]), Precision::Bf16, &[1, 5, 16][..]),
            (bent(&[70, 30], &[20]), Precision::F32, &[3]),
            (bent(&[30], &[70]), Precision::F16, &[3]),
            (many, Precision::Tf32, &[101]),
        ] {
            let state = TrainState {
                bend: (training.bend.as_ref())
                    .map(|bend| NetworkState::initial(initial_parameters(&bend.architecture, 1))),
                ..TrainState::initial(initial_parameters(&training.architecture, 1))
            };
            let run = |most_rows| {
                let mut trainer = CudaTrainer::in_chunks(
                    &device,
                    precision,
                    TileChoice::OfBatch,
                    training.clone(),
                    &state,
                    most_rows,
                )
                .expect("a trainer");
                let mut records = Vec::new();
                trainer.steps(2, &mut records).expect("steps");
                (records, trainer.state().expect("a state"))
            };
            let whole = run(usize::MAX);
            assert_ne!(whole.1.action, state.action);
            for &n_tiles in chunks {
                assert!(run(n_tiles * TILE_ROWS) == whole, "{:?}: {n_tiles}", training.architecture.hidden);
            }
        }
    }

    /// The same for samples that take turns: their number, not the memory that is free, makes the
    /// shards.
    #[test]
    fn memory_of_shards_is_stated() {
        let alone = |path: &DensityPath| training(path.clone());
        let path = path(Interpolant::Linear, 2);
        let device = testing::device();
        for n in [2, 7, 40] {
            let shards = SampleShards::new(&path, n, 100, 1).expect("shards");
            let _path = DevicePath::in_shards(&device, &path, shards, 0).expect("a path");
            let taken = device.taken.swap(0, Relaxed);
            assert_eq!(taken, Residence::Shards(n).n_bytes(&alone(&path)), "{n} shards");
        }
        let bytes = size_of_val(&path.snapshots.samples[..]);
        assert_eq!(Residence::of(&alone(&path), bytes).expect("fits"), Residence::Whole);
        assert_eq!(Residence::of(&alone(&path), bytes - 1).expect("fits"), Residence::Shards(3));
        let refused = Residence::of(&alone(&coupled(path)), bytes - 1).expect_err("couplings").to_string();
        assert!(refused.contains("objective.pairing") && refused.contains("pair independently"), "{refused}");
    }
}
