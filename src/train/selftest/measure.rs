//! The numbers behind the checks: rows of each snapshot moved to the next, and the motion that the
//! data show.

use super::super::moved::Moved;
use super::{Motion, SelfTest};
use crate::data::draw_gaussian;
use crate::density_path::{Coupling, DensityPath, Interpolant, Moment, RowKey, Trajectory};
use crate::engine::Engine;
use crate::error::Result;
use crate::evaluate::{Energies, energy_distance, sampling_error};
use crate::evenly::evenly;
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
    /// True if its pairs grow on their way.
    pairs_grow: bool,
    /// True if the path has a velocity.
    pub has_velocity: bool,
    /// True if its pairs are independent.
    independent_pairs: bool,
    /// True if its pairs leave rows out.
    pub is_partial: bool,
    /// True if there are five or more.
    has_many_intervals: bool,
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
    open_view: Option<OpenView>,
}

impl Measured {
    /// Moves rows along the intervals.
    pub fn of(engine: &dyn Engine, model: &Model, training: &Training, steps: u64, stage: &Stage) -> Result<Measured> {
        let path = &training.path;
        path.validate_within(model.architecture.dim)?;
        let chosen = evenly(path.n_intervals(), SelfTest::INTERVALS);
        let n_rows = affordable_rows(model, training, steps, chosen.len());
        let bounds = Bounds::of(path);
        let mut intervals = Vec::with_capacity(chosen.len());
        for (done, &k) in chosen.iter().enumerate() {
            stage.check()?;
            intervals.push(Interval::measure(engine, model, training, (k, n_rows), &bounds, stage.watch)?);
            stage.watch.advanced(done as u64 + 1, chosen.len() as u64);
        }
        Ok(Measured {
            energy_on_path: energy_on_path(engine, model, training, 4 * n_rows as u32)?,
            is_partial: path.couplings.iter().any(|couplings| couplings.iter().any(Coupling::is_partial)),
            has_many_intervals: path.n_intervals() >= 5,
            is_nearest: path.interpolant == Interpolant::Nearest,
            intervals,
            is_diffusive: model.objective.sigma > 0.0,
            has_growth: model.objective.growth > 0.0,
            pairs_grow: path.couplings.iter().any(|couplings| couplings.iter().any(Coupling::grows)),
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
            // λs is to be the rate of growth: where λ is small, s is large, and so is its gradient.
            Measured { has_growth: true, pairs_grow: true, .. } => {
                "raise objective.growth, or set objective.growth_head = true (on a CPU)"
            }
            Measured { has_growth: true, .. } => {
                "set objective.growth = 0, or objective.mass = \"counts\" with objective.pairing = \"wfr\" \
                 if the population grows"
            }
            Measured { has_velocity: false, .. } => "set objective.path = \"linear\" with objective.pairing = \"ot\"",
            Measured { independent_pairs: true, .. } => "set objective.pairing = \"ot\", or train longer",
            // Velocities that turn often need a network that can follow them.
            Measured { has_many_intervals: true, .. } => {
                "train longer, take a larger model.hidden, or give the network finer times, as with \
                 model.time_embedding = { kind = \"fourier\", frequencies = [0.5, 1, 2] }"
            }
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

    /// How much more order there is in the displacements if rows may enter and leave: the share of
    /// their squares that a linear function of x explains, less that of balanced pairs; and a
    /// squared distance within which the pairs that are left find each other.
    pub fn open_view(&self) -> Option<(f64, f64)> {
        let all = || self.intervals.iter().filter_map(|interval| interval.path.open_view);
        let (partial, balanced) = (Order::sum(all().map(|o| o.partial)), Order::sum(all().map(|o| o.balanced)));
        (partial.pairs > 0.0)
            .then(|| (partial.explained() - balanced.explained(), 4.0 * partial.squares / partial.pairs))
    }
}

/// Rows to move on each of `n_intervals`, so that the test takes seconds, whatever the network, and
/// at most half the time of the training.
fn affordable_rows(model: &Model, training: &Training, steps: u64, n_intervals: usize) -> usize {
    const FEWEST: u64 = 32;
    /// Multiplications of a few seconds on one core.
    const MULTIPLICATIONS: u64 = 1 << 36;
    /// Differences of coordinates, likewise.
    const DISTANCES: u64 = 1 << 32;
    // Products with the weights: two a velocity (primal and reverse sweep), six a row of training.
    let of_row = 2 * 4 * STEPS * n_intervals.max(1) as u64;
    let seconds = MULTIPLICATIONS / (of_row * model.parameters.len().max(1) as u64);
    let of_training = steps.saturating_mul(training.rows_per_step() as u64).saturating_mul(6);
    // Two energy distances of n rows: some 2n² distances each.
    let coordinates = DISTANCES / (4 * n_intervals.max(1) as u64 * model.architecture.dim.max(1) as u64);
    let rows = seconds.min(of_training / 2 / of_row).min(coordinates.isqrt());
    rows.clamp(FEWEST, SelfTest::ROWS as u64) as usize
}

/// Steps along an interval.
const STEPS: u64 = 16;
/// Steps from noise to data.
const STEPS_FROM_NOISE: u64 = 64;

/// The box around all rows.
struct Bounds {
    /// Least and largest value of each coordinate.
    sides: Vec<[f32; 2]>,
    /// Its diagonal, squared.
    diagonal: f64,
}

impl Bounds {
    fn of(path: &DensityPath) -> Bounds {
        let mut sides = vec![[f32::INFINITY, f32::NEG_INFINITY]; path.snapshots.dim];
        for row in path.snapshots.samples.chunks_exact(path.snapshots.dim) {
            for ([least, most], &x) in sides.iter_mut().zip(row) {
                (*least, *most) = (least.min(x), most.max(x));
            }
        }
        let diagonal = sides.iter().map(|&[least, most]| f64::from(most - least).powi(2)).sum();
        Bounds { sides, diagonal }
    }

    /// True if the distance of `row` from the box is more than a fifth of its diagonal.
    fn are_left_by(&self, row: &[f32]) -> bool {
        let beyond = |(&x, [least, most]): (&f32, &[f32; 2])| f64::from((least - x).max(x - most).max(0.0)).powi(2);
        row.iter().zip(&self.sides).map(beyond).sum::<f64>() > 0.04 * self.diagonal
    }
}

impl Interval {
    /// The interval after snapshot `k`, with `n_rows` rows at most.
    fn measure(
        engine: &dyn Engine,
        model: &Model,
        training: &Training,
        (k, n_rows): (usize, usize),
        bounds: &Bounds,
        watch: &dyn Watch,
    ) -> Result<Interval> {
        let path = &training.path;
        let (snapshots, dim) = (&path.snapshots, path.snapshots.dim);
        let is_generative = path.interpolant.is_generative();
        let pick = |k: usize, n: usize| snapshots.random_rows(k, n, training.seed, Purpose::Evaluation);
        let (truth_at, departed_n) = if is_generative { (0, usize::MAX) } else { (k + 1, snapshots.n_rows(k)) };
        let n = n_rows.min(departed_n).min(snapshots.n_rows(truth_at));
        let truth = pick(truth_at, n);
        let departed =
            if is_generative { draw_gaussian(n, dim, &mut Stream::of_normals(training.seed, dim)) } else { pick(k, n) };
        let times = [path.at(k, 0.0), path.at(k, 1.0)].map(|moment| f64::from(moment.t));
        let at = |stretch: usize| times[0] + (times[1] - times[0]) * stretch as f64 / STRETCHES as f64;
        let steps = if is_generative { STEPS_FROM_NOISE } else { STEPS };
        let way = ((0..=STRETCHES).map(at).collect(), steps);
        let moved = Moved::along(engine, model, &departed, way, training.seed, watch)?;

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
            Some(moved) => Some(flow_numbers(engine, model, moved, bounds)?),
            None => None,
        };
        let mass = if is_generative { 1.0 } else { path.snapshot_mass(k + 1) / path.snapshot_mass(k) };
        Ok(Interval { motion, mass, flow, duration, path: PathNumbers::measure(model, training, k, watch)? })
    }
}

/// What `moved` rows did on their way along an interval.
fn flow_numbers(engine: &dyn Engine, model: &Model, moved: &Moved, bounds: &Bounds) -> Result<FlowNumbers> {
    let dim = model.architecture.dim;
    let Energies { speed: kinetic, residual_variance, spread, .. } =
        Energies::along(engine, model, &moved.times, &moved.positions, &())?;
    let duration = moved.times[STRETCHES] - moved.times[0];
    let unit = (2.0 * kinetic * spread).sqrt() / duration;
    let arrived = moved.arrived();
    let n = (arrived.len() / dim) as f64;
    let (mut mass, mut exchanged) = (1.0, 0.0);
    if let Some(weights) = &moved.weights {
        mass = weights.iter().sum::<f64>() / n;
        exchanged = 0.5 * weights.iter().map(|weight| (weight / mass - 1.0).abs()).sum::<f64>() / n;
    }
    Ok(FlowNumbers {
        kinetic,
        residual: if residual_variance == 0.0 { 0.0 } else { residual_variance.sqrt() / unit },
        outside: arrived.chunks_exact(dim).filter(|row| bounds.are_left_by(row)).count() as f64 / n,
        mass,
        exchanged,
    })
}

impl PathNumbers {
    /// The interval after snapshot `k`.
    fn measure(model: &Model, training: &Training, k: usize, watch: &dyn Watch) -> Result<PathNumbers> {
        /// Trajectories that are looked at.
        const ROWS: u32 = 512;
        /// Most rows of either side of a problem of transport, and most differences of coordinates
        /// between them: a small part of a second.
        const PAIRED: usize = 512;
        const DIFFERENCES: usize = 1 << 26;
        let path = &training.path;
        let duration = path.length(k);
        let has_curves = path.interpolant != Interpolant::Nearest;
        let n_paired = (DIFFERENCES / path.snapshots.dim.max(1)).isqrt().min(PAIRED);
        let is_open = !path.interpolant.is_generative() && model.objective.growth == 0.0;
        let transport = match is_open || !has_curves {
            true => Some(transport(path, k, n_paired, training.seed, watch)?),
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
fn energy_on_path(engine: &dyn Engine, model: &Model, training: &Training, n_rows: u32) -> Result<f64> {
    let (path, objective, dim) = (&training.path, &model.objective, model.architecture.dim);
    let (mut x, mut t, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    let [start, end] = path.span();
    for row in 0..n_rows {
        let share = (f64::from(row) + 0.5) / f64::from(n_rows);
        let moment = path.moment(training.time_rule, start + (end - start) * share);
        let (trajectory, mass) = drawn(training, &moment, row);
        path.point(&trajectory, &moment, |_, at, _| x.push(f64::from(at)));
        t.push(f64::from(moment.t));
        weights.push(mass * objective.time_weight.at(f64::from(moment.t)).0);
    }
    let derivatives = engine.derivatives(model, &x, &t)?;
    let rates = model.growth_rates(engine, &x, &t, &derivatives.s)?;
    let rows = derivatives.grad_s.chunks_exact(dim).zip(rates).zip(weights);
    let energies = rows.map(|((p, rate), weight)| {
        let hamiltonian: f64 = p.iter().map(|&p| objective.hamiltonian_f64(p).0).sum();
        let of_growth = if objective.growth > 0.0 { 0.5 * rate * rate / objective.growth } else { 0.0 };
        weight * ((objective.cost_exponent - 1.0) * hamiltonian + of_growth)
    });
    Ok((end - start) * energies.sum::<f64>() / f64::from(n_rows))
}

/// Optimal transport between random rows of neighboring snapshots.
#[derive(Clone, Copy)]
struct Transport {
    /// Mean squared distance.
    cost: f64,
    open_view: Option<OpenView>,
}

/// Pairs of balanced transport beside those of a partial one, in which rows may enter and leave.
#[derive(Clone, Copy)]
struct OpenView {
    balanced: Order,
    partial: Order,
}

fn transport(path: &DensityPath, k: usize, most_rows: usize, seed: u64, watch: &dyn Watch) -> Result<Transport> {
    let (snapshots, dim) = (&path.snapshots, path.snapshots.dim);
    let [x, y] = [k, k + 1].map(|k| snapshots.random_rows(k, most_rows, seed, Purpose::Evaluation));
    let plan = optimal_plan(dim, &x, &y, Cost::SquaredEuclidean, watch)?;
    let cost = plan.cost;
    if !(cost > 0.0 && cost.is_finite()) {
        return Ok(Transport { cost, open_view: None });
    }
    // Rows may vanish and appear at four times the mean cost of a pair.
    let partial = unbalanced_plan(dim, &x, &y, [1.0; 2], 4.0 * cost, watch)?;
    let is_pair = |mass: &[f64; 2]| mass.iter().all(|&end| end > 0.0);
    let partial: Vec<_> = partial.iter().filter(|(.., mass)| is_pair(mass)).map(|&(i, j, _)| (i, j)).collect();
    let balanced: Vec<_> = plan.moves.iter().map(|&(i, j, _)| (i, j)).collect();
    let [balanced, partial] = [balanced, partial].map(|pairs| Order::of(dim, &x, &y, &pairs));
    let open_view = balanced.zip(partial).map(|(balanced, partial)| OpenView { balanced, partial });
    Ok(Transport { cost, open_view })
}

/// How far the displacements of pairs are a linear function of where they start.
#[derive(Clone, Copy)]
struct Order {
    /// Number of pairs.
    pairs: f64,
    /// Sum of the squared displacements.
    squares: f64,
    /// What of that is left by the best linear function, for its number of parameters.
    residual: f64,
}

impl Order {
    /// Of `pairs` of rows of x and y; `None` if there are fewer than two.
    fn of(dim: usize, x: &[f32], y: &[f32], pairs: &[(usize, usize)]) -> Option<Order> {
        let n = pairs.len();
        // With few pairs the mean alone.
        let linear = if n > 5 * (dim + 1) { dim } else { 0 };
        let column = |i: usize| pairs.iter().map(|&(from, _)| f64::from(x[from * dim + i])).collect();
        let columns = std::iter::once(vec![1.0; n]).chain((0..linear).map(column));
        let mut basis: Vec<Vec<f64>> = Vec::new(); // orthonormal (Gram & Schmidt)
        for mut column in columns {
            let before = dot(&column, &column);
            basis.iter().for_each(|other| subtract_projection(&mut column, other));
            let length = dot(&column, &column);
            // A column that the others span adds nothing.
            if length > 1e-10 * before {
                column.iter_mut().for_each(|value| *value /= length.sqrt());
                basis.push(column);
            }
        }
        if n <= basis.len() {
            return None;
        }
        let (mut squares, mut residual) = (0.0, 0.0);
        for i in 0..dim {
            let displacement = |&(from, to): &(usize, usize)| f64::from(y[to * dim + i]) - f64::from(x[from * dim + i]);
            let mut moved: Vec<f64> = pairs.iter().map(displacement).collect();
            squares += dot(&moved, &moved);
            basis.iter().for_each(|other| subtract_projection(&mut moved, other));
            residual += dot(&moved, &moved);
        }
        Some(Order { pairs: n as f64, squares, residual: residual * n as f64 / (n - basis.len()) as f64 })
    }

    /// Sums over several intervals.
    fn sum(all: impl Iterator<Item = Order>) -> Order {
        all.fold(Order { pairs: 0.0, squares: 0.0, residual: 0.0 }, |sum, order| Order {
            pairs: sum.pairs + order.pairs,
            squares: sum.squares + order.squares,
            residual: sum.residual + order.residual,
        })
    }

    /// Share of the squared displacements that the linear function explains.
    fn explained(self) -> f64 {
        if self.squares > 0.0 { (1.0 - self.residual / self.squares).max(0.0) } else { 0.0 }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Takes from `column` its part along `unit`, a vector of length 1.
fn subtract_projection(column: &mut [f64], unit: &[f64]) {
    let along = dot(column, unit);
    column.iter_mut().zip(unit).for_each(|(value, unit)| *value -= along * unit);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is advised is not what the run has already.
    #[test]
    fn the_remedy_differs_from_the_settings() {
        let measured = |has_growth, pairs_grow| Measured {
            intervals: Vec::new(),
            is_diffusive: false,
            has_growth,
            pairs_grow,
            has_velocity: true,
            independent_pairs: false,
            is_partial: false,
            has_many_intervals: false,
            is_nearest: false,
            energy_on_path: 0.0,
        };
        let remedy = |growth, pairs| measured(growth, pairs).remedy();
        assert!(remedy(true, false).contains("objective.pairing = \"wfr\""));
        assert!(remedy(true, true).starts_with("raise objective.growth") && !remedy(true, true).contains("wfr"));
        assert!(!remedy(false, true).contains("growth"));
    }
}
