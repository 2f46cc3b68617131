//! The growth head, a network of its own for growth, on the rows of the action. With the mass m
//! of a
//! row and the growth rate g = ṁ/m of its pair it descends m (g_θ − g)² / (2λ) less what does not
//! depend on it, (½ m g_θ² − ṁ g_θ) / λ.

use pulp::Simd;

use super::sweeps::{Keep, Sweeps};
use super::workspace::Workspace;

/// Rates g_θ of the rows in `work` as outputs of `head`.
pub fn rates<S: Simd>(sweeps: &Sweeps<S>, work: &Workspace, head: &mut Workspace, n_rows: usize) {
    for row in 0..n_rows {
        for i in 0..sweeps.architecture.n_inputs() {
            *head.a0.at_mut(row, i) = work.a0.at(row, i);
        }
    }
    sweeps.primal(head, n_rows, Keep::First);
    sweeps.output(head, n_rows);
}

/// Terms of the loss in `head.s` and the seeds of the adjoint sweep, from the rates of
/// [`rates`]. Takes the weights of s in `work`, −ṁ, which are 0 afterwards: growth is no term of
/// the
/// action then. `scale` is 1 / rows of the batch.
pub fn seed(work: &mut Workspace, head: &mut Workspace, n_rows: usize, growth: f64, scale: f32) {
    let per_growth = (1.0 / growth) as f32;
    for row in 0..n_rows {
        let rate = head.output.at(row, 0);
        let mass = per_growth * work.weight[row];
        let on_rate = per_growth * std::mem::take(&mut work.on_potential[row]);
        head.s[row] = (0.5 * mass * rate + on_rate) * rate;
        *head.output_bar.at_mut(row, 0) = scale * (mass * rate + on_rate);
    }
}
