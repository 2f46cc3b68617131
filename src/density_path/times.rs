//! The times of the rows of a batch: rules for drawing times, and quadratures that move them to
//! fixed nodes.

/// Rule for drawing the times of interior rows. Every rule gives unbiased means over time, or the
/// sums of a quadrature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TimeRule {
    /// t = (u + row / n) mod 1 with one uniform u per step: lower variance than independent draws.
    #[default]
    LowDiscrepancy,
    /// Independent uniform times.
    Uniform,
    /// One uniform time in each of n equal stretches.
    Stratified,
    /// Low-discrepancy draws from a [`TimeDensity`], which follows the size of the integrand during
    /// training.
    Importance,
    /// The two ends of each interval between snapshots, ½ each: only times with data.
    Trapezoid,
    /// Simpson's rule in each interval between snapshots: ends ⅙ each and the middle ⅔.
    Simpson,
    /// The three-point Gauss–Legendre rule in each interval between snapshots.
    GaussLegendre,
}

impl TimeRule {
    /// The random word of row `row` of `n`, before any quadrature: uniform over 0..2³². `offset` is
    /// a word of the step, `own` one of the row.
    ///
    /// Integer arithmetic, so that every engine draws the same times.
    #[must_use]
    pub fn word(self, row: usize, n: usize, offset: u32, own: u32) -> u32 {
        let start = |row: usize| ((row as u64) << 32) / n as u64;
        match self {
            TimeRule::Uniform => own,
            TimeRule::Stratified => {
                let width = start(row + 1) - start(row);
                (start(row) + ((u64::from(own) * width) >> 32)) as u32
            }
            // Each node of a quadrature gets as many rows as its weight says, within one row.
            TimeRule::LowDiscrepancy
            | TimeRule::Importance
            | TimeRule::Trapezoid
            | TimeRule::Simpson
            | TimeRule::GaussLegendre => offset.wrapping_add(start(row) as u32),
        }
    }

    /// Maps `ratio`, uniform over an interval between snapshots, to a node of the quadrature. A
    /// node is hit with the probability of its weight.
    #[must_use]
    pub fn node(self, ratio: f64) -> f64 {
        let nodes: &[(f64, f64)] = match self {
            TimeRule::LowDiscrepancy | TimeRule::Uniform | TimeRule::Stratified | TimeRule::Importance => return ratio,
            TimeRule::Trapezoid => &[(0.0, 0.5), (1.0, 0.5)],
            TimeRule::Simpson => &[(0.0, 1.0 / 6.0), (0.5, 2.0 / 3.0), (1.0, 1.0 / 6.0)],
            TimeRule::GaussLegendre => {
                &[(0.112_701_665_379_258_3, 5.0 / 18.0), (0.5, 8.0 / 18.0), (0.887_298_334_620_741_7, 5.0 / 18.0)]
            }
        };
        let mut end = 0.0;
        let stands = nodes.iter().find(|(_, weight)| {
            end += weight;
            ratio < end
        });
        stands.unwrap_or(&nodes[nodes.len() - 1]).0
    }
}

/// Knots of a [`TimeDensity`], equally spaced from 0 to 1.
pub const TIME_KNOTS: usize = 33;

/// Sums over rows for the second moment of the integrand near each knot: Σ h g² and Σ h with hat
/// functions h.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeMoments {
    /// Σ h g².
    pub squares: [f64; TIME_KNOTS],
    /// Σ h.
    pub weights: [f64; TIME_KNOTS],
}

impl Default for TimeMoments {
    fn default() -> Self {
        TimeMoments { squares: [0.0; TIME_KNOTS], weights: [0.0; TIME_KNOTS] }
    }
}

impl TimeMoments {
    /// Adds a row at time `t` with the integrand `value`.
    pub fn add_row(&mut self, t: f64, value: f64) {
        let place = t * (TIME_KNOTS - 1) as f64;
        let knot = (place as usize).min(TIME_KNOTS - 2);
        let ratio = place - knot as f64;
        for (knot, share) in [(knot, 1.0 - ratio), (knot + 1, ratio)] {
            self.squares[knot] += share * value * value;
            self.weights[knot] += share;
        }
    }

