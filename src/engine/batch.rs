//! Policy that all engines share: the parts of a training batch, the terms of an interior row, the
//! probes of a given batch, and the words for what a launch or a sweep may leave out.

use super::{Batch, Estimator, Training};
use crate::density_path::End;
use crate::model::Model;

/// Consecutive rows of one kind in a training batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchPart {
    /// Points at times between the ends.
    Interior,
    /// Centering: the times of the interior rows at x = 0, with opposite weights.
    Center,
    /// Centering of the boundary: x = 0 at both ends, of each group.
    CenterEnds,
    /// Points at one end of time.
    Boundary(End),
    /// Points at one end of intervals of the weak form, each at both times of its interval.
    WeakEnds {
        /// Intervals between two snapshots.
        intervals: u32,
        /// The end.
        end: End,
    },
}

impl BatchPart {
    /// The parts of a batch and their numbers of rows. Interior-like parts come first: they take
    /// the most work, and some work is done on them only.
    pub fn of(training: &Training) -> Vec<(BatchPart, usize)> {
        let mut parts = vec![(BatchPart::Interior, training.n_interior)];
        match training.estimator {
            Estimator::Action { centering } => {
                if centering {
                    parts.push((BatchPart::Center, training.n_interior));
                }
                parts.extend(End::BOTH.map(|end| (BatchPart::Boundary(end), training.n_boundary)));
                if centering {
                    parts.push((BatchPart::CenterEnds, 2 * training.n_groups()));
                }
            }
            Estimator::Weak { intervals } => {
                let n_rows = 2 * training.n_boundary;
                parts.extend(End::BOTH.map(|end| (BatchPart::WeakEnds { intervals, end }, n_rows)));
            }
            Estimator::Regression => {}
        }
        parts
    }

    /// True if its rows have the interior term.
    pub fn is_interior(self) -> bool {
        matches!(self, BatchPart::Interior | BatchPart::Center)
    }
}

/// Terms of an interior row besides growth and Laplacian: its generator has the direction
/// (drift − velocity, time).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossForm {
    /// ∂ₜs + H(∇s): [`Estimator::Action`].
    Action,
    /// H(∇s): [`Estimator::Weak`].
    Weak,
    /// H(∇s) − u·∇s: [`Estimator::Regression`].
    Regression,
    /// ∂ₜs, without growth: the centering of [`Estimator::Action`].
    Centering,
    /// None: the Laplacian alone.
    Laplacian,
}

impl LossForm {
    /// The form of a training with `estimator`.
    pub fn of(estimator: Estimator) -> LossForm {
        match estimator {
            Estimator::Action { .. } => LossForm::Action,
            Estimator::Weak { .. } => LossForm::Weak,
            Estimator::Regression => LossForm::Regression,
        }
    }

    /// True if ∂ₜs is a term.
    pub fn has_time(self) -> bool {
        matches!(self, LossForm::Action | LossForm::Centering)
    }

    /// True if H(∇s), and with it the drift, is a term.
    pub fn has_drift(self) -> bool {
        !matches!(self, LossForm::Centering | LossForm::Laplacian)
    }

    /// True if u·∇s is a term.
    pub fn has_velocity(self) -> bool {
        matches!(self, LossForm::Regression)
    }
}

/// The value s of rows whose derivatives are formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Potential {
    /// Formed too.
    Needed,
    /// Nothing reads it: a scalar head takes one product less.
    Unread,
}

impl Potential {
    /// Needed if `is_read`.
    pub fn needed_if(is_read: bool) -> Potential {
        if is_read { Potential::Needed } else { Potential::Unread }
    }
}

/// Start of a sum of gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// Nothing: it overwrites the sum.
    Nothing,
    /// The values that the sum has.
    Sum,
}

/// Probes of the Laplacian at each interior row of a given batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchProbes {
    /// Their number; 0 without diffusion.
    pub n_probes: usize,
    /// Weight of one probe's εᵀ∇²s ε: given probes are averaged, unit vectors summed.
    pub weight: f64,
}

impl BatchProbes {
    /// The probes of `batch`, which is valid for `model`: those given, or else all unit vectors.
    pub fn of(model: &Model, batch: &Batch) -> BatchProbes {
        let (dim, n) = (model.architecture.dim, batch.t.len());
        let (n_probes, weight) = match &batch.probe {
            _ if model.objective.sigma == 0.0 || n == 0 => (0, 1.0),
            Some(probe) => (probe.len() / (n * dim), (n * dim) as f64 / probe.len() as f64),
            None => (dim, 1.0),
        };
        BatchProbes { n_probes, weight }
    }
}
