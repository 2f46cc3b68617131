//! `[objective]`.

use serde::{Deserialize, Serialize};

use super::kind;
use crate::density_path::{DensityPath, Interpolant, Knots, Spline, TimeRule};
use crate::laplacian::Laplacian;
use crate::objective::{Objective, SigmaSchedule, TimeWeight};
use crate::training::{Bend, Estimator};

/// `[objective]`: the loss, and how its rows are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveConfig {
    /// Diffusion: a number, or `{ value = 0.1, schedule = "one-minus-t" }`.
    #[serde(with = "sigma")]
    pub sigma: Sigma,
    /// `{ kind = "rademacher", probes = 1 }`, `{ kind = "gaussian", probes = 1 }` or `exact`: how
    /// Δs is formed if σ > 0.
    #[serde(with = "laplacian")]
    pub laplacian: Laplacian,
    /// Growth λ, 0 for none. `None`, written `auto`, is the best of some candidates, of which one
    /// does not grow, and 0 where there are too few snapshots to compare them.
    #[serde(with = "kind::auto")]
    pub growth: Option<f64>,
    /// True for growth by a network of its own, in the place of λs.
    pub growth_head: bool,
    /// Exponent q of the cost.
    pub cost_exponent: f64,
    /// `constant`, `one-minus-t` or `{ kind = "polynomial", coefficients = […] }`.
    #[serde(with = "kind")]
    pub time_weight: TimeWeight,
    /// Form of the loss: `{ kind = "action", centering = false }`, `{ kind = "weak", intervals = 16
    /// }` or `regression`. `None`, written `auto`, is regression if the path has a velocity, else
    /// action.
    #[serde(with = "kind::auto")]
    pub estimator: Option<Estimator>,
    /// Path between snapshots: `auto`, `linear`, `{ kind = "spline", limit = 2, knots =
    /// "distance" }`, `{ kind = "learned", hidden = […], rate = 0.3 }`, `nearest`,
    /// `generative-linear`, `generative-vp` or `generative-sqrt`.
    #[serde(with = "kind")]
    pub path: PathConfig,
    /// How `linear`, `spline` and `learned` pair samples of neighboring snapshots: `auto`,
    /// `independent`, `{ kind = "ot", rows = 2048 }`, `{ kind = "unbalanced", relaxation = 1.0,
    /// rows = 2048 }` or `{ kind = "wfr", rows = 2048 }`.
    #[serde(with = "kind")]
    pub pairing: Pairing,
    /// Mass of the snapshots: `ignored`, or for populations that grow `counts` (of rows) or
    /// `{ kind = "totals", values = […] }`.
    #[serde(with = "kind")]
    pub mass: Mass,
    /// `low-discrepancy`, `uniform`, `stratified`, `importance`, or the fixed nodes of `trapezoid`,
    /// `simpson`, `gauss-legendre`.
    pub time_rule: TimeRule,
}

impl Default for ObjectiveConfig {
    fn default() -> Self {
        let Objective { sigma, sigma_schedule, growth, cost_exponent, time_weight } = Objective::default();
        ObjectiveConfig {
            sigma: Sigma { value: sigma, schedule: sigma_schedule },
            laplacian: Laplacian::default(),
            growth: Some(growth),
            growth_head: false,
            cost_exponent,
            time_weight,
            estimator: None,
            path: PathConfig::Auto,
            pairing: Pairing::Auto,
            mass: Mass::Ignored,
            time_rule: TimeRule::default(),
        }
    }
}

impl ObjectiveConfig {
    /// Growth λ; 0 as long as it is left to the program.
    #[must_use]
    pub fn lambda(&self) -> f64 {
        self.growth.unwrap_or(0.0)
    }
}

/// The diffusion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sigma {
    /// σ₀ ≥ 0, network units.
    pub value: f64,
    /// How it changes over time: `constant`, or `one-minus-t` for σ(t) = σ₀ (1 − t).
    pub schedule: SigmaSchedule,
}

/// The path between snapshots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum PathConfig {
    /// Left to the program, which compares candidates on the training snapshots before it trains:
    /// see [`choose`](crate::validate::choose). [`Interpolant::Linear`] until then.
    Auto,
    /// [`Interpolant::Linear`].
    Linear,
    /// [`Interpolant::Spline`].
    Spline {
        /// [`Spline::limit`].
        #[serde(default = "PathConfig::default_limit")]
        limit: f64,
        /// [`Spline::knots`].
        #[serde(default)]
        knots: Knots,
    },
    /// [`Interpolant::Learned`].
    Learned {
        /// Widths of the hidden layers of the network that bends the path.
        #[serde(default = "PathConfig::default_hidden")]
        hidden: Vec<usize>,
        /// Learning rate of that network, in units of the action's.
        #[serde(default = "PathConfig::default_rate")]
        rate: f64,
    },
    /// [`Interpolant::Nearest`].
    Nearest,
    /// [`Interpolant::GenerativeLinear`].
    GenerativeLinear,
    /// [`Interpolant::GenerativeVp`].
    GenerativeVp,
    /// [`Interpolant::GenerativeSqrt`].
    GenerativeSqrt,
}

impl PathConfig {
    fn default_hidden() -> Vec<usize> {
        Bend::HIDDEN.to_vec()
    }

    fn default_limit() -> f64 {
        Spline::LIMIT
    }

    fn default_rate() -> f64 {
        Bend::RELATIVE_RATE
    }

