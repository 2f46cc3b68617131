//! Optimiser steps on all cores: tiles of rows, then the gradient, then the update, with a barrier between.
//!
//! Which thread runs a tile changes nothing: rows depend on (seed, step, row), sums over rows are formed tile
//! after tile in the order of the batch, and sums over parameters unit after unit.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, RwLock};

use pulp::Simd;

use super::draw::Draw;
use super::gradient::{self, PartialSums};
use super::loss::{self, Form, Interior, LossTerms};
use super::optimizer::{StepSizes, SumOfSquares, Update};
use super::panel::Aligned;
use super::sweeps::Sweeps;
use super::sync::{Barrier, SharedMut};
use super::weights::{PackedWeights, Packing, WeightsView};
use super::workspace::{Workspace, rows_per_tile};
use crate::density_path::{TimeDensity, TimeMoments, TimeRule};
use crate::engine::{Estimator, StepRecord, TrainState, Trainer, Training};
use crate::error::Result;

/// Which part of the batch a tile belongs to. Of two ends, `false` is the earlier one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Interior,
    /// Rows that weigh against the interior ones, for [`Estimator::Action`]'s centring.
    Centre,
    CentreEnds,
    Boundary {
        at_end: bool,
    },
    /// Ends of the parts of [`Estimator::Weak`].
    WeakEnds {
        intervals: u32,
        at_end: bool,
    },
}

impl Part {
    /// The parts of a batch with the rows that each has.
    fn of(training: &Training) -> Vec<(Part, usize)> {
        // Interior tiles take the most work, so they come first: the last tiles even out the threads.
        let mut parts = vec![(Part::Interior, training.n_interior)];
        match training.estimator {
            Estimator::Action { centring } => {
                if centring {
                    parts.push((Part::Centre, training.n_interior));
                }
                parts.extend([false, true].map(|at_end| (Part::Boundary { at_end }, training.n_boundary)));
                if centring {
                    parts.push((Part::CentreEnds, 2));
                }
            }
            Estimator::Weak { intervals } => {
                parts.extend(
                    [false, true].map(|at_end| (Part::WeakEnds { intervals, at_end }, 2 * training.n_boundary)),
                );
            }
            Estimator::Regression => {}
        }
        parts
    }

    fn is_interior(self) -> bool {
        matches!(self, Part::Interior | Part::Centre)
    }
}

/// Consecutive rows of one part of the batch.
#[derive(Clone, Copy)]
struct TileRows {
    part: Part,
    first: usize,
    n_rows: usize,
}

/// Training on the CPU with the instruction set `S`.
pub struct CpuTrainer<S> {
    simd: S,
    training: Training,
    state: TrainState,
    packing: Packing,
    weights: PackedWeights,
    /// What `sums` describes.
    partial_gradients: Aligned,
    gradient: Vec<f32>,
    tiles: Vec<TileRows>,
    sums: PartialSums,
    tile_sums: Vec<Mutex<TileSums>>,
    /// Σ g² of each unit, as f64 bits.
    squares: Vec<AtomicU64>,
    /// One for each thread.
    workspaces: Vec<Workspace>,
}

impl<S: Simd> CpuTrainer<S> {
    /// Continues from `state` on `threads` threads.
    pub fn new(simd: S, threads: usize, training: Training, state: TrainState) -> Self {
        let packing = Packing::new(&training.architecture, super::panel::panel_width::<S>());
        let tiles: Vec<TileRows> = (Part::of(&training).into_iter())
            .flat_map(|(part, n)| {
                let rows = rows_per_tile(n);
                (0..n).step_by(rows).map(move |first| TileRows { part, first, n_rows: rows.min(n - first) })
            })
            .collect();
        let capacity = tiles.iter().map(|tile| tile.n_rows).max().unwrap_or(0);
        let sums = PartialSums::new(&packing, tiles.len());
        CpuTrainer {
            simd,
            weights: PackedWeights::new(&packing, &state.parameters),
            partial_gradients: Aligned::zeros(sums.n_values()),
            gradient: vec![0.0; state.parameters.len()],
            sums,
            tile_sums: tiles.iter().map(|_| Mutex::default()).collect(),
            squares: packing.units.iter().map(|_| AtomicU64::default()).collect(),
            workspaces: (0..threads)
                .map(|_| Workspace::new(&training.architecture, &packing, capacity, training.n_probes()))
                .collect(),
            tiles,
            packing,
            training,
            state,
        }
    }
}

