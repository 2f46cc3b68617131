//! Cubics through chained rows: which slopes they have at the snapshots, and how long these may be.
//!
//! At a snapshot two chords meet: c₋ of the interval before it and c of the one after it, of widths
//! w₋ and w. The slope per unit of width is that of the parabola through the three rows (Catmull &
//! Rom's for uneven knots), shortened to a limit:
//!
//! ```text
//! m = (w c₋/w₋ + w₋ c/w) / (w₋ + w),     ‖m‖ ≤ limit · min(‖c₋‖/w₋, ‖c‖/w)
//! ```
//!
//! Its product with the width of an interval is the tangent dx/dr there, r being the fraction of
//! the interval's time. With ρ = w / w₋, after the snapshot, that is
//!
//! ```text
//! T = c / (1 + ρ) + ρ² c₋ / (1 + ρ),     ‖T‖ ≤ limit · min(ρ ‖c₋‖, ‖c‖)
//! ```
//!
//! and before the snapshot the same with the two chords and widths exchanged.

use std::ops::RangeInclusive;

/// How [`Interpolant::Spline`](super::Interpolant::Spline) forms its slopes at the snapshots.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spline {
    /// A slope is at most so many times as long as the shorter of its two neighboring chords, all
    /// of them per unit of the knots. It is the length of the vector that counts, so the path turns
    /// with the data. In [`Spline::LIMITS`], whose end leaves slopes as they are.
    pub limit: f64,
    /// What the lengths of intervals are measured in where slopes are formed.
    pub knots: Knots,
}

/// The lengths of intervals from which a spline forms its slopes. Between two snapshots x is a
/// cubic in time whatever they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Knots {
    /// Time: trajectories have no kink and no jump in velocity. For motion that is resolved in
    /// time, as that of particles in a flow.
    Clock,
    /// Every interval counts as much as any other.
    Rank,
    /// The mean distance that pairs move. Trajectories have no kink, but where the population
    /// changes its speed, so do they.
    #[default]
    Distance,
}

impl Spline {
    /// What [`Spline::limit`] may be. Below 1, straight and even motion would slow down at every
    /// snapshot.
    pub const LIMITS: RangeInclusive<f64> = 1.0..=1e6;
    /// Chosen by measurements, which `docs/paths.md` has.
    pub const LIMIT: f64 = 2.0;
}

impl Default for Spline {
    fn default() -> Self {
        Spline { limit: Spline::LIMIT, knots: Knots::default() }
    }
}

/// Lanes of a warp: a GPU sums squares over dimensions with one lane for each, and so does the
/// host, so that both have the same bits.
const LANES: usize = 32;

/// Width of an interval over that of the one beyond its end, both positive. It is kept within a
/// thousand, so that an interval in which almost nothing moves leaves slopes finite. 0 stands for
/// an end with nothing beyond.
pub(super) fn widths(own: f64, beyond: f64) -> f32 {
    (own / beyond).clamp(1e-3, 1e3) as f32
}

/// The shares of two chords in the tangent at one end of an interval.
#[derive(Clone, Copy, Debug)]
struct Tangent {
    /// Of the interval's own chord.
    own: f32,
    /// Of the chord beyond the end.
    beyond: f32,
}

impl Tangent {
    /// With nothing beyond the end it is the chord, because nothing is known of the curvature
    /// there.
    fn new(widths: f32) -> Self {
        let own = 1.0 / (1.0 + widths);
        Tangent { own, beyond: widths * widths * own }
    }

    #[inline(always)]
    fn of(self, chord: f32, beyond: f32) -> f32 {
        self.own * chord + self.beyond * beyond
    }

    /// Shortened to `limit`, from squares of norms: of the tangent itself and of the chords.
    fn within(self, widths: f32, limit: f32, [tangent, chord, beyond]: [f32; 3]) -> Self {
        let bound = limit * limit * (widths * widths * beyond).min(chord);
        if widths == 0.0 || tangent <= bound {
            return self;
        }
        let scale = (bound / tangent).sqrt();
        Tangent { own: scale * self.own, beyond: scale * self.beyond }
    }
}

/// The cubic from the second to the third of four rows.
pub(super) struct Cubic<'a> {
    rows: [&'a [f32]; 4],
    /// At the start and at the end.
    tangents: [Tangent; 2],
}

