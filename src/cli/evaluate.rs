//! `amatch evaluate`.

use std::path::{Path, PathBuf};

use action_matching::data::{DataSet, DataSource, check_fits, read_snapshots};
use action_matching::evaluate::{EvaluateOptions, Report, StartFrom, Theorems, evaluate};
use action_matching::integrate::Method;
use action_matching::model::Model;
use action_matching::stage::Stage;
use action_matching::transport::MAX_POINTS;
use action_matching::{Destination, Replace};
use anyhow::Context;

use super::device::DeviceArguments;
use super::named::{Named, one_of};
use super::output::{given, load_components, load_model, note, print_result};
use super::problem::find;
use super::sample::{METHODS, snapshot_source, solver};
use super::signal::Signals;
use super::watch::OnScreen;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch evaluate runs/hematopoiesis
  amatch evaluate runs/hematopoiesis examples/data/mouse_hematopoiesis.npz --json scores.json
  amatch evaluate model.safetensors cells.npz --held-out 1 --points 2000
  amatch evaluate runs/anisotropic ends.npz --problem anisotropic
  amatch evaluate runs/digits             of a generative path: samples from noise, log-likelihood

Each snapshot is moved to the next one, and to the held-out ones between (with --start first, the \
first one to all), and compared with the true snapshot there; with growth, particles carry weights. \
Scores are exact Wasserstein distances W1 and W2 and the unbiased MMD², each with two scores to \
compare it with: that of no motion, and the sampling floor, which is the distance between two \
disjoint halves of the true snapshot. Kinetic energy and Hamilton–Jacobi–Bellman residual are \
measured along the flow.")]
pub struct Arguments {
    /// Model file or run folder
    model: PathBuf,
    /// Snapshots [default: the data of the run, held-out times included]
    data: Option<PathBuf>,
    /// Times that the model was trained without [default: those of the run]
    #[arg(long, value_name = "TIME", num_args = 1.., value_delimiter = ',', allow_negative_numbers = true)]
    held_out: Option<Vec<f64>>,
    /// Start of the particles [default: previous; noise for the run of a generative path]
    #[arg(long, value_parser = one_of(STARTS))]
    start: Option<StartFrom>,
    /// Largest number of points; a random subset represents a snapshot with more
    #[arg(long, default_value_t = MAX_POINTS, value_name = "N")]
    points: usize,
    /// Compare with the true action of this problem of `amatch problem`: action gap, gap identity,
    /// bound on W2²
    #[arg(long, value_name = "NAME")]
    problem: Option<String>,
    /// Write the report as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Replace the JSON file even if it is no earlier report (never a model, a file of a run, or a
    /// file that this command reads)
    #[arg(long, requires = "json")]
    force: bool,
    /// Method of integration [default: dopri5; stochastic-heun for a model with diffusion]
    #[arg(long, value_parser = one_of(METHODS))]
    method: Option<Method>,
    /// Equal steps from snapshot to snapshot [default: 100 for all methods but dopri5]
    #[arg(long, value_name = "N", conflicts_with_all = ["rtol", "atol"])]
    steps: Option<u64>,
    /// Relative tolerance of dopri5 [default: 1e-4]
    #[arg(long, value_name = "TOLERANCE")]
    rtol: Option<f64>,
    /// Absolute tolerance of dopri5, network units [default: 1e-5]
    #[arg(long, value_name = "TOLERANCE")]
    atol: Option<f64>,
    /// Seed of random subsets, halves and noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArguments,
}

/// Start of the particles.
const STARTS: &[Named<StartFrom>] = &[
    ("previous", StartFrom::Previous, "Each snapshot moves to the next one"),
    ("first", StartFrom::First, "The first snapshot moves to every other"),
    ("noise", StartFrom::Noise, "Standard normal noise moves to the only snapshot"),
];

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let signals = Signals::watch()?;
    let problem = arguments.problem.as_deref().map(find).transpose()?;
    let (model_file, model, config) = load_model(&arguments.model)?;
    let components = load_components(&model_file, &model, config.as_ref())?;
    let source = snapshot_source(arguments.data.as_deref(), config.as_ref())?;
    let source = DataSource { components: given(components.as_ref()), ..source };
    let reads: Vec<&Path> = source.files().chain([&*model_file]).collect();
    let replace = if arguments.force { Replace::Files } else { Replace::Reports };
    let json = arguments.json.as_ref().map(|path| Destination::check(path, &reads, replace)).transpose()?;
    let DataSet { snapshots, origin, columns, warnings } = {
        let screen = OnScreen::new("bytes of data", &signals);
        read_snapshots(&source, &screen)?
    };
    warnings.iter().for_each(|warning| note!("warning: {warning}"));
    check_fits(&source.path, snapshots.dim, columns.as_deref(), &model.coordinates)?;
    let is_generative = config.as_ref().is_some_and(|config| config.objective.path.interpolant().is_generative());
    let default = if is_generative { StartFrom::Noise } else { StartFrom::Previous };
    let start = arguments.start.unwrap_or(default);
    let from_run = config.map(|config| config.data.hold_out).unwrap_or_default();
    // Data other than the run's may lack the times that the run held out.
    let held_out = arguments
        .held_out
        .clone()
        .unwrap_or_else(|| from_run.into_iter().filter(|&time| snapshots.find(time).is_some()).collect());
    let engine = arguments.device.engine()?;
    let (method, control) = solver(arguments.method, &model.objective, arguments.steps, arguments.rtol, arguments.atol);
    // First, because it refuses a model of other dynamics immediately.
    let theorems = (problem.map(|problem| {
        let screen = OnScreen::new("theorems", &signals);
        let stage = Stage::new(arguments.device.threads(), &screen);
        Theorems::measure(&*engine, &model, &problem, arguments.seed, &stage)
    }))
    .transpose()?;
    // Samples are stored as differences from the origin.
    let model = Model { coordinates: model.coordinates.relative_to(&origin), ..model };
    let options = EvaluateOptions { start, max_points: arguments.points, method, control, seed: arguments.seed };
    let screen = OnScreen::new("flows and comparisons", &signals);
    let stage = Stage::new(arguments.device.threads(), &screen);
    let report = Report { theorems, ..evaluate(&*engine, &model, &snapshots, &held_out, &options, &stage)? };
    drop(screen);
    // The file first: printing may block if the reader of standard output is gone or slow.
    if let Some(json) = json {
        let mut text = serde_json::to_vec_pretty(&report).context("cannot write the report")?;
        text.push(b'\n');
        if json.is_stream() {
            signals.end_at_once();
        }
        json.write(|out| out.write_all(&text))?;
    }
    print_result(report)
}
