//! Which samples of neighboring snapshots belong together: optimal transport, balanced, unbalanced
//! or of Wasserstein–Fisher–Rao, solved once before training.

use super::turn::Turn;
use crate::data::Snapshots;
use crate::error::{Error, Result};
use crate::rng::{Purpose, shuffled};
use crate::stage::Stage;
use crate::transport::{
    Cost, MAX_POINTS, UnbalancedMove, optimal_plan, problems_at_once, weighted_plan, weighted_unbalanced_plan, wfr_plan,
};

/// A joint distribution of the rows of two snapshots. Its pairs may gain or lose mass on the way.
/// At each end the masses of all pairs add up to the distribution of the snapshot's rows: uniform,
/// or by their weights.
///
/// Couplings of neighboring snapshots chain: the rows at which one coupling ends are those at which
/// the next one starts, with the same frequencies.
#[derive(Clone, Debug, PartialEq)]
pub struct Coupling {
    /// Pairs (i, j) of rows with mass; i belongs to the earlier snapshot.
    pairs: Vec<[u32; 2]>,
    /// Cumulative probability up to each pair, in units of 2⁻³².
    cumulative: Vec<u32>,
    /// Mass of each pair at its two ends divided by its probability; empty if both are 1.
    masses: Vec<[f32; 2]>,
    /// Of each pair, if its mass changes along a geodesic of Wasserstein–Fisher–Rao; else empty.
    turns: Vec<Turn>,
    /// Mean distance between the rows of a pair.
    distance: f64,
    /// The pairs of each earlier row.
    by_left: Links,
    /// The pairs of each later row.
    by_right: Links,
}

/// For each row of one side, the rows of the other side it is paired with.
#[derive(Clone, Debug, PartialEq)]
struct Links {
    /// Links of row i: `starts[i]..starts[i + 1]`.
    starts: Vec<u32>,
    partners: Vec<u32>,
    /// Cumulative fraction of a row's links up to each one, in units of 2⁻³².
    cumulative: Vec<u32>,
}

const UNIT: f64 = 4_294_967_296.0;

impl Links {
    /// Links of `n` rows from (row, partner, mass).
    fn new(n: usize, mut moves: Vec<(usize, usize, f64)>) -> Self {
        moves.sort_by_key(|&(row, partner, _)| (row, partner));
        let mut totals = vec![0.0; n];
        let mut starts = vec![0u32; n + 1];
        for &(row, _, mass) in &moves {
            totals[row] += mass;
            starts[row + 1] += 1;
        }
        (0..n).for_each(|row| starts[row + 1] += starts[row]);
        let (mut row_before, mut mass_before) = (usize::MAX, 0.0);
        let cumulative = (moves.iter())
            .map(|&(row, _, mass)| {
                mass_before = if row == row_before { mass_before } else { 0.0 } + mass;
                row_before = row;
                (mass_before / totals[row] * UNIT) as u32 // saturates at the end
            })
            .collect();
        Links { starts, partners: moves.iter().map(|&(_, partner, _)| partner as u32).collect(), cumulative }
    }

    /// The partner of `row` that `word` selects; an arbitrary one if the row has no links.
    fn partner(&self, row: usize, word: u32) -> usize {
        let (start, end) = (self.starts[row] as usize, self.starts[row + 1] as usize);
        let link = self.cumulative[start..end].partition_point(|&below| below <= word).min((end - start).max(1) - 1);
        self.partners.get(start + link).map_or(0, |&partner| partner as usize)
    }
}

/// The arrays of a [`Coupling`], for a device that keeps a copy.
pub(crate) struct Tables<'a> {
    pub pairs: &'a [[u32; 2]],
    pub cumulative: &'a [u32],
    pub masses: &'a [[f32; 2]],
    pub turns: &'a [Turn],
    pub by_left: LinkTables<'a>,
    pub by_right: LinkTables<'a>,
}

/// The arrays of the links of one side.
pub(crate) struct LinkTables<'a> {
    pub starts: &'a [u32],
    pub partners: &'a [u32],
    pub cumulative: &'a [u32],
}

