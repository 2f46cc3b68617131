//! The f64 reference: one row at a time, written like the mathematics, sharing no kernel with any
//! other engine.
//!
//! `amatch check --precision f64` runs it, and tests compare the engines with it.
//!
//! ```
//! use action_matching::engine::reference::ReferenceEngine;
//! use action_matching::prelude::*;
//!
//! // s = b·x, as the last bias of a `dot` head is b and all weights are 0.
//! let architecture = Architecture { head: Head::Dot, ..Architecture::new(2, [4]) };
//! let mut model = Model::initial(architecture, 0);
//! model.parameters.fill(0.0);
//! let n = model.parameters.len();
//! model.parameters[n - 2..].copy_from_slice(&[3.0, -1.0]);
//! let derivatives = ReferenceEngine.derivatives(&model, &[0.5, 2.0], &[0.1])?;
//! assert_eq!((derivatives.s, derivatives.grad_s), (vec![-0.5], vec![3.0, -1.0]));
//! # Ok::<(), Error>(())
//! ```

mod activation;
mod row;

use self::row::{InteriorWeights, Network, hamiltonian};
use super::{Batch, Derivatives, Differentiate, LossGradient};
use crate::error::{Result, check_len};
use crate::model::Model;

/// Derivatives and losses in float64. All dynamics; slow.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferenceEngine;

impl<'a> Network<'a> {
    fn new(model: &'a Model) -> Result<Self> {
        model.validate()?;
        Ok(Network {
            architecture: &model.architecture,
            layers: model.architecture.layers(),
            parameters: model.parameters.iter().map(|&p| f64::from(p)).collect(),
        })
    }
}

impl Differentiate for ReferenceEngine {
    fn derivatives(&self, model: &Model, x: &[f64], t: &[f64]) -> Result<Derivatives> {
        let network = Network::new(model)?;
        model.require_one_condition()?;
        check_len("x", t.len() * model.architecture.dim, x.len())?;
        let mut all = Derivatives::default();
        for (x, &t) in x.chunks_exact(model.architecture.dim).zip(t) {
            let row = network.row(x, t, &[]);
            all.s.push(row.s);
            all.grad_s.extend(row.grad_s);
            all.ds_dt.push(row.ds_dt);
        }
        Ok(all)
    }

    fn loss_gradient(&self, model: &Model, batch: &Batch) -> Result<LossGradient> {
        let network = Network::new(model)?;
        let (objective, dim, conditions) = (&model.objective, model.architecture.dim, model.architecture.conditions);
        objective.validate("objective")?;
        batch.validate(&model.architecture)?;

        let n = batch.t.len();
        let mut all = LossGradient { gradient: vec![0.0; model.parameters.len()], ..LossGradient::default() };
        for (index, x) in batch.x.chunks_exact(dim).enumerate() {
            let row = network.row(x, batch.t[index], &batch.c[index * conditions..][..conditions]);
            let kappa = objective.kappa_at(batch.t[index]);
            let (hamiltonian, drift) = hamiltonian(objective, &row.grad_s);
            // All probes of a row weigh the same. The exact Laplacian is d times the mean over unit
            // vectors.
            let (probes, kappa_each) = match &batch.probe {
                _ if objective.sigma == 0.0 => (vec![vec![0.0; dim]], 0.0),
                Some(probe) => {
                    let of_row = probe.chunks_exact(n * dim).map(|probe| probe[index * dim..][..dim].to_vec());
                    (of_row.collect(), kappa)
                }
                None => {
                    let unit = |i| (0..dim).map(|j| f64::from(u8::from(i == j))).collect();
                    ((0..dim).map(unit).collect::<Vec<Vec<f64>>>(), kappa * dim as f64)
                }
            };
            let weights = InteriorWeights {
                omega: batch.omega[index],
                d_omega: batch.d_omega[index],
                scale: 1.0 / (n * probes.len()) as f64,
            };
            let mut laplacian = 0.0;
            for probe in &probes {
                let gradient = Some(&mut all.gradient[..]);
                let probe_hess =
                    network.generator(&row, &drift, probe, kappa_each, objective.growth, &weights, gradient);
                // The exact Laplacian is the sum over unit vectors, an estimate the mean over
                // probes.
                laplacian += probe_hess / if batch.probe.is_some() { probes.len() as f64 } else { 1.0 };
            }
            let interior = row.ds_dt + hamiltonian + kappa * laplacian + 0.5 * objective.growth * row.s * row.s;
            all.loss += (batch.omega[index] * interior + batch.d_omega[index] * row.s) / n as f64;
            if objective.sigma > 0.0 {
                all.laplacian.push(laplacian);
            }
            all.interior.s.push(row.s);
            all.interior.grad_s.extend(row.grad_s);
            all.interior.ds_dt.push(row.ds_dt);
        }
        let ends = [(&batch.x0, &batch.c0, 0.0, batch.omega0), (&batch.x1, &batch.c1, 1.0, -batch.omega1)];
        for (points, c, t, omega) in ends {
            let weight = omega / (points.len() / dim) as f64;
            for (index, x) in points.chunks_exact(dim).enumerate() {
                let row = network.row(x, t, &c[index * conditions..][..conditions]);
                all.loss += weight * row.s;
                network.potential_gradient(&row, weight, &mut all.gradient);
            }
        }
        Ok(all)
    }
}
