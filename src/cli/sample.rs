//! `amatch sample`.

use std::path::{Path, PathBuf};

use action_matching::config::Config;
use action_matching::data::{
    DataSource, PointArray, PointValues, Points, Snapshots, check_fits, check_points_format, draw_gaussian, draw_rows,
    read_points, read_snapshots, write_points,
};
use action_matching::integrate::{Method, Noise, Plan, StepControl, Trajectories, systematic_resample};
use action_matching::laplacian::{Laplacian, LaplacianRule};
use action_matching::memory;
use action_matching::model::Model;
use action_matching::objective::Objective;
use action_matching::rng::{self, Purpose, Stream};
use action_matching::stage::Watch;
use action_matching::{Destination, Error};
use anyhow::bail;

use super::device::DeviceArguments;
use super::named::{Named, one_of};
use super::output::{load_model, note, replace_files};
use super::signal::Signals;
use super::watch::OnScreen;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch sample runs/hematopoiesis --from snapshot:0 -n 10000 --out particles.npz
  amatch sample runs/hematopoiesis --from snapshot:2 --t0 2 --t1 0 --out backward.npz
  amatch sample model.safetensors --from cells.csv --method rk4 --save-at 1 1.5 2 --out paths.npz
  amatch sample model.safetensors --from gaussian -n 1000000 --density --out points.safetensors

The output holds, in the units of the data,
  samples [times · n, d]   the n particles at the first saved time, then at the second, and so on,
                           each time in the order of the start; in 64 bits if 32 would round them
                           by more than 1e-5 of the model's scale
  times [times · n]        in 64 bits
  log_weights              with growth: the mean of exp(log_weights) is the mass, 1 at the start
  log_density              with --density
