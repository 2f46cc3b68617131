//! `amatch query`.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use action_matching::config::Config;
use action_matching::data::{
    Components, DataSource, PointArray, Reduction, check_fits, check_points_format, read_ids, read_points,
    read_row_times, read_snapshots, write_points, writes_texts,
};
use action_matching::engine::Engine;
use action_matching::model::{ConditionValue, Coordinates, Model};
use action_matching::stage::Stage;
use action_matching::{Destination, Local, StartDensity};
use anyhow::bail;

use super::condition::chosen;
use super::device::DeviceArguments;
use super::ensemble::MemberArgument;
use super::output::{is_trained, note, places, replace_files, require_arrays};
use super::sample::start_source;
use super::signal::Signals;
use super::watch::OnScreen;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch query runs/hematopoiesis --at examples/data/mouse_hematopoiesis.npz --out values.npz
  amatch query runs/hematopoiesis --at cells.csv --time 1 --out values.csv
  amatch query runs/hematopoiesis --grid 64x64 --time 0 1 2 --out grid.csv

The output holds, in the units of the data and one row per point and time,
  samples [n, d], times    the point and the time
  ids                      names of the rows of FILE, if it has any: see `sample --help`
  action                   the potential s, which has no unit
  velocity [n, d]          of particles there, without their noise
  speed                    its length
  time_derivative          the slope of s in time
  laplacian                of s, per squared unit of the data
  hjb_residual             ∂s/∂t + H(∇s) + ½σ²Δs + ½λs², per unit of time: 0 where the flow is optimal
  growth_rate              with growth: m' = growth_rate · m for the mass m of a particle
  log_density              with --log-density: of the population, in the units of the data
Without growth s, and so the residual, is known up to a function of time. Of an ensemble \
(training.seeds) these are means over its members, s, its slope in time and the residual less their \
means over the points of each time, and action_spread, velocity_spread, … are the standard \
deviations. A model of principal components has these as coordinates.")]
pub struct Arguments {
    /// Model file or run folder
    model: PathBuf,
    /// Points: a data file, whose times are those of the points unless --time says others
    #[arg(long, value_name = "FILE", required_unless_present = "grid")]
    at: Option<PathBuf>,
    /// Points of a model of two dimensions on a grid of so many, three scales of the data to each
    /// side of their center
    #[arg(long, value_name = "NxN", conflicts_with = "at", requires = "time")]
    grid: Option<Grid>,
    /// Times, each for all points [default: those of the file]
    #[arg(long, value_name = "TIME", num_args = 1.., value_delimiter = ',', allow_negative_numbers = true)]
    time: Vec<f64>,
    /// Samples in the file: an array, or columns as in data.samples [default: the columns of the
    /// run, else samples]
    #[arg(long, value_name = "NAME", requires = "at")]
    samples: Option<String>,
    /// Write log_density too: that of the first snapshot of the run's data, by Gaussian kernels at
    /// its rows (or standard normal for a path from noise), followed along the flow
    #[arg(long)]
    log_density: bool,
    /// Value of a condition of the model, each once
    #[arg(long, value_name = "NAME=VALUE", num_args = 1)]
    condition: Vec<String>,
    /// Output: .npz, .csv, .tsv, .safetensors or .h5ad; CSV to a pipe or device without a suffix
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace the output if it exists (never a model, a file of a run, or a file that this command
    /// reads)
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    member: MemberArgument,
    #[command(flatten)]
    device: DeviceArguments,
}

/// Numbers of points along the two axes of a grid.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Grid([usize; 2]);

impl FromStr for Grid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        /// Points of a grid, at most.
        const MOST: usize = 1 << 24;
        let sizes = text.split_once('x').and_then(|(a, b)| Some([a.parse().ok()?, b.parse().ok()?]));
        match sizes {
            Some([a, b]) if a >= 2 && b >= 2 && a <= MOST / b => Ok(Grid([a, b])),
            Some(_) => Err(format!("use 2 to {MOST} points, 2 along each axis or more")),
            None => Err("use two numbers of points, as in 64x64".into()),
        }
    }
}

