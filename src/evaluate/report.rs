//! The report of `amatch evaluate`: named numbers, as tables and as JSON.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::labels::{Kind, Role};
use super::large::SlicedScores;
use super::means::{Mean, Means, SlicedMeans};
use super::members::{MemberScores, Members, OverMembers};
use super::verdict::{Measure, Verdict};
use super::{Theorems, means};
use crate::display::{shortest, significant};

/// Widest line of a report, if no number is wider than usual.
pub(super) const COLUMNS: usize = 80;

/// Distances between two sets of points, data units. The unbiased ones need two points on each
/// side.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distances {
    /// Exact W₁, Euclidean cost.
    pub w1: f64,
    /// Exact W₂: the square root of the squared-Euclidean optimum.
    pub w2: f64,
    /// Unbiased squared [energy distance](super::energy_distance).
    pub energy: Option<f64>,
    /// Unbiased MMD² with half the bandwidth of `mmd2`.
    pub mmd2_half: Option<f64>,
    /// Unbiased MMD², whose bandwidth is the median distance between points of the truth.
    pub mmd2: Option<f64>,
    /// Unbiased MMD² with twice that bandwidth.
    pub mmd2_double: Option<f64>,
}

/// Distances of sets of points from one truth. W₁ and W₂ of all of them are between `n_points`
/// points and as many of the truth, because they fall with the number of points; the unbiased
/// distances do not, and are between all points there are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EqualNumbers {
    /// Points on each side of W₁ and W₂, and of [`Comparison::sampling_floor`].
    pub n_points: usize,
    /// The model's particles.
    pub model: Distances,
    /// The model's particles from the first snapshot, if not all comparisons start there.
    pub roll_out: Option<Distances>,
    /// The snapshot that the particles start from.
    pub no_motion: Distances,
    /// The snapshot before the truth, if the particles start from another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Distances>,
    /// The snapshot after it, if the truth was not trained on and lies between two that were. So
    /// also the following.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Distances>,
    /// Rows of the two, more of the nearer one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooled_neighbors: Option<Distances>,
    /// Points between the two on an exact W₂ plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_midpoint: Option<Distances>,
}

/// One true snapshot and the particles that the model moved there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Time of the snapshot that the particles started from; `None` for noise.
    pub from: Option<f64>,
    /// Time of the true snapshot.
    pub to: f64,
    /// What the training knew of the true snapshot.
    pub training: Role,
    /// True if the model was trained without the true snapshot.
    pub held_out: bool,
    /// Where the truth lies.
    pub kind: Kind,
    /// Particles.
    pub n_particles: usize,
    /// Points of the truth.
    pub n_truth: usize,
    /// Distances of all particles from all points of the truth, as publications give them.
    pub model: Distances,
    /// Distances of the starting snapshot from the truth: the score of a model without motion.
    pub no_motion: Distances,
    /// Distances between two halves of the truth, or between rows that were held out and as many of
    /// their time that were not: the score of a perfect model with that many points. `None` with
    /// fewer than two points.
    pub sampling_floor: Option<Distances>,
    /// Scores that may be compared with each other and with the floor; `None` with fewer than two
    /// points.
    pub equal_numbers: Option<EqualNumbers>,
    /// Sliced distances, if a snapshot has more points than exact ones take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sliced: Option<SlicedScores>,
    /// Kernel of `mmd2`, with the median distance of the truth.
    pub kernel: Option<String>,
    /// ∫ E½‖∇s‖² along the flow, network units.
    pub kinetic_energy: f64,
    /// Root mean square of the Hamilton–Jacobi–Bellman residual ∂ₜs + H(∇s) + ½λs² along the flow,
    /// network units: 0 for optimal transport. Without growth less its mean over the rows of a
    /// time, as s + c(t) is the same model.
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

/// What was evaluated.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sources {
    /// The run folder, if the model is in one.
    pub run: Option<PathBuf>,
    /// The model.
    pub model: PathBuf,
    /// The configuration of the run.
    pub configuration: Option<PathBuf>,
    /// The files of the snapshots.
    pub data: Vec<PathBuf>,
}

