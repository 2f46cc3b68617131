//! Exact optimal transport between two point sets, by the network simplex method, and transport
//! with growth ([`wfr_plan`]).
//!
//! Masses are whole numbers (uniform ones are n·m units in all, divided by their common factor), so
//! flows are exact, and so are the potentials that prove a plan optimal. Results are exact up to
//! rounding at any scale of the data, even if some rows are far from all others. Existing crates
//! solve assignments of equal sizes or floating-point flows; no maintained one solves unequal sizes
//! of thousands of points exactly.
//!
//! Every function here takes at least 8·n·m bytes, for its costs, and ends with
//! [`Error::Interrupted`] soon after its watch cancels.
//!
//! ```
//! use action_matching::transport::{Cost, optimal_plan, wasserstein1};
//!
//! let (x, y) = ([0.0, 1.0, 5.0], [1.5, 5.5, 0.5]);
//! assert_eq!(wasserstein1(1, &x, &y, &())?, 0.5);
//! let plan = optimal_plan(1, &x, &y, Cost::SquaredEuclidean, &())?;
//! assert!(plan.moves.iter().any(|&(i, j, _)| (i, j) == (2, 1)));
//! # Ok::<(), action_matching::Error>(())
//! ```

mod entropic;
mod simplex;
mod wfr;

use self::simplex::{Masses, Solution};
pub use self::wfr::wfr_plan;
use crate::error::{Error, Result, check_len};
use crate::stage::Watch;

/// Maximum number of points on either side.
pub const MAX_POINTS: usize = 5000;

/// Bytes of costs of all problems that are solved at the same time: as many problems run at once as
/// fit, at least one (which takes at most 200 MB).
pub const MEMORY: usize = 1 << 30;

/// Number of problems between up to `n` and `m` points that fit into [`MEMORY`], at least one.
pub(crate) fn problems_at_once(n: usize, m: usize) -> usize {
    (MEMORY / (8 * n * m).max(1)).max(1)
}

/// Cost of moving one point to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cost {
    /// ‖x − y‖: the optimum is W₁.
    Euclidean,
    /// ‖x − y‖²: the optimum is W₂².
    SquaredEuclidean,
}

/// An optimal plan, with the potentials that prove it.
#[derive(Clone, Debug)]
pub struct TransportPlan {
    /// Σ cᵢⱼ Pᵢⱼ.
    pub cost: f64,
    /// (i, j, Pᵢⱼ) for all Pᵢⱼ > 0; masses sum to 1.
    pub moves: Vec<(usize, usize, f64)>,
    /// u of each source: uᵢ + vⱼ ≤ cᵢⱼ, with equality for pairs in `moves`.
    pub source_potential: Vec<f64>,
    /// v of each target.
    pub target_potential: Vec<f64>,
}

/// W₁ between rows `x [n, dim]` and `y [m, dim]`.
///
/// # Errors
/// As [`optimal_plan`].
pub fn wasserstein1<T: Copy + Into<f64>>(dim: usize, x: &[T], y: &[T], watch: &dyn Watch) -> Result<f64> {
    Ok(optimal_plan(dim, x, y, Cost::Euclidean, watch)?.cost)
}

/// W₂ between rows `x [n, dim]` and `y [m, dim]`: the square root of the squared-cost optimum.
///
/// # Errors
/// As [`optimal_plan`].
pub fn wasserstein2<T: Copy + Into<f64>>(dim: usize, x: &[T], y: &[T], watch: &dyn Watch) -> Result<f64> {
    Ok(optimal_plan(dim, x, y, Cost::SquaredEuclidean, watch)?.cost.sqrt())
}

/// An optimal plan between rows `x [n, dim]` and `y [m, dim]`, each side with uniform masses.
///
/// # Errors
/// [`Error::Input`] if a side has no points or more than [`MAX_POINTS`], a coordinate is not
/// finite, or a cost exceeds f64; [`Error::Interrupted`] if `watch` cancels.
pub fn optimal_plan<T: Copy + Into<f64>>(
    dim: usize,
    x: &[T],
    y: &[T],
    cost: Cost,
    watch: &dyn Watch,
) -> Result<TransportPlan> {
    check_points(dim, x, y)?;
    let (n, m) = (x.len() / dim, y.len() / dim);
    let factor = common_factor(n, m);
    let masses = Masses { supplies: vec![(m / factor) as i64; n], demands: vec![(n / factor) as i64; m] };
    let costs = Costs::new(dim, x, y, cost, watch)?;
    let solution = simplex::solve(&masses, &costs.values, watch)?;
    Ok(plan(solution, &costs, factor as f64 / (n as f64 * m as f64)))
}

