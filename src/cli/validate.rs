//! `amatch validate`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use action_matching::config::Config;
use action_matching::data::{Loaded, Snapshots, load};
use action_matching::stage::{Stage, startable_threads};
use action_matching::validate::{LeaveOut, ValidateOptions, validate_within};
use action_matching::{Destination, Error};

use super::device::parse_threads;
use super::named::{Named, one_of};
use super::output::{note, print_result, replace_files};
use super::signal::Signals;
use super::watch::OnScreen;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch validate run.toml
  amatch validate run.toml --write chosen.toml && amatch train chosen.toml
  amatch validate run.toml --leave-out last --seeds 3     how well a forecast can be trusted
  amatch validate run.toml --set objective.path=spline    the path is given, the rest is compared

Candidates differ in the settings that the configuration leaves to the program: objective.path, \
objective.pairing, model.time_embedding and model.hidden where they are auto, and growth where \
the numbers of rows change. Times between the first and the last are left out in turn, and every \
candidate predicts them from the snapshot before: first (with --leave-out middle) by points of its path alone, then, of \
the best three paths, by networks with trainings of growing length, of which the worse half goes out \
each time. Times in data.hold_out are never looked at.

The squared energy distance decides; W1, between equal numbers of points, is printed beside it. \
Among candidates that tie (their mean difference is within its standard error, and within 3 %) \
the simplest is taken: no growth before growth, linear before spline, raw time before Fourier, \
few units before many, pairs by optimal transport before independent and unbalanced ones. The \
CPU does the work in f32, so that the choice depends neither on a device nor on --threads.")]
pub struct Arguments {
    /// Configuration (TOML)
    config: PathBuf,
    /// What candidates predict
    #[arg(long, default_value = "middle", value_parser = one_of(LEAVE_OUT))]
    leave_out: LeaveOut,
    /// Trainings of each candidate on each fold
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Time to take, about; the lengths of trainings are fitted to it, so the choice may then
    /// depend on the speed of the machine
    #[arg(long, value_name = "MINUTES", value_parser = parse_minutes)]
    time: Option<Duration>,
    /// Write the configuration with the choice
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Replace the file of --write
    #[arg(long, requires = "write")]
    force: bool,
    /// Replace one setting, as in training.steps=2000; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// CPU threads, at most 1024 (0: one for each core); they do not change results
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = parse_threads)]
    threads: usize,
}

const LEAVE_OUT: &[Named<LeaveOut>] = &[
    ("middle", LeaveOut::Middle, "Times between the first and the last, in turn, 24 at most"),
    ("last", LeaveOut::Last, "The last time: a forecast. Likewise the two before it, from what precedes them"),
    ("rows", LeaveOut::Rows, "A fifth of the rows of each time, three times"),
];

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let signals = Signals::watch()?;
    let config = Config::read_noting(&arguments.config, &arguments.overrides, |line| note!("{line}"))?;
    if config.objective.path.interpolant().is_generative() {
        let problem = "is generative: there is no snapshot to leave out";
        return Err(Error::input(&*arguments.config, "objective.path", problem, "set objective.path = auto").into());
    }
    let source = config.source();
    let reads: Vec<&Path> = source.files().chain([&*arguments.config]).collect();
    let check = |path| Destination::check(path, &reads, replace_files(arguments.force));
    let write = arguments.write.as_deref().map(check).transpose()?;
    let Loaded { training, coordinates, groups, notices, warnings, .. } = {
        let screen = OnScreen::new("bytes of data", &signals);
        load(&source, &screen)?
    };
    notices.iter().for_each(|notice| note!("{notice}"));
    warnings.iter().for_each(|warning| note!("warning: {warning}"));
    let options = ValidateOptions {
        leave_out: arguments.leave_out,
        seeds: arguments.seeds,
        steps: config.training.steps.min(ValidateOptions::STEPS),
        time: arguments.time,
    };
    let screen = OnScreen::new("steps", &signals);
    let stage = Stage::new(startable_threads(arguments.threads), &screen);
    let of_conditions: Vec<Snapshots> = groups.all(&training).into_iter().map(|(_, snapshots)| snapshots).collect();
    let groups = if of_conditions.is_empty() { std::slice::from_ref(&training) } else { &of_conditions };
    let validation = validate_within(&config, groups, &coordinates, &options, &stage)?;
    drop(screen);
    let candidate = &validation.chosen().candidate;
    let mut text = format!("{validation}\nTake * {candidate}, by energy distance.\n");
    if !validation.beats_no_motion() {
        let of = match arguments.leave_out {
            LeaveOut::Middle => "between its times",
            LeaveOut::Last => "after its last time; a forecast may equal no motion",
            LeaveOut::Rows => "even at its times",
        };
        text += "No candidate predicts better than the snapshot before, left where it is: do not trust a model of \
                 these data ";
        text += of;
        text += ".\n";
    }
    match &write {
        Some(out) => {
            if out.is_stream() {
                signals.end_at_once();
            }
            let chosen = candidate.applied_to(&config).to_toml()?;
            out.write(|out| out.write_all(chosen.as_bytes()))?;
            note!("configuration: {}", out.path().display());
        }
        None => {
            let assignments = candidate.assignments(&config);
            let lines = if assignments.is_empty() { "The configuration has it already." } else { "Settings:" };
            writeln!(text, "{lines}")?;
            for (key, value) in assignments {
                writeln!(text, "  {key} = {value}")?;
            }
        }
    }
    print_result(text)
}

/// A positive number of minutes, at most a year.
fn parse_minutes(text: &str) -> Result<Duration, String> {
    let minutes = text.parse::<f64>().ok().filter(|minutes| *minutes > 0.0 && *minutes < 527_040.0);
    minutes.map(|minutes| Duration::from_secs_f64(60.0 * minutes)).ok_or_else(|| "use a number of minutes > 0".into())
}
