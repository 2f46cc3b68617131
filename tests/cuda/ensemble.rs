//! Several trainers of one engine at once: each has a stream of its own, and the bits that it has
//! alone.

use action_matching::data::{Snapshots, draw_gaussian};
use action_matching::density_path::{DensityPath, TimeRule};
use action_matching::engine::cuda::CudaEngine;
use action_matching::engine::{Engine, StepRecord, TrainState, Trainer, Training};
use action_matching::model::Architecture;
use action_matching::precision::Precision;
use action_matching::rng::Stream;

/// Trainings that differ in their seed.
fn trainings() -> Vec<Training> {
    let mut samples = draw_gaussian(90, 2, &mut Stream::of_normals(3, 2));
    samples.chunks_exact_mut(2).enumerate().for_each(|(row, x)| x[0] += 0.02 * row as f32);
    let snapshots = Snapshots {
        dim: 2,
        times: vec![0.0, 0.3, 1.0],
        offsets: vec![0, 31, 48, 90],
        samples,
        mass: Default::default(),
    };
    let one = Training {
        n_interior: 61,
        n_boundary: 33,
        time_rule: TimeRule::Importance,
        ..Training::new(Architecture::new(2, [19, 14]), DensityPath::linear(snapshots))
    };
    (0..3).map(|seed| Training { seed, ..one.clone() }).collect()
}

fn start(engine: &CudaEngine, training: &Training) -> Box<dyn Trainer> {
    engine.start(training.clone()).expect("a trainer")
}

/// More steps than one recording has.
const CHUNKS: [u64; 3] = [3, 40, 35];

#[test]
fn trainers_at_once_have_the_bits_that_each_has_alone() {
    for precision in [Precision::F32, Precision::F16] {
        let engine = CudaEngine::new(0, precision).expect("a GPU or the virtual one");
        let alone: Vec<(TrainState, Vec<StepRecord>)> = (trainings().iter())
            .map(|training| {
                let (mut trainer, mut records) = (start(&engine, training), Vec::new());
                CHUNKS.iter().for_each(|&n| trainer.steps(n, &mut records).expect("steps"));
                (trainer.state().expect("a state"), records)
            })
            .collect();
        assert_ne!(alone[0].0.action, alone[1].0.action);
        let mut trainers: Vec<Box<dyn Trainer>> = trainings().iter().map(|training| start(&engine, training)).collect();
        let mut records = vec![Vec::new(); trainers.len()];
        for n in CHUNKS {
            // The last one goes on without an announcement.
            trainers[..2].iter_mut().for_each(|trainer| trainer.begin(n).expect("begins"));
            for (trainer, records) in trainers.iter_mut().zip(&mut records) {
                trainer.steps(n, records).expect("steps");
            }
        }
        for (k, (trainer, records)) in trainers.iter().zip(records).enumerate() {
            assert!((trainer.state().expect("a state"), records) == alone[k], "{precision:?}, seed {k}");
        }
    }
}
