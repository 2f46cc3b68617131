//! A training run in its folder: steps, checkpoints, metrics, and resuming after an interruption.
//!
//! ```
//! use action_matching::prelude::*;
//!
//! let folder = tempfile::tempdir().expect("a folder");
//! let file = folder.path().join("cells.csv");
//! let rows: String = (0..40).map(|i| format!("{},{}\n", i % 2, i)).collect();
//! std::fs::write(&file, format!("times,x\n{rows}")).expect("written");
//!
//! let mut config = Config::default();
//! config.data.path = file;
//! config.model.hidden = Some(vec![8]);
//! config.training.steps = 5;
//! config.output.folder = folder.path().join("run");
//! let outcome = train(&CpuEngine::new(1), &config, Existing::Refuse, 1, &mut Unobserved)?;
//! assert_eq!(outcome, Outcome::Finished);
//! assert!(Model::load(&config.output.folder.join("model.safetensors")).is_ok());
//! # Ok::<(), Error>(())
//! ```

mod auto;
mod checkpoint;
mod claim;
mod folder;
mod metrics;
mod moved;
#[cfg(feature = "plot")]
mod plot;
#[cfg(not(feature = "plot"))]
#[path = "no_plot.rs"]
mod plot;
mod resume;
mod selftest;
mod stopping;
mod unexplained;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use checkpoint::Checkpoint;
pub use metrics::{Metrics, read_metrics};
pub use selftest::{Check, Loss, Motion, SelfTest, Subject, Verdict};
pub use stopping::{Best, Kept};
pub use unexplained::Unexplained;

use self::claim::Claim;
use self::folder::Content;
use self::metrics::MetricsWriter;
use self::plot::plot_loss;
use self::resume::Earlier;
use self::stopping::{Parts, Stopping};
use crate::config::{Config, Pairing};
use crate::data::{Components, Loaded, Reduction, Snapshots, load_on, load_single_on};
use crate::density_path::{Coupling, Interpolant};
use crate::engine::{Engine, StepRecord, Trainer};
use crate::error::{Error, InputKind, Result};
use crate::files::write_atomically;
use crate::model::{Coordinates, Model};
pub use crate::run_folder::RunFolder;
use crate::stage::{Stage, Watch};
use crate::training::{TrainState, Training};

/// How to treat an existing run folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leave it unchanged and report an error.
    Refuse,
    /// Continue from its newest checkpoint; start if there is no run yet.
    Resume,
    /// Remove its run and start again.
    Replace,
}

/// Receives the events of a run, and may stop it.
pub trait Observer {
    /// The run is about to take steps `from..to` on `device`; `folder` holds its results.
    fn started(&mut self, from: u64, to: u64, device: &str, folder: &Path) {
        let _ = (from, to, device, folder);
    }

    /// Called before slow preparation or an allocation on the device; [`Observer::watch`] receives
    /// its progress.
    fn preparing(&mut self, what: &str) {
        let _ = what;
    }

    /// Steps were taken; `last` is the newest.
    fn progress(&mut self, last: &StepRecord, rows_per_s: f64) {
        let _ = (last, rows_per_s);
    }

    /// A checkpoint requested by [`Observer::wants_checkpoint`] was written.
    fn saved(&mut self, step: u64) {
        let _ = step;
    }

    /// Information for the user.
    fn notice(&mut self, message: &str) {
        let _ = message;
    }

    /// A warning that the result may be worse than it looks.
    fn warning(&mut self, message: &str) {
        let _ = message;
    }

    /// All steps are taken and the model is written; `unexplained` says how well the model follows
    /// the path, if that can be computed.
    fn finished(&mut self, unexplained: Option<Unexplained>) {
        let _ = unexplained;
    }

    /// All steps of a run with early stopping are taken, and the model of one of them is kept.
    fn kept(&mut self, kept: &Kept) {
        self.notice(&kept.to_string());
    }

