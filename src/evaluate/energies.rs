//! Energies along a flow, and how far its potential is from an optimal one.

use crate::engine::Differentiate;
use crate::error::Result;
use crate::model::Model;
use crate::stage::{Watch, check};

/// Means over the time and the rows of a flow, network units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Energies {
    /// E½‖∇s‖².
    pub kinetic: f64,
    /// E½‖v‖² for the velocity v = ∇H(∇s); the same if the cost is quadratic.
    pub speed: f64,
    /// Mean square of the residual ∂ₜs + H(∇s) + ½λs² of the Hamilton–Jacobi–Bellman equation,
    /// which is 0 for an optimal flow. Without growth by the potential its mean over the rows of
    /// a time is taken
    /// off: s + c(t) moves rows as s does.
    pub residual: f64,
    /// The same with that mean taken off in any case.
    pub residual_variance: f64,
    /// E‖x − E x‖².
    pub spread: f64,
}

impl Energies {
    /// Of rows `positions [times, n, dim]` at an odd number of equally spaced `times`, of which
    /// there are three or more, by Simpson's rule.
    ///
    /// # Errors
    /// Errors of the engine; [`Error::Interrupted`](crate::Error::Interrupted).
    pub fn along(
        engine: &(impl Differentiate + ?Sized),
        model: &Model,
        times: &[f64],
        positions: &[f32],
        watch: &dyn Watch,
    ) -> Result<Energies> {
        let (dim, objective, growth) = (model.architecture.dim, &model.objective, model.growth_of_potential());
        let last = times.len() - 1;
        let mut energies = Energies::default();
        for (k, (slab, &time)) in positions.chunks_exact(positions.len() / times.len()).zip(times).enumerate() {
            check(watch)?;
            let simpson = match k {
                k if k == 0 || k == last => 1.0,
                odd if odd % 2 == 1 => 4.0,
                _ => 2.0,
            } / (3 * last) as f64;
            let x: Vec<f64> = slab.iter().map(|&x| f64::from(x)).collect();
            let n = x.len() / dim;
            let derivatives = engine.derivatives(model, &x, &vec![time; n])?;
            let rows = derivatives.grad_s.chunks_exact(dim).zip(derivatives.ds_dt).zip(derivatives.s);
            let residuals = rows.map(|((grad, ds_dt), s)| {
                let mut residual = ds_dt + 0.5 * growth * s * s;
                for &p in grad {
                    let (hamiltonian, drift) = objective.hamiltonian_f64(p);
                    residual += hamiltonian;
                    energies.kinetic += simpson * 0.5 * p * p / n as f64;
                    energies.speed += simpson * 0.5 * drift * drift / n as f64;
                }
                residual
            });
            let residuals: Vec<f64> = residuals.collect();
            let (mean, variance) = mean_and_variance(residuals.iter().copied());
            energies.residual_variance += simpson * variance;
            energies.residual += simpson * if growth > 0.0 { variance + mean * mean } else { variance };
            let column = |i: usize| mean_and_variance(x.iter().skip(i).step_by(dim).copied()).1;
            energies.spread += simpson * (0..dim).map(column).sum::<f64>();
        }
        Ok(energies)
    }
}

/// Mean and population variance of the values.
fn mean_and_variance(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    (mean, values.map(|value| (value - mean).powi(2)).sum::<f64>() / n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::reference::ReferenceEngine;
    use crate::engine::{Batch, Derivatives, LossGradient};
    use crate::model::{Architecture, Coordinates};
    use crate::objective::Objective;

    /// s = a(t) + b(t) x in one dimension, whatever the model.
    struct Linear<A, B> {
        a: A,
        b: B,
    }

    impl<A: Fn(f64) -> [f64; 2], B: Fn(f64) -> [f64; 2]> Differentiate for Linear<A, B> {
        fn derivatives(&self, _: &Model, x: &[f64], t: &[f64]) -> Result<Derivatives> {
            let mut found = Derivatives::default();
            for (&x, &t) in x.iter().zip(t) {
                let ([a, da], [b, db]) = ((self.a)(t), (self.b)(t));
                found.s.push(a + b * x);
                found.grad_s.push(b);
                found.ds_dt.push(da + db * x);
            }
            Ok(found)
        }

        fn loss_gradient(&self, model: &Model, batch: &Batch) -> Result<LossGradient> {
            ReferenceEngine.loss_gradient(model, batch)
        }
    }

    fn model(growth: f64) -> Model {
        let architecture = Architecture::new(1, [2]);
        let parameters = vec![0.0; architecture.n_parameters()];
        let objective = Objective { growth, ..Objective::default() };
        Model { architecture, coordinates: Coordinates::identity(1), objective, parameters, growth_head: None }
    }

    fn energies(model: &Model, engine: &impl Differentiate) -> Energies {
        let positions = [0.0, 2.0, 1.0, 3.0, 2.0, 4.0];
        Energies::along(engine, model, &[0.0, 0.5, 1.0], &positions, &()).expect("energies")
    }

    /// Steady motion s = 2x − 2t is optimal, and any c(t) more changes nothing without growth.
    #[test]
    fn a_potential_is_known_up_to_a_function_of_time() {
        let optimal = Linear { a: |t: f64| [-2.0 * t, -2.0], b: |_: f64| [2.0, 0.0] };
        let shifted = Linear { a: |t: f64| [9.0 * t, 9.0], b: |_: f64| [2.0, 0.0] };
        for found in [energies(&model(0.0), &optimal), energies(&model(0.0), &shifted)] {
            assert!(found.residual < 1e-24 && (found.kinetic - 2.0).abs() < 1e-12, "{found:?}");
            assert!((found.spread - 1.0).abs() < 1e-12 && found.speed == found.kinetic, "{found:?}");
        }
        // ∂ₜs = x: a residual that differs by 2 between the rows.
        let turning = Linear { a: |_: f64| [0.0, 0.0], b: |t: f64| [t, 1.0] };
        assert!((energies(&model(0.0), &turning).residual - 1.0).abs() < 1e-12);
    }

    /// With growth λ, s(t) = 1 / (c + ½λt) everywhere is optimal: ∂ₜs = −½λs². Its growth counts.
    #[test]
    fn growth_is_a_part_of_the_residual() {
        let lambda = 3.0;
        let s = |t: f64| 1.0 / (1.0 + 0.5 * lambda * t);
        let optimal = Linear { a: |t: f64| [s(t), -0.5 * lambda * s(t) * s(t)], b: |_: f64| [0.0, 0.0] };
        let found = energies(&model(lambda), &optimal);
        assert!(found.residual < 1e-24, "{found:?}");
        // A constant s is not: the residual is ½λs² = 1.5 at all rows.
        let constant = Linear { a: |_: f64| [1.0, 0.0], b: |_: f64| [0.0, 0.0] };
        let found = energies(&model(lambda), &constant);
        assert!((found.residual - 2.25).abs() < 1e-12 && found.residual_variance < 1e-24, "{found:?}");
    }
}
