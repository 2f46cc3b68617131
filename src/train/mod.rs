//! A training run in its folder: steps, checkpoints, metrics, and the way back after an interruption.

mod checkpoint;
mod metrics;
mod plot;
mod unexplained;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use checkpoint::Checkpoint;
pub use metrics::{Metrics, read_metrics};
pub use unexplained::Unexplained;

use self::metrics::MetricsWriter;
use self::plot::plot_loss;
use crate::config::{Config, Mass, ObjectiveConfig, Pairing};
use crate::data::{Loaded, Snapshots, load, load_single};
use crate::density_path::{Coupling, DensityPath, Interpolant, optimal_couplings, unbalanced_couplings};
use crate::engine::{Engine, NetworkState, StepRecord, TrainState, Training};
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::model::{Coordinates, Model, initial_parameters};

/// The files of a run folder.
#[derive(Clone, Debug)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// The run folder at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        RunFolder(path.into())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The complete configuration: reproduces the run.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The model: moving-average parameters of the newest checkpoint.
    pub fn model(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// Loss and the rest over the steps.
    pub fn metrics(&self) -> PathBuf {
        self.0.join("metrics.jsonl")
    }

    /// The picture of [`RunFolder::metrics`].
    pub fn plot(&self) -> PathBuf {
        self.0.join("loss.svg")
    }
}

/// What to do about a run folder that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leave it alone and report an error.
    Refuse,
    /// Go on from its newest checkpoint.
    Resume,
    /// Remove its run and start again.
    Replace,
}

/// Who watches a run, and may stop it.
pub trait Observer {
    /// The run is about to take steps `from..to` on `device`; `folder` holds its results.
    fn started(&mut self, from: u64, to: u64, device: &str, folder: &Path) {
        let _ = (from, to, device, folder);
    }

    /// Something that takes a while, or memory of a device, comes before the first step.
    fn preparing(&mut self, what: &str) {
        let _ = what;
    }

    /// Steps were taken; `last` is the newest.
    fn progress(&mut self, last: &StepRecord, rows_per_s: f64) {
        let _ = (last, rows_per_s);
    }

    /// Something the user should know.
    fn warning(&mut self, message: &str) {
        let _ = message;
    }

    /// All steps are taken and the model is written; `unexplained` says how well it follows the path, where that can be said.
    fn finished(&mut self, unexplained: Option<Unexplained>) {
        let _ = unexplained;
    }

    /// Whether to stop at the next occasion, with a checkpoint.
    fn stop(&self) -> bool {
        false
    }
}

/// An observer that looks away.
pub struct Unobserved;

impl Observer for Unobserved {}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are taken.
    Finished,
    /// The observer stopped it after this many steps.
    Stopped {
        /// Steps taken.
        step: u64,
    },
}

/// How long a chunk of steps between looks at the clock and at the observer should take.
const CHUNK: Duration = Duration::from_millis(100);