impl<'a> Cubic<'a> {
    /// Through `rows` of equal length, with [`widths`] at its two ends. Where these are 0 the row
    /// beyond is arbitrary.
    pub(super) fn new(rows: [&'a [f32]; 4], widths: [f32; 2], limit: f32) -> Self {
        let mut cubic = Cubic { rows, tangents: widths.map(Tangent::new) };
        // Squares of the chord, the chords beyond both ends, and the tangents.
        let mut squares = [[0.0f32; LANES]; 5];
        let [start, end] = cubic.tangents;
        for i in 0..rows[0].len() {
            let (before, chord, after) = cubic.chords(i);
            let values = [chord, before, after, start.of(chord, before), end.of(chord, after)];
            for (sums, value) in squares.iter_mut().zip(values) {
                sums[i % LANES] += value * value;
            }
        }
        let [chord, before, after, at_start, at_end] = squares.map(sum);
        cubic.tangents = [
            start.within(widths[0], limit, [at_start, chord, before]),
            end.within(widths[1], limit, [at_end, chord, after]),
        ];
        cubic
    }

    #[inline(always)]
    fn chords(&self, i: usize) -> (f32, f32, f32) {
        let [before, from, to, after] = self.rows;
        (from[i] - before[i], to[i] - from[i], after[i] - to[i])
    }

    /// Coordinate `i` at fraction `ratio`, and its slope in time if the interval is 1 / `per_time`
    /// long.
    #[inline(always)]
    pub(super) fn at(&self, i: usize, ratio: f32, per_time: f32) -> (f32, f32) {
        let (before, chord, after) = self.chords(i);
        // x = xₗ + chord·r + r(1 − r)·((start − chord)(1 − r) − (end − chord) r).
        let (a, b) = (self.tangents[0].of(chord, before) - chord, self.tangents[1].of(chord, after) - chord);
        let (r, s) = (ratio, 1.0 - ratio);
        let x = self.rows[1][i] + (chord * r + r * s * (a * s - b * r));
        let slope = chord + a * s * (1.0 - 3.0 * r) - b * r * (2.0 - 3.0 * r);
        (x, per_time * slope)
    }
}

/// Σ over the lanes, as a warp adds them up.
fn sum(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Coupling, DensityPath, RowKey, Trajectory, optimal_couplings};
    use super::*;
    use crate::data::{Snapshots, draw_gaussian};
    use crate::rng::Stream;
    use crate::stage::Stage;

    const KNOTS: [Knots; 3] = [Knots::Clock, Knots::Rank, Knots::Distance];
    const TIMES: [f64; 4] = [0.0, 0.15, 0.4, 1.0];
    /// Rows of a snapshot: optimal pairs are a permutation of them.
    const ROWS: usize = 20;
    const UNLIMITED: f64 = 1e6;

    /// Four snapshots; the population moves and grows, at a different speed in every interval.
    fn snapshots(dim: usize) -> Snapshots {
        let mut samples = draw_gaussian(4 * ROWS, dim, &mut Stream::of_normals(3, dim));
        for (index, x) in samples.iter_mut().enumerate() {
            let k = index / (ROWS * dim);
            *x = *x * [0.5, 0.8, 1.0, 0.7][k] + [0.0, 0.6, 0.8, 1.4][k] * ((index % dim) as f32 - 0.7);
        }
        Snapshots {
            dim,
            times: TIMES.to_vec(),
            offsets: (0..5).map(|k| k * ROWS).collect(),
            samples,
            mass: Default::default(),
        }
    }

    fn path(snapshots: Snapshots, spline: Spline) -> DensityPath {
        let couplings = optimal_couplings(&snapshots, 100, 1, &Stage::default()).unwrap();
        DensityPath { couplings: Some(Arc::new(couplings)), spline, ..DensityPath::spline(snapshots) }
    }

    /// Snapshots of one row each.
    fn chain(times: &[f64], rows: &[&[f32]], spline: Spline) -> DensityPath {
        let snapshots = Snapshots {
            dim: rows[0].len(),
            times: times.to_vec(),
            offsets: (0..=rows.len()).collect(),
            samples: rows.concat(),
            mass: Default::default(),
        };
        path(snapshots, spline)
    }

    fn trajectory(path: &DensityPath, left: usize, word: u32) -> Trajectory {
        path.trajectory(left, [0, word, word, word], RowKey::default())
    }

