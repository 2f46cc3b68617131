//! Derivatives, loss and gradient on points that the caller gives: the sweeps of training on rows from the host.

use std::sync::Arc;

use super::device::{Buffer, Device};
use super::launch::{GradChunk, SweepParams, sweep, weight_grad};
use super::learner::Learner;
use super::network::Network;
use super::params::{BatchParams, PartKind, StepState, TILE_ROWS, TileSums};
use super::precision::Precision;
use super::workspace::{RowNeeds, Rows, chunk_rows};
use crate::engine::{Batch, Derivatives, LossGradient, NetworkState};
use crate::error::Result;
use crate::model::Model;

/// Largest loss scale of f16: a power of two that keeps small gradients in range.
const LOSS_SCALE: f32 = 65_536.0;

/// A model on the device, with what its sweeps need.
struct Evaluation<'a> {
    device: &'a Device,
    precision: Precision,
    model: &'a Model,
    network: Network,
    weights: Buffer<u8>,
    biases: Buffer<f32>,
    state: Buffer<StepState>,
}

/// What a sweep over given rows is asked for.
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

impl<'a> Evaluation<'a> {
    fn new(device: &'a Device, precision: Precision, model: &'a Model) -> Result<Self> {
        let network = Network::new(&model.architecture);
        let (weights, biases) = network.pack(&model.parameters, precision);
        let loss_scale = if precision == Precision::F16 { LOSS_SCALE } else { 1.0 };
        let state = StepState { apply: 1, loss_scale, ..StepState::default() };
        Ok(Evaluation {
            weights: device.upload(&weights)?,
            biases: device.upload(&biases)?,
            state: device.upload(&[state])?,
            device,
            precision,
            model,
            network,
        })
    }

    /// The arguments of a sweep over `chunk`.
    fn sweep_params(&self, rows: &Rows, chunk: &BatchParams, sums: u64, request: Request) -> SweepParams {
        let objective = &self.model.objective;
        SweepParams {
            network: self.network.params,
            rows: *rows.params(),
            batch: *chunk,
            weights: self.weights.address(),
            biases: self.biases.address(),
            state: self.state.address(),
            sums,
            moments: 0,
            growth: objective.growth as f32,
            cost_exponent: objective.cost_exponent as f32,
            scale: request.scale,
            has_time: u32::from(request.has_time),
            moves: u32::from(request.moves),
            has_velocity: 0,
            with_potential: 1,
            with_grad_x: 0,
        }
    }

    /// Places the rows of `chunk` that `given` knows; others weigh nothing. `probes(k, row)` is the probe k of an interior row.
    fn place<'r>(
        &self,
        rows: &mut Rows,
        chunk: &BatchParams,
        given: impl Fn(u32, usize) -> GivenRow<'r>,
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
            if kind == PartKind::Interior as u32 {
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
            rows.write(self.device, address, bytemuck::cast_slice(values))?;
        }
        rows.write(self.device, at.a, &self.precision.encode(&a))?;
        for (k, values) in probes.iter().enumerate() {
            let start = k * self.network.params.places as usize * capacity * self.precision.bytes();
            rows.write_at(self.device, at.e_a, start, &self.precision.encode(values))?;
        }
        Ok(())
    }
}

/// s, ∇s, ∂ₜs of the first `n` rows of a chunk that was swept, behind what `to` holds.
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
    let evaluation = Evaluation::new(device, precision, model)?;
    let (dim, n) = (model.architecture.dim, t.len());
    let mut all = Derivatives::default();
    let whole = BatchParams::of(&[(PartKind::Interior, n)]);
    let needs = RowNeeds::default();
    let n_rows = chunk_rows(&evaluation.network, precision, needs, n);
    let mut rows = Rows::new(device, &evaluation.network, precision, needs, n_rows)?;
    let sums = device.allocate::<TileSums>(whole.n_tiles as usize)?;
    for chunk in whole.chunks((n_rows / TILE_ROWS) as u32) {
        let given = |_, row: usize| GivenRow {
            x: &x[row * dim..][..dim],
            t: t[row],
            weight: 0.0,
            on_potential: 0.0,
            kappa: 0.0,
        };
        evaluation.place(&mut rows, &chunk, given, |_, _, _| {})?;
        let request = Request { has_time: true, moves: true, scale: 1.0 };
        sweep(device, precision, &evaluation.sweep_params(&rows, &chunk, sums.address(), request))?;
        let n_here = (n - chunk.first_tile as usize * TILE_ROWS).min(chunk.n_tiles as usize * TILE_ROWS);
        read_derivatives(device, &mut rows, n_here, dim, &mut all)?;
    }
    Ok(all)
}

