//! The geodesic of Wasserstein–Fisher–Rao from one point mass to another, a travelling Dirac.
//!
//! With ρ = √m as radius and x/(2δ) as angle, the metric m (‖u‖² + δ²g²) of motion and growth is
//! that of a plane, (2δ)² (dρ² + ρ² dφ²), so the geodesic is a straight line there. From mass m₀
//! to mass m₁ at the distance d, with θ = d/(2δ) and r from 0 to 1,
//!
//! ```text
//! ρ cos φ = (1 − r) √m₀ + r √m₁ cos θ      m = (1 − r)² m₀ + r² m₁ + 2 r (1 − r) √(m₀ m₁) cos θ
//! ρ sin φ = r √m₁ sin θ                     φ/θ = the fraction of the distance that is travelled
//! ```
//!
//! and dφ/dr = √(m₀ m₁) sin θ / m. Mass that only vanishes or appears (m₁ or m₀ = 0) does not move.

use bytemuck::{Pod, Zeroable};

/// Angle between the ends of a geodesic, in the plane whose radius is √m.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Turn {
    /// θ = d/(2δ), at most a right angle.
    angle: f32,
    cos: f32,
    sin: f32,
}

impl Turn {
    /// Between points `x` and `y`.
    pub(super) fn between(x: &[f32], y: &[f32], delta: f64) -> Turn {
        let squared: f64 = x.iter().zip(y).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
        let angle = (squared.sqrt() / (2.0 * delta)).min(std::f64::consts::FRAC_PI_2);
        Turn { angle: angle as f32, cos: angle.cos() as f32, sin: angle.sin() as f32 }
    }

    /// Mass at `r`, and its derivative in r, between the masses `start` and `end`.
    pub(super) fn mass(&self, [start, end]: [f64; 2], r: f64) -> (f64, f64) {
        let s = 1.0 - r;
        let mixed = (start * end).sqrt() * f64::from(self.cos);
        let mass = start * s * s + 2.0 * mixed * r * s + end * r * r;
        (mass, 2.0 * ((mixed - start) * s + (end - mixed) * r))
    }

    /// Fraction of the way that is behind the mass at `r`, and its derivative in r.
    pub(super) fn progress(&self, [start, end]: [f64; 2], r: f64) -> (f64, f64) {
        let (start, end, angle) = (start.sqrt(), end.sqrt(), f64::from(self.angle));
        let along = (1.0 - r) * start + r * end * f64::from(self.cos);
        let across = r * end * f64::from(self.sin);
        let mass = along * along + across * across;
        if angle == 0.0 || mass == 0.0 {
            return (r, 1.0); // nowhere to go, or nothing that goes
        }
        (across.atan2(along) / angle, start * end * f64::from(self.sin) / (angle * mass))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mass and position have the slopes that are said, start and end where they should, and the
    /// energy of the path is the squared distance of the two point masses.
    #[test]
    fn travelling_point_masses_take_the_geodesic() {
        for (masses, distance, delta) in [([1.0, 1.0], 0.5, 1.0), ([0.2, 1.7], 1.9, 0.7), ([2.0, 0.1], 1e-4, 3.0)] {
            let turn = Turn::between(&[0.0, 1.0], &[distance, 1.0], delta);
            let (h, n) = (1e-4, 1000);
            let mut energy = 0.0;
            for i in 0..n {
                let r = (f64::from(i) + 0.5) / f64::from(n);
                let ((mass, slope), (_, speed)) = (turn.mass(masses, r), turn.progress(masses, r));
                let quotient = |of: &dyn Fn(f64) -> f64| {
                    (of(r + 0.5 * h * r * (1.0 - r)) - of(r - 0.5 * h * r * (1.0 - r))) / (h * r * (1.0 - r))
                };
                assert!((quotient(&|r| turn.mass(masses, r).0) - slope).abs() < 1e-5 * (1.0 + slope.abs()));
                assert!((quotient(&|r| turn.progress(masses, r).0) - speed).abs() < 1e-5 * (1.0 + speed.abs()));
                let (u, g) = (f64::from(distance) * speed, slope / mass);
                energy += 0.5 * mass * (u * u + delta * delta * g * g) / f64::from(n);
            }
            let angle = f64::from(distance) / (2.0 * delta);
            let want =
                2.0 * delta * delta * (masses[0] + masses[1] - 2.0 * (masses[0] * masses[1]).sqrt() * angle.cos());
            assert!((energy / want - 1.0).abs() < 1e-4, "{energy}, not {want}");
            for (r, mass) in [(0.0, masses[0]), (1.0, masses[1])] {
                assert!((turn.mass(masses, r).0 - mass).abs() < 1e-12 && (turn.progress(masses, r).0 - r).abs() < 1e-6);
            }
        }
    }

    /// At equal rest the masses follow the geodesic of Hellinger, and what vanishes or appears does
    /// so where it is.
    #[test]
    fn masses_without_partner_stay() {
        let turn = Turn::between(&[0.0], &[100.0], 1.0);
        assert_eq!(turn.mass([2.0, 0.0], 0.25), (2.0 * 0.75 * 0.75, -2.0 * 2.0 * 0.75));
        assert_eq!(turn.mass([0.0, 2.0], 0.25).0, 2.0 * 0.25 * 0.25);
        assert_eq!(turn.progress([2.0, 0.0], 0.25), (0.0, 0.0));
        let (fraction, speed) = turn.progress([0.0, 2.0], 0.25);
        assert!((fraction - 1.0).abs() < 1e-6 && speed == 0.0, "{fraction}");
        let rest = Turn::between(&[3.0], &[3.0], 1.0);
        assert!((rest.mass([1.0, 4.0], 0.5).0 - 1.5f64.powi(2)).abs() < 1e-12);
    }
}