A table has the columns of the model's own data. `amatch inspect` describes the output.")]
pub struct Arguments {
    /// Model file or run folder
    model: PathBuf,
    /// Start: a file of samples; snapshot:T, the snapshot at time T of the run's data; or gaussian,
    /// standard normal in network coordinates
    #[arg(long, value_name = "FILE|snapshot:T|gaussian")]
    from: String,
    /// Number of particles, drawn with replacement from a snapshot or file [default: every row once]
    #[arg(short, value_name = "N")]
    n: Option<usize>,
    /// Start time [default: T of snapshot:T, else the first time of the model]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    t0: Option<f64>,
    /// End time [default: the last of --save-at, else the last time of the model]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    t1: Option<f64>,
    /// Method of integration [default: dopri5; stochastic-heun for a model with diffusion]
    #[arg(long, value_parser = one_of(METHODS))]
    method: Option<Method>,
    /// Equal steps from start to end [default: 100 for all methods but dopri5]
    #[arg(long, value_name = "N", conflicts_with_all = ["rtol", "atol"])]
    steps: Option<u64>,
    /// Relative tolerance of dopri5 [default: 1e-4]
    #[arg(long, value_name = "TOLERANCE")]
    rtol: Option<f64>,
    /// Absolute tolerance of dopri5, network units [default: 1e-5]
    #[arg(long, value_name = "TOLERANCE")]
    atol: Option<f64>,
    /// Times at which particles are written, in the order they are reached [default: the end]
    #[arg(long, value_name = "TIME", num_args = 1.., value_delimiter = ',', allow_negative_numbers = true)]
    save_at: Vec<f64>,
    /// Output: .npz, .npy, .csv or .safetensors; CSV to a pipe or device without a suffix
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace the output if it exists (never a model, a file of a run, or a file that this command
    /// reads)
    #[arg(long)]
    force: bool,
    /// Data for snapshot:T [default: the data of the run]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Samples in a start file: an array, or columns as in data.samples [default: the columns of the
    /// run, else samples]
    #[arg(long, value_name = "NAME")]
    samples: Option<String>,
    /// Write log_density too: from gaussian log q in data units, from other starts log q(end) − log
    /// q(start). The divergence along the flow is exact, or estimated with one Rademacher probe
    #[arg(long, value_parser = one_of(DIVERGENCES), num_args = 0..=1, default_missing_value = "exact", value_name = "DIVERGENCE")]
    density: Option<Laplacian>,
    /// Replace weighted particles at each saved time by equally weighted ones (systematic
    /// resampling)
    #[arg(long, conflicts_with = "density")]
    resample: bool,
    /// Seed of drawn particles and of noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArguments,
}

/// The methods of integration.
pub const METHODS: &[Named<Method>] = &[
    ("euler", Method::Euler, ""),
    ("heun", Method::Heun, ""),
    ("rk4", Method::Rk4, ""),
    ("dopri5", Method::Dopri5, ""),
    ("euler-maruyama", Method::EulerMaruyama, ""),
    ("stochastic-heun", Method::StochasticHeun, ""),
];

/// How a log-density follows the divergence.
const DIVERGENCES: &[Named<Laplacian>] =
    &[("exact", Laplacian::EXACT, ""), ("rademacher", Laplacian { rule: LaplacianRule::Rademacher, n_probes: 1 }, "")];

/// `method`, or the default one for the dynamics of `objective`, with `steps` equal steps or
/// tolerances.
pub fn solver(
    method: Option<Method>,
    objective: &Objective,
    steps: Option<u64>,
    rtol: Option<f64>,
    atol: Option<f64>,
) -> (Method, StepControl) {
    let method = method.unwrap_or(if objective.sigma > 0.0 { Method::StochasticHeun } else { Method::Dopri5 });
    let adaptive = StepControl::Adaptive { rtol: rtol.unwrap_or(1e-4), atol: atol.unwrap_or(1e-5) };
    let control = match (steps, method) {
        (Some(steps), _) => StepControl::Fixed { steps },
        (None, Method::Dopri5) => adaptive,
        (None, _) if rtol.is_some() || atol.is_some() => adaptive, // refused by Plan::validate
        (None, _) => StepControl::Fixed { steps: 100 },
    };
    (method, control)
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let signals = Signals::watch()?;
    let start = Start::parse(&arguments.from)?;
    let (model_file, model, config) = load_model(&arguments.model)?;
    let mut reads = vec![model_file];
    match &start {
        Start::File(path) => reads.push(path.clone()),
        Start::Snapshot(_) => {
            let source = snapshot_source(arguments.data.as_deref(), config.as_ref())?;
            reads.extend(source.files().map(Path::to_owned));
        }
        Start::Gaussian => {}
    }
    let destination = Destination::check(&arguments.out, &reads, replace_files(arguments.force))?;
    check_points_format(&destination)?;
    let engine = arguments.device.engine()?;
    let (first, last) = (model.coordinates.time_range[0], model.coordinates.time_range[1]);
    let t0 = arguments.t0.unwrap_or(if let Start::Snapshot(time) = start { time } else { first });
    let mut save_at = arguments.save_at.clone();
    match (arguments.t1, save_at.last()) {
        (Some(end), Some(&saved)) if end != saved => save_at.push(end),
        (Some(end), None) => save_at.push(end),
        (None, None) => save_at.push(last),
        _ => {}
    }
    let (method, control) = solver(arguments.method, &model.objective, arguments.steps, arguments.rtol, arguments.atol);
    let network_times = save_at.iter().map(|&time| model.coordinates.network_time(time)).collect();
    let plan = Plan {
        noise: Noise::new(arguments.seed),
        divergence: arguments.density.unwrap_or(Laplacian::EXACT),
        ..Plan::new(method, control, model.coordinates.network_time(t0), network_times)
    };
    plan.validate(&model.objective)?;
    let weighted = model.objective.growth > 0.0;
    if arguments.resample && !weighted {
        bail!("--resample: the model has no growth, so its particles carry no weights (leave it out)");
    }
    // Times this close to the ends are the ends, rounded differently.
    let slack = 1e-6 * (last - first);
    for time in save_at.iter().chain([&t0]).filter(|time| !(first - slack..=last + slack).contains(*time)) {
        note!("warning: time {time} lies outside {first} to {last}, where the model was trained");
    }

    // Values per particle and saved time: its position, the time, and other channels.
    let values = model.architecture.dim + usize::from(weighted) + usize::from(arguments.density.is_some());
    let require = |n: usize, flag: &str| {
        let least = memory::bytes(&[n, save_at.len(), values * size_of::<f32>() + size_of::<f64>()]);
        memory::require("command line", flag, least)
    };
    if let Some(n) = arguments.n {
        require(n, &format!("-n {n}"))?;
    }
    let mut out = start.particles(arguments, &model, config.as_ref(), &OnScreen::new("bytes of data", &signals))?;
    let (dim, len) = (model.architecture.dim, out.len());
    let n = len / dim;
    require(n, "--save-at")?;
    if n == 0 {
        bail!("{}: there are no particles to move (use -n 1 or more)", arguments.from);
    }
    let total = len.checked_mul(save_at.len()).filter(|&total| out.try_reserve_exact(total - len).is_ok());
    let Some(total) = total else {
        bail!(
            "{n} particles at {} saved times do not fit into memory (save fewer times, or split the run)",
            save_at.len()
        );
    };
    out.resize(total, 0.0);
    let mut log_weights = vec![0.0; if weighted { total / dim } else { 0 }];
    let mut log_density = vec![0.0; if arguments.density.is_some() { total / dim } else { 0 }];
    if arguments.density.is_some() && matches!(start, Start::Gaussian) {
        let normalizer = 0.5 * dim as f32 * std::f32::consts::TAU.ln();
        for (log_q, y) in log_density.iter_mut().zip(out[..len].chunks_exact(dim)) {
            *log_q = -normalizer - 0.5 * y.iter().map(|y| y * y).sum::<f32>();
        }
    }

    let trajectories = Trajectories {
        positions: &mut out,
        log_weights: weighted.then_some(&mut log_weights[..]),
        log_density: arguments.density.is_some().then_some(&mut log_density[..]),
    };
    if let Some(bytes) = engine.integration_memory(&model, &plan, &trajectories)? {
        note!("taking {} MiB of {}", bytes.div_ceil(1 << 20), engine.describe());
    }
    let screen = OnScreen::new("particles", &signals);
    let report = engine.integrate(&model, &plan, trajectories, &screen)?;
    drop(screen);
    if matches!(start, Start::Gaussian) {
        // dx = scale dy: the density in data units is that in network units divided by the product
        // of the scales.
        let log_volume: f64 = model.coordinates.scale.iter().map(|scale| scale.ln()).sum();
        log_density.iter_mut().for_each(|log_q| *log_q = (f64::from(*log_q) - log_volume) as f32);
    }
    if arguments.resample {
        resample(&mut out, &log_weights, n, dim, arguments.seed);
        log_weights.clear();
    }
    let wide = model.coordinates.need_f64().then(|| model.coordinates.to_data_f64(&out));
    if wide.is_none() {
        model.coordinates.to_data(&mut out);
    }
    let positions = wide.as_deref().map_or(PointValues::F32(&out), PointValues::F64);
    let times: Vec<f64> = save_at.iter().flat_map(|&time| std::iter::repeat_n(time, n)).collect();
    let mut arrays = vec![
        PointArray::new("samples", Some(dim), positions).with_columns(model.coordinates.columns.as_deref()),
        PointArray::new("times", None, &times[..]),
    ];
    for (name, values) in [("log_weights", &log_weights), ("log_density", &log_density)] {
        if !values.is_empty() {
            arrays.push(PointArray::new(name, None, &values[..]));
        }
    }
    if destination.is_stream() {
        signals.end_at_once();
    }
    write_points(&destination, &arrays)?;
    note!(
        "{n} particles from {t0} to {}, {:.1} velocities each: {}",
        save_at[save_at.len() - 1],
        report.velocity_evaluations as f64 / n as f64,
        destination.path().display()
    );
    Ok(())
}

/// Replaces the particles of each slab by equally many that systematic resampling draws from them.
fn resample(positions: &mut [f32], log_weights: &[f32], n: usize, dim: usize, seed: u64) {
    for (k, (slab, log_weights)) in positions.chunks_exact_mut(n * dim).zip(log_weights.chunks_exact(n)).enumerate() {
        let offset = f64::from(rng::unit_f32(rng::words(seed, Purpose::Resampling, k as u64, 0)[0]));
        let all = slab.to_vec();
        for (row, kept) in slab.chunks_exact_mut(dim).zip(systematic_resample(log_weights, n, offset)) {
            row.copy_from_slice(&all[kept * dim..][..dim]);
        }
    }
}

/// Start of the particles.
enum Start {
    File(PathBuf),
    Snapshot(f64),
    Gaussian,
}

impl Start {
    fn parse(from: &str) -> action_matching::Result<Start> {
        match from.strip_prefix("snapshot:") {
            Some(time) => time.parse().map(Start::Snapshot).map_err(|_| {
                Error::input("--from", "snapshot", format!("has time {time:?}"), "write a number: snapshot:0")
            }),
            None if from == "gaussian" => Ok(Start::Gaussian),
            None => Ok(Start::File(from.into())),
        }
    }