/// [`Differentiate::loss_gradient`](crate::engine::Differentiate).
pub fn loss_gradient(device: &Arc<Device>, precision: Precision, model: &Model, batch: &Batch) -> Result<LossGradient> {
    let evaluation = Evaluation::new(device, precision, model)?;
    let network = &evaluation.network;
    let (dim, n) = (model.architecture.dim, batch.t.len());
    let [n0, n1] = [&batch.x0, &batch.x1].map(|points| points.len() / dim);
    let (n_probes, per_probe) = match &batch.probe {
        _ if model.objective.sigma == 0.0 || n == 0 => (0, 1.0),
        Some(probe) => (probe.len() / (n * dim), (n * dim) as f64 / probe.len() as f64),
        None => (dim, 1.0),
    };
    let whole = BatchParams::of(&[(PartKind::Interior, n), (PartKind::Boundary0, n0), (PartKind::Boundary1, n1)]);
    let needs = RowNeeds { n_probes, grad_x: false };
    let n_rows = chunk_rows(network, precision, needs, whole.n_tiles as usize * TILE_ROWS);
    let mut rows = Rows::new(device, network, precision, needs, n_rows)?;
    let sums = device.allocate::<TileSums>(whole.n_tiles as usize)?;
    let tiles_per_part = (n_rows / TILE_ROWS).div_ceil(4);
    let n_parts = (n_rows / TILE_ROWS).div_ceil(tiles_per_part);
    let optimizer_state = NetworkState::initial(model.parameters.clone());
    let learner = Learner::new(device, network.clone(), &optimizer_state, precision, n_parts, 1.0)?;

    let probe = |k: usize, row: usize, to: &mut [f32]| match &batch.probe {
        Some(probe) => {
            let from = &probe[(k * n + row) * dim..][..dim];
            to.iter_mut().zip(from).for_each(|(to, &from)| *to = from as f32);
        }
        None => to[k] = 1.0,
    };
    let mut result = LossGradient::default();
    for chunk in whole.chunks((n_rows / TILE_ROWS) as u32) {
        let given = |kind: u32, row: usize| -> GivenRow {
            let point = row * dim..(row + 1) * dim;
            if kind == PartKind::Interior as u32 {
                let t = f64::from(batch.t[row] as f32);
                let kappa = model.objective.kappa_at(t) * per_probe;
                let (weight, on_potential) = (batch.omega[row], batch.d_omega[row]);
                GivenRow { x: &batch.x[point], t: batch.t[row], weight, on_potential, kappa }
            } else if kind == PartKind::Boundary0 as u32 {
                let weight = batch.omega0 / n0 as f64;
                GivenRow { x: &batch.x0[point], t: 0.0, weight, on_potential: 0.0, kappa: 0.0 }
            } else {
                let weight = -batch.omega1 / n1 as f64;
                GivenRow { x: &batch.x1[point], t: 1.0, weight, on_potential: 0.0, kappa: 0.0 }
            }
        };
        let n_interior =
            n.saturating_sub(chunk.first_tile as usize * TILE_ROWS).min(chunk.n_tiles as usize * TILE_ROWS);
        if n_probes > 0 && n_interior > 0 {
            // The Laplacian alone: the generator without drift or time, rows of weight 1.
            let plain = |kind: u32, row: usize| GivenRow { weight: 1.0, kappa: per_probe, ..given(kind, row) };
            evaluation.place(&mut rows, &chunk, plain, probe)?;
            let request = Request { has_time: false, moves: false, scale: 1.0 };
            sweep(device, precision, &evaluation.sweep_params(&rows, &chunk, sums.address(), request))?;
            let at = rows.params().generator;
            result.laplacian.extend(rows.read(device, at, n_interior)?.into_iter().map(f64::from));
        }
        evaluation.place(&mut rows, &chunk, given, probe)?;
        let request = Request { has_time: true, moves: true, scale: 1.0 / n.max(1) as f32 };
        sweep(device, precision, &evaluation.sweep_params(&rows, &chunk, sums.address(), request))?;
        let grad_chunk = GradChunk::of(&chunk, tiles_per_part);
        weight_grad(device, precision, network, &rows, (&evaluation.state, learner.parts()), &grad_chunk)?;
        read_derivatives(device, &mut rows, n_interior, dim, &mut result.interior)?;
    }
    result.loss = device.read(&sums, whole.n_tiles as usize)?.iter().map(|sums| sums.value).sum();
    result.gradient = learner.gradient(&evaluation.state)?.into_iter().map(f64::from).collect();
    Ok(result)
}
