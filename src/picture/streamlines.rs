//! Streamlines of a field, evenly spaced after Jobard and Lefer (Visualization in Scientific
//! Computing 1997): a line ends where it comes too near to another one.

use super::field::Field;

/// Pixels between two points of a line.
const STEP: f64 = 2.0;

/// A line along the flow, with the mean speed along it.
#[derive(Clone, Debug)]
pub(crate) struct Streamline {
    pub points: Vec<[f64; 2]>,
    /// Pixels per unit of time.
    pub speed: f64,
}

/// Streamlines of `field` about `apart` pixels from each other, the longest first.
pub(crate) fn streamlines(field: &Field, apart: f64) -> Vec<Streamline> {
    let mut taken = Taken::new(field, 0.5 * apart);
    // Where the field is at rest, up to rounding, there is no direction.
    let speeds = (0..field.support.len()).filter(|&node| field.is_known(node)).map(|node| length(field.vector[node]));
    let least = 1e-6 * speeds.fold(0.0, f64::max);
    let mut lines: Vec<Streamline> = Vec::new();
    for seed in seeds(field, apart) {
        if taken.is_near(seed, apart) {
            continue;
        }
        let [mut back, forth] = [-1.0, 1.0].map(|sign| walk(field, seed, sign, least, &taken));
        back.reverse();
        let points = [&back[..], &[seed], &forth[..]].concat();
        // Short ones say little.
        if (points.len() as f64) * STEP < 1.2 * apart {
            continue;
        }
        points.iter().for_each(|at| taken.add(*at));
        let speeds: Vec<f64> = points.iter().filter_map(|at| field.vector_at(*at)).map(length).collect();
        let speed = speeds.iter().sum::<f64>() / speeds.len().max(1) as f64;
        lines.push(Streamline { points, speed });
    }
    lines.sort_by_key(|line| std::cmp::Reverse(line.points.len()));
    lines
}

/// Starts of lines: the middle first, since lines from there are longest.
fn seeds(field: &Field, apart: f64) -> Vec<[f64; 2]> {
    let known: Vec<[f64; 2]> =
        field.nodes().enumerate().filter(|(node, _)| field.is_known(*node)).map(|(_, at)| at).collect();
    let n = known.len().max(1) as f64;
    let middle = [0, 1].map(|axis| known.iter().map(|at| at[axis]).sum::<f64>() / n);
    let cell = |at: &[f64; 2]| at.map(|place| (place / (0.5 * apart)).round() as i64);
    let mut seeds = known;
    let distance = |at: &[f64; 2]| length([at[0] - middle[0], at[1] - middle[1]]);
    seeds.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
    // One in a square of half the distance.
    let mut cells = std::collections::HashSet::new();
    seeds.retain(|at| cells.insert(cell(at)));
    seeds
}

/// The line from `start` along the field, or against it, without its start.
fn walk(field: &Field, start: [f64; 2], sign: f64, least: f64, taken: &Taken) -> Vec<[f64; 2]> {
    /// Points of a line, at most.
    const MOST: usize = 1000;
    let direction = |at: [f64; 2]| -> Option<[f64; 2]> {
        let vector = field.vector_at(at)?;
        let speed = length(vector);
        (speed > least).then(|| vector.map(|part| sign * part / speed))
    };
    let along = |at: [f64; 2], by: [f64; 2], step: f64| [at[0] + step * by[0], at[1] + step * by[1]];
    let mut points: Vec<[f64; 2]> = Vec::new();
    let mut at = start;
    while points.len() < MOST {
        // The classical fourth-order step, along a field of unit length.
        let next = || -> Option<[f64; 2]> {
            let k1 = direction(at)?;
            let k2 = direction(along(at, k1, 0.5 * STEP))?;
            let k3 = direction(along(at, k2, 0.5 * STEP))?;
            let k4 = direction(along(at, k3, STEP))?;
            let mean = [0, 1].map(|axis| (k1[axis] + 2.0 * (k2[axis] + k3[axis]) + k4[axis]) / 6.0);
            Some(along(at, mean, STEP))
        };
        let Some(next) = next() else { break };
        let is_closed = points.len() > 4 && length([next[0] - start[0], next[1] - start[1]]) < 0.9 * STEP;
        // Around a point of rest a line turns on the spot.
        let is_stuck = length([next[0] - at[0], next[1] - at[1]]) < 0.2 * STEP;
        if is_closed || is_stuck || taken.is_near(next, taken.cell) {
            break;
        }
        points.push(next);
        at = next;
    }
    points
}

