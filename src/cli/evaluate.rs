//! `amatch evaluate`.

pub mod test_data;

use std::fmt;
use std::path::{Path, PathBuf};

use action_matching::data::{DataSource, check_fits};
use action_matching::evaluate::{
    EvaluateOptions, GroupReport, GroupReports, Report, Sources, StartFrom, Theorems, evaluate_members,
};
use action_matching::integrate::Method;
use action_matching::model::{ConditionValue, Model};
use action_matching::stage::Stage;
use action_matching::train::RunFolder;
use action_matching::transport::MAX_POINTS;
use action_matching::{Destination, Replace, Trained};
use anyhow::{Context, bail};
use serde::Serialize;
use test_data::TestData;

use super::condition::{self, check_names, list, matching, note_extrapolation, pairs};
use super::device::DeviceArguments;
use super::ensemble::MemberArgument;
use super::named::{Named, one_of};
use super::output::{given, note, print_result};
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
three bandwidths, both unbiased; of snapshots with more points than --points also sliced W2, which has \
tables of its own. They stand beside those of no motion, of a roll-out from the first \
snapshot, of what needs no model (the snapshot after, rows of both neighbors, points between them on \
the exact W2 plan), and the sampling floor, the distance between two halves of the truth. Means with \
standard errors come first, of what was not trained on apart; a line says where measures disagree, \
and a warning if the model is worse than not moving. Under conditions means over the groups of rows come \
first, then a line for each group, then each in full. Of an ensemble a table has mean and standard \
deviation over its members; all else is of the first one, or of --member K.")]
pub struct Arguments {
    /// Model file or run folder
    model: PathBuf,
    /// Snapshots [default: the data of the run, held-out times included]
    data: Option<PathBuf>,
    /// Times that the model was trained without, in place of those of the run [default: those of
    /// the run]
    #[arg(long, value_name = "TIME", num_args = 1.., value_delimiter = ',', allow_negative_numbers = true)]
    held_out: Option<Vec<f64>>,
    /// For a model that depends on conditions: only groups of rows with these values [default:
    /// every group]
    #[arg(long, value_name = "NAME=VALUE")]
    condition: Vec<String>,
    /// Start of the particles [default: previous; noise for the run of a generative path]
    #[arg(long, value_parser = one_of(STARTS))]
    start: Option<StartFrom>,
    /// Make every comparison [default: at most 200, spread evenly over the times]
    #[arg(long)]
    all: bool,
    /// Largest number of points; a random subset represents a snapshot with more
    #[arg(long, default_value_t = MAX_POINTS, value_name = "N")]
    points: usize,
    /// Largest number of points of sliced W2, which is computed beside the others where a snapshot
    /// has more than --points; 0: never
    #[arg(long, default_value_t = EvaluateOptions::SLICED, value_name = "N")]
    sliced_points: usize,
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
    member: MemberArgument,
    #[command(flatten)]
    device: DeviceArguments,
}

/// Fewest comparisons of the rows of one condition.
const FEWEST_COMPARISONS: usize = 4;

