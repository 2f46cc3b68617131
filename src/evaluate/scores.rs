//! The distances of one comparison: of the model, and of what needs no model.

use super::baselines::{Baselines, Neighbor, equal_number};
use super::flow::{Flow, no_points};
use super::labels::Way;
use super::mmd::Kernel;
use super::pair_means::{Weighted, between, shares, within};
use super::points::{Particles, PointSet};
use super::report::{Distances, EqualNumbers};
use crate::error::Result;
use crate::stage::{Stage, Watch};
use crate::transport::{Cost, optimal_plan, problems_at_once, weighted_plan};

/// What one comparison is made of.
pub(super) struct Compared<'a> {
    pub way: Way,
    pub flow: &'a Flow,
    /// Positions and weights of a roll-out at the time of the truth.
    pub roll_out: Option<(&'a [f32], Option<&'a [f64]>)>,
}

/// The distances of one comparison.
pub(super) struct Scores {
    pub model: Distances,
    pub no_motion: Distances,
    pub sampling_floor: Option<Distances>,
    pub equal_numbers: Option<EqualNumbers>,
}

/// The scores of all comparisons, each a task of `stage`.
pub(super) fn scores(
    compared: &[Compared<'_>],
    sets: &[Option<PointSet>],
    dim: usize,
    max_points: usize,
    seed: u64,
    stage: &Stage,
) -> Result<Vec<Scores>> {
    let largest = sets.iter().flatten().map(|set| set.rows.len() / dim).max().unwrap_or(0);
    stage.map(problems_at_once(largest, largest), compared, |compared| {
        one(compared, sets, dim, max_points, seed, stage.watch)
    })
}

fn one(
    Compared { way, flow, roll_out }: &Compared<'_>,
    sets: &[Option<PointSet>],
    dim: usize,
    max_points: usize,
    seed: u64,
    watch: &dyn Watch,
) -> Result<Scores> {
    let set = |k: usize| sets[k].as_ref().ok_or_else(|| no_points(k));
    let truth = set(way.to)?;
    let count = |rows: &[f32]| rows.len() / dim;
    let arrived = Particles { rows: &flow.arrived, weights: flow.weights.as_deref() };
    let departed = Particles::equal(&flow.departed);
    let roll_out = roll_out.map(|(rows, weights)| Particles { rows, weights });

    // Another sample of the truth: its other half, or rows at its time that were trained on.
    let twin = way.twin.map(set).transpose()?;
    let beside = way.beside.map(|ends| Ok::<_, crate::Error>([set(ends[0])?, set(ends[1])?])).transpose()?;
    let (truth_available, other) = match twin {
        Some(twin) => (2 * count(&truth.rows), &twin.rows),
        None => (2 * count(&truth.others), &truth.others),
    };
    let sides = [&flow.departed, other].into_iter().chain(beside.iter().flatten().map(|set| &set.rows));
    // A roll-out has the rows of the first snapshot, which may be fewer.
    let numbers = sides.map(|rows| count(rows)).chain(roll_out.iter().map(|particles| count(particles.rows)));
    let n = equal_number(truth_available, numbers, max_points);

    let of_truth = Spread::new(dim, truth, watch)?;
    let all = |particles: Particles<'_>| -> Result<Distances> {
        let [w1, w2] = wasserstein(dim, particles, &truth.rows, watch)?;
        Ok(Distances { w1, w2, ..of_truth.distances(dim, particles, watch)? })
    };
    let (model, no_motion) = (all(arrived)?, all(departed)?);
    if n == 0 {
        return Ok(Scores { model, no_motion, sampling_floor: None, equal_numbers: None });
    }
    let target = &truth.rows[..n * dim];
    let equal = |particles: Particles<'_>, unbiased: Distances| -> Result<Distances> {
        let [w1, w2] = wasserstein(dim, particles.first(n, dim), target, watch)?;
        Ok(Distances { w1, w2, ..unbiased })
    };
    let of_set = |rows: &[f32]| -> Result<Distances> {
        let particles = Particles::equal(rows);
        equal(particles, of_truth.distances(dim, particles, watch)?)
    };
    let floor = Particles::equal(&other[..n * dim]);
    let of_target = Spread::of(dim, target, truth.kernel, watch)?;
    let sampling_floor = Some(equal(floor, of_target.distances(dim, floor, watch)?)?);
    let baselines = (beside.map(|[before, after]| {
        let [before, after] = [before, after].map(|set| Neighbor { time: set.time, rows: &set.rows });
        let n_points = count(before.rows).min(count(after.rows));
        Baselines::between(dim, before, after, truth.time, n_points, seed, watch)
    }))
    .transpose()?;
    let of_baseline = |rows: fn(&Baselines) -> &[f32]| baselines.as_ref().map(|b| of_set(rows(b))).transpose();
    let equal_numbers = EqualNumbers {
        n_points: n,
        model: equal(arrived, model)?,
        roll_out: (roll_out.map(|particles| equal(particles, of_truth.distances(dim, particles, watch)?)))
            .transpose()?,
        no_motion: equal(departed, no_motion)?,
        previous: match way.beside {
            Some([before, _]) if way.from != Some(before) => of_baseline(|baselines| &baselines.previous)?,
            _ => None,
        },
        next: of_baseline(|baselines| &baselines.next)?,
        pooled_neighbors: of_baseline(|baselines| &baselines.pooled)?,
        plan_midpoint: of_baseline(|baselines| &baselines.plan_midpoint)?,
    };
    Ok(Scores { model, no_motion, sampling_floor, equal_numbers: Some(equal_numbers) })
}

