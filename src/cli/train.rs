//! `amatch train`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use action_matching::config::Config;
use action_matching::engine::{Engine, StepRecord};
use action_matching::ranks::environment::World;
use action_matching::stage::Watch;
use action_matching::train::{
    Existing, Kept, Observer, Outcome, RunFolder, SelfTest, Unexplained, Written, train_among,
};
use action_matching::{DeviceKind, Error};

use super::device::DeviceEngine;
use super::device_list::DevicesArguments;
use super::exit;
use super::output::{Progress, note};
use super::rank::{self, Rank};
use super::report;
use super::signal::Signals;
use super::watch::OnScreen;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch train examples/hematopoiesis.toml
  amatch train run.toml --set training.steps=2000 --set model.hidden='[64, 64]' --out runs/small
  amatch train run.toml --device cuda --precision tf32
  amatch train run.toml --devices 0-3     on four GPUs, to the bits of one; or all, or 0,2
  torchrun --no-python --nproc-per-node 4 amatch train run.toml     the same; srun and mpirun too
  amatch train run.toml --strict     exit code 3 if the model fails its own test
  amatch train run.toml --resume     continue after an interruption, bit for bit as without it
  amatch train runs/small/config.toml --out runs/again     reproduce a run from its own folder

The run folder holds
  config.toml          every setting; reproduces the run
  model.safetensors    the model: a moving average of the parameters
  loadings.safetensors the components of the samples, with data.components
  checkpoints/         the last three, each with everything needed to continue
  metrics.jsonl        step, loss and its terms, gradient norm, learning rate, rows/s, time
  tensorboard/         the same numbers for `tensorboard --logdir runs`
  loss.svg             loss and kinetic energy against steps, with what is good
  selftest.json        the test that ends the run: checks with numbers, thresholds and remedies
  report.html          a page of pictures, test and settings; `amatch report` makes the long form
  README.md            a model card of Hugging Face; one that you change is kept
and with training.seeds model-2.safetensors, checkpoints-2/, metrics-2.jsonl, tensorboard-2/, … of \
further members

Ctrl-C (SIGINT), SIGTERM and SIGHUP write a checkpoint and end the run, SIGHUP with exit code 75. \
SIGUSR1 writes a checkpoint and the run continues. A second signal ends the program at once. \
--resume continues the run, or starts it if there is none yet. One process at a time writes to a \
run folder; a second one is refused.")]
pub struct Arguments {
    /// Configuration (TOML); docs/configuration.md lists its keys, of which only data.path is
    /// required
    config: PathBuf,
    /// Continue the run in the output folder from its newest checkpoint
    #[arg(long, conflicts_with = "force")]
    resume: bool,
    /// Replace the run in the output folder
    #[arg(long)]
    force: bool,
    /// End with exit code 3 if the model fails the test that ends the run
    #[arg(long)]
    strict: bool,
    /// Leave out the table of the snapshots, as --resume does
    #[arg(short, long)]
    quiet: bool,
    /// Write no report.html
    #[arg(long)]
    no_report: bool,
    /// Replace one setting, as in training.steps=2000; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Run folder [default: output.folder of the configuration, else runs/ and the file's name]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DevicesArguments,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut config = Config::read_noting(&arguments.config, &arguments.overrides, |line| note!("{line}"))?;
    if let Some(out) = &arguments.out {
        config.output.folder = out.clone();
    }
    let place = rank::place(arguments.device.ordinals()?.as_deref())?;
    let engine =
        arguments.device.open(place.as_ref().map(|(world, _)| world), config.training.precision.unwrap_or_default())?;
    if let DeviceEngine::Cuda(engine) = &engine {
        // The run folder records the precision used, so that a run reproduces it even if the
        // default changes.
        config.training.precision = Some(engine.precision());
    }
    let is_follower = place.as_ref().is_some_and(|(world, _)| world.rank > 0);
    // Signals come to all ranks of a machine: rank 0 decides, and ends the training for all.
    let signals = if is_follower { Signals::of_follower()? } else { Signals::watch()? };
    let preparation = OnScreen::new("bytes of data", &signals);
    let rank = match (place, &engine) {
        (None, _) => None,
        (Some(place), DeviceEngine::Cuda(engine)) => Some(Rank::meet(place, engine, &config, &preparation)?),
        (Some((world, _)), DeviceEngine::Cpu(_)) => return Err(gpu_for_ranks(&world).into()),
    };
    let threads = arguments.device.threads();
    if let Some(rank) = rank.as_ref().filter(|_| is_follower) {
        return rank.follow(&config, threads);
    }
    let ranks = rank.as_ref().map(Rank::ranks);
    let engine = engine.boxed();
    let existing = match (arguments.resume, arguments.force) {
        (true, _) => Existing::Resume,
        (_, true) => Existing::Replace,
        _ => Existing::Refuse,
    };
    let mut screen = Screen {
        is_quiet: arguments.quiet || arguments.resume,
        engine: (!arguments.no_report).then_some(&*engine),
        progress: None,
        preparation,
        signals: signals.clone(),
        began: Instant::now(),
        last: None,
        unexplained: None,
        kept: Vec::new(),
        test: None,
    };
    let outcome = train_among(ranks.as_ref(), &*engine, &config, existing, threads, &mut screen);
    if let Some(progress) = &screen.progress {
        progress.finish();
    }
    let (folder, n_members) = (RunFolder::new(&config.output.folder), config.training.seeds);
    screen.preparation.clear();
    let outcome = match (outcome, rank) {
        (Ok(outcome), Some(rank)) => {
            rank.end()?;
            outcome
        }
        (Err(error), Some(rank)) => return Err(rank.explained(error)),
        (outcome, None) => outcome?,
    };
    match outcome {
        Outcome::Finished => {
            if let Some(last) = screen.last {
                let seconds = screen.began.elapsed().as_secs_f64();
                let mean = if n_members > 1 { "mean loss" } else { "loss" };
                note!("{} steps, {mean} {:.5} ({ABOUT_THE_LOSS}), {seconds:.1} s", last.step + 1, last.loss);
            }
            screen.kept.iter().for_each(|kept| note!("{kept}"));
            if let Some(unexplained) = screen.unexplained {
                note!("{unexplained}{}", if n_members > 1 { " (the worst member)" } else { "" });
            }
            note!("model: {}", folder.model().display());
            if n_members > 1 {
                note!("ensemble: {n_members} models, up to {}", folder.member(n_members).model().display());
            }
            if folder.report().exists() {
                note!("report: {}", folder.report().display());
            }
            let warnings = screen.test.iter().flat_map(SelfTest::warnings);
            let n_warnings = warnings.map(|message| note!("warning: {message}")).count();
            // A model that could not be tested has not passed.
            let is_bad = n_warnings > 0 || screen.test.is_none();
            Ok(ExitCode::from(if arguments.strict && is_bad { exit::FAILED_TEST } else { exit::DONE }))
        }
        Outcome::Stopped { step } => {
            note!("stopped after {step} steps; continue with: amatch train {} --resume", rerun(arguments));
            Ok(signals.exit_code())
        }
    }
}

