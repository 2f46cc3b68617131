//! Forms of the loss.

use crate::density_path::Interpolant;

/// Forms of the one loss, with the same minimizer ∇s and different variance. An offset c(t) added
/// to s changes nothing in the exact loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Estimator {
    /// ω(0) E[s(x, 0)] − ω(1) E[s(x, 1)] + ∫ E[ω (∂ₜs + H(∇s) + …) + ω′ s] dt: the loss as the
    /// paper writes it.
    Action {
        /// Takes the same loss of c(t) = s(0, t) away, which is 0 but for the choice of times:
        /// exact invariance to offsets. Costs as many rows again. 0 is the mean of standardized
        /// data.
        #[serde(default)]
        centering: bool,
    },
    /// Without the time derivative, exactly invariant to offsets. Each interval between snapshots
    /// is divided into equal parts [a, b]; over each part, with s̄ = ½(s(·, a) + s(·, b)), the loss
    /// is ω ((E_{q_a} − E_{q_b}) [s̄] + (b − a) E[H(∇s) + …]) (compare arXiv 2507.05107).
    Weak {
        /// Parts of an interval.
        #[serde(default = "Estimator::default_intervals")]
        intervals: u32,
    },
    /// E[H(∇s) − u·∇s + …] where the path has the velocity u: ½‖∇s − u‖² up to a constant for the
    /// quadratic cost. No boundary rows.
    Regression,
}

impl Estimator {
    /// Intervals of [`Estimator::Weak`] that the program takes unless it is told.
    pub const WEAK_INTERVALS: u32 = 16;

    fn default_intervals() -> u32 {
        Estimator::WEAK_INTERVALS
    }

    /// The form of least variance on a path along `interpolant`: regression if the velocity of its
    /// points is known, else the action.
    #[must_use]
    pub fn best_for(interpolant: Interpolant) -> Self {
        if interpolant.has_velocity() { Estimator::Regression } else { Estimator::Action { centering: false } }
    }
}
