//! Derivatives, loss and gradient at points given by the caller: the sweeps of training, on rows
//! from the host, or on points that lie on the device.

use std::ops::Range;
use std::sync::Arc;

use super::abi::{BatchParams, DevicePtr, PartKind, RowBuffers, StepState, TILE_ROWS, TileSums};
use super::driver::{Buffer, Device};
use super::launch::{Packed, PlaceRows, Rows, Sweep};
use super::learner::Learner;
use super::needs::{RowNeeds, TileChoice};
use super::network::Network;
use super::weight_grad::{Division, GradientSweep};
use super::workspace::{Extent, chunk_rows};
use crate::engine::batch::{BatchProbes, LossForm, Potential};
use crate::engine::{Batch, Derivatives, LossGradient, LossScale, NetworkState, Training};
use crate::error::{Result, check_len};
use crate::model::Model;
use crate::precision::Precision;
use crate::stage::{Watch, check};

/// A model on the device, with the buffers of its sweeps.
struct Evaluation<'a> {
    device: &'a Device,
    model: &'a Model,
    action: Packed<'a>,
    state: Buffer<StepState>,
}

/// A given row.
struct GivenRow<'a> {
    x: &'a [f64],
    /// Inputs that stand for conditions.
    c: &'a [f64],
    t: f64,
    weight: f64,
    on_potential: f64,
    kappa: f64,
}

/// A buffer of rows.
type Field = fn(&RowBuffers) -> DevicePtr<f32>;

/// Fills those of `fields` that the rows have.
fn write_fields(device: &Device, rows: &mut Rows, fields: &[(Field, &[f32])]) -> Result<()> {
    for &(field, values) in fields {
        if rows.has(field) {
            rows.write(device, field, 0, bytemuck::cast_slice(values))?;
        }
    }
    Ok(())
}

/// The step state for sweeps outside of training.
fn step_state(device: &Device, loss_scale: f32) -> Result<Buffer<StepState>> {
    device.upload(&[StepState { apply: 1, loss_scale, ..StepState::default() }])
}

