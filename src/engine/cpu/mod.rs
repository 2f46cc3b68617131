//! The CPU engine: f32, vectorized for the instruction set found at run time, on any number of
//! threads.
//!
//! ```text
//! mod                             the engine: one packed network; threads take tiles of rows
//! trainer                         optimizer steps: draw → loss → gradient → optimizer
//! learner                         one network in training
//! bend                            the second network, of a learned path
//! growth                          the second network of a training with a growth head
//! particles                       integration of one tile
//! loss                            sweeps and head of one tile of rows
//! sweeps                          primal, reverse, tangent, adjoint: a product with its epilogue
//!                                 (an activation or the chain rule) fused in
//! product, narrow, weight_grad    register-blocked kernels on the layout of panel and weights
//! ```
//!
//! ```
//! use action_matching::prelude::*;
//!
//! // Any number of threads gives the same bits.
//! let model = Model::initial(Architecture::new(3, [16; 2]), 0);
//! let points = draw_gaussian(300, 3, &mut Stream::of_normals(1, 3));
//! let velocity = |threads| model.velocity(&CpuEngine::new(threads), &points, 0.5);
//! assert_eq!(velocity(1)?, velocity(2)?);
//! # Ok::<(), Error>(())
//! ```

mod activation;
mod bend;
mod draw;
mod elementary;
mod epilogue;
mod gradient;
mod growth;
mod head;
mod lanes;
mod learner;
mod loss;
mod narrow;
mod optimizer;
mod panel;
mod particles;
mod peak;
mod product;
mod sweeps;
mod sync;
mod trainer;
mod weight_grad;
mod weights;
mod workspace;

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use pulp::{Arch, Simd, WithSimd};

#[cfg(test)]
pub(crate) use self::draw::{Draw, PlainRows};
use self::gradient::PartialSums;
use self::loss::{Interior, LossTerms, set_condition, set_time};
use self::panel::{Aligned, panel_width};
use self::particles::{Channels, Particles, TileProgress};
use self::sweeps::{Keep, RowKind, Sweeps};
use self::sync::SharedMut;
use self::trainer::CpuTrainer;
use self::weights::{PackedWeights, Packing};
use self::workspace::{Workspace, rows_per_tile};
use super::batch::{BatchProbes, LossForm, Potential};
use super::{
    Batch, Derivatives, Differentiate, Engine, IntegrationReport, LossGradient, TrainState, Trainer, Training,
    check_directions,
};
use crate::error::{Result, check_len};
use crate::integrate::{Plan, Share};
use crate::model::Model;
use crate::stage::{Watch, next, on_threads, startable_threads};

/// Training, evaluation and integration on the CPU. Results do not depend on the number of threads.
#[derive(Clone, Copy, Debug)]
pub struct CpuEngine {
    threads: usize,
    arch: Arch,
}

impl CpuEngine {
    /// An engine with `threads` threads; 0 means one for each core. It uses fewer if the system
    /// starts fewer ([`startable_threads`]), and at most
    /// [`MAX_THREADS`](crate::stage::MAX_THREADS).
    #[must_use]
    pub fn new(threads: usize) -> Self {
        CpuEngine { threads: startable_threads(threads), arch: Arch::new() }
    }

    /// Values in one vector of the instruction set.
    fn lanes(&self) -> usize {
        struct Lanes;
        impl WithSimd for Lanes {
            type Output = usize;

            fn with_simd<S: Simd>(self, _simd: S) -> usize {
                S::F32_LANES
            }
        }
        self.arch.dispatch(Lanes)
    }

    /// Number of threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Rate of the engine's own matrix product on all threads, in 10⁹ floating-point operations per
    /// second; `amatch bench` states its figures as fractions of it. Measures for about `duration`.
    #[must_use]
    pub fn product_gflops(&self, duration: std::time::Duration) -> f64 {
        self.arch.dispatch(peak::ProductRate { threads: self.threads, duration })
    }
}

impl Differentiate for CpuEngine {
    fn derivatives(&self, model: &Model, x: &[f64], t: &[f64]) -> Result<Derivatives> {
        model.validate()?;
        model.require_one_condition()?;
        check_len("x", t.len() * model.architecture.dim, x.len())?;
        Ok(self.arch.dispatch(EvaluateDerivatives { threads: self.threads, model, x, t, c: &[] }))
    }

