//! Steps of two networks against AdamW in f64.

use super::*;
use crate::density_path::TIME_KNOTS;
use crate::engine::cuda::abi::{BatchParams, Part, PartKind, TILE_ROWS, Tag, TileSums};
use crate::engine::cuda::step::{StepFinisher, StepSettings};
use crate::engine::cuda::testing;
use crate::engine::cuda::workspace::Extent;
use crate::engine::testing::{AdamW, optimizer};
use crate::engine::{LossScale, StepRecord, TrainState, Training};
use crate::model::Architecture;
use crate::rng::{Purpose, unit_f32, words};

/// The last shards of the default have a group less than the first.
const N_PARTIALS: usize = 19;
const SHARDS: usize = Training::SHARDS;
pub const RELATIVE_RATE: f64 = 0.5;

pub fn number(stream: usize, index: usize) -> f32 {
    2.0 * unit_f32(words(stream as u64, Purpose::Evaluation, 1, index as u32)[0]) - 1.0
}

fn architecture(hidden: &[usize]) -> Architecture {
    Architecture::new(3, hidden)
}

/// A batch with (kind, tiles) as its parts, in that order.
pub fn batch(parts: &[(PartKind, u32)]) -> BatchParams {
    let mut batch = BatchParams { n_parts: parts.len() as u32, ..BatchParams::of(&[], SHARDS) };
    let mut first_tile = 0;
    for (part, &(kind, n_tiles)) in batch.parts.iter_mut().zip(parts) {
        let first_of_batch = first_tile;
        *part = Part { kind: Tag::of(kind), first_tile, n_tiles, first_of_batch, n_rows: 64 * n_tiles, sum_scale: 1.0 };
        first_tile += n_tiles;
        batch.n_tiles += n_tiles;
        batch.n_interior_tiles += if kind.is_interior() { n_tiles } else { 0 };
    }
    batch
}

pub fn settings(precision: Precision) -> StepSettings {
    StepSettings {
        batch: batch(&[(PartKind::Interior, 2), (PartKind::Boundary0, 1)]),
        tile_rows: TILE_ROWS,
        n_ranks: 1,
        optimizer: optimizer(),
        follows_integrand: false,
        precision,
        capacity: 8,
    }
}

/// An action and a bend with random parameters.
pub fn start() -> TrainState {
    let network = |hidden: &[usize], stream: usize| {
        NetworkState::initial((0..architecture(hidden).n_parameters()).map(|i| number(stream, i)).collect())
    };
    TrainState {
        step: 0,
        action: network(&ACTION, 1),
        bend: Some(network(&BEND, 2)),
        growth: None,
        time_moments: vec![0.0; 2 * TIME_KNOTS],
        loss_scale: LossScale { scale: 256.0, good_steps: 3 },
    }
}

const ACTION: [usize; 2] = [37, 70];
const BEND: [usize; 1] = [65];

/// Two networks with their step finisher, and host values in place of what sweeps leave.
pub struct Bench {
    pub device: Arc<Device>,
    pub action: Learner,
    pub bend: Learner,
    pub step_finisher: StepFinisher,
}

impl Bench {
    pub fn new(settings: StepSettings, state: &TrainState) -> Bench {
        Bench::in_shards(SHARDS, settings, state)
    }

    /// The same with partial gradients of `n_shards` shards.
    fn in_shards(n_shards: usize, settings: StepSettings, state: &TrainState) -> Bench {
        let device = testing::device();
        let division = Division { extent: Extent::of_rows(0), n_partials: N_PARTIALS, n_shards };
        let learner = |hidden: &[usize], state: &NetworkState, rate: f64| {
            let network = Network::new(&architecture(hidden));
            Learner::new(&device, network, state, settings.precision, &division, rate).expect("a learner")
        };
        let bend = state.bend.as_ref().expect("a bend");
        let mut step_finisher = StepFinisher::new(&device, settings.clone(), state).expect("a step finisher");
        step_finisher.set_sums(&vec![TileSums { value: 0.25, kinetic: 0.5 }; step_finisher.sums().len()]);
        let action = learner(&ACTION, &state.action, 1.0);
        Bench { action, bend: learner(&BEND, bend, RELATIVE_RATE), step_finisher, device }
    }

