//! The learned path: the gradient of its second network, and the dynamics that it finds.

use crate::common::{Numbers, model, revealing_optimizer};
use action_matching::data::{Snapshots, draw_gaussian};
use action_matching::density_path::{DensityPath, Interpolant, RowKey};
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::engine::{
    Batch, Bend, Cosine, Differentiate, Engine, LearningRate, NetworkState, Optimizer, TrainState, Training,
};
use action_matching::laplacian::Laplacian;
use action_matching::model::{Activation, Architecture, Coordinates, Head, Model, TimeEmbedding, initial_parameters};
use action_matching::objective::{Objective, TimeWeight};
use action_matching::rng::{Purpose, Stream, unit_f32, words};

const SEED: u64 = 31;

fn training(model: &Model, snapshots: Snapshots, bend: Bend, masses: Option<Vec<f64>>) -> Training {
    Training {
        objective: model.objective.clone(),
        bend: Some(bend),
        laplacian: Laplacian::EXACT,
        n_interior: 103,
        n_boundary: 10,
        optimizer: revealing_optimizer(),
        seed: SEED,
        ..Training::new(model.architecture.clone(), DensityPath { masses, ..DensityPath::learned(snapshots) })
    }
}

/// The first outputs of a SiLU network, in f64.
fn outputs(architecture: &Architecture, parameters: &[f32], input: Vec<f64>, n: usize) -> Vec<f64> {
    let layers = architecture.layers();
    let mut a = input;
    for (index, layer) in layers.iter().enumerate() {
        let z = (0..layer.n_out).map(|j| {
            let row = &parameters[layer.weight + j * layer.n_in..][..layer.n_in];
            let product: f64 = row.iter().zip(&a).map(|(&w, a)| f64::from(w) * a).sum();
            product + f64::from(parameters[layer.bias + j])
        });
        let silu = |z: f64| if index + 1 < layers.len() { z / (1.0 + (-z).exp()) } else { z };
        a = z.map(silu).collect();
    }
    a.truncate(n);
    a
}

/// The second network ascends the loss: its gradient is minus that of the interior loss, by
/// differences in f64.
#[test]
fn the_gradient_of_the_bend_is_that_of_the_negative_loss() {
    const DIM: usize = 3;
    let time_weight = TimeWeight::Polynomial { coefficients: vec![1.0, 0.5] };
    for (head, sigma, growth, q) in [
        (Head::Scalar, 0.0, 0.0, 2.0),
        (Head::Quadratic, 0.7, 0.3, 2.0),
        (Head::Dot, 0.7, 0.3, 2.5),
        (Head::Scalar, 0.7, 0.3, 2.5),
    ] {
        let objective =
            Objective { sigma, growth, cost_exponent: q, time_weight: time_weight.clone(), ..Objective::default() };
        let embedding = TimeEmbedding::Fourier { frequencies: vec![0.5] };
        let model = model(DIM, &[19, 11], Activation::Silu, head, embedding, objective);
        let samples = draw_gaussian(90, DIM, &mut Stream::of_normals(3, DIM));
        let snapshots = Snapshots {
            dim: DIM,
            times: vec![0.0, 0.4, 1.0],
            offsets: vec![0, 30, 55, 90],
            samples,
            mass: Default::default(),
        };
        let bend = Bend::new(&model.architecture, vec![13, 9], 1.0);
        let start = initial_parameters(&bend.architecture, 8);
        let training = training(&model, snapshots, bend.clone(), Some(vec![1.0, 0.7, 1.4]));
        let state = TrainState {
            bend: Some(NetworkState::initial(start.clone())),
            ..TrainState::initial(model.parameters.clone())
        };
        let mut trainer = CpuEngine::new(2).trainer(training.clone(), state).expect("a trainer");
        trainer.steps(1, &mut Vec::new()).expect("a step");
        let gradient = trainer.state().expect("a state").bend.expect("a bend").moment1;

        let loss = |parameters: &[f32]| -> f64 {
            let path = &training.path;
            let mut batch = Batch { probe: None, ..Batch::default() };
            let offset = words(SEED, Purpose::TimeOffset, 0, 0)[0];
            for row in 0..training.n_interior {
                let own = words(SEED, Purpose::Interior, 0, row as u32);
                let word = training.time_rule.word(row, training.n_interior, offset, own[0]);
                let moment = path.moment(training.time_rule, f64::from(unit_f32(word)));
                let trajectory = path.trajectory(moment.left, own, RowKey { seed: SEED, step: 0, row: row as u32 });
                let at = |ratio: f64| {
                    let mut x = vec![0.0; DIM];
                    path.point(&trajectory, &path.at(moment.left, ratio), |i, x_i, _| x[i] = f64::from(x_i));
                    x
                };
                let (ends, t) = ([at(0.0), at(1.0)].concat(), f64::from(moment.t));
                let mut input = [ends, vec![0.0; bend.architecture.time_embedding.width()]].concat();
                bend.architecture.time_embedding.for_each(t, |i, phi, _| input[2 * DIM + i] = phi);
                let net = outputs(&bend.architecture, parameters, input, DIM);
                let r = moment.ratio;
                batch.x.extend(at(r).iter().zip(net).map(|(x, net)| x + 2.0 * r * (1.0 - r) * net));
                batch.t.push(t);
                let ((omega, d_omega), (mass, _)) =
                    (training.objective.time_weight.at(t), path.mass(&trajectory, &moment));
                batch.omega.push(omega * mass);
                batch.d_omega.push(d_omega * mass);
            }
            ReferenceEngine.loss_gradient(&model, &batch).expect("evaluates").loss
        };
        let size = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let mut numbers = Numbers::new(5);
        for _ in 0..5 {
            let direction = numbers.take(start.len());
            let moved = |sign: f64| -> Vec<f32> {
                start.iter().zip(&direction).map(|(&p, v)| (f64::from(p) + sign * 1e-3 * v) as f32).collect()
            };
            let (above, below) = (moved(1.0), moved(-1.0));
            let slope: f64 = (above.iter().zip(&below).zip(&gradient))
                .map(|((above, below), &g)| (f64::from(*above) - f64::from(*below)) * f64::from(g))
                .sum();
            let difference = loss(&below) - loss(&above);
            let length = 2e-3 * direction.iter().map(|v| v * v).sum::<f64>().sqrt();
            let error = (difference - slope).abs() / (size * length);
            assert!(error < 5e-5, "{head:?} σ = {sigma}: {difference:e}, not {slope:e} (error {error:e})");
        }
    }
}

