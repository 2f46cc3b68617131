//! Particles on the CUDA engine against the CPU engine: every method, every channel, every way to save.

mod common;

use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::cuda::{CudaEngine, Precision};
use action_matching::engine::{Engine, IntegrationReport, Laplacian, LaplacianRule};
use action_matching::integrate::{Method, Noise, Plan, StepControl, Trajectories};
use action_matching::model::{Activation, Head, Model, TimeEmbedding};
use action_matching::objective::{Objective, SigmaSchedule};
use action_matching::{Error, Result};
use common::{Numbers, assert_close, embeddings, model};

const DIM: usize = 3;

fn field(head: Head, embedding: TimeEmbedding, objective: Objective) -> Model {
    model(DIM, &[16, 20], Activation::Tanh, head, embedding, objective)
}

fn cuda(precision: Precision) -> CudaEngine {
    CudaEngine::new(0, precision).expect("a GPU, or the virtual one: tests/run sets LD_LIBRARY_PATH")
}

/// Positions, log w and log q at all saved times.
struct Saved {
    positions: Vec<f32>,
    log_weights: Vec<f32>,
    log_density: Vec<f32>,
    report: IntegrationReport,
}

/// Which channels beside positions.
#[derive(Clone, Copy, Default)]
struct Followed {
    weights: bool,
    density: bool,
}

fn run(engine: &dyn Engine, model: &Model, plan: &Plan, n: usize, followed: Followed) -> Result<Saved> {
    let dim = model.architecture.dim;
    let start = |columns: usize, seed: u64| {
        let mut values = vec![f32::NAN; plan.save_at.len() * n * columns];
        for (value, number) in values[..n * columns].iter_mut().zip(Numbers::new(seed).take(n * columns)) {
            *value = number as f32;
        }
        values
    };
    let mut saved = Saved {
        positions: start(dim, 29),
        log_weights: start(usize::from(followed.weights), 30),
        log_density: start(usize::from(followed.density), 31),
        report: IntegrationReport::default(),
    };
    let out = Trajectories {
        positions: &mut saved.positions,
        log_weights: followed.weights.then_some(&mut saved.log_weights),
        log_density: followed.density.then_some(&mut saved.log_density),
    };
    let moved = std::sync::atomic::AtomicU64::new(0);
    saved.report = engine.integrate(model, plan, out, &|rows| {
        moved.fetch_add(rows, std::sync::atomic::Ordering::Relaxed);
    })?;
    assert_eq!(moved.into_inner(), n as u64, "progress adds up to the particles");
    Ok(saved)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Both engines do the same within `tolerance`, relative to the size of each channel.
#[track_caller]
fn assert_same(
    what: &str,
    precision: Precision,
    model: &Model,
    plan: &Plan,
    n: usize,
    followed: Followed,
    tolerance: f64,
) {
    let got = run(&cuda(precision), model, plan, n, followed).expect("integrates");
    let want = run(&CpuEngine::new(2), model, plan, n, followed).expect("integrates");
    for (channel, got, want) in [
        ("positions", &got.positions, &want.positions),
        ("log w", &got.log_weights, &want.log_weights),
        ("log q", &got.log_density, &want.log_density),
    ] {
        assert_close(&format!("{what}: {channel}"), &wide(got), &wide(want), tolerance);
    }
    assert_eq!(got.report.velocity_evaluations, want.report.velocity_evaluations, "{what}");
    assert_eq!(got.report.rejected_steps, 0);
}

fn fixed(method: Method, steps: u64) -> Plan {
    Plan::new(method, StepControl::Fixed { steps }, 0.0, vec![1.0])
}

const METHODS: [Method; 4] = [Method::Euler, Method::Heun, Method::Rk4, Method::Dopri5];

#[test]
fn every_method_moves_particles_as_on_the_cpu() {
    for method in METHODS {
        let model = field(Head::Scalar, TimeEmbedding::Raw, Objective::default());
        let start = std::time::Instant::now();
        assert_same(&format!("{method:?}"), Precision::F32, &model, &fixed(method, 3), 200, Followed::default(), 2e-5);
        eprintln!("{method:?} {:?}", start.elapsed());
    }
}