    fn loss_gradient(&self, model: &Model, batch: &Batch) -> Result<LossGradient> {
        model.validate()?;
        model.objective.validate("objective")?;
        batch.validate(&model.architecture)?;
        let Batch { x, t, c, .. } = batch;
        let interior = self.arch.dispatch(EvaluateDerivatives { threads: self.threads, model, x, t, c });
        let result = self.arch.dispatch(EvaluateLoss { model, batch });
        Ok(LossGradient { interior, ..result })
    }

    fn second_derivatives(&self, model: &Model, x: &[f64], t: &[f64], directions: &[f64]) -> Result<Vec<f64>> {
        model.validate()?;
        model.require_one_condition()?;
        check_directions(model, x, t, directions)?;
        Ok(self.arch.dispatch(EvaluateSecond { threads: self.threads, model, x, t, directions }))
    }
}

impl Engine for CpuEngine {
    fn describe(&self) -> String {
        let threads = if self.threads == 1 { "thread" } else { "threads" };
        format!("cpu, {} {threads}, f32 × {}", self.threads, self.lanes())
    }

    fn arithmetic(&self) -> String {
        format!("cpu, {}, f32 × {}", std::env::consts::ARCH, self.lanes())
    }

    fn tile_of_particles(&self, n_all: usize) -> usize {
        rows_per_tile(n_all)
    }

    fn integrate_share(
        &self,
        model: &Model,
        plan: &Plan,
        share: Share<'_>,
        watch: &dyn Watch,
    ) -> Result<IntegrationReport> {
        share.validate(model, plan)?;
        self.arch.dispatch(Integrate { threads: self.threads, model, plan, share, watch })
    }

    fn trainer(&self, training: Training, state: TrainState) -> Result<Box<dyn Trainer>> {
        training.validate(&state)?;
        Ok(self.arch.dispatch(MakeTrainer { threads: self.threads, training, state }))
    }
}

/// A model prepared for the sweeps.
struct Network<'a> {
    model: &'a Model,
    packing: Packing,
    weights: PackedWeights,
}

impl<'a> Network<'a> {
    fn new<S: Simd>(_simd: S, model: &'a Model) -> Self {
        let packing = Packing::new(&model.architecture, panel_width::<S>());
        Network { model, weights: PackedWeights::new(&packing, &model.parameters), packing }
    }

    fn sweeps<S: Simd>(&self, simd: S) -> Sweeps<'_, S> {
        let weights = self.weights.view();
        Sweeps { simd, architecture: &self.model.architecture, packing: &self.packing, weights }
    }
}

/// Copies f64 rows of a caller's batch to the tile: points `x` and, for a model with conditions,
/// their inputs `c`.
fn place(work: &mut Workspace, model: &Model, (x, c): (&[f64], &[f64]), time: impl Fn(usize) -> f64) {
    let conditions = model.architecture.conditions;
    let mut of_row = vec![0.0; conditions];
    for (row, point) in x.chunks_exact(model.architecture.dim).enumerate() {
        for (i, &value) in point.iter().enumerate() {
            *work.a0.at_mut(row, i) = value as f32;
        }
        set_time(&model.architecture, work, row, time(row) as f32);
        of_row.iter_mut().zip(&c[row * conditions..]).for_each(|(to, &c)| *to = c as f32);
        set_condition(&model.architecture, work, row, &of_row);
    }
}

/// Copies `rows` of the probes `[k, n, dim]` to the tile.
fn place_probes(work: &mut Workspace, dim: usize, n: usize, probes: &[f64], rows: std::ops::Range<usize>) {
    for (ends, probe) in work.probes.iter_mut().zip(probes.chunks_exact(n * dim)) {
        for (row, components) in probe[rows.start * dim..rows.end * dim].chunks_exact(dim).enumerate() {
            for (i, &component) in components.iter().enumerate() {
                *ends.input.at_mut(row, i) = component as f32;
            }
        }
    }
}

/// [`Differentiate::derivatives`].
struct EvaluateDerivatives<'a> {
    threads: usize,
    model: &'a Model,
    x: &'a [f64],
    t: &'a [f64],
    /// Condition inputs `[n, conditions]`.
    c: &'a [f64],
}

