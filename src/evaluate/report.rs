//! The report of `amatch evaluate`: named numbers, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use super::Theorems;
use crate::display::{shortest, significant};

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

/// One true snapshot and the particles that the model moved there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Time of the snapshot that the particles started from; `None` for noise.
    pub from: Option<f64>,
    /// Time of the true snapshot.
    pub to: f64,
    /// True if the model was trained without the true snapshot.
    pub held_out: bool,
    /// Particles.
    pub n_particles: usize,
    /// Points of the truth.
    pub n_truth: usize,
    /// Distances of the particles from the truth.
    pub model: Distances,
    /// Distances of the starting snapshot from the truth: the score of a model without motion.
    pub no_motion: Distances,
    /// Distances between two disjoint halves of the truth: the score of a perfect model with that
    /// many points. `None` with fewer than two points.
    pub sampling_floor: Option<Distances>,
    /// Kernel of MMD², with the median distance of the truth.
    pub kernel: Option<String>,
    /// ∫ E½‖∇s‖² along the flow, network units.
    pub kinetic_energy: f64,
    /// Root mean square of the Hamilton–Jacobi–Bellman residual ∂ₜs + H(∇s) along the flow, network
    /// units: 0 for optimal transport.
    pub hjb_residual: f64,
    /// With growth: mass of the particles relative to their start. They are compared with their
    /// weights.
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
    /// Comparison with the true action, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theorems: Option<Theorems>,
    /// Method of integration.
    pub method: String,
    /// Seed of the subsets and halves.
    pub seed: u64,
}

impl Comparison {
    /// Rows of the table per comparison.
    const ROWS: usize = 3;

    /// The rows of the table.
    fn rows(&self) -> [[String; 7]; Self::ROWS] {
        let from = self.from.map_or("noise".to_string(), shortest);
        let way = format!("{from} → {}{}", shortest(self.to), if self.held_out { " *" } else { "" });
        let row = |[way, moved, truth]: [String; 3], name: &str, distances: Option<Distances>| {
            let number = |value: Option<f64>| value.map_or("–".to_string(), |value| significant(value, 4));
            let w1 = number(distances.map(|distances| distances.w1));
            let w2 = number(distances.map(|distances| distances.w2));
            let mmd2 = distances.and_then(|distances| distances.mmd2);
            let mmd2 = mmd2.map_or("–".to_string(), |mmd2| format!("{mmd2:.3e}"));
            [way, moved, truth, name.to_string(), w1, w2, mmd2]
        };
        [
            row([way, self.n_particles.to_string(), self.n_truth.to_string()], "model", Some(self.model)),
            row(Default::default(), "no motion", Some(self.no_motion)),
            row(Default::default(), "floor", self.sampling_floor),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let table: Vec<[String; 7]> = [["from → to", "moved", "truth", "", "W1", "W2", "MMD²"].map(String::from)]
            .into_iter()
            .chain(self.comparisons.iter().flat_map(Comparison::rows))
            .collect();
        // At least two blanks between columns, however wide the numbers.
        let width = |column: usize, least: usize| {
            let widest = table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            least.max(widest + 2)
        };
        let widths =
            [(0, 16), (1, 8), (2, 8), (3, 12), (4, 10), (5, 10), (6, 12)].map(|(column, least)| width(column, least));
        let indent = widths[..3].iter().sum::<usize>() + 2;
        let line = |f: &mut fmt::Formatter, [way, moved, truth, name, w1, w2, mmd2]: &[String; 7]| {
            let [w_way, w_moved, w_truth, w_name, w_w1, w_w2, w_mmd2] = widths;
            writeln!(
                f,
                "{way:<w_way$}{moved:>w_moved$}{truth:>w_truth$}  {name:<0$}{w1:>w_w1$}{w2:>w_w2$}{mmd2:>w_mmd2$}",
                w_name - 2
            )
        };
        let (header, rows) = (&table[0], &table[1..]);
        line(f, header)?;
        for (comparison, rows) in self.comparisons.iter().zip(rows.chunks_exact(Comparison::ROWS)) {
            rows.iter().try_for_each(|row| line(f, row))?;
            let Comparison { kinetic_energy, hjb_residual, kernel, .. } = comparison;
            let kernel = kernel.as_deref().unwrap_or("none");
            let (energy, residual) = (significant(*kinetic_energy, 4), significant(*hjb_residual, 4));
            writeln!(f, "{:<indent$}kinetic energy {energy}, HJB residual {residual}", "")?;
            writeln!(f, "{:<indent$}kernel {kernel}", "")?;
            if let (Some(mass), Some(truth)) = (comparison.relative_mass, comparison.truth_relative_mass) {
                let (mass, truth) = (significant(mass, 4), significant(truth, 4));
                writeln!(f, "{:<indent$}relative mass {mass}, truth {truth}", "")?;
            }
            if let Some(log_likelihood) = comparison.log_likelihood {
                writeln!(f, "{:<indent$}log-likelihood {} nats", "", significant(log_likelihood, 4))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// At every magnitude the columns of all lines stay apart, and no number loses digits.
    #[test]
    fn columns_stay_apart_at_any_magnitude() {
        for scale in [1e-300, 1e-9, 1e-4, 1.0, 12_345.678, 1e15, 1e300] {
            let distances = Distances { w1: 1.2345678 * scale, w2: 2.3456789 * scale, mmd2: Some(-3.4567891 * scale) };
            let comparison = Comparison {
                from: Some(0.1 * scale),
                to: 0.7 * scale,
                held_out: true,
                n_particles: 123_456_789,
                n_truth: 987_654_321,
                model: distances,
                no_motion: distances,
                sampling_floor: None,
                kernel: None,
                kinetic_energy: 4.5678912 * scale,
                hjb_residual: 5.6789123 * scale,
                relative_mass: None,
                truth_relative_mass: None,
                log_likelihood: Some(-6.7891234 * scale),
            };
            let report =
                Report { comparisons: vec![comparison], theorems: None, method: "euler".into(), seed: 0 }.to_string();
            let row = report.lines().nth(1).unwrap_or_default();
            let (_, columns) = row.split_once('*').expect("the held-out snapshot");
            let columns: Vec<&str> = columns.split_whitespace().collect();
            let [moved, truth, "model", w1, w2, mmd2] = columns[..] else { panic!("{report}") };
            assert_eq!((moved, truth), ("123456789", "987654321"));
            let near = |text: &str, value: f64| {
                let read: f64 = text.trim_end_matches(',').parse().unwrap_or_else(|error| panic!("{text}: {error}"));
                assert!((read - value).abs() <= 0.5e-3 * value.abs(), "{text} is not {value}");
            };
            near(w1, 1.2345678 * scale);
            near(w2, 2.3456789 * scale);
            near(mmd2, -3.4567891 * scale);
            for (name, value) in [("energy ", 4.5678912), ("residual ", 5.6789123), ("likelihood ", -6.7891234)] {
                let (_, rest) = report.split_once(name).expect("a number");
                near(rest.split_whitespace().next().unwrap_or_default(), value * scale);
            }
            let end = |line: &str| line.chars().count();
            assert_eq!(end(row), end(report.lines().next().unwrap_or_default()), "{report}");
        }
    }
}
