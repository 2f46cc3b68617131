//! `amatch problem`: samples of problems whose action is known.

use std::path::PathBuf;

use action_matching::data::{AnalyticProblem, PointArray, check_points_format, hydrogen_snapshots, write_points};
use action_matching::memory;
use action_matching::stage::{Stage, Watch};
use action_matching::{Destination, Error};
use anyhow::bail;

use super::output::{note, print_result, replace_files};
use super::signal::Signals;
use super::watch::OnScreen;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch problem --list
  amatch problem anisotropic --out anisotropic.npz
  amatch problem ornstein-uhlenbeck -n 5000 --times 101 --out ou.npz
  amatch problem hydrogen -n 5000 --times 1001 --out hydrogen.npz

Train on the samples with data.standardize = \"none\", objective.path = \"nearest\", and the sigma and \
growth that --list shows (with growth also objective.mass = \"counts\"). Then \
`amatch evaluate RUN --problem NAME` compares the model with the true action.")]
pub struct Arguments {
    /// One of --list
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// List the problems
    #[arg(long)]
    list: bool,
    /// Samples at the first time; with growth, the number at later times follows the mass
    #[arg(short, default_value_t = 2000, value_name = "N")]
    n: usize,
    /// Number of equally spaced times from 0 to 1 (hydrogen: to 14000)
    #[arg(long, default_value_t = 101, value_name = "N")]
    times: usize,
    /// Output: .npz, .csv or .safetensors; CSV to a pipe or device without a suffix
    #[arg(long, value_name = "FILE", required_unless_present = "list")]
    out: Option<PathBuf>,
    /// Replace the output if it exists (never a model or a file of a run)
    #[arg(long)]
    force: bool,
    /// Seed of the samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.list {
        let hydrogen = (
            HYDROGEN,
            "an electron in a superposition of two states, followed by Bohm's particles (3-D, no action known)",
        );
        let lines = AnalyticProblem::NAMES.iter().chain([&hydrogen]).map(|(name, what)| format!("{name:<20} {what}\n"));
        return print_result(lines.collect::<String>());
    }
    let (Some(name), Some(out)) = (&arguments.name, &arguments.out) else { bail!("name a problem and --out") };
    let problem = if name == HYDROGEN { None } else { Some(find(name)?) };
    if arguments.n == 0 || arguments.times < 2 {
        bail!("-n {} --times {}: too few (use at least 1 sample and 2 times)", arguments.n, arguments.times);
    }
    let (n, times) = (arguments.n, arguments.times);
    // Samples, and in addition the z or the paths from which they are computed.
    let (dim, made_from) = problem.as_ref().map_or((3, times), |problem| (problem.dim(), 1));
    let samples = memory::bytes(&[n, times, dim * size_of::<f32>() + size_of::<f64>()]);
    let least = samples.saturating_add(memory::bytes(&[n, made_from, dim, size_of::<f64>()]));
    memory::require("command line", &format!("-n {n} --times {times}"), least)?;
    let out = Destination::check(out, NO_FILES, replace_files(arguments.force))?;
    check_points_format(&out)?;
    let snapshots = match problem {
        Some(problem) => {
            let times: Vec<f64> = (0..arguments.times).map(|k| k as f64 / (arguments.times - 1) as f64).collect();
            problem.snapshots(&times, arguments.n, arguments.seed)
        }
        None => {
            let screen = OnScreen::new("particles", &Signals::watch()?);
            hydrogen_snapshots(arguments.times, arguments.n, arguments.seed, &Stage::new(0, &screen))?
        }
    };
    let row_times: Vec<f64> =
        snapshots.times.iter().enumerate().flat_map(|(k, &t)| std::iter::repeat_n(t, snapshots.n_rows(k))).collect();
    // Until here a signal ends the command at once. From now on it waits for the file, so that no
    // half-written file stays under another name.
    let signals = Signals::watch()?;
    if out.is_stream() {
        signals.end_at_once();
    }
    write_points(
        &out,
        &[
            PointArray::new("samples", Some(snapshots.dim), &snapshots.samples[..]),
            PointArray::new("times", None, &row_times[..]),
        ],
    )?;
    note!("{} samples at {} times: {}", row_times.len(), snapshots.times.len(), out.path().display());
    if signals.is_cancelled() { Err(Error::Interrupted.into()) } else { Ok(()) }
}

/// A generated problem reads no files.
const NO_FILES: &[PathBuf] = &[];
const HYDROGEN: &str = "hydrogen";

/// The problem `name`, or an error that lists all names.
pub fn find(name: &str) -> action_matching::Result<AnalyticProblem> {
    AnalyticProblem::named(name).ok_or_else(|| {
        let names = AnalyticProblem::NAMES.map(|(name, _)| name).join(", ");
        Error::input("problem", name, "is not built in", format!("choose one of: {names}"))
    })
}