impl Grid {
    /// Points `[n, 2]`, the second coordinate varying fastest.
    fn points(self, coordinates: &Coordinates) -> Vec<f64> {
        /// Scales of the data to each side of the center.
        const REACH: f64 = 3.0;
        let Grid([n, m]) = self;
        let along = |axis: usize, k: usize, of: usize| {
            let side = 2.0 * k as f64 / (of - 1) as f64 - 1.0;
            coordinates.mean[axis] + REACH * coordinates.scale[axis] * side
        };
        (0..n * m).flat_map(|k| [along(0, k / m, n), along(1, k % m, m)]).collect()
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let signals = Signals::watch()?;
    let trained = arguments.member.load(&arguments.model)?;
    let (ensemble, config, model) = (trained.ensemble()?, trained.config.as_ref(), &trained.models[0]);
    let condition = chosen("--condition", &arguments.condition, &model.coordinates)?;
    let components = match arguments.at.is_some() || arguments.log_density {
        true => trained.components()?,
        false => None,
    };
    let mut reads: Vec<PathBuf> = arguments.at.iter().cloned().collect();
    reads.extend(trained.files());
    let destination = Destination::check(&arguments.out, &reads, replace_files(arguments.force))?;
    check_points_format(&destination)?;
    require_arrays(&destination)?;
    let dim = model.architecture.dim;
    let screen = OnScreen::new("bytes of data", &signals);
    let (points, own_times, ids) = match (&arguments.at, arguments.grid) {
        (Some(path), _) => {
            let samples = arguments.samples.as_deref();
            let source = start_source(path, samples, &model.coordinates, config, components.as_ref())?;
            let points = read_points(&source, &screen)?;
            points.warnings.iter().for_each(|warning| note!("warning: {warning}"));
            check_fits(path, points.dim, points.columns.as_deref(), &model.coordinates)?;
            let n_rows = points.rows.len() / dim;
            let times = if arguments.time.is_empty() { read_row_times(&source, n_rows, &screen)? } else { Vec::new() };
            let ids = if writes_texts(&destination)? { read_ids(&source, n_rows, &screen)? } else { None };
            (points.positions(), times, ids)
        }
        (None, Some(_)) if dim != 2 => bail!("--grid: the model has {dim} dimensions (name points with --at)"),
        (None, Some(grid)) => (grid.points(&model.coordinates), Vec::new(), None),
        (None, None) => bail!("--at: is missing (name a file of points)"),
    };
    drop(screen);
    let n_points = points.len() / dim;
    let (x, t): (Vec<f64>, Vec<f64>) = if arguments.time.is_empty() {
        (points, own_times)
    } else {
        let t = arguments.time.iter().flat_map(|&time| std::iter::repeat_n(time, n_points)).collect();
        (points.repeat(arguments.time.len()), t)
    };
    note_outside(&t, &model.coordinates);
    let engine = arguments.device.engine()?;
    let (answer, spread) = match &ensemble {
        None => {
            let model = model.under(&condition)?;
            let local = model.local(&*engine, &x, &t)?;
            let laplacian = model.laplacian(&*engine, &x, &t)?;
            let log_density = match arguments.log_density {
                true => {
                    Some(log_density(&model, (config, components.as_ref()), &condition, (&x, &t), &*engine, &signals)?)
                }
                false => None,
            };
            (Answer { local, laplacian, log_density }, None)
        }
        Some(_) if arguments.log_density => {
            bail!(
                "--log-density: belongs to the flow of one model, and this is an ensemble (choose one with --member K)"
            )
        }
        Some(ensemble) => {
            let ensemble = ensemble.under(&condition)?;
            let [local, spread] = ensemble.local(&*engine, &x, &t)?;
            let laplacian = ensemble.laplacian(&*engine, &x, &t)?;
            let answer = |local, laplacian| Answer { local, laplacian, log_density: None };
            (answer(local, laplacian.mean), Some(answer(spread, laplacian.spread)))
        }
    };
    if destination.is_stream() {
        signals.end_at_once();
    }
    let has_growth = model.objective.growth > 0.0;
    let [at_samples, at_times] = places(config);
    let places = [at_samples.as_deref().filter(|_| components.is_none()), at_times.as_deref()];
    write(&destination, &model.coordinates, (&x, &t, places), ids.as_deref(), &answer, spread.as_ref(), has_growth)?;
    note!("{} points and times: {}", t.len(), destination.path().display());
    Ok(())
}

/// What a model says at points and times.
struct Answer {
    local: Local,
    laplacian: Vec<f64>,
    log_density: Option<Vec<f64>>,
}

/// log q of the points, from the density at the first time of the run's data.
fn log_density(
    model: &Model,
    (config, components): (Option<&Config>, Option<&Arc<Components>>),
    condition: &[ConditionValue],
    (x, t): (&[f64], &[f64]),
    engine: &dyn Engine,
    signals: &Signals,
) -> anyhow::Result<Vec<f64>> {
    let screen = OnScreen::new("particles", signals);
    let Some(config) = config else {
        bail!("--log-density: the model has no configuration beside it that names its data (give its run folder)")
    };
    let start = if config.objective.path.interpolant().is_generative() {
        StartDensity::Normal
    } else if !condition.is_empty() {
        bail!("--log-density: the model depends on conditions (annotate a .h5ad with --log-density instead)")
    } else {
        let source = config.source();
        let components = components.cloned().map(Reduction::Given).or(source.components);
        let source = DataSource { components, ..source };
        let data = read_snapshots(&source, &screen)?;
        let mut rows = data.snapshots.rows(0).to_vec();
        model.coordinates.relative_to(&data.origin).to_network(&mut rows);
        StartDensity::of_rows(model.architecture.dim, &rows)?
    };
    Ok(model.log_density(engine, x, t, &start, &Stage::new(0, &screen))?)
}

/// Warns of times at which the model was not trained.
fn note_outside(t: &[f64], coordinates: &Coordinates) {
    let [first, last] = coordinates.time_range;
    let outside = t.iter().filter(|&&t| !is_trained([first, last], t)).count();
    if outside > 0 {
        note!(
            "warning: {outside} of {} times lie outside {first} to {last}, where the model was trained: it is a guess there",
            t.len()
        );
    }
}

fn write(
    destination: &Destination,
    coordinates: &Coordinates,
    (x, t, places): (&[f64], &[f64], [Option<&str>; 2]),
    ids: Option<&[String]>,
    Answer { local, laplacian, log_density }: &Answer,
    spread: Option<&Answer>,
    has_growth: bool,
) -> anyhow::Result<()> {
    let dim = coordinates.mean.len();
    let columns = coordinates.columns.as_deref();
    let named = |what: &str| columns.map(|names| names.iter().map(|name| format!("{what}_{name}")).collect::<Vec<_>>());
    let (velocity_names, spread_names) = (named("velocity"), named("velocity_spread"));
    let speed: Vec<f64> =
        local.velocity.chunks_exact(dim).map(|v| v.iter().map(|v| v * v).sum::<f64>().sqrt()).collect();
    let mut arrays = vec![
        PointArray::new("samples", Some(dim), x).with_columns(columns).at(places[0]),
        PointArray::new("times", None, t).at(places[1]),
        PointArray::new("action", None, &local.potential[..]),
        PointArray::new("velocity", Some(dim), &local.velocity[..]).with_columns(velocity_names.as_deref()),
        PointArray::new("speed", None, &speed[..]),
        PointArray::new("time_derivative", None, &local.time_derivative[..]),
        PointArray::new("laplacian", None, &laplacian[..]),
        PointArray::new("hjb_residual", None, &local.hjb_residual[..]),
    ];
    arrays.extend(ids.filter(|ids| !ids.is_empty()).map(|ids| PointArray::ids(ids, t.len() / ids.len())));
    arrays.extend(log_density.as_ref().map(|values| PointArray::new("log_density", None, &values[..])));
    if has_growth {
        arrays.push(PointArray::new("growth_rate", None, &local.growth_rate[..]));
    }
    if let Some(Answer { local: spread, laplacian, .. }) = spread {
        arrays.extend([
            PointArray::new("action_spread", None, &spread.potential[..]),
            PointArray::new("velocity_spread", Some(dim), &spread.velocity[..]).with_columns(spread_names.as_deref()),
            PointArray::new("time_derivative_spread", None, &spread.time_derivative[..]),
            PointArray::new("laplacian_spread", None, &laplacian[..]),
            PointArray::new("hjb_residual_spread", None, &spread.hjb_residual[..]),
        ]);
        if has_growth {
            arrays.push(PointArray::new("growth_rate_spread", None, &spread.growth_rate[..]));
        }
    }
    Ok(write_points(destination.clone(), &arrays)?)
}
