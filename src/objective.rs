//! The dynamics as plain data: diffusion σ, growth λ, cost exponent q and time weight ω.
//!
//! | dynamics | interior term of the loss at (x, t) | particles |
//! |---|---|---|
//! | continuity | ∂ₜs + ½‖∇s‖² | dx = ∇s dt |
//! | entropic | … + ½σ²Δs | dx = ∇s dt + σ dW |
//! | unbalanced | … + ½λs² | d log w = λ s dt |
//! | convex cost | ∂ₜs + H(∇s), H(p) = Σ\|pᵢ\|^q / q | dx = ∇H(∇s) dt |
//!
//! ```
//! use action_matching::objective::Objective;
//!
//! let entropic = Objective { sigma: 0.5, ..Objective::default() };
//! assert!(!entropic.is_continuity() && entropic.kappa_at(0.3) == 0.125);
//! // H(p) = |p|³ / 3 and its slope |p| p.
//! let cubic = Objective { cost_exponent: 3.0, ..Objective::default() };
//! assert_eq!(cubic.hamiltonian(-2.0), (8.0 / 3.0, -4.0));
//! ```

use serde::{Deserialize, Serialize};

use crate::error::{Error, Origin, Result};

/// Time weight ω(t) of the loss, t in 0..=1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum TimeWeight {
    /// ω = 1: the Action Matching loss itself.
    Constant,
    /// ω = 1 − t.
    OneMinusT,
    /// ω = Σ cₖ tᵏ.
    Polynomial {
        /// `coefficients[k]` multiplies tᵏ; at least one.
        coefficients: Vec<f64>,
    },
}

impl TimeWeight {
    /// (ω(t), ω′(t)).
    #[must_use]
    pub fn at(&self, t: f64) -> (f64, f64) {
        match self {
            TimeWeight::Constant => (1.0, 0.0),
            TimeWeight::OneMinusT => (1.0 - t, -1.0),
            TimeWeight::Polynomial { coefficients } => {
                coefficients.iter().rev().fold((0.0, 0.0), |(value, slope), c| (value * t + c, slope * t + value))
            }
        }
    }
}

/// How the diffusion changes over time, t in 0..=1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SigmaSchedule {
    /// σ(t) = σ₀.
    #[default]
    Constant,
    /// σ(t) = σ₀ (1 − t).
    OneMinusT,
}

/// Dynamics that the loss and the particles follow (arXiv 2210.06662, sections 2–4). They can be
/// combined.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// Diffusion σ₀ ≥ 0 of the entropic variant, network units.
    pub sigma: f64,
    /// How the diffusion changes over time.
    pub sigma_schedule: SigmaSchedule,
    /// Growth rate λ ≥ 0 of the unbalanced variant.
    pub growth: f64,
    /// Exponent q > 1 of H(p) = Σ|pᵢ|^q / q; 2 is plain Action Matching.
    pub cost_exponent: f64,
    /// Time weight ω.
    pub time_weight: TimeWeight,
}

impl Default for Objective {
    fn default() -> Self {
        Objective {
            sigma: 0.0,
            sigma_schedule: SigmaSchedule::Constant,
            growth: 0.0,
            cost_exponent: 2.0,
            time_weight: TimeWeight::Constant,
        }
    }
}

/// The formula of the Hamiltonian, for one type of numbers.
macro_rules! hamiltonian {
    ($(#[$attribute:meta])* $name:ident: $float:ident) => {
        $(#[$attribute])*
        pub fn $name(&self, p: $float) -> ($float, $float) {
            if self.cost_exponent == 2.0 {
                (0.5 * p * p, p)
            } else {
                let q = self.cost_exponent as $float;
                let slope = p.abs().powf(q - 1.0);
                (slope * p.abs() / q, slope.copysign(p))
            }
        }
    };
}

impl Objective {
    hamiltonian! {
        /// H and ∇H for one component p of ∇s, as engines form them. The Hamiltonian is a sum over
        /// components, so its gradient has one term per component.
        #[inline(always)]
        #[must_use]
        hamiltonian: f32
    }

    hamiltonian! {
        /// The same in f64.
        #[must_use]
        hamiltonian_f64: f64
    }

    /// σ(t).
    #[must_use]
    pub fn sigma_at(&self, t: f64) -> f64 {
        match self.sigma_schedule {
            SigmaSchedule::Constant => self.sigma,
            SigmaSchedule::OneMinusT => self.sigma * (1.0 - t),
        }
    }

    /// ∫σ² dt from `t` to `t + h`: the variance of the noise of a step.
    #[must_use]
    pub fn noise_variance(&self, t: f64, h: f64) -> f64 {
        let rate = match self.sigma_schedule {
            SigmaSchedule::Constant => 1.0,
            // ∫(1 − t)² dt / h = a² − ah + h²/3 with a = 1 − t.
            SigmaSchedule::OneMinusT => (1.0 - t) * (1.0 - t - h) + h * h / 3.0,
        };
        self.sigma * self.sigma * rate * h
    }

    /// κ(t) = ½σ(t)², the factor of Δs.
    #[must_use]
    pub fn kappa_at(&self, t: f64) -> f64 {
        0.5 * self.sigma_at(t).powi(2)
    }

    /// Checks every number against its range.
    ///
    /// # Errors
    /// [`Error::Input`] with `origin`, and the field as named in the model file and the
    /// configuration.
    pub fn validate(&self, origin: impl Into<Origin>) -> Result<()> {
        let origin = origin.into();
        let fail = |field: &str, problem: String, fix: &str| Err(Error::input(&origin, field, problem, fix));
        // Engines compute σ² and λs² in f32.
        const LARGEST: f64 = 1e6;
        for (field, value) in [("sigma", self.sigma), ("growth", self.growth)] {
            if !(0.0..=LARGEST).contains(&value) {
                return fail(field, format!("is {value}"), "use a number from 0 to 1e6");
            }
        }
        if !(self.cost_exponent.is_finite() && self.cost_exponent > 1.0) {
            return fail(
                "cost_exponent",
                format!("is {}", self.cost_exponent),
                "use a number > 1; 2 is plain Action Matching",
            );
        }
        if let TimeWeight::Polynomial { coefficients } = &self.time_weight
            && (coefficients.is_empty() || coefficients.iter().any(|c| !c.is_finite()))
        {
            return fail("time_weight.coefficients", format!("is {coefficients:?}"), "give at least one finite number");
        }
        Ok(())
    }

    /// True for plain Action Matching: no diffusion, no growth, quadratic cost.
    #[must_use]
    pub fn is_continuity(&self) -> bool {
        self.sigma == 0.0 && self.growth == 0.0 && self.cost_exponent == 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_weights_and_their_slopes_agree_with_differences() {
        let polynomial = TimeWeight::Polynomial { coefficients: vec![0.5, -1.0, 3.0, 0.25] };
        assert_eq!(polynomial.at(0.0), (0.5, -1.0));
        for weight in [TimeWeight::Constant, TimeWeight::OneMinusT, polynomial] {
            let (t, h) = (0.37, 1e-5);
            let difference = (weight.at(t + h).0 - weight.at(t - h).0) / (2.0 * h);
            assert!((difference - weight.at(t).1).abs() < 1e-8, "{weight:?}");
        }
    }
}
