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
mod card;
mod checkpoint;
mod claim;
mod conditions;
mod events;
mod folder;
mod member;
mod metrics;
mod moved;
#[cfg(feature = "plot")]
mod plot;
#[cfg(not(feature = "plot"))]
#[path = "no_plot.rs"]
mod plot;
mod ranks;
mod resume;
mod selftest;
mod stopping;
mod unexplained;
mod written;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use checkpoint::Checkpoint;
pub use metrics::{Metrics, read_metrics};
#[cfg(feature = "plot")]
pub(crate) use plot::curves;
pub use ranks::{Ranks, settings};
pub use selftest::{Check, Loss, Motion, SelfTest, Subject, Verdict};
pub use stopping::{Best, Kept};
pub use unexplained::Unexplained;
pub use written::{Part, Written};

use self::card::{Card, Saved};
use self::claim::Claim;
use self::conditions::UNITS_OF_GROUP;
use self::folder::Content;
use self::member::{Member, mean_record, mean_step};
use self::metrics::MetricsWriter;
use self::plot::plot_loss;
use self::resume::Earlier;
use self::stopping::{Parts, Stopping};
use crate::config::{Config, Pairing};
use crate::data::{Components, Loaded, Reduction, Snapshots, load_on, load_single_on};
use crate::density_path::{Coupling, DensityPath, Group, Groups, Interpolant};
use crate::engine::{Engine, StepRecord, Trainer};
use crate::error::{DeviceKind, Error, InputKind, RankKind, Result};
use crate::files::write_atomically;
use crate::model::{Coordinates, Model};
pub use crate::run_folder::{MemberFiles, RunFolder};
use crate::stage::{Section, Stage, Watch};
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

    /// The snapshots are read: `table` has a line of their number and rows, and one for each time.
    /// What was guessed is a notice before.
    fn loaded(&mut self, table: &str) {
        let _ = table;
    }

    /// Called before slow preparation or an allocation on the device; [`Observer::watch`] receives
    /// its progress.
    fn preparing(&mut self, what: &str) {
        let _ = what;
    }

    /// Steps were taken; `last` is the newest. Of an ensemble it is the mean of its members, at the
    /// mean of their steps.
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
    /// the path, if that can be computed; of an ensemble, its worst member.
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

    /// The run is over and its files are written, but that of its report: a page that this returns
    /// becomes the report ([`RunFolder::report`]).
    fn report(&mut self, written: &Written<'_>) -> Option<String> {
        let _ = written;
        None
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
        /// Steps taken; of an ensemble, the mean over its members.
        step: u64,
    },
}

/// Rows of a snapshot from which on [`Interpolant::Nearest`] leaves little room between them.
const MANY_ROWS: usize = 1000;

/// Most steps of a chunk in an ensemble: a device begins with no more of them before it is asked
/// for their records.
const MOST_AT_ONCE: u64 = 1000;

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
    train_among(None, engine, config, existing, threads, observer)
}

/// [`train`] as rank 0 of `ranks`, if there are any: the others call [`follow`]. `engine` is this
/// rank's own, without the others, which tests the model and measures it.
///
/// # Errors
/// As [`train`]; [`Error::Rank`] for ranks that are lost or differ, with the last good checkpoint
/// kept.
pub fn train_among(
    ranks: Option<&Ranks<'_>>,
    engine: &dyn Engine,
    config: &Config,
    existing: Existing,
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let outcome = trained(ranks, engine, config, existing, threads, observer);
    if let (Some(ranks), Err(Error::Interrupted)) = (ranks, &outcome) {
        ranks.liveness.leave(); // nobody is lost
    }
    outcome
}

