//! Exact optimal transport between two point sets, by the network simplex method.
//!
//! The transportation problem min Σ cᵢⱼ Pᵢⱼ with given row and column sums is a minimum-cost flow on a complete bipartite graph; masses are
//! whole numbers (uniform ones n·m units in all, divided by their common factor), so flows are exact. A spanning tree is
//! improved pivot by pivot: arcs enter by block search, leave by the rule that keeps the tree strongly feasible, so that ties and
//! repeated points cannot make it cycle (Cunningham 1976; Kelly & O'Neill 1991). Crates for this solve assignments of equal sizes or
//! floating-point flows; none that is maintained solves unequal sizes of thousands of points exactly, hence our own.

use crate::error::{Error, Result, check_len};

/// Most points on either side.
pub const MAX_POINTS: usize = 5000;

/// What moving one point to another costs.
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
    /// (i, j, Pᵢⱼ) where Pᵢⱼ > 0; masses sum to 1.
    pub moves: Vec<(usize, usize, f64)>,
    /// u of each source: uᵢ + vⱼ ≤ cᵢⱼ, with equality where mass moves.
    pub source_potential: Vec<f64>,
    /// v of each target.
    pub target_potential: Vec<f64>,
}

/// W₁ between rows `x [n, dim]` and `y [m, dim]`.
///
/// # Errors
/// As [`optimal_plan`].
pub fn wasserstein1(dim: usize, x: &[f32], y: &[f32]) -> Result<f64> {
    Ok(optimal_plan(dim, x, y, Cost::Euclidean)?.cost)
}

/// W₂ between rows `x [n, dim]` and `y [m, dim]`: the square root of the squared-cost optimum.
///
/// # Errors
/// As [`optimal_plan`].
pub fn wasserstein2(dim: usize, x: &[f32], y: &[f32]) -> Result<f64> {
    Ok(optimal_plan(dim, x, y, Cost::SquaredEuclidean)?.cost.max(0.0).sqrt())
}

/// An optimal plan between rows `x [n, dim]` and `y [m, dim]`, each side with uniform masses. Takes 8·n·m bytes.
///
/// # Errors
/// [`Error::Input`] when a side has no points or more than [`MAX_POINTS`], or a coordinate is not finite.
pub fn optimal_plan(dim: usize, x: &[f32], y: &[f32], cost: Cost) -> Result<Plan> {
    check_points(dim, x, y)?;
    let (n, m) = (x.len() / dim, y.len() / dim);
    let factor = common_factor(n, m);
    let masses = Masses {
        supplies: vec![(m / factor) as i64; n],
        demands: vec![(n / factor) as i64; m],
        unit: factor as f64 / (n as f64 * m as f64),
    };
    Ok(Simplex::new(&masses, &cost_matrix(dim, x, y, cost)).solve())
}

/// An optimal plan between rows `x [n, dim]` with the masses `x_weights [n]` and rows `y [m, dim]` with `y_weights [m]`. Each side's weights
/// are divided by their sum, and rounded to whole multiples of 2⁻⁴⁰.
///
/// # Errors
/// As [`optimal_plan`]; and when a weight is negative or not finite, or all of a side are 0.
pub fn weighted_plan(
    dim: usize,
    (x, x_weights): (&[f32], &[f64]),
    (y, y_weights): (&[f32], &[f64]),
    cost: Cost,
) -> Result<Plan> {
    const UNITS: f64 = (1i64 << 40) as f64;
    check_points(dim, x, y)?;
    let units = |side: &'static str, points: &[f32], weights: &[f64]| -> Result<Vec<i64>> {
        check_len(side, points.len() / dim, weights.len())?;
        let total: f64 = weights.iter().sum();
        if !(total.is_finite() && total > 0.0 && weights.iter().all(|&weight| weight >= 0.0)) {
            let fix = "give weights ≥ 0 with a finite, positive sum";
            return Err(Error::input("optimal transport", side, "cannot be divided by their sum", fix));
        }
        // Rounding the running sum keeps the total exact.
        let (mut sum, mut before) = (0.0, 0);
        Ok((weights.iter())
            .map(|weight| {
                sum += weight;
                let now = (sum / total * UNITS).round() as i64;
                now - std::mem::replace(&mut before, now)
            })
            .collect())
    };
    let masses = Masses {
        supplies: units("weights of x", x, x_weights)?,
        demands: units("weights of y", y, y_weights)?,
        unit: 1.0 / UNITS,
    };
    Ok(Simplex::new(&masses, &cost_matrix(dim, x, y, cost)).solve())
}

