//! `amatch bench`: seconds of a training step or of a sampling run, on fixed workloads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use action_matching::data::Snapshots;
use action_matching::density_path::{DensityPath, TimeRule, optimal_couplings};
use action_matching::display::{shortest, significant};
use action_matching::engine::{Engine, LearningRate, Optimizer, TrainState, Training};
use action_matching::integrate::{Method, Plan, StepControl, Trajectories};
use action_matching::memory;
use action_matching::model::{Coordinates, Model, initial_parameters};
use action_matching::objective::Objective;
use action_matching::precision::Precision;
use action_matching::rng::{self, Purpose};
use action_matching::stage::Stage;
use anyhow::{Context, bail};
use serde::Serialize;

use super::device::{DeviceArguments, DeviceEngine};
use super::output::print_result;
use super::workloads::{Step, WORKLOADS, Work, Workload};

const SEED: u64 = 1;

/// Particles of the first runs on a GPU, enough to fill it.
const GPU_PARTICLES: usize = 1 << 17;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch bench --list
  amatch bench hydrogen --threads 2 --seconds 5
  amatch bench hydrogen --device cuda --precision bf16
  amatch bench toy2d --rows 100000          a step with 100000 rows of each kind
  amatch bench wide --device cuda --explain what stays on the chip
  amatch bench peak --json                  peak rate of matrix products, measured on a CPU")]
pub struct Arguments {
    /// One of --list, or `peak` for the peak rate of matrix products
    #[arg(required_unless_present = "list")]
    workload: Option<String>,
    /// List the workloads
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    device: DeviceArguments,
    /// Measure for about this long, after a warm-up
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rows of each kind in a step (training), or particles (sampling), instead of the workload's
    /// own
    #[arg(long)]
    rows: Option<usize>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    /// Say what of the network's activations a GPU keeps on the chip, and measure nothing
    #[arg(long, conflicts_with = "json")]
    explain: bool,
}

/// One line of `--json`.
#[derive(Serialize)]
struct Figures {
    workload: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    threads: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_per_step: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_per_run: Option<f64>,
    gflops: f64,
    /// Fraction of the GPU's peak.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_peak: Option<f64>,
    rows_per_s: f64,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.list {
        return print_result(WORKLOADS.iter().map(|workload| format!("{}\n", workload.name)).collect::<String>());
    }
    // A month: a longer time is a typing error, and much longer ones overflow a duration.
    const MAX_SECONDS: f64 = 30.0 * 86_400.0;
    if !(arguments.seconds > 0.0 && arguments.seconds <= MAX_SECONDS) {
        bail!("--seconds {}: use a number > 0, at most {MAX_SECONDS}", shortest(arguments.seconds));
    }
    if arguments.rows == Some(0) {
        bail!("--rows 0: use at least 1");
    }
    let name = arguments.workload.as_deref().unwrap_or_default();
    let bench = Bench::new(arguments.device.open(Precision::default())?)?;
    if name == "peak" {
        return bench.print_peak(arguments);
    }
    let mut workload = Workload::find(name)
        .with_context(|| format!("no workload is called {name:?}: `amatch bench --list` names them"))?;
    if let Some(rows) = arguments.rows {
        workload = workload.with_rows(rows);
        memory::require("command line", &format!("--rows {rows}"), workload.least_bytes())?;
    }
    if arguments.explain {
        return print_result(bench.explain(&workload, arguments)?);
    }
    let figures = bench.measure(&workload, arguments)?;
    let line = if arguments.json { serde_json::to_string(&figures)? } else { bench.describe(&figures)? };
    print_result(line + "\n")
}

/// One benchmark.
struct Bench {
    device: DeviceEngine,
    /// Peak of the GPU's matrix products, in 10⁹ floating-point operations per second.
    peak_gflops: Option<f64>,
}

impl Bench {
    fn new(device: DeviceEngine) -> anyhow::Result<Self> {
        let peak = match &device {
            DeviceEngine::Cpu(_) => None,
            DeviceEngine::Cuda(engine) => engine.peak_flops()?,
        };
        Ok(Bench { device, peak_gflops: peak.map(|peak| peak / 1e9) })
    }

    fn engine(&self) -> &dyn Engine {
        match &self.device {
            DeviceEngine::Cpu(engine) => engine,
            DeviceEngine::Cuda(engine) => engine,
        }
    }

    /// Threads of the CPU; `None` on a GPU.
    fn threads(&self) -> Option<usize> {
        match &self.device {
            DeviceEngine::Cpu(engine) => Some(engine.threads()),
            DeviceEngine::Cuda(_) => None,
        }
    }

