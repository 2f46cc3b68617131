//! Rows of snapshots in the color of a number: growth rates, and how far members disagree.

use std::collections::BTreeMap;

use super::View;
use super::figure::Figure;
use super::motion::{Ways, panel, title_of};
use super::population::{Drawn, Plane, Population, with_ends};
use crate::display::{shortest, significant};
use crate::engine::Engine;
use crate::ensemble::Ensemble;
use crate::error::Result;
use crate::model::Model;
use crate::picture::{Ink, Panel, Range, Scene};

/// Rows of a snapshot at which the model is asked.
const ASKED: usize = 500;

/// Growth: the mass of moved particles over time, and growth rates of rows at `most` times; `None`
/// for a model without growth, or without data.
///
/// # Errors
/// Those of the engine, also for particles that are lost.
pub(super) fn growth(engine: &dyn Engine, view: &View, plane: &Plane, most: usize) -> Result<Option<Figure>> {
    let (Some(population), Some(model)) = (&view.population, view.members.first()) else { return Ok(None) };
    if model.objective.growth == 0.0 {
        return Ok(None);
    }
    let Ways(moved) = Ways::of(engine, model, population)?;
    let mut panels = Vec::new();
    if let Some(masses) = moved.masses() {
        let model_line: Vec<[f64; 2]> = moved.times.iter().copied().zip(masses).map(|(t, mass)| [t, mass]).collect();
        let first = population.snapshots[0].mass;
        let data: Vec<[f64; 2]> = population.snapshots.iter().map(|of| [of.time, of.mass / first]).collect();
        let all = || model_line.iter().chain(&data);
        let y = Range::of(all().map(|point| point[1]).chain([0.0]));
        let x = Range::of(all().map(|point| point[0]));
        let mut mass =
            Panel::new("Mass of the population", [x, Range { low: 0.0, ..y }], ["time", "mass, 1 at the start"]);
        mass.lines(std::slice::from_ref(&model_line), Ink::Model, 2.0, 1.0);
        mass.dots(data, Ink::Data, 4.5, 1.0);
        mass.key(&[("rows".into(), Ink::Data), ("model".into(), Ink::Model)]);
        panels.push(mass.scene);
    }
    let of = |model: &Model, rows: &[f64], times: &[f64]| Ok(model.local(engine, rows, times)?.growth_rate);
    let (asked, values) = asked(population, most, |rows, times| of(model, rows, times))?;
    let largest = most_of(values.iter().flatten().map(|rate| rate.abs()));
    let scale = Scale {
        range: Range { low: -largest, high: largest },
        ends: [-largest, largest].map(|rate| significant(rate, 2).replace('-', "−")),
        ink: |share| Ink::signed(2.0 * share - 1.0),
    };
    for (snapshot, values) in asked.iter().zip(&values) {
        let panel = panel(&title_of(snapshot), population, model, plane);
        panels.push(scale.colored(panel, &plane.places(snapshot, population.dim), values));
    }
    let mut caption = String::from(
        "<b>Mass:</b> that of particles moved from the first snapshot (orange), and the rows of the snapshots relative \
                   to the first (blue), or the sums of their weights. They agree if the mass follows the counts (<code>objective.mass \
                   = \"counts\"</code>) and the model is good; else counts say only how much was measured. <b>The others:</b> \
                   growth rates at rows of a snapshot, per unit of time: blue shrinks, orange grows; the most extreme 2 % are beyond the scale and have the \
                   color of its end.",
    );
    if view.members.len() > 1 {
        caption += " Mass and rates are those of the first member of the ensemble.";
    }
    Ok(Some(Figure::new("growth", "Growth", panels, caption)))
}