fn length([x, y]: [f64; 2]) -> f64 {
    x.hypot(y)
}

/// Points of lines, in squares of a grid so that near ones are found.
struct Taken {
    cell: f64,
    columns: i64,
    rows: i64,
    origin: [f64; 2],
    points: Vec<Vec<[f64; 2]>>,
}

impl Taken {
    fn new(field: &Field, cell: f64) -> Taken {
        let cells = |of: usize, step: f64| (of as f64 * step / cell) as i64 + 2;
        let (columns, rows) = (cells(field.columns, field.step[0]), cells(field.rows, field.step[1]));
        Taken { cell, columns, rows, origin: field.origin, points: vec![Vec::new(); (columns * rows) as usize] }
    }

    fn cell(&self, at: [f64; 2]) -> [i64; 2] {
        [0, 1].map(|axis| ((at[axis] - self.origin[axis]) / self.cell) as i64)
    }

    fn points(&self, column: i64, row: i64) -> &[[f64; 2]] {
        let is_inside = (0..self.columns).contains(&column) && (0..self.rows).contains(&row);
        if is_inside { &self.points[(row * self.columns + column) as usize] } else { &[] }
    }

    fn add(&mut self, at: [f64; 2]) {
        let [column, row] = self.cell(at);
        if (0..self.columns).contains(&column) && (0..self.rows).contains(&row) {
            self.points[(row * self.columns + column) as usize].push(at);
        }
    }

    /// True if a point lies within `distance`, at most two squares.
    fn is_near(&self, at: [f64; 2], distance: f64) -> bool {
        let [column, row] = self.cell(at);
        let near = |point: &[f64; 2]| length([point[0] - at[0], point[1] - at[1]]) < distance;
        (row - 2..=row + 2).any(|row| (column - 2..=column + 2).any(|column| self.points(column, row).iter().any(near)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(vector: impl Fn([f64; 2]) -> [f64; 2]) -> Field {
        let mut field = Field::over([0.0, 0.0, 200.0, 200.0], 41, 41);
        field.vector = field.nodes().map(vector).collect();
        field.support.fill(1.0);
        field
    }

    /// A rotation about the middle: every line keeps its distance, and closes.
    #[test]
    fn the_streamlines_of_a_rotation_are_circles() {
        let lines = streamlines(&field(|[x, y]| [-(y - 100.0), x - 100.0]), 16.0);
        assert!(lines.len() >= 5, "{}", lines.len());
        let mut whole = 0;
        for Streamline { points, speed } in &lines {
            let radius = |at: &[f64; 2]| (at[0] - 100.0).hypot(at[1] - 100.0);
            let first = radius(&points[0]);
            for at in points {
                assert!((radius(at) - first).abs() < 0.02 * first.max(5.0), "{} is not {first}", radius(at));
            }
            assert!((speed - first).abs() < 0.05 * first, "the speed of a rotation is the distance from its middle");
            let around = std::f64::consts::TAU * first;
            whole += usize::from(points.len() as f64 * STEP > 0.9 * around);
            assert!(points.len() as f64 * STEP < 2.1 * around, "no line goes round again and again");
        }
        assert!(whole >= 3, "{whole} closed");
    }

    #[test]
    fn lines_keep_apart_and_end_where_nothing_is_known() {
        let mut field = field(|_| [3.0, 0.0]);
        for (node, [x, _]) in field.clone().nodes().enumerate() {
            field.support[node] = if x > 100.0 { 0.0 } else { 1.0 };
        }
        let lines = streamlines(&field, 20.0);
        assert!((8..=12).contains(&lines.len()), "{}", lines.len());
        let mut heights: Vec<f64> = lines.iter().map(|line| line.points[0][1]).collect();
        heights.sort_by(f64::total_cmp);
        assert!(heights.windows(2).all(|pair| pair[1] - pair[0] >= 19.9), "{heights:?}");
        for Streamline { points, speed } in &lines {
            assert!(points.iter().all(|at| at[0] <= 100.0 && (at[1] - points[0][1]).abs() < 1e-9));
            assert!(points.windows(2).all(|pair| pair[1][0] > pair[0][0]), "along the flow");
            assert!((speed - 3.0).abs() < 1e-12);
        }
        assert!(streamlines(&self::field(|_| [0.0, 0.0]), 20.0).is_empty(), "no direction at rest");
    }
}
