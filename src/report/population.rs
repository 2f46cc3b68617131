//! Rows of snapshots to draw, and the plane that they are drawn on.

use crate::data::Snapshots;
use crate::error::{Error, Result};
use crate::evenly::evenly;
use crate::model::Coordinates;

/// A part of the rows of some snapshots, in data units: evenly chosen, or by their weights.
#[derive(Clone, Debug)]
pub struct Population {
    pub(super) dim: usize,
    /// By time.
    pub(super) snapshots: Vec<Drawn>,
    /// Snapshots there are.
    pub(super) n_snapshots: usize,
    /// Name of the embedding, if rows have one.
    pub(super) basis: Option<String>,
    /// Rows have weights: a heavy one may be drawn more than once, and a light one never.
    is_weighted: bool,
}

/// Rows of a snapshot.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    pub time: f64,
    /// `[n, dim]`.
    pub rows: Vec<f64>,
    /// Which rows of the snapshot these are.
    chosen: Vec<usize>,
    /// Rows of the snapshot.
    pub count: usize,
    /// Its mass, in any unit.
    pub mass: f64,
    pub is_held_out: bool,
    /// Places in an embedding `[n, 2]`, if there is one.
    places: Vec<f64>,
}

impl Population {
    /// Most rows of a snapshot that are drawn.
    pub const ROWS: usize = 1000;
    /// Most rows of all snapshots together.
    const ALL_ROWS: usize = 5000;
    /// Most snapshots.
    const SNAPSHOTS: usize = 40;

    /// Of `snapshots` in the network coordinates of `coordinates`.
    #[must_use]
    pub fn of_network(snapshots: &Snapshots, coordinates: &Coordinates) -> Population {
        let time = |t: f64| coordinates.data_time(t);
        Population::new(snapshots, &|rows| coordinates.to_data_f64(rows), &time)
    }

    /// Of `snapshots` given as differences from `origin`, data units.
    #[must_use]
    pub fn of_data(snapshots: &Snapshots, origin: &[f64]) -> Population {
        let moved = |rows: &[f32]| rows.iter().zip(origin.iter().cycle()).map(|(&x, o)| f64::from(x) + o).collect();
        Population::new(snapshots, &moved, &|t| t)
    }

    fn new(snapshots: &Snapshots, to_data: &dyn Fn(&[f32]) -> Vec<f64>, time: &dyn Fn(f64) -> f64) -> Population {
        let &Snapshots { dim, ref times, .. } = snapshots;
        let kept = with_ends(times.len(), Self::SNAPSHOTS);
        let most = (Self::ALL_ROWS / kept.len().max(1)).min(Self::ROWS);
        let drawn = |k: usize| {
            let (rows, n) = (snapshots.rows(k), snapshots.n_rows(k));
            let chosen =
                snapshots.weights(k).map_or_else(|| evenly(n, most), |weights| by_weight(weights, n.min(most)));
            let few: Vec<f32> = chosen.iter().flat_map(|&row| &rows[row * dim..][..dim]).copied().collect();
            let (rows, time, mass) = (to_data(&few), time(times[k]), snapshots.total(k));
            let (count, is_held_out, places) = (snapshots.n_rows(k), false, Vec::new());
            Drawn { time, rows, chosen, count, mass, is_held_out, places }
        };
        let is_weighted = (0..times.len()).any(|k| snapshots.weights(k).is_some());
        let (snapshots, n_snapshots) = (kept.into_iter().map(drawn).collect(), times.len());
        Population { dim, snapshots, n_snapshots, basis: None, is_weighted }
    }

    /// The same with the snapshots of `held_out`, of which the training knew nothing. Of rows that
    /// were held out of a time that is there already, none are drawn.
    #[must_use]
    pub fn with_held_out(mut self, held_out: Population) -> Population {
        for snapshot in held_out.snapshots {
            if self.snapshots.iter().all(|seen| seen.time != snapshot.time) {
                self.snapshots.push(Drawn { is_held_out: true, ..snapshot });
                self.n_snapshots += 1;
            }
        }
        self.snapshots.sort_by(|a, b| a.time.total_cmp(&b.time));
        self
    }