fn gpu_for_ranks(world: &World) -> Error {
    Error::Device {
        kind: DeviceKind::Unsupported,
        device: "cpu".into(),
        problem: format!("{} ranks of {} train together on GPUs alone", world.size, world.launcher),
        fix: "start one process, or use --device cuda where there are GPUs".into(),
    }
}

const ABOUT_THE_LOSS: &str = "less is better; it lacks the loss's constant, so it is usually negative";

/// Arguments that name the same run.
fn rerun(arguments: &Arguments) -> String {
    let quoted = |text: &str| {
        if text.contains(|c: char| c.is_whitespace() || "'\"[]{}$*".contains(c)) {
            format!("'{}'", text.replace('\'', "'\\''"))
        } else {
            text.to_string()
        }
    };
    let mut line = quoted(&arguments.config.display().to_string());
    for assignment in &arguments.overrides {
        line += &format!(" --set {}", quoted(assignment));
    }
    if let Some(out) = &arguments.out {
        line += &format!(" --out {}", quoted(&out.display().to_string()));
    }
    line + &arguments.device.again()
}

/// Shows the run on screen.
struct Screen<'a> {
    /// True to leave out the table of the snapshots.
    is_quiet: bool,
    /// What the report is drawn with, if there is to be one.
    engine: Option<&'a dyn Engine>,
    progress: Option<Progress>,
    /// Work before the first step.
    preparation: OnScreen,
    signals: Signals,
    began: Instant,
    last: Option<StepRecord>,
    unexplained: Option<Unexplained>,
    kept: Vec<Kept>,
    test: Option<SelfTest>,
}

impl Observer for Screen<'_> {
    fn started(&mut self, from: u64, to: u64, device: &str, folder: &Path) {
        self.preparation.clear();
        note!("{}: steps {from} to {to} on {device}", folder.display());
        self.began = Instant::now();
        self.progress = Some(Progress::new("steps", from, to));
    }

    fn loaded(&mut self, table: &str) {
        self.preparation.clear();
        if !self.is_quiet {
            table.lines().for_each(|line| note!("{line}"));
        }
    }

    fn preparing(&mut self, what: &str) {
        note!("{what}");
        // Reading is done: the next progress is that of comparing or pairing.
        self.preparation = OnScreen::new("parts", &self.signals);
    }

    fn progress(&mut self, last: &StepRecord, rows_per_s: f64) {
        self.last = Some(*last);
        if let Some(progress) = &mut self.progress {
            progress.at(last.step + 1, || format!("loss {:.4}, {:.2e} rows/s", last.loss, rows_per_s));
        }
    }

    fn saved(&mut self, step: u64) {
        self.notice(&format!("checkpoint of step {step} written"));
    }

    fn notice(&mut self, message: &str) {
        match &self.progress {
            Some(progress) => progress.line(message),
            None => note!("{message}"),
        }
    }

    fn warning(&mut self, message: &str) {
        self.notice(&format!("warning: {message}"));
    }

    fn finished(&mut self, unexplained: Option<Unexplained>) {
        self.unexplained = unexplained;
    }

    fn kept(&mut self, kept: &Kept) {
        self.kept.push(*kept);
    }

    fn testing(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
        self.preparation = OnScreen::new("intervals tested", &self.signals);
    }

    fn tested(&mut self, test: &SelfTest) {
        self.preparation.clear();
        test.notices().for_each(|message| self.notice(message));
        self.test = Some(test.clone());
    }

    fn report(&mut self, written: &Written<'_>) -> Option<String> {
        report::of_training(self.engine?, written, &self.signals)
    }

    fn watch(&self) -> &dyn Watch {
        &self.preparation
    }

    fn wants_checkpoint(&mut self) -> bool {
        self.signals.take_checkpoint_request()
    }
}
