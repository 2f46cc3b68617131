//! The loss over one tile: the sweeps that interior and boundary rows need, and the terms they add.

use pulp::Simd;

use super::head;
use super::sweeps::{Keep, Sweeps};
use super::workspace::Workspace;
use crate::engine::batch::{LossForm, Potential};
use crate::model::{Architecture, Head};
use crate::objective::Objective;

/// Sums over the rows of a tile, each already divided by the number of rows of the batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossTerms {
    /// ω(0) E[s(x, 0)], or its counterpart in another estimator.
    pub boundary0: f64,
    /// −ω(1) E[s(x, 1)], or its counterpart in another estimator.
    pub boundary1: f64,
    /// The mean over interior rows.
    pub interior: f64,
    /// E[½‖∇s‖²].
    pub kinetic: f64,
}

impl LossTerms {
    /// The loss.
    pub fn total(&self) -> f64 {
        self.boundary0 + self.boundary1 + self.interior
    }

    /// Adds the terms of another tile.
    pub fn add(&mut self, other: &LossTerms) {
        self.boundary0 += other.boundary0;
        self.boundary1 += other.boundary1;
        self.interior += other.interior;
        self.kinetic += other.kinetic;
    }
}

/// Sets the time of row `row` to `t`: φ(t) in the input, φ′(t) in `d_phi`. The caller sets x.
pub fn set_time(architecture: &Architecture, work: &mut Workspace, row: usize, t: f32) {
    let (dim, features) = (architecture.dim, architecture.time_embedding.width());
    work.t[row] = t;
    architecture.time_embedding.for_each(f64::from(t), |i, phi, d_phi| {
        *work.a0.at_mut(row, dim + i) = phi as f32;
        work.d_phi[row * features + i] = d_phi as f32;
    });
}

/// Sets the conditions of row `row`, the last inputs. Nothing else writes there, and their tangents
/// stay 0: a condition is constant along the path of a particle.
pub fn set_condition(architecture: &Architecture, work: &mut Workspace, row: usize, condition: &[f32]) {
    let first = architecture.dim + architecture.time_embedding.width();
    for (i, &c) in condition.iter().enumerate() {
        *work.a0.at_mut(row, first + i) = c;
    }
}

/// ∇s and ∂ₜs of the rows in `a0`, and s if it is needed.
pub fn derivatives<S: Simd>(sweeps: &Sweeps<S>, work: &mut Workspace, n_rows: usize, keep: Keep, s: Potential) {
    gradient(sweeps, work, n_rows, keep, s);
    head::time_derivative(sweeps.architecture.dim, work, n_rows);
}

/// ∇s of the rows in `a0`, and s if it is needed.
pub fn gradient<S: Simd>(sweeps: &Sweeps<S>, work: &mut Workspace, n_rows: usize, keep: Keep, s: Potential) {
    let (head, dim) = (sweeps.architecture.head, sweeps.architecture.dim);
    sweeps.primal(work, n_rows, keep);
    if s == Potential::Needed || head != Head::Scalar {
        sweeps.output(work, n_rows);
    }
    if s == Potential::Needed {
        head::potential(head, dim, work, n_rows);
    }
    head::seed(head, dim, work, n_rows);
    sweeps.reverse(work, n_rows, keep);
    head::gradient(head, dim, work, n_rows);
}

/// Settings of the interior terms.
#[derive(Clone, Copy)]
pub struct Interior<'a> {
    pub objective: &'a Objective,
    pub form: LossForm,
    /// 1 / rows of the batch.
    pub scale: f32,
    /// Weight of one probe's εᵀ∇²s ε in the Laplacian.
    pub probe_weight: f64,
}