/// Rows (i, j) with the mass that leaves i and the mass that arrives at j.
pub type UnbalancedMove = (usize, usize, [f64; 2]);

/// The optimal partial transport between rows `x`, each of mass `row_masses[0]`, and rows `y`, each of mass `row_masses[1]`, for squared
/// distances: moving, vanishing and appearing together cost least, where a unit that vanishes and a unit that appears cost `relaxation` / 2
/// each (Caffarelli & McCann 2010). So nothing moves over a squared distance larger than `relaxation`.
///
/// What vanishes is on its way to the nearest row of y, and what appears comes from the nearest row of x. Every row is in a move.
///
/// # Errors
/// As [`optimal_plan`], for one point less on each side; when a mass or `relaxation` is not positive and finite.
pub fn unbalanced_plan(
    dim: usize,
    x: &[f32],
    y: &[f32],
    row_masses: [f64; 2],
    relaxation: f64,
) -> Result<Vec<UnbalancedMove>> {
    /// Units of the larger row mass: far below any mass of interest, and small enough for sums over all rows.
    const UNITS: f64 = (1i64 << 40) as f64;
    check_points(dim, x, y)?;
    if let Some(value) = row_masses.iter().chain([&relaxation]).find(|value| !(value.is_finite() && **value > 0.0)) {
        let problem = format!("holds {value}");
        return Err(Error::input("optimal transport", "masses and relaxation", problem, "use positive numbers"));
    }
    let (n, m) = (x.len() / dim, y.len() / dim);
    let largest = row_masses[0].max(row_masses[1]);
    let [supply, demand] = row_masses.map(|mass| (mass / largest * UNITS).round() as i64);
    // One more source feeds all that appears, one more target takes all that vanishes; between them flow is free.
    let moving = cost_matrix(dim, x, y, Cost::SquaredEuclidean);
    let mut costs = Vec::with_capacity((n + 1) * (m + 1));
    for row in moving.chunks_exact(m) {
        costs.extend_from_slice(row);
        costs.push(0.5 * relaxation);
    }
    costs.extend(std::iter::repeat_n(0.5 * relaxation, m));
    costs.push(0.0);
    let masses = Masses {
        supplies: std::iter::repeat_n(supply, n).chain([demand * m as i64]).collect(),
        demands: std::iter::repeat_n(demand, m).chain([supply * n as i64]).collect(),
        unit: largest / UNITS,
    };
    let plan = Simplex::new(&masses, &costs).solve();
    let nearest = |costs: &mut dyn Iterator<Item = f64>| {
        costs.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(index, _)| index)
    };
    let to_move = |(i, j, mass): (usize, usize, f64)| match (i < n, j < m) {
        (true, true) => Some((i, j, [mass, mass])),
        (true, false) => Some((i, nearest(&mut moving[i * m..(i + 1) * m].iter().copied()), [mass, 0.0])),
        (false, true) => Some((nearest(&mut moving[j..].iter().step_by(m).copied()), j, [0.0, mass])),
        (false, false) => None,
    };
    Ok(plan.moves.into_iter().filter_map(to_move).collect())
}

fn check_points(dim: usize, x: &[f32], y: &[f32]) -> Result<()> {
    for (side, points) in [("x", x), ("y", y)] {
        let n = points.len() / dim.max(1);
        if n == 0 || n > MAX_POINTS {
            let fix = format!("give 1 to {MAX_POINTS}, a random subset if there are more");
            return Err(Error::input("optimal transport", side, format!("has {n} points"), fix));
        }
        if points.iter().any(|value| !value.is_finite()) {
            return Err(Error::input("optimal transport", side, "holds a value that is not finite", "remove it"));
        }
    }
    Ok(())
}