fn trained(
    ranks: Option<&Ranks<'_>>,
    engine: &dyn Engine,
    config: &Config,
    existing: Existing,
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    config.check()?;
    ranks.map_or(Ok(()), |ranks| ranks.check(config))?;
    let steps_engine = ranks.map_or(engine, |ranks| ranks.engine);
    let folder = RunFolder::new(&config.output.folder);
    recorded(config)?.to_toml()?; // a path that no configuration can hold is refused before the work
    let claim = claim(&folder, existing, observer)?;
    let stored = if existing == Existing::Resume { stored_components(&folder, config)? } else { None };
    let loaded = read_snapshots(config, stored, threads, observer)?;
    let parts = Parts::of(config, &loaded)?;
    let config = &{
        let seen = parts.as_ref().map_or(&loaded.training, |parts| &parts.training);
        auto::decided(config, existing, &folder, (seen, &loaded.groups), &loaded.coordinates, threads, observer)?
    };
    if let Some(ranks) = ranks {
        ranks.decided(config)?;
    }
    let fingerprint = fingerprint(config, &loaded)?;
    if let Some(ranks) = ranks {
        ranks.exchange.check_equal(ranks::WHAT, &fingerprint)?;
    }
    // A run that cannot be resumed is refused before the long work.
    let mut earlier = match existing {
        Existing::Resume => {
            resume::load(&folder, config, &loaded.training, &fingerprint, &engine.arithmetic(), observer)?
        }
        _ => (0..config.training.seeds).map(|_| Earlier::default()).collect(),
    };
    let components = loaded.components.clone();
    let coordinates = loaded.coordinates.clone();
    let (paths, names, apart) = paths(config, loaded, parts)?;
    config.short_run().iter().for_each(|message| observer.notice(message));
    if existing != Existing::Resume {
        ranks.and_then(|ranks| ranks.advice(config)).iter().for_each(|message| observer.notice(message));
    }
    if config.objective.path.interpolant() == Interpolant::Nearest {
        paths.warn_of_few_rows(observer);
    }
    let training = training(steps_engine, ranks, config, paths, &names, threads, observer)?;
    let trainings = (1..=config.training.seeds)
        .map(|number| Training { seed: config.training.seed_of(number), ..training.clone() });
    let mut starts = Vec::new();
    for (training, earlier) in trainings.zip(&mut earlier) {
        let state = match earlier.state.take() {
            Some(state) => state,
            None => training.initial_state()?,
        };
        let state = match ranks {
            Some(ranks) => ranks.state(state)?,
            None => state,
        };
        starts.push((training, state));
    }
    let trainers = allocate(steps_engine, &starts, observer)?;
    if let Some(checkpoint) = earlier.iter().find_map(|earlier| earlier.renewed.as_ref()) {
        checkpoint.save(&folder.checkpoints())?;
    }
    prepare_folder(&folder, config, components.as_deref(), existing, observer)?;
    let mut members = Vec::new();
    for ((number, (training, state)), earlier) in (1..).zip(&starts).zip(&mut earlier) {
        let best = earlier.best.take();
        let stopping = apart.as_ref().and_then(|apart| Stopping::new(config, training, apart, best));
        let (files, step, every) = (folder.member(number), state.step, earlier.metrics_every);
        let metrics = MetricsWriter::open(&files, step, every, |line| observer.warning(line))?;
        let fingerprint = resume::fingerprint_of(number, &fingerprint);
        members.push(Member::new(files, training.clone(), fingerprint, metrics, (step, stopping)));
    }
    let arithmetic = engine.arithmetic();
    observer.started(mean_step(&members), config.training.steps, &steps_engine.describe(), folder.path());
    let mut run = Run { folder, claim, arithmetic, coordinates, names, members };
    run.claim.keep_folder();
    let outcome = match trainers {
        Some(mut trainers) => {
            drop(starts);
            run.steps(engine, 0..trainers.len(), &mut trainers, config, observer)
        }
        None => run.one_after_another(engine, starts, config, observer),
    };
    run.announce_kept(&outcome, observer);
    let outcome = outcome?;
    if let Some(ranks) = ranks {
        ranks.liveness.leave(); // what is left is the work of this rank alone
    }
    match outcome {
        Outcome::Finished => run.report(engine, config, threads, observer),
        stopped @ Outcome::Stopped { .. } => {
            run.plot(None, observer);
            Ok(stopped)
        }
    }
}

