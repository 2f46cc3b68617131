//! How mass is assumed to move between snapshots: which rows belong together, how x moves from one
//! to the other, and which times a batch visits.
//!
//! A path gives samples of q_t at every t. If x moves along curves, their velocity u = dx/dt is
//! known too, and ∂ₜq = −∇·(q E[u|x]).

mod coupling;
mod generative;
mod groups;
mod spline;
mod times;
mod turn;

use std::sync::Arc;

pub(crate) use coupling::LinkTables;
pub use coupling::{Coupling, optimal_couplings, partial_couplings, unbalanced_couplings, wfr_couplings};
pub use groups::{Group, Groups};
pub use spline::{Knots, Spline};
pub(crate) use times::{MEMORY, UNIFORM_SHARE};
pub use times::{TIME_KNOTS, TimeDensity, TimeMoments, TimeRule};
pub(crate) use turn::Turn;

use self::spline::{Cubic, widths};
use crate::data::Snapshots;
use crate::error::{Error, Result, check_len};
use crate::rng::{self, Purpose, RowWords};
use crate::stage::Stage;

/// How x moves between snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Interpolant {
    /// x = (1 − r) xₗ + r xᵣ, with a pair from the two snapshots around t.
    #[default]
    Linear,
    /// A cubic from xₗ to xᵣ. Its slopes there depend on the rows to which the coupling chains
    /// them, one snapshot before and one after, so a trajectory passes through all snapshots
    /// without a kink: see [`Spline`].
    Spline,
    /// [`Interpolant::Linear`] bent by a second network (Wasserstein Lagrangian Flows, arXiv
    /// 2310.10649), which the engine adds. The second network ascends the loss. The densities then
    /// become those of optimal transport, of a Schrödinger bridge (σ > 0) or of growth (λ > 0).
    Learned,
    /// x from the snapshot nearest in time. The velocity is unknown.
    ///
    /// Its loss over n rows a snapshot is that of n points, and a network that has room between
    /// them can lower it without bound: prefer [`Interpolant::Linear`] between pairs of optimal
    /// transport, whose loss has the lower bound −½E‖u‖².
    Nearest,
    /// (1 − t) ε + t x₁ from standard normal noise to the one snapshot.
    GenerativeLinear,
    /// α(t) ε + β(t) x₁ of the variance-preserving diffusion.
    GenerativeVp,
    /// √(1 − t) ε + √t x₁.
    GenerativeSqrt,
}

impl Interpolant {
    /// True if the path starts from noise.
    #[must_use]
    pub fn is_generative(self) -> bool {
        self.coefficients().is_some()
    }

    /// True if x moves between pairs of samples that can be chosen.
    #[must_use]
    pub fn has_pairs(self) -> bool {
        matches!(self, Interpolant::Linear | Interpolant::Spline | Interpolant::Learned)
    }

    /// True if the velocity of x is known.
    #[must_use]
    pub fn has_velocity(self) -> bool {
        !matches!(self, Interpolant::Nearest | Interpolant::Learned)
    }

    fn coefficients(self) -> Option<fn(f64) -> generative::Coefficients> {
        match self {
            Interpolant::GenerativeLinear => Some(generative::linear),
            Interpolant::GenerativeVp => Some(generative::vp),
            Interpolant::GenerativeSqrt => Some(generative::sqrt),
            Interpolant::Linear | Interpolant::Spline | Interpolant::Learned | Interpolant::Nearest => None,
        }
    }
}

