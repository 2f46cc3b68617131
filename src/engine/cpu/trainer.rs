//! Optimizer steps on all cores. A step sweeps tiles of rows, then sums the gradient, then updates,
//! with a barrier between these phases.
//!
//! The result does not depend on which thread runs a tile: rows depend on (seed, step, row), sums
//! over rows are formed tile after tile in the order of the batch, and sums over parameters unit
//! after unit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, RwLock};
use std::thread::ScopedJoinHandle;

use pulp::Simd;

use super::bend;
use super::draw::Draw;
use super::gradient;
use super::growth;
use super::learner::{Learner, SharedLearner};
use super::loss::{self, Interior, LossTerms};
use super::sweeps::RowKind;
use super::sync::{Barrier, OnPanic};
use super::workspace::{Workspace, rows_per_tile};
use crate::density_path::{End, TimeDensity, TimeMoments, TimeRule};
use crate::engine::batch::{BatchPart, LossForm};
use crate::engine::step_sizes::StepSizes;
use crate::engine::{Records, StepRecord, TrainState, Trainer, Training};
use crate::error::{DeviceKind, Error, Result};
use crate::objective::Objective;
use crate::stage;

/// Consecutive rows of one part of the batch.
#[derive(Clone, Copy)]
struct TileRows {
    part: BatchPart,
    first: usize,
    n_rows: usize,
}

/// Training on the CPU with the instruction set `S`.
pub struct CpuTrainer<S> {
    simd: S,
    training: Training,
    state: TrainState,
    tiles: Vec<TileRows>,
    tile_sums: Vec<Mutex<TileSums>>,
    action: Learner,
    /// The dynamics that the action is trained for: without growth if that has a head of its own.
    objective: Objective,
    /// The network that bends a learned path.
    bend: Option<Learner>,
    /// The growth head; none on a learned path.
    growth: Option<Learner>,
    /// For each thread, the workspaces of the action and of the second network, if there is one.
    workspaces: Vec<(Workspace, Option<Workspace>)>,
}

impl<S: Simd> CpuTrainer<S> {
    /// Continues from `state` on `threads` threads.
    pub fn new(simd: S, threads: usize, training: Training, state: TrainState) -> Self {
        let tiles: Vec<TileRows> = (BatchPart::of(&training).into_iter())
            .flat_map(|(part, n)| {
                let rows = rows_per_tile(n);
                (0..n).step_by(rows).map(move |first| TileRows { part, first, n_rows: rows.min(n - first) })
            })
            .collect();
        let capacity = tiles.iter().map(|tile| tile.n_rows).max().unwrap_or(0);
        let action = Learner::new(simd, &training.architecture, &state.action, tiles.len());
        // Interior tiles come first, so their numbers are 0 to this one.
        let n_interior = tiles.iter().filter(|tile| tile.part == BatchPart::Interior).count();
        let bend = (training.bend.as_ref().zip(state.bend.as_ref()))
            .map(|(bend, state)| Learner::new(simd, &bend.architecture, state, n_interior));
        let of_growth = training.architecture.growth_head();
        let growth = state.growth.as_ref().map(|state| Learner::new(simd, &of_growth, state, n_interior));
        let workspaces = (0..threads)
            .map(|_| {
                let second = bend.as_ref().or(growth.as_ref());
                (
                    Workspace::new(&training.architecture, action.packing(), capacity, training.n_probes()),
                    second.map(|learner| Workspace::new(learner.architecture(), learner.packing(), capacity, 0)),
                )
            })
            .collect();
        let tile_sums = tiles.iter().map(|_| Mutex::default()).collect();
        let mut objective = training.objective.clone();
        if training.growth_head {
            objective.growth = 0.0;
        }
        CpuTrainer { simd, training, state, tiles, tile_sums, action, objective, bend, growth, workspaces }
    }
}