impl Coupling {
    pub(crate) fn tables(&self) -> Tables<'_> {
        fn links(links: &Links) -> LinkTables<'_> {
            LinkTables { starts: &links.starts, partners: &links.partners, cumulative: &links.cumulative }
        }
        Tables {
            pairs: &self.pairs,
            cumulative: &self.cumulative,
            masses: &self.masses,
            turns: &self.turns,
            by_left: links(&self.by_left),
            by_right: links(&self.by_right),
        }
    }

    /// The pair that `word` selects, and its mass at both ends relative to the probability of the
    /// selection.
    #[must_use]
    pub fn pair(&self, word: u32) -> (usize, usize, [f64; 2]) {
        let (i, j, mass, _) = self.turning_pair(word);
        (i, j, mass)
    }

    /// The same with the turn of the pair.
    pub(super) fn turning_pair(&self, word: u32) -> (usize, usize, [f64; 2], Option<Turn>) {
        // Integer arithmetic, so that every engine selects the same pairs.
        let entry = self.cumulative.partition_point(|&below| below <= word).min(self.pairs.len() - 1);
        let [i, j] = self.pairs[entry];
        let mass = self.masses.get(entry).map_or([1.0; 2], |mass| mass.map(f64::from));
        (i as usize, j as usize, mass, self.turns.get(entry).copied())
    }

    /// Pairs (i, j) of an earlier and a later row, with the probability of each.
    pub fn entries(&self) -> impl Iterator<Item = (usize, usize, f64)> {
        let mut before = 0;
        self.pairs.iter().zip(&self.cumulative).map(move |(&[i, j], &sum)| {
            let probability = f64::from(sum - std::mem::replace(&mut before, sum)) / UNIT;
            (i as usize, j as usize, probability)
        })
    }

    /// Pairs (i, j) of an earlier and a later row, with the mass that leaves i and the mass that
    /// arrives at j, of 1 in all at each end. One of them is 0 where mass vanishes, or appears.
    pub fn moves(&self) -> impl Iterator<Item = (usize, usize, [f64; 2])> {
        self.entries().enumerate().map(|(entry, (i, j, probability))| {
            let mass = self.masses.get(entry).map_or([1.0; 2], |mass| mass.map(f64::from));
            (i, j, mass.map(|end| end * probability))
        })
    }

    /// The shares of the mass of the earlier and of the later snapshot that do not move: they
    /// vanish where they are, or appear.
    #[must_use]
    pub fn in_place(&self) -> [f64; 2] {
        let weights =
            self.cumulative.iter().scan(0, |before, &sum| Some(f64::from(sum - std::mem::replace(before, sum))));
        let (mut fixed, mut whole) = ([0.0; 2], [0.0; 2]);
        for (entry, weight) in weights.enumerate() {
            let mass = self.masses.get(entry).map_or([1.0; 2], |mass| mass.map(f64::from));
            for end in 0..2 {
                whole[end] += weight * mass[end];
                fixed[end] += if mass[1 - end] == 0.0 { weight * mass[end] } else { 0.0 };
            }
        }
        [fixed[0] / whole[0], fixed[1] / whole[1]]
    }

    /// The row of the later snapshot to which the earlier row `i` moves.
    #[must_use]
    pub fn successor(&self, i: usize, word: u32) -> usize {
        self.by_left.partner(i, word)
    }

    /// The row of the earlier snapshot from which the later row `j` comes.
    #[must_use]
    pub fn predecessor(&self, j: usize, word: u32) -> usize {
        self.by_right.partner(j, word)
    }

    /// True if a row is in no pair: see [`partial_couplings`].
    #[must_use]
    pub fn is_partial(&self) -> bool {
        let has_none = |links: &Links| links.starts.windows(2).any(|ends| ends[0] == ends[1]);
        has_none(&self.by_left) || has_none(&self.by_right)
    }

    /// True if mass changes on the way of a pair: see [`wfr_couplings`].
    #[must_use]
    pub fn grows(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Mean distance between the rows of pairs, in the units of the snapshots: that which pairs
    /// move. Mass that vanishes or appears counts with the distance to its nearest row.
    #[must_use]
    pub fn distance(&self) -> f64 {
        self.distance
    }

    #[cfg(test)]
    pub(super) fn has(&self, i: usize, j: usize) -> bool {
        self.pairs.contains(&[i as u32, j as u32])
    }

    /// The coupling of snapshots with `n` and `m` rows from (i, j, mass at both ends); `between` is
    /// the distance of two rows.
    fn new(n: usize, m: usize, moves: &[(usize, usize, [f64; 2])], between: impl Fn(usize, usize) -> f64) -> Self {
        let (mut pairs, mut cumulative, mut sum, mut distance) = (Vec::new(), Vec::new(), 0.0, 0.0);
        // The mean of the masses at the two ends, so that no pair weighs more than twice its
        // probability.
        let share = |mass: [f64; 2]| 0.5 * (mass[0] + mass[1]);
        let total: f64 = moves.iter().map(|&(_, _, mass)| share(mass)).sum();
        for &(i, j, mass) in moves {
            sum += share(mass) / total;
            distance += share(mass) / total * between(i, j);
            pairs.push([i as u32, j as u32]);
            cumulative.push((sum * UNIT) as u32); // saturates at the end
        }
        let masses = if moves.iter().all(|&(_, _, mass)| mass[0] == mass[1]) {
            Vec::new()
        } else {
            moves.iter().map(|&(_, _, mass)| mass.map(|end| (end / share(mass)) as f32)).collect()
        };
        Coupling {
            pairs,
            cumulative,
            masses,
            distance,
            turns: Vec::new(),
            by_left: Links::new(n, moves.iter().map(|&(i, j, mass)| (i, j, mass[0])).collect()),
            by_right: Links::new(m, moves.iter().map(|&(i, j, mass)| (j, i, mass[1])).collect()),
        }
    }
}

/// Pairs (i, j, mass at both ends) of one problem; the masses add up to 1 at each end.
type Moves = Vec<(usize, usize, [f64; 2])>;

