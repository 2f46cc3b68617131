//! The numbers behind the checks: rows of each snapshot moved to the next, and the motion that the
//! data show.

use super::{Motion, SelfTest};
use crate::data::draw_gaussian;
use crate::density_path::{DensityPath, Interpolant, Moment, RowKey, Trajectory, shuffled};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::evaluate::energy_distance;
use crate::integrate::{Method, Noise, Plan, StepControl, Trajectories};
use crate::model::Model;
use crate::rng::{Purpose, Stream, words};
use crate::stage::{Stage, Watch};
use crate::training::Training;
use crate::transport::{Cost, optimal_plan, unbalanced_plan};

/// Stretches of an interval between whose ends energy and residual are summed (Simpson's rule, so
/// an even number).
const STRETCHES: usize = 4;

/// All that is measured.
pub(super) struct Measured {
    pub intervals: Vec<Interval>,
    pub is_diffusive: bool,
    pub has_growth: bool,
    /// True if the path has a velocity.
    pub has_velocity: bool,
    /// True if its pairs are independent.
    independent_pairs: bool,
    /// True if the path jumps from snapshot to snapshot.
    pub is_nearest: bool,
    /// ∫E ω m [(q − 1) H(∇s) + ½λs²] dt on rows of the path: what the loss is at its least.
    pub energy_on_path: f64,
}

/// One interval between snapshots.
pub(super) struct Interval {
    pub motion: Motion,
    /// Mass of the later snapshot relative to the earlier one.
    pub mass: f64,
    /// What the rows did on the way; `None` if they were lost.
    pub flow: Option<FlowNumbers>,
    duration: f64,
    path: PathNumbers,
}

/// Rows on their way, network units.
#[derive(Clone, Copy)]
pub(super) struct FlowNumbers {
    /// Mean over time of E½‖v‖².
    kinetic: f64,
    /// Root mean square over time of the spread of ∂ₜs + H(∇s) + ½λs² over the rows, divided by
    /// that of x, times duration / speed.
    pub residual: f64,
    /// Share that ends outside the range of the data.
    pub outside: f64,
    /// Mass at the end relative to the start.
    pub mass: f64,
    /// Half the mean of |w / mean w − 1| at the end.
    pub exchanged: f64,
}

/// The motion between two snapshots by the trajectories of the path, or by optimal transport if it
/// has none.
#[derive(Clone, Copy)]
struct PathNumbers {
    /// E½‖u‖², per unit of mass.
    kinetic: f64,
    /// Share of the cost of transport that is saved if rows may vanish and appear, and the squared
    /// distance of the rows that then still move.
    open_view: Option<[f64; 2]>,
}

impl Measured {
    /// Moves rows along the intervals.
    pub fn of(engine: &dyn Engine, model: &Model, training: &Training, stage: &Stage) -> Result<Measured> {
        let path = &training.path;
        path.validate(model.architecture.dim)?;
        let n_rows = affordable_rows(model);
        let chosen = evenly(path.n_intervals(), SelfTest::INTERVALS);
        let bounds = bounds(path);
        let mut intervals = Vec::with_capacity(chosen.len());
        for (done, &k) in chosen.iter().enumerate() {
            stage.check()?;
            intervals.push(Interval::measure(engine, model, training, (k, n_rows), &bounds, stage.watch)?);
            stage.watch.advanced(done as u64 + 1, chosen.len() as u64);
        }
        Ok(Measured {
            energy_on_path: energy_on_path(engine, model, training)?,
            is_nearest: path.interpolant == Interpolant::Nearest,
            intervals,
            is_diffusive: model.objective.sigma > 0.0,
            has_growth: model.objective.growth > 0.0,
            has_velocity: path.interpolant.has_velocity(),
            independent_pairs: path.couplings.is_none() && !path.interpolant.is_generative(),
        })
    }

    /// Number of intervals on which particles were lost.
    pub fn n_lost(&self) -> usize {
        self.intervals.iter().filter(|interval| interval.flow.is_none()).count()
    }

