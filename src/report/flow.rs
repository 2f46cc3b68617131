//! The flow: streamlines of the velocity over the level sets of the potential.

use super::View;
use super::figure::Figure;
use super::motion::{Ways, panel, title_of};
use super::population::{Drawn, Plane, Population, with_ends};
use crate::engine::Engine;
use crate::error::Result;
use crate::evenly::evenly;
use crate::flow::Local;
use crate::model::Model;
use crate::picture::{Field, Ink, Mark, Panel, Range, Scene, region_above, streamlines};
use crate::projection::direction;

/// Pixels over which velocities at points are averaged, and from which a place counts as near the
/// data.
const REACH: f64 = 10.0;
/// Nodes of the grid along each axis.
const NODES: usize = 48;
/// Rows of a snapshot at which the model is asked.
const ASKED: usize = 500;
/// Areas between level sets.
const LEVELS: usize = 9;
/// Pixels between streamlines.
const APART: f64 = 15.0;
/// Scales of the data to each side of their center, where there are no data.
const WIDE: f64 = 2.5;

/// The panels, at `most` times.
///
/// # Errors
/// Those of the engine.
pub(super) fn figure(engine: &dyn Engine, view: &View, plane: &Plane, most: usize) -> Result<Option<Figure>> {
    let Some(model) = view.members.first() else { return Ok(None) };
    let mut caption = String::from(
        "Lines with arrows follow the velocity at that moment, thicker where it is faster; shades are level sets of the \
         potential s, darker where s is higher. ",
    );
    if model.objective.cost_exponent == 2.0 && model.architecture.dim <= 2 {
        caption += "Velocity is the slope of s, so the flow climbs from light to dark, across the level sets. ";
    }
    let panels = match (plane, &view.population) {
        (Plane::Time, population) => {
            caption += "There is one dimension: time goes to the right, and the lines are the ways of particles. s is less \
                        its mean at each time, up to which it is known. ";
            vec![over_time(engine, model, population.as_ref())?]
        }
        (_, None) if model.architecture.dim > 2 => return Ok(None),
        (_, None) => {
            caption += "There are no data here, so the frame is two and a half scales of the training data to each side of \
                        their center, and much of it may lie where nothing was trained. ";
            let [first, last] = model.coordinates.time_range;
            let times = [first, 0.5 * (first + last), last];
            times.iter().map(|time| without_data(engine, model, plane, *time)).collect::<Result<_>>()?
        }
        (_, Some(population)) => {
            let chosen = with_ends(population.snapshots.len(), most);
            let at = |&k: &usize| at_snapshot(engine, model, population, plane, &population.snapshots[k]);
            let panels = chosen.iter().map(at).collect::<Result<_>>()?;
            caption += match plane {
                Plane::Basis(_) => {
                    "The embedding has no velocities of its own: each is the mean direction to the 30 nearest rows in the \
                     model's space, weighted by how well they lie along the velocity there (as scVelo does), then averaged \
                     over rows nearby. Directions mean something, lengths do not. s is a mean over rows nearby. "
                }
                _ if model.architecture.dim > 2 => {
                    "The model has more dimensions than are drawn: velocity and s are computed at rows of the snapshot, and \
                     what is drawn are their means over the rows nearby in this plane. What differs between rows that lie \
                     over each other here is averaged out, so s need not climb along the lines. "
                }
                _ => "",
            };
            caption += "Only places near the snapshot of the time are drawn, since the model learned nothing elsewhere; gray \
                        points are its rows. Nothing is drawn around a row that lies alone. ";
            panels
        }
    };
    if view.members.len() > 1 {
        caption += "The flow is that of the first member. ";
    }
    if model.objective.sigma > 0.0 {
        caption += "With diffusion it is the drift, without the noise. ";
    }
    Ok(Some(Figure::new("flow", "Flow and potential", panels, caption.trim_end().into())))
}

fn at_snapshot(
    engine: &dyn Engine,
    model: &Model,
    population: &Population,
    plane: &Plane,
    snapshot: &Drawn,
) -> Result<Scene> {
    let dim = population.dim;
    let mut panel = panel(&title_of(snapshot), population, model, plane);
    let places = plane.places(snapshot, dim);
    let chosen = evenly(places.len(), ASKED);
    let pixels: Vec<[f64; 2]> = chosen.iter().map(|&k| panel.place(places[k])).collect();
    let mut field = Field::over(panel.frame, NODES, NODES);
    if let (Plane::Axes(axes), 2) = (plane, dim) {
        ask_everywhere(engine, model, *axes, snapshot.time, &panel, &mut field)?;
        field.support_from(&pixels, REACH, LEAST);
    } else {
        let rows: Vec<f64> = chosen.iter().flat_map(|&k| &snapshot.rows[k * dim..][..dim]).copied().collect();
        let Local { potential, velocity, .. } = model.local(engine, &rows, &vec![snapshot.time; chosen.len()])?;
        let velocity: Vec<[f64; 2]> = match plane {
            Plane::Axes([i, j]) => velocity.chunks_exact(dim).map(|v| [v[*i], v[*j]]).collect(),
            _ => embedded(population, plane, &rows, &velocity, &chosen.iter().map(|&k| places[k]).collect::<Vec<_>>()),
        };
        let unit = panel.pixels_per_unit();
        let values: Vec<_> = (pixels.iter().zip(&potential).zip(&velocity))
            .map(|((at, s), [u, v])| (*at, *s, [u * unit[0], v * unit[1]]))
            .collect();
        field.means_of(&values, REACH, LEAST);
    }
    draw(&mut panel, &field, &places);
    Ok(panel.scene)
}

