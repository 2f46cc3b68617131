//! `amatch report`, and the report that a training ends with.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use action_matching::cli_support::write_atomically;
use action_matching::config::{Config, Stop};
use action_matching::data::{DataSource, DividedSet, RowGroups, Snapshots, check_fits, read_divided};
use action_matching::engine::Engine;
use action_matching::evaluate::{EvaluateOptions, Report, StartFrom, evaluate_members};
use action_matching::model::Model;
use action_matching::report::{Detail, Page, Population, Subject, View, name_of, provenance, shown_conditions};
use action_matching::stage::Stage;
use action_matching::train::{Checkpoint, RunFolder, SelfTest, Written, read_metrics};
use action_matching::transport::MAX_POINTS;
use action_matching::{Destination, Error, Trained};
use anyhow::{Context, bail};

use super::condition;
use super::device::DeviceArguments;
use super::ensemble::MemberArgument;
use super::evaluate::test_data::TestData;
use super::evaluate::{Part, parts};
use super::output::{given, load, note, replace_files};
use super::sample::{snapshot_source, solver};
use super::signal::Signals;
use super::watch::OnScreen;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch report runs/hematopoiesis                      writes runs/hematopoiesis/report.html
  amatch report runs/emt --axes 2,3 --out pc34.html
  amatch report runs/cells --basis obsm/X_umap          on the UMAP of the run's .h5ad
  amatch report runs/hematopoiesis --pictures figures   each picture as SVG and PNG, for papers
  amatch report runs/doses --condition dose=0.3

The page is one file that works without a network and without scripts, in light and dark, on a phone \
and on a desktop. It shows data and particles, the flow over the level sets of the potential, loss and \
kinetic energy, what `amatch evaluate` prints, the run's own test, growth, the disagreement of an \
ensemble, settings and provenance, each with a caption that says what is good. Points are thinned \
evenly, which the captions say. What is missing, as the data of a run that has moved, is said on the \
page. `train` ends with a short form of it, without scores.")]
pub struct Arguments {
    /// Run folder, or a model file (with --out)
    model: PathBuf,
    /// Snapshots [default: the data of the run, held-out times included]
    data: Option<PathBuf>,
    /// The two dimensions that are drawn, counted from 0 [default: 0,1]
    #[arg(long, value_name = "I,J", conflicts_with = "basis")]
    axes: Option<Axes>,
    /// Draw on an embedding of the rows: an array of the run's data of two columns or more, as
    /// obsm/X_umap of a .h5ad
    #[arg(long, value_name = "NAME", conflicts_with = "data")]
    basis: Option<String>,
    /// For a model that depends on conditions: only groups of rows with these values [default: four
    /// groups, evenly chosen]
    #[arg(long, value_name = "NAME=VALUE")]
    condition: Vec<String>,
    /// Largest number of points of the scores; a random subset represents a snapshot with more
    #[arg(long, default_value_t = MAX_POINTS, value_name = "N")]
    points: usize,
    /// The page [default: report.html in the run folder, which is replaced]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Folder for the pictures, each as NAME.svg and NAME.png, on white
    #[arg(long, value_name = "FOLDER")]
    pictures: Option<PathBuf>,
    /// Replace files that exist (never a model, a file of a run, or a file that this command reads)
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    member: MemberArgument,
    #[command(flatten)]
    device: DeviceArguments,
}

/// Two dimensions.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axes([usize; 2]);

impl FromStr for Axes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = text.split_once(',').and_then(|(i, j)| Some([i.trim().parse().ok()?, j.trim().parse().ok()?]));
        pair.map(Axes).ok_or_else(|| "use two dimensions, counted from 0, as in 0,1".into())
    }
}

/// Conditions that are shown, at most.
const SHOWN: usize = 4;

/// The same if they are asked for: a page has about a megabyte for each three of them.
const SHOWN_IF_ASKED: usize = 12;

/// The scores' seed, that of `evaluate` by default.
const SEED: u64 = 0;