    fn print_peak(&self, arguments: &Arguments) -> anyhow::Result<()> {
        let gflops = match (&self.device, self.peak_gflops) {
            (DeviceEngine::Cpu(engine), _) => engine.product_gflops(Duration::from_secs_f64(arguments.seconds)),
            (_, Some(gflops)) => gflops,
            _ => bail!("the peak of {} is not known", self.engine().describe()),
        };
        if arguments.json {
            let mut line = serde_json::json!({ "workload": "peak", "gflops": gflops });
            if let Some(threads) = self.threads() {
                line["threads"] = threads.into();
            }
            print_result(format_args!("{line}\n"))
        } else {
            print_result(format_args!("peak: {} GFLOP/s, {}\n", significant(gflops, 4), self.engine().describe()))
        }
    }

    fn measure(&self, workload: &Workload, arguments: &Arguments) -> anyhow::Result<Figures> {
        let budget = Duration::from_secs_f64(arguments.seconds);
        let (seconds, is_step) = match workload.work {
            Work::Train(step) => (self.seconds_per_step(workload, step, budget, arguments.device.threads())?, true),
            Work::Sample { particles, method, steps } => {
                (self.seconds_per_run(workload, particles, method, steps, budget)?, false)
            }
        };
        let gflops = workload.flop() / seconds / 1e9;
        Ok(Figures {
            workload: workload.name.to_string(),
            threads: self.threads(),
            seconds_per_step: is_step.then_some(seconds),
            seconds_per_run: (!is_step).then_some(seconds),
            gflops,
            of_peak: self.peak_gflops.map(|peak| gflops / peak),
            rows_per_s: workload.rows() / seconds,
        })
    }

    /// How the engine uses the chip for a workload.
    fn explain(&self, workload: &Workload, arguments: &Arguments) -> anyhow::Result<String> {
        let explained = match workload.work {
            Work::Train(step) => {
                self.engine().explain_training(&training(workload, step, arguments.device.threads())?)?
            }
            Work::Sample { method, steps, .. } => {
                self.engine().explain_integration(&initial_model(workload), &sampling_plan(method, steps), false)?
            }
        };
        explained.context("--explain: a CPU has nothing to choose: add --device cuda")
    }

    fn seconds_per_step(
        &self,
        workload: &Workload,
        step: Step,
        budget: Duration,
        threads: usize,
    ) -> anyhow::Result<f64> {
        let state = TrainState::initial(initial_parameters(&workload.architecture(), SEED));
        let mut trainer = self.engine().trainer(training(workload, step, threads)?, state)?;
        let mut records = Vec::new();
        // The first step loads kernels; the next ones warm caches and show how many steps fill a
        // tenth of the budget.
        trainer.steps(1, &mut records)?;
        let started = Instant::now();
        trainer.steps(3, &mut records)?;
        let chunk = (budget.as_secs_f64() / 10.0 / (started.elapsed().as_secs_f64() / 3.0)).ceil().max(1.0) as u64;
        let (started, mut steps) = (Instant::now(), 0);
        while started.elapsed() < budget {
            records.clear();
            trainer.steps(chunk, &mut records)?;
            steps += chunk;
        }
        let seconds = started.elapsed().as_secs_f64() / steps as f64;
        if !records.iter().all(|record| record.loss.is_finite()) {
            bail!("{}: the loss is not finite", workload.name);
        }
        Ok(seconds)
    }

    /// Seconds of a whole run. If the budget is shorter than the run, fewer particles are moved and
    /// the time scaled, as it is linear in them.
    fn seconds_per_run(
        &self,
        workload: &Workload,
        particles: usize,
        method: Method,
        steps: u64,
        budget: Duration,
    ) -> anyhow::Result<f64> {
        let dim = workload.dim();
        let (model, plan) = (initial_model(workload), sampling_plan(method, steps));
        let start = normal_rows(particles, dim, 5);
        let run = |n: usize| -> anyhow::Result<f64> {
            let mut out = start[..n * dim].to_vec();
            let started = Instant::now();
            self.engine().integrate(&model, &plan, Trajectories::of(&mut out), &())?;
            Ok(started.elapsed().as_secs_f64())
        };
        let probe = particles.min(self.threads().map_or(GPU_PARTICLES, |threads| 4096 * threads));
        run(probe)?;
        let per_particle = run(probe)? / probe as f64;
        let chunk = ((budget.as_secs_f64() / 3.0 / per_particle) as usize).clamp(probe, particles);
        let (started, mut moved, mut seconds) = (Instant::now(), 0, 0.0);
        while started.elapsed() < budget {
            seconds += run(chunk)?;
            moved += chunk;
        }
        Ok(seconds / moved as f64 * particles as f64)
    }