impl Evaluation<'_> {
    /// A sweep over `chunk` of `rows`, whose interior terms have the factor `scale`.
    fn sweep<'s>(
        &'s self,
        rows: &'s Rows,
        batch: &'s BatchParams,
        (form, scale): (LossForm, f32),
        sums: &'s Buffer<TileSums>,
    ) -> Sweep<'s> {
        Sweep {
            action: self.action,
            rows,
            batch,
            objective: &self.model.objective,
            form,
            scale,
            potential: Potential::Needed,
            state: &self.state,
            sums,
            tile_moments: None,
        }
    }

    /// Places the rows of `chunk` that `given` knows; others weigh nothing. `probes(k, row)` is the
    /// probe k of an interior row.
    fn place<'r>(
        &self,
        rows: &mut Rows,
        chunk: &BatchParams,
        given: impl Fn(PartKind, usize) -> GivenRow<'r>,
        probe: impl Fn(usize, usize, &mut [f32]),
    ) -> Result<()> {
        let architecture = &self.model.architecture;
        let (dim, features, width) =
            (architecture.dim, architecture.time_embedding.width(), self.action.network.in_width());
        let (n, capacity) = (chunk.n_tiles as usize * TILE_ROWS, rows.n_rows());
        let n_probes = rows.needs().n_probes;
        let mut x = vec![0.0f32; n * dim];
        let (mut t, mut d_phi, mut a) = (vec![0.0f32; n], vec![0.0f32; n * features], vec![0.0f32; n * width]);
        let [mut weight, mut on_potential, mut kappa] = [(); 3].map(|()| vec![0.0f32; n]);
        let mut probes = vec![vec![0.0f32; n * width]; n_probes];
        for row in 0..n {
            let Some((kind, number)) = chunk.part_and_number(row) else { continue };
            let given = given(kind, number);
            for (i, &value) in given.x.iter().enumerate() {
                x[row * dim + i] = value as f32;
                a[row * width + i] = value as f32;
            }
            for (i, &value) in given.c.iter().enumerate() {
                a[row * width + dim + features + i] = value as f32;
            }
            t[row] = given.t as f32;
            architecture.time_embedding.for_each(f64::from(t[row]), |i, phi, slope| {
                a[row * width + dim + i] = phi as f32;
                d_phi[row * features + i] = slope as f32;
            });
            weight[row] = given.weight as f32;
            on_potential[row] = given.on_potential as f32;
            kappa[row] = given.kappa as f32;
            if kind == PartKind::Interior {
                probes
                    .iter_mut()
                    .enumerate()
                    .for_each(|(k, values)| probe(k, number, &mut values[row * width..][..dim]));
            }
        }
        let Evaluation { device, action: Packed { precision, .. }, .. } = *self;
        let fields: [(Field, &[f32]); 7] = [
            (|rows| rows.x, &x),
            (|rows| rows.t, &t),
            (|rows| rows.d_phi, &d_phi),
            (|rows| rows.weight, &weight),
            (|rows| rows.on_potential, &on_potential),
            (|rows| rows.sampling_weight, &vec![1.0; n]),
            (|rows| rows.kappa, &kappa),
        ];
        write_fields(device, rows, &fields)?;
        rows.write(device, |rows| rows.a_in, 0, &precision.encode(&a))?;
        for (k, values) in probes.iter().enumerate() {
            let start = k * width * capacity * precision.bytes();
            rows.write(device, |rows| rows.e_in, start, &precision.encode(values))?;
        }
        Ok(())
    }

    /// The same for interior rows of weight 0 at `points [n, dim]`, which lie on the device, and
    /// times `t [n]`.
    fn place_from_device(&self, rows: &mut Rows, chunk: &BatchParams, points: &Buffer<f32>, t: &[f64]) -> Result<()> {
        let Evaluation { device, model, action: Packed { network, precision, .. }, .. } = *self;
        let embedding = &model.architecture.time_embedding;
        let (features, first) = (embedding.width(), chunk.first_tile as usize * TILE_ROWS);
        let n = chunk.n_tiles as usize * TILE_ROWS;
        let given = &t[first..t.len().min(first + n)];
        let [mut phi, mut d_phi] = [(); 2].map(|()| vec![0.0f32; n * features]);
        let mut times = vec![0.0f32; n];
        for (row, &t) in given.iter().enumerate() {
            let t = t as f32;
            times[row] = t;
            let at = row * features;
            if row > 0 && times[row - 1] == t {
                for values in [&mut phi, &mut d_phi] {
                    values.copy_within(at - features..at, at);
                }
                continue;
            }
            embedding.for_each(f64::from(t), |i, value, slope| {
                (phi[at + i], d_phi[at + i]) = (value as f32, slope as f32);
            });
        }
        let zeros = vec![0.0; n];
        let fields: [(Field, &[f32]); 5] = [
            (|rows| rows.t, &times),
            (|rows| rows.d_phi, &d_phi),
            (|rows| rows.weight, &zeros),
            (|rows| rows.on_potential, &zeros),
            (|rows| rows.sampling_weight, &vec![1.0; n]),
        ];
        write_fields(device, rows, &fields)?;
        let phi = &device.upload(&phi)?;
        PlaceRows { network, precision, points, first, n_given: given.len(), phi, rows }.launch(device)
    }

    /// Sweeps over `n` interior rows: `place(rows, chunk)` has placed those of each chunk, and
    /// `read(rows, n_here)` takes what it wants of them.
    fn sweep_interior(
        &self,
        needs: RowNeeds,
        n: usize,
        terms: (LossForm, f32),
        place: impl Fn(&mut Rows, &BatchParams) -> Result<()>,
        mut read: impl FnMut(&Rows, usize) -> Result<()>,
    ) -> Result<()> {
        let Evaluation { device, action: Packed { network, precision, .. }, .. } = *self;
        let whole = BatchParams::of(&[(PartKind::Interior, n)], SHARDS);
        let n_rows = chunk_rows(network, precision, needs, n);
        let mut rows = Rows::new(device, network, precision, needs, Extent::of_rows(n_rows))?;
        let sums = device.allocate::<TileSums>(whole.n_tiles as usize)?;
        for chunk in whole.chunks((n_rows / TILE_ROWS) as u32) {
            place(&mut rows, &chunk)?;
            self.sweep(&rows, &chunk, terms, &sums).launch(device)?;
            read(&rows, (n - chunk.first_tile as usize * TILE_ROWS).min(chunk.n_tiles as usize * TILE_ROWS))?;
        }
        Ok(())
    }
}

