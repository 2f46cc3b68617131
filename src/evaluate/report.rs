//! The report of `amatch evaluate`: numbers with their names, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use super::Theorems;

/// Distances between two sets of points, data units.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distances {
    /// Exact W₁, Euclidean cost.
    pub w1: f64,
    /// Exact W₂: the square root of the squared-Euclidean optimum.
    pub w2: f64,
    /// Unbiased MMD²; `None` with fewer than two points on a side, or without a kernel.
    pub mmd2: Option<f64>,
}

/// One true snapshot and the particles that the model brought there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Time of the snapshot that the particles started from; `None` for noise.
    pub from: Option<f64>,
    /// Time of the true snapshot.
    pub to: f64,
    /// Whether the model was trained without the true snapshot.
    pub held_out: bool,
    /// Particles.
    pub n_particles: usize,
    /// Points of the truth.
    pub n_truth: usize,
    /// Particles against the truth.
    pub model: Distances,
    /// The starting snapshot against the truth: what a model without motion would score.
    pub no_motion: Distances,
    /// Two disjoint halves of the truth against each other: what a perfect model of that many points would score. `None` with
    /// fewer than two points.
    pub sampling_floor: Option<Distances>,
    /// Kernel of MMD², with the median distance of the truth.
    pub kernel: Option<String>,
    /// ∫ E½‖∇s‖² over the way, network units.
    pub kinetic_energy: f64,
    /// Root mean square of the Hamilton–Jacobi–Bellman residual ∂ₜs + H(∇s) along the way, network units: 0 on optimal
    /// transport.
    pub hjb_residual: f64,
    /// With growth: mass of the particles relative to their start. They are compared with their weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative_mass: Option<f64>,
    /// With growth: rows of the true snapshot relative to those of the starting one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truth_relative_mass: Option<f64>,
    /// Mean log-density of the true points under a model that starts from noise, data units, nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_likelihood: Option<f64>,
}

/// Scores of a model on snapshots.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// One for each snapshot but the first.
    pub comparisons: Vec<Comparison>,
    /// Against the true action, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theorems: Option<Theorems>,
    /// How particles were moved.
    pub method: String,
    /// Seed of the subsets and halves.
    pub seed: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(
            f,
            "{:<16}{:>8}{:>8}  {:<10}{:>10}{:>10}{:>12}",
            "from → to", "moved", "truth", "", "W1", "W2", "MMD²"
        )?;
        for comparison in &self.comparisons {
            let Comparison { from, to, held_out, n_particles, n_truth, .. } = comparison;
            let from = from.map_or("noise".to_string(), |from| from.to_string());
            let way = format!("{from} → {to}{}", if *held_out { " *" } else { "" });
            let rows = [
                ("model", Some(comparison.model)),
                ("no motion", Some(comparison.no_motion)),
                ("floor", comparison.sampling_floor),
            ];
            for (index, (name, distances)) in rows.into_iter().enumerate() {
                let (way, moved, truth) = if index == 0 {
                    (way.clone(), n_particles.to_string(), n_truth.to_string())
                } else {
                    Default::default()
                };
                let (w1, w2, mmd2) = match distances {
                    Some(Distances { w1, w2, mmd2 }) => (
                        format!("{w1:.4}"),
                        format!("{w2:.4}"),
                        mmd2.map_or("–".to_string(), |mmd2| format!("{mmd2:.2e}")),
                    ),
                    None => ("–".into(), "–".into(), "–".into()),
                };
                writeln!(f, "{way:<16}{moved:>8}{truth:>8}  {name:<10}{w1:>10}{w2:>10}{mmd2:>12}")?;
            }
            let Comparison { kinetic_energy, hjb_residual, kernel, .. } = comparison;
            let kernel = kernel.as_deref().unwrap_or("none");
            writeln!(f, "{:<34}kinetic energy {kinetic_energy:.4}, HJB residual {hjb_residual:.4}", "")?;
            writeln!(f, "{:<34}kernel {kernel}", "")?;
            if let (Some(mass), Some(truth)) = (comparison.relative_mass, comparison.truth_relative_mass) {
                writeln!(f, "{:<34}relative mass {mass:.4}, truth {truth:.4}", "")?;
            }
            if let Some(log_likelihood) = comparison.log_likelihood {
                writeln!(f, "{:<34}log-likelihood {log_likelihood:.4} nats", "")?;
            }
        }
        if self.comparisons.iter().any(|comparison| comparison.held_out) {
            writeln!(f, "* held out: the model was trained without this snapshot")?;
        }
        writeln!(
            f,
            "W1, W2 (exact) and MMD² (unbiased) are in data units; kinetic energy and HJB residual in network units."
        )?;
        writeln!(
            f,
            "no motion: the starting snapshot itself. floor: two disjoint halves of the truth. {}",
            self.method
        )?;
        if let Some(theorems) = &self.theorems {
            write!(f, "\n{theorems}")?;
        }
        Ok(())
    }
}