/// Sum of the weights of rows from which on a place counts as near them: more than a row alone has.
const LEAST: f64 = 1.3;

/// Fills `field` with what a model of two dimensions says at its nodes.
fn ask_everywhere(
    engine: &dyn Engine,
    model: &Model,
    [i, j]: [usize; 2],
    time: f64,
    panel: &Panel,
    field: &mut Field,
) -> Result<()> {
    let points: Vec<f64> = (field.nodes())
        .flat_map(|at| {
            let place = panel.point(at);
            let mut point = [0.0; 2];
            (point[i], point[j]) = (place[0], place[1]);
            point
        })
        .collect();
    let unit = panel.pixels_per_unit();
    let local = model.local(engine, &points, &vec![time; points.len() / 2])?;
    field.vector = local.velocity.chunks_exact(2).map(|v| [v[i] * unit[0], v[j] * unit[1]]).collect();
    field.scalar = local.potential;
    Ok(())
}

fn without_data(engine: &dyn Engine, model: &Model, plane: &Plane, time: f64) -> Result<Scene> {
    let axes = if let Plane::Axes(axes) = plane { *axes } else { [0, 1] };
    let range = |i: usize| {
        let (mean, reach) = (model.coordinates.mean[i], WIDE * model.coordinates.scale[i]);
        Range { low: mean - reach, high: mean + reach }
    };
    let [x, y] = plane.names(&model.coordinates);
    let title = format!("Time {}", crate::display::significant(time, 4));
    let mut panel = Panel::new(&title, axes.map(range), [&x, &y]);
    let mut field = Field::over(panel.frame, NODES, NODES);
    ask_everywhere(engine, model, axes, time, &panel, &mut field)?;
    field.support.fill(1.0);
    draw(&mut panel, &field, &[]);
    Ok(panel.scene)
}

/// The plane of time and the only dimension, in which the ways of particles are the streamlines of
/// (1, velocity).
fn over_time(engine: &dyn Engine, model: &Model, population: Option<&Population>) -> Result<Scene> {
    let plane = Plane::Time;
    let (mut panel, near) = match population {
        Some(population) => {
            let panel = panel("All times", population, model, &plane);
            let Ways(moved) = Ways::of(engine, model, population)?;
            let on_the_way =
                moved.times.iter().zip(&moved.positions).flat_map(|(t, rows)| rows.iter().map(|x| [*t, *x]));
            let rows = population.snapshots.iter().flat_map(|snapshot| plane.places(snapshot, 1));
            let near: Vec<[f64; 2]> = on_the_way.chain(rows).map(|at| panel.place(at)).collect();
            (panel, Some(near))
        }
        None => {
            let [first, last] = model.coordinates.time_range;
            let (mean, reach) = (model.coordinates.mean[0], WIDE * model.coordinates.scale[0]);
            let ranges = [Range::of([first, last]), Range { low: mean - reach, high: mean + reach }];
            let [x, y] = plane.names(&model.coordinates);
            (Panel::new("All times", ranges, [&x, &y]), None)
        }
    };
    let mut field = Field::over(panel.frame, NODES, NODES);
    let (mut points, mut times) = (Vec::new(), Vec::new());
    for at in field.nodes() {
        let [t, x] = panel.point(at);
        points.push(x);
        times.push(t);
    }
    let local = model.local(engine, &points, &times)?;
    let unit = panel.pixels_per_unit();
    field.vector = local.velocity.iter().map(|v| [unit[0], v * unit[1]]).collect();
    field.scalar = local.potential;
    match near {
        Some(near) => field.support_from(&near, REACH, LEAST),
        None => field.support.fill(1.0),
    }
    for column in 0..NODES {
        let nodes = || (0..NODES).map(|row| row * NODES + column).filter(|&node| field.support[node] >= 1.0);
        let mean = nodes().map(|node| field.scalar[node]).sum::<f64>() / nodes().count().max(1) as f64;
        (0..NODES).for_each(|row| field.scalar[row * NODES + column] -= mean);
    }
    let places: Vec<[f64; 2]> =
        population.iter().flat_map(|population| &population.snapshots).flat_map(|s| plane.places(s, 1)).collect();
    draw(&mut panel, &field, &places);
    Ok(panel.scene)
}

