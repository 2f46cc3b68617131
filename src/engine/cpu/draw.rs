//! The rows of a training batch, drawn directly into a tile.
//!
//! A row depends only on (seed, step, row), so the batch is the same for every division into tiles
//! and threads.

use super::loss::{set_condition, set_time};
use super::workspace::Workspace;
use crate::density_path::{DensityPath, End, Moment, RowKey, TimeDensity, TimeRule};
use crate::engine::{Estimator, Training};
use crate::laplacian::LaplacianRule;
use crate::rng::{self, Purpose, RowWords};

/// Everything that the rows of one step depend on.
#[derive(Clone, Copy)]
pub struct Draw<'a> {
    pub training: &'a Training,
    pub step: u64,
    /// Density of the times, for [`TimeRule::Importance`].
    pub density: &'a TimeDensity,
}

impl Draw<'_> {
    /// The moment of row `row` of `n` on `path`, and its factor in a mean over rows. `own` is a
    /// random word of this row alone.
    fn moment(&self, path: &DensityPath, row: usize, n: usize, offset: u32, own: u32) -> (Moment, f64) {
        let rule = self.training.time_rule;
        let u = f64::from(rng::unit_f32(rule.word(row, n, offset, own)));
        let (t, weight) = if rule == TimeRule::Importance { self.density.draw(u) } else { (u, 1.0) };
        // The times of a group may be a part of 0..=1; for all of it this changes no bit.
        let [start, end] = path.span();
        (path.moment(rule, start + t * (end - start)), weight * (end - start))
    }

    fn offset(&self, row: u32) -> u32 {
        rng::words(self.training.seed, Purpose::TimeOffset, self.step, row)[0]
    }

    /// The words, the moment and the weight of interior row `index` on `path`; `offset` is shared
    /// by the step.
    fn interior_moment(&self, path: &DensityPath, index: usize, offset: u32) -> ([u32; 4], Moment, f64) {
        let words = rng::words(self.training.seed, Purpose::Interior, self.step, index as u32);
        let (moment, sampling_weight) = self.moment(path, index, self.training.n_interior, offset, words[0]);
        (words, moment, sampling_weight)
    }

    /// Fills interior rows `first..first + n_rows`: x and t in the input, the weights of the row's
    /// interior term and of s, the weight of its time, and the velocity.
    pub fn interior(&self, first: usize, n_rows: usize, work: &mut Workspace) {
        let Draw { training, step, .. } = *self;
        let dim = training.architecture.dim;
        let offset = self.offset(0);
        for row in 0..n_rows {
            let index = first + row;
            let (path, condition) = training.group_of(step, index as u32);
            let (words, moment, sampling_weight) = self.interior_moment(path, index, offset);
            let trajectory =
                path.trajectory(moment.left, words, RowKey { seed: training.seed, step, row: index as u32 });
            set_condition(&training.architecture, work, row, condition);
            path.point(&trajectory, &moment, |i, x, u| {
                *work.a0.at_mut(row, i) = x;
                work.velocity[row * dim + i] = u;
            });
            set_time(&training.architecture, work, row, moment.t);
            let (omega, d_omega) = training.objective.time_weight.at(f64::from(moment.t));
            let (mass, mass_slope) = path.mass(&trajectory, &moment);
            let on_potential = match training.estimator {
                Estimator::Action { .. } => d_omega * mass,
                // The boundary terms of its intervals contain the change of mass.
                Estimator::Weak { .. } => 0.0,
                Estimator::Regression => -omega * mass_slope,
            };
            work.weight[row] = (omega * mass * sampling_weight) as f32;
            work.on_potential[row] = (on_potential * sampling_weight) as f32;
            work.sampling_weight[row] = sampling_weight as f32;
        }
        probes(training.laplacian.rule, dim, training.seed, step, first, n_rows, work);
    }

    /// Fills the input of the second network with the ends of the trajectories of interior rows and
    /// their times, and its weights with 2r(1 − r).
    pub fn bend_inputs(&self, first: usize, n_rows: usize, bend: &mut Workspace) {
        let Draw { training, step, .. } = *self;
        let dim = training.architecture.dim;
        let Some(settings) = &training.bend else { return };
        let offset = self.offset(0);
        for row in 0..n_rows {
            let index = first + row;
            let (path, condition) = training.group_of(step, index as u32);
            let (words, moment, _) = self.interior_moment(path, index, offset);
            let trajectory =
                path.trajectory(moment.left, words, RowKey { seed: training.seed, step, row: index as u32 });
            for (start, ratio) in [(0, 0.0), (dim, 1.0)] {
                let end = path.at(moment.left, ratio);
                path.point(&trajectory, &end, |i, x, _| *bend.a0.at_mut(row, start + i) = x);
            }
            set_time(&settings.architecture, bend, row, moment.t);
            set_condition(&settings.architecture, bend, row, condition);
            bend.weight[row] = (2.0 * moment.ratio * (1.0 - moment.ratio)) as f32;
        }
    }

    /// The rows of [`Draw::interior`] moved to x = 0, with opposite weights and mass 1.
    pub fn center(&self, first: usize, n_rows: usize, work: &mut Workspace) {
        let training = self.training;
        let offset = self.offset(0);
        for row in 0..n_rows {
            let (path, condition) = training.group_of(self.step, (first + row) as u32);
            let (_, moment, sampling_weight) = self.interior_moment(path, first + row, offset);
            (0..training.architecture.dim).for_each(|i| *work.a0.at_mut(row, i) = 0.0);
            set_time(&training.architecture, work, row, moment.t);
            set_condition(&training.architecture, work, row, condition);
            let (omega, d_omega) = training.objective.time_weight.at(f64::from(moment.t));
            work.weight[row] = (-omega * sampling_weight) as f32;
            work.on_potential[row] = (-d_omega * sampling_weight) as f32;
            work.sampling_weight[row] = 0.0;
        }
    }

    /// x = 0 at both ends, two rows for each group, with weights opposite to those of the boundary
    /// rows and mass 1.
    pub fn center_ends(&self, first: usize, n_rows: usize, work: &mut Workspace) {
        let training = self.training;
        for row in 0..n_rows {
            let (group, end) = ((first + row) / 2, (first + row) % 2);
            let (path, condition, share) = match &training.groups {
                None => (&training.path, &[][..], 1.0),
                Some(groups) => (&groups.all()[group].path, &groups.all()[group].condition[..], groups.share(group)),
            };
            let t = path.span()[end] as f32;
            (0..training.architecture.dim).for_each(|i| *work.a0.at_mut(row, i) = 0.0);
            set_time(&training.architecture, work, row, t);
            set_condition(&training.architecture, work, row, condition);
            let omega = share * training.objective.time_weight.at(f64::from(t)).0;
            work.weight[row] = if end == 0 { -omega } else { omega } as f32;
        }
    }

    /// Fills boundary rows `first..first + n_rows`, at the first or last time.
    pub fn boundary(&self, end: End, first: usize, n_rows: usize, work: &mut Workspace) {
        let Draw { training, step, .. } = *self;
        let purpose = match end {
            End::Start => Purpose::Boundary0,
            End::End => Purpose::Boundary1,
        };
        for row in 0..n_rows {
            let word = rng::words(training.seed, purpose, step, (first + row) as u32)[0];
            let noise = RowKey { seed: training.seed, step, row: (training.n_interior + first + row) as u32 };
            // Both ends draw equal groups, so that they differ in time alone.
            let (path, condition) = training.group_of(step, noise.row);
            let t = path.span()[end as usize] as f32;
            let omega = training.objective.time_weight.at(f64::from(t)).0;
            let weight = match end {
                End::Start => omega,
                End::End => -omega * path.snapshot_mass(path.snapshots.times.len() - 1),
            };
            path.end_point(end, word, noise, |i, x| *work.a0.at_mut(row, i) = x);
            set_time(&training.architecture, work, row, t);
            set_condition(&training.architecture, work, row, condition);
            work.weight[row] = (weight / training.n_boundary as f64) as f32;
        }
    }

    /// Rows `first..first + n_rows` of [`Estimator::Weak`]: samples at one end of a random one of
    /// `intervals` between two snapshots. Each appears at both times of its interval, one row after
    /// the other.
    pub fn weak_ends(&self, intervals: u32, end: End, first: usize, n_rows: usize, work: &mut Workspace) {
        let Draw { training, step, .. } = *self;
        let offset = self.offset(1);
        for row in 0..n_rows {
            let (index, at_later_time) = ((first + row) / 2, (first + row) % 2 == 1);
            // Both ends of an interval draw from the same words, so they lie on one trajectory.
            let words = rng::words(training.seed, Purpose::Boundary0, step, index as u32);
            let noise = RowKey { seed: training.seed, step, row: (training.n_interior + index) as u32 };
            let (path, condition) = training.group_of(step, noise.row);
            let (moment, sampling_weight) = self.moment(path, index, training.n_boundary, offset, words[0]);
            let interval = (moment.ratio * f64::from(intervals)).floor().min(f64::from(intervals - 1));
            let ends = [interval, interval + 1.0].map(|end| path.at(moment.left, end / f64::from(intervals)));
            let trajectory = path.trajectory(moment.left, words, noise);
            let sampled = &ends[end as usize];
            path.point(&trajectory, sampled, |i, x, _| *work.a0.at_mut(row, i) = x);
            set_time(&training.architecture, work, row, ends[usize::from(at_later_time)].t);
            set_condition(&training.architecture, work, row, condition);
            let (omega, _) = training.objective.time_weight.at(f64::from(moment.t));
            let (mass, _) = path.mass(&trajectory, sampled);
            let per_length = f64::from(intervals) / path.length(moment.left);
            let weight = 0.5 * omega * mass * sampling_weight * per_length / training.n_boundary as f64;
            work.weight[row] = if end == End::End { -weight } else { weight } as f32;
        }
    }
}