/// Appends s, ∇s, ∂ₜs of the first `n` rows of a swept chunk to `to`.
fn read_derivatives(device: &Device, rows: &Rows, n: usize, dim: usize, to: &mut Derivatives) -> Result<()> {
    let widen = |values: Vec<f32>| values.into_iter().map(f64::from);
    to.s.extend(widen(rows.read(device, |rows| rows.s, n)?));
    to.grad_s.extend(widen(rows.read(device, |rows| rows.grad_s, n * dim)?));
    to.ds_dt.extend(widen(rows.read(device, |rows| rows.ds_dt, n)?));
    Ok(())
}

/// Does `work` with `model` on the device.
fn with_model<T>(
    device: &Device,
    precision: Precision,
    model: &Model,
    work: impl FnOnce(&Evaluation) -> Result<T>,
) -> Result<T> {
    let network = &Network::on(device, &model.architecture, precision, 0);
    let (weights, biases) = network.pack(&model.parameters, precision);
    let (weights, biases) = (&device.upload(&weights)?, &device.upload(&biases)?);
    let state = step_state(device, 1.0)?;
    work(&Evaluation { device, model, action: Packed { network, precision, weights, biases }, state })
}

/// [`Differentiate::derivatives`](crate::engine::Differentiate).
pub fn derivatives(device: &Device, precision: Precision, model: &Model, x: &[f64], t: &[f64]) -> Result<Derivatives> {
    let dim = model.architecture.dim;
    let given = |_, row: usize| {
        let x = &x[row * dim..][..dim];
        GivenRow { x, c: &[], t: t[row], weight: 0.0, on_potential: 0.0, kappa: 0.0 }
    };
    let mut all = Derivatives::default();
    with_model(device, precision, model, |evaluation| {
        evaluation.sweep_interior(
            RowNeeds::default(),
            t.len(),
            (LossForm::Action, 1.0),
            |rows, chunk| evaluation.place(rows, chunk, given, |_, _, _| {}),
            |rows, n| read_derivatives(device, rows, n, dim, &mut all),
        )
    })?;
    Ok(all)
}

/// s `[n]`, ∇s `[n, dim]` and ∂ₜs `[n]` on the device, network coordinates.
pub type OnDevice = [Buffer<f32>; 3];

/// The same at `points [n, dim]` that lie on the device, and times `t [n]`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for another number of points than times;
/// [`Error::Interrupted`](crate::Error::Interrupted) when `watch` asks for it.
pub fn derivatives_on_device(
    device: &Device,
    precision: Precision,
    model: &Model,
    (points, t): (&Buffer<f32>, &[f64]),
    watch: &dyn Watch,
) -> Result<OnDevice> {
    let (dim, n) = (model.architecture.dim, t.len());
    check_len("points on the device", n * dim, points.len())?;
    let [mut s, mut grad_s, mut ds_dt] = [device.allocate(n)?, device.allocate(n * dim)?, device.allocate(n)?];
    let mut first = 0;
    with_model(device, precision, model, |evaluation| {
        evaluation.sweep_interior(
            RowNeeds::default(),
            n,
            (LossForm::Action, 1.0),
            |rows, chunk| evaluation.place_from_device(rows, chunk, points, t),
            |rows, n| {
                check(watch)?;
                rows.copy(device, |rows| rows.s, n, &mut s, first)?;
                rows.copy(device, |rows| rows.grad_s, n * dim, &mut grad_s, first * dim)?;
                rows.copy(device, |rows| rows.ds_dt, n, &mut ds_dt, first)?;
                first += n;
                // So that `watch` can end what is left.
                device.synchronize()
            },
        )
    })?;
    Ok([s, grad_s, ds_dt])
}

/// [`Differentiate::loss_gradient`](crate::engine::Differentiate). In f16 with the largest loss
/// scale whose gradient is finite, as in training. `tiles`: how their height is chosen.
pub fn loss_gradient(
    device: &Arc<Device>,
    precision: Precision,
    tiles: TileChoice,
    model: &Model,
    batch: &Batch,
) -> Result<LossGradient> {
    let means = Means { tiles, ..Means::default() };
    let mut scale = if precision == Precision::F16 { LossScale::default().scale } else { 1.0 };
    loop {
        let result = scaled_loss_gradient(device, precision, model, batch, scale, means.clone())?;
        let finite = result.loss.is_finite() && result.gradient.iter().all(|g| g.is_finite());
        if finite || scale <= 1.0 {
            return Ok(result);
        }
        scale *= 0.5;
    }
}