impl<S: Simd> Trainer for CpuTrainer<S> {
    fn steps(&mut self, n: u64, records: &mut dyn Records) -> Result<()> {
        let shared = SharedStep {
            training: &self.training,
            objective: &self.objective,
            tiles: &self.tiles,
            tile_sums: &self.tile_sums,
            density: RwLock::new(time_density(&self.state.time_moments)),
            time_moments: Mutex::new(&mut self.state.time_moments),
            action: self.action.share(self.simd, &mut self.state.action),
            bend: (self.bend.as_mut().zip(self.state.bend.as_mut()))
                .map(|(learner, state)| learner.share(self.simd, state)),
            growth: (self.growth.as_mut().zip(self.state.growth.as_mut()))
                .map(|(learner, state)| learner.share(self.simd, state)),
            next_tile: AtomicUsize::new(0),
            barrier: OnceLock::new(),
        };
        let steps = self.state.step..self.state.step + n;
        let mut outcome = Ok(());
        let taken = std::thread::scope(|scope| {
            let (first, others) = self.workspaces.split_first_mut().expect("a trainer has at least one thread");
            let others: Vec<_> = (others.iter_mut().enumerate())
                .map_while(|(index, work)| {
                    let (shared, steps) = (&shared, steps.clone());
                    // If the system starts no more threads, those that run do all the work.
                    stage::spawn(scope, move || shared.run(index + 1, work, steps, |_| {})).ok()
                })
                .collect();
            shared.barrier.get_or_init(|| Barrier::new(1 + others.len()));
            let first = catch_unwind(AssertUnwindSafe(|| {
                shared.run(0, first, steps, |record| {
                    outcome = record.check();
                    records.push(record);
                })
            }));
            (others.into_iter().map(ScopedJoinHandle::join)).fold(first, |all, other| all.and(other))
        });
        self.state.step += taken.map_err(|_| Error::Device {
            kind: DeviceKind::Failed,
            device: format!("cpu, {} threads", self.workspaces.len()),
            problem: "a thread of a training step panicked (its message stands above)".into(),
            fix: "please report it; go on from the last checkpoint with `Existing::Resume`".into(),
        })?;
        outcome
    }

    fn training(&self) -> &Training {
        &self.training
    }

    fn state(&self) -> Result<TrainState> {
        Ok(self.state.clone())
    }
}

/// Result of a tile: terms of the loss, and moments of the integrand if the times follow it.
#[derive(Clone, Copy, Default)]
struct TileSums {
    terms: LossTerms,
    moments: TimeMoments,
}

fn time_density(time_moments: &[f32]) -> TimeDensity {
    TimeDensity::new(&TimeMoments::from_slice(time_moments).unwrap_or_default())
}

/// State that the threads of [`CpuTrainer::steps`] share.
struct SharedStep<'a, S> {
    training: &'a Training,
    /// That of the action.
    objective: &'a Objective,
    tiles: &'a [TileRows],
    tile_sums: &'a [Mutex<TileSums>],
    /// The density of times of the step.
    density: RwLock<TimeDensity>,
    /// Moments from which the next density is made; only the first thread uses them.
    time_moments: Mutex<&'a mut Vec<f32>>,
    action: SharedLearner<'a, S>,
    bend: Option<SharedLearner<'a, S>>,
    growth: Option<SharedLearner<'a, S>>,
    next_tile: AtomicUsize,
    /// Set when the number of started threads is known.
    barrier: OnceLock<Barrier>,
}