/// Runs `config` on `engine` in its output folder.
///
/// # Errors
/// [`Error::Input`] and [`Error::Io`] for data, configuration and folder, before any step; [`Error::NotFinite`] when the loss is
/// lost, with the last good checkpoint kept.
pub fn train(engine: &dyn Engine, config: &Config, existing: Existing, observer: &mut dyn Observer) -> Result<Outcome> {
    let folder = RunFolder::new(&config.output.folder);
    refuse_existing(&folder, existing)?;
    let source = config.source();
    let loaded = if config.objective.path.is_generative() { load_single(&source) } else { load(&source) };
    let Loaded { training: snapshots, coordinates, warnings, .. } = loaded?;
    warnings.iter().for_each(|warning| observer.warning(warning));
    config.short_run().iter().for_each(|message| observer.warning(message));
    let fingerprint = config.fingerprint(&snapshots);
    let snapshots_dim = snapshots.dim;
    let mut training = Training {
        architecture: config.architecture(snapshots.dim),
        objective: config.objective(),
        path: unpaired_path(&config.objective, snapshots),
        bend: config.bend(snapshots_dim),
        estimator: config.estimator(),
        time_rule: config.objective.time_rule,
        laplacian: config.laplacian(),
        n_interior: config.training.interior_rows,
        n_boundary: config.training.boundary_rows,
        optimizer: config.optimizer(),
        seed: config.training.seed,
    };
    if training.path.couplings.is_some() {
        // Pairing takes long: before it, whether the paired samples fit the device.
        engine.training_memory(&training)?;
        observer.preparing("pairing snapshots by optimal transport");
        training.path.couplings = Some(Arc::new(couplings(&config.objective, config.training.seed, &training.path)?));
    }

    let resumed = if existing == Existing::Resume { resume(&folder, &fingerprint, observer)? } else { None };
    let seed = config.training.seed;
    let state = resumed.unwrap_or_else(|| TrainState {
        bend: training.bend.as_ref().map(|bend| NetworkState::initial(bend.initial_parameters(seed))),
        ..TrainState::initial(initial_parameters(&training.architecture, seed))
    });
    let rows_per_step = training.rows_per_step() as f64;
    let mut run = Run { folder, fingerprint, coordinates, training: training.clone(), checkpointed: None };
    let (start, end) = (state.step, config.training.steps);
    // Everything that can be wrong with the settings shows here, before a file is touched.
    training.validate(&state)?;
    if let Some(bytes) = engine.training_memory(&training)? {
        observer.preparing(&format!("taking {} MiB of {}", bytes.div_ceil(1 << 20), engine.describe()));
    }
    let mut trainer = engine.trainer(training, state)?;
    run.prepare(config, existing)?;
    let mut metrics = MetricsWriter::open(&run.folder.metrics(), start)?;
    observer.started(start, end, &engine.describe(), run.folder.path());

    let (mut step, mut chunk, mut records) = (start, 1, Vec::new());
    while step < end {
        let next_checkpoint = (step / config.output.checkpoint_every + 1) * config.output.checkpoint_every;
        let n = chunk.min(next_checkpoint - step).min(end - step);
        records.clear();
        let began = Instant::now();
        trainer.steps(n, &mut records)?;
        let elapsed = began.elapsed();
        let rows_per_s = records.len() as f64 * rows_per_step / elapsed.as_secs_f64().max(1e-9);
        chunk =
            (n as f64 * CHUNK.as_secs_f64() / elapsed.as_secs_f64().max(1e-6)).clamp(1.0, 2.0 * n as f64 + 8.0) as u64;

        for record in &records {
            if record.step % config.output.metrics_every == 0 || record.step + 1 == end {
                metrics.write(&Metrics::new(record, rows_per_s))?;
            }
        }
        metrics.flush()?;
        let Some(last) = records.last() else { break };
        if !(last.loss.is_finite() && last.gradient_norm.is_finite()) {
            return Err(Error::NotFinite {
                what: if last.loss.is_finite() { "the gradient" } else { "the loss" },
                step: last.step,
                fix: "lower training.learning_rate, raise training.warmup_steps, or check the data for outliers; \
                      the last checkpoint is kept",
            });
        }
        step = last.step + 1;
        observer.progress(last, rows_per_s);
        let stop = observer.stop() && step < end;
        if step == next_checkpoint || step == end || stop {
            run.save(trainer.state()?)?;
        }
        if stop {
            plot_loss(&run.folder.plot(), &read_metrics(&run.folder.metrics())?)?;
            return Ok(Outcome::Stopped { step });
        }
    }
    if run.checkpointed != Some(step) {
        run.save(trainer.state()?)?;
    }
    plot_loss(&run.folder.plot(), &read_metrics(&run.folder.metrics())?)?;
    let model = run.model(trainer.state()?.action.ema);
    match Unexplained::measure(engine, &model, &run.training.path, Unexplained::ROWS, seed) {
        Ok(unexplained) => observer.finished(unexplained),
        // The model is there, whatever became of its measure.
        Err(error) => observer.warning(&format!("how well the model follows the path is not known: {error}")),
    }
    Ok(Outcome::Finished)
}

