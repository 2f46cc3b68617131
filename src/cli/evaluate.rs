//! `amatch evaluate`.

use std::path::{Path, PathBuf};

use action_matching::config::Config;
use action_matching::data::{DataSet, DataSource, DividedSet, Snapshots, check_fits, read_divided, read_snapshots};
use action_matching::evaluate::{
    EvaluateOptions, Labeled, Report, Role, Sources, StartFrom, Theorems, evaluate_labeled,
};
use action_matching::integrate::Method;
use action_matching::model::Model;
use action_matching::stage::Stage;
use action_matching::train::RunFolder;
use action_matching::transport::MAX_POINTS;
use action_matching::{Destination, Error, Replace};
use anyhow::{Context, bail};

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

Each snapshot is moved to the next one, and to those between that were not trained on (with --start \
first, the first one to all), and compared with the true snapshot there; with growth, particles carry \
weights. Scores are exact Wasserstein distances W1 and W2, the squared energy distance and MMD² at \
three bandwidths, both unbiased. They stand beside those of no motion, of a roll-out from the first \
snapshot, of what needs no model (the snapshot after, rows of both neighbors, points between them on \
the exact W2 plan), and the sampling floor, the distance between two halves of the truth. Means with \
standard errors come first, of what was not trained on apart; a line says where measures disagree, \
and a warning if the model is worse than not moving.")]
pub struct Arguments {
    /// Model file or run folder
    model: PathBuf,
    /// Snapshots [default: the data of the run, held-out times included]
    data: Option<PathBuf>,
    /// Times that the model was trained without, in place of those of the run [default: those of
    /// the run]
    #[arg(long, value_name = "TIME", num_args = 1.., value_delimiter = ',', allow_negative_numbers = true)]
    held_out: Option<Vec<f64>>,
    /// Start of the particles [default: previous; noise for the run of a generative path]
    #[arg(long, value_parser = one_of(STARTS))]
    start: Option<StartFrom>,
    /// Make every comparison [default: at most 200, spread evenly over the times]
    #[arg(long)]
    all: bool,
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
    let source = DataSource { components: given(components.as_ref(), config.as_ref()), ..source };
    let reads: Vec<&Path> = source.files().chain([&*model_file]).collect();
    let replace = if arguments.force { Replace::Files } else { Replace::Reports };
    let json = arguments.json.as_ref().map(|path| Destination::check(path, &reads, replace)).transpose()?;
    let test = TestData::read(arguments, config.as_ref(), &model, &source, &signals)?;
    check_fits(&source.path, test.snapshots.dim, test.columns.as_deref(), &model.coordinates)?;
    let is_generative = config.as_ref().is_some_and(|config| config.objective.path.interpolant().is_generative());
    let default = if is_generative { StartFrom::Noise } else { StartFrom::Previous };
    let start = arguments.start.unwrap_or(default);
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
    let model = Model { coordinates: model.coordinates.relative_to(&test.origin), ..model };
    let max_comparisons = if arguments.all { usize::MAX } else { EvaluateOptions::COMPARISONS };
    let (max_points, seed) = (arguments.points, arguments.seed);
    let options = EvaluateOptions { start, max_points, max_comparisons, method, control, seed };
    let screen = OnScreen::new("flows and comparisons", &signals);
    let stage = Stage::new(arguments.device.threads(), &screen);
    let report = evaluate_labeled(&*engine, &model, &test.labeled(), &options, &stage)?;
    let run = model_file.parent().filter(|_| config.is_some()).map(Path::to_owned);
    let configuration = run.as_ref().map(|run| RunFolder::new(run).config());
    let data = source.files().map(Path::to_owned).collect();
    let sources = Some(Sources { run, model: model_file, configuration, data });
    let notes = [test.notes, report.notes].concat();
    let report = Report { sources, notes, theorems, ..report };
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

/// Snapshots to compare with, and what the training of the model knew of them.
struct TestData {
    /// Differences from `origin`.
    snapshots: Snapshots,
    roles: Vec<Role>,
    /// Rows that were held out of times that are among `snapshots` too.
    held_out: Option<Snapshots>,
    origin: Vec<f64>,
    columns: Option<Vec<String>>,
    /// For the report.
    notes: Vec<String>,
}

impl TestData {
    /// Reads the data of `source`: those of the run, or others.
    fn read(
        arguments: &Arguments,
        config: Option<&Config>,
        model: &Model,
        source: &DataSource,
        signals: &Signals,
    ) -> anyhow::Result<Self> {
        let screen = OnScreen::new("bytes of data", signals);
        let is_own = arguments.data.is_none();
        let mut test = match config {
            Some(_) if is_own && arguments.held_out.is_none() => TestData::divided(read_divided(source, &screen)?),
            _ => TestData::whole(read_snapshots(source, &screen)?),
        };
        if let Some(held_out) = &arguments.held_out {
            test.roles.fill(Role::Seen);
            for &time in held_out {
                let k = test.snapshots.index_of(time, &source.path, "--held-out")?;
                if k == 0 {
                    bail!("--held-out: names the first time, which every prediction starts from (name others)");
                }
                test.roles[k] = Role::HeldOut;
            }
        } else if let Some(config) = config.filter(|_| !is_own) {
            match read_divided(&DataSource { components: source.components.clone(), ..config.source() }, &screen) {
                Ok(own) => test.compare_with(&own),
                Err(Error::Interrupted) => return Err(Error::Interrupted.into()),
                Err(error) => test.notes.push(format!(
                    "Which of these times the model was trained on is unknown, because the data of its run cannot be \
                     read: {error}"
                )),
            }
        } else if config.is_none() {
            test.compare_with_range(model.coordinates.time_range);
        }
        test.note_numbers();
        Ok(test)
    }

