//! An electron of hydrogen in the superposition of (n, l, m) = (3, 2, −1) and (2, 1, 0), equal
//! weights: the quantum experiment of Action Matching (arXiv 2210.06662, section 6.2).
//!
//! |ψ|² obeys the continuity equation with the guidance velocity v = Im(∇ψ/ψ), the gradient of the
//! phase (ħ = m = 1). Both states have the real factor z, so with g = ψ / z and the Bohr radius a
//!
//! `g = (x − iy) e^(−r/3a) e^(−iE₃t) / (81 √π a^3.5) + e^(−r/2a) e^(−iE₂t) / (4 √(2π) a^2.5)`,
//! `Eₙ = −1 / 2a²n²`, `v = Im(∇g/g)`.

use std::f64::consts::PI;

use super::Snapshots;
use crate::error::Result;
use crate::rng::{self, Purpose};
use crate::stage::Stage;

/// a, chosen in the paper such that the states beat about once within the horizon.
const BOHR_RADIUS: f64 = 4.0 * PI;

/// The last time.
pub const HYDROGEN_HORIZON: f64 = 14_000.0;

/// A complex number, (real, imaginary).
type Complex = [f64; 2];

/// g and ∇g at `x` and time `t`.
fn wave(x: &[f64; 3], t: f64) -> (Complex, [Complex; 3]) {
    let a = BOHR_RADIUS;
    let r = x.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-9);
    let energy = |n: f64| -1.0 / (2.0 * a * a * n * n);
    let phase = |n: f64| -> Complex { [(energy(n) * t).cos(), -(energy(n) * t).sin()] };
    let upper = (-r / (3.0 * a)).exp() / (81.0 * PI.sqrt() * a.powf(3.5));
    let lower = (-r / (2.0 * a)).exp() / (4.0 * (2.0 * PI).sqrt() * a.powf(2.5));
    let ([c3, s3], [c2, s2]) = (phase(3.0), phase(2.0));
    // (x − iy) e^(−iE₃t), and the factors of the derivatives of its two factors.
    let angular = [x[0] * c3 + x[1] * s3, x[0] * s3 - x[1] * c3];
    let g = [upper * angular[0] + lower * c2, upper * angular[1] + lower * s2];
    let of_angular = [[c3, s3], [s3, -c3], [0.0, 0.0]];
    let gradient = std::array::from_fn(|i| {
        let radial = -x[i] / r;
        [0, 1].map(|part| {
            upper * (of_angular[i][part] + angular[part] * radial / (3.0 * a))
                + lower * [c2, s2][part] * radial / (2.0 * a)
        })
    });
    (g, gradient)
}

/// |ψ|².
fn density(x: &[f64; 3], t: f64) -> f64 {
    let ([re, im], _) = wave(x, t);
    x[2] * x[2] * (re * re + im * im)
}

/// Im(∇ψ/ψ).
fn velocity(x: &[f64; 3], t: f64) -> [f64; 3] {
    let ([re, im], gradient) = wave(x, t);
    let square = (re * re + im * im).max(f64::MIN_POSITIVE);
    gradient.map(|[d_re, d_im]| (d_im * re - d_re * im) / square)
}

/// `n` particles drawn from |ψ|² at time 0 by Metropolis (independent chains), then moved by the
/// guidance velocity and recorded at `n_times` equally spaced times from 0 to [`HYDROGEN_HORIZON`].
/// Results do not depend on the threads of `stage`; its watch counts particles.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted) if the watch cancels.
pub fn hydrogen_snapshots(n_times: usize, n: usize, seed: u64, stage: &Stage) -> Result<Snapshots> {
    let times: Vec<f64> = (0..n_times).map(|k| HYDROGEN_HORIZON * k as f64 / (n_times - 1).max(1) as f64).collect();
    let chains: Vec<u32> = (0..n as u32).collect();
    let paths = stage.map(stage.threads, &chains, |&chain| Ok(follow(metropolis(seed, chain), &times)))?;
    let samples = (0..n_times).flat_map(|k| paths.iter().flat_map(move |path| path[k].map(|x| x as f32))).collect();
    Ok(Snapshots { dim: 3, offsets: (0..=n_times).map(|k| k * n).collect(), times, samples, mass: Default::default() })
}

/// The final state of chain `chain`.
fn metropolis(seed: u64, chain: u32) -> [f64; 3] {
    const STEPS: u64 = 4000;
    const WIDTH: f64 = 3.0 * BOHR_RADIUS;
    // Two counters per step: three normal numbers for the jump, one uniform number for acceptance.
    let draws = |step: u64| {
        let [u, v, w, _] = rng::normals(rng::words(seed, Purpose::Particles, 2 * step, chain));
        let [decision, ..] = rng::words(seed, Purpose::Particles, 2 * step + 1, chain);
        ([u, v, w].map(|u| WIDTH * f64::from(u)), f64::from(rng::unit_f32(decision)))
    };
    let (mut x, _) = draws(0);
    let mut here = density(&x, 0.0);
    for step in 1..STEPS {
        let (jump, threshold) = draws(step);
        let proposed = [x[0] + jump[0], x[1] + jump[1], x[2] + jump[2]];
        let there = density(&proposed, 0.0);
        if there >= threshold * here {
            (x, here) = (proposed, there);
        }
    }
    x
}

