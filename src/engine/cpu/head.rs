//! The head of the network on one tile: ∂s/∂o and s from the output o, ∇s and ∂ₜs from the reverse
//! sweep, and the adjoint seed of J.

use super::workspace::{ProbeEnds, Workspace};
use crate::model::Head;

/// Fills `seed` = ∂s/∂o from `output` and x.
pub fn seed(head: Head, dim: usize, work: &mut Workspace, n_rows: usize) {
    for row in 0..n_rows {
        for i in 0..head.n_outputs(dim) {
            *work.seed.at_mut(row, i) = match head {
                Head::Scalar => 1.0,
                Head::Quadratic => work.output.at(row, i) - work.a0.at(row, i),
                Head::Dot => work.a0.at(row, i),
            };
        }
    }
}

/// Fills `s` from `output` and x.
pub fn potential(head: Head, dim: usize, work: &mut Workspace, n_rows: usize) {
    for row in 0..n_rows {
        let (o, x) = (|i| work.output.at(row, i), |i| work.a0.at(row, i));
        work.s[row] = match head {
            Head::Scalar => o(0),
            Head::Quadratic => (0..dim).map(|i| 0.5 * (x(i) - o(i)) * (x(i) - o(i))).sum(),
            Head::Dot => (0..dim).map(|i| o(i) * x(i)).sum(),
        };
    }
}

/// Fills `grad_s` from `input_grad` and the head's own ∂s/∂x.
pub fn gradient(head: Head, dim: usize, work: &mut Workspace, n_rows: usize) {
    for row in 0..n_rows {
        for i in 0..dim {
            let direct = match head {
                Head::Scalar => 0.0,
                Head::Quadratic => work.a0.at(row, i) - work.output.at(row, i),
                Head::Dot => work.output.at(row, i),
            };
            work.grad_s[row * dim + i] = work.input_grad.at(row, i) + direct;
        }
    }
}

/// Fills `ds_dt` = (∂s/∂φ)·φ′(t).
pub fn time_derivative(dim: usize, work: &mut Workspace, n_rows: usize) {
    let features = work.d_phi.len() / work.capacity;
    for row in 0..n_rows {
        let d_phi = &work.d_phi[row * features..][..features];
        work.ds_dt[row] = d_phi.iter().enumerate().map(|(i, d)| work.input_grad.at(row, dim + i) * d).sum();
    }
}

/// The generator of a row, from the output of the tangent and of the probes: weight·(∂ₜs + w·∇s) +
/// k Σ εᵀ∇²s ε.
pub fn generator(head: Head, dim: usize, work: &Workspace, row: usize) -> f32 {
    let o_c = |i| work.output_c.at(row, i);
    let k = work.probe_weight.at(row, 0);
    let over_probes = |term: &dyn Fn(f32, f32) -> f32| -> f32 {
        let of_probe =
            |ends: &ProbeEnds| (0..dim).map(|i| term(ends.input.at(row, i), ends.output.at(row, i))).sum::<f32>();
        work.probes.iter().map(of_probe).sum()
    };
    match head {
        Head::Scalar => o_c(0),
        Head::Quadratic => {
            let along: f32 = (0..dim).map(|i| -work.seed.at(row, i) * (work.c0.at(row, i) - o_c(i))).sum();
            along + k * over_probes(&|epsilon, o_e| (epsilon - o_e) * (epsilon - o_e))
        }
        Head::Dot => {
            let along: f32 =
                (0..dim).map(|i| o_c(i) * work.a0.at(row, i) + work.output.at(row, i) * work.c0.at(row, i)).sum();
            along + 2.0 * k * over_probes(&|epsilon, o_e| epsilon * o_e)
        }
    }
}

/// ∂J/∂xᵢ of a row through the head alone, scaled by the row's weight: the dependence of
/// [`generator`] on x that does not pass through the network.
pub fn generator_slope(head: Head, work: &Workspace, row: usize, i: usize) -> f32 {
    match head {
        Head::Scalar => 0.0,
        Head::Quadratic => work.c0.at(row, i) - work.output_c.at(row, i),
        Head::Dot => work.output_c.at(row, i),
    }
}

/// Replaces o_e of each probe by ē = ωō_e, the seed of its adjoint.
pub fn probe_seeds(head: Head, dim: usize, work: &mut Workspace, n_rows: usize) {
    for ends in &mut work.probes {
        for row in 0..n_rows {
            let k = work.probe_weight.at(row, 0);
            for i in 0..head.n_outputs(dim) {
                let seed = match head {
                    Head::Scalar => 0.0,
                    Head::Quadratic => -2.0 * k * (ends.input.at(row, i) - ends.output.at(row, i)),
                    Head::Dot => 2.0 * k * ends.input.at(row, i),
                };
                *ends.output.at_mut(row, i) = seed;
            }
        }
    }
}

/// Fills `output_bar` with weight · ō + `potential_weight[row]` · ∂s/∂o. Here ō = ∂J/∂o comes from
/// the drift in `c0` and the tangent output, both already scaled by the row's weight.
pub fn adjoint_seed(
    head: Head,
    dim: usize,
    work: &mut Workspace,
    n_rows: usize,
    potential_weight: impl Fn(&Workspace, usize) -> f32,
) {
    for row in 0..n_rows {
        let weight = potential_weight(work, row);
        for i in 0..head.n_outputs(dim) {
            let generator = match head {
                Head::Scalar => 0.0,
                Head::Quadratic => work.output_c.at(row, i) - work.c0.at(row, i),
                Head::Dot => work.c0.at(row, i),
            };
            *work.output_bar.at_mut(row, i) = generator + weight * work.seed.at(row, i);
        }
    }
}
