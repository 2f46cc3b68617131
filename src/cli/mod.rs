//! The commands, one per file, and their common arguments.

mod annotate;
mod bench;
mod check;
mod completions;
mod condition;
mod device;
mod device_list;
mod devices;
mod ensemble;
mod evaluate;
pub mod exit;
mod export;
pub mod flags;
mod inspect;
mod named;
pub mod output;
mod problem;
mod query;
mod rank;
mod ranks;
mod report;
mod sample;
mod signal;
mod train;
mod validate;
mod watch;
mod workloads;

use std::process::ExitCode;

use action_matching::Error;
use clap::{Parser, Subcommand};

use self::output::note;
use self::signal::Signals;

/// Learn the dynamics of a population from snapshots: Action Matching, trained and sampled fast
#[derive(Parser)]
#[command(
    name = "amatch",
    version,
    propagate_version = true,
    after_help = format!("\
A first run, from snapshots to particles:
  amatch train examples/hematopoiesis.toml
  amatch sample runs/hematopoiesis --from snapshot:0 -n 10000 --out particles.npz
  amatch evaluate runs/hematopoiesis examples/data/mouse_hematopoiesis.npz

`amatch COMMAND --help` explains each command with examples.

{}", exit::table())
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model as a configuration describes it
    Train(train::Arguments),
    /// Compare settings by what they predict of times left out, before a training
    Validate(validate::Arguments),
    /// Move particles with a trained model
    Sample(sample::Arguments),
    /// Ask a trained model for potential, velocity and growth at points and times
    Query(query::Arguments),
    /// Write what a trained model says about each cell into a .h5ad file of AnnData
    Annotate(annotate::Arguments),
    /// Score a trained model on snapshots
    Evaluate(evaluate::Arguments),
    /// Write a model as ONNX, with its derivatives, for other programs
    Export(export::Arguments),
    /// Draw a run: a page with pictures, scores and settings, and pictures for papers
    Report(report::Arguments),
    /// Compute loss, gradients and derivatives on a given batch, for people who port models
    Check(check::Arguments),
    /// Describe a model, checkpoint, configuration, run folder or data file, and say what is wrong
    /// with a bad one
    Inspect(inspect::Arguments),
    /// Write samples of a problem whose action is known
    Problem(problem::Arguments),
    /// Measure training and sampling speed
    Bench(bench::Arguments),
    /// List the CPU and the GPUs, and say what is missing for a GPU
    Devices(devices::Arguments),
    /// Print a script that completes command lines in a shell
    Completions(completions::Arguments),
    /// Write manual pages for man
    Man(completions::ManArguments),
}

/// Runs the command.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let done = |()| ExitCode::from(exit::DONE);
    let outcome = match cli.command {
        Command::Train(arguments) => train::run(&arguments),
        Command::Validate(arguments) => validate::run(&arguments).map(done),
        Command::Sample(arguments) => sample::run(&arguments).map(done),
        Command::Query(arguments) => query::run(&arguments).map(done),
        Command::Annotate(arguments) => annotate::run(&arguments).map(done),
        Command::Evaluate(arguments) => evaluate::run(&arguments).map(done),
        Command::Export(arguments) => export::run(&arguments).map(done),
        Command::Report(arguments) => report::run(&arguments).map(done),
        Command::Check(arguments) => check::run(&arguments).map(done),
        Command::Inspect(arguments) => inspect::run(&arguments).map(done),
        Command::Problem(arguments) => problem::run(&arguments).map(done),
        Command::Bench(arguments) => bench::run(&arguments).map(done),
        Command::Devices(arguments) => devices::run(&arguments).map(done),
        Command::Completions(arguments) => completions::run(&arguments).map(done),
        Command::Man(arguments) => completions::write_pages(&arguments).map(done),
    };
    match outcome {
        Err(error) if matches!(error.downcast_ref(), Some(Error::Interrupted)) => {
            note!("interrupted");
            Ok(Signals::watch()?.exit_code())
        }
        outcome => outcome,
    }
}