/// What each source has and each target takes, in whole units; both add up to the same.
struct Masses {
    supplies: Vec<i64>,
    demands: Vec<i64>,
    /// Mass of a unit.
    unit: f64,
}

/// cᵢⱼ, row-major.
fn cost_matrix(dim: usize, x: &[f32], y: &[f32], cost: Cost) -> Vec<f64> {
    let mut costs = Vec::with_capacity(x.len() / dim * (y.len() / dim));
    for x in x.chunks_exact(dim) {
        costs.extend(y.chunks_exact(dim).map(|y| {
            let squared: f64 = x.iter().zip(y).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
            if cost == Cost::Euclidean { squared.sqrt() } else { squared }
        }));
    }
    costs
}

const NONE: usize = usize::MAX;

/// The arc between a node and its parent in the spanning tree.
#[derive(Clone, Copy)]
struct TreeArc {
    /// Index into the costs, or [`NONE`] for an artificial arc to the root.
    arc: usize,
    /// Whether the arc points from the node to its parent.
    up: bool,
    flow: i64,
}

/// Nodes are the sources `0..n`, the targets `n..n + m` and the root `n + m`, the tree's top.
struct Simplex<'a> {
    n: usize,
    m: usize,
    unit: f64,
    costs: &'a [f64],
    /// Entering arcs improve by more than this.
    tolerance: f64,
    /// Potential π: the reduced cost of arc i → j is c − πᵢ + πⱼ; 0 on the tree.
    potential: Vec<f64>,
    parent: Vec<usize>,
    depth: Vec<u32>,
    tree_arc: Vec<TreeArc>,
    /// Children as doubly linked lists.
    first_child: Vec<usize>,
    next_sibling: Vec<usize>,
    previous_sibling: Vec<usize>,
    /// Where the block search goes on.
    next_arc: usize,
    stack: Vec<usize>,
}

impl<'a> Simplex<'a> {
    /// All mass goes through the root at a cost that no real arc reaches.
    fn new(masses: &Masses, costs: &'a [f64]) -> Self {
        let (n, m) = (masses.supplies.len(), masses.demands.len());
        let largest = costs.iter().fold(0.0_f64, |largest, &cost| largest.max(cost));
        let artificial = (largest + 1.0) * (n + m) as f64;
        let nodes = n + m + 1;
        let mut simplex = Simplex {
            n,
            m,
            unit: masses.unit,
            costs,
            tolerance: 1e-12 * largest,
            potential: vec![0.0; nodes],
            parent: vec![n + m; nodes],
            depth: vec![1; nodes],
            tree_arc: vec![TreeArc { arc: NONE, up: true, flow: 0 }; nodes],
            first_child: vec![NONE; nodes],
            next_sibling: vec![NONE; nodes],
            previous_sibling: vec![NONE; nodes],
            next_arc: 0,
            stack: Vec::new(),
        };
        simplex.parent[n + m] = NONE;
        simplex.depth[n + m] = 0;
        for node in 0..n + m {
            // A target that takes nothing hangs like a source: arcs without flow must point to the root.
            if node < n || masses.demands[node - n] == 0 {
                simplex.potential[node] = artificial;
                simplex.tree_arc[node].flow = masses.supplies.get(node).copied().unwrap_or(0);
            } else {
                simplex.potential[node] = -artificial;
                simplex.tree_arc[node] = TreeArc { arc: NONE, up: false, flow: masses.demands[node - n] };
            }
            simplex.link(node, n + m);
        }
        simplex
    }

