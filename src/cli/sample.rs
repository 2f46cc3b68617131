//! `amatch sample`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use action_matching::config::Config;
use action_matching::data::{
    Components, DataSource, HoldOut, PointArray, PointValues, Points, RowGroups, Snapshots, check_fits,
    check_points_format, draw_gaussian, draw_indices, read_ids, read_points, read_snapshot_ids, read_snapshots,
    write_points, writes_texts,
};
use action_matching::engine::IntegrationReport;
use action_matching::integrate::{Method, Noise, Plan, StepControl, Trajectories, systematic_resample};
use action_matching::laplacian::{Laplacian, LaplacianRule};
use action_matching::memory;
use action_matching::model::{ConditionValue, Coordinates, Model};
use action_matching::objective::Objective;
use action_matching::rng::{self, Purpose, Stream};
use action_matching::stage::{Stage, Watch};
use action_matching::{Destination, Ensemble, Error, TrajectorySpread};
use anyhow::bail;

use super::condition::{self, check_names, chosen, list, matching, pairs};
use super::device_list::DevicesArguments;
use super::ensemble::{Disagreement, MemberArgument};
use super::named::{Named, one_of};
use super::output::{given, is_cells, is_trained, note, places, replace_files, require_arrays};
use super::signal::Signals;
use super::watch::OnScreen;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch sample runs/hematopoiesis --from snapshot:0 -n 10000 --out particles.npz
  amatch sample runs/hematopoiesis --from snapshot:2 --t0 2 --t1 0 --out backward.npz
  amatch sample model.safetensors --from cells.csv --method rk4 --save-at 1 1.5 2 --out paths.npz
  amatch sample runs/doses --from snapshot:0 --from-condition dose=0.2 --condition dose=0.3 --out new_dose.npz
  amatch sample model.safetensors --from gaussian -n 1000000 --density --out points.safetensors
  amatch sample runs/a --from snapshot:0 -n 100000000 --devices all --out many.npz

The output holds, in the units of the data,
  samples [times · n, d]   the n particles at the first saved time, then at the second, and so on,
                           each time in the order of the start; in 64 bits if 32 would round them
                           by more than 1e-5 of the model's scale
  times [times · n]        in 64 bits
  ids                      names of the rows that the particles start from, if they have any: in a
                           table a column id, cell, barcode or the like, or a first one without a
                           name; in a .h5ad its obs_names; in a .npz an array ids. Not in .npy and
                           .safetensors
  log_weights              with growth: the mean of exp(log_weights) is the mass, 1 at the start
  log_density              with --density
Of an ensemble (training.seeds) samples are the means over its members, log_weights those of the \
weights, and
  spread [times · n, d]    is their standard deviation over the members
  log_weights_spread       with growth
