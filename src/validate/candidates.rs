//! Settings that a choice is made among.

use std::fmt;

use crate::config::{Config, Mass, Pairing, PathConfig};
use crate::data::Snapshots;
use crate::density_path::{Interpolant, Knots};
use crate::model::TimeEmbedding;

/// Settings that may be chosen: the part of a configuration in which candidates differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// How samples move between snapshots.
    pub path: PathConfig,
    /// Which samples belong together.
    pub pairing: Pairing,
    /// Time features of the network.
    pub time_embedding: TimeEmbedding,
    /// Hidden layers of the network.
    pub hidden: Vec<usize>,
    /// Growth rate λ.
    pub growth: f64,
    /// Meaning of the numbers of rows.
    pub mass: Mass,
}

impl Candidate {
    /// The settings of `config`, which is [settled](Config::settled).
    pub(super) fn of(config: &Config) -> Candidate {
        Candidate {
            path: config.objective.path.clone(),
            pairing: config.objective.pairing,
            time_embedding: config.model.time_embedding.clone().unwrap_or_default(),
            hidden: config.architecture(1).hidden,
            growth: config.objective.lambda(),
            mass: config.objective.mass.clone(),
        }
    }

    /// `config` with these settings.
    #[must_use]
    pub fn applied_to(&self, config: &Config) -> Config {
        let Candidate { path, pairing, time_embedding, hidden, growth, mass } = self.clone();
        let mut config = config.clone();
        (config.objective.path, config.objective.pairing) = (path, pairing);
        (config.objective.growth, config.objective.mass) = (Some(growth), mass);
        (config.model.time_embedding, config.model.hidden) = (Some(time_embedding), Some(hidden));
        config
    }

    /// True if both move mass the same way between snapshots: then they differ in their networks.
    pub(super) fn has_path_of(&self, other: &Candidate) -> bool {
        (&self.path, self.pairing, self.growth, &self.mass) == (&other.path, other.pairing, other.growth, &other.mass)
    }

    /// Rank by simplicity, the simplest first: without growth before with it, straight paths before
    /// curved ones, raw time before Fourier features, small networks before large ones, and pairs
    /// by optimal transport before independent, unbalanced and Wasserstein–Fisher–Rao ones.
    pub(super) fn complexity(&self) -> (bool, u8, usize, usize, u8) {
        let path = match self.path {
            PathConfig::Auto | PathConfig::Linear => 0,
            PathConfig::Spline { .. } => 1,
            _ => 2,
        };
        let pairing = match self.pairing {
            Pairing::Auto | Pairing::Ot { .. } => 0,
            Pairing::Independent => 1,
            Pairing::Unbalanced { .. } => 2,
            Pairing::Wfr { .. } => 3,
        };
        let size = self.hidden.iter().sum();
        (self.growth > 0.0, path, self.time_embedding.frequencies().len(), size, pairing)
    }

    /// Lines of a configuration that differ between this candidate and `base`.
    #[must_use]
    pub fn assignments(&self, base: &Config) -> Vec<(String, String)> {
        let table = |config: &Config| toml::Table::try_from(config).unwrap_or_default();
        let (old, new) = (table(base), table(&self.applied_to(base)));
        let mut assignments = Vec::new();
        for (section, keys) in &new {
            for (key, value) in keys.as_table().into_iter().flatten() {
                if old.get(section).and_then(|keys| keys.get(key)) != Some(value) {
                    assignments.push((format!("{section}.{key}"), crate::config::inline(value)));
                }
            }
        }
        assignments
    }
}

/// The candidate in a few words.
impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self.path {
            PathConfig::Auto | PathConfig::Linear => "linear",
            PathConfig::Spline { knots: Knots::Clock, .. } => "spline by clock",
            PathConfig::Spline { knots: Knots::Rank, .. } => "spline by rank",
            PathConfig::Spline { .. } => "spline",
            PathConfig::Learned { .. } => "learned",
            PathConfig::Nearest => "nearest",
            PathConfig::GenerativeLinear => "generative-linear",
            PathConfig::GenerativeVp => "generative-vp",
            PathConfig::GenerativeSqrt => "generative-sqrt",
        };
        let pairing = match self.pairing {
            Pairing::Independent => "independent",
            Pairing::Auto | Pairing::Ot { .. } => "ot",
            Pairing::Unbalanced { .. } => "unbalanced",
            Pairing::Wfr { .. } => "wfr",
        };
        let time = if self.time_embedding == TimeEmbedding::Raw { "raw" } else { "fourier" };
        let size = match self.hidden.first() {
            Some(width) if self.hidden.iter().all(|other| other == width) => format!("{}×{width}", self.hidden.len()),
            _ => self.hidden.iter().map(usize::to_string).collect::<Vec<_>>().join("-"),
        };
        write!(f, "{path} + {pairing}, {time}, {size}")?;
        if self.growth > 0.0 {
            write!(f, ", growth {}", self.growth)?;
        }
        Ok(())
    }
}