/// A batch as rows.
#[derive(Clone, Copy)]
struct GivenBatch<'a> {
    model: &'a Model,
    batch: &'a Batch,
    probes: BatchProbes,
}

impl<'a> GivenBatch<'a> {
    fn new(model: &'a Model, batch: &'a Batch) -> Self {
        GivenBatch { model, batch, probes: BatchProbes::of(model, batch) }
    }

    /// Row `row` of the part `kind`.
    fn row(&self, kind: PartKind, row: usize) -> GivenRow<'a> {
        let GivenBatch { model, batch, probes } = *self;
        let (dim, conditions) = (model.architecture.dim, model.architecture.conditions);
        let (point, condition) = (row * dim..(row + 1) * dim, row * conditions..(row + 1) * conditions);
        let at_boundary = |points: &'a [f64], c: &'a [f64], t: f64, weight: f64| {
            let weight = weight / (points.len() / dim) as f64;
            let (x, c) = (&points[point.clone()], &c[condition.clone()]);
            GivenRow { x, c, t, weight, on_potential: 0.0, kappa: 0.0 }
        };
        if kind == PartKind::Boundary0 {
            at_boundary(&batch.x0, &batch.c0, 0.0, batch.omega0)
        } else if kind == PartKind::Boundary1 {
            at_boundary(&batch.x1, &batch.c1, 1.0, -batch.omega1)
        } else {
            let kappa = model.objective.kappa_at(f64::from(batch.t[row] as f32)) * probes.weight;
            let (weight, on_potential) = (batch.omega[row], batch.d_omega[row]);
            let (x, c) = (&batch.x[point], &batch.c[condition]);
            GivenRow { x, c, t: batch.t[row], weight, on_potential, kappa }
        }
    }

    /// Probe `k` of an interior row; all directions one after the other where none are given.
    fn probe(&self, k: usize, row: usize, to: &mut [f32]) {
        let dim = self.model.architecture.dim;
        match &self.batch.probe {
            Some(probe) => {
                let from = &probe[(k * self.batch.t.len() + row) * dim..][..dim];
                to.iter_mut().zip(from).for_each(|(to, &from)| *to = from as f32);
            }
            None => to[k] = 1.0,
        }
    }
}

/// The Laplacian of s at the interior rows: the generator of rows of weight 1 without drift and
/// time derivative.
fn laplacians(evaluation: &Evaluation, given: GivenBatch, loss_scale: f32) -> Result<Vec<f64>> {
    let needs = RowNeeds { n_probes: given.probes.n_probes, ..RowNeeds::default() };
    let row = |kind: PartKind, row: usize| GivenRow { weight: 1.0, kappa: given.probes.weight, ..given.row(kind, row) };
    let probe = |k: usize, row: usize, to: &mut [f32]| given.probe(k, row, to);
    // The rows' scale cancels the loss scale of the operands, as a Laplacian needs none.
    let terms = (LossForm::Laplacian, 1.0 / loss_scale);
    let mut laplacians = Vec::new();
    let place = |rows: &mut Rows, chunk: &BatchParams| evaluation.place(rows, chunk, row, probe);
    evaluation.sweep_interior(needs, given.batch.t.len(), terms, place, |rows, n| {
        let generators: Vec<f32> = rows.read(evaluation.device, |rows| rows.generator, n)?;
        laplacians.extend(generators.into_iter().map(|value| f64::from(value * loss_scale)));
        Ok(())
    })?;
    Ok(laplacians)
}

/// Shards of a batch.
const SHARDS: usize = Training::SHARDS;

/// Choices of tests; otherwise made by the shape of the batch and the GPU.
#[derive(Clone)]
struct Means {
    /// Rows and slots that are worked on at a time.
    extent: Option<Extent>,
    /// Layers whose running sums lie in shared memory at most.
    most_resident: Option<usize>,
    /// Height of the tiles.
    tiles: TileChoice,
    /// Chunks are swept in this order of the shards that their first tile lies in.
    shards: [Range<usize>; 2],
}

impl Default for Means {
    fn default() -> Self {
        Means { extent: None, most_resident: None, tiles: TileChoice::OfBatch, shards: [0..SHARDS, 0..0] }
    }
}