with the same noise for all members, so that the spread is that of the models. --member K takes one \
of them; with --all-members the particles of the first are followed by those of the second, and so \
on, and an array, member, says whose they are.
A model of principal components moves these, PC1, PC2, …; with --decode the samples are in the \
columns of the data that the components were fitted to. A table has the columns of the model's own \
data, and a .h5ad has samples and times where the run reads them in its own .h5ad. `amatch inspect` describes the output.")]
pub struct Arguments {
    /// Model file or run folder
    model: PathBuf,
    /// Start: a file of samples, all of which are particles, whatever data.where, weights and
    /// conditions the run has; snapshot:T, the snapshot at time T of the run's data; or gaussian,
    /// standard normal in network coordinates
    #[arg(long, value_name = "FILE|snapshot:T|gaussian")]
    from: String,
    /// Number of particles, drawn with replacement from a snapshot or file [default: every row
    /// once; of a snapshot with weights as many rows, drawn by these]
    #[arg(short, value_name = "N")]
    n: Option<usize>,
    /// Condition of the particles, for a model that depends on conditions; values between those of
    /// training are allowed
    #[arg(long, value_name = "NAME=VALUE")]
    condition: Vec<String>,
    /// Condition of the rows that snapshot:T takes [default: that of --condition]
    #[arg(long, value_name = "NAME=VALUE")]
    from_condition: Vec<String>,
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
    /// Output: .npz, .npy, .csv, .safetensors or .h5ad; CSV to a pipe or device without a suffix
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace the output if it exists (never a model, a file of a run, or a file that this command
    /// reads)
    #[arg(long)]
    force: bool,
    /// Data for snapshot:T [default: the data of the run]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Samples in a start file: an array, or columns as in data.samples [default: the columns of
    /// the run, else samples]
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
    /// Write positions in the columns of the data, not the components that the model was trained
    /// on; a log-density stays that of the components
    #[arg(long)]
    decode: bool,
    /// Seed of drawn particles and of noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    member: MemberArgument,
    /// Write the particles of every member of an ensemble, not mean and spread
    #[arg(long, conflicts_with = "member")]
    all_members: bool,
    #[command(flatten)]
    device: DevicesArguments,
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
    let trained = arguments.member.load(&arguments.model)?;
    let (ensemble, config, model) = (trained.ensemble()?, trained.config.as_ref(), trained.models[0].clone());
    arguments.check_members(ensemble.as_ref())?;
    let condition = chosen("--condition", &arguments.condition, &model.coordinates)?;
    let mut reads = start.files(arguments, config)?;
    // Particles from noise need no loadings unless they are decoded.
    let components = if arguments.decode || !matches!(start, Start::Gaussian) { trained.components()? } else { None };
    reads.extend(trained.files());
    if arguments.decode && components.is_none() {
        bail!("--decode: the model was not trained on components (leave it out)");
    }
    let decoder = components.as_deref().filter(|_| arguments.decode);
    let destination = Destination::check(&arguments.out, &reads, replace_files(arguments.force))?;
    check_points_format(&destination)?;
    if ensemble.is_some() {
        require_arrays(&destination)?;
    }
    let of_conditions = model.coordinates.clone();
    let model = if condition.is_empty() { model } else { model.under(&condition)? };
    let ensemble = ensemble.map(|ensemble| ensemble.under(&condition)).transpose()?;
    if !arguments.from_condition.is_empty() && !matches!(start, Start::Snapshot(_)) {
        bail!("--from-condition: chooses rows of a snapshot, and --from names none (leave it out)");
    }
    if !arguments.from_condition.is_empty() && of_conditions.conditions.is_empty() {
        bail!("--from-condition: the model depends on no conditions (leave it out)");
    }
    let engine = arguments.device.engine()?;
    let times = Times::new(arguments, &start, &model);
    let plan = plan(arguments, &model, &times);
    plan.validate(&model.objective)?;
    if arguments.resample && model.objective.growth == 0.0 {
        bail!("--resample: the model has no growth, so its particles carry no weights (leave it out)");
    }
    times.warn_outside(&model);

    let channels = Channels {
        dim: model.architecture.dim,
        weighted: model.objective.growth > 0.0,
        with_density: arguments.density.is_some(),
    };
    let n_members = ensemble.as_ref().map_or(1, |ensemble| ensemble.members().len());
    let n_written = if arguments.all_members { n_members } else { 1 };
    // Mean and spread take sums in f64, and a copy of the start.
    let n_slabs = times.saved.len() * if n_members > n_written { 7 } else { n_written };
    if let Some(n) = arguments.n {
        channels.require(n, n_slabs, &format!("-n {n}"))?;
        require_decoded(decoder, n, times.saved.len())?;
    }
    let from = StartCondition { arguments, condition: &condition, coordinates: &of_conditions };
    let Started { rows, ids } = start.particles(
        from,
        &model,
        config,
        components.as_ref(),
        writes_texts(&destination)?,
        &OnScreen::new("bytes of data", &signals),
    )?;
    let n = rows.len() / channels.dim;
    channels.require(n, n_slabs, "--save-at")?;
    require_decoded(decoder, n, times.saved.len())?;
    if n == 0 {
        bail!("{}: there are no particles to move (use -n 1 or more)", arguments.from);
    }
    let mut particles = Particles::new(rows, times.saved.len(), n_written, &channels)?;
    particles.ids = ids;
    let from_gaussian = matches!(start, Start::Gaussian);
    if from_gaussian {
        particles.set_log_density_of_normals();
    }
    particles.copy_start();
    let of_one = particles.of_member(0).whole(&model, &plan)?;
    if let Some(bytes) = engine.integration_memory(&model, &plan, of_one)? {
        note!("taking {} MiB of {}", bytes.div_ceil(1 << 20), engine.describe());
    }
    let screen = OnScreen::new("particles", &signals);
    let report = match &ensemble {
        None => engine.integrate(&model, &plan, particles.of_member(0), &screen)?,
        Some(ensemble) if arguments.all_members => {
            let mut report = IntegrationReport::default();
            for (index, model) in ensemble.members().iter().enumerate() {
                report.add(&engine.integrate(model, &plan, particles.of_member(index), &screen)?);
            }
            report
        }
        Some(ensemble) => {
            let (report, spread) = ensemble.integrate(&*engine, &plan, particles.of_member(0), &screen)?;
            particles.spread = Some(spread);
            report
        }
    };
    drop(screen);
    let disagreement = particles
        .spread
        .as_ref()
        .map(|spread| Disagreement::of(n_members, &times.saved, channels.dim, &particles.positions, spread));
    if from_gaussian {
        particles.convert_log_density(&model.coordinates);
    }
    if arguments.resample {
        particles.resample(arguments.seed);
    }
    let positions = {
        let screen = OnScreen::new("rows decoded", &signals);
        let stage = Stage::new(arguments.device.threads(), &screen);
        particles.positions(&model.coordinates, decoder, &stage)?
    };
    if destination.is_stream() {
        signals.end_at_once();
    }
    let [at_samples, at_times] = places(config);
    // The scores of fitted components are not the columns that they were fitted to.
    let at_samples = at_samples.filter(|_| components.is_none() || arguments.decode);
    let places = [at_samples.as_deref(), at_times.as_deref()];
    particles.write(&destination, &times, (&positions, places), &model.coordinates)?;
    if let Some(disagreement) = disagreement {
        disagreement.print(model.coordinates.time_range);
    }
    note!(
        "{n} particles from {} to {}, {:.1} velocities each: {}",
        times.start,
        times.saved[times.saved.len() - 1],
        report.velocity_evaluations as f64 / n as f64,
        destination.path().display()
    );
    Ok(())
}

impl Arguments {
    /// Refuses what has no meaning for an ensemble, or without one.
    fn check_members(&self, ensemble: Option<&Ensemble>) -> anyhow::Result<()> {
        if ensemble.is_none() && self.all_members {
            bail!("--all-members: {} is a single model (leave it out)", self.model.display());
        }
        let of_one = [(self.density.is_some(), "--density"), (self.resample, "--resample"), (self.decode, "--decode")];
        match of_one.into_iter().find(|(is_asked, _)| *is_asked) {
            Some((_, flag)) if ensemble.is_some() && !self.all_members => {
                bail!("{flag}: has no meaning for means over an ensemble (add --member 1, or --all-members)")
            }
            _ => Ok(()),
        }
    }
}

/// Times of a run, data units.
struct Times {
    start: f64,
    /// Times at which particles are saved, at least one; the last is the end.
    saved: Vec<f64>,
}

impl Times {
    fn new(arguments: &Arguments, start: &Start, model: &Model) -> Self {
        let [first, last] = model.coordinates.time_range;
        let start = arguments.t0.unwrap_or(if let Start::Snapshot(time) = *start { time } else { first });
        let mut saved = arguments.save_at.clone();
        match (arguments.t1, saved.last()) {
            (Some(end), Some(&last_saved)) if end != last_saved => saved.push(end),
            (Some(end), None) => saved.push(end),
            (None, None) => saved.push(last),
            _ => {}
        }
        Times { start, saved }
    }

