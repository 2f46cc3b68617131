//! A scalar and a vector at the nodes of a grid, known in a part of it.

/// Numbers at nodes `step` pixels apart, `columns` of them in a row.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// The first node, pixels.
    pub origin: [f64; 2],
    pub step: [f64; 2],
    pub columns: usize,
    pub rows: usize,
    /// How well a node is known: 1 or more where there is something to see, row by row.
    pub support: Vec<f64>,
    pub scalar: Vec<f64>,
    /// Direction and speed, pixels per unit of time.
    pub vector: Vec<[f64; 2]>,
}

impl Field {
    /// Nodes over a frame (left, top, right, bottom), nothing known.
    pub fn over([left, top, right, bottom]: [f64; 4], columns: usize, rows: usize) -> Field {
        let step = [(right - left) / (columns - 1) as f64, (bottom - top) / (rows - 1) as f64];
        let n = columns * rows;
        let (support, scalar, vector) = (vec![0.0; n], vec![0.0; n], vec![[0.0; 2]; n]);
        Field { origin: [left, top], step, columns, rows, support, scalar, vector }
    }

    /// Places of all nodes, pixels.
    pub fn nodes(&self) -> impl Iterator<Item = [f64; 2]> + '_ {
        (0..self.rows * self.columns).map(|node| self.node(node % self.columns, node / self.columns))
    }

    pub fn node(&self, column: usize, row: usize) -> [f64; 2] {
        [self.origin[0] + self.step[0] * column as f64, self.origin[1] + self.step[1] * row as f64]
    }

    /// Sets the support to that of `points` (pixels): the sum of exp(−d²/2h²) over them, in units
    /// of `least`.
    pub fn support_from(&mut self, points: &[[f64; 2]], h: f64, least: f64) {
        let weights = points.iter().map(|&at| (at, 1.0, [0.0; 2]));
        let (support, ..) = self.sums(weights, h);
        self.support = support.into_iter().map(|sum| sum / least).collect();
    }

    /// Sets everything from values at `points` (pixels): means with the weights exp(−d²/2h²), and
    /// the sum of these as support, in units of `least`.
    pub fn means_of(&mut self, points: &[([f64; 2], f64, [f64; 2])], h: f64, least: f64) {
        let (support, scalar, vector) = self.sums(points.iter().copied(), h);
        for (node, sum) in support.iter().enumerate() {
            let each = if *sum > 0.0 { 1.0 / sum } else { 0.0 };
            self.scalar[node] = scalar[node] * each;
            self.vector[node] = vector[node].map(|part| part * each);
        }
        self.support = support.into_iter().map(|sum| sum / least).collect();
    }

    fn sums(
        &self,
        points: impl Iterator<Item = ([f64; 2], f64, [f64; 2])>,
        h: f64,
    ) -> (Vec<f64>, Vec<f64>, Vec<[f64; 2]>) {
        /// Farther away, in units of h, a point has no weight.
        const REACH: f64 = 3.5;
        let n = self.rows * self.columns;
        let (mut support, mut scalar, mut vector) = (vec![0.0; n], vec![0.0; n], vec![[0.0; 2]; n]);
        for (at, value, [u, v]) in points {
            let near = |axis: usize, of: usize| {
                let [low, high] =
                    [-REACH, REACH].map(|reach| (at[axis] + reach * h - self.origin[axis]) / self.step[axis]);
                low.ceil().max(0.0) as usize..(high.floor() + 1.0).clamp(0.0, of as f64) as usize
            };
            for row in near(1, self.rows) {
                for column in near(0, self.columns) {
                    let place = self.node(column, row);
                    let squared = (place[0] - at[0]).powi(2) + (place[1] - at[1]).powi(2);
                    let weight = (-0.5 * squared / (h * h)).exp();
                    let node = row * self.columns + column;
                    support[node] += weight;
                    scalar[node] += weight * value;
                    vector[node] = [vector[node][0] + weight * u, vector[node][1] + weight * v];
                }
            }
        }
        (support, scalar, vector)
    }

    pub fn is_known(&self, node: usize) -> bool {
        self.support[node] >= 1.0 && self.scalar[node].is_finite()
    }

    /// The vector at a place between known nodes (bilinear); `None` elsewhere.
    pub fn vector_at(&self, at: [f64; 2]) -> Option<[f64; 2]> {
        let [x, y] = [0, 1].map(|axis| (at[axis] - self.origin[axis]) / self.step[axis]);
        let is_inside = x >= 0.0 && y >= 0.0 && x <= (self.columns - 1) as f64 && y <= (self.rows - 1) as f64;
        if !is_inside {
            return None;
        }
        let (column, row) = ((x as usize).min(self.columns - 2), (y as usize).min(self.rows - 2));
        let (right, below) = (x - column as f64, y - row as f64);
        let mut sum = [0.0; 2];
        for (node, weight) in [
            (row * self.columns + column, (1.0 - right) * (1.0 - below)),
            (row * self.columns + column + 1, right * (1.0 - below)),
            ((row + 1) * self.columns + column, (1.0 - right) * below),
            ((row + 1) * self.columns + column + 1, right * below),
        ] {
            if !self.is_known(node) {
                return None;
            }
            sum = [sum[0] + weight * self.vector[node][0], sum[1] + weight * self.vector[node][1]];
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_weigh_near_points_most() {
        let mut field = Field::over([0.0, 0.0, 100.0, 50.0], 11, 6);
        let points = [([20.0, 20.0], 1.0, [1.0, 0.0]), ([80.0, 20.0], 3.0, [0.0, 2.0])];
        field.means_of(&points, 10.0, 0.3);
        let node = |column: usize, row: usize| row * 11 + column;
        assert!((field.scalar[node(2, 2)] - 1.0).abs() < 1e-6 && (field.scalar[node(8, 2)] - 3.0).abs() < 1e-6);
        assert!(field.is_known(node(2, 2)) && !field.is_known(node(5, 2)) && !field.is_known(node(0, 5)));
        assert_eq!(field.vector_at([20.0, 20.0]), Some([1.0, 0.0]));
        assert_eq!(field.vector_at([50.0, 20.0]), None);
        assert_eq!(field.vector_at([-1.0, 20.0]), None);
    }
}