/// Scores of a model on snapshots.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Where model and data come from, if they are files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Sources>,
    /// What a user should know before the numbers, one sentence each.
    pub notes: Vec<String>,
    /// Means over the comparisons of each kind, what is predicted first.
    pub means: Vec<Means>,
    /// The model against predictions that need none.
    pub verdicts: Vec<Verdict>,
    /// What is wrong with the model as far as the verdicts show, one sentence with a remedy each.
    pub warnings: Vec<String>,
    /// One for each snapshot but the first, or an evenly chosen part of these.
    pub comparisons: Vec<Comparison>,
    /// Number of comparisons there would be if none were left out.
    pub possible_comparisons: usize,
    /// The scores over all members of an ensemble, whose first one all other numbers are of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Members>,
    /// Comparison with the true action, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theorems: Option<Theorems>,
    /// Method of integration.
    pub method: String,
    /// Seed of the subsets and halves.
    pub seed: u64,
}

impl Report {
    /// The report of `comparisons` in `dim` dimensions, out of `possible_comparisons`.
    pub(super) fn new(
        dim: usize,
        comparisons: Vec<Comparison>,
        possible_comparisons: usize,
        method: String,
        seed: u64,
    ) -> Report {
        let means = Means::of(&comparisons);
        let verdicts = Verdict::of(dim, &means, &comparisons);
        let warnings = verdicts.iter().filter_map(Verdict::warning).collect();
        let (sources, notes, members, theorems) = (None, Vec::new(), None, None);
        Report {
            sources,
            notes,
            means,
            verdicts,
            warnings,
            comparisons,
            possible_comparisons,
            members,
            theorems,
            method,
            seed,
        }
    }
}

impl Comparison {
    /// What its scores are averaged with.
    pub(super) fn group(&self) -> (Role, Kind) {
        (self.training, self.kind)
    }

    /// Its start and end in words, with a mark for what was not seen ([`Report::legend`]).
    #[must_use]
    pub fn way(&self) -> String {
        // 15.04, not 15.040000000000001.
        let shortest = |time: f64| shortest(format!("{time:.9e}").parse().unwrap_or(time));
        let from = self.from.map_or("noise".to_string(), shortest);
        let mark = match (self.training, self.kind) {
            (Role::Seen | Role::Unknown, _) => "",
            (Role::HeldOut, Kind::Forecast) => " * →",
            (Role::HeldOut, _) => " *",
            (Role::NeverSeen, _) => " ?",
        };
        format!("{from} → {}{mark}", shortest(self.to))
    }

    /// The line of the table: [`Comparison::way`], points of either side, W₁ of the model, of no
    /// motion and of the sampling floor, energy distance of the model and of no motion.
    #[must_use]
    pub fn row(&self) -> [String; 7] {
        let model = means::MODEL.1(self);
        let no_motion = means::NO_MOTION.1(self);
        let number = |distances: Option<Distances>, measure: Measure| {
            distances.and_then(|distances| measure.of(&distances)).map_or("–".into(), |value| significant(value, 4))
        };
        let n_points = self.equal_numbers.as_ref().map_or("1".into(), |equal| equal.n_points.to_string());
        [
            self.way(),
            n_points,
            number(model, Measure::W1),
            number(no_motion, Measure::W1),
            number(self.sampling_floor, Measure::W1),
            number(model, Measure::Energy),
            number(no_motion, Measure::Energy),
        ]
    }
}