    /// Warns of times at which the model was not trained.
    fn warn_outside(&self, model: &Model) {
        let [first, last] = model.coordinates.time_range;
        for time in self.saved.iter().chain([&self.start]).filter(|time| !is_trained([first, last], **time)) {
            note!("warning: time {time} lies outside {first} to {last}, where the model was trained");
        }
    }
}

/// The plan of integration that `arguments` ask for, from start to end of `times`.
fn plan(arguments: &Arguments, model: &Model, times: &Times) -> Plan {
    let (method, control) = solver(arguments.method, &model.objective, arguments.steps, arguments.rtol, arguments.atol);
    let network_time = |time: f64| model.coordinates.network_time(time);
    let saved = times.saved.iter().map(|&time| network_time(time)).collect();
    Plan {
        noise: Noise::new(arguments.seed),
        divergence: arguments.density.unwrap_or(Laplacian::EXACT),
        ..Plan::new(method, control, network_time(times.start), saved)
    }
}

/// The values that a particle has at each saved time, besides the time.
struct Channels {
    dim: usize,
    /// True with growth: particles have weights.
    weighted: bool,
    with_density: bool,
}

impl Channels {
    /// Refuses `n` particles at `n_times` times if they cannot fit into memory; `flag` asked for
    /// them.
    fn require(&self, n: usize, n_times: usize, flag: &str) -> action_matching::Result<()> {
        let values = self.dim + usize::from(self.weighted) + usize::from(self.with_density);
        let least = memory::bytes(&[n, n_times, values * size_of::<f32>() + size_of::<f64>()]);
        memory::require("command line", flag, least)
    }
}

/// The particles at all saved times, one slab of rows per time: of a model, of every member of an
/// ensemble, or means over the members.
struct Particles {
    dim: usize,
    /// Number of particles.
    n: usize,
    n_members: usize,
    /// `[members, times, n, dim]`, network coordinates; the first slab of each member holds the
    /// start until the run.
    positions: Vec<f32>,
    /// `[members, times, n]` with growth, otherwise empty.
    log_weights: Vec<f32>,
    /// `[members, times, n]` with a density, otherwise empty.
    log_density: Vec<f32>,
    /// Of means.
    spread: Option<TrajectorySpread>,
    /// Names of the particles, `[n]`, or of each in its slab, `[members, times, n]`; none without
    /// names.
    ids: Vec<String>,
}

impl Particles {
    /// Space for particles that start at `rows`, with log-weights and log-density of 0.
    fn new(mut rows: Vec<f32>, n_times: usize, n_members: usize, channels: &Channels) -> anyhow::Result<Self> {
        let (dim, len) = (channels.dim, rows.len());
        let n = len / dim;
        let total = len
            .checked_mul(n_times)
            .and_then(|of_one| of_one.checked_mul(n_members))
            .filter(|&total| rows.try_reserve_exact(total - len).is_ok());
        let Some(total) = total else {
            bail!("{n} particles at {n_times} saved times do not fit into memory (save fewer times, or split the run)");
        };
        rows.resize(total, 0.0);
        let zeros = |present: bool| vec![0.0; if present { total / dim } else { 0 }];
        let (log_weights, log_density) = (zeros(channels.weighted), zeros(channels.with_density));
        Ok(Particles { dim, n, n_members, positions: rows, log_weights, log_density, spread: None, ids: Vec::new() })
    }

