//! Which samples of neighboring snapshots belong together: optimal transport, balanced, unbalanced
//! or of Wasserstein–Fisher–Rao, solved once before training.

use super::turn::Turn;
use crate::data::Snapshots;
use crate::error::{Error, Result};
use crate::rng::{Purpose, shuffled};
use crate::stage::Stage;
use crate::transport::{Cost, MAX_POINTS, optimal_plan, problems_at_once, unbalanced_plan, wfr_plan};

/// A joint distribution of the rows of two snapshots. Its pairs may gain or lose mass on the way.
/// At each end the masses of all pairs add up to the uniform distribution over the snapshot's rows.
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

/// Pairs the rows x of snapshot k with the rows y of the next: (k, x, y) → moves.
type Solve<'a> = dyn Fn(usize, &[f32], &[f32]) -> Result<Moves> + Sync + 'a;

/// Squared-distance optimal couplings of all neighboring `snapshots`. Snapshots of more than
/// `most_rows` rows are divided at random into problems of nearly equal sizes, at most `most_rows`,
/// and each is solved exactly (minibatch optimal transport). Every row is in one problem.
///
/// A problem takes 8·`most_rows`² bytes, and seconds if `most_rows` is 5000. Problems are solved on
/// the threads of `stage`, as many at once as [`MEMORY`](crate::transport::MEMORY) allows; its
/// watch counts problems.
///
/// # Errors
/// As [`optimal_plan`].
pub fn optimal_couplings(snapshots: &Snapshots, most_rows: usize, seed: u64, stage: &Stage) -> Result<Vec<Coupling>> {
    couplings(snapshots, most_rows, seed, stage, &|_, x, y| {
        let plan = optimal_plan(snapshots.dim, x, y, Cost::SquaredEuclidean, stage.watch)?;
        Ok(plan.moves.into_iter().map(|(i, j, mass)| (i, j, [mass; 2])).collect())
    })
}

/// Couplings by partial optimal transport, divided as in [`optimal_couplings`]: rows far from all
/// others appear or vanish instead of moving. `masses` of the snapshots are divided equally among
/// their rows; `relaxation` is the squared distance beyond which rows appear or vanish.
///
/// # Errors
/// As [`unbalanced_plan`].
pub fn unbalanced_couplings(
    snapshots: &Snapshots,
    masses: &[f64],
    relaxation: f64,
    most_rows: usize,
    seed: u64,
    stage: &Stage,
) -> Result<Vec<Coupling>> {
    couplings(snapshots, most_rows, seed, stage, &|k, x, y| {
        let row_masses = [k, k + 1].map(|k| masses[k] / snapshots.n_rows(k) as f64);
        let totals = [x.len(), y.len()].map(|n_values| (n_values / snapshots.dim) as f64);
        let share = |end: usize, mass: f64| mass / (row_masses[end] * totals[end]);
        let moves = unbalanced_plan(snapshots.dim, x, y, row_masses, relaxation, stage.watch)?;
        Ok(moves.into_iter().map(|(i, j, mass)| (i, j, [share(0, mass[0]), share(1, mass[1])])).collect())
    })
}