    /// The same rows at their places in `embedding`, which has two columns or more and the rows of
    /// the snapshots that this was made of, differences from `origin`; `name` is what it is called.
    ///
    /// # Errors
    /// [`Error::Input`] if it has other rows, or one column.
    pub fn embedded(mut self, embedding: &Snapshots, origin: &[f64], name: &str) -> Result<Population> {
        let fail = |problem: String, fix: &str| Err(Error::input("report", name, problem, fix));
        if embedding.dim < 2 {
            return fail("has one column".into(), "name an array of two columns or more");
        }
        for snapshot in &mut self.snapshots {
            let Some(k) = embedding.find(snapshot.time).filter(|k| embedding.n_rows(*k) == snapshot.count) else {
                let problem = format!("has not the {} rows of time {}", snapshot.count, snapshot.time);
                return fail(problem, "name an array of the data that the run was trained on");
            };
            let place = |&row: &usize| {
                [0, 1].map(|axis| f64::from(embedding.rows(k)[row * embedding.dim + axis]) + origin[axis])
            };
            snapshot.places = snapshot.chosen.iter().flat_map(place).collect();
        }
        self.basis = Some(name.into());
        Ok(self)
    }

    /// Rows there are.
    pub(super) fn count(&self) -> usize {
        self.snapshots.iter().map(|snapshot| snapshot.count).sum()
    }

    /// Where `time` lies between the first snapshot and the last.
    pub(super) fn share(&self, time: f64) -> f64 {
        let [first, last] = self.span();
        if last > first { (time - first) / (last - first) } else { 1.0 }
    }

    pub(super) fn span(&self) -> [f64; 2] {
        let time = |snapshot: Option<&Drawn>| snapshot.map_or(0.0, |snapshot| snapshot.time);
        [time(self.snapshots.first()), time(self.snapshots.last())]
    }

    /// How many of how many points are drawn, in words.
    pub(super) fn note(&self) -> String {
        let drawn: usize = self.snapshots.iter().map(|snapshot| snapshot.chosen.len()).sum();
        let all = self.count();
        let mut note = match drawn < all {
            _ if self.is_weighted => format!("{drawn} draws of {all} points, by their weights."),
            true => format!("{drawn} of {all} points, evenly chosen."),
            false => format!("All {all} points."),
        };
        if self.snapshots.len() < self.n_snapshots {
            note += &format!(" {} of {} snapshots, evenly chosen.", self.snapshots.len(), self.n_snapshots);
        }
        note
    }
}

impl Drawn {
    /// An evenly chosen part of at most `most` rows.
    pub fn thinned(&self, dim: usize, most: usize) -> Drawn {
        let kept = evenly(self.chosen.len(), most);
        let of = |values: &[f64], width: usize| -> Vec<f64> {
            if values.is_empty() {
                return Vec::new();
            }
            kept.iter().flat_map(|&k| &values[k * width..][..width]).copied().collect()
        };
        let (rows, places) = (of(&self.rows, dim), of(&self.places, 2));
        Drawn { rows, places, chosen: kept.iter().map(|&k| self.chosen[k]).collect(), ..*self }
    }
}

/// `n` rows in their order, each as often as its share of the `weights` says, rounded up or down
/// (systematic resampling).
fn by_weight(weights: &[f64], n: usize) -> Vec<usize> {
    let step = weights.iter().sum::<f64>() / n as f64;
    let (mut chosen, mut sum) = (Vec::with_capacity(n), 0.0);
    for (row, weight) in weights.iter().enumerate() {
        sum += weight;
        while chosen.len() < n && (chosen.len() as f64 + 0.5) * step < sum {
            chosen.push(row);
        }
    }
    chosen
}

/// What a picture's axes are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plane {
    /// Time and the only dimension.
    Time,
    /// Two dimensions.
    Axes([usize; 2]),
    /// An embedding, in which only rows of the data have places.
    Basis(String),
}

impl Plane {
    /// The place of a point of the model at `time`: in an embedding, that of the nearest row.
    pub fn place(&self, population: Option<&Population>, row: &[f64], time: f64) -> [f64; 2] {
        match self {
            Plane::Time => [time, row[0]],
            Plane::Axes([i, j]) => [row[*i], row[*j]],
            Plane::Basis(_) => {
                let squared = |other: &[f64]| row.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
                let all = population.iter().flat_map(|population| {
                    population.snapshots.iter().flat_map(|snapshot| {
                        snapshot.rows.chunks_exact(population.dim).zip(snapshot.places.chunks_exact(2))
                    })
                });
                let nearest = all.map(|(other, place)| (squared(other), place)).min_by(|a, b| a.0.total_cmp(&b.0));
                nearest.map_or([f64::NAN; 2], |(_, place)| [place[0], place[1]])
            }
        }
    }

    /// The places of the rows of a snapshot.
    pub fn places(&self, snapshot: &Drawn, dim: usize) -> Vec<[f64; 2]> {
        match self {
            Plane::Basis(_) => snapshot.places.chunks_exact(2).map(|place| [place[0], place[1]]).collect(),
            _ => snapshot.rows.chunks_exact(dim).map(|row| self.place(None, row, snapshot.time)).collect(),
        }
    }

