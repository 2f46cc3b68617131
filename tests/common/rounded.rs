//! The measure for low precision: loss, derivatives and parameter gradient by plain code in f64
//! that rounds where the kernels of the CUDA engine round. Its error against exact f64 is the error
//! that the type of the operands causes.
//!
//! T is the type of operands, S that of values that only elementwise code reads.
//!
//! | sweep | product | T | S |
//! |---|---|---|---|
//! | primal | z = W a + b | W, a₀ = (x, φ), a = f | f′, f″, f‴ |
//! | reverse | u = Wᵀ δ | δ = u f′ and its seed ∂s/∂o | h = u f″, u f‴ |
//! | probe tangent | e_z = W e | e₀ = ε, e_a = f′ e_z | e_z |
//! | tangent | c_z = W c | c₀, c_a = f′ c_z + k f″ Σe_z² | g = h c_z + k u f‴ Σe_z² |
//! | probe adjoint | ē_a = Wᵀ ē | ē = f′ ē_a + 2k h e_z and its seed | g += ē_a f″ e_z |
//! | adjoint | ā = Wᵀ z̄ | z̄ = f′ ā + g and its seed | |
//!
//! Sums are exact. c₀ and k contain the row's weight and the loss scale, and so do c, g, ē and z̄.
//! If T is not f32, they contain only the power of two of the factor 1 / n that the rows of a kind
//! share; the rest of it multiplies their sums. The gradient of the output's bias is the sum of the
//! seeds of z̄ before they are rounded. Heads use unrounded x, o and ∇s.

use action_matching::engine::{Batch, Derivatives, LossGradient};
use action_matching::model::{Activation, Architecture, Head, Layer, Model};
use action_matching::precision::Precision;
use half::{bf16, f16};

/// Rounding of values.
#[derive(Clone, Copy)]
pub struct Rounding {
    /// To T.
    pub operand: fn(f64) -> f64,
    /// To S.
    pub stored: fn(f64) -> f64,
    /// To the type of sums and of values from the host.
    pub single: fn(f64) -> f64,
    /// Largest relative error of one rounding to T.
    pub unit: f64,
    /// Initial factor of gradients: halved until they are finite.
    pub loss_scale: f64,
    /// If true, operands contain only the power of two of the factor that the rows of a kind share.
    pub splits: bool,
}

fn to_f32(v: f64) -> f64 {
    f64::from(v as f32)
}

/// To 10 bits of mantissa, to nearest, ties away from zero.
fn to_tf32(v: f64) -> f64 {
    f64::from(f32::from_bits(((v as f32).to_bits() + 0x1000) & !0x1fff))
}

fn to_bf16(v: f64) -> f64 {
    bf16::from_f32(v as f32).to_f64()
}

fn to_f16(v: f64) -> f64 {
    f16::from_f32(v as f32).to_f64()
}

impl Rounding {
    /// No rounding.
    pub const EXACT: Rounding =
        Rounding { operand: |v| v, stored: |v| v, single: |v| v, unit: 0.0, loss_scale: 1.0, splits: false };

    /// The rounding of the kernels for `precision`.
    pub fn of(precision: Precision) -> Rounding {
        let exact = Rounding { single: to_f32, ..Rounding::EXACT };
        let unit = |bits: i32| 0.5_f64.powi(bits);
        match precision {
            Precision::F32 => Rounding { operand: to_f32, stored: to_f32, unit: unit(24), ..exact },
            Precision::Tf32 => Rounding { operand: to_tf32, stored: to_f32, unit: unit(11), splits: true, ..exact },
            Precision::Bf16 => Rounding { operand: to_bf16, stored: to_bf16, unit: unit(8), splits: true, ..exact },
            Precision::F16 => {
                let scaled = Rounding { loss_scale: 65536.0, splits: true, ..exact };
                Rounding { operand: to_f16, stored: to_f16, unit: unit(11), ..scaled }
            }
            other => unimplemented!("{other:?}"),
        }
    }

    /// Factor of sums over `n` rows of weight 1 / n each.
    fn sum_scale(&self, n: usize) -> f64 {
        let share = (self.single)(1.0 / n as f64);
        if self.splits { share / share.log2().floor().exp2() } else { 1.0 }
    }