    /// The model is about to be tested on the snapshots that it was trained on;
    /// [`Observer::watch`] receives the progress.
    fn testing(&mut self) {}

    /// The test is done, and its file written. What it found is a warning, or information, unless
    /// this says otherwise.
    fn tested(&mut self, test: &SelfTest) {
        test.notices().for_each(|message| self.notice(message));
        test.warnings().for_each(|message| self.warning(message));
    }

    /// A watch that can cancel the run: before the first step with [`Error::Interrupted`], later
    /// with a checkpoint and [`Outcome::Stopped`].
    fn watch(&self) -> &dyn Watch {
        &()
    }

    /// True to write a checkpoint at the next opportunity and continue. Asked once for each
    /// checkpoint written.
    fn wants_checkpoint(&mut self) -> bool {
        false
    }
}

/// Ignores every event.
pub struct Unobserved;

impl Observer for Unobserved {}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are taken.
    Finished,
    /// The observer stopped the run after this many steps.
    Stopped {
        /// Steps taken.
        step: u64,
    },
}

/// Rows of a snapshot from which on [`Interpolant::Nearest`] leaves little room between them.
const MANY_ROWS: usize = 1000;

/// Duration of a chunk of steps, between two looks at the clock and the observer.
const CHUNK: Duration = Duration::from_millis(100);

/// Runs `config` on `engine` in its output folder, which it claims. Work of the host takes at most
/// `threads` threads (0 counts as 1).
///
/// # Errors
/// [`Error::Input`] and [`Error::Io`] for data, configuration and folder, before any step and
/// before a file is changed; [`Error::Interrupted`] if the observer's watch cancels before the
/// first step; [`Error::NotFinite`] if the loss becomes non-finite, with the last good checkpoint
/// kept.
pub fn train(
    engine: &dyn Engine,
    config: &Config,
    existing: Existing,
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let folder = RunFolder::new(&config.output.folder);
    recorded(config)?.to_toml()?; // a path that no configuration can hold is refused before the work
    let claim = claim(&folder, existing, observer)?;
    let stored = if existing == Existing::Resume { stored_components(&folder, config)? } else { None };
    let loaded = read_snapshots(config, stored, threads, observer)?;
    let parts = Parts::of(config, &loaded)?;
    let seen = parts.as_ref().map_or(&loaded.training, |parts| &parts.training);
    let config = &auto::decided(config, existing, &folder, seen, &loaded.coordinates, threads, observer)?;
    let masses = config.masses(&loaded.training)?;
    let fingerprint = config.fingerprint(&loaded.training)?;
    // A run that cannot be resumed is refused before the long work.
    let earlier = match existing {
        Existing::Resume => {
            resume::load(&folder, config, &loaded.training, &fingerprint, &engine.arithmetic(), observer)?
        }
        _ => Earlier::default(),
    };
    let Loaded { training: all, coordinates, components, .. } = loaded;
    let (snapshots, apart) = match parts {
        None => (all, None),
        Some(Parts { training, apart }) => (training, Some(apart)),
    };
    config.short_run().iter().for_each(|message| observer.notice(message));
    let fewest = (0..snapshots.times.len()).map(|k| snapshots.n_rows(k)).min().unwrap_or(0);
    if config.objective.path.interpolant() == Interpolant::Nearest && fewest < MANY_ROWS {
        observer.warning(&format!(
            "objective.path = \"nearest\" of snapshots of {fewest} rows: its loss has no lower bound between so few \
             rows, and the model may follow that instead of the data; set objective.path = \"linear\" and \
             objective.pairing = \"ot\""
        ));
    }
    let training = training(engine, config, (snapshots, masses), threads, observer)?;
    let stopping = apart.and_then(|apart| Stopping::new(config, &training, &apart, earlier.best));
    let state = match earlier.state {
        Some(state) => state,
        None => training.initial_state()?,
    };
    let start = state.step;
    let mut trainer = allocate(engine, &training, state, observer)?;
    if let Some(checkpoint) = &earlier.renewed {
        checkpoint.save(&folder.checkpoints())?;
    }
    prepare_folder(&folder, config, components.as_deref(), existing, observer)?;
    let metrics = MetricsWriter::open(&folder.metrics(), start, earlier.metrics_every, |line| observer.warning(line))?;
    observer.started(start, config.training.steps, &engine.describe(), folder.path());
    let arithmetic = engine.arithmetic();
    let kept = (start > 0).then_some(start);
    let mut run = Run { folder, claim, fingerprint, arithmetic, coordinates, training, metrics, stopping, kept };
    run.claim.keep_folder();
    let outcome = run.steps(engine, &mut *trainer, config, start, observer);
    run.announce_kept(&outcome, observer);
    let outcome = outcome?;
    match outcome {
        Outcome::Finished => run.report(engine, &*trainer, config.training.steps, threads, observer),
        stopped @ Outcome::Stopped { .. } => Ok(stopped),
    }
}