impl<S: Simd> SharedStep<'_, S> {
    /// One thread's work in `steps`. Returns the number of steps taken, the same on every thread.
    /// If one thread panics, all do.
    fn run(
        &self,
        thread: usize,
        (work, second): &mut (Workspace, Option<Workspace>),
        steps: std::ops::Range<u64>,
        mut report: impl FnMut(StepRecord),
    ) -> u64 {
        let std::ops::Range { start, end } = steps;
        let barrier = self.barrier.wait();
        let n_threads = barrier.n_threads();
        let _guard = OnPanic(|| {
            barrier.poison();
            self.learners().for_each(|learner| learner.sums.poison());
        });
        for step in start..end {
            loop {
                let tile = self.next_tile.fetch_add(1, Relaxed);
                if tile >= self.tiles.len() {
                    break;
                }
                self.sweep(step, tile, work, second.as_mut());
            }
            barrier.wait(); // separates writing the partial sums from summing them
            self.learners().for_each(|learner| learner.gather_gradient(thread, n_threads));
            if thread == 0 {
                self.next_tile.store(0, Relaxed);
                self.learners().for_each(|learner| learner.sums.reset());
            }
            barrier.wait(); // separates writing the sums of squares from reading them on all threads
            let record = self.record(step);
            report(record);
            if !(record.loss.is_finite() && record.gradient_norm.is_finite()) {
                return step - start;
            }
            if thread == 0 && self.training.time_rule == TimeRule::Importance {
                self.follow_integrand();
            }
            let optimizer = &self.training.optimizer;
            self.action.update(thread, n_threads, StepSizes::new(optimizer, step, record.gradient_norm, 1.0));
            if let (Some(learner), Some(bend)) = (&self.bend, &self.training.bend) {
                let sizes = StepSizes::new(optimizer, step, learner.gradient_norm(), bend.relative_rate);
                learner.update(thread, n_threads, sizes);
            }
            if let Some(learner) = &self.growth {
                learner.update(thread, n_threads, StepSizes::new(optimizer, step, learner.gradient_norm(), 1.0));
            }
            barrier.wait(); // separates writing the weights from the next step's reads
        }
        end - start
    }

    fn learners(&self) -> impl Iterator<Item = &SharedLearner<'_, S>> {
        std::iter::once(&self.action).chain(&self.bend).chain(&self.growth)
    }

    /// The network beside the action, if there is one.
    fn second(&self) -> Option<&SharedLearner<'_, S>> {
        self.bend.as_ref().or(self.growth.as_ref())
    }

    /// Draws the rows of `tile`, runs its sweeps and adds its gradient.
    fn sweep(&self, step: u64, tile: usize, work: &mut Workspace, mut second: Option<&mut Workspace>) {
        let TileRows { part, first, n_rows } = self.tiles[tile];
        let training = self.training;
        let scale = 1.0 / training.n_interior as f32;
        let sweeps = self.action.sweeps();
        let density = self.density.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let draw = Draw { training, step, density: &density };
        let mut sums = TileSums::default();
        match part {
            BatchPart::Interior | BatchPart::Center => {
                let is_center = part == BatchPart::Center;
                let form = if is_center { LossForm::Centering } else { LossForm::of(training.estimator) };
                if is_center {
                    draw.center(first, n_rows, work);
                } else {
                    draw.interior(first, n_rows, work);
                    if let (Some(learner), Some(bend)) = (&self.bend, second.as_deref_mut()) {
                        draw.bend_inputs(first, n_rows, bend);
                        bend::displace(&learner.sweeps(), bend, work, n_rows);
                    }
                    if let (Some(learner), Some(head)) = (&self.growth, second.as_deref_mut()) {
                        growth::rates(&learner.sweeps(), work, head, n_rows);
                        growth::seed(work, head, n_rows, training.objective.growth, scale);
                    }
                }
                let probe_weight = training.laplacian.probe_weight();
                let interior = Interior { objective: self.objective, form, scale, probe_weight };
                let growth: &[f32] = match (&self.growth, second.as_deref()) {
                    (Some(_), Some(head)) => &head.s[..n_rows],
                    _ => &[],
                };
                let follow = training.time_rule == TimeRule::Importance && part == BatchPart::Interior;
                let moments = &mut sums.moments;
                let integrand = |work: &Workspace, row: usize, value: f32| {
                    if follow {
                        let value = value + growth.get(row).unwrap_or(&0.0);
                        moments.add_row(f64::from(work.t[row]), f64::from(value / work.sampling_weight[row]));
                    }
                };
                sums.terms = loss::interior(&sweeps, interior, work, n_rows, integrand);
                sums.terms.interior += f64::from(scale) * growth.iter().map(|&term| f64::from(term)).sum::<f64>();
            }
            BatchPart::CenterEnds => {
                draw.center_ends(first, n_rows, work);
                sums.terms.interior = loss::boundary(&sweeps, work, n_rows);
            }
            BatchPart::Boundary(end) | BatchPart::WeakEnds { end, .. } => {
                match part {
                    BatchPart::WeakEnds { intervals, .. } => draw.weak_ends(intervals, end, first, n_rows, work),
                    _ => draw.boundary(end, first, n_rows, work),
                }
                let value = loss::boundary(&sweeps, work, n_rows);
                match end {
                    End::Start => sums.terms.boundary0 = value,
                    End::End => sums.terms.boundary1 = value,
                }
            }
        }
        drop(density);
        *self.tile_sums[tile].lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = sums;
        let learner = &self.action;
        let kind = if part.is_interior() { RowKind::Interior } else { RowKind::Boundary };
        gradient::accumulate(&sweeps, work, n_rows, kind, tile, learner.sums, learner.partial_gradients);
        if let (BatchPart::Interior, Some(learner), Some(second)) = (part, self.second(), second) {
            if self.bend.is_some() {
                loss::gradient_at_points(&sweeps, self.objective, work, n_rows, scale);
                bend::seed(work, second, n_rows, training.architecture.dim);
            }
            let values = learner.partial_gradients;
            gradient::accumulate(&learner.sweeps(), second, n_rows, RowKind::Boundary, tile, learner.sums, values);
        }
    }

    /// Loss and gradient norm of the step, from the sums of tiles and units.
    fn record(&self, step: u64) -> StepRecord {
        let mut terms = LossTerms::default();
        for tile in self.tile_sums {
            terms.add(&tile.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).terms);
        }
        // A non-finite gradient of either network ends the run.
        let lost = self.second().map(SharedLearner::gradient_norm).filter(|norm| !norm.is_finite());
        StepRecord {
            step,
            loss: terms.total(),
            boundary0: terms.boundary0,
            boundary1: terms.boundary1,
            interior: terms.interior,
            kinetic: terms.kinetic,
            gradient_norm: lost.unwrap_or(self.action.gradient_norm()),
            learning_rate: self.training.optimizer.learning_rate.at(step),
        }
    }

    /// Adds the step's integrand to the running moments, and computes the density of the next step.
    fn follow_integrand(&self) {
        let mut step = TimeMoments::default();
        for tile in self.tile_sums {
            step.add(&tile.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).moments);
        }
        let mut list = self.time_moments.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut moments = TimeMoments::from_slice(&list).unwrap_or_default();
        moments.follow(&step);
        **list = moments.to_vec();
        // The density is computed from values that a checkpoint holds, so a resumed run draws the
        // same times.
        *self.density.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = time_density(&list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Snapshots, draw_gaussian};
    use crate::density_path::DensityPath;
    use crate::engine::Estimator;
    use crate::rng::Stream;

    use crate::model::Architecture;
    use crate::stage::tests::with_startable;

    /// Miri takes a thousand times as long: fewer rows and narrower layers for it, still several
    /// tiles.
    const SMALL: bool = cfg!(miri);

    fn trainer(threads: usize) -> CpuTrainer<pulp::Scalar> {
        let snapshots = Snapshots {
            dim: 2,
            times: vec![0.0, 1.0],
            offsets: vec![0, 50, 120],
            samples: draw_gaussian(120, 2, &mut Stream::of_normals(3, 2)),
            mass: Default::default(),
        };
        let hidden = if SMALL { vec![5, 3] } else { vec![16, 16] };
        let training = Training {
            estimator: Estimator::Action { centering: false },
            n_interior: if SMALL { 100 } else { 600 },
            n_boundary: if SMALL { 97 } else { 200 },
            seed: 7,
            ..Training::new(Architecture::new(2, hidden), DensityPath::linear(snapshots))
        };
        let state = training.initial_state().expect("sizes within their limits");
        CpuTrainer::new(pulp::Scalar::new(), threads, training, state)
    }

    /// If fewer threads start, they do all steps, with equal bits.
    #[test]
    fn threads_that_cannot_start_are_not_waited_for() {
        const STEPS: u64 = if SMALL { 2 } else { 5 };
        let state_with = |startable: usize| {
            let (mut trainer, mut records) = (trainer(4), Vec::new());
            with_startable(startable, || trainer.steps(STEPS, &mut records)).expect("steps");
            assert_eq!(records.len() as u64, STEPS);
            trainer.state().expect("a state")
        };
        let all = state_with(usize::MAX);
        assert_eq!(all.step, STEPS);
        for startable in [0, 1, 2] {
            assert_eq!(state_with(startable), all, "{startable} threads beside the first");
        }
    }

    /// A fault in any thread frees the others from barrier and turns, and the step ends with an
    /// error.
    #[test]
    fn a_panic_ends_the_step_with_an_error() {
        for threads in [1, 4] {
            let mut trainer = trainer(threads);
            assert!(trainer.tiles.len() > 4);
            trainer.tile_sums.truncate(3);
            let error = trainer.steps(5, &mut Vec::new()).expect_err("a tile without a place for its sums");
            assert!(error.to_string().contains("panicked"), "{error}");
        }
    }
}
