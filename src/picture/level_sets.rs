//! Level sets of a scalar on a grid, by marching squares.

use std::collections::HashMap;

use super::field::Field;

/// An edge between two neighboring nodes, the smaller first.
type Edge = (usize, usize);

/// The part of the known region of `field` where its scalar is at least `level`, as closed
/// outlines, to be filled by the rule of odd and even.
///
/// The region ends where the support falls below 1; on a level set the scalar is interpolated
/// linearly along the edges of the grid.
pub(crate) fn region_above(field: &Field, level: f64) -> Vec<Vec<[f64; 2]>> {
    // A ring of nodes around the grid, of which nothing is known, closes every outline.
    let (columns, rows) = (field.columns + 2, field.rows + 2);
    let node = |at: usize| -> Option<usize> {
        let (column, row) = (at % columns, at / columns);
        let is_of_grid = (1..columns - 1).contains(&column) && (1..rows - 1).contains(&row);
        is_of_grid.then(|| (row - 1) * field.columns + column - 1)
    };
    let place = |at: usize| {
        let inside = |k: usize, of: usize| k.clamp(1, of - 2) - 1;
        field.node(inside(at % columns, columns), inside(at / columns, rows))
    };
    let is_above = |at: usize| node(at).is_some_and(|k| field.is_known(k) && field.scalar[k] >= level);
    let crossing = |(a, b): Edge| -> [f64; 2] {
        let share = match [a, b].map(|at| node(at).map(|k| (field.is_known(k), field.scalar[k], field.support[k]))) {
            [Some((true, s_a, _)), Some((true, s_b, _))] => (level - s_a) / (s_b - s_a),
            [Some((_, _, a)), Some((_, _, b))] => (1.0 - a) / (b - a),
            _ => 0.5, // both ends have one place
        };
        let (from, to) = (place(a), place(b));
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.5 };
        [from[0] + share * (to[0] - from[0]), from[1] + share * (to[1] - from[1])]
    };

    // Each cell joins the edges that the outline crosses; every edge belongs to two cells.
    let mut joined: HashMap<Edge, Vec<Edge>> = HashMap::new();
    for row in 0..rows - 1 {
        for column in 0..columns - 1 {
            let corner = row * columns + column;
            let corners = [corner, corner + 1, corner + columns + 1, corner + columns];
            let above = corners.map(is_above);
            let crossed: Vec<Edge> = (0..4)
                .filter(|&side| above[side] != above[(side + 1) % 4])
                .map(|side| {
                    let (a, b) = (corners[side], corners[(side + 1) % 4]);
                    (a.min(b), a.max(b))
                })
                .collect();
            let mut join = |a: Edge, b: Edge| {
                joined.entry(a).or_default().push(b);
                joined.entry(b).or_default().push(a);
            };
            match crossed[..] {
                [a, b] => join(a, b),
                // Opposite corners lie above: each is cut off by itself.
                [top, right, bottom, left] if above[0] => {
                    join(left, top);
                    join(right, bottom);
                }
                [top, right, bottom, left] => {
                    join(top, right);
                    join(bottom, left);
                }
                _ => {}
            }
        }
    }
    let mut starts: Vec<Edge> = joined.keys().copied().collect();
    starts.sort_unstable();
    let mut outlines = Vec::new();
    for start in starts {
        let mut outline = Vec::new();
        let mut at = start;
        while let Some(next) = joined.get_mut(&at).and_then(Vec::pop) {
            outline.push(crossing(at));
            if let Some(back) = joined.get_mut(&next) {
                back.iter().position(|edge| *edge == at).map(|k| back.swap_remove(k));
            }
            at = next;
        }
        if outline.len() > 2 {
            outlines.push(outline);
        }
    }
    outlines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Grid of 41 × 41 nodes over −2..2 in both axes, as pixels, with support in a disc.
    fn known(radius: f64, scalar: impl Fn([f64; 2]) -> f64) -> Field {
        let mut field = Field::over([-2.0, -2.0, 2.0, 2.0], 41, 41);
        let nodes: Vec<[f64; 2]> = field.nodes().collect();
        field.scalar = nodes.iter().map(|at| scalar(*at)).collect();
        field.support = nodes.iter().map(|[x, y]| 1.0 + radius - x.hypot(*y)).collect();
        field
    }

    fn area(outline: &[[f64; 2]]) -> f64 {
        let next = outline.iter().cycle().skip(1);
        outline.iter().zip(next).map(|(a, b)| 0.5 * (a[0] * b[1] - a[1] * b[0])).sum::<f64>().abs()
    }

    #[test]
    fn the_level_sets_of_a_distance_are_circles() {
        let field = known(9.0, |[x, y]| -x.hypot(y));
        for radius in [0.5, 1.0, 1.5] {
            let outlines = region_above(&field, -radius);
            assert_eq!(outlines.len(), 1);
            for [x, y] in &outlines[0] {
                assert!((x.hypot(*y) - radius).abs() < 0.005, "{}", x.hypot(*y));
            }
            assert!((area(&outlines[0]) / (std::f64::consts::PI * radius * radius) - 1.0).abs() < 0.01);
        }
    }

    #[test]
    fn a_region_ends_where_nothing_is_known_and_at_the_grid() {
        // Right of x = 0.25 in a disc of radius 1.
        let outlines = region_above(&known(1.0, |[x, _]| x), 0.25);
        assert_eq!(outlines.len(), 1);
        for [x, y] in &outlines[0] {
            assert!((x - 0.25).abs() < 1e-9 || (x.hypot(*y) - 1.0).abs() < 0.01, "{x} {y}");
        }
        let everything = region_above(&known(9.0, |_| 1.0), 0.0);
        assert!(everything.len() == 1 && (area(&everything[0]) - 16.0).abs() < 0.1, "{}", area(&everything[0]));
        assert!(region_above(&known(1.0, |_| f64::NAN), 0.0).is_empty());
    }

    #[test]
    fn two_hills_and_a_hole_have_outlines_of_their_own() {
        let hills = |[x, y]: [f64; 2]| -((x.abs() - 1.0).hypot(y));
        assert_eq!(region_above(&known(9.0, hills), -0.5).len(), 2);
        let ring = |[x, y]: [f64; 2]| -(x.hypot(y) - 1.0).abs();
        assert_eq!(region_above(&known(9.0, ring), -0.3).len(), 2);
        // A saddle is divided in every cell in the same way.
        let saddle = region_above(&known(9.0, |[x, y]| (x * x - y * y) - 0.001), 0.0);
        assert!(saddle.iter().map(|outline| area(outline)).sum::<f64>() - 8.0 < 0.2);
    }
}