    /// `model` and `batch` with the rounded weights, points and probes that products use, so that
    /// any further error is that of the arithmetic.
    pub fn inputs(&self, model: &Model, batch: &Batch) -> (Model, Batch) {
        let (mut model, mut batch) = (model.clone(), batch.clone());
        for layer in model.architecture.layers() {
            for weight in &mut model.parameters[layer.weight..layer.bias] {
                *weight = (self.operand)(f64::from(*weight)) as f32;
            }
        }
        let points = [&mut batch.x, &mut batch.x0, &mut batch.x1, &mut batch.c, &mut batch.c0, &mut batch.c1];
        for values in points.into_iter().chain(batch.probe.as_mut()) {
            values.iter_mut().for_each(|v| *v = (self.operand)(*v));
        }
        // A raw time is a feature itself.
        batch.t.iter_mut().for_each(|t| *t = (self.operand)(*t));
        (model, batch)
    }
}

/// The result of the twin for a batch.
#[derive(Clone, Default)]
pub struct Rounded {
    /// The result.
    pub values: LossGradient,
    /// For each value the root of the sum of squares of its terms: an independent relative error ε
    /// of each term gives an error of ε times this, however much the terms cancel.
    pub terms: LossGradient,
}

/// Loss, derivatives and gradient of `batch` with the roundings of `rounding`, with the arguments
/// of [`Differentiate::loss_gradient`](action_matching::engine::Differentiate::loss_gradient).
pub fn loss_gradient(rounding: Rounding, model: &Model, batch: &Batch) -> Rounded {
    let mut scale = rounding.loss_scale;
    loop {
        let rounded = Twin::new(rounding, model).loss_gradient(model, batch, scale);
        // Operands beyond the range of f16 are infinite. The engine halves its scale in this case,
        // too.
        if rounded.values.gradient.iter().all(|g| g.is_finite()) || scale < 0.5_f64.powi(24) {
            return rounded;
        }
        scale *= 0.5;
    }
}

/// s, ∇s and ∂ₜs at points.
pub fn derivatives(rounding: Rounding, model: &Model, x: &[f64], t: &[f64]) -> Derivatives {
    let twin = Twin::new(rounding, model);
    let (mut all, mut terms) = (Derivatives::default(), Derivatives::default());
    for (x, &t) in x.chunks_exact(model.architecture.dim).zip(t) {
        twin.row(x, t).append_to(&mut all, &mut terms);
    }
    all
}

/// f, f′, f″, f‴ at `z`.
fn orders(activation: Activation, z: f64) -> [f64; 4] {
    let sigma = 1.0 / (1.0 + (-z).exp());
    let slope = sigma * (1.0 / (1.0 + z.exp()));
    let bend = slope * (1.0 - 2.0 * sigma);
    match activation {
        Activation::Silu => {
            let twist = slope * (1.0 - 6.0 * slope);
            [z * sigma, sigma + z * slope, 2.0 * slope + z * bend, 3.0 * bend + z * twist]
        }
        Activation::Tanh => {
            let (f, f1) = (z.tanh(), 1.0 / z.cosh().powi(2));
            [f, f1, -2.0 * f * f1, f1 * (6.0 * f * f - 2.0)]
        }
        Activation::Softplus => [z.max(0.0) + (-z.abs()).exp().ln_1p(), sigma, slope, bend],
        Activation::Gelu => {
            let distribution = 0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2);
            let density = (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
            [z * distribution, distribution + z * density, density * (2.0 - z * z), density * z * (z * z - 4.0)]
        }
        Activation::Sin => [z.sin(), z.cos(), -z.sin(), -z.cos()],
        other => unimplemented!("{other:?}"),
    }
}

/// A network with its weights rounded.
struct Twin<'a> {
    rounding: Rounding,
    architecture: &'a Architecture,
    layers: Vec<Layer>,
    parameters: Vec<f64>,
}

/// Primal and reverse sweeps of one row. In lists over hidden layers, layer l is at index l − 1.
struct Row<'a> {
    x: &'a [f64],
    d_phi: Vec<f64>,
    /// Inputs of each layer.
    a: Vec<Vec<f64>>,
    /// f′, f″ of each hidden layer.
    f1: Vec<Vec<f64>>,
    f2: Vec<Vec<f64>>,
    output: Vec<f64>,
    /// ∂s/∂o, unrounded.
    seed: Vec<f64>,
    /// δ of each layer.
    delta: Vec<Vec<f64>>,
    /// u f″ and u f‴ of each hidden layer.
    h: Vec<Vec<f64>>,
    u_f3: Vec<Vec<f64>>,
    s: f64,
    grad_s: Vec<f64>,
    ds_dt: f64,
    /// Sizes of the terms of s, ∇s and ∂ₜs.
    s_terms: f64,
    grad_s_terms: Vec<f64>,
    ds_dt_terms: f64,
}