/// Couplings by partial optimal transport of rows that have the same mass in all snapshots, divided
/// as in [`optimal_couplings`]. Rows without a partner within the squared distance `relaxation` are
/// in no pair: particles that have left the view, or have entered it. All pairs have the mass 1.
///
/// # Errors
/// As [`unbalanced_plan`]; [`Error::Input`] if no row has a partner in the next snapshot.
pub fn partial_couplings(
    snapshots: &Snapshots,
    relaxation: f64,
    most_rows: usize,
    seed: u64,
    stage: &Stage,
) -> Result<Vec<Coupling>> {
    let found = couplings(snapshots, most_rows, seed, stage, &|_, x, y| {
        let moves = unbalanced_plan(snapshots.dim, x, y, [1.0; 2], relaxation, stage.watch)?;
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
/// [`optimal_couplings`]: pairs move and grow at once. `masses` of the snapshots are divided
/// equally among their rows. `growth` is the λ of the dynamics, which decides what growth costs:
/// δ = 1/√λ, so no mass moves further than π/√λ.
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
        let rows = [x, y].map(|rows| rows.len() / snapshots.dim);
        let row_masses = [k, k + 1].map(|k| masses[k] / snapshots.n_rows(k) as f64);
        let of_rows = |end: usize| vec![row_masses[end]; rows[end]];
        let moves = wfr_plan(snapshots.dim, (x, &of_rows(0)), (y, &of_rows(1)), delta, stage.watch)?;
        let share = |end: usize, mass: f64| mass / (row_masses[end] * rows[end] as f64);
        Ok(moves.into_iter().map(|(i, j, mass)| (i, j, [share(0, mass[0]), share(1, mass[1])])).collect())
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
    let intervals = snapshots.times.len() - 1;
    let n_problems = |k: usize| snapshots.n_rows(k).max(snapshots.n_rows(k + 1)).div_ceil(most_rows);
    let orders: Vec<Vec<usize>> =
        (0..=intervals).map(|k| shuffled(snapshots.n_rows(k), seed, Purpose::Problems, k as u64)).collect();
    let tasks: Vec<(usize, usize)> = (0..intervals).flat_map(|k| (0..n_problems(k)).map(move |b| (k, b))).collect();
    // The smaller side may have fewer rows than there are problems; several problems then use the
    // same row.
    let rows_of_problem = |k: usize, of: usize, b: usize| -> &[usize] {
        let (n, order) = (n_problems(of), &orders[k]);
        let (first, end) = (b * order.len() / n, (b + 1) * order.len() / n);
        if first == end { &order[first..=first] } else { &order[first..end] }
    };
    let gather = |k: usize, rows: &[usize]| -> Vec<f32> {
        rows.iter().flat_map(|&row| &snapshots.rows(k)[row * snapshots.dim..][..snapshots.dim]).copied().collect()
    };
    // Memory for the largest problem, including the additional row and column of an unbalanced one.
    let rows = |k: usize, b: usize| rows_of_problem(k, k, b).len().max(rows_of_problem(k + 1, k, b).len()) + 1;
    let largest = tasks.iter().map(|&(k, b)| rows(k, b)).max().unwrap_or(1);
    let solved = stage.map(problems_at_once(matrices * largest, largest), &tasks, |&(k, b)| {
        solve(k, &gather(k, rows_of_problem(k, k, b)), &gather(k + 1, rows_of_problem(k + 1, k, b)))
    })?;
    let mut moves: Vec<Moves> = vec![Vec::new(); intervals];
    for (&(k, b), solved) in tasks.iter().zip(solved) {
        let (from, to) = (rows_of_problem(k, k, b), rows_of_problem(k + 1, k, b));
        // A problem's weight is its number of rows of the larger side.
        let larger = snapshots.n_rows(k).max(snapshots.n_rows(k + 1));
        let weight = from.len().max(to.len()) as f64 / larger as f64;
        moves[k].extend(solved.into_iter().map(|(i, j, mass)| (from[i], to[j], mass.map(|end| end * weight))));
    }
    let row = |k: usize, i: usize| &snapshots.rows(k)[i * snapshots.dim..][..snapshots.dim];
    let coupling = |(k, moves): (usize, &Moves)| {
        let squared = |(x, y): (&f32, &f32)| (f64::from(*x) - f64::from(*y)).powi(2);
        let between = |i, j| row(k, i).iter().zip(row(k + 1, j)).map(squared).sum::<f64>().sqrt();
        Coupling::new(snapshots.n_rows(k), snapshots.n_rows(k + 1), moves, between)
    };
    Ok(moves.iter().enumerate().map(coupling).collect())
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
        Snapshots { dim: 2, times, offsets, samples: draw_gaussian(n, 2, &mut Stream::of_normals(3, 2)) }
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
        let snapshots = Snapshots { dim: 2, times: vec![0.0, 1.0], offsets: vec![0, 6, 12], samples };
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