/// An optimal plan between rows `x [n, dim]` with the masses `x_weights [n]` and rows `y [m, dim]`
/// with `y_weights [m]`. Each side's weights are divided by their sum and rounded to whole
/// multiples of 2⁻⁴⁰. Rows without mass get the largest potential that their costs allow.
///
/// # Errors
/// As [`optimal_plan`]; also if a weight is negative or not finite, or all weights of a side are 0.
pub fn weighted_plan<T: Copy + Into<f64>>(
    dim: usize,
    (x, x_weights): (&[T], &[f64]),
    (y, y_weights): (&[T], &[f64]),
    cost: Cost,
    watch: &dyn Watch,
) -> Result<TransportPlan> {
    check_points(dim, x, y)?;
    let units = |side: &'static str, points: &[T], weights: &[f64]| -> Result<Vec<i64>> {
        check_len(side, points.len() / dim, weights.len())?;
        let total: f64 = weights.iter().sum();
        if !(total.is_finite() && total > 0.0 && weights.iter().all(|&weight| weight >= 0.0)) {
            let fix = "give weights ≥ 0 with a finite, positive sum";
            return Err(Error::input("optimal transport", side, "cannot be divided by their sum", fix));
        }
        Ok(whole_units(weights, total))
    };
    let (x_units, y_units) = (units("weights of x", x, x_weights)?, units("weights of y", y, y_weights)?);
    // The first tree of the simplex method needs mass at every node.
    let (sources, targets) = (with_mass(&x_units), with_mass(&y_units));
    let gather = |points: &[T], rows: &[usize]| -> Vec<T> {
        rows.iter().flat_map(|&row| &points[row * dim..][..dim]).copied().collect()
    };
    let costs = Costs::new(dim, &gather(x, &sources), &gather(y, &targets), cost, watch)?;
    let of_rows = |units: &[i64], rows: &[usize]| rows.iter().map(|&row| units[row]).collect();
    let masses = Masses { supplies: of_rows(&x_units, &sources), demands: of_rows(&y_units, &targets) };
    let solution = simplex::solve(&masses, &costs.values, watch)?;
    let mut plan = plan(solution, &costs, 1.0 / UNITS);
    plan.moves.iter_mut().for_each(|(i, j, _)| (*i, *j) = (sources[*i], targets[*j]));
    plan.source_potential = spread(&plan.source_potential, &sources, x_units.len());
    plan.target_potential = spread(&plan.target_potential, &targets, y_units.len());
    let between = |i: usize, j: usize| cost.between(&x[i * dim..][..dim], &y[j * dim..][..dim]);
    for i in (0..x_units.len()).filter(|&i| x_units[i] == 0) {
        let slack = targets.iter().map(|&j| between(i, j) - plan.target_potential[j]);
        plan.source_potential[i] = slack.fold(f64::INFINITY, f64::min);
    }
    for j in (0..y_units.len()).filter(|&j| y_units[j] == 0) {
        let slack = (0..x_units.len()).map(|i| between(i, j) - plan.source_potential[i]);
        plan.target_potential[j] = slack.fold(f64::INFINITY, f64::min);
    }
    Ok(plan)
}

/// Units of the mass of all weights of a side.
const UNITS: f64 = (1i64 << 40) as f64;

/// `weights`, whose sum is `total`, in whole units of which all have [`UNITS`].
fn whole_units(weights: &[f64], total: f64) -> Vec<i64> {
    // Rounding the running sum keeps the total exact up to the rounding of the sum itself; the
    // largest mass takes the difference.
    let (mut sum, mut before) = (0.0, 0);
    let mut units: Vec<i64> = (weights.iter())
        .map(|weight| {
            sum += weight;
            let now = (sum / total * UNITS).round() as i64;
            now - std::mem::replace(&mut before, now)
        })
        .collect();
    if let Some(largest) = units.iter_mut().max() {
        *largest += (1 << 40) - before;
    }
    units
}

