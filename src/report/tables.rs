//! Tables of the page: scores, the test of the run, pairs of names and values.

use std::fmt::Write;

use crate::display::significant;
use crate::evaluate::{Comparison, Means, Measure, Members, OverMembers, Report, Verdict};
use crate::picture::escape;
use crate::train::{SelfTest, Verdict as Found};

/// A table of `header` and `rows`, whose first column is text.
fn table(class: &str, header: &[&str], rows: &[Vec<String>]) -> String {
    let mut out = format!("<div class=\"scroll\"><table class=\"{class}\"><thead><tr>");
    for name in header {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(name));
    }
    out += "</tr></thead><tbody>\n";
    for row in rows {
        out += "<tr>";
        for (k, cell) in row.iter().enumerate() {
            let _ = if k == 0 { write!(out, "<th scope=\"row\">{cell}</th>") } else { write!(out, "<td>{cell}</td>") };
        }
        out += "</tr>\n";
    }
    out + "</tbody></table></div>\n"
}

/// What `evaluate` prints, as tables; `name` is that of a condition, or empty.
pub(super) fn scores(name: &str, report: &Report) -> String {
    let mut out = String::new();
    if !name.is_empty() {
        let _ = writeln!(out, "<h3>{}</h3>", escape(name));
    }
    let mut said: Vec<String> = report.notes.clone();
    said.extend(report.members.as_ref().map(Members::note));
    if report.comparisons.len() < report.possible_comparisons {
        let (n, all) = (report.comparisons.len(), report.possible_comparisons);
        said.push(format!("{n} of {all} comparisons, spread evenly over the times."));
    }
    said.extend(report.verdicts.iter().filter_map(Verdict::disagreement));
    for line in &said {
        let _ = writeln!(out, "<p>{}</p>", escape(line));
    }
    for warning in &report.warnings {
        let _ = writeln!(out, "<p class=\"bad\"><b>Warning:</b> {}</p>", escape(warning));
    }
    report.means.iter().for_each(|of| out += &means(of));
    out += &comparisons(report);
    if let Some(members) = &report.members {
        let _ = writeln!(out, "<p>{} members: mean ± standard deviation over the members.</p>", members.count);
        let names = report.means.iter().map(Means::name).chain(report.comparisons.iter().map(Comparison::way));
        let cell = |over: &Option<OverMembers>| match over {
            Some(over) => format!("{} <small>± {}</small>", number(over.mean, 3), number(over.spread, 3)),
            None => "–".into(),
        };
        let rows: Vec<Vec<String>> = (names.zip(members.means.iter().chain(&members.comparisons)))
            .map(|(name, scores)| vec![escape(&name), cell(&scores.w1), cell(&scores.w2), cell(&scores.energy)])
            .collect();
        out += &table("numbers", &["from → to", "W1", "W2", "energy"], &rows);
    }
    let _ = writeln!(out, "<p class=\"legend\">{}</p>", escape(&report.legend().join(" ")));
    out
}

/// Means of one role and kind, with the model's line first and its floor marked.
fn means(of: &Means) -> String {
    let comparisons = format!("{} comparison{}", of.comparisons, if of.comparisons == 1 { "" } else { "s" });
    let points = match of.n_points {
        Some([least, most]) if least == most => format!(", {most} points a side"),
        Some([least, most]) => format!(", {least} to {most} points a side"),
        None => String::new(),
    };
    let measures = Measure::ALL;
    let rows: Vec<Vec<String>> = (of.sets.iter())
        .map(|set| {
            let cell = |measure: Measure| match set.mean(measure) {
                None => "–".into(),
                Some(mean) => {
                    let error = mean.standard_error.map(|error| format!(" <small>± {}</small>", number(error, 3)));
                    number(mean.mean, 3) + &error.unwrap_or_default()
                }
            };
            let name = if set.name == "model" { format!("<b>{}</b>", set.name) } else { escape(set.name) };
            std::iter::once(name).chain(measures.map(cell)).collect()
        })
        .collect();
    let header = ["mean ± error", "W1", "W2", "energy", "MMD² h/2", "MMD² h", "MMD² 2h"];
    let heading = format!("<h3>{}: {comparisons}{points}</h3>\n", escape(&of.name()));
    let mut out = heading + &table("numbers", &header, &rows);
    if let (Some(energy), Some(residual)) = (of.kinetic_energy, of.hjb_residual) {
        let _ = writeln!(
            out,
            "<p>Kinetic energy {}, HJB residual {} (network units).</p>",
            number(energy.mean, 4),
            number(residual.mean, 4)
        );
    }
    out
}

fn comparisons(report: &Report) -> String {
    let rows: Vec<Vec<String>> =
        report.comparisons.iter().map(|of| of.row().map(|cell| signed(&escape(&cell))).into()).collect();
    let header = ["from → to", "points", "W1, model", "no motion", "floor", "energy, model", "no motion"];
    let mut out = table("numbers", &header, &rows);
    let grows: Vec<Vec<String>> = (report.comparisons.iter())
        .filter_map(|of| {
            Some(vec![escape(&of.way()), number(of.relative_mass?, 4), number(of.truth_relative_mass?, 4)])
        })
        .collect();
    if !grows.is_empty() {
        out += &table("numbers", &["from → to", "relative mass", "of the truth"], &grows);
    }
    out
}

/// The checks of a run.
pub(super) fn test(test: &SelfTest) -> String {
    let rows: Vec<Vec<String>> = (test.checks.iter())
        .map(|check| {
            let class = match check.verdict {
                Found::Passed => "good",
                Found::Noticed => "noticed",
                Found::Failed => "bad",
                Found::NotApplicable => "none",
            };
            let value = check.value.map_or("–".into(), |value| number(value, 3));
            let mut said = escape(&check.meaning);
            if let Some(message) = &check.message {
                let _ = write!(said, "<br/><b>{}</b>", escape(message));
            }
            let verdict = format!("<span class=\"badge {class}\">{}</span>", check.verdict.name());
            vec![escape(&check.name), verdict, value, number(check.threshold, 3), said]
        })
        .collect();
    table("checks", &["check", "verdict", "value", "at most", "the number, and what was found"], &rows)
}

/// Names and values.
pub(super) fn pairs(pairs: &[(String, String)]) -> String {
    let mut out = String::from("<dl>");
    for (name, value) in pairs {
        let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
    }
    out + "</dl>\n"
}

/// `value` with so many digits.
pub(super) fn number(value: f64, digits: usize) -> String {
    signed(&significant(value, digits))
}

/// A number with signs as wide as a digit; other text as it is.
fn signed(text: &str) -> String {
    if text.parse::<f64>().is_ok() { text.replace('-', "−") } else { text.into() }
}
