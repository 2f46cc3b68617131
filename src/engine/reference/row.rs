//! The four sweeps for one row in f64, written like the mathematics; nothing is fused or shared
//! with other engines.
//!
//! Primal: z = W a + b, a = f(z). Reverse: δ = ∂s/∂z. Tangent: (c, e) along the drift w, which is
//! held constant, and the probe ε. Adjoint: z̄, ē of ω J + (ωλs + ω′) s. Its parameter gradient is
//! that of the loss, because w·d∇s is the derivative of ½‖∇s‖² (w held constant).

use super::activation::orders;
use crate::model::{Architecture, Head, Layer};
use crate::objective::Objective;

/// One network in f64.
pub struct Network<'a> {
    pub architecture: &'a Architecture,
    pub layers: Vec<Layer>,
    pub parameters: Vec<f64>,
}

/// Primal and reverse sweeps of one row.
pub struct Row {
    /// φ′(t).
    d_phi: Vec<f64>,
    /// Inputs of each layer: a₀, a₁, ….
    a: Vec<Vec<f64>>,
    /// [f, f′, f″, f‴] at each hidden layer's z.
    f: Vec<Vec<[f64; 4]>>,
    /// δ of each layer's z; the last is ∂s/∂o.
    delta: Vec<Vec<f64>>,
    /// Wᵀδ at each layer's input.
    back: Vec<Vec<f64>>,
    pub s: f64,
    pub grad_s: Vec<f64>,
    pub ds_dt: f64,
}

/// Weights of the loss at an interior row.
pub struct InteriorWeights {
    pub omega: f64,
    pub d_omega: f64,
    /// Multiplies everything: 1 / rows.
    pub scale: f64,
}