/// Reads the snapshots to train on, in network coordinates; `components` are those of a run that is
/// gone on with.
fn read_snapshots(
    config: &Config,
    components: Option<Components>,
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<Loaded> {
    let read = if config.objective.path.interpolant().is_generative() { load_single_on } else { load_on };
    let mut source = config.source();
    if let Some(components) = components {
        source.components = Some(Reduction::Given(Arc::new(components)));
    }
    let loaded = read(&source, &Stage::new(threads.max(1), observer.watch()))?;
    loaded.notices.iter().for_each(|notice| observer.notice(notice));
    loaded.warnings.iter().for_each(|warning| observer.warning(warning));
    Ok(loaded)
}

/// The components that the run in `folder` was trained on, if `config` asks for as many, and there
/// is a checkpoint, whose fingerprint shows whether they are still those of the data. If they are
/// gone they are fitted again, and the fingerprint tells whether they are the same.
fn stored_components(folder: &RunFolder, config: &Config) -> Result<Option<Components>> {
    let path = folder.loadings();
    let has_checkpoint = || Checkpoint::load_newest(&folder.checkpoints(), |_| ()).is_ok_and(|found| found.is_some());
    if config.data.components.is_none() || folder::look_at(&path)?.is_none() || !has_checkpoint() {
        return Ok(None);
    }
    let components = Components::load(&path)?;
    Ok(Some(components).filter(|stored| Some(stored.count()) == config.data.components))
}

/// Checks all settings against each other, and allocates everything that the steps need. No file
/// has been changed before.
fn allocate(
    engine: &dyn Engine,
    training: &Training,
    state: TrainState,
    observer: &mut dyn Observer,
) -> Result<Box<dyn Trainer>> {
    training.validate(&state)?;
    if let Some(bytes) = engine.training_memory(training)? {
        observer.preparing(&format!("taking {} MiB of {}", bytes.div_ceil(1 << 20), engine.describe()));
    }
    engine.trainer(training.clone(), state)
}

/// Claims the folder and checks that its state suits `existing`.
fn claim(folder: &RunFolder, existing: Existing, observer: &mut dyn Observer) -> Result<Claim> {
    let check = || -> Result<Content> {
        let content = folder.content()?;
        let error = |problem, fix| Error::input(folder.path(), "output.folder", problem, fix);
        let refuse = |problem, fix| Err(error(problem, fix));
        match (existing, content) {
            (Existing::Refuse, Content::Run | Content::Foreign) => Err(error(
                "already exists",
                "continue with `Existing::Resume`, replace with `Existing::Replace`, or name another folder with `output.folder`",
            )
            .of_kind(InputKind::Exists)),
            (Existing::Replace, Content::Foreign) => refuse(
                "holds files that are not a run's, and is left alone",
                "name another folder with `output.folder`",
            ),
            (Existing::Resume, Content::Foreign) => refuse(
                "holds files, but no run that could be gone on with",
                "name the folder of a run with `output.folder`",
            ),
            _ => Ok(content),
        }
    };
    // A refused folder is not changed; a folder held by a running process gets the message about
    // that.
    if !folder.is_claimed()? {
        check()?;
    }
    let claim = Claim::take(folder.path())?;
    let content = check()?;
    if existing == Existing::Resume && content == Content::Nothing {
        observer.notice(&format!("{}: there is no run yet, it starts at step 0", folder.path().display()));
    }
    Ok(claim)
}

/// The inputs of a trainer, with snapshots paired; `masses` are those of the population.
fn training(
    engine: &dyn Engine,
    config: &Config,
    (snapshots, masses): (Snapshots, Option<Vec<f64>>),
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<Training> {
    let mut training = config.training(config.unpaired_path(snapshots)?);
    // Rows kept apart take none of the mass with them.
    training.path.masses = masses;
    if training.path.couplings.is_some() {
        // Pairing takes long, so the memory that training needs on the device is checked first.
        engine.training_memory(&training)?;
        observer.preparing("pairing snapshots by optimal transport");
        let stage = Stage::new(threads, observer.watch());
        let couplings = config.couplings(&training.path, &stage)?;
        if let Pairing::Wfr { .. } = config.objective.pairing {
            note_mass_out_of_reach(&couplings, &training, observer);
        }
        training.path.couplings = Some(Arc::new(couplings));
    }
    Ok(training)
}

/// Prepares the folder for its first checkpoint.
fn prepare_folder(
    folder: &RunFolder,
    config: &Config,
    components: Option<&Components>,
    existing: Existing,
    observer: &mut dyn Observer,
) -> Result<()> {
    if existing == Existing::Replace && folder.content()? == Content::Run {
        observer.notice(&format!("{}: replacing {}", folder.path().display(), resume::describe(folder)));
        folder.clear()?;
    }
    folder.tidy()?;
    let text = recorded(config)?.to_toml()?;
    write_atomically(&folder.config(), |out| out.write_all(text.as_bytes()))?;
    components.map_or(Ok(()), |components| components.save(&folder.loadings()))
}

/// The configuration as stored in the run folder, with absolute paths, so that it works from any
/// directory.
fn recorded(config: &Config) -> Result<Config> {
    let mut config = config.clone();
    let folder = &config.output.folder;
    config.output.folder = std::path::absolute(folder).map_err(Error::io(folder, "find"))?;
    Ok(config)
}

/// Says what share of the mass is further from all of the neighboring snapshot than mass moves, if
/// that is much: it vanishes and appears instead, which may be far from what the population does.
fn note_mass_out_of_reach(couplings: &[Coupling], training: &Training, observer: &mut dyn Observer) {
    /// Share above which it is said: more than the outliers that many data have.
    const MUCH: f64 = 0.03;
    let growth = training.objective.growth;
    let worst = couplings.iter().map(Coupling::in_place).enumerate().max_by(|a, b| worse(a.1).total_cmp(&worse(b.1)));
    fn worse(shares: [f64; 2]) -> f64 {
        shares[0].max(shares[1])
    }
    if let Some((k, [vanishing, appearing])) = worst
        && worse([vanishing, appearing]) > MUCH
    {
        observer.notice(&format!(
            "pairing wfr: between snapshots {k} and {} (counted from 0), {:.0} % of the mass vanishes and {:.0} % \
             appears, because nothing is within {:.3} scales of it; mass moves up to pi / sqrt(objective.growth), \
             so lower objective.growth if it should move",
            k + 1,
            100.0 * vanishing,
            100.0 * appearing,
            std::f64::consts::PI / growth.sqrt(),
        ));
    }
}

/// A run in progress: its files and their state.
struct Run {
    folder: RunFolder,
    claim: Claim,
    fingerprint: String,
    arithmetic: String,
    coordinates: Coordinates,
    training: Training,
    metrics: MetricsWriter,
    stopping: Option<Stopping>,
    /// Step of the newest checkpoint.
    kept: Option<u64>,
}

impl Run {
    /// Takes the steps from `start` to the end of `config`.
    fn steps(
        &mut self,
        engine: &dyn Engine,
        trainer: &mut dyn Trainer,
        config: &Config,
        start: u64,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        let end = config.training.steps;
        let rows_per_step = self.training.rows_per_step() as f64;
        let (mut step, mut chunk, mut records) = (start, 1, Vec::new());
        while step < end && !self.is_spent() {
            let next_checkpoint = (step / config.output.checkpoint_every + 1) * config.output.checkpoint_every;
            let unmeasured = self.stopping.as_ref().map_or(u64::MAX, |stopping| stopping.steps_left(step));
            let n = chunk.min(next_checkpoint - step).min(end - step).min(unmeasured);
            records.clear();
            let began = Instant::now();
            let failed = match trainer.steps(n, &mut records) {
                // Its record belongs into the metrics.
                Err(Error::NotFinite { what, step, .. }) => Some((what, step)),
                taken => taken.map(|()| None)?,
            };
            let elapsed = began.elapsed();
            let rows_per_s = records.len() as f64 * rows_per_step / elapsed.as_secs_f64().max(1e-9);
            chunk = (n as f64 * CHUNK.as_secs_f64() / elapsed.as_secs_f64().max(1e-6)).clamp(1.0, 2.0 * n as f64 + 8.0)
                as u64;

            self.claim.check()?;
            let now = records.last().filter(|_| failed.is_none()).map(|last| last.step + 1);
            let held_out = now.map(|now| self.measured(engine, trainer, now, end)).transpose()?.flatten();
            for record in &records {
                let held_out = held_out.filter(|_| now == Some(record.step + 1));
                if record.step % config.output.metrics_every == 0 || record.step + 1 == end || held_out.is_some() {
                    self.metrics.write(&Metrics { held_out, ..Metrics::new(record, rows_per_s) })?;
                }
            }
            self.metrics.flush()?;
            if let Some((what, step)) = failed {
                return Err(Error::NotFinite {
                    what,
                    step,
                    fix: match self.kept {
                        Some(_) => {
                            "lower training.learning_rate, raise training.warmup_steps, or check the data for outliers; \
                             the last checkpoint is kept"
                        }
                        None => {
                            "lower training.learning_rate, raise training.warmup_steps, or check the data for outliers"
                        }
                    },
                });
            }
            let Some(last) = records.last() else { break };
            step = last.step + 1;
            observer.progress(last, rows_per_s);
            let stop = observer.watch().is_cancelled() && step < end;
            let asked = observer.wants_checkpoint();
            if step == next_checkpoint || step == end || stop || asked || self.is_spent() {
                self.save(trainer.state()?)?;
            }
            if asked {
                observer.saved(step);
            }
            if stop {
                self.plot(observer);
                return Ok(Outcome::Stopped { step });
            }
        }
        if step == start {
            // If a finished run was killed at its very end its model may be missing.
            self.save(trainer.state()?)?;
        }
        self.plot(observer);
        Ok(Outcome::Finished)
    }

    /// The distance of the rows kept apart if it is time to measure it after `step` of `end` steps;
    /// not a number if they were lost.
    fn measured(&mut self, engine: &dyn Engine, trainer: &dyn Trainer, step: u64, end: u64) -> Result<Option<f64>> {
        if !self.stopping.as_ref().is_some_and(|stopping| stopping.is_due(step, end)) {
            return Ok(None);
        }
        let model = self.model(trainer.state()?.action.ema);
        let Some(stopping) = &mut self.stopping else { return Ok(None) };
        Ok(Some(stopping.measure(engine, model, step)?.unwrap_or(f64::NAN)))
    }

    /// True if early stopping ends the run here.
    fn is_spent(&self) -> bool {
        self.stopping.as_ref().is_some_and(Stopping::is_spent)
    }

    /// The best weights so far; none without early stopping.
    fn best(&self) -> Option<&Best> {
        self.stopping.as_ref()?.best.as_ref()
    }

    /// After an error of the device or a file, names the checkpoint from which the run can
    /// continue.
    fn announce_kept(&self, outcome: &Result<Outcome>, observer: &mut dyn Observer) {
        if let (Err(Error::Device { .. } | Error::Io { .. }), Some(step)) = (outcome, self.kept) {
            observer.warning(&format!("the checkpoint of step {step} is kept: `Existing::Resume` goes on from there"));
        }
    }

    /// Measures how well the final model follows the path, and tests it. The model is saved even if
    /// this fails.
    fn report(
        &self,
        engine: &dyn Engine,
        trainer: &dyn Trainer,
        asked: u64,
        threads: usize,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        let TrainState { step: taken, action, .. } = trainer.state()?;
        let kept = self.stopping.as_ref().and_then(|stopping| stopping.kept(taken, asked));
        kept.iter().for_each(|kept| observer.kept(kept));
        let (step, parameters) =
            self.best().map_or((taken, action.ema), |Best { step, weights, .. }| (*step, weights.clone()));
        let model = self.model(parameters);
        match Unexplained::measure(engine, &model, &self.training.path, Unexplained::ROWS, self.training.seed) {
            Ok(unexplained) => observer.finished(unexplained),
            Err(error) => observer.warning(&format!("how well the model follows the path is not known: {error}")),
        }
        observer.testing();
        let subject = Subject { training: &self.training, steps: step, loss: self.last_loss(step) };
        match SelfTest::measure(engine, &model, &subject, &Stage::new(threads, observer.watch())) {
            Ok(test) => {
                self.claim.verify()?;
                test.save(&self.folder.self_test())?;
                observer.tested(&test);
            }
            Err(Error::Interrupted) => return Ok(Outcome::Stopped { step: taken }),
            Err(error) => observer.warning(&format!("the model could not be tested: {error}")),
        }
        Ok(Outcome::Finished)
    }

    /// Loss of the last tenth of the first `steps`, as far as the metrics have it.
    fn last_loss(&self, steps: u64) -> Option<Loss> {
        let metrics = read_metrics(&self.folder.metrics(), |_| ()).ok()?;
        let last = steps - steps / 10..steps;
        Loss::of(metrics.iter().filter(|line| last.contains(&line.step)).map(|line| line.loss))
    }

    /// The model with `parameters`.
    fn model(&self, parameters: Vec<f32>) -> Model {
        Model {
            architecture: self.training.architecture.clone(),
            coordinates: self.coordinates.clone(),
            objective: self.training.objective.clone(),
            parameters,
        }
    }

    /// Writes the checkpoint, then the model.
    fn save(&mut self, state: TrainState) -> Result<()> {
        let best = self.best().cloned();
        let model = self.model(best.as_ref().map_or(&state.action.ema, |best| &best.weights).clone());
        self.claim.verify()?;
        self.metrics.sync()?;
        let step = state.step;
        let (fingerprint, arithmetic) = (self.fingerprint.clone(), self.arithmetic.clone());
        Checkpoint { state, fingerprint, arithmetic, best }.save(&self.folder.checkpoints())?;
        self.kept = Some(step);
        self.claim.verify()?;
        model.save(&self.folder.model())
    }

    /// Draws the loss. A failure is only a warning.
    fn plot(&self, observer: &mut dyn Observer) {
        let drawn =
            read_metrics(&self.folder.metrics(), |_| ()).and_then(|metrics| plot_loss(&self.folder.plot(), &metrics));
        if let Err(error) = drawn {
            observer.warning(&error.to_string());
        }
    }
}