/// Interior rows: primal, reverse and tangent sweeps and the seeds of the adjoint. Calls
/// `integrand(work, row, value)` with each row's term, without the Laplacian.
pub fn interior<S: Simd>(
    sweeps: &Sweeps<S>,
    Interior { objective, form, scale, probe_weight }: Interior,
    work: &mut Workspace,
    n_rows: usize,
    mut integrand: impl FnMut(&Workspace, usize, f32),
) -> LossTerms {
    let (architecture, dim) = (sweeps.architecture, sweeps.architecture.dim);
    let (has_drift, has_time) = (form.has_drift(), form.has_time());
    let growth = if has_drift { objective.growth as f32 } else { 0.0 };
    let weighs_potential = work.on_potential[..n_rows].iter().any(|&weight| weight != 0.0);
    let s = Potential::needed_if(growth != 0.0 || weighs_potential);
    if s == Potential::Unread {
        work.s[..n_rows].fill(0.0); // multiplied by λ and ω′ alone
    }
    let diffusive = !work.probes.is_empty();
    let keep = if diffusive { Keep::Third } else { Keep::Second };
    derivatives(sweeps, work, n_rows, keep, s);

    let features = architecture.time_embedding.width();
    let mut terms = LossTerms::default();
    let mut generator = 0.0;
    for row in 0..n_rows {
        let weight = work.weight[row] * scale;
        let (mut hamiltonian, mut kinetic, mut along, mut carried) = (0.0, 0.0, 0.0, 0.0);
        for i in 0..dim {
            let p = work.grad_s[row * dim + i];
            kinetic += 0.5 * p * p;
            let (h, mut direction) = if has_drift { objective.hamiltonian(p) } else { (0.0, 0.0) };
            hamiltonian += h;
            if form.has_velocity() {
                let u = work.velocity[row * dim + i];
                carried += u * p;
                direction -= u;
            }
            along += direction * p;
            *work.c0.at_mut(row, i) = weight * direction;
        }
        for i in 0..features {
            let d_phi = if has_time { work.d_phi[row * features + i] } else { 0.0 };
            *work.c0.at_mut(row, dim + i) = weight * d_phi;
        }
        let (s, ds_dt) = (work.s[row], if has_time { work.ds_dt[row] } else { 0.0 });
        let interior = ds_dt + hamiltonian - carried + 0.5 * growth * s * s;
        let value = work.weight[row] * interior + work.on_potential[row] * s;
        integrand(work, row, value);
        terms.interior += f64::from(value);
        terms.kinetic += f64::from(kinetic * work.sampling_weight[row]);
        if diffusive {
            let kappa = if has_drift { objective.kappa_at(f64::from(work.t[row])) } else { 0.0 };
            work.set_probe_weight(row, (f64::from(weight) * kappa * probe_weight) as f32);
            // The generator's ∂ₜs + w·∇s is already in the terms; the difference is the Laplacian.
            generator -= f64::from(weight * (ds_dt + along));
        }
    }
    terms.interior *= f64::from(scale);
    terms.kinetic *= f64::from(scale);

    sweeps.tangent(work, n_rows);
    if diffusive {
        generator += (0..n_rows).map(|row| f64::from(head::generator(architecture.head, dim, work, row))).sum::<f64>();
        terms.interior += generator;
        head::probe_seeds(architecture.head, dim, work, n_rows);
    }
    head::adjoint_seed(architecture.head, dim, work, n_rows, |work, row| {
        scale * (work.weight[row] * growth * work.s[row] + work.on_potential[row])
    });
    terms
}

/// Writes the gradient of each row's term with respect to its point to `grad_x`, after [`interior`]
/// and the adjoint sweeps of the hidden layers. As for the parameters, the drift counts as
/// constant.
pub fn gradient_at_points<S: Simd>(
    sweeps: &Sweeps<S>,
    objective: &Objective,
    work: &mut Workspace,
    n_rows: usize,
    scale: f32,
) {
    let (head, dim) = (sweeps.architecture.head, sweeps.architecture.dim);
    // Only the head's own part of the gradient of s is added: the adjoint sweep contains the
    // network's.
    let direct = |work: &Workspace, row: usize, i: usize| work.grad_s[row * dim + i] - work.input_grad.at(row, i);
    for row in 0..n_rows {
        let on_potential = scale * (work.weight[row] * objective.growth as f32 * work.s[row] + work.on_potential[row]);
        for i in 0..dim {
            work.grad_x[row * dim + i] =
                head::generator_slope(head, work, row, i) + on_potential * direct(work, row, i);
        }
    }
    sweeps.adjoint_to_input(work, n_rows);
    for row in 0..n_rows {
        for i in 0..dim {
            work.grad_x[row * dim + i] += work.input_grad.at(row, i);
        }
    }
}

/// Writes Σ εᵀ∇²s ε · `probe_weight` over the probes of each row in `a0` to `laplacian`: the
/// generator without drift and time.
pub fn laplacian<S: Simd>(
    sweeps: &Sweeps<S>,
    work: &mut Workspace,
    n_rows: usize,
    probe_weight: f64,
    laplacian: &mut [f64],
) {
    let (architecture, dim) = (sweeps.architecture, sweeps.architecture.dim);
    derivatives(sweeps, work, n_rows, Keep::Third, Potential::Unread);
    for row in 0..n_rows {
        for i in 0..architecture.n_inputs() {
            *work.c0.at_mut(row, i) = 0.0;
        }
        work.set_probe_weight(row, probe_weight as f32);
    }
    sweeps.tangent(work, n_rows);
    for (row, laplacian) in laplacian.iter_mut().enumerate().take(n_rows) {
        *laplacian = f64::from(head::generator(architecture.head, dim, work, row));
    }
}

/// Boundary rows: primal sweep and the adjoint seed weight · ∂s/∂o. Returns Σ weight · s.
pub fn boundary<S: Simd>(sweeps: &Sweeps<S>, work: &mut Workspace, n_rows: usize) -> f64 {
    let (head, dim) = (sweeps.architecture.head, sweeps.architecture.dim);
    sweeps.primal(work, n_rows, Keep::First);
    sweeps.output(work, n_rows);
    head::potential(head, dim, work, n_rows);
    head::seed(head, dim, work, n_rows);
    for row in 0..n_rows {
        for i in 0..head.n_outputs(dim) {
            *work.output_bar.at_mut(row, i) = work.weight[row] * work.seed.at(row, i);
        }
    }
    work.weight.iter().zip(&work.s).take(n_rows).map(|(&weight, &s)| f64::from(weight) * f64::from(s)).sum()
}
