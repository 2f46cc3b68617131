//! Exact optimal transport between two point sets, by the network simplex method.
//!
//! Masses are whole numbers (uniform ones are n·m units in all, divided by their common factor), so
//! flows are exact, and so are the potentials that prove a plan optimal. Results are exact up to
//! rounding at any scale of the data, even if some rows are far from all others. Existing crates
//! solve assignments of equal sizes or floating-point flows; no maintained one solves unequal sizes
//! of thousands of points exactly.
//!
//! Every function here takes 8·n·m bytes for its costs, and ends with [`Error::Interrupted`] soon
//! after its watch cancels.

mod simplex;

use self::simplex::{Masses, Solution};
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
pub enum Cost {
    /// ‖x − y‖: the optimum is W₁.
    Euclidean,
    /// ‖x − y‖²: the optimum is W₂².
    SquaredEuclidean,
}

/// An optimal plan, with the potentials that prove it.
#[derive(Clone, Debug)]
pub struct Plan {
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
pub fn optimal_plan<T: Copy + Into<f64>>(dim: usize, x: &[T], y: &[T], cost: Cost, watch: &dyn Watch) -> Result<Plan> {
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
) -> Result<Plan> {
    const UNITS: f64 = (1i64 << 40) as f64;
    check_points(dim, x, y)?;
    let units = |side: &'static str, points: &[T], weights: &[f64]| -> Result<Vec<i64>> {
        check_len(side, points.len() / dim, weights.len())?;
        let total: f64 = weights.iter().sum();
        if !(total.is_finite() && total > 0.0 && weights.iter().all(|&weight| weight >= 0.0)) {
            let fix = "give weights ≥ 0 with a finite, positive sum";
            return Err(Error::input("optimal transport", side, "cannot be divided by their sum", fix));
        }
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
        Ok(units)
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
fn plan(solution: Solution, costs: &Costs, unit: f64) -> Plan {
    let Solution { flows, source_potential, target_potential } = solution;
    let moves: Vec<(usize, usize, f64)> = flows.into_iter().map(|(i, j, flow)| (i, j, flow as f64 * unit)).collect();
    let cost = moves.iter().map(|&(i, j, mass)| costs.row(i)[j] * mass).sum();
    Plan { cost, moves, source_potential, target_potential }
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
    /// Units of the larger row mass: far below any mass of interest, and few enough for sums over
    /// all rows.
    const UNITS: f64 = (1i64 << 40) as f64;
    check_points(dim, x, y)?;
    if let Some(value) = row_masses.iter().chain([&relaxation]).find(|value| !(value.is_finite() && **value > 0.0)) {
        let problem = format!("holds {value}");
        return Err(Error::input("optimal transport", "masses and relaxation", problem, "use positive numbers"));
    }
    let (n, m) = (x.len() / dim, y.len() / dim);
    let largest = row_masses[0].max(row_masses[1]);
    let [supply, demand] = row_masses.map(|mass| ((mass / largest * UNITS).round() as i64).max(1));
    // One more source supplies all appearing mass, one more target takes all vanishing mass; flow
    // between these two is free.
    let costs = Costs::with_margin(dim, x, y, 0.5 * relaxation, watch)?;
    let masses = Masses {
        supplies: std::iter::repeat_n(supply, n).chain([demand * m as i64]).collect(),
        demands: std::iter::repeat_n(demand, m).chain([supply * n as i64]).collect(),
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
mod tests {
    use super::*;
    use crate::rng::{Purpose, unit_f32, words};

    fn points(n: usize, dim: usize, seed: u64) -> Vec<f32> {
        (0..n * dim).map(|i| unit_f32(words(seed, Purpose::Evaluation, 0, i as u32)[0])).collect()
    }

    /// Checks that masses are right, no pair of potentials exceeds its cost, and primal and dual
    /// cost agree: a proof of optimality.
    #[track_caller]
    fn is_optimal(dim: usize, x: &[f32], y: &[f32], cost: Cost) -> Plan {
        let plan = optimal_plan(dim, x, y, cost, &()).expect("solves");
        let (n, m) = (x.len() / dim, y.len() / dim);
        let costs = Costs::new(dim, x, y, cost, &()).expect("finite").values;
        let (mut rows, mut columns) = (vec![0.0; n], vec![0.0; m]);
        for &(i, j, mass) in &plan.moves {
            assert!(mass > 0.0);
            rows[i] += mass;
            columns[j] += mass;
        }
        assert!(rows.iter().all(|mass| (mass * n as f64 - 1.0).abs() < 1e-12));
        assert!(columns.iter().all(|mass| (mass * m as f64 - 1.0).abs() < 1e-12));
        // Each arc has its own tolerance, so large costs elsewhere excuse no error.
        let (u, v) = (&plan.source_potential, &plan.target_potential);
        for i in 0..n {
            for j in 0..m {
                let cost = costs[i * m + j];
                let slack = cost - (u[i] + v[j]);
                assert!(slack >= -1e-13 * cost - 1e-15 * (u[i].abs() + v[j].abs()), "({i}, {j}): slack {slack}");
            }
        }
        let dual = u.iter().sum::<f64>() / n as f64 + v.iter().sum::<f64>() / m as f64;
        let size = u.iter().map(|u| u.abs() / n as f64).chain(v.iter().map(|v| v.abs() / m as f64)).sum::<f64>();
        assert!((plan.cost - dual).abs() <= 1e-12 * plan.cost + 1e-14 * size, "{} and {dual}", plan.cost);
        plan
    }

    #[test]
    fn random_sets_of_every_size_are_solved_to_a_proof() {
        for (n, m) in [(1, 1), (1, 7), (7, 1), (2, 3), (13, 13), (40, 25), (97, 101), (200, 300)] {
            for cost in [Cost::Euclidean, Cost::SquaredEuclidean] {
                is_optimal(3, &points(n, 3, 1), &points(m, 3, 2), cost);
            }
        }
    }

    #[test]
    fn every_scale_is_solved_to_a_proof() {
        for exponent in (-18..=18).step_by(3) {
            let scale = 10.0_f32.powi(exponent);
            let scaled = |n: usize, seed: u64| -> Vec<f32> { points(n, 3, seed).iter().map(|x| x * scale).collect() };
            for cost in [Cost::Euclidean, Cost::SquaredEuclidean] {
                is_optimal(3, &scaled(150, 1), &scaled(150, 2), cost);
                is_optimal(3, &scaled(80, 1), &scaled(60, 2), cost);
            }
        }
    }

    /// Rows that are far from the others but near each other are paired among themselves; the
    /// others are paired as without them.
    #[test]
    fn far_rows_leave_the_others_alone() {
        let (n, dim) = (120, 3);
        let (x, y) = (points(n, dim, 40), points(n, dim, 41));
        for cost in [Cost::Euclidean, Cost::SquaredEuclidean] {
            let near = is_optimal(dim, &x, &y, cost).cost * n as f64;
            for (n_far, far) in [(1, 1e6), (1, 1e7), (1, 1e9), (1, 1e12), (30, 1e6), (n, 1e6), (2 * n, 1e6)] {
                let shifted = |seed: u64| -> Vec<f32> {
                    points(n_far, dim, seed).iter().map(|x| far + if n_far == 1 { 0.0 } else { 100.0 * x }).collect()
                };
                let (x_far, y_far) = (shifted(42), shifted(43));
                let apart = is_optimal(dim, &x_far, &y_far, cost).cost * n_far as f64;
                // The far rows come first, then last.
                for [x, y] in [[[&x[..], &x_far], [&y[..], &y_far]], [[&x_far[..], &x], [&y[..], &y_far]]] {
                    let got = is_optimal(dim, &x.concat(), &y.concat(), cost).cost * (n + n_far) as f64;
                    let want = near + apart;
                    assert!((got / want - 1.0).abs() < 1e-11, "{n_far} at {far:e}: {got}, not {want}");
                }
            }
        }
        // The near rows decide the additional cost of the far ones: one far row has no partner.
        let (mut x, mut y) = (points(50, 1, 44), points(50, 1, 45));
        x[20] = 1e7;
        let got = is_optimal(1, &x, &y, Cost::Euclidean).cost;
        x.sort_by(f32::total_cmp);
        y.sort_by(f32::total_cmp);
        let want = x.iter().zip(&y).map(|(&a, &b)| f64::from(a - b).abs()).sum::<f64>() / 50.0;
        assert!((got / want - 1.0).abs() < 1e-6, "{got}, not {want}");
    }

    /// Coordinates in f64 keep their digits far from 0.
    #[test]
    fn coordinates_may_be_f64() {
        let x: Vec<f64> = points(40, 2, 46).iter().map(|&x| f64::from(x)).collect();
        let far = |points: &[f64]| -> Vec<f64> { points.iter().map(|x| 2f64.powi(26) + x).collect() };
        let y: Vec<f64> = points(40, 2, 47).iter().map(|&y| f64::from(y)).collect();
        let want = wasserstein2(2, &x, &y, &()).expect("solves");
        let got = wasserstein2(2, &far(&x), &far(&y), &()).expect("solves");
        assert!((got / want - 1.0).abs() < 1e-7, "{got}, not {want}");
        let error = wasserstein2(1, &[1e200], &[-1e200], &()).expect_err("squares that are infinite");
        assert!(error.to_string().contains("too far apart"), "{error}");
    }

    /// The costs, the search and the pivots all look at the watch.
    #[test]
    fn a_cancelled_problem_ends_soon() {
        use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
        struct Patience(AtomicUsize);
        impl Watch for Patience {
            fn is_cancelled(&self) -> bool {
                self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err()
            }
        }
        let n = 700;
        let (x, y) = (points(n, 2, 48), points(n, 2, 49));
        let asked = |patience: usize| {
            let watch = Patience(AtomicUsize::new(patience));
            let outcome = wasserstein2(2, &x, &y, &watch);
            (outcome, patience - watch.0.into_inner())
        };
        let (outcome, in_all) = asked(usize::MAX);
        assert!(outcome.is_ok() && in_all > n + 5, "{in_all}");
        for patience in [0, n / 2, n, in_all - 1] {
            assert!(matches!(asked(patience).0, Err(Error::Interrupted)), "after {patience} of {in_all}");
        }
    }

    #[test]
    fn ties_and_repeated_points_do_not_cycle() {
        let same = vec![0.5; 60];
        assert_eq!(is_optimal(2, &same, &same, Cost::Euclidean).cost, 0.0);
        // A grid and the same grid shifted by one: many optimal plans.
        let grid =
            |shift: f32| -> Vec<f32> { (0..144).flat_map(|i| [(i % 12) as f32 + shift, (i / 12) as f32]).collect() };
        assert!((is_optimal(2, &grid(0.0), &grid(1.0), Cost::Euclidean).cost - 1.0).abs() < 1e-12);
        assert!((is_optimal(2, &grid(0.0), &grid(1.0), Cost::SquaredEuclidean).cost - 1.0).abs() < 1e-12);
        let x = points(150, 2, 3);
        assert_eq!(is_optimal(2, &x, &x, Cost::SquaredEuclidean).cost, 0.0);
        let doubled = [&x[..], &x[..]].concat();
        assert_eq!(is_optimal(2, &x, &doubled, Cost::Euclidean).cost, 0.0);
    }

    /// In one dimension the optimum pairs quantiles.
    #[test]
    fn one_dimension_agrees_with_sorted_quantiles() {
        let (n, m) = (90, 84);
        let (mut x, mut y) = (points(n, 1, 4), points(m, 1, 5));
        let plan = is_optimal(1, &x, &y, Cost::SquaredEuclidean);
        x.sort_by(f32::total_cmp);
        y.sort_by(f32::total_cmp);
        let units = n * m;
        let want: f64 =
            (0..units).map(|unit| (f64::from(x[unit / m]) - f64::from(y[unit / n])).powi(2) / units as f64).sum();
        assert!((plan.cost - want).abs() < 1e-12, "{}, not {want}", plan.cost);
    }

    /// Every assignment of six points, one by one.
    #[test]
    fn small_sets_agree_with_all_permutations() {
        fn best(costs: &[f64], used: u32, i: usize) -> f64 {
            let n = 6;
            if i == n {
                return 0.0;
            }
            (0..n)
                .filter(|j| used & (1 << j) == 0)
                .map(|j| costs[i * n + j] + best(costs, used | 1 << j, i + 1))
                .fold(f64::INFINITY, f64::min)
        }
        for seed in 10..30 {
            let (x, y) = (points(6, 4, seed), points(6, 4, seed + 100));
            for cost in [Cost::Euclidean, Cost::SquaredEuclidean] {
                let want = best(&Costs::new(4, &x, &y, cost, &()).expect("finite").values, 0, 0) / 6.0;
                assert!((is_optimal(4, &x, &y, cost).cost - want).abs() < 1e-12);
            }
        }
    }

    /// Repeating a row as often as its weight says gives the same problem.
    #[test]
    fn weights_count_like_repeated_rows() {
        let (x, y) = (points(20, 2, 6), points(31, 2, 7));
        let weights = |n: usize| -> Vec<f64> { (0..n).map(|i| (i % 4) as f64).collect() };
        let repeated = |points: &[f32]| -> Vec<f32> {
            points.chunks_exact(2).enumerate().flat_map(|(i, point)| point.repeat(i % 4)).collect()
        };
        for cost in [Cost::Euclidean, Cost::SquaredEuclidean] {
            let got = weighted_plan(2, (&x, &weights(20)), (&y, &weights(31)), cost, &()).expect("solves");
            let want = optimal_plan(2, &repeated(&x), &repeated(&y), cost, &()).expect("solves").cost;
            assert!((got.cost - want).abs() < 1e-9, "{}, not {want}", got.cost);
        }
        let uniform = weighted_plan(2, (&x, &[3.0; 20]), (&y, &[0.1; 31]), Cost::Euclidean, &()).expect("solves").cost;
        assert!((uniform - wasserstein1(2, &x, &y, &()).expect("solves")).abs() < 1e-9);
        // With other rows that move, the potential of a row without mass also keeps to its costs.
        let plan = weighted_plan(2, (&x, &weights(20)), (&y, &weights(31)), Cost::Euclidean, &()).expect("solves");
        let costs = Costs::new(2, &x, &y, Cost::Euclidean, &()).expect("finite");
        for (i, u) in plan.source_potential.iter().enumerate() {
            let least = costs.row(i).iter().zip(&plan.target_potential).map(|(c, v)| c - v).fold(f64::MAX, f64::min);
            assert!((least - u).abs() < 1e-12, "row {i}: {least} and {u}");
        }
        assert!(weighted_plan(2, (&x, &[0.0; 20]), (&y, &[1.0; 31]), Cost::Euclidean, &()).is_err());
        assert!(weighted_plan(2, (&x, &[-1.0; 20]), (&y, &[1.0; 31]), Cost::Euclidean, &()).is_err());
        assert!(weighted_plan(2, (&x, &[1.0; 19]), (&y, &[1.0; 31]), Cost::Euclidean, &()).is_err());
    }

    /// The masses at both ends are those of the rows. For large relaxation this is balanced
    /// transport, for small relaxation nothing moves, and in between the cost is at most that of
    /// both.
    #[test]
    fn partial_transport_moves_what_is_near_and_lets_the_rest_appear_and_vanish() {
        let (n, m) = (25, 40);
        let (x, y) = (points(n, 2, 8), points(m, 2, 9));
        let row_masses = [1.0 / n as f64, 1.5 / m as f64];
        let squared =
            |i: usize, j: usize| -> f64 { (0..2).map(|k| f64::from(x[2 * i + k] - y[2 * j + k]).powi(2)).sum() };
        let mut costs = Vec::new();
        for relaxation in [1e-12, 0.005, 0.02, 1e4] {
            let moves = unbalanced_plan(2, &x, &y, row_masses, relaxation, &()).expect("solves");
            let (mut left, mut right, mut cost, mut moved) = (vec![0.0; n], vec![0.0; m], 0.0, 0.0);
            for &(i, j, [leaves, arrives]) in &moves {
                left[i] += leaves;
                right[j] += arrives;
                if leaves == arrives {
                    assert!(squared(i, j) <= relaxation * (1.0 + 1e-9));
                    cost += leaves * squared(i, j);
                    moved += leaves;
                } else {
                    assert!(leaves == 0.0 || arrives == 0.0);
                    cost += 0.5 * relaxation * (leaves + arrives);
                }
            }
            assert!(left.iter().all(|mass| (mass - row_masses[0]).abs() < 1e-10), "{left:?}");
            assert!(right.iter().all(|mass| (mass - row_masses[1]).abs() < 1e-10), "{right:?}");
            costs.push((relaxation, cost, moved));
        }
        assert!(costs[0].2 < 1e-9 && (costs[3].2 - 1.0).abs() < 1e-9, "{costs:?}");
        assert!(costs.windows(2).all(|pair| pair[0].1 < pair[1].1 && pair[0].2 < pair[1].2), "{costs:?}");
        // Equal masses and a large relaxation: balanced transport.
        let moves = unbalanced_plan(2, &x, &y, [1.0 / n as f64, 1.0 / m as f64], 1e4, &()).expect("solves");
        let cost: f64 = moves.iter().map(|&(i, j, [mass, _])| mass * squared(i, j)).sum();
        let want = optimal_plan(2, &x, &y, Cost::SquaredEuclidean, &()).expect("solves").cost;
        assert!((cost - want).abs() < 1e-9, "{cost}, not {want}");
        assert!(unbalanced_plan(2, &x, &y, [1.0, 0.0], 1.0, &()).is_err());
        assert!(unbalanced_plan(2, &x, &y, [1.0, 1.0], f64::NAN, &()).is_err());
    }

    #[test]
    fn problems_that_run_at_once_fit_the_memory() {
        assert_eq!(problems_at_once(MAX_POINTS, MAX_POINTS), 5);
        assert_eq!(problems_at_once(1 << 13, 1 << 14), 1);
        assert_eq!(problems_at_once(1 << 20, 1 << 20), 1);
        for n in [1, 100, 1024, 5000] {
            assert!(problems_at_once(n, n) * 8 * n * n <= MEMORY);
        }
    }

    #[test]
    fn bad_sets_are_refused() {
        assert!(wasserstein1(2, &[], &[0.0, 1.0], &()).is_err());
        assert!(wasserstein1(1, &[0.0], &[f32::NAN], &()).is_err());
        assert!(wasserstein2(1, &vec![0.0; MAX_POINTS + 1], &[0.0], &()).is_err());
    }
}