/// A curve of densities through the snapshots.
///
/// ```
/// use action_matching::density_path::RowKey;
/// use action_matching::prelude::*;
///
/// let rows = |shift: f32| (0..40).map(|i| i as f32 + shift).collect::<Vec<f32>>();
/// let rows = [(0.0, rows(0.0)), (0.5, rows(3.0)), (1.0, rows(6.0))];
/// let snapshots = Snapshots::from_rows(1, rows)?;
///
/// // Straight lines between pairs of optimal transport: in one dimension they keep the order.
/// let path = DensityPath::linear(snapshots).paired(0, &Stage::default())?;
/// let moment = path.at(0, 0.5);
/// let trajectory = path.trajectory(moment.left, [0, 1 << 31, 0, 0], RowKey::default());
/// path.point(&trajectory, &moment, |_, x, u| assert_eq!((x.fract(), u), (0.5, 6.0)));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DensityPath {
    /// The snapshots, in network coordinates; a generative path has one, at time 1.
    pub snapshots: Arc<Snapshots>,
    /// How x moves between the snapshots.
    pub interpolant: Interpolant,
    /// Joint distributions of neighboring snapshots, one for each interval; `None` pairs
    /// independently.
    pub couplings: Option<Arc<Vec<Coupling>>>,
    /// Mass of each snapshot relative to the first, linear in between; `None` for constant mass.
    pub masses: Option<Vec<f64>>,
    /// The slopes of [`Interpolant::Spline`]; without effect on others.
    pub spline: Spline,
}

/// A row of a batch of training, as random numbers are counted: see [`rng::words`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowKey {
    /// Key of every random number of the training.
    pub seed: u64,
    /// Step, from 0.
    pub step: u64,
    /// Row of the batch of the step.
    pub row: u32,
}

/// One of the two ends of a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The earlier one.
    Start,
    /// The later one.
    End,
}

impl End {
    /// Both, the earlier one first.
    pub const BOTH: [End; 2] = [End::Start, End::End];
}

/// A time between two snapshots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// The snapshot at or before it.
    pub left: usize,
    /// Fraction of the interval to the next snapshot, in 0..=1.
    pub ratio: f64,
    /// Network time, as engines compute with it.
    pub t: f32,
}

/// The rows between which a row of a batch moves: indices into their snapshots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trajectory {
    left: usize,
    from: usize,
    to: usize,
    /// Rows of the snapshots before and after these two; equal to those of the two if there are
    /// none.
    before: usize,
    after: usize,
    /// Counter of the start noise.
    noise: RowKey,
    /// Mass at the two ends, relative to the probability of drawing the pair.
    mass: [f64; 2],
    /// How mass and place change along a geodesic of Wasserstein–Fisher–Rao; `None` if both do so
    /// uniformly.
    turn: Option<Turn>,
}

impl Trajectory {
    /// The end at which mass vanishes or appears without moving.
    fn in_place(&self) -> Option<End> {
        let [start, end] = self.mass;
        match self.turn {
            Some(_) if end == 0.0 => Some(End::Start),
            Some(_) if start == 0.0 => Some(End::End),
            _ => None,
        }
    }
}

impl DensityPath {
    /// Rows of one problem of optimal transport, at most, of [`DensityPath::paired`].
    pub const PAIRING_ROWS: usize = 2048;

    /// The path of `interpolant` through `snapshots`, which are in network coordinates (see
    /// [`Snapshots::standardize`]), with independent pairs and the same mass at all times.
    #[must_use]
    pub fn new(interpolant: Interpolant, snapshots: impl Into<Arc<Snapshots>>) -> Self {
        DensityPath {
            snapshots: snapshots.into(),
            interpolant,
            couplings: None,
            masses: None,
            spline: Spline::default(),
        }
    }

    /// [`DensityPath::new`] along [`Interpolant::Linear`].
    #[must_use]
    pub fn linear(snapshots: impl Into<Arc<Snapshots>>) -> Self {
        DensityPath::new(Interpolant::Linear, snapshots)
    }

    /// [`DensityPath::new`] along [`Interpolant::Spline`] with the slopes of [`Spline::default`].
    /// Three snapshots or more must be [`paired`](DensityPath::paired), since a spline follows
    /// chains of pairs.
    #[must_use]
    pub fn spline(snapshots: impl Into<Arc<Snapshots>>) -> Self {
        DensityPath::new(Interpolant::Spline, snapshots)
    }

    /// [`DensityPath::new`] along [`Interpolant::Nearest`].
    #[must_use]
    pub fn nearest(snapshots: impl Into<Arc<Snapshots>>) -> Self {
        DensityPath::new(Interpolant::Nearest, snapshots)
    }