    /// Copies the start, which the first member has, to the others.
    fn copy_start(&mut self) {
        for (values, n_start) in [(&mut self.positions, self.n * self.dim), (&mut self.log_density, self.n)] {
            let len = values.len() / self.n_members;
            if len > 0 {
                (1..self.n_members).for_each(|index| values.copy_within(..n_start, index * len));
            }
        }
    }

    /// The particles of one member.
    fn of_member(&mut self, index: usize) -> Trajectories<'_> {
        fn part(values: &mut [f32], index: usize, n_members: usize) -> Option<&mut [f32]> {
            let len = values.len() / n_members;
            values.chunks_exact_mut(len.max(1)).nth(index)
        }
        let Particles { n_members, positions, log_weights, log_density, .. } = self;
        Trajectories {
            positions: part(positions, index, *n_members).unwrap_or_default(),
            log_weights: part(log_weights, index, *n_members),
            log_density: part(log_density, index, *n_members),
        }
    }

    /// Sets the log-density at the start, if there is one, to that of standard normal rows, network
    /// units.
    fn set_log_density_of_normals(&mut self) {
        let normalizer = 0.5 * self.dim as f32 * std::f32::consts::TAU.ln();
        let start = self.positions[..self.n * self.dim].chunks_exact(self.dim);
        for (log_q, y) in self.log_density.iter_mut().zip(start) {
            *log_q = -normalizer - 0.5 * y.iter().map(|y| y * y).sum::<f32>();
        }
    }

