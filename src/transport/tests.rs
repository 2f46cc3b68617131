//! Optimality and masses of plans, on problems of every shape.

use super::*;
use crate::rng::{Purpose, unit_f32, words};

fn points(n: usize, dim: usize, seed: u64) -> Vec<f32> {
    (0..n * dim).map(|i| unit_f32(words(seed, Purpose::Evaluation, 0, i as u32)[0])).collect()
}

/// Checks that masses are right, no pair of potentials exceeds its cost, and primal and dual
/// cost agree: a proof of optimality.
#[track_caller]
fn is_optimal(dim: usize, x: &[f32], y: &[f32], cost: Cost) -> TransportPlan {
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
    let grid = |shift: f32| -> Vec<f32> { (0..144).flat_map(|i| [(i % 12) as f32 + shift, (i / 12) as f32]).collect() };
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
    let squared = |i: usize, j: usize| -> f64 { (0..2).map(|k| f64::from(x[2 * i + k] - y[2 * j + k]).powi(2)).sum() };
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

/// Σ (m₀ + m₁ − 2 √(m₀ m₁) cos θ): the squared distance of Wasserstein–Fisher–Rao along `moves`, in
/// units of 2δ².
fn wfr_energy(dim: usize, x: &[f32], y: &[f32], delta: f64, moves: &[UnbalancedMove]) -> f64 {
    let energy = |&(i, j, [start, end]): &UnbalancedMove| {
        let distance = Cost::Euclidean.between(&x[i * dim..][..dim], &y[j * dim..][..dim]);
        let cos = (distance / (2.0 * delta)).min(std::f64::consts::FRAC_PI_2).cos();
        start + end - 2.0 * (start * end).sqrt() * cos
    };
    moves.iter().map(energy).sum()
}

/// The least value of optimal entropy transport, by the multiplicative updates of Chapel et al.
/// (2021), which need no regularization and keep a dense plan.
fn least_entropy_cost(dim: usize, (x, a): (&[f32], &[f64]), (y, b): (&[f32], &[f64]), delta: f64) -> f64 {
    let (n, m) = (a.len(), b.len());
    let cos_squared = |i: usize, j: usize| {
        let distance = Cost::Euclidean.between(&x[i * dim..][..dim], &y[j * dim..][..dim]);
        (distance / (2.0 * delta)).min(std::f64::consts::FRAC_PI_2).cos().powi(2)
    };
    let kernel: Vec<f64> = (0..n * m).map(|at| cos_squared(at / m, at % m)).collect();
    let mut plan: Vec<f64> = (0..n * m).map(|at| a[at / m] * b[at % m]).collect();
    let sums = |plan: &[f64]| {
        let (mut rows, mut columns) = (vec![0.0; n], vec![0.0; m]);
        plan.iter().enumerate().for_each(|(at, mass)| (rows[at / m] += mass, columns[at % m] += mass).0);
        (rows, columns)
    };
    for _ in 0..20_000 {
        let (rows, columns) = sums(&plan);
        for (at, mass) in plan.iter_mut().enumerate() {
            let (i, j) = (at / m, at % m);
            if *mass > 0.0 {
                *mass *= (a[i] / rows[i] * b[j] / columns[j] * kernel[at]).sqrt();
            }
        }
    }
    let entropy = |got: f64, given: f64| given + if got > 0.0 { got * (got / given).ln() - got } else { 0.0 };
    let (rows, columns) = sums(&plan);
    let moving: f64 = plan.iter().zip(&kernel).filter(|(mass, _)| **mass > 0.0).map(|(mass, k)| -mass * k.ln()).sum();
    let start: f64 = rows.iter().zip(a).map(|(&got, &given)| entropy(got, given)).sum();
    moving + start + columns.iter().zip(b).map(|(&got, &given)| entropy(got, given)).sum::<f64>()
}

/// The pairs have the energy of an optimum found in another way, and every row its mass, whether
/// all rows reach each other or some have no partner.
#[test]
fn pairs_that_move_and_grow_have_the_least_energy() {
    let (n, m, dim) = (25, 31, 2);
    let (x, y) = (points(n, dim, 50), points(m, dim, 51).iter().map(|y| 1.5 * y).collect::<Vec<f32>>());
    let weights =
        |n: usize, seed: u64| -> Vec<f64> { points(n, 1, seed).iter().map(|w| 0.2 + f64::from(*w)).collect() };
    let (a, b) = (weights(n, 52), weights(m, 53));
    for delta in [0.07, 0.15, 0.4, 3.0] {
        let moves = wfr_plan(dim, (&x, &a), (&y, &b), delta, &()).expect("solves");
        let (mut rows, mut columns) = (vec![0.0; n], vec![0.0; m]);
        moves.iter().for_each(|&(i, j, mass)| (rows[i] += mass[0], columns[j] += mass[1]).0);
        assert!(rows.iter().zip(&a).chain(columns.iter().zip(&b)).all(|(got, want)| (got / want - 1.0).abs() < 1e-12));
        let (got, want) = (wfr_energy(dim, &x, &y, delta, &moves), least_entropy_cost(dim, (&x, &a), (&y, &b), delta));
        println!("delta {delta}: {got} of {want}, {} pairs", moves.len());
        assert!(got > want * (1.0 - 1e-3) && got < want * 1.003, "delta {delta}: {got}, not {want}");
        let in_place = moves.iter().filter(|(_, _, mass)| mass.contains(&0.0)).count();
        assert!(if delta < 0.1 { in_place > 0 } else { delta < 0.4 || in_place == 0 }, "delta {delta}: {in_place}");
        assert!(moves.len() < n + m + in_place, "delta {delta}: {} pairs", moves.len());
    }
}

/// Two populations that do not reach each other, of which one grows and one shrinks: all rows move
/// within their own, and the pairs of each are those that it has alone.
#[test]
fn populations_out_of_reach_are_solved_as_if_alone() {
    let (n, m, dim, far) = (60, 80, 2, 50.0);
    let shifted = |points: Vec<f32>| points.iter().map(|x| x + far).collect::<Vec<f32>>();
    let (x, y) = (points(n, dim, 56), points(m, dim, 57));
    let (a, b) = (vec![1.0; n], vec![2.0; m]);
    let alone = wfr_plan(dim, (&x, &a), (&y, &b), 1.0, &()).expect("solves");
    let both_x = [x.clone(), shifted(y.clone())].concat();
    let both_y = [y, shifted(x)].concat();
    let (both_a, both_b) = ([a.clone(), b.clone()].concat(), [b, a].concat());
    let both = wfr_plan(dim, (&both_x, &both_a), (&both_y, &both_b), 1.0, &()).expect("solves");
    assert!(both.iter().all(|(_, _, mass)| mass[0] > 0.0 && mass[1] > 0.0), "a row has no partner");
    let energy = wfr_energy(dim, &both_x, &both_y, 1.0, &both);
    let (x, y) = (&both_x[..dim * n], &both_y[..dim * m]);
    let want = 2.0 * wfr_energy(dim, x, y, 1.0, &alone);
    assert!((energy / want - 1.0).abs() < 1e-3, "{energy}, not {want}");
}

/// Growth that costs much leaves the pairs of optimal transport.
#[test]
fn costly_growth_leaves_optimal_transport() {
    let (n, dim) = (150, 2);
    let (x, y) = (points(n, dim, 54), points(n, dim, 55));
    let moves = wfr_plan(dim, (&x, &vec![1.0; n]), (&y, &vec![1.0; n]), 100.0, &()).expect("solves");
    let squared = |i: usize, j: usize| Cost::SquaredEuclidean.between(&x[i * dim..][..dim], &y[j * dim..][..dim]);
    let cost: f64 = moves.iter().map(|&(i, j, [start, _])| start * squared(i, j)).sum();
    let least = n as f64 * is_optimal(dim, &x, &y, Cost::SquaredEuclidean).cost;
    assert!(cost < 1.002 * least, "{cost}, not {least}");
    assert!(moves.iter().all(|(_, _, [start, end])| (start / end - 1.0).abs() < 0.1), "{moves:?}");
}

/// Far apart, mass vanishes and appears; points that repeat, and single ones, are no trouble.
#[test]
fn degenerate_problems_of_growth_are_solved() {
    let plan = |x: &[f32], y: &[f32], delta: f64| {
        wfr_plan(1, (x, &vec![2.0; x.len()]), (y, &vec![3.0; y.len()]), delta, &()).expect("solves")
    };
    assert_eq!(plan(&[0.0], &[1.0], 1.0), [(0, 0, [2.0, 3.0])]);
    assert_eq!(plan(&[0.0], &[4.0], 1.0), [(0, 0, [2.0, 0.0]), (0, 0, [0.0, 3.0])]);
    let repeated = plan(&[1.0; 40], &[1.0; 30], 1.0);
    let ends: [f64; 2] = [0, 1].map(|end| repeated.iter().map(|(_, _, mass)| mass[end]).sum());
    assert!((ends[0] - 80.0).abs() < 1e-9 && (ends[1] - 90.0).abs() < 1e-9, "{ends:?}");
    let huge = plan(&[0.0, 1e18], &[0.5, 1e18], 1e18);
    assert!(huge.iter().all(|(i, j, mass)| i == j || mass[0] < 1e-3 || mass[1] < 1e-3), "{huge:?}");
    for (masses, delta) in [([1.0, 0.0], 1.0), ([1.0, f64::NAN], 1.0), ([1.0, 1.0], 0.0), ([1.0, 1.0], f64::INFINITY)] {
        let refused = wfr_plan(1, (&[0.0, 1.0], &masses), (&[0.0], &[1.0]), delta, &()).expect_err("refuses");
        assert!(refused.to_string().contains("use positive numbers"), "{refused}");
    }
}