    /// Names of the axes.
    pub fn names(&self, coordinates: &Coordinates) -> [String; 2] {
        let name = |i: usize| match &coordinates.columns {
            Some(columns) => columns.get(i).cloned().unwrap_or_default(),
            None => format!("dimension {i}, data units"),
        };
        match self {
            Plane::Time => ["time".into(), name(0)],
            Plane::Axes([i, j]) => [name(*i), name(*j)],
            Plane::Basis(basis) => [format!("{basis}, 1"), format!("{basis}, 2")],
        }
    }
}

/// `most` of `0..n` or fewer, evenly spaced, with both ends.
pub(super) fn with_ends(n: usize, most: usize) -> Vec<usize> {
    match (n, most) {
        (n, most) if n <= most => (0..n).collect(),
        (n, 1) => vec![n - 1],
        (n, most) => (0..most).map(|k| k * (n - 1) / (most - 1).max(1)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshots(counts: &[usize]) -> Snapshots {
        let rows = counts.iter().enumerate().map(|(k, &n)| {
            let rows: Vec<f32> = (0..n).flat_map(|row| [row as f32, k as f32]).collect();
            (k as f64, rows)
        });
        Snapshots::from_rows(2, rows).expect("snapshots")
    }

    #[test]
    fn points_are_thinned_evenly_and_it_is_said() {
        let few = Population::of_data(&snapshots(&[10, 20]), &[100.0, 0.0]);
        assert_eq!((few.note().as_str(), few.snapshots[1].rows.len()), ("All 30 points.", 40));
        assert_eq!(few.snapshots[0].rows[6..8], [103.0, 0.0]);
        let many = Population::of_data(&snapshots(&[4000, 50]), &[0.0, 0.0]);
        assert_eq!(many.note(), "1050 of 4050 points, evenly chosen.");
        let first: Vec<f64> = many.snapshots[0].rows.chunks_exact(2).map(|row| row[0]).collect();
        assert!(first.windows(2).all(|pair| pair[1] - pair[0] == 4.0), "{first:?}");
        let long = Population::of_data(&snapshots(&vec![3; 100]), &[0.0, 0.0]);
        assert_eq!((long.snapshots.len(), long.span()), (40, [0.0, 99.0]));
        assert!(long.note().ends_with("40 of 100 snapshots, evenly chosen."));
    }

    #[test]
    fn points_are_drawn_by_their_weights() {
        assert_eq!(by_weight(&[1.0, 0.0, 2.0, 1.0], 4), [0, 2, 2, 3]);
        assert_eq!(by_weight(&[1.0, 0.0, 2.0, 1.0], 2), [2, 3]);
        let weights: Vec<f64> = (0..4000).map(|row| if row < 2000 { 3.0 } else { 1.0 }).chain([1.0, 0.0]).collect();
        let weighted = snapshots(&[4000, 2]).weighted(weights).expect("weights");
        let population = Population::of_data(&weighted, &[0.0, 0.0]);
        let light = population.snapshots[0].chosen.iter().filter(|&&row| row >= 2000).count();
        assert_eq!((population.snapshots[0].chosen.len(), light), (1000, 250));
        assert_eq!(population.snapshots[1].chosen, [0, 0]);
        assert_eq!(population.note(), "1002 draws of 4002 points, by their weights.");
    }

    #[test]
    fn held_out_times_are_among_the_others() {
        let whole = snapshots(&[5, 6, 7]);
        let part = |times: &[usize]| {
            let rows = times.iter().map(|&k| (k as f64, whole.rows(k).to_vec()));
            Population::of_data(&Snapshots::from_rows(2, rows).expect("snapshots"), &[0.0, 0.0])
        };
        let both = part(&[0, 2]).with_held_out(part(&[1, 2]));
        let marks: Vec<_> = both.snapshots.iter().map(|snapshot| (snapshot.time, snapshot.is_held_out)).collect();
        assert_eq!(marks, [(0.0, false), (1.0, true), (2.0, false)]);
    }

    #[test]
    fn an_embedding_must_have_the_rows() {
        let data = snapshots(&[3000, 4]);
        let population = || Population::of_data(&data, &[0.0, 0.0]);
        let embedded = population().embedded(&data, &[0.0, 5.0], "umap").expect("the same rows");
        let plane = Plane::Basis("umap".into());
        let place = plane.place(Some(&embedded), &embedded.snapshots[0].rows[20..22], 0.0);
        assert_eq!(place, [embedded.snapshots[0].rows[20], 5.0]);
        let error = population().embedded(&snapshots(&[3000, 5]), &[0.0; 2], "umap").unwrap_err().to_string();
        assert!(error.contains("has not the 4 rows of time 1"), "{error}");
    }
}