/// One side of a problem.
struct Side {
    /// Rows `[n, dim]`.
    rows: Vec<f32>,
    /// What share of the side's mass each has; `None` if all have the same.
    shares: Option<Vec<f64>>,
    /// Number of rows of the whole snapshot.
    n_all: usize,
    dim: usize,
}

impl Side {
    /// Mass of each row if the snapshot has the mass `whole`: as the others of the snapshot have
    /// it, or if rows have shares, with all that of the snapshot in this problem.
    fn masses(&self, whole: f64) -> Vec<f64> {
        match &self.shares {
            None => vec![whole / self.n_all as f64; self.rows.len() / self.dim],
            Some(shares) => shares.iter().map(|share| whole * share).collect(),
        }
    }
}

/// `moves` between sides with the masses of `masses` as shares of these.
fn as_shares(moves: Vec<UnbalancedMove>, masses: [&[f64]; 2]) -> Moves {
    let totals = masses.map(|masses| masses.iter().sum::<f64>());
    moves.into_iter().map(|(i, j, mass)| (i, j, [mass[0] / totals[0], mass[1] / totals[1]])).collect()
}

/// Pairs the rows of snapshot k with those of the next: (k, earlier, later) → moves.
type Solve<'a> = dyn Fn(usize, &Side, &Side) -> Result<Moves> + Sync + 'a;

/// Squared-distance optimal couplings of all neighboring `snapshots`. Snapshots of more than
/// `most_rows` rows are divided at random into problems of nearly equal sizes, at most `most_rows`,
/// and each is solved exactly (minibatch optimal transport). Every row is in one problem; one with
/// a weight of its own may have parts of its mass in two.
///
/// Where growth rates are known (see [`Snapshots::growing`]), what moves is the mass of the earlier
/// rows multiplied by exp(rate · interval), in all functions of this module. Pairs then gain mass
/// with it: at their start the masses are those of the rows before they grow.
///
/// A problem takes 8·`most_rows`² bytes, and seconds if `most_rows` is 5000. Problems are solved on
/// the threads of `stage`, as many at once as [`MEMORY`](crate::transport::MEMORY) allows; its
/// watch counts problems.
///
/// # Errors
/// As [`optimal_plan`].
pub fn optimal_couplings(snapshots: &Snapshots, most_rows: usize, seed: u64, stage: &Stage) -> Result<Vec<Coupling>> {
    couplings(snapshots, most_rows, seed, stage, &|_, x, y| {
        let cost = Cost::SquaredEuclidean;
        let plan = match (&x.shares, &y.shares) {
            (Some(of_x), Some(of_y)) => {
                weighted_plan(snapshots.dim, (&x.rows, of_x), (&y.rows, of_y), cost, stage.watch)?
            }
            _ => optimal_plan(snapshots.dim, &x.rows, &y.rows, cost, stage.watch)?,
        };
        Ok(plan.moves.into_iter().map(|(i, j, mass)| (i, j, [mass; 2])).collect())
    })
}

/// Couplings by partial optimal transport, divided as in [`optimal_couplings`]: rows far from all
/// others appear or vanish instead of moving. `masses` of the snapshots are divided among their
/// rows, equally or by their weights; `relaxation` is the squared distance beyond which rows appear
/// or vanish.
///
/// # Errors
/// As [`weighted_unbalanced_plan`].
pub fn unbalanced_couplings(
    snapshots: &Snapshots,
    masses: &[f64],
    relaxation: f64,
    most_rows: usize,
    seed: u64,
    stage: &Stage,
) -> Result<Vec<Coupling>> {
    couplings(snapshots, most_rows, seed, stage, &|k, x, y| {
        let (of_x, of_y) = (x.masses(masses[k] * snapshots.grown(k)), y.masses(masses[k + 1]));
        let sides = ((&x.rows[..], &of_x[..]), (&y.rows[..], &of_y[..]));
        let moves = weighted_unbalanced_plan(snapshots.dim, sides.0, sides.1, relaxation, stage.watch)?;
        Ok(as_shares(moves, [&of_x, &of_y]))
    })
}

/// Couplings by partial optimal transport of rows that have the same mass in all snapshots, or
/// their weights, divided as in [`optimal_couplings`]. Rows without a partner within the squared
/// distance `relaxation` are in no pair: particles that have left the view, or have entered it. All
/// pairs have the mass 1.
///
/// # Errors
/// As [`weighted_unbalanced_plan`]; [`Error::Input`] if no row has a partner in the next snapshot.
pub fn partial_couplings(
    snapshots: &Snapshots,
    relaxation: f64,
    most_rows: usize,
    seed: u64,
    stage: &Stage,
) -> Result<Vec<Coupling>> {
    let found = couplings(snapshots, most_rows, seed, stage, &|k, x, y| {
        let (of_x, of_y) = (x.masses(snapshots.total(k)), y.masses(snapshots.total(k + 1)));
        let sides = ((&x.rows[..], &of_x[..]), (&y.rows[..], &of_y[..]));
        let moves = weighted_unbalanced_plan(snapshots.dim, sides.0, sides.1, relaxation, stage.watch)?;
        Ok(moves.into_iter().filter(|(_, _, mass)| mass.iter().all(|&end| end > 0.0)).collect())
    })?;
    if let Some(k) = found.iter().position(|coupling| coupling.pairs.is_empty()) {
        let times = [k, k + 1].map(|k| snapshots.times[k]);
        let problem = format!("is {relaxation}, and no row of network time {} has a partner at {}", times[0], times[1]);
        return Err(Error::input("pairing", "relaxation", problem, "use a larger squared distance, network units"));
    }
    Ok(found)
}