    /// [`DensityPath::new`] along [`Interpolant::Learned`].
    #[must_use]
    pub fn learned(snapshots: impl Into<Arc<Snapshots>>) -> Self {
        DensityPath::new(Interpolant::Learned, snapshots)
    }

    /// The same path with samples of neighbouring snapshots paired by exact optimal transport of
    /// squared distances, in problems of [`DensityPath::PAIRING_ROWS`] rows, divided by `seed`.
    ///
    /// # Errors
    /// As [`optimal_couplings`]; [`Error::Input`] for a path that has no pairs.
    pub fn paired(self, seed: u64, stage: &Stage) -> Result<Self> {
        if !self.interpolant.has_pairs() {
            let problem = format!("is {:?}, which has no pairs", self.interpolant);
            return Err(Error::input("density path", "interpolant", problem, "pair a linear, spline or learned path"));
        }
        self.snapshots.validate()?;
        let couplings = optimal_couplings(&self.snapshots, Self::PAIRING_ROWS, seed, stage)?;
        Ok(DensityPath { couplings: Some(Arc::new(couplings)), ..self })
    }

    /// Checks sizes and values, for samples of `dim` dimensions.
    ///
    /// # Errors
    /// [`Error::Shape`] names a buffer, [`Error::Input`] a setting.
    pub fn validate(&self, dim: usize) -> Result<()> {
        self.validate_within(dim)?;
        if let (false, &[start, .., end]) = (self.interpolant.is_generative(), &self.snapshots.times[..])
            && (start, end) != (0.0, 1.0)
        {
            let fix = "give network times, 0 to 1, as Snapshots::standardize makes them";
            return Err(Error::input("training", "snapshots", format!("have times from {start} to {end}"), fix));
        }
        Ok(())
    }

    /// [`DensityPath::validate`] for a path whose times may be a part of 0..=1.
    pub(crate) fn validate_within(&self, dim: usize) -> Result<()> {
        let snapshots = &self.snapshots;
        check_len("samples (dimension)", dim, snapshots.dim)?;
        snapshots.validate()?;
        let fail = |field: &str, problem: String, fix: &str| Err(Error::input("training", field, problem, fix));
        let n_times = snapshots.times.len();
        if self.interpolant.is_generative() && n_times != 1 {
            return fail("snapshots", format!("has {n_times} times"), "give one: the path starts from noise");
        }
        if !self.interpolant.is_generative() && n_times < 2 {
            return fail("snapshots", format!("has {n_times} times"), "give at least 2");
        }
        if let (false, &[start, .., end]) = (self.interpolant.is_generative(), &snapshots.times[..])
            && !(start >= 0.0 && end <= 1.0)
        {
            let fix = "give network times, 0 to 1, as Snapshots::standardize makes them";
            return fail("snapshots", format!("have times from {start} to {end}"), fix);
        }
        if let Some(couplings) = &self.couplings {
            check_len("couplings", n_times - 1, couplings.len())?;
        }
        if let Some(masses) = &self.masses {
            check_len("masses", n_times, masses.len())?;
            if let Some(mass) = masses.iter().find(|mass| !(mass.is_finite() && **mass > 0.0)) {
                return fail("masses", format!("contains {mass}"), "use positive numbers");
            }
        }
        if self.interpolant == Interpolant::Spline && self.couplings.is_none() && n_times > 2 {
            return fail("path", "is spline without a coupling to follow".into(), "pair by optimal transport");
        }
        if !Spline::LIMITS.contains(&self.spline.limit) {
            return fail("path.spline.limit", format!("is {}", self.spline.limit), "use a number from 1 to 1e6");
        }
        Ok(())
    }

    /// Number of intervals between snapshots.
    #[must_use]
    pub fn n_intervals(&self) -> usize {
        self.times().len() - 1
    }

    /// The times of the snapshots; for a generative path also the start, 0.
    pub(crate) fn times(&self) -> &[f64] {
        if self.interpolant.is_generative() { &[0.0, 1.0] } else { &self.snapshots.times }
    }