/// Which settings candidates differ in, beside path, pairing and time embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// None: the choice before a training.
    Paths,
    /// Size and growth too.
    All,
}

/// Growth of the candidates of `growth = "auto"`.
const LAMBDAS: [f64; 2] = [0.25, 1.0];
/// Factor between the numbers of rows of snapshots above which growth is a candidate.
const GROWTH: f64 = 1.2;

/// The candidates for settings that `config` leaves to the program, the simplest first. A setting
/// that it holds is the same in all.
pub(super) fn candidates(config: &Config, snapshots: &Snapshots, scope: Scope) -> Vec<Candidate> {
    let base = Candidate::of(&config.settled());
    let n_times = snapshots.times.len();
    let mut paths = vec![base.clone()];
    if config.objective.path == PathConfig::Auto {
        // A spline through the snapshots that a fold has left is a straight line if these are two.
        if n_times >= 4 && config.objective.pairing != Pairing::Independent {
            // Knots of the clock are far better for motion that times resolve, else worse.
            let spline = |knots| Candidate { path: PathConfig::spline(knots), ..base.clone() };
            paths.extend([Knots::Distance, Knots::Clock].map(spline));
        }
    }
    let of_paths = paths.clone();
    if config.objective.pairing == Pairing::Auto && base.path.interpolant().has_pairs() {
        if base.growth > 0.0 {
            let paired = |pairing: Pairing| paths.iter().map(move |path| Candidate { pairing, ..path.clone() });
            let mut more: Vec<Candidate> = paired(Pairing::unbalanced()).collect();
            if base.mass != Mass::Ignored {
                more.extend(paired(Pairing::wfr()));
            }
            paths.extend(more);
        }
        if base.path.interpolant() != Interpolant::Spline {
            paths.push(Candidate { pairing: Pairing::Independent, ..base.clone() });
        }
    }
    let counts = (0..n_times).map(|k| snapshots.total(k));
    let (fewest, most) = counts.fold((f64::INFINITY, 0.0), |(low, high), n| (n.min(low), n.max(high)));
    if config.objective.growth.is_none() {
        // The mass of those that grow is what is known, or else the counts.
        let mass = if config.objective.mass == Mass::Ignored { Mass::Counts } else { config.objective.mass.clone() };
        // On every path: a geodesic of mass that grows slows down on its way, which splines undo.
        let grows = |path: &Candidate, growth| Candidate {
            pairing: Pairing::wfr(),
            growth,
            mass: mass.clone(),
            ..path.clone()
        };
        paths.extend(of_paths.iter().flat_map(|path| LAMBDAS.map(|growth| grows(path, growth))));
    }
    let leaves_growth = config.objective.growth.is_some()
        && base.growth == 0.0
        && base.mass == Mass::Ignored
        && base.path.interpolant().has_pairs();
    if scope == Scope::All && leaves_growth && most > GROWTH * fewest && config.objective.pairing == Pairing::Auto {
        for (pairing, growth) in [(Pairing::unbalanced(), 1.0), (Pairing::wfr(), 0.25)] {
            paths.push(Candidate { pairing, growth, mass: Mass::Counts, ..base.clone() });
        }
    }
    let embeddings = match config.model.time_embedding {
        None if n_times >= 5 => {
            vec![TimeEmbedding::Raw, TimeEmbedding::Fourier { frequencies: frequencies(n_times) }]
        }
        _ => vec![base.time_embedding.clone()],
    };
    let sizes = match config.model.hidden {
        None if scope == Scope::All => vec![base.hidden.clone(), base.hidden.iter().map(|width| width / 2).collect()],
        _ => vec![base.hidden],
    };
    let mut candidates = Vec::new();
    for path in &paths {
        for time_embedding in &embeddings {
            for hidden in &sizes {
                let (time_embedding, hidden) = (time_embedding.clone(), hidden.clone());
                candidates.push(Candidate { time_embedding, hidden, ..path.clone() });
            }
        }
    }
    candidates.sort_by_key(Candidate::complexity);
    candidates
}

/// Octaves from half a cycle over the whole time up to one cycle over four intervals, half of what
/// `n_times` evenly spaced snapshots resolve.
fn frequencies(n_times: usize) -> Vec<f64> {
    let highest = (n_times - 1) as f64 / 4.0;
    std::iter::successors(Some(0.5), |f| Some(2.0 * f)).take_while(|&f| f <= highest).take(8).collect()
}