    /// Sets partial gradients whose elements are `of(partial, index in the padded order)`.
    pub fn set_partials(&mut self, of: impl Fn(usize, usize) -> f32) {
        for learner in [&mut self.action, &mut self.bend] {
            let n = learner.network.params.n_parameters as usize;
            let partials: Vec<f32> = (0..N_PARTIALS * n).map(|k| of(k / n, k % n)).collect();
            self.device.write(&mut learner.partials, &partials).expect("written");
        }
    }

    /// One step, with the bend.
    pub fn step(&self) {
        let state = self.step_finisher.state();
        for learner in [&self.action, &self.bend] {
            learner.gather(state).expect("launched");
        }
        self.step_finisher.launch(&self.action, Some(&self.bend)).expect("launched");
        for learner in [&self.action, &self.bend] {
            learner.update(state).expect("launched");
        }
    }

    pub fn records(&mut self) -> Vec<StepRecord> {
        let mut records = Vec::new();
        self.step_finisher.records(&mut records).expect("read");
        records
    }

    pub fn state(&self) -> TrainState {
        self.step_finisher.train_state(&self.action, Some(&self.bend)).expect("read")
    }

    pub fn sizes(&self) -> [StepSizes; 2] {
        [&self.action, &self.bend].map(|learner| self.device.read(&learner.sizes, 1).expect("read")[0])
    }

    fn packed(&self) -> Vec<(Vec<u8>, Vec<f32>)> {
        let read = |learner: &Learner| {
            let weights = self.device.read(&learner.weights, learner.weights.len()).expect("read");
            (weights, self.device.read(&learner.biases, learner.biases.len()).expect("read"))
        };
        vec![read(&self.action), read(&self.bend)]
    }
}

/// Steps of two networks at odd sizes, clipped and not, in every precision.
#[test]
fn steps_agree_with_adamw_in_f64() {
    for precision in Precision::ALL {
        let start = start();
        let scale = if precision == Precision::F16 { start.loss_scale.scale } else { 1.0 };
        let run = || {
            let mut bench = Bench::new(settings(precision), &start);
            let exact = |state: &NetworkState, rate| AdamW::new(&optimizer(), &state.parameters, rate);
            let mut exact = [exact(&start.action, 1.0), exact(start.bend.as_ref().expect("a bend"), RELATIVE_RATE)];
            for step in 0..4 {
                // The last step is small enough not to be clipped.
                let size = if step == 3 { 1e-3 } else { 1.0 };
                let partial = |k: usize, i: usize| size * number(16 * step + k + 3, i);
                // Whatever is in the padding of partial gradients is not read into the gradient.
                bench.set_partials(|k, i| scale * partial(k, i));
                bench.step();
                let mut norms = Vec::new();
                for (learner, exact) in [&bench.action, &bench.bend].into_iter().zip(&mut exact) {
                    let n = learner.network.params.n_parameters as usize;
                    let sum = |i: usize| testing::sum_of_all(SHARDS, N_PARTIALS, |k| partial(k, i));
                    let gradient = learner.network.unpad(&(0..n).map(sum).collect::<Vec<f32>>());
                    // Added up shard by shard, to the last bit.
                    let got = bench.device.read(&learner.gradient, n).expect("read");
                    assert!(got == learner.network.pad(&gradient), "{precision:?}: the gradient");
                    norms.push(exact.step(step as u64, &gradient));
                }
                let records = bench.records();
                assert_eq!(records.len(), 1);
                assert_eq!(records[0].step, step as u64);
                assert!((records[0].gradient_norm / norms[0] - 1.0).abs() < 1e-12, "{records:?}, not {norms:?}");
            }
            let state = bench.state();
            assert_eq!(state.step, 4);
            let networks = [&state.action, state.bend.as_ref().expect("a bend")];
            let learners = [&bench.action, &bench.bend];
            for (((network, exact), learner), packed) in
                networks.into_iter().zip(&exact).zip(learners).zip(bench.packed())
            {
                exact.assert_close(&format!("{precision:?}"), network, 2e-6);
                // The packed copies are the parameters, rounded, both ways; padding is 0.
                assert!(
                    packed == learner.network.pack(&network.parameters, precision),
                    "{precision:?}: the packed copies"
                );
                // Nothing moves into the padding.
                for values in &learner.values {
                    let padded = bench.device.read(values, values.len()).expect("read");
                    assert_eq!(padded, learner.network.pad(&learner.network.unpad(&padded)));
                }
            }
            (state, bench.packed())
        };
        assert!(run() == run(), "{precision:?}: two runs differ");
    }
}