/// Trains on normal rows that move by (2, 0) with independent pairs. Returns the mean kinetic
/// energy of the last steps, and the state.
fn kinetic_energy(interpolant: Interpolant, threads: usize, steps: u64) -> (f64, TrainState) {
    let mut samples = draw_gaussian(4000, 2, &mut Stream::of_normals(3, 2));
    samples[4000..].chunks_exact_mut(2).for_each(|x| x[0] += 2.0);
    let snapshots =
        Snapshots { dim: 2, times: vec![0.0, 1.0], offsets: vec![0, 2000, 4000], samples, mass: Default::default() };
    let architecture = Architecture {
        dim: 2,
        hidden: vec![48, 48],
        activation: Activation::Silu,
        head: Head::Scalar,
        time_embedding: TimeEmbedding::Raw,
        conditions: 0,
    };
    let model = Model {
        coordinates: Coordinates::identity(2),
        objective: Objective::default(),
        parameters: initial_parameters(&architecture, 1),
        growth_head: None,
        architecture,
    };
    let bend = Bend::new(&model.architecture, vec![32, 32], 0.3);
    let mut training = training(&model, snapshots, bend.clone(), None);
    training.path.interpolant = interpolant;
    (training.n_interior, training.n_boundary) = (512, 512);
    let cosine = Some(Cosine { end: steps, floor: 0.01 });
    let learning_rate = LearningRate { peak: 5e-3, warmup_steps: 50, cosine };
    training.optimizer = Optimizer { learning_rate, ema_decay: 0.9, ..Optimizer::default() };
    let mut state = TrainState::initial(model.parameters.clone());
    if interpolant == Interpolant::Learned {
        state.bend = Some(NetworkState::initial(bend.initial_parameters(2)));
    } else {
        training.bend = None;
    }
    let mut trainer = CpuEngine::new(threads).trainer(training, state).expect("a trainer");
    let mut records = Vec::new();
    trainer.steps(steps, &mut records).expect("steps");
    let last = &records[records.len() - 200..];
    (last.iter().map(|record| record.kinetic).sum::<f64>() / last.len() as f64, trainer.state().expect("a state"))
}

/// With independent pairs the population contracts between snapshots, which costs energy; the
/// learned path is optimal transport: ½·2² = 2.
#[test]
fn a_learned_path_is_optimal_transport() {
    let (straight, _) = kinetic_energy(Interpolant::Linear, 0, 2500);
    let (learned, _) = kinetic_energy(Interpolant::Learned, 0, 2500);
    assert!(straight > 2.35, "the straight path costs {straight}");
    assert!((1.9..2.1).contains(&learned), "the learned path costs {learned}");
}

#[test]
fn both_networks_keep_their_bits_for_every_thread_count() {
    let (_, one) = kinetic_energy(Interpolant::Learned, 1, 200);
    let (_, three) = kinetic_energy(Interpolant::Learned, 3, 200);
    assert_eq!(one, three);
    let bend = one.bend.expect("a bend");
    assert!(bend.parameters.iter().all(|p| p.is_finite()) && bend.moment2.iter().any(|&m| m > 0.0));
}