/// Writes a table: the first column to the left, the others to the right, in `widths`, or wider so
/// that a blank lies between columns.
pub(super) fn write_table<const N: usize>(
    f: &mut dyn fmt::Write,
    widths: [usize; N],
    rows: &[[String; N]],
) -> fmt::Result {
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        widths[column].max(widest + 1)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (text, width) in row.iter().zip(widths).skip(1) {
            line += &format!("{text:>width$}");
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Writes `text` in lines of at most [`COLUMNS`] characters, the second and later ones indented.
pub(super) fn write_wrapped(f: &mut fmt::Formatter, text: &str) -> fmt::Result {
    let (mut line, mut length) = (String::new(), 0);
    for word in text.split_whitespace() {
        let n = word.chars().count();
        if length > 0 && length + 1 + n > COLUMNS {
            writeln!(f, "{line}")?;
            (line, length) = (String::from(" "), 1);
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        line += word;
        length += n;
    }
    writeln!(f, "{line}")
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        write!(f, "{}: {}", self.name(), plural(self.comparisons, "comparison"))?;
        writeln!(f, "{}", self.n_points.map_or(String::new(), |range| format!(", {}", a_side(range))))?;
        let mut rows = vec![["mean ± error", "W1", "W2", "energy", "MMD² h/2", "MMD² h", "MMD² 2h"].map(String::from)];
        for set in &self.sets {
            let cell = |of: &dyn Fn(Mean) -> Option<f64>| {
                Measure::ALL.map(|measure| set.mean(measure).and_then(of).map_or("–".into(), |x| significant(x, 3)))
            };
            let [w1, w2, energy, half, own, double] = cell(&|mean| Some(mean.mean));
            rows.push([self.name_of(set.name, set.comparisons), w1, w2, energy, half, own, double]);
            if self.comparisons > 1 {
                let [w1, w2, energy, half, own, double] = cell(&|mean| mean.standard_error);
                rows.push([String::new(), w1, w2, energy, half, own, double].map(|text| match text.as_str() {
                    "" | "–" => String::new(),
                    error => format!("±{error}"),
                }));
            }
        }
        write_table(f, [18, 10, 10, 10, 10, 10, 10], &rows)?;
        self.write_sliced(f)?;
        if let (Some(energy), Some(residual)) = (self.kinetic_energy, self.hjb_residual) {
            let [energy, residual] = [energy, residual].map(|mean| significant(mean.mean, 4));
            writeln!(f, "kinetic energy {energy}, HJB residual {residual} (network units)")?;
        }
        Ok(())
    }
}

/// "1429 points a side", or from the fewest to the most.
fn a_side([least, most]: [usize; 2]) -> String {
    match most {
        _ if least < most => format!("{least} to {most} points a side"),
        1 => "1 point a side".into(),
        _ => format!("{most} points a side"),
    }
}

impl Means {
    /// The table of sliced distances, if there are any.
    fn write_sliced(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Some(range) = self.n_sliced else { return Ok(()) };
        writeln!(f, "sliced W2, {}", a_side(range))?;
        let row = |SlicedMeans { name, comparisons, sliced_w2 }: &SlicedMeans| {
            let error = sliced_w2.standard_error.map_or(String::new(), |error| format!("±{}", significant(error, 3)));
            [self.name_of(name, *comparisons), significant(sliced_w2.mean, 3), error]
        };
        write_table(f, [18, 10, 10], &self.sliced.iter().map(row).collect::<Vec<_>>())
    }

    /// The name of a set, with its number of comparisons if not all have it.
    fn name_of(&self, name: &str, comparisons: usize) -> String {
        if comparisons == self.comparisons { name.into() } else { format!("{name} ({comparisons})") }
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Sources { model, configuration, data, .. } = self;
        writeln!(f, "model          {}", model.display())?;
        if let Some(configuration) = configuration {
            writeln!(f, "configuration  {}", configuration.display())?;
        }
        data.iter().try_for_each(|file| writeln!(f, "data           {}", file.display()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.sources.iter().try_for_each(|sources| write!(f, "{sources}"))?;
        self.notes.iter().try_for_each(|note| write_wrapped(f, note))?;
        if let Some(members) = &self.members {
            write_wrapped(f, &members.note())?;
        }
        if self.comparisons.len() < self.possible_comparisons {
            let (n, all) = (self.comparisons.len(), self.possible_comparisons);
            write_wrapped(f, &format!("{n} of {all} comparisons, spread evenly over the times"))?;
        }
        for means in &self.means {
            write!(f, "\n{means}")?;
        }
        let disagreements: Vec<String> = self.verdicts.iter().filter_map(Verdict::disagreement).collect();
        if !(disagreements.is_empty() && self.warnings.is_empty()) {
            writeln!(f)?;
        }
        disagreements.iter().try_for_each(|line| write_wrapped(f, line))?;
        self.warnings.iter().try_for_each(|warning| write_wrapped(f, &format!("warning: {warning}")))?;

        let two_lines = [
            ["", "", "W1", "", "", "energy", ""],
            ["from → to", "points", "model", "no motion", "floor", "model", "no motion"],
        ];
        let rows: Vec<[String; 7]> = two_lines
            .map(|line| line.map(String::from))
            .into_iter()
            .chain(self.comparisons.iter().map(Comparison::row))
            .collect();
        writeln!(f)?;
        write_table(f, [18, 8, 11, 11, 10, 11, 11], &rows)?;
        self.write_sliced(f)?;
        let grows: Vec<[String; 3]> = (self.comparisons.iter())
            .filter_map(|each| {
                let [mass, truth] = [each.relative_mass?, each.truth_relative_mass?].map(|mass| significant(mass, 4));
                Some([each.way(), mass, truth])
            })
            .collect();
        if !grows.is_empty() {
            let header = ["from → to", "relative mass", "of the truth"].map(String::from);
            writeln!(f)?;
            write_table(f, [18, 15, 14], &[&[header][..], &grows].concat())?;
        }
        for comparison in &self.comparisons {
            if let Some(log_likelihood) = comparison.log_likelihood {
                writeln!(f, "log-likelihood of {} {} nats", comparison.way(), significant(log_likelihood, 4))?;
            }
        }
        if let Some(members) = &self.members {
            writeln!(f)?;
            self.write_members(f, members)?;
        }
        self.legend().iter().try_for_each(|line| write_wrapped(f, line))?;
        if let Some(theorems) = &self.theorems {
            write!(f, "\n{theorems}")?;
        }
        Ok(())
    }
}

impl Report {
    /// The table of sliced distances, if there are any.
    fn write_sliced(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let of = |comparison: &Comparison| {
            let scores = comparison.sliced.as_ref()?;
            let cell = |name: &str| scores.of(name).map_or("–".into(), |distance| significant(distance, 4));
            let [model, no_motion, floor] = [means::MODEL.0, means::NO_MOTION.0, means::SAMPLING_FLOOR].map(cell);
            Some([comparison.way(), scores.n_points.to_string(), model, no_motion, floor])
        };
        let rows: Vec<[String; 5]> = self.comparisons.iter().filter_map(of).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let two_lines = [["", "", "sliced W2", "", ""], ["from → to", "points", "model", "no motion", "floor"]];
        writeln!(f)?;
        write_table(f, [18, 8, 11, 11, 10], &[&two_lines.map(|line| line.map(String::from))[..], &rows].concat())
    }

    /// The same report, for a place where its sources are named already.
    pub(super) fn without_sources(&self) -> Report {
        Report { sources: None, ..self.clone() }
    }

    /// The table of an ensemble.
    fn write_members(&self, f: &mut fmt::Formatter, members: &Members) -> fmt::Result {
        writeln!(f, "{} members: mean ± standard deviation over the members", members.count)?;
        let mut rows = vec![["from → to", "W1", "±", "W2", "±", "energy", "±"].map(String::from)];
        let names = (self.means.iter().map(Means::name)).chain(self.comparisons.iter().map(Comparison::way));
        let all = || names.clone().zip(members.means.iter().chain(&members.comparisons));
        for (name, scores) in all() {
            let MemberScores { w1, w2, energy, .. } = scores;
            let cell = |over: &Option<OverMembers>, value: fn(&OverMembers) -> f64| {
                over.as_ref().map_or("–".into(), |over| significant(value(over), 3))
            };
            let [w1, w2, energy] = [w1, w2, energy].map(|over| [cell(over, |x| x.mean), cell(over, |x| x.spread)]);
            let [[w1, w1_spread], [w2, w2_spread], [energy, energy_spread]] = [w1, w2, energy];
            rows.push([name.to_string(), w1, w1_spread, w2, w2_spread, energy, energy_spread]);
        }
        write_table(f, [18, 10, 10, 10, 10, 10, 10], &rows)?;
        let sliced = |(name, scores): (String, &MemberScores)| {
            let OverMembers { mean, spread } = scores.sliced_w2?;
            Some([name, significant(mean, 3), significant(spread, 3)])
        };
        let rows: Vec<[String; 3]> = all().filter_map(sliced).collect();
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(f)?;
        write_table(f, [18, 10, 10], &[&[["from → to", "sliced W2", "±"].map(String::from)][..], &rows].concat())
    }

    /// What the words of the tables mean, as far as they occur, one sentence or more each.
    #[must_use]
    pub fn legend(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let has = |role: Role| self.comparisons.iter().any(|each| each.training == role);
        if has(Role::HeldOut) {
            lines.push("* held out: the model was trained without it".into());
        }
        if has(Role::NeverSeen) {
            lines.push("? never seen: no time of the model's data".into());
        }
        let has_forecast = self.comparisons.iter().any(|each| each.kind == Kind::Forecast);
        if has_forecast {
            lines.push("A forecast is of a time after the last one that the model was trained on.".into());
        }
        lines.push(
            "W1 and W2 (exact) fall with the number of points, so all but the last line's are between as many points; \
             energy (squared energy distance) and MMD² (bandwidth h: the median distance within the truth) are \
             unbiased. Data units."
                .into(),
        );
        if let Some(directions) = self.comparisons.iter().find_map(|each| Some(each.sliced.as_ref()?.directions)) {
            lines.push(format!(
                "Snapshots with more points than exact distances take are represented there by a random subset. \
                 Sliced W2 is of all of them: the root of d times the mean squared W2 along {directions} \
                 direction{}. It is below W2, so compare it with itself alone.",
                if directions == 1 { "" } else { "s" }
            ));
        }
        let has_set = |name: &str| self.means.iter().any(|means| means.sets.iter().any(|set| set.name == name));
        let mut sets = vec!["no motion: the snapshot that particles start from.".to_string()];
        if has_set("from the first") {
            sets.push("from the first: a roll-out from the first snapshot.".into());
        }
        if has_set("plan midpoint") {
            sets.push(
                "next, pooled neighbors, plan midpoint: the snapshot after, rows of both, and points between them on \
                 the exact W2 plan."
                    .into(),
            );
        }
        sets.push("floor: two halves of the truth, or held-out rows and as many of their time that were not.".into());
        lines.push(sets.join(" "));
        lines.push(format!("Moved by {}.", self.method));
        lines
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn distances(scale: f64) -> Distances {
        let mmd2 = Some(-3.4567891 * scale);
        Distances {
            w1: 1.2345678 * scale,
            w2: 2.3456789 * scale,
            energy: Some(-5.4567891 * scale),
            mmd2_half: mmd2,
            mmd2,
            mmd2_double: mmd2,
        }
    }

    pub fn comparison(to: f64, training: Role, model: Distances, no_motion: Distances) -> Comparison {
        Comparison {
            from: Some(0.0),
            to,
            training,
            held_out: training == Role::HeldOut,
            kind: Kind::Between,
            n_particles: 123_456_789,
            n_truth: 987_654_321,
            model,
            no_motion,
            sampling_floor: None,
            equal_numbers: None,
            sliced: None,
            kernel: None,
            kinetic_energy: 4.5,
            hjb_residual: 5.5,
            relative_mass: None,
            truth_relative_mass: None,
            log_likelihood: None,
        }
    }

    pub fn report(dim: usize, comparisons: Vec<Comparison>) -> Report {
        let n = comparisons.len();
        Report::new(dim, comparisons, n, "Euler".into(), 0)
    }

    /// At every magnitude the columns of all lines stay apart, and no number loses digits.
    #[test]
    fn columns_stay_apart_at_any_magnitude() {
        for scale in [1e-300, 1e-9, 1e-4, 1.0, 12_345.678, 1e15, 1e300] {
            let distances = distances(scale);
            let equal_numbers = Some(EqualNumbers {
                n_points: 4321,
                model: distances,
                roll_out: None,
                no_motion: distances,
                previous: None,
                next: None,
                pooled_neighbors: None,
                plan_midpoint: None,
            });
            let comparison = Comparison {
                from: Some(0.1 * scale),
                kinetic_energy: 4.5678912 * scale,
                hjb_residual: 5.6789123 * scale,
                log_likelihood: Some(-6.7891234 * scale),
                equal_numbers,
                ..comparison(0.7 * scale, Role::HeldOut, distances, distances)
            };
            let report = report(2, vec![comparison]).to_string();
            let row = report.lines().find(|line| line.contains(" * ")).expect("the held-out snapshot");
            let (_, columns) = row.split_once('*').expect("a mark");
            let columns: Vec<&str> = columns.split_whitespace().collect();
            let [points, w1, _, "–", energy, _] = columns[..] else { panic!("{report}") };
            assert_eq!(points, "4321");
            let near = |text: &str, value: f64| {
                let read: f64 = text.trim_end_matches(',').parse().unwrap_or_else(|error| panic!("{text}: {error}"));
                assert!((read - value).abs() <= 0.5e-3 * value.abs(), "{text} is not {value}");
            };
            near(w1, 1.2345678 * scale);
            near(energy, -5.4567891 * scale);
            for (name, value) in [("energy ", 4.5678912), ("residual ", 5.6789123), ("* ", -6.7891234)] {
                let line = report.lines().find(|line| line.contains("residual") || line.starts_with("log"));
                let line = match name {
                    "* " => report.lines().find(|line| line.starts_with("log")),
                    _ => line,
                };
                let (_, rest) = line.and_then(|line| line.split_once(name)).expect("a number");
                near(rest.split_whitespace().next().unwrap_or_default(), value * scale);
            }
        }
    }

    /// 41 snapshots, half of them held out: the means come first, and every line fits a terminal.
    #[test]
    fn a_long_report_fits_a_terminal() {
        let comparisons: Vec<Comparison> = (1..=40)
            .map(|k| {
                let role = if k % 2 == 1 { Role::HeldOut } else { Role::Seen };
                comparison(f64::from(k) * 0.5, role, distances(0.01 * f64::from(k)), distances(1e-6))
            })
            .collect();
        let report = report(30, comparisons);
        let text = report.to_string();
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(COLUMNS), "{widest:?}: {text}");
        let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part}: {text}"));
        assert!(place("held out: 20 comparisons") < place("seen: 20 comparisons"));
        assert!(place("seen: 20 comparisons") < place("0 → 0.5 *") && place("0 → 19.5 *") < place("0 → 20 "));
        let model = &report.means[0].sets[0];
        assert_eq!((model.name, model.comparisons), ("model", 20));
        // Odd k from 1 to 39: mean 20.
        let w1 = model.w1.expect("a mean");
        assert!((w1.mean - 0.2 * 1.2345678).abs() < 1e-12 && w1.standard_error.is_some());
    }

    /// (W1, energy distance) of the model and of no motion, and what is said.
    #[test]
    fn the_deciding_measure_depends_on_the_dimension() {
        let said = |dim: usize, role: Role, model: [f64; 2], no_motion: [f64; 2]| {
            let of = |[w1, energy]: [f64; 2]| Distances {
                w1,
                w2: w1,
                energy: Some(energy),
                mmd2_half: Some(energy),
                mmd2: Some(energy),
                mmd2_double: Some(energy),
            };
            let comparisons = (1..4).map(|k| comparison(f64::from(k), role, of(model), of(no_motion))).collect();
            let report = report(dim, comparisons);
            let disagree = report.verdicts.iter().any(|verdict| verdict.disagreement().is_some());
            (disagree, report.warnings)
        };
        let (better, worse) = ([1.0, 1.0], [2.0, 2.0]);
        assert_eq!(said(5, Role::HeldOut, better, worse), (false, vec![]));
        let (disagree, warnings) = said(5, Role::HeldOut, worse, better);
        assert!(!disagree && warnings.len() == 1, "{warnings:?}");
        let start = "at held-out times the model is worse than not moving (W1 2.00 against 1.00): ";
        assert!(warnings[0].starts_with(start), "{warnings:?}");
        // A smaller W1 with a larger energy distance.
        let (flat, wide) = ([1.0, 2.0], [2.0, 1.0]);
        assert_eq!(said(5, Role::Seen, flat, wide), (true, vec![]));
        let (disagree, warnings) = said(20, Role::Seen, flat, wide);
        assert!(disagree && warnings.len() == 1, "{warnings:?}");
        let start = "at times that were seen the model is worse than not moving (energy distance 2.00 against 1.00)";
        assert!(warnings[0].starts_with(start) && warnings[0].contains("train it longer"), "{warnings:?}");
        assert_eq!(said(20, Role::Seen, wide, flat), (true, vec![]));
        // A difference within a hundredth is none.
        assert_eq!(said(5, Role::Seen, [1.005, 1.0], [1.0, 1.0]), (false, vec![]));
    }
}