/// Any number of shards: added at once, or node by node; and more of them than there are groups.
#[test]
fn shards_are_added_in_pairs_of_neighbors() {
    for n_shards in [1, 2, 4, 8, 16, 32, 64] {
        let mut bench = Bench::in_shards(n_shards, settings(Precision::F32), &start());
        bench.set_partials(|k, i| number(k + 3, i));
        for learner in [&bench.action, &bench.bend] {
            let n = learner.network.params.n_parameters as usize;
            let sum = |i: usize| testing::sum_of_all(n_shards, N_PARTIALS, |k| number(k + 3, i));
            let expected = learner.network.unpad(&(0..n).map(sum).collect::<Vec<f32>>());
            assert!(learner.gradient(bench.step_finisher.state()).expect("read") == expected, "{n_shards} shards");
        }
    }
    let refused = Bench::in_shards(24, settings(Precision::F32), &start());
    let error = refused.action.gather(refused.step_finisher.state()).expect_err("24 shards").to_string();
    assert!(error.contains("shards of partial gradients") && error.contains("32"), "{error}");
}

/// A bend or an action, gradient or loss: what is no number ends the run with its record.
#[test]
fn a_lost_step_halts_and_changes_nothing() {
    for precision in [Precision::Bf16, Precision::F16] {
        for (lost, partial, value) in
            [("action", 2, f32::NAN), ("bend", 5, f32::INFINITY), ("loss", N_PARTIALS, f32::NAN)]
        {
            let start = TrainState { loss_scale: LossScale { scale: 1.0, good_steps: 7 }, ..start() };
            let mut bench = Bench::new(settings(precision), &start);
            bench.set_partials(|k, i| number(k + 3, i));
            bench.step();
            let (before, packed) = (bench.state(), bench.packed());
            if lost == "loss" {
                bench.step_finisher.set_sums(&[TileSums { value: f64::NAN, kinetic: 0.0 }; 3]);
            } else {
                // The last real bias of the output, in one partial gradient.
                let learner = if lost == "bend" { &mut bench.bend } else { &mut bench.action };
                let n = learner.network.params.n_parameters as usize;
                let mut partials = bench.device.read(&learner.partials, N_PARTIALS * n).expect("read");
                partials[partial * n + n - 64] = value;
                bench.device.write(&mut learner.partials, &partials).expect("written");
            }
            bench.step();
            assert!(bench.state() == before, "{precision:?}, {lost}");
            assert!(bench.packed() == packed, "{precision:?}, {lost}");
            let records = bench.records();
            assert_eq!(records.iter().map(|record| record.step).collect::<Vec<_>>(), [0, 1]);
            assert_eq!(records[1].loss.is_finite(), lost != "loss");
            assert_eq!(records[1].gradient_norm.is_finite(), lost == "loss");
            // From here on nothing happens, whatever comes.
            bench.set_partials(|k, i| number(k + 3, i));
            bench.step_finisher.set_sums(&[TileSums::default(); 3]);
            bench.step();
            assert_eq!(bench.records(), []);
            assert!(bench.state() == before);
        }
    }
}

/// Steps after a download and a new start are those of a run that went on.
#[test]
fn a_resumed_run_goes_on_bit_for_bit() {
    for precision in [Precision::F32, Precision::F16] {
        let steps = |bench: &mut Bench, steps: std::ops::Range<usize>| {
            for step in steps {
                bench.set_partials(|k, i| number(16 * step + k, i));
                bench.step();
            }
        };
        let mut whole = Bench::new(settings(precision), &start());
        steps(&mut whole, 0..2);
        let mut resumed = Bench::new(settings(precision), &whole.state());
        assert!(resumed.packed() == whole.packed());
        steps(&mut whole, 2..4);
        steps(&mut resumed, 2..4);
        assert!(resumed.state() == whole.state());
        assert!(resumed.packed() == whole.packed());
    }
}

#[test]
fn states_of_other_networks_are_refused() {
    let device = testing::device();
    let state = NetworkState::initial(vec![0.0; 5]);
    let network = Network::new(&architecture(&ACTION));
    let division = Division { extent: Extent::of_rows(0), n_partials: 1, n_shards: SHARDS };
    let error = Learner::new(&device, network, &state, Precision::F32, &division, 1.0);
    let error = error.err().expect("an error").to_string();
    assert!(error.contains('5'), "{error}");
}