    /// What helps against a model that does not follow its data.
    pub fn remedy(&self) -> &'static str {
        match self {
            Measured { has_growth: true, .. } => {
                "set objective.growth = 0, or objective.mass = \"counts\" with objective.pairing = \"unbalanced\" \
                 if the population grows"
            }
            Measured { has_velocity: false, .. } => "set objective.path = \"linear\" with objective.pairing = \"ot\"",
            Measured { independent_pairs: true, .. } => "set objective.pairing = \"ot\", or train longer",
            _ => "train longer, or take a larger model.hidden",
        }
    }

    /// Kinetic energy of the flow in units of the path's.
    pub fn relative_speed(&self) -> Option<f64> {
        /// Displacements below this share of the unit of the network are none.
        const STANDS: f64 = 0.01;
        let (mut flow, mut path) = (0.0, 0.0);
        for interval in &self.intervals {
            flow += interval.duration * interval.flow?.kinetic;
            path += interval.duration * interval.path.kinetic + 0.5 * STANDS * STANDS / interval.duration;
        }
        (path > 0.0).then_some(flow / path)
    }

    /// The mean over the intervals of the share of the cost, in %, that open ends save, and a
    /// relaxation that lets the rows that enter and leave do so.
    pub fn open_view(&self) -> Option<(f64, f64)> {
        let open: Vec<[f64; 2]> = self.intervals.iter().filter_map(|interval| interval.path.open_view).collect();
        let mean = |i: usize| open.iter().map(|numbers| numbers[i]).sum::<f64>() / open.len() as f64;
        (!open.is_empty()).then(|| (100.0 * mean(0), 4.0 * mean(1)))
    }
}

/// Rows to move per interval, so that the test of a large network takes seconds as well.
fn affordable_rows(model: &Model) -> usize {
    const LEAST: usize = 128;
    /// Products of a few seconds on one core.
    const PRODUCTS: usize = 1 << 35;
    // Two products a weight and velocity: the primal and the reverse sweep.
    let of_row = 2 * model.parameters.len() * 4 * STEPS as usize * SelfTest::INTERVALS;
    (PRODUCTS / of_row.max(1)).clamp(LEAST, SelfTest::ROWS)
}

/// Steps along an interval.
const STEPS: u64 = 16;
/// Steps from noise to data.
const STEPS_FROM_NOISE: u64 = 64;

/// At most `most` of `n` indices, evenly spaced, the first and the last among them.
fn evenly(n: usize, most: usize) -> Vec<usize> {
    match (n, most) {
        (0, _) | (_, 0) => Vec::new(),
        (n, most) if n <= most => (0..n).collect(),
        (n, most) => (0..most).map(|i| i * (n - 1) / (most - 1).max(1)).collect(),
    }
}

/// Least and largest value of each coordinate over all rows, a quarter of the range further apart
/// on each side.
fn bounds(path: &DensityPath) -> Vec<[f32; 2]> {
    let mut bounds = vec![[f32::INFINITY, f32::NEG_INFINITY]; path.snapshots.dim];
    for row in path.snapshots.samples.chunks_exact(path.snapshots.dim) {
        for ([least, most], &x) in bounds.iter_mut().zip(row) {
            (*least, *most) = (least.min(x), most.max(x));
        }
    }
    let widened = |[least, most]: [f32; 2]| [least - 0.25 * (most - least), most + 0.25 * (most - least)];
    bounds.into_iter().map(widened).collect()
}