    /// The particles in network coordinates.
    fn particles(
        &self,
        arguments: &Arguments,
        model: &Model,
        config: Option<&Config>,
        watch: &dyn Watch,
    ) -> anyhow::Result<Vec<f32>> {
        let dim = model.architecture.dim;
        let (mut rows, origin) = match self {
            Start::Gaussian => {
                let Some(n) = arguments.n else { bail!("--from gaussian: needs a number of particles (use -n)") };
                return Ok(draw_gaussian(n, dim, &mut Stream::of_normals(arguments.seed, dim)));
            }
            Start::Snapshot(time) => {
                let source = snapshot_source(arguments.data.as_deref(), config)?;
                let data = read_snapshots(&source, watch)?;
                data.warnings.iter().for_each(|warning| note!("warning: {warning}"));
                check_fits(&source.path, data.snapshots.dim, data.columns.as_deref(), &model.coordinates)?;
                let k = data.snapshots.index_of(*time, &source.path, "--from")?;
                let n = arguments.n.unwrap_or(data.snapshots.n_rows(k));
                (draw_rows(&data.snapshots, k, n, &mut Stream::of_indices(arguments.seed)), data.origin)
            }
            Start::File(path) => {
                let source = start_source(path, arguments.samples.as_deref(), model, config);
                let Points { dim: file_dim, rows, origin, columns, warnings } = read_points(&source, watch)?;
                warnings.iter().for_each(|warning| note!("warning: {warning}"));
                check_fits(path, file_dim, columns.as_deref(), &model.coordinates)?;
                let rows = match arguments.n {
                    Some(n) if n * dim != rows.len() => {
                        let offsets = vec![0, rows.len() / dim];
                        let all = Snapshots { dim, times: vec![0.0], offsets, samples: rows };
                        draw_rows(&all, 0, n, &mut Stream::of_indices(arguments.seed))
                    }
                    _ => rows,
                };
                (rows, origin)
            }
        };
        model.coordinates.relative_to(&origin).to_network(&mut rows);
        Ok(rows)
    }
}

/// A start file. Its samples are named on the command line, or selected as the run selected the
/// columns of its own table.
fn start_source(path: &Path, samples: Option<&str>, model: &Model, config: Option<&Config>) -> DataSource {
    let plain = DataSource::new(path);
    let of_run = config.filter(|_| model.coordinates.columns.is_some()).map(Config::source);
    let samples = samples.map(String::from).or(of_run.map(|source| source.samples)).unwrap_or(plain.samples);
    let times = config.map_or(plain.times, |config| config.source().times);
    DataSource { samples, times, ..DataSource::new(path) }
}

/// The data named on the command line, read as the run read its own, or the run's own data.
pub fn snapshot_source(data: Option<&Path>, config: Option<&Config>) -> anyhow::Result<DataSource> {
    match (data, config) {
        (Some(path), Some(config)) => Ok(DataSource { path: path.to_owned(), times_path: None, ..config.source() }),
        (Some(path), None) => Ok(DataSource::new(path)),
        (None, Some(config)) => Ok(config.source()),
        (None, None) => bail!(
            "the model has no configuration beside it that names its data (name the file: `sample --data FILE`, `evaluate MODEL FILE`)"
        ),
    }
}