/// How far the members of an ensemble disagree about the velocity of rows at `most` times; `None`
/// for a single model, or without data.
///
/// # Errors
/// Those of the engine.
pub(super) fn spread(engine: &dyn Engine, view: &View, plane: &Plane, most: usize) -> Result<Option<Figure>> {
    let (Some(population), Some(model)) = (&view.population, view.members.first()) else { return Ok(None) };
    if view.members.len() < 2 {
        return Ok(None);
    }
    let ensemble = Ensemble::new(view.members.clone())?;
    let dim = population.dim;
    let disagreement = |rows: &[f64], times: &[f64]| -> Result<Vec<f64>> {
        let [mean, spread] = ensemble.local(engine, rows, times)?;
        let squares = |velocity: &[f64]| -> Vec<f64> {
            velocity.chunks_exact(dim).map(|v| v.iter().map(|part| part * part).sum()).collect()
        };
        let speeds = squares(&mean.velocity);
        let typical = (speeds.iter().sum::<f64>() / speeds.len().max(1) as f64).sqrt().max(f64::MIN_POSITIVE);
        Ok(squares(&spread.velocity).iter().map(|squared| squared.sqrt() / typical).collect())
    };
    let (asked, values) = asked(population, most, disagreement)?;
    let largest = most_of(values.iter().flatten().copied());
    let scale = Scale {
        range: Range { low: 0.0, high: largest },
        ends: ["0 %".into(), format!("{} %", significant(100.0 * largest, 2))],
        ink: Ink::time,
    };
    let colored = |(snapshot, values): (&Drawn, &Vec<f64>)| {
        let panel = panel(&title_of(snapshot), population, model, plane);
        scale.colored(panel, &plane.places(snapshot, dim), values)
    };
    let panels = asked.iter().zip(&values).map(colored).collect();
    let mut medians = Vec::new();
    for (snapshot, values) in asked.iter().zip(&values) {
        let mut values = values.clone();
        values.sort_by(f64::total_cmp);
        if let Some(median) = values.get(values.len() / 2) {
            medians.push(format!("{} % at time {}", significant(100.0 * median, 2), shortest(snapshot.time)));
        }
    }
    let caption = format!(
        "Standard deviation of the velocity over the {} members, relative to the typical speed at that time: its median is {}. \
         Where members disagree the data do not decide what the network does. This is a lower limit of the error: what all \
         members share, such as the path and the pairs, it does not show.",
        view.members.len(),
        medians.join(", ")
    );
    Ok(Some(Figure::new("spread", "Disagreement of the members", panels, caption)))
}

/// Some rows of `most` snapshots, and what `of` says of them.
fn asked(
    population: &Population,
    most: usize,
    of: impl Fn(&[f64], &[f64]) -> Result<Vec<f64>>,
) -> Result<(Vec<Drawn>, Vec<Vec<f64>>)> {
    let chosen = with_ends(population.snapshots.len(), most);
    let few: Vec<Drawn> = chosen.into_iter().map(|k| population.snapshots[k].thinned(population.dim, ASKED)).collect();
    let values =
        few.iter().map(|few| of(&few.rows, &vec![few.time; few.rows.len() / population.dim])).collect::<Result<_>>()?;
    Ok((few, values))
}

/// What 98 % of `values` do not exceed: a single one must not take all inks for itself.
fn most_of(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() * 49 / 50).copied().unwrap_or(1.0).max(f64::MIN_POSITIVE)
}

/// Inks of numbers.
struct Scale {
    range: Range,
    /// The ends of the range in words.
    ends: [String; 2],
    /// Of a share of the range.
    ink: fn(f64) -> Ink,
}

impl Scale {
    /// `panel` with a point at each of `places` in the ink of its value, and the scale.
    fn colored(&self, mut panel: Panel, places: &[[f64; 2]], values: &[f64]) -> Scene {
        let mut by_ink: BTreeMap<Ink, Vec<[f64; 2]>> = BTreeMap::new();
        for (place, value) in places.iter().zip(values) {
            by_ink.entry((self.ink)(self.range.share(*value))).or_default().push(*place);
        }
        for (ink, places) in by_ink {
            panel.dots(places, ink, 2.2, 1.0);
        }
        let [low, high] = &self.ends;
        panel.scale([low, high], self.ink);
        panel.scene
    }
}