/// The path through `snapshots` with the masses it needs; without a single pair where it needs couplings.
fn unpaired_path(objective: &ObjectiveConfig, snapshots: Snapshots) -> DensityPath {
    let counts = |k: usize| snapshots.n_rows(k) as f64 / snapshots.n_rows(0) as f64;
    let n_times = snapshots.times.len();
    let masses: Option<Vec<f64>> = (objective.mass == Mass::Counts).then(|| (0..n_times).map(counts).collect());
    let pairs = matches!(objective.path, Interpolant::Linear | Interpolant::Spline | Interpolant::Learned);
    DensityPath {
        snapshots: Arc::new(snapshots),
        interpolant: objective.path,
        couplings: (pairs && objective.pairing != Pairing::Independent).then(Arc::default),
        masses,
    }
}

/// The couplings of `path`.
fn couplings(objective: &ObjectiveConfig, seed: u64, path: &DensityPath) -> Result<Vec<Coupling>> {
    let (snapshots, rows) = (&path.snapshots, objective.pairing_rows);
    if objective.pairing == Pairing::Unbalanced {
        let masses = path.masses.clone().unwrap_or_else(|| vec![1.0; snapshots.times.len()]);
        return unbalanced_couplings(snapshots, &masses, objective.pairing_relaxation, rows, seed);
    }
    optimal_couplings(snapshots, rows, seed)
}

fn refuse_existing(folder: &RunFolder, existing: Existing) -> Result<()> {
    let path = folder.path();
    if path.exists() && !path.is_dir() {
        return Err(Error::input(path, "output.folder", "is a file", "name another folder with --out"));
    }
    let occupied = path.is_dir() && std::fs::read_dir(path).map_err(Error::io(path, "list"))?.next().is_some();
    let is_run = folder.config().exists();
    match existing {
        Existing::Refuse if occupied => Err(Error::input(
            path,
            "output.folder",
            "already exists",
            "continue with --resume, replace with --force, or name another folder with --out",
        )),
        Existing::Replace if occupied && !is_run => Err(Error::input(
            path,
            "output.folder",
            "holds files that are not a run's, and is left alone",
            "name another folder with --out",
        )),
        Existing::Resume if !is_run => {
            Err(Error::input(path, "--resume", "there is no run in this folder", "start it without --resume"))
        }
        _ => Ok(()),
    }
}

/// The newest whole checkpoint of a run that did the same work.
fn resume(folder: &RunFolder, fingerprint: &str, observer: &mut dyn Observer) -> Result<Option<TrainState>> {
    let path = folder.checkpoints();
    if !path.exists() {
        return Ok(None); // stopped before the first checkpoint
    }
    let Some(checkpoint) = Checkpoint::load_newest(&path, |message| observer.warning(message))? else {
        return Ok(None);
    };
    if checkpoint.fingerprint != fingerprint {
        return Err(Error::input(
            folder.path(),
            "--resume",
            "the run in this folder had other settings or other data",
            "restore them (its config.toml has them all), or start again with --force or another --out",
        ));
    }
    Ok(Some(checkpoint.state))
}

/// What a run writes, and where.
struct Run {
    folder: RunFolder,
    fingerprint: String,
    coordinates: Coordinates,
    training: Training,
    checkpointed: Option<u64>,
}

impl Run {
    /// Makes the folder ready for its first file.
    fn prepare(&self, config: &Config, existing: Existing) -> Result<()> {
        let checkpoints = self.folder.checkpoints();
        if existing == Existing::Replace {
            for file in [self.folder.config(), self.folder.model(), self.folder.metrics(), self.folder.plot()] {
                remove(&file, |path| std::fs::remove_file(path))?;
            }
            remove(&checkpoints, |path| std::fs::remove_dir_all(path))?;
        }
        std::fs::create_dir_all(&checkpoints).map_err(Error::io(&checkpoints, "create the folder"))?;
        let mut config = config.clone();
        let folder = self.folder.path();
        config.output.folder = std::path::absolute(folder).map_err(Error::io(folder, "find"))?;
        write_atomically(&self.folder.config(), |out| out.write_all(config.to_toml().as_bytes()))
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
        let model = self.model(state.action.ema.clone());
        self.checkpointed = Some(state.step);
        Checkpoint { state, fingerprint: self.fingerprint.clone() }.save(&self.folder.checkpoints())?;
        model.save(&self.folder.model())
    }
}

/// Removes `path` if it is there.
fn remove(path: &Path, how: impl Fn(&Path) -> std::io::Result<()>) -> Result<()> {
    match how(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "remove")(error)),
        _ => Ok(()),
    }
}