    fn solve(mut self) -> Plan {
        while let Some(arc) = self.entering_arc() {
            self.pivot(arc);
        }
        let unit = self.unit;
        let mut moves: Vec<(usize, usize, f64)> = self
            .tree_arc
            .iter()
            .filter(|tree| tree.arc != NONE && tree.flow > 0)
            .map(|tree| (tree.arc / self.m, tree.arc % self.m, tree.flow as f64 * unit))
            .collect();
        moves.sort_by_key(|&(i, j, _)| (i, j));
        let cost = moves.iter().map(|&(i, j, mass)| self.costs[i * self.m + j] * mass).sum();
        let (sources, targets) = self.potential[..self.n + self.m].split_at(self.n);
        Plan {
            cost,
            moves,
            source_potential: sources.to_vec(),
            target_potential: targets.iter().map(|potential| -potential).collect(),
        }
    }

    /// The arc of most negative reduced cost in the first block that has one; blocks take turns.
    fn entering_arc(&mut self) -> Option<usize> {
        let n_arcs = self.costs.len();
        let block = ((n_arcs as f64).sqrt() as usize).max(16);
        let (mut best, mut best_cost) = (NONE, -self.tolerance);
        let (mut seen, mut in_block) = (0, 0);
        while seen < n_arcs {
            // The rest of one source's arcs, or of the block.
            let (i, j) = (self.next_arc / self.m, self.next_arc % self.m);
            let length = (self.m - j).min(block - in_block).min(n_arcs - seen);
            let source = self.potential[i];
            let targets = &self.potential[self.n + j..self.n + j + length];
            let costs = &self.costs[self.next_arc..self.next_arc + length];
            // First the least reduced cost, which vectorises, then where it is.
            let reduced = |(cost, target): (&f64, &f64)| cost - source + target;
            let least = costs.iter().zip(targets).map(reduced).fold(f64::INFINITY, |a, b| if b < a { b } else { a });
            if least < best_cost
                && let Some(offset) = costs.iter().zip(targets).map(reduced).position(|cost| cost == least)
            {
                (best, best_cost) = (self.next_arc + offset, least);
            }
            seen += length;
            in_block += length;
            self.next_arc += length;
            if self.next_arc == n_arcs {
                self.next_arc = 0;
            }
            if in_block == block {
                in_block = 0;
                if best != NONE {
                    break;
                }
            }
        }
        (best != NONE).then_some(best)
    }

    /// Sends as much flow as possible around the cycle that `arc` closes, and exchanges it for the arc that blocks.
    fn pivot(&mut self, arc: usize) {
        let (from, to) = (arc / self.m, self.n + arc % self.m);
        let join = self.join(from, to);
        // The cycle runs join → … → from → to → … → join. Of the blocking arcs the last one leaves.
        let (mut delta, mut leaving, mut on_from_side) = (i64::MAX, NONE, true);
        let mut node = from;
        while node != join {
            let tree = self.tree_arc[node];
            if tree.up && tree.flow < delta {
                (delta, leaving, on_from_side) = (tree.flow, node, true);
            }
            node = self.parent[node];
        }
        let mut node = to;
        while node != join {
            let tree = self.tree_arc[node];
            if !tree.up && tree.flow <= delta {
                (delta, leaving, on_from_side) = (tree.flow, node, false);
            }
            node = self.parent[node];
        }
        if delta > 0 {
            let mut node = from;
            while node != join {
                let tree = &mut self.tree_arc[node];
                tree.flow += if tree.up { -delta } else { delta };
                node = self.parent[node];
            }
            let mut node = to;
            while node != join {
                let tree = &mut self.tree_arc[node];
                tree.flow += if tree.up { delta } else { -delta };
                node = self.parent[node];
            }
        }

        // The cut-off subtree hangs from its end of the entering arc: turn the path from there to its old top around.
        let (inside, outside) = if on_from_side { (from, to) } else { (to, from) };
        let entering = TreeArc { arc, up: inside == from, flow: delta };
        let (mut node, mut above, mut carried) = (inside, outside, entering);
        loop {
            let old_parent = self.parent[node];
            let old_arc = self.tree_arc[node];
            self.unlink(node);
            self.link(node, above);
            self.tree_arc[node] = carried;
            if node == leaving {
                break;
            }
            carried = TreeArc { up: !old_arc.up, ..old_arc };
            (above, node) = (node, old_parent);
        }

        // Inside the subtree, potentials move together until the entering arc's reduced cost is 0.
        let reduced = self.costs[arc] - self.potential[from] + self.potential[to];
        let shift = if inside == from { reduced } else { -reduced };
        self.stack.clear();
        self.stack.push(inside);
        while let Some(node) = self.stack.pop() {
            self.potential[node] += shift;
            self.depth[node] = self.depth[self.parent[node]] + 1;
            let mut child = self.first_child[node];
            while child != NONE {
                self.stack.push(child);
                child = self.next_sibling[child];
            }
        }
    }