/// Pixels of a PNG for each of the SVG: a row of three panels has 3060.
const PIXELS: f64 = 3.0;

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let signals = Signals::watch()?;
    let is_run = arguments.model.is_dir();
    let folder = match is_run {
        true => RunFolder::new(&arguments.model),
        false => RunFolder::new(arguments.model.parent().unwrap_or(Path::new(""))),
    };
    if !is_run && arguments.out.is_none() {
        bail!("--out: is missing, and {} is no run folder (name the page)", arguments.model.display());
    }
    let mut subject =
        Subject { title: name_of(&arguments.model), axes: arguments.axes.map(|Axes(axes)| axes), ..Subject::default() };
    let reads = [folder.model(), folder.config()];
    let replace = replace_files(arguments.force);
    let page = arguments.out.as_ref().map(|path| Destination::check(path, &reads, replace)).transpose()?;
    let trained = trained(arguments, &folder, &mut subject)?;
    match &trained {
        None => describe_run(&folder, &folder.model(), Some(&Config::read(&folder.config(), &[])?), &mut subject)?,
        Some(trained) => describe_run(&folder, &trained.file, trained.config.as_ref(), &mut subject)?,
    }
    let engine = arguments.device.engine()?;
    match &trained {
        None => subject.views.push(View { name: String::new(), members: Vec::new(), population: None }),
        Some(trained) => look_at_data(arguments, &*engine, trained, &mut subject, &signals)?,
    }
    let drawn = Page::draw(&*engine, &subject, Detail::Full, &OnScreen::new("figures", &signals))?;
    let pictures = arguments.pictures.as_deref().map(|to| check_pictures(to, &drawn, replace)).transpose()?;
    let path = match page {
        Some(page) => {
            page.write(|out| out.write_all(drawn.html.as_bytes()))?;
            page.path().to_owned()
        }
        None => {
            write_atomically(&folder.report(), |out| out.write_all(drawn.html.as_bytes()))?;
            folder.report()
        }
    };
    for (figure, [svg, png]) in drawn.figures.iter().zip(pictures.iter().flatten()) {
        svg.write(|out| out.write_all(figure.svg().as_bytes()))?;
        let pixels = figure.png(PIXELS).with_context(|| format!("{}: is too large to draw", png.path().display()))?;
        png.write(|out| out.write_all(&pixels))?;
    }
    note!("report: {}", path.display());
    if let Some(pictures) = &arguments.pictures {
        note!("pictures: {} figures as SVG and PNG in {}", drawn.figures.len(), pictures.display());
    }
    Ok(())
}

/// The report that a training ends with; what hinders it is a warning.
pub fn of_training(engine: &dyn Engine, written: &Written<'_>, signals: &Signals) -> Option<String> {
    let drawn = Subject::of_run(written)
        .and_then(|subject| Page::draw(engine, &subject, Detail::Quick, &OnScreen::new("figures", signals)));
    match drawn {
        Ok(page) => Some(page.html),
        Err(error) => {
            note!("warning: there is no report: {error}");
            None
        }
    }
}

/// What was trained; `None` for a run that has not saved a model yet.
fn trained(arguments: &Arguments, folder: &RunFolder, subject: &mut Subject) -> anyhow::Result<Option<Trained>> {
    if arguments.model.is_dir() && !folder.model().exists() {
        subject.notes.push("The run has not saved a model yet: there is nothing to draw but its curves.".into());
        return Ok(None);
    }
    let path = arguments.member.of(&arguments.model)?;
    let trained = match load(&path) {
        // An ensemble whose members are not all there yet.
        Err(error) if path.is_dir() => {
            let first = load(&folder.model())?;
            subject.notes.push(format!("Only the first member is shown: {error}"));
            first
        }
        trained => trained?,
    };
    if trained.config.is_none() {
        subject.notes.push("There is no configuration beside the model.".into());
    }
    Ok(Some(trained))
}

/// What the files of a run say of it.
fn describe_run(
    folder: &RunFolder,
    model: &Path,
    config: Option<&Config>,
    subject: &mut Subject,
) -> anyhow::Result<()> {
    subject.provenance = provenance(folder, model, config)?;
    let Some(config) = config else { return Ok(()) };
    let warn = |line: &str| note!("warning: {line}");
    if folder.metrics().exists() {
        subject.metrics = read_metrics(&folder.metrics(), warn)?;
    }
    let newest = Checkpoint::load_newest(&folder.checkpoints(), warn).unwrap_or_default();
    let last = subject.metrics.last().map_or(0, |line| line.step + 1);
    let taken = newest.map_or(last, |checkpoint| checkpoint.state.step);
    subject.steps = [taken, config.training.steps];
    if taken < config.training.steps && config.training.stop == Stop::default() {
        subject.notes.push(format!(
            "The run is not finished: {taken} of {} steps are taken, and it was not tested.",
            config.training.steps
        ));
    }
    if folder.self_test().exists() {
        match SelfTest::read(&folder.self_test()) {
            Ok(test) => subject.test = Some(test),
            Err(error) => subject.notes.push(format!("The test of the run is missing: {error}")),
        }
    }
    subject.configuration = Some(config.to_toml()?);
    Ok(())
}

