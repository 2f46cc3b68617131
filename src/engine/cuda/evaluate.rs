//! Derivatives, loss and gradient at points given by the caller: the sweeps of training, on rows
//! from the host.

use std::sync::Arc;

use super::abi::{BatchParams, DevicePtr, PartKind, StepState, SweepParams, TILE_ROWS, TileSums};
use super::driver::{Buffer, Device};
use super::launch::sweep;
use super::learner::Learner;
use super::network::Network;
use super::weight_grad::{Division, GradientSweep};
use super::workspace::{Extent, RowNeeds, Rows, chunk_rows};
use crate::engine::{Batch, Derivatives, LossGradient, LossScale, NetworkState};
use crate::error::Result;
use crate::model::Model;
use crate::precision::Precision;

/// A model on the device, with the buffers of its sweeps.
struct Evaluation<'a> {
    device: &'a Device,
    precision: Precision,
    model: &'a Model,
    network: &'a Network,
    weights: &'a Buffer<u8>,
    biases: &'a Buffer<f32>,
    state: Buffer<StepState>,
}

/// What a sweep over given rows should compute.
#[derive(Clone, Copy)]
struct Request {
    has_time: bool,
    moves: bool,
    scale: f32,
}

/// A given row.
struct GivenRow<'a> {
    x: &'a [f64],
    t: f64,
    weight: f64,
    on_potential: f64,
    kappa: f64,
}

/// The step state for sweeps outside of training.
fn step_state(device: &Device, loss_scale: f32) -> Result<Buffer<StepState>> {
    device.upload(&[StepState { apply: 1, loss_scale, ..StepState::default() }])
}