/// Velocities in an embedding of rows `[n, dim]` with `velocity [n, dim]` at `places`, by the
/// nearest rows that are drawn ([`direction`]).
fn embedded(
    population: &Population,
    plane: &Plane,
    rows: &[f64],
    velocity: &[f64],
    places: &[[f64; 2]],
) -> Vec<[f64; 2]> {
    const NEIGHBORS: usize = 30;
    let dim = population.dim;
    let all: Vec<(&[f64], [f64; 2])> = (population.snapshots.iter())
        .flat_map(|snapshot| snapshot.rows.chunks_exact(dim).zip(plane.places(snapshot, dim)))
        .collect();
    let one = |((row, v), place): ((&[f64], &[f64]), &[f64; 2])| -> [f64; 2] {
        let mut near: Vec<(f64, usize)> = (all.iter().enumerate())
            .map(|(k, (other, _))| (row.iter().zip(*other).map(|(a, b)| (a - b) * (a - b)).sum::<f64>(), k))
            .filter(|(squared, _)| *squared > 0.0)
            .collect();
        if near.len() > NEIGHBORS {
            near.select_nth_unstable_by(NEIGHBORS - 1, |a, b| a.0.total_cmp(&b.0));
            near.truncate(NEIGHBORS);
        }
        let neighbors = near.iter().map(|(_, k)| (all[*k].0, &all[*k].1[..]));
        direction((row, v), place, neighbors).map_or([0.0; 2], |found| [found[0], found[1]])
    };
    rows.chunks_exact(dim).zip(velocity.chunks_exact(dim)).zip(places).map(one).collect()
}

/// Level sets, rows and streamlines of `field`.
fn draw(panel: &mut Panel, field: &Field, rows: &[[f64; 2]]) {
    let known = (0..field.scalar.len()).filter(|&node| field.is_known(node)).map(|node| field.scalar[node]);
    let (low, high) = known.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), s| (low.min(s), high.max(s)));
    for level in 0..LEVELS {
        let share = level as f64 / LEVELS as f64;
        let outlines = region_above(field, low + share * (high - low));
        if !outlines.is_empty() {
            let ink = Ink::level(level as f64 / (LEVELS - 1) as f64);
            panel.scene.marks.push(Mark::Area { outlines, ink });
        }
    }
    let few = evenly(rows.len(), 400).into_iter().map(|k| rows[k]);
    panel.dots(few, Ink::Muted, 1.1, 0.55);
    let lines = streamlines(field, APART);
    let fastest = lines.iter().map(|line| line.speed).fold(f64::MIN_POSITIVE, f64::max);
    for (thickness, &width) in THICKNESSES.iter().enumerate() {
        let is_of = |speed: f64| ((speed / fastest * THICKNESSES.len() as f64) as usize).min(THICKNESSES.len() - 1);
        let of: Vec<_> = lines.iter().filter(|line| is_of(line.speed) == thickness).collect();
        if of.is_empty() {
            continue;
        }
        let thin = |points: &[[f64; 2]]| -> Vec<[f64; 2]> {
            // A line of two-pixel steps is smooth with every other point.
            let last = points.len() - 1;
            points.iter().enumerate().filter(|(k, _)| k % 2 == 0 || *k == last).map(|(_, at)| *at).collect()
        };
        let paths = of.iter().map(|line| thin(&line.points)).collect();
        panel.scene.lines(paths, Ink::Text, width);
        let heads = of.iter().filter_map(|line| arrow(&line.points)).collect();
        panel.scene.marks.push(Mark::Area { outlines: heads, ink: Ink::Text });
    }
}

/// Widths of streamlines, from slow to fast.
const THICKNESSES: [f64; 4] = [0.6, 0.9, 1.3, 1.8];

/// The head of an arrow in the middle of a line.
fn arrow(points: &[[f64; 2]]) -> Option<Vec<[f64; 2]>> {
    const LENGTH: f64 = 6.0;
    const HALF: f64 = 2.6;
    let k = points.len() / 2;
    let (from, to) = (points.get(k.checked_sub(1)?)?, points.get(k)?);
    let length = (to[0] - from[0]).hypot(to[1] - from[1]);
    let along = [(to[0] - from[0]) / length, (to[1] - from[1]) / length];
    let at = |forward: f64, aside: f64| {
        [to[0] + forward * along[0] - aside * along[1], to[1] + forward * along[1] + aside * along[0]]
    };
    Some(vec![at(0.6 * LENGTH, 0.0), at(-0.4 * LENGTH, HALF), at(-0.4 * LENGTH, -HALF)])
}
