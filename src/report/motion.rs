//! Data, and particles that the model moves.

use super::View;
use super::figure::Figure;
use super::moved::{Moved, noise};
use super::population::{Drawn, Plane, Population, with_ends};
use crate::display::shortest;
use crate::engine::Engine;
use crate::error::Result;
use crate::evenly::evenly;
use crate::model::Model;
use crate::picture::{Ink, Panel, Range};

/// Particles of which the way is drawn.
const WAYS: usize = 120;
/// Times at which the way of a particle is known.
const WAY_TIMES: usize = 33;
/// Particles that are compared with a snapshot, and rows of it, at most.
const COMPARED: usize = 400;

/// The panels: data by time, ways of particles, and snapshots beside the particles that the model
/// moves there, `most` of them.
///
/// # Errors
/// Those of the engine, also for particles that are lost.
pub(super) fn figure(engine: &dyn Engine, view: &View, plane: &Plane, most: usize) -> Result<Option<Figure>> {
    let (Some(population), Some(model)) = (&view.population, view.members.first()) else { return Ok(None) };
    let mut panels = vec![data(population, model, plane)];
    let ways = Ways::of(engine, model, population)?;
    panels.push(ways.panel(population, model, plane));
    let mut compared = 0;
    for (from, to) in pairs(population, most) {
        panels.push(beside(engine, model, population, plane, from, to)?);
        compared += 1;
    }
    let start = if is_generative(population) { "noise" } else { "the first snapshot" };
    let mut caption = format!(
        "<b>Data:</b> {} <b>Ways:</b> {WAYS} particles or fewer that the model moves from {start}, colored by time, over the \
         data in gray.",
        population.note()
    );
    if compared > 0 {
        let from = if is_generative(population) { "noise" } else { "the last snapshot before it that was seen" };
        caption += &format!(
            " <b>The others:</b> a snapshot (blue) and particles that the model moved there from {from} (orange), {COMPARED} of \
             each at most. A good model puts orange where blue is, also at times that were held out."
        );
    }
    caption += match plane {
        Plane::Time => " There is one dimension: it is drawn against time, or with the density of its values.",
        Plane::Axes(_) if model.architecture.dim > 2 => {
            " Two dimensions are drawn; what lies apart in the others may overlap here."
        }
        Plane::Axes(_) => "",
        Plane::Basis(_) => " Particles have no place in the embedding: each is drawn at its nearest row of the data.",
    };
    if view.members.len() > 1 {
        caption += " The first member of the ensemble moves them.";
    }
    if model.objective.growth > 0.0 {
        caption += " Particles are drawn as often as their weights say.";
    }
    caption += " The frame leaves out the outermost 0.4 % of the data.";
    Ok(Some(Figure::new("motion", "Data and particles", panels, caption)))
}

pub(super) fn is_generative(population: &Population) -> bool {
    population.snapshots.len() == 1
}

/// The frame of all panels of `population`.
pub(super) fn frame(population: &Population, plane: &Plane) -> [Range; 2] {
    let places: Vec<[f64; 2]> =
        population.snapshots.iter().flat_map(|snapshot| plane.places(snapshot, population.dim)).collect();
    let range = |axis: usize| Range::of_most(places.iter().map(|place| place[axis]).collect(), 0.002);
    [range(0), range(1)]
}

/// An empty panel over `population`.
pub(super) fn panel(title: &str, population: &Population, model: &Model, plane: &Plane) -> Panel {
    let [x, y] = plane.names(&model.coordinates);
    Panel::new(title, frame(population, plane), [&x, &y])
}

/// The title of a panel at the time of `snapshot`.
pub(super) fn title_of(snapshot: &Drawn) -> String {
    let time = shortest(format!("{:.9e}", snapshot.time).parse().unwrap_or(snapshot.time));
    format!("Time {time}{}", if snapshot.is_held_out { " (held out)" } else { "" })
}