    /// Converts the log-density from network units to data units.
    fn convert_log_density(&mut self, coordinates: &Coordinates) {
        // dx = scale dy: the density in data units is that in network units divided by the product
        // of the scales.
        let log_volume: f64 = coordinates.scale.iter().map(|scale| scale.ln()).sum();
        self.log_density.iter_mut().for_each(|log_q| *log_q = (f64::from(*log_q) - log_volume) as f32);
    }

    /// Replaces the particles of each slab by equally many that systematic resampling draws from
    /// them; they have no weights.
    fn resample(&mut self, seed: u64) {
        let mut ids = Vec::new();
        let slabs = self.positions.chunks_exact_mut(self.n * self.dim).zip(self.log_weights.chunks_exact(self.n));
        for (k, (slab, log_weights)) in slabs.enumerate() {
            let offset = f64::from(rng::unit_f32(rng::words(seed, Purpose::Resampling, k as u64, 0)[0]));
            let all = slab.to_vec();
            let drawn = systematic_resample(log_weights, self.n, offset);
            for (row, kept) in slab.chunks_exact_mut(self.dim).zip(drawn) {
                row.copy_from_slice(&all[kept * self.dim..][..self.dim]);
                ids.extend(self.ids.get(kept).cloned());
            }
        }
        self.ids = ids;
        self.log_weights.clear();
    }

    /// Takes the positions to data units, decoded if there is a `decoder`.
    fn positions(
        &mut self,
        coordinates: &Coordinates,
        decoder: Option<&Components>,
        stage: &Stage,
    ) -> action_matching::Result<Positions> {
        let mut rows = std::mem::take(&mut self.positions);
        let columns = decoder.map_or(coordinates.columns.as_deref(), Components::columns).map(<[String]>::to_vec);
        let (dim, values) = match decoder {
            None if coordinates.need_f64() => (self.dim, Values::F64(coordinates.to_data_f64(&rows))),
            _ => {
                coordinates.to_data(&mut rows);
                match decoder {
                    None => (self.dim, Values::F32(rows)),
                    Some(decoder) if decoder.need_f64() => {
                        (decoder.n_columns(), Values::F64(decoder.decode_f64(&rows, stage)?))
                    }
                    Some(decoder) => (decoder.n_columns(), Values::F32(decoder.decode(&rows, stage)?)),
                }
            }
        };
        Ok(Positions { dim, values, columns })
    }