    /// Adds the rows of another tile.
    pub fn add(&mut self, other: &TimeMoments) {
        for knot in 0..TIME_KNOTS {
            self.squares[knot] += other.squares[knot];
            self.weights[knot] += other.weights[knot];
        }
    }

    /// Running update: decays the past slightly and adds the rows of a step.
    pub fn follow(&mut self, step: &TimeMoments) {
        for knot in 0..TIME_KNOTS {
            self.squares[knot] = MEMORY * self.squares[knot] + step.squares[knot];
            self.weights[knot] = MEMORY * self.weights[knot] + step.weights[knot];
        }
    }

    /// The sums as one list, squares first, as checkpoints hold them.
    #[must_use]
    pub fn to_vec(&self) -> Vec<f32> {
        self.squares.iter().chain(&self.weights).map(|&sum| sum as f32).collect()
    }

    /// The inverse of [`TimeMoments::to_vec`]; `None` for a list of another length.
    #[must_use]
    pub fn from_slice(list: &[f32]) -> Option<TimeMoments> {
        let mut moments = TimeMoments::default();
        let (squares, weights) = list.split_at_checked(TIME_KNOTS)?;
        (weights.len() == TIME_KNOTS).then_some(())?;
        for knot in 0..TIME_KNOTS {
            moments.squares[knot] = f64::from(squares[knot]);
            moments.weights[knot] = f64::from(weights[knot]);
        }
        Some(moments)
    }
}

/// Decay factor of running moments per step.
pub(crate) const MEMORY: f64 = 0.99;

/// Fraction of the uniform density in every [`TimeDensity`]: no row weighs more than its inverse.
pub(crate) const UNIFORM_SHARE: f64 = 0.3;

/// A piecewise linear density of times in 0..=1: the density of least variance for a mean over
/// time, which is proportional to the root mean square of the integrand, mixed with the uniform
/// density so that no weight is too large.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeDensity {
    density: [f64; TIME_KNOTS],
    cumulative: [f64; TIME_KNOTS],
}

impl TimeDensity {
    /// The density for `moments`; uniform as long as there are none.
    #[must_use]
    pub fn new(moments: &TimeMoments) -> Self {
        const STEP: f64 = 1.0 / (TIME_KNOTS - 1) as f64;
        let mut density = [1.0; TIME_KNOTS];
        let known = (0..TIME_KNOTS).all(|knot| moments.weights[knot] > 0.0 && moments.squares[knot].is_finite());
        if known {
            density = std::array::from_fn(|knot| (moments.squares[knot] / moments.weights[knot]).sqrt());
        }
        let trapezoid = |density: &[f64; TIME_KNOTS], knot: usize| 0.5 * STEP * (density[knot] + density[knot + 1]);
        let total: f64 = (0..TIME_KNOTS - 1).map(|knot| trapezoid(&density, knot)).sum();
        if total > 0.0 {
            density = density.map(|value| UNIFORM_SHARE + (1.0 - UNIFORM_SHARE) * value / total);
        } else {
            density = [1.0; TIME_KNOTS];
        }
        let mut cumulative = [0.0; TIME_KNOTS];
        for knot in 1..TIME_KNOTS {
            cumulative[knot] = cumulative[knot - 1] + trapezoid(&density, knot - 1);
        }
        TimeDensity { density, cumulative }
    }

    /// Its values at the knots, then the cumulative values.
    #[cfg(test)]
    pub(crate) fn knots(&self) -> [f64; 2 * TIME_KNOTS] {
        std::array::from_fn(|i| if i < TIME_KNOTS { self.density[i] } else { self.cumulative[i - TIME_KNOTS] })
    }