/// Tangent sweeps of one row.
struct Tangents {
    /// For each layer's input; the k-th of `e` is that of probe k.
    c: Vec<Vec<f64>>,
    e: Vec<Vec<Vec<f64>>>,
    /// g of each hidden layer.
    g: Vec<Vec<f64>>,
    /// e_z of each probe and hidden layer.
    e_z: Vec<Vec<Vec<f64>>>,
    o_c: Vec<f64>,
    o_e: Vec<Vec<f64>>,
    /// weight·(∂ₜs + w·∇s) + k Σ εᵀ∇²s ε, and the size of its second-order terms.
    generator: f64,
    curvature_terms: f64,
}

fn each(n: usize, value: impl Fn(usize) -> f64) -> Vec<f64> {
    (0..n).map(value).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(values: &[f64]) -> f64 {
    dot(values, values).sqrt()
}

impl<'a> Twin<'a> {
    fn new(rounding: Rounding, model: &'a Model) -> Self {
        let layers = model.architecture.layers();
        let mut parameters: Vec<f64> = model.parameters.iter().map(|&p| f64::from(p)).collect();
        for layer in &layers {
            parameters[layer.weight..layer.bias].iter_mut().for_each(|weight| *weight = (rounding.operand)(*weight));
        }
        Twin { rounding, architecture: &model.architecture, layers, parameters }
    }

    /// W v, and the sizes of the terms.
    fn forward(&self, layer: usize, v: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let layer = &self.layers[layer];
        let rows = self.parameters[layer.weight..layer.bias].chunks_exact(layer.n_in);
        rows.map(|row| (dot(row, v), norm(&each(v.len(), |i| row[i] * v[i])))).unzip()
    }

    /// Wᵀ u, and the sizes of the terms.
    fn backward(&self, layer: usize, u: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let layer = &self.layers[layer];
        let (mut sums, mut squares) = (vec![0.0; layer.n_in], vec![0.0; layer.n_in]);
        for (row, u) in self.parameters[layer.weight..layer.bias].chunks_exact(layer.n_in).zip(u) {
            for ((sum, square), weight) in sums.iter_mut().zip(&mut squares).zip(row) {
                *sum += weight * u;
                *square += (weight * u).powi(2);
            }
        }
        (sums, squares.into_iter().map(f64::sqrt).collect())
    }

    fn row<'x>(&self, x: &'x [f64], t: f64) -> Row<'x> {
        let Rounding { operand, stored, single, .. } = self.rounding;
        let Architecture { dim, activation, head, ref time_embedding, .. } = *self.architecture;
        let last = self.layers.len() - 1;
        let mut d_phi = vec![0.0; time_embedding.width()];
        let mut a0 = [x, &d_phi].concat();
        time_embedding.for_each(t, |i, phi, slope| (a0[dim + i], d_phi[i]) = (single(phi), single(slope)));
        a0.iter_mut().for_each(|v| *v = operand(*v));

        let (mut a, mut f1, mut f2, mut f3) = (vec![a0], Vec::new(), Vec::new(), Vec::new());
        let z = |layer: usize, a: &[f64]| {
            let (mut z, mut terms) = self.forward(layer, a);
            for ((z, terms), bias) in z.iter_mut().zip(&mut terms).zip(&self.parameters[self.layers[layer].bias..]) {
                *z += bias;
                *terms = terms.hypot(*bias);
            }
            (z, terms)
        };
        for layer in 0..last {
            let of: Vec<[f64; 4]> = z(layer, &a[layer]).0.iter().map(|&z| orders(activation, z)).collect();
            let order = |k: usize, round: fn(f64) -> f64| each(of.len(), |j| round(of[j][k]));
            a.push(order(0, operand));
            f1.push(order(1, stored));
            f2.push(order(2, stored));
            f3.push(order(3, stored));
        }
        let (output, output_terms) = z(last, &a[last]);

        let (seed, direct) = match head {
            Head::Scalar => (vec![1.0], vec![0.0; dim]),
            Head::Quadratic => (each(dim, |i| output[i] - x[i]), each(dim, |i| x[i] - output[i])),
            Head::Dot => (x.to_vec(), output.clone()),
            other => unimplemented!("{other:?}"),
        };
        let (s, s_terms) = match head {
            Head::Scalar => (output[0], output_terms[0]),
            Head::Quadratic => (0.5 * dot(&direct, &direct), norm(&each(dim, |i| direct[i] * output_terms[i]))),
            Head::Dot => (dot(&output, x), norm(&each(dim, |i| x[i] * output_terms[i]))),
            other => unimplemented!("{other:?}"),
        };

        let mut delta = vec![each(seed.len(), |i| operand(seed[i]))];
        let (mut h, mut u_f3) = (Vec::new(), Vec::new());
        for layer in (1..=last).rev() {
            let (u, _) = self.backward(layer, &delta[0]);
            let product = |f: &[f64], round: fn(f64) -> f64| each(u.len(), |j| round(u[j] * f[j]));
            delta.insert(0, product(&f1[layer - 1], operand));
            h.insert(0, product(&f2[layer - 1], stored));
            u_f3.insert(0, product(&f3[layer - 1], stored));
        }
        let (through, through_terms) = self.backward(0, &delta[0]);
        let direct_terms = |i: usize| if head == Head::Scalar { 0.0 } else { output_terms[i] };
        Row {
            x,
            s,
            grad_s: each(dim, |i| through[i] + direct[i]),
            ds_dt: dot(&through[dim..], &d_phi),
            s_terms,
            grad_s_terms: each(dim, |i| through_terms[i].hypot(direct_terms(i))),
            ds_dt_terms: norm(&each(d_phi.len(), |i| through_terms[dim + i] * d_phi[i])),
            d_phi,
            a,
            f1,
            f2,
            output,
            seed,
            delta,
            h,
            u_f3,
        }
    }

    /// Sweeps along `c0` and the probes, each of weight `k`.
    fn tangents(&self, row: &Row, c0: &[f64], probes: &[&[f64]], k: f64) -> Tangents {
        let Rounding { operand, stored, .. } = self.rounding;
        let last = self.layers.len() - 1;
        let rounded = |v: &[f64]| each(v.len(), |i| operand(v[i]));
        let mut c = vec![rounded(c0)];
        let zeros = vec![0.0; row.d_phi.len()];
        let mut e: Vec<_> = probes.iter().map(|probe| vec![rounded(&[*probe, &zeros].concat())]).collect();
        let (mut g, mut e_z) = (Vec::new(), vec![Vec::new(); probes.len()]);
        let mut curvature_terms = 0.0f64;
        for layer in 0..last {
            let (f1, f2, h, u_f3) = (&row.f1[layer], &row.f2[layer], &row.h[layer], &row.u_f3[layer]);
            let mut squares = vec![0.0; f1.len()];
            for (e, e_z) in e.iter_mut().zip(&mut e_z) {
                let of_probe = self.forward(layer, &e[layer]).0;
                e.push(each(f1.len(), |j| operand(f1[j] * of_probe[j])));
                e_z.push(each(f1.len(), |j| stored(of_probe[j])));
                squares.iter_mut().zip(&e_z[layer]).for_each(|(square, e_z)| *square += e_z * e_z);
            }
            let c_z = self.forward(layer, &c[layer]).0;
            c.push(each(f1.len(), |j| operand(f1[j] * c_z[j] + k * f2[j] * squares[j])));
            g.push(each(f1.len(), |j| stored(h[j] * c_z[j] + k * u_f3[j] * squares[j])));
            curvature_terms = curvature_terms.hypot(norm(&each(f1.len(), |j| k * h[j] * squares[j])));
        }
        let o_c = self.forward(last, &c[last]).0;
        let o_e: Vec<Vec<f64>> = e.iter().map(|e| self.forward(last, &e[last]).0).collect();
        let over_probes = |term: &dyn Fn(f64, f64) -> f64| {
            let of_probe = |(probe, o_e): (&&[f64], &Vec<f64>)| probe.iter().zip(o_e).map(|(p, o)| term(*p, *o)).sum();
            probes.iter().zip(&o_e).map(of_probe).collect::<Vec<f64>>()
        };
        let (along, of_head) = match self.architecture.head {
            Head::Scalar => (o_c[0], vec![0.0]),
            Head::Quadratic => (
                -dot(&row.seed, &each(o_c.len(), |i| c0[i] - o_c[i])),
                over_probes(&|probe, o_e| k * (probe - o_e).powi(2)),
            ),
            Head::Dot => (dot(&o_c, row.x) + dot(&row.output, c0), over_probes(&|probe, o_e| 2.0 * k * probe * o_e)),
            other => unimplemented!("{other:?}"),
        };
        let generator = along + of_head.iter().sum::<f64>();
        Tangents { c, e, g, e_z, o_c, o_e, generator, curvature_terms: curvature_terms.hypot(norm(&of_head)) }
    }

    /// Adjoint sweeps from the seed `z_bar` of the output. Adds the row's term, times `sum_scale`,
    /// to `gradient`, and the squares of its terms to `squares`. Boundary rows have no tangents.
    fn adjoint(
        &self,
        row: &Row,
        tangents: Option<(&Tangents, &[&[f64]], f64)>,
        z_bar: &[f64],
        sum_scale: f64,
        (gradient, squares): (&mut [f64], &mut [f64]),
    ) {
        let Rounding { operand, stored, .. } = self.rounding;
        let seed = z_bar;
        let mut z_bar = each(seed.len(), |i| operand(seed[i]));
        // Seeds ē of the probes.
        let mut e_bar: Vec<Vec<f64>> = tangents.map_or(Vec::new(), |(tangents, probes, k)| {
            let seed_of = |(probe, o_e): (&&[f64], &Vec<f64>)| {
                each(o_e.len(), |i| {
                    operand(match self.architecture.head {
                        Head::Scalar => 0.0,
                        Head::Quadratic => -2.0 * k * (probe[i] - o_e[i]),
                        Head::Dot => 2.0 * k * probe[i],
                        other => unimplemented!("{other:?}"),
                    })
                })
            };
            probes.iter().zip(&tangents.o_e).map(seed_of).collect()
        });
        for (index, layer) in self.layers.iter().enumerate().rev() {
            let mut channels = vec![(&z_bar, &row.a[index])];
            if let Some((tangents, ..)) = tangents {
                channels.push((&row.delta[index], &tangents.c[index]));
                channels.extend(e_bar.iter().zip(&tangents.e).map(|(e_bar, e)| (e_bar, &e[index])));
            }
            for (adjoint, input) in channels {
                for (j, adjoint) in adjoint.iter().enumerate() {
                    for (i, input) in input.iter().enumerate() {
                        let place = layer.weight + j * layer.n_in + i;
                        let term = sum_scale * adjoint * input;
                        gradient[place] += term;
                        squares[place] += term * term;
                    }
                }
            }
            for (j, z_bar) in (if index + 1 == self.layers.len() { seed } else { &z_bar }).iter().enumerate() {
                let term = sum_scale * z_bar;
                gradient[layer.bias + j] += term;
                squares[layer.bias + j] += term * term;
            }
            let Some(hidden) = index.checked_sub(1) else { break };
            let (f1, f2, h) = (&row.f1[hidden], &row.f2[hidden], &row.h[hidden]);
            let mut g = vec![0.0; f1.len()];
            if let Some((tangents, _, k)) = tangents {
                g.clone_from(&tangents.g[hidden]);
                for (e_bar, e_z) in e_bar.iter_mut().zip(&tangents.e_z) {
                    let (e_a_bar, e_z) = (self.backward(index, e_bar).0, &e_z[hidden]);
                    g.iter_mut().enumerate().for_each(|(j, g)| *g = stored(*g + e_a_bar[j] * f2[j] * e_z[j]));
                    *e_bar = each(f1.len(), |j| operand(f1[j] * e_a_bar[j] + 2.0 * k * h[j] * e_z[j]));
                }
            }
            let a_bar = self.backward(index, &z_bar).0;
            z_bar = each(f1.len(), |j| operand(f1[j] * a_bar[j] + g[j]));
        }
    }

    fn loss_gradient(&self, model: &Model, batch: &Batch, loss_scale: f64) -> Rounded {
        let (objective, dim, head) = (&model.objective, self.architecture.dim, self.architecture.head);
        let single = self.rounding.single;
        let n = batch.t.len();
        let (mut values, mut terms) = (LossGradient::default(), LossGradient::default());
        values.gradient = vec![0.0; self.parameters.len()];
        terms.gradient = values.gradient.clone();
        let add_to_loss = |values: &mut LossGradient, terms: &mut LossGradient, of_row: &[f64]| {
            values.loss += of_row.iter().sum::<f64>();
            terms.loss = terms.loss.hypot(norm(of_row));
        };

        let unit: Vec<Vec<f64>> = (0..dim).map(|i| each(dim, |j| f64::from(u8::from(i == j)))).collect();
        for (index, x) in batch.x.chunks_exact(dim).enumerate() {
            let row = self.row(x, batch.t[index]);
            let (probes, per_probe): (Vec<&[f64]>, f64) = match &batch.probe {
                _ if objective.sigma == 0.0 => (Vec::new(), 0.0),
                Some(probe) => {
                    let of_row: Vec<_> =
                        probe.chunks_exact(n * dim).map(|probe| &probe[index * dim..][..dim]).collect();
                    let per_probe = 1.0 / of_row.len() as f64;
                    (of_row, per_probe)
                }
                None => (unit.iter().map(Vec::as_slice).collect(), 1.0),
            };
            let q = objective.cost_exponent;
            let drift: Vec<f64> = row.grad_s.iter().map(|p| p.abs().powf(q - 1.0).copysign(*p)).collect();
            let hamiltonian: f64 = row.grad_s.iter().map(|p| p.abs().powf(q) / q).sum();
            let sum_scale = self.rounding.sum_scale(n);
            let share = loss_scale / sum_scale;
            let weight = single(share * batch.omega[index] / n as f64);
            let on_potential = single(share * batch.d_omega[index] / n as f64);
            let k = single(weight * objective.kappa_at(batch.t[index]) * per_probe);

            let c0: Vec<f64> = drift.iter().chain(&row.d_phi).map(|v| weight * v).collect();
            let tangents = self.tangents(&row, &c0, &probes, k);
            let mut of_loss = vec![
                weight * row.ds_dt,
                weight * hamiltonian,
                weight * 0.5 * objective.growth * row.s * row.s,
                on_potential * row.s,
            ];
            if !probes.is_empty() {
                let along = weight * (row.ds_dt + dot(&drift, &row.grad_s));
                of_loss.extend([tangents.generator, -along]);
                let plain = self.tangents(&row, &vec![0.0; c0.len()], &probes, per_probe);
                values.laplacian.push(plain.generator);
                terms.laplacian.push(plain.curvature_terms);
            }
            of_loss.iter_mut().for_each(|term| *term /= share);
            add_to_loss(&mut values, &mut terms, &of_loss);

            let on_s = weight * objective.growth * row.s + on_potential;
            let z_bar = each(row.seed.len(), |i| {
                let of_generator = match head {
                    Head::Scalar => 0.0,
                    Head::Quadratic => tangents.o_c[i] - c0[i],
                    Head::Dot => c0[i],
                    other => unimplemented!("{other:?}"),
                };
                of_generator + on_s * row.seed[i]
            });
            let sums = (&mut values.gradient[..], &mut terms.gradient[..]);
            self.adjoint(&row, Some((&tangents, &probes, k)), &z_bar, sum_scale, sums);
            row.append_to(&mut values.interior, &mut terms.interior);
        }
        for (points, t, omega) in [(&batch.x0, 0.0, batch.omega0), (&batch.x1, 1.0, -batch.omega1)] {
            let n = points.len() / dim;
            let sum_scale = self.rounding.sum_scale(n.max(1));
            let share = loss_scale / sum_scale;
            let weight = single(share * omega / n as f64);
            for x in points.chunks_exact(dim) {
                let row = self.row(x, t);
                add_to_loss(&mut values, &mut terms, &[weight * row.s / share]);
                let z_bar = each(row.seed.len(), |i| weight * row.seed[i]);
                let sums = (&mut values.gradient[..], &mut terms.gradient[..]);
                self.adjoint(&row, None, &z_bar, sum_scale, sums);
            }
        }
        values.gradient.iter_mut().for_each(|g| *g /= loss_scale);
        terms.gradient.iter_mut().for_each(|square| *square = square.sqrt() / loss_scale);
        Rounded { values, terms }
    }
}

impl Row<'_> {
    fn append_to(self, values: &mut Derivatives, terms: &mut Derivatives) {
        values.s.push(self.s);
        values.grad_s.extend(self.grad_s);
        values.ds_dt.push(self.ds_dt);
        terms.s.push(self.s_terms);
        terms.grad_s.extend(self.grad_s_terms);
        terms.ds_dt.push(self.ds_dt_terms);
    }
}