    /// Lowest common ancestor.
    fn join(&self, mut a: usize, mut b: usize) -> usize {
        while a != b {
            if self.depth[a] >= self.depth[b] {
                a = self.parent[a];
            } else {
                b = self.parent[b];
            }
        }
        a
    }

    fn link(&mut self, node: usize, parent: usize) {
        let next = self.first_child[parent];
        self.parent[node] = parent;
        self.previous_sibling[node] = NONE;
        self.next_sibling[node] = next;
        if next != NONE {
            self.previous_sibling[next] = node;
        }
        self.first_child[parent] = node;
    }

    fn unlink(&mut self, node: usize) {
        let (previous, next) = (self.previous_sibling[node], self.next_sibling[node]);
        if previous == NONE {
            self.first_child[self.parent[node]] = next;
        } else {
            self.next_sibling[previous] = next;
        }
        if next != NONE {
            self.previous_sibling[next] = previous;
        }
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

    /// Masses are right, no potential pair exceeds its cost, and both sides of the duality agree: proof of optimality.
    #[track_caller]
    fn is_optimal(dim: usize, x: &[f32], y: &[f32], cost: Cost) -> Plan {
        let plan = optimal_plan(dim, x, y, cost).expect("solves");
        let (n, m) = (x.len() / dim, y.len() / dim);
        let costs = cost_matrix(dim, x, y, cost);
        let largest = costs.iter().fold(1e-300_f64, |a, &b| a.max(b));
        let (mut rows, mut columns) = (vec![0.0; n], vec![0.0; m]);
        for &(i, j, mass) in &plan.moves {
            assert!(mass > 0.0);
            rows[i] += mass;
            columns[j] += mass;
        }
        assert!(rows.iter().all(|mass| (mass * n as f64 - 1.0).abs() < 1e-12));
        assert!(columns.iter().all(|mass| (mass * m as f64 - 1.0).abs() < 1e-12));
        for i in 0..n {
            for j in 0..m {
                let slack = costs[i * m + j] - plan.source_potential[i] - plan.target_potential[j];
                assert!(slack > -1e-10 * largest, "({i}, {j}): slack {slack}");
            }
        }
        let dual =
            plan.source_potential.iter().sum::<f64>() / n as f64 + plan.target_potential.iter().sum::<f64>() / m as f64;
        assert!((plan.cost - dual).abs() < 1e-10 * largest, "{} and {dual}", plan.cost);
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
    fn ties_and_repeated_points_do_not_cycle() {
        let same = vec![0.5; 60];
        assert_eq!(is_optimal(2, &same, &same, Cost::Euclidean).cost, 0.0);
        // A grid against itself shifted by one: many optimal plans.
        let grid =
            |shift: f32| -> Vec<f32> { (0..144).flat_map(|i| [(i % 12) as f32 + shift, (i / 12) as f32]).collect() };
        assert!((is_optimal(2, &grid(0.0), &grid(1.0), Cost::Euclidean).cost - 1.0).abs() < 1e-12);
        assert!((is_optimal(2, &grid(0.0), &grid(1.0), Cost::SquaredEuclidean).cost - 1.0).abs() < 1e-12);
        let x = points(150, 2, 3);
        assert_eq!(is_optimal(2, &x, &x, Cost::SquaredEuclidean).cost, 0.0);
        let doubled = [&x[..], &x[..]].concat();
        assert!(is_optimal(2, &x, &doubled, Cost::Euclidean).cost.abs() < 1e-12);
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
                let want = best(&cost_matrix(4, &x, &y, cost), 0, 0) / 6.0;
                assert!((is_optimal(4, &x, &y, cost).cost - want).abs() < 1e-12);
            }
        }
    }

