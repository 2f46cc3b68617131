//! Exact optimal transport between two point sets with uniform masses, by the network simplex method.
//!
//! The transportation problem min Σ cᵢⱼ Pᵢⱼ with row sums 1/n and column sums 1/m is a minimum-cost flow on a complete bipartite
//! graph; masses are whole numbers (n·m units in all, divided by their common factor), so flows are exact. A spanning tree is
//! improved pivot by pivot: arcs enter by block search, leave by the rule that keeps the tree strongly feasible, so that ties and
//! repeated points cannot make it cycle (Cunningham 1976; Kelly & O'Neill 1991). Crates for this solve assignments of equal sizes or
//! floating-point flows; none that is maintained solves unequal sizes of thousands of points exactly, hence our own.

use crate::error::{Error, Result};

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
    let costs = cost_matrix(dim, x, y, cost);
    Ok(Simplex::new(x.len() / dim, y.len() / dim, &costs).solve())
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
    fn new(n: usize, m: usize, costs: &'a [f64]) -> Self {
        let largest = costs.iter().fold(0.0_f64, |largest, &cost| largest.max(cost));
        let artificial = (largest + 1.0) * (n + m) as f64;
        let factor = common_factor(n, m);
        let (supply, demand) = ((m / factor) as i64, (n / factor) as i64);
        let nodes = n + m + 1;
        let mut simplex = Simplex {
            n,
            m,
            costs,
            tolerance: 1e-12 * largest,
            potential: vec![0.0; nodes],
            parent: vec![n + m; nodes],
            depth: vec![1; nodes],
            tree_arc: vec![TreeArc { arc: NONE, up: true, flow: supply }; nodes],
            first_child: vec![NONE; nodes],
            next_sibling: vec![NONE; nodes],
            previous_sibling: vec![NONE; nodes],
            next_arc: 0,
            stack: Vec::new(),
        };
        simplex.parent[n + m] = NONE;
        simplex.depth[n + m] = 0;
        for node in 0..n + m {
            if node < n {
                simplex.potential[node] = artificial;
            } else {
                simplex.potential[node] = -artificial;
                simplex.tree_arc[node] = TreeArc { arc: NONE, up: false, flow: demand };
            }
            simplex.link(node, n + m);
        }
        simplex
    }

    fn solve(mut self) -> Plan {
        while let Some(arc) = self.entering_arc() {
            self.pivot(arc);
        }
        let factor = common_factor(self.n, self.m);
        let unit = factor as f64 / (self.n as f64 * self.m as f64);
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

    #[test]
    fn bad_sets_are_refused() {
        assert!(wasserstein1(2, &[], &[0.0, 1.0]).is_err());
        assert!(wasserstein1(1, &[0.0], &[f32::NAN]).is_err());
        assert!(wasserstein2(1, &vec![0.0; MAX_POINTS + 1], &[0.0]).is_err());
    }
}