/// Fills the probes of rows `first..first + n_rows` of `step`. Component i of probe k is number k·d
/// + i of its row.
pub fn probes(
    rule: LaplacianRule,
    dim: usize,
    seed: u64,
    step: u64,
    first: usize,
    n_rows: usize,
    work: &mut Workspace,
) {
    let n_probes = work.probes.len();
    let mut place = |row: usize, number: usize, value: f32| {
        if number < n_probes * dim {
            *work.probes[number / dim].input.at_mut(row, number % dim) = value;
        }
    };
    match rule {
        _ if n_probes == 0 => {}
        LaplacianRule::Exact => unit_probes(work, n_rows, dim),
        LaplacianRule::Rademacher => {
            const BITS: usize = u32::BITS as usize;
            let words = RowWords::new(seed, Purpose::Probe, step, (n_probes * dim).div_ceil(BITS));
            for row in 0..n_rows {
                for (i, word) in words.of((first + row) as u32).flatten().enumerate() {
                    for bit in 0..BITS.min((n_probes * dim).saturating_sub(i * BITS)) {
                        place(row, i * BITS + bit, if word >> bit & 1 == 0 { 1.0 } else { -1.0 });
                    }
                }
            }
        }
        LaplacianRule::Gaussian => {
            let words = RowWords::new(seed, Purpose::Probe, step, n_probes * dim);
            for row in 0..n_rows {
                for (i, value) in words.of((first + row) as u32).flat_map(rng::normals).enumerate() {
                    place(row, i, value);
                }
            }
        }
    }
}

