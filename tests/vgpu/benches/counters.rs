//! What the kernels of a training step and of an integration do, counted on the virtual GPU, and the least time that it takes on real ones:
//!
//!     cargo bench -p vgpu --bench counters
//!
//! One step of each network, and two steps of RK4, each with a few hundred rows; counts are a row's, bounds are for 65,536 rows. A program
//! of its own runs each network, with the virtual GPU as its driver.

use std::process::Command;
use std::sync::Arc;

use action_matching::Result;
use action_matching::data::Snapshots;
use action_matching::density_path::{DensityPath, Interpolant, TimeRule};
use action_matching::engine::cuda::{CudaEngine, Precision};
use action_matching::engine::{Engine, Estimator, Laplacian, LearningRate, Optimizer, TrainState, Training};
use action_matching::integrate::{Method, Noise, Plan, StepControl, Trajectories};
use action_matching::model::{Activation, Architecture, Coordinates, Head, Model, TimeEmbedding, initial_parameters};
use action_matching::objective::Objective;
use vgpu::counters::{Counters, Pipe, read_report};
use vgpu::model::{ALL, bounds, busiest};

/// Dimension, width and hidden layers, head: hydrogen, a wide network, and a narrow one.
const NETWORKS: [(usize, usize, usize, Head); 3] =
    [(3, 256, 4, Head::Quadratic), (50, 512, 4, Head::Scalar), (2, 64, 3, Head::Scalar)];
const ROWS: usize = 256;
const SCALED_TO: usize = 65_536;
/// In the environment of a child: index of its network.
const NETWORK: &str = "COUNTERS_NETWORK";

fn architecture((dim, width, layers, head): (usize, usize, usize, Head)) -> Architecture {
    Architecture {
        dim,
        hidden: vec![width; layers],
        activation: Activation::Silu,
        head,
        time_embedding: TimeEmbedding::Raw,
    }
}

fn training(architecture: Architecture) -> Training {
    let dim = architecture.dim;
    // What the samples are does not matter to what is counted.
    let samples = (0..2 * ROWS * dim).map(|i| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0).collect();
    let snapshots = Snapshots { dim, times: vec![0.0, 1.0], offsets: vec![0, ROWS, 2 * ROWS], samples };
    Training {
        architecture,
        objective: Objective::default(),
        path: DensityPath {
            snapshots: Arc::new(snapshots),
            interpolant: Interpolant::Linear,
            couplings: None,
            masses: None,
        },
        bend: None,
        estimator: Estimator::Action { centring: false },
        time_rule: TimeRule::LowDiscrepancy,
        laplacian: Laplacian::default(),
        n_interior: ROWS,
        n_boundary: ROWS,
        optimizer: Optimizer {
            learning_rate: LearningRate { peak: 1e-3, warmup_steps: 0, cosine: None },
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip_norm: Some(1.0),
            ema_decay: 0.999,
        },
        seed: 1,
    }
}

/// One step and one integration of network `index`, on the driver that the library path leads to.
fn work(index: usize) -> Result<()> {
    let architecture = architecture(NETWORKS[index]);
    let engine = CudaEngine::new(0, Precision::Bf16)?;
    let state = TrainState::initial(initial_parameters(&architecture, 1));
    let parameters = state.action.parameters.clone();
    engine.trainer(training(architecture.clone()), state)?.steps(1, &mut Vec::new())?;
    let dim = architecture.dim;
    let model =
        Model { coordinates: Coordinates::identity(dim), objective: Objective::default(), architecture, parameters };
    let plan = Plan {
        method: Method::Rk4,
        control: StepControl::Fixed { steps: 2 },
        t0: 0.0,
        save_at: vec![1.0],
        noise: Noise { seed: 0, increments_per_step: 1 },
        divergence: Laplacian::default(),
    };
    let mut positions = vec![0.5; ROWS * dim];
    engine.integrate(&model, &plan, Trajectories::of(&mut positions), &|_| ())?;
    Ok(())
}

/// Runs network `index` in a process whose driver is the virtual GPU.
fn count(index: usize) -> Vec<(String, Counters)> {
    let program = std::env::current_exe().expect("the bench's own path");
    let name = format!("{}vgpu{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let library = (program.ancestors().skip(1).take(2).map(|folder| folder.join(&name)))
        .find(|path| path.exists())
        .expect("the library beside the bench");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(library, folder.path().join("libcuda.so")).expect("copied");
    let report = folder.path().join("counters.json");
    let status = Command::new(program)
        .env(NETWORK, index.to_string())
        .env("LD_LIBRARY_PATH", folder.path())
        .env("VGPU_COUNTERS", &report)
        .env("VGPU_MEMORY", (8u64 << 30).to_string())
        .status()
        .expect("runs");
    assert!(status.success(), "network {index}: {status}");
    read_report(&std::fs::read_to_string(report).expect("counters"))
}

fn main() -> Result<()> {
    if let Some(index) = std::env::var(NETWORK).ok().and_then(|index| index.parse().ok()) {
        return work(index);
    }
    for (index, (dim, width, layers, _)) in NETWORKS.into_iter().enumerate() {
        println!("\ndimension {dim}, {layers} layers of {width}, bf16; of a row, then bounds for {SCALED_TO} rows");
        print!(
            "{:<28}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "kernel", "f32", "integer", "special", "mma", "waves", "barriers"
        );
        print!("{:>10}{:>10}", "read B", "written B");
        println!("{}", ALL.map(|gpu| format!("{:>26}", gpu.name)).concat());
        for (kernel, counters) in count(index) {
            let of_row = |n: u64| format!("{:>10.1}", n as f64 / ROWS as f64);
            let thread = |pipe: Pipe| of_row(counters.thread_instructions[pipe as usize]);
            print!("{kernel:<28}{}{}{}", thread(Pipe::Float32), thread(Pipe::Integer), thread(Pipe::Special));
            print!("{}{}", of_row(counters.multiply_adds.iter().sum()), of_row(counters.shared_wavefronts));
            print!(
                "{}{}{}",
                of_row(counters.barriers),
                of_row(32 * counters.read_sectors),
                of_row(32 * counters.written_sectors)
            );
            let scaled = counters.scaled(SCALED_TO as f64 / ROWS as f64);
            for gpu in ALL {
                let bound = busiest(&bounds(&scaled, &gpu));
                print!("{:>26}", bound.map_or(String::new(), |(unit, s)| format!("{:.3} ms {unit:?}", 1e3 * s)));
            }
            println!();
            for (unit, s) in bounds(&scaled, &ALL[1]) {
                print!(" {unit:?} {:.3}", 1e3 * s);
            }
            println!();
        }
    }
    Ok(())
}