    /// Snapshots of which nothing is known.
    fn whole(DataSet { snapshots, origin, columns, warnings }: DataSet) -> Self {
        warnings.iter().for_each(|warning| note!("warning: {warning}"));
        let roles = vec![Role::Unknown; snapshots.times.len()];
        TestData { snapshots, roles, held_out: None, origin, columns, notes: Vec::new() }
    }

    /// The data of the run itself.
    fn divided(DividedSet { training, held_out }: DividedSet) -> Self {
        let mut test = TestData::whole(training);
        test.roles.fill(Role::Seen);
        test.held_out = (!held_out.times.is_empty()).then_some(held_out);
        test
    }

    /// Roles by the times of the run's own data.
    fn compare_with(&mut self, own: &DividedSet) {
        let role = |&time: &f64| {
            if own.training.snapshots.find(time).is_some() {
                Role::Seen
            } else if own.held_out.find(time).is_some() {
                Role::HeldOut
            } else {
                Role::NeverSeen
            }
        };
        self.roles = self.snapshots.times.iter().map(role).collect();
        if own.held_out.times.iter().any(|&time| own.training.snapshots.find(time).is_some()) {
            self.notes.push(
                "The run held rows out of times that it has seen. Which rows of this file those are is unknown: they \
                 count as seen. Leave the file out to compare with them."
                    .into(),
            );
        }
    }

    /// Roles by the first and last time of the training, which is all that a model file tells.
    fn compare_with_range(&mut self, [first, last]: [f64; 2]) {
        let slack = 1e-6 * (last - first);
        let spanned = first - slack..=last + slack;
        let role = |time: &f64| if spanned.contains(time) { Role::Unknown } else { Role::NeverSeen };
        self.roles = self.snapshots.times.iter().map(role).collect();
        self.notes.push(format!(
            "Which of the times from {first} to {last} the model was trained on is unknown: there is no configuration \
             beside it. --held-out names times that it was not trained on."
        ));
    }

    /// Adds the numbers of snapshots by role to the notes.
    fn note_numbers(&mut self) {
        let count = |role: Role| self.roles.iter().filter(|each| **each == role).count();
        let mut parts: Vec<String> = [Role::Seen, Role::Unknown, Role::HeldOut, Role::NeverSeen]
            .into_iter()
            .filter(|&role| count(role) > 0)
            .map(|role| format!("{} {}", count(role), role.name()))
            .collect();
        if let Some(held_out) = &self.held_out {
            let n_rows = held_out.samples.len() / held_out.dim;
            let is_of_times = held_out.times.iter().all(|&time| self.snapshots.find(time).is_none());
            parts.push(if is_of_times {
                format!("{} held out", held_out.times.len())
            } else {
                format!("{n_rows} rows held out")
            });
        }
        self.notes.push(format!("Snapshots: {}.", parts.join(", ")));
    }

    fn labeled(&self) -> Vec<Labeled<'_>> {
        let mut labeled = vec![Labeled { snapshots: &self.snapshots, roles: self.roles.clone() }];
        labeled.extend(self.held_out.as_ref().map(|held_out| Labeled::all(held_out, Role::HeldOut)));
        labeled
    }
}