    fn at(path: &DensityPath, trajectory: &Trajectory, ratio: f64) -> [Vec<f64>; 2] {
        let [mut x, mut u] = [Vec::new(), Vec::new()];
        path.point(trajectory, &path.at(trajectory.left, ratio), |_, x_i, u_i| {
            x.push(f64::from(x_i));
            u.push(f64::from(u_i));
        });
        [x, u]
    }

    fn norm(x: &[f64]) -> f64 {
        x.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    /// Row `index` of snapshot `k`.
    fn row(path: &DensityPath, k: usize, index: usize) -> Vec<f64> {
        path.row(k, index).iter().map(|&x| f64::from(x)).collect()
    }

    fn difference(x: &[f64], y: &[f64]) -> Vec<f64> {
        x.iter().zip(y).map(|(x, y)| x - y).collect()
    }

    /// Lengths of the intervals as [`Knots`] defines them.
    fn lengths(path: &DensityPath) -> Vec<f64> {
        let couplings: &[Coupling] = path.couplings.as_deref().unwrap();
        let distance = |k: usize| {
            let moved = |i| norm(&difference(&row(path, k + 1, couplings[k].successor(i, 0)), &row(path, k, i)));
            (0..ROWS).map(moved).sum::<f64>() / ROWS as f64
        };
        let length = |k: usize| match path.spline.knots {
            Knots::Clock => TIMES[k + 1] - TIMES[k],
            Knots::Rank => 1.0,
            Knots::Distance => distance(k),
        };
        (0..3).map(length).collect()
    }

    /// The slopes per unit of the knots at both ends of a trajectory, as in the head of this file.
    fn slopes(path: &DensityPath, trajectory: &Trajectory) -> [Vec<f64>; 2] {
        let Trajectory { left, from, to, before, after, .. } = *trajectory;
        let w = lengths(path);
        let chord = |k: usize, i: usize, j: usize| -> Vec<f64> {
            difference(&row(path, k + 1, j), &row(path, k, i)).iter().map(|x| x / w[k]).collect()
        };
        let own = chord(left, from, to);
        let slope = |left: usize, first: &[f64], second: &[f64]| -> Vec<f64> {
            let (w0, w1) = (w[left], w[left + 1]);
            let m: Vec<f64> = first.iter().zip(second).map(|(a, b)| (w1 * a + w0 * b) / (w0 + w1)).collect();
            let most = path.spline.limit * norm(first).min(norm(second));
            m.iter().map(|m_i| m_i * (most / norm(&m)).min(1.0)).collect()
        };
        [
            if left > 0 { slope(left - 1, &chord(left - 1, before, from), &own) } else { own.clone() },
            if left < 2 { slope(left, &own, &chord(left + 1, to, after)) } else { own.clone() },
        ]
    }

    /// Hermite's cubic with these slopes.
    fn position(path: &DensityPath, trajectory: &Trajectory, r: f64) -> Vec<f64> {
        let left = trajectory.left;
        let (x0, x1) = (row(path, left, trajectory.from), row(path, left + 1, trajectory.to));
        let ([m0, m1], w) = (slopes(path, trajectory), lengths(path)[left]);
        let (r2, r3) = (r * r, r * r * r);
        let weights = [2.0 * r3 - 3.0 * r2 + 1.0, r3 - 2.0 * r2 + r, 3.0 * r2 - 2.0 * r3, r3 - r2];
        let of = |i: usize| weights[0] * x0[i] + weights[1] * w * m0[i] + weights[2] * x1[i] + weights[3] * w * m1[i];
        (0..x0.len()).map(of).collect()
    }

    /// Positions are those of the definition and velocities their derivatives in time, for every
    /// kind of knots, with limits that bind and without, in dimensions with fewer and more numbers
    /// than there are lanes.
    #[test]
    fn points_and_velocities_are_those_of_the_definition() {
        for dim in [2, 67] {
            for (knots, limit) in KNOTS.into_iter().flat_map(|knots| [1.0, 2.0, UNLIMITED].map(|limit| (knots, limit)))
            {
                let path = path(snapshots(dim), Spline { limit, knots });
                for (left, word) in (0..3).flat_map(|left| (0..4).map(move |i| (left, i << 30 | 1 << 29))) {
                    let trajectory = trajectory(&path, left, word);
                    for r in [0.0, 0.2, 0.5, 0.9, 1.0] {
                        let [x, u] = at(&path, &trajectory, r);
                        let h = 1e-4;
                        let (below, above) = (position(&path, &trajectory, r - h), position(&path, &trajectory, r + h));
                        let derivative: Vec<f64> = difference(&above, &below)
                            .iter()
                            .map(|rise| rise / (2.0 * h * (TIMES[left + 1] - TIMES[left])))
                            .collect();
                        let want = position(&path, &trajectory, r);
                        let what = format!("{dim} {knots:?} {limit} {left} at {r}");
                        let off = norm(&difference(&x, &want));
                        assert!(off < 1e-5 * (1.0 + norm(&want)), "{what}: x is off by {off}");
                        let off = norm(&difference(&u, &derivative));
                        assert!(off < 1e-4 * (1.0 + norm(&derivative)), "{what}: u is off by {off}");
                    }
                }
            }
        }
    }

    /// The limit shortens some slopes, to its own length in every direction, and leaves others.
    #[test]
    fn slopes_keep_to_the_limit() {
        for knots in KNOTS {
            let [limited, free] = [1.0, UNLIMITED].map(|limit| path(snapshots(3), Spline { limit, knots }));
            let mut shortened = 0;
            for word in (0..16).map(|i| i << 28 | 1 << 27) {
                let trajectory = trajectory(&limited, 1, word);
                let w = lengths(&limited);
                let speed = |k: usize, i, j| norm(&difference(&row(&limited, k + 1, j), &row(&limited, k, i))) / w[k];
                let Trajectory { from, to, before, .. } = trajectory;
                let most = speed(0, before, from).min(speed(1, from, to));
                let per_knot = (TIMES[2] - TIMES[1]) / w[1];
                let [m, unlimited] = [&limited, &free].map(|path| norm(&at(path, &trajectory, 0.0)[1]) * per_knot);
                let want = unlimited.min(most);
                assert!((m - want).abs() < 1e-4 * want, "{knots:?}: {m}, not {want}");
                shortened += usize::from(unlimited > 1.001 * most);
            }
            assert!((1..16).contains(&shortened), "{knots:?}: {shortened} of 16 slopes are longer than the limit");
        }
    }

    /// Turned snapshots have turned trajectories: the limit favors no axis.
    #[test]
    fn trajectories_turn_with_the_snapshots() {
        let turned = |x: &[f64]| -> Vec<f64> {
            let ((s, c), (s2, c2)) = (0.6f64.sin_cos(), 1.1f64.sin_cos());
            let (y, z) = (c * x[0] - s * x[1], s * x[0] + c * x[1]);
            vec![y, c2 * z - s2 * x[2], s2 * z + c2 * x[2]]
        };
        let plain = snapshots(3);
        let samples = plain.samples.chunks_exact(3).flat_map(|x| {
            let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            turned(&x).into_iter().map(|x| x as f32)
        });
        let rotated = Snapshots { samples: samples.collect(), ..plain.clone() };
        for knots in KNOTS {
            let [first, second] =
                [&plain, &rotated].map(|snapshots| path(snapshots.clone(), Spline { limit: 1.0, knots }));
            for word in (0..8).map(|i| i << 29 | 1 << 28) {
                let (one, other) = (trajectory(&first, 1, word), trajectory(&second, 1, word));
                let [x, u] = at(&first, &one, 0.3);
                let [turned_x, turned_u] = at(&second, &other, 0.3);
                assert!(norm(&difference(&turned(&x), &turned_x)) < 1e-5, "{knots:?}");
                assert!(norm(&difference(&turned(&u), &turned_u)) < 1e-4, "{knots:?}");
            }
        }
    }

    /// Quadratic motion is reproduced between inner snapshots by knots of the clock, and joins the
    /// outer intervals, which end straight, without a kink.
    #[test]
    fn splines_of_the_clock_follow_parabolas() {
        let motion = |t: f64| 1.0 + 2.0 * t - 3.0 * t * t;
        let x = TIMES.map(|t| [motion(t) as f32]);
        let rows: Vec<&[f32]> = x.iter().map(|x| &x[..]).collect();
        let path = chain(&TIMES, &rows, Spline { limit: UNLIMITED, knots: Knots::Clock });
        for (left, ratio) in [(0, 1.0), (1, 0.0), (1, 0.3), (1, 0.9), (1, 1.0), (2, 0.0)] {
            let t = TIMES[left] + ratio * (TIMES[left + 1] - TIMES[left]);
            let [x, u] = at(&path, &trajectory(&path, left, 0), ratio);
            assert!((x[0] - motion(t)).abs() < 1e-5 && (u[0] - (2.0 - 6.0 * t)).abs() < 1e-4, "at {t}: {x:?} {u:?}");
        }
        for (left, ratio) in [(0, 0.0), (2, 1.0)] {
            let secant = (motion(TIMES[left + 1]) - motion(TIMES[left])) / (TIMES[left + 1] - TIMES[left]);
            let [_, u] = at(&path, &trajectory(&path, left, 0), ratio);
            assert!((u[0] - secant).abs() < 1e-4, "{u:?}, not {secant}");
        }
    }

    /// Gaps 1 : 1 : 3, and the population comes nearly to rest in the long one. Slopes within three
    /// times the chord keep a cubic between its ends in one dimension (Fritsch & Carlson 1980).
    /// Without a limit the trajectory goes beyond its end by several times what is left to go.
    #[test]
    fn uneven_gaps_do_not_throw_trajectories_beyond_their_ends() {
        let (times, rows): ([f64; 4], [&[f32]; 4]) = ([0.0, 0.2, 0.4, 1.0], [&[0.0], &[10.0], &[20.0], &[20.5]]);
        let farthest = |limit, knots| {
            let path = chain(&times, &rows, Spline { limit, knots });
            let x = |i: i32| at(&path, &trajectory(&path, 2, 0), f64::from(i) / 100.0)[0][0];
            (0..=100).map(x).fold(f64::MIN, f64::max)
        };
        for (limit, knots) in [1.0, Spline::LIMIT, 3.0].into_iter().flat_map(|limit| KNOTS.map(|knots| (limit, knots)))
        {
            assert!(farthest(limit, knots) < 20.5 + 1e-4, "{limit} {knots:?}: {}", farthest(limit, knots));
        }
        assert!(farthest(UNLIMITED, Knots::Clock) > 22.0);
    }

    /// Tangents T of at most L chords c put x = xₗ + cr + r(1 − r)((T₀ − c)(1 − r) − (T₁ − c) r)
    /// within (L + 1) ‖c‖ / 4 of the chord.
    #[test]
    fn trajectories_stay_near_their_chords() {
        let limit = Spline::LIMIT;
        for knots in KNOTS {
            let path = path(snapshots(3), Spline { limit, knots });
            let mut farthest = 0.0f64;
            for word in (0..32).map(|i| i << 27 | 1 << 26) {
                let trajectory = trajectory(&path, 1, word);
                let (x0, x1) = (row(&path, 1, trajectory.from), row(&path, 2, trajectory.to));
                let chord = difference(&x1, &x0);
                for r in [0.1, 0.25, 0.5, 0.75, 0.9] {
                    let line: Vec<f64> = x0.iter().zip(&chord).map(|(x, c)| x + r * c).collect();
                    let off = norm(&difference(&at(&path, &trajectory, r)[0], &line)) / norm(&chord);
                    farthest = farthest.max(off);
                }
            }
            assert!(farthest < (limit + 1.0) / 4.0 && farthest > 0.05, "{knots:?}: {farthest} chords");
        }
    }

    /// Snapshots between which nothing moves leave points finite and at rest.
    #[test]
    fn a_population_at_rest_stays_there() {
        let rows: [&[f32]; 4] = [&[1.0, 2.0], &[1.0, 2.0], &[1.0, 2.0], &[3.0, -1.0]];
        for (knots, limit) in KNOTS.into_iter().flat_map(|knots| [1.0, UNLIMITED].map(|limit| (knots, limit))) {
            let path = chain(&TIMES, &rows, Spline { limit, knots });
            for r in [0.0, 0.4, 1.0] {
                assert_eq!(at(&path, &trajectory(&path, 0, 0), r), [vec![1.0, 2.0], vec![0.0; 2]], "{knots:?}");
                let [x, u] = at(&path, &trajectory(&path, 2, 0), r);
                assert!(x.iter().chain(&u).all(|value| value.is_finite()), "{knots:?}: {x:?} {u:?}");
            }
            let [x, _] = at(&path, &trajectory(&path, 2, 0), 1.0);
            assert!(norm(&difference(&x, &[3.0, -1.0])) < 1e-6, "{knots:?}: {x:?}");
        }
    }
}
