//! The report under conditions: means over the groups of rows first, then each group.

use std::fmt;

use serde::{Serialize, Serializer};

use super::means::{MODEL, Means, NO_MOTION, SAMPLING_FLOOR};
use super::report::{Report, Sources, write_table, write_wrapped};
use super::verdict::Measure;
use crate::display::significant;
use crate::model::ConditionValue;

/// Scores of a model on the rows of several conditions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupReports {
    /// Where model and data come from, if they are files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Sources>,
    /// Means over the groups of the means of each, with standard errors between groups: a group
    /// counts once, however many comparisons it has.
    pub means: Vec<Means>,
    /// Each group.
    pub groups: Vec<GroupReport>,
}

/// The report of the rows of one condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupReport {
    /// Names and values of the condition.
    #[serde(serialize_with = "as_map")]
    pub condition: Vec<(String, ConditionValue)>,
    /// The condition in words, as `dose = 0.3, drug = A`.
    #[serde(skip)]
    pub name: String,
    /// Of its rows.
    #[serde(flatten)]
    pub report: Report,
}

fn as_map<S: Serializer>(condition: &[(String, ConditionValue)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(condition.iter().map(|(name, value)| {
        let value: serde_json::Value = match value {
            ConditionValue::Number(number) => (*number).into(),
            ConditionValue::Category(category) => category.as_str().into(),
        };
        (name, value)
    }))
}

impl GroupReports {
    /// The report of `groups`, whose sources are those of the first.
    #[must_use]
    pub fn new(groups: Vec<GroupReport>) -> Self {
        let all: Vec<&[Means]> = groups.iter().map(|group| &group.report.means[..]).collect();
        let sources = groups.first().and_then(|group| group.report.sources.clone());
        GroupReports { sources, means: Means::over(&all), groups }
    }
}

impl fmt::Display for GroupReports {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let [GroupReport { name, report, .. }] = &self.groups[..] {
            write_wrapped(f, name)?;
            return report.fmt(f);
        }
        self.sources.iter().try_for_each(|sources| write!(f, "{sources}"))?;
        let n = self.groups.len();
        write_wrapped(f, &format!("{n} groups: means over the groups, ± the standard error between them"))?;
        for means in &self.means {
            write!(f, "\n{means}")?;
        }
        for means in &self.means {
            writeln!(f)?;
            self.write_lines(f, means)?;
        }
        for GroupReport { name, report, .. } in &self.groups {
            writeln!(f)?;
            write_wrapped(f, name)?;
            write!(f, "{}", report.without_sources())?;
        }
        Ok(())
    }
}

impl GroupReports {
    /// A line for each group that has means of the kind of `over`.
    fn write_lines(&self, f: &mut fmt::Formatter, over: &Means) -> fmt::Result {
        /// Widest name beside the numbers; longer ones have a line of their own.
        const WIDEST: usize = 24;
        let two_lines = [
            ["", "", "W1", "", "", "energy", ""],
            ["each group", "n", "model", "no motion", "floor", "model", "no motion"],
        ];
        let mut rows = two_lines.map(|line| line.map(String::from)).to_vec();
        let mut long = Vec::new();
        for GroupReport { name, report, .. } in &self.groups {
            let Some(means) = report.means.iter().find(|means| means.is_like(over)) else { continue };
            let cell = |set: &str, measure: Measure| {
                let set = means.sets.iter().find(|known| known.name == set);
                let mean = set.and_then(|set| set.mean(measure));
                mean.map_or("–".into(), |mean| significant(mean.mean, 3))
            };
            let is_long = name.chars().count() > WIDEST;
            long.push(is_long.then_some(name));
            rows.push([
                if is_long { String::new() } else { name.clone() },
                means.comparisons.to_string(),
                cell(MODEL.0, Measure::W1),
                cell(NO_MOTION.0, Measure::W1),
                cell(SAMPLING_FLOOR, Measure::W1),
                cell(MODEL.0, Measure::Energy),
                cell(NO_MOTION.0, Measure::Energy),
            ]);
        }
        write_wrapped(f, &format!("{}, a line for each group (n comparisons):", over.name()))?;
        let mut table = String::new();
        write_table(&mut table, [WIDEST, 4, 10, 11, 10, 10, 11], &rows)?;
        for (k, line) in table.lines().enumerate() {
            if let Some(name) = k.checked_sub(two_lines.len()).and_then(|k| long[k]) {
                write_wrapped(f, name)?;
            }
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::report::COLUMNS;
    use crate::evaluate::report::tests::{comparison, distances, report};
    use crate::evaluate::{Mean, Role};

    /// Two comparisons seen and one held out in the first group, one seen in the second, of which
    /// the first has a long name.
    fn groups() -> GroupReports {
        let of = |scales: &[(f64, Role)]| {
            let each = scales.iter().enumerate();
            report(
                2,
                each.map(|(k, &(scale, role))| {
                    comparison(k as f64 + 1.0, role, distances(scale), distances(4.0 * scale))
                })
                .collect(),
            )
        };
        let group = |name: &str, value: ConditionValue, report| GroupReport {
            condition: vec![("drug".into(), value)],
            name: name.into(),
            report,
        };
        let long = "drug = a name that is far longer than a column of any table should ever be, and goes on";
        GroupReports::new(vec![
            group(long, "long".into(), of(&[(1.0, Role::Seen), (2.0, Role::Seen), (7.0, Role::HeldOut)])),
            group("drug = 2", 2.0.into(), of(&[(4.5, Role::Seen)])),
        ])
    }

    #[test]
    fn a_group_counts_once() {
        let GroupReports { means, .. } = groups();
        let w1 = distances(1.0).w1;
        let model = |k: usize| means[k].sets[0].w1.expect("a mean");
        assert_eq!((means[0].training, means[0].comparisons), (Role::HeldOut, 1));
        assert_eq!(model(0), Mean { mean: 7.0 * w1, standard_error: None });
        // Means 1.5 and 4.5 of the two groups: 3, with an error of 3 / √2 / √2.
        assert_eq!((means[1].training, means[1].comparisons), (Role::Seen, 3));
        assert!((model(1).mean - 3.0 * w1).abs() < 1e-12);
        assert!((model(1).standard_error.expect("two groups") - 1.5 * w1).abs() < 1e-12);
    }

    #[test]
    fn the_summary_comes_first_and_fits_a_terminal() {
        let text = groups().to_string();
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(COLUMNS), "{widest:?}: {text}");
        let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part}: {text}"));
        assert!(text.starts_with("2 groups: means over the groups"), "{text}");
        let [summary, line] = ["seen: 3 comparisons", "\ndrug = 2  "].map(place);
        let details = place("seen: 1 comparison\n");
        assert!(summary < line && line < details, "{text}");
        let line = text.lines().find(|line| line.starts_with("drug = 2  ")).expect("a line");
        let columns: Vec<&str> = line.split_whitespace().skip(3).collect();
        assert_eq!(columns[..3], ["1", "5.56", "22.2"], "{line}");
    }

    #[test]
    fn json_has_means_and_groups() {
        let json = serde_json::to_value(groups()).expect("JSON");
        assert_eq!(json["means"][1]["comparisons"], 3);
        assert_eq!(json["groups"][0]["condition"], serde_json::json!({"drug": "long"}));
        assert_eq!(json["groups"][1]["condition"], serde_json::json!({"drug": 2.0}));
        assert!(json["groups"][1]["comparisons"][0]["model"]["w1"].is_number());
    }
}