    /// The time at which the cumulative density is `u`, and the weight 1 / density of a row there.
    #[must_use]
    pub fn draw(&self, u: f64) -> (f64, f64) {
        const KNOTS: f64 = (TIME_KNOTS - 1) as f64;
        let u = u * self.cumulative[TIME_KNOTS - 1]; // 1 up to rounding
        let knot = self.cumulative.partition_point(|&below| below <= u).clamp(1, TIME_KNOTS - 1) - 1;
        let (left, right) = (self.density[knot], self.density[knot + 1]);
        let rest = u - self.cumulative[knot];
        // The root of left·x + ½ slope·x² = rest, in the form that is stable for any slope.
        let slope = (right - left) * KNOTS;
        let x = 2.0 * rest / (left + (left * left + 2.0 * slope * rest).max(0.0).sqrt());
        (((knot as f64) / KNOTS + x).min(1.0), 1.0 / (left + slope * x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUADRATURES: [TimeRule; 3] = [TimeRule::Trapezoid, TimeRule::Simpson, TimeRule::GaussLegendre];

    /// The mean of f over the nodes of many rows is the sum of the quadrature.
    #[test]
    fn quadratures_integrate_the_polynomials_they_should() {
        const ROWS: usize = 36_000;
        for (rule, exact_degree) in QUADRATURES.into_iter().zip([1, 3, 5]) {
            for degree in 0..=6 {
                let places = (0..ROWS).map(|row| (row as f64 + 0.5) / ROWS as f64);
                let mean = places.map(|ratio| rule.node(ratio).powi(degree)).sum::<f64>() / ROWS as f64;
                let error = (mean - 1.0 / f64::from(degree + 1)).abs();
                assert_eq!(error < 1e-9, degree <= exact_degree, "{rule:?}, degree {degree}: {error}");
            }
        }
    }

    #[test]
    fn stratified_rows_stay_in_their_stretch_and_low_discrepancy_rows_are_evenly_spaced() {
        for n in [1, 7, 100] {
            for row in 0..n {
                for own in [0, 1 << 31, u32::MAX] {
                    let t = f64::from(TimeRule::Stratified.word(row, n, 5, own)) / 4_294_967_296.0;
                    // Starts of intervals are rounded down to whole words.
                    let stretch = row as f64 / n as f64 - 1e-9..=(row + 1) as f64 / n as f64;
                    assert!(stretch.contains(&t), "{row} of {n}: {t}");
                }
            }
            let mut times: Vec<u32> = (0..n).map(|row| TimeRule::LowDiscrepancy.word(row, n, 0xdead_beef, 1)).collect();
            times.sort_unstable();
            let gap = (1u64 << 32) as f64 / n as f64;
            assert!(times.windows(2).all(|pair| (f64::from(pair[1] - pair[0]) - gap).abs() <= 1.0));
        }
    }

    /// Moments of an integrand of size 1 + 4t.
    fn sloped() -> TimeMoments {
        let mut moments = TimeMoments::default();
        (0..10_000).for_each(|i| {
            let t = (f64::from(i) + 0.5) / 1e4;
            moments.add_row(t, 1.0 + 4.0 * t);
        });
        moments
    }

    #[test]
    fn the_density_follows_the_integrand_and_weights_undo_it() {
        let density = TimeDensity::new(&sloped());
        let n = 100_000;
        let draws: Vec<(f64, f64)> = (0..n).map(|i| density.draw((f64::from(i) + 0.5) / f64::from(n))).collect();
        let mean = |f: &dyn Fn(f64) -> f64| draws.iter().map(|&(t, w)| w * f(t)).sum::<f64>() / f64::from(n);
        assert!((mean(&|_| 1.0) - 1.0).abs() < 1e-6);
        assert!((mean(&|t| (3.0 * t).sin()) - (1.0 - 3f64.cos()) / 3.0).abs() < 1e-6);
        // p = 0.3 + 0.7 (1 + 4t) / 3 at the ends.
        for (u, p) in [(0.0, 0.3 + 0.7 / 3.0), (1.0, 0.3 + 0.7 * 5.0 / 3.0)] {
            assert!((1.0 / density.draw(u).1 - p).abs() < 0.02, "{:?}", density.draw(u));
        }
        assert!(draws.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(draws.iter().all(|&(t, w)| (0.0..=1.0).contains(&t) && w <= 1.0 / UNIFORM_SHARE));
    }

    #[test]
    fn without_knowledge_times_are_uniform_and_lists_come_back() {
        let density = TimeDensity::new(&TimeMoments::default());
        for u in [0.0, 0.2, 0.7, 1.0] {
            let (t, weight) = density.draw(u);
            assert!((t - u).abs() < 1e-12 && (weight - 1.0).abs() < 1e-12);
        }
        let moments = TimeMoments::from_slice(&sloped().to_vec()).expect("the right length");
        assert_eq!(moments.to_vec(), sloped().to_vec());
        assert_eq!(TimeMoments::from_slice(&[0.0; 3]), None);
    }
}