/// A batch after its sweeps.
struct Swept {
    /// Has the partial gradients.
    learner: Learner,
    state: Buffer<StepState>,
    sums: Buffer<TileSums>,
    /// Values of rows.
    interior: Derivatives,
    laplacian: Vec<f64>,
}

fn scaled_loss_gradient(
    device: &Arc<Device>,
    precision: Precision,
    model: &Model,
    batch: &Batch,
    loss_scale: f32,
    means: Means,
) -> Result<LossGradient> {
    let Some(swept) = sweep(device, precision, model, batch, loss_scale, means)? else {
        return Ok(LossGradient { gradient: vec![0.0; model.parameters.len()], ..LossGradient::default() });
    };
    let Swept { learner, state, sums, interior, laplacian } = swept;
    let loss = device.read(&sums, sums.len())?.iter().map(|sums| sums.value).sum();
    let gradient = learner.gradient(&state)?.into_iter().map(f64::from).collect();
    Ok(LossGradient { loss, gradient, interior, laplacian })
}

/// Sweeps over `batch`; `None` if it has no rows.
fn sweep(
    device: &Arc<Device>,
    precision: Precision,
    model: &Model,
    batch: &Batch,
    loss_scale: f32,
    means: Means,
) -> Result<Option<Swept>> {
    let given = GivenBatch::new(model, batch);
    let (dim, n) = (model.architecture.dim, batch.t.len());
    let [n0, n1] = [&batch.x0, &batch.x1].map(|points| points.len() / dim);
    let parts = [(PartKind::Interior, n), (PartKind::Boundary0, n0), (PartKind::Boundary1, n1)];
    let whole = BatchParams::of(&parts, SHARDS);
    let whole = whole.with_common_factors(precision, |kind| match kind {
        PartKind::Boundary0 => 1.0 / n0 as f32,
        PartKind::Boundary1 => 1.0 / n1 as f32,
        _ => 1.0 / n as f32,
    });
    if whole.n_tiles == 0 {
        return Ok(None);
    }
    let choice = (means.tiles, whole.n_tiles as usize);
    let (network, tiles) = Network::for_batch(device, &model.architecture, precision, given.probes.n_probes, choice);
    let network = &network;
    let needs = RowNeeds { n_probes: given.probes.n_probes, tiles, ..RowNeeds::default() };
    // The host holds several copies of the rows of a chunk.
    const MOST_ROWS: usize = 1 << 14;
    let mut division = Division::of(network, precision, needs, &whole, MOST_ROWS);
    division.extent = means.extent.unwrap_or(division.extent);
    let initial = NetworkState::initial(model.parameters.clone());
    let learner = Learner::new(device, network.clone(), &initial, precision, &division, 1.0)?;
    let state = step_state(device, loss_scale)?;
    let evaluation = Evaluation { device, model, action: learner.packed(), state };

    let laplacian = if needs.n_probes > 0 { laplacians(&evaluation, given, loss_scale)? } else { Vec::new() };
    let mut interior = Derivatives::default();
    let mut rows = Rows::new(device, network, precision, needs, division.extent)?;
    let gradient_sweep = GradientSweep::new(device, network, precision, needs, division, means.most_resident)?;
    let sums = device.allocate::<TileSums>(whole.in_tiles_of(tiles.rows()).n_tiles as usize)?;
    let of_shards = |shards: &Range<usize>| {
        let (shards, whole) = (shards.clone(), &whole);
        let chunks = whole.chunks(division.n_tiles() as u32);
        chunks.filter(move |chunk| shards.contains(&(chunk.first_tile as usize % SHARDS)))
    };
    for chunk in means.shards.iter().flat_map(of_shards) {
        evaluation.place(&mut rows, &chunk, |kind, row| given.row(kind, row), |k, row, to| given.probe(k, row, to))?;
        let sweep = evaluation.sweep(&rows, &chunk, (LossForm::Action, 1.0 / n.max(1) as f32), &sums);
        gradient_sweep.launch(device, sweep, learner.partials())?;
        let n_here = n.saturating_sub(chunk.first_tile as usize * TILE_ROWS).min(chunk.n_tiles as usize * TILE_ROWS);
        read_derivatives(device, &rows, n_here, dim, &mut interior)?;
    }
    let state = evaluation.state;
    Ok(Some(Swept { learner, state, sums, interior, laplacian }))
}