/// Takes the steps of a training whose rank 0 calls [`train_among`]; returns when rank 0 has ended
/// it. Nothing is written.
///
/// # Errors
/// As [`train_among`].
pub fn follow(ranks: &Ranks<'_>, config: &Config, threads: usize) -> Result<()> {
    let followed = || -> Result<()> {
        config.check()?;
        ranks.check(config)?;
        let loaded = read_snapshots(config, None, threads, &mut Unobserved)?;
        let config = &ranks.decided(config)?;
        let parts = Parts::of(config, &loaded)?;
        ranks.exchange.check_equal(ranks::WHAT, &fingerprint(config, &loaded)?)?;
        let (paths, names, _) = paths(config, loaded, parts)?;
        let training = training(ranks.engine, Some(ranks), config, paths, &names, threads, &mut Unobserved)?;
        let state = ranks.state(training.initial_state()?)?;
        let mut step = state.step;
        let mut trainer = ranks.engine.trainer(training, state)?;
        while step < config.training.steps {
            let n = MOST_AT_ONCE.min(config.training.steps - step);
            trainer.steps(n, &mut ())?;
            step += n;
        }
        Ok(())
    };
    match followed() {
        Ok(()) | Err(Error::Rank { kind: RankKind::Ended, .. }) => {
            ranks.liveness.leave();
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// The fingerprint of a run of `config` on what it has loaded.
fn fingerprint(config: &Config, loaded: &Loaded) -> Result<String> {
    let n_training = loaded.training.offsets.last().copied().unwrap_or(0);
    Ok(conditions::fingerprint(config.fingerprint(&loaded.training)?, &loaded.groups, n_training))
}

/// What is trained on of `loaded`, the names of its groups, and what `parts` keep apart.
fn paths(config: &Config, loaded: Loaded, parts: Option<Parts>) -> Result<(Paths, Vec<String>, Option<Snapshots>)> {
    let masses = if parts.is_some() { config.masses(&loaded.training)? } else { None };
    let Loaded { training: all, coordinates, groups, .. } = loaded;
    let (snapshots, apart) = match parts {
        None => (all, None),
        Some(Parts { training, apart }) => (training, Some(apart)),
    };
    match conditions::split(&snapshots, &groups, &coordinates, config)? {
        None => Ok((Paths::One(snapshots, masses), Vec::new(), apart)),
        Some(groups) => {
            drop(snapshots); // the groups have the samples
            let names = groups.iter().map(|group| group.name.clone()).collect();
            Ok((Paths::OfGroups(groups, coordinates.condition_inputs()), names, apart))
        }
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
    observer.loaded(&loaded.table);
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

/// Checks all settings against each other, and allocates everything that the steps of all members
/// need; `None` if the device's memory holds some of them, but not all at once. No file has been
/// changed before.
fn allocate(
    engine: &dyn Engine,
    starts: &[(Training, TrainState)],
    observer: &mut dyn Observer,
) -> Result<Option<Vec<Box<dyn Trainer>>>> {
    let mut bytes = None;
    for (training, state) in starts {
        training.validate(state)?;
        if let Some(more) = engine.training_memory(training)? {
            bytes = Some(bytes.unwrap_or(0) + more);
        }
    }
    if let Some(bytes) = bytes {
        observer.preparing(&format!("taking {} MiB of {}", usize::div_ceil(bytes, 1 << 20), engine.describe()));
    }
    let mut trainers = Vec::new();
    for (training, state) in starts {
        match engine.trainer(training.clone(), state.clone()) {
            Err(Error::Device { kind: DeviceKind::OutOfMemory, .. }) if !trainers.is_empty() => {
                observer.notice(&format!(
                    "memory of {} holds {} of {} members: they are trained one after another",
                    engine.describe(),
                    trainers.len(),
                    starts.len()
                ));
                return Ok(None);
            }
            trainer => trainers.push(trainer?),
        }
    }
    Ok(Some(trainers))
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

/// What is trained on.
enum Paths {
    /// All snapshots, and the masses of the population if rows are kept apart, which are a part of
    /// it.
    One(Snapshots, Option<Vec<f64>>),
    /// Those of each group under its condition inputs, and the number of these.
    OfGroups(Vec<conditions::GroupSnapshots>, usize),
}

impl Paths {
    /// Warns of snapshots with too few rows for [`Interpolant::Nearest`].
    fn warn_of_few_rows(&self, observer: &mut dyn Observer) {
        let fewest = |snapshots: &Snapshots| (0..snapshots.times.len()).map(|k| snapshots.n_rows(k)).min();
        let (rows, under) = match self {
            Paths::One(snapshots, _) => (fewest(snapshots), String::new()),
            Paths::OfGroups(groups, _) => {
                let least = groups.iter().min_by_key(|group| fewest(&group.snapshots));
                least
                    .map_or((None, String::new()), |group| (fewest(&group.snapshots), format!(" under {}", group.name)))
            }
        };
        if let Some(rows) = rows.filter(|rows| *rows < MANY_ROWS) {
            observer.warning(&format!(
                "objective.path = \"nearest\" of snapshots of {rows} rows{under}: its loss has no lower bound between so \
                 few rows, and the model may follow that instead of the data; set objective.path = \"linear\" and \
                 objective.pairing = \"ot\""
            ));
        }
    }
}

/// The inputs of a trainer, with snapshots paired, which `ranks` divide if there are any; `names`
/// are those of the groups.
fn training(
    engine: &dyn Engine,
    ranks: Option<&Ranks<'_>>,
    config: &Config,
    paths: Paths,
    names: &[String],
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<Training> {
    let (path, groups, conditions) = match paths {
        Paths::One(snapshots, masses) => {
            let path = config.unpaired_path(snapshots)?;
            (DensityPath { masses: masses.or(path.masses), ..path }, None, 0)
        }
        Paths::OfGroups(groups, conditions) => {
            let group = |conditions::GroupSnapshots { condition, snapshots, .. }| -> Result<Group> {
                Ok(Group { condition, path: config.unpaired_path(snapshots)? })
            };
            let groups = Groups::new(groups.into_iter().map(group).collect::<Result<_>>()?)?;
            (groups.first().path.clone(), Some(groups), conditions)
        }
    };
    let mut training = Training { groups, ..config.training(path) };
    training.architecture.conditions = conditions;
    if let Some(bend) = &mut training.bend {
        bend.architecture.conditions = conditions;
    }
    if training.path.couplings.is_some() {
        // Pairing takes long, so the memory that training needs on the device is checked first.
        engine.training_memory(&training)?;
        observer.preparing("pairing snapshots by optimal transport");
        let paired = |path: &DensityPath, watch: &dyn Watch| -> Result<DensityPath> {
            let stage = Stage::new(threads, watch);
            let stage = ranks.map_or(stage, |ranks| stage.among(ranks.exchange));
            let couplings = config.couplings(path, &stage)?;
            Ok(DensityPath { couplings: Some(Arc::new(couplings)), ..path.clone() })
        };
        match &training.groups {
            None => training.path = paired(&training.path, observer.watch())?,
            Some(groups) => {
                let (all, watch) = (groups.all(), observer.watch());
                let total = all.len() as u64 * UNITS_OF_GROUP;
                let pair = |(k, group): (usize, &Group)| {
                    let before = k as u64 * UNITS_OF_GROUP;
                    let path = paired(&group.path, &Section { watch, before, units: UNITS_OF_GROUP, total })?;
                    Ok(Group { path, ..group.clone() })
                };
                let groups = Groups::new(all.iter().enumerate().map(pair).collect::<Result<_>>()?)?;
                (training.path, training.groups) = (groups.first().path.clone(), Some(groups));
            }
        }
        if let Pairing::Wfr { .. } = config.objective.pairing {
            note_mass_out_of_reach(&training, names, observer);
        }
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
    folder.tidy(config.training.seeds)?;
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
/// With groups, whose `names` these are, the one of the largest share.
fn note_mass_out_of_reach(training: &Training, names: &[String], observer: &mut dyn Observer) {
    /// Share above which it is said: more than the outliers that many data have.
    const MUCH: f64 = 0.03;
    let growth = training.objective.growth;
    let paths: Vec<&DensityPath> = match &training.groups {
        None => vec![&training.path],
        Some(groups) => groups.all().iter().map(|group| &group.path).collect(),
    };
    let of_path = |(group, path): (usize, &&DensityPath)| {
        let couplings = path.couplings.iter().flat_map(|couplings| couplings.iter().map(Coupling::in_place));
        couplings.enumerate().map(move |(k, shares)| (group, k, shares)).collect::<Vec<_>>()
    };
    let all = paths.iter().enumerate().flat_map(of_path);
    let worst = all.max_by(|a, b| worse(a.2).total_cmp(&worse(b.2)));
    fn worse(shares: [f64; 2]) -> f64 {
        shares[0].max(shares[1])
    }
    if let Some((group, k, [vanishing, appearing])) = worst
        && worse([vanishing, appearing]) > MUCH
    {
        observer.notice(&format!(
            "pairing wfr: {}between snapshots {k} and {} (counted from 0), {:.0} % of the mass vanishes and {:.0} % \
             appears, because nothing is within {:.3} scales of it; mass moves up to pi / sqrt(objective.growth), \
             so lower objective.growth if it should move",
            names.get(group).map_or_else(String::new, |name| format!("under {name}, ")),
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
    arithmetic: String,
    coordinates: Coordinates,
    /// The condition of each group of the training, in words.
    names: Vec<String>,
    members: Vec<Member>,
}

impl Run {
    /// Takes the steps of the members `range`, which have a trainer each, to the end of `config`:
    /// a chunk of each in turn, all at once on a device that works while the host does not wait.
    fn steps(
        &mut self,
        engine: &dyn Engine,
        range: Range<usize>,
        trainers: &mut [Box<dyn Trainer>],
        config: &Config,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        for (index, trainer) in range.clone().zip(&*trainers) {
            if self.members[index].is_over(config) {
                // If a finished run was killed at its very end its model may be missing.
                self.save(index, trainer.state()?)?;
            }
        }
        let (mut most, alone) = (1, range.len() == 1);
        while self.members[range.clone()].iter().any(|member| !member.is_over(config)) {
            let members = &mut self.members[range.clone()];
            let chunks: Vec<u64> = members.iter().map(|member| member.next_chunk(most, config)).collect();
            let began = Instant::now();
            if !alone {
                trainers.iter_mut().zip(&chunks).try_for_each(|(trainer, &n)| trainer.begin(n))?;
            }
            for ((member, trainer), &n) in members.iter_mut().zip(&mut *trainers).zip(&chunks) {
                member.take(&mut **trainer, n)?;
            }
            let seconds = began.elapsed().as_secs_f64().max(1e-9);
            let n = chunks.iter().copied().max().unwrap_or(1);
            most = (n as f64 * CHUNK.as_secs_f64() / seconds).clamp(1.0, 2.0 * n as f64 + 8.0) as u64;
            if !alone {
                most = most.min(MOST_AT_ONCE);
            }

            self.claim.check()?;
            for (member, trainer) in members.iter_mut().zip(&*trainers) {
                member.measure(engine, &**trainer, &self.coordinates, config)?;
            }
            members.iter_mut().try_for_each(|member| member.write_metrics(seconds, config))?;
            let rows_per_s = members.iter().map(Member::rows_taken).sum::<f64>() / seconds;
            if let Some((index, error)) = range.clone().find_map(|k| Some((k, self.members[k].failure()?))) {
                if self.members.len() > 1 {
                    observer.warning(&format!("{}: {error}", self.name_of(index)));
                }
                return Err(error);
            }
            if rows_per_s == 0.0 {
                break; // none of the trainers goes on
            }
            if let Some(record) = mean_record(&self.members) {
                observer.progress(&record, rows_per_s);
            }
            let stop = observer.watch().is_cancelled() && self.members.iter().any(|member| !member.is_over(config));
            let asked = observer.wants_checkpoint();
            for ((index, trainer), &n) in range.clone().zip(&*trainers).zip(&chunks) {
                if n > 0 && (self.members[index].is_due(config) || stop || asked) {
                    self.save(index, trainer.state()?)?;
                }
            }
            if asked {
                observer.saved(mean_step(&self.members));
            }
            if stop {
                return Ok(Outcome::Stopped { step: mean_step(&self.members) });
            }
        }
        Ok(Outcome::Finished)
    }

    /// [`Run::steps`] of all members, one after another, from `starts`.
    fn one_after_another(
        &mut self,
        engine: &dyn Engine,
        starts: Vec<(Training, TrainState)>,
        config: &Config,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        for (index, (training, state)) in starts.into_iter().enumerate() {
            let mut trainer = [engine.trainer(training, state)?];
            if let stopped @ Outcome::Stopped { .. } =
                self.steps(engine, index..index + 1, &mut trainer, config, observer)?
            {
                return Ok(stopped);
            }
        }
        Ok(Outcome::Finished)
    }

    /// A member in words.
    fn name_of(&self, index: usize) -> String {
        let seed = self.members[index].training.seed;
        format!("member {} of {} (training.seed = {seed})", index + 1, self.members.len())
    }

    /// After an error of the device or a file, names the checkpoint from which the run can
    /// continue.
    fn announce_kept(&self, outcome: &Result<Outcome>, observer: &mut dyn Observer) {
        let kept = self.members.iter().filter_map(|member| member.kept).min();
        if let (Err(Error::Device { .. } | Error::Io { .. } | Error::Rank { .. }), Some(step)) = (outcome, kept) {
            observer.warning(&format!("the checkpoint of step {step} is kept: `Existing::Resume` goes on from there"));
        }
    }

    /// Measures how well the final models follow the path, and tests them. They are saved even if
    /// this fails.
    fn report(
        &self,
        engine: &dyn Engine,
        config: &Config,
        threads: usize,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        let asked = config.training.steps;
        let is_single = self.members.len() == 1;
        for (number, member) in (1..).zip(&self.members) {
            let of_ensemble = (!is_single).then_some(number);
            match (member.kept_model(asked), &member.stopping) {
                (Some(kept), _) => observer.kept(&Kept { member: of_ensemble, ..kept }),
                (None, Some(_)) => {
                    let whose = of_ensemble.map_or_else(String::new, |number| format!(" of member {number}"));
                    observer.warning(&format!(
                        "training.stop: no model{whose} kept the rows on the way that were kept apart, so the last one is \
                         saved; set a smaller training.learning_rate, or see what the test of the run says"
                    ));
                }
                (None, None) => {}
            }
        }
        let models: Vec<(&Member, Model)> =
            self.members.iter().filter_map(|member| Some((member, member.written.clone()?))).collect();
        let unexplained = match self.unexplained(engine, &models) {
            Ok(unexplained) => {
                observer.finished(unexplained);
                unexplained
            }
            Err(error) => {
                observer.warning(&format!("how well the model follows the path is not known: {error}"));
                None
            }
        };
        self.plot(unexplained, observer);
        observer.testing();
        let (mut tests, total) = (Vec::new(), models.len() as u64);
        for (index, (member, model)) in models.iter().enumerate() {
            let subject = Subject { training: &member.training, steps: member.model_step(), loss: last_loss(member) };
            let all = Section { watch: observer.watch(), before: index as u64, units: 1, total };
            let watch: &dyn Watch = if total == 1 { all.watch } else { &all };
            match conditions::self_test(engine, model, &subject, &self.names, &Stage::new(threads, watch)) {
                Ok(test) => tests.push(test),
                Err(Error::Interrupted) => return Ok(Outcome::Stopped { step: member.step }),
                Err(error) => {
                    let what = if total == 1 { "the model".to_string() } else { self.name_of(index) };
                    observer.warning(&format!("{what} could not be tested: {error}"));
                    self.write_card(&models, None, config, observer);
                    return Ok(Outcome::Finished);
                }
            }
        }
        let test = SelfTest::of_members(tests, config.training.seed).map(|test| {
            let unexplained = unexplained.map(|unexplained| unexplained.share).filter(|share| share.is_finite());
            SelfTest { unexplained, ..test }
        });
        if let Some(test) = &test {
            self.claim.verify()?;
            test.save(&self.folder.self_test())?;
            observer.tested(test);
        }
        self.write_card(&models, test.as_ref(), config, observer);
        let written = Written {
            folder: &self.folder,
            config,
            arithmetic: &self.arithmetic,
            steps: mean_step(&self.members),
            parts: self.parts(models.into_iter().map(|(_, model)| model).collect())?,
            test: test.as_ref(),
        };
        if let Some(page) = observer.report(&written) {
            let write = |()| write_atomically(&self.folder.report(), |out| out.write_all(page.as_bytes()));
            if let Err(error) = self.claim.verify().and_then(write) {
                observer.warning(&error.to_string());
            }
        }
        Ok(Outcome::Finished)
    }

    /// Writes the model card, of an ensemble that of its first member. A failure is only a warning.
    fn write_card(
        &self,
        models: &[(&Member, Model)],
        test: Option<&SelfTest>,
        config: &Config,
        observer: &mut dyn Observer,
    ) {
        let Some((member, model)) = models.first() else { return };
        let training = &member.training;
        let paths: Vec<&DensityPath> = match &training.groups {
            None => vec![&training.path],
            Some(groups) => groups.all().iter().map(|group| &group.path).collect(),
        };
        let mut snapshots: Vec<(f64, usize)> = Vec::new();
        for (k, path) in paths.iter().flat_map(|path| (0..path.snapshots.times.len()).map(move |k| (k, path))) {
            let (time, rows) = (self.coordinates.data_time(path.snapshots.times[k]), path.snapshots.n_rows(k));
            match snapshots.iter_mut().find(|(known, _)| *known == time) {
                Some((_, total)) => *total += rows,
                None => snapshots.push((time, rows)),
            }
        }
        snapshots.sort_by(|a, b| a.0.total_cmp(&b.0));
        let card = Card {
            folder: &self.folder,
            config,
            model,
            snapshots,
            steps: member.model_step(),
            test,
            arithmetic: &self.arithmetic,
        };
        match self.claim.verify().and_then(|()| card.write()) {
            Ok(Saved::Yes) => {}
            Ok(Saved::Kept) => {
                let path = self.folder.card();
                observer.notice(&format!("{}: was changed, and is kept as it is", path.display()));
            }
            Err(error) => observer.warning(&error.to_string()),
        }
    }

    /// `models` with the snapshots that they were trained on, those of each condition apart.
    fn parts(&self, models: Vec<Model>) -> Result<Vec<Part<'_>>> {
        let training = &self.members[0].training;
        let Some(groups) = &training.groups else {
            return Ok(vec![Part { condition: "", models, snapshots: &training.path.snapshots }]);
        };
        let mut parts = Vec::new();
        for (group, name) in groups.all().iter().zip(&self.names) {
            let models = models.iter().map(|model| model.under_inputs(&group.condition)).collect::<Result<_>>()?;
            parts.push(Part { condition: name, models, snapshots: &group.path.snapshots });
        }
        Ok(parts)
    }

    /// How well the model follows the path; of an ensemble, its worst member.
    fn unexplained(&self, engine: &dyn Engine, models: &[(&Member, Model)]) -> Result<Option<Unexplained>> {
        let mut worst: Option<Unexplained> = None;
        for (Member { training, .. }, model) in models {
            let of_member = Unexplained::of_training(engine, model, training)?;
            // A share that is not a number is the worst.
            let is_worse = |share: f64, worst: f64| share.is_nan() || share > worst;
            let (share, before) = (of_member.map(|of| of.share), worst.map(|worst| worst.share));
            if before.is_none_or(|before| share.is_some_and(|share| is_worse(share, before))) {
                worst = of_member;
            }
        }
        Ok(worst)
    }

    /// Writes the checkpoint of a member, then its model.
    fn save(&mut self, index: usize, state: TrainState) -> Result<()> {
        let (best, step) = (self.members[index].best().cloned(), state.step);
        let Training { architecture, objective, .. } = &self.members[index].training;
        let model = Model {
            architecture: architecture.clone(),
            coordinates: self.coordinates.clone(),
            objective: objective.clone(),
            parameters: best.as_ref().map_or(&state.action.ema, |best| &best.weights).clone(),
            growth_head: state.growth.as_ref().map(|growth| growth.ema.clone()),
        };
        self.claim.verify()?;
        let member = &mut self.members[index];
        member.metrics.sync()?;
        let (fingerprint, arithmetic) = (member.fingerprint.clone(), self.arithmetic.clone());
        Checkpoint { state, fingerprint, arithmetic, best }.save(&member.files.checkpoints())?;
        member.kept = Some(step);
        self.claim.verify()?;
        model.save(&member.files.model())?;
        member.written = Some(model);
        Ok(())
    }

    /// Draws the loss, of an ensemble that of its first member. A failure is only a warning.
    fn plot(&self, unexplained: Option<Unexplained>, observer: &mut dyn Observer) {
        let metrics = read_metrics(&self.folder.metrics(), |_| ());
        let drawn = metrics.and_then(|metrics| plot_loss(&self.folder.plot(), &metrics, unexplained));
        if let Err(error) = drawn {
            observer.warning(&error.to_string());
        }
    }
}

/// Loss of the last tenth of the steps of `member` up to those of its model, as far as the metrics
/// have it.
fn last_loss(member: &Member) -> Option<Loss> {
    let (metrics, steps) = (read_metrics(&member.files.metrics(), |_| ()).ok()?, member.model_step());
    let last = steps - steps / 10..steps;
    Loss::of(metrics.iter().filter(|line| last.contains(&line.step)).map(|line| line.loss))
}
