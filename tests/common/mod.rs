//! Shared by the tests: deterministic models and batches without symmetry, and a strict comparator.

#![allow(dead_code)] // each test file uses only some of it

pub mod files;
pub mod rounded;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use action_matching::Error;
use action_matching::engine::{Batch, LearningRate, Optimizer};
use action_matching::model::{Activation, Architecture, Coordinates, Head, Model, TimeEmbedding, initial_parameters};
use action_matching::objective::Objective;
use action_matching::rng::{Purpose, unit_f32, words};
use action_matching::stage::Watch;

/// Uniform numbers in −1..1; each seed gives an independent stream.
pub struct Numbers {
    seed: u64,
    row: u32,
}

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Numbers { seed, row: 0 }
    }

    pub fn next(&mut self) -> f64 {
        self.row += 1;
        2.0 * f64::from(unit_f32(words(self.seed, Purpose::Evaluation, 0, self.row)[0])) - 1.0
    }

    pub fn take(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.next()).collect()
    }
}

/// A watch that records its reports.
#[derive(Default)]
pub struct Counted(Mutex<Vec<(u64, u64)>>);

impl Counted {
    /// Number of reports.
    pub fn reports(&self) -> usize {
        self.0.lock().expect("no panic").len()
    }

    /// Checks that progress increased up to `n`.
    #[track_caller]
    pub fn assert_whole(&self, n: usize) {
        let mut told = self.0.lock().expect("no panic").clone();
        assert!(told.iter().all(|&(_, total)| total == n as u64), "{told:?}");
        told.sort_unstable();
        assert_eq!(told.last().map_or(0, |&(done, _)| done), n as u64, "{told:?}");
    }
}

impl Watch for Counted {
    fn advanced(&self, done: u64, total: u64) {
        self.0.lock().expect("no panic").push((done, total));
    }
}

/// A watch that cancels after it was asked `patience` times.
pub struct Patience(AtomicUsize);

impl Patience {
    pub fn new(patience: usize) -> Self {
        Patience(AtomicUsize::new(patience))
    }

    /// For `work` that succeeds if not cancelled: cancelled after any number of questions, it
    /// returns the error for that. Returns how many questions it asks.
    #[track_caller]
    pub fn ends<R: std::fmt::Debug>(work: impl Fn(&dyn Watch) -> action_matching::Result<R>) -> usize {
        let whole = Patience::new(usize::MAX);
        work(&whole).expect("is not ended");
        let asked = usize::MAX - whole.0.into_inner();
        for patience in [0, asked / 4, asked / 2, asked * 3 / 4, asked - 1] {
            let outcome = work(&Patience::new(patience));
            assert!(matches!(outcome, Err(Error::Interrupted)), "after {patience} of {asked}: {outcome:?}");
        }
        asked
    }
}

impl Watch for Patience {
    fn is_cancelled(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err()
    }
}

/// Both time embeddings.
pub fn embeddings() -> [TimeEmbedding; 2] {
    [TimeEmbedding::Raw, TimeEmbedding::Fourier { frequencies: vec![0.5, 1.25] }]
}

/// A model with random biases as well, so that no layer is at a point of symmetry.
pub fn model(
    dim: usize,
    hidden: &[usize],
    activation: Activation,
    head: Head,
    time_embedding: TimeEmbedding,
    objective: Objective,
) -> Model {
    let architecture = Architecture { dim, hidden: hidden.to_vec(), activation, head, time_embedding, conditions: 0 };
    let mut parameters = initial_parameters(&architecture, 11);
    let mut numbers = Numbers::new(12);
    for layer in architecture.layers() {
        for bias in &mut parameters[layer.bias..layer.bias + layer.n_out] {
            *bias = (0.3 * numbers.next()) as f32;
        }
    }
    Model { architecture, coordinates: Coordinates::identity(dim), objective, parameters, growth_head: None }
}