impl<S: Simd> Trainer for CpuTrainer<S> {
    fn steps(&mut self, n: u64, records: &mut Vec<StepRecord>) -> Result<()> {
        let crew = Crew {
            simd: self.simd,
            training: &self.training,
            packing: &self.packing,
            tiles: &self.tiles,
            sums: &self.sums,
            tile_sums: &self.tile_sums,
            density: RwLock::new(time_density(&self.state.time_moments)),
            time_moments: Mutex::new(&mut self.state.time_moments),
            squares: &self.squares,
            partial_gradients: SharedMut::new(self.partial_gradients.as_mut_slice()),
            gradient: SharedMut::new(&mut self.gradient),
            weights: SharedMut::new(self.weights.values_mut()),
            parameters: SharedMut::new(&mut self.state.parameters),
            ema: SharedMut::new(&mut self.state.ema),
            moment1: SharedMut::new(&mut self.state.moment1),
            moment2: SharedMut::new(&mut self.state.moment2),
            next_tile: AtomicUsize::new(0),
            barrier: Barrier::new(self.workspaces.len()),
            n_threads: self.workspaces.len(),
        };
        crew.sums.reset();
        let steps = self.state.step..self.state.step + n;
        records.reserve(n as usize);
        let taken = std::thread::scope(|scope| {
            let (first, others) = self.workspaces.split_first_mut().expect("a trainer has at least one thread");
            for (index, work) in others.iter_mut().enumerate() {
                let (crew, steps) = (&crew, steps.clone());
                scope.spawn(move || crew.run(index + 1, work, steps, |_| {}));
            }
            crew.run(0, first, steps, |record| records.push(record))
        });
        self.state.step += taken;
        Ok(())
    }

    fn state(&self) -> TrainState {
        self.state.clone()
    }
}

/// What a tile reports: terms of the loss, and moments of the integrand where the times follow it.
#[derive(Clone, Copy, Default)]
struct TileSums {
    terms: LossTerms,
    moments: TimeMoments,
}

fn time_density(time_moments: &[f32]) -> TimeDensity {
    TimeDensity::new(&TimeMoments::from_slice(time_moments).unwrap_or_default())
}

/// What the threads of [`CpuTrainer::steps`] share.
struct Crew<'a, S> {
    simd: S,
    training: &'a Training,
    packing: &'a Packing,
    tiles: &'a [TileRows],
    sums: &'a PartialSums,
    tile_sums: &'a [Mutex<TileSums>],
    /// The density of times of the step.
    density: RwLock<TimeDensity>,
    /// What the next density follows; the first thread's.
    time_moments: Mutex<&'a mut Vec<f32>>,
    squares: &'a [AtomicU64],
    partial_gradients: SharedMut,
    gradient: SharedMut,
    weights: SharedMut,
    parameters: SharedMut,
    ema: SharedMut,
    moment1: SharedMut,
    moment2: SharedMut,
    next_tile: AtomicUsize,
    barrier: Barrier,
    n_threads: usize,
}