/// Fills the probes with the unit vectors, whose curvatures sum to the Laplacian.
pub fn unit_probes(work: &mut Workspace, n_rows: usize, dim: usize) {
    for (k, probe) in work.probes.iter_mut().enumerate() {
        for row in 0..n_rows {
            for i in 0..dim {
                *probe.input.at_mut(row, i) = f32::from(u8::from(i == k));
            }
        }
    }
}

/// Rows as plain lists, with which the rows of other engines are compared.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct PlainRows {
    /// `[n, n_inputs]`.
    pub input: Vec<f32>,
    pub t: Vec<f32>,
    /// `[n, features]`.
    pub d_phi: Vec<f32>,
    /// `[n, dim]`.
    pub velocity: Vec<f32>,
    pub weight: Vec<f32>,
    pub on_potential: Vec<f32>,
    pub sampling_weight: Vec<f32>,
    /// `[probe][n, dim]`.
    pub probes: Vec<Vec<f32>>,
}

#[cfg(test)]
impl PlainRows {
    /// The `n_rows` rows with `n_probes` probes that `fill` draws.
    pub fn of(
        architecture: &crate::model::Architecture,
        n_probes: usize,
        n_rows: usize,
        fill: impl FnOnce(&mut Workspace),
    ) -> Self {
        let packing = super::weights::Packing::new(architecture, 16);
        let mut work = Workspace::new(architecture, &packing, n_rows, n_probes);
        fill(&mut work);
        let list = |tile: &super::panel::Tile, width: usize| -> Vec<f32> {
            (0..n_rows * width).map(|i| tile.at(i / width, i % width)).collect()
        };
        let head = |values: &[f32], width: usize| values[..n_rows * width].to_vec();
        PlainRows {
            input: list(&work.a0, architecture.n_inputs()),
            t: head(&work.t, 1),
            d_phi: head(&work.d_phi, architecture.time_embedding.width()),
            velocity: head(&work.velocity, architecture.dim),
            weight: head(&work.weight, 1),
            on_potential: head(&work.on_potential, 1),
            sampling_weight: head(&work.sampling_weight, 1),
            probes: work.probes.iter().map(|probe| list(&probe.input, architecture.dim)).collect(),
        }
    }
}
