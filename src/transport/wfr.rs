//! Pairs of Wasserstein–Fisher–Rao transport (Chizat et al. 2018; Liero, Mielke & Savaré 2018):
//! mass moves and grows at once, at the least ∫ m (½‖u‖² + ½δ²g²) dt for the velocity u and the
//! growth rate g of every bit of mass m.
//!
//! The pairs are those of optimal entropy transport with the cost −log cos²(d/(2δ)): the optimal
//! path of one pair keeps to the geodesic of [`Turn`](crate::density_path::Turn), and that of the
//! population is their sum. No mass moves as far as πδ: it is then cheaper to let it vanish and
//! grow elsewhere.

use super::simplex::{self, Masses};
use super::{Cost, Costs, UNITS, UnbalancedMove, check_points, entropic, whole_units, with_mass};
use crate::error::{Error, Result, check_len};
use crate::stage::Watch;

/// The optimal pairs between rows `x [n, dim]` with the masses `x_masses [n]` and rows `y [m, dim]`
/// with `y_masses [m]`, where `delta` is the length δ that makes growth as costly as motion: for
/// each pair the mass that leaves x and the mass that arrives at y (semi-couplings). These masses
/// add up to those of the rows, exactly. A row further than πδ from all of the other side is in one
/// move, with its nearest row, whose mass at the other end is 0.
///
/// How much of each row moves is found by Sinkhorn's iterations with a small entropic
/// regularization, and where it moves then exactly, so there are at most n + m − 1 pairs that move.
/// Takes up to 32·n·m bytes.
///
/// # Errors
/// As [`optimal_plan`](super::optimal_plan); also if a mass or `delta` is not positive and finite.
pub fn wfr_plan<T: Copy + Into<f64>>(
    dim: usize,
    (x, x_masses): (&[T], &[f64]),
    (y, y_masses): (&[T], &[f64]),
    delta: f64,
    watch: &dyn Watch,
) -> Result<Vec<UnbalancedMove>> {
    check_points(dim, x, y)?;
    check_len("masses of x", x.len() / dim, x_masses.len())?;
    check_len("masses of y", y.len() / dim, y_masses.len())?;
    let numbers = x_masses.iter().chain(y_masses).chain([&delta]);
    if let Some(value) = numbers.into_iter().find(|value| !(value.is_finite() && **value > 0.0)) {
        let problem = format!("holds {value}");
        return Err(Error::input("optimal transport", "masses and delta", problem, "use positive numbers"));
    }
    let squared = Costs::new(dim, x, y, Cost::SquaredEuclidean, watch)?;
    let costs: Vec<f64> = squared.values.iter().map(|squared| entropy_cost(squared.sqrt() / (2.0 * delta))).collect();
    let moving = entropic::solve(&costs, x_masses, y_masses, watch)?;
    let mut moves = semi_couplings(exact_plan(&costs, &moving, watch)?, x_masses, y_masses);
    let (mut leaves, mut arrives) = (vec![false; x_masses.len()], vec![false; y_masses.len()]);
    moves.iter().for_each(|&(i, j, _)| (leaves[i], arrives[j]) = (true, true));
    let nearest = |distances: &mut dyn Iterator<Item = f64>| {
        distances.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(index, _)| index)
    };
    for i in (0..leaves.len()).filter(|&i| !leaves[i]) {
        moves.push((i, nearest(&mut squared.row(i).iter().copied()), [x_masses[i], 0.0]));
    }
    for j in (0..arrives.len()).filter(|&j| !arrives[j]) {
        moves.push((nearest(&mut (0..leaves.len()).map(|i| squared.row(i)[j])), j, [0.0, y_masses[j]]));
    }
    moves.sort_by_key(|&(i, j, _)| (i, j));
    Ok(moves)
}

/// −log cos² of an angle ≥ 0, infinite from a right angle on.
fn entropy_cost(angle: f64) -> f64 {
    // 1 − sin² keeps the digits of small angles.
    if angle < std::f64::consts::FRAC_PI_2 { -(-angle.sin().powi(2)).ln_1p() } else { f64::INFINITY }
}

/// The plan of least cost between the masses that move (those of the two sides), as entries (i, j,
/// mass). Rows whose masses are below 2⁻⁴⁰ of all are in none.
fn exact_plan(costs: &[f64], moving: &[Vec<f64>; 2], watch: &dyn Watch) -> Result<Vec<(usize, usize, f64)>> {
    let columns = moving[1].len();
    let totals = [0, 1].map(|side| moving[side].iter().sum::<f64>());
    if totals.iter().any(|&total| total <= 0.0) {
        return Ok(Vec::new());
    }
    let units = [0, 1].map(|side| whole_units(&moving[side], totals[side]));
    let [sources, targets] = [with_mass(&units[0]), with_mass(&units[1])];
    // What may not move costs more than any way around it over costs that are finite.
    let finite = costs.iter().copied().filter(|cost| cost.is_finite()).fold(0.0, f64::max);
    let forbidden = finite * (sources.len() + targets.len()) as f64 + 1.0;
    let values: Vec<f64> =
        (sources.iter()).flat_map(|&i| targets.iter().map(move |&j| costs[i * columns + j].min(forbidden))).collect();
    let masses = Masses {
        supplies: sources.iter().map(|&i| units[0][i]).collect(),
        demands: targets.iter().map(|&j| units[1][j]).collect(),
    };
    let flows = simplex::solve(&masses, &values, watch)?.flows.into_iter();
    let entry = |(i, j, flow): (usize, usize, i64)| (sources[i], targets[j], flow as f64 * (totals[0] / UNITS));
    Ok(flows.map(entry).filter(|&(i, j, _)| costs[i * columns + j].is_finite()).collect())
}

/// The entries of `plan` with the masses of the rows divided among them in proportion.
fn semi_couplings(plan: Vec<(usize, usize, f64)>, x_masses: &[f64], y_masses: &[f64]) -> Vec<UnbalancedMove> {
    let (mut row_sums, mut column_sums) = (vec![0.0; x_masses.len()], vec![0.0; y_masses.len()]);
    for &(i, j, mass) in &plan {
        row_sums[i] += mass;
        column_sums[j] += mass;
    }
    let divided = |(i, j, mass): (usize, usize, f64)| {
        (i, j, [x_masses[i] * (mass / row_sums[i]), y_masses[j] * (mass / column_sums[j])])
    };
    plan.into_iter().map(divided).collect()
}