    /// Writes the particles, which are at `positions`; a `.h5ad` has them and their times at
    /// `places`.
    fn write(
        &self,
        destination: &Destination,
        times: &Times,
        (positions, places): (&Positions, [Option<&str>; 2]),
        coordinates: &Coordinates,
    ) -> action_matching::Result<()> {
        let values = match &positions.values {
            Values::F32(values) => PointValues::F32(values),
            Values::F64(values) => PointValues::F64(values),
        };
        let n_written = self.n * times.saved.len();
        let of_one = times.saved.iter().flat_map(|&time| std::iter::repeat_n(time, self.n));
        let times: Vec<f64> = (0..self.n_members).flat_map(|_| of_one.clone()).collect();
        let mut arrays = vec![
            PointArray::new("samples", Some(positions.dim), values)
                .with_columns(positions.columns.as_deref())
                .at(places[0]),
            PointArray::new("times", None, &times[..]).at(places[1]),
        ];
        if !self.ids.is_empty() {
            arrays.push(PointArray::ids(&self.ids, times.len() / self.ids.len()));
        }
        for (name, values) in [("log_weights", &self.log_weights), ("log_density", &self.log_density)] {
            if !values.is_empty() {
                arrays.push(PointArray::new(name, None, &values[..]));
            }
        }
        let members: Vec<f64> =
            (1..=self.n_members).flat_map(|number| std::iter::repeat_n(number as f64, n_written)).collect();
        if self.n_members > 1 {
            arrays.push(PointArray::new("member", None, &members[..]));
        }
        let columns: Option<Vec<String>> =
            positions.columns.as_ref().map(|columns| columns.iter().map(|name| format!("spread_{name}")).collect());
        let scale = coordinates.scale.iter().cycle();
        let spread: Vec<f32> = (self.spread.iter())
            .flat_map(|spread| spread.positions.iter().zip(scale.clone()))
            .map(|(&spread, scale)| (f64::from(spread) * scale) as f32)
            .collect();
        if let Some(TrajectorySpread { log_weights, .. }) = &self.spread {
            arrays.push(PointArray::new("spread", Some(self.dim), &spread[..]).with_columns(columns.as_deref()));
            if let Some(log_weights) = log_weights {
                arrays.push(PointArray::new("log_weights_spread", None, &log_weights[..]));
            }
        }
        write_points(destination, &arrays)
    }
}

/// Positions in data units, `[times, n, dim]`.
struct Positions {
    dim: usize,
    values: Values,
    columns: Option<Vec<String>>,
}

enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// Refuses to decode `n` particles at `n_times` times if they cannot fit into memory.
fn require_decoded(decoder: Option<&Components>, n: usize, n_times: usize) -> action_matching::Result<()> {
    let Some(decoder) = decoder else { return Ok(()) };
    let size = if decoder.need_f64() { size_of::<f64>() } else { size_of::<f32>() };
    let bytes = memory::bytes(&[n, n_times, decoder.n_columns() * size]);
    memory::require("command line", &format!("--decode of {n} particles at {n_times} times"), bytes)
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

    /// The files that hold the start.
    fn files(&self, arguments: &Arguments, config: Option<&Config>) -> anyhow::Result<Vec<PathBuf>> {
        match self {
            Start::File(path) => Ok(vec![path.clone()]),
            Start::Snapshot(_) => {
                let source = snapshot_source(arguments.data.as_deref(), config)?;
                Ok(source.files().map(Path::to_owned).collect())
            }
            Start::Gaussian => Ok(Vec::new()),
        }
    }

    /// The particles in network coordinates, with names if these are wanted and known.
    fn particles(
        &self,
        from: StartCondition<'_>,
        model: &Model,
        config: Option<&Config>,
        components: Option<&Arc<Components>>,
        with_ids: bool,
        watch: &dyn Watch,
    ) -> anyhow::Result<Started> {
        let arguments = from.arguments;
        let dim = model.architecture.dim;
        let mut ids = None;
        let (mut rows, origin) = match self {
            Start::Gaussian => {
                let Some(n) = arguments.n else { bail!("--from gaussian: needs a number of particles (use -n)") };
                let rows = draw_gaussian(n, dim, &mut Stream::of_normals(arguments.seed, dim));
                return Ok(Started { rows, ids: Vec::new() });
            }
            Start::Snapshot(time) => {
                let source = snapshot_source(arguments.data.as_deref(), config)?;
                let conditions = condition::names(source.conditions.clone(), from.coordinates);
                let source = DataSource { conditions, components: given(components, config, &source.path), ..source };
                let data = read_snapshots(&source, watch)?;
                data.warnings.iter().for_each(|warning| note!("warning: {warning}"));
                check_fits(&source.path, data.snapshots.dim, data.columns.as_deref(), &model.coordinates)?;
                let group = from.group(&data.groups)?;
                let snapshots = match group {
                    None => Cow::Borrowed(&data.snapshots),
                    Some(group) => Cow::Owned(data.groups.snapshots(&data.snapshots, 0, group)),
                };
                let k = snapshots.index_of(*time, &source.path, "--from")?;
                let n = arguments.n.unwrap_or(snapshots.n_rows(k));
                let drawn = draw_indices(&snapshots, k, n, &mut Stream::of_indices(arguments.seed));
                if with_ids {
                    let n_rows = data.snapshots.samples.len() / dim;
                    ids = read_snapshot_ids(&source, n_rows, watch)?.map(|all| {
                        let of_group = group.map(|group| data.groups.rows(&data.snapshots, 0, group));
                        let row_of_all = |row: usize| of_group.as_ref().map_or(row, |rows| rows[row]);
                        drawn.iter().map(|row| all[row_of_all(snapshots.offsets[k] + row)].clone()).collect()
                    });
                }
                let rows = snapshots.rows(k);
                (drawn.iter().flat_map(|row| &rows[row * dim..][..dim]).copied().collect(), data.origin)
            }
            Start::File(path) => {
                let source = start_source(path, arguments.samples.as_deref(), from.coordinates, config, components)?;
                let Points { dim: file_dim, rows, origin, columns, warnings } = read_points(&source, watch)?;
                warnings.iter().for_each(|warning| note!("warning: {warning}"));
                check_fits(path, file_dim, columns.as_deref(), &model.coordinates)?;
                let n_rows = rows.len() / dim;
                ids = if with_ids { read_ids(&source, n_rows, watch)? } else { None };
                let rows = match arguments.n {
                    Some(n) if n != n_rows => {
                        let (times, offsets) = (vec![0.0], vec![0, n_rows]);
                        let all = Snapshots { dim, times, offsets, samples: rows, mass: Default::default() };
                        let drawn = draw_indices(&all, 0, n, &mut Stream::of_indices(arguments.seed));
                        ids = ids.map(|ids| drawn.iter().map(|&row| ids[row].clone()).collect());
                        drawn.iter().flat_map(|&row| &all.samples[row * dim..][..dim]).copied().collect()
                    }
                    _ => rows,
                };
                (rows, origin)
            }
        };
        model.coordinates.relative_to(&origin).to_network(&mut rows);
        Ok(Started { rows, ids: ids.unwrap_or_default() })
    }
}

/// Particles at their start.
struct Started {
    /// `[n, dim]`, network coordinates.
    rows: Vec<f32>,
    /// Their names; none if they have none.
    ids: Vec<String>,
}

/// The condition of the rows of a snapshot that particles start from.
#[derive(Clone, Copy)]
struct StartCondition<'a> {
    arguments: &'a Arguments,
    /// That of the particles.
    condition: &'a [ConditionValue],
    /// Of the model.
    coordinates: &'a Coordinates,
}