#[cfg(test)]
mod tests {
    use super::super::needs::Tiles;
    use super::super::testing;
    use super::*;
    use crate::model::{Activation, Architecture, Coordinates, Head, TimeEmbedding, initial_parameters};
    use crate::objective::Objective;

    const DIM: usize = 5;

    /// A network with layers of `hidden` units, and a batch with so many rows in each of its parts;
    /// with diffusion two probes a row.
    fn work(hidden: &[usize], [n, n0, n1]: [usize; 3], sigma: f64) -> (Model, Batch) {
        let architecture = Architecture {
            dim: DIM,
            hidden: hidden.to_vec(),
            activation: Activation::Gelu,
            head: Head::Quadratic,
            time_embedding: TimeEmbedding::Raw,
            conditions: 0,
        };
        let model = Model {
            parameters: initial_parameters(&architecture, 3),
            coordinates: Coordinates::identity(DIM),
            objective: Objective { sigma, ..Objective::default() },
            growth_head: None,
            architecture,
        };
        let numbers = |n: usize, k: usize| (0..n).map(|i| ((i * k + 7) % 1013) as f64 / 500.0 - 1.0).collect();
        let batch = Batch {
            x: numbers(n * DIM, 617),
            t: (0..n).map(|i| (i as f64 + 0.5) / n as f64).collect(),
            omega: vec![1.0; n],
            d_omega: vec![0.0; n],
            x0: numbers(n0 * DIM, 389),
            x1: numbers(n1 * DIM, 211),
            omega0: 1.0,
            omega1: 1.0,
            probe: (sigma > 0.0).then(|| numbers(2 * n * DIM, 101)),
            ..Batch::default()
        };
        (model, batch)
    }

    fn extent(rows: usize, slots: usize) -> Option<Extent> {
        Some(Extent { rows: rows * TILE_ROWS, slots: slots * TILE_ROWS })
    }

    /// Heights of tiles whose kernels work on a network.
    fn heights(network: &Network, precision: Precision, sigma: f64) -> Vec<Tiles> {
        let middle = (precision.bytes() == 2 && sigma == 0.0).then_some(Tiles::Middle);
        let others = [Some(Tiles::Low), middle].into_iter().flatten().filter(|_| !network.is_narrow());
        [Tiles::High].into_iter().chain(others).collect()
    }

    const NARROW: &[usize] = &[40, 64, 20];
    const WIDE: &[usize] = &[72, 40];
    /// Tiles of the parts: 6, 3 and 2.
    const FEW: [usize; 3] = [700, 300, 130];
    /// 9, 12 and 12: groups of a wide network have tiles of several parts.
    const SOME: [usize; 3] = [1100, 1500, 1450];
    /// 2, 256 and 3: groups of a narrow network too.
    const MANY: [usize; 3] = [200, 256 * TILE_ROWS - 5, 300];

    /// Whatever is worked on at a time, and wherever sums lie: the same bits. Of a wide network all
    /// rows of a chunk have slots; of a narrow one as many as there are blocks.
    #[test]
    fn chunks_and_blocks_change_no_bit() {
        let device = testing::device();
        for (hidden, rows, sigma, extents) in [
            (NARROW, FEW, 0.7, &[(3, 3), (11, 3), (4, 1)][..]),
            (NARROW, FEW, 0.0, &[(2, 2)]),
            (&[20], MANY, 0.0, &[(150, 150)]),
            (WIDE, SOME, 0.7, &[(7, 7)]),
            (WIDE, SOME, 0.0, &[(1, 1), (20, 20)]),
        ] {
            let (model, batch) = work(hidden, rows, sigma);
            let network = Network::new(&model.architecture);
            for precision in Precision::ALL {
                if rows == MANY && precision != Precision::Bf16 {
                    continue; // much work
                }
                for tiles in heights(&network, precision, sigma) {
                    let with = |extent, most_resident| {
                        let means =
                            Means { extent, most_resident, tiles: TileChoice::Given(tiles), ..Means::default() };
                        scaled_loss_gradient(&device, precision, &model, &batch, 1.0, means).expect("sweeps")
                    };
                    let whole = with(None, None);
                    for &(rows, slots) in extents {
                        let of_case =
                            format!("{precision:?}, {hidden:?}, {tiles:?}, {rows} tiles at a time, {slots} with slots");
                        assert!(with(extent(rows, slots), None) == whole, "{of_case}");
                        if network.is_narrow() && rows == 3 {
                            for most_resident in [0, 2] {
                                let spilled = with(extent(rows, slots), Some(most_resident));
                                assert!(spilled == whole, "{of_case}, {most_resident} layers with resident sums");
                            }
                        }
                    }
                }
            }
        }
    }

