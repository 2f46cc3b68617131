//! The network simplex method for the transportation problem, with exact potentials.
//!
//! The problem min Σ cᵢⱼ Pᵢⱼ with given row and column sums is a minimum-cost flow on a complete
//! bipartite graph. Masses are whole numbers, so flows are exact. A spanning tree is improved pivot
//! by pivot. Block search selects the arc that enters; the arc that leaves is chosen such that the
//! tree stays strongly feasible, so that ties and repeated points cannot make it cycle (Cunningham
//! 1976; Kelly & O'Neill 1991). The first tree is the row-minimum tree, so no arc is artificial.
//!
//! Costs are rounded once, to multiples of 2⁻¹¹⁰ of a power of two above the largest. Potentials
//! are sums of costs in 128 bits, so no digit is lost however different the costs are. The search
//! uses f64 roundings of the potentials, each shifted by a bound on its rounding error: first to
//! find arcs that surely improve, then arcs that may improve, which are then checked exactly.

use crate::error::{Error, Result};
use crate::stage::Watch;

const NONE: usize = usize::MAX;

/// Binary digits of the largest cost in whole units. Potentials differ by less than 2¹⁵ times that
/// cost.
const COST_BITS: i32 = 110;
/// Arcs enter if their reduced cost is below −2⁻⁴⁴ of their cost. The plan then costs at most 1 +
/// 2⁻⁴⁴ times the optimum: if every cost were larger by that factor, the potentials would prove the
/// plan optimal.
const TOLERANCE_SHIFT: u32 = 44;
/// Bound, relative to a potential, on its rounding to f64 and its contribution to the rounding of a
/// difference.
const ROUNDING: f64 = 4.0 * f64::EPSILON;
/// Pivots between two looks at the watch: a few milliseconds.
const PIVOTS_PER_CHECK: u64 = 512;

/// Supply of each source and demand of each target, in whole units, all positive; both have the
/// same sum.
pub struct Masses {
    pub supplies: Vec<i64>,
    pub demands: Vec<i64>,
}

/// An optimal basic solution.
pub struct Solution {
    /// (i, j, flow) for positive flows, in order.
    pub flows: Vec<(usize, usize, i64)>,
    /// u of each source and v of each target: uᵢ + vⱼ ≤ cᵢⱼ, with equality for arcs with flow, both
    /// up to rounding.
    pub source_potential: Vec<f64>,
    pub target_potential: Vec<f64>,
}

/// Solves the problem of `masses` with the row-major `costs`, which are finite and not negative.
///
/// # Errors
/// [`Error::Interrupted`] if `watch` cancels.
pub fn solve(masses: &Masses, costs: &[f64], watch: &dyn Watch) -> Result<Solution> {
    let mut simplex = Simplex::new(masses, costs);
    for pivots in 1_u64.. {
        if (pivots.is_multiple_of(PIVOTS_PER_CHECK) || simplex.swept) && watch.is_cancelled() {
            return Err(Error::Interrupted);
        }
        let Some(arc) = simplex.entering_arc() else { break };
        simplex.pivot(arc);
    }
    Ok(simplex.solution())
}

/// The arc between a node and its parent in the spanning tree.
#[derive(Clone, Copy)]
struct TreeArc {
    /// Index into the costs.
    arc: usize,
    /// True if the arc points from the node to its parent.
    up: bool,
    flow: i64,
}

/// Costs in whole units.
struct Units {
    /// Units of cost 1, a power of two, and its inverse.
    per_cost: f64,
    cost: f64,
}

impl Units {
    fn new(largest: f64) -> Self {
        // largest < 2^exponent; the bound below matters only for subnormal numbers.
        let exponent = ((largest.to_bits() >> 52) as i32 - 1022).max(COST_BITS - 1000);
        let power = |exponent: i32| f64::from_bits(((1023 + exponent) as u64) << 52);
        Units { per_cost: power(COST_BITS - exponent), cost: power(exponent - COST_BITS) }
    }

    fn of(&self, cost: f64) -> i128 {
        (cost * self.per_cost) as i128
    }

    fn to_cost(&self, units: i128) -> f64 {
        units as f64 * self.cost
    }
}

/// Nodes are the sources `0..n` and the targets `n..n + m`.
struct Simplex<'a> {
    n: usize,
    m: usize,
    costs: &'a [f64],
    units: Units,
    /// Potential π: the reduced cost of arc i → j is c − πᵢ + πⱼ; 0 on the tree.
    potential: Vec<i128>,
    /// π in units of the costs, rounded and shifted to the side that `sure` selects.
    price: Vec<f64>,
    /// If true, prices are shifted such that a negative reduced cost is surely negative; if false,
    /// such that a non-negative one is surely not negative.
    sure: bool,
    parent: Vec<usize>,
    depth: Vec<u32>,
    tree_arc: Vec<TreeArc>,
    /// Children as doubly linked lists.
    first_child: Vec<usize>,
    next_sibling: Vec<usize>,
    previous_sibling: Vec<usize>,
    /// Arc at which the block search continues.
    next_arc: usize,
    /// True if the last search visited more than one block in a hundred.
    swept: bool,
    stack: Vec<usize>,
}