impl StartCondition<'_> {
    /// The group of rows under the condition; `None` without conditions.
    fn group(&self, groups: &RowGroups) -> anyhow::Result<Option<usize>> {
        let StartCondition { arguments, condition, coordinates } = *self;
        if coordinates.conditions.is_empty() {
            return Ok(None);
        }
        check_names(groups, coordinates)?;
        let values = match &arguments.from_condition[..] {
            [] => condition.to_vec(),
            given => coordinates.parse_condition(&pairs("--from-condition", given)?)?,
        };
        let wanted: Vec<(usize, ConditionValue)> = values.iter().cloned().enumerate().collect();
        let found = matching(groups, &wanted, coordinates);
        match found.first() {
            Some(&k) => Ok(Some(k)),
            None => bail!(
                "--from: the data have no rows with {} (start from those of another condition with --from-condition, one of: {}; \
                 or from a file)",
                coordinates.describe_condition(&values),
                list(groups)
            ),
        }
    }
}

/// A start file. Its samples are named on the command line, or selected as the run selected the
/// columns of its own table.
pub fn start_source(
    path: &Path,
    samples: Option<&str>,
    coordinates: &Coordinates,
    config: Option<&Config>,
    components: Option<&Arc<Components>>,
) -> action_matching::Result<DataSource> {
    let plain = DataSource::new(path);
    let columns = components.map_or(coordinates.columns.as_deref(), |components| components.columns());
    // Names of cells and those of other files are not each other's.
    let is_alike = |config: &&Config| is_cells(path) == is_cells(&config.data.path);
    let of_run = config.filter(|_| columns.is_some() || is_cells(path)).filter(is_alike).map(Config::source);
    let named = samples.map(String::from);
    let is_named = named.is_some();
    let samples = named.or(of_run.map(|source| source.samples)).unwrap_or(plain.samples);
    let times = config.filter(is_alike).map_or(plain.times, |config| config.source().times);
    // The first columns are taken of a file like the run's own; of others all are components.
    let components = given(components, config, path);
    // Columns of splits, weights and rates are no samples.
    let hold_out = config.map_or_else(HoldOut::default, |config| config.data.hold_out.clone());
    let [weights, growth] =
        config.map_or([None, None], |Config { data, .. }| [data.weights.clone(), data.growth.clone()]);
    let conditions = config.map_or(plain.conditions, |config| config.source().conditions);
    let conditions = condition::names(conditions, coordinates);
    let filter = config.and_then(|config| config.data.only.as_ref());
    let beside = filter.map_or_else(Vec::new, |filter| filter.columns().map(String::from).collect());
    let source = DataSource {
        samples,
        times,
        conditions,
        weights,
        growth,
        beside,
        hold_out,
        components,
        ..DataSource::new(path)
    };
    // What the command line names is not replaced, and a place of AnnData by no other.
    if is_named || is_cells(path) {
        return Ok(source);
    }
    let (source, said) = source.with_written_names()?;
    said.iter().for_each(|what| note!("{what}"));
    Ok(source)
}

/// The data named on the command line, read as the run read its own, or the run's own data.
pub fn snapshot_source(data: Option<&Path>, config: Option<&Config>) -> anyhow::Result<DataSource> {
    let source = match (data, config) {
        (Some(path), Some(config)) => {
            let of_run = DataSource { path: path.to_owned(), times_path: None, ..config.source() };
            // Particles of the run are under names of their own, without its other columns. Those
            // in a file of AnnData are where the run of another has its cells.
            let (source, named) = match is_cells(path) && is_cells(&config.data.path) {
                true => (of_run, None),
                false => of_run.with_written_names()?,
            };
            let (source, missing) = source.without_missing_columns()?;
            named.iter().for_each(|what| note!("{what}"));
            missing.iter().for_each(|what| note!("warning: {what}"));
            source
        }
        (Some(path), None) => DataSource::new(path),
        (None, Some(config)) => return Ok(config.source()),
        (None, None) => bail!(
            "the model has no configuration beside it that names its data (name the file: `sample --data FILE`, `evaluate MODEL FILE`)"
        ),
    };
    let (source, weighted) = source.with_written_weights()?;
    weighted.iter().for_each(|what| note!("{what}"));
    Ok(source)
}