impl WithSimd for EvaluateDerivatives<'_> {
    type Output = Derivatives;

    fn with_simd<S: Simd>(self, simd: S) -> Derivatives {
        let (n, dim) = (self.t.len(), self.model.architecture.dim);
        let network = Network::new(simd, self.model);
        let mut all = Derivatives { s: vec![0.0; n], grad_s: vec![0.0; n * dim], ds_dt: vec![0.0; n] };
        let rows = rows_per_tile(n);
        let conditions = self.model.architecture.conditions;
        let tiles = Mutex::new(
            (self.x.chunks(rows * dim).zip(self.t.chunks(rows)).enumerate())
                .zip(all.s.chunks_mut(rows).zip(all.grad_s.chunks_mut(rows * dim)).zip(all.ds_dt.chunks_mut(rows))),
        );
        on_threads(self.threads.min(n.div_ceil(rows)), || {
            let mut work = Workspace::new(&self.model.architecture, &network.packing, rows, 0);
            while let Some(((tile, (x, t)), ((s, grad_s), ds_dt))) = next(&tiles) {
                let c = &self.c[tile * rows * conditions..][..t.len() * conditions];
                place(&mut work, self.model, (x, c), |row| t[row]);
                loss::derivatives(&network.sweeps(simd), &mut work, t.len(), Keep::First, Potential::Needed);
                widen(&work.s, s);
                widen(&work.grad_s, grad_s);
                widen(&work.ds_dt, ds_dt);
            }
        });
        all
    }
}

/// [`Differentiate::second_derivatives`].
struct EvaluateSecond<'a> {
    threads: usize,
    model: &'a Model,
    x: &'a [f64],
    t: &'a [f64],
    directions: &'a [f64],
}

impl WithSimd for EvaluateSecond<'_> {
    type Output = Vec<f64>;

    fn with_simd<S: Simd>(self, simd: S) -> Vec<f64> {
        /// Directions that a tile has memory for at a time.
        const AT_ONCE: usize = 16;
        let (n, dim) = (self.t.len(), self.model.architecture.dim);
        let network = Network::new(simd, self.model);
        let mut all = vec![0.0; n];
        let rows = rows_per_tile(n);
        let at_once = AT_ONCE.min(self.directions.len() / dim);
        let tiles = Mutex::new(self.x.chunks(rows * dim).zip(self.t.chunks(rows)).zip(all.chunks_mut(rows)));
        on_threads(self.threads.min(n.div_ceil(rows)), || {
            let mut work = Workspace::new(&self.model.architecture, &network.packing, rows, at_once);
            let mut part = vec![0.0; rows];
            while let Some(((x, t), sums)) = next(&tiles) {
                place(&mut work, self.model, (x, &[]), |row| t[row]);
                for directions in self.directions.chunks(at_once * dim) {
                    place_directions(&mut work, dim, t.len(), directions);
                    loss::laplacian(&network.sweeps(simd), &mut work, t.len(), 1.0, &mut part);
                    sums.iter_mut().zip(&part).for_each(|(sum, part)| *sum += part);
                }
            }
        });
        all
    }
}

/// Makes `directions [k, dim]` the probes of all rows of the tile; those beyond are 0.
fn place_directions(work: &mut Workspace, dim: usize, n_rows: usize, directions: &[f64]) {
    for (k, ends) in work.probes.iter_mut().enumerate() {
        for i in 0..dim {
            let component = directions.get(k * dim + i).map_or(0.0, |&component| component as f32);
            (0..n_rows).for_each(|row| *ends.input.at_mut(row, i) = component);
        }
    }
}

fn widen(from: &[f32], to: &mut [f64]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = f64::from(from);
    }
}

/// Loss, gradient and Laplacians of [`Differentiate::loss_gradient`], tile after tile.
struct EvaluateLoss<'a> {
    model: &'a Model,
    batch: &'a Batch,
}