    /// The moment that `rule` visits for a time `t` drawn in 0..=1.
    #[must_use]
    pub fn moment(&self, rule: TimeRule, t: f64) -> Moment {
        let times = self.times();
        let left = times.partition_point(|&time| time <= t).clamp(1, times.len() - 1) - 1;
        let drawn = (t - times[left]) / (times[left + 1] - times[left]);
        let ratio = rule.node(drawn);
        // A rule without nodes leaves the time unchanged to the last bit.
        if ratio == drawn { Moment { left, ratio, t: t as f32 } } else { self.at(left, ratio) }
    }

    /// The moment at fraction `ratio` of the interval after snapshot `left`.
    #[must_use]
    pub fn at(&self, left: usize, ratio: f64) -> Moment {
        let times = self.times();
        Moment { left, ratio, t: (times[left] + ratio * (times[left + 1] - times[left])) as f32 }
    }

    /// First and last time: 0 and 1, unless the path is that of a [`Group`] with fewer times.
    #[must_use]
    pub fn span(&self) -> [f64; 2] {
        let times = self.times();
        [times[0], times[times.len() - 1]]
    }

    /// Length of the interval after snapshot `left`, network time.
    #[must_use]
    pub fn length(&self, left: usize) -> f64 {
        self.times()[left + 1] - self.times()[left]
    }

    /// Length of the interval after snapshot `left` in the knots of a spline; positive.
    pub(crate) fn width(&self, left: usize) -> f64 {
        match self.spline.knots {
            Knots::Clock => self.length(left),
            Knots::Rank => 1.0,
            Knots::Distance => {
                let distance = self.couplings.as_ref().map_or(1.0, |couplings| couplings[left].distance());
                distance.max(f64::MIN_POSITIVE)
            }
        }
    }

    /// Width of the interval after snapshot `left` over that of each neighbor; 0 without one.
    fn widths(&self, left: usize) -> [f32; 2] {
        let beyond = [left.checked_sub(1), Some(left + 1).filter(|&after| after < self.n_intervals())];
        beyond.map(|beyond| beyond.map_or(0.0, |beyond| widths(self.width(left), self.width(beyond))))
    }

    /// Mass of snapshot `k` relative to the first.
    #[must_use]
    pub fn snapshot_mass(&self, k: usize) -> f64 {
        self.masses.as_ref().map_or(1.0, |masses| masses[k])
    }

    /// The trajectory through the interval after snapshot `left` that `words` select;
    /// `(seed, step, row)` is the counter of its start noise.
    ///
    /// Words: 0 is free (it draws the time), 1 selects the left row or the pair, 2 the right row or
    /// the row before the pair, 3 the row after the pair.
    #[must_use]
    pub fn trajectory(&self, left: usize, words: [u32; 4], noise: RowKey) -> Trajectory {
        let masses = [self.snapshot_mass(left), self.snapshot_mass((left + 1).min(self.snapshots.times.len() - 1))];
        let [_, first, second, third] = words;
        if self.interpolant.is_generative() {
            let to = self.snapshots.draw(0, first);
            return Trajectory { left, from: to, to, before: to, after: to, noise, mass: [1.0; 2], turn: None };
        }
        let Some(couplings) = &self.couplings else {
            let choose = |word, k| self.snapshots.draw(k, word);
            let from = choose(first, left);
            // Frames with the same number of rows may follow the same particles, so one word
            // selects one particle in all of them.
            let to = choose(if self.interpolant == Interpolant::Nearest { first } else { second }, left + 1);
            return Trajectory { left, from, to, before: from, after: to, noise, mass: masses, turn: None };
        };
        let (from, to, mass, turn) = couplings[left].turning_pair(first);
        let (mut before, mut after) = (from, to);
        if self.interpolant == Interpolant::Spline {
            if left > 0 {
                before = couplings[left - 1].predecessor(from, second);
            }
            if left + 1 < self.n_intervals() {
                after = couplings[left + 1].successor(to, third);
            }
        }
        Trajectory { left, from, to, before, after, noise, mass: [masses[0] * mass[0], masses[1] * mass[1]], turn }
    }