/// The rows with mass.
fn with_mass(units: &[i64]) -> Vec<usize> {
    (0..units.len()).filter(|&row| units[row] > 0).collect()
}

/// Puts `values` at the positions `rows` of a list of length `n`.
fn spread(values: &[f64], rows: &[usize], n: usize) -> Vec<f64> {
    let mut all = vec![0.0; n];
    rows.iter().zip(values).for_each(|(&row, &value)| all[row] = value);
    all
}

/// The plan of `solution`, each unit of flow being a mass of `unit`.
fn plan(solution: Solution, costs: &Costs, unit: f64) -> TransportPlan {
    let Solution { flows, source_potential, target_potential } = solution;
    let moves: Vec<(usize, usize, f64)> = flows.into_iter().map(|(i, j, flow)| (i, j, flow as f64 * unit)).collect();
    let cost = moves.iter().map(|&(i, j, mass)| costs.row(i)[j] * mass).sum();
    TransportPlan { cost, moves, source_potential, target_potential }
}

/// Rows (i, j) with the mass that leaves i and the mass that arrives at j.
pub type UnbalancedMove = (usize, usize, [f64; 2]);

/// The optimal partial transport for squared distances between rows `x`, each of mass
/// `row_masses[0]`, and rows `y`, each of mass `row_masses[1]`. It minimizes the total cost of
/// moving, vanishing and appearing, if a unit of mass that vanishes and one that appears cost
/// `relaxation` / 2 each (Caffarelli & McCann 2010). So nothing moves over a squared distance
/// larger than `relaxation`.
///
/// Vanishing mass is paired with the nearest row of y, and appearing mass with the nearest row of
/// x. Every row is in a move.
///
/// # Errors
/// As [`optimal_plan`], with one point less on each side; also if a mass or `relaxation` is not
/// positive and finite.
pub fn unbalanced_plan<T: Copy + Into<f64>>(
    dim: usize,
    x: &[T],
    y: &[T],
    row_masses: [f64; 2],
    relaxation: f64,
    watch: &dyn Watch,
) -> Result<Vec<UnbalancedMove>> {
    let [x_masses, y_masses] =
        [(x, row_masses[0]), (y, row_masses[1])].map(|(rows, mass)| vec![mass; rows.len() / dim.max(1)]);
    weighted_unbalanced_plan(dim, (x, &x_masses), (y, &y_masses), relaxation, watch)
}

/// [`unbalanced_plan`] between rows `x [n, dim]` with the masses `x_masses [n]` and rows `y [m, dim]`
/// with `y_masses [m]`. A mass below 2⁻⁴⁰ of the largest counts as that.
///
/// # Errors
/// As [`unbalanced_plan`].
pub fn weighted_unbalanced_plan<T: Copy + Into<f64>>(
    dim: usize,
    (x, x_masses): (&[T], &[f64]),
    (y, y_masses): (&[T], &[f64]),
    relaxation: f64,
    watch: &dyn Watch,
) -> Result<Vec<UnbalancedMove>> {
    /// Units of the largest row mass: far below any mass of interest, and few enough for sums over
    /// all rows.
    const UNITS: f64 = (1i64 << 40) as f64;
    check_points(dim, x, y)?;
    check_len("masses of x", x.len() / dim, x_masses.len())?;
    check_len("masses of y", y.len() / dim, y_masses.len())?;
    let mut numbers = x_masses.iter().chain(y_masses).chain([&relaxation]);
    if let Some(value) = numbers.find(|value| !(value.is_finite() && **value > 0.0)) {
        let problem = format!("holds {value}");
        return Err(Error::input("optimal transport", "masses and relaxation", problem, "use positive numbers"));
    }
    let (n, m) = (x.len() / dim, y.len() / dim);
    let largest = x_masses.iter().chain(y_masses).copied().fold(0.0, f64::max);
    let [supplies, demands] = [x_masses, y_masses].map(|masses| -> Vec<i64> {
        masses.iter().map(|mass| ((mass / largest * UNITS).round() as i64).max(1)).collect()
    });
    // One more source supplies all appearing mass, one more target takes all vanishing mass; flow
    // between these two is free.
    let costs = Costs::with_margin(dim, x, y, 0.5 * relaxation, watch)?;
    let masses = Masses {
        supplies: supplies.iter().copied().chain([demands.iter().sum()]).collect(),
        demands: demands.iter().copied().chain([supplies.iter().sum()]).collect(),
    };
    let solution = simplex::solve(&masses, &costs.values, watch)?;
    let nearest = |costs: &mut dyn Iterator<Item = f64>| {
        costs.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(index, _)| index)
    };
    let to_move = |(i, j, flow): (usize, usize, i64)| {
        let mass = flow as f64 * (largest / UNITS);
        match (i < n, j < m) {
            (true, true) => Some((i, j, [mass, mass])),
            (true, false) => Some((i, nearest(&mut costs.row(i)[..m].iter().copied()), [mass, 0.0])),
            (false, true) => Some((nearest(&mut (0..n).map(|i| costs.row(i)[j])), j, [0.0, mass])),
            (false, false) => None,
        }
    };
    Ok(solution.flows.into_iter().filter_map(to_move).collect())
}