impl WithSimd for EvaluateLoss<'_> {
    type Output = LossGradient;

    fn with_simd<S: Simd>(self, simd: S) -> LossGradient {
        let EvaluateLoss { model, batch } = self;
        let (dim, conditions) = (model.architecture.dim, model.architecture.conditions);
        let network = Network::new(simd, model);
        let (packing, sweeps) = (&network.packing, network.sweeps(simd));
        let tiles_of = |n_rows: usize| n_rows.div_ceil(rows_per_tile(n_rows));
        let n_boundary = [&batch.x0, &batch.x1].map(|points| points.len() / dim);
        let n_tiles = tiles_of(batch.t.len()) + n_boundary.map(tiles_of).iter().sum::<usize>();
        let sums = PartialSums::new(packing, n_tiles);
        let mut partial = Aligned::zeros(sums.n_values());
        let shared = SharedMut::new(partial.as_mut_slice());
        let (mut terms, mut tile) = (LossTerms::default(), 0);

        let n = batch.t.len();
        let rows = rows_per_tile(n);
        let BatchProbes { n_probes, weight: probe_weight } = BatchProbes::of(model, batch);
        let mut laplacian = vec![0.0; if n_probes > 0 { n } else { 0 }];
        let mut work = Workspace::new(&model.architecture, packing, rows, n_probes);
        for first in (0..n).step_by(rows) {
            let range = first..n.min(first + rows);
            let c = &batch.c[range.start * conditions..range.end * conditions];
            place(&mut work, model, (&batch.x[range.start * dim..range.end * dim], c), |row| batch.t[first + row]);
            for (row, index) in range.clone().enumerate() {
                work.weight[row] = batch.omega[index] as f32;
                work.on_potential[row] = batch.d_omega[index] as f32;
            }
            if n_probes > 0 {
                match &batch.probe {
                    Some(probe) => place_probes(&mut work, dim, n, probe, range.clone()),
                    None => draw::unit_probes(&mut work, range.len(), dim),
                }
                loss::laplacian(&sweeps, &mut work, range.len(), probe_weight, &mut laplacian[range.clone()]);
            }
            let interior =
                Interior { objective: &model.objective, form: LossForm::Action, scale: 1.0 / n as f32, probe_weight };
            terms.add(&loss::interior(&sweeps, interior, &mut work, range.len(), |_, _, _| {}));
            gradient::accumulate(&sweeps, &mut work, range.len(), RowKind::Interior, tile, &sums, shared);
            tile += 1;
        }
        let ends = [(&batch.x0, &batch.c0, 0.0, batch.omega0), (&batch.x1, &batch.c1, 1.0, -batch.omega1)];
        for (points, c, t, omega) in ends {
            let n = points.len() / dim;
            let rows = rows_per_tile(n);
            let mut work = Workspace::new(&model.architecture, packing, rows, 0);
            for (index, points) in points.chunks(rows * dim).enumerate() {
                let n_rows = points.len() / dim;
                let c = &c[index * rows * conditions..][..n_rows * conditions];
                place(&mut work, model, (points, c), |_| t);
                work.weight.fill((omega / n as f64) as f32);
                let value = loss::boundary(&sweeps, &mut work, n_rows);
                *(if t == 0.0 { &mut terms.boundary0 } else { &mut terms.boundary1 }) += value;
                gradient::accumulate(&sweeps, &mut work, n_rows, RowKind::Boundary, tile, &sums, shared);
                tile += 1;
            }
        }

        let mut gradient = vec![0.0; model.parameters.len()];
        for &unit in &packing.units {
            let (weight, bias) = (packing.weight_range(unit), packing.bias_range(unit));
            let (mut d_weight, mut d_bias) = (vec![0.0; weight.len()], vec![0.0; bias.len()]);
            // SAFETY: one thread; `shared` is dropped before `partial`.
            unsafe {
                sums.add_up(simd, packing, unit, shared);
                packing.unpack_gradient(unit, shared, &mut d_weight, &mut d_bias);
            }
            widen(&d_weight, &mut gradient[weight]);
            widen(&d_bias, &mut gradient[bias]);
        }
        LossGradient { loss: terms.total(), gradient, laplacian, ..LossGradient::default() }
    }
}

/// [`Engine::integrate_share`].
struct Integrate<'a> {
    threads: usize,
    model: &'a Model,
    plan: &'a Plan,
    share: Share<'a>,
    watch: &'a dyn Watch,
}