    /// Mass of the trajectory at `moment`, and its slope in network time.
    #[must_use]
    pub fn mass(&self, trajectory: &Trajectory, moment: &Moment) -> (f64, f64) {
        let [start, end] = trajectory.mass;
        if let Some(turn) = trajectory.turn {
            let (mass, slope) = turn.mass(trajectory.mass, moment.ratio);
            return (mass, slope / self.length(moment.left));
        }
        let rise = end - start;
        (start + moment.ratio * rise, if rise == 0.0 { 0.0 } else { rise / self.length(moment.left) })
    }

    /// Calls `visit(i, xᵢ, uᵢ)` for each coordinate of the trajectory at `moment`; u is 0 if it is
    /// unknown.
    #[inline(always)]
    pub fn point(&self, trajectory: &Trajectory, moment: &Moment, mut visit: impl FnMut(usize, f32, f32)) {
        let Trajectory { left, from, to, before, after, noise: RowKey { seed, step, row }, .. } = *trajectory;
        if let Some(coefficients) = self.interpolant.coefficients() {
            // Slopes may be infinite exactly at the ends.
            let c = coefficients(moment.ratio.clamp(1e-6, 1.0 - 1e-6));
            let data = self.row(0, to);
            let normals = RowWords::new(seed, Purpose::StartNoise, step, data.len()).of(row).flat_map(rng::normals);
            for (i, (&data, noise)) in data.iter().zip(normals).enumerate() {
                let x = c.noise as f32 * noise + c.data as f32 * data;
                visit(i, x, c.noise_slope as f32 * noise + c.data_slope as f32 * data);
            }
            return;
        }
        if let Some(end) = trajectory.in_place() {
            let row = if end == End::Start { self.row(left, from) } else { self.row(left + 1, to) };
            row.iter().enumerate().for_each(|(i, &x)| visit(i, x, 0.0));
            return;
        }
        match self.interpolant {
            Interpolant::Spline => {
                let (from_row, to_row) = (self.row(left, from), self.row(left + 1, to));
                let before_row = if left > 0 { self.row(left - 1, before) } else { from_row };
                let after_row = if left + 1 < self.n_intervals() { self.row(left + 2, after) } else { to_row };
                let rows = [before_row, from_row, to_row, after_row];
                let cubic = Cubic::new(rows, self.widths(left), self.spline.limit as f32);
                let (ratio, per_time) = (moment.ratio as f32, (1.0 / self.length(left)) as f32);
                for i in 0..from_row.len() {
                    let (x, u) = cubic.at(i, ratio, per_time);
                    visit(i, x, u);
                }
            }
            Interpolant::Nearest => {
                let row = if moment.ratio >= 0.5 { self.row(left + 1, to) } else { self.row(left, from) };
                row.iter().enumerate().for_each(|(i, &x)| visit(i, x, 0.0));
            }
            _ => {
                let (ratio, speed) =
                    trajectory.turn.map_or((moment.ratio, 1.0), |turn| turn.progress(trajectory.mass, moment.ratio));
                let (ratio, per_time) = (ratio as f32, (speed / self.length(left)) as f32);
                for (i, (&from, &to)) in self.row(left, from).iter().zip(self.row(left + 1, to)).enumerate() {
                    visit(i, from + ratio * (to - from), per_time * (to - from));
                }
            }
        }
    }

    /// Calls `visit(i, xᵢ)` for a row at the first or last time. `word` selects the row;
    /// `noise` is the counter at the start of a generative path.
    #[inline(always)]
    pub fn end_point(&self, end: End, word: u32, noise: RowKey, mut visit: impl FnMut(usize, f32)) {
        if self.interpolant.is_generative() && end == End::Start {
            let RowKey { seed, step, row } = noise;
            let normals = RowWords::new(seed, Purpose::StartNoise, step, self.snapshots.dim).of(row);
            normals.flat_map(rng::normals).take(self.snapshots.dim).enumerate().for_each(|(i, x)| visit(i, x));
        } else {
            let snapshot = match end {
                End::Start => 0,
                End::End => self.snapshots.times.len() - 1,
            };
            let row = self.row(snapshot, self.snapshots.draw(snapshot, word));
            row.iter().enumerate().for_each(|(i, &x)| visit(i, x));
        }
    }

