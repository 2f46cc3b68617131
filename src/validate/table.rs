//! The table of a validation, and the one line about a choice.

use std::fmt;

use super::choice::mean_of;
use super::{LeaveOut, Mean, Score, Validation, mean_energy};
use crate::display::significant;

/// Digits of a mean.
const DIGITS: usize = 4;

/// mean ± standard error.
fn with_error(mean: Mean) -> String {
    match mean.standard_error {
        Some(error) => format!("{} ± {}", significant(mean.mean, DIGITS), significant(error, 2)),
        None => significant(mean.mean, DIGITS),
    }
}

impl Validation {
    /// What was chosen, the scores of the best two, and what was compared, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let chosen = self.chosen();
        let score = |k: usize| significant(self.scored[k].energy().mean, DIGITS);
        let mut line = format!("chosen: {}; energy distance {}", chosen.candidate, with_error(chosen.energy()));
        if let Some(other) = (0..self.scored.len()).find(|&k| k != self.chosen) {
            line += &format!(", of {} {}", self.scored[other].candidate, score(other));
        }
        if let Some((name, scores)) = self.baselines.first() {
            line += &format!(", of {name} {}", significant(mean_energy(scores).mean, DIGITS));
        }
        let n_trained = self.scored.iter().filter(|scored| scored.steps > 0).count();
        line += &format!("; {} left out in turn", times(self.times.len()));
        line += &match n_trained {
            0 => format!(", points of {} paths compared", self.scored.len()),
            n => format!(", {n} candidates trained for up to {} steps", self.scored[0].steps),
        };
        if !self.beats_no_motion() {
            line += ". No candidate predicts them better than the unmoved snapshot before";
        }
        line
    }
}

fn times(n: usize) -> String {
    if n == 1 { "1 time".into() } else { format!("{n} times") }
}

/// The table: a line for each candidate and each baseline.
impl fmt::Display for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<[String; 4]> = vec![["".into(), "steps".into(), "energy distance".into(), "W1".into()]];
        for (k, scored) in self.scored.iter().enumerate() {
            let mark = if k == self.chosen { "* " } else { "  " };
            let steps = if scored.steps == 0 { "path".into() } else { scored.steps.to_string() };
            let w1 = scored.w1().map_or_else(|| "-".into(), with_error);
            lines.push([format!("{mark}{}", scored.candidate), steps, with_error(scored.energy()), w1]);
        }
        for (name, scores) in &self.baselines {
            let w1: Option<Vec<f64>> = scores.iter().map(|score: &Score| score.w1).collect();
            let w1 = w1.map_or_else(|| "-".into(), |w1| with_error(mean_of(w1)));
            lines.push([format!("  {name}"), "".into(), with_error(mean_energy(scores)), w1]);
        }
        let left_out = match self.leave_out {
            LeaveOut::Middle => "times between the first and the last, left out in turn, at most 24",
            LeaveOut::Last => "last times, each predicted from those before it",
            LeaveOut::Rows => "times with a fifth of the rows left out, three times",
        };
        writeln!(f, "Mean ± standard error over {} ({left_out})\n", times(self.times.len()))?;
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths = [0, 1, 2, 3].map(width);
        for [name, steps, energy, w1] in &lines {
            let pad = |text: &str, width: usize| " ".repeat(width - text.chars().count());
            let line = format!(
                "{name}{}  {}{steps}  {energy}{}  {w1}",
                pad(name, widths[0]),
                pad(steps, widths[1]),
                pad(energy, widths[2])
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