/// Exact W₁ and W₂ between particles and points `y`.
fn wasserstein(dim: usize, x: Particles<'_>, y: &[f32], watch: &dyn Watch) -> Result<[f64; 2]> {
    let least_cost = |cost: Cost| match x.weights {
        Some(weights) => {
            weighted_plan(dim, (x.rows, weights), (y, &vec![1.0; y.len() / dim]), cost, watch).map(|plan| plan.cost)
        }
        None => optimal_plan(dim, x.rows, y, cost, watch).map(|plan| plan.cost),
    };
    Ok([least_cost(Cost::Euclidean)?, least_cost(Cost::SquaredEuclidean)?.sqrt()])
}

/// Points, with the means over their own pairs that every unbiased distance from them needs.
struct Spread<'a> {
    rows: &'a [f32],
    kernel: Option<Kernel>,
    within: Option<[f64; 4]>,
}

impl<'a> Spread<'a> {
    fn new(dim: usize, truth: &'a PointSet, watch: &dyn Watch) -> Result<Self> {
        Spread::of(dim, &truth.rows, truth.kernel, watch)
    }

    fn of(dim: usize, rows: &'a [f32], kernel: Option<Kernel>, watch: &dyn Watch) -> Result<Self> {
        let shares = shares(rows.len() / dim, None);
        let within = within(dim, Weighted { rows, shares: &shares }, &values(kernel), watch)?;
        Ok(Spread { rows, kernel, within })
    }

    /// Unbiased distances of particles from the points, W₁ and W₂ left at 0.
    fn distances(&self, dim: usize, x: Particles<'_>, watch: &dyn Watch) -> Result<Distances> {
        let values = values(self.kernel);
        let (p, q) = (shares(x.rows.len() / dim, x.weights), shares(self.rows.len() / dim, None));
        let x = Weighted { rows: x.rows, shares: &p };
        let none = Distances { w1: 0.0, w2: 0.0, energy: None, mmd2_half: None, mmd2: None, mmd2_double: None };
        let (Some(within_x), Some(within_y)) = (within(dim, x, &values, watch)?, self.within) else { return Ok(none) };
        let across = between(dim, x, Weighted { rows: self.rows, shares: &q }, &values, watch)?;
        let [energy, half, own, double] = std::array::from_fn(|i| within_x[i] + within_y[i] - 2.0 * across[i]);
        let of_kernel = |mmd2: f64| self.kernel.map(|_| mmd2);
        Ok(Distances {
            energy: Some(-energy),
            mmd2_half: of_kernel(half),
            mmd2: of_kernel(own),
            mmd2_double: of_kernel(double),
            ..none
        })
    }
}

/// Of a squared distance: its root, and three kernels.
fn values(kernel: Option<Kernel>) -> impl Fn(f64) -> [f64; 4] {
    move |squared: f64| {
        let [half, own, double] = kernel.map_or([0.0; 3], |kernel| kernel.of_three(squared));
        [squared.sqrt(), half, own, double]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{energy_distance, mmd2};
    use super::*;

    /// All measures from one pass are those of the functions that compute one each.
    #[test]
    fn one_pass_gives_every_unbiased_distance() {
        let rows =
            |shift: f32, n: usize| -> Vec<f32> { (0..3 * n).map(|i| shift + (i * i % 17) as f32 * 0.3).collect() };
        let (x, y) = (rows(0.4, 9), rows(0.0, 13));
        let weights: Vec<f64> = (0..9).map(|i| 1.0 + f64::from(i)).collect();
        let kernel = Kernel { bandwidth: 1.7 };
        for weights in [None, Some(&weights[..])] {
            let spread = Spread::of(3, &y, Some(kernel), &()).expect("is not cancelled");
            let got = spread.distances(3, Particles { rows: &x, weights }, &()).expect("is not cancelled");
            let energy = energy_distance(3, &x, weights, &y, &()).expect("enough rows");
            assert!((got.energy.expect("enough rows") - energy).abs() < 1e-12, "{got:?}");
            for (factor, mmd) in [(0.5, got.mmd2_half), (1.0, got.mmd2), (2.0, got.mmd2_double)] {
                let kernel = Kernel { bandwidth: factor * kernel.bandwidth };
                let want = mmd2(kernel, 3, &x, weights, &y, &()).expect("is not cancelled").expect("enough rows");
                assert!((mmd.expect("a kernel") - want).abs() < 1e-12, "{factor}: {mmd:?}, not {want}");
            }
        }
    }

    #[test]
    fn a_single_row_has_no_unbiased_distance() {
        let spread = Spread::of(1, &[1.0], None, &()).expect("is not cancelled");
        let got = spread.distances(1, Particles::equal(&[0.0, 1.0]), &()).expect("is not cancelled");
        assert_eq!((got.energy, got.mmd2), (None, None));
    }
}