    /// Row `index` of `snapshot`.
    #[inline(always)]
    fn row(&self, snapshot: usize, index: usize) -> &[f32] {
        &self.snapshots.samples[(self.snapshots.offsets[snapshot] + index) * self.snapshots.dim..][..self.snapshots.dim]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Stage;

    fn path(interpolant: Interpolant, couplings: bool) -> DensityPath {
        let samples = crate::data::draw_gaussian(90, 2, &mut rng::Stream::of_normals(3, 2));
        let times = vec![0.0, 0.25, 0.6, 1.0];
        let snapshots = if interpolant.is_generative() {
            Snapshots { dim: 2, times: vec![1.0], offsets: vec![0, 90], samples, mass: Default::default() }
        } else {
            Snapshots { dim: 2, times, offsets: vec![0, 20, 45, 70, 90], samples, mass: Default::default() }
        };
        let couplings =
            couplings.then(|| Arc::new(optimal_couplings(&snapshots, 100, 1, &Stage::default()).expect("couplings")));
        DensityPath { couplings, ..DensityPath::new(interpolant, snapshots) }
    }

    fn at(path: &DensityPath, trajectory: &Trajectory, left: usize, ratio: f64) -> Vec<(f32, f32)> {
        let mut point = Vec::new();
        path.point(trajectory, &path.at(left, ratio), |_, x, u| point.push((x, u)));
        point
    }

    /// For every path with a velocity: u is the difference quotient of x, and x starts and ends at
    /// its rows.
    #[test]
    fn velocities_are_slopes() {
        for interpolant in [
            Interpolant::Linear,
            Interpolant::Spline,
            Interpolant::GenerativeLinear,
            Interpolant::GenerativeVp,
            Interpolant::GenerativeSqrt,
        ] {
            let path = path(interpolant, !interpolant.is_generative());
            for left in 0..path.n_intervals() {
                let trajectory =
                    path.trajectory(left, [0, 1 << 30, 77 << 20, 3 << 28], RowKey { seed: 5, step: 6, row: 7 });
                let h = 1e-2;
                let (below, here, above) = (
                    at(&path, &trajectory, left, 0.4 - h),
                    at(&path, &trajectory, left, 0.4),
                    at(&path, &trajectory, left, 0.4 + h),
                );
                for i in 0..2 {
                    let quotient = f64::from(above[i].0 - below[i].0) / (2.0 * h * path.length(left));
                    let u = f64::from(here[i].1);
                    assert!((quotient - u).abs() < 3e-3 * (1.0 + u.abs()), "{interpolant:?}: {quotient}, not {u}");
                }
                let last = at(&path, &trajectory, left, 1.0);
                let row = if interpolant.is_generative() { 0 } else { left + 1 };
                for (i, &x) in path.row(row, trajectory.to).iter().enumerate() {
                    assert!((last[i].0 - x).abs() < 2e-3, "{interpolant:?} ends at {}, not {x}", last[i].0);
                }
            }
        }
    }

    /// Pairs that grow: velocity and growth are slopes of place and mass, on every curve, and what
    /// has no partner stays where it is.
    #[test]
    fn growing_pairs_have_the_slopes_that_they_say() {
        for interpolant in [Interpolant::Linear, Interpolant::Spline] {
            let mut path = path(interpolant, true);
            let masses = vec![1.0, 1.4, 0.8, 2.0];
            let couplings =
                wfr_couplings(&path.snapshots, &masses, 30.0, 100, 1, &Stage::default()).expect("couplings");
            (path.couplings, path.masses) = (Some(Arc::new(couplings)), Some(masses));
            let mut still = 0;
            for (left, word) in (0..3).flat_map(|left| (0..64u32).map(move |i| (left, i << 26))) {
                let trajectory = path.trajectory(left, [0, word, word, word], RowKey::default());
                let h = 1e-2;
                let [below, here, above] = [0.4 - h, 0.4, 0.4 + h].map(|ratio| path.at(left, ratio));
                let mass = |moment: &Moment| path.mass(&trajectory, moment);
                let slope = (mass(&above).0 - mass(&below).0) / (2.0 * h * path.length(left));
                assert!((slope - mass(&here).1).abs() < 1e-9 * (1.0 + slope.abs()), "{slope}");
                let [x0, x, x1] = [0.4 - h, 0.4, 0.4 + h].map(|ratio| at(&path, &trajectory, left, ratio));
                for i in 0..2 {
                    let quotient = f64::from(x1[i].0 - x0[i].0) / (2.0 * h * path.length(left));
                    let u = f64::from(x[i].1);
                    assert!((quotient - u).abs() < 5e-3 * (1.0 + u.abs()), "{interpolant:?}: {quotient}, not {u}");
                }
                let ends = [0.0, 1.0].map(|ratio| path.mass(&trajectory, &path.at(left, ratio)).0);
                assert!(ends == trajectory.mass, "{ends:?}");
                still += usize::from(trajectory.in_place().is_some());
                assert!(trajectory.in_place().is_none() || x0 == x1);
            }
            assert!((1..60).contains(&still), "{still} of 192 trajectories stay");
        }
    }

    /// Rows that are drawn without pairs, and those of the boundary, have the frequencies of their
    /// weights, those of weight 0 none, whatever the word.
    #[test]
    fn rows_are_drawn_by_their_weights() {
        let mut path = path(Interpolant::Linear, false);
        let weight = |row: usize| [0.0, 1.0, 5.0][row % 3];
        let snapshots = Arc::unwrap_or_clone(path.snapshots.clone());
        path.snapshots = Arc::new(snapshots.weighted((0..90).map(weight).collect()).expect("weights"));
        const WORDS: u32 = 1 << 14;
        let mut counts = [[0.0; 20], [0.0; 20], [0.0; 20]];
        for word in (0..WORDS).map(|i| i << 18 | 1 << 17).chain([0, u32::MAX]) {
            let trajectory = path.trajectory(0, [0, word, word, 0], RowKey::default());
            counts[0][trajectory.from] += 1.0 / f64::from(WORDS);
            // Rows 20 and on belong to the next snapshot.
            assert!(weight(20 + trajectory.to) > 0.0);
            let mut place = Vec::new();
            path.end_point(End::Start, word, RowKey::default(), |_, x| place.push(x));
            let row = (0..20).find(|&row| path.row(0, row) == place).expect("a row");
            counts[1][row] += 1.0 / f64::from(WORDS);
            let one = DensityPath { interpolant: Interpolant::GenerativeLinear, ..path.clone() };
            counts[2][one.trajectory(0, [0, word, 0, 0], RowKey::default()).to] += 1.0 / f64::from(WORDS);
        }
        let total: f64 = (0..20).map(weight).sum();
        for (count, row) in counts.iter().flat_map(|counts| counts.iter().zip(0..)) {
            assert!((count - weight(row) / total).abs() < 3e-4, "row {row}: {count}");
            assert!(*count > 0.0 || weight(row) == 0.0);
        }
    }

    /// Chained pairs: the row after a pair is a successor of the pair's second row.
    #[test]
    fn splines_look_at_the_rows_that_couplings_chain() {
        let path = path(Interpolant::Spline, true);
        let couplings = path.couplings.as_ref().expect("couplings");
        for word in (0..64).map(|i| i << 26) {
            let trajectory = path.trajectory(1, [0, word, word ^ 0x5555_0000, word], RowKey::default());
            assert!(couplings[0].has(trajectory.before, trajectory.from));
            assert!(couplings[1].has(trajectory.from, trajectory.to));
            assert!(couplings[2].has(trajectory.to, trajectory.after));
        }
    }

    #[test]
    fn moments_of_a_quadrature_are_its_nodes() {
        let path = path(Interpolant::Linear, false);
        let moment = path.moment(TimeRule::Trapezoid, 0.3);
        assert_eq!((moment.left, moment.ratio, moment.t), (1, 0.0, 0.25));
        let moment = path.moment(TimeRule::Simpson, 0.99);
        assert_eq!((moment.left, moment.ratio, moment.t), (2, 1.0, 1.0));
        let moment = path.moment(TimeRule::Uniform, 0.425);
        assert_eq!((moment.left, moment.t), (1, 0.425));
        assert!((moment.ratio - 0.5).abs() < 1e-12);
    }
}