    /// Rows repeated as often as their weight says are the same problem.
    #[test]
    fn weights_count_like_repeated_rows() {
        let (x, y) = (points(20, 2, 6), points(31, 2, 7));
        let weights = |n: usize| -> Vec<f64> { (0..n).map(|i| (i % 4) as f64).collect() };
        let repeated = |points: &[f32]| -> Vec<f32> {
            points.chunks_exact(2).enumerate().flat_map(|(i, point)| point.repeat(i % 4)).collect()
        };
        for cost in [Cost::Euclidean, Cost::SquaredEuclidean] {
            let got = weighted_plan(2, (&x, &weights(20)), (&y, &weights(31)), cost).expect("solves");
            let want = optimal_plan(2, &repeated(&x), &repeated(&y), cost).expect("solves").cost;
            assert!((got.cost - want).abs() < 1e-9, "{}, not {want}", got.cost);
        }
        let uniform = weighted_plan(2, (&x, &[3.0; 20]), (&y, &[0.1; 31]), Cost::Euclidean).expect("solves").cost;
        assert!((uniform - wasserstein1(2, &x, &y).expect("solves")).abs() < 1e-9);
        assert!(weighted_plan(2, (&x, &[0.0; 20]), (&y, &[1.0; 31]), Cost::Euclidean).is_err());
        assert!(weighted_plan(2, (&x, &[-1.0; 20]), (&y, &[1.0; 31]), Cost::Euclidean).is_err());
        assert!(weighted_plan(2, (&x, &[1.0; 19]), (&y, &[1.0; 31]), Cost::Euclidean).is_err());
    }

    /// Masses at both ends are those of the rows; with room to move it is balanced transport, with none nothing moves, and in between the
    /// cost is at most that of both.
    #[test]
    fn partial_transport_moves_what_is_near_and_lets_the_rest_appear_and_vanish() {
        let (n, m) = (25, 40);
        let (x, y) = (points(n, 2, 8), points(m, 2, 9));
        let row_masses = [1.0 / n as f64, 1.5 / m as f64];
        let squared =
            |i: usize, j: usize| -> f64 { (0..2).map(|k| f64::from(x[2 * i + k] - y[2 * j + k]).powi(2)).sum() };
        let mut costs = Vec::new();
        for relaxation in [1e-12, 0.005, 0.02, 1e4] {
            let moves = unbalanced_plan(2, &x, &y, row_masses, relaxation).expect("solves");
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
        // Equal masses and room to move: balanced transport.
        let moves = unbalanced_plan(2, &x, &y, [1.0 / n as f64, 1.0 / m as f64], 1e4).expect("solves");
        let cost: f64 = moves.iter().map(|&(i, j, [mass, _])| mass * squared(i, j)).sum();
        let want = optimal_plan(2, &x, &y, Cost::SquaredEuclidean).expect("solves").cost;
        assert!((cost - want).abs() < 1e-9, "{cost}, not {want}");
        assert!(unbalanced_plan(2, &x, &y, [1.0, 0.0], 1.0).is_err());
        assert!(unbalanced_plan(2, &x, &y, [1.0, 1.0], f64::NAN).is_err());
    }

    #[test]
    fn bad_sets_are_refused() {
        assert!(wasserstein1(2, &[], &[0.0, 1.0]).is_err());
        assert!(wasserstein1(1, &[0.0], &[f32::NAN]).is_err());
        assert!(wasserstein2(1, &vec![0.0; MAX_POINTS + 1], &[0.0]).is_err());
    }
}