    /// Each row has the same bits in a tile of every height; sums differ in their order.
    #[test]
    fn the_height_of_tiles_changes_no_row() {
        let device = testing::device();
        let distance = |a: &[f64], b: &[f64]| {
            let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
            norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
        };
        // Layers of one column tile and of several, operands that stay and that do not.
        for (hidden, sigma) in [(WIDE, 0.0), (WIDE, 0.7), (&[300, 260][..], 0.0), (&[140, 20], 0.7)] {
            let (model, batch) = work(hidden, [150, 70, 33], sigma);
            for precision in Precision::ALL {
                let with = |tiles| {
                    let means = Means { tiles: TileChoice::Given(tiles), ..Means::default() };
                    scaled_loss_gradient(&device, precision, &model, &batch, 1.0, means).expect("sweeps")
                };
                let high = with(Tiles::High);
                // All but the first, which is `high`.
                for tiles in heights(&Network::new(&model.architecture), precision, sigma).into_iter().skip(1) {
                    let (other, of_case) =
                        (with(tiles), format!("{precision:?}, {hidden:?}, {tiles:?}, sigma {sigma}"));
                    assert_eq!(other.interior, high.interior, "{of_case}");
                    assert_eq!(other.laplacian, high.laplacian, "{of_case}");
                    assert!((other.loss - high.loss).abs() <= 1e-9 * high.loss.abs(), "{of_case}");
                    let off = distance(&other.gradient, &high.gradient);
                    assert!(off < 1e-5, "{of_case}: {off}");
                }
            }
        }
    }

    /// Shards 4 to 7 and then 0 to 3 in launches of their own, as two GPUs would have them: the
    /// sums of the halves add up to the gradient and the loss of the whole, to the last bit. No
    /// launch reads the other half's sums: of the first those are not written yet.
    #[test]
    fn shards_can_be_summed_apart() {
        let device = testing::device();
        for (hidden, rows) in [(NARROW, FEW), (WIDE, SOME), (WIDE, [130, 0, 0])] {
            let (model, batch) = work(hidden, rows, 0.0);
            let network = Network::new(&model.architecture);
            for precision in Precision::ALL {
                let swept = |means| sweep(&device, precision, &model, &batch, 1.0, means).expect("sweeps");
                let whole = scaled_loss_gradient(&device, precision, &model, &batch, 1.0, Means::default());
                let whole = whole.expect("sweeps");
                let halves = [0..SHARDS / 2, SHARDS / 2..SHARDS];
                let [first, last] = halves.clone();
                // Each chunk is half a round of shards.
                let Swept { learner, sums, .. } =
                    swept(Means { extent: extent(4, 4), shards: [last, first], ..Means::default() }).expect("rows");
                let (partials, n) = (learner.partials(), network.params.n_parameters as usize);
                let (n_partials, values) = (partials.len() / n, device.read(partials, partials.len()).expect("read"));
                let [first, last] = halves.map(|shards| -> Vec<f32> {
                    let of_shard = |shard, i| testing::sum_of_shard((shard, SHARDS), n_partials, |k| values[k * n + i]);
                    let sum = |i| shards.clone().map(|shard| of_shard(shard, i)).collect::<Vec<f32>>();
                    (0..n).map(|i| testing::sum_in_pairs(&sum(i))).collect()
                });
                let sum: Vec<f32> = first.iter().zip(&last).map(|(first, last)| first + last).collect();
                let gradient: Vec<f64> = network.unpad(&sum).into_iter().map(f64::from).collect();
                assert!(gradient == whole.gradient, "{precision:?}, {hidden:?}, {rows:?}");
                let losses = device.read(&sums, sums.len()).expect("read");
                assert_eq!(losses.iter().map(|sums| sums.value).sum::<f64>(), whole.loss, "{precision:?}, {rows:?}");
            }
        }
    }
}