impl Interval {
    /// The interval after snapshot `k`, with `n_rows` rows at most.
    fn measure(
        engine: &dyn Engine,
        model: &Model,
        training: &Training,
        (k, n_rows): (usize, usize),
        bounds: &[[f32; 2]],
        watch: &dyn Watch,
    ) -> Result<Interval> {
        let path = &training.path;
        let (snapshots, dim) = (&path.snapshots, path.snapshots.dim);
        let is_generative = path.interpolant.is_generative();
        let pick = |k: usize, n: usize| -> Vec<f32> {
            let order = shuffled(snapshots.n_rows(k), training.seed, Purpose::Evaluation, k as u64);
            order[..n].iter().flat_map(|&row| &snapshots.rows(k)[row * dim..][..dim]).copied().collect()
        };
        let (truth_at, departed_n) = if is_generative { (0, usize::MAX) } else { (k + 1, snapshots.n_rows(k)) };
        let n = n_rows.min(departed_n).min(snapshots.n_rows(truth_at));
        let truth = pick(truth_at, n);
        let departed =
            if is_generative { draw_gaussian(n, dim, &mut Stream::of_normals(training.seed, dim)) } else { pick(k, n) };
        let times = [path.at(k, 0.0), path.at(k, 1.0)].map(|moment| f64::from(moment.t));
        let moved = Moved::along(engine, model, &departed, times, training.seed, watch)?;

        let distance = |x: &[f32], weights: Option<&[f64]>| -> Result<f64> {
            if n < 2 { Ok(f64::NAN) } else { energy_distance(dim, x, weights, &truth, watch) }
        };
        let data_time = |tau: f64| model.coordinates.data_time(tau);
        let motion = Motion {
            from: (!is_generative).then(|| data_time(times[0])),
            to: data_time(times[1]),
            rows: n,
            model: match &moved {
                Some(moved) => Some(distance(moved.arrived(), moved.weights.as_deref())?),
                None => None,
            },
            no_motion: distance(&departed, None)?,
            sampling: sampling_error(dim, &truth),
        };
        let duration = times[1] - times[0];
        let flow = match &moved {
            Some(moved) => Some(moved.numbers(engine, model, bounds)?),
            None => None,
        };
        let mass = if is_generative { 1.0 } else { path.snapshot_mass(k + 1) / path.snapshot_mass(k) };
        Ok(Interval { motion, mass, flow, duration, path: PathNumbers::measure(model, training, k, watch)? })
    }
}

/// 2 E‖y − y′‖ / n for rows y: the energy distance of two sets of n rows of one distribution in its
/// biased form, and the size of the error of the unbiased one.
fn sampling_error(dim: usize, rows: &[f32]) -> f64 {
    let n = rows.len() / dim;
    let row = |i: usize| &rows[i * dim..][..dim];
    // Each row with one other: as many pairs as rows.
    let distance = |i: usize| {
        let squared = row(i).iter().zip(row((i + n / 2) % n)).map(|(a, b)| f64::from(a - b).powi(2));
        squared.sum::<f64>().sqrt()
    };
    2.0 * (0..n).map(distance).sum::<f64>() / (n * n) as f64
}

/// Rows moved along an interval.
struct Moved {
    dim: usize,
    times: Vec<f64>,
    /// `[STRETCHES + 1, n, dim]`.
    positions: Vec<f32>,
    /// Weights at the end, with growth.
    weights: Option<Vec<f64>>,
}