/// s = ½‖y − b‖² in network coordinates and at all times: the flow moves y₀ to b + (y₀ − b) eᵗ.
pub fn expanding(b: &[f32], objective: Objective) -> Model {
    let mut model = model(b.len(), &[4], Activation::Tanh, Head::Quadratic, TimeEmbedding::Raw, objective);
    model.parameters.fill(0.0);
    let n = model.parameters.len();
    model.parameters[n - b.len()..].copy_from_slice(b);
    model
}

/// An optimizer whose first moment is the gradient of the step, and which hardly changes the
/// parameters.
pub fn revealing_optimizer() -> Optimizer {
    Optimizer {
        learning_rate: LearningRate::constant(1e-12),
        beta1: 0.0,
        beta2: 0.99,
        clip_norm: None,
        ema_decay: 0.9,
        ..Optimizer::default()
    }
}

/// A batch with a different ω and ω′ in each row and different numbers of rows in each part. Values
/// are exact in f32.
pub fn batch(dim: usize, n: usize, n0: usize, n1: usize) -> Batch {
    let mut numbers = Numbers::new(13);
    let mut points = |n: usize, spread: f64| -> Vec<f64> {
        numbers.take(n).into_iter().map(|x| f64::from((spread * x) as f32)).collect()
    };
    Batch {
        x: points(n * dim, 1.5),
        t: points(n, 0.5).into_iter().map(|t| f64::from((t + 0.5) as f32)).collect(),
        omega: points(n, 0.6).into_iter().map(|omega| f64::from((1.0 + omega) as f32)).collect(),
        d_omega: points(n, 0.8),
        x0: points(n0 * dim, 1.2),
        x1: points(n1 * dim, 0.9),
        omega0: 1.25,
        omega1: 0.75,
        ..Batch::default()
    }
}

/// `model` with `n` condition inputs of random weights.
pub fn conditioned(model: &Model, n: usize) -> Model {
    let first = model.architecture.layers()[0];
    let mut numbers = Numbers::new(14);
    let mut parameters = Vec::new();
    for row in model.parameters[first.weight..first.bias].chunks_exact(first.n_in) {
        parameters.extend_from_slice(row);
        parameters.extend(numbers.take(n).into_iter().map(|weight| (0.5 * weight) as f32));
    }
    parameters.extend_from_slice(&model.parameters[first.bias..]);
    Model { architecture: Architecture { conditions: n, ..model.architecture.clone() }, parameters, ..model.clone() }
}

/// `batch` of points of dimension `dim`, with `n` condition inputs of its own in each row.
pub fn under_conditions(batch: Batch, dim: usize, n: usize) -> Batch {
    let mut numbers = Numbers::new(15);
    let mut inputs = |rows: usize| numbers.take(rows * n).into_iter().map(|c| f64::from(c as f32)).collect();
    let (c, c0, c1) = (inputs(batch.t.len()), inputs(batch.x0.len() / dim), inputs(batch.x1.len() / dim));
    Batch { c, c0, c1, ..batch }
}

/// Checks ‖got − want‖ / ‖want‖ ≤ `tolerance` for equally many finite numbers; the message names
/// the worst element.
pub fn compare(what: &str, got: &[f64], want: &[f64], tolerance: f64) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{what}: {} values, not {}", got.len(), want.len()));
    }
    if let Some(i) = (0..got.len()).find(|&i| !got[i].is_finite() || !want[i].is_finite()) {
        return Err(format!("{what}: element {i} is {}, should be {}", got[i], want[i]));
    }
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(want).map(|(got, want)| got - want));
    let size = norm(&mut want.iter().copied());
    if error <= tolerance * size.max(f64::MIN_POSITIVE) || error == 0.0 {
        return Ok(());
    }
    let distance = |i: usize| (got[i] - want[i]).abs();
    let worst = (0..got.len()).max_by(|&i, &j| distance(i).total_cmp(&distance(j))).unwrap_or(0);
    Err(format!(
        "{what}: relative error {:.2e} exceeds {tolerance:.0e}; worst at {worst}: {}, should be {}",
        error / size,
        got[worst],
        want[worst]
    ))
}

/// [`compare`], failing the test.
#[track_caller]
pub fn assert_close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    if let Err(message) = compare(what, got, want, tolerance) {
        panic!("{message}");
    }
}