impl Network<'_> {
    fn weight(&self, layer: &Layer) -> &[f64] {
        &self.parameters[layer.weight..layer.bias]
    }

    /// W v.
    fn forward(&self, layer: &Layer, v: &[f64]) -> Vec<f64> {
        let rows = self.weight(layer).chunks_exact(layer.n_in);
        rows.map(|row| row.iter().zip(v).map(|(w, v)| w * v).sum()).collect()
    }

    /// Wᵀ u.
    fn backward(&self, layer: &Layer, u: &[f64]) -> Vec<f64> {
        let mut result = vec![0.0; layer.n_in];
        for (row, u) in self.weight(layer).chunks_exact(layer.n_in).zip(u) {
            for (result, w) in result.iter_mut().zip(row) {
                *result += w * u;
            }
        }
        result
    }

    /// Primal and reverse sweeps at (x, t) under the condition inputs `c`.
    pub fn row(&self, x: &[f64], t: f64, c: &[f64]) -> Row {
        let Architecture { dim, activation, head, ref time_embedding, .. } = *self.architecture;
        let mut d_phi = vec![0.0; time_embedding.width()];
        let mut input = [x, &d_phi, c].concat();
        time_embedding.for_each(t, |i, phi, slope| {
            input[dim + i] = phi;
            d_phi[i] = slope;
        });

        let (mut a, mut f) = (vec![input], Vec::new());
        let mut output = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let bias = &self.parameters[layer.bias..layer.bias + layer.n_out];
            let z: Vec<f64> = self.forward(layer, &a[index]).iter().zip(bias).map(|(z, b)| z + b).collect();
            if index + 1 == self.layers.len() {
                output = z;
            } else {
                let orders: Vec<_> = z.iter().map(|&z| orders(activation, z)).collect();
                a.push(orders.iter().map(|f| f[0]).collect());
                f.push(orders);
            }
        }

        let (s, seed, direct): (f64, Vec<f64>, Vec<f64>) = match head {
            Head::Scalar => (output[0], vec![1.0], vec![0.0; dim]),
            Head::Quadratic => {
                let r: Vec<f64> = x.iter().zip(&output).map(|(x, o)| x - o).collect();
                (0.5 * dot(&r, &r), r.iter().map(|r| -r).collect(), r)
            }
            Head::Dot => (dot(&output, x), x.to_vec(), output.clone()),
        };

        let mut delta = vec![seed];
        let mut back = Vec::new();
        for (index, layer) in self.layers.iter().enumerate().rev() {
            let through = self.backward(layer, &delta[0]);
            if index > 0 {
                delta.insert(0, through.iter().zip(&f[index - 1]).map(|(u, f)| u * f[1]).collect());
            }
            back.insert(0, through);
        }
        let grad_s = (0..dim).map(|i| back[0][i] + direct[i]).collect();
        let ds_dt = dot(&back[0][dim..][..d_phi.len()], &d_phi);
        Row { d_phi, a, f, delta, back, s, grad_s, ds_dt }
    }

    /// Returns εᵀ∇²s ε. If `gradient` is given, adds the parameter gradient of `weights.scale`·(ω J
    /// + (ωλs + ω′) s) to it, with J = ∂ₜs + w·∇s + κ εᵀ∇²s ε.
    ///
    /// `kappa` is ½σ², `probe` ε, `drift` w.
    #[allow(clippy::too_many_arguments)]
    pub fn generator(
        &self,
        row: &Row,
        drift: &[f64],
        probe: &[f64],
        kappa: f64,
        growth: f64,
        weights: &InteriorWeights,
        gradient: Option<&mut [f64]>,
    ) -> f64 {
        let head = self.architecture.head;
        // Conditions do not change along a path: their tangents are 0.
        let still = |n: usize| vec![0.0; n];
        let mut c = vec![[drift, &row.d_phi[..], &still(self.architecture.conditions)].concat()];
        let mut e = vec![[probe, &still(row.d_phi.len() + self.architecture.conditions)].concat()];
        let (mut c_z, mut e_z) = (Vec::new(), Vec::new());
        // Σ over hidden units of (Wᵀδ) f″ e_z²: the contribution of the hidden layers to εᵀ∇²s ε.
        let mut curvature = 0.0;
        for (index, layer) in self.layers.iter().enumerate() {
            let (c_out, e_out) = (self.forward(layer, &c[index]), self.forward(layer, &e[index]));
            if let Some(f) = row.f.get(index) {
                c.push((0..c_out.len()).map(|j| f[j][1] * c_out[j] + kappa * f[j][2] * e_out[j] * e_out[j]).collect());
                e.push((0..e_out.len()).map(|j| f[j][1] * e_out[j]).collect());
                let back = &row.back[index + 1];
                curvature += (0..e_out.len()).map(|j| back[j] * f[j][2] * e_out[j] * e_out[j]).sum::<f64>();
            }
            c_z.push(c_out);
            e_z.push(e_out);
        }
        let last = self.layers.len() - 1;
        let (o_c, o_e) = (&c_z[last], &e_z[last]);
        let n_out = o_c.len();
        let each = |value: &dyn Fn(usize) -> f64| (0..n_out).map(value).collect::<Vec<f64>>();
        // The output layer's contribution is the curvature of the head: d²s = o̅·d²o + (head
        // terms).
        let (probe_hess, o_bar, o_e_bar) = match head {
            Head::Scalar => (curvature, vec![0.0], vec![0.0]),
            Head::Quadratic => {
                let r_e = each(&|i| probe[i] - o_e[i]);
                (curvature + dot(&r_e, &r_e), each(&|i| o_c[i] - drift[i]), each(&|i| -2.0 * kappa * r_e[i]))
            }
            Head::Dot => (curvature + 2.0 * dot(probe, o_e), drift.to_vec(), each(&|i| 2.0 * kappa * probe[i])),
        };
        let Some(gradient) = gradient else { return probe_hess };

        let omega = weights.scale * weights.omega;
        let on_potential = weights.scale * (weights.omega * growth * row.s + weights.d_omega);
        let mut z_bar = each(&|i| omega * o_bar[i] + on_potential * row.delta[last][i]);
        let mut e_z_bar = each(&|i| omega * o_e_bar[i]);
        for (index, layer) in self.layers.iter().enumerate().rev() {
            let omega_delta: Vec<f64> = row.delta[index].iter().map(|delta| omega * delta).collect();
            add_outer(&mut gradient[layer.weight..layer.bias], &z_bar, &row.a[index]);
            add_outer(&mut gradient[layer.weight..layer.bias], &omega_delta, &c[index]);
            add_outer(&mut gradient[layer.weight..layer.bias], &e_z_bar, &e[index]);
            for (sum, z_bar) in gradient[layer.bias..].iter_mut().zip(&z_bar) {
                *sum += z_bar;
            }
            if index > 0 {
                let (a_bar, e_a_bar) = (self.backward(layer, &z_bar), self.backward(layer, &e_z_bar));
                let (f, c_z, e_z) = (&row.f[index - 1], &c_z[index - 1], &e_z[index - 1]);
                let c_a_bar = |j: usize| omega * row.back[index][j];
                z_bar = (0..a_bar.len())
                    .map(|j| {
                        f[j][1] * a_bar[j]
                            + c_a_bar(j) * (f[j][2] * c_z[j] + kappa * f[j][3] * e_z[j] * e_z[j])
                            + e_a_bar[j] * f[j][2] * e_z[j]
                    })
                    .collect();
                e_z_bar = (0..e_a_bar.len())
                    .map(|j| f[j][1] * e_a_bar[j] + 2.0 * kappa * c_a_bar(j) * f[j][2] * e_z[j])
                    .collect();
            }
        }
        probe_hess
    }

    /// Adds the parameter gradient of `weight`·s.
    pub fn potential_gradient(&self, row: &Row, weight: f64, gradient: &mut [f64]) {
        for (index, layer) in self.layers.iter().enumerate() {
            let z_bar: Vec<f64> = row.delta[index].iter().map(|delta| weight * delta).collect();
            add_outer(&mut gradient[layer.weight..layer.bias], &z_bar, &row.a[index]);
            for (sum, z_bar) in gradient[layer.bias..].iter_mut().zip(&z_bar) {
                *sum += z_bar;
            }
        }
    }
}

/// H(p) and ∇H(p), H(p) = Σ|pᵢ|^q / q. Written anew, not taken from `Objective::hamiltonian`, which
/// this engine checks.
pub fn hamiltonian(objective: &Objective, p: &[f64]) -> (f64, Vec<f64>) {
    let q = objective.cost_exponent;
    let value = p.iter().map(|p| p.abs().powf(q) / q).sum();
    (value, p.iter().map(|p| p.abs().powf(q - 1.0).copysign(*p)).collect())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// sum += u vᵀ, row-major.
fn add_outer(sum: &mut [f64], u: &[f64], v: &[f64]) {
    for (row, u) in sum.chunks_exact_mut(v.len()).zip(u) {
        for (sum, v) in row.iter_mut().zip(v) {
            *sum += u * v;
        }
    }
}