    /// How samples move between snapshots.
    #[must_use]
    pub fn interpolant(&self) -> Interpolant {
        match self {
            PathConfig::Auto | PathConfig::Linear => Interpolant::Linear,
            PathConfig::Spline { .. } => Interpolant::Spline,
            PathConfig::Learned { .. } => Interpolant::Learned,
            PathConfig::Nearest => Interpolant::Nearest,
            PathConfig::GenerativeLinear => Interpolant::GenerativeLinear,
            PathConfig::GenerativeVp => Interpolant::GenerativeVp,
            PathConfig::GenerativeSqrt => Interpolant::GenerativeSqrt,
        }
    }

    /// A spline with these knots and the limit of [`Spline::default`].
    #[must_use]
    pub fn spline(knots: Knots) -> Self {
        PathConfig::Spline { limit: Spline::LIMIT, knots }
    }

    /// The slopes of a spline; those of the default for other paths.
    pub(super) fn slopes(&self) -> Spline {
        match *self {
            PathConfig::Spline { limit, knots } => Spline { limit, knots },
            _ => Spline::default(),
        }
    }
}

/// How samples of neighboring snapshots are paired.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Pairing {
    /// Left to the program: one of the candidates of the path `auto`; for a path that is given,
    /// [`Pairing::Ot`] if it has pairs.
    Auto,
    /// Independently.
    Independent,
    /// By exact optimal transport of squared distances in network coordinates, solved once before
    /// training.
    Ot {
        /// Most rows that one problem pairs; larger snapshots are divided into random blocks.
        #[serde(default = "Pairing::default_rows")]
        rows: usize,
    },
    /// Likewise by partial optimal transport: pairs may gain and lose mass, for populations that
    /// grow.
    Unbalanced {
        /// Squared distance, network units, beyond which rows appear and vanish rather than move.
        #[serde(default = "Pairing::default_relaxation")]
        relaxation: f64,
        /// Most rows that one problem pairs.
        #[serde(default = "Pairing::default_rows")]
        rows: usize,
    },
    /// By Wasserstein–Fisher–Rao transport: pairs move and grow at once, at the cost that the
    /// dynamics with this growth rate λ have, along geodesics. Mass moves less than π/√λ.
    Wfr {
        /// Most rows that one problem pairs.
        #[serde(default = "Pairing::default_rows")]
        rows: usize,
    },
}

impl Pairing {
    /// By optimal transport, with every setting at its default.
    #[must_use]
    pub fn ot() -> Self {
        Pairing::Ot { rows: Self::default_rows() }
    }

    /// By partial optimal transport, with every setting at its default.
    #[must_use]
    pub fn unbalanced() -> Self {
        Pairing::Unbalanced { relaxation: Self::default_relaxation(), rows: Self::default_rows() }
    }

    /// By Wasserstein–Fisher–Rao transport, with every setting at its default.
    #[must_use]
    pub fn wfr() -> Self {
        Pairing::Wfr { rows: Self::default_rows() }
    }

    fn default_rows() -> usize {
        DensityPath::PAIRING_ROWS
    }

    fn default_relaxation() -> f64 {
        1.0
    }
}

/// Mass of the snapshots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Mass {
    /// All snapshots have the same mass, whatever their numbers of rows.
    Ignored,
    /// The number of rows, or the sum of their weights if they have any.
    Counts,
    /// As the growth rates of rows that are known (`data.growth`) make it from one snapshot to the
    /// next.
    Growth,
    /// Known totals, as of a population of which each snapshot is a sample.
    Totals {
        /// Mass of each snapshot that is trained on, in order of time, in any unit.
        values: Vec<f64>,
    },
}

/// A number, or a table with the schedule.
mod sigma {
    use serde::de::{Deserialize, Deserializer, Error as _};
    use serde::ser::{Serialize, Serializer};

    use super::{Sigma, SigmaSchedule};

    pub(super) fn serialize<S: Serializer>(sigma: &Sigma, serializer: S) -> Result<S::Ok, S::Error> {
        match sigma.schedule {
            SigmaSchedule::Constant => serializer.serialize_f64(sigma.value),
            _ => sigma.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sigma, D::Error> {
        let value = toml::Value::deserialize(deserializer)?;
        if value.is_table() {
            return value.try_into().map_err(D::Error::custom);
        }
        let value = value.try_into().map_err(D::Error::custom)?;
        Ok(Sigma { value, schedule: SigmaSchedule::default() })
    }
}

/// A rule with its probes.
mod laplacian {
    use serde::de::Deserializer;
    use serde::ser::Serializer;
    use serde::{Deserialize, Serialize};

    use super::kind;
    use crate::laplacian::{Laplacian, LaplacianRule};

    #[derive(Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
    enum Kind {
        Rademacher {
            #[serde(default = "default_probes")]
            probes: usize,
        },
        Gaussian {
            #[serde(default = "default_probes")]
            probes: usize,
        },
        Exact,
    }

    fn default_probes() -> usize {
        Laplacian::default().n_probes
    }

    pub(super) fn serialize<S: Serializer>(laplacian: &Laplacian, serializer: S) -> Result<S::Ok, S::Error> {
        let probes = laplacian.n_probes;
        let kind = match laplacian.rule {
            LaplacianRule::Rademacher => Kind::Rademacher { probes },
            LaplacianRule::Gaussian => Kind::Gaussian { probes },
            LaplacianRule::Exact => Kind::Exact,
        };
        kind::serialize(&kind, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Laplacian, D::Error> {
        Ok(match kind::deserialize(deserializer)? {
            Kind::Rademacher { probes } => Laplacian { rule: LaplacianRule::Rademacher, n_probes: probes },
            Kind::Gaussian { probes } => Laplacian { rule: LaplacianRule::Gaussian, n_probes: probes },
            Kind::Exact => Laplacian::EXACT,
        })
    }
}
