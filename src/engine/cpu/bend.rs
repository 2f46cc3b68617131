//! The learned path (Neklyudov et al., A Computational Framework for Solving Wasserstein Lagrangian
//! Flows, ICML 2024). A second network bends straight lines, x = (1 − r) xₗ + r xᵣ + 2r(1 −
//! r)·net(t, xₗ, xᵣ), and ascends the loss that the action descends.

use pulp::Simd;

use super::sweeps::{Keep, Sweeps};
use super::workspace::Workspace;

/// Adds the displacement 2r(1 − r)·net of the pairs in `bend` to the points in `work`.
/// `bend.weight` holds 2r(1 − r).
pub fn displace<S: Simd>(sweeps: &Sweeps<S>, bend: &mut Workspace, work: &mut Workspace, n_rows: usize) {
    sweeps.primal(bend, n_rows, Keep::First);
    sweeps.output(bend, n_rows);
    let dim = sweeps.architecture.dim / 2;
    for row in 0..n_rows {
        for i in 0..dim {
            *work.a0.at_mut(row, i) += bend.weight[row] * bend.output.at(row, i);
        }
    }
}

/// Seeds the adjoint sweep of the second network with the gradient of the negative loss;
/// `work.grad_x` holds the gradient of the loss in x.
pub fn seed(work: &Workspace, bend: &mut Workspace, n_rows: usize, dim: usize) {
    for row in 0..n_rows {
        for i in 0..2 * dim {
            let slope = if i < dim { work.grad_x[row * dim + i] } else { 0.0 };
            *bend.output_bar.at_mut(row, i) = -bend.weight[row] * slope;
        }
    }
}