impl Moved {
    /// Moves `departed` between the two `times`; `None` if a particle is lost.
    fn along(
        engine: &dyn Engine,
        model: &Model,
        departed: &[f32],
        [start, end]: [f64; 2],
        seed: u64,
        watch: &dyn Watch,
    ) -> Result<Option<Moved>> {
        /// Passes on the cancellation only: the test counts intervals.
        struct Quiet<'a>(&'a dyn Watch);
        impl Watch for Quiet<'_> {
            fn is_cancelled(&self) -> bool {
                self.0.is_cancelled()
            }
        }
        let dim = model.architecture.dim;
        let at = |stretch: usize| start + (end - start) * stretch as f64 / STRETCHES as f64;
        let times: Vec<f64> = (0..=STRETCHES).map(at).collect();
        let method = if model.objective.sigma > 0.0 { Method::StochasticHeun } else { Method::Rk4 };
        let from_noise = start == 0.0 && end == 1.0;
        // Steps of fixed number: a model whose motion needs many more is found by what it does.
        let control = StepControl::Fixed { steps: if from_noise { STEPS_FROM_NOISE } else { STEPS } };
        let plan = Plan { noise: Noise::new(seed), ..Plan::new(method, control, start, times.clone()) };
        let n = departed.len() / dim;
        let mut positions = departed.to_vec();
        positions.resize(departed.len() * times.len(), 0.0);
        let weighted = model.objective.growth > 0.0;
        let mut log_weights = vec![0.0; if weighted { n * times.len() } else { 0 }];
        let out =
            Trajectories { log_weights: weighted.then_some(&mut log_weights[..]), ..Trajectories::of(&mut positions) };
        match engine.integrate(model, &plan, out, &Quiet(watch)) {
            Err(Error::NotFinite { .. }) => return Ok(None),
            moved => moved?,
        };
        let weights: Option<Vec<f64>> =
            weighted.then(|| log_weights[n * STRETCHES..].iter().map(|&log_w| f64::from(log_w).exp()).collect());
        let is_finite = positions.iter().all(|x| x.is_finite())
            && weights.as_ref().is_none_or(|weights| {
                weights.iter().all(|weight| weight.is_finite()) && weights.iter().filter(|&&w| w > 0.0).count() > 1
            });
        Ok(is_finite.then_some(Moved { dim, times, positions, weights }))
    }

    /// Positions at the end.
    fn arrived(&self) -> &[f32] {
        &self.positions[self.positions.len() / (STRETCHES + 1) * STRETCHES..]
    }

    fn numbers(&self, engine: &dyn Engine, model: &Model, bounds: &[[f32; 2]]) -> Result<FlowNumbers> {
        let (dim, objective) = (self.dim, &model.objective);
        let (mut kinetic, mut residual, mut spread) = (0.0, 0.0, 0.0);
        let slabs = self.positions.chunks_exact(self.positions.len() / (STRETCHES + 1));
        for (stretch, (slab, &time)) in slabs.zip(&self.times).enumerate() {
            let simpson = match stretch {
                0 | STRETCHES => 1.0,
                odd if odd % 2 == 1 => 4.0,
                _ => 2.0,
            } / (3 * STRETCHES) as f64;
            let x: Vec<f64> = slab.iter().map(|&x| f64::from(x)).collect();
            let n = x.len() / dim;
            let derivatives = engine.derivatives(model, &x, &vec![time; n])?;
            let rows = derivatives.grad_s.chunks_exact(dim).zip(derivatives.ds_dt).zip(derivatives.s);
            let residuals = rows.map(|((p, ds_dt), s)| {
                let parts = p.iter().map(|&p| objective.hamiltonian_f64(p));
                let (hamiltonian, speed) =
                    parts.fold((0.0, 0.0), |(h, squares), (part, drift)| (h + part, squares + drift * drift));
                kinetic += simpson * 0.5 * speed / n as f64;
                ds_dt + hamiltonian + 0.5 * objective.growth * s * s
            });
            let residuals: Vec<f64> = residuals.collect();
            residual += simpson * variance(residuals.iter().copied());
            spread += simpson * (0..dim).map(|i| variance(x.iter().skip(i).step_by(dim).copied())).sum::<f64>();
        }
        let duration = self.times[STRETCHES] - self.times[0];
        let unit = (2.0 * kinetic * spread).sqrt() / duration;
        let is_outside = |row: &&[f32]| row.iter().zip(bounds).any(|(x, [least, most])| !(*least..=*most).contains(x));
        let arrived = self.arrived();
        let n = (arrived.len() / dim) as f64;
        let (mut mass, mut exchanged) = (1.0, 0.0);
        if let Some(weights) = &self.weights {
            mass = weights.iter().sum::<f64>() / n;
            exchanged = 0.5 * weights.iter().map(|weight| (weight / mass - 1.0).abs()).sum::<f64>() / n;
        }
        Ok(FlowNumbers {
            kinetic,
            residual: if residual == 0.0 { 0.0 } else { residual.sqrt() / unit },
            outside: arrived.chunks_exact(dim).filter(is_outside).count() as f64 / n,
            mass,
            exchanged,
        })
    }
}

/// Variance of the values.
fn variance(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    values.map(|value| (value - mean).powi(2)).sum::<f64>() / n
}

impl PathNumbers {
    /// The interval after snapshot `k`.
    fn measure(model: &Model, training: &Training, k: usize, watch: &dyn Watch) -> Result<PathNumbers> {
        /// Trajectories that are looked at.
        const ROWS: u32 = 512;
        /// Rows of either side of a problem of transport: a small part of a second.
        const PAIRED: usize = 256;
        let path = &training.path;
        let duration = path.length(k);
        let has_curves = path.interpolant != Interpolant::Nearest;
        let is_open = !path.interpolant.is_generative() && model.objective.growth == 0.0;
        let transport = match is_open || !has_curves {
            true => Some(transport(path, k, PAIRED, training.seed, watch)?),
            false => None,
        };
        let open_view = transport.and_then(|transport| transport.open_view);
        if let (Some(Transport { cost, .. }), false) = (transport, has_curves) {
            return Ok(PathNumbers { kinetic: 0.5 * cost / (duration * duration), open_view });
        }
        let (mut kinetic, mut masses) = (0.0, 0.0);
        for row in 0..ROWS {
            let moment = path.at(k, (f64::from(row) + 0.5) / f64::from(ROWS));
            let (trajectory, mass) = drawn(training, &moment, row);
            masses += mass;
            path.point(&trajectory, &moment, |_, _, u| kinetic += 0.5 * mass * f64::from(u).powi(2));
        }
        Ok(PathNumbers { kinetic: kinetic / masses.max(f64::MIN_POSITIVE), open_view })
    }
}