impl<'a> Simplex<'a> {
    fn new(masses: &Masses, costs: &'a [f64]) -> Self {
        let (n, m) = (masses.supplies.len(), masses.demands.len());
        let largest = costs.iter().fold(0.0_f64, |largest, &cost| largest.max(cost));
        let nodes = n + m;
        let mut simplex = Simplex {
            n,
            m,
            costs,
            units: Units::new(largest),
            potential: vec![0; nodes],
            price: vec![0.0; nodes],
            sure: true,
            parent: vec![NONE; nodes],
            depth: vec![0; nodes],
            tree_arc: vec![TreeArc { arc: NONE, up: true, flow: 0 }; nodes],
            first_child: vec![NONE; nodes],
            next_sibling: vec![NONE; nodes],
            previous_sibling: vec![NONE; nodes],
            next_arc: 0,
            swept: false,
            stack: Vec::new(),
        };
        let root = simplex.plant(masses);
        simplex.hang_potentials(root);
        simplex.reprice();
        simplex
    }

    /// Builds the row-minimum tree and returns its root. Each source in turn fills the nearest
    /// targets that have room. A finished node becomes the child of the one that is not. If both
    /// are finished the target becomes the child, and the source becomes the child of its next
    /// target, without flow: arcs without flow point to the root, as in every strongly feasible
    /// tree.
    fn plant(&mut self, masses: &Masses) -> usize {
        let (n, m) = (self.n, self.m);
        let mut demands = masses.demands.clone();
        let mut open: Vec<usize> = (0..m).collect();
        for (i, &supply) in masses.supplies.iter().enumerate() {
            let mut supply = supply;
            let row = &self.costs[i * m..(i + 1) * m];
            // The last source fills all remaining targets, and is the root.
            while let Some((place, &j)) = (open.iter().enumerate()).min_by(|a, b| row[*a.1].total_cmp(&row[*b.1])) {
                let arc = i * m + j;
                if supply < demands[j] {
                    demands[j] -= supply;
                    self.tree_arc[i] = TreeArc { arc, up: true, flow: supply };
                    self.link(i, n + j);
                    break;
                }
                supply -= demands[j];
                self.tree_arc[n + j] = TreeArc { arc, up: false, flow: demands[j] };
                self.link(n + j, i);
                open.swap_remove(place);
            }
        }
        n - 1
    }

    /// Computes depths and potentials below `root` from the tree. The median of the targets'
    /// potentials is 0, so that only rows far from most others have large potentials and large
    /// rounding bounds.
    fn hang_potentials(&mut self, root: usize) {
        self.stack.push(root);
        while let Some(node) = self.stack.pop() {
            let above = self.parent[node];
            if above != NONE {
                let TreeArc { arc, up, .. } = self.tree_arc[node];
                let cost = self.units.of(self.costs[arc]);
                self.potential[node] = self.potential[above] + if up { cost } else { -cost };
                self.depth[node] = self.depth[above] + 1;
            }
            self.push_children(node);
        }
        self.center();
    }

    fn center(&mut self) {
        let mut targets = self.potential[self.n..].to_vec();
        let middle = targets.len() / 2;
        let median = *targets.select_nth_unstable(middle).1;
        self.potential.iter_mut().for_each(|potential| *potential -= median);
    }

    fn reprice(&mut self) {
        for node in 0..self.n + self.m {
            self.price[node] = self.price_of(node);
        }
    }

    fn price_of(&self, node: usize) -> f64 {
        let price = self.units.to_cost(self.potential[node]);
        let bound = ROUNDING * price.abs();
        // Reduced costs fall with a source's potential and rise with a target's.
        if (node < self.n) == self.sure { price - bound } else { price + bound }
    }

    fn solution(self) -> Solution {
        let mut flows: Vec<(usize, usize, i64)> = (self.tree_arc.iter())
            .filter(|tree| tree.flow > 0)
            .map(|tree| (tree.arc / self.m, tree.arc % self.m, tree.flow))
            .collect();
        flows.sort_unstable();
        let (sources, targets) = self.potential.split_at(self.n);
        Solution {
            flows,
            source_potential: sources.iter().map(|&potential| self.units.to_cost(potential)).collect(),
            target_potential: targets.iter().map(|&potential| -self.units.to_cost(potential)).collect(),
        }
    }