impl<S: Simd> Crew<'_, S> {
    /// One thread's part of `steps`; returns the number of steps taken, the same on every thread.
    fn run(
        &self,
        thread: usize,
        work: &mut Workspace,
        steps: std::ops::Range<u64>,
        mut report: impl FnMut(StepRecord),
    ) -> u64 {
        let std::ops::Range { start, end } = steps;
        for step in start..end {
            loop {
                let tile = self.next_tile.fetch_add(1, Relaxed);
                if tile >= self.tiles.len() {
                    break;
                }
                self.sweep(step, tile, work);
            }
            self.barrier.wait(); // the partial sums are written; they are added up next
            self.gather_gradient(thread);
            if thread == 0 {
                self.next_tile.store(0, Relaxed);
                self.sums.reset();
            }
            self.barrier.wait(); // sums of squares are written; all threads read all of them next
            let record = self.record(step);
            report(record);
            if !(record.loss.is_finite() && record.gradient_norm.is_finite()) {
                return step - start;
            }
            if thread == 0 && self.training.time_rule == TimeRule::Importance {
                self.follow_integrand();
            }
            self.update(thread, StepSizes::new(&self.training.optimizer, step, record.gradient_norm));
            self.barrier.wait(); // the weights are written; the next step reads them
        }
        end - start
    }

    /// Draws the rows of `tile`, runs its sweeps and adds its gradient.
    fn sweep(&self, step: u64, tile: usize, work: &mut Workspace) {
        let TileRows { part, first, n_rows } = self.tiles[tile];
        let training = self.training;
        let sweeps = Sweeps {
            simd: self.simd,
            architecture: &training.architecture,
            packing: self.packing,
            weights: WeightsView::shared(self.weights),
        };
        let density = self.density.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let draw = Draw { training, step, density: &density };
        let mut sums = TileSums::default();
        match part {
            Part::Interior | Part::Centre => {
                let form = match training.estimator {
                    _ if part == Part::Centre => Form::Centring,
                    Estimator::Action { .. } => Form::Action,
                    Estimator::Weak { .. } => Form::Weak,
                    Estimator::Regression => Form::Regression,
                };
                if part == Part::Centre {
                    draw.centre(first, n_rows, work)
                } else {
                    draw.interior(first, n_rows, work)
                }
                let interior = Interior {
                    objective: &training.objective,
                    form,
                    scale: 1.0 / training.n_interior as f32,
                    per_probe: training.laplacian.share(),
                };
                let follow = training.time_rule == TimeRule::Importance && part == Part::Interior;
                let moments = &mut sums.moments;
                let integrand = |work: &Workspace, row: usize, value: f32| {
                    if follow {
                        moments.add_row(f64::from(work.t[row]), f64::from(value / work.measure[row]));
                    }
                };
                sums.terms = loss::interior(&sweeps, interior, work, n_rows, integrand);
            }
            Part::CentreEnds => {
                draw.centre_ends(work);
                sums.terms.interior = loss::boundary(&sweeps, work, n_rows);
            }
            Part::Boundary { at_end } | Part::WeakEnds { at_end, .. } => {
                match part {
                    Part::WeakEnds { intervals, .. } => draw.part(intervals, at_end, first, n_rows, work),
                    _ => draw.boundary(at_end, first, n_rows, work),
                }
                let value = loss::boundary(&sweeps, work, n_rows);
                *(if at_end { &mut sums.terms.boundary1 } else { &mut sums.terms.boundary0 }) = value;
            }
        }
        drop(density);
        *self.tile_sums[tile].lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = sums;
        gradient::accumulate(&sweeps, work, n_rows, part.is_interior(), tile, self.sums, self.partial_gradients);
    }

    /// The units that `thread` updates.
    fn units(&self, thread: usize) -> impl Iterator<Item = usize> {
        (thread..self.packing.units.len()).step_by(self.n_threads)
    }

    /// Adds up the gradient of this thread's units and brings it into the flat order, with its sum of squares.
    fn gather_gradient(&self, thread: usize) {
        for index in self.units(thread) {
            let unit = self.packing.units[index];
            // SAFETY: the ranges of different units are disjoint, and each unit has one thread.
            let (weight, bias) = unsafe {
                let weight = self.gradient.slice(self.packing.weight_range(unit));
                let bias = self.gradient.slice(self.packing.bias_range(unit));
                self.sums.add_up(self.simd, self.packing, unit, self.partial_gradients);
                self.packing.unpack_gradient(unit, self.partial_gradients, weight, bias);
                (weight, bias)
            };
            let sum = self.simd.vectorize(SumOfSquares(weight)) + self.simd.vectorize(SumOfSquares(bias));
            self.squares[index].store(sum.to_bits(), Relaxed);
        }
    }

    /// Loss and gradient norm of the step, from the sums of tiles and units.
    fn record(&self, step: u64) -> StepRecord {
        let mut terms = LossTerms::default();
        for tile in self.tile_sums {
            terms.add(&tile.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).terms);
        }
        let squares: f64 = self.squares.iter().map(|bits| f64::from_bits(bits.load(Relaxed))).sum();
        StepRecord {
            step,
            loss: terms.total(),
            boundary0: terms.boundary0,
            boundary1: terms.boundary1,
            interior: terms.interior,
            kinetic: terms.kinetic,
            gradient_norm: squares.sqrt(),
            learning_rate: self.training.optimizer.learning_rate.at(step),
        }
    }

    /// Adds the step's integrand to the running moments, and makes the density of the next step.
    fn follow_integrand(&self) {
        let mut step = TimeMoments::default();
        for tile in self.tile_sums {
            step.add(&tile.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).moments);
        }
        let mut list = self.time_moments.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut moments = TimeMoments::from_slice(&list).unwrap_or_default();
        moments.follow(&step);
        **list = moments.to_vec();
        // From what a checkpoint keeps, so that a resumed run draws the same times.
        *self.density.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = time_density(&list);
    }

    /// AdamW, moving average and repacked weights of this thread's units.
    fn update(&self, thread: usize, sizes: StepSizes) {
        for index in self.units(thread) {
            let unit = self.packing.units[index];
            let ranges = [self.packing.weight_range(unit), self.packing.bias_range(unit)];
            for range in ranges.clone() {
                // SAFETY: the ranges of different units are disjoint, and each unit has one thread.
                let update = unsafe {
                    Update {
                        sizes,
                        gradient: self.gradient.slice(range.clone()),
                        parameters: self.parameters.slice(range.clone()),
                        ema: self.ema.slice(range.clone()),
                        moment1: self.moment1.slice(range.clone()),
                        moment2: self.moment2.slice(range),
                    }
                };
                self.simd.vectorize(update);
            }
            let [weight, bias] = ranges;
            // SAFETY: as above; nothing reads the packed weights before the next barrier.
            unsafe {
                self.packing.pack(unit, self.parameters.slice(weight), self.parameters.slice(bias), self.weights)
            };
        }
    }
}