/// Which ink is which time.
pub(super) fn key(panel: &mut Panel, population: &Population) {
    /// More are a scale.
    const NAMED: usize = 4;
    let name = |time: f64| shortest(format!("{time:.5e}").parse().unwrap_or(time));
    if (2..=NAMED).contains(&population.snapshots.len()) {
        let entry = |snapshot: &Drawn| (name(snapshot.time), Ink::time(population.share(snapshot.time)));
        panel.key(&population.snapshots.iter().map(entry).collect::<Vec<_>>());
    } else {
        let [first, last] = population.span().map(name);
        panel.scale([&first, &last], Ink::time);
    }
}

/// Points in the order of the file would hide what comes first: they are drawn in turns.
fn data(population: &Population, model: &Model, plane: &Plane) -> crate::picture::Scene {
    let mut panel = panel("Data by time", population, model, plane);
    const TURNS: usize = 4;
    for turn in 0..TURNS {
        for snapshot in &population.snapshots {
            let places = plane.places(snapshot, population.dim);
            let of_turn = places.into_iter().skip(turn).step_by(TURNS);
            panel.dots(of_turn, Ink::time(population.share(snapshot.time)), 1.9, 0.7);
        }
    }
    key(&mut panel, population);
    panel.scene
}

/// The ways of particles from the first snapshot, or from noise, to the last.
pub(super) struct Ways(pub Moved);

impl Ways {
    pub fn of(engine: &dyn Engine, model: &Model, population: &Population) -> Result<Ways> {
        let dim = population.dim;
        let ([first, last], start) = if is_generative(population) {
            (model.coordinates.time_range, noise(model, WAYS))
        } else {
            let rows = &population.snapshots[0].rows;
            let chosen = evenly(rows.len() / dim, WAYS);
            (population.span(), chosen.iter().flat_map(|&row| &rows[row * dim..][..dim]).copied().collect())
        };
        let at = |k: usize| first + (last - first) * k as f64 / (WAY_TIMES - 1) as f64;
        let times: Vec<f64> = (0..WAY_TIMES).map(at).collect();
        Ok(Ways(Moved::new(engine, model, &start, first, &times)?))
    }

    fn panel(&self, population: &Population, model: &Model, plane: &Plane) -> crate::picture::Scene {
        let (Ways(moved), dim) = (self, population.dim);
        let mut panel = panel("Ways of particles", population, model, plane);
        for snapshot in &population.snapshots {
            panel.dots(plane.places(snapshot, dim), Ink::Backdrop, 1.4, 1.0);
        }
        let places: Vec<Vec<[f64; 2]>> = (moved.positions.iter().zip(&moved.times))
            .map(|(rows, &time)| rows.chunks_exact(dim).map(|row| plane.place(Some(population), row, time)).collect())
            .collect();
        let [first, last] = [moved.times[0], moved.times[moved.times.len() - 1]];
        for (k, pair) in places.windows(2).enumerate() {
            let middle = 0.5 * (moved.times[k] + moved.times[k + 1]);
            let ink = Ink::time((middle - first) / (last - first));
            let lines: Vec<Vec<[f64; 2]>> = pair[0].iter().zip(&pair[1]).map(|(a, b)| vec![*a, *b]).collect();
            panel.lines(&lines, ink, 1.1, 0.85);
        }
        if let Some(ends) = places.last() {
            panel.dots(ends.iter().copied(), Ink::time(1.0), 1.9, 1.0);
        }
        let name = |time: f64| shortest(format!("{time:.5e}").parse().unwrap_or(time));
        panel.scale([&name(first), &name(last)], Ink::time);
        panel.scene
    }
}