fn check_points<T: Copy + Into<f64>>(dim: usize, x: &[T], y: &[T]) -> Result<()> {
    for (side, points) in [("x", x), ("y", y)] {
        let n = points.len() / dim.max(1);
        if n == 0 || n > MAX_POINTS {
            let fix = format!("give 1 to {MAX_POINTS}, a random subset if there are more");
            return Err(Error::input("optimal transport", side, format!("has {n} points"), fix));
        }
        if points.iter().any(|&value| !value.into().is_finite()) {
            return Err(Error::input("optimal transport", side, "holds a value that is not finite", "remove it"));
        }
    }
    Ok(())
}

impl Cost {
    /// The cost between two points, computed in f64.
    fn between<T: Copy + Into<f64>>(self, x: &[T], y: &[T]) -> f64 {
        let squared: f64 = x.iter().zip(y).map(|(&a, &b)| (a.into() - b.into()).powi(2)).sum();
        if self == Cost::Euclidean { squared.sqrt() } else { squared }
    }
}

/// cᵢⱼ, row-major.
struct Costs {
    values: Vec<f64>,
    columns: usize,
}

impl Costs {
    fn new<T: Copy + Into<f64>>(dim: usize, x: &[T], y: &[T], cost: Cost, watch: &dyn Watch) -> Result<Self> {
        Costs::fill(dim, x, y, cost, None, watch)
    }

    /// Squared distances, with one more row and column of cost `margin`; their common entry is 0.
    fn with_margin<T: Copy + Into<f64>>(dim: usize, x: &[T], y: &[T], margin: f64, watch: &dyn Watch) -> Result<Self> {
        let mut costs = Costs::fill(dim, x, y, Cost::SquaredEuclidean, Some(margin), watch)?;
        costs.values.extend(std::iter::repeat_n(margin, costs.columns - 1).chain([0.0]));
        Ok(costs)
    }

    fn fill<T: Copy + Into<f64>>(
        dim: usize,
        x: &[T],
        y: &[T],
        cost: Cost,
        margin: Option<f64>,
        watch: &dyn Watch,
    ) -> Result<Self> {
        let added = usize::from(margin.is_some());
        let columns = y.len() / dim + added;
        let mut values = Vec::with_capacity((x.len() / dim + added) * columns);
        for x in x.chunks_exact(dim) {
            if watch.is_cancelled() {
                return Err(Error::Interrupted);
            }
            values.extend(y.chunks_exact(dim).map(|y| cost.between(x, y)).chain(margin));
        }
        if values.iter().any(|value| !value.is_finite()) {
            let fix = "divide the data by a constant";
            return Err(Error::input("optimal transport", "x and y", "lie too far apart for 64-bit numbers", fix));
        }
        Ok(Costs { values, columns })
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.columns..(i + 1) * self.columns]
    }
}

/// Greatest common divisor.
fn common_factor(mut a: usize, mut b: usize) -> usize {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests;