    /// The figures on one line.
    fn describe(&self, figures: &Figures) -> anyhow::Result<String> {
        let (seconds, unit) = match (figures.seconds_per_step, figures.seconds_per_run) {
            (Some(seconds), _) => (seconds, "step"),
            (_, Some(seconds)) => (seconds, "run"),
            _ => bail!("{}: nothing was measured", figures.workload),
        };
        let rate = match self.device {
            DeviceEngine::Cpu(_) => format!("{} GFLOP/s", significant(figures.gflops, 4)),
            DeviceEngine::Cuda(_) => gpu_rate(unit, seconds, figures.gflops, self.peak_gflops),
        };
        let Figures { workload, rows_per_s, .. } = figures;
        let device = self.engine().describe();
        let milliseconds = significant(seconds * 1e3, 4);
        Ok(format!("{workload}: {milliseconds} ms a {unit}, {rate}, {rows_per_s:.3e} rows/s, {device}"))
    }
}

/// The training of a step.
fn training(workload: &Workload, step: Step, threads: usize) -> anyhow::Result<Training> {
    let snapshots = normal_snapshots(workload.dim());
    let couplings = if step.paired {
        Some(Arc::new(optimal_couplings(&snapshots, 2048, SEED, &Stage::new(threads, &()))?))
    } else {
        None
    };
    Ok(Training {
        architecture: workload.architecture(),
        objective: Objective { sigma: step.sigma, ..Objective::default() },
        path: DensityPath { couplings, ..DensityPath::linear(snapshots) },
        bend: None,
        growth_head: false,
        estimator: step.estimator,
        time_rule: TimeRule::LowDiscrepancy,
        laplacian: step.laplacian,
        n_interior: step.rows,
        n_boundary: step.rows,
        n_shards: Training::SHARDS,
        optimizer: Optimizer {
            learning_rate: LearningRate { peak: 1e-4, warmup_steps: 0, cosine: None },
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip_norm: Some(1.0),
            ema_decay: 0.9999,
        },
        seed: SEED,
        groups: None,
    })
}

/// The model that particles are moved by.
fn initial_model(workload: &Workload) -> Model {
    let architecture = workload.architecture();
    Model {
        coordinates: Coordinates::identity(workload.dim()),
        objective: Objective::default(),
        parameters: initial_parameters(&architecture, SEED),
        growth_head: None,
        architecture,
    }
}

fn sampling_plan(method: Method, steps: u64) -> Plan {
    Plan::new(method, StepControl::Fixed { steps }, 0.0, vec![1.0])
}

/// The rate on a GPU, and its fraction of the peak.
fn gpu_rate(unit: &str, seconds: f64, gflops: f64, peak_gflops: Option<f64>) -> String {
    let of_peak = match peak_gflops {
        Some(peak) => {
            format!("{} % of the card's {}", significant(gflops / peak * 100.0, 4), significant(peak / 1e3, 4))
        }
        None => "peak of the card not known".into(),
    };
    format!("{} {unit}s/s, {} TFLOP/s ({of_peak})", significant(1.0 / seconds, 4), significant(gflops / 1e3, 4))
}

/// Five snapshots of 2000 standard normal rows.
fn normal_snapshots(dim: usize) -> Snapshots {
    let (times, rows) = ([0.0, 0.25, 0.5, 0.75, 1.0], 2000);
    Snapshots {
        dim,
        times: times.to_vec(),
        offsets: (0..=times.len()).map(|k| k * rows).collect(),
        samples: (0..times.len()).flat_map(|k| normal_rows(rows, dim, k as u64)).collect(),
        mass: Default::default(),
    }
}

fn normal_rows(n: usize, dim: usize, stream: u64) -> Vec<f32> {
    (0..n * dim)
        .map(|i| {
            let [a, b, ..] = rng::words(SEED, Purpose::Particles, stream, i as u32);
            rng::normal_pair(a, b)[0]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_gpu_name_their_units_and_the_peak() {
        let line = gpu_rate("step", 2e-3, 1024.0, Some(8192.0));
        assert_eq!(line, "500.0 steps/s, 1.024 TFLOP/s (12.50 % of the card's 8.192)");
        assert!(gpu_rate("run", 2.0, 1024.0, None).ends_with("1.024 TFLOP/s (peak of the card not known)"));
    }
}