/// Couplings by Wasserstein–Fisher–Rao transport ([`wfr_plan`]), divided as in
/// [`optimal_couplings`]: pairs move and grow at once. `masses` of the snapshots are divided among
/// their rows, equally or by their weights. `growth` is the λ of the dynamics, which decides what
/// growth costs: δ = 1/√λ, so no mass moves further than π/√λ.
///
/// # Errors
/// As [`wfr_plan`].
pub fn wfr_couplings(
    snapshots: &Snapshots,
    masses: &[f64],
    growth: f64,
    most_rows: usize,
    seed: u64,
    stage: &Stage,
) -> Result<Vec<Coupling>> {
    let delta = growth.sqrt().recip();
    // Costs, and what Sinkhorn's iterations keep of a plan.
    let mut couplings = divided(snapshots, most_rows, 4, seed, stage, &|k, x, y| {
        let (of_x, of_y) = (x.masses(masses[k] * snapshots.grown(k)), y.masses(masses[k + 1]));
        let moves = wfr_plan(snapshots.dim, (&x.rows, &of_x), (&y.rows, &of_y), delta, stage.watch)?;
        Ok(as_shares(moves, [&of_x, &of_y]))
    })?;
    for (k, coupling) in couplings.iter_mut().enumerate() {
        let row = |k: usize, i: u32| &snapshots.rows(k)[i as usize * snapshots.dim..][..snapshots.dim];
        let turn = |&[i, j]: &[u32; 2]| Turn::between(row(k, i), row(k + 1, j), delta);
        coupling.turns = coupling.pairs.iter().map(turn).collect();
    }
    Ok(couplings)
}

/// Couplings of neighboring snapshots from `solve`, which keeps the cost of each pair of rows.
fn couplings(
    snapshots: &Snapshots,
    most_rows: usize,
    seed: u64,
    stage: &Stage,
    solve: &Solve,
) -> Result<Vec<Coupling>> {
    divided(snapshots, most_rows, 1, seed, stage, solve)
}

/// The same for a `solve` that keeps `matrices` numbers for each pair of rows.
fn divided(
    snapshots: &Snapshots,
    most_rows: usize,
    matrices: usize,
    seed: u64,
    stage: &Stage,
    solve: &Solve,
) -> Result<Vec<Coupling>> {
    let most_rows = most_rows.clamp(1, MAX_POINTS);
    snapshots.check_grown()?;
    let intervals = snapshots.times.len() - 1;
    let orders: Vec<Vec<usize>> =
        (0..=intervals).map(|k| shuffled(snapshots.n_rows(k), seed, Purpose::Problems, k as u64)).collect();
    let problems_of = |k: usize| -> Vec<(usize, Problem)> {
        let ends = [&orders[k][..], &orders[k + 1]];
        let problems = match Shares::of(snapshots, k) {
            None => equal_problems(ends, most_rows),
            Some(Shares { moving, .. }) => weighted_problems(ends, &moving, most_rows),
        };
        problems.into_iter().map(|problem| (k, problem)).collect()
    };
    let tasks: Vec<(usize, Problem)> = (0..intervals).flat_map(problems_of).collect();
    let side = |k: usize, (rows, shares): &(Vec<usize>, Option<Vec<f64>>)| Side {
        rows: (rows.iter().flat_map(|&row| &snapshots.rows(k)[row * snapshots.dim..][..snapshots.dim]).copied())
            .collect(),
        shares: shares.clone(),
        n_all: snapshots.n_rows(k),
        dim: snapshots.dim,
    };
    // Memory for the largest problem, including the additional row and column of an unbalanced one.
    let rows = |(_, problem): &(usize, Problem)| problem.ends.iter().map(|end| end.0.len()).max().unwrap_or(0) + 1;
    let largest = tasks.iter().map(rows).max().unwrap_or(1);
    let solved = stage.map_among(
        problems_at_once(matrices * largest, largest),
        &tasks,
        |(k, problem)| solve(*k, &side(*k, &problem.ends[0]), &side(k + 1, &problem.ends[1])),
        |moves| {
            let numbers = moves.iter().flat_map(|&(i, j, [start, end])| [i as f64, j as f64, start, end]);
            numbers.flat_map(f64::to_ne_bytes).collect()
        },
        |bytes| {
            let numbers = bytemuck::pod_collect_to_vec::<u8, [f64; 4]>(bytes);
            numbers.into_iter().map(|[i, j, start, end]| (i as usize, j as usize, [start, end])).collect()
        },
    )?;
    let mut moves: Vec<Moves> = vec![Vec::new(); intervals];
    for ((k, Problem { ends: [from, to], weight }), solved) in tasks.iter().zip(solved) {
        moves[*k].extend(solved.into_iter().map(|(i, j, mass)| (from.0[i], to.0[j], mass.map(|end| end * weight))));
    }
    for (k, moves) in moves.iter_mut().enumerate() {
        if let Some(Shares { before, .. }) = Shares::of(snapshots, k) {
            moves.iter_mut().for_each(|(i, _, mass)| mass[0] *= before[*i]);
        }
    }
    let row = |k: usize, i: usize| &snapshots.rows(k)[i * snapshots.dim..][..snapshots.dim];
    let coupling = |(k, moves): (usize, &Moves)| {
        let squared = |(x, y): (&f32, &f32)| (f64::from(*x) - f64::from(*y)).powi(2);
        let between = |i, j| row(k, i).iter().zip(row(k + 1, j)).map(squared).sum::<f64>().sqrt();
        Coupling::new(snapshots.n_rows(k), snapshots.n_rows(k + 1), moves, between)
    };
    Ok(moves.iter().enumerate().map(coupling).collect())
}

