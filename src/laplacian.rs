//! Rules by which the Laplacian of s is computed if there is diffusion.
//!
//! ```
//! use action_matching::laplacian::Laplacian;
//!
//! // In 50 dimensions: one random probe, or all unit vectors.
//! assert_eq!((Laplacian::default().n_directions(50), Laplacian::EXACT.n_directions(50)), (1, 50));
//! ```

/// How the Laplacian of s is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LaplacianRule {
    /// Mean of εᵀ∇²s ε over probes ε of independent random signs (Hutchinson 1990): the least
    /// variance of all unbiased probes.
    Rademacher,
    /// The same with standard normal probes.
    Gaussian,
    /// Sum over the unit vectors.
    Exact,
}

/// The Laplacian of a training step. Used if σ > 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Laplacian {
    /// The rule.
    pub rule: LaplacianRule,
    /// Probes per row. The exact Laplacian uses one unit vector per dimension instead.
    pub n_probes: usize,
}

impl Laplacian {
    /// The exact Laplacian.
    pub const EXACT: Laplacian = Laplacian { rule: LaplacianRule::Exact, n_probes: 1 };

    /// Directions of second derivatives in `dim` dimensions.
    #[must_use]
    pub fn n_directions(self, dim: usize) -> usize {
        match self.rule {
            LaplacianRule::Exact => dim,
            LaplacianRule::Rademacher | LaplacianRule::Gaussian => self.n_probes,
        }
    }

    /// Weight of one direction's εᵀ∇²s ε: probes are averaged, unit vectors summed.
    #[must_use]
    pub fn probe_weight(self) -> f64 {
        match self.rule {
            LaplacianRule::Exact => 1.0,
            LaplacianRule::Rademacher | LaplacianRule::Gaussian => 1.0 / self.n_probes as f64,
        }
    }
}

impl Default for Laplacian {
    fn default() -> Self {
        Laplacian { rule: LaplacianRule::Rademacher, n_probes: 1 }
    }
}

/// Maximum number of probes per row.
pub const MAX_PROBES: usize = 1024;