/// Adds views and scores to `subject`, or says why there are none.
fn look_at_data(
    arguments: &Arguments,
    engine: &dyn Engine,
    trained: &Trained,
    subject: &mut Subject,
    signals: &Signals,
) -> anyhow::Result<()> {
    let Trained { models, config, .. } = trained;
    let (members, model) = (models.clone(), &models[0]);
    let data = match Data::read(arguments, trained, signals) {
        Ok(data) => data,
        Err(error) if arguments.data.is_some() || arguments.basis.is_some() => return Err(error),
        Err(error) if matches!(error.downcast_ref(), Some(Error::Interrupted)) => return Err(error),
        Err(error) => {
            subject.notes.push(format!("The data cannot be read, so there are no points and no scores: {error}"));
            if model.coordinates.conditions.is_empty() {
                subject.views.push(View { name: String::new(), members, population: None });
            }
            return Ok(());
        }
    };
    let is_generative = config.as_ref().is_some_and(|config| config.objective.path.interpolant().is_generative());
    let start = if is_generative { StartFrom::Noise } else { StartFrom::Previous };
    let Data { test, embedding } = data;
    let (origin, groups) = (test.origin.clone(), test.groups.clone());
    let relative = |model: Model| Model { coordinates: model.coordinates.relative_to(&origin), ..model };
    let n_before = test.snapshots.samples.len() / test.snapshots.dim;
    let mut all = parts(&arguments.condition, start, members.into_iter().map(relative).collect(), test)?;
    let most = if arguments.condition.is_empty() { SHOWN } else { SHOWN_IF_ASKED };
    let (shown, note) = shown_conditions(all.len(), most);
    subject.notes.extend(note);
    let mut number = 0..;
    all.retain(|_| number.next().is_some_and(|number| shown.contains(&number)));
    let screen = OnScreen::new("flows and comparisons", signals);
    let stage = Stage::new(arguments.device.threads(), &screen);
    let (method, control) = solver(None, &model.objective, None, None, None);
    let max_comparisons = (EvaluateOptions::COMPARISONS / all.len()).max(4);
    let options = EvaluateOptions {
        start,
        max_points: arguments.points,
        max_sliced: 0, // the page has no place for it
        max_comparisons,
        method,
        control,
        seed: SEED,
    };
    for part in &all {
        match evaluate_members(engine, &part.members, &part.test.labeled(), &options, &stage) {
            Ok(report) => {
                let notes = [&part.test.notes[..], &report.notes].concat();
                subject.scores.push((part.name.clone(), Report { notes, ..report }));
            }
            Err(error @ (Error::NotFinite { .. } | Error::Input { .. })) => {
                subject.notes.push(format!("There are no scores: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
        subject.views.push(view(part, &origin, &groups, n_before, embedding.as_ref())?);
    }
    Ok(())
}

/// The data of a report.
struct Data {
    test: TestData,
    /// The rows in an embedding, with its name.
    embedding: Option<(String, DividedSet)>,
}

impl Data {
    fn read(arguments: &Arguments, trained: &Trained, signals: &Signals) -> anyhow::Result<Data> {
        let (model, config, components) = (&trained.models[0], trained.config.as_ref(), trained.components()?);
        let source = snapshot_source(arguments.data.as_deref(), config)?;
        let conditions = condition::names(source.conditions.clone(), &model.coordinates);
        let components = given(components.as_ref(), config, &source.path);
        let source = DataSource { conditions, components, ..source };
        let test = TestData::read(arguments.data.is_none(), None, config, model, &source, signals)?;
        check_fits(&source.path, test.snapshots.dim, test.columns.as_deref(), &model.coordinates)?;
        let embedding = match &arguments.basis {
            None => None,
            Some(basis) => {
                let source = DataSource { samples: basis.clone(), components: None, ..source };
                Some((basis.clone(), read_divided(&source, &OnScreen::new("bytes of data", signals))?))
            }
        };
        Ok(Data { test, embedding })
    }
}

/// The view of `part`, whose samples are differences from `origin`. `groups` are those of the rows
/// of training, of which there are `n_before`, and then of those held out.
fn view(
    part: &Part,
    origin: &[f64],
    groups: &RowGroups,
    n_before: usize,
    embedding: Option<&(String, DividedSet)>,
) -> anyhow::Result<View> {
    let back: Vec<f64> = origin.iter().map(|o| -o).collect();
    let absolute = |model: &Model| Model { coordinates: model.coordinates.relative_to(&back), ..model.clone() };
    let of_group = |snapshots: &Snapshots, first: usize| match part.group {
        None => snapshots.clone(),
        Some(k) => groups.snapshots(snapshots, first, k),
    };
    let placed = |population: Population, rows: fn(&DividedSet) -> &Snapshots, first: usize| match embedding {
        None => Ok(population),
        Some((name, set)) => population.embedded(&of_group(rows(set), first), &set.training.origin, name),
    };
    let seen = Population::of_data(&part.test.snapshots, origin);
    let mut population = placed(seen, |set| &set.training.snapshots, 0)?;
    if let Some(held_out) = &part.test.held_out {
        let held_out = Population::of_data(held_out, origin);
        population = population.with_held_out(placed(held_out, |set| &set.held_out, n_before)?);
    }
    let members = part.members.iter().map(absolute).collect();
    Ok(View { name: part.name.clone(), members, population: Some(population) })
}

/// The files of all pictures, checked before any is written.
fn check_pictures(
    folder: &Path,
    page: &Page,
    replace: action_matching::Replace,
) -> anyhow::Result<Vec<[Destination; 2]>> {
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot create the folder", folder.display()))?;
    let none: [&Path; 0] = [];
    let check = |name: String| Destination::check(&folder.join(name), &none, replace);
    let both = |name: &str| Ok([check(format!("{name}.svg"))?, check(format!("{name}.png"))?]);
    page.figures.iter().map(|figure| both(&figure.name)).collect()
}