/// Start of the particles.
const STARTS: &[Named<StartFrom>] = &[
    ("previous", StartFrom::Previous, "Each snapshot moves to the next one"),
    ("first", StartFrom::First, "The first snapshot moves to every other"),
    ("noise", StartFrom::Noise, "Standard normal noise moves to the only snapshot"),
];

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let signals = Signals::watch()?;
    let problem = arguments.problem.as_deref().map(find).transpose()?;
    let trained = arguments.member.load(&arguments.model)?;
    let components = trained.components()?;
    let Trained { file: model_file, models, config, .. } = trained;
    let model = &models[0];
    let source = snapshot_source(arguments.data.as_deref(), config.as_ref())?;
    let conditions = condition::names(source.conditions.clone(), &model.coordinates);
    let components = given(components.as_ref(), config.as_ref(), &source.path);
    let source = DataSource { conditions, components, ..source };
    let reads: Vec<&Path> = source.files().chain([&*model_file]).collect();
    let replace = if arguments.force { Replace::Files } else { Replace::Reports };
    let json = arguments.json.as_ref().map(|path| Destination::check(path, &reads, replace)).transpose()?;
    let held_out = arguments.held_out.as_deref();
    let test = TestData::read(arguments.data.is_none(), held_out, config.as_ref(), model, &source, &signals)?;
    check_fits(&source.path, test.snapshots.dim, test.columns.as_deref(), &model.coordinates)?;
    let is_generative = config.as_ref().is_some_and(|config| config.objective.path.interpolant().is_generative());
    let default = if is_generative { StartFrom::Noise } else { StartFrom::Previous };
    let start = arguments.start.unwrap_or(default);
    let engine = arguments.device.engine()?;
    let (method, control) = solver(arguments.method, &model.objective, arguments.steps, arguments.rtol, arguments.atol);
    if problem.is_some() && !model.coordinates.conditions.is_empty() {
        bail!("--problem: the true action has no conditions, and the model depends on some (leave it out)");
    }
    // First, because it refuses a model of other dynamics immediately.
    let theorems = (problem.map(|problem| {
        let screen = OnScreen::new("theorems", &signals);
        let stage = Stage::new(arguments.device.threads(), &screen);
        Theorems::measure(&*engine, model, &problem, arguments.seed, &stage)
    }))
    .transpose()?;
    // Samples are stored as differences from the origin.
    let relative = |model: Model| Model { coordinates: model.coordinates.relative_to(&test.origin), ..model };
    let members: Vec<Model> = models.into_iter().map(relative).collect();
    let parts = parts(&arguments.condition, start, members, test)?;
    let most = if arguments.all { usize::MAX } else { EvaluateOptions::COMPARISONS };
    let max_comparisons = (most / parts.len()).max(FEWEST_COMPARISONS);
    let (max_points, max_sliced, seed) = (arguments.points, arguments.sliced_points, arguments.seed);
    let options = EvaluateOptions { start, max_points, max_sliced, max_comparisons, method, control, seed };
    let run = model_file.parent().filter(|_| config.is_some()).map(Path::to_owned);
    let configuration = run.as_ref().map(|run| RunFolder::new(run).config());
    let data = source.files().map(Path::to_owned).collect();
    let sources = Sources { run, model: model_file, configuration, data };
    let screen = OnScreen::new("flows and comparisons", &signals);
    let mut reports = Vec::new();
    let stage = Stage::new(arguments.device.threads(), &screen);
    for Part { members, test, .. } in &parts {
        let report = evaluate_members(&*engine, members, &test.labeled(), &options, &stage)?;
        let notes = [&test.notes[..], &report.notes].concat();
        reports.push(Report { sources: Some(sources.clone()), notes, theorems, ..report });
    }
    drop(screen);
    let report = match reports.pop() {
        Some(only) if parts.iter().all(|part| part.condition.is_empty()) => Reports::One(Box::new(only)),
        last => {
            let of_part = |(part, report): (&Part, Report)| GroupReport {
                condition: part.condition.clone(),
                name: part.name.clone(),
                report,
            };
            Reports::Groups(GroupReports::new(parts.iter().zip(reports.into_iter().chain(last)).map(of_part).collect()))
        }
    };
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

/// What is evaluated under one condition, or without conditions everything.
pub struct Part {
    condition: Vec<(String, ConditionValue)>,
    /// The condition in words.
    pub name: String,
    /// The model, or all members of an ensemble.
    pub members: Vec<Model>,
    pub test: TestData,
    /// Number of the group of rows.
    pub group: Option<usize>,
}

/// The groups of rows that `conditions` choose, each with the models under its condition; without
/// conditions all rows.
pub fn parts(
    conditions: &[String],
    start: StartFrom,
    members: Vec<Model>,
    mut test: TestData,
) -> anyhow::Result<Vec<Part>> {
    let coordinates = &members[0].coordinates;
    let mut wanted = Vec::new();
    for (name, value) in pairs("--condition", conditions)? {
        match coordinates.conditions.iter().position(|condition| condition.name() == name) {
            Some(i) => wanted.push((i, coordinates.conditions[i].parse(&value)?)),
            None => drop(coordinates.parse_condition(&[(name, value)])?), // says that it is unknown
        }
    }
    if coordinates.conditions.is_empty() {
        test.finish();
        return Ok(vec![Part { condition: Vec::new(), name: String::new(), members, test, group: None }]);
    }
    let groups = &test.groups;
    check_names(groups, coordinates)?;
    let least = if start == StartFrom::Noise { 1 } else { 2 };
    let chosen = matching(groups, &wanted, coordinates);
    let mut parts = Vec::new();
    for &k in &chosen {
        let mut of_group = test.of_group(k, coordinates);
        if of_group.n_times() < least {
            note!("warning: {} has rows at one time only, and is left out", groups.describe(k));
            continue;
        }
        of_group.finish();
        let values = &groups.values[k];
        let under = members.iter().map(|model| model.under(values)).collect::<action_matching::Result<Vec<_>>>();
        let members = match under {
            Ok(members) => members,
            Err(error) if chosen.len() > 1 => {
                note!("warning: {} is left out: {error}", groups.describe(k));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        note_extrapolation(values, coordinates);
        let condition = groups.names.iter().cloned().zip(values.iter().cloned()).collect();
        parts.push(Part { condition, name: groups.describe(k), members, test: of_group, group: Some(k) });
    }
    if parts.is_empty() {
        bail!("--condition: no group of rows with two times fits (there are: {})", list(groups));
    }
    Ok(parts)
}

/// What is printed and written.
#[derive(Serialize)]
#[serde(untagged)]
enum Reports {
    /// Without conditions.
    One(Box<Report>),
    /// Under conditions.
    Groups(GroupReports),
}

impl fmt::Display for Reports {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Reports::One(report) => report.fmt(f),
            Reports::Groups(groups) => groups.fmt(f),
        }
    }
}