/// A trajectory through `moment` that no step draws, and its mass there.
fn drawn(training: &Training, moment: &Moment, row: u32) -> (Trajectory, f64) {
    // No run takes so many steps, and `Unexplained` has the last one.
    const STEP: u64 = u64::MAX - 1;
    let words = words(training.seed, Purpose::Interior, STEP, row);
    let trajectory = training.path.trajectory(moment.left, words, RowKey { seed: training.seed, step: STEP, row });
    let mass = training.path.mass(&trajectory, moment).0;
    (trajectory, mass)
}

/// [`Measured::energy_on_path`].
fn energy_on_path(engine: &dyn Engine, model: &Model, training: &Training) -> Result<f64> {
    const ROWS: u32 = 4096;
    let (path, objective, dim) = (&training.path, &model.objective, model.architecture.dim);
    let (mut x, mut t, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..ROWS {
        let moment = path.moment(training.time_rule, (f64::from(row) + 0.5) / f64::from(ROWS));
        let (trajectory, mass) = drawn(training, &moment, row);
        path.point(&trajectory, &moment, |_, at, _| x.push(f64::from(at)));
        t.push(f64::from(moment.t));
        weights.push(mass * objective.time_weight.at(f64::from(moment.t)).0);
    }
    let derivatives = engine.derivatives(model, &x, &t)?;
    let rows = derivatives.grad_s.chunks_exact(dim).zip(derivatives.s).zip(weights);
    let energies = rows.map(|((p, s), weight)| {
        let hamiltonian: f64 = p.iter().map(|&p| objective.hamiltonian_f64(p).0).sum();
        weight * ((objective.cost_exponent - 1.0) * hamiltonian + 0.5 * objective.growth * s * s)
    });
    Ok(energies.sum::<f64>() / f64::from(ROWS))
}

/// Optimal transport between random rows of neighboring snapshots.
#[derive(Clone, Copy)]
struct Transport {
    /// Mean squared distance.
    cost: f64,
    /// See [`PathNumbers::open_view`].
    open_view: Option<[f64; 2]>,
}

fn transport(path: &DensityPath, k: usize, most_rows: usize, seed: u64, watch: &dyn Watch) -> Result<Transport> {
    let (snapshots, dim) = (&path.snapshots, path.snapshots.dim);
    let pick = |k: usize| -> Vec<f32> {
        let order = shuffled(snapshots.n_rows(k), seed, Purpose::Evaluation, k as u64);
        let rows = order.iter().take(most_rows);
        rows.flat_map(|&row| &snapshots.rows(k)[row * dim..][..dim]).copied().collect()
    };
    let (x, y) = (pick(k), pick(k + 1));
    let cost = optimal_plan(dim, &x, &y, Cost::SquaredEuclidean, watch)?.cost;
    if !(cost > 0.0 && cost.is_finite()) {
        return Ok(Transport { cost, open_view: None });
    }
    let row_masses = [x.len(), y.len()].map(|n_values| dim as f64 / n_values as f64);
    let relaxation = 4.0 * cost;
    let (mut kept, mut mass) = (0.0, 0.0);
    for (i, j, [before, after]) in unbalanced_plan(dim, &x, &y, row_masses, relaxation, watch)? {
        if before > 0.0 && after > 0.0 {
            let pair = x[i * dim..][..dim].iter().zip(&y[j * dim..][..dim]);
            kept += before * pair.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            mass += before;
        }
    }
    let saved = 1.0 - (kept + relaxation * (1.0 - mass)) / cost;
    Ok(Transport { cost, open_view: (mass > 0.0).then(|| [saved, kept / mass]) })
}