    /// An arc of negative reduced cost; `None` if an exact search finds none beyond the tolerance.
    fn entering_arc(&mut self) -> Option<usize> {
        if self.sure {
            if let Some(arc) = self.search(Self::surely_best) {
                return Some(arc);
            }
            // The remaining arcs need all digits.
            self.sure = false;
            self.center();
            self.reprice();
        }
        self.search(Self::exactly_best)
    }

    /// The best arc in the first block that has one. `best` examines arcs of one source; blocks are
    /// visited cyclically.
    fn search(&mut self, best: impl Fn(&Self, usize, usize, &mut Best)) -> Option<usize> {
        let n_arcs = self.costs.len();
        let block = ((n_arcs as f64).sqrt() as usize).max(16);
        let mut found = Best { arc: NONE, price: 0.0, units: 0 };
        let (mut seen, mut in_block) = (0, 0);
        while seen < n_arcs {
            // To the end of one source's arcs, or of the block.
            let length = (self.m - self.next_arc % self.m).min(block - in_block).min(n_arcs - seen);
            best(self, self.next_arc, length, &mut found);
            seen += length;
            in_block += length;
            self.next_arc += length;
            if self.next_arc == n_arcs {
                self.next_arc = 0;
            }
            if in_block == block {
                in_block = 0;
                if found.arc != NONE {
                    break;
                }
            }
        }
        self.swept = seen > n_arcs / 100;
        (found.arc != NONE).then_some(found.arc)
    }

    /// The arc of the most negative reduced cost among `length` arcs of one source, with prices
    /// that make it surely negative.
    fn surely_best(&self, first: usize, length: usize, best: &mut Best) {
        let (i, j) = (first / self.m, first % self.m);
        let source = self.price[i];
        let targets = &self.price[self.n + j..self.n + j + length];
        let costs = &self.costs[first..first + length];
        // First the least reduced cost, which vectorizes, then its position.
        let reduced = |(cost, target): (&f64, &f64)| cost + (target - source);
        let least = costs.iter().zip(targets).map(reduced).fold(f64::INFINITY, |a, b| if b < a { b } else { a });
        if least < best.price
            && let Some(offset) = costs.iter().zip(targets).map(reduced).position(|cost| cost == least)
            // The exact test: the costs above are not rounded to units.
            && self.reduced(first + offset) < 0
        {
            (best.arc, best.price) = (first + offset, least);
        }
    }

    /// The arc of the most negative reduced cost beyond the tolerance among `length` arcs of one
    /// source, computed exactly.
    fn exactly_best(&self, first: usize, length: usize, best: &mut Best) {
        let (i, j) = (first / self.m, first % self.m);
        let source = self.price[i];
        let targets = &self.price[self.n + j..self.n + j + length];
        let costs = &self.costs[first..first + length];
        let reduced = |(cost, target): (&f64, &f64)| cost + (target - source);
        let least = costs.iter().zip(targets).map(reduced).fold(f64::INFINITY, |a, b| if b < a { b } else { a });
        if least > 0.0 {
            return;
        }
        for (offset, cost) in costs.iter().zip(targets).map(reduced).enumerate() {
            if cost <= 0.0 {
                let units = self.reduced(first + offset);
                if units < best.units && units < -(self.units.of(costs[offset]) >> TOLERANCE_SHIFT) {
                    (best.arc, best.units) = (first + offset, units);
                }
            }
        }
    }

    /// The reduced cost of `arc`, exactly.
    fn reduced(&self, arc: usize) -> i128 {
        self.units.of(self.costs[arc]) - self.potential[arc / self.m] + self.potential[self.n + arc % self.m]
    }

    /// Sends as much flow as possible around the cycle that `arc` closes, and replaces the blocking
    /// arc by it.
    fn pivot(&mut self, arc: usize) {
        let (from, to) = (arc / self.m, self.n + arc % self.m);
        let join = self.join(from, to);
        // The cycle runs join → … → from → to → … → join. The last of the blocking arcs leaves.
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

        // All potentials in the cut-off subtree shift by the same amount, so that the entering
        // arc's reduced cost is 0.
        let (inside, outside) = if on_from_side { (from, to) } else { (to, from) };
        let reduced = self.reduced(arc);
        let shift = if inside == from { reduced } else { -reduced };

        // The subtree is attached at its end of the entering arc: reverse the path from there to
        // its old top.
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

        self.stack.clear();
        self.stack.push(inside);
        while let Some(node) = self.stack.pop() {
            self.potential[node] += shift;
            self.price[node] = self.price_of(node);
            self.depth[node] = self.depth[self.parent[node]] + 1;
            self.push_children(node);
        }
    }

    fn push_children(&mut self, node: usize) {
        let mut child = self.first_child[node];
        while child != NONE {
            self.stack.push(child);
            child = self.next_sibling[child];
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

/// The best arc so far of a search.
struct Best {
    arc: usize,
    price: f64,
    units: i128,
}
