//! Snapshots with more points than exact distances take: compared by sliced W₂, a measure of its
//! own.

use serde::Serialize;

use super::baselines::{Baselines, Neighbor, equal_number};
use super::flow::Moving;
use super::labels::{Truth, Way};
use super::points::{Particles, PointSet};
use super::sliced::Slices;
use super::{EvaluateOptions, means};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::stage::{Section, Stage, Watch};

/// Positions, and weights where they are not all alike.
type Weighted = (Vec<f32>, Option<Vec<f64>>);

/// Sliced distances of sets of points from one truth: of all points there are, up to
/// [`EvaluateOptions::max_sliced`], where exact distances are of a random subset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlicedScores {
    /// Points on each side, of all sets but the last, which has all.
    pub n_points: usize,
    /// Number of directions.
    pub directions: usize,
    /// The sets that the comparison has, the model's first.
    pub sets: Vec<SlicedSet>,
}

/// The sliced distance of one set of points.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlicedSet {
    /// What the points are, as in [`SetMeans::name`](super::SetMeans::name).
    pub name: &'static str,
    /// √d · [sliced W₂](super::sliced_wasserstein2) from the truth, data units.
    pub sliced_w2: f64,
}

impl SlicedScores {
    /// The distance of the set `name`, if there is one.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<f64> {
        self.sets.iter().find(|set| set.name == name).map(|set| set.sliced_w2)
    }
}

/// The comparisons of a model with large snapshots.
pub(super) struct Large<'a> {
    pub engine: &'a dyn Engine,
    pub model: &'a Model,
    pub truths: &'a [Truth<'a>],
    pub options: &'a EvaluateOptions,
}

impl Large<'_> {
    /// True for a comparison with a snapshot of more points than exact distances take.
    pub fn includes(&self, way: &Way) -> bool {
        let EvaluateOptions { max_points, max_sliced, .. } = *self.options;
        let is_large = |k: usize| self.truths[k].n_rows() > max_points;
        max_sliced > max_points && way.from.into_iter().chain([way.to]).any(is_large)
    }

    /// The scores of each of `ways`, which are in order of time; `None` for those that are not
    /// [included](Large::includes), or have a single point. Counts one unit for each other one.
    ///
    /// # Errors
    /// As [`evaluate_labeled`](super::evaluate_labeled).
    pub fn scores(&self, ways: &[Way], stage: &Stage) -> Result<Vec<Option<SlicedScores>>> {
        let total = ways.iter().filter(|way| self.includes(way)).count() as u64;
        let slices = Slices::new(self.model.architecture.dim, self.options.seed);
        let rolls_out = total > 0 && ways.iter().any(|way| way.from.is_some_and(|from| from != 0));
        let mut roll_out = rolls_out.then(|| Moving::from_set(self.model, &self.points(0), self.options));
        let mut before = 0;
        let score = |way: &Way| {
            if !self.includes(way) {
                return Ok(None);
            }
            let watch = &Section { watch: stage.watch, before, units: 1, total };
            before += 1;
            self.of_way(way, &mut roll_out, &slices, &stage.watched_by(watch))
        };
        ways.iter().map(score).collect()
    }

    /// Scores of one comparison. `roll_out` is moved on to the time of the truth, and is `None`
    /// from where its particles are lost.
    fn of_way(
        &self,
        way: &Way,
        roll_out: &mut Option<Moving>,
        slices: &Slices,
        stage: &Stage,
    ) -> Result<Option<SlicedScores>> {
        let (dim, seed) = (self.model.architecture.dim, self.options.seed);
        let count = |rows: &[f32]| rows.len() / dim;
        let (truth, from) = (self.points(way.to), way.from.map(|from| self.points(from)));
        let flow = match &from {
            Some(from) => Moving::from_set(self.model, from, self.options),
            None => Moving::from_noise(self.model, count(&truth.rows), self.options),
        };
        let departed = flow.positions(self.model);
        let end = if from.is_some() { self.model.coordinates.network_time(truth.time) } else { 1.0 };
        let (arrived, weights) = self.moved(&mut Some(flow), end, stage.watch)?.unwrap_or_default();
        let arrived = Particles { rows: &arrived, weights: weights.as_deref() };
        let rolled_out = match self.moved(roll_out, end, stage.watch) {
            // The report says that they are lost.
            Err(Error::NotFinite { .. } | Error::Setting { .. }) => {
                *roll_out = None;
                None
            }
            moved => moved?,
        };
        let rolled_out = (rolled_out.as_ref()).map(|(rows, weights)| Particles { rows, weights: weights.as_deref() });

        let twin = way.twin.map(|twin| self.points(twin));
        let beside = way.beside.map(|ends| ends.map(|k| self.points(k)));
        let (truth_available, other) = match &twin {
            Some(twin) => (2 * count(&truth.rows), &twin.rows),
            None => (2 * count(&truth.others), &truth.others),
        };
        let sides = [&departed, other].into_iter().chain(beside.iter().flatten().map(|set| &set.rows));
        let numbers = sides.map(|rows| count(rows)).chain(rolled_out.map(|particles| count(particles.rows)));
        let n = equal_number(truth_available, numbers, self.options.max_sliced);
        if n == 0 {
            return Ok(None);
        }
        let baselines = beside.as_ref().map(|[before, after]| {
            let [before, after] = [before, after].map(|set| Neighbor { time: set.time, rows: &set.rows });
            Baselines::between(dim, before, after, truth.time, n, seed, stage.watch)
        });
        let baselines = baselines.transpose()?;
        // What particles start from is there as `no motion`.
        let is_departed = |name: &str| name == "previous" && way.beside.map(|[before, _]| before) == way.from;
        let mut sets = vec![(means::MODEL.0, arrived)];
        sets.extend(rolled_out.map(|particles| (means::ROLL_OUT, particles)));
        sets.push((means::NO_MOTION.0, Particles::equal(&departed)));
        sets.extend(
            (baselines.iter().flat_map(Baselines::named))
                .filter(|(name, _)| !is_departed(name))
                .map(|(name, rows)| (name, Particles::equal(rows))),
        );
        sets.push((means::SAMPLING_FLOOR, Particles::equal(other)));

        let equal: Vec<Particles<'_>> = sets.iter().map(|(_, particles)| particles.first(n, dim)).collect();
        let mut distances = slices.distances(&equal, &truth.rows[..n * dim], stage)?;
        sets.push((means::ALL_POINTS, arrived));
        distances.extend(slices.distances(&[arrived], &truth.rows, stage)?);
        let sets = sets.iter().zip(distances).map(|(&(name, _), sliced_w2)| SlicedSet { name, sliced_w2 }).collect();
        Ok(Some(SlicedScores { n_points: n, directions: slices.count(), sets }))
    }

    fn points(&self, k: usize) -> PointSet {
        let EvaluateOptions { max_sliced, seed, .. } = *self.options;
        PointSet::new(self.model.architecture.dim, self.truths[k], &self.model.coordinates.mean, max_sliced, seed)
    }

    /// Positions and weights of `moving`, if there are any, at the time `end`, network units.
    fn moved(&self, moving: &mut Option<Moving>, end: f64, watch: &dyn Watch) -> Result<Option<Weighted>> {
        let Some(moving) = moving else { return Ok(None) };
        moving.advance(self.engine, self.model, end, self.options, watch)?;
        Ok(Some((moving.positions(self.model), moving.weights())))
    }
}