/// The rows of two snapshots that are paired together, each side with their shares in the mass of
/// the problem, if these differ.
struct Problem {
    ends: [(Vec<usize>, Option<Vec<f64>>); 2],
    /// Share of the whole mass.
    weight: f64,
}

/// Divides rows that all count alike, in the order of `ends`.
fn equal_problems(ends: [&[usize]; 2], most_rows: usize) -> Vec<Problem> {
    let larger = ends[0].len().max(ends[1].len());
    let n = larger.div_ceil(most_rows);
    // The smaller side may have fewer rows than there are problems; several problems then use the
    // same row.
    let rows = |order: &[usize], b: usize| -> Vec<usize> {
        let (first, end) = (b * order.len() / n, (b + 1) * order.len() / n);
        if first == end { order[first..=first].to_vec() } else { order[first..end].to_vec() }
    };
    let problem = |b: usize| {
        let [from, to] = ends.map(|order| rows(order, b));
        // A problem's weight is its number of rows of the larger side.
        let weight = from.len().max(to.len()) as f64 / larger as f64;
        Problem { ends: [(from, None), (to, None)], weight }
    };
    (0..n).map(problem).collect()
}

/// Divides rows with the shares `moving` of the mass of either side, in the order of `ends`, so
/// that both sides of a problem have the same mass: a row in which a problem ends has the rest of
/// its mass in the next one. Both sides are cut where they have had as many rows as make equal
/// parts, so no part has more.
fn weighted_problems(ends: [&[usize]; 2], moving: &[Vec<f64>; 2], most_rows: usize) -> Vec<Problem> {
    /// Share of the mass that is no problem of its own, nor a part of a row.
    const NOTHING: f64 = 1e-12;
    /// Rows with mass, and the share up to each, 1 at the last.
    struct Line {
        rows: Vec<usize>,
        up_to: Vec<f64>,
    }
    let lines = [0, 1].map(|end| {
        let rows: Vec<usize> = ends[end].iter().copied().filter(|&row| moving[end][row] > 0.0).collect();
        let sums = rows.iter().scan(0.0, |sum, &row| {
            *sum += moving[end][row];
            Some(*sum)
        });
        let mut up_to: Vec<f64> = sums.collect();
        up_to.iter_mut().rev().take(1).for_each(|last| *last = 1.0);
        Line { rows, up_to }
    });
    let larger = lines[0].rows.len().max(lines[1].rows.len());
    let n = larger.div_ceil(most_rows);
    let cuts_of =
        |line: &Line| (1..n).filter_map(|b| Some(line.up_to[(b * line.rows.len() / n).checked_sub(1)?])).collect();
    let mut cuts: Vec<f64> = lines.iter().flat_map(|line| -> Vec<f64> { cuts_of(line) }).chain([1.0]).collect();
    cuts.sort_unstable_by(f64::total_cmp);
    let mut problems = Vec::new();
    let mut start = 0.0;
    for cut in cuts {
        let weight = cut - start;
        if weight <= NOTHING {
            continue;
        }
        let ends = [0, 1].map(|end| {
            let Line { rows, up_to } = &lines[end];
            let first = up_to.partition_point(|&sum| sum <= start);
            let (mut chosen, mut shares) = (Vec::new(), Vec::new());
            let mut below = start;
            for (&row, &sum) in rows.iter().zip(up_to).skip(first) {
                if below >= cut {
                    break;
                }
                let part = sum.min(cut) - below;
                if part > NOTHING * weight {
                    chosen.push(row);
                    shares.push(part / weight);
                }
                below = sum;
            }
            (chosen, Some(shares))
        });
        problems.push(Problem { ends, weight });
        start = cut;
    }
    problems
}