impl Evaluation<'_> {
    /// The arguments of a sweep over `chunk`.
    fn sweep_params(
        &self,
        rows: &Rows,
        chunk: &BatchParams,
        sums: DevicePtr<TileSums>,
        request: Request,
    ) -> SweepParams {
        let objective = &self.model.objective;
        SweepParams {
            network: self.network.params,
            rows: *rows.params(),
            batch: *chunk,
            weights: self.weights.address(),
            biases: self.biases.address(),
            state: self.state.address(),
            sums,
            moments: DevicePtr::NULL,
            growth: objective.growth as f32,
            cost_exponent: objective.cost_exponent as f32,
            scale: request.scale,
            has_time: u32::from(request.has_time),
            moves: u32::from(request.moves),
            has_velocity: 0,
            with_potential: 1,
            with_grad_x: 0,
            n_operand_chunks: 0,
            unused: 0,
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
        let (dim, features, width) = (architecture.dim, architecture.time_embedding.width(), self.network.in_width());
        let (n, capacity) = (chunk.n_tiles as usize * TILE_ROWS, rows.n_rows());
        let n_probes = rows.params().n_probes as usize;
        let mut x = vec![0.0f32; n * dim];
        let (mut t, mut d_phi, mut a) = (vec![0.0f32; n], vec![0.0f32; n * features], vec![0.0f32; n * width]);
        let [mut weight, mut on_potential, mut kappa] = [(); 3].map(|()| vec![0.0f32; n]);
        let mut probes = vec![vec![0.0f32; n * width]; n_probes];
        for row in 0..n {
            let Some((kind, number)) = chunk.place(row) else { continue };
            let given = given(kind, number);
            for (i, &value) in given.x.iter().enumerate() {
                x[row * dim + i] = value as f32;
                a[row * width + i] = value as f32;
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
        let at = *rows.params();
        for (address, values) in [
            (at.x, &x),
            (at.t, &t),
            (at.d_phi, &d_phi),
            (at.weight, &weight),
            (at.on_potential, &on_potential),
            (at.measure, &vec![1.0; n]),
            (at.kappa, &kappa),
        ] {
            if address.is_null() {
                continue;
            }
            rows.write(self.device, address, bytemuck::cast_slice(values))?;
        }
        rows.write(self.device, at.a_in, &self.precision.encode(&a))?;
        for (k, values) in probes.iter().enumerate() {
            let start = k * width * capacity * self.precision.bytes();
            rows.write_at(self.device, at.e_in, start, &self.precision.encode(values))?;
        }
        Ok(())
    }

    /// Sweeps over `n` interior rows; `read(rows, n_here)` takes what it wants of each chunk.
    fn sweep_interior<'r>(
        &self,
        needs: RowNeeds,
        n: usize,
        given: impl Fn(PartKind, usize) -> GivenRow<'r>,
        probe: impl Fn(usize, usize, &mut [f32]),
        request: Request,
        mut read: impl FnMut(&mut Rows, usize) -> Result<()>,
    ) -> Result<()> {
        let Evaluation { device, precision, network, .. } = *self;
        let whole = BatchParams::of(&[(PartKind::Interior, n)]);
        let n_rows = chunk_rows(network, precision, needs, n);
        let mut rows = Rows::new(device, network, precision, needs, Extent::of_rows(n_rows))?;
        let sums = device.allocate::<TileSums>(whole.n_tiles as usize)?;
        for chunk in whole.chunks((n_rows / TILE_ROWS) as u32) {
            self.place(&mut rows, &chunk, &given, &probe)?;
            sweep(device, precision, &self.sweep_params(&rows, &chunk, sums.address(), request))?;
            read(&mut rows, (n - chunk.first_tile as usize * TILE_ROWS).min(chunk.n_tiles as usize * TILE_ROWS))?;
        }
        Ok(())
    }
}

/// Appends s, ∇s, ∂ₜs of the first `n` rows of a swept chunk to `to`.
fn read_derivatives(device: &Device, rows: &mut Rows, n: usize, dim: usize, to: &mut Derivatives) -> Result<()> {
    let at = *rows.params();
    let widen = |values: Vec<f32>| values.into_iter().map(f64::from);
    to.s.extend(widen(rows.read(device, at.s, n)?));
    to.grad_s.extend(widen(rows.read(device, at.grad_s, n * dim)?));
    to.ds_dt.extend(widen(rows.read(device, at.ds_dt, n)?));
    Ok(())
}

/// [`Differentiate::derivatives`](crate::engine::Differentiate).
pub fn derivatives(device: &Device, precision: Precision, model: &Model, x: &[f64], t: &[f64]) -> Result<Derivatives> {
    let network = &Network::new(&model.architecture);
    let (weights, biases) = network.pack(&model.parameters, precision);
    let (weights, biases) = (&device.upload(&weights)?, &device.upload(&biases)?);
    let state = step_state(device, 1.0)?;
    let evaluation = Evaluation { device, precision, model, network, weights, biases, state };
    let dim = model.architecture.dim;
    let given =
        |_, row: usize| GivenRow { x: &x[row * dim..][..dim], t: t[row], weight: 0.0, on_potential: 0.0, kappa: 0.0 };
    let request = Request { has_time: true, moves: true, scale: 1.0 };
    let mut all = Derivatives::default();
    evaluation.sweep_interior(
        RowNeeds::default(),
        t.len(),
        given,
        |_, _, _| {},
        request,
        |rows, n| read_derivatives(device, rows, n, dim, &mut all),
    )?;
    Ok(all)
}

/// [`Differentiate::loss_gradient`](crate::engine::Differentiate). In f16 with the largest loss
/// scale whose gradient is finite, as in training.
pub fn loss_gradient(device: &Arc<Device>, precision: Precision, model: &Model, batch: &Batch) -> Result<LossGradient> {
    let mut scale = if precision == Precision::F16 { LossScale::default().scale } else { 1.0 };
    loop {
        let result = scaled_loss_gradient(device, precision, model, batch, scale, Means::default())?;
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
    n_probes: usize,
    /// Of the Laplacian, what one probe's curvature counts.
    per_probe: f64,
}

impl<'a> GivenBatch<'a> {
    fn new(model: &'a Model, batch: &'a Batch) -> Self {
        let (dim, n) = (model.architecture.dim, batch.t.len());
        let (n_probes, per_probe) = match &batch.probe {
            _ if model.objective.sigma == 0.0 || n == 0 => (0, 1.0),
            Some(probe) => (probe.len() / (n * dim), (n * dim) as f64 / probe.len() as f64),
            None => (dim, 1.0),
        };
        GivenBatch { model, batch, n_probes, per_probe }
    }

    /// Row `row` of the part `kind`.
    fn row(&self, kind: PartKind, row: usize) -> GivenRow<'a> {
        let GivenBatch { model, batch, per_probe, .. } = *self;
        let dim = model.architecture.dim;
        let point = row * dim..(row + 1) * dim;
        let at_boundary = |points: &'a [f64], t: f64, weight: f64| {
            let weight = weight / (points.len() / dim) as f64;
            GivenRow { x: &points[point.clone()], t, weight, on_potential: 0.0, kappa: 0.0 }
        };
        if kind == PartKind::Boundary0 {
            at_boundary(&batch.x0, 0.0, batch.omega0)
        } else if kind == PartKind::Boundary1 {
            at_boundary(&batch.x1, 1.0, -batch.omega1)
        } else {
            let kappa = model.objective.kappa_at(f64::from(batch.t[row] as f32)) * per_probe;
            let (weight, on_potential) = (batch.omega[row], batch.d_omega[row]);
            GivenRow { x: &batch.x[point], t: batch.t[row], weight, on_potential, kappa }
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
    let needs = RowNeeds { n_probes: given.n_probes, ..RowNeeds::default() };
    let row = |kind: PartKind, row: usize| GivenRow { weight: 1.0, kappa: given.per_probe, ..given.row(kind, row) };
    let probe = |k: usize, row: usize, to: &mut [f32]| given.probe(k, row, to);
    // The rows' scale cancels the loss scale of the operands, as a Laplacian needs none.
    let request = Request { has_time: false, moves: false, scale: 1.0 / loss_scale };
    let mut laplacians = Vec::new();
    evaluation.sweep_interior(needs, given.batch.t.len(), row, probe, request, |rows, n| {
        let generators = rows.read(evaluation.device, rows.params().generator, n)?;
        laplacians.extend(generators.into_iter().map(|value| f64::from(value * loss_scale)));
        Ok(())
    })?;
    Ok(laplacians)
}

/// Choices of tests; otherwise made by the shape of the batch and the GPU.
#[derive(Clone, Copy, Default)]
struct Means {
    division: Option<Division>,
    /// Layers whose sums are on the chip at most.
    most_near: Option<usize>,
}

fn scaled_loss_gradient(
    device: &Arc<Device>,
    precision: Precision,
    model: &Model,
    batch: &Batch,
    loss_scale: f32,
    means: Means,
) -> Result<LossGradient> {
    let given = GivenBatch::new(model, batch);
    let (dim, n) = (model.architecture.dim, batch.t.len());
    let [n0, n1] = [&batch.x0, &batch.x1].map(|points| points.len() / dim);
    let whole = BatchParams::of(&[(PartKind::Interior, n), (PartKind::Boundary0, n0), (PartKind::Boundary1, n1)]);
    let whole = whole.with_common_factors(precision, |kind| match kind {
        PartKind::Boundary0 => 1.0 / n0 as f32,
        PartKind::Boundary1 => 1.0 / n1 as f32,
        _ => 1.0 / n as f32,
    });
    if whole.n_tiles == 0 {
        return Ok(LossGradient { gradient: vec![0.0; model.parameters.len()], ..LossGradient::default() });
    }
    let needs = RowNeeds { n_probes: given.n_probes, ..RowNeeds::default() };
    let network = &Network::new(&model.architecture);
    let n_rows = whole.n_tiles as usize * TILE_ROWS;
    // The host holds several copies of the rows of a chunk.
    const MOST_ROWS: usize = 1 << 14;
    let division = means.division.unwrap_or_else(|| Division::of(network, precision, needs, n_rows, MOST_ROWS));
    let initial = NetworkState::initial(model.parameters.clone());
    let learner = Learner::new(device, network.clone(), &initial, precision, division.n_parts, 1.0)?;
    let (weights, biases) = (learner.weights(), learner.biases());
    let state = step_state(device, loss_scale)?;
    let evaluation = Evaluation { device, precision, model, network, weights, biases, state };

    let mut result = LossGradient::default();
    if given.n_probes > 0 {
        result.laplacian = laplacians(&evaluation, given, loss_scale)?;
    }
    let mut rows = Rows::new(device, network, precision, needs, division.extent)?;
    let gradient_sweep = GradientSweep::new(device, network, precision, needs, division, means.most_near)?;
    let sums = device.allocate::<TileSums>(whole.n_tiles as usize)?;
    for chunk in whole.chunks(division.n_tiles() as u32) {
        evaluation.place(&mut rows, &chunk, |kind, row| given.row(kind, row), |k, row, to| given.probe(k, row, to))?;
        let request = Request { has_time: true, moves: true, scale: 1.0 / n.max(1) as f32 };
        let params = evaluation.sweep_params(&rows, &chunk, sums.address(), request);
        gradient_sweep.launch(device, precision, network, &params, (&evaluation.state, learner.parts()))?;
        let n_here = n.saturating_sub(chunk.first_tile as usize * TILE_ROWS).min(chunk.n_tiles as usize * TILE_ROWS);
        read_derivatives(device, &mut rows, n_here, dim, &mut result.interior)?;
    }
    result.loss = device.read(&sums, whole.n_tiles as usize)?.iter().map(|sums| sums.value).sum();
    result.gradient = learner.gradient(&evaluation.state)?.into_iter().map(f64::from).collect();
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Activation, Architecture, Coordinates, Head, TimeEmbedding, initial_parameters};
    use crate::objective::Objective;

    /// Blocks that go from tile to tile, chunks one after the other, sums in shared memory or
    /// spilled: the same gradient but for the order of sums, and where that is the same, too, the
    /// same bits.
    #[test]
    fn every_division_has_the_same_gradient() {
        let device = Device::open(0).expect("a device: build vgpu, and put it on the library path as libcuda.so");
        let (dim, n, n0, n1) = (5, 700, 300, 130);
        for hidden in [vec![40, 64, 20], vec![72, 40]] {
            let architecture = Architecture {
                dim,
                hidden,
                activation: Activation::Gelu,
                head: Head::Quadratic,
                time_embedding: TimeEmbedding::Raw,
            };
            let model = Model {
                parameters: initial_parameters(&architecture, 3),
                coordinates: Coordinates::identity(dim),
                objective: Objective { sigma: 0.7, ..Objective::default() },
                architecture,
            };
            let numbers = |n: usize, k: usize| (0..n).map(|i| ((i * k + 7) % 1013) as f64 / 500.0 - 1.0).collect();
            let batch = Batch {
                x: numbers(n * dim, 617),
                t: (0..n).map(|i| (i as f64 + 0.5) / n as f64).collect(),
                omega: vec![1.0; n],
                d_omega: vec![0.0; n],
                x0: numbers(n0 * dim, 389),
                x1: numbers(n1 * dim, 211),
                omega0: 1.0,
                omega1: 1.0,
                probe: Some(numbers(2 * n * dim, 101)),
            };
            let with =
                |means| scaled_loss_gradient(&device, Precision::Bf16, &model, &batch, 1.0, means).expect("sweeps");
            let whole = with(Means::default());
            let is_narrow = Network::new(&model.architecture).is_narrow();
            for (rows, slots) in [(2, 2), (3, 3), (11, 3), (4, 1)] {
                let extent = Extent { rows: rows * TILE_ROWS, slots: slots * TILE_ROWS };
                let division =
                    if is_narrow { Division::of_blocks(extent) } else { Division::of_rows(rows * TILE_ROWS) };
                let near = with(Means { division: Some(division), most_near: None });
                assert_eq!(near.loss, whole.loss);
                assert_eq!(near.interior, whole.interior);
                let size = whole.gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
                let off = near.gradient.iter().zip(&whole.gradient).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
                assert!(off < 2e-6 * size, "{rows} tiles at a time, {slots} slots: {off} of {size}");
                for most_near in [0, 2] {
                    let far = with(Means { division: Some(division), most_near: Some(most_near) });
                    assert_eq!(far.gradient, near.gradient, "{most_near} layers on the chip");
                }
            }
        }
    }
}
