//! The page: HTML without scripts, fonts or anything else from elsewhere.

use std::fmt::Write;

use super::figure::Figure;
use super::{Subject, tables};
use crate::display::significant;
use crate::evaluate::{Means, Measure};
use crate::picture::{Colors, escape, style_sheet, svg};
use crate::train::Verdict;

/// The page of `subject` with the figures of each view, and what could not be drawn.
pub(super) fn html(subject: &Subject, figures: &[(String, Vec<Figure>)], problems: &[String]) -> String {
    let title = escape(&subject.title);
    // Nothing may be loaded, whatever a name in the data says.
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\"/>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>\
         <title>{title} – action-matching</title>\n<style>\n{}{}</style></head>\n<body>\n<header><h1>{title}</h1>\n",
        style_sheet(),
        include_str!("page.css")
    );
    let _ = writeln!(out, "<p class=\"lead\">{}</p>", escape(&subject.lead()));
    out += &tiles(subject);
    for note in subject.notes.iter().chain(problems) {
        let _ = writeln!(out, "<p class=\"missing\">{}</p>", escape(note));
    }
    out += "</header>\n<main>\n";
    let is_single = figures.len() == 1;
    for (name, figures) in figures {
        if !is_single {
            let _ = writeln!(out, "<h2>Under {}</h2>", escape(name));
        }
        for figure in figures {
            out += &section(figure, if is_single { 2 } else { 3 });
        }
    }
    if !subject.scores.is_empty() {
        out += "<section><h2>Scores</h2>\n<p>Each snapshot is moved to the next by the model and compared with the true one. \
                The model is good if it is near the sampling floor, which is the distance between two halves of the truth, and \
                far below no motion.</p>\n";
        subject.scores.iter().for_each(|(name, report)| out += &tables::scores(name, report));
        out += "</section>\n";
    }
    if let Some(test) = &subject.test {
        out += "<section><h2>The test of the run</h2>\n<p>What the model does with the snapshots that it has seen; a value above \
                its limit is not passed.</p>\n";
        out += &tables::test(test);
        out += "</section>\n";
    }
    if let Some(figure) = subject.curves() {
        out += &section(&figure, 2);
    }
    if let Some(configuration) = &subject.configuration {
        let _ = write!(
            out,
            "<section><h2>Configuration</h2>\n<details><summary>All settings, which reproduce the run</summary><pre>{}</pre></details></section>\n",
            escape(configuration)
        );
    }
    out += "<section><h2>Provenance</h2>\n";
    out += &tables::pairs(&subject.provenance);
    out + "</section>\n</main>\n</body></html>\n"
}

fn section(figure: &Figure, level: usize) -> String {
    let mut out = format!("<section><h{level}>{}</h{level}>\n<figure><div class=\"panels\">\n", escape(&figure.title));
    figure.panels.iter().for_each(|panel| out += &svg(panel, Colors::OfPage));
    // Captions are this program's own words, with tags.
    let _ = writeln!(out, "</div><figcaption>{}</figcaption></figure></section>", figure.caption);
    out
}

/// The few numbers to see first.
fn tiles(subject: &Subject) -> String {
    let mut tiles: Vec<(String, String, &str)> = Vec::new();
    if let Some(test) = &subject.test {
        let (text, class) = match test.verdict {
            Verdict::Failed => ("failed", "bad"),
            Verdict::Noticed => ("passed, with a notice", "noticed"),
            Verdict::Passed | Verdict::NotApplicable => ("passed", "good"),
        };
        tiles.push((text.into(), "the run's own test".into(), class));
        if let Some(share) = test.unexplained {
            let percent = format!("{} %", significant(100.0 * share, 3));
            tiles.push((percent, "of the path's kinetic energy left unexplained; 0 is best".into(), ""));
        }
    }
    if let Some(means) = subject.scores.first().and_then(|(_, report)| report.means.first()) {
        let of = |name: &str| {
            let set = means.sets.iter().find(|set| set.name == name);
            set.and_then(|set| set.mean(Measure::W1)).map_or("–".into(), |mean| significant(mean.mean, 3))
        };
        let text = format!(
            "W1 of the model ({}); floor {}, no motion {}",
            Means::name(means),
            of("sampling floor"),
            of("no motion")
        );
        tiles.push((of("model"), text, ""));
    }
    if let Some(last) = subject.metrics.last() {
        tiles.push((tables::number(last.loss, 4), format!("loss at step {}", last.step), ""));
    }
    let [taken, asked] = subject.steps;
    tiles.push((
        taken.to_string(),
        if taken < asked { format!("of {asked} steps: not finished") } else { "steps".into() },
        "",
    ));
    let mut out = String::from("<div class=\"tiles\">");
    for (value, text, class) in tiles {
        let _ = write!(
            out,
            "<div class=\"tile\"><b class=\"{class}\">{}</b><span>{}</span></div>",
            escape(&value),
            escape(&text)
        );
    }
    out + "</div>\n"
}