/// How rows share the mass that moves between two snapshots.
struct Shares {
    /// Of each row of either side, in the mass of that side as it arrives.
    moving: [Vec<f64>; 2],
    /// Of each earlier row, its share before it grows in units of the one that moves.
    before: Vec<f64>,
}

impl Shares {
    /// Of snapshot `k` and the next; `None` if all rows of each have the same.
    fn of(snapshots: &Snapshots, k: usize) -> Option<Shares> {
        let growth = snapshots.growth(k);
        if growth.is_none() && snapshots.weights(k).is_none() {
            return None;
        }
        let shares = |k: usize| -> Vec<f64> {
            let total = snapshots.total(k);
            match snapshots.weights(k) {
                None => vec![1.0 / total; snapshots.n_rows(k)],
                Some(weights) => weights.iter().map(|weight| weight / total).collect(),
            }
        };
        let (mut from, mut before) = (shares(k), vec![1.0; snapshots.n_rows(k)]);
        if let Some(rates) = growth {
            let factor = |rate: &f64| (rate * (snapshots.times[k + 1] - snapshots.times[k])).exp() / snapshots.grown(k);
            for ((share, before), rate) in from.iter_mut().zip(&mut before).zip(rates) {
                *before = 1.0 / factor(rate);
                *share *= factor(rate);
            }
        }
        Some(Shares { moving: [from, shares(k + 1)], before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::draw_gaussian;
    use crate::rng::Stream;

    fn snapshots(sizes: &[usize]) -> Snapshots {
        let mut offsets = vec![0];
        sizes.iter().for_each(|n| offsets.push(offsets[offsets.len() - 1] + n));
        let n = offsets[sizes.len()];
        let times = (0..sizes.len()).map(|k| k as f64).collect();
        Snapshots {
            dim: 2,
            times,
            offsets,
            samples: draw_gaussian(n, 2, &mut Stream::of_normals(3, 2)),
            mass: Default::default(),
        }
    }

    /// Frequencies of the rows on both sides, from equally spaced words.
    fn marginals(coupling: &Coupling, n: usize, m: usize) -> (Vec<f64>, Vec<f64>) {
        const WORDS: u32 = 1 << 16;
        let (mut rows, mut columns) = (vec![0.0; n], vec![0.0; m]);
        for word in 0..WORDS {
            let (i, j, _) = coupling.pair(word << 16 | 1 << 15);
            rows[i] += 1.0 / f64::from(WORDS);
            columns[j] += 1.0 / f64::from(WORDS);
        }
        (rows, columns)
    }

    #[test]
    fn marginals_are_uniform() {
        let snapshots = snapshots(&[30, 47, 60]);
        for (k, (n, m)) in [(30, 47), (47, 60)].into_iter().enumerate() {
            let (rows, columns) =
                marginals(&optimal_couplings(&snapshots, 100, 1, &Stage::default()).unwrap()[k], n, m);
            assert!(rows.iter().all(|share| (share * n as f64 - 1.0).abs() < 0.02), "{rows:?}");
            assert!(columns.iter().all(|share| (share * m as f64 - 1.0).abs() < 0.02), "{columns:?}");
        }
    }

    /// With problems of unequal sizes marginals stay nearly uniform, because sizes differ by at
    /// most one row.
    #[test]
    fn problems_cover_every_row() {
        let snapshots = snapshots(&[31, 47]);
        let couplings = optimal_couplings(&snapshots, 16, 1, &Stage::default()).unwrap();
        let (rows, columns) = marginals(&couplings[0], 31, 47);
        assert!(rows.iter().all(|share| (0.8..1.25).contains(&(share * 31.0))), "{rows:?}");
        assert!(columns.iter().all(|share| (0.9..1.1).contains(&(share * 47.0))), "{columns:?}");
        assert_eq!(optimal_couplings(&snapshots, 16, 1, &Stage::default()).unwrap(), couplings);
        assert_ne!(optimal_couplings(&snapshots, 16, 2, &Stage::default()).unwrap(), couplings);
        // One side has fewer rows than there are problems.
        let few = optimal_couplings(&self::snapshots(&[2, 47]), 8, 1, &Stage::default()).unwrap();
        let (rows, columns) = marginals(&few[0], 2, 47);
        assert!(rows.iter().all(|&share| share > 0.3) && columns.iter().all(|&share| share > 0.0), "{rows:?}");
    }

    /// Of each row on either side the mass of its pairs, to the 2⁻³² of their probabilities.
    fn masses(coupling: &Coupling, n: usize, m: usize) -> [Vec<f64>; 2] {
        let mut masses = [vec![0.0; n], vec![0.0; m]];
        let mut before = 0;
        for (entry, &[i, j]) in coupling.pairs.iter().enumerate() {
            let now = coupling.cumulative[entry];
            let probability = f64::from(now - std::mem::replace(&mut before, now)) / UNIT;
            let mass = coupling.masses.get(entry).map_or([1.0; 2], |mass| mass.map(f64::from));
            masses[0][i as usize] += probability * mass[0];
            masses[1][j as usize] += probability * mass[1];
        }
        masses
    }

    fn near(got: &[f64], want: impl IntoIterator<Item = f64>) -> bool {
        got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6)
    }

    /// Whatever the weights, and however small the problems: the pairs of every kind have the
    /// distributions of both snapshots at their ends.
    #[test]
    fn pairs_have_the_weights_of_their_rows() {
        let plain = snapshots(&[31, 47]);
        // From 0 and 10⁻⁴ to two rows that have most of the weight.
        let weight = |i: usize| [0.0, 1e-4, 1.0, 2.5][i * i % 4] + if i == 5 || i == 50 { 40.0 } else { 0.0 };
        let weighted = plain.clone().weighted((0..78).map(weight).collect()).unwrap();
        let shares = |k: usize| -> Vec<f64> {
            weighted.weights(k).unwrap().iter().map(|weight| weight / weighted.total(k)).collect()
        };
        let stage = Stage::default();
        for most_rows in [100, 16, 7] {
            for couplings in [
                optimal_couplings(&weighted, most_rows, 1, &stage),
                unbalanced_couplings(&weighted, &[1.0, 2.0], 1.0, most_rows, 1, &stage),
                wfr_couplings(&weighted, &[1.0, 2.0], 0.5, most_rows, 1, &stage),
            ] {
                let [from, to] = masses(&couplings.unwrap()[0], 31, 47);
                assert!(near(&from, shares(0)) && near(&to, shares(1)), "{most_rows}: {from:?}, {to:?}");
            }
        }
        // Equal weights are none.
        let equal = plain.clone().weighted(vec![0.3; 78]).unwrap();
        let cost = |snapshots: &Snapshots| optimal_couplings(snapshots, 100, 1, &stage).unwrap()[0].distance();
        assert!((cost(&equal) / cost(&plain) - 1.0).abs() < 1e-9);
    }

    /// No part is larger than rows without weights would have it, but for the rows that are cut.
    #[test]
    fn weighted_problems_are_small() {
        let orders = [5, 6].map(|seed| shuffled(500, seed, Purpose::Problems, 0));
        let uneven = |exponent: f64| -> Vec<f64> {
            let weights: Vec<f64> = (1..=500).map(|i| f64::from(i).powf(exponent)).collect();
            let total: f64 = weights.iter().sum();
            weights.iter().map(|weight| weight / total).collect()
        };
        let problems = weighted_problems([&orders[0], &orders[1]], &[uneven(-3.0), uneven(2.0)], 64);
        let largest = problems.iter().flat_map(|problem| problem.ends.iter().map(|end| end.0.len())).max().unwrap();
        assert!(largest <= 66 && problems.len() < 17, "{largest} rows, {} problems", problems.len());
        assert!((problems.iter().map(|problem| problem.weight).sum::<f64>() - 1.0).abs() < 1e-12);
        for end in problems.iter().flat_map(|problem| &problem.ends) {
            assert!((end.1.as_ref().unwrap().iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }

    /// Rows that grow are paired in proportion to what becomes of them, and their pairs gain the
    /// mass that they grow by.
    #[test]
    fn rows_that_grow_have_more_partners() {
        let plain = snapshots(&[30, 40]);
        let rate = |i: usize| if i.is_multiple_of(3) { 2.0 } else { -0.5 };
        let growing = plain.growing((0..70).map(rate).collect()).unwrap();
        let grown = growing.grown(0);
        assert!((grown - (10.0 * 2f64.exp() + 20.0 * (-0.5f64).exp()) / 30.0).abs() < 1e-12, "{grown}");
        let stage = Stage::default();
        for most_rows in [100, 9] {
            let coupling = &optimal_couplings(&growing, most_rows, 1, &stage).unwrap()[0];
            let [from, to] = masses(coupling, 30, 40);
            assert!(near(&from, [1.0 / 30.0; 30]) && near(&to, [1.0 / 40.0; 40]), "{from:?}, {to:?}");
            for (&[i, _], mass) in coupling.pairs.iter().zip(&coupling.masses) {
                let ratio = f64::from(mass[1]) / f64::from(mass[0]);
                assert!((ratio * grown / rate(i as usize).exp() - 1.0).abs() < 1e-5, "{i}: {mass:?}");
            }
        }
        let coupling = &wfr_couplings(&growing, &[1.0, grown], 0.5, 100, 1, &stage).unwrap()[0];
        let [from, to] = masses(coupling, 30, 40);
        assert!(near(&from, [1.0 / 30.0; 30]) && near(&to, [1.0 / 40.0; 40]), "{from:?}, {to:?}");
        let wild = snapshots(&[3, 3]).growing(vec![30.0; 6]).unwrap();
        let error = optimal_couplings(&wild, 100, 1, &stage).unwrap_err().to_string();
        assert!(error.contains("row 0 of snapshot 0 grow by a factor of e^30"), "{error}");
    }

    /// Neither the number of threads nor how many of them start changes a coupling; a watch ends
    /// both kinds.
    #[test]
    fn threads_change_nothing_and_a_watch_ends_it() {
        use crate::stage::tests::{Cancelled, with_startable};
        let snapshots = snapshots(&[50, 60, 70]);
        let want = optimal_couplings(&snapshots, 16, 1, &Stage::new(1, &())).unwrap();
        for startable in [0, 1, 9] {
            let got = with_startable(startable, || optimal_couplings(&snapshots, 16, 1, &Stage::new(4, &())));
            assert_eq!(got.unwrap(), want);
        }
        let stage = Stage::new(2, &Cancelled);
        assert!(matches!(optimal_couplings(&snapshots, 16, 1, &stage), Err(Error::Interrupted)));
        let masses = [1.0, 2.0, 1.0];
        assert!(matches!(unbalanced_couplings(&snapshots, &masses, 1.0, 16, 1, &stage), Err(Error::Interrupted)));
        assert!(matches!(wfr_couplings(&snapshots, &masses, 1.0, 16, 1, &stage), Err(Error::Interrupted)));
        let wfr = |threads| wfr_couplings(&snapshots, &masses, 1.0, 16, 1, &Stage::new(threads, &())).unwrap();
        assert_eq!(wfr(1), wfr(4));
    }

    /// Pairs that grow have the same frequencies of rows, by mass, at both ends, and rows out of
    /// reach are counted.
    #[test]
    fn growing_pairs_cover_every_row() {
        let mut snapshots = snapshots(&[30, 40]);
        for far in [0, 1, 30 + 7] {
            snapshots.samples[2 * far] += 100.0 * (1.0 + far as f32);
        }
        let coupling = &wfr_couplings(&snapshots, &[1.0, 3.0], 0.5, 16, 1, &Stage::default()).unwrap()[0];
        let (mut rows, mut columns) = (vec![0.0; 30], vec![0.0; 40]);
        for word in 0..1u32 << 16 {
            let (i, j, mass) = coupling.pair(word << 16 | 1 << 15);
            rows[i] += 30.0 * mass[0] / 65536.0;
            columns[j] += 40.0 * mass[1] / 65536.0;
        }
        assert!(rows.iter().chain(&columns).all(|share| (share - 1.0).abs() < 0.1), "{rows:?} {columns:?}");
        let [vanishing, appearing] = coupling.in_place();
        // Problems differ by a row in size.
        assert!((vanishing - 2.0 / 30.0).abs() < 5e-3, "{vanishing}");
        assert!((appearing - 1.0 / 40.0).abs() < 5e-3, "{appearing}");
    }

    /// Seven particles in a row move by 1; one leaves and one enters. The five that are seen twice
    /// keep their partners, and the others have none.
    #[test]
    fn rows_that_enter_and_leave_have_no_partner() {
        let samples = (0..6).chain(0..6).flat_map(|i| [0.0, 3.0 * i as f32]).collect::<Vec<f32>>();
        let moved = samples.iter().enumerate().map(|(i, &x)| if i % 2 == 1 && i > 12 { x - 2.0 } else { x });
        // Rows 0..6 at 0, 3, … 15; those after them at 1, 4, … 13 and a new one at −2.
        let mut samples: Vec<f32> = moved.collect();
        samples[13] = -2.0;
        let snapshots =
            Snapshots { dim: 2, times: vec![0.0, 1.0], offsets: vec![0, 6, 12], samples, mass: Default::default() };
        let coupling = &partial_couplings(&snapshots, 4.0, 100, 1, &Stage::default()).unwrap()[0];
        let mut pairs = coupling.pairs.clone();
        pairs.sort_unstable();
        assert!(coupling.is_partial());
        assert_eq!(pairs, [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]]);
        assert_eq!(coupling.pair(7 << 29).2, [1.0; 2]);
        let error = partial_couplings(&snapshots, 0.5, 100, 1, &Stage::default()).unwrap_err().to_string();
        assert!(error.contains("no row of network time 0 has a partner"), "{error}");
    }

    /// The pairs are those of the plan: moving along them costs W₂².
    #[test]
    fn pairs_move_at_the_least_cost() {
        let snapshots = snapshots(&[40, 40]);
        let coupling = &optimal_couplings(&snapshots, 100, 1, &Stage::default()).unwrap()[0];
        let squared = |i: usize, j: usize| -> f64 {
            let (x, y) = (&snapshots.rows(0)[2 * i..][..2], &snapshots.rows(1)[2 * j..][..2]);
            x.iter().zip(y).map(|(a, b)| f64::from(a - b).powi(2)).sum()
        };
        let mean: f64 = coupling.pairs.iter().map(|&[i, j]| squared(i as usize, j as usize)).sum::<f64>() / 40.0;
        let w2 = crate::transport::wasserstein2(2, snapshots.rows(0), snapshots.rows(1), &()).unwrap();
        assert!((mean / (w2 * w2) - 1.0).abs() < 1e-6, "{mean}, not {}", w2 * w2);
        let distance: f64 =
            coupling.pairs.iter().map(|&[i, j]| squared(i as usize, j as usize).sqrt()).sum::<f64>() / 40.0;
        assert!((coupling.distance() / distance - 1.0).abs() < 1e-6, "{}, not {distance}", coupling.distance());
    }
}