impl WithSimd for Integrate<'_> {
    type Output = Result<IntegrationReport>;

    fn with_simd<S: Simd>(self, simd: S) -> Result<IntegrationReport> {
        let Integrate { threads, model, plan, share, watch } = self;
        let dim = model.architecture.dim;
        let n = share.n(dim);
        if n == 0 {
            return Ok(IntegrationReport::default());
        }
        let network = Network::new(simd, model);
        let of_growth = model.growth_network().filter(|_| !share.log_weights.is_empty());
        let growth = of_growth.as_ref().map(|model| Network::new(simd, model));
        let rows = rows_per_tile(share.n_all);
        let channels = Channels { weights: !share.log_weights.is_empty(), density: !share.log_density.is_empty() };
        let tiles = Mutex::new(tiles(share, rows, dim));
        let total = Mutex::new(Ok(IntegrationReport::default()));
        let done = AtomicU64::new(0);
        on_threads(threads.min(n.div_ceil(rows)), || {
            let growth = growth.as_ref().map(|network| network.sweeps(simd));
            let mut particles = Particles::new((network.sweeps(simd), growth), &model.objective, plan, channels, rows);
            let mut outcome = Ok(());
            while let (Ok(()), Some(mut tile)) = (&outcome, next(&tiles)) {
                let mut progress = TileProgress::new(watch, &done, n as u64, tile.n(dim));
                outcome = particles.run(&mut tile, &mut progress);
            }
            if outcome.is_err() {
                // Empties the queue: no other tile begins.
                while next(&tiles).is_some() {}
            }
            let mut total = total.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match (outcome, total.as_mut()) {
                (Ok(()), Ok(total)) => total.add(&particles.report),
                (Err(error), Ok(_)) => *total = Err(error),
                (_, Err(_)) => {}
            }
        });
        total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The tiles of the particles, `rows` each.
fn tiles(mut share: Share<'_>, rows: usize, dim: usize) -> impl Iterator<Item = Share<'_>> {
    std::iter::from_fn(move || {
        let left = share.n(dim);
        (left > 0).then(|| share.take(left.min(rows), dim))
    })
}

/// [`Engine::trainer`].
struct MakeTrainer {
    threads: usize,
    training: Training,
    state: TrainState,
}

impl WithSimd for MakeTrainer {
    type Output = Box<dyn Trainer>;

    fn with_simd<S: Simd>(self, simd: S) -> Box<dyn Trainer> {
        Box::new(CpuTrainer::new(simd, self.threads, self.training, self.state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Activation, Architecture, Coordinates, Head, TimeEmbedding, initial_parameters};
    use crate::objective::Objective;

    /// Loss and gradient with the instruction set `S` instead of the best one.
    fn evaluate<S: Simd>(simd: S, model: &Model, batch: &Batch) -> LossGradient {
        simd.vectorize(EvaluateLoss { model, batch })
    }

    /// Tests of engines run only with the best instruction set. Others have other panel widths and
    /// take other code paths.
    #[test]
    fn every_instruction_set_gives_the_same_gradient() {
        for head in Head::ALL {
            let architecture = Architecture {
                dim: 5,
                hidden: vec![37, 53, 29],
                activation: Activation::Silu,
                head,
                time_embedding: TimeEmbedding::Raw,
                conditions: 0,
            };
            let model = Model {
                parameters: initial_parameters(&architecture, 3),
                coordinates: Coordinates::identity(5),
                objective: Objective::default(),
                growth_head: None,
                architecture,
            };
            let values = |n: usize, shift: usize| -> Vec<f64> {
                (0..n).map(|i| ((i * 37 + shift) % 101) as f64 / 50.0 - 1.0).collect()
            };
            let batch = Batch {
                x: values(5 * 23, 0),
                t: values(23, 7).iter().map(|t| 0.5 + 0.5 * t).collect(),
                omega: vec![1.0; 23],
                d_omega: vec![0.0; 23],
                x0: values(5 * 11, 3),
                x1: values(5 * 7, 5),
                omega0: 1.0,
                omega1: 1.0,
                ..Batch::default()
            };
            let LossGradient { loss: want, gradient, .. } = evaluate(pulp::Scalar::new(), &model, &batch);
            let size = gradient.iter().fold(0.0, |size: f64, g| size.max(g.abs()));
            assert!(size > 1e-3);
            let mut others = vec![Arch::new().dispatch(EvaluateLoss { model: &model, batch: &batch })];
            #[cfg(target_arch = "x86_64")]
            others.extend(pulp::x86::V3::try_new().map(|simd| evaluate(simd, &model, &batch)));
            for other in others {
                assert!((other.loss - want).abs() < 1e-5, "{head:?}: {}, not {want}", other.loss);
                for (i, (got, want)) in other.gradient.iter().zip(&gradient).enumerate() {
                    assert!((got - want).abs() < 1e-5 * size, "{head:?}, gradient {i}: {got}, not {want}");
                }
            }
        }
    }
}
