//! Work of the kernels in a training step and in an integration of a network, counted in a child
//! process whose driver is the virtual GPU.

use std::process::Command;

use action_matching::data::Snapshots;
use action_matching::density_path::DensityPath;
use action_matching::engine::cuda::CudaEngine;
use action_matching::engine::{Engine, Estimator, TrainState, Training};
use action_matching::integrate::{Solver, Trajectories};
use action_matching::model::{Architecture, Coordinates, Head, Model, initial_parameters};
use action_matching::objective::Objective;
use action_matching::precision::Precision;
use vgpu::counters::{Counters, read_report};

use super::folder_with_driver;

/// A network whose work is counted.
#[derive(Clone, Copy)]
pub struct Shape {
    pub dim: usize,
    pub width: usize,
    pub layers: usize,
    pub head: Head,
}

impl Shape {
    /// Rows of each of the three parts of a step. For wide networks, half of the rows that the
    /// device processes at a time; for narrow ones, so many that blocks process several tiles. Work
    /// that is done once for all rows is then small per row, and two to three times what it is in a
    /// large batch.
    pub fn training_rows(&self) -> usize {
        if self.width > 64 { 42 * 128 } else { 4 * 42 * 128 }
    }
}

/// Hydrogen, a wide network, and a narrow one.
pub const SHAPES: [Shape; 3] = [
    Shape { dim: 3, width: 256, layers: 4, head: Head::Quadratic },
    Shape { dim: 50, width: 512, layers: 4, head: Head::Scalar },
    Shape { dim: 2, width: 64, layers: 3, head: Head::Scalar },
];

pub const PARTICLES: usize = 256;
/// Steps of RK4.
pub const INTEGRATION_STEPS: u64 = 2;

/// Environment variable of a child: the index of its shape.
const SHAPE: &str = "COUNTED_SHAPE";

/// The quantity to which a kernel's work is proportional.
#[derive(Clone, Copy, PartialEq)]
pub enum Per {
    /// One row of each part of a step.
    Row,
    Particle,
    Step,
}

impl Per {
    pub fn of(kernel: &str) -> Per {
        match kernel {
            _ if kernel.starts_with("integrate") => Per::Particle,
            _ if ["draw", "sweep", "weight_grad"].iter().any(|name| kernel.starts_with(name)) => Per::Row,
            _ => Per::Step,
        }
    }

    /// Number of these units that were counted.
    pub fn counted(self, shape: &Shape) -> usize {
        match self {
            Per::Row => shape.training_rows(),
            Per::Particle => PARTICLES,
            Per::Step => 1,
        }
    }
}

/// The work of one step in bf16 and of one integration of `SHAPES[index]`, by kernel. Runs the
/// caller's program again with `arguments`; it must call [`work_of_child`].
pub fn count(index: usize, arguments: &[&str]) -> Vec<(String, Counters)> {
    let folder = folder_with_driver("libcuda.so");
    let report = folder.path().join("counters.json");
    let output = Command::new(std::env::current_exe().expect("the program's own path"))
        .args(arguments)
        .env(SHAPE, index.to_string())
        .env("LD_LIBRARY_PATH", folder.path())
        .env("VGPU_COUNTERS", &report)
        .env("VGPU_MEMORY", (8u64 << 30).to_string())
        .output()
        .expect("runs");
    assert!(output.status.success(), "shape {index}: {}", String::from_utf8_lossy(&output.stderr));
    read_report(&std::fs::read_to_string(report).expect("counters"))
}

/// In a child, does its work. Returns true in a child.
pub fn work_of_child() -> bool {
    let Some(shape) = std::env::var(SHAPE).ok().and_then(|index| SHAPES.get(index.parse::<usize>().ok()?)) else {
        return false;
    };
    let hidden = vec![shape.width; shape.layers];
    let architecture = Architecture { head: shape.head, ..Architecture::new(shape.dim, hidden) };
    let engine = CudaEngine::new(0, Precision::Bf16).expect("the virtual GPU");
    let state = TrainState::initial(initial_parameters(&architecture, 1));
    let parameters = state.action.parameters.clone();
    let training = training(architecture.clone(), shape.training_rows());
    let mut trainer = engine.trainer(training, state).expect("a trainer");
    trainer.steps(1, &mut Vec::new()).expect("a step");
    let coordinates = Coordinates::identity(shape.dim);
    let model = Model { coordinates, objective: Objective::default(), architecture, parameters, growth_head: None };
    let plan = Solver::rk4(INTEGRATION_STEPS).plan(0.0, vec![1.0]);
    let mut positions = vec![0.5; PARTICLES * shape.dim];
    engine.integrate(&model, &plan, Trajectories::of(&mut positions), &()).expect("an integration");
    true
}

fn training(architecture: Architecture, n_rows: usize) -> Training {
    const SAMPLES: usize = 256;
    let dim = architecture.dim;
    // Counts do not depend on the values of the samples.
    let samples = (0..2 * SAMPLES * dim).map(|i| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0).collect();
    let snapshots = Snapshots {
        dim,
        times: vec![0.0, 1.0],
        offsets: vec![0, SAMPLES, 2 * SAMPLES],
        samples,
        mass: Default::default(),
    };
    Training {
        estimator: Estimator::Action { centering: false },
        n_interior: n_rows,
        n_boundary: n_rows,
        seed: 1,
        ..Training::new(architecture, DensityPath::linear(snapshots))
    }
}