/// Snapshots that particles reach, `most` of them, each with the one that they start from; `None`
/// is noise.
fn pairs(population: &Population, most: usize) -> Vec<(Option<usize>, usize)> {
    if is_generative(population) {
        return vec![(None, 0)];
    }
    let last_seen = |to: usize| (0..to).rev().find(|&k| !population.snapshots[k].is_held_out).unwrap_or(0);
    let all: Vec<_> = (1..population.snapshots.len()).map(|to| (Some(last_seen(to)), to)).collect();
    with_ends(all.len(), most).into_iter().map(|k| all[k]).collect()
}

fn beside(
    engine: &dyn Engine,
    model: &Model,
    population: &Population,
    plane: &Plane,
    from: Option<usize>,
    to: usize,
) -> Result<crate::picture::Scene> {
    let (dim, truth) = (population.dim, &population.snapshots[to]);
    let few = |rows: &[f64]| -> Vec<f64> {
        let chosen = evenly(rows.len() / dim, COMPARED);
        chosen.iter().flat_map(|&row| &rows[row * dim..][..dim]).copied().collect()
    };
    let (start, time) = match from {
        None => (noise(model, COMPARED), model.coordinates.time_range[0]),
        Some(from) => (few(&population.snapshots[from].rows), population.snapshots[from].time),
    };
    let arrived = Moved::new(engine, model, &start, time, &[truth.time])?.arrived(dim);
    let key = [("data".to_string(), Ink::Data), ("model".to_string(), Ink::Model)];
    let title = title_of(truth) + if from.is_none() { ", from noise" } else { "" };
    if *plane == Plane::Time {
        let name = plane.names(&model.coordinates)[1].clone();
        let [_, values] = frame(population, plane);
        let curves = [&truth.rows[..], &arrived].map(|rows| density(rows, values));
        let top = curves.iter().flatten().map(|point| point[1]).fold(0.0, f64::max);
        let mut panel = Panel::new(&title, [values, Range { low: 0.0, high: 1.05 * top }], [&name, "density"]);
        for (curve, (_, ink)) in curves.iter().zip(&key) {
            panel.lines(std::slice::from_ref(curve), *ink, 2.0, 1.0);
        }
        panel.key(&key);
        return Ok(panel.scene);
    }
    let mut panel = panel(&title, population, model, plane);
    let mut places = plane.places(truth, dim);
    places = evenly(places.len(), COMPARED).into_iter().map(|k| places[k]).collect();
    let moved: Vec<[f64; 2]> =
        arrived.chunks_exact(dim).map(|row| plane.place(Some(population), row, truth.time)).collect();
    // In turns, so that neither hides the other.
    const TURNS: usize = 6;
    for turn in 0..TURNS {
        panel.dots(places.iter().copied().skip(turn).step_by(TURNS), Ink::Data, 2.1, 0.65);
        panel.dots(moved.iter().copied().skip(turn).step_by(TURNS), Ink::Model, 2.1, 0.65);
    }
    panel.key(&key);
    Ok(panel.scene)
}

/// The density of `values` over `range`, smoothed over half the width of Silverman's rule, which is
/// for distributions with one peak.
fn density(values: &[f64], range: Range) -> Vec<[f64; 2]> {
    const PLACES: usize = 160;
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    let h = (0.53 * deviation * n.powf(-0.2)).max(1e-3 * (range.high - range.low));
    let at = |k: usize| {
        let x = range.low + (range.high - range.low) * k as f64 / (PLACES - 1) as f64;
        let sum: f64 = values.iter().map(|value| (-0.5 * ((x - value) / h).powi(2)).exp()).sum();
        [x, sum / (n * h * std::f64::consts::TAU.sqrt())]
    };
    (0..PLACES).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_density_has_the_area_one() {
        let values: Vec<f64> = (0..300).map(|k| (f64::from(k) * 0.7).sin()).collect();
        let curve = density(&values, Range { low: -3.0, high: 3.0 });
        let area: f64 = curve.windows(2).map(|pair| 0.5 * (pair[0][1] + pair[1][1]) * (pair[1][0] - pair[0][0])).sum();
        assert!((area - 1.0).abs() < 1e-3, "{area}");
    }
}
