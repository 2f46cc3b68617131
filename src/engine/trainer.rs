//! The steps that an engine takes, and their records.

use crate::error::{Error, Result};
use crate::model::{Coordinates, Model};
use crate::training::{TrainState, Training};

/// Report of one optimizer step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepRecord {
    /// Index of the step, from 0.
    pub step: u64,
    /// The loss.
    pub loss: f64,
    /// ω(0) E[s(x, 0)]; of [`Estimator::Weak`], E_{q_a}[s̄] over the parts.
    ///
    /// [`Estimator::Weak`]: crate::training::Estimator::Weak
    pub boundary0: f64,
    /// −ω(1) E[s(x, 1)]; of [`Estimator::Weak`], −E_{q_b}[s̄].
    ///
    /// [`Estimator::Weak`]: crate::training::Estimator::Weak
    pub boundary1: f64,
    /// The mean over interior rows: E[ω (∂ₜs + H(∇s) + …) + ω′ s] of
    /// [`Estimator::Action`](crate::training::Estimator::Action).
    pub interior: f64,
    /// E[½‖∇s‖²] over the interior rows: the kinetic energy.
    pub kinetic: f64,
    /// Global gradient norm before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
}

impl StepRecord {
    /// [`Error::NotFinite`] for a step whose loss or gradient norm is not finite: what its trainer
    /// returns.
    pub(crate) fn check(&self) -> Result<()> {
        let what = match (self.loss.is_finite(), self.gradient_norm.is_finite()) {
            (true, true) => return Ok(()),
            (false, _) => "the loss",
            (true, false) => "the gradient",
        };
        let fix = "lower the learning rate, warm up over more steps, or check the data for outliers";
        Err(Error::NotFinite { what, step: self.step, fix })
    }
}

/// Receives the records of steps, in order: `()` drops them, a `Vec` keeps them, and a closure is
/// called with each.
///
/// ```
/// use action_matching::engine::{Records, StepRecord};
///
/// fn two(records: &mut dyn Records) {
///     (0..2).for_each(|step| records.push(StepRecord { step, ..StepRecord::default() }));
/// }
/// let (mut all, mut last) = (Vec::new(), None);
/// two(&mut all);
/// two(&mut |record: StepRecord| last = Some(record.step));
/// two(&mut ());
/// assert_eq!((all.len(), last), (2, Some(1)));
/// ```
pub trait Records {
    /// Receives the record of one step.
    fn push(&mut self, record: StepRecord);
}

impl Records for () {
    fn push(&mut self, _record: StepRecord) {}
}

impl Records for Vec<StepRecord> {
    fn push(&mut self, record: StepRecord) {
        Vec::push(self, record);
    }
}

impl<F: FnMut(StepRecord)> Records for F {
    fn push(&mut self, record: StepRecord) {
        self(record);
    }
}

/// Draws batches and takes optimizer steps.
pub trait Trainer: Send {
    /// Takes `n` steps; `records` receives one record for each.
    ///
    /// # Errors
    /// [`Error::NotFinite`] after the first step whose loss or gradient norm is not finite. Its
    /// record is the last one, and the parameters are those before it. [`Error::Device`] if a
    /// device fails.
    fn steps(&mut self, n: u64, records: &mut dyn Records) -> Result<()>;

    /// Announces that [`Trainer::steps`] is called next, for `n` steps: a device may start with
    /// them, and the host does not wait, so that several trainers work at once. The steps are the
    /// same without it.
    ///
    /// # Errors
    /// [`Error::Device`] if a device fails.
    fn begin(&mut self, n: u64) -> Result<()> {
        let _ = n;
        Ok(())
    }

    /// The settings that it trains with.
    fn training(&self) -> &Training;

    /// A copy of the parameters and optimizer state.
    ///
    /// # Errors
    /// [`Error::Device`] when a device no longer answers.
    fn state(&self) -> Result<TrainState>;

    /// The model so far: the moving average of the parameters. `coordinates` are those that took
    /// the data to the snapshots of the path, as [`Snapshots::standardize`] returns them.
    ///
    /// [`Snapshots::standardize`]: crate::data::Snapshots::standardize
    ///
    /// # Errors
    /// [`Error::Shape`] if `coordinates` are of another dimension; [`Error::Device`] as
    /// [`Trainer::state`].
    fn model(&self, coordinates: Coordinates) -> Result<Model> {
        let Training { architecture, objective, .. } = self.training();
        let (architecture, objective) = (architecture.clone(), objective.clone());
        let TrainState { action, growth, .. } = self.state()?;
        let growth_head = growth.map(|growth| growth.ema);
        let model = Model { architecture, coordinates, objective, parameters: action.ema, growth_head };
        model.validate()?;
        Ok(model)
    }
}