/// The positions of a particle at `times`, which increase from its start at 0: classical
/// Runge–Kutta with step doubling, error at most 1e-6 of the Bohr radius per step. Dormand–Prince
/// would be more code for little gain here.
fn follow(start: [f64; 3], times: &[f64]) -> Vec<[f64; 3]> {
    const TOLERANCE: f64 = 1e-6 * BOHR_RADIUS;
    const SMALLEST: f64 = 1e-6;
    let (mut x, mut t, mut h) = (start, 0.0, 1.0_f64);
    let mut path = Vec::with_capacity(times.len());
    for &to in times {
        while t < to {
            let step = h.min(to - t);
            let whole = runge_kutta(&x, t, step);
            let middle = runge_kutta(&x, t, step / 2.0);
            let halves = runge_kutta(&middle, t + step / 2.0, step / 2.0);
            let error = (0..3).map(|i| (whole[i] - halves[i]).abs()).fold(0.0, f64::max) / 15.0;
            if error <= TOLERANCE || step <= SMALLEST {
                x = std::array::from_fn(|i| halves[i] + (halves[i] - whole[i]) / 15.0);
                t = if step >= to - t { to } else { t + step };
            }
            let factor = 0.9 * (TOLERANCE / error.max(1e-12 * TOLERANCE)).powf(0.2);
            h = (step * factor.clamp(0.2, 5.0)).max(SMALLEST);
        }
        path.push(x);
    }
    path
}

fn runge_kutta(x: &[f64; 3], t: f64, h: f64) -> [f64; 3] {
    let along = |k: &[f64; 3], h: f64| -> [f64; 3] { std::array::from_fn(|i| x[i] + h * k[i]) };
    let k1 = velocity(x, t);
    let k2 = velocity(&along(&k1, h / 2.0), t + h / 2.0);
    let k3 = velocity(&along(&k2, h / 2.0), t + h / 2.0);
    let k4 = velocity(&along(&k3, h), t + h);
    std::array::from_fn(|i| x[i] + h / 6.0 * (k1[i] + 2.0 * (k2[i] + k3[i]) + k4[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINT: [f64; 3] = [31.0, -17.0, 22.0];

    #[test]
    fn gradients_agree_with_differences() {
        let (t, h) = (3100.0, 1e-3);
        let (_, gradient) = wave(&POINT, t);
        for i in 0..3 {
            let moved = |h: f64| {
                let mut x = POINT;
                x[i] += h;
                wave(&x, t).0
            };
            let (ahead, behind) = (moved(h), moved(-h));
            for part in 0..2 {
                let difference = (ahead[part] - behind[part]) / (2.0 * h);
                assert!((difference - gradient[i][part]).abs() < 1e-6 * gradient[i][part].abs(), "{i} {part}");
            }
        }
    }

    /// ∂ₜ|ψ|² = −∇·(|ψ|² v): the states solve Schrödinger's equation.
    #[test]
    fn the_density_obeys_the_continuity_equation() {
        let (t, h) = (5000.0, 0.05);
        let slope = (density(&POINT, t + 50.0) - density(&POINT, t - 50.0)) / 100.0;
        let divergence: f64 = (0..3)
            .map(|i| {
                let flux = |h: f64| {
                    let mut x = POINT;
                    x[i] += h;
                    density(&x, t) * velocity(&x, t)[i]
                };
                (flux(h) - flux(-h)) / (2.0 * h)
            })
            .sum();
        assert!((slope + divergence).abs() < 1e-4 * slope.abs(), "{slope} and {divergence}");
    }

    /// The norm of ψ is 1, by a sum over a grid.
    #[test]
    fn the_wave_function_is_normalized() {
        let (step, half) = (5.0, 60);
        let mut total = 0.0;
        for i in -half..=half {
            for j in -half..=half {
                for k in -half..=half {
                    total += density(&[i, j, k].map(|i| step * f64::from(i)), 0.0);
                }
            }
        }
        // g holds the states with their norms; equal weights contribute the factor ½.
        assert!((0.5 * total * step.powi(3) - 1.0).abs() < 1e-3, "{}", 0.5 * total * step.powi(3));
    }

    /// Moved particles keep the law of |ψ|²: their final moments are those of fresh Metropolis
    /// samples after a rotation about z.
    #[test]
    fn particles_follow_the_density() {
        let n = 12_000;
        let snapshots = hydrogen_snapshots(3, n, 5, &Stage::default()).expect("is not cancelled");
        assert_eq!(snapshots.times, [0.0, 7000.0, 14_000.0]);
        let moment = |k: usize, of: fn(&[f32]) -> f32| {
            snapshots.rows(k).chunks_exact(3).map(|x| f64::from(of(x))).sum::<f64>() / n as f64
        };
        for k in [1, 2] {
            // |ψ_t|² is |ψ_0|² turned about z: moments of z and of the distance to the axis stay.
            for of in [|x: &[f32]| x[2] * x[2], |x: &[f32]| x[0] * x[0] + x[1] * x[1]] as [fn(&[f32]) -> f32; 2] {
                assert!((moment(k, of) / moment(0, of) - 1.0).abs() < 0.05, "{k}: {} {}", moment(k, of), moment(0, of));
            }
            let (x, y) = (moment(k, |x| x[0]), moment(k, |x| x[1]));
            let (x0, y0) = (moment(0, |x| x[0]), moment(0, |x| x[1]));
            let energy = |n: f64| -1.0 / (2.0 * BOHR_RADIUS * BOHR_RADIUS * n * n);
            let turn = snapshots.times[k] * (energy(3.0) - energy(2.0));
            // The angle enters ψ as (x − iy) e^(−i(E₃ − E₂)t), so the density rotates by −(E₃ −
            // E₂)t.
            let (cos, sin) = (turn.cos(), -turn.sin());
            let (want_x, want_y) = (cos * x0 - sin * y0, sin * x0 + cos * y0);
            let size = x0.hypot(y0);
            assert!((x - want_x).hypot(y - want_y) < 0.12 * size, "{k}: ({x}, {y}), not ({want_x}, {want_y})");
        }
    }
}
