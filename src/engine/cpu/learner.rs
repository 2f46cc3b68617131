//! One network in training: packed weights, its gradient as partial sums, and the optimizer's work
//! on both.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pulp::Simd;

use super::gradient::PartialSums;
use super::optimizer::{SumOfSquares, Update};
use super::panel::{Aligned, panel_width};
use super::sweeps::Sweeps;
use super::sync::SharedMut;
use super::weights::{PackedWeights, Packing, WeightsView};
use crate::engine::NetworkState;
use crate::engine::step_sizes::StepSizes;
use crate::model::Architecture;

/// A network's memory during training, in addition to its [`NetworkState`].
pub struct Learner {
    architecture: Architecture,
    packing: Packing,
    weights: PackedWeights,
    sums: PartialSums,
    /// The sums that `sums` describes.
    partial_gradients: Aligned,
    gradient: Vec<f32>,
    /// Σ g² of each unit, as f64 bits.
    squares: Vec<AtomicU64>,
}

impl Learner {
    /// A network with the parameters of `state`, whose gradient comes from `n_tiles` tiles.
    pub fn new<S: Simd>(_simd: S, architecture: &Architecture, state: &NetworkState, n_tiles: usize) -> Self {
        let packing = Packing::new(architecture, panel_width::<S>());
        let sums = PartialSums::new(&packing, n_tiles);
        Learner {
            architecture: architecture.clone(),
            weights: PackedWeights::new(&packing, &state.parameters),
            partial_gradients: Aligned::zeros(sums.n_values()),
            gradient: vec![0.0; state.parameters.len()],
            squares: packing.units.iter().map(|_| AtomicU64::default()).collect(),
            sums,
            packing,
        }
    }

    /// The shape of the network.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The layout of its weights.
    pub fn packing(&self) -> &Packing {
        &self.packing
    }

    /// A view that the threads of one call share, with the state that they update.
    pub fn share<'a, S: Simd>(&'a mut self, simd: S, state: &'a mut NetworkState) -> SharedLearner<'a, S> {
        self.sums.reset();
        SharedLearner {
            simd,
            architecture: &self.architecture,
            packing: &self.packing,
            sums: &self.sums,
            squares: &self.squares,
            partial_gradients: SharedMut::new(self.partial_gradients.as_mut_slice()),
            gradient: SharedMut::new(&mut self.gradient),
            weights: SharedMut::new(self.weights.values_mut()),
            parameters: SharedMut::new(&mut state.parameters),
            ema: SharedMut::new(&mut state.ema),
            moment1: SharedMut::new(&mut state.moment1),
            moment2: SharedMut::new(&mut state.moment2),
        }
    }
}

/// A [`Learner`] as all threads see it.
pub struct SharedLearner<'a, S> {
    simd: S,
    architecture: &'a Architecture,
    packing: &'a Packing,
    /// Order of the partial sums.
    pub sums: &'a PartialSums,
    squares: &'a [AtomicU64],
    /// The sums that `sums` describes.
    pub partial_gradients: SharedMut,
    gradient: SharedMut,
    weights: SharedMut,
    parameters: SharedMut,
    ema: SharedMut,
    moment1: SharedMut,
    moment2: SharedMut,
}

impl<S: Simd> SharedLearner<'_, S> {
    /// The sweeps of the network with its current weights.
    pub fn sweeps(&self) -> Sweeps<'_, S> {
        let weights = WeightsView::shared(self.weights);
        Sweeps { simd: self.simd, architecture: self.architecture, packing: self.packing, weights }
    }

    /// The units that `thread` of `n_threads` updates.
    fn units(&self, thread: usize, n_threads: usize) -> impl Iterator<Item = usize> {
        (thread..self.packing.units.len()).step_by(n_threads)
    }

    /// Sums the partial gradients of this thread's units, writes them in the flat order, and stores
    /// their sum of squares.
    pub fn gather_gradient(&self, thread: usize, n_threads: usize) {
        for index in self.units(thread, n_threads) {
            let unit = self.packing.units[index];
            // SAFETY: ranges of different units are disjoint, and each unit belongs to one thread.
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

    /// Norm of the gradient that all threads have gathered.
    pub fn gradient_norm(&self) -> f64 {
        self.squares.iter().map(|bits| f64::from_bits(bits.load(Relaxed))).sum::<f64>().sqrt()
    }

    /// AdamW, moving average and repacked weights of this thread's units.
    pub fn update(&self, thread: usize, n_threads: usize, sizes: StepSizes) {
        for index in self.units(thread, n_threads) {
            let unit = self.packing.units[index];
            let ranges = [self.packing.weight_range(unit), self.packing.bias_range(unit)];
            for range in ranges.clone() {
                // SAFETY: ranges of different units are disjoint, and each unit belongs to one
                // thread.
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
